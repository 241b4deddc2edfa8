/* load_elf.c - ELF executables for x86, 32 and 64 bits: headers, segments, and the note by which a kernel
 * offers a PVH entry (xen/include/public/elfnote.h: XEN_ELFNOTE_PHYS32_ENTRY). */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "machine/load_private.h"

#define NOTE_PHYS32_ENTRY 18u
#define SEGMENTS_MAX 256u

/* One program header, whatever the class. */
struct segment {
    uint32_t type;
    uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

bool elf_is(const struct load_file *file)
{
    return file->size >= SELFMAG && memcmp(file->bytes, ELFMAG, SELFMAG) == 0;
}

/* The program header table was checked by elf_open. */
static struct segment get_segment(const struct load_file *file, const struct elf_image *image, unsigned n)
{
    if (image->is64) {
        Elf64_Phdr p;
        memcpy(&p, file->bytes + image->segment_offset + n * sizeof p, sizeof p);
        return (struct segment){p.p_type, p.p_offset, p.p_vaddr, p.p_paddr, p.p_filesz, p.p_memsz, p.p_align};
    }
    Elf32_Phdr p;
    memcpy(&p, file->bytes + image->segment_offset + n * sizeof p, sizeof p);
    return (struct segment){p.p_type, p.p_offset, p.p_vaddr, p.p_paddr, p.p_filesz, p.p_memsz, p.p_align};
}

static void scan_notes(const struct load_file *file, const struct segment *segment, struct elf_image *image)
{
    if (!range_within(segment->offset, segment->filesz, file->size))
        return;
    const uint8_t *bytes = file->bytes + segment->offset;
    uint64_t at = 0, align = segment->align == 8 ? 8 : 4;
    Elf32_Nhdr note; /* the same in both classes */
    while (range_within(at, sizeof note, segment->filesz)) {
        memcpy(&note, bytes + at, sizeof note);
        uint64_t name = at + sizeof note;
        uint64_t desc = (name + note.n_namesz + align - 1) & ~(align - 1);
        if (!range_within(desc, note.n_descsz, segment->filesz))
            return;
        if (note.n_type == NOTE_PHYS32_ENTRY && note.n_namesz == 4 && memcmp(bytes + name, "Xen", 4) == 0 &&
            (note.n_descsz == 4 || note.n_descsz == 8)) {
            image->pvh_entry = 0;
            memcpy(&image->pvh_entry, bytes + desc, note.n_descsz);
            image->has_pvh = true;
            return;
        }
        at = (desc + note.n_descsz + align - 1) & ~(align - 1);
    }
}

static int read_header(const struct load_file *file, struct elf_image *image, uint16_t *ret_type, uint16_t *ret_entsize)
{
    if (file->size < sizeof(Elf32_Ehdr))
        return -1;
    image->is64 = file->bytes[EI_CLASS] == ELFCLASS64;
    if (image->is64) {
        Elf64_Ehdr h;
        if (file->size < sizeof h)
            return -1;
        memcpy(&h, file->bytes, sizeof h);
        *image = (struct elf_image){.entry = h.e_entry, .is64 = true, .machine = h.e_machine, .segments = h.e_phnum,
                                    .segment_offset = h.e_phoff};
        *ret_type = h.e_type;
        *ret_entsize = h.e_phentsize;
    } else {
        Elf32_Ehdr h;
        memcpy(&h, file->bytes, sizeof h);
        *image = (struct elf_image){.entry = h.e_entry, .machine = h.e_machine, .segments = h.e_phnum,
                                    .segment_offset = h.e_phoff};
        *ret_type = h.e_type;
        *ret_entsize = h.e_phentsize;
    }
    return 0;
}

int elf_open(const struct load_file *file, struct elf_image *ret_image, struct error *error)
{
    struct elf_image image = {0};
    uint16_t type, entsize;
    if (read_header(file, &image, &type, &entsize) < 0)
        return error_set(error, EINVAL, "kernel %s is truncated: its %zu bytes do not hold an ELF header", file->name,
                         file->size);
    if (file->bytes[EI_DATA] != ELFDATA2LSB || (image.machine != EM_X86_64 && image.machine != EM_386))
        return error_set(error, EINVAL, "kernel %s is an ELF file for another processor (machine %u), not x86", file->name,
                         image.machine);
    if (type != ET_EXEC && type != ET_DYN)
        return error_set(error, EINVAL, "kernel %s is an ELF file of type %u, not an executable", file->name, type);
    size_t want = image.is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (image.segments == 0 || image.segments > SEGMENTS_MAX || entsize != want)
        return error_set(error, EINVAL, "kernel %s has %u ELF program headers of %u bytes; 1 to %u of %zu are expected",
                         file->name, image.segments, entsize, SEGMENTS_MAX, want);
    if (!range_within(image.segment_offset, image.segments * want, file->size))
        return error_set(error, EINVAL, "kernel %s is truncated: its ELF program headers lie at 0x%" PRIx64 " of %zu bytes",
                         file->name, image.segment_offset, file->size);
    for (unsigned n = 0; n < image.segments && !image.has_pvh; n++) {
        struct segment segment = get_segment(file, &image, n);
        if (segment.type == PT_NOTE)
            scan_notes(file, &segment, &image);
    }
    *ret_image = image;
    return 0;
}

int elf_load(struct load *load, const struct load_file *file, const struct elf_image *image)
{
    bool any = false;
    for (unsigned n = 0; n < image->segments; n++) {
        struct segment segment = get_segment(file, image, n);
        if (segment.type != PT_LOAD || segment.memsz == 0)
            continue;
        char what[32];
        snprintf(what, sizeof what, "ELF segment %u", n);
        if (!range_within(segment.offset, segment.filesz, file->size))
            return error_set(load->error, EINVAL,
                             "kernel %s is truncated: %s has 0x%" PRIx64 " bytes at 0x%" PRIx64 " of 0x%zx", load->kernel->name,
                             what, segment.filesz, segment.offset, file->size);
        if (segment.filesz > segment.memsz)
            return error_set(load->error, EINVAL, "kernel %s: %s has more bytes in the file than in memory",
                             load->kernel->name, what);
        int status = load_place(load, what, segment.paddr, file->bytes + segment.offset, segment.filesz, segment.memsz);
        if (status < 0)
            return status;
        any = true;
    }
    return any ? 0 : error_set(load->error, EINVAL, "kernel %s has no ELF segment to load", load->kernel->name);
}

uint64_t elf_physical_entry(const struct load_file *file, const struct elf_image *image)
{
    for (unsigned n = 0; n < image->segments; n++) {
        struct segment segment = get_segment(file, image, n);
        if (segment.type == PT_LOAD && image->entry >= segment.vaddr && image->entry - segment.vaddr < segment.memsz)
            return image->entry - segment.vaddr + segment.paddr;
    }
    return image->entry;
}

/* struct hvm_start_info and its tables (xen/include/public/arch-x86/hvm/start_info.h). */
struct pvh_start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, cmdline, rsdp, memory_map;
    uint32_t memory_map_entries, reserved;
};
struct pvh_module {
    uint64_t address, size, cmdline, reserved;
};
struct pvh_range {
    uint64_t base, size;
    uint32_t type, reserved;
};
#define PVH_MAGIC 0x336ec578u

