/* hotplug_test.c - the registers of ACPI hot-plug, and the board's part of it: names, requests, time-outs, refusals, what is
 * left at the end. The guest's part is played by register accesses. */
#include "device/platform/hotplug.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

#include "device_check.h"
#include "machine/machine_private.h"
#include "machine/plug.h"

/* ---- the device alone ---- */

static unsigned changes, ejected, refused;

static void on_changed(void *owner)
{
    (void)owner;
    changes++;
}

static void on_ejected(void *owner, unsigned slot)
{
    (void)owner;
    ejected |= 1u << slot;
}

static void on_refused(void *owner, unsigned slot, unsigned status)
{
    (void)owner;
    refused = slot << 16 | status;
}

static struct device *new_registers(void)
{
    struct hotplug_config config = {.changed = on_changed, .ejected = on_ejected, .refused = on_refused};
    return hotplug_new(&config);
}

static void check_registers(void)
{
    struct device *hotplug = new_registers(), *other = new_registers();
    hotplug_arrived(hotplug, 3, false);
    CHECK_EQ(changes, 0);
    hotplug_arrived(hotplug, 31, true);
    CHECK_EQ(changes, 1);
    CHECK_EQ(device_get(hotplug, 0, HOTPLUG_ARRIVED, 4), 0x80000000);
    CHECK_EQ(device_get(hotplug, 0, HOTPLUG_PRESENT, 8), 0x80000008);
    CHECK_EQ(device_get(hotplug, 0, HOTPLUG_ARRIVED + 3, 1), 0x80);
    device_put(hotplug, 0, HOTPLUG_ARRIVED, 1, 0xff); /* not a whole register */
    device_put(hotplug, 0, HOTPLUG_ARRIVED, 4, 0x7fffffff);
    CHECK_EQ(device_get(hotplug, 0, HOTPLUG_ARRIVED, 4), 0x80000000);
    device_put(hotplug, 0, HOTPLUG_ARRIVED, 4, 0x80000000);
    CHECK_EQ(device_get(hotplug, 0, HOTPLUG_ARRIVED, 4), 0);

    device_put(hotplug, 0, HOTPLUG_PRESENT, 4, 0xffffffff); /* nobody asked */
    CHECK_EQ(ejected, 0);
    CHECK_EQ(device_get(hotplug, 0, HOTPLUG_PRESENT, 4), 0x80000008);
    hotplug_want(hotplug, 3);
    CHECK_EQ(changes, 2);
    CHECK_EQ(device_get(hotplug, 0, HOTPLUG_WANTED, 4), 8);
    device_put(hotplug, 0, HOTPLUG_WANTED, 4, 8);
    hotplug_arrived(other, 3, false);
    hotplug_arrived(other, 31, false);
    check_round_trip(hotplug, other);
    check_hostile(other);
    device_put(hotplug, 0, HOTPLUG_OUTCOME, 4, 0x840000 | 3 << 8 | 3); /* in progress */
    device_put(hotplug, 0, HOTPLUG_OUTCOME, 4, 0x820000 | 1 << 8 | 3); /* of another notification */
    device_put(hotplug, 0, HOTPLUG_OUTCOME, 4, 0x820000 | 3 << 8 | 31); /* of another slot */
    CHECK_EQ(refused, 0);
    device_put(hotplug, 0, HOTPLUG_OUTCOME, 4, 0x820000 | 3 << 8 | 3);
    CHECK_EQ(refused, 3 << 16 | 0x82);
    device_put(hotplug, 0, HOTPLUG_PRESENT, 4, 0xffffffff);
    CHECK_EQ(ejected, 8);
    CHECK_EQ(device_get(hotplug, 0, HOTPLUG_PRESENT, 4), 0x80000000);
    ejected = 0;
    device_put(hotplug, 0, HOTPLUG_PRESENT, 4, 8);
    device_put(other, 0, HOTPLUG_PRESENT, 4, 8); /* asked before it was saved */
    CHECK_EQ(ejected, 8);
    hotplug->ops->destroy(hotplug);
    other->ops->destroy(other);
}

/* ---- on a board ---- */

struct card {
    struct device device;
    struct pci_function function;
};

