/* interpret.c - the engine `interpret`: the software vCPU's loop and nothing else. */
#include "engine/soft/soft.h"

static int interpret_probe(struct error *error)
{
    (void)error;
    return 0;
}

static int interpret_vm_create(const struct engine_config *config, struct engine_vm **ret_vm, struct error *error)
{
    return soft_vm_create(config, NULL, ret_vm, error);
}

const struct engine_ops engine_interpret = {
    .name = "interpret",
    .summary = "executes one decoded instruction after another; works everywhere, slowly",
    .probe = interpret_probe,
    .vm_create = interpret_vm_create,
    SOFT_ENGINE_OPS,
};
