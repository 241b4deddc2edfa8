/* virtio_pci.c - see virtio_pci.h. The board's lock is held in every function but those of transport_ops that say otherwise.
 *
 * Reset (2.4.1, 4.1.4.3.1): writing 0 to the status starts it, and the status reads as it was until the I/O thread has let go of
 * the guest's memory; then everything is as at power-on and it reads 0. While that lasts, what the driver writes is
 * ignored. So no vCPU waits here, and no byte is written to memory that the driver has back.
 *
 *   running: DRIVER_OK was set and no reset has ended since. resetting: a reset has begun and not ended (running is still set).
 *
 * Fields of queues are taken only while not running: the I/O thread reads them without a lock (virtio_private.h). */
#include "device/virtio/virtio_pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "device/virtio/virtio_pci_private.h"

#define VENDOR 0x1af4u
#define DEVICE_BASE 0x1040u /* 4.1.2 */
#define BAR_MSIX 1u
#define BAR_REGISTERS 4u
#define PAGE 0x1000u
#define NOTIFY_MULTIPLIER 4u

/* The BAR's structures, a page each; 4.1.4. */
enum { AT_COMMON = 0, AT_ISR = PAGE, AT_DEVICE = 2 * PAGE, AT_NOTIFY = 3 * PAGE, REGISTERS_SIZE = 4 * PAGE };
enum { CAP_VENDOR = 0x09, CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_PCI = 5 };
/* struct virtio_pci_cap; 4.1.4. */
enum { CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_EXTRA = 16, CAP_SIZE = 16 };
/* struct virtio_pci_common_cfg; 4.1.4.3. */
enum { C_DEVICE_SELECT = 0x00, C_DEVICE_FEATURE = 0x04, C_DRIVER_SELECT = 0x08, C_DRIVER_FEATURE = 0x0c, C_CONFIG_VECTOR = 0x10,
       C_QUEUES = 0x12, C_STATUS = 0x14, C_GENERATION = 0x15, C_QUEUE_SELECT = 0x16, C_QUEUE_SIZE = 0x18, C_QUEUE_VECTOR = 0x1a,
       C_QUEUE_ENABLE = 0x1c, C_QUEUE_NOTIFY = 0x1e, C_QUEUE_DESC = 0x20, C_QUEUE_DRIVER = 0x28, C_QUEUE_DEVICE = 0x30,
       C_END = 0x38 };
enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

static struct virtio_pci *of_transport(const struct virtio_transport *transport)
{
    return (struct virtio_pci *)((uintptr_t)transport - offsetof(struct virtio_pci, transport));
}

static struct virtio_pci *of_function(const struct pci_function *function)
{
    return (struct virtio_pci *)((uintptr_t)function - offsetof(struct virtio_pci, function));
}

/* ---- interrupts ---- */

/* 4.1.4.5: with MSI-X the ISR bits are not needed, and a vector may be none. */
static void interrupt(struct virtio_pci *pci, uint8_t isr, uint16_t vector)
{
    if (pci_msix_enabled(&pci->function)) {
        if (vector != VIRTIO_PCI_NO_VECTOR)
            pci_msix_notify(&pci->function, vector);
        return;
    }
    pci->isr |= isr;
    pci_intx(&pci->function, 1);
}

static void lock(struct virtio_pci *pci)
{
    pci->virtio->env.lock(pci->virtio->env.owner);
}

static void unlock(struct virtio_pci *pci)
{
    pci->virtio->env.unlock(pci->virtio->env.owner);
}

static void transport_interrupt(struct virtio_transport *transport, unsigned queue)
{
    struct virtio_pci *pci = of_transport(transport);
    lock(pci);
    if (pci->running && !pci->resetting)
        interrupt(pci, ISR_QUEUE, pci->queue_vector[queue]);
    unlock(pci);
}

/* The lock is held. 2.5: the driver sees that it must read the configuration again. */
static void transport_config_changed(struct virtio_transport *transport)
{
    struct virtio_pci *pci = of_transport(transport);
    pci->generation++;
    if (pci->running && !pci->resetting)
        interrupt(pci, ISR_CONFIG, pci->config_vector);
}

static void transport_needs_reset(struct virtio_transport *transport)
{
    struct virtio_pci *pci = of_transport(transport);
    lock(pci);
    if (pci->running && !pci->resetting && !(pci->status & VIRTIO_NEEDS_RESET)) {
        pci->status |= VIRTIO_NEEDS_RESET;
        interrupt(pci, ISR_CONFIG, pci->config_vector);
    }
    unlock(pci);
}

