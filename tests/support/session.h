/* session.h - a machine that a test runs in its own process, and what its guest says on the console.
 *
 * The machine has a thread; the test waits for news of it. With SESSION_VERBOSE in the environment each line of the guest is
 * shown. */
#ifndef VENEER_TESTS_SESSION_H
#define VENEER_TESTS_SESSION_H

#include <pthread.h>
#include <stdbool.h>

#include "machine/machine.h"

struct session {
    /* Told each line of the guest, without its newline, with the lock held. May be NULL. */
    void (*hear)(const char *line);
    const char *const *bad; /* texts that are complaints where a line has them; NULL at the end */
    struct machine *machine;
    pthread_t thread;
    pthread_mutex_t lock; /* of all below, and of what `hear` stores */
    pthread_cond_t news;  /* after each piece of output, and when the machine has ended */
    bool ready;           /* the guest has printed READY */
    _Atomic bool ended;
    enum machine_end end;
    unsigned complaints;
    char line[512];
    size_t used;
};

#define SESSION_INIT(hear_, bad_)                                                                                    \
    {                                                                                                                \
        .hear = (hear_), .bad = (bad_), .lock = PTHREAD_MUTEX_INITIALIZER, .news = PTHREAD_COND_INITIALIZER          \
    }

/* Creates the machine, whose console becomes the session's. Returns 0, or a negative errno after the reason was printed. */
int session_create(struct session *session, struct machine_config *config);
/* Lets the machine run on a thread of its own. */
void session_start(struct session *session);
/* Waits until it has ended; the machine is then the caller's, to save or destroy. */
void session_join(struct session *session);
/* Something that `hear` does not know of has changed: whoever waits looks again. The lock is held. */
void session_news(struct session *session);

/* Waits, with the lock held, until the condition holds or the machine ended; the test's own time-out ends what hangs. For
 * users of check.h. */
#define SESSION_WAIT(session, condition)                               \
    do {                                                               \
        while (!(condition) && !(session)->ended)                      \
            pthread_cond_wait(&(session)->news, &(session)->lock);     \
        CHECK(condition);                                              \
    } while (0)

/* The same with the lock taken for it. */
#define SESSION_AWAIT(session, condition)         \
    do {                                          \
        pthread_mutex_lock(&(session)->lock);     \
        SESSION_WAIT(session, condition);         \
        pthread_mutex_unlock(&(session)->lock);   \
    } while (0)

#endif
