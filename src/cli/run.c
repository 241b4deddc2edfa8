/* run.c - `veneer run`: boots a kernel and stays with it until it ends, or leaves it running (--detach), or runs one command
 * in it. The last two run the machine in a process of its own and reach it as any other program would. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "base/log.h"
#include "cli/background.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/disk.h"
#include "cli/exec_options.h"
#include "cli/option.h"
#include "cli/run_image.h"
#include "cli/services.h"
#include "cli/share.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "host/agent_client.h"
#include "host/vm.h"
#include "machine/machine.h"

#define CODE_CACHE_MAX (UINT64_C(1) << 30) /* jumps within it are 32 bits wide */

#define CONSOLE_LOG_BYTES (UINT64_C(1) << 20) /* of a detached machine's console, twice */
#define STOP_SECONDS 90u /* how long the guest of one command may take to shut down: what systemd gives a unit */

struct run_config {
    struct exec_options exec; /* first, for its options' parsers */
    struct machine_config machine;
    const char *console; /* NULL: the terminal, or a file when the machine is apart from it */
    char vsock[SERVICES_PATH];
    bool stats, detach, memory_given;
    const char *image; /* NULL: a kernel was given */
    const char *name;  /* NULL: by the process's number, and with an image a temporary instance */
    struct run_image instance;
    char default_name[32];
    char **command; /* ended by NULL; NULL: none */
    int command_count;
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

static int parse_console_device(void *config, const char *value, struct error *error)
{
    return console_device_parse(value, &((struct run_config *)config)->machine, error);
}

static int parse_port(void *config, const char *value, struct error *error)
{
    return port_parse(value, &((struct run_config *)config)->machine, error);
}

static int parse_stats(void *config, const char *value, struct error *error)
{
    (void)value, (void)error;
    ((struct run_config *)config)->stats = true;
    return 0;
}

static int parse_name(void *config, const char *value, struct error *error)
{
    ((struct run_config *)config)->name = value;
    return registry_check_name(value, error);
}

static int parse_detach(void *config, const char *value, struct error *error)
{
    (void)value, (void)error;
    ((struct run_config *)config)->detach = true;
    return 0;
}

static const struct option_spec options[] = {
    {"kernel", "FILE", "the kernel: a Linux bzImage, an ELF with a PVH entry, or a Multiboot image", parse_kernel},
    {"initrd", "FILE", "its initial RAM disk", parse_initrd},
    {"append", "STRING", "its command line (default: console=ttyS0, or hvc0)", parse_append},
    {"cpus", "N", "virtual processors, 1 to 16 (default: 1)", parse_cpus},
    {"memory", "SIZE", "guest memory, such as 512M or 2G (default: 512M, with an IMAGE 1G)", parse_memory},
    {"code-cache", "SIZE",
     "what a software engine may keep of decoded and translated code, at least 1M for each CPU\n"
     "(default: 64M for each CPU, with an IMAGE at least 512M)",
     parse_code_cache},
    {"engine", "NAME",
     "what executes the guest: auto, or one that 'veneer engines' lists (default: auto)\n"
     "translate,check compares all that translate does with the interpreter, slowly",
     parse_engine},
    {"cpu", "MODEL", "default: the same model under every engine; host: all that this host and the engine have",
     parse_cpu},
    {"console", "WHERE",
     "the host's side of the guest's console: " CONSOLE_FORM " (default: stdio)\n"
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
    {"virtio-rings", "FORM", "rings that virtio devices offer: split only, or packed as well (default: packed)", parse_rings},
    {"console-device", "DEVICE",
     "what the console is in the guest: serial (ttyS0, the default) or virtio (hvc0, which knows the terminal's size)",
     parse_console_device},
    {"port", "NAME=PATH", "a port of the guest, /dev/virtio-ports/NAME, that is the socket PATH here; may be repeated", parse_port},
    {"vsock", "PATH[,cid=N]",
     "sockets between guest and host (virtio-vsock; the guest's CID is N, default 3). To reach a guest's port connect\n"
     "to PATH and say 'CONNECT port'; a guest that connects to CID 2 reaches the socket PATH_port",
     parse_vsock},
    {"balloon", "SIZE|off",
     "memory to take from the guest at first (default: 0); it can be changed while the guest runs.\n"
     "off: no balloon, so that no memory of the guest comes back to the host",
     parse_balloon},
    {"debug-exit", "PORT", "end the machine with the status that the guest writes to this port", parse_debug_exit},
    {"name", "NAME", "what 'veneer list', 'exec' and 'stop' call the machine (default: vm- and a number); with an\n"
     "IMAGE the disk is kept under that name as well, for the next run", parse_name},
    {"stats", NULL, "print what the engine did when the machine has ended", parse_stats},
    {"detach/d", NULL, "leave the machine running by itself; prints its name", parse_detach},
    EXEC_OPTIONS,
    {NULL, NULL, NULL, NULL}};

static void help(void)
{
    puts("usage: veneer run IMAGE [OPTION...] [-- COMMAND [ARGUMENT...]]\n"
         "       veneer run --kernel FILE [OPTION...] [-- COMMAND [ARGUMENT...]]\n\n"
         "Boots a virtual machine and stays with it until it ends: a thin clone of an image ('veneer image list'), with the\n"
         "kernel in it, or a kernel from a file. Without --name the clone goes when the machine ends. On a terminal,\n"
         TERMINAL_ESCAPE_TEXT " leaves (Ctrl-] twice sends one Ctrl-] to the guest). With a COMMAND, runs that in the\n"
         "guest by veneer's agent in it, passes on its output and status, and shuts the guest down.\n\noptions:");
    option_help(options, stdout);
    puts("\nexit status:\n"
         "  0  the guest powered off\n"
         "  1  the machine could not be started\n"
         "  2  a usage error\n"
         "  3  the guest asked for a reset\n"
         "  4  the guest's processor shut down (triple fault)\n"
         "  5  the guest's kernel panicked\n"
         "  6  the engine could not go on\n"
         "  7  stopped from outside (keyboard, signal, veneer stop)\n"
         "  with --debug-exit: the status that the guest wrote\n"
         "  with --detach: 0 once the machine runs\n"
         "  with a COMMAND: its status, as with veneer exec; 125 when the machine or veneer failed");
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

static void session_resize(void *owner, unsigned columns, unsigned rows)
{
    machine_console_resize(((struct session *)owner)->machine, columns, rows);
}

static const struct console_ops session_ops = {.input = session_input, .leave = session_leave, .resize = session_resize};

static void announce(const struct run_config *config, const char *note)
{
    if (note[0])
        log_warning("%s", note);
    if (!config->console && !config->detach && !config->command && isatty(STDIN_FILENO))
        fprintf(stderr, "veneer: engine %s; %s leaves\n", config->machine.engine->name, TERMINAL_ESCAPE_TEXT);
}

/* Opens the console that was asked for; that of a machine apart from the terminal is a bounded file among its own. */
static int open_console(const struct run_config *config, const struct vm *vm, struct console **ret_console, struct error *error)
{
    char path[REGISTRY_PATH_MAX], spec[REGISTRY_PATH_MAX + 8];
    if (config->console || !(config->detach || config->command))
        return console_open(config->console ? config->console : "stdio", ret_console, error);
    vm_file(vm, "console.log", path);
    snprintf(spec, sizeof spec, "file:%s", path);
    int r = console_open(spec, ret_console, error);
    if (r == 0)
        console_keep(*ret_console, CONSOLE_LOG_BYTES);
    return r;
}

/* Runs one machine on an open console. Returns the exit status. */
static int run_machine(struct run_config *config, struct vm *vm, struct console *console)
{
    struct error error;
    struct session session = {NULL, ""};
    struct machine_result result = {MACHINE_END_FAILED, MACHINE_END_FAILED, ""};
    config->machine.console_write = console_write;
    config->machine.console_ready = console_ready;
    config->machine.console_owner = console;
    descriptors_raise();
    int r = machine_create(&config->machine, &session.machine, &error);
    if (r == 0)
        r = vm_serve(vm, session.machine, &config->machine, &error);
    if (r == 0)
        r = console_start(console, &session_ops, &session, &error);
    if (r == 0) {
        background_started(vm);
        machine_run(session.machine, &result);
    }
    console_close(console); /* joins its thread: `session` is ours alone again */
    if (r < 0)
        log_error("%s", error.text);
    else if (result.end == MACHINE_END_STOPPED && session.why[0])
        fprintf(stderr, "veneer: %s\n", session.why);
    else if (result.text[0])
        fprintf(stderr, "veneer: %s\n", result.text);
    if (r == 0 && config->stats)
        machine_stats(session.machine, stderr);
    vm_free(vm);
    machine_destroy(session.machine);
    return result.status;
}

static const char *run_name(const struct run_config *config)
{
    return config->name ? config->name : config->default_name;
}

/* Takes the instance and puts its disk before the others, so that it is the first. */
static int take_instance(struct run_config *config, struct error *error)
{
    struct machine_config *machine = &config->machine;
    struct machine_disk root;
    if (machine->disks == MACHINE_DISKS_MAX)
        return error_set(error, EINVAL, "there is one disk too many; a machine has at most %u", MACHINE_DISKS_MAX);
    int r = run_image_take(&config->instance, config->image, run_name(config), !config->name, machine, &root, error);
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

/* Runs the machine in this process. Takes the vm over. Returns the exit status. */
static int run_here(struct run_config *config, struct vm *vm)
{
    struct error error;
    struct console *console;
    if (vm_vsock(vm, &config->machine, &error) < 0 || open_console(config, vm, &console, &error) < 0) {
        log_error("%s", error.text);
        vm_free(vm);
        return MACHINE_END_FAILED;
    }
    return run_machine(config, vm, console);
}

/* Whether the guest has something to write that outlives the machine: then it is shut down in its own order, else at once. */
static bool keeps_something(const struct run_config *config)
{
    bool temporary = config->image && !config->name; /* the first disk goes with the machine */
    for (unsigned i = temporary ? 1 : 0; i < config->machine.disks; i++)
        if (!config->disk[i].readonly)
            return true;
    return config->machine.shares > 0;
}

/* Runs the command in the machine that has been started, then ends the machine. Returns the exit status. */
static int run_command(struct run_config *config, const char *name, struct background *background)
{
    struct error error;
    bool reached;
    int status = exec_command(name, &config->exec, config->command_count, config->command, &reached);
    if (!reached)
        background_tell(background);
    int r = stop_machine(name, reached && keeps_something(config) ? STOP_SECONDS : 0, &error);
    if (r < 0 && r != -ENOENT) /* that it ended by itself is no failure here */
        log_error("%s", error.text);
    background_end(background);
    return status;
}

/* Runs the machine in a process of its own. Takes the vm over. Returns the exit status. */
static int run_apart(struct run_config *config, struct vm *vm)
{
    struct error error;
    struct background background;
    char name[REGISTRY_NAME_MAX + 1];
    bool child;
    int failed = config->command ? AGENT_STATUS_FAILED : MACHINE_END_FAILED, status;
    snprintf(name, sizeof name, "%s", vm_name(vm));
    int r = background_start(vm, config->command, &background, &child, &status, &error);
    if (r == 0 && child)
        return run_here(config, vm);
    if (r < 0 && r != -ECHILD) {
        log_error("%s", error.text);
        vm_free(vm);
        return failed;
    }
    vm_hand_over(vm);
    run_image_hand_over(&config->instance);
    if (r == -ECHILD) /* it has said why */
        return config->command ? failed : status;
    if (config->command)
        return run_command(config, name, &background);
    puts(name);
    return 0;
}

/* Checks what was given as a whole. */
static int check(const struct run_config *config, bool dashes, struct error *error)
{
    if (!config->machine.kernel && !config->image)
        return error_set(error, EINVAL, "run needs an IMAGE or --kernel FILE; 'veneer run --help' tells more");
    if (config->image && config->name && !store_name_valid(config->name))
        return error_set(error, EINVAL, "'%s' is no name for a disk; give %s", config->name, STORE_NAME_FORM);
    if (dashes && !config->command)
        return error_set(error, EINVAL, "there is no command after '--'");
    if (config->detach && config->command)
        return error_set(error, EINVAL, "--detach leaves the machine running, a command ends it: give one of them");
    return 0;
}

/* Returns the exit status. */
static int run_with(struct run_config *config)
{
    struct error error;
    int failed = config->command ? AGENT_STATUS_FAILED : MACHINE_END_FAILED;
    char note[256] = "";
    if (!config->machine.engine)
        config->machine.engine = engine_choose(note, sizeof note);
    if (config->machine.engine->probe(&error) < 0) {
        log_error("engine %s: %s", config->machine.engine->name, error.text);
        return failed;
    }
    announce(config, note);
    struct vm *vm;
    if (vm_new(run_name(config), &vm, &error) < 0) {
        log_error("%s", error.text);
        return failed;
    }
    return config->detach || config->command ? run_apart(config, vm) : run_here(config, vm);
}

/* As run_with, with the instance that was asked for. */
static int run_instance(struct run_config *config)
{
    struct error error;
    int status = config->command ? AGENT_STATUS_FAILED : MACHINE_END_FAILED;
    snprintf(config->default_name, sizeof config->default_name, "vm-%d", getpid());
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
    struct run_config config = {.machine = {.vcpus = 1, .memory = MACHINE_MEMORY_DEFAULT, .debug_exit_port = -1,
                                            .virtio_packed = true},
                                .instance = {.instance = {.fd = -1}, .files = {.kernel = -1, .initrd = -1}}};
    struct error error;
    int rest, operands = 0, status = 0;
    bool dashes = false;
    config.machine.disk = config.disk;
    int r = option_parse_operands(options, argc, argv, &config, &config.image, 1, &operands, &rest, &dashes, &error);
    if (r == 0 && rest < argc) {
        config.command = argv + rest;
        config.command_count = argc - rest;
    }
    if (r == 0)
        r = check(&config, dashes, &error);
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
