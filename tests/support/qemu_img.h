/* qemu_img.h - QEMU's image tool, the second judge of images. */
#ifndef VENEER_TESTS_SUPPORT_QEMU_IMG_H
#define VENEER_TESTS_SUPPORT_QEMU_IMG_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

/* Runs a shell command; what it says is shown when it fails in a way other than `expected` (-1: any status will do).
 * Returns its exit status. */
__attribute__((format(printf, 2, 3))) static inline int shell(int expected, const char *format, ...)
{
    char command[2048], line[512];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command - 8, format, list);
    va_end(list);
    strcat(command, " 2>&1");
    FILE *pipe = popen(command, "r");
    if (!pipe)
        return -1;
    char said[8192] = "";
    size_t used = 0;
    while (fgets(line, sizeof line, pipe))
        if (used + strlen(line) < sizeof said) {
            strcpy(said + used, line);
            used += strlen(line);
        }
    int status = pclose(pipe);
    status = WIFEXITED(status) ? WEXITSTATUS(status) : 255;
    if (expected >= 0 && status != expected)
        fprintf(stderr, "%s\nended with %d:\n%s", command, status, said);
    return status;
}

/* 0: clean; 3: leaked clusters only; else broken. */
static inline int qemu_img_check(const char *path, int expected)
{
    return shell(expected, "qemu-img check -f qcow2 '%s'", path);
}

#endif
