/* board.c - the machine's hardware: RAM, buses, devices and their wires.
 *
 * With an engine that has interrupt controllers and a timer of its own (KVM in the kernel), the board makes
 * none and sends its lines there. ISA interrupt n is GSI n; see irqchip.h for the one exception at the pins. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "device/bus/pci.h"
#include "device/platform/cmos.h"
#include "device/platform/debug_exit.h"
#include "device/platform/hotplug.h"
#include "device/platform/i8042.h"
#include "device/platform/kvmclock.h"
#include "device/platform/pit.h"
#include "device/platform/postcode.h"
#include "device/platform/power.h"
#include "device/platform/pvpanic.h"
#include "device/platform/uart.h"
#include "machine/acpi.h"
#include "machine/load.h"
#include "machine/machine_private.h"
#include "machine/plug.h"

static void engine_line(void *owner, unsigned pin, int level)
{
    struct machine *machine = owner;
    machine->engine->irq_line(machine->vm, pin, level);
}

static void engine_msi(void *owner, uint64_t address, uint32_t data)
{
    struct machine *machine = owner;
    machine->engine->msi(machine->vm, address, data);
}

static struct irq_line line(struct machine *machine, unsigned irq)
{
    return machine->irqchip ? irqchip_line(machine->irqchip, irq) : (struct irq_line){engine_line, machine, irq};
}

static void guest_power_off(void *owner)
{
    machine_finish(owner, MACHINE_END_POWER_OFF, 0, "the guest powered off");
}

static void guest_reset(void *owner)
{
    machine_guest_died(owner, MACHINE_END_RESET, "the guest asked for a reset");
}

static void guest_panic(void *owner)
{
    struct machine *machine = owner;
    machine_finish(machine, MACHINE_END_PANIC, MACHINE_END_PANIC, "the guest panicked%s%s",
                   machine->panic_text[0] ? ": " : "", machine->panic_text);
}

static void guest_debug_exit(void *owner, uint32_t status)
{
    machine_finish(owner, MACHINE_END_DEBUG_EXIT, status <= 255 ? (int)status : 255,
                   "the guest ended with status %" PRIu32 " through the debug-exit port", status);
}

static void slots_changed(void *owner)
{
    struct machine *machine = owner;
    power_gpe(machine->power, POWER_EVENT_HOTPLUG);
}

/* One range of a bus that a device answers. */
struct wiring {
    uint64_t base;
    uint32_t size;
    unsigned region;
    bool mmio;
};

/* Takes the device (NULL: there was no memory for it) and puts it on the buses. */
static int add(struct machine *machine, struct device *device, const struct wiring *wiring, unsigned ranges,
               struct error *error)
{
    if (!device)
        return error_set(error, ENOMEM, "no memory for the board's devices");
    if (machine->devices == BOARD_DEVICES) {
        device->ops->destroy(device);
        return error_set(error, ENOSPC, "the board has no room for device %s", device->ops->name);
    }
    machine->device[machine->devices++] = device;
    for (unsigned i = 0; i < ranges; i++) {
        struct bus *bus = wiring[i].mmio ? machine->mmio : machine->ports;
        int status = bus_map(bus, wiring[i].base, wiring[i].size, device, wiring[i].region);
        if (status < 0)
            return error_set(error, -status, "device %s cannot have %s 0x%" PRIx64 ": %s", device->ops->name,
                             wiring[i].mmio ? "address" : "port", wiring[i].base, strerror(-status));
    }
    return 0;
}

static int add_irqchip(struct machine *machine, struct error *error)
{
    static const struct wiring wiring[] = {
        {IRQCHIP_IOAPIC_BASE, IRQCHIP_IOAPIC_SIZE, IRQCHIP_REGION_IOAPIC, true},
        {0x20, 2, IRQCHIP_REGION_PIC_MASTER, false},
        {0xa0, 2, IRQCHIP_REGION_PIC_SLAVE, false},
        {0x4d0, 2, IRQCHIP_REGION_ELCR, false},
    };
    static const struct wiring pit_wiring[] = {{0x40, 4, PIT_REGION_COUNTERS, false}, {0x61, 1, PIT_REGION_SPEAKER, false}};
    if (machine->engine->irqchip)
        return 0;
    struct irqchip_config config = {.vcpus = machine->config.vcpus, .clock = &machine->clock, .tsc_hz = machine->tsc_hz,
                                    .owner = machine, .tsc_read = vcpu_tsc, .interrupt = vcpu_interrupt, .nmi = vcpu_nmi,
                                    .init = vcpu_init, .sipi = vcpu_sipi};
    machine->irqchip = irqchip_new(&config);
    int status = add(machine, machine->irqchip ? irqchip_device(machine->irqchip) : NULL, wiring, 4, error);
    if (status < 0)
        return status;
    struct pit_config pit = {.clock = &machine->clock, .irq = line(machine, 0)};
    status = add(machine, pit_new(&pit), pit_wiring, 2, error);
    if (status < 0)
        return status;
    struct kvmclock_config kvmclock = {.clock = &machine->clock, .ram = &machine->ram, .vcpus = machine->config.vcpus,
                                       .tsc_hz = machine->tsc_hz, .owner = machine, .tsc_read = vcpu_tsc};
    machine->kvmclock = kvmclock_new(&kvmclock);
    return add(machine, machine->kvmclock, NULL, 0, error);
}

