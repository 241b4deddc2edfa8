/* blk.c - see blk.h.
 *
 * What each sector should hold is known by its generation: 0 is zeroes, UNKNOWN anything, else a pattern made from sector and
 * generation. Requests in flight never overlap. */
#include "blk.h"

#define SECTOR 512u
#define UNKNOWN 0xffffffffu
#define CANARY 0xc5
#define ABANDONED 0x3a
#define SLOT_BYTES (3u * 4096u + BLK_SECTORS * SECTOR) /* data, with room around it */

static u32 generation[BLK_AREA];
static u8 in_use[BLK_AREA];
static struct blk_request requests[BLK_REQUESTS];
static u8 *arena;
static u32 next_generation = 1;
static u64 area; /* sectors in use */
static unsigned under_way[QUEUES_MAX], under_way_all;
unsigned blk_depth = 16, blk_most;

static void prepare(void)
{
    if (arena)
        return;
    arena = pages_new(BLK_REQUESTS * SLOT_BYTES / 4096);
    for (unsigned i = 0; i < BLK_REQUESTS; i++)
        requests[i].data = arena + i * SLOT_BYTES + 4096;
    memset(generation, 0xff, sizeof generation);
}

static u64 word_of(u64 sector, u32 number, unsigned i)
{
    u64 x = (sector << 32 | number) * 0x9e3779b97f4a7c15ull + i;
    return number ? x ^ x >> 29 : 0;
}

static void fill_sector(u8 *to, u64 sector, u32 number)
{
    for (unsigned i = 0; i < SECTOR / 8; i++)
        ((u64 *)to)[i] = word_of(sector, number, i);
}

static bool sector_is(const u8 *data, u64 sector, u32 number)
{
    for (unsigned i = 0; i < SECTOR / 8; i++)
        if (((const u64 *)data)[i] != word_of(sector, number, i))
            return false;
    return true;
}

static bool all_bytes(const u8 *from, const u8 *end, u8 value)
{
    const u64 word = value * 0x0101010101010101ull;
    for (; end - from >= 8 && *(const u64 *)from == word; from += 8)
        ;
    while (from < end)
        if (*from++ != value)
            return false;
    return true;
}

/* Outside [data, data + length) of its slot nothing was written. */
static bool canaries_stand(const struct blk_request *request, u32 length)
{
    const u8 *slot = request->data - 4096;
    return all_bytes(slot, request->data, CANARY) && all_bytes(request->data + length, slot + SLOT_BYTES, CANARY);
}

u64 blk_capacity(const struct virtio *virtio)
{
    return *(volatile u32 *)virtio->config | (u64) * (volatile u32 *)(virtio->config + 4) << 32;
}

/* Header, data cut in up to three pieces anywhere, status. */
static bool submit(struct queue *queue, struct blk_request *request, void *data, u32 length, bool device_writes, bool indirect)
{
    struct buffer buffers[5];
    unsigned count = 0;
    u32 done = 0;
    request->status = BLK_PENDING;
    buffers[count++] = (struct buffer){ (u64)&request->header, 16, false };
    for (unsigned pieces = length ? 1 + (unsigned)(random64() % 3) : 0; pieces; pieces--) {
        u32 left = length - done, part = pieces == 1 || left < 2 ? left : 1 + (u32)(random64() % (left - 1));
        if (part)
            buffers[count++] = (struct buffer){ (u64)data + done, part, device_writes };
        done += part;
    }
    buffers[count++] = (struct buffer){ (u64)&request->status, 1, true };
    request->busy = queue_add(queue, buffers, count, request, indirect);
    return request->busy;
}

u8 blk_do(struct queue *queue, u32 type, u64 sector, void *data, u32 length, bool indirect)
{
    static struct blk_request request;
    u32 written;
    request.header.type = type;
    request.header.reserved = 0;
    request.header.sector = sector;
    if (!submit(queue, &request, data, length, type == BLK_IN || type == BLK_GET_ID, indirect))
        return BLK_PENDING;
    queue_kick(queue);
    return queue_wait(queue, &written) == &request ? request.status : BLK_PENDING;
}

/* ---- random operations ---- */

struct range {
    u64 sector;
    u32 sectors, flags;
};

static void look_at(const struct virtio *virtio)
{
    u64 capacity = blk_capacity(virtio);
    area = capacity < BLK_AREA ? capacity : BLK_AREA;
    if (area < BLK_AREA_MIN)
        panic("the disk has only %lu sectors", (unsigned long)capacity);
    prepare();
}

