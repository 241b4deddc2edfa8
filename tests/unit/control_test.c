/* The control socket: requests and replies, late replies, clients that send nonsense, too much, nothing, or leave. */
#include "host/control.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"

static struct loop *loop;
static struct control_call *late;
static unsigned echoes;

static int serve_echo(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                      struct error *error)
{
    const char *text = "none";
    uint64_t number = 7;
    bool flag = false;
    (void)owner, (void)call;
    int r = control_string(request, "text", true, &text, error);
    if (r == 0)
        r = control_number(request, "number", false, 100, &number, error);
    if (r == 0)
        r = control_flag(request, "flag", &flag, error);
    if (r < 0)
        return r;
    echoes++;
    json_object_object_add(reply, "text", json_object_new_string(text));
    json_object_object_add(reply, "number", json_object_new_uint64(number));
    json_object_object_add(reply, "flag", json_object_new_boolean(flag));
    return 0;
}

static int serve_late(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                      struct error *error)
{
    (void)owner, (void)request, (void)reply;
    if (late)
        return error_set(error, EBUSY, "one at a time");
    late = call;
    return CONTROL_LATER;
}

/* Answers what was left for later. */
static int serve_now(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                     struct error *error)
{
    (void)owner, (void)call, (void)request, (void)error;
    json_object_object_add(reply, "waited_for", json_object_new_boolean(late && control_call_waited_for(late)));
    if (late)
        control_reply(late, -EIO, NULL, "late news");
    late = NULL;
    return 0;
}

static int serve_quit(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                      struct error *error)
{
    (void)owner, (void)call, (void)request, (void)reply, (void)error;
    loop_stop(loop);
    return 0;
}

static const struct control_verb verbs[] = {
    {"echo", serve_echo}, {"late", serve_late}, {"now", serve_now}, {"quit", serve_quit}, {NULL, NULL}};

static char path[80];

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        exit(1);
    return fd;
}

