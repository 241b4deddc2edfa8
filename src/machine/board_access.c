/* board_access.c - what engines ask of the machine while they execute: each takes the board's lock once. */
#include "device/platform/kvmclock.h"
#include "machine/machine_private.h"

#define KVM_ENOSYS 1000

static void count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static uint64_t mmio_read(void *owner, unsigned vcpu, uint64_t gpa, unsigned size)
{
    struct machine *machine = owner;
    count(&machine->mmio_accesses);
    bool lapic = machine->irqchip && irqchip_claims_mmio(machine->irqchip, vcpu, gpa);
    pthread_mutex_lock(&machine->lock);
    uint64_t value = lapic ? irqchip_mmio_read(machine->irqchip, vcpu, gpa, size) : bus_read(machine->mmio, gpa, size);
    pthread_mutex_unlock(&machine->lock);
    return value;
}

static void mmio_write(void *owner, unsigned vcpu, uint64_t gpa, unsigned size, uint64_t value)
{
    struct machine *machine = owner;
    count(&machine->mmio_accesses);
    bool lapic = machine->irqchip && irqchip_claims_mmio(machine->irqchip, vcpu, gpa);
    pthread_mutex_lock(&machine->lock);
    if (lapic)
        irqchip_mmio_write(machine->irqchip, vcpu, gpa, size, value);
    else
        bus_write(machine->mmio, gpa, size, value);
    pthread_mutex_unlock(&machine->lock);
}

static uint32_t port_in(void *owner, unsigned vcpu, uint16_t port, unsigned size)
{
    struct machine *machine = owner;
    (void)vcpu;
    count(&machine->port_accesses);
    pthread_mutex_lock(&machine->lock);
    uint32_t value = (uint32_t)bus_read(machine->ports, port, size);
    pthread_mutex_unlock(&machine->lock);
    return value;
}

static void port_out(void *owner, unsigned vcpu, uint16_t port, unsigned size, uint32_t value)
{
    struct machine *machine = owner;
    (void)vcpu;
    count(&machine->port_accesses);
    pthread_mutex_lock(&machine->lock);
    bus_write(machine->ports, port, size, value);
    pthread_mutex_unlock(&machine->lock);
    console_hold(machine);
}

static int msr_read(void *owner, unsigned vcpu, uint32_t msr, uint64_t *ret_value)
{
    struct machine *machine = owner;
    int status = -1;
    count(&machine->msr_accesses);
    pthread_mutex_lock(&machine->lock);
    if (machine->irqchip && irqchip_claims_msr(msr))
        status = irqchip_msr_read(machine->irqchip, vcpu, msr, ret_value);
    else if (machine->kvmclock && kvmclock_claims_msr(msr))
        status = kvmclock_msr_read(machine->kvmclock, vcpu, msr, ret_value);
    pthread_mutex_unlock(&machine->lock);
    return status;
}

static int msr_write(void *owner, unsigned vcpu, uint32_t msr, uint64_t value)
{
    struct machine *machine = owner;
    int status = -1;
    count(&machine->msr_accesses);
    pthread_mutex_lock(&machine->lock);
    if (machine->irqchip && irqchip_claims_msr(msr))
        status = irqchip_msr_write(machine->irqchip, vcpu, msr, value);
    else if (machine->kvmclock && kvmclock_claims_msr(msr))
        status = kvmclock_msr_write(machine->kvmclock, vcpu, msr, value);
    pthread_mutex_unlock(&machine->lock);
    return status;
}

static uint8_t tpr_read(void *owner, unsigned vcpu)
{
    struct machine *machine = owner;
    if (!machine->irqchip)
        return 0;
    pthread_mutex_lock(&machine->lock);
    uint8_t value = irqchip_tpr_read(machine->irqchip, vcpu);
    pthread_mutex_unlock(&machine->lock);
    return value;
}

static void tpr_write(void *owner, unsigned vcpu, uint8_t cr8)
{
    struct machine *machine = owner;
    if (!machine->irqchip)
        return;
    pthread_mutex_lock(&machine->lock);
    irqchip_tpr_write(machine->irqchip, vcpu, cr8 & 0xfu);
    pthread_mutex_unlock(&machine->lock);
}

static int interrupt_ack(void *owner, unsigned vcpu)
{
    struct machine *machine = owner;
    if (!machine->irqchip)
        return -1;
    pthread_mutex_lock(&machine->lock);
    int vector = irqchip_ack(machine->irqchip, vcpu);
    pthread_mutex_unlock(&machine->lock);
    if (vector >= 0)
        count(&machine->interrupts);
    return vector;
}

static bool interrupt_pending(void *owner, unsigned vcpu)
{
    struct machine *machine = owner;
    return machine->irqchip && irqchip_pending(machine->irqchip, vcpu);
}

/* No hypercall is advertised; each is answered as one that does not exist. */
static uint64_t hypercall(void *owner, unsigned vcpu, uint64_t number, const uint64_t argument[4])
{
    (void)owner, (void)vcpu, (void)number, (void)argument;
    return (uint64_t)-KVM_ENOSYS;
}

/* What follows from the guest's TSC is told anew. */
static void tsc_moved(void *owner, unsigned vcpu, uint64_t tsc_offset)
{
    struct machine *machine = owner;
    pthread_mutex_lock(&machine->lock);
    atomic_store(&machine->vcpu[vcpu].tsc_offset, tsc_offset);
    if (machine->irqchip)
        irqchip_tsc_moved(machine->irqchip, vcpu);
    if (machine->kvmclock)
        kvmclock_update(machine->kvmclock);
    pthread_mutex_unlock(&machine->lock);
}

const struct engine_machine_ops board_engine_ops = {
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .port_in = port_in,
    .port_out = port_out,
    .msr_read = msr_read,
    .msr_write = msr_write,
    .tpr_read = tpr_read,
    .tpr_write = tpr_write,
    .interrupt_ack = interrupt_ack,
    .interrupt_pending = interrupt_pending,
    .hypercall = hypercall,
    .tsc_moved = tsc_moved,
};
