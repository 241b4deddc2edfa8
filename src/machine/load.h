/* load.h - puts a kernel and its initrd into guest RAM and says where to enter.
 *
 * Kinds: a Linux bzImage (its payload is unpacked here and the vmlinux inside is entered at its 64-bit
 * entry; when the payload cannot be unpacked here, the image's own decompressor is entered instead); an
 * ELF image with a Multiboot 1 header; an ELF image with a PVH note (a vmlinux); a flat image with the
 * Multiboot address fields. The files are hostile: whatever they hold, the answer is an entry or an error.
 *
 * Boot data lives in the first 640 KiB; kernels go to 1 MiB and above. */
#ifndef VENEER_MACHINE_LOAD_H
#define VENEER_MACHINE_LOAD_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "isa/x86/state.h"
#include "memory/ram.h"

/* Guest-physical addresses of boot data. */
#define LOAD_GDT 0x1000u
#define LOAD_BOOT_PARAMS 0x2000u /* Linux's zero page */
#define LOAD_PAGE_TABLES 0x3000u /* PML4, PDPT, four page directories: 4 GiB as they are */
#define LOAD_INFO 0x9000u        /* PVH start info or Multiboot information */
#define LOAD_CMDLINE 0x20000u
#define LOAD_CMDLINE_MAX 0x10000u
#define LOAD_KERNEL_MIN 0x100000u

/* Types of memory, as in E820, PVH and Multiboot. */
#define LOAD_RAM 1u
#define LOAD_RESERVED 2u
#define LOAD_ACPI 3u
#define LOAD_MAP_MAX 16u

struct load_range {
    uint64_t base, size;
    uint32_t type;
};

struct load_config {
    const char *kernel; /* path */
    const char *initrd; /* path, or NULL */
    const char *append; /* command line, or NULL */
    uint64_t rsdp;      /* GPA of the ACPI root pointer, or 0 */
    unsigned ranges;    /* the memory map told to the guest, ascending */
    struct load_range range[LOAD_MAP_MAX];
};

/* A file's bytes and the name that errors call it by. */
struct load_file {
    const char *name;
    const uint8_t *bytes;
    size_t size;
};

enum load_kind { LOAD_LINUX64, LOAD_PVH, LOAD_MULTIBOOT };

struct load_entry {
    enum load_kind kind;
    const char *protocol; /* for people: "Linux 64-bit, unpacked (LZ4)" ... */
    uint64_t rip;
    uint64_t info; /* GPA of what the protocol hands over */
};

/* Reads the files and loads them. Returns 0 or a negative errno with a text that names the file, what is wrong
 * and why. RAM is that of a VM that has not run; on failure it may have been written to. */
int load_kernel(struct ram *ram, const struct load_config *config, struct load_entry *ret_entry, struct error *error);

/* As load_kernel, of bytes in memory; config->kernel and ->initrd are not looked at. initrd: NULL for none. */
int load_image(struct ram *ram, const struct load_config *config, const struct load_file *kernel,
               const struct load_file *initrd, struct load_entry *ret_entry, struct error *error);

/* Makes *cpu, freshly reset, what the entry's protocol wants, and writes the GDT and page tables it needs. */
int load_entry_state(struct ram *ram, const struct load_entry *entry, struct x86_cpu *cpu, struct error *error);

#endif
