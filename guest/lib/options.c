/* options.c - the kernel's command line, as Multiboot gives it, and random numbers. */
#include "kernel.h"

#define INFO_COMMAND_LINE 0x4u

extern u32 boot_info; /* boot.S: where the Multiboot information is */

static char line[256];

/* Copied before anything else takes memory: the information may lie where free pages are. */
void options_init(void)
{
    const u32 *info = (const u32 *)(u64)boot_info;
    if (!info || !(info[0] & INFO_COMMAND_LINE))
        return;
    const char *text = (const char *)(u64)info[4];
    for (unsigned i = 0; i + 1 < sizeof line && text[i]; i++)
        line[i] = text[i];
}

const char *command_line(void)
{
    return line;
}

static u64 number(const char *text)
{
    u64 value = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (u64)(*text - '0');
    return value;
}

u64 option(const char *name, u64 unless)
{
    for (const char *word = command_line(); *word;) {
        const char *a = word, *b = name;
        while (*b && *a == *b)
            a++, b++;
        if (!*b && *a == '=')
            return number(a + 1);
        if (!*b && (*a == ' ' || !*a))
            return 1;
        while (*word && *word != ' ')
            word++;
        while (*word == ' ')
            word++;
    }
    return unless;
}

u64 random_state = 0x9e3779b97f4a7c15ull;

u64 random64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dull;
}
