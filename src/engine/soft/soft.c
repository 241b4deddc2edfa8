/* soft.c - the operations that software engines share, and the world behind each core. */
#include "engine/soft/soft.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/soft/vcpu.h"
#include "isa/x86/paging.h"

static void post(struct engine_vcpu *vcpu, uint32_t bit)
{
    atomic_fetch_or(&vcpu->core.attention, bit);
}

/* ---- code written to ---- */

/* A page that is put to another use is written in many small pieces, one after the other: they become one range, with what
 * lies between, which may be dropped in vain. */
static bool widen_last(struct stale_queue *stale, uint64_t gpa, unsigned length)
{
    if (stale->count == 0)
        return false;
    uint64_t first = stale->range[stale->count - 1].gpa, end = first + stale->range[stale->count - 1].length;
    if (first / RAM_PAGE_SIZE != gpa / RAM_PAGE_SIZE)
        return false;
    first = gpa < first ? gpa : first;
    end = gpa + length > end ? gpa + length : end;
    stale->range[stale->count - 1].gpa = first;
    stale->range[stale->count - 1].length = (unsigned)(end - first);
    return true;
}

static void post_stale(struct engine_vcpu *vcpu, uint64_t gpa, unsigned length)
{
    struct stale_queue *stale = &vcpu->stale;
    pthread_mutex_lock(&stale->lock);
    if (widen_last(stale, gpa, length)) {
        /* in one of those that wait */
    } else if (stale->count == STALE_RANGES) {
        stale->overflow = true;
    } else {
        stale->range[stale->count].gpa = gpa;
        stale->range[stale->count].length = length;
        stale->count++;
    }
    pthread_mutex_unlock(&stale->lock);
    post(vcpu, ATTENTION_STALE);
}

/* writer: the vCPU on whose thread this is, or NULL. The range is cut into pages. */
static void code_written(struct engine_vm *vm, struct engine_vcpu *writer, uint64_t gpa, uint64_t length)
{
    while (length) {
        uint64_t room = RAM_PAGE_SIZE - gpa % RAM_PAGE_SIZE;
        unsigned piece = (unsigned)(length < room ? length : room);
        uint64_t holders = code_map_written(&vm->map, gpa, piece);
        for (unsigned i = 0; holders; i++, holders >>= 1) {
            if (!(holders & 1) || !vm->vcpu[i])
                continue;
            if (vm->vcpu[i] != writer)
                post_stale(vm->vcpu[i], gpa, piece);
            else if (block_drop(&writer->cache, gpa, piece))
                x86_leave_block(&writer->core);
        }
        gpa += piece;
        length -= piece;
    }
}

static void ram_code_written(void *owner, uint64_t gpa, uint64_t length)
{
    code_written(owner, NULL, gpa, length);
}

/* ---- the world behind a core ---- */

static bool env_page(void *owner, uint64_t gpa, struct x86_page *ret_page)
{
    const struct engine_vcpu *vcpu = owner;
    const struct ram_region *region = ram_find(vcpu->vm->config.ram, gpa);
    if (!region)
        return false;
    uint64_t offset = gpa - region->gpa;
    ret_page->host = region->host + (offset & ~(uint64_t)(RAM_PAGE_SIZE - 1));
    ret_page->flags = &region->flags[offset / RAM_PAGE_SIZE];
    ret_page->read_only = false;
    return true;
}

/* The machine's answer to `call`, which may wait: meanwhile this vCPU counts as stopped. */
#define ASK_MACHINE(type, call, ...)                                                                         \
    struct engine_vcpu *vcpu = owner;                                                                        \
    const struct engine_config *config = &vcpu->vm->config;                                                  \
    vcpu_outside_begin(vcpu);                                                                                \
    type answer = config->machine_ops->call(config->machine, vcpu->index, __VA_ARGS__);                      \
    vcpu_outside_end(vcpu);                                                                                  \
    return answer

