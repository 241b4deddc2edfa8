/* agent_client.c - any bytes as what a hostile guest's agent sends to the host, in pieces of any size. */
#include <stdlib.h>
#include <string.h>

#include "host/agent_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct agent_client client;
    struct error error = {""};
    agent_client_init(&client);
    size_t at = 0;
    while (at < size) {
        size_t piece = 1 + data[at] % 64u * 16u;
        at++;
        if (piece > size - at)
            piece = size - at;
        uint8_t *copy = malloc(piece ? piece : 1);
        if (piece)
            memcpy(copy, data + at, piece);
        int r = agent_client_take(&client, copy, piece, &error);
        free(copy);
        at += piece;
        if (r < 0 && !error.text[0])
            abort();
        if (r < 0)
            break;
        for (enum agent_stream i = AGENT_STDOUT; i < AGENT_STREAMS; i++) {
            if (client.output[i].used > AGENT_WINDOW || client.allowed[i] > AGENT_WINDOW)
                abort();
            if (piece % 2 && agent_client_passed(&client, i, client.output[i].used / 2) < 0)
                abort();
        }
        if (client.window > AGENT_WINDOW || client.status < 0 || client.status > 255 + AGENT_STATUS_SIGNAL)
            abort();
    }
    agent_client_free(&client);
    return 0;
}