static _Atomic unsigned cards;

static void card_destroy(struct device *device)
{
    CHECK(((struct card *)device)->function.host == NULL);
    free(device);
    cards--;
}

static void count_release(void *owner)
{
    ++*(unsigned *)owner;
}

static struct card *card_new(void)
{
    static const struct device_ops ops = {.name = "card", .destroy = card_destroy};
    struct card *card = calloc(1, sizeof *card);
    if (!card)
        exit(1);
    card->device.ops = &ops;
    pci_function_init(&card->function);
    CHECK_EQ(pci_bar_memory(&card->function, 0, 4096, false, false, &card->device, 0), 0);
    cards++;
    return card;
}

/* A device whose I/O takes its time: another thread tells that it has ended. */
struct ending {
    void (*gone)(void *context);
    void *context;
    pthread_t thread;
};

static void *end_slowly(void *context)
{
    const struct ending *ending = context;
    usleep(1000);
    ending->gone(ending->context);
    return NULL;
}

static void card_detach(struct device *device, void (*gone)(void *context), void *context)
{
    static struct ending endings[4];
    static unsigned used;
    struct ending *ending = &endings[used++ % 4];
    pci_remove(&((struct card *)device)->function);
    *ending = (struct ending){gone, context, 0};
    CHECK_EQ(pthread_create(&ending->thread, NULL, end_slowly, ending), 0);
    pthread_detach(ending->thread);
}

struct answer {
    sem_t told;
    int status;
    char text[256];
};

static void done(void *owner, int status, const char *text)
{
    struct answer *answer = owner;
    answer->status = status;
    snprintf(answer->text, sizeof answer->text, "%s", text);
    sem_post(&answer->told);
}

static char path[] = "/tmp/veneer-hotplug-XXXXXX";

static struct machine *new_machine(void)
{
    struct machine *machine = NULL;
    struct error error = {0};
    struct machine_config config = {.kernel = path, .vcpus = 1, .memory = 2 << 20, .engine = engine_find("interpret"),
                                    .debug_exit_port = -1};
    CHECK_EQ(machine_create(&config, &machine, &error), 0);
    CHECK_STR(error.text, "");
    if (!machine)
        exit(1);
    return machine;
}

static void guest_writes(struct machine *machine, unsigned offset, uint32_t value)
{
    pthread_mutex_lock(&machine->lock);
    bus_write(machine->ports, BOARD_HOTPLUG + offset, 4, value);
    pthread_mutex_unlock(&machine->lock);
}

static uint64_t guest_reads(struct machine *machine, unsigned offset)
{
    pthread_mutex_lock(&machine->lock);
    uint64_t value = bus_read(machine->ports, BOARD_HOTPLUG + offset, 4);
    pthread_mutex_unlock(&machine->lock);
    return value;
}

static int plug(struct machine *machine, struct card *card, const char *id, unsigned slot, unsigned *released,
                struct error *error)
{
    struct plug_config config = {.id = id, .device = &card->device, .function = &card->function, .slot = slot,
                                 .detach = released ? card_detach : NULL, .released = released ? count_release : NULL, .owner = released};
    return plug_add(machine, &config, error);
}

static int unplug(struct machine *machine, const char *id, uint64_t timeout, struct answer *answer, struct error *error)
{
    struct machine_unplug request = {.timeout_ns = timeout, .done = done, .owner = answer};
    return machine_unplug(machine, id, &request, error);
}

static void check_refusals(struct machine *machine, struct answer *answer)
{
    struct error error = {0};
    struct card *spare = card_new();
    CHECK_EQ(plug(machine, spare, "", 0, NULL, &error), -EINVAL);
    CHECK_EQ(plug(machine, spare, "one", 0, NULL, &error), -EEXIST);
    CHECK(strstr(error.text, "'one'") != NULL);
    CHECK_EQ(plug(machine, spare, "other", 5, NULL, &error), -EBUSY);
    CHECK(strstr(error.text, "slot 5") != NULL);
    card_destroy(&spare->device);
    CHECK_EQ(unplug(machine, "nobody", 1, answer, &error), -ENOENT);
    CHECK(strstr(error.text, "'nobody'") != NULL);
}

