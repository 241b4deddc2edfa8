/* stop.c - `veneer stop`: ends a running machine, by its guest's own shutdown where it has one. */
#include "cli/stop.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/option.h"
#include "host/agent_client.h"
#include "host/control.h"
#include "host/registry.h"

#define PATIENCE_MS 5000 /* for a machine's own answers */
#define TIMEOUT_SECONDS 30u
#define DEAF_SECONDS 5u /* for a guest to come up, or to notice its power button */

struct stop_config {
    bool force;
    unsigned seconds;
};

static int parse_force(void *config, const char *value, struct error *error)
{
    (void)value, (void)error;
    ((struct stop_config *)config)->force = true;
    return 0;
}

static int parse_timeout(void *config, const char *value, struct error *error)
{
    uint64_t seconds;
    int r = option_number(value, 0, 86400, &seconds, error);
    if (r == 0)
        ((struct stop_config *)config)->seconds = (unsigned)seconds;
    return r;
}

static const struct option_spec options[] = {
    {"force", NULL, "end the machine at once, as by pulling the plug", parse_force},
    {"timeout", "SECONDS", "how long the guest may take to shut down before it is forced (default: 30)", parse_timeout},
    {NULL, NULL, NULL, NULL}};

static int ask(const char *name, const char *verb, bool force, struct json_object **ret_reply, struct error *error)
{
    struct json_object *request = json_object_new_object();
    json_object_object_add(request, "verb", json_object_new_string(verb));
    if (force)
        json_object_object_add(request, "force", json_object_new_boolean(true));
    return control_ask(name, request, PATIENCE_MS, ret_reply, error);
}

struct guest {
    bool agent; /* veneer's agent in it has been ready */
    bool heard; /* it took notice of its power button's last press */
};

static int look(const char *name, struct guest *ret_guest, int *ret_pid, struct error *error)
{
    struct json_object *status, *pid = NULL, *agent = NULL, *button = NULL;
    int r = ask(name, "status", false, &status, error);
    if (r < 0)
        return r;
    json_object_object_get_ex(status, "pid", &pid);
    json_object_object_get_ex(status, "agent", &agent);
    json_object_object_get_ex(status, "button", &button);
    *ret_guest = (struct guest){json_object_get_boolean(agent), json_object_get_boolean(button)};
    *ret_pid = json_object_get_int(pid);
    json_object_put(status);
    return 0;
}

/* Opens the machine's process. Afterwards the name is looked up again: then it cannot be another process of that number. */
static int open_process(const char *name, int *ret_fd, struct error *error)
{
    struct guest guest;
    char path[REGISTRY_PATH_MAX];
    int pid;
    int r = look(name, &guest, &pid, error);
    if (r < 0)
        return r;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return error_set(error, errno, "opening the process of '%s': %s", name, strerror(errno));
    r = registry_find(name, "lock", path, error);
    if (r < 0)
        close(fd);
    else
        *ret_fd = fd;
    return r;
}

static bool ended(int process, unsigned seconds)
{
    struct pollfd polled = {process, POLLIN, 0};
    return poll(&polled, 1, (int)(seconds * 1000)) > 0;
}

static void press_button(const char *name)
{
    struct error error;
    if (ask(name, "stop", false, NULL, &error) < 0)
        log_debug("%s", error.text);
}

static void ask_agent(const char *name)
{
    struct error error;
    char path[REGISTRY_PATH_MAX];
    int socket;
    int r = registry_find(name, "vsock.sock", path, &error);
    if (r == 0)
        r = agent_connect(path, AGENT_PORT, &socket, &error);
    if (r == 0) {
        r = agent_power_off(socket, &error);
        close(socket);
    }
    if (r < 0)
        log_debug("%s", error.text);
}

/* Asks the guest to shut down, by its agent and by its power button. One that is still starting has neither: the button is pressed
 * each second until the guest's kernel takes notice, and the agent asked once it is there. A guest that has done neither for DEAF_SECONDS
 * knows of nothing, so there is nothing to wait for. Returns true when the machine has ended. */
static bool shut_down(const char *name, int process, unsigned seconds)
{
    struct guest guest = {false, false};
    struct error error;
    int pid;
    for (unsigned waited = 0; waited < seconds; waited++) {
        if (look(name, &guest, &pid, &error) < 0) /* it is ending, or not answering: waiting is all that is left */
            return ended(process, seconds - waited);
        if (waited == DEAF_SECONDS && !guest.agent && !guest.heard) {
            log_warning("the guest of '%s' is not up yet, or does not listen to its power button; the machine is forced to end", name);
            return false;
        }
        if (waited == 0 || !guest.heard)
            press_button(name);
        if (guest.agent) {
            ask_agent(name);
            seconds -= waited;
            break;
        }
        if (ended(process, 1))
            return true;
    }
    if (guest.agent && ended(process, seconds))
        return true;
    log_warning("the guest of '%s' did not shut down in time; the machine is forced to end", name);
    return false;
}

int stop_machine(const char *name, unsigned seconds, struct error *error)
{
    int process;
    int r = open_process(name, &process, error);
    if (r < 0)
        return r;
    if (!seconds || !shut_down(name, process, seconds)) {
        r = ask(name, "stop", true, NULL, error);
        if (!ended(process, PATIENCE_MS / 1000)) {
            if (r == 0)
                r = error_set(error, ETIMEDOUT, "machine '%s' does not end", name);
        } else {
            r = 0; /* whatever became of the question */
        }
    }
    close(process);
    return r;
}

static int stop_run(int argc, char **argv)
{
    struct stop_config config = {.seconds = TIMEOUT_SECONDS};
    struct error error;
    const char *name;
    int r = option_parse_name(options, argc, argv, &config, &name, &error);
    if (r > 0) {
        puts("usage: veneer stop [OPTION...] NAME\n\nEnds the running machine NAME: its guest is asked to shut down, by veneer's agent in\n"
             "it and by its power button; a guest that does not is forced, one that is not up yet after 5 seconds.\n\noptions:");
        option_help(options, stdout);
        return 0;
    }
    if (r < 0) {
        log_error("%s", error.text);
        return STATUS_USAGE;
    }
    r = stop_machine(name, config.force ? 0 : config.seconds, &error);
    if (r < 0)
        log_error("%s", error.text);
    return r < 0;
}

const struct command command_stop = {"stop", "end a running machine", stop_run};