static void say(int fd, const char *text)
{
    CHECK_EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next line; "" at the connection's end. */
static const char *hear(int fd)
{
    static char line[4096];
    size_t used = 0;
    while (used + 1 < sizeof line && recv(fd, line + used, 1, 0) == 1 && line[used] != '\n')
        used++;
    line[used] = '\0';
    return line;
}

static const char *ask(const char *text)
{
    int fd = dial();
    say(fd, text);
    const char *answer = hear(fd);
    close(fd);
    return answer;
}

static void test_requests(void)
{
    CHECK_STR(ask("{\"verb\":\"echo\",\"text\":\"hi\",\"number\":100,\"flag\":true}\n"),
              "{\"text\":\"hi\",\"number\":100,\"flag\":true,\"ok\":true}");
    CHECK_STR(ask("{\"verb\":\"echo\",\"text\":\"\\u00e9\\n\"}\n"), "{\"text\":\"\xc3\xa9\\n\",\"number\":7,\"flag\":false,\"ok\":true}");
    CHECK_STR(ask("{\"verb\":\"echo\"}\n"), "{\"ok\":false,\"error\":\"the request lacks \\\"text\\\"\"}");
    CHECK_STR(ask("{\"verb\":\"echo\",\"text\":3}\n"), "{\"ok\":false,\"error\":\"\\\"text\\\" is not a string\"}");
    CHECK_STR(ask("{\"verb\":\"echo\",\"text\":\"a\\u0000b\"}\n"), "{\"ok\":false,\"error\":\"\\\"text\\\" has a NUL in it\"}");
    CHECK_STR(ask("{\"verb\":\"echo\",\"text\":\"\",\"number\":101}\n"), "{\"ok\":false,\"error\":\"\\\"number\\\" is out of range\"}");
    CHECK_STR(ask("{\"verb\":\"echo\",\"text\":\"\",\"number\":-1}\n"), "{\"ok\":false,\"error\":\"\\\"number\\\" is out of range\"}");
    CHECK_STR(ask("{\"verb\":\"echo\",\"text\":\"\",\"number\":99999999999999999999999}\n"),
              "{\"ok\":false,\"error\":\"\\\"number\\\" is out of range\"}");
    CHECK_STR(ask("{\"verb\":\"echo\",\"text\":\"\",\"number\":1.5}\n"), "{\"ok\":false,\"error\":\"\\\"number\\\" is not a whole number\"}");
    CHECK_STR(ask("{\"verb\":\"echo\",\"text\":\"\",\"flag\":1}\n"), "{\"ok\":false,\"error\":\"\\\"flag\\\" is not true or false\"}");
    CHECK_STR(ask("{\"verb\":\"dance\"}\n"), "{\"ok\":false,\"error\":\"there is no verb 'dance'\"}");
    CHECK_STR(ask("{}\n"), "{\"ok\":false,\"error\":\"the request lacks \\\"verb\\\"\"}");
}

static void test_nonsense(void)
{
    static const char *const lines[] = {"\n", "null\n", "[]\n", "42\n", "{\"verb\":\"echo\",\"text\":\"\"} {}\n", "{\"verb\"\n", "GET / HTTP/1.0\r\n",
                                        "{\"verb\":\"\xff\"}\n", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        CHECK(strstr(ask(lines[i]), "\"ok\":false,\"error\":\"the request is not one JSON object on one line"));
    char *huge = malloc(CONTROL_LINE_MAX + 2);
    memset(huge, ' ', CONTROL_LINE_MAX + 1);
    huge[CONTROL_LINE_MAX + 1] = '\0';
    CHECK(strstr(ask(huge), "longer than 65536 bytes"));
    free(huge);
}

static void test_stream(void)
{
    int fd = dial();
    say(fd, "{\"verb\":\"echo\",\"te"); /* in pieces, then several at once */
    say(fd, "xt\":\"1\"}\n{\"verb\":\"echo\",\"text\":\"2\"}\nnonsense\n{\"verb\":\"echo\",\"text\":\"3\"}\n");
    CHECK(strstr(hear(fd), "\"1\""));
    CHECK(strstr(hear(fd), "\"2\""));
    CHECK(strstr(hear(fd), "\"ok\":false"));
    CHECK(strstr(hear(fd), "\"3\""));
    shutdown(fd, SHUT_WR);
    CHECK_STR(hear(fd), "");
    close(fd);
}

static void test_late(void)
{
    int fd = dial();
    say(fd, "{\"verb\":\"late\"}\n{\"verb\":\"echo\",\"text\":\"after\"}\n");
    while (!strstr(ask("{\"verb\":\"late\"}\n"), "one at a time")) /* until the first has arrived */
        ;
    CHECK_STR(ask("{\"verb\":\"now\"}\n"), "{\"waited_for\":true,\"ok\":true}");
    CHECK_STR(hear(fd), "{\"ok\":false,\"error\":\"late news\"}");
    CHECK(strstr(hear(fd), "after"));
    say(fd, "{\"verb\":\"late\"}\n");
    while (!strstr(ask("{\"verb\":\"late\"}\n"), "one at a time"))
        ;
    close(fd); /* the client leaves first */
    while (strstr(ask("{\"verb\":\"now\"}\n"), "\"waited_for\":true"))
        CHECK(false);
    /* More connections than there are places: the idle give way, and the newest is served. */
    int idle[CONTROL_CLIENTS_MAX + 8];
    for (size_t i = 0; i < sizeof idle / sizeof idle[0]; i++)
        idle[i] = dial();
    CHECK(strstr(ask("{\"verb\":\"echo\",\"text\":\"crowd\"}\n"), "crowd"));
    for (size_t i = 0; i < sizeof idle / sizeof idle[0]; i++)
        close(idle[i]);
}

/* A client that asks and asks and never reads: it is held up, nobody else is, and nothing grows. */
static void test_slow(void)
{
    static const char line[] = "{\"verb\":\"echo\",\"text\":\"slow reader\"}\n";
    int fd = dial();
    while (send(fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
        ;
    CHECK(errno == EAGAIN || errno == EWOULDBLOCK);
    CHECK(strstr(ask("{\"verb\":\"echo\",\"text\":\"other\"}\n"), "other"));
    close(fd);
}

static void test_client(void)
{
    struct error error;
    struct json_object *request = json_object_new_object(), *reply = NULL, *text;
    json_object_object_add(request, "verb", json_object_new_string("echo"));
    CHECK_EQ(control_request(path, request, 5000, &reply, &error), -EREMOTEIO);
    CHECK_STR(error.text, "the request lacks \"text\"");
    json_object_object_add(request, "text", json_object_new_string("word"));
    CHECK_EQ(control_request(path, request, 5000, &reply, &error), 0);
    CHECK(json_object_object_get_ex(reply, "text", &text));
    CHECK_STR(json_object_get_string(text), "word");
    json_object_put(reply);
    json_object_object_add(request, "verb", json_object_new_string("late"));
    CHECK_EQ(control_request(path, request, 10, NULL, &error), -ETIMEDOUT);
    json_object_put(request);
    CHECK(strstr(ask("{\"verb\":\"now\"}\n"), "\"ok\":true"));
}

static void *clients(void *context)
{
    (void)context;
    test_requests();
    test_nonsense();
    test_stream();
    test_late();
    test_slow();
    test_client();
    CHECK_STR(ask("{\"verb\":\"quit\"}\n"), "{\"ok\":true}");
    return NULL;
}

int main(void)
{
    char folder[] = "/tmp/veneer-control-XXXXXX";
    struct error error;
    struct control *control;
    pthread_t thread;
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/control.sock", folder);
    CHECK_EQ(loop_new(&loop, &error), 0);
    CHECK_EQ(control_new(loop, path, verbs, NULL, &control, &error), 0);
    if (pthread_create(&thread, NULL, clients, NULL) != 0)
        return 1;
    CHECK_EQ(loop_run(loop), 0);
    pthread_join(thread, NULL);
    CHECK(echoes > 5);
    control_free(control);
    loop_free(loop);
    unlink(path);
    rmdir(folder);
    CHECK_DONE();
}
