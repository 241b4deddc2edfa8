/* boot32.S - Multiboot entry of the 32-bit kernels, their vectors, `run32`, and the way to real mode and back. */
        .section .multiboot, "a"
        .align 4
        .long 0x1badb002
        .long 0
        .long -0x1badb002

        .text
        .code32
        .globl _start
_start:
        cld
        cli
        mov $stack_top, %esp
        lgdt gdt_pointer
        ljmp $8, $1f
1:      mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %eax, %fs
        mov %eax, %gs
        mov %cr0, %eax
        and $~0x6000000c, %eax
        or $0x22, %eax
        mov %eax, %cr0
        call kernel_start32
2:      hlt
        jmp 2b

        .globl trap_entries32
        .align 16
trap_entries32:
        .set n, 0
        .rept 256
        .align 16
        .if (n == 8) || (n >= 10 && n <= 14) || (n == 17)
        nop
        .else
        push $0
        .endif
        push $n
        jmp trap_common32
        .set n, n + 1
        .endr

trap_common32:
        pusha
        push %ds
        push %es
        push %fs
        push %gs
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        cld
        push %esp
        call trap_dispatch32
        add $4, %esp
        jmp resume32

/* void run_enter32(struct frame32 *frame, u32 *ret_stack, u32 bytes): copies that much of the frame to the
 * stack and leaves by it. */
        .globl run_enter32
run_enter32:
        mov 4(%esp), %eax
        mov 8(%esp), %edx
        mov 12(%esp), %ecx
        push %ebx
        push %esi
        push %edi
        push %ebp
        mov %esp, (%edx)
        sub %ecx, %esp
        mov %eax, %esi
        mov %esp, %edi
        cld
        rep movsb
resume32:
        pop %gs
        pop %fs
        pop %es
        pop %ds
        popa
        add $8, %esp
        iret

        .globl run_leave32
run_leave32:
        mov 4(%esp), %esp
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
        pop %ebp
        pop %edi
        pop %esi
        pop %ebx
        ret

/* void run_real(u32 *eax). The 16-bit part is copied to 8000h - it must lie below 64 KiB. */
        .globl run_real, real_start, real_end
run_real:
        mov 4(%esp), %eax
        push %ebx
        push %esi
        push %edi
        push %ebp
        push %eax
        mov %esp, saved_esp
        mov (%eax), %ebx
        mov $real_start, %esi
        mov $0x8400, %edi
        mov $(real_end - real_start), %ecx
        rep movsb
        lidt real_idt
        ljmp $0x100, $0x8400    /* a 16-bit code segment, base 0 */
real_start:
        .code16
        mov $0x108, %ax         /* 16-bit data, 64 KiB */
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov %ax, %fs
        mov %ax, %gs
        mov %cr0, %eax
        and $0xfe, %al
        mov %eax, %cr0
        ljmp $0, $(0x8400 + 1f - real_start)
1:      xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x8000, %sp
        mov %ebx, %eax
        lcall $0x900, $0
        mov %eax, %ebx
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        ljmpl $8, $real_back
real_end:
        .code32
real_back:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %eax, %fs
        mov %eax, %gs
        mov saved_esp, %esp
        lidt idt_pointer
        pop %eax
        mov %ebx, (%eax)
        pop %ebp
        pop %edi
        pop %esi
        pop %ebx
        ret

        .data
        .align 8
gdt_pointer:
        .word 0x10f
        .long gdt32
        .align 4
        .globl idt_pointer
idt_pointer:
        .word 2047
        .long idt32
real_idt:
        .word 0x3ff
        .long 0
saved_esp:
        .long 0
        .bss
        .align 16
stack:  .skip 16384
stack_top:
        .section .note.GNU-stack, "", @progbits
