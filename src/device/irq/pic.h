/* pic.h - the pair of 8259A interrupt controllers of a PC, with their edge/level registers.
 *
 * Intel 8259A data sheet (231468). The slave's output is the master's input 2. Until a controller got its
 * initialisation words it raises nothing. The board's lock is held in every call. */
#ifndef VENEER_DEVICE_IRQ_PIC_H
#define VENEER_DEVICE_IRQ_PIC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/stream.h"

struct pic_chip {
    bool master;
    uint8_t irr, imr, isr, lines, elcr;
    uint8_t base;     /* ICW2 */
    uint8_t lowest;   /* the input of lowest priority (rotation) */
    uint8_t icw4;
    uint8_t expect;   /* initialisation: 0 none, else the number of the word awaited, 2 to 4 */
    bool ready, need_icw4, single;
    bool read_isr, poll, special_mask, rotate_on_auto;
};

struct pic {
    struct pic_chip chip[2]; /* master, slave */
    void *owner;
    void (*output)(void *owner, bool level); /* to the processor's INTR; called on changes */
    bool level;
};

void pic_reset(struct pic *pic); /* input lines keep their levels */
void pic_line(struct pic *pic, unsigned input, bool level); /* input 0-15, not 2 */
/* The processor acknowledges: the vector; a spurious one (input 7) when nothing is requested any more. */
uint8_t pic_ack(struct pic *pic);
uint8_t pic_read(struct pic *pic, unsigned chip, unsigned port);
void pic_write(struct pic *pic, unsigned chip, unsigned port, uint8_t value);
uint8_t pic_elcr_read(const struct pic *pic, unsigned chip);
void pic_elcr_write(struct pic *pic, unsigned chip, uint8_t value);
/* Fields in an open section. */
void pic_save(const struct pic *pic, struct stream *stream);
void pic_load(struct pic *pic, struct stream *stream);

#endif
