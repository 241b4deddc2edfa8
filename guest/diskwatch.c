/* diskwatch.c - how large a virtio disk is, asked of Linux and of the device itself while the driver comes and goes. A static Linux program.
 *
 *   diskwatch DEVICE PCI SECTORS
 *       asks both again and again until it gets SIGTERM; PCI is the device's function in sysfs, whose registers Linux hands
 *       out when it was booted with iomem=relaxed. Prints what each said. Ends with status 1 if the device ever said
 *       anything but SECTORS, or Linux anything but SECTORS or 0.
 *
 * Linux sets a disk's size to 0 when it deletes the disk (del_gendisk), so whoever had it open finds it empty. */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CAPABILITIES 0x34u
#define VENDOR_SPECIFIC 9u
#define DEVICE_CONFIG 4u /* VIRTIO_PCI_CAP_DEVICE_CFG; virtio 1.2, 4.1.4 */

static volatile sig_atomic_t told;

static void tell(int signal)
{
    (void)signal;
    told = 1;
}

static void fail(const char *what)
{
    perror(what);
    exit(2);
}

static uint32_t word(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* The registers of the device's own configuration, which begin with a disk's capacity (5.2.4). */
static const volatile uint32_t *map_config(const char *pci)
{
    char path[256];
    uint8_t space[256];
    snprintf(path, sizeof path, "%s/config", pci);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, space, sizeof space) != sizeof space)
        fail(path);
    close(fd);
    for (unsigned at = space[CAPABILITIES], i = 0; at >= 0x40 && at <= 0xf0 && i < 48; at = space[at + 1], i++) {
        if (space[at] != VENDOR_SPECIFIC || space[at + 3] != DEVICE_CONFIG)
            continue;
        uint32_t offset = word(space + at + 8);
        snprintf(path, sizeof path, "%s/resource%u", pci, space[at + 4]);
        fd = open(path, O_RDWR);
        uint8_t *page = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset & ~4095u);
        if (page == MAP_FAILED)
            fail(path);
        return (const volatile uint32_t *)(const void *)(page + (offset & 4095));
    }
    fprintf(stderr, "diskwatch: %s is no virtio function\n", pci);
    exit(2);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return fprintf(stderr, "usage: diskwatch DEVICE PCI SECTORS\n"), 2;
    uint64_t sectors = strtoull(argv[3], NULL, 10), asked = 0, emptied = 0, other_device = 0, other_linux = 0, last = 0;
    const volatile uint32_t *capacity = map_config(argv[2]);
    int disk = -1;
    signal(SIGTERM, tell);
    while (!told) {
        uint64_t size = sectors * 512;
        if (disk < 0)
            disk = open(argv[1], O_RDONLY | O_CLOEXEC);
        if (disk >= 0 && ioctl(disk, BLKGETSIZE64, &size) < 0)
            fail(argv[1]);
        uint64_t said = capacity[0] | (uint64_t)capacity[1] << 32; /* asked after Linux: it has had its reason */
        asked++;
        if (said != sectors) {
            last = said;
            other_device++;
        }
        if (size == 0) {
            emptied++;
            close(disk);
            disk = -1;
        } else if (size != sectors * 512) {
            other_linux++;
        }
        usleep(50);
    }
    printf("diskwatch: the device said %" PRIu64 " sectors %" PRIu64 " of %" PRIu64 " times; Linux emptied the disk %" PRIu64 " times\n",
           sectors, asked - other_device, asked, emptied);
    if (other_device)
        printf("diskwatch: the device differs from that, last by %" PRIu64 " sectors\n", last);
    if (other_linux)
        printf("diskwatch: Linux's size differs from that %" PRIu64 " times\n", other_linux);
    return other_device || other_linux;
}
