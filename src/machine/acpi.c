/* acpi.c - the tables, after ACPI 6.5 chapter 5; the DSDT's contents in acpi_dsdt below. */
#include "machine/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "device/bus/pci.h"
#include "device/platform/hotplug.h"
#include "device/platform/power.h"
#include "machine/aml.h"

#define SCI_IRQ 9u
#define GSI_PCI_FIRST 16u /* INTA of slot 0; see pci_host_config.intx */
#define GAS_SYSTEM_IO 1u
#define ACPI_DEVICE_CHECK 1u /* 5.6.6, notifications of any device */
#define ACPI_EJECT_REQUEST 3u

struct sdt_header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem_id[6], oem_table_id[8];
    uint32_t oem_revision;
    char creator_id[4];
    uint32_t creator_revision;
} __attribute__((packed));

struct gas { /* generic address structure */
    uint8_t space, bits, offset, access;
    uint64_t address;
} __attribute__((packed));

struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
} __attribute__((packed));

struct fadt {
    struct sdt_header header;
    uint32_t facs, dsdt;
    uint8_t reserved0, profile;
    uint16_t sci_irq;
    uint32_t smi_port;
    uint8_t acpi_enable, acpi_disable, s4bios, pstate_control;
    uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, timer, gpe0, gpe1;
    uint8_t pm1_event_length, pm1_control_length, pm2_control_length, timer_length, gpe0_length, gpe1_length, gpe1_base,
        cstate_control;
    uint16_t c2_latency, c3_latency, flush_size, flush_stride;
    uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
    uint16_t boot_flags;
    uint8_t reserved1;
    uint32_t flags;
    struct gas reset;
    uint8_t reset_value;
    uint16_t arm_flags;
    uint8_t minor_version;
    uint64_t x_facs, x_dsdt;
    struct gas x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control, x_timer, x_gpe0, x_gpe1;
    struct gas sleep_control, sleep_status;
    uint64_t hypervisor;
} __attribute__((packed));
_Static_assert(sizeof(struct fadt) == 276, "FADT of ACPI 6.x");

#define BOOT_LEGACY_DEVICES 0x01u
#define BOOT_NO_VGA 0x04u
#define BOOT_NO_ASPM 0x10u
#define FADT_WBINVD 0x0001u
#define FADT_C1 0x0004u
#define FADT_NO_SLEEP_BUTTON 0x0020u
#define FADT_NO_RTC_WAKE 0x0040u
#define FADT_TIMER_32 0x0100u
#define FADT_RESET 0x0400u

struct facs {
    char signature[4];
    uint32_t length, hardware_signature, waking_vector, global_lock, flags;
    uint64_t x_waking_vector;
    uint8_t version, reserved[31];
} __attribute__((packed));

/* Where the next table goes. */
struct build {
    struct ram *ram;
    uint64_t next;
    uint64_t table[8]; /* for the XSDT */
    unsigned tables;
    int status;
};

static uint8_t checksum(const void *bytes, size_t length)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
    return (uint8_t)-sum;
}

static void fill_header(struct sdt_header *header, const char *signature, uint8_t revision)
{
    memcpy(header->signature, signature, sizeof header->signature);
    header->revision = revision;
    memcpy(header->oem_id, "VENEER", sizeof header->oem_id);
    memcpy(header->oem_table_id, "VENEER  ", sizeof header->oem_table_id);
    header->oem_revision = 1;
    memcpy(header->creator_id, "VNR ", sizeof header->creator_id);
    header->creator_revision = 1;
}

/* Puts bytes at the next 64-byte boundary and returns their address. */
static uint64_t put_raw(struct build *build, const void *bytes, size_t length)
{
    uint64_t at = (build->next + 63) & ~UINT64_C(63);
    if (at + length > ACPI_END || ram_write(build->ram, at, bytes, length) < 0) {
        build->status = -ENOMEM;
        return at;
    }
    build->next = at + length;
    return at;
}

/* Completes a table's length and checksum and puts it. */
static uint64_t put_table(struct build *build, struct sdt_header *header, size_t length)
{
    header->length = (uint32_t)length;
    header->checksum = 0;
    header->checksum = checksum(header, length);
    uint64_t at = put_raw(build, header, length);
    if (build->tables < sizeof build->table / sizeof build->table[0])
        build->table[build->tables++] = at;
    return at;
}

