/* engine.S - a flat 64-bit kernel for tests/guest/engine_test.c, which loads it at 10000h and enters it in
 * long mode, ring 0, with 4 GiB mapped one to one, RSP set, IF clear.
 *
 * It says where it is by 32-bit writes to port 500h; the test answers, checks and counts. Port 510h gives a
 * number; 518h takes strings; d0000000h is MMIO. Vector 40h is the interrupt that the test sends. */
        .code64
        .globl _start
_start:
        lgdt gdt_pointer(%rip)
        lidt idt_pointer(%rip)
        lea handler(%rip), %rax
        lea idt+0x40*16(%rip), %rdi
        mov %ax, (%rdi)
        movw $8, 2(%rdi)
        movw $0x8e00, 4(%rdi)
        shr $16, %rax
        mov %ax, 6(%rdi)
        movl $0, 8(%rdi)
        movl $0, 12(%rdi)
        mov $0xfee000f0, %edi           /* local APIC on, where there is one */
        movl $0x1ff, (%rdi)
        mov $1, %eax
        call say

        /* Ports: each size, both ways, and a string. */
        mov $0x510, %edx
        in %dx, %al
        movzx %al, %ebx
        in %dx, %ax
        shl $16, %ebx
        mov %ax, %bx
        mov %ebx, %eax
        call say                        /* the byte, then the word */
        mov $0x510, %edx
        in %dx, %eax
        call say
        lea text(%rip), %rsi
        mov $6, %ecx
        mov $0x518, %edx
        cld
        rep outsb

        /* MMIO: each size, both ways. */
        mov $0xd0000000, %edi
        mov $0x1122334455667788, %rax
        mov %al, 0x10(%rdi)
        mov %ax, 0x20(%rdi)
        mov %eax, 0x30(%rdi)
        mov %rax, 0x40(%rdi)
        movzbl 0x10(%rdi), %eax
        call say
        movzwl 0x20(%rdi), %eax
        call say
        mov 0x30(%rdi), %eax
        call say
        mov 0x40(%rdi), %rax
        shr $32, %rax
        call say

        /* Halts until an interrupt, three times. The test sends it on seeing the number. */
        mov $3, %ebp
1:      mov $0x100, %eax
        call say
        sti
        hlt
        cli
        dec %ebp
        jnz 1b
        mov ticks(%rip), %eax
        call say

        /* Values in every kind of register, across a save and a load at each of these three numbers. */
        mov $0x0123456789abcdef, %r15
        movq %r15, %xmm7
        fninit                          /* after reset the x87 stack is full */
        fld1
        fldpi
        mov $0xc0000102, %ecx           /* kernel GS base */
        mov $0x12345678, %eax
        mov $0x7f, %edx
        wrmsr
        mov $0x1000, %eax
        mov %rax, %dr0
        stc
        mov $0x200, %eax
        call say
        mov $0x201, %eax
        call say
        mov $0x202, %eax
        call say
        setc %al
        movzx %al, %eax
        call say                        /* 1 */
        movq %xmm7, %rax
        cmp %rax, %r15
        sete %al
        movzx %al, %eax
        call say                        /* 1 */
        fsubp                           /* pi - 1 */
        fistpl number(%rip)
        mov number(%rip), %eax
        call say                        /* 2 */
        mov $0xc0000102, %ecx
        rdmsr
        call say                        /* 12345678h */
        mov %dr0, %rax
        call say                        /* 1000h */

        /* What a KVM that emulates kernel code may refuse. */
        lea pair(%rip), %rdi
        mov $1, %eax
        mov $2, %edx
        mov $3, %ebx
        mov $4, %ecx
        lock cmpxchg16b (%rdi)
        sete %al
        movzx %al, %eax
        call say                        /* 1 */
        mov pair(%rip), %eax
        add pair+8(%rip), %eax
        call say                        /* 7 */
        /* The same where it faults: a #GP through the IDT, since it is not aligned. */
        lea refused(%rip), %rax
        lea idt+13*16(%rip), %rdi
        mov %ax, (%rdi)
        movw $8, 2(%rdi)
        movw $0x8e00, 4(%rdi)
        shr $16, %rax
        mov %ax, 6(%rdi)
        lea pair+8(%rip), %rdi
        lock cmpxchg16b (%rdi)
        mov $0xbad, %eax
        call say
refused:
        pop %rax                        /* the error code */
        add $0x300, %eax
        call say                        /* 300h */

        /* A kick while it computes: the test kicks after 400h and goes on. */
        mov $0x400, %eax
        call say
        mov $100, %ecx
2:      dec %ecx
        jnz 2b
        mov $0x401, %eax
        call say

        /* The end: a triple fault. */
        lidt no_idt(%rip)
        ud2

/* Tells EAX; keeps the flags and all registers but EDX. */
say:
        mov $0x500, %edx
        out %eax, %dx
        ret

handler:
        push %rax
        incl ticks(%rip)
        mov $0xfee000b0, %eax
        movl $0, (%rax)
        pop %rax
        iretq

        .align 16
pair:   .quad 1, 2
        .quad 0, 0
ticks:  .long 0
number: .long 0
text:   .ascii "string"
        .align 8
gdt:    .quad 0, 0x00209b0000000000, 0x00cf93000000ffff
gdt_pointer:
        .word 23
        .quad gdt
idt_pointer:
        .word 0x41*16 - 1
        .quad idt
no_idt: .word 0
        .quad 0
        .align 16
idt:    .skip 0x41 * 16
        .section .note.GNU-stack, "", @progbits
