/* cpumodel.c - the machine's CPU model as KVM can give it.
 *
 * A guest must not be told of a feature that this KVM refuses to switch on (CR4 bits, MSRs) or to
 * emulate. So the feature words are the model's and KVM's, both; the rest of the leaves are the model's. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"

#define SUPPORTED_MAX 256u

/* Outputs that are feature words. */
static const struct {
    uint32_t function, index;
    uint8_t output; /* 0 EAX 1 EBX 2 ECX 3 EDX */
    uint32_t kept;  /* bits that are not features, or that KVM gives whatever it says */
} words[] = {
    { 0x1, 0, 2, 1u << 31 }, /* "a hypervisor is present" */
    { 0x1, 0, 3, 1u << 28 }, /* "several logical processors" */
    { 0x7, 0, 1, 0 },
    { 0x7, 0, 2, 0 },
    { 0x7, 0, 3, 0 },
    { 0x7, 1, 0, 0 },
    { 0xd, 0, 0, 0 },
    { 0xd, 0, 3, 0 },
    { 0xd, 1, 0, 0 },
    { 0x80000001, 0, 2, 0 },
    { 0x80000001, 0, 3, 0 },
    { 0x80000008, 0, 1, 0 },
    { 0x80000021, 0, 0, 0 },
    { 0x40000001, 0, 0, 0 },
};

/* KVM gives these two with its in-kernel local APIC, which this engine always has, but lists them only on some versions. */
#define ECX1_TSC_DEADLINE (1u << 24)
#define ECX1_X2APIC (1u << 21)

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    return NULL;
}

static struct kvm_cpuid2 *supported_cpuid(int kvm)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + SUPPORTED_MAX * sizeof cpuid->entries[0]);
    if (!cpuid)
        return NULL;
    cpuid->nent = SUPPORTED_MAX;
    if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
        free(cpuid);
        return NULL;
    }
    return cpuid;
}

/* Takes what KVM lacks out of one leaf of the model. */
static void restrict_leaf(struct x86_cpuid_leaf *leaf, const struct kvm_cpuid2 *supported)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (words[i].function != leaf->function || words[i].index != leaf->index)
            continue;
        const struct kvm_cpuid_entry2 *entry = find(supported, leaf->function, leaf->index);
        const uint32_t zero[4] = { 0 };
        const uint32_t have[4] = { entry ? entry->eax : 0, entry ? entry->ebx : 0, entry ? entry->ecx : 0,
                                   entry ? entry->edx : 0 };
        uint32_t *const output[4] = { &leaf->eax, &leaf->ebx, &leaf->ecx, &leaf->edx };
        uint32_t allowed = (entry ? have : zero)[words[i].output] | words[i].kept;
        if (leaf->function == 1 && words[i].output == 2)
            allowed |= ECX1_TSC_DEADLINE | ECX1_X2APIC;
        uint32_t lost = *output[words[i].output] & ~allowed;
        if (lost)
            log_debug("KVM here lacks CPUID %x.%x output %u bits 0x%x", leaf->function, leaf->index, words[i].output, lost);
        *output[words[i].output] &= allowed;
    }
}

/* Without XSAVE there is no extended state, and nothing that needs it. */
static void drop_extended_state(struct x86_cpuid *model)
{
    enum { XSAVE = 1u << 26, OSXSAVE = 1u << 27, AVX = 1u << 28, F16C = 1u << 29, FMA = 1u << 12, AVX2 = 1u << 5 };
    for (unsigned i = 0; i < model->leaves; i++)
        if (model->leaf[i].function == 1 && (model->leaf[i].ecx & XSAVE))
            return;
    for (unsigned i = 0; i < model->leaves; i++) {
        struct x86_cpuid_leaf *leaf = &model->leaf[i];
        if (leaf->function == 1)
            leaf->ecx &= ~(uint32_t)(OSXSAVE | AVX | F16C | FMA);
        else if (leaf->function == 7 && leaf->index == 0)
            leaf->ebx &= ~(uint32_t)AVX2;
        else if (leaf->function == 0xd)
            leaf->eax = leaf->ebx = leaf->ecx = leaf->edx = 0;
    }
    model->xcr0_mask = X86_XCR0_X87;
}