static void aml_status(struct aml *aml)
{
    aml_name(aml, "_STA");
    aml_integer(aml, 0xf);
}

/* A slot whose device can come and go: what makes it so for a guest is _EJ0. */
static void dsdt_slot(struct aml *aml, unsigned slot)
{
    char name[8];
    snprintf(name, sizeof name, "S%03u", slot);
    size_t device = aml_begin_device(aml, name);
    aml_name(aml, "_ADR");
    aml_integer(aml, (uint64_t)slot << 16);
    aml_name(aml, "_SUN");
    aml_integer(aml, slot);
    size_t method = aml_begin_method(aml, "_EJ0", 1);
    aml_op(aml, AML_STORE);
    aml_integer(aml, UINT64_C(1) << slot);
    aml_reference(aml, "PRES");
    aml_end(aml, method);
    method = aml_begin_method(aml, "_OST", 3);
    aml_reference(aml, "TELL");
    aml_integer(aml, slot);
    aml_argument(aml, 0);
    aml_argument(aml, 1);
    aml_end(aml, method);
    aml_end(aml, device);
}

/* TELL (slot, event, status): the OUTCOME register of hotplug.h. */
static void dsdt_tell(struct aml *aml)
{
    size_t method = aml_begin_method(aml, "TELL", 3);
    for (unsigned i = 1; i <= 2; i++) { /* Local0 = event << 8, Local1 = status << 16 */
        aml_op(aml, AML_SHIFT_LEFT);
        aml_op(aml, AML_AND);
        aml_argument(aml, i);
        aml_integer(aml, i == 1 ? 0xff : 0xffff);
        aml_integer(aml, 0);
        aml_integer(aml, 8 * i);
        aml_local(aml, i - 1);
    }
    aml_op(aml, AML_OR);
    aml_local(aml, 0);
    aml_local(aml, 1);
    aml_local(aml, 0);
    aml_op(aml, AML_OR);
    aml_argument(aml, 0);
    aml_local(aml, 0);
    aml_reference(aml, "OUTC");
    aml_end(aml, method);
}

/* SPRD (slots, event): notifies each slot whose bit is set. */
static void dsdt_spread(struct aml *aml)
{
    size_t method = aml_begin_method(aml, "SPRD", 2);
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
        char name[8];
        snprintf(name, sizeof name, "S%03u", slot);
        size_t condition = aml_begin_if(aml);
        aml_op(aml, AML_AND);
        aml_argument(aml, 0);
        aml_integer(aml, UINT64_C(1) << slot);
        aml_integer(aml, 0);
        aml_op(aml, AML_NOTIFY);
        aml_reference(aml, name);
        aml_argument(aml, 1);
        aml_end(aml, condition);
    }
    aml_end(aml, method);
}

/* Slots and what they need, in the scope of the bus. */
static void dsdt_slots(struct aml *aml, const struct acpi_config *config)
{
    static const struct { const char *name; unsigned offset; } registers[] = {
        {"ARRV", HOTPLUG_ARRIVED}, {"WANT", HOTPLUG_WANTED}, {"PRES", HOTPLUG_PRESENT}, {"OUTC", HOTPLUG_OUTCOME}};
    _Static_assert(HOTPLUG_WANTED == 4 && HOTPLUG_PRESENT == 8 && HOTPLUG_OUTCOME == 12, "the fields leave no gap");
    aml_io_region(aml, "HPLG", config->hotplug_port, HOTPLUG_SIZE);
    size_t fields = aml_begin_fields(aml, "HPLG");
    for (unsigned i = 0; i < sizeof registers / sizeof registers[0]; i++)
        aml_field(aml, registers[i].name, 32);
    aml_end(aml, fields);
    dsdt_tell(aml);
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
        dsdt_slot(aml, slot);
    dsdt_spread(aml);
}

/* The method of POWER_EVENT_HOTPLUG. What is taken note of is cleared first: a bit that comes up again while the
 * slots are notified raises the event anew. */
