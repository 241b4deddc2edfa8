/* select.c - the table of engines, and which one a user gets who asked for none. */
#include "engine/engine.h"

#include <string.h>

const struct engine_ops *const engine_table[] = {&engine_kvm, &engine_translate, &engine_interpret, NULL};

const struct engine_ops *engine_find(const char *name)
{
    for (const struct engine_ops *const *engine = engine_table; *engine; engine++)
        if (strcmp((*engine)->name, name) == 0)
            return *engine;
    return NULL;
}

const struct engine_ops *engine_choose(char *ret_note, size_t note_size)
{
    const struct engine_ops *const *engine = engine_table;
    struct error passed_over = {""};
    ret_note[0] = '\0';
    for (; engine[1]; engine++) {
        struct error why;
        /* An engine that cannot run at all is no news: `veneer engines` says why. */
        if ((*engine)->probe(&why) != 0)
            continue;
        if (!(*engine)->recommend || (*engine)->recommend(&why) == 0)
            break;
        if (passed_over.text[0] == '\0')
            passed_over = why;
    }
    if (passed_over.text[0])
        snprintf(ret_note, note_size, "%.200s; using %s", passed_over.text, (*engine)->name);
    return *engine;
}
