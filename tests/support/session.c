/* session.c - see session.h. */
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void take_line(struct session *session, const char *line)
{
    if (getenv("SESSION_VERBOSE"))
        fprintf(stderr, "guest: %s\n", line);
    if (strcmp(line, "READY") == 0)
        session->ready = true;
    for (const char *const *bad = session->bad; *bad; bad++) {
        if (strstr(line, *bad)) {
            session->complaints++;
            fprintf(stderr, "the guest: %s\n", line);
        }
    }
    if (session->hear)
        session->hear(line);
}

static void console_write(void *owner, const void *bytes, size_t length)
{
    struct session *session = owner;
    pthread_mutex_lock(&session->lock);
    for (size_t i = 0; i < length; i++) {
        char c = ((const char *)bytes)[i];
        if (c != '\n' && c != '\r' && session->used < sizeof session->line - 1) {
            session->line[session->used++] = c;
        } else if (c == '\n') {
            session->line[session->used] = '\0';
            session->used = 0;
            take_line(session, session->line);
        }
    }
    session_news(session);
    pthread_mutex_unlock(&session->lock);
}

static void *run(void *context)
{
    struct session *session = context;
    struct machine_result result;
    machine_run(session->machine, &result);
    if (result.end != MACHINE_END_POWER_OFF && result.end != MACHINE_END_STOPPED)
        fprintf(stderr, "the machine ended: %s\n", result.text);
    pthread_mutex_lock(&session->lock);
    session->ended = true;
    session->end = result.end;
    session_news(session);
    pthread_mutex_unlock(&session->lock);
    return NULL;
}

int session_create(struct session *session, struct machine_config *config)
{
    struct error error = {0};
    config->console_write = console_write;
    config->console_owner = session;
    int status = machine_create(config, &session->machine, &error);
    if (status < 0)
        fprintf(stderr, "%s\n", error.text);
    return status;
}

void session_start(struct session *session)
{
    session->ended = false;
    if (pthread_create(&session->thread, NULL, run, session) != 0) {
        fprintf(stderr, "no thread for the machine\n");
        exit(1);
    }
}

void session_join(struct session *session)
{
    pthread_join(session->thread, NULL);
}

void session_news(struct session *session)
{
    pthread_cond_broadcast(&session->news);
}
