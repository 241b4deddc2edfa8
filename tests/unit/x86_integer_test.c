/* x86_integer_test.c - decoding, and some of each group of the integer family. The differential test
 * under tests/equivalence covers the arithmetic; here are operand forms, faults and the odd rules. */
#include "guest.h"

#include "check.h"

static struct guest guest;

#define REG(name) guest.core->cpu.reg[X86_##name]
#define STEP(...) guest_step(&guest, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define OK(...) CHECK_EQ(STEP(__VA_ARGS__), -1)

static void test_decode(void)
{
    struct x86_insn insn;
    const uint8_t mov[] = {0x48, 0x8b, 0x44, 0x8b, 0x10}; /* mov rax, [rbx+rcx*4+16] */
    const uint8_t prefixes[15] = {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                                  0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66};

    for (size_t i = 0; i < sizeof mov; i++)
        CHECK_EQ(x86_decode(&guest.decoder, X86_CODE64, mov, i, &insn), 0);
    CHECK_EQ(x86_decode(&guest.decoder, X86_CODE64, mov, sizeof mov, &insn), 5);
    CHECK_EQ(insn.base, X86_RBX * 8);
    CHECK_EQ(insn.index, X86_RCX * 8);
    CHECK_EQ(insn.scale, 2);
    CHECK_EQ(insn.disp, 16);
    CHECK_EQ(insn.opsize, 8);
    CHECK_EQ(insn.flags, X86_INSN_MEMORY | X86_INSN_FLAT);
    CHECK_EQ(x86_decode(&guest.decoder, X86_CODE64, prefixes, 14, &insn), 0);
    CHECK(x86_decode(&guest.decoder, X86_CODE64, prefixes, 15, &insn) != 0);
    CHECK(insn.exec == x86_exec_gp);
    guest_reset(&guest);
    CHECK_EQ(STEP(0xf0, 0x01, 0xc0), X86_UD); /* lock add eax, eax */
    CHECK_EQ(STEP(0x0f, 0x0b), X86_UD);
    CHECK_EQ(REG(RIP), GUEST_CODE);
    CHECK_EQ(STEP(0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0), X86_UD); /* vaddps zmm: not in the model */
}

static void test_alu(void)
{
    guest_reset(&guest);
    REG(RAX) = 0x7fffffff;
    REG(RBX) = 1;
    OK(0x01, 0xd8); /* add eax, ebx */
    CHECK_EQ(REG(RAX), 0x80000000);
    CHECK_EQ(guest.core->cpu.rflags, X86_FLAG_FIXED | X86_FLAG_OF | X86_FLAG_SF | X86_FLAG_AF | X86_FLAG_PF);
    OK(0x48, 0x83, 0xe8, 0x01); /* sub rax, 1 */
    CHECK_EQ(REG(RAX), 0x7fffffff);
    guest.core->cpu.rflags |= X86_FLAG_CF | X86_FLAG_DF;
    OK(0xff, 0xc3); /* inc ebx: keeps CF */
    CHECK_EQ(guest.core->cpu.rflags, X86_FLAG_FIXED | X86_FLAG_CF | X86_FLAG_DF);
    OK(0x83, 0xd3, 0x00); /* adc ebx, 0 */
    CHECK_EQ(REG(RBX), 3);
    REG(RDX) = 0x1234;
    OK(0x00, 0xf2); /* add dl, dh */
    CHECK_EQ(REG(RDX), 0x1246);
    OK(0x66, 0x31, 0xd2); /* xor dx, dx */
    CHECK_EQ(REG(RDX), 0);
    CHECK(guest.core->cpu.rflags & X86_FLAG_ZF);
    REG(RDI) = GUEST_DATA;
    OK(0x48, 0x89, 0x07);             /* mov [rdi], rax */
    OK(0xf0, 0x48, 0x01, 0x1f);       /* lock add [rdi], rbx */
    CHECK_EQ(guest_read64(&guest, GUEST_DATA), 0x80000002);
    OK(0x80, 0x4f, 0x07, 0x80);       /* or byte [rdi+7], 80h */
    OK(0x48, 0x3b, 0x07);             /* cmp rax, [rdi] */
    CHECK(!(guest.core->cpu.rflags & X86_FLAG_ZF));
    OK(0xf0, 0xf7, 0x1f);             /* lock neg dword [rdi] */
    CHECK_EQ(guest_read64(&guest, GUEST_DATA), 0x800000007ffffffe);
}

