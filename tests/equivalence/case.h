/* case.h - what one differential test case is: an initial state, code, memory; and who can run it.
 *
 * A case runs at CPL 3 in 64-bit or in compatibility (32-bit) code until the first exception. Code is
 * surrounded by INT3, so that whatever runs to its end stops with #BP; a fault stops it earlier. All
 * executors see the same linear address space (eq_windows) over an image of EQ_IMAGE_PAGES pages of their
 * own, which the driver reads and writes through executor_ops.image. */
#ifndef VENEER_TESTS_EQUIVALENCE_CASE_H
#define VENEER_TESTS_EQUIVALENCE_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isa/x86/state.h"

#define EQ_PAGE 4096u
#define EQ_IMAGE_PAGES 9u
#define EQ_IMAGE_SIZE (EQ_IMAGE_PAGES * EQ_PAGE)
#define EQ_CODE_PAGES 4u /* image pages 0..3 hold code, filled with INT3 */

/* Linear addresses. The code windows: two executable pages, then nothing; one executable page, then
 * one that is not. The data windows (the same pages at a low and a high address), page by page:
 * none, RW, RW, none, RW, RO, RW, none. */
#define EQ_CODE_A UINT64_C(0x10000000)
#define EQ_CODE_B UINT64_C(0x10010000)
#define EQ_DATA_LOW UINT64_C(0x20000000)
#define EQ_DATA_HIGH UINT64_C(0x300000000000)
#define EQ_DATA_PAGES 8u

#define EQ_W 1u /* writable */
#define EQ_X 2u /* executable */
struct eq_window {
    uint64_t linear;
    unsigned page; /* of the image */
    unsigned prot; /* readable, and EQ_* */
};
#define EQ_WINDOWS 14u
extern const struct eq_window eq_windows[EQ_WINDOWS];

/* User-visible selectors as Linux sets them up (arch/x86/include/asm/segment.h of the kernel). */
#define EQ_CS32 0x23u
#define EQ_DS 0x2bu
#define EQ_CS64 0x33u

struct eq_state {
    uint64_t gpr[16]; /* in the order of enum x86_reg */
    uint64_t rip, rflags;
    uint64_t fs_base, gs_base;
    uint16_t seg[X86_SEGS];
    uint8_t fx[160];      /* as x86_cpu.fx */
    uint8_t ymm[16][32];
};

#define EQ_CODE_MAX 512u
struct eq_case {
    bool code32;
    uint64_t address; /* of the code: state.rip at the start */
    unsigned length;
    uint8_t code[EQ_CODE_MAX];
    struct eq_state state;
};

struct eq_result {
    struct eq_state state; /* as the exception frame has it; RIP of the faulting instruction, or after it for a trap */
    uint8_t vector;
    uint32_t error_code; /* 0 for those without */
    uint64_t cr2;        /* for #PF, else 0 */
    bool stuck;          /* no exception within the executor's patience */
};

struct executor;
struct executor_ops {
    const char *name;
    /* 0 and an executor, or a negative errno with a message on stderr. One per process. */
    int (*open)(struct executor **ret_executor);
    uint8_t *(*image)(struct executor *executor); /* EQ_IMAGE_SIZE bytes, live */
    void (*run)(struct executor *executor, const struct eq_case *c, struct eq_result *ret_result);
    void (*close)(struct executor *executor);
    bool translates; /* 64-bit code only, and where it faults, flags that nothing reads may be out of date */
};

/* False where the host lacks what host_executor is made of: FSGSBASE for user code, and AVX. */
bool host_able(void);
extern const struct executor_ops host_executor;
extern const struct executor_ops again_executor; /* the host once more, on memory of its own; needs the host open */
extern const struct executor_ops isa_executor;
extern const struct executor_ops interpret_executor;
extern const struct executor_ops translate_executor;
extern unsigned engine_repeats; /* how often an engine runs a case before its result counts; 1 or more */

/* How much of the code lies within mapped pages. */
unsigned eq_code_fits(const struct eq_case *c);

/* Image offset of a linear address, or -1 when it is in no window. */
long eq_image_offset(uint64_t linear);

#endif