static bool reserve(struct blk_request *request)
{
    request->sectors = 1 + (u32)(random64() % BLK_SECTORS);
    request->place = random64() % (area - BLK_SECTORS);
    for (u32 i = 0; i < request->sectors; i++)
        if (in_use[request->place + i])
            return false;
    memset(in_use + request->place, 1, request->sectors);
    return true;
}

static u32 pick_type(const struct virtio *virtio)
{
    unsigned dice = (unsigned)(random64() % 32);
    if (dice == 0 && (virtio->features & F_BLK_FLUSH))
        return BLK_FLUSH;
    if (dice == 1 && (virtio->features & F_BLK_DISCARD))
        return BLK_DISCARD;
    if (dice == 2 && (virtio->features & F_BLK_WRITE_ZEROES))
        return BLK_WRITE_ZEROES;
    return dice < 18 && !(virtio->features & F_BLK_RO) ? BLK_OUT : BLK_IN;
}

/* Starts one; false when there is no room for it, or its sectors are taken. */
static bool start(struct virtio *virtio, struct queue *queue, struct blk_request *request, bool indirect)
{
    u32 type = pick_type(virtio), length = 0;
    if (under_way[queue->index] >= blk_depth || !reserve(request))
        return false;
    u64 sector = request->place;
    memset(request->data - 4096, CANARY, SLOT_BYTES);
    request->header.type = type;
    request->header.reserved = 0;
    if (type == BLK_OUT) {
        length = request->sectors * SECTOR;
        u32 number = ++next_generation;
        for (u32 i = 0; i < request->sectors; i++) {
            fill_sector(request->data + i * SECTOR, sector + i, number);
            generation[sector + i] = number;
        }
    } else if (type == BLK_IN) {
        length = request->sectors * SECTOR;
    } else if (type != BLK_FLUSH) {
        struct range range = { sector, request->sectors, 0 };
        memcpy(request->data, &range, sizeof range);
        length = sizeof range;
        for (u32 i = 0; i < request->sectors; i++)
            generation[sector + i] = type == BLK_DISCARD ? UNKNOWN : 0;
    }
    /* As the specification wants it. */
    request->header.sector = type == BLK_IN || type == BLK_OUT ? sector : 0;
    bool started = submit(queue, request, request->data, length, type == BLK_IN, indirect);
    if (started) {
        request->queue = (u8)queue->index;
        under_way[queue->index]++;
        if (++under_way_all > blk_most)
            blk_most = under_way_all;
    } else {
        memset(in_use + sector, 0, request->sectors);
        for (u32 i = 0; type != BLK_IN && type != BLK_FLUSH && i < request->sectors; i++)
            generation[sector + i] = UNKNOWN;
    }
    return started;
}

static bool verify(const struct blk_request *request, u32 written, const char *name)
{
    u32 type = request->header.type, bytes = request->sectors * SECTOR;
    u32 data = type == BLK_IN || type == BLK_OUT ? bytes : type == BLK_FLUSH ? 0 : (u32)sizeof(struct range);
    const char *wrong = NULL;
    if (request->status != BLK_OK)
        wrong = "status";
    else if (written != (type == BLK_IN ? bytes + 1 : 1))
        wrong = "length";
    else if (!canaries_stand(request, data))
        wrong = "canary";
    for (u32 i = 0; !wrong && type == BLK_IN && i < request->sectors; i++) {
        u32 number = generation[request->header.sector + i];
        if (number != UNKNOWN && !sector_is(request->data + i * SECTOR, request->header.sector + i, number))
            wrong = "data";
    }
    if (wrong)
        check(false, name, "%s is wrong: type %u sector %lu count %u status %u written %u", wrong, type,
              (unsigned long)request->header.sector, request->sectors, request->status, written);
    return !wrong;
}

static struct blk_request *idle_request(void)
{
    for (unsigned i = 0; i < BLK_REQUESTS; i++)
        if (!requests[i].busy)
            return &requests[i];
    return NULL;
}

static bool finish_one(struct queue *queue, bool wait, unsigned *ret_done, const char *name)
{
    u32 written = 0;
    struct blk_request *request = wait ? queue_wait(queue, &written) : queue_take(queue, &written);
    if (!request) {
        if (wait)
            check(false, name, "nothing comes back");
        return !wait;
    }
    memset(in_use + request->place, 0, request->sectors);
    request->busy = false;
    under_way[request->queue]--;
    under_way_all--;
    ++*ret_done;
    return verify(request, written, name);
}

