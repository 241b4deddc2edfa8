/* pic.c - see pic.h.
 *
 * Each chip asks for service when some request that is not masked has priority over all that is in service
 * (ISR). The master's request is the processor's INTR; the slave's is the master's input 2. When the processor
 * acknowledges, the request moves from IRR to ISR, in both chips if it was the slave's, until the guest's
 * EOI takes it out. A request that went away in between gives the "spurious" input 7 and sets no ISR bit.
 *
 * `lines` holds the inputs' levels, `irr` the requests: an edge sets its bit until it is acknowledged, a
 * level-triggered input's bit follows its line. Priorities are counted from the input after `lowest`. */
#include "device/irq/pic.h"

#include <string.h>

#define CASCADE 2u
#define ICW1 0x10u
#define ICW1_NEEDS_ICW4 0x01u
#define ICW1_SINGLE 0x02u
#define ICW4_AUTO_EOI 0x02u
#define ICW4_NESTED 0x10u /* special fully nested mode */
#define OCW3 0x08u

static const uint8_t elcr_writable[2] = {0xF8, 0xDE};

/* Priorities rotate, so they are compared as distances: how far an input is below the top one.
 * The input of highest priority in `bits`, as a distance from the top (0 = highest), or 8. */
static unsigned top_priority(const struct pic_chip *chip, uint8_t bits)
{
    unsigned distance = 0;
    if (!bits)
        return 8;
    while (!(bits >> ((chip->lowest + 1 + distance) & 7) & 1))
        distance++;
    return distance;
}

/* The input that the chip requests service for, or -1. */
static int requested(const struct pic_chip *chip)
{
    if (!chip->ready)
        return -1;
    unsigned wanted = top_priority(chip, chip->irr & (uint8_t)~chip->imr);
    uint8_t serving = chip->isr;
    if (chip->special_mask)
        serving &= (uint8_t)~chip->imr;
    /* In special fully nested mode the slave may interrupt its own earlier request. */
    if (chip->master && (chip->icw4 & ICW4_NESTED))
        serving &= (uint8_t)~(1u << CASCADE);
    return wanted < top_priority(chip, serving) ? (int)((chip->lowest + 1 + wanted) & 7) : -1;
}

static void chip_line(struct pic_chip *chip, unsigned input, bool level)
{
    uint8_t bit = (uint8_t)(1u << input);
    bool was = chip->lines & bit;
    chip->lines = level ? chip->lines | bit : chip->lines & (uint8_t)~bit;
    if (chip->elcr & bit)
        chip->irr = level ? chip->irr | bit : chip->irr & (uint8_t)~bit;
    else if (level && !was)
        chip->irr |= bit;
    else if (!level)
        chip->irr &= (uint8_t)~bit; /* the request must stay until it is acknowledged */
}

/* Passes the slave's request to the master and the master's to the processor. */
static void update(struct pic *pic)
{
    chip_line(&pic->chip[0], CASCADE, requested(&pic->chip[1]) >= 0);
    bool level = requested(&pic->chip[0]) >= 0;
    if (level != pic->level) {
        pic->level = level;
        pic->output(pic->owner, level);
    }
}

void pic_line(struct pic *pic, unsigned input, bool level)
{
    chip_line(&pic->chip[input >> 3], input & 7, level);
    update(pic);
}

/* The acknowledge cycle of one chip. */
static void chip_take(struct pic_chip *chip, unsigned input)
{
    uint8_t bit = (uint8_t)(1u << input);
    if (!(chip->elcr & bit))
        chip->irr &= (uint8_t)~bit;
    if (!(chip->icw4 & ICW4_AUTO_EOI))
        chip->isr |= bit;
    else if (chip->rotate_on_auto)
        chip->lowest = (uint8_t)input;
}

uint8_t pic_ack(struct pic *pic)
{
    struct pic_chip *master = &pic->chip[0], *slave = &pic->chip[1];
    int input = requested(master);
    uint8_t vector;
    if (input == (int)CASCADE) {
        int inner = requested(slave);
        if (inner >= 0)
            chip_take(slave, (unsigned)inner);
        vector = (uint8_t)(slave->base | (inner >= 0 ? inner : 7));
        chip_take(master, CASCADE);
        /* A second request of the slave is a new edge to the master. */
        master->lines &= (uint8_t)~(1u << CASCADE);
    } else {
        if (input >= 0)
            chip_take(master, (unsigned)input);
        vector = (uint8_t)(master->base | (input >= 0 ? input : 7));
    }
    update(pic);
    return vector;
}

/* ICW1 begins initialisation: requests of edges are forgotten, levels are what the lines are. */
static void write_icw1(struct pic_chip *chip, uint8_t value)
{
    chip->irr = chip->elcr & chip->lines;
    chip->imr = chip->isr = 0;
    chip->lowest = 7;
    chip->icw4 = 0;
    chip->read_isr = chip->poll = chip->special_mask = chip->rotate_on_auto = false;
    chip->need_icw4 = value & ICW1_NEEDS_ICW4;
    chip->single = value & ICW1_SINGLE;
    chip->ready = false;
    chip->expect = 2;
}

