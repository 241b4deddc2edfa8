/* hotplug-init.c - the guest's side of the hot-plug test, as /init: tells on the console which test functions of bus 0
 * come and go, reads their registers, and keeps reading from a second process while they are taken away.
 *
 * Prints "HERE SLOT VALUE" when a function was seen and its first register read, "AWAY SLOT" when it is gone, and
 * "READY" at the start. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
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

int main(void)
{
    static unsigned here, readers[SLOTS];
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("READY\n");
    for (;;) {
        look(&here, readers);
        usleep(2000);
    }
}
