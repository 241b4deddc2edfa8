/* exclude.c - what is not compared with the host processor, and why; and which Zydis instruction sets
 * stand for which CPUID feature. */
#include <stdio.h>
#include <string.h>

#include "forms.h"

#define TIME "its result is the time or a random number"
#define IDENTITY "its result identifies the processor model, which is ours by design"
#define KERNEL "enters the host's kernel; covered by tests/guest"
#define EMULATED "the host's kernel answers in the processor's place (UMIP); covered by tests/guest"
#define HYPERVISOR "goes to the host's hypervisor; covered by tests/guest"
#define FAR "its target descriptor depends on the host's GDT; covered by tests/guest"
#define WAITS "waits for an event"

static const struct {
    ZydisMnemonic mnemonic;
    const char *reason;
} excluded[] = {
    {ZYDIS_MNEMONIC_RDTSC, TIME},
    {ZYDIS_MNEMONIC_RDTSCP, TIME},
    {ZYDIS_MNEMONIC_RDRAND, TIME},
    {ZYDIS_MNEMONIC_RDSEED, TIME},
    {ZYDIS_MNEMONIC_RDPMC, "whether user code may use it is the host kernel's choice"},
    {ZYDIS_MNEMONIC_RDPID, "its result is the host's processor number"},
    {ZYDIS_MNEMONIC_CPUID, IDENTITY},
    {ZYDIS_MNEMONIC_XGETBV, "XCR0 is ours by design: the host has AVX-512 in it"},
    {ZYDIS_MNEMONIC_SYSCALL, KERNEL},
    {ZYDIS_MNEMONIC_SYSENTER, KERNEL},
    {ZYDIS_MNEMONIC_INT, KERNEL},
    {ZYDIS_MNEMONIC_INT1, "under a hypervisor the host reports its RIP as that of a fault; covered by tests/guest"},
    {ZYDIS_MNEMONIC_SGDT, EMULATED},
    {ZYDIS_MNEMONIC_SIDT, EMULATED},
    {ZYDIS_MNEMONIC_SLDT, EMULATED},
    {ZYDIS_MNEMONIC_STR, EMULATED},
    {ZYDIS_MNEMONIC_SMSW, EMULATED},
    {ZYDIS_MNEMONIC_VMCALL, HYPERVISOR},
    {ZYDIS_MNEMONIC_VMMCALL, HYPERVISOR},
    {ZYDIS_MNEMONIC_IRET, FAR},
    {ZYDIS_MNEMONIC_IRETD, FAR},
    {ZYDIS_MNEMONIC_IRETQ, FAR},
    {ZYDIS_MNEMONIC_MONITOR, "user code may use it only where the host kernel allows it"},
    {ZYDIS_MNEMONIC_MWAIT, WAITS},
    {ZYDIS_MNEMONIC_XBEGIN, "an abort is always allowed, and veneer does not advertise RTM"},
    {ZYDIS_MNEMONIC_CLZERO, "clears a cache line of the host's size; not advertised"},
    {ZYDIS_MNEMONIC_UD0, "the host's length rules for it differ by vendor; it raises #UD in any case"},
    {ZYDIS_MNEMONIC_UD1, "as UD0"},
};

const char *form_excluded(const ZydisDecodedInstruction *insn)
{
    ZydisMnemonic mnemonic = insn->mnemonic;

    if ((mnemonic == ZYDIS_MNEMONIC_LSS || mnemonic == ZYDIS_MNEMONIC_LFS || mnemonic == ZYDIS_MNEMONIC_LGS) &&
        insn->operand_width == 64)
        return "with REX.W AMD's processors load 16:32 and Intel's 16:64 (APM 3, LFS; SDM 2, LDS)";
    for (unsigned i = 0; i < sizeof excluded / sizeof *excluded; i++)
        if (excluded[i].mnemonic == mnemonic)
            return excluded[i].reason;
    return NULL;
}

