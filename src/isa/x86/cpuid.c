/* cpuid.c - builds the CPU model's table and answers CPUID from it.
 *
 * The features are masks, one per feature word: what isa/x86 implements whatever the host (`implemented`),
 * what it implements by running the instruction on the host (`host_run`: kept only where the host can), and
 * what only the "host" model adds. Leaves: Intel SDM 2A, CPUID; AMD APM 3, appendix E; the hypervisor range
 * as Linux's Documentation/virt/kvm/x86/cpuid.rst. */
#include "isa/x86/cpuid.h"

#include <cpuid.h>
#include <string.h>

#include "isa/x86/state.h"

#define BIT(n) (UINT32_C(1) << (n))

#define F1_EDX_HTT BIT(28)
#define F1_ECX_OSXSAVE BIT(27)
#define F1_ECX_AVX BIT(28)
#define F81_EDX_NX BIT(20)
#define MISC_ENABLE_LIMIT_CPUID (UINT64_C(1) << 22)
#define MISC_ENABLE_XD_DISABLE (UINT64_C(1) << 34)

/* FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT CLFSH. No VME. */
#define LEGACY_EDX                                                                                         \
    (BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(9) | BIT(11) | BIT(12) |  \
     BIT(13) | BIT(14) | BIT(15) | BIT(16) | BIT(19))
/* Leaf 8000_0001h EDX repeats these of leaf 1 EDX on AMD: bits 0-9, 12-17, 23 (MMX), 24 (FXSR). */
#define AMD_REPEATED_EDX (0x3ffu | 0x3f000u | BIT(23) | BIT(24))

static const uint32_t implemented[X86_WORDS] = {
    /* and MMX FXSR SSE SSE2: every x86-64 host runs them */
    [X86_WORD_1_EDX] = LEGACY_EDX | BIT(23) | BIT(24) | BIT(25) | BIT(26),
    /* PCID x2APIC MOVBE TSC-deadline XSAVE hypervisor */
    [X86_WORD_1_ECX] = BIT(17) | BIT(21) | BIT(22) | BIT(24) | BIT(26) | BIT(31),
    /* FSGSBASE TSC_ADJUST FDP_EXCPTN_ONLY SMEP ERMS INVPCID FCS/FDS-zero SMAP CLFLUSHOPT CLWB */
    [X86_WORD_7_EBX] = BIT(0) | BIT(1) | BIT(6) | BIT(7) | BIT(9) | BIT(10) | BIT(13) | BIT(20) | BIT(23) | BIT(24),
    [X86_WORD_7_ECX] = BIT(2) | BIT(22), /* UMIP RDPID */
    [X86_WORD_7_EDX] = BIT(4),           /* FSRM */
    /* SYSCALL NX 1-GiB pages RDTSCP LM */
    [X86_WORD_81_EDX] = BIT(11) | F81_EDX_NX | BIT(26) | BIT(27) | BIT(29),
    [X86_WORD_81_ECX] = BIT(8),            /* PREFETCHW */
    [X86_WORD_D1_EAX] = BIT(0) | BIT(1) | BIT(2) | BIT(3), /* XSAVEOPT XSAVEC XGETBV1 XSAVES */
};

static const uint32_t host_run[X86_WORDS] = {
    /* SSE3 PCLMULQDQ SSSE3 FMA CX16 SSE4.1 SSE4.2 POPCNT AES AVX F16C RDRAND */
    [X86_WORD_1_ECX] = BIT(0) | BIT(1) | BIT(9) | BIT(12) | BIT(13) | BIT(19) | BIT(20) | BIT(23) | BIT(25) |
                       F1_ECX_AVX | BIT(29) | BIT(30),
    /* BMI1 AVX2 BMI2 RDSEED ADX SHA */
    [X86_WORD_7_EBX] = BIT(3) | BIT(5) | BIT(8) | BIT(18) | BIT(19) | BIT(29),
    [X86_WORD_81_ECX] = BIT(0) | BIT(5), /* LAHF ABM */
};

/* GFNI VAES VPCLMULQDQ, AVX-VNNI, SSE4A. */
static const uint32_t host_model[X86_WORDS] = {
    [X86_WORD_7_ECX] = BIT(8) | BIT(9) | BIT(10),
    [X86_WORD_71_EAX] = BIT(4),
    [X86_WORD_81_ECX] = BIT(6),
};

/* What needs AVX state: gone when the host, or its kernel, lacks it. */
static const uint32_t needs_avx[X86_WORDS] = {
    [X86_WORD_1_ECX] = BIT(12) | F1_ECX_AVX | BIT(29),
    [X86_WORD_7_EBX] = BIT(5),
    [X86_WORD_7_ECX] = BIT(9) | BIT(10),
    [X86_WORD_71_EAX] = BIT(4),
};

