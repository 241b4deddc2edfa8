/* other.h - a second CPU that does what it is told: for tests in which two meddle with the same thing. */
#ifndef GUEST_OTHER_H
#define GUEST_OTHER_H

#include "kernel.h"

/* Starts CPU 1, if the machine has one. Once; false when there is none. */
bool other_start(void);
bool other_there(void);
/* Runs `what` on it and returns at once. It must not print, check, or take pages or random numbers. */
void other_do(void (*what)(void *context), void *context);
/* Waits until it is done. */
void other_wait(void);

#endif
