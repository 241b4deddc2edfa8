#include "host/registry.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* RUNTIME/NAME/vsock.sock_4294967295 is the longest path that an entry needs. */
#define LONGEST_FILE "/vsock.sock_4294967295"

struct registry_entry {
    char name[REGISTRY_NAME_MAX + 1];
    char folder[REGISTRY_PATH_MAX];
    int lock;
};

int registry_check_name(const char *name, struct error *error)
{
    static const char form[] = "give letters, digits, '.', '_' and '-', the first a letter or digit, at most 63";
    size_t length = strlen(name);
    if (!length || length > REGISTRY_NAME_MAX || !isalnum((unsigned char)name[0]))
        return error_set(error, EINVAL, "is no name for a machine; %s", form);
    for (size_t i = 0; i < length; i++)
        if (!isascii(name[i]) || (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i])))
            return error_set(error, EINVAL, "is no name for a machine; %s", form);
    return 0;
}

static int runtime_path(char *ret_path, size_t size, struct error *error)
{
    const char *own = getenv("VENEER_RUNTIME"), *xdg = getenv("XDG_RUNTIME_DIR");
    int length;
    if (own && own[0])
        length = snprintf(ret_path, size, "%s", own);
    else if (geteuid() == 0)
        length = snprintf(ret_path, size, "/run/veneer");
    else if (xdg && xdg[0] == '/')
        length = snprintf(ret_path, size, "%s/veneer", xdg);
    else
        length = snprintf(ret_path, size, "/tmp/veneer-%u", (unsigned)geteuid());
    if (length < 0 || (size_t)length >= size)
        return error_set(error, ENAMETOOLONG, "the folder for running machines has a path too long for sockets in it");
    return 0;
}

/* Opens RUNTIME, which must be a folder of this user's that nobody else may write to, and locks it. */
static int open_runtime(char *ret_path, size_t size, int *ret_fd, struct error *error)
{
    int r = runtime_path(ret_path, size, error);
    if (r < 0)
        return r;
    if (mkdir(ret_path, 0700) < 0 && errno != EEXIST)
        return error_set(error, errno, "making '%s' for running machines: %s", ret_path, strerror(errno));
    int fd = open(ret_path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0) {
        r = error_set(error, errno, "opening '%s', the folder of running machines: %s", ret_path, strerror(errno));
    } else if (info.st_uid != geteuid() || (info.st_mode & 022)) {
        r = error_set(error, EPERM, "'%s', the folder of running machines, is not this user's alone", ret_path);
    } else {
        while ((r = flock(fd, LOCK_EX)) < 0 && errno == EINTR)
            ;
        if (r < 0)
            r = error_set(error, errno, "locking '%s': %s", ret_path, strerror(errno));
    }
    if (r < 0 && fd >= 0)
        close(fd);
    if (r == 0)
        *ret_fd = fd;
    return r;
}

/* Opens an entry's lock. Returns a descriptor that holds the lock: nobody runs; -EBUSY: somebody does; or -errno. */
static int take_lock(int runtime, const char *name, int flags)
{
    char path[NAME_MAX + 8];
    snprintf(path, sizeof path, "%s/lock", name);
    int fd = openat(runtime, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    int code = errno;
    close(fd);
    return code == EWOULDBLOCK ? -EBUSY : -code;
}

/* Removes an entry's files, which are all plain, and its folder. */
static void clear(int runtime, const char *name)
{
    int fd = openat(runtime, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));)
        unlinkat(fd, entry->d_name, 0);
    closedir(dir);
    unlinkat(runtime, name, AT_REMOVEDIR);
}

