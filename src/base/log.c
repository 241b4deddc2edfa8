#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Atomic int current_level = LOG_WARNING;
static const char *_Atomic current_line_end = "";

void log_set_level(enum log_level level)
{
    atomic_store(&current_level, (int)level);
}

void log_set_line_end(const char *line_end)
{
    atomic_store(&current_line_end, line_end);
}

void log_message(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"error", "warning", "note", "debug"};
    if ((int)level > atomic_load(&current_level))
        return;
    char line[1024];
    int head = snprintf(line, sizeof line, "veneer: %s: ", names[level]);
    size_t used = head > 0 ? (size_t)head : 0;
    va_list list;
    va_start(list, format);
    int body = vsnprintf(line + used, sizeof line - used - 4, format, list);
    va_end(list);
    if (body < 0)
        return;
    used = strlen(line);
    int tail = snprintf(line + used, sizeof line - used, "%s\n", atomic_load(&current_line_end));
    if (tail > 0)
        used += (size_t)tail;
    /* One write, so that lines of several threads do not mix. Nobody to tell when it fails. */
    if (write(STDERR_FILENO, line, used) < 0)
        return;
}
