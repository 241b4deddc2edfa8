/* The CPU model's table: self-consistent, bounded, and dynamic where it must be. */
#include "isa/x86/cpuid.h"

#include "check.h"
#include "isa/x86/state.h"

static void check_topology(unsigned vcpus, unsigned shift)
{
    struct x86_cpuid cpuid;
    uint32_t reg[4];
    x86_cpuid_init(&cpuid, X86_MODEL_DEFAULT, vcpus, UINT64_C(2500000000));
    CHECK(cpuid.leaves <= X86_CPUID_LEAVES);
    struct x86_cpuid_context context = {.apic_id = vcpus - 1};
    x86_cpuid_query(&cpuid, 0xb, 1, &context, reg);
    CHECK_EQ(reg[0], shift);
    CHECK_EQ(reg[1], vcpus);
    CHECK_EQ(reg[2], 0x201);
    CHECK_EQ(reg[3], vcpus - 1);
    x86_cpuid_query(&cpuid, 0xb, 7, &context, reg);
    CHECK_EQ(reg[1], 0);
    CHECK_EQ(reg[2], 7);
    CHECK_EQ(reg[3], vcpus - 1);
    x86_cpuid_query(&cpuid, 1, 0, &context, reg);
    CHECK_EQ(reg[1] >> 24, vcpus - 1);
    CHECK_EQ(reg[3] >> 28 & 1, vcpus > 1);
}

static void check_dynamic(const struct x86_cpuid *cpuid)
{
    uint32_t reg[4];
    struct x86_cpuid_context context = {.xcr0 = 3};
    x86_cpuid_query(cpuid, 1, 0, &context, reg);
    CHECK_EQ(reg[2] >> 27 & 1, 0);
    context.cr4 = X86_CR4_OSXSAVE;
    x86_cpuid_query(cpuid, 1, 0, &context, reg);
    CHECK_EQ(reg[2] >> 27 & 1, 1);
    x86_cpuid_query(cpuid, 0xd, 0, &context, reg);
    CHECK_EQ(reg[1], 576);
    context.xcr0 = 7;
    x86_cpuid_query(cpuid, 0xd, 0, &context, reg);
    CHECK_EQ(reg[0], cpuid->xcr0_mask);
    CHECK_EQ(reg[1], 832);
    CHECK_EQ(reg[2], cpuid->xcr0_mask & 4 ? 832 : 576);
    context.misc_enable = UINT64_C(1) << 34;
    x86_cpuid_query(cpuid, 0x80000001u, 0, &context, reg);
    CHECK_EQ(reg[3] >> 20 & 1, 0);
}

static void check_ranges(const struct x86_cpuid *cpuid)
{
    struct x86_cpuid_context context = {.xcr0 = 7};
    uint32_t reg[4], last[4];
    x86_cpuid_query(cpuid, 0, 0, &context, reg);
    CHECK_EQ(reg[0], X86_CPUID_MAX_BASIC);
    x86_cpuid_query(cpuid, 0x7fffffff, 0, &context, reg);
    x86_cpuid_query(cpuid, X86_CPUID_MAX_BASIC, 0, &context, last);
    CHECK_EQ(reg[0], cpuid->vendor == X86_VENDOR_INTEL ? last[0] : 0);
    x86_cpuid_query(cpuid, 0x40000000u, 0, &context, reg);
    CHECK(memcmp(&reg[1], "KVMKVMKVM\0\0\0", 12) == 0);
    x86_cpuid_query(cpuid, 0x40000010u, 0, &context, reg);
    CHECK_EQ(reg[0], 2500000);
    CHECK_EQ(reg[1], 1000000);
    x86_cpuid_query(cpuid, 0x80000008u, 0, &context, reg);
    CHECK_EQ(reg[0] & 0xff, cpuid->physical_bits);
}

int main(void)
{
    struct x86_cpuid cpuid;
    x86_cpuid_init(&cpuid, X86_MODEL_DEFAULT, 1, UINT64_C(2500000000));
    check_dynamic(&cpuid);
    check_ranges(&cpuid);
    check_topology(1, 0);
    check_topology(3, 2);
    check_topology(16, 4);
    CHECK(x86_cpuid_has(&cpuid, X86_FEATURE(X86_WORD_1_EDX, 26)));      /* SSE2 */
    CHECK(x86_cpuid_has(&cpuid, X86_FEATURE(X86_WORD_81_EDX, 29)));     /* long mode */
    CHECK(!x86_cpuid_has(&cpuid, X86_FEATURE(X86_WORD_7_EBX, 16)));     /* AVX-512F */
    CHECK(!x86_cpuid_has(&cpuid, X86_FEATURE(X86_WORDS, 0)));
    /* AVX and what needs it come and go together. */
    bool avx = x86_cpuid_has(&cpuid, X86_FEATURE(X86_WORD_1_ECX, 28));
    CHECK_EQ(avx, (cpuid.xcr0_mask & X86_XCR0_AVX) != 0);
    CHECK(avx || !x86_cpuid_has(&cpuid, X86_FEATURE(X86_WORD_7_EBX, 5)));
    x86_cpuid_init(&cpuid, X86_MODEL_HOST, 4, UINT64_C(2500000000));
    CHECK(cpuid.leaves <= X86_CPUID_LEAVES);
    CHECK(!x86_cpuid_has(&cpuid, X86_FEATURE(X86_WORD_7_EBX, 16)));
    CHECK_DONE();
}