/* CPUID features with instructions of their own (SDM 2A, CPUID; APM 3, appendix E). */
static const struct {
    unsigned feature;
    const char *name;
    ZydisISASet set[4]; /* a form of any of them will do; 0 ends the list */
} features[] = {
    {X86_FEATURE(X86_WORD_1_EDX, 0), "fpu", {ZYDIS_ISA_SET_X87}},
    {X86_FEATURE(X86_WORD_1_EDX, 8), "cx8", {ZYDIS_ISA_SET_PENTIUMREAL}},
    {X86_FEATURE(X86_WORD_1_EDX, 15), "cmov", {ZYDIS_ISA_SET_CMOV}},
    {X86_FEATURE(X86_WORD_1_EDX, 19), "clflush", {ZYDIS_ISA_SET_CLFSH}},
    {X86_FEATURE(X86_WORD_1_EDX, 23), "mmx", {ZYDIS_ISA_SET_PENTIUMMMX}},
    {X86_FEATURE(X86_WORD_1_EDX, 24), "fxsr", {ZYDIS_ISA_SET_FXSAVE}},
    {X86_FEATURE(X86_WORD_1_EDX, 25), "sse", {ZYDIS_ISA_SET_SSE}},
    {X86_FEATURE(X86_WORD_1_EDX, 26), "sse2", {ZYDIS_ISA_SET_SSE2}},
    {X86_FEATURE(X86_WORD_1_ECX, 0), "sse3", {ZYDIS_ISA_SET_SSE3}},
    {X86_FEATURE(X86_WORD_1_ECX, 1), "pclmulqdq", {ZYDIS_ISA_SET_PCLMULQDQ}},
    {X86_FEATURE(X86_WORD_1_ECX, 9), "ssse3", {ZYDIS_ISA_SET_SSSE3}},
    {X86_FEATURE(X86_WORD_1_ECX, 12), "fma", {ZYDIS_ISA_SET_FMA}},
    {X86_FEATURE(X86_WORD_1_ECX, 13), "cx16", {ZYDIS_ISA_SET_CMPXCHG16B}},
    {X86_FEATURE(X86_WORD_1_ECX, 19), "sse4.1", {ZYDIS_ISA_SET_SSE4}},
    {X86_FEATURE(X86_WORD_1_ECX, 20), "sse4.2", {ZYDIS_ISA_SET_SSE42}},
    {X86_FEATURE(X86_WORD_1_ECX, 22), "movbe", {ZYDIS_ISA_SET_MOVBE}},
    {X86_FEATURE(X86_WORD_1_ECX, 23), "popcnt", {ZYDIS_ISA_SET_POPCNT, ZYDIS_ISA_SET_SSE42}},
    {X86_FEATURE(X86_WORD_1_ECX, 25), "aes", {ZYDIS_ISA_SET_AES}},
    {X86_FEATURE(X86_WORD_1_ECX, 26), "xsave", {ZYDIS_ISA_SET_XSAVE}},
    {X86_FEATURE(X86_WORD_1_ECX, 28), "avx", {ZYDIS_ISA_SET_AVX}},
    {X86_FEATURE(X86_WORD_1_ECX, 29), "f16c", {ZYDIS_ISA_SET_F16C}},
    {X86_FEATURE(X86_WORD_7_EBX, 0), "fsgsbase", {ZYDIS_ISA_SET_RDWRFSGS}},
    {X86_FEATURE(X86_WORD_7_EBX, 3), "bmi1", {ZYDIS_ISA_SET_BMI1}},
    {X86_FEATURE(X86_WORD_7_EBX, 5), "avx2", {ZYDIS_ISA_SET_AVX2}},
    {X86_FEATURE(X86_WORD_7_EBX, 8), "bmi2", {ZYDIS_ISA_SET_BMI2}},
    {X86_FEATURE(X86_WORD_7_EBX, 19), "adx", {ZYDIS_ISA_SET_ADOX_ADCX}},
    {X86_FEATURE(X86_WORD_7_EBX, 20), "smap", {ZYDIS_ISA_SET_SMAP}},
    {X86_FEATURE(X86_WORD_7_EBX, 23), "clflushopt", {ZYDIS_ISA_SET_CLFLUSHOPT}},
    {X86_FEATURE(X86_WORD_7_EBX, 24), "clwb", {ZYDIS_ISA_SET_CLWB}},
    {X86_FEATURE(X86_WORD_7_EBX, 29), "sha", {ZYDIS_ISA_SET_SHA}},
    {X86_FEATURE(X86_WORD_7_ECX, 8), "gfni", {ZYDIS_ISA_SET_GFNI, ZYDIS_ISA_SET_AVX_GFNI}},
    {X86_FEATURE(X86_WORD_7_ECX, 9), "vaes", {ZYDIS_ISA_SET_VAES}},
    {X86_FEATURE(X86_WORD_7_ECX, 10), "vpclmulqdq", {ZYDIS_ISA_SET_VPCLMULQDQ}},
    {X86_FEATURE(X86_WORD_81_ECX, 0), "lahf", {ZYDIS_ISA_SET_LAHF}},
    {X86_FEATURE(X86_WORD_81_ECX, 5), "abm", {ZYDIS_ISA_SET_LZCNT}},
    {X86_FEATURE(X86_WORD_81_ECX, 6), "sse4a", {ZYDIS_ISA_SET_SSE4A}},
    {X86_FEATURE(X86_WORD_81_ECX, 8), "prefetchw", {ZYDIS_ISA_SET_PREFETCH_NOP}},
    {X86_FEATURE(X86_WORD_D1_EAX, 0), "xsaveopt", {ZYDIS_ISA_SET_XSAVEOPT}},
    {X86_FEATURE(X86_WORD_D1_EAX, 1), "xsavec", {ZYDIS_ISA_SET_XSAVEC}},
    {X86_FEATURE(X86_WORD_D1_EAX, 3), "xsaves", {ZYDIS_ISA_SET_XSAVES}},
};

static unsigned count_of_set(const struct form_list *list, ZydisISASet set)
{
    unsigned n = 0;

    for (unsigned i = 0; i < list->count; i++)
        n += list->form[i].isa_set == set;
    return n;
}

unsigned forms_report(const struct form_list *list, const struct x86_cpuid *cpuid, bool verbose)
{
    unsigned missing = 0;

    for (unsigned set = 1; verbose && set <= ZYDIS_ISA_SET_MAX_VALUE; set++) {
        unsigned n = count_of_set(list, (ZydisISASet)set);

        if (n > 0)
            printf("  %-16s %5u forms\n", ZydisISASetGetString((ZydisISASet)set), n);
    }
    for (unsigned i = 0; i < sizeof features / sizeof *features; i++) {
        unsigned n = 0;

        if (!x86_cpuid_has(cpuid, features[i].feature))
            continue;
        for (unsigned k = 0; k < 4 && features[i].set[k] != ZYDIS_ISA_SET_INVALID; k++)
            n += count_of_set(list, features[i].set[k]);
        if (n == 0) {
            fprintf(stderr, "equivalence: CPUID advertises %s, but there is no form of it\n", features[i].name);
            missing++;
        }
    }
    return missing;
}
