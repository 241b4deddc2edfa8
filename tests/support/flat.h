/* flat.h - the smallest machine that runs code under an engine, for tests and benches.
 *
 * RAM from 0; page tables that map the first GiB of linear addresses to itself in 2 MiB pages, for ring 0
 * and 3; a flat GDT; no devices. Code is put somewhere, a vCPU starts there in 64-bit mode, interrupts off,
 * its stack below FLAT_STACK. HLT ends a run. */
#ifndef VENEER_TESTS_FLAT_H
#define VENEER_TESTS_FLAT_H

#include <stdatomic.h>

#include "engine/engine.h"
#include "memory/ram.h"

#define FLAT_TABLES 0x1000u /* PML4, PDPT, PD: three pages */
#define FLAT_GDT 0x5000u
#define FLAT_IDT 0x6000u    /* a page, zeroes: any exception is a triple fault unless flat_gate fills it */
#define FLAT_STACK 0x10000u /* of vCPU 0; each further one 4 KiB lower */
#define FLAT_CS 0x08u
#define FLAT_SS 0x10u
#define FLAT_VCPUS 8u

struct flat {
    struct ram ram;
    struct x86_cpuid cpuid;
    const struct engine_ops *engine;
    struct engine_vm *vm;
    struct engine_vcpu *vcpu[FLAT_VCPUS];
    unsigned vcpus;
    _Atomic int vector; /* what interrupt_ack gives next, once; -1: nothing */
    void (*on_port)(struct flat *flat); /* called by a write to a port, or NULL */
    uint32_t port_value; /* the last one written to a port */
    uint16_t port;
    uint64_t mmio_gpa, mmio_value; /* the last MMIO write */
};

/* Makes the machine with `megabytes` of RAM; ends the process with a message when it cannot. */
void flat_open(struct flat *flat, const struct engine_ops *engine, unsigned vcpus, unsigned megabytes);
void flat_close(struct flat *flat);

/* Copies bytes to guest memory, as a device would. */
void flat_put(struct flat *flat, uint64_t gpa, const void *bytes, size_t length);
uint64_t flat_get64(const struct flat *flat, uint64_t gpa);
/* Puts page tables and GDT where they were at first. */
void flat_tables(struct flat *flat);
/* Maps the 2 MiB of linear addresses at `linear` (below 1 GiB) to 512 pages of 4 KiB through a table at `table`, a
 * free page of RAM; flat_map then changes single ones. Without any invalidation: before the run, or by a guest that does it. */
void flat_split(struct flat *flat, uint64_t linear, uint64_t table);
void flat_map(struct flat *flat, uint64_t table, uint64_t linear, uint64_t gpa);
/* A 64-bit interrupt gate. */
void flat_gate(struct flat *flat, unsigned vector, uint64_t handler);

/* The state of a vCPU about to run at `rip`; change it and hand it to the engine's set_state. */
void flat_state(const struct flat *flat, unsigned index, uint64_t rip, struct x86_cpu *ret_cpu);
/* set_state, then runs vCPU `index` until it halts, shuts down or is kicked. Returns the reason, and the state after. */
enum engine_exit_reason flat_run(struct flat *flat, unsigned index, const struct x86_cpu *cpu, struct x86_cpu *ret_cpu);

/* CODE(name, "assembly") makes bytes name[], up to name_end[], of 64-bit code. */
#define CODE(name, text)                                                                                     \
    extern const uint8_t name[], name##_end[];                                                               \
    __asm__(".pushsection .rodata\n.globl " #name ", " #name "_end\n" #name ":\n" text "\n" #name "_end:\n.popsection\n")

#endif