static int claim(int runtime, const char *name)
{
    int fd = take_lock(runtime, name, 0);
    if (fd == -EBUSY)
        return -EEXIST;
    if (fd >= 0) { /* a leftover */
        clear(runtime, name);
        close(fd);
    }
    if (mkdirat(runtime, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    return take_lock(runtime, name, O_CREAT);
}

/* As open_runtime, for a machine whose name a user gave. */
static int open_runtime_for(const char *name, char *ret_path, size_t size, int *ret_runtime, struct error *error)
{
    struct error reason;
    int r = registry_check_name(name, &reason);
    if (r < 0)
        return error_set(error, -r, "'%s' %s", name, reason.text);
    return open_runtime(ret_path, size, ret_runtime, error);
}

int registry_claim(const char *name, struct registry_entry **ret_entry, struct error *error)
{
    char path[REGISTRY_PATH_MAX];
    int runtime;
    int r = open_runtime_for(name, path, sizeof path, &runtime, error);
    if (r < 0)
        return r;
    struct registry_entry *entry = calloc(1, sizeof *entry);
    if (!entry) {
        r = error_set(error, ENOMEM, "no memory for a machine's entry");
    } else if (strlen(path) + 1 + strlen(name) + strlen(LONGEST_FILE) >= sizeof entry->folder) {
        r = error_set(error, ENAMETOOLONG, "'%s/%s' is too long for the paths of sockets in it", path, name);
    } else {
        r = entry->lock = claim(runtime, name);
        if (r == -EEXIST)
            error_set(error, EEXIST, "a machine '%s' runs already", name);
        else if (r < 0)
            error_set(error, -r, "making '%s/%s': %s", path, name, strerror(-r));
    }
    close(runtime);
    if (r < 0) {
        free(entry);
        return r;
    }
    snprintf(entry->name, sizeof entry->name, "%s", name);
    size_t used = strlen(path);
    memcpy(entry->folder, path, used);
    snprintf(entry->folder + used, sizeof entry->folder - used, "/%s", name);
    *ret_entry = entry;
    return 0;
}

void registry_release(struct registry_entry *entry)
{
    char path[REGISTRY_PATH_MAX];
    int runtime;
    if (!entry)
        return;
    if (open_runtime(path, sizeof path, &runtime, NULL) == 0) {
        clear(runtime, entry->name);
        close(runtime);
    }
    registry_hand_over(entry);
}

void registry_hand_over(struct registry_entry *entry)
{
    if (!entry)
        return;
    close(entry->lock);
    free(entry);
}

const char *registry_name(const struct registry_entry *entry)
{
    return entry->name;
}

void registry_file(const struct registry_entry *entry, const char *file, char ret_path[REGISTRY_PATH_MAX])
{
    size_t used = strlen(entry->folder);
    memcpy(ret_path, entry->folder, used);
    snprintf(ret_path + used, REGISTRY_PATH_MAX - used, "/%s", file);
}

/* Whether an entry's process lives; a leftover is cleared. */
static bool is_running(int runtime, const char *name)
{
    int fd = take_lock(runtime, name, 0);
    if (fd >= 0) {
        clear(runtime, name);
        close(fd);
    }
    return fd == -EBUSY;
}

int registry_find(const char *name, const char *file, char ret_path[REGISTRY_PATH_MAX], struct error *error)
{
    char path[REGISTRY_PATH_MAX];
    int runtime;
    int r = open_runtime_for(name, path, sizeof path, &runtime, error);
    if (r < 0)
        return r;
    bool running = is_running(runtime, name);
    close(runtime);
    if (!running)
        return error_set(error, ENOENT, "no machine '%s' is running; 'veneer list' shows those that are", name);
    size_t used = strlen(path);
    memcpy(ret_path, path, used);
    if (snprintf(ret_path + used, REGISTRY_PATH_MAX - used, "/%s/%s", name, file) >= (int)(REGISTRY_PATH_MAX - used))
        return error_set(error, ENAMETOOLONG, "the path of '%s' of machine '%s' is too long", file, name);
    return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_entry(const struct dirent *entry)
{
    return registry_check_name(entry->d_name, NULL) == 0;
}

int registry_each(int (*visit)(void *owner, const char *name), void *owner, struct error *error)
{
    char path[REGISTRY_PATH_MAX];
    int runtime;
    int r = open_runtime(path, sizeof path, &runtime, error);
    if (r < 0)
        return r;
    struct dirent **names = NULL;
    int count = scandirat(runtime, ".", &names, is_entry, by_name);
    if (count < 0)
        r = error_set(error, errno, "reading '%s': %s", path, strerror(errno));
    for (int i = 0; i < count; i++)
        if (!is_running(runtime, names[i]->d_name))
            names[i]->d_name[0] = '\0';
    close(runtime); /* a visit may take long */
    for (int i = 0; i < count; i++) {
        if (r == 0 && names[i]->d_name[0])
            r = visit(owner, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return r;
}
