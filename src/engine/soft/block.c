#include "engine/soft/block.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/soft/vcpu.h"

#define PAGE_MASK ((uint64_t)RAM_PAGE_SIZE - 1)
#define GPA_MASK ((UINT64_C(1) << 52) - 1)

static void *reserve(size_t size)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void release(void *memory, size_t size)
{
    if (memory)
        munmap(memory, size);
}

int block_cache_open(struct block_cache *ret_cache, struct code_map *map, unsigned holder, size_t arena_size,
                     struct error *error)
{
    memset(ret_cache, 0, sizeof(*ret_cache));
    ret_cache->map = map;
    ret_cache->holder = holder;
    ret_cache->arena_size = arena_size;
    ret_cache->buckets = BLOCK_BUCKETS_MIN;
    while (ret_cache->buckets < BLOCK_BUCKETS && ret_cache->buckets < arena_size / 512) /* bytes of a usual block */
        ret_cache->buckets *= 2;
    ret_cache->bucket = reserve(ret_cache->buckets * sizeof(struct block *));
    ret_cache->page = reserve(map->pages * sizeof(struct block *));
    ret_cache->arena = reserve(arena_size);
    if (ret_cache->bucket && ret_cache->page && ret_cache->arena)
        return 0;
    block_cache_close(ret_cache);
    return error_set(error, ENOMEM, "no memory for decoded code");
}

void block_cache_close(struct block_cache *cache)
{
    release(cache->bucket, cache->buckets * sizeof(struct block *));
    release(cache->page, cache->map->pages * sizeof(struct block *));
    release(cache->arena, cache->arena_size);
    cache->bucket = NULL;
    cache->page = NULL;
    cache->arena = NULL;
}