#define TELL_MACHINE(call, ...)                                                                              \
    struct engine_vcpu *vcpu = owner;                                                                        \
    const struct engine_config *config = &vcpu->vm->config;                                                  \
    vcpu_outside_begin(vcpu);                                                                                \
    config->machine_ops->call(config->machine, vcpu->index, __VA_ARGS__);                                    \
    vcpu_outside_end(vcpu)

static uint64_t env_mmio_read(void *owner, uint64_t gpa, unsigned size)
{
    ASK_MACHINE(uint64_t, mmio_read, gpa, size);
}

static void env_mmio_write(void *owner, uint64_t gpa, unsigned size, uint64_t value)
{
    TELL_MACHINE(mmio_write, gpa, size, value);
}

static uint32_t env_port_in(void *owner, uint16_t port, unsigned size)
{
    ASK_MACHINE(uint32_t, port_in, port, size);
}

static void env_port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
    TELL_MACHINE(port_out, port, size, value);
}

static int env_msr_read(void *owner, uint32_t msr, uint64_t *ret_value)
{
    ASK_MACHINE(int, msr_read, msr, ret_value);
}

static int env_msr_write(void *owner, uint32_t msr, uint64_t value)
{
    ASK_MACHINE(int, msr_write, msr, value);
}

static uint8_t env_tpr_read(void *owner)
{
    struct engine_vcpu *vcpu = owner;
    vcpu_outside_begin(vcpu);
    uint8_t cr8 = vcpu->vm->config.machine_ops->tpr_read(vcpu->vm->config.machine, vcpu->index);
    vcpu_outside_end(vcpu);
    return cr8;
}

static void env_tpr_write(void *owner, uint8_t cr8)
{
    TELL_MACHINE(tpr_write, cr8);
}

static void env_code_written(void *owner, uint64_t gpa, unsigned length)
{
    struct engine_vcpu *vcpu = owner;
    code_written(vcpu->vm, vcpu, gpa, length);
}

/* Blocks are proven against the TLB each time they are entered, so the loop has nothing to forget. */
static void env_mapping_changed(void *owner, enum x86_flush scope, uint64_t linear)
{
    struct engine_vcpu *vcpu = owner;
    if (vcpu->vm->tier)
        vcpu->vm->tier->mapping_changed(vcpu, scope, linear);
}

/* except: a vCPU, or NULL. */
static void prod(struct engine_vm *vm, const struct engine_vcpu *except)
{
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->vcpu[i] && vm->vcpu[i] != except)
            post(vm->vcpu[i], ATTENTION_EXCLUSIVE);
}

static void prod_others(void *context)
{
    struct engine_vcpu *vcpu = context;
    prod(vcpu->vm, vcpu);
}

static void prod_all(void *context)
{
    prod(context, NULL);
}

static void env_exclusive_begin(void *owner)
{
    struct engine_vcpu *vcpu = owner;
    exclusive_begin(&vcpu->vm->exclusive, &vcpu->member, prod_others, vcpu);
}

static void env_exclusive_end(void *owner)
{
    struct engine_vcpu *vcpu = owner;
    exclusive_end(&vcpu->vm->exclusive);
}

static uint64_t env_hypercall(void *owner, uint64_t number, const uint64_t argument[4])
{
    ASK_MACHINE(uint64_t, hypercall, number, argument);
}

static void env_tsc_moved(void *owner, uint64_t tsc_offset)
{
    if (((struct engine_vcpu *)owner)->vm->config.machine_ops->tsc_moved) {
        TELL_MACHINE(tsc_moved, tsc_offset);
    }
}

static const struct x86_env_ops env_ops = {
    .page = env_page,
    .mmio_read = env_mmio_read,
    .mmio_write = env_mmio_write,
    .port_in = env_port_in,
    .port_out = env_port_out,
    .msr_read = env_msr_read,
    .msr_write = env_msr_write,
    .tpr_read = env_tpr_read,
    .tpr_write = env_tpr_write,
    .code_written = env_code_written,
    .mapping_changed = env_mapping_changed,
    .exclusive_begin = env_exclusive_begin,
    .exclusive_end = env_exclusive_end,
    .hypercall = env_hypercall,
    .tsc_moved = env_tsc_moved,
};