struct host {
    char vendor[13];
    uint32_t word[X86_WORDS];
    uint32_t signature; /* leaf 1 EAX */
    char brand[48];
};

static bool host_has_avx_state(uint32_t ecx)
{
    if (!(ecx & F1_ECX_OSXSAVE) || !(ecx & F1_ECX_AVX))
        return false;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & (X86_XCR0_SSE | X86_XCR0_AVX)) == (X86_XCR0_SSE | X86_XCR0_AVX);
}

static void read_host(struct host *host)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    memset(host, 0, sizeof *host);
    __cpuid(0, a, b, c, d);
    uint32_t max = a;
    memcpy(host->vendor, &b, 4);
    memcpy(host->vendor + 4, &d, 4);
    memcpy(host->vendor + 8, &c, 4);
    __cpuid(1, host->signature, b, host->word[X86_WORD_1_ECX], host->word[X86_WORD_1_EDX]);
    if (max >= 7) {
        __cpuid_count(7, 0, a, host->word[X86_WORD_7_EBX], host->word[X86_WORD_7_ECX], host->word[X86_WORD_7_EDX]);
        if (a >= 1)
            __cpuid_count(7, 1, host->word[X86_WORD_71_EAX], b, c, d);
    }
    if (max >= 0xd)
        __cpuid_count(0xd, 1, host->word[X86_WORD_D1_EAX], b, c, d);
    __cpuid(0x80000000u, max, b, c, d);
    if (max >= 0x80000001u)
        __cpuid(0x80000001u, a, b, host->word[X86_WORD_81_ECX], host->word[X86_WORD_81_EDX]);
    for (uint32_t i = 0; i < 3 && max >= 0x80000004u; i++) {
        uint32_t text[4];
        __cpuid(0x80000002u + i, text[0], text[1], text[2], text[3]);
        memcpy(host->brand + 16 * i, text, 16);
    }
    if (!host_has_avx_state(host->word[X86_WORD_1_ECX]))
        for (unsigned i = 0; i < X86_WORDS; i++)
            host->word[i] &= ~needs_avx[i];
}

static void choose_features(struct x86_cpuid *cpuid, const struct host *host, enum x86_cpu_model model,
                            uint32_t word[X86_WORDS])
{
    for (unsigned i = 0; i < X86_WORDS; i++) {
        word[i] = implemented[i] | (host_run[i] & host->word[i]);
        if (model == X86_MODEL_HOST)
            word[i] |= host_model[i] & host->word[i];
    }
    if (cpuid->vcpus > 1)
        word[X86_WORD_1_EDX] |= F1_EDX_HTT;
    if (cpuid->vendor == X86_VENDOR_AMD) {
        word[X86_WORD_81_EDX] |= word[X86_WORD_1_EDX] & AMD_REPEATED_EDX;
        word[X86_WORD_81_EDX] |= BIT(22); /* MMXEXT: part of SSE */
        word[X86_WORD_81_ECX] |= BIT(22); /* TOPOEXT: leaves 8000_001Dh, 1Eh */
        if (cpuid->vcpus > 1)
            word[X86_WORD_81_ECX] |= BIT(1); /* CMP_LEGACY: the logical processors are cores */
    } else {
        word[X86_WORD_7_EDX] |= BIT(26) | BIT(27) | BIT(29) | BIT(31); /* IBRS STIBP ARCH_CAPABILITIES SSBD */
    }
    cpuid->xcr0_mask = X86_XCR0_X87 | X86_XCR0_SSE;
    if (word[X86_WORD_1_ECX] & F1_ECX_AVX)
        cpuid->xcr0_mask |= X86_XCR0_AVX;
}

static struct x86_cpuid_leaf *add(struct x86_cpuid *cpuid, uint32_t function, uint32_t a, uint32_t b,
                                  uint32_t c, uint32_t d)
{
    struct x86_cpuid_leaf *leaf = &cpuid->leaf[cpuid->leaves++];
    *leaf = (struct x86_cpuid_leaf){.function = function, .eax = a, .ebx = b, .ecx = c, .edx = d};
    return leaf;
}

static void add_indexed(struct x86_cpuid *cpuid, uint32_t function, uint32_t index, uint32_t a, uint32_t b,
                        uint32_t c, uint32_t d)
{
    struct x86_cpuid_leaf *leaf = add(cpuid, function, a, b, c, d);
    leaf->index = index;
    leaf->indexed = true;
}

