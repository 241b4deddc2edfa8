/* machine_private.h - the machine's parts, for the files of this folder.
 *
 * Locks, in the order they may be taken: `lock` (the board's: around every device access and timer
 * callback), then `end_lock`, then the console's. Engine calls that are allowed from any thread may be made with `lock` held. */
#ifndef VENEER_MACHINE_PRIVATE_H
#define VENEER_MACHINE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/loop.h"
#include "device/bus/bus.h"
#include "device/bus/pci.h"
#include "device/irq/irqchip.h"
#include "machine/machine.h"
#include "memory/ram.h"

/* The guest-physical map. */
#define BOARD_LOW_RAM_MAX UINT64_C(0xc0000000)
#define BOARD_WINDOW32_BASE 0xc0000000u /* PCI memory */
#define BOARD_WINDOW32_SIZE 0x20000000u
#define BOARD_ECAM_BASE 0xe0000000u
#define BOARD_HIGH_RAM_BASE UINT64_C(0x100000000)
#define BOARD_WINDOW64_BASE UINT64_C(0x8000000000) /* within the 40 bits that the CPU model has */
#define BOARD_WINDOW64_SIZE UINT64_C(0x4000000000)
#define BOARD_RAM_MAX (BOARD_LOW_RAM_MAX + (BOARD_WINDOW64_BASE - BOARD_HIGH_RAM_BASE))
#define BOARD_ADDRESS_LIMIT (UINT64_C(1) << 52)

/* Ports. */
#define BOARD_PM_BASE 0x600u
#define BOARD_HOTPLUG 0x610u
#define BOARD_PVPANIC 0x505u
#define BOARD_PCI_IO_BASE 0xc000u
#define BOARD_PCI_IO_SIZE 0x4000u
#define BOARD_COM1 0x3f8u
#define BOARD_COM1_IRQ 4u
#define BOARD_SCI_IRQ 9u

#define BOARD_DEVICES 48u /* 32 slots' and the platform's */
#define CONSOLE_LINE 256u
#define CONSOLE_QUEUE 65536u
#define CONSOLE_CROWDED (CONSOLE_QUEUE / 2) /* from here on a vCPU that prints waits */

/* What others ask of a vCPU's thread; bits of vcpu.requests, changed with the board's lock held. */
#define VCPU_REQUEST_INIT 0x1u
#define VCPU_REQUEST_SIPI 0x2u

struct vcpu {
    struct machine *machine;
    unsigned index;
    struct engine_vcpu *engine;
    pthread_t thread;
    bool started;
    bool wait_for_sipi; /* its own thread's */
    _Atomic unsigned requests;
    uint8_t sipi_vector;
    _Atomic int wake; /* futex: 0, 1 = look again, -1 = asleep; see vcpu.c */
    _Atomic uint64_t tsc_offset; /* as last known: what the guest's TSC is ahead of the host's */
    _Atomic uint64_t halts;
    uint64_t poll_ns;          /* how long to look for news before sleeping; own thread */
};

/* What the guest printed and the console's owner has not taken yet; see console.c. */
struct console_queue {
    pthread_mutex_t lock; /* the innermost */
    pthread_cond_t filled, drained;
    uint8_t bytes[CONSOLE_QUEUE];
    size_t first, used;
    _Atomic bool crowded, refused; /* vCPUs wait; the virtio console waits */
    bool closing, started;
    pthread_t thread;
};

struct machine {
    struct machine_config config;
    struct ram ram;
    struct x86_cpuid cpuid;
    uint64_t tsc_hz;
    const struct engine_ops *engine;
    struct engine_vm *vm;
    struct loop *loop;
    struct clock loop_clock, clock; /* the loop's, and the one devices get: its timers take `lock` */
    pthread_mutex_t lock;

    struct bus *ports, *mmio;
    struct irqchip *irqchip; /* NULL when the engine has its own */
    struct device *uart, *kvmclock, *power, *hotplug; /* among the devices below */
    struct device *device[BOARD_DEVICES];
    unsigned devices;
    struct pci_host *pci; /* among them */
    struct plug *plugs; /* devices with a name, which may go; see plug.c */
    pthread_cond_t plug_gone;
    bool started;       /* the guest may run; under `lock` */
    struct board_virtio *virtio; /* under `lock`; see board_virtio.c */
    unsigned shares_made;        /* under `lock` */
    struct io_thread *slow_io;   /* serves the devices that move little */
    _Atomic unsigned next_disk;  /* instance */