#define LONG UINT64_C(3600000000000)

static void check_unplug(struct machine *machine, struct answer *answer, unsigned *released)
{
    struct error error = {0};
    CHECK_EQ(unplug(machine, "one", LONG, answer, &error), 0);
    CHECK_EQ(unplug(machine, "one", LONG, answer, &error), -EBUSY);
    CHECK_EQ(guest_reads(machine, HOTPLUG_WANTED), 1u << 5);
    guest_writes(machine, HOTPLUG_OUTCOME, 0x820000 | 3 << 8 | 5);
    sem_wait(&answer->told);
    CHECK_EQ(answer->status, -EPERM);
    CHECK(strstr(answer->text, "'one'") && strstr(answer->text, "0x82"));

    CHECK_EQ(unplug(machine, "one", 1, answer, &error), 0);
    sem_wait(&answer->told);
    CHECK_EQ(answer->status, -ETIMEDOUT);
    CHECK(strstr(answer->text, "'one'") != NULL);
    CHECK_EQ(*released, 0);

    CHECK_EQ(unplug(machine, "one", LONG, answer, &error), 0);
    guest_writes(machine, HOTPLUG_PRESENT, 1u << 5);
    sem_wait(&answer->told);
    CHECK_EQ(answer->status, 0);
    CHECK_STR(answer->text, "");
    CHECK_EQ(*released, 1);
    CHECK_EQ(cards, 1);
}

static void *serve(void *context)
{
    struct machine_result result;
    machine_run(context, &result);
    return NULL;
}

static void check_board(void)
{
    static unsigned released[3];
    struct answer answer = {.status = 1}, last = {.status = 1};
    struct error error = {0};
    struct machine *machine = new_machine();
    pthread_t thread;
    sem_init(&answer.told, 0, 0);
    sem_init(&last.told, 0, 0);
    uint32_t own = guest_reads(machine, HOTPLUG_PRESENT); /* what every machine has, from slot 1 on */
    CHECK_EQ(plug(machine, card_new(), "zero", 0, &released[0], &error), 0);
    CHECK_EQ(guest_reads(machine, HOTPLUG_PRESENT), own | (own + 2)); /* the first free slot */
    CHECK_EQ(guest_reads(machine, HOTPLUG_ARRIVED), 0); /* it is there when the guest starts */
    CHECK_EQ(pthread_create(&thread, NULL, serve, machine), 0);
    pthread_mutex_lock(&machine->lock);
    while (!machine->started) { /* until machine_run has begun */
        pthread_mutex_unlock(&machine->lock);
        usleep(1000);
        pthread_mutex_lock(&machine->lock);
    }
    pthread_mutex_unlock(&machine->lock);
    CHECK_EQ(plug(machine, card_new(), "one", 5, &released[1], &error), 0);
    CHECK_EQ(guest_reads(machine, HOTPLUG_ARRIVED), 1u << 5);
    check_refusals(machine, &answer);
    check_unplug(machine, &answer, &released[1]);

    /* A request that the machine's end overtakes, and a device that nobody asked for. */
    CHECK_EQ(plug(machine, card_new(), "two", 0, &released[2], &error), 0);
    CHECK_EQ(unplug(machine, "two", LONG, &last, &error), 0);
    machine_stop(machine);
    pthread_join(thread, NULL);
    machine_destroy(machine);
    CHECK_EQ(last.status, -ECANCELED);
    CHECK(strstr(last.text, "'two'") != NULL);
    CHECK_EQ(released[0], 1);
    CHECK_EQ(released[2], 1);
    CHECK_EQ(cards, 0);
    sem_destroy(&answer.told);
    sem_destroy(&last.told);
}

int main(void)
{
    /* A Multiboot image that halts for good. */
    static const uint32_t image[] = {0x1badb002, 0x10000, -(0x1badb002u + 0x10000u), 0x100000, 0x100000, 0, 0, 0x100020,
                                     0xfdebf4fa};
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, image, sizeof image) == (ssize_t)sizeof image);
    close(fd);
    check_registers();
    check_board();
    unlink(path);
    CHECK_DONE();
}
