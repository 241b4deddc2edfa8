/* i8042.c - see i8042.h.
 *
 * One answer byte is held at a time; a later one replaces it, as the guest may not send a command before it
 * has read. What is sent to a missing keyboard or mouse comes back as the controller's own time-out: 0xFE
 * with status bit 6, so that a guest's probe ends at once. */
#include "device/platform/i8042.h"

#include <stdbool.h>
#include <stdlib.h>

#define SAVED_VERSION 1

enum { STATUS_FULL = 0x01, STATUS_SYSTEM = 0x04, STATUS_COMMAND = 0x08, STATUS_UNLOCKED = 0x10, STATUS_AUX = 0x20,
       STATUS_TIMEOUT = 0x40 };
enum { MODE_IRQ1 = 0x01, MODE_IRQ12 = 0x02, MODE_SYSTEM = 0x04, MODE_KEYBOARD_OFF = 0x10, MODE_AUX_OFF = 0x20 };
enum { OUTPUT_RESET = 0x01, OUTPUT_A20 = 0x02 };
#define RESEND 0xFEu

struct i8042 {
    struct device device;
    struct i8042_config config;
    uint8_t status, answer, mode, output;
    uint8_t command; /* whose data byte is awaited; 0: none */
    uint8_t ram[32]; /* ram[0] is the mode byte's place and is not used */
};

static struct i8042 *of(struct device *device)
{
    return (struct i8042 *)device; /* embedded first */
}

static void update(const struct i8042 *i8042)
{
    bool full = i8042->status & STATUS_FULL, aux = i8042->status & STATUS_AUX;
    irq_set(&i8042->config.irq1, full && !aux && (i8042->mode & MODE_IRQ1));
    irq_set(&i8042->config.irq12, full && aux && (i8042->mode & MODE_IRQ12));
}

/* Puts a byte in the output buffer; flags: STATUS_AUX, STATUS_TIMEOUT. */
static void answer(struct i8042 *i8042, uint8_t byte, uint8_t flags)
{
    i8042->answer = byte;
    i8042->status = (uint8_t)((i8042->status & ~(STATUS_AUX | STATUS_TIMEOUT)) | STATUS_FULL | flags);
}

/* The output port: bit 0 is the processor's reset line, low to reset; bit 1 the A20 gate, which is kept for show:
 * guest memory does not wrap at 1 MiB. */
static void write_output(struct i8042 *i8042, uint8_t value)
{
    i8042->output = value;
    if (!(value & OUTPUT_RESET))
        i8042->config.reset(i8042->config.owner);
}

static void write_command(struct i8042 *i8042, uint8_t command)
{
    i8042->status |= STATUS_COMMAND;
    i8042->command = 0;
    switch (command) {
    case 0x20: answer(i8042, i8042->mode, 0); break;
    case 0xA7: i8042->mode |= MODE_AUX_OFF; break;
    case 0xA8: i8042->mode &= (uint8_t)~MODE_AUX_OFF; break;
    case 0xA9: answer(i8042, 0x00, 0); break; /* second port: no fault */
    case 0xAA:
        i8042->status |= STATUS_SYSTEM;
        answer(i8042, 0x55, 0); /* self-test passed */
        break;
    case 0xAB: answer(i8042, 0x00, 0); break; /* first port: no fault */
    case 0xAD: i8042->mode |= MODE_KEYBOARD_OFF; break;
    case 0xAE: i8042->mode &= (uint8_t)~MODE_KEYBOARD_OFF; break;
    case 0xC0: answer(i8042, 0x80, 0); break; /* input port: keyboard not locked */
    case 0xD0: answer(i8042, i8042->output, 0); break;
    case 0x60: case 0xD1: case 0xD2: case 0xD3: case 0xD4: i8042->command = command; break;
    case 0xDD: i8042->output &= (uint8_t)~OUTPUT_A20; break;
    case 0xDF: i8042->output |= OUTPUT_A20; break;
    default:
        if (command > 0x20 && command < 0x40)
            answer(i8042, i8042->ram[command & 31], 0);
        else if (command > 0x60 && command < 0x80)
            i8042->command = command;
        else if (command >= 0xF0 && !(command & OUTPUT_RESET)) /* pulse the lines whose bits are 0 */
            i8042->config.reset(i8042->config.owner);
        break;
    }
}