/* ---- reset ---- */

static void power_on_state(struct virtio_pci *pci)
{
    struct virtio_device *virtio = pci->virtio;
    pci->status = pci->isr = 0;
    pci->device_select = pci->driver_select = 0;
    pci->driver_features = 0;
    pci->queue_select = 0;
    pci->config_vector = VIRTIO_PCI_NO_VECTOR;
    pci->running = pci->resetting = false;
    atomic_store(&virtio->driver_features, 0);
    for (unsigned i = 0; i < virtio->queues; i++) {
        virtio->queue[i]->setup = (struct virtqueue_setup){.size = (uint16_t)virtio->queue[i]->size_max};
        pci->queue_vector[i] = VIRTIO_PCI_NO_VECTOR;
    }
    pci_intx(&pci->function, 0);
}

void virtio_pci_begin_reset(struct virtio_pci *pci)
{
    if (!pci->running) {
        power_on_state(pci);
    } else if (!pci->resetting) {
        pci->resetting = true;
        virtio_io_control(pci->virtio, VIRTIO_IO_STOP);
    }
}

static void transport_stopped(struct virtio_transport *transport)
{
    struct virtio_pci *pci = of_transport(transport);
    lock(pci);
    power_on_state(pci);
    bool gone = pci->gone;
    unlock(pci);
    if (gone)
        virtio_io_control(pci->virtio, VIRTIO_IO_GONE);
}

static void transport_gone(struct virtio_transport *transport)
{
    struct virtio_pci *pci = of_transport(transport);
    pci->gone(pci->gone_context);
}

static const struct virtio_transport_ops transport_ops = {
    .interrupt = transport_interrupt,
    .config_changed = transport_config_changed,
    .needs_reset = transport_needs_reset,
    .stopped = transport_stopped,
    .gone = transport_gone,
};

/* ---- the common structure ---- */

static struct virtqueue *selected(const struct virtio_pci *pci)
{
    return pci->queue_select < pci->virtio->queues ? pci->virtio->queue[pci->queue_select] : NULL;
}

static void put(uint8_t *image, unsigned offset, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        image[offset + i] = (uint8_t)(value >> (8 * i));
}

/* A select past 1 shows no features: there are 64. */
static uint32_t feature_word(uint64_t features, uint32_t select)
{
    return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

/* A queue that does not exist has size 0 (4.1.4.3.1). */
static void common_image(const struct virtio_pci *pci, uint8_t image[C_END])
{
    const struct virtqueue *queue = selected(pci);
    memset(image, 0, C_END);
    put(image, C_DEVICE_SELECT, pci->device_select, 4);
    put(image, C_DEVICE_FEATURE, feature_word(pci->virtio->offered, pci->device_select), 4);
    put(image, C_DRIVER_SELECT, pci->driver_select, 4);
    put(image, C_DRIVER_FEATURE, feature_word(pci->driver_features, pci->driver_select), 4);
    put(image, C_CONFIG_VECTOR, pci->config_vector, 2);
    put(image, C_QUEUES, pci->virtio->queues, 2);
    put(image, C_STATUS, pci->status, 1);
    put(image, C_GENERATION, pci->generation, 1);
    put(image, C_QUEUE_SELECT, pci->queue_select, 2);
    if (!queue)
        return;
    put(image, C_QUEUE_SIZE, queue->setup.size, 2);
    put(image, C_QUEUE_VECTOR, pci->queue_vector[queue->index], 2);
    put(image, C_QUEUE_ENABLE, queue->setup.enabled, 2);
    put(image, C_QUEUE_NOTIFY, queue->index, 2);
    put(image, C_QUEUE_DESC, queue->setup.descriptors, 8);
    put(image, C_QUEUE_DRIVER, queue->setup.driver, 8);
    put(image, C_QUEUE_DEVICE, queue->setup.device, 8);
}

static uint64_t bytes_at(const uint8_t *image, unsigned limit, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size && offset + i < limit; i++)
        value |= (uint64_t)image[offset + i] << (8 * i);
    return value;
}

/* The driver must accept VERSION_1 and nothing that was not offered; else FEATURES_OK stays clear (3.1.1). */
bool virtio_pci_features_fit(const struct virtio_pci *pci)
{
    return !(pci->driver_features & ~pci->virtio->offered) &&
           (pci->driver_features & VIRTIO_BIT(VIRTIO_F_VERSION_1));
}

