#include "account.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 8192 /* a longer line, such as a group of thousands, is read in pieces and its tail ignored */
#define FIELDS 7

/* Splits a line at its colons. Returns the number of fields; the rest are "". */
static unsigned split(char *line, char *field[FIELDS])
{
    static char empty[1];
    unsigned count = 0;
    line[strcspn(line, "\n")] = '\0';
    for (unsigned i = 0; i < FIELDS; i++)
        field[i] = empty;
    for (char *at = line; at && count < FIELDS; count++)
        field[count] = strsep(&at, ":");
    return count;
}

/* A whole decimal number that an ID may be; -1 is "no change" to the kernel and never one. */
static bool number(const char *text, unsigned *ret_number)
{
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || value >= UINT_MAX)
        return false;
    *ret_number = (unsigned)value;
    return true;
}

static bool is_member(char *members, const char *name)
{
    for (char *at = members, *member; (member = strsep(&at, ",")) != NULL;)
        if (strcmp(member, name) == 0)
            return true;
    return false;
}

/* Finds the line whose name or ID this is. The account keeps its number where no line has it. */
static bool find_user(const char *name, bool by_number, unsigned uid, struct account *account)
{
    char line[LINE_MAX_BYTES], *field[FIELDS];
    bool found = false;
    FILE *file = fopen("/etc/passwd", "re");
    while (!found && file && fgets(line, sizeof line, file)) {
        unsigned this_uid, gid;
        if (split(line, field) < 6 || !number(field[2], &this_uid) || !number(field[3], &gid))
            continue;
        found = by_number ? this_uid == uid : strcmp(field[0], name) == 0;
        if (!found)
            continue;
        account->uid = this_uid;
        account->gid = gid;
        snprintf(account->name, sizeof account->name, "%s", field[0]);
        if (field[5][0] == '/')
            snprintf(account->home, sizeof account->home, "%s", field[5]);
        if (field[6][0])
            snprintf(account->shell, sizeof account->shell, "%s", field[6]);
    }
    if (file)
        fclose(file);
    return found;
}

static void find_groups(struct account *account)
{
    char line[LINE_MAX_BYTES], *field[FIELDS];
    account->groups[account->group_count++] = account->gid;
    FILE *file = fopen("/etc/group", "re");
    while (file && account->group_count < ACCOUNT_GROUPS_MAX && fgets(line, sizeof line, file)) {
        unsigned gid;
        if (split(line, field) >= 4 && number(field[2], &gid) && gid != account->gid && is_member(field[3], account->name))
            account->groups[account->group_count++] = gid;
    }
    if (file)
        fclose(file);
}

static bool find_group(const char *name, gid_t *ret_gid)
{
    char line[LINE_MAX_BYTES], *field[FIELDS];
    unsigned gid = 0;
    if (number(name, &gid)) {
        *ret_gid = gid;
        return true;
    }
    bool found = false;
    FILE *file = fopen("/etc/group", "re");
    while (!found && file && fgets(line, sizeof line, file))
        found = split(line, field) >= 3 && strcmp(field[0], name) == 0 && number(field[2], &gid);
    if (file)
        fclose(file);
    if (found)
        *ret_gid = gid;
    return found;
}

int account_find(const char *user, struct account *ret_account, char *ret_why, size_t why_size)
{
    struct account account = {.uid = getuid(), .gid = getgid(), .home = "/", .shell = "/bin/sh"};
    char name[sizeof account.name];
    const char *colon = strchr(user, ':');
    size_t length = colon ? (size_t)(colon - user) : strlen(user);
    if (length >= sizeof name) {
        snprintf(ret_why, why_size, "the user's name is too long");
        return -ENOENT;
    }
    memcpy(name, user, length);
    name[length] = '\0';
    unsigned uid = getuid();
    bool by_number = length == 0 || number(name, &uid);
    if (by_number) {
        account.uid = uid;
        snprintf(account.name, sizeof account.name, "%u", uid);
        if (length)
            account.gid = uid; /* as private groups are; the line, if there is one, says better */
    }
    if (!find_user(name, by_number, uid, &account) && !by_number) {
        snprintf(ret_why, why_size, "there is no user '%s'", name);
        return -ENOENT;
    }
    if (colon && !find_group(colon + 1, &account.gid)) {
        snprintf(ret_why, why_size, "there is no group '%s'", colon + 1);
        return -ENOENT;
    }
    find_groups(&account);
    *ret_account = account;
    return 0;
}