/* A leaf whose four registers are text, in the given register order. */
static void add_vendor(struct x86_cpuid *cpuid, uint32_t function, uint32_t max, const char *name)
{
    uint32_t word[3];
    memcpy(word, name, 12);
    add(cpuid, function, max, word[0], word[2], word[1]);
}

/* APIC-ID bits that number `count` processors. */
static unsigned id_bits(unsigned count)
{
    unsigned bits = 0;
    while ((1u << bits) < count)
        bits++;
    return bits;
}

/* One cache of the deterministic cache leaves: type 1 data, 2 instruction, 3 unified. The two vendors
 * differ in the place of the sharing count only in meaning: APIC IDs or processors, both minus 1. */
static void add_cache(struct x86_cpuid *cpuid, uint32_t function, uint32_t index, unsigned type, unsigned level,
                      unsigned ways, unsigned sets, unsigned sharing)
{
    bool intel = cpuid->vendor == X86_VENDOR_INTEL;
    unsigned ids = intel ? (1u << id_bits(sharing)) - 1 : sharing - 1;
    unsigned cores = intel ? (1u << id_bits(cpuid->vcpus)) - 1 : 0;
    uint32_t self_initializing = BIT(8);
    add_indexed(cpuid, function, index, type | level << 5 | self_initializing | ids << 14 | cores << 26,
                63 | (ways - 1) << 22, sets - 1, 0);
}

static void add_caches(struct x86_cpuid *cpuid, uint32_t function)
{
    add_cache(cpuid, function, 0, 1, 1, 8, 64, 1);               /* L1D 32 KiB */
    add_cache(cpuid, function, 1, 2, 1, 8, 64, 1);               /* L1I 32 KiB */
    add_cache(cpuid, function, 2, 3, 2, 8, 2048, 1);             /* L2 1 MiB */
    add_cache(cpuid, function, 3, 3, 3, 16, 32768, cpuid->vcpus); /* L3 32 MiB */
    add_indexed(cpuid, function, 4, 0, 0, 0, 0);
}

static void add_basic(struct x86_cpuid *cpuid, const uint32_t word[X86_WORDS], uint32_t signature)
{
    bool intel = cpuid->vendor == X86_VENDOR_INTEL;
    unsigned bits = id_bits(cpuid->vcpus);
    add_vendor(cpuid, 0, X86_CPUID_MAX_BASIC, intel ? "GenuineIntel" : "AuthenticAMD");
    uint32_t clflush = 8u << 8; /* 64-byte lines */
    add(cpuid, 1, signature, clflush | (1u << bits) << 16, word[X86_WORD_1_ECX], word[X86_WORD_1_EDX]);
    if (intel) {
        add(cpuid, 2, 0x00feff01u, 0, 0, 0); /* leaf 4 tells the caches; no TLB information */
        add_caches(cpuid, 4);
    }
    add(cpuid, 6, BIT(2), 0, 0, 0); /* ARAT: the APIC timer never stops */
    add_indexed(cpuid, 7, 0, 1, word[X86_WORD_7_EBX], word[X86_WORD_7_ECX], word[X86_WORD_7_EDX]);
    add_indexed(cpuid, 7, 1, word[X86_WORD_71_EAX], 0, 0, 0);
    add_indexed(cpuid, 0xb, 0, 0, 1, 0 | 1u << 8, 0);                /* thread level: one per core */
    add_indexed(cpuid, 0xb, 1, bits, cpuid->vcpus, 1 | 2u << 8, 0);  /* core level */
    add_indexed(cpuid, 0xb, 2, 0, 0, 2, 0);
    uint32_t size = X86_XSAVE_AVX + (cpuid->xcr0_mask & X86_XCR0_AVX ? X86_XSAVE_AVX_SIZE : 0);
    add_indexed(cpuid, 0xd, 0, (uint32_t)cpuid->xcr0_mask, size, size, 0);
    add_indexed(cpuid, 0xd, 1, word[X86_WORD_D1_EAX], size, 0, 0);
    if (cpuid->xcr0_mask & X86_XCR0_AVX)
        add_indexed(cpuid, 0xd, 2, X86_XSAVE_AVX_SIZE, X86_XSAVE_AVX, 0, 0);
}

static void add_hypervisor(struct x86_cpuid *cpuid)
{
    uint32_t kvm[3];
    memcpy(kvm, "KVMKVMKVM\0\0\0", 12);
    add(cpuid, 0x40000000u, X86_CPUID_MAX_HYPERVISOR, kvm[0], kvm[1], kvm[2]);
    /* NOP_IO_DELAY, CLOCKSOURCE2 and its being stable: MSRs 4B56_4D00h and 4B56_4D01h */
    add(cpuid, 0x40000001u, BIT(1) | BIT(3) | BIT(24), 0, 0, 0);
    add(cpuid, 0x40000010u, (uint32_t)(cpuid->tsc_hz / 1000), X86_APIC_BUS_HZ / 1000, 0, 0);
}