/* 2.1: the driver sets bits one after another, and clears them only by a reset. */
static void write_status(struct virtio_pci *pci, uint8_t value)
{
    uint8_t was = pci->status;
    if (value == 0) {
        virtio_pci_begin_reset(pci);
        return;
    }
    value &= VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_FAILED;
    if (!(was & VIRTIO_FEATURES_OK) && (value & VIRTIO_FEATURES_OK)) {
        if (virtio_pci_features_fit(pci))
            atomic_store(&pci->virtio->driver_features, pci->driver_features);
        else
            value &= (uint8_t)~VIRTIO_FEATURES_OK;
    }
    pci->status |= value;
    if (!(pci->status & VIRTIO_FEATURES_OK))
        pci->status &= (uint8_t)~VIRTIO_DRIVER_OK;
    if (!pci->running && (pci->status & VIRTIO_DRIVER_OK)) {
        pci->running = true;
        virtio_io_control(pci->virtio, VIRTIO_IO_START);
    }
}

static void write_features(struct virtio_pci *pci, uint32_t value)
{
    unsigned shift = 32 * pci->driver_select;
    if (pci->driver_select >= 2 || (pci->status & VIRTIO_FEATURES_OK))
        return;
    pci->driver_features = (pci->driver_features & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)value << shift;
}

static uint16_t vector(const struct virtio_pci *pci, uint64_t value)
{
    return value < pci->function.msix.vectors ? (uint16_t)value : VIRTIO_PCI_NO_VECTOR;
}

/* Split rings need a power of two; packed ones do not (2.7, 2.8.10.1). Until the features are settled either may come. */
static void write_queue_size(struct virtio_pci *pci, struct virtqueue *queue, uint16_t size)
{
    bool packed = pci->driver_features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    if (size > 0 && size <= queue->size_max && (packed || !(size & (size - 1))))
        queue->setup.size = size;
}

static void put_half(uint64_t *address, unsigned high, uint32_t value)
{
    *address = high ? (*address & UINT32_MAX) | (uint64_t)value << 32 : (*address & ~UINT64_C(0xffffffff)) | value;
}

static void write_queue(struct virtio_pci *pci, struct virtqueue *queue, unsigned offset, uint32_t value)
{
    if (offset == C_QUEUE_VECTOR)
        pci->queue_vector[queue->index] = vector(pci, value & 0xffff);
    if (pci->running || queue->setup.enabled)
        return;
    switch (offset) {
    case C_QUEUE_SIZE: write_queue_size(pci, queue, (uint16_t)value); break;
    case C_QUEUE_ENABLE: queue->setup.enabled = value == 1; break;
    case C_QUEUE_DESC: case C_QUEUE_DESC + 4: put_half(&queue->setup.descriptors, offset & 4, value); break;
    case C_QUEUE_DRIVER: case C_QUEUE_DRIVER + 4: put_half(&queue->setup.driver, offset & 4, value); break;
    case C_QUEUE_DEVICE: case C_QUEUE_DEVICE + 4: put_half(&queue->setup.device, offset & 4, value); break;
    default: break;
    }
}

/* Fields are written in their own width, 64-bit ones also by halves (4.1.3.1); anything else does nothing. */
static void write_common(struct virtio_pci *pci, unsigned offset, unsigned size, uint64_t value)
{
    static const uint8_t width[C_END] = {
        [C_DEVICE_SELECT] = 4, [C_DRIVER_SELECT] = 4, [C_DRIVER_FEATURE] = 4, [C_CONFIG_VECTOR] = 2, [C_STATUS] = 1,
        [C_QUEUE_SELECT] = 2, [C_QUEUE_SIZE] = 2, [C_QUEUE_VECTOR] = 2, [C_QUEUE_ENABLE] = 2, [C_QUEUE_DESC] = 4,
        [C_QUEUE_DESC + 4] = 4, [C_QUEUE_DRIVER] = 4, [C_QUEUE_DRIVER + 4] = 4, [C_QUEUE_DEVICE] = 4, [C_QUEUE_DEVICE + 4] = 4};
    if (size == 8 && offset < C_END - 4) {
        write_common(pci, offset, 4, value & UINT32_MAX);
        write_common(pci, offset + 4, 4, value >> 32);
        return;
    }
    if (offset >= C_END || width[offset] != size || pci->resetting)
        return;
    switch (offset) {
    case C_DEVICE_SELECT: pci->device_select = (uint32_t)value; break;
    case C_DRIVER_SELECT: pci->driver_select = (uint32_t)value; break;
    case C_DRIVER_FEATURE: write_features(pci, (uint32_t)value); break;
    case C_CONFIG_VECTOR: pci->config_vector = vector(pci, value & 0xffff); break;
    case C_STATUS: write_status(pci, (uint8_t)value); break;
    case C_QUEUE_SELECT: pci->queue_select = (uint16_t)value; break;
    default:
        if (selected(pci))
            write_queue(pci, selected(pci), offset, (uint32_t)value);
    }
}

