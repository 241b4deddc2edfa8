/* error.h - an error that a person will read.
 *
 * Functions return 0 or a negative errno. Where a person will read the reason, they also take a
 * `struct error *`, which may be NULL, and fill it with one sentence: what was being done, to what,
 * and why it failed. Whoever receives an error either passes it on or logs it, never both. */
#ifndef VENEER_BASE_ERROR_H
#define VENEER_BASE_ERROR_H

struct error {
    char text[512];
};

/* Sets the text (printf format) and returns -code, so that `return error_set(...)` reads well.
 * code: a positive errno value. error: may be NULL. */
int error_set(struct error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "CONTEXT: " before the text that is there. error: may be NULL. */
void error_prefix(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