/* Now few at a time are made known to the device, while it works, then all that fit at once. */
static bool time_to_kick(unsigned done)
{
    return random64() % ((done & 256) ? 4 * BLK_REQUESTS : 4) == 0;
}

bool blk_exercise(struct virtio *virtio, unsigned queues, unsigned operations, bool indirect, const char *name)
{
    unsigned started = 0, done = 0;
    look_at(virtio);
    while (done < operations) {
        unsigned which = (unsigned)(random64() % queues), before = done;
        struct queue *queue = &virtio->queue[which];
        struct blk_request *request = idle_request();
        if (started < operations && request && start(virtio, queue, request, indirect)) {
            started++;
            if (time_to_kick(done))
                queue_kick(queue);
            continue;
        }
        for (unsigned i = 0; i < queues; i++) {
            queue_kick(&virtio->queue[i]);
            if (!finish_one(&virtio->queue[i], false, &done, name))
                return false;
        }
        for (unsigned i = 0; done == before && i < queues; i++)
            if (under_way[i] && !finish_one(&virtio->queue[i], true, &done, name))
                return false;
    }
    return true;
}

void blk_flood(struct virtio *virtio, unsigned queues, bool indirect)
{
    look_at(virtio);
    for (unsigned i = 0; i < queues; i++) {
        struct blk_request *request;
        for (unsigned tries = 0; tries < 2 * BLK_REQUESTS && (request = idle_request()); tries++)
            start(virtio, &virtio->queue[i], request, indirect);
        queue_notify(&virtio->queue[i]);
    }
}

/* What was being written may be on the disk or not. */
void blk_abandon(void)
{
    prepare();
    for (unsigned i = 0; i < BLK_REQUESTS; i++) {
        struct blk_request *request = &requests[i];
        u64 sector = request->place;
        for (u32 s = 0; request->busy && s < request->sectors; s++) {
            in_use[sector + s] = 0;
            if (request->header.type != BLK_IN && request->header.type != BLK_FLUSH)
                generation[sector + s] = UNKNOWN;
        }
        request->busy = false;
        request->status = ABANDONED;
    }
    memset(under_way, 0, sizeof under_way);
    under_way_all = 0;
    memset(arena, ABANDONED, BLK_REQUESTS * SLOT_BYTES);
}

void blk_forget(void)
{
    prepare();
    memset(generation, 0xff, sizeof generation);
}

bool blk_untouched(void)
{
    for (unsigned i = 0; i < BLK_REQUESTS; i++)
        if (requests[i].status != ABANDONED)
            return false;
    return all_bytes(arena, arena + BLK_REQUESTS * SLOT_BYTES, ABANDONED);
}

/* ---- entropy ---- */

#define RNG_BYTES 1024u

bool rng_exercise(struct virtio *virtio, unsigned rounds, bool indirect, const char *name)
{
    static u8 *memory;
    static const u8 zeroes[64];
    if (!memory)
        memory = pages_new(3);
    for (unsigned i = 0; i < rounds; i++) {
        u32 length = 64 + (u32)(random64() % (RNG_BYTES - 64)), cut = 1 + (u32)(random64() % 32), written = 0;
        u8 *at = memory + 4096;
        struct buffer buffers[2] = { { (u64)at, cut, true }, { (u64)at + cut, length - cut, true } };
        memset(memory, CANARY, 3 * 4096);
        if (!queue_add(&virtio->queue[0], buffers, 2, memory, indirect)) {
            check(false, name, "no room in round %u", i);
            return false;
        }
        queue_kick(&virtio->queue[0]);
        bool came = queue_wait(&virtio->queue[0], &written) == memory;
        bool inside = all_bytes(memory, at, CANARY) && all_bytes(at + written, memory + 3 * 4096, CANARY);
        /* All 64 zero bytes, or all canaries, would be one case in 2^512. */
        if (!came || written == 0 || written > length || !inside ||
            (written >= 64 && (memcmp(at, zeroes, 64) == 0 || all_bytes(at, at + 64, CANARY)))) {
            check(false, name, "round %u: %s, %u of %u bytes, %s", i, came ? "came" : "nothing came", written, length,
                  inside ? "inside" : "outside the buffer");
            return false;
        }
    }
    return true;
}