static void dsdt_event(struct aml *aml)
{
    static const struct { const char *path; uint8_t notification; } kinds[] = {
        {"\\_SB_.PCI0.ARRV", ACPI_DEVICE_CHECK}, {"\\_SB_.PCI0.WANT", ACPI_EJECT_REQUEST}};
    size_t scope = aml_begin_scope(aml, "\\_GPE");
    size_t method = aml_begin_method(aml, "_E01", 0); /* edge: the status is cleared before it runs */
    for (unsigned i = 0; i < 2; i++) {
        aml_op(aml, AML_STORE);
        aml_reference(aml, kinds[i].path);
        aml_local(aml, 0);
        aml_op(aml, AML_STORE);
        aml_local(aml, 0);
        aml_reference(aml, kinds[i].path);
        aml_reference(aml, "\\_SB_.PCI0.SPRD");
        aml_local(aml, 0);
        aml_integer(aml, kinds[i].notification);
    }
    aml_end(aml, method);
    aml_end(aml, scope);
}

static void dsdt_pci(struct aml *aml, const struct acpi_config *config)
{
    size_t device = aml_begin_device(aml, "PCI0");
    aml_name(aml, "_HID");
    aml_eisa_id(aml, "PNP0A08");
    aml_name(aml, "_CID");
    aml_eisa_id(aml, "PNP0A03");
    aml_name(aml, "_UID");
    aml_integer(aml, 0);
    aml_name(aml, "_SEG");
    aml_integer(aml, 0);
    aml_name(aml, "_BBN");
    aml_integer(aml, 0);
    /* Memory behind this bridge is coherent for devices. */
    aml_name(aml, "_CCA");
    aml_integer(aml, 1);

    size_t size_at;
    aml_name(aml, "_CRS");
    size_t resources = aml_begin_resources(aml, &size_at);
    aml_bus_range(aml, 0, 0);
    aml_io(aml, 0xcf8, 8);
    aml_io_range(aml, 0, 0xcf7);
    aml_io_range(aml, 0xd00, 0xffff);
    aml_memory32_range(aml, config->window32_base, config->window32_size);
    if (config->window64_size)
        aml_memory64_range(aml, config->window64_base, config->window64_size);
    aml_end_resources(aml, resources, size_at);

    aml_name(aml, "_PRT");
    size_t routes = aml_begin_package(aml, 32 * 4);
    for (unsigned slot = 0; slot < 32; slot++)
        for (unsigned pin = 0; pin < 4; pin++) {
            size_t route = aml_begin_package(aml, 4);
            aml_integer(aml, (uint64_t)slot << 16 | 0xffff);
            aml_integer(aml, pin);
            aml_integer(aml, 0);
            aml_integer(aml, GSI_PCI_FIRST + (slot + pin) % 4);
            aml_end(aml, route);
        }
    aml_end(aml, routes);
    dsdt_slots(aml, config);
    aml_end(aml, device);
}

/* A device with ports and perhaps an interrupt (irq 0: none); `id` is an EISA ID, or else a string. */
static void dsdt_isa(struct aml *aml, const char *name, const char *id, uint16_t port, uint8_t ports, unsigned irq)
{
    size_t device = aml_begin_device(aml, name);
    aml_name(aml, "_HID");
    if (strncmp(id, "PNP", 3) == 0)
        aml_eisa_id(aml, id);
    else
        aml_string(aml, id);
    aml_name(aml, "_UID");
    aml_integer(aml, 1);
    aml_status(aml);
    size_t size_at;
    aml_name(aml, "_CRS");
    size_t resources = aml_begin_resources(aml, &size_at);
    aml_io(aml, port, ports);
    if (irq)
        aml_irq(aml, irq);
    aml_end_resources(aml, resources, size_at);
    aml_end(aml, device);
}

/* Addresses that belong to the board: configuration space, ACPI ports. */
static void dsdt_reserved(struct aml *aml, const struct acpi_config *config)
{
    size_t size_at, device = aml_begin_device(aml, "RSRC");
    aml_name(aml, "_HID");
    aml_eisa_id(aml, "PNP0C02");
    aml_name(aml, "_CRS");
    size_t resources = aml_begin_resources(aml, &size_at);
    aml_memory32_fixed(aml, config->ecam_base, config->ecam_size);
    aml_io(aml, config->pm_base, POWER_ACPI_SIZE);
    aml_io(aml, config->hotplug_port, HOTPLUG_SIZE);
    aml_end_resources(aml, resources, size_at);
    aml_end(aml, device);
}

