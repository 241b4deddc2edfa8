/* cpuid.h - the CPU model: what CPUID answers and which extensions the decoder accepts.
 *
 * The default model is x86-64-v3 plus what isa/x86 implements, with AES, PCLMULQDQ and SHA where the host
 * has them; it is the same under every engine on one host. It advertises exactly what is implemented.
 * Vector instructions run on the host's own units, so a host that lacks one (AVX2, say) takes it away
 * from the model as well. The vendor is the host's (what is not Intel counts as AMD), with a family, model
 * and stepping fixed per vendor. */
#ifndef VENEER_ISA_X86_CPUID_H
#define VENEER_ISA_X86_CPUID_H

#include <stdbool.h>
#include <stdint.h>

struct x86_cpuid_leaf {
    uint32_t function, index;
    uint32_t eax, ebx, ecx, edx;
    bool indexed; /* index is significant */
};

#define X86_CPUID_LEAVES 64u

enum x86_vendor { X86_VENDOR_AMD, X86_VENDOR_INTEL };

/* The highest leaves of the three ranges. */
#define X86_CPUID_MAX_BASIC 0x0000000du
#define X86_CPUID_MAX_HYPERVISOR 0x40000010u
#define X86_CPUID_MAX_EXTENDED 0x80000021u

/* XSAVE area (standard form): legacy region, header, then AVX. */
#define X86_XSAVE_HEADER 512u
#define X86_XSAVE_AVX 576u
#define X86_XSAVE_AVX_SIZE 256u

/* Local APIC timer input, and leaf 4000_0010h's answer. */
#define X86_APIC_BUS_HZ 1000000000u

struct x86_cpuid {
    unsigned leaves;
    struct x86_cpuid_leaf leaf[X86_CPUID_LEAVES];
    uint64_t tsc_hz;
    unsigned vcpus;
    enum x86_vendor vendor;
    unsigned physical_bits; /* width of a guest-physical address */
    uint64_t xcr0_mask;     /* bits the guest may set */
    uint64_t arch_capabilities; /* MSR 10Ah, when leaf 7 EDX bit 29 says it is there */
};

enum x86_cpu_model { X86_MODEL_DEFAULT, X86_MODEL_HOST };

/* Fills the table for a VM of `vcpus` processors. Reads the host's CPUID; otherwise pure. */
void x86_cpuid_init(struct x86_cpuid *ret_cpuid, enum x86_cpu_model model, unsigned vcpus, uint64_t tsc_hz);

/* The dynamic parts of an answer come from these. */
struct x86_cpuid_context {
    uint32_t apic_id;
    uint64_t cr4, xcr0, xss, misc_enable;
};

/* What CPUID with EAX = function, ECX = index gives. ret: EAX EBX ECX EDX. Leaves beyond the highest
 * answer as the highest basic leaf does on Intel, or zero, by the model's vendor. */
void x86_cpuid_query(const struct x86_cpuid *cpuid, uint32_t function, uint32_t index,
                     const struct x86_cpuid_context *context, uint32_t ret[4]);

/* Feature bits in one number space: word of struct (leaf register) * 32 + bit, as the decoder asks. */
enum x86_feature_word {
    X86_WORD_1_EDX, X86_WORD_1_ECX, X86_WORD_7_EBX, X86_WORD_7_ECX, X86_WORD_7_EDX,
    X86_WORD_81_EDX, X86_WORD_81_ECX, X86_WORD_D1_EAX, X86_WORD_71_EAX, X86_WORDS
};
#define X86_FEATURE(word, bit) ((word) * 32 + (bit))
/* True when the model has the feature X86_FEATURE(word, bit). */
bool x86_cpuid_has(const struct x86_cpuid *cpuid, unsigned feature);

#endif
