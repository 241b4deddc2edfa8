/* guest.h - the machine around a case, for executors of ours: page tables that give the windows of case.h to CPL 3,
 * and a supervisor with a GDT like Linux's and an IDT whose every handler is a HLT. The exception that ends a case
 * is thus delivered for real, and its result read back from the frame on the supervisor's stack. */
#ifndef VENEER_TESTS_EQUIVALENCE_GUEST_H
#define VENEER_TESTS_EQUIVALENCE_GUEST_H

#include "case.h"

#define GUEST_RAM_SIZE 0x100000u
#define GUEST_IMAGE 0x80000u /* guest-physical address of the image */

/* Writes tables and handlers into `ram` (GUEST_RAM_SIZE zeroed bytes at guest-physical 0), and fills *ret_cpu with
 * the state that every case starts from. */
void guest_build(uint8_t *ram, struct x86_cpu *ret_cpu);

/* Puts the case's state into a cpu that guest_build filled. */
void guest_enter(const struct eq_case *c, struct x86_cpu *cpu);

/* After the handler was reached: the result from cpu and the frame. False when cpu is not in a handler. */
bool guest_leave(const uint8_t *ram, const struct x86_cpu *cpu, struct eq_result *ret_result);

#endif