/* A TLB entry that allows stores stands for a page that is marked dirty: now none is. */
static void ram_dirty_fetched(void *owner)
{
    struct engine_vm *vm = owner;
    pthread_mutex_lock(&vm->outsider_lock);
    exclusive_enter(&vm->exclusive, &vm->outsider);
    exclusive_begin(&vm->exclusive, &vm->outsider, prod_all, vm);
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->vcpu[i])
            x86_tlb_flush(&vm->vcpu[i]->core, false);
    exclusive_end(&vm->exclusive);
    exclusive_leave(&vm->exclusive, &vm->outsider);
    pthread_mutex_unlock(&vm->outsider_lock);
}

/* ---- the engine's operations ---- */

int soft_vm_create(const struct engine_config *config, const struct tier_ops *tier, struct engine_vm **ret_vm,
                   struct error *error)
{
    if (config->vcpus == 0 || config->vcpus > CODE_HOLDERS)
        return error_set(error, EINVAL, "this engine runs 1 to %u vCPUs, not %u", CODE_HOLDERS, config->vcpus);
    struct engine_vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return error_set(error, ENOMEM, "no memory for the engine's VM");
    vm->config = *config;
    vm->tier = tier;
    int result = code_map_open(&vm->map, config->ram, error);
    if (result < 0) {
        free(vm);
        return result;
    }
    exclusive_init(&vm->exclusive);
    pthread_mutex_init(&vm->outsider_lock, NULL);
    exclusive_add(&vm->exclusive, &vm->outsider);
    ram_set_code_hook(config->ram, ram_code_written, vm);
    ram_set_dirty_hook(config->ram, ram_dirty_fetched, vm);
    *ret_vm = vm;
    return 0;
}

void soft_vm_destroy(struct engine_vm *vm)
{
    if (!vm)
        return;
    ram_set_code_hook(vm->config.ram, NULL, NULL);
    ram_set_dirty_hook(vm->config.ram, NULL, NULL);
    pthread_mutex_destroy(&vm->outsider_lock);
    exclusive_destroy(&vm->exclusive);
    code_map_close(&vm->map);
    free(vm);
}

size_t soft_code_share(const struct engine_vm *vm)
{
    size_t share = vm->config.code_cache ? vm->config.code_cache / vm->config.vcpus & ~(size_t)0xffff : ENGINE_CODE_CACHE;
    return share < ENGINE_CODE_CACHE_MIN ? ENGINE_CODE_CACHE_MIN : share;
}

static size_t vcpu_size(const struct tier_ops *tier) { return tier ? tier->vcpu_size : sizeof(struct engine_vcpu); }

int soft_vcpu_create(struct engine_vm *vm, unsigned index, struct engine_vcpu **ret_vcpu,
                                 struct error *error)
{
    if (index >= vm->config.vcpus || vm->vcpu[index])
        return error_set(error, EINVAL, "there is no vCPU %u to create", index);
    size_t size = vcpu_size(vm->tier);
    /* Zeroed, and tables that are not used yet cost nothing. */
    struct engine_vcpu *vcpu = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (vcpu == MAP_FAILED)
        return error_set(error, ENOMEM, "no memory for vCPU %u", index);
    vcpu->vm = vm;
    vcpu->index = index;
    vcpu->cache.tier = vm->tier;
    vcpu->cache.vcpu = vcpu;
    int result = x86_decoder_init(&vcpu->decoder, vm->config.cpuid, error);
    if (result < 0)
        goto no_decoder;
    result = block_cache_open(&vcpu->cache, &vm->map, index, soft_code_share(vm) / (vm->tier ? 2 : 1), error);
    if (result < 0)
        goto no_cache;
    vcpu->cache.vcpu = vcpu;
    vcpu->cache.tier = vm->tier;
    if (vm->tier) {
        result = vm->tier->open(vcpu, error);
        if (result < 0)
            goto no_tier;
    }
    pthread_mutex_init(&vcpu->stale.lock, NULL);
    exclusive_add(&vm->exclusive, &vcpu->member);
    vcpu->core.env = &env_ops;
    vcpu->core.owner = vcpu;
    vcpu->core.cpuid = vm->config.cpuid;
    vcpu->core.apic_id = index;
    x86_cpu_reset(&vcpu->core.cpu, index == 0);
    x86_core_attach(&vcpu->core);
    vm->vcpu[index] = vcpu;
    *ret_vcpu = vcpu;
    return 0;
no_tier:
    block_cache_close(&vcpu->cache);
no_cache:
    x86_decoder_destroy(&vcpu->decoder);
no_decoder:
    munmap(vcpu, size);
    return result;
}

