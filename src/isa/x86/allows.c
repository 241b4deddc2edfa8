/* allows.c - which instruction sets of Zydis's the CPU model has. */
#include "isa/x86/decode.h"

/* What an entry may be besides an X86_FEATURE. An instruction set without an entry is refused. */
#define ALWAYS 0x1000u

#define SET(name, feature) [ZYDIS_ISA_SET_##name] = (feature)
#define EDX1(bit) (X86_FEATURE(X86_WORD_1_EDX, bit))
#define ECX1(bit) (X86_FEATURE(X86_WORD_1_ECX, bit))
#define EBX7(bit) (X86_FEATURE(X86_WORD_7_EBX, bit))
#define ECX7(bit) (X86_FEATURE(X86_WORD_7_ECX, bit))
#define EDX7(bit) (X86_FEATURE(X86_WORD_7_EDX, bit))
#define EDX81(bit) (X86_FEATURE(X86_WORD_81_EDX, bit))
#define ECX81(bit) (X86_FEATURE(X86_WORD_81_ECX, bit))
#define EAXD1(bit) (X86_FEATURE(X86_WORD_D1_EAX, bit))
#define EAX71(bit) (X86_FEATURE(X86_WORD_71_EAX, bit))

/* Feature bit 0 of word 0 (the FPU) stands for "no entry" too: X87 therefore is ALWAYS, as every model has it. */
static const uint16_t rule[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
    SET(I86, ALWAYS), SET(I186, ALWAYS), SET(I286PROTECTED, ALWAYS), SET(I286REAL, ALWAYS), SET(I386, ALWAYS),
    SET(I486, ALWAYS), SET(I486REAL, ALWAYS), SET(PENTIUMREAL, ALWAYS), SET(PPRO, ALWAYS), SET(FAT_NOP, ALWAYS),
    SET(PREFETCH_NOP, ALWAYS), SET(PAUSE, ALWAYS), SET(X87, ALWAYS), SET(RDPMC, ALWAYS),
    SET(AMD, ALWAYS), /* SYSCALL, SYSRET, and the undefined 0F FF */
    SET(CMOV, EDX1(15)), SET(FCMOV, EDX1(15)), SET(PENTIUMMMX, EDX1(23)), SET(FXSAVE, EDX1(24)),
    SET(FXSAVE64, EDX1(24)), SET(SSE, EDX1(25)), SET(SSEMXCSR, EDX1(25)), SET(SSE_PREFETCH, EDX1(25)),
    SET(SSE2, EDX1(26)), SET(SSE2MMX, EDX1(26)), SET(CLFSH, EDX1(19)),
    SET(SSE3, ECX1(0)), SET(SSE3X87, ECX1(0)), SET(PCLMULQDQ, ECX1(1)), SET(MONITOR, ECX1(3)), SET(VTX, ECX1(5)),
    SET(SMX, ECX1(6)), SET(SSSE3, ECX1(9)), SET(SSSE3MMX, ECX1(9)), SET(FMA, ECX1(12)), SET(CMPXCHG16B, ECX1(13)),
    SET(SSE4, ECX1(19)), SET(SSE42, ECX1(20)), SET(MOVBE, ECX1(22)), SET(POPCNT, ECX1(23)), SET(AES, ECX1(25)),
    SET(XSAVE, ECX1(26)), SET(AVX, ECX1(28)), SET(AVXAES, ECX1(25)), SET(F16C, ECX1(29)), SET(RDRAND, ECX1(30)),
    SET(RDWRFSGS, EBX7(0)), SET(BMI1, EBX7(3)), SET(AVX2, EBX7(5)), SET(AVX2GATHER, EBX7(5)), SET(BMI2, EBX7(8)),
    SET(INVPCID, EBX7(10)), SET(RTM, EBX7(11)), SET(RDSEED, EBX7(18)), SET(ADOX_ADCX, EBX7(19)), SET(SMAP, EBX7(20)),
    SET(CLFLUSHOPT, EBX7(23)), SET(CLWB, EBX7(24)), SET(SHA, EBX7(29)), SET(PT, EBX7(25)), SET(MPX, EBX7(14)),
    SET(PREFETCHWT1, ECX7(0)), SET(PKU, ECX7(3)), SET(WAITPKG, ECX7(5)), SET(GFNI, ECX7(8)), SET(AVX_GFNI, ECX7(8)),
    SET(VAES, ECX7(9)), SET(VPCLMULQDQ, ECX7(10)), SET(RDPID, ECX7(22)), SET(CLDEMOTE, ECX7(25)),
    SET(MOVDIR, ECX7(27)), SET(ENQCMD, ECX7(29)), SET(SERIALIZE, EDX7(14)), SET(TSX_LDTRK, EDX7(16)),
    SET(PCONFIG, EDX7(18)), SET(UINTR, EDX7(5)), SET(AVX_VNNI, EAX71(4)),
    SET(LONGMODE, EDX81(29)), SET(RDTSCP, EDX81(27)), SET(AMD3DNOW, EDX81(31)),
    SET(LAHF, ECX81(0)), SET(SVM, ECX81(2)), SET(LZCNT, ECX81(5)), SET(SSE4A, ECX81(6)), SET(XOP, ECX81(11)),
    SET(LWP, ECX81(15)), SET(FMA4, ECX81(16)), SET(TBM, ECX81(21)), SET(MONITORX, ECX81(29)),
    SET(XSAVEOPT, EAXD1(0)), SET(XSAVEC, EAXD1(1)), SET(XSAVES, EAXD1(3)),
};

bool x86_cpuid_allows(const struct x86_cpuid *cpuid, const ZydisDecodedInstruction *insn)
{
    unsigned feature = rule[insn->meta.isa_set];

    /* The hypercalls of either vendor are there without VMX or SVM: a hypervisor answers them. */
    if (insn->mnemonic == ZYDIS_MNEMONIC_VMCALL || insn->mnemonic == ZYDIS_MNEMONIC_VMMCALL)
        return true;
    /* LAHF and SAHF are an extension in 64-bit code only. */
    if (insn->meta.isa_set == ZYDIS_ISA_SET_LAHF && insn->machine_mode != ZYDIS_MACHINE_MODE_LONG_64)
        return true;
    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || insn->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX)
        return false;
    /* The VEX forms of these need AVX as well. */
    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && insn->meta.isa_set == ZYDIS_ISA_SET_AVXAES &&
        !x86_cpuid_has(cpuid, ECX1(28)))
        return false;
    if (feature == ALWAYS)
        return true;
    return feature != 0 && x86_cpuid_has(cpuid, feature);
}
