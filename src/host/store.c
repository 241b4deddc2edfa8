#include "host/store.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/store_private.h"

#define SCHEMA_VERSION 1
#define BUSY_MS 30000

/* An image whose name is NULL was replaced and lives on for its instances. */
static const char schema[] =
    "CREATE TABLE image (id INTEGER PRIMARY KEY, name TEXT UNIQUE, os TEXT NOT NULL, suite TEXT NOT NULL,"
    " created INTEGER NOT NULL, size INTEGER NOT NULL, digest TEXT NOT NULL, kernel TEXT NOT NULL,"
    " initrd TEXT NOT NULL, cmdline TEXT NOT NULL, file TEXT NOT NULL UNIQUE);"
    "CREATE TABLE instance (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
    " image INTEGER NOT NULL REFERENCES image (id) ON DELETE RESTRICT, created INTEGER NOT NULL,"
    " temporary INTEGER NOT NULL);"
    "CREATE INDEX instance_image ON instance (image);"
    "PRAGMA user_version = 1;";

void (*store_step)(void);

bool store_name_valid(const char *name)
{
    size_t length = strlen(name);
    if (!isalnum((unsigned char)name[0]) || length > STORE_NAME_MAX)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i]))
            return false;
    return true;
}

int store_name_check(const char *name, const char *what, struct error *error)
{
    if (store_name_valid(name))
        return 0;
    return error_set(error, EINVAL, "'%s' is no name for an %s; give %s", name, what, STORE_NAME_FORM);
}

static int sql_error(struct store *store, int code, struct error *error)
{
    int r = EIO;
    switch (code & 0xff) {
    case SQLITE_CONSTRAINT: r = EEXIST; break;
    case SQLITE_BUSY: r = EBUSY; break;
    case SQLITE_FULL: r = ENOSPC; break;
    case SQLITE_NOMEM: r = ENOMEM; break;
    case SQLITE_READONLY: r = EROFS; break;
    default: break;
    }
    return error_set(error, r, "the store's database %s/veneer.db: %s", store->root, sqlite3_errmsg(store->db));
}

int store_sql(struct store *store, struct error *error, int (*row)(void *owner, sqlite3_stmt *statement), void *owner,
              const char *sql, const char *values, ...)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL), r = 0;
    va_list list;
    va_start(list, values);
    for (int i = 1; values[i - 1] && code == SQLITE_OK; i++)
        code = values[i - 1] == 'i' ? sqlite3_bind_int64(statement, i, va_arg(list, int64_t))
                                    : sqlite3_bind_text(statement, i, va_arg(list, const char *), -1, SQLITE_STATIC);
    va_end(list);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(statement);
        if (code == SQLITE_ROW && row && (r = row(owner, statement)) != 0)
            break;
    }
    if (r == 0 && code != SQLITE_DONE)
        r = sql_error(store, code, error);
    sqlite3_finalize(statement);
    return r;
}

void store_text(sqlite3_stmt *statement, int column, char *ret_text, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    snprintf(ret_text, size, "%s", text ? text : "");
}

int store_lock_take(int fd)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &all) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

bool store_lock_held(int fd)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &all) < 0 || all.l_type != F_UNLCK;
}