int kvm_model_init(struct engine_vm *vm, struct error *error)
{
    struct kvm_cpuid2 *supported = supported_cpuid(vm->kvm);
    if (!supported)
        return error_set(error, EIO, "KVM does not tell which CPUID features it has: %s", strerror(errno));
    vm->model = *vm->config.cpuid;
    for (unsigned i = 0; i < vm->model.leaves; i++)
        restrict_leaf(&vm->model.leaf[i], supported);
    free(supported);
    drop_extended_state(&vm->model);
    vm->cpuid = calloc(1, sizeof *vm->cpuid + X86_CPUID_LEAVES * sizeof vm->cpuid->entries[0]);
    if (!vm->cpuid)
        return error_set(error, ENOMEM, "no memory for the CPU model");
    vm->cpuid->nent = vm->model.leaves;
    for (unsigned i = 0; i < vm->model.leaves; i++) {
        const struct x86_cpuid_leaf *leaf = &vm->model.leaf[i];
        vm->cpuid->entries[i] = (struct kvm_cpuid_entry2){
            .function = leaf->function, .index = leaf->index, .flags = leaf->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = leaf->eax, .ebx = leaf->ebx, .ecx = leaf->ecx, .edx = leaf->edx,
        };
    }
    return 0;
}

/* ---- a KVM that adds what it was not given ---- */

/* A KVM that runs ring 3 natively cannot hide the host's CPUID from it, so it gives the kernel the same
 * features, whatever it was told. Then the leaves that go with them must be there as well: the sizes of
 * the extended states, for one. */

/* Puts the entries of leaf 0Dh for each component of `mask` into the table, from what KVM supports. */
static void add_components(struct kvm_cpuid2 *cpuid, const struct kvm_cpuid2 *supported, uint32_t mask)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function != 0xd || cpuid->entries[i].index < 2)
            cpuid->entries[kept++] = cpuid->entries[i];
    for (uint32_t component = 2; component < 32 && kept < SUPPORTED_MAX; component++) {
        const struct kvm_cpuid_entry2 *entry = find(supported, 0xd, component);
        if ((mask >> component & 1) && entry)
            cpuid->entries[kept++] = *entry;
    }
    cpuid->nent = kept;
}

/* The fallback's decoder takes what the machine's model has and the vCPU really answers. */
static void follow(struct x86_cpuid *model, const struct x86_cpuid *wanted, const struct kvm_cpuid2 *effective)
{
    for (unsigned i = 0; i < wanted->leaves; i++) {
        const struct x86_cpuid_leaf *want = &wanted->leaf[i];
        const struct kvm_cpuid_entry2 *have = find(effective, want->function, want->index);
        if (!have || (want->function != 1 && want->function != 7))
            continue;
        model->leaf[i].ecx = want->ecx & have->ecx;
        model->leaf[i].edx = want->edx & have->edx;
        if (want->function == 7)
            model->leaf[i].ebx = want->ebx & have->ebx;
    }
}

/* Reads back what the vCPU answers; completes it, and follows it, where KVM added features. */
static int complete(struct engine_vcpu *vcpu, struct kvm_cpuid2 *own)
{
    struct engine_vm *vm = vcpu->vm;
    const struct kvm_cpuid_entry2 *given = find(own, 0xd, 0), *entry;
    const uint32_t mask = given ? given->eax : 0;
    own->nent = SUPPORTED_MAX;
    if (ioctl(vcpu->fd, KVM_GET_CPUID2, own) < 0 || !(entry = find(own, 0xd, 0)) || (entry->eax & ~mask) == 0)
        return 0;
    struct kvm_cpuid2 *supported = supported_cpuid(vm->kvm);
    if (!supported)
        return -ENOMEM;
    follow(&vm->model, vm->config.cpuid, own);
    add_components(own, supported, entry->eax);
    free(supported);
    return ioctl(vcpu->fd, KVM_SET_CPUID2, own) < 0 ? -errno : 0;
}

int kvm_model_apply(struct engine_vcpu *vcpu, struct error *error)
{
    const struct kvm_cpuid2 *shared = vcpu->vm->cpuid;
    struct kvm_cpuid2 *own = calloc(1, sizeof *own + SUPPORTED_MAX * sizeof own->entries[0]);
    if (!own)
        return error_set(error, ENOMEM, "no memory for the CPU model");
    memcpy(own, shared, sizeof *shared + shared->nent * sizeof shared->entries[0]);
    for (uint32_t i = 0; i < own->nent; i++) {
        struct kvm_cpuid_entry2 *entry = &own->entries[i];
        if (entry->function == 1)
            entry->ebx = (entry->ebx & 0x00ffffff) | vcpu->index << 24;
        else if (entry->function == 0xb || entry->function == 0x1f)
            entry->edx = vcpu->index;
        else if (entry->function == 0x8000001e)
            entry->eax = vcpu->index;
    }
    int result = ioctl(vcpu->fd, KVM_SET_CPUID2, own) < 0 ? -errno : 0;
    if (result == 0)
        result = complete(vcpu, own);
    free(own);
    return result < 0 ? error_set(error, -result, "KVM does not take the CPU model: %s", strerror(-result)) : 0;
}
