#include "base/descriptors.h"

#include <pthread.h>
#include <sys/resource.h>

static pthread_mutex_t raising = PTHREAD_MUTEX_INITIALIZER;
/* The soft limit as it was, or 0. */
static _Atomic rlim_t found;

void descriptors_raise(void)
{
    struct rlimit limit;
    pthread_mutex_lock(&raising);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        rlim_t was = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max < DESCRIPTORS_MAX ? limit.rlim_max : DESCRIPTORS_MAX;
        if (limit.rlim_cur > was && setrlimit(RLIMIT_NOFILE, &limit) == 0 && !found)
            found = was;
    }
    pthread_mutex_unlock(&raising);
}

void descriptors_restore(void)
{
    struct rlimit limit;
    if (!found || getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = found < limit.rlim_max ? found : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}