static void test_faults_change_nothing(void)
{
    guest_reset(&guest);
    REG(RDI) = GUEST_RAM;
    REG(RAX) = 5;
    CHECK_EQ(STEP(0x48, 0x01, 0x07), X86_PF); /* add [rdi], rax */
    CHECK_EQ(guest.core->raised.error_code, X86_PF_W);
    CHECK_EQ(guest.core->cpu.rflags, X86_FLAG_FIXED);
    CHECK_EQ(REG(RIP), GUEST_CODE);
    REG(RSP) = GUEST_RAM + 8;
    CHECK_EQ(STEP(0x50), X86_PF);       /* push rax */
    CHECK_EQ(REG(RSP), GUEST_RAM + 8);
    CHECK_EQ(STEP(0x8f, 0x07), X86_PF); /* pop [rdi] */
    CHECK_EQ(REG(RSP), GUEST_RAM + 8);
    REG(RSP) = GUEST_STACK;
    CHECK_EQ(STEP(0x8f, 0x07), X86_PF);
    CHECK_EQ(REG(RSP), GUEST_STACK);
    REG(RAX) = UINT64_C(1) << 63;
    CHECK_EQ(STEP(0xff, 0xe0), X86_GP); /* jmp rax, not canonical */
    CHECK_EQ(REG(RIP), GUEST_CODE);
    REG(RDI) = GUEST_RAM - 4;           /* across into the unmapped page */
    CHECK_EQ(STEP(0x48, 0xff, 0x07), X86_PF);
}

static void test_move(void)
{
    guest_reset(&guest);
    REG(RAX) = 0x1122334455667788;
    OK(0x88, 0xc4); /* mov ah, al */
    CHECK_EQ(REG(RAX), 0x1122334455668888);
    OK(0x0f, 0xbe, 0xc4); /* movsx eax, ah */
    CHECK_EQ(REG(RAX), 0xffffff88);
    OK(0x48, 0x98); /* cdqe */
    CHECK_EQ(REG(RAX), 0xffffffffffffff88);
    OK(0x48, 0x99); /* cqo */
    CHECK_EQ(REG(RDX), UINT64_MAX);
    OK(0x48, 0xa3, 0x08, 0x00, 0x10, 0, 0, 0, 0, 0); /* movabs [100008h], rax */
    CHECK_EQ(guest_read64(&guest, GUEST_DATA + 8), 0xffffffffffffff88);
    OK(0x48, 0x0f, 0xc8); /* bswap rax */
    CHECK_EQ(REG(RAX), 0x88ffffffffffffff);
    REG(RBX) = GUEST_DATA;
    OK(0x67, 0x8d, 0x43, 0xff); /* lea eax, [ebx-1] */
    CHECK_EQ(REG(RAX), GUEST_DATA - 1);
    OK(0x48, 0x8d, 0x05, 0x10, 0, 0, 0); /* lea rax, [rip+16] */
    CHECK_EQ(REG(RAX), REG(RIP) + 16);
    REG(RAX) = UINT64_MAX;
    OK(0x0f, 0x44, 0xc3); /* cmovz eax, ebx: not taken, upper half cleared */
    CHECK_EQ(REG(RAX), UINT32_MAX);
    OK(0x0f, 0x95, 0xc0); /* setnz al */
    CHECK_EQ(REG(RAX), 0xffffff01);
}

