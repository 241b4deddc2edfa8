/* init.c - the /init of the long tests: says that it runs, has every CPU do a little, and powers the machine off. */
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILDREN 8
#define PAGES 256

/* Page faults, system calls and switches between processes. */
static int child(int number)
{
    static volatile char page[PAGES][4096];
    unsigned sum = 0;

    for (int round = 0; round < 4; round++)
        for (int i = 0; i < PAGES; i++)
            page[i][0] = (char)(page[i][0] + number + i + (int)(getppid() & 1));
    for (int i = 0; i < PAGES; i++)
        sum += (unsigned char)page[i][0];
    return sum == 0;
}

int main(void)
{
    int failed = 0;

    mount("proc", "/proc", "proc", 0, NULL);
    for (int i = 1; i <= CHILDREN; i++)
        if (fork() == 0)
            _exit(child(i));
    for (int status; wait(&status) > 0;)
        failed += status != 0;
    printf("LONG-INIT %s, %ld CPUs\n", failed ? "failed" : "ok", sysconf(_SC_NPROCESSORS_ONLN));
    fflush(stdout);
    reboot(RB_POWER_OFF);
    return 1;
}