static uint64_t high_ram(const struct machine *machine)
{
    return machine->ram.regions > 1 ? machine->ram.region[1].size : 0;
}

static int add_platform(struct machine *machine, struct error *error)
{
    static const struct wiring postcode[] = {{0x80, 1, POSTCODE_REGION_80, false}, {0xed, 1, POSTCODE_REGION_ED, false}};
    static const struct wiring cmos_wiring[] = {{0x70, 2, 0, false}}, uart_wiring[] = {{BOARD_COM1, 8, 0, false}};
    static const struct wiring i8042_wiring[] = {{0x60, 1, I8042_REGION_DATA, false}, {0x64, 1, I8042_REGION_COMMAND, false},
                                            {0x92, 1, I8042_REGION_PORT_A, false}};
    static const struct wiring pvpanic_wiring[] = {{BOARD_PVPANIC, 1, 0, false}};
    struct cmos_config cmos = {.clock = &machine->clock, .irq = line(machine, 8), .ram_low = machine->ram.region[0].size,
                               .ram_high = high_ram(machine)};
    struct i8042_config i8042 = {.irq1 = line(machine, 1), .irq12 = line(machine, 12), .owner = machine, .reset = guest_reset};
    struct uart_config uart = {.irq = line(machine, BOARD_COM1_IRQ), .owner = machine, .transmit = console_transmit,
                               .room = console_room};
    struct pvpanic_config pvpanic = {.owner = machine, .panicked = guest_panic};

    int status = add(machine, postcode_new(), postcode, 2, error);
    if (status == 0)
        status = add(machine, cmos_new(&cmos), cmos_wiring, 1, error);
    if (status == 0)
        status = add(machine, i8042_new(&i8042), i8042_wiring, 3, error);
    if (status == 0)
        status = add(machine, machine->uart = uart_new(&uart), uart_wiring, 1, error);
    if (status == 0)
        status = add(machine, pvpanic_new(&pvpanic), pvpanic_wiring, 1, error);
    return status;
}

static int add_power(struct machine *machine, struct error *error)
{
    static const struct wiring power_wiring[] = {{BOARD_PM_BASE, POWER_ACPI_SIZE, POWER_REGION_ACPI, false}};
    static const struct wiring hotplug_wiring[] = {{BOARD_HOTPLUG, HOTPLUG_SIZE, 0, false}};
    struct power_config power = {.clock = &machine->clock, .sci = line(machine, BOARD_SCI_IRQ), .owner = machine,
                                 .power_off = guest_power_off, .reset = guest_reset};
    struct hotplug_config hotplug = {.owner = machine, .changed = slots_changed, .ejected = plug_ejected,
                                     .refused = plug_refused};
    machine->power = power_new(&power);
    int status = add(machine, machine->power, power_wiring, 1, error);
    if (status == 0)
        status = add(machine, machine->hotplug = hotplug_new(&hotplug), hotplug_wiring, 1, error);
    return status;
}

static int add_pci(struct machine *machine, struct error *error)
{
    static const struct wiring pci_wiring[] = {{BOARD_ECAM_BASE, PCI_ECAM_SIZE, PCI_REGION_ECAM, true},
                                               {0xcf8, 8, PCI_REGION_PORTS, false}};
    struct pci_host_config pci = {
        .mmio = machine->mmio, .ports = machine->ports,
        .window32_base = BOARD_WINDOW32_BASE, .window32_size = BOARD_WINDOW32_SIZE,
        .window64_base = BOARD_WINDOW64_BASE, .window64_size = BOARD_WINDOW64_SIZE,
        .io_base = BOARD_PCI_IO_BASE, .io_size = BOARD_PCI_IO_SIZE,
        .msi = machine->irqchip ? irqchip_msi(machine->irqchip) : (struct msi_sink){engine_msi, machine},
        .reset_control = machine->power, .reset_region = POWER_REGION_RESET,
    };
    for (unsigned pin = 0; pin < 4; pin++)
        pci.intx[pin] = line(machine, 16 + pin);
    machine->pci = pci_host_new(&pci);
    return add(machine, machine->pci ? pci_host_device(machine->pci) : NULL, pci_wiring, 2, error);
}

