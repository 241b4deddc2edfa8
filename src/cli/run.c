/* run.c - `veneer run`: boots a kernel and stays with it until it ends. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/disk.h"
#include "cli/option.h"
#include "cli/run_image.h"
#include "cli/services.h"
#include "cli/share.h"
#include "cli/terminal.h"
#include "machine/machine.h"

#define CODE_CACHE_MAX (UINT64_C(1) << 30) /* jumps within it are 32 bits wide */

struct run_config {
    struct machine_config machine;
    const char *console;
    char vsock[SERVICES_PATH];
    bool stats, memory_given;
    const char *image; /* NULL: a kernel was given */
    const char *name;  /* NULL: a temporary instance */
    struct run_image instance;
    struct machine_disk disk[MACHINE_DISKS_MAX];
    char disk_id[MACHINE_DISKS_MAX][8]; /* "disk0" ... */
};

static int parse_kernel(void *config, const char *value, struct error *error)
{
    (void)error;
    ((struct run_config *)config)->machine.kernel = value;
    return 0;
}

static int parse_initrd(void *config, const char *value, struct error *error)
{
    (void)error;
    ((struct run_config *)config)->machine.initrd = value;
    return 0;
}

static int parse_append(void *config, const char *value, struct error *error)
{
    (void)error;
    ((struct run_config *)config)->machine.append = value;
    return 0;
}

static int parse_cpus(void *config, const char *value, struct error *error)
{
    uint64_t cpus;
    int r = option_number(value, 1, MACHINE_VCPUS_MAX, &cpus, error);
    if (r == 0)
        ((struct run_config *)config)->machine.vcpus = (unsigned)cpus;
    return r;
}

static int parse_memory(void *config, const char *value, struct error *error)
{
    uint64_t bytes;
    int r = option_size(value, &bytes, error);
    if (r == 0 && bytes < MACHINE_MEMORY_MIN)
        r = error_set(error, EINVAL, "is too little; give at least 1M");
    if (r == 0) {
        ((struct run_config *)config)->machine.memory = bytes;
        ((struct run_config *)config)->memory_given = true;
    }
    return r;
}

static int parse_code_cache(void *config, const char *value, struct error *error)
{
    uint64_t bytes;
    int r = option_size(value, &bytes, error);
    if (r == 0 && (bytes < ENGINE_CODE_CACHE_MIN || bytes > CODE_CACHE_MAX))
        r = error_set(error, ERANGE, "is no size for the code cache; give 1M to 1G");
    if (r == 0)
        ((struct run_config *)config)->machine.code_cache = bytes;
    return r;
}

static int parse_engine(void *config, const char *value, struct error *error)
{
    struct machine_config *machine = &((struct run_config *)config)->machine;
    const char *comma = strchr(value, ',');
    size_t length = comma ? (size_t)(comma - value) : strlen(value);
    char name[32] = "";
    if (length < sizeof name)
        memcpy(name, value, length);
    machine->engine = NULL; /* auto */
    machine->check = comma != NULL;
    if (strcmp(value, "auto") == 0)
        return 0;
    machine->engine = engine_find(name);
    if (comma && machine->engine && (strcmp(comma, ",check") != 0 || !machine->engine->can_check))
        return error_set(error, EINVAL, "has an unknown addition; only translate,check has one");
    if (machine->engine)
        return 0;
    char names[128] = "auto";
    for (const struct engine_ops *const *e = engine_table; *e; e++)
        snprintf(names + strlen(names), sizeof names - strlen(names), ", %s", (*e)->name);
    return error_set(error, EINVAL, "is no engine; give one of %s", names);
}

static int parse_cpu(void *config, const char *value, struct error *error)
{
    struct machine_config *machine = &((struct run_config *)config)->machine;
    if (strcmp(value, "default") == 0)
        machine->cpu_model = X86_MODEL_DEFAULT;
    else if (strcmp(value, "host") == 0)
        machine->cpu_model = X86_MODEL_HOST;
    else
        return error_set(error, EINVAL, "is no CPU model; give default or host");
    return 0;
}

static int parse_console(void *config, const char *value, struct error *error)
{
    ((struct run_config *)config)->console = value;
    return console_check(value, error);
}

static int parse_disk(void *config, const char *value, struct error *error)
{
    struct run_config *run = config;
    unsigned n = run->machine.disks;
    if (n == MACHINE_DISKS_MAX)
        return error_set(error, EINVAL, "is one disk too many; a machine has at most %u", MACHINE_DISKS_MAX);
    int r = disk_parse(value, &run->disk[n], error);
    if (r < 0)
        return r;
    snprintf(run->disk_id[n], sizeof run->disk_id[n], "disk%u", n);
    run->disk[n].id = run->disk_id[n];
    run->machine.disks++;
    return 0;
}

static int parse_rings(void *config, const char *value, struct error *error)
{
    struct machine_config *machine = &((struct run_config *)config)->machine;
    if (strcmp(value, "split") != 0 && strcmp(value, "packed") != 0)
        return error_set(error, EINVAL, "is no form of virtio's rings; give split or packed");
    machine->virtio_packed = value[0] == 'p';
    return 0;
}

