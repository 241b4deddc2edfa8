/* translate.c - the engine `translate`: the software vCPU with a tier of translated code. */
#include <cpuid.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/auxv.h>

#include "engine/soft/soft.h"
#include "engine/translate/vcpu.h"

#define TOP 12u /* mnemonics in the statistics */
#define HWCAP2_FSGSBASE 2u

static int translate_probe(struct error *error)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_BMI2) || !(b & bit_AVX2))
        return error_set(error, ENOTSUP, "the host's processor lacks AVX2 or BMI2, which translated code uses");
    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
        return error_set(error, ENOTSUP, "the host's kernel does not let programs set GS (FSGSBASE; Linux 5.9)");
    struct codemem code;
    int r = codemem_open(&code, 4096, error);
    if (r == 0)
        codemem_close(&code);
    return r;
}

static void tier_close(struct engine_vcpu *vcpu)
{
    struct translate_vcpu *t = translate_of(vcpu);
    fault_thread_end(t);
    spaces_close(t);
    compile_close(t);
    check_close(t);
    codemem_close(&t->code);
    traces_close(t);
}

static int tier_open(struct engine_vcpu *vcpu, struct error *error)
{
    struct translate_vcpu *t = translate_of(vcpu);
    const size_t quarter = soft_code_share(vcpu->vm) / 4; /* code; the same for traces and sites; the rest decoded blocks */
    int r = fault_install(error);
    if (r == 0)
        r = codemem_open(&t->code, quarter, error);
    if (r < 0)
        return r;
    if (traces_open(t, quarter) < 0 || spaces_open(t) < 0 || compile_open(t) < 0) {
        tier_close(vcpu);
        return error_set(error, ENOMEM, "no memory for translated code");
    }
    fast_init(t);
    __asm__("stmxcsr %0" : "=m"(t->host_mxcsr));
    thunks_make(t);
    t->check = vcpu->vm->config.check;
    jumps_init(t);
    return 0;
}

static void tier_thread(struct engine_vcpu *vcpu)
{
    fault_thread_begin(translate_of(vcpu));
}

static void tier_flushed(struct engine_vcpu *vcpu)
{
    traces_flush(translate_of(vcpu));
}

static void tier_mapping_changed(struct engine_vcpu *vcpu, enum x86_flush scope, uint64_t linear)
{
    struct translate_vcpu *t = translate_of(vcpu);
    t->generation++;
    switch (scope) {
    case X86_FLUSH_PAGE:
        fast_forget_page(t, linear);
        jumps_forget_page(t, linear);
        break;
    case X86_FLUSH_SWITCH:
    case X86_FLUSH_RETURN:
        spaces_switch(t, scope == X86_FLUSH_RETURN);
        break;
    case X86_FLUSH_LOCAL:
    case X86_FLUSH_ALL:
    default:
        fast_forget(t, scope == X86_FLUSH_LOCAL);
        jumps_forget(t, scope == X86_FLUSH_LOCAL);
        spaces_forget(t);
    }
}

/* The mnemonics with the highest counts, highest first. */
static void top_mnemonics(const struct engine_vcpu *vcpu, const char *what, const uint32_t *count, FILE *out)
{
    uint32_t below = UINT32_MAX;
    unsigned after = 0;
    for (unsigned shown = 0; shown < TOP; shown++) {
        unsigned best = UINT32_MAX;
        for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
            bool later = count[m] < below || (count[m] == below && m > after);
            if (count[m] && later && (best == UINT32_MAX || count[m] > count[best]))
                best = m;
        }
        if (best == UINT32_MAX)
            return;
        const char *name = best ? ZydisMnemonicGetString((ZydisMnemonic)best) : "host_fault";
        fprintf(out, "vcpu%u.%s.%s %" PRIu32 "\n", vcpu->index, what, name, count[best]);
        below = count[best];
        after = best;
    }
}

static void tier_code_appears(struct engine_vcpu *vcpu, const uint8_t *flags)
{
    fast_forbid_stores(translate_of(vcpu), flags);
}

static void tier_stats(const struct engine_vcpu *vcpu, FILE *out)
{
    const struct translate_vcpu *t = (const struct translate_vcpu *)vcpu;
    const struct translate_stats *s = &t->stats;
    const struct {
        const char *name;
        uint64_t value;
    } row[] = {
        {"traces_made", s->traces},
        {"traces_dropped", s->dropped},
        {"runs_compared", s->checked},
        {"faults_compared", s->checked_faults},
        {"trace_flushes", s->flushes},
        {"code_bytes", t->code.used},
        {"arena_bytes", t->arena_used},
        {"links", s->links},
        {"unlinks", s->unlinks},
        {"followed", s->followed},
        {"exits_next", s->exit[SITE_NEXT]},
        {"exits_indirect", s->exit[SITE_INDIRECT]},
        {"exits_interpret", s->exit[SITE_INTERPRET]},
        {"exits_look_up", s->exit[SITE_LOOK_UP]},
        {"exits_vector", s->exit[SITE_VECTOR]},
        {"exits_x87", s->exit[SITE_X87]},
    };
    for (size_t n = 0; n < sizeof row / sizeof row[0]; n++)
        fprintf(out, "vcpu%u.%s %" PRIu64 "\n", vcpu->index, row[n].name, row[n].value);
    top_mnemonics(vcpu, "interpreted", s->interpreted, out);
    top_mnemonics(vcpu, "tlb_missed_by", s->missed, out);
}

static const struct tier_ops tier = {
    .vcpu_size = sizeof(struct translate_vcpu),
    .open = tier_open,
    .close = tier_close,
    .thread = tier_thread,
    .run = tier_run,
    .dropped = tier_dropped,
    .flushed = tier_flushed,
    .code_appears = tier_code_appears,
    .mapping_changed = tier_mapping_changed,
    .stats = tier_stats,
};

static int translate_vm_create(const struct engine_config *config, struct engine_vm **ret_vm, struct error *error)
{
    /* What the interpreter stored is undone before the trace runs: other vCPUs must not see that, nor store there. */
    if (config->check && config->vcpus > 1)
        return error_set(error, ENOTSUP, "translations can be checked with one vCPU only, not with %u", config->vcpus);
    return soft_vm_create(config, &tier, ret_vm, error);
}

const struct engine_ops engine_translate = {
    .name = "translate",
    .summary = "rewrites the guest's code for this processor; needs no hardware help",
    .can_check = true,
    .probe = translate_probe,
    .vm_create = translate_vm_create,
    SOFT_ENGINE_OPS,
};
