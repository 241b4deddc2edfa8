/* x86_vector_test.c - what the differential test cannot reach from user mode: the gates of CR0, CR4 and XCR0,
 * #MF and #XM, partial gathers, the XSAVE family's checks, and the sharing of host thunks. */
#include "guest.h"

#include "check.h"
#include "isa/x86/hostcode.h"

static struct guest guest;

#define CPU guest.core->cpu
#define REG(name) guest.core->cpu.reg[X86_##name]
#define STEP(...) guest_step(&guest, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define OK(...) CHECK_EQ(STEP(__VA_ARGS__), -1)
#define FAULTS(vector, ...) CHECK_EQ(STEP(__VA_ARGS__), (vector))

static bool has_avx2;

static void set_control(void)
{
    CPU.cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    CPU.xcr0 = guest.cpuid.xcr0_mask;
    x86_mode_changed(guest.core);
}

static void reset(void)
{
    guest_reset(&guest);
    set_control();
    REG(RDI) = GUEST_DATA;
}

static void test_sse_gates(void)
{
    reset();
    OK(0x0f, 0x58, 0xc1); /* addps xmm0, xmm1 */
    CPU.cr4 &= ~(uint64_t)X86_CR4_OSFXSR;
    FAULTS(X86_UD, 0x0f, 0x58, 0xc1);
    FAULTS(X86_UD, 0x0f, 0x28, 0xc1); /* movaps: the plain C way */
    set_control();
    CPU.cr0 |= X86_CR0_TS;
    FAULTS(X86_NM, 0x0f, 0x58, 0xc1);
    FAULTS(X86_NM, 0x0f, 0x28, 0xc1);
    FAULTS(X86_NM, 0xd9, 0xe8);       /* fld1 */
    FAULTS(X86_NM, 0x0f, 0xef, 0xc0); /* pxor mm0, mm0 */
    FAULTS(X86_NM, 0x0f, 0xae, 0x07); /* fxsave [rdi] */
    OK(0x9b);                         /* fwait: only with CR0.MP as well */
    CPU.cr0 |= X86_CR0_MP;
    FAULTS(X86_NM, 0x9b);
    CPU.cr0 = (CPU.cr0 & ~(uint64_t)(X86_CR0_TS | X86_CR0_MP)) | X86_CR0_EM;
    FAULTS(X86_UD, 0x0f, 0x58, 0xc1);
    FAULTS(X86_UD, 0x0f, 0xef, 0xc0);
    FAULTS(X86_NM, 0xd9, 0xe8);
    FAULTS(X86_UD, 0xf0, 0x0f, 0x58, 0xc1); /* lock addps */
}

static void test_avx_gates(void)
{
    reset();
    memset(CPU.ymm, 0xff, sizeof CPU.ymm);
    OK(0xc5, 0xf8, 0x57, 0xc1); /* vxorps xmm0, xmm0, xmm1 */
    CHECK_EQ(CPU.ymm[0][16] | CPU.ymm[0][31], 0);
    OK(0x0f, 0x57, 0xd1); /* xorps xmm2, xmm1: the upper half stays */
    CHECK_EQ(CPU.ymm[2][0], 0);
    CHECK_EQ(CPU.ymm[2][16], 0xff);
    CPU.xcr0 = 3;
    FAULTS(X86_UD, 0xc5, 0xf8, 0x57, 0xc1);
    CPU.xcr0 = 7;
    CPU.cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    FAULTS(X86_UD, 0xc5, 0xf8, 0x57, 0xc1);
    FAULTS(X86_UD, 0x0f, 0x01, 0xd0); /* xgetbv */
    FAULTS(X86_UD, 0x0f, 0xae, 0x27); /* xsave [rdi] */
    set_control();
    CPU.cr0 |= X86_CR0_TS;
    FAULTS(X86_NM, 0xc5, 0xf8, 0x57, 0xc1);
}

static void test_alignment(void)
{
    reset();
    REG(RDI) = GUEST_DATA + 8;
    FAULTS(X86_GP, 0x0f, 0x28, 0x07); /* movaps xmm0, [rdi] */
    FAULTS(X86_GP, 0x0f, 0x29, 0x07); /* movaps [rdi], xmm0 */
    FAULTS(X86_GP, 0x0f, 0x58, 0x07); /* addps xmm0, [rdi] */
    OK(0x0f, 0x10, 0x07);             /* movups */
    FAULTS(X86_GP, 0x0f, 0xae, 0x07); /* fxsave: 16 */
    REG(RDI) = GUEST_DATA + 16;
    OK(0x0f, 0xae, 0x07);
    FAULTS(X86_GP, 0x0f, 0xae, 0x27); /* xsave: 64 */
    if (has_avx2) {
        OK(0xc5, 0xf8, 0x28, 0x07);             /* vmovaps xmm0, [rdi] */
        FAULTS(X86_GP, 0xc5, 0xfc, 0x28, 0x07); /* vmovaps ymm0, [rdi] */
    }
}