static struct block **bucket_of(const struct block_cache *cache, uint64_t key)
{
    return &cache->bucket[(key * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & (cache->buckets - 1)];
}

struct block *block_find(const struct block_cache *cache, uint64_t key, uint64_t second)
{
    struct block *block = *bucket_of(cache, key);
    while (block && (block->key != key || ((key & BLOCK_CROSSES) && block->second != second)))
        block = block->hash_next;
    return block;
}

/* ---- page lists: a block is in that of its first page through page_next[0], of its second through [1] ---- */

static unsigned link_of(const struct block *block, uint64_t page_gpa)
{
    return (block->key & GPA_MASK & ~PAGE_MASK) == page_gpa ? 0 : 1;
}

static void list_insert(struct block_cache *cache, struct block *block, uint64_t page_gpa)
{
    struct block **first = &cache->page[code_map_page(cache->map, page_gpa)];
    block->page_next[link_of(block, page_gpa)] = *first;
    *first = block;
}

static void list_remove(struct block_cache *cache, const struct block *block, uint64_t page_gpa)
{
    struct block **at = &cache->page[code_map_page(cache->map, page_gpa)];
    while (*at != block)
        at = &(*at)->page_next[link_of(*at, page_gpa)];
    *at = block->page_next[link_of(block, page_gpa)];
}

/* The bytes of the page at page_gpa that a block of its list was decoded from. */
static unsigned extent(const struct block *block, uint64_t page_gpa, unsigned *ret_offset)
{
    unsigned offset = (unsigned)(block->key & PAGE_MASK);
    unsigned here = block->bytes < RAM_PAGE_SIZE - offset ? block->bytes : RAM_PAGE_SIZE - offset;
    *ret_offset = link_of(block, page_gpa) == 0 ? offset : 0;
    return link_of(block, page_gpa) == 0 ? here : block->bytes - here;
}

/* ---- dropping ---- */

static void unhash(struct block_cache *cache, const struct block *block)
{
    struct block **at = bucket_of(cache, block->key);
    while (*at != block)
        at = &(*at)->hash_next;
    *at = block->hash_next;
}

static void drop(struct block_cache *cache, struct block *block)
{
    unhash(cache, block);
    list_remove(cache, block, block->key & GPA_MASK & ~PAGE_MASK);
    /* A page may follow itself, when two linear pages map it: then one list has the block once. */
    if ((block->key & BLOCK_CROSSES) && link_of(block, block->second) == 1)
        list_remove(cache, block, block->second);
    if (cache->tier)
        cache->tier->dropped(cache->vcpu, block);
    block->key = BLOCK_DEAD;
    block->hash_next = cache->free[block->count];
    cache->free[block->count] = block;
    cache->dropped++;
}

bool block_drop(struct block_cache *cache, uint64_t gpa, unsigned length)
{
    const uint64_t page_gpa = gpa & ~PAGE_MASK;
    const unsigned start = (unsigned)(gpa & PAGE_MASK), end = start + length;
    bool running = false;
    uint64_t chunks = 0;
    size_t number = code_map_page(cache->map, gpa);
    if (number == CODE_NO_PAGE)
        return false;
    for (struct block *block = cache->page[number], *next; block; block = next) {
        next = block->page_next[link_of(block, page_gpa)];
        unsigned offset, bytes = extent(block, page_gpa, &offset);
        bool wraps = (block->key & BLOCK_CROSSES) && block->second == page_gpa && link_of(block, page_gpa) == 0;
        if ((offset < end && start < offset + bytes) || (wraps && start < X86_INSN_MAX)) {
            running |= block == cache->running;
            drop(cache, block);
        } else {
            chunks |= code_chunks(offset, bytes) | (wraps ? 1 : 0);
        }
    }
    code_map_keep(cache->map, gpa, cache->holder, chunks);
    return running;
}

void block_flush(struct block_cache *cache)
{
    memset(cache->jump, 0, sizeof(cache->jump));
    memset(cache->free, 0, sizeof(cache->free));
    memset(cache->bucket, 0, cache->buckets * sizeof(struct block *));
    /* Only the pages that were touched cost anything; the map forgets this holder page by page, at the
     * next store to each. */
    madvise(cache->page, cache->map->pages * sizeof(struct block *), MADV_DONTNEED);
    if (cache->tier)
        cache->tier->flushed(cache->vcpu);
    cache->arena_used = 0;
    cache->running = NULL;
    cache->flushes++;
}

/* ---- building ---- */

static struct block *take(struct block_cache *cache, unsigned count)
{
    struct block *block = cache->free[count];
    if (block) {
        cache->free[count] = block->hash_next;
        return block;
    }
    size_t size = sizeof(struct block) + count * sizeof(struct x86_insn);
    size = (size + 63) & ~(size_t)63;
    if (size > cache->arena_size - cache->arena_used)
        block_flush(cache);
    block = (struct block *)(void *)(cache->arena + cache->arena_used);
    cache->arena_used += size;
    return block;
}

bool block_has_room(const struct block_cache *cache)
{
    return cache->arena_size - cache->arena_used >= sizeof(struct block) + BLOCK_INSNS * sizeof(struct x86_insn) + 63;
}

/* A draft of a block, and the bytes it was made from. */
struct draft {
    unsigned count, length;
    struct x86_insn insn[BLOCK_INSNS];
    uint8_t bytes[BLOCK_INSNS * X86_INSN_MAX];
};

static bool raises_always(const struct x86_insn *insn)
{
    return insn->exec == x86_exec_ud || insn->exec == x86_exec_gp;
}

static bool ends(const struct x86_insn *insn)
{
    return (insn->flags & (X86_INSN_ENDS | X86_INSN_PRIVILEGED)) != 0 || raises_always(insn);
}

/* How many bytes decided what the instruction is: of one that could not be decoded, perhaps all. */
static unsigned examined(const struct x86_insn *insn)
{
    return raises_always(insn) ? X86_INSN_MAX : insn->length;
}

/* Copies the code first, since other vCPUs may be writing to it, and decodes the copy. No instructions: the
 * first one needs the next page. */
static void decode(struct draft *draft, struct x86_decoder *decoder, enum x86_code_mode mode,
                   const struct block_source *source)
{
    unsigned offset = (unsigned)(source->gpa & PAGE_MASK), available = RAM_PAGE_SIZE - offset;
    if (available > sizeof(draft->bytes))
        available = sizeof(draft->bytes);
    memcpy(draft->bytes, source->page + offset, available);
    draft->count = draft->length = 0;
    do {
        struct x86_insn *insn = &draft->insn[draft->count];
        if (x86_decode(decoder, mode, draft->bytes + draft->length, available - draft->length, insn) == 0)
            return;
        draft->count++;
        draft->length += examined(insn);
    } while (draft->count < BLOCK_INSNS && draft->length < available && !ends(&draft->insn[draft->count - 1]));
    if (draft->length > available)
        draft->length = available;
}

/* One instruction across the page boundary. */
static void decode_crossing(struct draft *draft, struct x86_decoder *decoder, enum x86_code_mode mode,
                            const struct block_source *source)
{
    unsigned offset = (unsigned)(source->gpa & PAGE_MASK), first = RAM_PAGE_SIZE - offset;
    memcpy(draft->bytes, source->page + offset, first);
    memcpy(draft->bytes + first, source->follow, X86_INSN_MAX - first);
    draft->count = 1;
    x86_decode(decoder, mode, draft->bytes, X86_INSN_MAX, draft->insn);
    draft->length = examined(draft->insn);
}

/* Marks chunks of a page. The first mark of a page may have to be made while no other vCPU is between its
 * look at a page and its store to it. */
static void hold_chunks(struct block_cache *cache, uint64_t gpa, uint64_t chunks)
{
    if (code_map_hold(cache->map, gpa, cache->holder, chunks, !cache->tier))
        return;
    struct x86_core *core = &cache->vcpu->core;
    const struct engine_vm *vm = cache->vcpu->vm;
    const struct ram_region *region = ram_find(cache->map->ram, gpa);
    core->env->exclusive_begin(core->owner);
    code_map_hold(cache->map, gpa, cache->holder, chunks, true);
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->vcpu[i])
            cache->tier->code_appears(vm->vcpu[i], &region->flags[(gpa - region->gpa) / RAM_PAGE_SIZE]);
    core->env->exclusive_end(core->owner);
}