static void write_data(struct i8042 *i8042, uint8_t value)
{
    uint8_t command = i8042->command;
    i8042->status &= (uint8_t)~STATUS_COMMAND;
    i8042->command = 0;
    switch (command) {
    case 0: answer(i8042, RESEND, STATUS_TIMEOUT); break; /* for a keyboard */
    case 0x60:
        i8042->mode = value;
        i8042->status = (uint8_t)((i8042->status & ~STATUS_SYSTEM) | (value & MODE_SYSTEM));
        break;
    case 0xD1: write_output(i8042, value); break;
    case 0xD2: answer(i8042, value, 0); break;
    case 0xD3: answer(i8042, value, STATUS_AUX); break;
    case 0xD4: answer(i8042, RESEND, STATUS_AUX | STATUS_TIMEOUT); break; /* for a mouse */
    default: i8042->ram[command & 31] = value; break;
    }
}

/* System control port A: bit 1 is A20; bit 0 resets when it is set. */
static void write_port_a(struct i8042 *i8042, uint8_t value)
{
    i8042->output = (uint8_t)((i8042->output & ~OUTPUT_A20) | (value & OUTPUT_A20));
    if (value & 0x01)
        i8042->config.reset(i8042->config.owner);
}

static uint64_t i8042_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    struct i8042 *i8042 = of(device);
    (void)offset, (void)size;
    if (region == I8042_REGION_COMMAND)
        return i8042->status;
    if (region == I8042_REGION_PORT_A) /* A20 is the same bit in both */
        return i8042->output & OUTPUT_A20;
    uint8_t byte = i8042->answer;
    i8042->status &= (uint8_t)~(STATUS_FULL | STATUS_AUX | STATUS_TIMEOUT);
    update(i8042);
    return byte;
}

static void i8042_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *i8042 = of(device);
    (void)offset, (void)size;
    if (region == I8042_REGION_COMMAND)
        write_command(i8042, (uint8_t)value);
    else if (region == I8042_REGION_PORT_A)
        write_port_a(i8042, (uint8_t)value);
    else
        write_data(i8042, (uint8_t)value);
    update(i8042);
}

static void i8042_reset(struct device *device)
{
    struct i8042 *i8042 = of(device);
    *i8042 = (struct i8042){.device = i8042->device, .config = i8042->config,
                            .status = STATUS_UNLOCKED | STATUS_COMMAND, .output = 0xCC | OUTPUT_RESET | OUTPUT_A20,
                            .mode = MODE_KEYBOARD_OFF | MODE_AUX_OFF};
    update(i8042);
}

static void i8042_save(const struct device *device, struct stream *stream)
{
    const struct i8042 *i8042 = (const struct i8042 *)device;
    const uint8_t bytes[] = {i8042->status, i8042->answer, i8042->mode, i8042->output, i8042->command};
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    stream_put_bytes(stream, bytes, sizeof bytes);
    stream_put_bytes(stream, i8042->ram, sizeof i8042->ram);
    stream_end(stream);
}

static bool takes_data(uint8_t command)
{
    return command == 0 || (command >= 0x60 && command < 0x80) || (command >= 0xD1 && command <= 0xD4);
}

static int i8042_load(struct device *device, struct stream *stream, struct error *error)
{
    struct i8042 *i8042 = of(device);
    uint8_t b[5];
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    stream_get_bytes(stream, b, sizeof b);
    stream_get_bytes(stream, i8042->ram, sizeof i8042->ram);
    stream_leave(stream);
    if (!takes_data(b[4]))
        stream_fail(stream, "i8042: command 0x%02X takes no data", b[4]);
    i8042->status = b[0];
    i8042->answer = b[1];
    i8042->mode = b[2];
    i8042->output = b[3];
    i8042->command = b[4];
    int status = stream_status(stream, error);
    if (status)
        i8042_reset(device);
    update(i8042);
    return status;
}

static void i8042_destroy(struct device *device)
{
    free(of(device));
}

static const struct device_ops i8042_ops = {
    .name = "i8042",
    .reset = i8042_reset,
    .read = i8042_read,
    .write = i8042_write,
    .save = i8042_save,
    .load = i8042_load,
    .destroy = i8042_destroy,
};

struct device *i8042_new(const struct i8042_config *config)
{
    struct i8042 *i8042 = calloc(1, sizeof *i8042);
    if (!i8042)
        return NULL;
    i8042->device.ops = &i8042_ops;
    i8042->config = *config;
    i8042_reset(&i8042->device);
    return &i8042->device;
}