static void test_simd_exceptions(void)
{
    const double one_and_zero[2] = {1.0, 0.0};
    uint32_t mxcsr;
    reset();
    memcpy(CPU.ymm[0], &one_and_zero[0], 8);
    memcpy(CPU.ymm[1], &one_and_zero[1], 8);
    OK(0xf2, 0x0f, 0x5e, 0xc1); /* divsd xmm0, xmm1: masked */
    memcpy(&mxcsr, CPU.fx + 24, 4);
    CHECK_EQ(mxcsr, 0x1f84);
    mxcsr = 0x1d80; /* ZM clear */
    memcpy(CPU.fx + 24, &mxcsr, 4);
    memcpy(CPU.ymm[0], &one_and_zero[0], 8);
    FAULTS(X86_XM, 0xf2, 0x0f, 0x5e, 0xc1);
    memcpy(&mxcsr, CPU.fx + 24, 4);
    CHECK_EQ(mxcsr, 0x1d84);
    CHECK(memcmp(CPU.ymm[0], &one_and_zero[0], 8) == 0);
    CPU.cr4 &= ~(uint64_t)X86_CR4_OSXMMEXCPT;
    FAULTS(X86_UD, 0xf2, 0x0f, 0x5e, 0xc1);
    mxcsr = 0x10000;
    guest_put(&guest, GUEST_DATA, &mxcsr, 4);
    FAULTS(X86_GP, 0x0f, 0xae, 0x17); /* ldmxcsr: a reserved bit */
}

static void test_x87(void)
{
    const uint16_t unmasked = 0x037b; /* ZM clear */
    uint16_t fsw;
    reset();
    guest_put(&guest, GUEST_DATA, &unmasked, 2);
    OK(0xdb, 0xe3);       /* fninit */
    OK(0xd9, 0x2f);       /* fldcw [rdi] */
    OK(0xd9, 0xe8);       /* fld1 */
    OK(0xd9, 0xee);       /* fldz */
    OK(0xde, 0xf9);       /* fdivp: leaves the exception pending */
    memcpy(&fsw, CPU.fx + 2, 2);
    CHECK_EQ(fsw & 0x8084, 0x8084);
    FAULTS(X86_MF, 0xd9, 0xe8);
    FAULTS(X86_MF, 0x9b);
    FAULTS(X86_MF, 0x0f, 0x77); /* emms */
    OK(0xdf, 0xe0);             /* fnstsw ax does not wait */
    CHECK_EQ(REG(RAX) & 0xffff, fsw);
    /* The error pointers name the guest's instruction. */
    uint64_t fip;
    memcpy(&fip, CPU.fx + 8, 8);
    CHECK(fip >= GUEST_CODE && fip < GUEST_CODE + 4096);
    CHECK_EQ(CPU.fx[6] | CPU.fx[7] << 8, 0x6f9);
    OK(0xdb, 0xe2); /* fnclex */
    OK(0xd9, 0xe8);
}

static void test_mmx(void)
{
    const uint64_t value = 0x1122334455667788;
    reset();
    OK(0xdb, 0xe3);       /* fninit */
    OK(0xd9, 0xe8);       /* fld1: TOP is 7 */
    guest_put(&guest, GUEST_DATA, &value, 8);
    OK(0x0f, 0x6f, 0x1f); /* movq mm3, [rdi] */
    CHECK_EQ(CPU.fx[4], 0xff);
    CHECK_EQ((CPU.fx[3] >> 3) & 7, 0);
    CHECK(memcmp(CPU.fx + 32 + 16 * 3, &value, 8) == 0);
    CHECK_EQ(CPU.fx[32 + 16 * 3 + 8] & CPU.fx[32 + 16 * 3 + 9], 0xff);
    CHECK_EQ(CPU.fx[32 + 16 * 7 + 9], 0x3f); /* 1.0 went to physical register 7 */
    OK(0x0f, 0xfe, 0xdb);                    /* paddd mm3, mm3 */
    OK(0x0f, 0x7f, 0x1f);                    /* movq [rdi], mm3 */
    CHECK_EQ(guest_read64(&guest, GUEST_DATA), UINT64_C(0x22446688aaccef10));
    OK(0xf3, 0x0f, 0xd6, 0xcb); /* movq2dq xmm1, mm3 */
    CHECK_EQ(CPU.ymm[1][0], 0x10);
    OK(0x0f, 0x77); /* emms */
    CHECK_EQ(CPU.fx[4], 0);
}

