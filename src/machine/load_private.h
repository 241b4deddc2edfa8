/* load_private.h - what the loaders share; see load.h. */
#ifndef VENEER_MACHINE_LOAD_PRIVATE_H
#define VENEER_MACHINE_LOAD_PRIVATE_H

#include <stdbool.h>

#include "machine/load.h"

struct load {
    struct ram *ram;
    const struct load_config *config;
    const struct load_file *kernel;
    const struct load_file *initrd; /* NULL: none */
    const char *append;             /* never NULL */
    uint64_t kernel_end;            /* one past the last byte that the kernel occupies or needs */
    uint64_t initrd_gpa, initrd_size;
    struct error *error;
};

/* One past the last byte of low RAM. */
uint64_t load_low_end(const struct load *load);

/* Puts `length` bytes at gpa, which must be in low RAM from LOAD_KERNEL_MIN on, with room for `room` >= length bytes
 * there, and raises kernel_end. `what` ("segment 2"). Returns 0 or a negative errno. */
int load_place(struct load *load, const char *what, uint64_t gpa, const void *bytes, uint64_t length, uint64_t room);

/* Puts boot data below 1 MiB. */
int load_put(struct load *load, const char *what, uint64_t gpa, const void *bytes, uint64_t length);

/* Puts the command line at LOAD_CMDLINE; max: the longest that the kernel takes, without its NUL. */
int load_cmdline(struct load *load, uint32_t max);

/* Puts the initrd, if there is one, as high in low RAM as address_max (inclusive) allows, behind kernel_end; sets
 * initrd_gpa and initrd_size. */
int load_initrd(struct load *load, uint64_t address_max);

/* True when the bytes are an ELF file by their magic. */
bool elf_is(const struct load_file *file);

struct elf_image {
    uint64_t entry; /* as in the header */
    bool is64;
    bool has_pvh;
    uint64_t pvh_entry;
    uint16_t machine;
    uint16_t segments;
    uint64_t segment_offset; /* of the program headers */
};

/* Checks the headers of an ELF executable for x86. */
int elf_open(const struct load_file *file, struct elf_image *ret_image, struct error *error);
/* Loads its PT_LOAD segments by physical address. */
int elf_load(struct load *load, const struct load_file *file, const struct elf_image *image);
/* The physical address of e_entry, wherever a segment says that its virtual one lies. */
uint64_t elf_physical_entry(const struct load_file *file, const struct elf_image *image);

bool bzimage_is(const struct load_file *file);
int load_bzimage(struct load *load, struct load_entry *ret_entry);
/* Offset of a Multiboot header in the first 8 KiB, or -1. */
long multiboot_find(const struct load_file *file);
int load_multiboot(struct load *load, uint32_t header_offset, struct load_entry *ret_entry);
int load_pvh(struct load *load, const struct elf_image *image, struct load_entry *ret_entry);

#endif
