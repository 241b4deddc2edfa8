/* Random programs that patch themselves while they loop, against a model. Argument: the engine.
 *
 * A program is a row of elements: operations on EAX with an immediate, stores of the loop counter (ECX) into some
 * operation's immediate, and jumps to the next element. It lies across pages, which are mapped at three linear addresses;
 * each store goes through one of them. The model reads the immediates from its own copy of the code. */
#include <stdlib.h>

#include "check.h"
#include "support/flat.h"

#define TABLE_AT 0x9000u
#define CODE_AT 0x40000u /* guest-physical; PAGES pages, scattered: page i is at CODE_AT + 0x3000 i */
#define PAGES 3u
#define ELEMENTS 60u
#define PROGRAMS 240u
#define ROUNDS 150u

static const uint64_t alias[3] = {0x210000, 0x220000, 0x230000};

enum kind { ADD, XOR, MULTIPLY, STORE, STORE_BYTE, JUMP, KINDS };

struct element {
    enum kind kind;
    unsigned at;        /* offset in the program */
    unsigned immediate; /* ADD, XOR, MULTIPLY: offset of the immediate in the program */
    unsigned target;    /* STORE*: offset in the program */
    unsigned through;   /* STORE*: which alias */
};

struct program {
    unsigned start; /* offset in its first page */
    unsigned length;
    struct element element[ELEMENTS];
    uint8_t code[ELEMENTS * 12];
};

static uint32_t seed;

static unsigned pick(unsigned limit)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % limit;
}

static void put(struct program *program, const void *bytes, unsigned length)
{
    memcpy(program->code + program->length, bytes, length);
    program->length += length;
}

static void put32(struct program *program, uint32_t value)
{
    put(program, &value, sizeof(value));
}

static void put_element(struct program *program, struct element *element)
{
    static const uint8_t store[] = {0x41, 0x89, 0x88}, store_byte[] = {0x41, 0x88, 0x88};
    static const struct {
        uint8_t bytes[2];
        unsigned length;
    } opcode[] = {[ADD] = {{0x05}, 1}, [XOR] = {{0x35}, 1}, [MULTIPLY] = {{0x69, 0xc0}, 2}, [JUMP] = {{0xe9}, 1}};
    element->at = program->length;
    if (element->kind == STORE || element->kind == STORE_BYTE) {
        put(program, element->kind == STORE ? store : store_byte, 3);
        program->code[program->length - 1] |= (uint8_t)element->through; /* R8, R9 or R10 */
        put32(program, 0); /* the displacement: the target is not placed yet */
        return;
    }
    put(program, opcode[element->kind].bytes, opcode[element->kind].length);
    element->immediate = program->length;
    put32(program, element->kind == JUMP ? 0 : seed | 1);
}

static bool is_operation(const struct element *element)
{
    return element->kind == ADD || element->kind == XOR || element->kind == MULTIPLY;
}

/* Which operation a store changes: often the one that crosses a page boundary, if there is one. */
static const struct element *pick_victim(const struct program *program)
{
    const struct element *victim;
    unsigned boundary = RAM_PAGE_SIZE - program->start, look = pick(4) == 0 ? ELEMENTS : 0;
    for (unsigned i = 0; i < look; i++) {
        victim = &program->element[i];
        if (is_operation(victim) && victim->immediate < boundary && boundary < victim->immediate + 4)
            return victim;
    }
    do
        victim = &program->element[pick(ELEMENTS)];
    while (!is_operation(victim));
    return victim;
}

static void make_program(struct program *program)
{
    static const uint8_t loop[] = {0xff, 0xc9, 0x0f, 0x85}, halt[] = {0xf4};
    memset(program, 0, sizeof(*program));
    program->start = RAM_PAGE_SIZE - pick(400);
    for (unsigned i = 0; i < ELEMENTS; i++) {
        struct element *element = &program->element[i];
        element->kind = i == 0 ? ADD : (enum kind)pick(KINDS);
        element->through = pick(3);
        put_element(program, element);
    }
    put(program, loop, sizeof(loop));
    put32(program, -(program->length + 4));
    put(program, halt, sizeof(halt));
    for (unsigned i = 0; i < ELEMENTS; i++) {
        struct element *element = &program->element[i];
        if (element->kind != STORE && element->kind != STORE_BYTE)
            continue;
        const struct element *victim = pick_victim(program);
        element->target = victim->immediate + (element->kind == STORE ? 0 : pick(4));
        uint32_t displacement = program->start + element->target;
        memcpy(program->code + element->at + 3, &displacement, sizeof(displacement));
    }
}

/* What EAX must be in the end. */
static uint32_t model(const struct program *program)
{
    uint8_t code[sizeof(program->code)];
    uint32_t eax = 1;
    memcpy(code, program->code, sizeof(code));
    for (uint32_t ecx = ROUNDS; ecx; ecx--) {
        for (unsigned i = 0; i < ELEMENTS; i++) {
            const struct element *element = &program->element[i];
            uint32_t immediate;
            memcpy(&immediate, code + element->immediate, sizeof(immediate));
            switch (element->kind) {
            case ADD: eax += immediate; break;
            case XOR: eax ^= immediate; break;
            case MULTIPLY: eax *= immediate; break;
            case STORE: memcpy(code + element->target, &ecx, 4); break;
            case STORE_BYTE: memcpy(code + element->target, &ecx, 1); break;
            case JUMP:
            case KINDS: break;
            }
        }
    }
    return eax;
}

static void load_program(struct flat *flat, const struct program *program)
{
    for (unsigned i = 0; i < program->length; i++) {
        unsigned offset = program->start + i;
        flat_put(flat, CODE_AT + 0x3000 * (offset / RAM_PAGE_SIZE) + offset % RAM_PAGE_SIZE, program->code + i, 1);
    }
}

static uint32_t run_program(struct flat *flat, const struct program *program)
{
    struct x86_cpu cpu;
    load_program(flat, program);
    flat_state(flat, 0, alias[pick(3)] + program->start, &cpu);
    cpu.reg[X86_RAX] = 1;
    cpu.reg[X86_RCX] = ROUNDS;
    for (unsigned i = 0; i < 3; i++)
        cpu.reg[X86_R8 + i] = alias[i];
    CHECK_EQ(flat_run(flat, 0, &cpu, &cpu), ENGINE_EXIT_HALT);
    return (uint32_t)cpu.reg[X86_RAX];
}

int main(int argc, char **argv)
{
    struct flat flat;
    static struct program program;
    flat_open(&flat, argc > 1 ? engine_find(argv[1]) : &engine_interpret, 1, 4);
    flat_split(&flat, 0x200000, TABLE_AT);
    for (unsigned i = 0; i < 3 * PAGES; i++)
        flat_map(&flat, TABLE_AT, alias[i / PAGES] + i % PAGES * RAM_PAGE_SIZE, CODE_AT + 0x3000 * (i % PAGES));
    for (unsigned i = 0; i < PROGRAMS; i++) {
        seed = i;
        make_program(&program);
        CHECK_EQ(run_program(&flat, &program), model(&program));
    }
    flat_close(&flat);
    CHECK_DONE();
}
