/* The loaders, on kernels made here: each kind and each compression loads where it should and is entered where it
 * should; each way in which a file can be cut short or lie is an error that names the file. */
#include <asm/bootparam.h>
#include <elf.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "check.h"
#include "machine/load.h"

#define MIB (1u << 20)
#define TEXT_GPA 0x100000u
#define TEXT "the kernel's text, which is not much, which is not much"

static struct ram ram;
static struct error error;

struct blob {
    uint8_t bytes[8192];
    size_t size;
};

static void append(struct blob *blob, const void *bytes, size_t length)
{
    if (length > sizeof blob->bytes - blob->size)
        abort();
    memcpy(blob->bytes + blob->size, bytes, length);
    blob->size += length;
}

static void append_zeros(struct blob *blob, size_t length)
{
    static const uint8_t zeros[4096];
    append(blob, zeros, length);
}

/* A vmlinux: one segment of text at 1 MiB with a page of bss, and a PVH note when asked. */
static void make_elf64(struct blob *blob, bool pvh)
{
    struct { Elf64_Nhdr head; char name[4]; uint32_t entry; } note = {{4, 4, 18}, "Xen", TEXT_GPA + 8};
    Elf64_Ehdr head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT}, .e_type = ET_EXEC,
                       .e_machine = EM_X86_64, .e_entry = TEXT_GPA + 4, .e_phoff = sizeof head,
                       .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 2};
    uint64_t at = sizeof head + 2 * sizeof(Elf64_Phdr);
    Elf64_Phdr text = {.p_type = PT_LOAD, .p_offset = at + sizeof note, .p_vaddr = UINT64_C(0xffffffff81000000),
                       .p_paddr = TEXT_GPA, .p_filesz = sizeof TEXT, .p_memsz = 4096};
    Elf64_Phdr notes = {.p_type = PT_NOTE, .p_offset = at, .p_filesz = pvh ? sizeof note : 0};
    blob->size = 0;
    append(blob, &head, sizeof head);
    append(blob, &text, sizeof text);
    append(blob, &notes, sizeof notes);
    append(blob, &note, sizeof note);
    append(blob, TEXT, sizeof TEXT);
}

static void make_multiboot_elf32(struct blob *blob)
{
    uint32_t header[3] = {0x1badb002, 3, -(0x1badb002u + 3)};
    Elf32_Ehdr head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT}, .e_type = ET_EXEC,
                       .e_machine = EM_386, .e_entry = TEXT_GPA + 4, .e_phoff = sizeof head,
                       .e_phentsize = sizeof(Elf32_Phdr), .e_phnum = 1};
    Elf32_Phdr text = {.p_type = PT_LOAD, .p_offset = sizeof head + sizeof text + sizeof header, .p_vaddr = TEXT_GPA,
                       .p_paddr = TEXT_GPA, .p_filesz = sizeof TEXT, .p_memsz = 4096};
    blob->size = 0;
    append(blob, &head, sizeof head);
    append(blob, &text, sizeof text);
    append(blob, header, sizeof header);
    append(blob, TEXT, sizeof TEXT);
}

static void make_multiboot_flat(struct blob *blob)
{
    uint32_t header[8] = {0x1badb002, 0x10000, -(0x1badb002u + 0x10000u), TEXT_GPA + 64, TEXT_GPA, 0, TEXT_GPA + 4096,
                          TEXT_GPA + 4};
    blob->size = 0;
    append(blob, TEXT, sizeof TEXT);
    append_zeros(blob, 64 - blob->size);
    append(blob, header, sizeof header);
}

enum packing { PACK_LZ4, PACK_ZSTD, PACK_GZIP, PACK_XZ, PACK_UNKNOWN, PACKINGS };

static void pack_gzip(struct blob *out, const struct blob *in)
{
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)in->bytes, .avail_in = (uInt)in->size, .next_out = out->bytes,
                       .avail_out = sizeof out->bytes};
    CHECK_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    CHECK_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    out->size = stream.total_out;
    deflateEnd(&stream);
}

