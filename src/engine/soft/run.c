/* run.c - a vCPU's loop.
 *
 * run_blocks is the fast part: look up the block at RIP, execute its instructions, and go on while nothing
 * needs attention. What may change mode, privilege, interruptibility or activity ends a block that is not
 * `plain`, so only then, after an escape, and on core.attention, does at_boundary look at those. */
#include "engine/soft/vcpu.h"
#include "isa/x86/exception.h"
#include "isa/x86/mem.h"

#define PAGE_MASK ((uint64_t)RAM_PAGE_SIZE - 1)

/* core.insn while code is fetched: a fault then rewinds RIP by nothing. */
static const struct x86_insn fetching = {.length = 0};

/* ---- finding the block at RIP ---- */

/* True when `linear` is executable here and leads to the page of `gpa`, as far as the TLB knows. */
static inline bool leads_to(struct x86_core *core, uint64_t linear, uint64_t gpa_page)
{
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);
    return entry->exec_tag == (linear & ~PAGE_MASK) && entry->gpa == gpa_page;
}

/* The linear address that follows: outside 64-bit mode it wraps at 4 GiB. */
static uint64_t next_page(const struct x86_core *core, uint64_t linear)
{
    uint64_t next = (linear & ~PAGE_MASK) + RAM_PAGE_SIZE;
    return core->mode == X86_CODE64 ? next : (uint32_t)next;
}

/* Everything but the jump cache's hit. NULL when the code is not in RAM. May raise #PF or #GP. */
static struct block *find_slow(struct engine_vcpu *vcpu, uint64_t linear)
{
    struct x86_core *core = &vcpu->core;
    struct block **jump = block_jump(&vcpu->cache, linear), *block = *jump;
    struct x86_page page, follow = {.host = NULL};
    core->insn = &fetching;
    struct block_source source = {.gpa = (x86_fetch_page(core, linear, &page) & ~PAGE_MASK) | (linear & PAGE_MASK)};
    if (!page.host)
        return NULL;
    source.page = page.host;
    uint64_t key = block_key(source.gpa, core->mode);
    if (block && block->key == (key | BLOCK_CROSSES) && leads_to(core, next_page(core, linear), block->second))
        return block;
    block = block_find(&vcpu->cache, key, 0);
    if (!block && block_build(&vcpu->cache, &vcpu->decoder, core->mode, &source, &block) != 0) {
        source.second = x86_fetch_page(core, next_page(core, linear), &follow) & ~PAGE_MASK;
        if (!follow.host)
            return NULL;
        source.follow = follow.host;
        block = block_find(&vcpu->cache, key | BLOCK_CROSSES, source.second);
        if (!block)
            block_build(&vcpu->cache, &vcpu->decoder, core->mode, &source, &block);
    }
    return *jump = block;
}

static inline struct block *find_block(struct engine_vcpu *vcpu, uint64_t linear)
{
    struct x86_core *core = &vcpu->core;
    struct block *block = *block_jump(&vcpu->cache, linear);
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);
    if (__builtin_expect(block && entry->exec_tag == (linear & ~PAGE_MASK) &&
                             block->key == block_key(entry->gpa | (linear & PAGE_MASK), core->mode), 1))
        return block;
    return find_slow(vcpu, linear);
}

/* The linear address of RIP. Outside 64-bit mode EIP is made 32 bits wide and checked against CS's limit. */
static inline uint64_t linear_rip(struct x86_core *core)
{
    struct x86_cpu *cpu = &core->cpu;
    if (__builtin_expect(core->mode == X86_CODE64, 1))
        return cpu->reg[X86_RIP];
    cpu->reg[X86_RIP] = (uint32_t)cpu->reg[X86_RIP];
    if (cpu->reg[X86_RIP] > cpu->seg[X86_CS].limit) {
        core->insn = &fetching;
        x86_raise_gp(core, 0);
    }
    return (uint32_t)(cpu->seg[X86_CS].base + cpu->reg[X86_RIP]);
}

/* How many instructions of the block lie within CS's limit and below 4 GiB; raises #GP when not even one
 * does. Only called outside 64-bit mode. */
static unsigned within_limit(struct x86_core *core, const struct block *block)
{
    uint64_t end = core->cpu.reg[X86_RIP];
    for (unsigned i = 0; i < block->count; i++) {
        end += block->insn[i].length;
        if (end - 1 <= core->cpu.seg[X86_CS].limit)
            continue;
        core->insn = &fetching;
        if (i == 0)
            x86_raise_gp(core, 0);
        return i;
    }
    return block->count;
}

