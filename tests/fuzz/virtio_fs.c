/* virtio_fs.c - fuzzes the file system device from the driver's side: FUSE requests on both queues, whole and in pieces, that refer to
 * what earlier replies gave, between all that a driver may do to rings and registers. The folder has a canary beside it. */
#include "device/virtio/fs.h"

#include <sched.h>

#include "share_fuzz.h"
#include "virtio_fuzz.h"

/* What became of each chain, for its reply. */
struct request {
    uint32_t opcode;
    const uint8_t *reply;
};

struct session {
    struct virtio_fuzz *fuzz;
    struct share_fuzz known;
    struct request request[FUZZ_QUEUES][FUZZ_SIZE_MAX];
};

/* Operation 0, which FUSE has not, stands for a good INIT. */
static size_t make_request(struct session *session, const uint8_t *record, size_t length, uint8_t *request)
{
    static const struct fuse_init_in start = {.major = 7, .minor = 36, .max_readahead = 1 << 16, .flags = 0x7fffffff};
    uint8_t init[SHARE_FUZZ_RECORD + sizeof start] = {FUSE_INIT, 255, 254};
    if (record[0] != 0)
        return share_fuzz_request(&session->known, record, length, request);
    memcpy(init + SHARE_FUZZ_RECORD, &start, sizeof start);
    return share_fuzz_request(&session->known, init, sizeof start, request);
}

static void send_request(struct virtio_fuzz *fuzz, struct fuzz_input *input, unsigned choice)
{
    struct session *session = fuzz->context;
    uint8_t record[SHARE_FUZZ_RECORD + 255], *bytes;
    for (unsigned i = 0; i < SHARE_FUZZ_RECORD; i++)
        record[i] = (uint8_t)fuzz_take(input, 1);
    size_t length = record[4] < input->left ? record[4] : input->left;
    for (size_t i = 0; i < length; i++)
        record[SHARE_FUZZ_RECORD + i] = (uint8_t)fuzz_take(input, 1);
    uint64_t gpa = virtio_fuzz_slot(fuzz, &bytes), reply = gpa + 1024;
    size_t all = make_request(session, record, length, bytes), half = choice & 4 ? record[3] % (all + 1) : sizeof(struct fuse_in_header);
    uint32_t room = record[3] * 16u;
    struct driver_piece pieces[4] = {{gpa, (uint32_t)half}, {gpa + half, (uint32_t)(all - half)},
                                     {reply, room / 4}, {reply + room / 4, room - room / 4}};
    unsigned queue = choice % 8 == 0 ? 0 : 1;
    int id = virtio_fuzz_offer(fuzz, queue, pieces, 2, room ? 2 : 0, choice & 2 ? FUZZ_INDIRECT | FUZZ_NOTIFY : FUZZ_NOTIFY);
    if (id >= 0)
        session->request[queue][id] = (struct request){record[0], bytes + 1024};
}

static void used(struct virtio_fuzz *fuzz, unsigned queue, unsigned id, uint32_t written)
{
    struct session *session = fuzz->context;
    const struct request *request = &session->request[queue][id];
    if (request->reply)
        share_fuzz_learn(&session->known, request->opcode, request->reply, written);
    session->request[queue][id] = (struct request){0, NULL};
}

/* The thread that serves what takes long has its time. */
static void finish(void *context)
{
    struct virtio_fuzz *fuzz = ((struct session *)context)->fuzz;
    for (unsigned i = 0; i < fuzz->virtio->queues; i++)
        while (virtqueue_in_flight(fuzz->virtio->queue[i])) {
            driver_board_settle(&fuzz->board);
            sched_yield();
        }
}

/* The first byte says whether the folder is read-only. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtio_fuzz fuzz;
    struct session session = {.fuzz = &fuzz};
    struct virtio_device *device;
    struct error error;
    if (!share_folder.path[0]) {
        share_fuzz_make();
        atexit(share_fuzz_leave);
    }
    share_fuzz_fill();
    share_fuzz_begin(&session.known);
    virtio_fuzz_begin(&fuzz);
    struct virtio_env env = driver_board_env(&fuzz.board, true);
    struct virtio_fs_config config = {
        .tag = "fuzz", .share = {.folder = share_folder.inside, .read_only = size && data[0] & 1, .descriptors = 24}};
    FUZZ_ASSERT(virtio_fs_new(&env, &config, &device, &error) == 0);
    virtio_fuzz_add_device(&fuzz, device);
    fuzz.finish = finish;
    fuzz.request = send_request;
    fuzz.used = used;
    fuzz.context = &session;
    virtio_fuzz_run(&fuzz, data + (size > 0), size - (size > 0));
    share_fuzz_check();
    client_remove_tree(share_folder.inside);
    return 0;
}
