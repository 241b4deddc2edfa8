/* kvm_probe_test.c - what a KVM costs, told from measurements that were disturbed. */
#include "engine/kvm/probe.h"

#include "check.h"

int main(void)
{
    const int64_t quiet[] = {30000, 31000, 30500}, long_quiet[] = {1030000, 1040000, 1030500};
    const int64_t delayed[] = {30000, 9000000, 8000000}, long_delayed[] = {5000000, 1030000, 7000000};
    CHECK_EQ(kvm_probe_difference(quiet, long_quiet, 3), 1000000);
    CHECK_EQ(kvm_probe_difference(delayed, long_quiet, 3), 1000000);
    CHECK_EQ(kvm_probe_difference(quiet, long_delayed, 3), 1000000);
    CHECK_EQ(kvm_probe_difference(delayed, long_delayed, 3), 1000000);
    CHECK_EQ(kvm_probe_difference(long_quiet, quiet, 3), 0);
    CHECK_DONE();
}
