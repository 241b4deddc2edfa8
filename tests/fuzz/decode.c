/* decode.c - fuzz target: any bytes, decoded in every mode.
 *
 * What must hold: the length is 0 or 1 to 15 and at most what was available; there is always something to execute; too few
 * bytes are told from enough of them consistently, since an instruction's meaning does not depend on what follows. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "isa/x86/core.h"
#include "isa/x86/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct x86_decoder *decoder(void)
{
    static struct x86_cpuid cpuid;
    static struct x86_decoder made;
    static bool ready;

    if (!ready) {
        x86_cpuid_init(&cpuid, X86_MODEL_DEFAULT, 1, 1000000000);
        if (x86_decoder_init(&made, &cpuid, NULL) != 0)
            abort();
        ready = true;
    }
    return &made;
}

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* Decodes at data, and checks the same bytes cut short. Returns how far to go on. */
static unsigned decode_at(enum x86_code_mode mode, const uint8_t *data, size_t size)
{
    struct x86_insn insn, shorter;
    unsigned length = x86_decode(decoder(), mode, data, size, &insn);

    require(length <= X86_INSN_MAX && length <= size);
    if (length == 0) {
        require(size < X86_INSN_MAX);
        return 1;
    }
    require(insn.exec != NULL && insn.length == length && insn.mode == mode);
    require(insn.base / 8 < X86_REGS && insn.index / 8 < X86_REGS && insn.seg < X86_SEGS && insn.scale < 4);
    if (insn.exec != x86_exec_ud && insn.exec != x86_exec_gp) /* those have no length of their own */
        require(x86_decode(decoder(), mode, data, length, &shorter) == length && shorter.exec == insn.exec);
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int mode = X86_CODE16; mode <= X86_CODE64; mode++)
        for (size_t at = 0; at < size;)
            at += decode_at((enum x86_code_mode)mode, data + at, size - at);
    return 0;
}