/* Tells the other vCPUs and devices which bytes matter from now on, and whether they still are what was
 * decoded. */
static bool hold(struct block_cache *cache, const struct block_source *source, const uint8_t *bytes, unsigned length)
{
    unsigned offset = (unsigned)(source->gpa & PAGE_MASK);
    unsigned first = length < RAM_PAGE_SIZE - offset ? length : RAM_PAGE_SIZE - offset;
    hold_chunks(cache, source->gpa, code_chunks(offset, first));
    if (length > first)
        hold_chunks(cache, source->second, 1);
    return memcmp(bytes, source->page + offset, first) == 0 &&
           (length == first || memcmp(bytes + first, source->follow, length - first) == 0);
}

/* True when control simply goes on at RIP after the instruction: a near branch, or no branch at all. */
static bool is_plain(const struct x86_insn *insn)
{
    if (insn->flags & X86_INSN_PRIVILEGED)
        return false;
    if (!(insn->flags & X86_INSN_ENDS) || (insn->flags & X86_INSN_BRANCH))
        return true;
    unsigned group = insn->modrm >> 3 & 7;
    return insn->opcode == 0xc3 || insn->opcode == 0xc2 || (insn->opcode == 0xff && (group == 2 || group == 4));
}

static struct block *enter(struct block_cache *cache, const struct draft *draft, enum x86_code_mode mode,
                           const struct block_source *source, bool crosses)
{
    struct block *block = take(cache, draft->count);
    block->key = block_key(source->gpa, mode) | (crosses ? BLOCK_CROSSES : 0);
    block->second = crosses ? source->second : 0;
    block->bytes = (uint16_t)draft->length;
    block->count = (uint16_t)draft->count;
    block->runs = 0;
    block->parts = NULL;
    block->live_known = false;
    block->plain = is_plain(&draft->insn[draft->count - 1]);
    memcpy(block->insn, draft->insn, draft->count * sizeof(draft->insn[0]));
    struct block **bucket = bucket_of(cache, block->key);
    block->hash_next = *bucket;
    *bucket = block;
    list_insert(cache, block, source->gpa & ~PAGE_MASK);
    if (crosses && link_of(block, block->second) == 1)
        list_insert(cache, block, block->second);
    cache->built++;
    return block;
}

/* Bytes that change between being read and being marked are read once more, now with everything marked that
 * could be looked at: what changes after that will be reported. */
static void hold_all(struct block_cache *cache, const struct block_source *source)
{
    unsigned offset = (unsigned)(source->gpa & PAGE_MASK);
    hold_chunks(cache, source->gpa, code_chunks(offset, RAM_PAGE_SIZE - offset));
    if (source->follow)
        hold_chunks(cache, source->second, 1);
}

int block_build(struct block_cache *cache, struct x86_decoder *decoder, enum x86_code_mode mode,
                const struct block_source *source, struct block **ret_block)
{
    struct draft draft __attribute__((uninitialized));
    for (bool again = false;; again = true) {
        if (again)
            hold_all(cache, source);
        decode(&draft, decoder, mode, source);
        bool crosses = draft.count == 0;
        if (crosses && !source->follow)
            return -EAGAIN;
        if (crosses) {
            decode_crossing(&draft, decoder, mode, source);
            /* The bytes may have changed since: then it may fit after all. */
            crosses = draft.length > RAM_PAGE_SIZE - (source->gpa & PAGE_MASK);
        }
        if (again || hold(cache, source, draft.bytes, draft.length)) {
            *ret_block = enter(cache, &draft, mode, source, crosses);
            return 0;
        }
    }
}
