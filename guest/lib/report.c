/* report.c - serial output, checks, and the end of a test kernel. */
#include "kernel.h"

#include <stdarg.h>

#define COM1 0x3f8
#define DEBUG_EXIT_PORT 0xf4

static unsigned checks, failures;

static void print_char(char c)
{
    if (c == '\n')
        print_char('\r');
    while (!(inb(COM1 + 5) & 0x20))
        pause();
    outb(COM1, (u8)c);
}

static void print_number(unsigned long value, unsigned base)
{
    char text[24];
    unsigned length = 0;
    do
        text[length++] = "0123456789abcdef"[value % base];
    while ((value /= base) != 0);
    while (length)
        print_char(text[--length]);
}

static void print_list(const char *format, va_list arguments)
{
    for (; *format; format++) {
        if (*format != '%') {
            print_char(*format);
            continue;
        }
        bool wide = *++format == 'l';
        if (wide)
            format++;
        if (*format == 's') {
            for (const char *s = va_arg(arguments, const char *); *s; s++)
                print_char(*s);
        } else if (*format == 'c') {
            print_char((char)va_arg(arguments, int));
        } else if (*format == 'd') {
            int value = va_arg(arguments, int);
            if (value < 0)
                print_char('-');
            print_number(value < 0 ? 0u - (unsigned)value : (unsigned)value, 10);
        } else if (*format == 'u' || *format == 'x') {
            unsigned long value = wide ? va_arg(arguments, unsigned long) : va_arg(arguments, unsigned);
            print_number(value, *format == 'u' ? 10 : 16);
        } else {
            print_char('%');
        }
    }
}

void print(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_list(format, arguments);
    va_end(arguments);
}

void check(bool passed, const char *name, const char *format, ...)
{
    checks++;
    if (passed) {
        print("ok %s\n", name);
        return;
    }
    failures++;
    va_list arguments;
    va_start(arguments, format);
    print("FAIL %s: ", name);
    print_list(format, arguments);
    print("\n");
    va_end(arguments);
}

void check_equal(const char *name, u64 got, u64 want)
{
    check(got == want, name, "got %lx, want %lx", (unsigned long)got, (unsigned long)want);
}

void check_equal_not_tcg(const char *name, u64 got, u64 want, const char *why)
{
    if (under_tcg())
        skip(name, why);
    else
        check_equal(name, got, want);
}

void skip(const char *name, const char *why)
{
    print("skip %s: %s\n", name, why);
}

void debug_exit(u32 status)
{
    outl(DEBUG_EXIT_PORT, status);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void finish(void)
{
    print("%s: %u checks, %u failed\n", failures ? "FAIL" : "PASS", checks, failures);
    /* A kernel that checked nothing has not passed. */
    debug_exit(failures || !checks ? 1 : 0);
}

void panic(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print("FAIL panic: ");
    print_list(format, arguments);
    print("\n");
    va_end(arguments);
    debug_exit(2);
}

bool under_tcg(void)
{
    u32 out[4];
    cpuid(0x40000000, 0, out);
    return out[1] == 0x54474354; /* "TCGT" */
}

bool cpu_has(u32 leaf, unsigned output, unsigned bit)
{
    u32 out[4];
    cpuid(leaf & 0x80000000u, 0, out);
    if (out[0] < leaf)
        return false;
    cpuid(leaf, 0, out);
    return out[output] >> bit & 1;
}

void *memset(void *to, int value, size_t length)
{
    u8 *byte = to;
    while (length--)
        *byte++ = (u8)value;
    return to;
}

void *memcpy(void *to, const void *from, size_t length)
{
    u8 *byte = to;
    const u8 *source = from;
    while (length--)
        *byte++ = *source++;
    return to;
}

int memcmp(const void *a, const void *b, size_t length)
{
    const u8 *left = a, *right = b;
    for (; length; length--, left++, right++)
        if (*left != *right)
            return *left < *right ? -1 : 1;
    return 0;
}
