/* share.h - the value of --share: HOST:TAG[:ro]. */
#ifndef VENEER_CLI_SHARE_H
#define VENEER_CLI_SHARE_H

#include "base/error.h"
#include "machine/machine.h"

#define SHARE_FORM "HOST:TAG[:ro]"

/* Adds a share to the config; its strings live as long as the program. HOST may hold colons. Returns 0 or -EINVAL with the reason
 * and the accepted form. Whether the folder is there is for machine_create to say. */
int share_parse(const char *value, struct machine_config *config, struct error *error);

#endif
