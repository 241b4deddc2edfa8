/* store_private.h - what the store's files share: SQL with bound values, and the lock. */
#ifndef VENEER_HOST_STORE_PRIVATE_H
#define VENEER_HOST_STORE_PRIVATE_H

#include <sqlite3.h>
#include <stddef.h>

#include "host/store.h"

struct store {
    char root[PATH_MAX - 256]; /* leaves room for the names below it */
    int root_fd, images_fd, instances_fd;
    int lock_fd;
    sqlite3 *db;
};

/* Called before each step of a change that outlives the process; tests end the process in it. */
extern void (*store_step)(void);

/* Runs one statement. values: one letter for each ? in it: 's' const char * (NULL: SQL's NULL), 'i' int64_t. row is
 * called for each row (may be NULL); other than 0 from it ends the statement and is returned. Returns 0 or a
 * negative errno with a sentence: -EEXIST for a constraint. */
int store_sql(struct store *store, struct error *error, int (*row)(void *owner, sqlite3_stmt *statement), void *owner,
              const char *sql, const char *values, ...);

/* Takes the store's lock, sweeps what crashes left, and opens a transaction; store_end commits when status is 0, else
 * rolls back, releases the lock, and returns status or the commit's failure. Files that a committed change made useless
 * go between: store_end sweeps too. */
int store_begin(struct store *store, struct error *error);
int store_end(struct store *store, int status, struct error *error);

/* Copies a column's text, cut to fit. */
void store_text(sqlite3_stmt *statement, int column, char *ret_text, size_t size);

/* Takes the lock (OFD) of a file that is open for writing, without waiting. Returns 0, -EBUSY, or another negative
 * errno. The lock goes when the last copy of fd is closed. */
int store_lock_take(int fd);
/* True when another opening of the file has its lock, or when that cannot be known. Takes nothing itself. */
bool store_lock_held(int fd);

/* Removes an instance's folder and what it may hold. */
void store_remove_instance_files(struct store *store, const char *name);

#endif