static void test_string(void)
{
    guest_reset(&guest);
    REG(RSI) = GUEST_DATA;
    REG(RDI) = GUEST_DATA + 3;
    REG(RCX) = 10;
    guest_put(&guest, GUEST_DATA, "abcdefghijklmnop", 16);
    OK(0xf3, 0xa4); /* rep movsb onto itself: three bytes repeat */
    CHECK(memcmp(guest.ram + GUEST_DATA, "abcabcabcabcanop", 16) == 0);
    CHECK_EQ(REG(RSI), GUEST_DATA + 10);
    CHECK_EQ(REG(RDI), GUEST_DATA + 13);
    CHECK_EQ(REG(RCX), 0);

    REG(RDI) = GUEST_RAM - 20; /* the last twelve of 32 bytes are not mapped */
    REG(RCX) = 4;
    REG(RAX) = UINT64_C(0x0807060504030201);
    CHECK_EQ(STEP(0xf3, 0x48, 0xab), X86_PF); /* rep stosq */
    CHECK_EQ(REG(RDI), GUEST_RAM - 4);
    CHECK_EQ(REG(RCX), 2);
    CHECK_EQ(guest.core->raised_cr2, GUEST_RAM);
    CHECK_EQ(guest_read64(&guest, GUEST_RAM - 12), 0x0807060504030201);

    REG(RDI) = GUEST_DATA;
    REG(RCX) = 10000; /* more than one execution does: RIP stays */
    REG(RIP) = GUEST_CODE;
    OK(0xf3, 0xaa);
    CHECK_EQ(REG(RIP), GUEST_CODE);
    CHECK(guest.core->insn_end == NULL);
    CHECK_EQ(REG(RCX) + (REG(RDI) - GUEST_DATA), 10000);
    CHECK(REG(RCX) != 0 && REG(RCX) < 10000);

    guest_put(&guest, GUEST_DATA, "needle", 7);
    REG(RDI) = GUEST_DATA;
    REG(RCX) = UINT64_MAX;
    REG(RAX) = 0;
    OK(0xf2, 0xae); /* repne scasb: strlen */
    CHECK_EQ(~REG(RCX), 7);
    CHECK(guest.core->cpu.rflags & X86_FLAG_ZF);
    guest.core->cpu.rflags |= X86_FLAG_DF;
    REG(RSI) = REG(RDI) = GUEST_DATA + 5;
    REG(RCX) = 6;
    OK(0xf3, 0xa6); /* repe cmpsb, downwards */
    CHECK_EQ(REG(RCX), 0);
    CHECK_EQ(REG(RSI), GUEST_DATA - 1);
}

static void test_code_page(void)
{
    guest_reset(&guest);
    guest.code_written = 0;
    guest.flags[GUEST_DATA / 4096] = X86_PAGE_CODE;
    REG(RDI) = GUEST_DATA;
    REG(RCX) = 3;
    OK(0xf3, 0xab); /* rep stosd: the first store is seen, then all of them at once */
    CHECK_EQ(guest.code_written, 2);
    CHECK_EQ(guest.code_gpa, GUEST_DATA);
    CHECK_EQ(guest.code_length, 12);
    guest.core->cpu.rflags |= X86_FLAG_DF;
    REG(RSI) = GUEST_DATA + 4096 + 32;
    REG(RDI) = GUEST_DATA + 64;
    REG(RCX) = 3;
    OK(0xf3, 0x48, 0xa5); /* rep movsq, downwards */
    CHECK_EQ(guest.code_written, 4);
    CHECK_EQ(guest.code_gpa, GUEST_DATA + 64 - 16);
    CHECK_EQ(guest.code_length, 24);
    REG(RDI) = GUEST_DATA;
    OK(0x01, 0x07); /* add [rdi], eax */
    OK(0x50);       /* push rax: elsewhere */
    CHECK_EQ(guest.code_written, 5);
}

static void test_exchange_and_divide(void)
{
    guest_reset(&guest);
    REG(RDI) = GUEST_DATA + 8;
    CHECK_EQ(STEP(0xf0, 0x48, 0x0f, 0xc7, 0x0f), X86_GP); /* lock cmpxchg16b, not aligned */
    REG(RDI) = GUEST_DATA;
    REG(RBX) = 1;
    REG(RCX) = 2;
    OK(0xf0, 0x48, 0x0f, 0xc7, 0x0f);
    CHECK(guest.core->cpu.rflags & X86_FLAG_ZF);
    CHECK_EQ(guest_read64(&guest, GUEST_DATA), 1);
    CHECK_EQ(guest_read64(&guest, GUEST_DATA + 8), 2);
    REG(RAX) = REG(RDX) = 0;
    CHECK_EQ(STEP(0xf7, 0xf2), X86_DE); /* div edx */
    REG(RAX) = UINT64_C(1) << 63;
    REG(RDX) = UINT64_MAX;
    REG(RCX) = UINT64_MAX;
    CHECK_EQ(STEP(0x48, 0xf7, 0xf9), X86_DE); /* idiv rcx: -2^63 / -1 */
    REG(RCX) = 10;
    OK(0x48, 0xf7, 0xf9);
    CHECK_EQ(REG(RAX), (uint64_t)(INT64_MIN / 10));
    CHECK_EQ(REG(RDX), (uint64_t)(INT64_MIN % 10));
    REG(RAX) = UINT64_MAX;
    REG(RDI) = GUEST_DATA + 4096;
    OK(0x48, 0x0f, 0xab, 0x07); /* bts [rdi], rax: bit -1 is in the quadword before */
    CHECK_EQ(guest_read64(&guest, GUEST_DATA + 4088), UINT64_C(1) << 63);
}

