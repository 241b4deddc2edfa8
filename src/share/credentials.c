/* credentials.c - whose files are made, and what a serving thread may do.
 *
 * Where this process is root with the capabilities below, a new file belongs to the guest's user that made it: the thread takes
 * that user's ID for the file system (fsuid, fsgid), which is a thread's own. Its capabilities stay as they are then
 * (SECBIT_NO_SETUID_FIXUP), since the guest's kernel has decided already who may do what, with groups that only it knows. Elsewhere
 * all files are made as this process's user.
 *
 * A serving thread drops every other capability for good. Without CAP_MKNOD it can make no device; without
 * CAP_FSETID the host takes set-user-ID bits away from a file that is written. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "share/private.h"

#define BIT(capability) (UINT64_C(1) << (capability))
#define SERVING                                                                                                          \
    (BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_FOWNER) | BIT(CAP_SETUID) | BIT(CAP_SETGID))

/* What this thread's files belong to; starts as the process's. */
static _Thread_local uint32_t current_uid, current_gid;

static int capabilities_get(struct __user_cap_data_struct ret_data[2])
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    memset(ret_data, 0, 2 * sizeof ret_data[0]);
    return syscall(SYS_capget, &header, ret_data) < 0 ? -errno : 0;
}

bool credentials_are_roots(void)
{
    const uint64_t needed = SERVING | BIT(CAP_SETPCAP);
    struct __user_cap_data_struct data[2];
    if (geteuid() != 0 || capabilities_get(data) < 0)
        return false;
    return ((data[0].effective | (uint64_t)data[1].effective << 32) & needed) == needed;
}

/* Keeps only what serving needs, of what there is, in every set of this thread. */
static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    int r = capabilities_get(data);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < 2; i++) {
        data[i].effective &= (uint32_t)(SERVING >> 32 * i);
        data[i].permitted &= (uint32_t)(SERVING >> 32 * i);
        data[i].inheritable = 0;
    }
    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

int share_thread_enter(const struct share *share, struct error *error)
{
    if (unshare(CLONE_FS) < 0)
        return error_set(error, errno, "giving a thread its own umask: %s", strerror(errno));
    umask(0);
    sigset_t quiet; /* a write past RLIMIT_FSIZE is an error here, not a signal */
    sigemptyset(&quiet);
    sigaddset(&quiet, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &quiet, NULL);
    current_uid = geteuid();
    current_gid = getegid();
    /* Of this thread alone, as everything about credentials in the kernel. */
    if (share->as_root && prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0)
        return error_set(error, errno, "keeping capabilities across users: %s", strerror(errno));
    int r = drop_capabilities();
    return r < 0 ? error_set(error, -r, "dropping capabilities: %s", strerror(-r)) : 0;
}

int credentials_assume_group(const struct share *share, uint32_t gid)
{
    if (!share->as_root || gid == current_gid)
        return 0;
    /* Neither call tells whether it worked; asking with an impossible ID does. */
    setfsgid(gid);
    current_gid = (uint32_t)setfsgid((gid_t)-1);
    return current_gid == gid ? 0 : -EPERM;
}

int credentials_assume(const struct share *share, uint32_t uid, uint32_t gid)
{
    int r = credentials_assume_group(share, gid);
    if (r < 0 || !share->as_root || uid == current_uid)
        return r;
    setfsuid(uid);
    current_uid = (uint32_t)setfsuid((uid_t)-1);
    return current_uid == uid ? 0 : -EPERM;
}