void store_remove_instance_files(struct store *store, const char *name)
{
    int fd = openat(store->instances_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    DIR *folder = fdopendir(fd);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        unlinkat(fd, entry->d_name, 0);
    if (folder)
        closedir(folder);
    else
        close(fd);
    unlinkat(store->instances_fd, name, AT_REMOVEDIR);
}

/* A row count; for questions of yes or no. */
static int count_row(void *owner, sqlite3_stmt *statement)
{
    *(int64_t *)owner = sqlite3_column_int64(statement, 0);
    return 0;
}

static bool known(struct store *store, const char *sql, const char *name)
{
    int64_t count = 1; /* when the question fails, nothing is removed */
    return store_sql(store, NULL, count_row, &count, sql, "s", name) < 0 || count > 0;
}

/* Files of images that the database does not know and that no draft's maker holds. */
static void sweep_images(struct store *store)
{
    int fd = openat(store->images_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.' || known(store, "SELECT count(*) FROM image WHERE file = ?", entry->d_name))
            continue;
        int file = openat(fd, entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (file >= 0 && !store_lock_held(file))
            unlinkat(fd, entry->d_name, 0);
        if (file >= 0)
            close(file);
    }
    if (folder)
        closedir(folder);
}

static void sweep_instances(struct store *store)
{
    int fd = openat(store->instances_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_name[0] != '.' && !known(store, "SELECT count(*) FROM instance WHERE name = ?", entry->d_name))
            store_remove_instance_files(store, entry->d_name);
    if (folder)
        closedir(folder);
}

/* A temporary instance whose run is over, though not by its own doing. */
static int sweep_temporary(void *owner, sqlite3_stmt *statement)
{
    struct store *store = owner;
    char path[STORE_NAME_MAX + 8], name[STORE_NAME_MAX + 1];
    store_text(statement, 0, name, sizeof name);
    snprintf(path, sizeof path, "%s/lock", name);
    int fd = openat(store->instances_fd, path, O_RDWR | O_CLOEXEC);
    bool over = fd < 0 ? errno == ENOENT : !store_lock_held(fd);
    if (fd >= 0)
        close(fd);
    if (over)
        store_sql(store, NULL, NULL, NULL, "DELETE FROM instance WHERE name = ?", "s", name);
    return 0;
}

/* Rows that nothing needs any more; within a transaction. */
static int sweep_rows(struct store *store, struct error *error)
{
    int r = store_sql(store, error, sweep_temporary, store, "SELECT name FROM instance WHERE temporary", "");
    return r < 0 ? r
                 : store_sql(store, error, NULL, NULL,
                             "DELETE FROM image WHERE name IS NULL AND id NOT IN (SELECT image FROM instance)", "");
}

int store_begin(struct store *store, struct error *error)
{
    while (flock(store->lock_fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return error_set(error, errno, "locking the store %s: %s", store->root, strerror(errno));
    int r = store_sql(store, error, NULL, NULL, "BEGIN IMMEDIATE", "");
    if (r == 0) {
        sweep_images(store);
        sweep_instances(store);
    } else {
        flock(store->lock_fd, LOCK_UN);
    }
    return r;
}

int store_end(struct store *store, int status, struct error *error)
{
    int r = status;
    if (r == 0)
        r = sweep_rows(store, error);
    if (r == 0 && store_step)
        store_step();
    if (r == 0)
        r = store_sql(store, error, NULL, NULL, "COMMIT", "");
    if (r == 0 && store_step)
        store_step();
    if (r < 0 && !sqlite3_get_autocommit(store->db))
        store_sql(store, NULL, NULL, NULL, "ROLLBACK", "");
    /* After the transaction, so that what it did is what counts. */
    sweep_images(store);
    sweep_instances(store);
    flock(store->lock_fd, LOCK_UN);
    return r;
}

/* Makes the tables, or finds them; refuses a store that a later veneer made. */
static int open_schema(struct store *store, struct error *error)
{
    int64_t version = 0;
    int r = store_sql(store, error, count_row, &version, "PRAGMA user_version", "");
    if (r == 0 && version > SCHEMA_VERSION)
        return error_set(error, EPROTO, "the store %s was made by a later veneer (version %d, this one knows %d)",
                         store->root, (int)version, SCHEMA_VERSION);
    if (r < 0 || version == SCHEMA_VERSION)
        return r;
    r = store_sql(store, error, NULL, NULL, "BEGIN IMMEDIATE", "");
    if (r == 0)
        r = store_sql(store, error, count_row, &version, "PRAGMA user_version", ""); /* another may have been first */
    if (r == 0 && version == 0 && sqlite3_exec(store->db, schema, NULL, NULL, NULL) != SQLITE_OK)
        r = sql_error(store, sqlite3_errcode(store->db), error);
    if (r == 0)
        r = store_sql(store, error, NULL, NULL, "COMMIT", "");
    return r;
}

static int open_database(struct store *store, struct error *error)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/veneer.db", store->root);
    int code = sqlite3_open_v2(path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (!store->db)
        return error_set(error, ENOMEM, "no memory for the store's database");
    if (code != SQLITE_OK)
        return sql_error(store, code, error);
    sqlite3_busy_timeout(store->db, BUSY_MS);
    int r = store_sql(store, error, NULL, NULL, "PRAGMA foreign_keys = ON", "");
    return r < 0 ? r : open_schema(store, error);
}

/* mkdir -p with mode 0700. */
static int make_folders(char *path, struct error *error)
{
    for (char *slash = path + 1;; slash++) {
        slash = strchrnul(slash, '/');
        char was = *slash;
        *slash = 0;
        int r = mkdir(path, 0700) < 0 && errno != EEXIST ? errno : 0;
        if (r)
            return error_set(error, r, "making the store's folder %s: %s", path, strerror(r));
        *slash = was;
        if (!was)
            return 0;
    }
}

static int default_root(char *ret_path, size_t size, struct error *error)
{
    const char *store = getenv("VENEER_STORE"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (!home || home[0] != '/') {
        struct passwd *user = getpwuid(getuid());
        home = user ? user->pw_dir : NULL;
    }
    int length;
    if (store && store[0] == '/')
        length = snprintf(ret_path, size, "%s", store);
    else if (geteuid() == 0)
        length = snprintf(ret_path, size, "/var/lib/veneer");
    else if (data && data[0] == '/')
        length = snprintf(ret_path, size, "%s/veneer", data);
    else if (home)
        length = snprintf(ret_path, size, "%s/.local/share/veneer", home);
    else
        return error_set(error, ENOENT, "there is no home folder for the store; set XDG_DATA_HOME");
    return (size_t)length < size ? 0 : error_set(error, ENAMETOOLONG, "the store's path is too long");
}

static int open_folder(struct store *store, const char *name, int *ret_fd, struct error *error)
{
    if (mkdirat(store->root_fd, name, 0700) < 0 && errno != EEXIST)
        return error_set(error, errno, "making %s/%s: %s", store->root, name, strerror(errno));
    *ret_fd = openat(store->root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd < 0 ? error_set(error, errno, "opening %s/%s: %s", store->root, name, strerror(errno)) : 0;
}

static int open_files(struct store *store, struct error *error)
{
    int r = make_folders(store->root, error);
    if (r < 0)
        return r;
    store->root_fd = open(store->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->root_fd >= 0)
        store->lock_fd = openat(store->root_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0)
        return error_set(error, errno, "opening the store %s: %s", store->root, strerror(errno));
    r = open_folder(store, "images", &store->images_fd, error);
    if (r == 0)
        r = open_folder(store, "instances", &store->instances_fd, error);
    return r < 0 ? r : open_database(store, error);
}

int store_open(const char *root, struct store **ret_store, struct error *error)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return error_set(error, ENOMEM, "no memory to open the store");
    store->root_fd = store->images_fd = store->instances_fd = store->lock_fd = -1;
    int r = 0;
    if (!root)
        r = default_root(store->root, sizeof store->root, error);
    else if ((size_t)snprintf(store->root, sizeof store->root, "%s", root) >= sizeof store->root)
        r = error_set(error, ENAMETOOLONG, "the store's path is too long");
    if (r == 0)
        r = open_files(store, error);
    if (r == 0)
        *ret_store = store;
    else
        store_close(store);
    return r;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    sqlite3_close(store->db);
    int fds[] = {store->images_fd, store->instances_fd, store->lock_fd, store->root_fd};
    for (unsigned i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(store);
}
