/* hotplug_test.c - devices plugged into and out of a running guest, over and over.
 *
 * hotplug_test ENGINE ROUNDS KERNEL INITRD cards|devices|packed: the initrd's /init is hotplug-init.c; where INITRD is "-",
 * KERNEL is guest/hotplug.c, which prints the same. Each round plugs test functions (cards; every fourth round several at
 * once), or a disk and a share (devices; packed: with packed rings), waits until the guest has read from them, asks for them
 * back while the guest uses them, and waits until host and guest agree that they are gone. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "../check.h"
#include "machine/plug.h"
#include "support/session.h"

#define TEST_VENDOR 0x1b36
#define TEST_DEVICE 0x00fe
#define SECOND UINT64_C(1000000000)
#define AT_ONCE 4u

/* A function with one page of registers; the first gives its number. */
struct card {
    struct device device;
    struct pci_function function;
    uint32_t number;
};

static _Atomic unsigned cards; /* that exist */

static uint64_t card_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    (void)region, (void)size;
    return offset == 0 ? ((struct card *)device)->number : 0;
}

static void card_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device, (void)region, (void)offset, (void)size, (void)value;
}

static void card_reset(struct device *device)
{
    pci_function_reset(&((struct card *)device)->function);
}

static void card_destroy(struct device *device)
{
    pci_remove(&((struct card *)device)->function);
    free(device);
    cards--;
}

static struct card *card_new(uint32_t number, bool wide)
{
    static const struct device_ops ops = {.name = "card", .reset = card_reset, .read = card_read, .write = card_write,
                                          .destroy = card_destroy};
    struct card *card = calloc(1, sizeof *card);
    if (!card)
        exit(1);
    card->device.ops = &ops;
    card->number = number;
    card->function.vendor = TEST_VENDOR;
    card->function.id = TEST_DEVICE;
    card->function.class_code = 0xff0000;
    pci_function_init(&card->function);
    CHECK_EQ(pci_bar_memory(&card->function, 0, 4096, wide, wide, &card->device, 0), 0);
    cards++;
    return card;
}

/* What the guest said; the session's lock is around it, and around what came of requests. */
static uint32_t here[32]; /* the number that the guest read from a card; 0: gone */
static uint32_t disk_mark, share_mark, sectors;
static unsigned gone, failed;

static void hear(const char *line)
{
    unsigned slot, number;
    char name[8];
    if (sscanf(line, "DISK %7s %x", name, &number) == 2)
        disk_mark = number;
    if (sscanf(line, "SIZE %7s %u", name, &number) == 2)
        sectors = number;
    if (sscanf(line, "NODISK %7s", name) == 1)
        disk_mark = 0;
    if (sscanf(line, "SHARE %x", &number) == 1)
        share_mark = number;
    if (sscanf(line, "HERE %u %x", &slot, &number) == 2 && slot < 32)
        here[slot] = number;
    if (sscanf(line, "AWAY %u", &slot) == 1 && slot < 32)
        here[slot] = 0;
}

static const char *const bad[] = {"ACPI Error", "ACPI Exception", "ACPI BIOS Error", "ACPI Warning", "BUG:", "WARNING:", "Oops",
                                  "Kernel panic", "can't assign", "no space for", "failed to assign", "FAIL", NULL};
static struct session session = SESSION_INIT(hear, bad);

static void unplugged(void *owner, int status, const char *text)
{
    (void)owner;
    pthread_mutex_lock(&session.lock);
    gone += status == 0;
    failed += status != 0;
    if (status != 0)
        fprintf(stderr, "unplug: %s\n", text);
    session_news(&session);
    pthread_mutex_unlock(&session.lock);
}

/* How long the guest takes is no matter here: with ThreadSanitizer on a busy machine it can be minutes. */
static void ask_for(const char *id)
{
    struct error error = {0};
    struct machine_unplug request = {.timeout_ns = 3600 * SECOND, .done = unplugged};
    CHECK_EQ(machine_unplug(session.machine, id, &request, &error), 0);
    CHECK_STR(error.text, "");
}

/* Plugs `count` functions, and takes them out again. */
static void round_of(unsigned number, unsigned count)
{
    unsigned slot[AT_ONCE];
    char id[AT_ONCE][16];
    for (unsigned i = 0; i < count; i++) {
        struct error error = {0};
        struct card *card = card_new(number * AT_ONCE + i + 1, number % 2);
        snprintf(id[i], sizeof id[i], "card%u", i);
        struct plug_config config = {.id = id[i], .device = &card->device, .function = &card->function};
        CHECK_EQ(plug_add(session.machine, &config, &error), 0);
        CHECK_STR(error.text, "");
        slot[i] = card->function.slot;
        CHECK(plug_add(session.machine, &config, &error) == -EEXIST);
    }
    pthread_mutex_lock(&session.lock);
    for (unsigned i = 0; i < count; i++)
        SESSION_WAIT(&session, here[slot[i]] == number * AT_ONCE + i + 1);
    gone = 0;
    pthread_mutex_unlock(&session.lock);
    for (unsigned i = 0; i < count; i++)
        ask_for(id[i]);
    pthread_mutex_lock(&session.lock);
    SESSION_WAIT(&session, gone + failed >= count);
    CHECK_EQ(gone, count);
    for (unsigned i = 0; i < count; i++)
        SESSION_WAIT(&session, here[slot[i]] == 0);
    pthread_mutex_unlock(&session.lock);
    CHECK_EQ(cards, 0);
}