/* ---- the other structures ---- */

static void notify(struct virtio_pci *pci, uint64_t offset)
{
    unsigned queue = (unsigned)(offset / NOTIFY_MULTIPLIER);
    if (offset % NOTIFY_MULTIPLIER == 0 && queue < pci->virtio->queues && pci->running && !pci->resetting)
        virtio_io_kick(pci->virtio, queue);
}

/* 4.1.4.5: reading the ISR clears it and takes the line back. */
static uint64_t read_isr(struct virtio_pci *pci)
{
    uint8_t isr = pci->isr;
    pci->isr = 0;
    pci_intx(&pci->function, 0);
    return isr;
}

static void write_device_config(struct virtio_pci *pci, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_device *virtio = pci->virtio;
    bool changed = false;
    for (unsigned i = 0; i < size && offset + i < virtio->config_size; i++) {
        uint8_t mask = virtio->config_writable[offset + i], *byte = &virtio->config[offset + i];
        *byte = (uint8_t)((*byte & ~mask) | ((uint8_t)(value >> (8 * i)) & mask));
        changed |= mask != 0;
    }
    if (!changed)
        return;
    if (virtio->ops->config_stored)
        virtio->ops->config_stored(virtio, (unsigned)offset, size);
    virtio_io_control(virtio, VIRTIO_IO_CONFIG);
}

static uint64_t registers_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    struct virtio_pci *pci = virtio_pci_of(device);
    uint8_t image[C_END];
    (void)region;
    switch (offset & ~(uint64_t)(PAGE - 1)) {
    case AT_COMMON:
        common_image(pci, image);
        return bytes_at(image, C_END, offset, size);
    case AT_ISR:
        return offset == AT_ISR ? read_isr(pci) : 0;
    case AT_DEVICE:
        return bytes_at(pci->virtio->config, pci->virtio->config_size, offset - AT_DEVICE, size);
    default:
        return 0;
    }
}

static void registers_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *pci = virtio_pci_of(device);
    (void)region;
    switch (offset & ~(uint64_t)(PAGE - 1)) {
    case AT_COMMON: write_common(pci, (unsigned)offset, size, value); break;
    case AT_DEVICE: write_device_config(pci, offset - AT_DEVICE, size, value); break;
    case AT_NOTIFY: notify(pci, offset - AT_NOTIFY); break;
    default: break;
    }
}

/* ---- PCI configuration space ---- */

static uint32_t config32(const struct pci_function *function, unsigned offset)
{
    return (uint32_t)bytes_at(function->config, PCI_CONFIG_SIZE, offset, 4);
}

/* 4.1.4.9: the window through which firmware reaches the BAR. False when it does not point at a register. */
static bool window(const struct virtio_pci *pci, unsigned offset, unsigned size, uint32_t *ret_offset, uint32_t *ret_length)
{
    unsigned data = pci->window + CAP_EXTRA;
    if (offset < data || offset >= data + 4 || size > 4)
        return false;
    uint32_t at = config32(&pci->function, pci->window + CAP_OFFSET), length = config32(&pci->function, pci->window + CAP_LENGTH);
    if (pci->function.config[pci->window + CAP_BAR] != BAR_REGISTERS || (length != 1 && length != 2 && length != 4) ||
        at % length || !range_within(at, length, REGISTERS_SIZE))
        return false;
    *ret_offset = at;
    *ret_length = length;
    return true;
}

static void config_read(struct pci_function *function, unsigned offset, unsigned size)
{
    struct virtio_pci *pci = of_function(function);
    uint32_t at, length;
    if (window(pci, offset, size, &at, &length))
        put(function->config, pci->window + CAP_EXTRA, registers_read(&pci->device, 0, at, length), 4);
}

static void config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    struct virtio_pci *pci = of_function(function);
    uint32_t at, length;
    virtio_io_allow(pci->virtio, pci_bus_master(function));
    if (window(pci, offset, size, &at, &length)) {
        uint32_t value = config32(function, pci->window + CAP_EXTRA);
        registers_write(&pci->device, 0, at, length, length == 4 ? value : value & ((1u << (8 * length)) - 1));
    }
}