static void test_stack_and_branches(void)
{
    guest_reset(&guest);
    OK(0xe8, 0x00, 0x01, 0, 0); /* call +100h */
    CHECK_EQ(REG(RIP), GUEST_CODE + 0x105);
    CHECK_EQ(guest_read64(&guest, GUEST_STACK - 8), GUEST_CODE + 5);
    OK(0x55); /* push rbp */
    REG(RBP) = REG(RSP);
    REG(RSP) -= 64;
    OK(0xc9); /* leave */
    CHECK_EQ(REG(RSP), GUEST_STACK - 8);
    OK(0xc2, 0x10, 0x00); /* ret 16 */
    CHECK_EQ(REG(RIP), GUEST_CODE + 5);
    CHECK_EQ(REG(RSP), GUEST_STACK + 16);
    OK(0x54); /* push rsp: the old value */
    CHECK_EQ(guest_read64(&guest, GUEST_STACK + 8), GUEST_STACK + 16);
    OK(0x5c); /* pop rsp: the popped value stays */
    CHECK_EQ(REG(RSP), GUEST_STACK + 16);
    OK(0x6a, 0x80); /* push -128 */
    OK(0x8f, 0x44, 0x24, 0xf0); /* pop [rsp-16]: address after the increment */
    CHECK_EQ(guest_read64(&guest, GUEST_STACK), (uint64_t)-128);
    REG(RCX) = 2;
    OK(0xe2, 0xfe); /* loop */
    CHECK_EQ(REG(RIP), GUEST_CODE + 5 + 1 + 1 + 2 + 4);
    OK(0xe2, 0xfe); /* falls through */
    CHECK_EQ(REG(RIP), GUEST_CODE + 5 + 1 + 1 + 2 + 4 + 2);
    OK(0xe3, 0x10); /* jrcxz */
    CHECK_EQ(REG(RIP), GUEST_CODE + 15 + 2 + 16);
    REG(RBP) = GUEST_STACK;
    OK(0xc8, 0x20, 0x00, 0x02); /* enter 32, 2 */
    CHECK_EQ(REG(RBP), GUEST_STACK + 8);
    CHECK_EQ(REG(RSP), GUEST_STACK + 8 - 16 - 32);
}

static void test_protected_mode(void)
{
    guest_reset32(&guest);
    REG(RAX) = 0x11111111;
    REG(RDI) = 0x77777777;
    OK(0x60); /* pushad */
    CHECK_EQ(REG(RSP), GUEST_STACK - 32);
    REG(RAX) = REG(RDI) = 0;
    OK(0x61); /* popad */
    CHECK_EQ(REG(RAX), 0x11111111);
    CHECK_EQ(REG(RDI), 0x77777777);
    CHECK_EQ(REG(RSP), GUEST_STACK);
    OK(0x66, 0xe9, 0x00, 0x10); /* jmp word: EIP is cut to 16 bits */
    CHECK_EQ(REG(RIP), (GUEST_CODE + 2 + 4 + 0x1000) & 0xffff);
    guest.core->cpu.seg[X86_CS].limit = 0xffff;
    REG(RAX) = 0x0905;
    OK(0x04, 0x09); /* add al, 9 */
    OK(0x37);       /* aaa */
    CHECK_EQ(REG(RAX) & 0xffff, 0x0a04);
    REG(RIP) = 0x1006;
    CHECK_EQ(STEP(0xd4, 0x00), X86_DE); /* aam 0 */
    CHECK_EQ(STEP(0xe9, 0x00, 0x00, 0x01, 0x00), X86_GP); /* beyond the CS limit */
    CHECK_EQ(REG(RIP), 0x1006);
}

int main(void)
{
    if (guest_new(&guest) != 0)
        return 1;
    test_decode();
    test_alu();
    test_faults_change_nothing();
    test_move();
    test_string();
    test_code_page();
    test_exchange_and_divide();
    test_stack_and_branches();
    test_protected_mode();
    guest_free(&guest);
    CHECK_DONE();
}
