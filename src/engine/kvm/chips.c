/* chips.c - the kernel's interrupt controllers and timer: made, wired, saved and loaded. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define CHIPS_VERSION 1u
#define IOAPIC_PINS 24u
/* The PIT's output goes to pin 2 of the I/O APIC, as on a PC; the MADT says so. */
#define PIT_IOAPIC_PIN 2u

/* GSI 0..15 reach the 8259s (but 2, the cascade) and the I/O APIC. */
static int set_routing(struct engine_vm *vm)
{
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry entry[16 + IOAPIC_PINS];
    } table = { .head = { 0 } };
    for (uint32_t gsi = 0; gsi < 16; gsi++) {
        if (gsi == 2)
            continue;
        struct kvm_irq_routing_entry *entry = &table.entry[table.head.nr++];
        entry->gsi = gsi;
        entry->type = KVM_IRQ_ROUTING_IRQCHIP;
        entry->u.irqchip.irqchip = gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
        entry->u.irqchip.pin = gsi % 8;
    }
    for (uint32_t gsi = 0; gsi < IOAPIC_PINS; gsi++) {
        if (gsi == PIT_IOAPIC_PIN)
            continue; /* taken by GSI 0 */
        struct kvm_irq_routing_entry *entry = &table.entry[table.head.nr++];
        entry->gsi = gsi;
        entry->type = KVM_IRQ_ROUTING_IRQCHIP;
        entry->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
        entry->u.irqchip.pin = gsi == 0 ? PIT_IOAPIC_PIN : gsi;
    }
    return ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table);
}

int kvm_chips_create(struct engine_vm *vm, struct error *error)
{
    struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY }; /* port 61h too */
    if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return error_set(error, errno, "KVM has no interrupt controllers: %s", strerror(errno));
    if (ioctl(vm->fd, KVM_CREATE_PIT2, &pit) < 0)
        return error_set(error, errno, "KVM has no timer: %s", strerror(errno));
    if (set_routing(vm) < 0)
        return error_set(error, errno, "KVM takes no interrupt routing: %s", strerror(errno));
    return 0;
}

int kvm_irq_line(struct engine_vm *vm, unsigned gsi, int level)
{
    struct kvm_irq_level line = { .irq = gsi, .level = level ? 1 : 0 };
    return ioctl(vm->fd, KVM_IRQ_LINE, &line) < 0 ? -errno : 0;
}

int kvm_msi(struct engine_vm *vm, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = { .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data };
    return ioctl(vm->fd, KVM_SIGNAL_MSI, &msi) < 0 ? -errno : 0;
}

/* ---- save and load ---- */

/* The kernel's own structures are the saved form: a version of their layout is the section's. */
static void save_chip(struct engine_vm *vm, struct stream *stream, uint32_t id)
{
    struct kvm_irqchip chip = { .chip_id = id };
    if (ioctl(vm->fd, KVM_GET_IRQCHIP, &chip) < 0)
        stream_fail(stream, "KVM_GET_IRQCHIP %u: %s", id, strerror(errno));
    stream_put_bytes(stream, &chip.chip, sizeof chip.chip);
}

void kvm_chips_save(struct engine_vm *vm, struct stream *stream)
{
    struct kvm_pit_state2 pit = { .flags = 0 };
    struct kvm_clock_data clock = { .clock = 0 };
    stream_begin(stream, "kvm.chips", CHIPS_VERSION);
    for (uint32_t id = 0; id < KVM_NR_IRQCHIPS; id++)
        save_chip(vm, stream, id);
    if (ioctl(vm->fd, KVM_GET_PIT2, &pit) < 0 || ioctl(vm->fd, KVM_GET_CLOCK, &clock) < 0)
        stream_fail(stream, "KVM gives no timer state: %s", strerror(errno));
    stream_put_bytes(stream, &pit, sizeof pit);
    stream_put_u64(stream, clock.clock);
    stream_put_u32(stream, vm->config.vcpus);
    for (unsigned i = 0; i < vm->config.vcpus; i++) {
        struct kvm_lapic_state lapic = { { 0 } };
        uint64_t base = 0, deadline = 0;
        if (!vm->vcpu[i] || ioctl(vm->vcpu[i]->fd, KVM_GET_LAPIC, &lapic) < 0 || kvm_msr_read(vm->vcpu[i], 0x1b, &base) < 0)
            stream_fail(stream, "KVM gives no local APIC of vCPU %u", i);
        else
            (void)kvm_msr_read(vm->vcpu[i], 0x6e0, &deadline);
        stream_put_u64(stream, base);
        stream_put_bytes(stream, &lapic, sizeof lapic);
        stream_put_u64(stream, deadline);
    }
    stream_end(stream);
}

static void load_lapic(struct engine_vm *vm, struct stream *stream, unsigned index)
{
    struct kvm_lapic_state lapic;
    uint64_t base = stream_get_u64(stream);
    stream_get_bytes(stream, &lapic, sizeof lapic);
    uint64_t deadline = stream_get_u64(stream);
    if (stream_status(stream, NULL) < 0)
        return;
    struct engine_vcpu *vcpu = vm->vcpu[index];
    if (!vcpu || kvm_msr_write(vcpu, 0x1b, base) < 0 || ioctl(vcpu->fd, KVM_SET_LAPIC, &lapic) < 0)
        stream_fail(stream, "KVM does not take the local APIC of vCPU %u", index);
    else if (deadline)
        (void)kvm_msr_write(vcpu, 0x6e0, deadline);
}

int kvm_chips_load(struct engine_vm *vm, struct stream *stream, struct error *error)
{
    struct kvm_pit_state2 pit;
    stream_enter(stream, "kvm.chips", CHIPS_VERSION);
    for (uint32_t id = 0; id < KVM_NR_IRQCHIPS; id++) {
        struct kvm_irqchip chip = { .chip_id = id };
        stream_get_bytes(stream, &chip.chip, sizeof chip.chip);
        if (stream_status(stream, NULL) == 0 && ioctl(vm->fd, KVM_SET_IRQCHIP, &chip) < 0)
            stream_fail(stream, "KVM does not take interrupt controller %u: %s", id, strerror(errno));
    }
    stream_get_bytes(stream, &pit, sizeof pit);
    struct kvm_clock_data clock = { .clock = stream_get_u64(stream) };
    uint32_t vcpus = stream_get_u32(stream);
    if (stream_status(stream, NULL) == 0) {
        if (ioctl(vm->fd, KVM_SET_PIT2, &pit) < 0 || ioctl(vm->fd, KVM_SET_CLOCK, &clock) < 0)
            stream_fail(stream, "KVM does not take the timer's state: %s", strerror(errno));
        if (vcpus != vm->config.vcpus)
            stream_fail(stream, "the saved VM has %u vCPUs, this one %u", vcpus, vm->config.vcpus);
    }
    for (unsigned i = 0; i < vm->config.vcpus && stream_status(stream, NULL) == 0; i++)
        load_lapic(vm, stream, i);
    stream_leave(stream);
    return stream_status(stream, error);
}
