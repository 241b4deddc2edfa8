/* attach.h - disks and shares of a running machine, through its control socket. */
#ifndef VENEER_CLI_ATTACH_H
#define VENEER_CLI_ATTACH_H

#include <stdint.h>

#include "base/error.h"

#define ATTACH_TIMEOUT_SECONDS 30u
#define ATTACH_TIMEOUT_HELP "how long the guest may take to let go of it (default: 30)"

/* Each returns 0 or a negative errno with a sentence. `machine` is its name. */

/* The value of detach's option --timeout. */
int attach_parse_timeout(const char *value, unsigned *ret_seconds, struct error *error);

/* value: as for run's --disk. id: the disk's name, or NULL. Prints the name that it got. */
int attach_disk(const char *machine, const char *value, const char *id, struct error *error);
/* Waits until the guest has let go of it, at most so many seconds. */
int detach_disk(const char *machine, const char *id, unsigned seconds, struct error *error);
/* Sets the size of a disk that the machine has, in bytes, and tells the guest. */
int resize_attached_disk(const char *machine, const char *id, uint64_t size, struct error *error);
/* value: as for run's --share. */
int attach_share(const char *machine, const char *value, struct error *error);
int detach_share(const char *machine, const char *tag, unsigned seconds, struct error *error);

#endif