static void add_extended(struct x86_cpuid *cpuid, const uint32_t word[X86_WORDS], const char brand[48])
{
    bool amd = cpuid->vendor == X86_VENDOR_AMD;
    if (amd)
        add_vendor(cpuid, 0x80000000u, X86_CPUID_MAX_EXTENDED, "AuthenticAMD");
    else
        add(cpuid, 0x80000000u, 0x80000008u, 0, 0, 0);
    add(cpuid, 0x80000001u, 0, 0, word[X86_WORD_81_ECX], word[X86_WORD_81_EDX]);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t text[4];
        memcpy(text, brand + 16 * i, 16);
        add(cpuid, 0x80000002u + i, text[0], text[1], text[2], text[3]);
    }
    if (amd) /* L1: 64 entries each way; 32 KiB, 8 ways, 64-byte lines */
        add(cpuid, 0x80000005u, 0xff40ff40u, 0xff40ff40u, 0x20080140u, 0x20080140u);
    add(cpuid, 0x80000006u, 0, amd ? 0x48004400u : 0, 0x04006140u, amd ? 64u << 18 | 0x9140u : 0);
    add(cpuid, 0x80000007u, 0, 0, 0, BIT(8)); /* invariant TSC */
    uint32_t widths = cpuid->physical_bits | 48u << 8;
    if (!amd) {
        add(cpuid, 0x80000008u, widths, 0, 0, 0);
        return;
    }
    /* XSAVE stores error pointers always; IBPB IBRS STIBP, STIBP always on, SSBD */
    uint32_t speculation = BIT(2) | BIT(12) | BIT(14) | BIT(15) | BIT(17) | BIT(24);
    add(cpuid, 0x80000008u, widths, speculation, (cpuid->vcpus - 1) | id_bits(cpuid->vcpus) << 12, 0);
    add(cpuid, 0x8000001au, 0, 0, 0, 0);
    add_caches(cpuid, 0x8000001du);
    add(cpuid, 0x8000001eu, 0, 0, 0, 0); /* one thread a core, one node */
    /* LFENCE serializes, a null selector clears the base, automatic IBRS */
    add(cpuid, 0x80000021u, BIT(2) | BIT(6) | BIT(8), 0, 0, 0);
}

void x86_cpuid_init(struct x86_cpuid *ret_cpuid, enum x86_cpu_model model, unsigned vcpus, uint64_t tsc_hz)
{
    struct host host;
    uint32_t word[X86_WORDS];
    char brand[48] = "veneer virtual CPU (x86-64-v3)";
    read_host(&host);
    memset(ret_cpuid, 0, sizeof *ret_cpuid);
    ret_cpuid->vcpus = vcpus;
    ret_cpuid->tsc_hz = tsc_hz;
    ret_cpuid->physical_bits = 40;
    ret_cpuid->vendor = strcmp(host.vendor, "GenuineIntel") == 0 ? X86_VENDOR_INTEL : X86_VENDOR_AMD;
    choose_features(ret_cpuid, &host, model, word);
    if (ret_cpuid->vendor == X86_VENDOR_INTEL) {
        /* RDCL_NO IBRS_ALL SKIP_L1DFL SSB_NO MDS_NO PSCHANGE_MC_NO TAA_NO, SBDR_SSDP FBSDP PSDP _NO,
         * BHI_NO PBRSB_NO GDS_NO RFDS_NO ITS_NO: each is a flaw of a pipeline that guest kernel code is
         * not exposed to here, or that the host's kernel deals with. */
        ret_cpuid->arch_capabilities = UINT64_C(0x400000000d10e17b);
    }
    /* Zen 5 or Sapphire Rapids: their Linux defaults need no retpolines with the bits above. */
    uint32_t signature = ret_cpuid->vendor == X86_VENDOR_INTEL ? 0x000806f8u : 0x00b00f21u;
    if (model == X86_MODEL_HOST) {
        signature = host.signature;
        memcpy(brand, host.brand, sizeof brand);
    }
    add_basic(ret_cpuid, word, signature);
    add_hypervisor(ret_cpuid);
    add_extended(ret_cpuid, word, brand);
    if (ret_cpuid->vendor == X86_VENDOR_AMD)
        for (unsigned i = 0; i < ret_cpuid->leaves; i++)
            if (ret_cpuid->leaf[i].function == 0x80000001u)
                ret_cpuid->leaf[i].eax = signature;
}

