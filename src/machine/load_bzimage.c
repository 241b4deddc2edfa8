/* load_bzimage.c - Linux's bzImage (Documentation/arch/x86/boot.rst in Linux).
 *
 * The image holds a small program that unpacks the kernel proper, an ELF file, to memory, moves and relocates it
 * when it was told to randomise its address, and jumps to the ELF entry in 64-bit mode with RSI at boot_params.
 * On an engine that interprets, unpacking 10 MB to 50 takes longer than the rest of the boot; so it is done
 * here and the ELF's entry is taken as the image's own program would without address randomisation.
 * (The kernel's text thus lies at its link address, as with nokaslr.) An image whose payload veneer
 * cannot unpack is entered at its own 64-bit entry instead, which does it all in the guest. */
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "machine/load_private.h"
#include "machine/unpack.h"

#define SETUP_HEADER 0x1f1u
#define HDRS_MAGIC 0x53726448u /* "HdrS" */
#define BOOT_FLAG 0xaa55u
#define PROTOCOL_MIN 0x020cu
#define LOADER_UNKNOWN 0xffu
#define ENTRY64_OFFSET 0x200u
#define UNPACKED_MAX (UINT64_C(1) << 30)

struct bzimage {
    struct setup_header hdr;
    uint64_t code_offset; /* of the protected-mode part */
    uint64_t code_size;
};

bool bzimage_is(const struct load_file *file)
{
    struct setup_header hdr;
    if (file->size < SETUP_HEADER + sizeof hdr)
        return false;
    memcpy(&hdr, file->bytes + SETUP_HEADER, sizeof hdr);
    return hdr.boot_flag == BOOT_FLAG && hdr.header == HDRS_MAGIC;
}

static int parse(const struct load *load, struct bzimage *ret_image)
{
    const struct load_file *file = load->kernel;
    struct bzimage image;
    memcpy(&image.hdr, file->bytes + SETUP_HEADER, sizeof image.hdr);
    const struct setup_header *hdr = &image.hdr;
    if (hdr->version < PROTOCOL_MIN)
        return error_set(load->error, ENOTSUP,
                         "kernel %s speaks Linux boot protocol %u.%02u; 2.12 or later is needed for its 64-bit entry",
                         file->name, hdr->version >> 8, hdr->version & 0xffu);
    if (!(hdr->loadflags & LOADED_HIGH) || !(hdr->xloadflags & XLF_KERNEL_64))
        return error_set(load->error, ENOTSUP, "kernel %s is a 32-bit or zImage kernel; an x86-64 bzImage is needed", file->name);
    image.code_offset = ((hdr->setup_sects ? hdr->setup_sects : 4u) + 1u) * 512u;
    uint64_t code_size = (uint64_t)hdr->syssize * 16;
    if (code_size == 0 || !range_within(image.code_offset, code_size, file->size + 15)) /* syssize is rounded up */
        return error_set(load->error, EINVAL,
                         "kernel %s is truncated: its header promises %" PRIu64 " bytes, the file has %zu", file->name,
                         image.code_offset + code_size, file->size);
    image.code_size = file->size - image.code_offset;
    *ret_image = image;
    return 0;
}

/* Fills what the boot protocol asks of a loader and puts it at LOAD_BOOT_PARAMS. */
static int put_boot_params(struct load *load, const struct bzimage *image, uint32_t code32_start)
{
    struct boot_params params = {0};
    /* The header's length is in the jump's displacement at 0x201; what lies behind is not for the loader. */
    size_t length = 0x202u + load->kernel->bytes[0x201] - SETUP_HEADER;
    if (length > sizeof params.hdr)
        length = sizeof params.hdr;
    memcpy(&params.hdr, load->kernel->bytes + SETUP_HEADER, length);
    params.hdr.type_of_loader = LOADER_UNKNOWN;
    params.hdr.loadflags = (uint8_t)((image->hdr.loadflags & ~(KASLR_FLAG | QUIET_FLAG)) | KEEP_SEGMENTS);
    params.hdr.code32_start = code32_start;
    params.hdr.cmd_line_ptr = LOAD_CMDLINE;
    params.hdr.ramdisk_image = (uint32_t)load->initrd_gpa;
    params.hdr.ramdisk_size = (uint32_t)load->initrd_size;
    params.hdr.setup_data = 0;
    params.ext_ramdisk_image = (uint32_t)(load->initrd_gpa >> 32);
    params.ext_ramdisk_size = (uint32_t)(load->initrd_size >> 32);
    params.acpi_rsdp_addr = load->config->rsdp;
    for (unsigned i = 0; i < load->config->ranges && i < LOAD_MAP_MAX; i++) {
        const struct load_range *range = &load->config->range[i];
        params.e820_table[params.e820_entries++] =
            (struct boot_e820_entry){.addr = range->base, .size = range->size, .type = range->type};
    }
    return load_put(load, "boot parameters", LOAD_BOOT_PARAMS, &params, sizeof params);
}