static void dsdt_cpu(struct aml *aml, unsigned index)
{
    char name[8];
    snprintf(name, sizeof name, "C%03X", index & 0xfffu);
    size_t device = aml_begin_device(aml, name);
    aml_name(aml, "_HID");
    aml_string(aml, "ACPI0007");
    aml_name(aml, "_UID");
    aml_integer(aml, index);
    aml_status(aml);
    aml_end(aml, device);
}

static uint64_t put_dsdt(struct build *build, const struct acpi_config *config)
{
    enum { size = 16384 };
    uint8_t bytes[size];
    memset(bytes, 0, sizeof(struct sdt_header));
    struct aml aml = {.bytes = bytes, .used = sizeof(struct sdt_header), .size = size};
    fill_header((struct sdt_header *)bytes, "DSDT", 2); /* 2: 64-bit integers */

    size_t scope = aml_begin_scope(&aml, "\\_SB_");
    dsdt_pci(&aml, config);
    dsdt_reserved(&aml, config);
    dsdt_isa(&aml, "COM1", "PNP0501", config->com1_port, 8, config->com1_irq);
    dsdt_isa(&aml, "RTC_", "PNP0B00", 0x70, 2, 8);
    if (config->pvpanic_port)
        dsdt_isa(&aml, "PEVT", "QEMU0001", config->pvpanic_port, 1, 0);
    for (unsigned i = 0; i < config->vcpus; i++)
        dsdt_cpu(&aml, i);
    aml_end(&aml, scope);
    dsdt_event(&aml);

    aml_name(&aml, "\\_S5_");
    size_t sleep = aml_begin_package(&aml, 4);
    aml_integer(&aml, POWER_SLEEP_TYPE_S5);
    aml_integer(&aml, POWER_SLEEP_TYPE_S5);
    aml_integer(&aml, 0);
    aml_integer(&aml, 0);
    aml_end(&aml, sleep);
    if (aml.overflow)
        build->status = -ENOMEM;
    uint64_t at = put_table(build, (struct sdt_header *)bytes, aml.used);
    build->tables--; /* the FADT points to it, not the XSDT */
    return at;
}

static struct gas io_register(uint16_t port, uint8_t bytes)
{
    return (struct gas){GAS_SYSTEM_IO, (uint8_t)(bytes * 8), 0, bytes == 4 ? 3 : bytes == 2 ? 2 : 1, port};
}

static void put_fadt(struct build *build, const struct acpi_config *config, uint64_t dsdt)
{
    struct facs facs = {.signature = {'F', 'A', 'C', 'S'}, .length = sizeof facs, .version = 2};
    uint64_t facs_at = put_raw(build, &facs, sizeof facs);
    uint16_t base = config->pm_base;
    struct fadt fadt = {
        .facs = (uint32_t)facs_at, .x_facs = facs_at, .dsdt = (uint32_t)dsdt, .x_dsdt = dsdt, .profile = 0, .sci_irq = SCI_IRQ,
        .pm1a_event = base + POWER_PM1A_EVENT, .pm1_event_length = 4,
        .pm1a_control = base + POWER_PM1A_CONTROL, .pm1_control_length = 2,
        .timer = base + POWER_TIMER, .timer_length = 4,
        .gpe0 = base + POWER_GPE0, .gpe0_length = POWER_GPE0_SIZE,
        .c2_latency = 0xfff, .c3_latency = 0xfff, /* there is neither */
        .century = 0x32,
        /* No keyboard controller is told of: it has nothing attached, and probing it takes the guest time. */
        .boot_flags = BOOT_LEGACY_DEVICES | BOOT_NO_VGA | BOOT_NO_ASPM,
        .flags = FADT_WBINVD | FADT_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_RTC_WAKE | FADT_TIMER_32 | FADT_RESET,
        .reset = io_register(POWER_RESET_PORT, 1), .reset_value = POWER_RESET_VALUE,
        .minor_version = 3,
        .x_pm1a_event = io_register((uint16_t)(base + POWER_PM1A_EVENT), 4),
        .x_pm1a_control = io_register((uint16_t)(base + POWER_PM1A_CONTROL), 2),
        .x_timer = io_register((uint16_t)(base + POWER_TIMER), 4),
        .x_gpe0 = io_register((uint16_t)(base + POWER_GPE0), POWER_GPE0_SIZE),
    };
    fill_header(&fadt.header, "FACP", 6);
    put_table(build, &fadt.header, sizeof fadt);
}