/* ICW2 to ICW4, in the order that ICW1 announced. */
static void write_icw(struct pic_chip *chip, uint8_t value)
{
    if (chip->expect == 2)
        chip->base = value & 0xF8;
    else if (chip->expect == 4)
        chip->icw4 = value;
    chip->expect++;
    if (chip->expect == 3 && chip->single)
        chip->expect = 4;
    if (chip->expect > 4 || (chip->expect == 4 && !chip->need_icw4)) {
        chip->expect = 0;
        chip->ready = true;
    }
}

/* OCW2: rotate (bit 7), specific (bit 6), EOI (bit 5), input (bits 2:0). */
static void write_ocw2(struct pic_chip *chip, uint8_t value)
{
    bool rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
    unsigned input = value & 7;
    if (!eoi && !specific) {
        chip->rotate_on_auto = rotate;
        return;
    }
    if (!specific) {
        uint8_t serving = chip->special_mask ? chip->isr & (uint8_t)~chip->imr : chip->isr;
        unsigned distance = top_priority(chip, serving);
        if (distance == 8)
            return;
        input = (chip->lowest + 1 + distance) & 7;
    }
    if (eoi)
        chip->isr &= (uint8_t)~(1u << input);
    if (rotate)
        chip->lowest = (uint8_t)input;
}

/* OCW3: poll (bit 2), which of IRR and ISR is read (bits 1:0), special mask (bits 6:5). */
static void write_ocw3(struct pic_chip *chip, uint8_t value)
{
    chip->poll = value & 0x04;
    if (value & 0x02)
        chip->read_isr = value & 0x01;
    if (value & 0x40)
        chip->special_mask = value & 0x20;
}

void pic_write(struct pic *pic, unsigned which, unsigned port, uint8_t value)
{
    struct pic_chip *chip = &pic->chip[which];
    if (port == 0 && (value & ICW1))
        write_icw1(chip, value);
    else if (port == 0 && (value & OCW3))
        write_ocw3(chip, value);
    else if (port == 0)
        write_ocw2(chip, value);
    else if (chip->expect)
        write_icw(chip, value);
    else
        chip->imr = value;
    update(pic);
}

/* The poll command's answer acknowledges like the processor does. */
static uint8_t poll(struct pic *pic, struct pic_chip *chip)
{
    int input = requested(chip);
    chip->poll = false;
    if (input < 0)
        return 0;
    chip_take(chip, (unsigned)input);
    if (chip->master && input == (int)CASCADE)
        chip->lines &= (uint8_t)~(1u << CASCADE);
    update(pic);
    return (uint8_t)(0x80 | input);
}

uint8_t pic_read(struct pic *pic, unsigned which, unsigned port)
{
    struct pic_chip *chip = &pic->chip[which];
    if (chip->poll)
        return poll(pic, chip);
    if (port)
        return chip->imr;
    return chip->read_isr ? chip->isr : chip->irr;
}

uint8_t pic_elcr_read(const struct pic *pic, unsigned chip)
{
    return pic->chip[chip].elcr;
}

void pic_elcr_write(struct pic *pic, unsigned which, uint8_t value)
{
    struct pic_chip *chip = &pic->chip[which];
    chip->elcr = value & elcr_writable[which];
    chip->irr = (chip->irr & (uint8_t)~chip->elcr) | (chip->lines & chip->elcr);
    update(pic);
}

void pic_reset(struct pic *pic)
{
    for (unsigned i = 0; i < 2; i++) {
        struct pic_chip *chip = &pic->chip[i];
        uint8_t lines = i == 0 ? chip->lines & (uint8_t)~(1u << CASCADE) : chip->lines;
        *chip = (struct pic_chip){.master = i == 0, .lines = lines, .lowest = 7};
    }
    update(pic);
}

void pic_save(const struct pic *pic, struct stream *stream)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct pic_chip *chip = &pic->chip[i];
        const uint8_t bytes[] = {chip->irr, chip->imr, chip->isr, chip->lines, chip->elcr, chip->base, chip->lowest,
                                 chip->icw4, chip->expect, chip->ready, chip->need_icw4, chip->single,
                                 chip->read_isr, chip->poll, chip->special_mask, chip->rotate_on_auto};
        stream_put_bytes(stream, bytes, sizeof bytes);
    }
}

void pic_load(struct pic *pic, struct stream *stream)
{
    for (unsigned i = 0; i < 2; i++) {
        uint8_t b[16];
        stream_get_bytes(stream, b, sizeof b);
        if ((b[4] & ~elcr_writable[i]) || (b[5] & 7) || b[6] > 7 || b[8] == 1 || b[8] > 4)
            stream_fail(stream, "8259 number %u: a register has an impossible value", i);
        pic->chip[i] = (struct pic_chip){
            .master = i == 0, .irr = b[0], .imr = b[1], .isr = b[2], .lines = b[3], .elcr = b[4] & elcr_writable[i],
            .base = b[5] & 0xF8, .lowest = b[6] & 7, .icw4 = b[7], .expect = b[8] > 4 ? 0 : b[8], .ready = b[9] != 0,
            .need_icw4 = b[10] != 0, .single = b[11] != 0, .read_isr = b[12] != 0, .poll = b[13] != 0,
            .special_mask = b[14] != 0, .rotate_on_auto = b[15] != 0};
    }
    update(pic);
}