static void pack(struct blob *out, const struct blob *in, enum packing packing)
{
    uint32_t size = (uint32_t)in->size;
    out->size = 0;
    if (packing == PACK_LZ4) {
        uint32_t head[2] = {0x184c2102, 0};
        int length = LZ4_compress_default((const char *)in->bytes, (char *)out->bytes + 8, (int)in->size, 4096);
        head[1] = (uint32_t)length;
        memcpy(out->bytes, head, sizeof head);
        out->size = 8 + (size_t)length;
    } else if (packing == PACK_ZSTD) {
        out->size = ZSTD_compress(out->bytes, sizeof out->bytes, in->bytes, in->size, 3);
    } else if (packing == PACK_GZIP) {
        pack_gzip(out, in);
        return; /* the format ends in the size */
    } else if (packing == PACK_XZ) {
        size_t used = 0;
        CHECK_EQ(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, in->bytes, in->size, out->bytes, &used,
                                         sizeof out->bytes), LZMA_OK);
        out->size = used;
    } else {
        append(out, "????", 4);
        append(out, in->bytes, in->size);
    }
    append(out, &size, sizeof size);
}

static void make_bzimage(struct blob *blob, enum packing packing)
{
    static struct blob elf, payload;
    make_elf64(&elf, false);
    pack(&payload, &elf, packing);
    uint8_t setup[1024] = {0};
    struct setup_header hdr = {.setup_sects = 1, .boot_flag = 0xaa55, .jump = 0x66eb, .header = 0x53726448, .version = 0x20f,
                               .loadflags = LOADED_HIGH, .xloadflags = XLF_KERNEL_64, .cmdline_size = 255,
                               .initrd_addr_max = 0x7fffffff, .pref_address = 2 * MIB, .init_size = 8192,
                               .payload_offset = 16, .payload_length = (uint32_t)payload.size};
    hdr.syssize = (uint32_t)(16 + payload.size + 15) / 16;
    memcpy(setup + 0x1f1, &hdr, sizeof hdr);
    blob->size = 0;
    append(blob, setup, sizeof setup);
    append_zeros(blob, 16);
    append(blob, payload.bytes, payload.size);
    append_zeros(blob, (16 - payload.size % 16) % 16);
}

static const struct load_file initrd = {"the-initrd", (const uint8_t *)"070701 and so on", 16};

static int load(const struct blob *blob, const char *cmdline, const struct load_file *with, struct load_entry *ret_entry)
{
    struct load_config config = {.append = cmdline, .rsdp = 0xe0000, .ranges = 2,
                                 .range = {{0, 0x9fc00, LOAD_RAM}, {MIB, ram.size - MIB, LOAD_RAM}}};
    /* Exactly its size, so that a sanitizer sees a read past it. */
    uint8_t *copy = malloc(blob->size ? blob->size : 1);
    memcpy(copy, blob->bytes, blob->size);
    struct load_file file = {"the-kernel", copy, blob->size};
    error.text[0] = '\0';
    int status = load_image(&ram, &config, &file, with, ret_entry, &error);
    free(copy);
    return status;
}

static void check_text(void)
{
    char text[sizeof TEXT] = "", bss[64];
    CHECK_EQ(ram_read(&ram, TEXT_GPA, text, sizeof text), 0);
    CHECK_STR(text, TEXT);
    CHECK_EQ(ram_read(&ram, TEXT_GPA + 2048, bss, sizeof bss), 0);
    memset(text, 0, sizeof text);
    ram_write(&ram, TEXT_GPA, text, sizeof text);
}

static void check_string(uint64_t gpa, const char *want)
{
    char got[64] = "";
    CHECK_EQ(ram_read(&ram, gpa, got, strlen(want) + 1), 0);
    CHECK_STR(got, want);
}

static uint64_t peek(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;
    CHECK_EQ(ram_read(&ram, gpa, &value, size), 0);
    return value;
}

