/* services.h - the options of `veneer run` for what is between guest and host: sockets, balloon, console. */
#ifndef VENEER_CLI_SERVICES_H
#define VENEER_CLI_SERVICES_H

#include "machine/machine.h"

#define SERVICES_PATH 97u /* the longest path of --vsock, with its end */

/* Parse functions as in option.h: a value into the config, or a negative errno and the reason with the accepted form. */
/* PATH[,cid=N]; the path goes to `path`, which the config then points to. */
int vsock_parse(const char *value, char path[SERVICES_PATH], struct machine_config *config, struct error *error);
/* SIZE or off. */
int balloon_parse(const char *value, struct machine_config *config, struct error *error);

/* serial or virtio. */
int console_device_parse(const char *value, struct machine_config *config, struct error *error);
/* NAME=PATH, up to 15 times; what the config points to lives as long as the program. */
int port_parse(const char *value, struct machine_config *config, struct error *error);

#endif
