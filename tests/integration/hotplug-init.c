/* hotplug-init.c - the guest's side of the hot-plug tests, as /init: tells on the console what comes and goes, and keeps using it
 * from a second process while it is taken away. Loads the modules of /modules first, if there are any.
 *
 * Prints "READY" at the start; "HERE SLOT VALUE" when a test function of bus 0 was seen and its first register read, "AWAY SLOT"
 * when it is gone; "DISK NAME VALUE" and "NODISK NAME" likewise, with the disk's first number; "SIZE NAME SECTORS"
 * when a disk has another size than before; "SHARE VALUE" when the share `tag` was mounted, its file `number` read, and it was
 * unmounted. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS 32
#define DEVICES "/sys/bus/pci/devices"
#define TEST_VENDOR 0x1b36
#define TEST_DEVICE 0x00fe

static unsigned read_hex(const char *device, const char *file)
{
    char path[256], text[32] = "";
    snprintf(path, sizeof path, DEVICES "/%s/%s", device, file);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    if (read(fd, text, sizeof text - 1) < 0)
        text[0] = 0;
    close(fd);
    return (unsigned)strtoul(text, NULL, 16);
}

static volatile uint32_t *map_registers(const char *device)
{
    char path[256];
    snprintf(path, sizeof path, DEVICES "/%s/enable", device);
    int fd = open(path, O_WRONLY);
    if (fd >= 0) {
        if (write(fd, "1", 1) != 1)
            printf("cannot enable %s\n", device);
        close(fd);
    }
    snprintf(path, sizeof path, DEVICES "/%s/resource0", device);
    fd = open(path, O_RDWR | O_SYNC);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    return map == MAP_FAILED ? NULL : map;
}

/* Reads until the mapping is taken away, which ends the process by a signal. */
static pid_t start_reader(volatile uint32_t *registers)
{
    pid_t pid = fork();
    if (pid == 0) {
        for (;;) {
            registers[1] = registers[0];
            usleep(200);
        }
    }
    return pid;
}

static void look(unsigned *here, unsigned *readers)
{
    unsigned now = 0;
    DIR *folder = opendir(DEVICES);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        unsigned slot;
        if (sscanf(entry->d_name, "0000:00:%x.0", &slot) != 1 || slot >= SLOTS)
            continue;
        if (read_hex(entry->d_name, "vendor") != TEST_VENDOR || read_hex(entry->d_name, "device") != TEST_DEVICE)
            continue;
        if (*here >> slot & 1) {
            now |= 1u << slot;
            continue;
        }
        volatile uint32_t *registers = map_registers(entry->d_name);
        if (!registers)
            continue; /* looked at between its arrival and its end; or it is not set up yet */
        now |= 1u << slot;
        printf("HERE %u %x\n", slot, registers[0]);
        readers[slot] = (unsigned)start_reader(registers);
        munmap((void *)registers, 4096);
    }
    if (folder)
        closedir(folder);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        if (!(*here & ~now & 1u << slot))
            continue;
        kill((pid_t)readers[slot], SIGKILL);
        waitpid((pid_t)readers[slot], NULL, 0);
        printf("AWAY %u\n", slot);
    }
    *here = now;
}

/* ---- disks and shares ---- */

#define DISKS 4
#define BLOCK 4096

/* Writes behind the first block until the disk is gone. */
static pid_t start_writer(int fd)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    static char block[BLOCK] __attribute__((aligned(BLOCK)));
    for (long i = 0;; i = (i + 1) % 64) {
        memset(block, (int)i, sizeof block);
        if (pwrite(fd, block, sizeof block, BLOCK + i * BLOCK) != BLOCK)
            _exit(0);
    }
}

/* The writer's process, or 0 when the disk cannot be read yet. */
static pid_t use_disk(const char *name)
{
    static char block[BLOCK] __attribute__((aligned(BLOCK)));
    char path[32];
    snprintf(path, sizeof path, "/dev/%s", name);
    int fd = open(path, O_RDWR | O_DIRECT);
    if (fd < 0)
        return 0;
    pid_t pid = 0;
    if (pread(fd, block, sizeof block, 0) == BLOCK) {
        printf("DISK %s %x\n", name, *(const unsigned *)block);
        pid = start_writer(fd);
    }
    close(fd);
    return pid;
}

/* Says when a disk has got another size than it had. */
static void look_at_size(const char *name, unsigned *last)
{
    char path[40];
    unsigned sectors = 0;
    snprintf(path, sizeof path, "/sys/block/%s/size", name);
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    if (fscanf(file, "%u", &sectors) == 1 && sectors != 0 && sectors != *last) {
        printf("SIZE %s %u\n", name, sectors);
        *last = sectors;
    }
    fclose(file);
}

static void look_at_disks(pid_t *writer)
{
    static unsigned sectors[DISKS];
    for (unsigned i = 0; i < DISKS; i++) {
        char name[] = "vda", path[32];
        name[2] = (char)(name[2] + i);
        snprintf(path, sizeof path, "/sys/block/%s", name);
        bool here = access(path, F_OK) == 0;
        if (here && !writer[i])
            writer[i] = use_disk(name);
        if (here)
            look_at_size(name, &sectors[i]);
        if (here || !writer[i])
            continue;
        waitpid(writer[i], NULL, 0);
        writer[i] = 0;
        sectors[i] = 0;
        printf("NODISK %s\n", name);
    }
}

static void look_at_share(unsigned *last)
{
    char text[16] = "";
    if (mount("tag", "/mnt", "virtiofs", 0, NULL) < 0)
        return;
    int fd = open("/mnt/number", O_RDONLY);
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0) {
        unsigned number = (unsigned)strtoul(text, NULL, 16);
        if (number != *last)
            printf("SHARE %x\n", number);
        *last = number;
    }
    if (fd >= 0)
        close(fd);
    if (umount("/mnt") < 0)
        printf("umount: %s\n", strerror(errno));
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* Returns how many there were. */
static int load_modules(void)
{
    struct dirent **entry;
    int n = scandir("/modules", &entry, NULL, by_name), loaded = 0;
    for (int i = 0; i < n; i++) {
        char path[300];
        snprintf(path, sizeof path, "/modules/%s", entry[i]->d_name);
        int fd = entry[i]->d_name[0] == '.' ? -1 : open(path, O_RDONLY);
        if (fd < 0)
            continue;
        if (syscall(SYS_finit_module, fd, "", 0) < 0)
            printf("module %s: %s\n", entry[i]->d_name, strerror(errno));
        loaded++;
        close(fd);
    }
    return loaded;
}

int main(void)
{
    static unsigned here, readers[SLOTS], share;
    static pid_t writers[DISKS];
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    bool devices = load_modules() > 0;
    printf("READY\n");
    for (;;) {
        look(&here, readers);
        if (devices) {
            look_at_disks(writers);
            look_at_share(&share);
        }
        usleep(2000);
    }
}
