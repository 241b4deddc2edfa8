/* random.h - the generator behind every case: splitmix64, so that a seed gives the same cases everywhere. */
#ifndef VENEER_TESTS_EQUIVALENCE_RANDOM_H
#define VENEER_TESTS_EQUIVALENCE_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct eq_random {
    uint64_t state;
};

static inline uint64_t eq_u64(struct eq_random *r)
{
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline unsigned eq_below(struct eq_random *r, unsigned limit) { return (unsigned)((eq_u64(r) >> 32) % limit); }

/* True once in n. */
static inline bool eq_once_in(struct eq_random *r, unsigned n) { return eq_below(r, n) == 0; }

#endif