/* ---- executing ---- */

/* Executes the block's first `count` instructions. True when it ran to its own end without being told to
 * leave. */
static inline bool execute(struct engine_vcpu *vcpu, struct block *block, unsigned count)
{
    struct x86_core *core = &vcpu->core;
    const struct x86_insn *insn = block->insn, *const end = insn + count;
    vcpu->cache.running = block;
    vcpu->stats.blocks++;
    vcpu->stats.instructions += count;
    core->insn_end = end;
    do {
        core->insn = insn;
        core->cpu.reg[X86_RIP] += insn->length;
        insn->exec(core, insn); /* and, if it is a common one, those that follow */
        insn = core->insn + 1;
    } while (insn < core->insn_end);
    return core->insn_end == end;
}

/* One instruction from where there is no RAM: what the bus answers is decoded, used once and forgotten. */
static void run_uncached(struct engine_vcpu *vcpu, uint64_t linear)
{
    struct x86_core *core = &vcpu->core;
    uint8_t bytes[X86_INSN_MAX];
    unsigned have = 0, length;
    vcpu->cache.running = NULL;
    core->insn = &fetching;
    do {
        struct x86_page page;
        uint64_t at = core->mode == X86_CODE64 ? linear + have : (uint32_t)(linear + have);
        uint64_t gpa = (x86_fetch_page(core, at, &page) & ~PAGE_MASK) | (at & PAGE_MASK);
        bytes[have++] = page.host ? page.host[at & PAGE_MASK] : (uint8_t)core->env->mmio_read(core->owner, gpa, 1);
        length = x86_decode(&vcpu->decoder, core->mode, bytes, have, &vcpu->alone);
    } while (length == 0 && have < X86_INSN_MAX);
    vcpu->stats.uncached++;
    if (core->mode != X86_CODE64 && core->cpu.reg[X86_RIP] + length - 1 > core->cpu.seg[X86_CS].limit)
        x86_raise_gp(core, 0);
    core->insn = &vcpu->alone;
    core->insn_end = core->insn + 1;
    core->cpu.reg[X86_RIP] += length;
    vcpu->alone.exec(core, &vcpu->alone);
}

/* Executes just the instruction at RIP. */
static void run_one(struct engine_vcpu *vcpu)
{
    uint64_t linear = linear_rip(&vcpu->core);
    struct block *block = find_block(vcpu, linear);
    if (!block) {
        run_uncached(vcpu, linear);
        return;
    }
    if (vcpu->core.mode != X86_CODE64)
        within_limit(&vcpu->core, block);
    execute(vcpu, block, 1);
}

/* Executes blocks until something needs a closer look. A function of its own, since the compiler keeps
 * nothing in registers across the code of one that calls setjmp. */
static __attribute__((noinline)) void run_blocks(struct engine_vcpu *vcpu)
{
    struct x86_core *core = &vcpu->core;
    bool plain = true;
    while (plain && !atomic_load_explicit(&core->attention, memory_order_relaxed)) {
        uint64_t linear = linear_rip(core);
        struct block *block = find_block(vcpu, linear);
        if (__builtin_expect(!block, 0)) {
            run_uncached(vcpu, linear);
            return;
        }
        if (vcpu->vm->tier && core->mode == X86_CODE64 && vcpu->vm->tier->run(vcpu, block, linear, &plain))
            continue;
        unsigned count = block->count;
        if (__builtin_expect(core->mode != X86_CODE64, 0))
            count = within_limit(core, block);
        plain = execute(vcpu, block, count) && block->plain;
    }
}

/* With a breakpoint armed or TF set: one instruction, and the #DB it causes. */
static void run_debugged(struct engine_vcpu *vcpu)
{
    struct x86_core *core = &vcpu->core;
    if (x86_before_insn_debug(core))
        return;
    bool traced = core->cpu.rflags & X86_FLAG_TF;
    core->cpu.sti_shadow = core->cpu.mov_ss_shadow = false;
    run_one(vcpu);
    x86_after_insn_debug(core, traced);
}

/* ---- between blocks ---- */