void soft_vcpu_destroy(struct engine_vcpu *vcpu)
{
    if (!vcpu)
        return;
    const struct tier_ops *tier = vcpu->vm->tier;
    vcpu->vm->vcpu[vcpu->index] = NULL;
    exclusive_remove(&vcpu->vm->exclusive, &vcpu->member);
    pthread_mutex_destroy(&vcpu->stale.lock);
    if (tier)
        tier->close(vcpu);
    block_cache_close(&vcpu->cache);
    x86_decoder_destroy(&vcpu->decoder);
    munmap(vcpu, vcpu_size(tier));
}

void soft_kick(struct engine_vcpu *vcpu)
{
    post(vcpu, ATTENTION_KICK);
}

void soft_interrupt(struct engine_vcpu *vcpu)
{
    post(vcpu, ATTENTION_INTERRUPT);
}

void soft_nmi(struct engine_vcpu *vcpu)
{
    post(vcpu, ATTENTION_NMI);
}

/* An NMI that was posted but not yet seen by the loop belongs to the state. */
int soft_get_state(struct engine_vcpu *vcpu, struct x86_cpu *ret_cpu, struct error *error)
{
    (void)error;
    *ret_cpu = vcpu->core.cpu;
    if (atomic_load(&vcpu->core.attention) & ATTENTION_NMI)
        ret_cpu->nmi_pending = true;
    return 0;
}

int soft_set_state(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, struct error *error)
{
    (void)error;
    vcpu->core.cpu = *cpu;
    vcpu->core.cpu.reg[X86_ZERO] = 0;
    x86_core_attach(&vcpu->core);
    env_mapping_changed(vcpu, X86_FLUSH_ALL, 0);
    post(vcpu, ATTENTION_INTERRUPT);
    return 0;
}

void soft_stats(struct engine_vm *vm, FILE *out)
{
    for (unsigned i = 0; i < vm->config.vcpus; i++) {
        const struct engine_vcpu *vcpu = vm->vcpu[i];
        if (!vcpu)
            continue;
        const struct {
            const char *name;
            uint64_t value;
        } row[] = {
            {"instructions", vcpu->stats.instructions}, {"blocks_executed", vcpu->stats.blocks},
            {"blocks_decoded", vcpu->cache.built},      {"blocks_dropped", vcpu->cache.dropped},
            {"cache_flushes", vcpu->cache.flushes},     {"cache_bytes", vcpu->cache.arena_used},
            {"tlb_misses", vcpu->core.tlb_misses},      {"tlb_flushes", vcpu->core.tlb_flushes},
            {"interrupts", vcpu->stats.interrupts},     {"exceptions", vcpu->stats.exceptions},
            {"uncached", vcpu->stats.uncached},
        };
        for (size_t n = 0; n < sizeof(row) / sizeof(row[0]); n++)
            fprintf(out, "vcpu%u.%s %" PRIu64 "\n", i, row[n].name, row[n].value);
        if (vm->tier)
            vm->tier->stats(vcpu, out);
    }
}
