/* account.h - whom a command runs as, from the guest's /etc/passwd and /etc/group.
 *
 * Read from the files themselves: a static program has no name service, so users that live elsewhere (LDAP) are
 * reached by number only. */
#ifndef VENEER_GUEST_AGENT_ACCOUNT_H
#define VENEER_GUEST_AGENT_ACCOUNT_H

#include <stddef.h>
#include <sys/types.h>

#define ACCOUNT_GROUPS_MAX 64

struct account {
    uid_t uid;
    gid_t gid;
    gid_t groups[ACCOUNT_GROUPS_MAX];
    size_t group_count;
    char name[64], home[256], shell[256];
};

/* Finds "NAME", "UID", "NAME:GROUP", "UID:GID" ...; "" is the user the agent runs as. A number need not be in the
 * files: it then has the name of that number, the home "/" and no further groups. Returns 0, or -ENOENT with a sentence. */
int account_find(const char *user, struct account *ret_account, char *ret_why, size_t why_size);

#endif
