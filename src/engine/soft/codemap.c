#include "engine/soft/codemap.h"

#include <errno.h>
#include <sys/mman.h>

/* A page that has lost its code keeps its flag for some stores, since code often comes back at once
 * (just-in-time compilers) and setting the flag interrupts every vCPU: one store in so many takes it away. */
#define STORES_PER_CLEAR 64u

int code_map_open(struct code_map *ret_map, struct ram *ram, struct error *error)
{
    struct code_map map = {.ram = ram};
    for (unsigned i = 0; i < ram->regions; i++) {
        map.first[i] = map.pages;
        map.pages += (size_t)(ram->region[i].size / RAM_PAGE_SIZE);
    }
    void *page = mmap(NULL, map.pages * sizeof(*map.page), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (page == MAP_FAILED)
        return error_set(error, errno, "no memory to track the code pages of the guest");
    map.page = page;
    *ret_map = map;
    pthread_mutex_init(&ret_map->lock, NULL);
    return 0;
}

void code_map_close(struct code_map *map)
{
    munmap(map->page, map->pages * sizeof(*map->page));
    pthread_mutex_destroy(&map->lock);
}

bool code_map_hold(struct code_map *map, uint64_t gpa, unsigned holder, uint64_t chunks, bool may_mark)
{
    struct code_page *page = &map->page[code_map_page(map, gpa)];
    const struct ram_region *region = ram_find(map->ram, gpa);
    const uint8_t *flags = &region->flags[(gpa - region->gpa) / RAM_PAGE_SIZE];
    pthread_mutex_lock(&map->lock);
    bool done = may_mark || (__atomic_load_n(flags, __ATOMIC_RELAXED) & RAM_PAGE_CODE);
    if (done) {
        atomic_fetch_or(&page->holders, UINT64_C(1) << holder);
        atomic_fetch_or(&page->chunks, chunks);
        ram_code_mark(map->ram, gpa);
    }
    pthread_mutex_unlock(&map->lock);
    return done;
}

void code_map_keep(struct code_map *map, uint64_t gpa, unsigned holder, uint64_t chunks)
{
    struct code_page *page = &map->page[code_map_page(map, gpa)];
    const uint64_t own = UINT64_C(1) << holder;
    pthread_mutex_lock(&map->lock);
    if (chunks == 0)
        atomic_fetch_and(&page->holders, ~own);
    /* Which chunks the other holders decoded is not known: theirs stay. */
    uint64_t holders = atomic_load(&page->holders);
    if (holders == 0 || holders == own)
        atomic_store(&page->chunks, chunks);
    pthread_mutex_unlock(&map->lock);
}

static void clear_flag(struct code_map *map, struct code_page *page, uint64_t gpa)
{
    pthread_mutex_lock(&map->lock);
    if (atomic_load(&page->holders) == 0)
        ram_code_clear(map->ram, gpa);
    pthread_mutex_unlock(&map->lock);
}

uint64_t code_map_written(struct code_map *map, uint64_t gpa, unsigned length)
{
    size_t number = code_map_page(map, gpa);
    if (number == CODE_NO_PAGE)
        return 0;
    struct code_page *page = &map->page[number];
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t chunks = atomic_load_explicit(&page->chunks, memory_order_relaxed);
    if (chunks & code_chunks((unsigned)(gpa % RAM_PAGE_SIZE), length))
        return atomic_load(&page->holders);
    if (chunks == 0 && (atomic_fetch_add_explicit(&map->beside, 1, memory_order_relaxed) + 1) % STORES_PER_CLEAR == 0)
        clear_flag(map, page, gpa);
    return 0;
}