static int parse_debug_exit(void *config, const char *value, struct error *error)
{
    uint64_t port;
    int r = option_number(value, 1, 0xffff, &port, error);
    if (r == 0)
        ((struct run_config *)config)->machine.debug_exit_port = (int)port;
    return r;
}

static int parse_share(void *config, const char *value, struct error *error)
{
    return share_parse(value, &((struct run_config *)config)->machine, error);
}

static int parse_vsock(void *config, const char *value, struct error *error)
{
    struct run_config *run = config;
    return vsock_parse(value, run->vsock, &run->machine, error);
}

static int parse_balloon(void *config, const char *value, struct error *error)
{
    return balloon_parse(value, &((struct run_config *)config)->machine, error);
}

static int parse_stats(void *config, const char *value, struct error *error)
{
    (void)value, (void)error;
    ((struct run_config *)config)->stats = true;
    return 0;
}

static int parse_name(void *config, const char *value, struct error *error)
{
    if (!store_name_valid(value))
        return error_set(error, EINVAL, "is no name; give %s", STORE_NAME_FORM);
    ((struct run_config *)config)->name = value;
    return 0;
}

static const struct option_spec options[] = {
    {"kernel", "FILE", "the kernel: a Linux bzImage, an ELF with a PVH entry, or a Multiboot image", parse_kernel},
    {"initrd", "FILE", "its initial RAM disk", parse_initrd},
    {"append", "STRING", "its command line (default: console=ttyS0)", parse_append},
    {"cpus", "N", "virtual processors, 1 to 16 (default: 1)", parse_cpus},
    {"memory", "SIZE", "guest memory, such as 512M or 2G (default: 512M, with an IMAGE 1G)", parse_memory},
    {"code-cache", "SIZE",
     "what a software engine may keep of decoded and translated code, at least 1M for each CPU (default: 64M)", parse_code_cache},
    {"engine", "NAME",
     "what executes the guest: auto, or one that 'veneer engines' lists (default: auto)\n"
     "translate,check compares all that translate does with the interpreter, slowly",
     parse_engine},
    {"cpu", "MODEL", "default: the same model under every engine; host: all that this host and the engine have",
     parse_cpu},
    {"console", "WHERE",
     "the guest's serial console: " CONSOLE_FORM " (default: stdio)\n"
     "unix: listens there for one client at a time; file: output only",
     parse_console},
    {"share", SHARE_FORM,
     "give the guest a folder of the host, read-only with :ro; it mounts it by\n"
     "mount -t virtiofs TAG FOLDER; may be given more than once", parse_share},
    {"disk", DISK_FORM,
     "a disk: a raw or qcow2 image, or a block device; may be repeated (/dev/vda, /dev/vdb ...)\n"
     "ro: the guest cannot write; direct: past the host's page cache; iops, bps: at most so many requests and\n"
     "bytes a second; queues: at most 16 (default: one a CPU, up to 4); a comma in FILE is written twice",
     parse_disk},
    {"virtio-rings", "FORM", "split or packed rings for virtio devices (default: split)", parse_rings},
    {"vsock", "PATH[,cid=N]",
     "sockets between guest and host (virtio-vsock; the guest's CID is N, default 3). To reach a guest's port connect\n"
     "to PATH and say 'CONNECT port'; a guest that connects to CID 2 reaches the socket PATH_port",
     parse_vsock},
    {"balloon", "SIZE|off",
     "memory to take from the guest at first (default: 0); it can be changed while the guest runs.\n"
     "off: no balloon, so that no memory of the guest comes back to the host",
     parse_balloon},
    {"debug-exit", "PORT", "end the machine with the status that the guest writes to this port", parse_debug_exit},
    {"name", "NAME", "keep the disk of this run of an IMAGE under that name, and go on with it in the next", parse_name},
    {"stats", NULL, "print what the engine did when the machine has ended", parse_stats},
    {NULL, NULL, NULL, NULL}};

static void help(void)
{
    puts("usage: veneer run IMAGE [OPTION...]\n       veneer run --kernel FILE [OPTION...]\n\n"
         "Boots a virtual machine and stays with it until it ends: a thin clone of an image ('veneer image list'), with the\n"
         "kernel in it, or a kernel from a file. Without --name the clone goes when the machine ends. On a terminal, " TERMINAL_ESCAPE_TEXT " leaves\n"
         "(Ctrl-] twice sends one Ctrl-] to the guest).\n\noptions:");
    option_help(options, stdout);
    puts("\nexit status:\n"
         "  0  the guest powered off\n"
         "  1  the machine could not be started\n"
         "  2  a usage error\n"
         "  3  the guest asked for a reset\n"
         "  4  the guest's processor shut down (triple fault)\n"
         "  5  the guest's kernel panicked\n"
         "  6  the engine could not go on\n"
         "  7  stopped from outside (keyboard or signal)\n"
         "  with --debug-exit: the status that the guest wrote");
}

/* The machine and why the person left it; what the console's thread shares with run. */
struct session {
    struct machine *machine;
    char why[80];
};

