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

/* Names are paths of 4-character segments: "\\_SB_", "PCI0", "\\_SB_.PCI0". */
size_t aml_begin_scope(struct aml *aml, const char *path);
size_t aml_begin_device(struct aml *aml, const char *name);
/* At most 255 elements, which follow as data terms. */
size_t aml_begin_package(struct aml *aml, uint8_t elements);
/* A buffer of resource descriptors, closed by aml_end_resources. */
size_t aml_begin_resources(struct aml *aml, size_t *ret_size_at);
void aml_end_resources(struct aml *aml, size_t mark, size_t size_at);
/* A method of 0 to 7 arguments; its terms follow. */
size_t aml_begin_method(struct aml *aml, const char *name, unsigned arguments);
/* "If": a term for the condition follows, then what is done. */
size_t aml_begin_if(struct aml *aml);
/* Names for the fields of a region, in aml_field; accessed by double words, bits not written are kept. */
size_t aml_begin_fields(struct aml *aml, const char *region);
void aml_end(struct aml *aml, size_t mark);

/* Terms in prefix order, each followed by its operands: source and target of a store; left, right and target of AND, OR
 * and shifts (the target may be aml_integer 0: none); object and value of a notification. */
enum aml_op { AML_STORE = 0x70, AML_SHIFT_LEFT = 0x79, AML_AND = 0x7b, AML_OR = 0x7d, AML_NOTIFY = 0x86 };
void aml_op(struct aml *aml, enum aml_op op);
void aml_local(struct aml *aml, unsigned n);    /* Local0-7 */
void aml_argument(struct aml *aml, unsigned n); /* Arg0-6 */
/* An object by its name; a method's arguments follow. */
void aml_reference(struct aml *aml, const char *path);

/* Ports [port, port + length) as an operation region. */
void aml_io_region(struct aml *aml, const char *name, uint16_t port, uint8_t length);
/* The next field; bits: less than 64. */
void aml_field(struct aml *aml, const char *name, uint8_t bits);

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