static void drop_stale(struct engine_vcpu *vcpu)
{
    struct stale_queue *stale = &vcpu->stale;
    vcpu->cache.running = NULL;
    pthread_mutex_lock(&stale->lock);
    for (unsigned i = 0; i < stale->count && !stale->overflow; i++)
        block_drop(&vcpu->cache, stale->range[i].gpa, stale->range[i].length);
    if (stale->overflow)
        block_flush(&vcpu->cache);
    stale->count = 0;
    stale->overflow = false;
    pthread_mutex_unlock(&stale->lock);
}

static void attend(struct engine_vcpu *vcpu)
{
    uint32_t bits = atomic_exchange(&vcpu->core.attention, 0);
    if (bits & ATTENTION_EXCLUSIVE) {
        vcpu_outside_begin(vcpu);
        vcpu_outside_end(vcpu);
    }
    if (bits & ATTENTION_STALE)
        drop_stale(vcpu);
    if (bits & ATTENTION_NMI)
        vcpu->core.cpu.nmi_pending = true;
    if (bits & ATTENTION_INTERRUPT)
        vcpu->interrupt_waiting = true;
    if (bits & ATTENTION_KICK)
        vcpu->kicked = true;
}

static void deliver_interrupts(struct engine_vcpu *vcpu)
{
    struct x86_core *core = &vcpu->core;
    const struct engine_config *config = &vcpu->vm->config;
    if (core->cpu.nmi_pending && !core->cpu.nmi_blocked && !core->cpu.mov_ss_shadow) {
        core->cpu.nmi_pending = false;
        x86_deliver_nmi(core);
    }
    if (!vcpu->interrupt_waiting || !x86_interruptible(core))
        return;
    vcpu_outside_begin(vcpu);
    int vector = config->machine_ops->interrupt_ack(config->machine, vcpu->index);
    vcpu_outside_end(vcpu);
    /* After one there may be another, but not before this one's handler has let interrupts in again. */
    vcpu->interrupt_waiting = vector >= 0;
    if (vector < 0)
        return;
    vcpu->stats.interrupts++;
    x86_deliver_interrupt(core, (uint8_t)vector);
}

/* What there is to do between instructions. True when the run is over, with *ret_exit set. */
static bool at_boundary(struct engine_vcpu *vcpu, struct engine_exit *ret_exit)
{
    struct x86_cpu *cpu = &vcpu->core.cpu;
    if (atomic_load_explicit(&vcpu->core.attention, memory_order_relaxed))
        attend(vcpu);
    ret_exit->text[0] = '\0';
    if (vcpu->kicked) {
        vcpu->kicked = false;
        ret_exit->reason = ENGINE_EXIT_KICK;
        return true;
    }
    if (cpu->event.valid)
        x86_deliver_pending(&vcpu->core);
    if (cpu->activity == X86_RUNNING || cpu->activity == X86_HALTED)
        deliver_interrupts(vcpu);
    if (__builtin_expect(cpu->activity == X86_RUNNING, 1))
        return false;
    ret_exit->reason = cpu->activity == X86_SHUTDOWN ? ENGINE_EXIT_SHUTDOWN : ENGINE_EXIT_HALT;
    return true;
}

/* Goes on until an exit; escapes land in soft_run. */
static __attribute__((noinline)) void run_until_exit(struct engine_vcpu *vcpu, struct engine_exit *ret_exit)
{
    struct x86_core *core = &vcpu->core;
    while (!at_boundary(vcpu, ret_exit)) {
        if (core->debug_armed) {
            run_debugged(vcpu);
        } else if (core->cpu.sti_shadow || core->cpu.mov_ss_shadow) {
            core->cpu.sti_shadow = core->cpu.mov_ss_shadow = false;
            run_one(vcpu);
        } else {
            run_blocks(vcpu);
        }
    }
}

int soft_run(struct engine_vcpu *vcpu, struct engine_exit *ret_exit)
{
    struct x86_core *core = &vcpu->core;
    vcpu_outside_end(vcpu);
    if (_setjmp(vcpu->escape)) {
        x86_fault_rewind(core);
        vcpu->stats.exceptions++;
        x86_deliver_raised(core);
    }
    core->escape = &vcpu->escape;
    if (vcpu->vm->tier)
        vcpu->vm->tier->thread(vcpu);
    run_until_exit(vcpu, ret_exit);
    core->escape = NULL;
    vcpu_outside_begin(vcpu);
    return 0;
}