static const struct x86_cpuid_leaf *find(const struct x86_cpuid *cpuid, uint32_t function, uint32_t index)
{
    for (unsigned i = 0; i < cpuid->leaves; i++) {
        const struct x86_cpuid_leaf *leaf = &cpuid->leaf[i];
        if (leaf->function == function && (!leaf->indexed || leaf->index == index))
            return leaf;
    }
    return NULL;
}

/* The leaf that answers for one beyond its range's highest: on Intel the highest basic one. */
static uint32_t clamp_function(const struct x86_cpuid *cpuid, uint32_t function, uint64_t misc_enable)
{
    if (cpuid->vendor != X86_VENDOR_INTEL || function >> 28 == 4)
        return function;
    if (function < 0x80000000u && (misc_enable & MISC_ENABLE_LIMIT_CPUID) && function > 2)
        return 2;
    uint32_t max = function < 0x80000000u ? X86_CPUID_MAX_BASIC : 0x80000008u;
    return function > max ? X86_CPUID_MAX_BASIC : function;
}

/* Bits and sizes that follow the vCPU's state. */
static void apply_context(const struct x86_cpuid *cpuid, uint32_t function, uint32_t index,
                          const struct x86_cpuid_context *context, uint32_t ret[4])
{
    switch (function) {
    case 0:
        if (cpuid->vendor == X86_VENDOR_INTEL && (context->misc_enable & MISC_ENABLE_LIMIT_CPUID))
            ret[0] = 2;
        break;
    case 1:
        ret[1] |= context->apic_id << 24;
        if (context->cr4 & X86_CR4_OSXSAVE)
            ret[2] |= F1_ECX_OSXSAVE;
        break;
    case 0xb:
        ret[2] = (ret[2] & 0xff00u) | (index & 0xffu);
        ret[3] = context->apic_id;
        break;
    case 0xd: {
        uint64_t enabled = index == 1 ? context->xcr0 | context->xss : context->xcr0;
        if (index <= 1) /* the compacted form has AVX at the same place */
            ret[1] = X86_XSAVE_AVX + (enabled & X86_XCR0_AVX ? X86_XSAVE_AVX_SIZE : 0);
        break;
    }
    case 0x80000001u:
        if (context->misc_enable & MISC_ENABLE_XD_DISABLE)
            ret[3] &= ~F81_EDX_NX;
        break;
    case 0x8000001eu:
        ret[0] = context->apic_id;
        ret[1] = context->apic_id; /* core ID; one thread each */
        break;
    default:
        break;
    }
}

void x86_cpuid_query(const struct x86_cpuid *cpuid, uint32_t function, uint32_t index,
                     const struct x86_cpuid_context *context, uint32_t ret[4])
{
    function = clamp_function(cpuid, function, context->misc_enable);
    const struct x86_cpuid_leaf *leaf = find(cpuid, function, index);
    memset(ret, 0, 4 * sizeof ret[0]);
    if (leaf) {
        ret[0] = leaf->eax;
        ret[1] = leaf->ebx;
        ret[2] = leaf->ecx;
        ret[3] = leaf->edx;
    }
    if (leaf || function == 0xb) /* leaf 0Bh gives the APIC ID for every index */
        apply_context(cpuid, function, index, context, ret);
}

bool x86_cpuid_has(const struct x86_cpuid *cpuid, unsigned feature)
{
    static const struct {
        uint32_t function, index;
        unsigned reg;
    } word[X86_WORDS] = {
        [X86_WORD_1_EDX] = {1, 0, 3},           [X86_WORD_1_ECX] = {1, 0, 2},
        [X86_WORD_7_EBX] = {7, 0, 1},           [X86_WORD_7_ECX] = {7, 0, 2},
        [X86_WORD_7_EDX] = {7, 0, 3},           [X86_WORD_81_EDX] = {0x80000001u, 0, 3},
        [X86_WORD_81_ECX] = {0x80000001u, 0, 2}, [X86_WORD_D1_EAX] = {0xd, 1, 0},
        [X86_WORD_71_EAX] = {7, 1, 0},
    };
    if (feature / 32 >= X86_WORDS)
        return false;
    const struct x86_cpuid_leaf *leaf = find(cpuid, word[feature / 32].function, word[feature / 32].index);
    if (!leaf)
        return false;
    const uint32_t reg[4] = {leaf->eax, leaf->ebx, leaf->ecx, leaf->edx};
    return reg[word[feature / 32].reg] >> (feature % 32) & 1;
}