/* Returns the capability's offset, or a negative errno. */
static int add_capability(struct virtio_pci *pci, uint8_t type, uint32_t offset, uint32_t length, unsigned extra)
{
    struct pci_function *function = &pci->function;
    int at = pci_capability(function, CAP_VENDOR, CAP_SIZE + extra);
    if (at < 0)
        return at;
    function->config[at + 2] = (uint8_t)(CAP_SIZE + extra);
    function->config[at + CAP_TYPE] = type;
    function->config[at + CAP_BAR] = BAR_REGISTERS;
    put(function->config, (unsigned)at + CAP_OFFSET, offset, 4);
    put(function->config, (unsigned)at + CAP_LENGTH, length, 4);
    return at;
}

static int describe(struct virtio_pci *pci)
{
    struct pci_function *function = &pci->function;
    *function = (struct pci_function){.vendor = VENDOR, .id = (uint16_t)(DEVICE_BASE + pci->virtio->ops->id),
        .subsystem_vendor = VENDOR, .subsystem = 0x1100, .class_code = pci->virtio->ops->class_code, .revision = 1,
        .interrupt_pin = 1, .config_read = config_read, .config_written = config_written};
    pci_function_init(function);
    int status = pci_bar_memory(function, BAR_REGISTERS, REGISTERS_SIZE, true, false, &pci->device, 0);
    if (status == 0)
        status = pci_msix_add(function, BAR_MSIX, pci->virtio->queues + 1);
    if (status == 0)
        status = add_capability(pci, CAP_COMMON, AT_COMMON, C_END, 0);
    if (status >= 0)
        status = add_capability(pci, CAP_ISR, AT_ISR, 1, 0);
    if (status >= 0 && pci->virtio->config_size)
        status = add_capability(pci, CAP_DEVICE, AT_DEVICE, pci->virtio->config_size, 0);
    if (status >= 0)
        status = add_capability(pci, CAP_NOTIFY, AT_NOTIFY, pci->virtio->queues * NOTIFY_MULTIPLIER, 4);
    if (status < 0)
        return status;
    put(function->config, (unsigned)status + CAP_EXTRA, NOTIFY_MULTIPLIER, 4);
    status = add_capability(pci, CAP_PCI, 0, 0, 4);
    if (status < 0)
        return status;
    pci->window = (unsigned)status;
    function->config[pci->window + CAP_BAR] = 0;
    function->writable[pci->window + CAP_BAR] = 0xff;
    memset(function->writable + pci->window + CAP_OFFSET, 0xff, 12); /* offset, length, data */
    return 0;
}

/* ---- the device on the board ---- */

void virtio_pci_reset(struct device *device)
{
    struct virtio_pci *pci = virtio_pci_of(device);
    pci_function_reset(&pci->function);
    virtio_io_allow(pci->virtio, false);
    virtio_pci_begin_reset(pci);
}

static void pci_destroy(struct device *device)
{
    struct virtio_pci *pci = virtio_pci_of(device);
    pci_remove(&pci->function);
    virtio_device_destroy(pci->virtio);
    free(pci);
}

int virtio_pci_new(struct virtio_device *virtio, unsigned instance, struct device **ret_device, struct error *error)
{
    static const struct device_ops ops = {.name = "virtio-pci", .reset = virtio_pci_reset, .read = registers_read,
                                          .write = registers_write, .save = virtio_pci_save, .load = virtio_pci_load, .destroy = pci_destroy};
    struct virtio_pci *pci = calloc(1, sizeof *pci);
    if (!pci) {
        virtio_device_destroy(virtio);
        return error_set(error, ENOMEM, "no memory for a virtio device");
    }
    pci->device.ops = &ops;
    pci->transport.ops = &transport_ops;
    pci->virtio = virtio;
    pci->instance = instance;
    int status = describe(pci);
    if (status < 0) {
        pci_destroy(&pci->device);
        return error_set(error, -status, "%s: %s", virtio->ops->name, strerror(-status));
    }
    power_on_state(pci);
    virtio->transport = &pci->transport;
    *ret_device = &pci->device;
    return 0;
}

struct pci_function *virtio_pci_function(struct device *device)
{
    return &virtio_pci_of(device)->function;
}

struct virtio_device *virtio_pci_virtio(struct device *device)
{
    return virtio_pci_of(device)->virtio;
}

void virtio_pci_unplug(struct device *device, void (*gone)(void *context), void *context)
{
    struct virtio_pci *pci = virtio_pci_of(device);
    pci_remove(&pci->function);
    pci->gone = gone;
    pci->gone_context = context;
    if (pci->running)
        virtio_pci_begin_reset(pci);
    else
        virtio_io_control(pci->virtio, VIRTIO_IO_GONE);
}
