/* share.c - any bytes as a guest's requests to the FUSE server, over a small folder with a canary beside it. Input: requests one after
 * the other, as share_fuzz.h has them. */
#include "share_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
    struct share *share;
    struct share_fuzz known;
    uint8_t request[SHARE_FUZZ_REQUEST], reply[SHARE_FUZZ_REPLY];
};

static void send_request(struct fuzz *fuzz, const uint8_t *record, size_t length)
{
    size_t all = share_fuzz_request(&fuzz->known, record, length, fuzz->request), half = record[3] % (all + 1);
    struct iovec in[2] = {{fuzz->request, half}, {fuzz->request + half, all - half}};
    struct iovec out[2] = {{fuzz->reply, record[3] * 4u}, {fuzz->reply + record[3] * 4u, record[3] * 12u}};
    struct share_message message = {in, 2, out, 2};
    const struct fuse_out_header *header = (const void *)fuzz->reply;
    share_may_take_long(&message);
    size_t written = share_handle(fuzz->share, &message);
    if (written > record[3] * 16u || (written && header->len != written) || (written && header->error > 0))
        abort();
    uint64_t inode = share_fuzz_learn(&fuzz->known, record[0], fuzz->reply, written);
    if (inode && (inode == share_folder.outside_ino || inode == share_folder.canary_ino))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool entered;
    struct fuzz fuzz;
    struct error error;
    share_fuzz_begin(&fuzz.known);
    share_fuzz_make();
    share_fuzz_fill();
    struct share_config config = {.folder = share_folder.inside, .read_only = size % 4 == 3, .descriptors = 24};
    if (share_open(&config, &fuzz.share, &error) < 0 || (!entered && share_thread_enter(fuzz.share, &error) < 0))
        abort();
    if (!entered)
        atexit(share_fuzz_leave);
    entered = true;
    struct client client;
    client_init(&client, fuzz.share);
    client_start(&client);
    client_free(&client);
    while (size >= SHARE_FUZZ_RECORD) {
        size_t length = data[4];
        if (length > size - SHARE_FUZZ_RECORD)
            length = size - SHARE_FUZZ_RECORD;
        send_request(&fuzz, data, length);
        data += SHARE_FUZZ_RECORD + length;
        size -= SHARE_FUZZ_RECORD + length;
    }
    share_close(fuzz.share);
    share_fuzz_check();
    client_remove_tree(share_folder.inside);
    return 0;
}
