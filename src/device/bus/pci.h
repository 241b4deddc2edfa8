/* pci.h - the PCI host: bus 0, its configuration space, BARs and MSI-X.
 *
 * Configuration is reached through ECAM (PCI Express base specification 7.2.2) and through ports
 * 0xCF8/0xCFC (PCI local bus 3.0, 3.2.2.3). There is no firmware: pci_add gives each BAR an address
 * from the host's windows and leaves decoding on, and the guest may move it. The host puts memory and
 * I/O BARs on the buses it was given and takes them off as the guest programs them; a BAR that would
 * overlap something else on the bus is not decoded until it no longer does.
 *
 * The board's lock is held in every call. */
#ifndef VENEER_DEVICE_BUS_PCI_H
#define VENEER_DEVICE_BUS_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "device/bus/bus.h"
#include "device/device.h"

#define PCI_BARS 6
#define PCI_CONFIG_SIZE 4096u
#define PCI_SLOTS 32u
#define PCI_ECAM_SIZE 0x100000u /* one bus */
#define PCI_MSIX_VECTORS 64u    /* at most, a function */

enum { PCI_REGION_ECAM, PCI_REGION_PORTS /* 0xCF8, 8 ports */ };

struct pci_host;

struct pci_bar {
    uint64_t size; /* power of two, at least 16 (memory) or 4 (I/O); 0: none */
    bool io, wide, prefetchable;
    struct device *device; /* whose `region` the BAR is */
    unsigned region;
    uint64_t assigned; /* where pci_add put it */
    uint64_t mapped;   /* where it is on the bus now, or UINT64_MAX */
};

struct pci_msix {
    unsigned vectors; /* 0: none */
    unsigned capability;
    uint8_t table[PCI_MSIX_VECTORS * 16];
    uint64_t pending;
    struct device device; /* answers for the BAR */
};

/* Embedded in a device that is a PCI function. Zero it, fill the first part, pci_function_init, describe
 * it with the functions below, then pci_add. */
struct pci_function {
    uint16_t vendor, id, subsystem_vendor, subsystem;
    uint32_t class_code; /* 24 bits: class, subclass, interface */
    uint8_t revision;
    uint8_t interrupt_pin; /* 0 none, 1 INTA .. 4 INTD */
    /* Optional: called before a configuration read of [offset, offset + size), to refresh config[] ... */
    void (*config_read)(struct pci_function *function, unsigned offset, unsigned size);
    /* ... and after a write was merged into config[] through the write mask. */
    void (*config_written)(struct pci_function *function, unsigned offset, unsigned size);

    /* The host's part. */
    struct pci_host *host;
    unsigned slot;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE]; /* bits the guest may write */
    struct pci_bar bar[PCI_BARS];
    struct pci_msix msix;
    unsigned capability_end, capability_last; /* where the next one goes; the last one's offset */
    int intx_level;                           /* what the device wants */
};

struct pci_host_config {
    struct bus *mmio, *ports;              /* outlive the host */
    uint64_t window32_base, window32_size; /* below 4 GiB */
    uint64_t window64_base, window64_size;
    uint32_t io_base, io_size; /* for I/O BARs; size 0: none */
    struct msi_sink msi;
    struct irq_line intx[4]; /* slot s, pin p (0 = INTA) drives intx[(s + p) % 4] */
    /* Who answers one-byte accesses to port 0xCF9, inside the host's ports; NULL: nobody. */
    struct device *reset_control;
    unsigned reset_region;
};

/* Has a host bridge at 00:00.0. NULL when there is no memory. */
struct pci_host *pci_host_new(const struct pci_host_config *config);
/* For bus_map, reset, save, load (address register and bridge) and destroy; the functions are their devices'. */
struct device *pci_host_device(struct pci_host *host);

/* Fills config[] and writable[] from the first part of the struct. */
void pci_function_init(struct pci_function *function);
/* Describes BAR n (and n + 1 when wide) of `size` bytes, answered by `device` as `region`. Before
 * pci_add. -EINVAL when the size or the number is unfit. */
int pci_bar_memory(struct pci_function *function, unsigned n, uint64_t size, bool wide, bool prefetchable,
                   struct device *device, unsigned region);
int pci_bar_io(struct pci_function *function, unsigned n, uint32_t size, struct device *device, unsigned region);
/* Appends a capability of `length` bytes (with its two header bytes, which are filled in); returns its
 * offset in config[], or -ENOSPC. The caller fills the body and writable[]. Before pci_add. */
int pci_capability(struct pci_function *function, uint8_t id, unsigned length);
/* Gives the function MSI-X with 1 to PCI_MSIX_VECTORS vectors and takes BAR n (4 KiB, memory, 32 bits) for
 * its table and pending bits. Before pci_add. Returns 0, -EINVAL or -ENOSPC. */
int pci_msix_add(struct pci_function *function, unsigned n, unsigned vectors);

/* Puts the function at slot 1-31 (0: the first free one), assigns its BARs and maps them. -EBUSY,
 * -ENOSPC (windows or slots are full), or what bus_map said. The function stays its device's. */
int pci_add(struct pci_host *host, struct pci_function *function, unsigned slot);
/* Takes it and its BARs off. No effect when it is on no host. */
void pci_remove(struct pci_function *function);

/* True while the guest has MSI-X enabled: then interrupts go by pci_msix_notify, else by pci_intx. */
bool pci_msix_enabled(const struct pci_function *function);
/* Sends the vector's message, or marks it pending while it or the function is masked. Vectors that do
 * not exist, and calls while MSI-X is off, are ignored. */
void pci_msix_notify(struct pci_function *function, unsigned vector);
/* The function's INTx line; a level. Does not reach the line while MSI-X or Interrupt Disable is on. */
void pci_intx(struct pci_function *function, int level);
/* True while the guest allows the function to reach memory (Bus Master Enable). */
bool pci_bus_master(const struct pci_function *function);

/* For the device's own reset, save and load, inside its section. reset restores the BARs that pci_add
 * assigned. load maps the BARs where they were. */
void pci_function_reset(struct pci_function *function);
void pci_function_save(const struct pci_function *function, struct stream *stream);
int pci_function_load(struct pci_function *function, struct stream *stream, struct error *error);

#endif
