/* kernel32.h - what test kernels in 32-bit protected mode stand on; printing and checks are kernel.h's.
 *
 * The kernel runs in ring 0 with flat segments, paging off, interrupts off. */
#ifndef GUEST_KERNEL32_H
#define GUEST_KERNEL32_H

#include "kernel.h"

#define CODE0 0x08
#define DATA0 0x10
#define CODE3 0x1b
#define DATA3 0x23
#define TSS0 0x28  /* the one in use */
#define FREE 0x30  /* first of 26 free slots */
#define FREE_SLOT(n) (FREE + 8 * (n))
#define FLAG_VM 0x20000u

/* All registers at a trap. esp and ss are meaningful always; the v86 ones only with FLAG_VM. */
struct frame32 {
    u32 gs, fs, es, ds;
    u32 edi, esi, ebp, unused, ebx, edx, ecx, eax;
    u32 vector, error;
    u32 eip, cs, eflags, esp, ss;
    u32 v86_es, v86_ds, v86_fs, v86_gs;
};

struct tss32 {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    u32 es, cs, ss, ds, fs, gs, ldt;
    u16 trap, io_map;
    u8 bitmap[33];
} __attribute__((packed));

extern u64 gdt32[34];
extern u64 idt32[256];
extern struct tss32 tss32;
extern u8 trap_entries32[];

/* A descriptor. access: the byte with type and P; flags: G, D, L, AVL in the high nibble's order. */
u64 descriptor(u32 base, u32 limit, u8 access, u8 flags);
u64 gate32(u16 selector, u32 offset, u8 access, u8 parameters);

/* Enters *frame by IRET (with FLAG_VM in eflags: to virtual-8086 mode); what ended it comes back there. */
void run32(struct frame32 *frame);
/* The state to start code at eip in ring 0 or 3, flat, with a stack of its own. */
struct frame32 frame32_flat(unsigned ring, const void *code);
void check_trap32(const char *name, const struct frame32 *frame, u32 vector, long error);

/* 16-bit code at linear 9000h (copied there from what CODE16 defines). */
#define LOW_CODE 0x9000u
void copy_low(const struct code *code);
/* Real mode: runs the code at LOW_CODE with CS = LOW_CODE >> 4, SS:SP = 0:8000h, until its RETF; *ax goes in and comes back.
 * Interrupt vectors are those at linear 0. */
void run_real(u32 *eax);

#endif
