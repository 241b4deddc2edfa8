/* load_multiboot.c - Multiboot 1 (specification 0.6.96): ELF images of both classes, and flat images by the
 * header's address fields. The initrd becomes the one module. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "machine/load_private.h"

#define MB_MAGIC 0x1badb002u
#define MB_SEARCH 8192u
#define MB_FLAG_VIDEO 0x4u
#define MB_FLAG_ADDRESSES 0x10000u
#define MB_FLAGS_REQUIRED_KNOWN 0x3u /* page-aligned modules, memory information: both always given */

struct mb_header {
    uint32_t magic, flags, checksum;
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

#define MBI_MEMORY 0x001u
#define MBI_CMDLINE 0x004u
#define MBI_MODULES 0x008u
#define MBI_MMAP 0x040u
#define MBI_LOADER_NAME 0x200u

struct mb_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name, apm_table;
};
struct mb_module {
    uint32_t start, end, cmdline, reserved;
};
struct mb_mmap {
    uint32_t size; /* of what follows */
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

static struct mb_header get_header(const struct load_file *file, uint64_t offset)
{
    struct mb_header header = {0};
    uint64_t length = file->size - offset;
    memcpy(&header, file->bytes + offset, length < sizeof header ? length : sizeof header);
    return header;
}

long multiboot_find(const struct load_file *file)
{
    for (uint32_t at = 0; at + 12 <= MB_SEARCH && at + 12 <= file->size; at += 4) {
        struct mb_header header = get_header(file, at);
        if (header.magic == MB_MAGIC && header.magic + header.flags + header.checksum == 0)
            return (long)at;
    }
    return -1;
}

/* The "a.out kludge": the header itself says what goes where. */
static int load_flat(struct load *load, const struct mb_header *header, uint32_t header_offset, uint64_t *ret_entry)
{
    const struct load_file *file = load->kernel;
    if (!range_within(header_offset, sizeof *header, file->size))
        return error_set(load->error, EINVAL, "kernel %s is truncated in its Multiboot header", file->name);
    if (header->load_addr > header->header_addr || header->header_addr - header->load_addr > header_offset)
        return error_set(load->error, EINVAL, "kernel %s: its Multiboot header loads from before the file's start", file->name);
    uint64_t start = header_offset - (header->header_addr - header->load_addr);
    uint64_t length = file->size - start;
    if (header->load_end_addr) {
        if (header->load_end_addr < header->load_addr || header->load_end_addr - header->load_addr > length)
            return error_set(load->error, EINVAL, "kernel %s is truncated: its Multiboot header loads to 0x%x", file->name,
                             header->load_end_addr);
        length = header->load_end_addr - header->load_addr;
    }
    uint64_t room = length;
    if (header->bss_end_addr > header->load_addr && header->bss_end_addr - header->load_addr > room)
        room = header->bss_end_addr - header->load_addr;
    *ret_entry = header->entry_addr;
    return load_place(load, "Multiboot image", header->load_addr, file->bytes + start, length, room);
}

static int load_body(struct load *load, const struct mb_header *header, uint32_t header_offset, uint64_t *ret_entry)
{
    if (header->flags & MB_FLAG_ADDRESSES)
        return load_flat(load, header, header_offset, ret_entry);
    if (!elf_is(load->kernel))
        return error_set(load->error, EINVAL,
                         "kernel %s has a Multiboot header without addresses and is not an ELF file", load->kernel->name);
    struct elf_image image;
    int status = elf_open(load->kernel, &image, load->error);
    if (status < 0)
        return status;
    *ret_entry = elf_physical_entry(load->kernel, &image);
    return elf_load(load, load->kernel, &image);
}

static int put_info(struct load *load)
{
    struct {
        struct mb_info info;
        struct mb_module module;
        struct mb_mmap mmap[LOAD_MAP_MAX];
        char name[8];
    } boot = {.info = {.flags = MBI_MEMORY | MBI_CMDLINE | MBI_MMAP | MBI_LOADER_NAME, .cmdline = LOAD_CMDLINE},
              .name = "veneer"};
    uint32_t module_at = LOAD_INFO + sizeof boot.info, mmap_at = module_at + sizeof boot.module;
    uint32_t entries = 0;
    for (; entries < load->config->ranges && entries < LOAD_MAP_MAX; entries++) {
        const struct load_range *range = &load->config->range[entries];
        boot.mmap[entries] = (struct mb_mmap){sizeof boot.mmap[0] - 4, range->base, range->size, range->type};
        if (range->type == LOAD_RAM && range->base == 0)
            boot.info.mem_lower = (uint32_t)(range->size >> 10);
        if (range->type == LOAD_RAM && range->base == LOAD_KERNEL_MIN)
            boot.info.mem_upper = (uint32_t)(range->size >> 10);
    }
    boot.info.mmap_addr = mmap_at;
    boot.info.mmap_length = entries * (uint32_t)sizeof boot.mmap[0];
    boot.info.boot_loader_name = LOAD_INFO + (uint32_t)((char *)boot.name - (char *)&boot);
    if (load->initrd) {
        boot.info.flags |= MBI_MODULES;
        boot.info.mods_count = 1;
        boot.info.mods_addr = module_at;
        boot.module = (struct mb_module){(uint32_t)load->initrd_gpa, (uint32_t)(load->initrd_gpa + load->initrd_size),
                                         LOAD_CMDLINE, 0};
    }
    return load_put(load, "Multiboot information", LOAD_INFO, &boot, sizeof boot);
}

int load_multiboot(struct load *load, uint32_t header_offset, struct load_entry *ret_entry)
{
    struct mb_header header = get_header(load->kernel, header_offset);
    if (header.flags & 0xffffu & ~(MB_FLAGS_REQUIRED_KNOWN | MB_FLAG_VIDEO))
        return error_set(load->error, ENOTSUP, "kernel %s: its Multiboot header requires unknown features 0x%x",
                         load->kernel->name, header.flags & 0xffffu);
    uint64_t entry = 0;
    int status = load_body(load, &header, header_offset, &entry);
    if (status == 0 && entry > UINT32_MAX)
        status = error_set(load->error, EINVAL, "kernel %s: its entry 0x%" PRIx64 " is not a 32-bit address", load->kernel->name,
                           entry);
    if (status == 0)
        status = load_cmdline(load, LOAD_CMDLINE_MAX);
    if (status == 0)
        status = load_initrd(load, UINT32_MAX - 1);
    if (status == 0)
        status = put_info(load);
    if (status == 0)
        *ret_entry = (struct load_entry){LOAD_MULTIBOOT, "Multiboot", entry, LOAD_INFO};
    return status;
}
