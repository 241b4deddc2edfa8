/* triple.c - a fault that cannot be delivered, nor the fault about that, nor the one about that: the VM must
 * end by saying so. */
#include "kernel.h"

void kernel_main(void)
{
    static const struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) none = { 0, 0 };
    print("PASS: about to triple-fault\n");
    __asm__ volatile("lidt %0; ud2" : : "m"(none));
    debug_exit(9); /* not reached */
}
