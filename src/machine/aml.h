/* aml.h - writes ACPI Machine Language: just the terms that the board's DSDT needs. ACPI 6.5, chapter 20.
 *
 * Terms are appended to a fixed buffer; a term that does not fit sets `overflow` and is dropped. Terms with a
 * package length are opened by aml_begin_* and closed by aml_end, in pairs. */
#ifndef VENEER_MACHINE_AML_H
#define VENEER_MACHINE_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
    uint8_t *bytes;
    size_t used, size;
    bool overflow;
};

/* Names are paths of 4-character segments: "\\_SB_", "PCI0". */
size_t aml_begin_scope(struct aml *aml, const char *path);
size_t aml_begin_device(struct aml *aml, const char *name);
/* At most 255 elements, which follow as data terms. */
size_t aml_begin_package(struct aml *aml, uint8_t elements);
/* A buffer of resource descriptors, closed by aml_end_resources. */
size_t aml_begin_resources(struct aml *aml, size_t *ret_size_at);
void aml_end_resources(struct aml *aml, size_t mark, size_t size_at);
void aml_end(struct aml *aml, size_t mark);

/* "Name (name," - a data term must follow. */
void aml_name(struct aml *aml, const char *name);
void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);
/* A compressed EISA ID: "PNP0A08". */
void aml_eisa_id(struct aml *aml, const char *id);

/* Resource descriptors (6.4). */
void aml_io(struct aml *aml, uint16_t base, uint8_t length);
void aml_irq(struct aml *aml, unsigned irq);
void aml_memory32_fixed(struct aml *aml, uint32_t base, uint32_t length);
void aml_bus_range(struct aml *aml, uint16_t first, uint16_t last);
void aml_io_range(struct aml *aml, uint16_t first, uint16_t last);
void aml_memory32_range(struct aml *aml, uint32_t base, uint32_t length);
void aml_memory64_range(struct aml *aml, uint64_t base, uint64_t length);

#endif