    struct vcpu vcpu[MACHINE_VCPUS_MAX];
    bool defer_wakes;        /* under `lock`: see machine_unlock_waking */
    unsigned deferred_wakes; /* a bit a vCPU */

    /* The console's current line, and the last that spoke of a panic. */
    char line[CONSOLE_LINE];
    size_t line_used;
    char panic_text[CONSOLE_LINE];
    /* The same of the virtio console, whose thread is another. */
    char virtio_line[CONSOLE_LINE];
    size_t virtio_line_used;
    struct console_queue console;

    pthread_mutex_t end_lock;
    struct machine_result result; /* valid once `ended` */
    _Atomic bool ended;
    _Atomic uint64_t port_accesses, mmio_accesses, msr_accesses, interrupts;
};

/* board.c: makes and frees the buses and devices, and loads the kernel. */
int board_create(struct machine *machine, struct error *error);
void board_destroy(struct machine *machine);
/* The memory map, ACPI tables and kernel; fills the first vCPU's state. */
int board_boot(struct machine *machine, struct x86_cpu *cpu, struct error *error);

/* board_virtio.c (see also board_virtio.h): the virtio devices that the config asks for, and the threads that serve them. */
int board_virtio_create(struct machine *machine, struct error *error);
/* Without the board's lock. Queues are served between resume and pause; pause waits for what is in flight. */
void board_virtio_resume(struct machine *machine);
void board_virtio_pause(struct machine *machine);
/* Ends the shared thread, when the devices are destroyed. */
void board_virtio_destroy(struct machine *machine);

/* board_share.c: the shares that the config asks for. */
int board_share_create(struct machine *machine, struct error *error);

/* board_services.c: the devices between the guest and its host that the config asks for. */
int board_services_create(struct machine *machine, struct error *error);
size_t services_console_input(struct machine *machine, const void *bytes, size_t length);
void services_console_room(struct machine *machine);

/* board_clock.c: a clock over machine->loop_clock whose timers take the board's lock. */
struct clock board_clock(struct machine *machine);

/* board_access.c */
extern const struct engine_machine_ops board_engine_ops;

/* vcpu.c: starts a vCPU's thread. */
int vcpu_start(struct vcpu *vcpu, struct error *error);
/* For other threads than vCPUs': between these two, a vCPU that is interrupted is woken only when the lock is free again. Woken
 * before, it would run into the lock, and sleep and be woken once more. */
void machine_lock_deferring(struct machine *machine);
void machine_unlock_waking(struct machine *machine);
/* Makes the vCPU's thread look around: requests, or the machine's end. Any thread. */
void vcpu_wake(struct vcpu *vcpu);
/* What irqchip asks; the board's lock is held. owner: the machine. */
void vcpu_interrupt(void *owner, unsigned index);
void vcpu_nmi(void *owner, unsigned index);
void vcpu_init(void *owner, unsigned index);
void vcpu_sipi(void *owner, unsigned index, uint8_t vector);
uint64_t vcpu_tsc(void *owner, unsigned index);

/* machine.c: ends the machine; the first end counts. Any thread, with or without the board's lock. */
void machine_finish(struct machine *machine, enum machine_end end, int status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* As the guest's reset or shutdown: a panic when the console told of one, else `end`. */
void machine_guest_died(struct machine *machine, enum machine_end end, const char *text);

/* console.c: what the guest sent to its first serial port. */
void console_transmit(void *owner, const uint8_t *bytes, size_t length);
void console_room(void *owner);
/* Starts and ends the thread that gives the owner what was printed; ending waits until it took everything. */
int console_queue_start(struct machine *machine, struct error *error);
void console_queue_end(struct machine *machine);
/* The kernel's command line for the console that there is. */
const char *console_append(const struct machine *machine);
/* What the guest sent to its virtio console; returns how many bytes were taken, and calls services_console_room when there is room for the
 * rest. The I/O thread. */
size_t console_write_virtio(void *owner, const void *bytes, size_t length);
/* Holds a vCPU up, without the board's lock, while the queue is crowded and the machine runs. */
void console_hold(struct machine *machine);
/* The machine has ended: nobody is held up any more. */
void console_release(struct machine *machine);

#endif
