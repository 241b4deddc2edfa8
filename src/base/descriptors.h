/* descriptors.h - how many descriptors this process may have open.
 *
 * The soft limit that a login shell gives (1,024) is for programs that use select(). A machine has a descriptor for each
 * connection of its guest and each file that the guest has open in a share, so its process takes what it may have, and
 * gives the programs that it starts what it was given itself. */
#ifndef VENEER_BASE_DESCRIPTORS_H
#define VENEER_BASE_DESCRIPTORS_H

#define DESCRIPTORS_MAX (1u << 20) /* the kernel's own bound by default; a hard limit may be "unlimited" */

/* Raises the soft limit (RLIMIT_NOFILE) to the hard one, or to DESCRIPTORS_MAX when that is less. More than one call does no
 * more than one. Any thread. It cannot fail: where it is not allowed the limit stays. */
void descriptors_raise(void);
/* Puts back the limit that descriptors_raise found; for a child process between fork and exec. Async-signal-safe. */
void descriptors_restore(void);

#endif