static void check_bzimages(void)
{
    static struct blob blob;
    for (enum packing packing = 0; packing < PACK_UNKNOWN; packing++) {
        struct load_entry entry;
        make_bzimage(&blob, packing);
        CHECK_EQ(load(&blob, "quiet", &initrd, &entry), 0);
        CHECK_STR(error.text, "");
        CHECK_EQ(entry.kind, LOAD_LINUX64);
        CHECK_EQ(entry.rip, TEXT_GPA + 4);
        check_text();
        struct boot_params params;
        CHECK_EQ(ram_read(&ram, entry.info, &params, sizeof params), 0);
        CHECK_EQ(params.e820_entries, 2);
        CHECK_EQ(params.e820_table[1].addr, MIB);
        CHECK_EQ(params.hdr.type_of_loader, 0xff);
        CHECK_EQ(params.acpi_rsdp_addr, 0xe0000);
        CHECK_EQ(params.hdr.ramdisk_size, 16);
        check_string(params.hdr.ramdisk_image, "070701 and so on");
        check_string(params.hdr.cmd_line_ptr, "quiet");
        struct x86_cpu cpu;
        x86_cpu_reset(&cpu, true);
        CHECK_EQ(load_entry_state(&ram, &entry, &cpu, &error), 0);
        CHECK_EQ(cpu.reg[X86_RSI], entry.info);
        CHECK_EQ(peek(LOAD_PAGE_TABLES + 0x2000 + 8, 8), 0x200083);
    }
    struct load_entry entry;
    make_bzimage(&blob, PACK_UNKNOWN);
    CHECK_EQ(load(&blob, "", NULL, &entry), 0); /* it unpacks itself */
    CHECK_EQ(entry.rip, 2 * MIB + 0x200);
    CHECK(peek(2 * MIB + 16, 4) == 0x3f3f3f3f);
}

static void check_elf(void)
{
    static struct blob blob;
    struct load_entry entry;
    make_elf64(&blob, true);
    CHECK_EQ(load(&blob, "a=b", &initrd, &entry), 0);
    CHECK_EQ(entry.kind, LOAD_PVH);
    CHECK_EQ(entry.rip, TEXT_GPA + 8);
    check_text();
    CHECK_EQ(peek(entry.info, 4), 0x336ec578);
    CHECK_EQ(peek(entry.info + 12, 4), 1);
    check_string(peek(peek(entry.info + 16, 8), 8), "070701 and so on");
    check_string(peek(entry.info + 24, 8), "a=b");
    CHECK_EQ(peek(entry.info + 48, 4), 2);

    make_multiboot_elf32(&blob);
    CHECK_EQ(load(&blob, "c=d", &initrd, &entry), 0);
    CHECK_EQ(entry.kind, LOAD_MULTIBOOT);
    CHECK_EQ(entry.rip, TEXT_GPA + 4);
    check_text();
    CHECK_EQ(peek(entry.info, 4), 0x24d);
    check_string(peek(entry.info + 16, 4), "c=d");
    CHECK_EQ(peek(entry.info + 20, 4), 1);
    check_string(peek(peek(entry.info + 24, 4), 4), "070701 and so on");
    CHECK_EQ(peek(entry.info + 44, 4), 48);
    CHECK_EQ(peek(peek(entry.info + 48, 4) + 24 + 4, 8), MIB);

    make_multiboot_flat(&blob);
    CHECK_EQ(load(&blob, NULL, NULL, &entry), 0);
    CHECK_EQ(entry.rip, TEXT_GPA + 4);
    check_text();
}

/* Every shorter file is refused, and the reason names it. */
static void check_truncation(const struct blob *blob, size_t shortest_good)
{
    static struct blob cut;
    for (size_t size = 0; size < shortest_good; size++) {
        struct load_entry entry;
        cut = *blob;
        cut.size = size;
        int status = load(&cut, "", NULL, &entry);
        CHECK(status < 0 && strstr(error.text, "the-kernel") != NULL);
        if (status == 0)
            fprintf(stderr, "  at %zu of %zu bytes\n", size, blob->size);
    }
}

