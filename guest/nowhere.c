/* nowhere.c - the kernel jumps to where there is no memory, which reads as all ones: an invalid instruction, with
 * no table of handlers. */
#include "kernel.h"

void kernel_main(void)
{
    static const struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) none = { 0, 0 };
    print("PASS: about to jump into nowhere\n");
    __asm__ volatile("lidt %0; jmp *%1" : : "m"(none), "r"(0xb0000000ull));
    debug_exit(9); /* not reached */
}
