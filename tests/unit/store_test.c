/* The store: images and instances, what is refused, and a crash at each step of each change. */
#include "host/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "host/image_private.h"
#include "host/store_private.h"

static char root[] = "/tmp/veneer-store-XXXXXX";

static struct store *open_store(void)
{
    struct store *store = NULL;
    struct error error = {""};
    CHECK_EQ(store_open(root, &store, &error), 0);
    CHECK_STR(error.text, "");
    return store;
}

static struct store_image describe(const char *name, const char *digest)
{
    struct store_image image = {.os = "debian", .suite = "bookworm", .created = 5, .size = 1 << 20};
    snprintf(image.name, sizeof image.name, "%s", name);
    snprintf(image.digest, sizeof image.digest, "%s", digest);
    return image;
}

static int add_image(struct store *store, const char *name, const char *digest, struct error *error)
{
    struct store_draft draft;
    struct store_image image = describe(name, digest);
    int r = store_draft_new(store, &draft, error);
    if (r < 0)
        return r;
    CHECK_EQ(ftruncate(draft.fd, 1 << 20), 0);
    return store_draft_commit(store, &draft, &image, error);
}

/* Files below a folder of the store. */
static int count_files(const char *folder)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, folder);
    DIR *dir = opendir(path);
    int count = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return count;
}

static int count_image(void *owner, const struct store_image *image)
{
    CHECK_EQ(image->size, 1 << 20);
    ++*(int *)owner;
    return 0;
}

static int count_instance(void *owner, const struct store_instance *instance)
{
    CHECK_EQ(access(instance->path, R_OK), 0);
    ++*(int *)owner;
    return 0;
}