static void check_refusals(void)
{
    static struct blob blob;
    struct load_entry entry;
    char cmdline[300];
    make_bzimage(&blob, PACK_LZ4);
    memset(cmdline, 'x', sizeof cmdline);
    cmdline[256] = '\0';
    CHECK(load(&blob, cmdline, NULL, &entry) < 0 && strstr(error.text, "command line"));
    struct load_file bad = {"the-initrd", (const uint8_t *)"no archive", 10}, empty = {"the-initrd", (const uint8_t *)"", 0};
    CHECK(load(&blob, "", &bad, &entry) < 0 && strstr(error.text, "the-initrd"));
    CHECK(load(&blob, "", &empty, &entry) < 0 && strstr(error.text, "empty"));
    uint8_t *large = calloc(1, 16 * MIB);
    memcpy(large, "070701", 6);
    struct load_file huge = {"the-initrd", large, 16 * MIB};
    CHECK(load(&blob, "", &huge, &entry) < 0 && strstr(error.text, "do not fit"));
    free(large);

    make_elf64(&blob, false);
    CHECK(load(&blob, "", NULL, &entry) < 0 && strstr(error.text, "PVH"));
    make_elf64(&blob, true);
    ((Elf64_Phdr *)(blob.bytes + sizeof(Elf64_Ehdr)))->p_paddr = UINT64_MAX - 16;
    CHECK(load(&blob, "", NULL, &entry) < 0 && strstr(error.text, "memory ends"));
    make_elf64(&blob, true);
    ((Elf64_Phdr *)(blob.bytes + sizeof(Elf64_Ehdr)))->p_paddr = 0x7c00;
    CHECK(load(&blob, "", NULL, &entry) < 0 && strstr(error.text, "boot data"));
    make_elf64(&blob, true);
    ((Elf64_Ehdr *)blob.bytes)->e_machine = EM_AARCH64;
    CHECK(load(&blob, "", NULL, &entry) < 0 && strstr(error.text, "processor"));

    struct load_config config = {.kernel = "/nonexistent/kernel"};
    CHECK(load_kernel(&ram, &config, &entry, &error) < 0 && strstr(error.text, "/nonexistent/kernel"));
    config.kernel = "/dev/zero";
    CHECK(load_kernel(&ram, &config, &entry, &error) < 0 && strstr(error.text, "regular file"));
}

/* Changes each byte of each kernel in turn: any answer is right, as long as there is one. */
static void check_damage(void)
{
    static struct blob blob, damaged;
    for (unsigned kind = 0; kind < PACKINGS + 3; kind++) {
        if (kind < PACKINGS)
            make_bzimage(&blob, (enum packing)kind);
        else if (kind == PACKINGS)
            make_elf64(&blob, true);
        else if (kind == PACKINGS + 1)
            make_multiboot_elf32(&blob);
        else
            make_multiboot_flat(&blob);
        for (size_t at = kind < PACKINGS ? 0x1f0 : 0; at < blob.size; at++)
            for (unsigned value = 0x7f; value <= 0xff; value += 0x80) {
                struct load_entry entry = {0};
                damaged = blob;
                damaged.bytes[at] ^= (uint8_t)value;
                int status = load(&damaged, "", NULL, &entry);
                CHECK(status == 0 ? entry.protocol != NULL : error.text[0] != '\0');
            }
    }
}

int main(void)
{
    static struct blob blob;
    CHECK_EQ(ram_open(&ram, 8 * MIB, UINT64_C(3) << 30, UINT64_C(4) << 30, &error), 0);
    check_bzimages();
    check_elf();
    for (enum packing packing = 0; packing < PACK_UNKNOWN; packing++) {
        make_bzimage(&blob, packing);
        check_truncation(&blob, blob.size - 15);
    }
    make_elf64(&blob, true);
    check_truncation(&blob, blob.size);
    make_multiboot_elf32(&blob);
    check_truncation(&blob, blob.size);
    make_multiboot_flat(&blob);
    check_truncation(&blob, blob.size);
    check_refusals();
    check_damage();
    ram_close(&ram);
    CHECK_DONE();
}
