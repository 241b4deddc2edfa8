/* boot.S - Multiboot header, entry in 32-bit protected mode, and the way into long mode. */
#define ASM
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
        mov $boot_stack_top, %esp
        mov %ebx, boot_info
        /* First 4 GiB one to one, by 2 MiB pages. */
        mov $boot_pml4, %edi
        mov $(7 * 1024), %ecx
        xor %eax, %eax
        rep stosl
        movl $(boot_pdpt + 3), boot_pml4
        mov $boot_pdpt, %edi
        mov $(boot_pd + 3), %eax
        mov $4, %ecx
1:      mov %eax, (%edi)
        add $4096, %eax
        add $8, %edi
        loop 1b
        mov $boot_pd, %edi
        mov $0x83, %eax
        mov $2048, %ecx
2:      mov %eax, (%edi)
        add $0x200000, %eax
        add $8, %edi
        loop 2b
        call enable_long_mode
        lgdt boot_gdt_pointer
        ljmp $8, $start64

/* Shared with application processors: PAE, SSE, EFER.LME|NXE|SCE, paging on. Keeps EBX, ESP. */
        .globl enable_long_mode
enable_long_mode:
        mov $boot_pml4, %eax
        mov %eax, %cr3
        mov $0x620, %eax        /* PAE, OSFXSR, OSXMMEXCPT */
        mov %eax, %cr4
        mov $0xc0000080, %ecx
        rdmsr
        or $0x901, %eax
        wrmsr
        mov %cr0, %eax
        and $~0xe000000c, %eax  /* caches on; EM, TS, PG off */
        or $0x80010023, %eax    /* PG WP NE MP PE */
        mov %eax, %cr0
        ret

        .code64
start64:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        xor %eax, %eax
        mov %eax, %fs
        mov %eax, %gs
        mov $boot_stack_top, %rsp
        call kernel_start
1:      hlt
        jmp 1b

/* The application processors' way, copied to a page below 1 MiB. Its start is 16-bit, CS:IP = page:0. */
        .code16
        .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
        cli
        mov %cs, %ax
        mov %ax, %ds
        lgdtl ap_gdt_pointer - ap_trampoline
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        ljmpl $0x18, $ap_start32
        .align 4
ap_gdt_pointer:
        .word 39
        .long boot_gdt
ap_trampoline_end:
        .code32
ap_start32:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov ap_stack, %esp
        call enable_long_mode
        ljmp $8, $ap_start64
        .code64
ap_start64:
        mov $0x10, %eax
        mov %eax, %ss
        mov ap_stack, %rsp
        call ap_main
1:      cli
        hlt
        jmp 1b

        .data
        .align 16
boot_gdt:
        .quad 0
        .quad 0x00209b0000000000        /* 64-bit code */
        .quad 0x00cf93000000ffff        /* data */
        .quad 0x00cf9b000000ffff        /* 32-bit code */
        .quad 0
boot_gdt_pointer:
        .word 39
        .long boot_gdt
        .bss
        .align 4096
        .globl boot_pml4
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4 * 4096
        .skip 4096
boot_stack: .skip 16384
boot_stack_top:
        .globl boot_info
boot_info: .skip 4
        .section .note.GNU-stack, "", @progbits
