/* main.c - replays a corpus through a fuzz target, where there is no fuzzer to drive it.
 *
 * Arguments: files, or folders whose files are replayed in the order of their names. Fails when there is no input at
 * all, so that a lost corpus is noticed. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned replayed;

static int fail(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return -1;
}

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return fail(path);
    /* Exactly as large as the input, so that a sanitizer sees a read past its end. */
    long length = -1;
    if (fseek(file, 0, SEEK_END) == 0)
        length = ftell(file);
    rewind(file);
    uint8_t *bytes = length >= 0 ? malloc(length ? (size_t)length : 1) : NULL;
    int result = -1;
    if (bytes && fread(bytes, 1, (size_t)length, file) == (size_t)length) {
        LLVMFuzzerTestOneInput(bytes, (size_t)length);
        replayed++;
        result = 0;
    } else {
        result = fail(path);
    }
    free(bytes);
    fclose(file);
    return result;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int replay_folder(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, visible, alphasort);
    if (count < 0)
        return fail(path);
    int result = 0;
    for (int i = 0; i < count; i++) {
        char *child = NULL;
        if (asprintf(&child, "%s/%s", path, entries[i]->d_name) < 0 || replay_file(child) != 0)
            result = -1;
        free(child);
        free(entries[i]);
    }
    free(entries);
    return result;
}

int main(int argc, char **argv)
{
    int result = 0;
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        if (folder)
            closedir(folder);
        if ((folder ? replay_folder(argv[i]) : replay_file(argv[i])) != 0)
            result = -1;
    }
    if (replayed == 0)
        fprintf(stderr, "no input was replayed\n");
    return result == 0 && replayed > 0 ? 0 : 1;
}
