/* trapentry.S - the 256 vectors, and the way in and out of a `run` (kernel.h). */
        .text
        .code64
        .macro vector_entry n
        .align 16
        .if (\n == 8) || (\n >= 10 && \n <= 14) || (\n == 17) || (\n == 21) || (\n == 29) || (\n == 30)
        nop
        .else
        pushq $0
        .endif
        pushq $\n
        jmp trap_common
        .endm

        .globl trap_entries
        .align 16
trap_entries:
        .set n, 0
        .rept 256
        vector_entry n
        .set n, n + 1
        .endr

trap_common:
        cld
        push %rax
        push %rbx
        push %rcx
        push %rdx
        push %rsi
        push %rdi
        push %rbp
        push %r8
        push %r9
        push %r10
        push %r11
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, %rdi
        mov %rsp, %rbp
        and $-16, %rsp
        call trap_dispatch
        mov %rbp, %rsp
        jmp frame_resume

/* void run_enter(const struct frame *frame, u64 *ret_stack) */
        .globl run_enter
run_enter:
        pushfq
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, (%rsi)
        cli
        mov %rdi, %rsp
frame_resume:
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rbp
        pop %rdi
        pop %rsi
        pop %rdx
        pop %rcx
        pop %rbx
        pop %rax
        add $16, %rsp
        iretq

/* void run_leave(u64 stack) */
        .globl run_leave
run_leave:
        mov %rdi, %rsp
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        popfq
        ret
        .section .note.GNU-stack, "", @progbits
