/* The registry: names, claims by two processes, leftovers of a process that died, paths that are too long. */
#include "host/registry.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static char folder[64];

static void test_names(void)
{
    static const char *const good[] = {"a", "9", "web-1", "A.b_c-d", "x23456789012345678901234567890123456789012345678901234567890123"};
    static const char *const bad[] = {"", ".", "..", ".hidden", "-x", "a/b", "a b", "a\n", "\xc3\xa9",
                                      "x234567890123456789012345678901234567890123456789012345678901234"};
    struct error error;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_EQ(registry_check_name(good[i], &error), 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_EQ(registry_check_name(bad[i], &error), -EINVAL);
}

static int count_one(void *owner, const char *name)
{
    strcat(owner, name);
    strcat(owner, " ");
    return 0;
}

static const char *running(void)
{
    static char names[256];
    names[0] = '\0';
    CHECK_EQ(registry_each(count_one, names, NULL), 0);
    return names;
}

static void test_claims(void)
{
    struct registry_entry *b, *a, *again;
    struct error error;
    char path[REGISTRY_PATH_MAX], found[REGISTRY_PATH_MAX];
    CHECK_STR(running(), "");
    CHECK_EQ(registry_claim("b", &b, &error), 0);
    CHECK_EQ(registry_claim("a", &a, &error), 0);
    CHECK_STR(running(), "a b ");
    CHECK_EQ(registry_claim("a", &again, &error), -EEXIST);
    CHECK_STR(error.text, "a machine 'a' runs already");
    registry_file(a, "control.sock", path);
    CHECK_EQ(registry_find("a", "control.sock", found, &error), 0);
    CHECK_STR(found, path);
    struct stat info;
    *strrchr(path, '/') = '\0';
    CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0700);
    registry_release(a);
    CHECK(stat(path, &info) < 0);
    CHECK_EQ(registry_find("a", "x", found, &error), -ENOENT);
    CHECK_STR(running(), "b ");
    registry_release(b);
    CHECK_STR(running(), "");
    registry_release(NULL);
}

/* A process dies with its entry, files in it; the name is free and the folder goes. */
static void test_leftover(void)
{
    struct registry_entry *entry;
    struct error error;
    char path[REGISTRY_PATH_MAX];
    for (unsigned round = 0; round < 3; round++) {
        int ready[2];
        if (pipe(ready) < 0)
            exit(1);
        pid_t pid = fork();
        if (pid == 0) {
            if (registry_claim("dies", &entry, &error) < 0)
                _exit(1);
            registry_file(entry, "file", path);
            fclose(fopen(path, "w"));
            if (write(ready[1], "", 1) == 1)
                pause();
            _exit(1);
        }
        char byte;
        CHECK_EQ(read(ready[0], &byte, 1), 1);
        CHECK_EQ(registry_claim("dies", &entry, &error), -EEXIST);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(ready[0]);
        close(ready[1]);
        if (round == 0) {
            CHECK_EQ(registry_claim("dies", &entry, &error), 0);
            registry_file(entry, "file", path);
            CHECK(access(path, F_OK) < 0); /* nothing of the one before is left */
            registry_release(entry);
        } else if (round == 1) {
            CHECK_STR(running(), "");
        } else {
            CHECK_EQ(registry_find("dies", "file", path, &error), -ENOENT);
        }
        snprintf(path, sizeof path, "%s/dies", folder);
        CHECK(access(path, F_OK) < 0);
    }
}

/* Many processes claim one name at once: one gets it. */
static void test_race(void)
{
    for (unsigned round = 0; round < 5; round++) {
        unsigned got = 0;
        int go[2];
        if (pipe(go) < 0)
            exit(1);
        for (unsigned i = 0; i < 8; i++)
            if (fork() == 0) {
                struct registry_entry *entry;
                int r = registry_claim("race", &entry, NULL);
                char byte;
                close(go[1]);
                if (read(go[0], &byte, 1) != 0) /* holds it until all have tried */
                    _exit(2);
                _exit(r == 0 ? 0 : r == -EEXIST ? 1 : 2);
            }
        usleep(50000); /* not needed for the result: it only makes the race likely */
        close(go[0]);
        close(go[1]);
        for (unsigned i = 0; i < 8; i++) {
            int status = 0;
            wait(&status);
            got += WIFEXITED(status) && WEXITSTATUS(status) == 0;
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        }
        CHECK(got >= 1); /* a late starter may find the first one gone */
    }
}

static void test_folder(void)
{
    struct registry_entry *entry;
    struct error error;
    char deep[200];
    chmod(folder, 0777);
    CHECK_EQ(registry_claim("a", &entry, &error), -EPERM);
    chmod(folder, 0700);
    snprintf(deep, sizeof deep, "%s/%060d", folder, 0);
    setenv("VENEER_RUNTIME", deep, 1);
    CHECK_EQ(registry_claim("a-name-of-some-length", &entry, &error), -ENAMETOOLONG);
    rmdir(deep);
    snprintf(deep, sizeof deep, "%s/none/none", folder);
    setenv("VENEER_RUNTIME", deep, 1);
    CHECK_EQ(registry_claim("a", &entry, &error), -ENOENT);
}

int main(void)
{
    strcpy(folder, "/tmp/veneer-registry-XXXXXX");
    if (!mkdtemp(folder))
        return 1;
    setenv("VENEER_RUNTIME", folder, 1);
    test_names();
    test_claims();
    test_leftover();
    test_race();
    test_folder();
    rmdir(folder);
    CHECK_DONE();
}