static void write_file(const char *path, const void *bytes, size_t length, size_t size)
{
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(bytes, 1, length, file) == length);
    if (file) {
        CHECK_EQ(fflush(file), 0);
        if (size)
            CHECK_EQ(ftruncate(fileno(file), (off_t)size), 0);
        fclose(file);
    }
}

static char folder[] = "/tmp/veneer-plug-XXXXXX", disk_path[64], number_path[64];

/* A disk that begins with the number, and a share with a file that has it. */
static void round_of_devices(unsigned number)
{
    struct error error = {0};
    const uint32_t mark = number + 1;
    char text[16];
    write_file(disk_path, &mark, sizeof mark, 1 << 20);
    write_file(number_path, text, (size_t)snprintf(text, sizeof text, "%x\n", mark), 0);
    struct machine_disk disk = {.id = "extra", .path = disk_path, .format = "raw"};
    struct machine_share share = {.folder = folder, .tag = "tag"};
    CHECK_EQ(machine_disk_add(session.machine, &disk, &error), 0);
    CHECK_EQ(machine_add_share(session.machine, &share, &error), 0);
    CHECK_STR(error.text, "");
    CHECK(machine_disk_add(session.machine, &disk, &error) < 0); /* the volume, or the name, is in use */
    SESSION_AWAIT(&session, disk_mark == mark && share_mark == mark && sectors == 2048);
    CHECK_EQ(machine_disk_resize(session.machine, "extra", 3 << 20, &error), 0);
    CHECK_EQ(machine_disk_resize(session.machine, "other", 3 << 20, &error), -ENOENT);
    CHECK(machine_disk_resize(session.machine, "extra", (3 << 20) + 100, &error) < 0);
    pthread_mutex_lock(&session.lock);
    SESSION_WAIT(&session, sectors == 6144);
    gone = 0;
    pthread_mutex_unlock(&session.lock);
    ask_for("extra");
    ask_for(MACHINE_SHARE_ID "tag");
    pthread_mutex_lock(&session.lock);
    SESSION_WAIT(&session, gone + failed >= 2);
    CHECK_EQ(gone, 2);
    SESSION_WAIT(&session, disk_mark == 0);
    pthread_mutex_unlock(&session.lock);
}

static void make_folder(void)
{
    CHECK(mkdtemp(folder) != NULL);
    snprintf(disk_path, sizeof disk_path, "%s/disk", folder);
    snprintf(number_path, sizeof number_path, "%s/number", folder);
}

static void remove_folder(void)
{
    unlink(disk_path);
    unlink(number_path);
    rmdir(folder);
}

int main(int argc, char **argv)
{
    struct error error = {0};
    const struct engine_ops *engine = argc == 6 ? engine_find(argv[1]) : NULL;
    if (!engine) {
        fprintf(stderr, "usage: hotplug_test ENGINE ROUNDS KERNEL INITRD cards|devices|packed\n");
        return 2;
    }
    if (engine->probe(&error) < 0) {
        printf("SKIP: %s\n", error.text);
        return 77;
    }
    const bool bare = strcmp(argv[4], "-") == 0, packed = strcmp(argv[5], "packed") == 0;
    const bool devices = packed || strcmp(argv[5], "devices") == 0;
    struct machine_config config = {.kernel = argv[3], .initrd = bare ? NULL : argv[4],
                                    .append = bare ? NULL : "console=ttyS0 panic=-1", .vcpus = 2, .memory = 256 << 20,
                                    .engine = engine, .debug_exit_port = bare ? 0xf4 : -1, .virtio_packed = packed};
    if (session_create(&session, &config) < 0)
        return 1;
    session_start(&session);
    SESSION_AWAIT(&session, session.ready);
    unsigned rounds = (unsigned)atoi(argv[2]), done = 0;
    make_folder();
    for (; done < rounds && !session.ended && check_failures == 0; done++) {
        if (devices)
            round_of_devices(done);
        else
            round_of(done, done % 4 == 3 ? AT_ONCE : 1);
    }
    CHECK_EQ(done, rounds);

    /* What is plugged when the machine ends goes with it. */
    struct card *card = card_new(1, false);
    struct plug_config left = {.id = "left", .device = &card->device, .function = &card->function};
    CHECK_EQ(plug_add(session.machine, &left, &error), 0);
    machine_stop(session.machine);
    session_join(&session);
    machine_destroy(session.machine);
    remove_folder();
    CHECK_EQ(cards, 0);
    CHECK_EQ(session.complaints, 0);
    printf("%u rounds of %s under %s\n", done, argv[5], engine->name);
    CHECK_DONE();
}