/* An element that the mask excludes does not fault; a gather stops in the middle and goes on later. */
static void test_masked(void)
{
    if (!has_avx2)
        return;
    reset();
    REG(RDI) = GUEST_RAM - 8; /* two dwords before the end of what is mapped */
    const uint32_t mask[4] = {0x80000000, 0x80000000, 0, 0x7fffffff}, data[2] = {7, 9};
    guest_put(&guest, GUEST_RAM - 8, data, 8);
    memcpy(CPU.ymm[1], mask, 16);
    memset(CPU.ymm[0], 0xee, 32);
    OK(0xc4, 0xe2, 0x71, 0x8c, 0x07); /* vpmaskmovd xmm0, xmm1, [rdi] */
    const uint32_t want[8] = {7, 9};
    CHECK(memcmp(CPU.ymm[0], want, 32) == 0);
    REG(RDI) = GUEST_RAM - 4;
    FAULTS(X86_PF, 0xc4, 0xe2, 0x71, 0x8c, 0x07);
    CHECK(memcmp(CPU.ymm[0], want, 32) == 0);

    const uint32_t index[4] = {0, 1, 2, 3}, all[4] = {~0u, ~0u, ~0u, ~0u};
    REG(RDI) = GUEST_RAM - 8;
    memcpy(CPU.ymm[2], index, 16);
    memcpy(CPU.ymm[1], all, 16);
    memset(CPU.ymm[0], 0, 32);
    FAULTS(X86_PF, 0xc4, 0xe2, 0x71, 0x90, 0x04, 0x97); /* vpgatherdd xmm0, [rdi+xmm2*4], xmm1 */
    const uint32_t left[4] = {0, 0, ~0u, ~0u};
    CHECK(memcmp(CPU.ymm[0], data, 8) == 0);
    CHECK(memcmp(CPU.ymm[1], left, 16) == 0);
    FAULTS(X86_UD, 0xc4, 0xe2, 0x79, 0x90, 0x04, 0x97); /* destination and mask are one register */
}

static void put_header(uint64_t xstate_bv, uint64_t xcomp_bv, uint64_t reserved)
{
    const uint64_t header[3] = {xstate_bv, xcomp_bv, reserved};
    guest_put(&guest, GUEST_DATA + 512, header, sizeof header);
}

static void test_xsave_round(void)
{
    struct x86_cpu before;
    reset();
    for (unsigned i = 0; i < sizeof CPU.ymm; i++)
        CPU.ymm[i / 32][i % 32] = (uint8_t)(i * 7 + 1);
    OK(0xd9, 0xeb); /* fldpi */
    before = CPU;
    REG(RAX) = 7;
    OK(0x48, 0x0f, 0xc7, 0x27); /* xsavec64 [rdi] */
    CHECK_EQ(guest_read64(&guest, GUEST_DATA + 512), guest.cpuid.xcr0_mask);
    CHECK_EQ(guest_read64(&guest, GUEST_DATA + 520), UINT64_C(1) << 63 | guest.cpuid.xcr0_mask);
    memset(CPU.ymm, 0, sizeof CPU.ymm);
    OK(0xdb, 0xe3);
    OK(0x48, 0x0f, 0xae, 0x2f); /* xrstor64 [rdi] */
    CHECK(memcmp(CPU.ymm, before.ymm, has_avx2 ? sizeof before.ymm : 16) == 0);
    CHECK(memcmp(CPU.fx, before.fx, sizeof before.fx) == 0);
    /* A component that the image says is initial becomes so; one not asked for stays. */
    put_header(1, UINT64_C(1) << 63 | guest.cpuid.xcr0_mask, 0);
    REG(RAX) = 3;
    OK(0x48, 0x0f, 0xae, 0x2f);
    CHECK_EQ(CPU.ymm[3][0], 0);
    CHECK_EQ(CPU.ymm[3][16], before.ymm[3][16]);
    /* XSAVEOPT leaves what is initial alone, and says so. */
    memset(guest.ram + GUEST_DATA, 0xaa, 832);
    put_header(7, 0, 0);
    REG(RAX) = 2;
    OK(0x0f, 0xae, 0x37); /* xsaveopt [rdi] */
    CHECK_EQ(guest_read64(&guest, GUEST_DATA + 160), UINT64_C(0xaaaaaaaaaaaaaaaa));
    CHECK_EQ(guest_read64(&guest, GUEST_DATA + 512), 5);
}