static void names(void)
{
    char longest[STORE_NAME_MAX + 2];
    memset(longest, 'a', sizeof longest);
    longest[STORE_NAME_MAX + 1] = 0;
    CHECK(!store_name_valid(longest));
    longest[STORE_NAME_MAX] = 0;
    CHECK(store_name_valid(longest));
    static const char *const bad[] = {"", ".", "..", "a/b", "-a", "a b", "\xc3\xa9", "a\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(!store_name_valid(bad[i]));
    CHECK(store_name_valid("debian-12.5_x"));
}

static void images(void)
{
    struct store *store = open_store();
    struct store_image image;
    struct error error;
    CHECK_EQ(store_image_find(store, "debian", &image, &error), -ENOENT);
    CHECK_EQ(add_image(store, "debian", "one", &error), 0);
    CHECK_EQ(store_image_find(store, "debian", &image, &error), 0);
    CHECK_STR(image.digest, "one");
    CHECK_EQ(access(image.path, F_OK), 0);
    struct stat status;
    CHECK_EQ(stat(image.path, &status), 0);
    CHECK_EQ(status.st_mode & 0777, 0400);
    CHECK_EQ(add_image(store, "debian", "two", &error), 0); /* nobody uses the old one: it goes */
    CHECK_EQ(store_image_find(store, "debian", &image, &error), 0);
    CHECK_STR(image.digest, "two");
    CHECK_EQ(count_files("images"), 1);
    CHECK_EQ(add_image(store, "a/b", "x", &error), -EINVAL);
    CHECK_EQ(count_files("images"), 1);
    int count = 0;
    CHECK_EQ(add_image(store, "other", "three", &error), 0);
    CHECK_EQ(store_image_list(store, count_image, &count, &error), 0);
    CHECK_EQ(count, 2);
    CHECK_EQ(store_image_delete(store, "other", &error), 0);
    CHECK_EQ(store_image_delete(store, "other", &error), -ENOENT);
    CHECK_EQ(count_files("images"), 1);
    store_close(store);
}

static void instances(void)
{
    struct store *store = open_store(), *second = open_store();
    struct store_instance instance, again;
    struct store_image image;
    struct error error;
    CHECK_EQ(store_instance_open(store, "nothing", "demo", false, &instance, &error), -ENOENT);
    CHECK_EQ(store_instance_open(store, NULL, "demo", false, &instance, &error), -ENOENT);
    CHECK_EQ(store_instance_open(store, "debian", "../demo", false, &instance, &error), -EINVAL);
    CHECK_EQ(store_instance_open(store, "debian", "demo", false, &instance, &error), 0);
    CHECK(instance.fresh);
    CHECK_EQ(access(instance.path, F_OK), 0);
    CHECK_EQ(store_instance_open(second, "debian", "demo", false, &again, &error), -EBUSY);
    CHECK_EQ(store_instance_delete(second, "demo", &error), -EBUSY);
    CHECK_EQ(store_image_delete(second, "debian", &error), -EBUSY);
    CHECK(strstr(error.text, "demo") != NULL);
    CHECK_EQ(store_instance_close(store, &instance, &error), 0);
    CHECK_EQ(store_instance_open(second, "debian", "demo", false, &again, &error), 0);
    CHECK(!again.fresh);
    CHECK_EQ(store_instance_close(second, &again, &error), 0);
    /* A new image of that name leaves the instance its own. */
    CHECK_EQ(store_image_find(store, "debian", &image, &error), 0);
    CHECK_EQ(add_image(store, "debian", "new", &error), 0);
    CHECK_EQ(access(image.path, F_OK), 0);
    CHECK_EQ(add_image(store, "other", "x", &error), 0);
    CHECK_EQ(store_instance_delete(store, "demo", &error), 0);
    CHECK_EQ(access(image.path, F_OK), -1);
    CHECK_EQ(store_instance_open(store, "debian", "demo", false, &instance, &error), 0);
    CHECK_EQ(store_instance_close(store, &instance, &error), 0);
    CHECK_EQ(store_instance_open(store, "other", "demo", false, &instance, &error), -EEXIST);
    CHECK_EQ(store_instance_delete(store, "demo", &error), 0);
    CHECK_EQ(store_instance_delete(store, "demo", &error), -ENOENT);
    CHECK_EQ(store_instance_open(store, "debian", "brief", true, &instance, &error), 0);
    CHECK_EQ(count_files("instances"), 1);
    CHECK_EQ(store_instance_close(store, &instance, &error), 0);
    CHECK_EQ(count_files("instances"), 0);
    CHECK_EQ(store_image_delete(store, "other", &error), 0);
    store_close(store);
    store_close(second);
}

static unsigned steps_left;

static void count_down(void)
{
    if (steps_left-- == 0)
        _exit(42);
}

/* The changes that are crashed in; each from a store with the image "debian" and the instance "kept". */
static void change_add(struct store *store)
{
    if (add_image(store, "new", "n", NULL) < 0)
        _exit(1);
}

static void change_replace(struct store *store)
{
    if (add_image(store, "debian", "replaced", NULL) < 0)
        _exit(1);
}

static void change_delete(struct store *store)
{
    if (store_image_delete(store, "spare", NULL) < 0)
        _exit(1);
}

static void change_open(struct store *store)
{
    struct store_instance instance;
    if (store_instance_open(store, "debian", "made", false, &instance, NULL) < 0)
        _exit(1);
}

static void change_brief(struct store *store)
{
    struct store_instance instance;
    if (store_instance_open(store, "debian", "brief", true, &instance, NULL) < 0 ||
        store_instance_close(store, &instance, NULL) < 0)
        _exit(1);
}

static void change_remove(struct store *store)
{
    if (store_instance_delete(store, "kept", NULL) < 0)
        _exit(1);
}

/* After a crash the store is the old or the new one, and one further change leaves no file too many. */
static void check_store(void)
{
    struct store *store = open_store();
    struct store_image image;
    struct store_instance instance;
    struct error error = {""};
    int image_count = 0, instance_count = 0;
    CHECK_EQ(store_image_find(store, "debian", &image, &error), 0);
    CHECK(strcmp(image.digest, "old") == 0 || strcmp(image.digest, "replaced") == 0);
    CHECK_EQ(add_image(store, "sweeper", "s", &error), 0);
    CHECK_EQ(store_image_delete(store, "sweeper", &error), 0);
    CHECK_EQ(store_image_list(store, count_image, &image_count, &error), 0);
    CHECK_EQ(store_instance_list(store, count_instance, &instance_count, &error), 0);
    CHECK_EQ(count_files("instances"), instance_count);
    bool kept = store_instance_open(store, NULL, "kept", false, &instance, &error) == 0;
    bool hidden = kept && !instance.image[0]; /* its image was replaced and has no name now */
    CHECK_EQ(count_files("images"), image_count + hidden);
    if (kept)
        CHECK_EQ(store_instance_close(store, &instance, &error), 0);
    CHECK_EQ(store_instance_open(store, NULL, "brief", false, &instance, &error), -ENOENT);
    store_close(store);
}

static void clean(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    CHECK_EQ(system(command), 0);
}

static void crashes(void)
{
    static void (*const changes[])(struct store *) = {change_add, change_replace, change_delete, change_open, change_brief, change_remove};
    unsigned crashed = 0;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        int status = 42;
        for (unsigned step = 0; status == 42 && step < 50; step++) {
            struct error error = {""};
            struct store_instance instance;
            clean();
            struct store *store = open_store();
            CHECK_EQ(add_image(store, "debian", "old", &error), 0);
            CHECK_EQ(add_image(store, "spare", "spare", &error), 0);
            CHECK_EQ(store_instance_open(store, "debian", "kept", false, &instance, &error), 0);
            CHECK_EQ(store_instance_close(store, &instance, &error), 0);
            store_close(store);
            fflush(NULL);
            pid_t child = fork();
            if (child == 0) {
                store = open_store();
                steps_left = step;
                store_step = count_down;
                changes[i](store);
                _exit(0);
            }
            CHECK_EQ(waitpid(child, &status, 0), child);
            status = WIFEXITED(status) ? WEXITSTATUS(status) : 99;
            crashed += status == 42;
            check_store();
        }
        CHECK_EQ(status, 0);
    }
    CHECK(crashed >= 15);
}

static void later_store(void)
{
    struct store *store = open_store(), *refused = NULL;
    struct error error;
    CHECK_EQ(store_sql(store, &error, NULL, NULL, "PRAGMA user_version = 99", ""), 0);
    store_close(store);
    CHECK_EQ(store_open(root, &refused, &error), -EPROTO);
}

/* Of a file with the text at its end, behind a hole of `hole` bytes. */
static void check_digest(const char *text, off_t hole, const char *want)
{
    char path[64], digest[IMAGE_DIGEST_TEXT] = "";
    struct error error = {""};
    snprintf(path, sizeof path, "%s/digest", root);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK_EQ(pwrite(fd, text, strlen(text), hole), strlen(text));
    CHECK_EQ(image_digest(fd, (uint64_t)hole + strlen(text), NULL, digest, &error), 0);
    CHECK_STR(digest, want);
    close(fd);
    unlink(path);
}

static void digests(void)
{
    /* FIPS 180-4's examples. */
    check_digest("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_digest("abc", 0, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 0,
                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    /* (head -c 3145728 /dev/zero; printf abc) | sha256sum */
    check_digest("abc", 3 << 20, "22c2e759be690681fe4e5b9156b44a6aabd51011c9668725c57a4aeaee28e865");
}

int main(void)
{
    CHECK(mkdtemp(root) != NULL);
    names();
    digests();
    images();
    instances();
    crashes();
    later_store();
    clean();
    CHECK_DONE();
}
