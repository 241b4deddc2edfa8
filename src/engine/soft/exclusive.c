#include "engine/soft/exclusive.h"

void exclusive_init(struct exclusive *exclusive)
{
    pthread_mutex_init(&exclusive->lock, NULL);
    pthread_cond_init(&exclusive->changed, NULL);
    atomic_store(&exclusive->owner, NULL);
    exclusive->members = NULL;
}

void exclusive_destroy(struct exclusive *exclusive)
{
    pthread_cond_destroy(&exclusive->changed);
    pthread_mutex_destroy(&exclusive->lock);
}

void exclusive_add(struct exclusive *exclusive, struct exclusive_member *member)
{
    atomic_store(&member->executing, false);
    member->next = exclusive->members;
    exclusive->members = member;
}

void exclusive_remove(struct exclusive *exclusive, const struct exclusive_member *member)
{
    struct exclusive_member **at = &exclusive->members;
    while (*at != member)
        at = &(*at)->next;
    *at = member->next;
}

/* True while somebody else is alone. */
static bool kept_out(struct exclusive *exclusive, const struct exclusive_member *member)
{
    const struct exclusive_member *owner = atomic_load(&exclusive->owner);
    return owner && owner != member;
}

void exclusive_enter(struct exclusive *exclusive, struct exclusive_member *member)
{
    for (;;) {
        atomic_store(&member->executing, true);
        if (!kept_out(exclusive, member))
            return;
        atomic_store(&member->executing, false);
        pthread_mutex_lock(&exclusive->lock);
        pthread_cond_broadcast(&exclusive->changed);
        while (kept_out(exclusive, member))
            pthread_cond_wait(&exclusive->changed, &exclusive->lock);
        pthread_mutex_unlock(&exclusive->lock);
    }
}

void exclusive_leave(struct exclusive *exclusive, struct exclusive_member *member)
{
    atomic_store(&member->executing, false);
    if (kept_out(exclusive, member)) {
        pthread_mutex_lock(&exclusive->lock);
        pthread_cond_broadcast(&exclusive->changed);
        pthread_mutex_unlock(&exclusive->lock);
    }
}

void exclusive_begin(struct exclusive *exclusive, struct exclusive_member *member, void (*prod)(void *context),
                     void *context)
{
    pthread_mutex_lock(&exclusive->lock);
    /* Whoever came first may be waiting for this one to stop. */
    atomic_store(&member->executing, false);
    pthread_cond_broadcast(&exclusive->changed);
    while (atomic_load(&exclusive->owner))
        pthread_cond_wait(&exclusive->changed, &exclusive->lock);
    atomic_store(&exclusive->owner, member);
    atomic_store(&member->executing, true);
    prod(context);
    for (struct exclusive_member *other = exclusive->members; other; other = other->next)
        while (other != member && atomic_load(&other->executing))
            pthread_cond_wait(&exclusive->changed, &exclusive->lock);
    pthread_mutex_unlock(&exclusive->lock);
}

void exclusive_end(struct exclusive *exclusive)
{
    pthread_mutex_lock(&exclusive->lock);
    atomic_store(&exclusive->owner, NULL);
    pthread_cond_broadcast(&exclusive->changed);
    pthread_mutex_unlock(&exclusive->lock);
}
