/* The ACPI tables: checksums and pointers by our own reading, the AML by ACPICA's: each table disassembles
 * without an error, and the DSDT's disassembly compiles back to the same bytes' length. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "machine/acpi.h"

static char folder[] = "/tmp/veneer-acpi-XXXXXX";

static void write_file(const char *name, const void *bytes, size_t length)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s.dat", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
    close(fd);
}

/* Runs a command in the folder; true when it ends 0. */
static bool run(const char *command)
{
    char line[512];
    snprintf(line, sizeof line, "cd %s && %s", folder, command);
    return system(line) == 0;
}

static uint8_t sum(const uint8_t *bytes, size_t length)
{
    uint8_t total = 0;
    while (length--)
        total = (uint8_t)(total + *bytes++);
    return total;
}

static uint64_t get(const uint8_t *bytes, unsigned offset, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, bytes + offset, size);
    return value;
}

/* The table at gpa: checks it, writes it to a file, returns its bytes. */
static const uint8_t *table(const struct ram *ram, uint64_t gpa, const char *signature)
{
    const uint8_t *head = ram_host(ram, gpa, 36);
    CHECK(head && memcmp(head, signature, 4) == 0);
    if (!head)
        exit(1);
    uint64_t length = get(head, 4, 4);
    CHECK(ram_host(ram, gpa, length) != NULL && gpa + length <= ACPI_END);
    CHECK_EQ(sum(head, length), 0);
    char name[5] = {0};
    memcpy(name, signature, 4);
    write_file(name, head, length);
    return head;
}

static void check_tables(const struct ram *ram, unsigned vcpus)
{
    const uint8_t *rsdp = ram_host(ram, ACPI_BASE, 36);
    CHECK(memcmp(rsdp, "RSD PTR ", 8) == 0);
    CHECK_EQ(sum(rsdp, 20), 0);
    CHECK_EQ(sum(rsdp, 36), 0);
    const uint8_t *xsdt = table(ram, get(rsdp, 24, 8), "XSDT");
    CHECK_EQ(get(xsdt, 4, 4), 36 + 3 * 8);
    const uint8_t *fadt = table(ram, get(xsdt, 36, 8), "FACP");
    const uint8_t *madt = table(ram, get(xsdt, 44, 8), "APIC");
    table(ram, get(xsdt, 52, 8), "MCFG");
    table(ram, get(fadt, 140, 8), "DSDT");
    CHECK_EQ(get(fadt, 40, 4), get(fadt, 140, 8));
    const uint8_t *facs = ram_host(ram, get(fadt, 132, 8), 64);
    CHECK(facs && memcmp(facs, "FACS", 4) == 0 && get(fadt, 132, 8) % 64 == 0);
    CHECK_EQ(get(madt, 4, 4), 44 + 8 * vcpus + 12 + 2 * 10 + 6);
}

int main(void)
{
    CHECK(mkdtemp(folder) != NULL);
    static const unsigned counts[] = {1, 16};
    for (unsigned i = 0; i < 2; i++) {
        struct ram ram;
        struct acpi_config config = {
            .vcpus = counts[i], .lapic_base = 0xfee00000, .ioapic_base = 0xfec00000, .pm_base = 0x600, .hotplug_port = 0x610,
            .ecam_base = 0xe0000000, .ecam_size = 0x100000, .window32_base = 0xc0000000, .window32_size = 0x20000000,
            .window64_base = UINT64_C(1) << 38, .window64_size = UINT64_C(1) << 38, .com1_port = 0x3f8, .com1_irq = 4,
            .pvpanic_port = i ? 0x505 : 0,
        };
        CHECK_EQ(ram_open(&ram, 1 << 20, UINT64_C(3) << 30, UINT64_C(4) << 30, NULL), 0);
        CHECK_EQ(acpi_build(&ram, &config, NULL), 0);
        check_tables(&ram, counts[i]);
        CHECK(run("iasl -d XSDT.dat FACP.dat APIC.dat MCFG.dat DSDT.dat >log 2>&1 && ! grep -i error log"));
        CHECK(run("grep -q PNP0A08 DSDT.dsl && grep -q '_S5' DSDT.dsl"));
        CHECK(run("test $(grep -c 'Method (_EJ0, 1' DSDT.dsl) = 31 && grep -q 'Notify (S031, Arg1)' DSDT.dsl"));
        CHECK(run("iasl DSDT.dsl >log 2>&1 && grep -q ' 0 Errors, 0 Warnings' log"));
        ram_close(&ram);
    }

    struct ram small;
    struct error error = {0};
    CHECK_EQ(ram_open(&small, 512 << 10, UINT64_C(3) << 30, UINT64_C(4) << 30, NULL), 0);
    struct acpi_config config = {.vcpus = 1, .ecam_size = 1 << 20, .window32_size = 1 << 20};
    CHECK(acpi_build(&small, &config, &error) < 0);
    CHECK(strstr(error.text, "ACPI") != NULL);
    ram_close(&small);
    CHECK(run("rm -f *.dat *.dsl *.aml log"));
    rmdir(folder);
    CHECK_DONE();
}
