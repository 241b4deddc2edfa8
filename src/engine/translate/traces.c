/* traces.c - the table of all traces: by where they start, and by the order of their code.
 *
 * A block of a shared library has a trace for each linear address that it was ever mapped at, and there are as many of those
 * as processes were started: so traces are found by a hash of their linear address, not in a list at their block. */
#include <string.h>
#include <sys/mman.h>

#include "engine/translate/vcpu.h"

#define BUCKETS_MIN 256u
#define TRACE_BYTES 1024u /* of a usual trace and its sites */

static void *reserve(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int traces_open(struct translate_vcpu *t, size_t arena_size)
{
    t->arena_size = arena_size;
    t->buckets = BUCKETS_MIN;
    while (t->buckets < TRACES_MAX && t->buckets < arena_size / TRACE_BYTES)
        t->buckets *= 2;
    t->arena = reserve(t->arena_size);
    t->by_address = reserve(TRACES_MAX * sizeof t->by_address[0]);
    t->bucket = reserve(t->buckets * sizeof t->bucket[0]);
    return t->arena && t->by_address && t->bucket ? 0 : -1;
}

void traces_close(struct translate_vcpu *t)
{
    if (t->arena)
        munmap(t->arena, t->arena_size);
    if (t->by_address)
        munmap(t->by_address, TRACES_MAX * sizeof t->by_address[0]);
    if (t->bucket)
        munmap(t->bucket, t->buckets * sizeof t->bucket[0]);
}

/* The product's high bits depend on all bits of the address. */
static struct trace **bucket_of(const struct translate_vcpu *t, uint64_t linear, unsigned context)
{
    return &t->bucket[((linear ^ context) * UINT64_C(0x9e3779b97f4a7c15)) >> 40 & (t->buckets - 1)];
}

struct trace *traces_find(const struct translate_vcpu *t, const struct block *block, uint64_t linear, unsigned context)
{
    struct trace *trace = *bucket_of(t, linear, context);
    while (trace && (trace->linear != linear || trace->block != block || trace->context != context))
        trace = trace->next;
    return trace;
}

void traces_enter(struct translate_vcpu *t, struct trace *trace)
{
    struct trace **bucket = bucket_of(t, trace->linear, trace->context);
    trace->next = *bucket;
    *bucket = trace;
    t->by_address[t->traces++] = trace;
}

void traces_flush(struct translate_vcpu *t)
{
    for (size_t i = 0; i < t->traces; i++)
        for (unsigned n = 0; n < t->by_address[i]->parts; n++)
            t->by_address[i]->part[n].block->parts = NULL;
    if (t->traces)
        memset(t->bucket, 0, t->buckets * sizeof t->bucket[0]);
    t->traces = 0;
    t->arena_used = 0;
    t->code.used = t->thunks.end;
    t->link_from = NULL;
    t->stats.flushes++;
    jumps_forget(t, false);
    spaces_forget(t);
}

static void drop_trace(struct translate_vcpu *t, struct trace *trace)
{
    trace->dead = true;
    unlink_incoming(t, trace);
    jumps_drop(t, trace);
    if (t->link_from && t->link_from->trace == trace)
        t->link_from = NULL;
    struct trace **at = bucket_of(t, trace->linear, trace->context);
    while (*at != trace)
        at = &(*at)->next;
    *at = trace->next;
    for (unsigned i = 0; i < trace->parts; i++) {
        struct trace_part **part = &trace->part[i].block->parts;
        while (*part != &trace->part[i])
            part = &(*part)->next;
        *part = trace->part[i].next;
    }
    t->stats.dropped++;
}

/* The block is being dropped: nothing may lead to a trace that depends on it any more. */
void tier_dropped(struct engine_vcpu *vcpu, struct block *block)
{
    while (block->parts)
        drop_trace(translate_of(vcpu), block->parts->trace);
}
