/* confine.h - what a process gives up before it looks at bytes that somebody else wrote.
 *
 * What is left: to read and write what is open, to use memory that is no file's and not executable, and to end. */
#ifndef VENEER_BASE_CONFINE_H
#define VENEER_BASE_CONFINE_H

#include <stdint.h>

#define CONFINE_CALLS_MAX 16

struct confine {
    uint64_t address_space, file_size; /* bytes at most; a write beyond file_size fails */
    unsigned cpu_seconds;              /* 0: no limit */
    unsigned files;                    /* the open descriptors are below this; no other can be made */
    const int *calls;                  /* system calls besides, at most CONFINE_CALLS_MAX, ended by -1; or NULL */
};

/* For the whole process, which has one thread. Root becomes nobody. Ends the process when its parent dies. Returns 0, or a
 * negative errno; the process may have given up a part then, and should end. */
int confine(const struct confine *to);

#endif