int load_pvh(struct load *load, const struct elf_image *image, struct load_entry *ret_entry)
{
    int status = elf_load(load, load->kernel, image);
    if (status == 0 && image->pvh_entry > UINT32_MAX)
        status = error_set(load->error, EINVAL, "kernel %s: its PVH entry 0x%" PRIx64 " is not a 32-bit address",
                           load->kernel->name, image->pvh_entry);
    if (status == 0)
        status = load_cmdline(load, LOAD_CMDLINE_MAX);
    if (status == 0)
        status = load_initrd(load, UINT32_MAX);
    if (status < 0)
        return status;

    struct {
        struct pvh_start_info info;
        struct pvh_module module;
        struct pvh_range range[LOAD_MAP_MAX];
    } boot = {.info = {.magic = PVH_MAGIC, .version = 1, .cmdline = LOAD_CMDLINE, .rsdp = load->config->rsdp}};
    boot.info.memory_map = LOAD_INFO + sizeof boot.info + sizeof boot.module;
    for (unsigned i = 0; i < load->config->ranges && i < LOAD_MAP_MAX; i++) {
        const struct load_range *range = &load->config->range[i];
        boot.range[i] = (struct pvh_range){range->base, range->size, range->type, 0};
        boot.info.memory_map_entries++;
    }
    if (load->initrd) {
        boot.info.modules = 1;
        boot.info.module_list = LOAD_INFO + sizeof boot.info;
        boot.module = (struct pvh_module){load->initrd_gpa, load->initrd_size, 0, 0};
    }
    *ret_entry = (struct load_entry){LOAD_PVH, "PVH", image->pvh_entry, LOAD_INFO};
    return load_put(load, "PVH start info", LOAD_INFO, &boot, sizeof boot);
}