static int add_debug_exit(struct machine *machine, struct error *error)
{
    if (machine->config.debug_exit_port < 0)
        return 0;
    struct wiring wiring = {(uint64_t)machine->config.debug_exit_port, 4, 0, false};
    struct debug_exit_config config = {.owner = machine, .exit = guest_debug_exit};
    int status = add(machine, debug_exit_new(&config), &wiring, 1, error);
    if (status < 0)
        error_prefix(error, "debug-exit port 0x%x", machine->config.debug_exit_port);
    return status;
}

int board_create(struct machine *machine, struct error *error)
{
    machine->ports = bus_new(65536);
    machine->mmio = bus_new(BOARD_ADDRESS_LIMIT);
    if (!machine->ports || !machine->mmio)
        return error_set(error, ENOMEM, "no memory for the board's buses");
    int status = add_irqchip(machine, error);
    if (status == 0)
        status = add_platform(machine, error);
    if (status == 0)
        status = add_power(machine, error);
    if (status == 0)
        status = add_pci(machine, error);
    if (status == 0)
        status = add_debug_exit(machine, error);
    if (status == 0)
        status = board_virtio_create(machine, error);
    if (status == 0)
        status = board_share_create(machine, error);
    if (status == 0)
        status = board_services_create(machine, error);
    return status;
}

void board_destroy(struct machine *machine)
{
    plug_destroy_all(machine);
    while (machine->devices > 0) {
        struct device *device = machine->device[--machine->devices];
        device->ops->destroy(device);
    }
    board_virtio_destroy(machine);
    bus_free(machine->ports);
    bus_free(machine->mmio);
}

static void add_range(struct load_config *load, uint64_t base, uint64_t end, uint32_t type)
{
    if (base < end)
        load->range[load->ranges++] = (struct load_range){base, end - base, type};
}

/* As PC firmware tells it: the top of the first 640 KiB is the extended BIOS data area's. */
static void memory_map(const struct machine *machine, struct load_config *load)
{
    uint64_t low = machine->ram.region[0].size;
    add_range(load, 0, 0x9fc00, LOAD_RAM);
    add_range(load, 0x9fc00, 0xa0000, LOAD_RESERVED);
    add_range(load, ACPI_BASE, ACPI_END, LOAD_RESERVED);
    add_range(load, ACPI_END, low, LOAD_RAM);
    add_range(load, BOARD_ECAM_BASE, BOARD_ECAM_BASE + PCI_ECAM_SIZE, LOAD_RESERVED);
    add_range(load, BOARD_HIGH_RAM_BASE, BOARD_HIGH_RAM_BASE + high_ram(machine), LOAD_RAM);
}

int board_boot(struct machine *machine, struct x86_cpu *cpu, struct error *error)
{
    struct acpi_config acpi = {
        .vcpus = machine->config.vcpus, .lapic_base = IRQCHIP_LAPIC_BASE, .ioapic_base = IRQCHIP_IOAPIC_BASE,
        .ioapic_id = IRQCHIP_IOAPIC_ID, .pm_base = BOARD_PM_BASE,
        .hotplug_port = BOARD_HOTPLUG, .ecam_base = BOARD_ECAM_BASE, .ecam_size = PCI_ECAM_SIZE,
        .window32_base = BOARD_WINDOW32_BASE, .window32_size = BOARD_WINDOW32_SIZE,
        .window64_base = BOARD_WINDOW64_BASE, .window64_size = BOARD_WINDOW64_SIZE,
        .com1_port = BOARD_COM1, .com1_irq = BOARD_COM1_IRQ, .pvpanic_port = BOARD_PVPANIC,
    };
    struct load_config load = {.kernel = machine->config.kernel, .initrd = machine->config.initrd,
                               .append = machine->config.append ? machine->config.append : console_append(machine), .rsdp = ACPI_BASE};
    struct load_entry entry;
    memory_map(machine, &load);
    int status = acpi_build(&machine->ram, &acpi, error);
    if (status == 0)
        status = load_kernel(&machine->ram, &load, &entry, error);
    if (status == 0)
        status = load_entry_state(&machine->ram, &entry, cpu, error);
    return status;
}
