/* beside.h - finds what is installed with veneer outside PATH: its helper programs, and what it puts into guests. */
#ifndef VENEER_HOST_BESIDE_H
#define VENEER_HOST_BESIDE_H

#include <stddef.h>

#include "base/error.h"

#define BESIDE_PATH_MAX 4352

/* The path of the readable file `name` ("veneer-agent"): in the folder $VENEER_LIB when that is set, else where a build
 * leaves it next to the running program, else where `make install` puts it. Returns 0 or -ENOENT with a sentence. */
int beside_find(const char *name, char ret_path[BESIDE_PATH_MAX], struct error *error);

#endif