static size_t session_input(void *owner, const void *bytes, size_t length)
{
    return machine_console_input(((struct session *)owner)->machine, bytes, length);
}

static void session_leave(void *owner, const char *why)
{
    struct session *session = owner;
    snprintf(session->why, sizeof session->why, "%s", why);
    machine_stop(session->machine);
}

static const struct console_ops session_ops = {.input = session_input, .leave = session_leave};

static void announce(const struct run_config *config, const char *note)
{
    if (note[0])
        log_warning("%s", note);
    if (strcmp(config->console, "stdio") == 0 && isatty(STDIN_FILENO))
        fprintf(stderr, "veneer: engine %s; %s leaves\n", config->machine.engine->name, TERMINAL_ESCAPE_TEXT);
}

/* Runs one machine on an open console. Returns the exit status. */
static int run_machine(struct run_config *config, struct console *console)
{
    struct error error;
    struct session session = {NULL, ""};
    struct machine_result result = {MACHINE_END_FAILED, MACHINE_END_FAILED, ""};
    config->machine.console_write = console_write;
    config->machine.console_ready = console_ready;
    config->machine.console_owner = console;
    int r = machine_create(&config->machine, &session.machine, &error);
    if (r == 0)
        r = console_start(console, &session_ops, &session, &error);
    if (r == 0)
        machine_run(session.machine, &result);
    console_close(console); /* joins its thread: `session` is ours alone again */
    if (r < 0)
        log_error("%s", error.text);
    else if (result.end == MACHINE_END_STOPPED && session.why[0])
        fprintf(stderr, "veneer: %s\n", session.why);
    else if (result.text[0])
        fprintf(stderr, "veneer: %s\n", result.text);
    if (r == 0 && config->stats)
        machine_stats(session.machine, stderr);
    machine_destroy(session.machine);
    return result.status;
}

/* Takes the instance and puts its disk before the others, so that it is the first. */
static int take_instance(struct run_config *config, struct error *error)
{
    struct machine_config *machine = &config->machine;
    struct machine_disk root;
    char name[32];
    if (machine->disks == MACHINE_DISKS_MAX)
        return error_set(error, EINVAL, "there is one disk too many; a machine has at most %u", MACHINE_DISKS_MAX);
    snprintf(name, sizeof name, "vm-%d", getpid());
    int r = run_image_take(&config->instance, config->image, config->name ? config->name : name, !config->name, machine, &root, error);
    if (r < 0)
        return r;
    memmove(config->disk + 1, config->disk, machine->disks * sizeof config->disk[0]);
    config->disk[0] = root;
    machine->disks++;
    if (!config->memory_given)
        machine->memory = RUN_IMAGE_MEMORY;
    return 0;
}

static void release_instance(struct run_config *config)
{
    run_image_release(&config->instance);
    config->disk[0] = (struct machine_disk){.path = NULL}; /* its strings are the instance's */
}

/* Returns the exit status. */
static int run_with(struct run_config *config)
{
    struct error error;
    char note[256] = "";
    if (!config->machine.engine)
        config->machine.engine = engine_choose(note, sizeof note);
    if (config->machine.engine->probe(&error) < 0) {
        log_error("engine %s: %s", config->machine.engine->name, error.text);
        return MACHINE_END_FAILED;
    }
    announce(config, note);
    struct console *console;
    if (console_open(config->console, &console, &error) < 0) {
        log_error("%s", error.text);
        return MACHINE_END_FAILED;
    }
    return run_machine(config, console);
}

/* As run_with, with the instance that was asked for. */
static int run_instance(struct run_config *config)
{
    struct error error;
    int status = MACHINE_END_FAILED;
    if (!config->image)
        return run_with(config);
    if (take_instance(config, &error) < 0) {
        log_error("%s", error.text);
        return status;
    }
    status = run_with(config);
    release_instance(config);
    return status;
}

static int run_run(int argc, char **argv)
{
    struct run_config config = {
        .machine = {.vcpus = 1, .memory = MACHINE_MEMORY_DEFAULT, .debug_exit_port = -1},
        .console = "stdio",
    };
    struct error error;
    int rest, operands, status = 0;
    bool dashes;
    config.machine.disk = config.disk;
    int r = option_parse_operands(options, argc, argv, &config, &config.image, 1, &operands, &rest, &dashes, &error);
    if (r == 0 && rest < argc)
        r = error_set(&error, EINVAL, "'%s': this command takes an image and options only", argv[rest]);
    if (r == 0 && !config.machine.kernel && !config.image)
        r = error_set(&error, EINVAL, "run needs an IMAGE or --kernel FILE; 'veneer run --help' tells more");
    if (r == 0 && config.name && !config.image)
        r = error_set(&error, EINVAL, "--name needs an IMAGE");
    if (r > 0) {
        help();
    } else if (r < 0) {
        log_error("%s", error.text);
        status = STATUS_USAGE;
    } else {
        status = run_instance(&config);
    }
    for (unsigned i = 0; i < config.machine.disks; i++)
        disk_free(&config.disk[i]);
    return status;
}

const struct command command_run = {"run", "boot a kernel in a virtual machine", run_run};