/* The kernel proper, unpacked, into memory. -ENOTSUP: of a kind that only the image's own code can unpack. */
static int load_payload(struct load *load, const struct bzimage *image, struct load_entry *ret_entry)
{
    const struct setup_header *hdr = &image->hdr;
    if (!range_within(hdr->payload_offset, hdr->payload_length, image->code_size))
        return error_set(load->error, EINVAL, "kernel %s: its payload of %u bytes at %u passes the file's end",
                         load->kernel->name, hdr->payload_length, hdr->payload_offset);
    const uint8_t *payload = load->kernel->bytes + image->code_offset + hdr->payload_offset;
    struct load_file vmlinux = {.name = load->kernel->name};
    uint8_t *bytes;
    int status = unpack_payload(payload, hdr->payload_length, UNPACKED_MAX, &bytes, &vmlinux.size, load->error);
    if (status < 0) {
        error_prefix(load->error, "kernel %s", load->kernel->name);
        return status;
    }
    vmlinux.bytes = bytes;
    struct elf_image elf;
    if (!elf_is(&vmlinux))
        status = error_set(load->error, EINVAL, "kernel %s: its unpacked payload is not an ELF file", load->kernel->name);
    else
        status = elf_open(&vmlinux, &elf, load->error);
    if (status == 0 && elf.machine != EM_X86_64)
        status = error_set(load->error, EINVAL, "kernel %s: its unpacked payload is not for x86-64", load->kernel->name);
    if (status == 0)
        status = elf_load(load, &vmlinux, &elf);
    if (status == 0) {
        ret_entry->rip = elf.entry;
        ret_entry->protocol = "Linux 64-bit entry, payload unpacked";
    }
    unpack_free(bytes, vmlinux.size);
    return status;
}

/* The image as it is, to unpack itself. */
static int load_packed(struct load *load, const struct bzimage *image, struct load_entry *ret_entry)
{
    uint64_t base = image->hdr.pref_address < LOAD_KERNEL_MIN ? LOAD_KERNEL_MIN : image->hdr.pref_address;
    uint64_t room = image->hdr.init_size > image->code_size ? image->hdr.init_size : image->code_size;
    int status = load_place(load, "bzImage", base, load->kernel->bytes + image->code_offset, image->code_size, room);
    if (status < 0)
        return status;
    ret_entry->rip = base + ENTRY64_OFFSET;
    ret_entry->protocol = "Linux 64-bit entry, unpacks itself";
    return 0;
}

int load_bzimage(struct load *load, struct load_entry *ret_entry)
{
    struct bzimage image;
    int status = parse(load, &image);
    if (status < 0)
        return status;
    ret_entry->kind = LOAD_LINUX64;
    ret_entry->info = LOAD_BOOT_PARAMS;
    status = load_payload(load, &image, ret_entry);
    if (status == -ENOTSUP)
        status = load_packed(load, &image, ret_entry);
    if (status == 0)
        status = load_cmdline(load, image.hdr.cmdline_size);
    if (status == 0)
        status = load_initrd(load, image.hdr.initrd_addr_max);
    if (status == 0)
        status = put_boot_params(load, &image, (uint32_t)(ret_entry->rip));
    return status;
}
