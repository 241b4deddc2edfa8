/* Code memory: what is written through one mapping runs through the other, and neither allows both. */
#include "base/codemem.h"

#include <stdlib.h>

#include "check.h"

int main(void)
{
    static const uint8_t answer[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */
    struct codemem code;
    struct error error;
    CHECK_EQ(codemem_open(&code, 5000, &error), 0);
    CHECK_EQ(code.size, 8192);
    CHECK_EQ(codemem_take(&code, 3), 0);
    ptrdiff_t at = codemem_take(&code, sizeof answer);
    CHECK_EQ(at, 16);
    memcpy(code.write + at, answer, sizeof answer);
    int (*call)(void);
    const void *entry = code.exec + at;
    memcpy(&call, &entry, sizeof call);
    CHECK_EQ(call(), 42);
    CHECK(codemem_take(&code, 8192) < 0);
    CHECK(codemem_take(&code, SIZE_MAX) < 0);

    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, "veneer-code"))
            CHECK(!strstr(line, "rwx"));
    if (maps)
        fclose(maps);
    codemem_close(&code);
    codemem_close(&code);
    codemem_close(NULL);
    CHECK_DONE();
}
