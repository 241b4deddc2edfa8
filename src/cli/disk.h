/* disk.h - the value of --disk: FILE[,OPTION...]. */
#ifndef VENEER_CLI_DISK_H
#define VENEER_CLI_DISK_H

#include "base/error.h"
#include "machine/machine.h"

#define DISK_FORM "FILE[,ro][,direct][,format=raw|qcow2][,iops=N][,bps=SIZE][,serial=TEXT][,queues=N]"

/* Fills *ret_disk from the text; a comma in the file's name is written twice. The id is left NULL. On a bad value returns a
 * negative errno with a reason for option.h. The strings live until disk_free. */
int disk_parse(const char *text, struct machine_disk *ret_disk, struct error *error);
void disk_free(struct machine_disk *disk);

#endif