static void test_xsave_checks(void)
{
    const uint64_t compacted = UINT64_C(1) << 63;
    reset();
    REG(RAX) = 7;
    put_header(0, 0, 0);
    const uint32_t mxcsr = 0x1f80;
    guest_put(&guest, GUEST_DATA + 24, &mxcsr, 4);
    OK(0x0f, 0xae, 0x2f); /* xrstor [rdi] */
    put_header(8, 0, 0);
    FAULTS(X86_GP, 0x0f, 0xae, 0x2f);
    put_header(0, 1, 0);
    FAULTS(X86_GP, 0x0f, 0xae, 0x2f);
    put_header(0, 0, 1);
    FAULTS(X86_GP, 0x0f, 0xae, 0x2f);
    put_header(2, compacted | 1, 0);
    FAULTS(X86_GP, 0x0f, 0xae, 0x2f);
    put_header(0, compacted | 8, 0);
    FAULTS(X86_GP, 0x0f, 0xae, 0x2f);
    put_header(0, 0, 0);
    FAULTS(X86_GP, 0x0f, 0xc7, 0x1f); /* xrstors takes the compacted form only */
    REG(RAX) = REG(RCX) = REG(RDX) = 0;
    FAULTS(X86_GP, 0x0f, 0x01, 0xd1); /* xsetbv: x87 must be on */
    REG(RAX) = 5;
    FAULTS(X86_GP, 0x0f, 0x01, 0xd1); /* AVX without SSE */
    REG(RAX) = 8;
    FAULTS(X86_GP, 0x0f, 0x01, 0xd1);
    REG(RAX) = 3;
    OK(0x0f, 0x01, 0xd1);
    CHECK_EQ(CPU.xcr0, 3);
    OK(0x0f, 0x01, 0xd0); /* xgetbv */
    CHECK_EQ(REG(RAX), 3);
    REG(RCX) = 2;
    FAULTS(X86_GP, 0x0f, 0x01, 0xd0);
}

/* One thunk serves every choice of registers and addresses; another opcode or immediate has its own. */
static void test_sharing(void)
{
    const uint8_t a[] = {0x66, 0x0f, 0xfe, 0xc1}, b[] = {0x66, 0x45, 0x0f, 0xfe, 0xd1}; /* paddd */
    const uint8_t m[] = {0x66, 0x0f, 0xfe, 0x07}, n[] = {0x66, 0x43, 0x0f, 0xfe, 0x44, 0x88, 0x10};
    const uint8_t c[] = {0x66, 0x0f, 0xfa, 0xc1};                                                    /* psubd */
    const uint8_t d[] = {0x66, 0x0f, 0x70, 0xc1, 1}, e[] = {0x66, 0x0f, 0x70, 0xc1, 2};              /* pshufd */
    struct x86_insn insn[7];
    reset();
    x86_decode(&guest.decoder, X86_CODE64, a, sizeof a, &insn[0]);
    x86_decode(&guest.decoder, X86_CODE64, b, sizeof b, &insn[1]);
    x86_decode(&guest.decoder, X86_CODE64, m, sizeof m, &insn[2]);
    x86_decode(&guest.decoder, X86_CODE64, n, sizeof n, &insn[3]);
    x86_decode(&guest.decoder, X86_CODE64, c, sizeof c, &insn[4]);
    x86_decode(&guest.decoder, X86_CODE64, d, sizeof d, &insn[5]);
    x86_decode(&guest.decoder, X86_CODE64, e, sizeof e, &insn[6]);
    CHECK(insn[0].host != NULL);
    CHECK(insn[0].host == insn[1].host);
    CHECK(insn[2].host == insn[3].host);
    CHECK(insn[0].host != insn[2].host);
    CHECK(insn[0].host != insn[4].host);
    CHECK(insn[5].host != insn[6].host);
}

int main(void)
{
    if (guest_new(&guest) < 0)
        return 1;
    has_avx2 = x86_cpuid_has(&guest.cpuid, X86_FEATURE(X86_WORD_7_EBX, 5));
    test_sse_gates();
    if (has_avx2)
        test_avx_gates();
    test_alignment();
    test_simd_exceptions();
    test_x87();
    test_mmx();
    test_masked();
    test_xsave_round();
    test_xsave_checks();
    test_sharing();
    guest_free(&guest);
    CHECK_DONE();
}
