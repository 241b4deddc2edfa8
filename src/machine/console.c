/* console.c - between the guest's first serial port and whoever owns the console.
 *
 * What passes is also read for the line by which Linux says that it panics. Nothing ends because of it: it only
 * gives a reset that follows its reason, for guests whose kernel has no pvpanic driver loaded. */
#include <string.h>

#include "device/platform/uart.h"
#include "machine/machine_private.h"

static void end_line(struct machine *machine)
{
    machine->line[machine->line_used] = '\0';
    machine->line_used = 0;
    const char *panic = strstr(machine->line, "Kernel panic - not syncing");
    if (panic && !machine->panic_text[0])
        memcpy(machine->panic_text, panic, strlen(panic) + 1);
}

void console_transmit(void *owner, const uint8_t *bytes, size_t length)
{
    struct machine *machine = owner;
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] == '\n')
            end_line(machine);
        else if (machine->line_used < sizeof machine->line - 1 && bytes[i] != '\r')
            machine->line[machine->line_used++] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '?';
    }
    if (machine->config.console_write)
        machine->config.console_write(machine->config.console_owner, bytes, length);
}

void console_room(void *owner)
{
    struct machine *machine = owner;
    if (machine->config.console_ready)
        machine->config.console_ready(machine->config.console_owner);
}

size_t machine_console_input(struct machine *machine, const void *bytes, size_t length)
{
    pthread_mutex_lock(&machine->lock);
    size_t taken = uart_receive(machine->uart, bytes, length);
    pthread_mutex_unlock(&machine->lock);
    return taken;
}
