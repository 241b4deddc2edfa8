/* debug-exit PORT STATUS - a Linux program for guests: writes STATUS to the I/O port PORT, by which
 * `veneer run --debug-exit PORT` ends the machine with that status. No libc, so that it is small and static. */

static long system_call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

enum { SYS_EXIT = 60, SYS_IOPERM = 173 };

/* A decimal or 0x number; -1 when it is none or above 65535. */
static long number(const char *text)
{
    long base = 10, value = 0;
    if (text[0] == '0' && text[1] == 'x') {
        base = 16;
        text += 2;
    }
    if (!*text)
        return -1;
    for (; *text; text++) {
        int digit = *text >= 'a' ? *text - 'a' + 10 : *text - '0';
        if (digit < 0 || digit >= base)
            return -1;
        value = value * base + digit;
        if (value > 65535)
            return -1;
    }
    return value;
}

__attribute__((used)) static void start(const long *stack)
{
    const char *const *argv = (const char *const *)(stack + 1);
    long port = stack[0] == 3 ? number(argv[1]) : -1, status = stack[0] == 3 ? number(argv[2]) : -1;
    if (port < 0 || status < 0)
        system_call(SYS_EXIT, 2, 0, 0);
    if (system_call(SYS_IOPERM, port, 1, 1) < 0)
        system_call(SYS_EXIT, 1, 0, 0);
    __asm__ volatile("outb %b0, %w1" : : "a"(status), "d"(port));
    system_call(SYS_EXIT, 0, 0, 0); /* there is no such port */
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call start\n hlt\n");
