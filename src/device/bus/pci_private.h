/* pci_private.h - what pci.c and pci_msix.c share. */
#ifndef VENEER_DEVICE_BUS_PCI_PRIVATE_H
#define VENEER_DEVICE_BUS_PCI_PRIVATE_H

#include "device/bus/pci.h"

/* Little-endian fields of configuration space, past the write mask. */
uint16_t pci_get16(const struct pci_function *function, unsigned offset);
void pci_put16(struct pci_function *function, unsigned offset, uint16_t value);
void pci_put32(struct pci_function *function, unsigned offset, uint32_t value);

/* Where the host sends messages; NULL while the function is on no host. */
struct msi_sink *pci_msi(struct pci_function *function);
/* Drives the INTx wire again: what may assert it changed. */
void pci_update_intx(struct pci_function *function);

/* The guest wrote the MSI-X capability. */
void pci_msix_changed(struct pci_function *function);
void pci_msix_reset(struct pci_function *function);
/* Fields in an open section. load leaves what it found wrong in the stream's status. */
void pci_msix_save(const struct pci_function *function, struct stream *stream);
void pci_msix_load(struct pci_function *function, struct stream *stream);

#endif