struct madt_builder {
    uint8_t bytes[1024];
    size_t used;
};

static void madt_add(struct madt_builder *madt, const void *entry, size_t length)
{
    if (length <= sizeof madt->bytes - madt->used) {
        memcpy(madt->bytes + madt->used, entry, length);
        madt->used += length;
    }
}

static void put_madt(struct build *build, const struct acpi_config *config)
{
    struct {
        struct sdt_header header;
        uint32_t lapic_base, flags;
    } __attribute__((packed)) head = {.lapic_base = config->lapic_base, .flags = 1}; /* 8259s are there as well */
    struct madt_builder madt = {.used = sizeof head};
    for (unsigned i = 0; i < config->vcpus; i++) {
        struct { uint8_t type, length, uid, apic_id; uint32_t flags; } lapic = {0, 8, (uint8_t)i, (uint8_t)i, 1};
        madt_add(&madt, &lapic, sizeof lapic);
    }
    struct { uint8_t type, length, id, reserved; uint32_t base, gsi; } ioapic = {1, 12, config->ioapic_id, 0,
                                                                                  config->ioapic_base, 0};
    madt_add(&madt, &ioapic, sizeof ioapic);
    struct { uint8_t type, length, bus, irq; uint32_t gsi; uint16_t flags; } __attribute__((packed)) irq_override[] = {
        {2, 10, 0, 0, 2, 0},             /* the 8254 drives pin 2 */
        {2, 10, 0, SCI_IRQ, SCI_IRQ, 0xd}, /* level, active high */
    };
    madt_add(&madt, irq_override, sizeof irq_override);
    struct { uint8_t type, length, uid; uint16_t flags; uint8_t lint; } __attribute__((packed)) nmi = {4, 6, 0xff, 0, 1};
    madt_add(&madt, &nmi, sizeof nmi);
    memcpy(madt.bytes, &head, sizeof head);
    fill_header((struct sdt_header *)madt.bytes, "APIC", 5);
    put_table(build, (struct sdt_header *)madt.bytes, madt.used);
}

static void put_mcfg(struct build *build, const struct acpi_config *config)
{
    struct {
        struct sdt_header header;
        uint64_t reserved, base;
        uint16_t segment;
        uint8_t first_bus, last_bus;
        uint32_t reserved2;
    } __attribute__((packed)) mcfg = {.base = config->ecam_base, .last_bus = (uint8_t)((config->ecam_size >> 20) - 1)};
    fill_header(&mcfg.header, "MCFG", 1);
    put_table(build, &mcfg.header, sizeof mcfg);
}

int acpi_build(struct ram *ram, const struct acpi_config *config, struct error *error)
{
    struct build build = {.ram = ram, .next = ACPI_BASE + sizeof(struct rsdp)};
    put_fadt(&build, config, put_dsdt(&build, config));
    put_madt(&build, config);
    put_mcfg(&build, config);

    struct {
        struct sdt_header header;
        uint64_t table[8];
    } __attribute__((packed)) xsdt = {0};
    unsigned tables = build.tables;
    memcpy(xsdt.table, build.table, tables * sizeof xsdt.table[0]);
    fill_header(&xsdt.header, "XSDT", 1);
    struct rsdp rsdp = {.signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '}, .revision = 2, .length = sizeof rsdp};
    memcpy(rsdp.oem_id, "VENEER", sizeof rsdp.oem_id);
    rsdp.xsdt = put_table(&build, &xsdt.header, sizeof xsdt.header + tables * sizeof xsdt.table[0]);
    rsdp.checksum = checksum(&rsdp, 20);
    rsdp.extended_checksum = checksum(&rsdp, sizeof rsdp);
    if (build.status < 0 || ram_write(ram, ACPI_BASE, &rsdp, sizeof rsdp) < 0)
        return error_set(error, ENOMEM, "the guest's memory has no room for the ACPI tables below 0x%x", ACPI_END);
    return 0;
}
