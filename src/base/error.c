#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *error, int code, const char *format, ...)
{
    if (error) {
        va_list list;
        va_start(list, format);
        vsnprintf(error->text, sizeof error->text, format, list);
        va_end(list);
    }
    return -code;
}

void error_prefix(struct error *error, const char *format, ...)
{
    if (!error)
        return;
    char joined[2 * sizeof error->text];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(joined, sizeof error->text, format, list);
    va_end(list);
    if (n < 0)
        return;
    size_t used = strlen(joined);
    snprintf(joined + used, sizeof joined - used, ": %s", error->text);
    memcpy(error->text, joined, sizeof error->text - 1);
    error->text[sizeof error->text - 1] = '\0';
}
