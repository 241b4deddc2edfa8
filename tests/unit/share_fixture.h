/* share_fixture.h - a folder of the host, the server that shares it and its client, for tests of the server. */
#ifndef VENEER_TESTS_UNIT_SHARE_FIXTURE_H
#define VENEER_TESTS_UNIT_SHARE_FIXTURE_H

#include <pthread.h>

#include "check.h"
#include "share_client.h"

static char folder[] = "/tmp/veneer-share-XXXXXX"; /* holds the shared folder "in", and "out" beside it */
static char inside[64], outside[64];
static struct client client;

static inline const char *in_path(const char *name)
{
    static char paths[2][512]; /* of the last two calls */
    static unsigned turn;
    char *path = paths[turn++ % 2];
    snprintf(path, sizeof paths[0], "%s/%s", inside, name);
    return path;
}

static inline void open_share(bool read_only, unsigned descriptors, unsigned inodes)
{
    struct share_config config = {.folder = inside, .read_only = read_only, .descriptors = descriptors, .inodes = inodes};
    struct error error;
    struct share *share;
    if (share_open(&config, &share, &error) < 0 || share_thread_enter(share, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        exit(1);
    }
    client_init(&client, share);
    client.uid = geteuid();
    client.gid = getegid();
    CHECK_EQ(client_start(&client), 0);
}

static inline void close_share(void)
{
    share_close(client.share);
    client_free(&client);
}

/* A thread that serves gives up capabilities for good, so each test is one. */
static inline void *share_run_one(void *test)
{
    ((void (*)(void))(uintptr_t)test)();
    return NULL;
}

/* Runs the tests in a folder of their own; returns the program's status. */
static inline int share_run(void (*const *tests)(void), size_t count)
{
    client_make_folder(folder);
    snprintf(inside, sizeof inside, "%s/in", folder);
    snprintf(outside, sizeof outside, "%s/out", folder);
    mkdir(inside, 0755);
    mkdir(outside, 0755);
    for (size_t i = 0; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, share_run_one, (void *)(uintptr_t)tests[i]) != 0 || pthread_join(thread, NULL) != 0)
            return 1;
    }
    client_remove_tree(folder);
    CHECK_DONE();
}

#endif
