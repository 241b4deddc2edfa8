#include "base/codemem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u
#define ALIGNMENT 16u

int codemem_open(struct codemem *ret_codemem, size_t size, struct error *error)
{
    size = (size + PAGE - 1) & ~(size_t)(PAGE - 1);
    int fd = memfd_create("veneer-code", MFD_CLOEXEC);
    if (fd < 0)
        return error_set(error, errno, "making code memory: %s", strerror(errno));
    void *write = MAP_FAILED, *exec = MAP_FAILED;
    if (ftruncate(fd, (off_t)size) == 0) {
        write = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        exec = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    int code = errno;
    close(fd); /* the mappings keep it */
    if (write == MAP_FAILED || exec == MAP_FAILED) {
        if (write != MAP_FAILED)
            munmap(write, size);
        if (exec != MAP_FAILED)
            munmap(exec, size);
        return error_set(error, code, "mapping %zu bytes of code memory: %s", size, strerror(code));
    }
    *ret_codemem = (struct codemem){.write = write, .exec = exec, .size = size};
    return 0;
}

void codemem_close(struct codemem *codemem)
{
    if (!codemem || !codemem->write)
        return;
    munmap(codemem->write, codemem->size);
    munmap((void *)(uintptr_t)codemem->exec, codemem->size);
    *codemem = (struct codemem){0};
}

ptrdiff_t codemem_take(struct codemem *codemem, size_t length)
{
    size_t start = (codemem->used + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (start > codemem->size || length > codemem->size - start)
        return -ENOSPC;
    codemem->used = start + length;
    return (ptrdiff_t)start;
}
