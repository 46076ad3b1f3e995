/* SPDX-License-Identifier: MIT
 * A hostile server in a process of its own. */
#include "hostile_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random.h"
#include "redis/slot_map.h"
#include "support.h"

#define CONNECTIONS 4096
#define COMMAND_MAX 20480
#define REPLY_MAX 9500000
#define NODES 1024
#define LATE_MOST (300 * STEADY_MILLISECOND)

/* Shared by both processes. */
struct hostile {
    pid_t pid;
    int ports[HOSTILE_PORTS], dead, hole;
    atomic_uint_fast64_t orders; /* the kind, and then its arguments */
    atomic_uint heard, accepted, open, most_open;
};

enum kind { IS_HONEST, DOES, DRAWS };

struct connection {
    int fd, port;
    bool silent, doomed; /* doomed: closed after everything has been sent */
    steady_us due;       /* nothing is sent before that */
    char *out;
    size_t in_len, out_len, out_from, out_room;
    char in[COMMAND_MAX];
};

/* The behaviour of a port: the odds of each reply, out of their sum. */
struct manner {
    unsigned act[HOSTILE_ACTS], map[HOSTILE_MAPS], other[4];
};
enum { TRUE_ANSWER, UNTRUE_ANSWER, HUGE_ANSWER, OTHER_ANSWER };

static struct hostile *shared;
static struct manner manners[HOSTILE_PORTS];
static uint64_t seed, followed;
static unsigned addresses;
static int listeners[HOSTILE_PORTS], fillers[8];
static struct connection *connections[CONNECTIONS];
static unsigned count;
static char *reply; /* the reply being written */
static size_t len;

/* ---- Writing ---- */

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    const int n = vsnprintf(reply + len, REPLY_MAX - len, format, list);
    va_end(list);
    if (n < 0 || len + (size_t)n >= REPLY_MAX) abort();
    len += (size_t)n;
}

static unsigned any(unsigned most) { return (unsigned)random_in(&seed, 0, most); }

/* 127.0.0.1 as inet_aton(3) reads it, with leading zeros: 10^6 different texts. */
static const char *new_address(void) {
    static char text[256];
    const unsigned n = addresses++;
    snprintf(text, sizeof text, "0%.*s177.%.*s0.%.*s0.%.*s1", (int)(n % 32), "00000000000000000000000000000000",
             (int)(n / 32 % 32), "00000000000000000000000000000000", (int)(n / 1024 % 32),
             "00000000000000000000000000000000", (int)(n / 32768 % 32), "00000000000000000000000000000000");
    return text;
}

static const char *new_name(void) {
    static char text[64];
    snprintf(text, sizeof text, "n%u.example", addresses++);
    return text;
}

static int a_port(void) { return shared->ports[any(HOSTILE_PORTS - 1)]; }

/* ---- Maps ---- */

static void say_range(unsigned first, unsigned last, const char *host, int port) {
    say("*3\r\n:%u\r\n:%u\r\n*3\r\n$%zu\r\n%s\r\n:%d\r\n$2\r\nid\r\n", first, last, strlen(host), host, port);
}

static void say_nodes(unsigned nodes, bool by_name, int port) {
    const unsigned width = STEADY__SLOTS / nodes;
    say("*%u\r\n", nodes);
    for (unsigned i = 0; i < nodes; i++)
        say_range(i * width, (i + 1) * width - 1, by_name ? new_name() : new_address(), port != 0 ? port : a_port());
}

static void say_any(void) {
    say("*%d\r\n", STEADY__SLOTS);
    for (unsigned i = 0; i < STEADY__SLOTS; i++)
        say("*3\r\n:%u\r\n:%u\r\n*2\r\n$1\r\n?\r\n:%d\r\n", i, i, shared->ports[i % HOSTILE_PORTS]);
}

static void say_overlap(void) {
    say_nodes(NODES, false, 0);
    say_range(0, 0, new_address(), a_port());
    memcpy(reply, "*1025", 5);
}

/* `each` replicas of four bytes in each of 16,384 ranges. */
static void say_dense(unsigned each) {
    say("*%d\r\n", STEADY__SLOTS);
    for (unsigned i = 0; i < STEADY__SLOTS; i++) {
        say("*%u\r\n:%u\r\n:%u\r\n*2\r\n$0\r\n\r\n:%d\r\n", 3 + each, i, i, shared->ports[0]);
        for (unsigned k = 0; k < each; k++)
            memcpy(reply + len + (size_t)4 * k, ":0\r\n", 4);
        len += (size_t)4 * each;
    }
}

/* One range with replicas of 4,000 bytes. */
static void say_thick(unsigned replicas) {
    say("*1\r\n*%u\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n", 3 + replicas, shared->ports[0]);
    for (unsigned i = 0; i < replicas; i++)
        say("$4000\r\n%04000d\r\n", 0);
}

static void say_map(enum hostile_map map) {
    switch (map) {
    case HOSTILE_MAP_NONE: say("*0\r\n"); break;
    case HOSTILE_MAP_FEW: say_nodes(8, false, 0); break;
    case HOSTILE_MAP_UP: say_nodes(NODES, false, 0); break;
    case HOSTILE_MAP_DEAD: say_nodes(NODES, false, any(1) ? shared->dead : shared->hole); break;
    case HOSTILE_MAP_NAMES: say_nodes(NODES, true, 0); break;
    case HOSTILE_MAP_ANY: say_any(); break;
    case HOSTILE_MAP_OVERLAP: say_overlap(); break;
    case HOSTILE_MAP_ONE:
        say("*1\r\n");
        say_range(any(STEADY__SLOTS - 1), STEADY__SLOTS - 1, new_address(), a_port());
        break;
    case HOSTILE_MAP_DENSE: say_dense(16); break;
    case HOSTILE_MAP_TOO_DENSE: say_dense(100); break;
    case HOSTILE_MAP_THICK: say_thick(2000); break;
    case HOSTILE_MAP_TOO_THICK: say_thick(2200); break;
    case HOSTILE_MAP_HALF:
        say_thick(2000);
        len = 6000000;
        break;
    case HOSTILE_MAP_ERROR: say("%s", any(1) ? "-NOPERM no right to it\r\n" : "-ERR no cluster\r\n"); break;
    default:
        say("*1\r\n");
        say_range(0, STEADY__SLOTS - 1, "127.1", shared->ports[0]); /* another spelling than in the URL */
        break;
    }
}

/* ---- Other answers ---- */

static void say_bulk(const char *text) { say("$%zu\r\n%s\r\n", strlen(text), text); }

static void say_address(const char *host, int port) {
    char digits[8];
    snprintf(digits, sizeof digits, "%d", port);
    say("*2\r\n");
    say_bulk(host);
    say_bulk(digits);
}

static void say_replica(const char *host, int port) {
    char digits[8];
    snprintf(digits, sizeof digits, "%d", port);
    say("*3\r\n");
    say_bulk(host);
    say_bulk(digits);
    say_bulk("1");
}

/* The second port is the replica of all other ports. */
static void say_role(const struct connection *c) {
    if (c->port == 1) {
        say("*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:%d\r\n$9\r\nconnected\r\n:1\r\n", shared->ports[0]);
        return;
    }
    say("*3\r\n$6\r\nmaster\r\n:1\r\n*1\r\n");
    say_replica("127.0.0.1", shared->ports[1]);
}

static void say_untrue_role(void) {
    static const char *const roles[] = {"*3\r\n$8\r\nsentinel\r\n*0\r\n:1\r\n",
                                        "*0\r\n",
                                        "$-1\r\n",
                                        "+OK\r\n",
                                        "*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$7\r\nconnect\r\n:1\r\n",
                                        "-NOPERM no\r\n",
                                        "-LOADING x\r\n"};
    const unsigned replicas = any(199);
    if (any(1)) {
        say("%s", roles[any(COUNT(roles) - 1)]);
        return;
    }
    say("*3\r\n$6\r\nmaster\r\n:1\r\n*%u\r\n", replicas);
    for (unsigned i = 0; i < replicas; i++)
        say_replica(any(3) ? new_address() : new_name(), any(1) ? a_port() : shared->dead);
}

static void say_untrue_address(void) {
    static const char *const answers[] = {
        "*-1\r\n",          "$-1\r\n", "*2\r\n$1\r\na\r\n:1\r\n", "*3\r\n:1\r\n:1\r\n:1\r\n", "-NOPERM no\r\n",
        "-IDONTKNOW x\r\n", "+OK\r\n"};
    switch (any(4)) {
    case 0: say("%s", answers[any(COUNT(answers) - 1)]); break;
    case 1: say_address(new_name(), a_port()); break;
    case 2: say_address("127.0.0.1", any(1) ? shared->dead : shared->hole); break;
    default: say_address(new_address(), a_port()); break;
    }
}

static void say_settings(bool evicts) {
    say("*4\r\n$9\r\nmaxmemory\r\n$1\r\n%d\r\n$16\r\nmaxmemory-policy\r\n", evicts);
    say_bulk(evicts ? "allkeys-lru" : "noeviction");
}

static bool is_word(const char *word, const char *other) { return strcasecmp(word, other) == 0; }

static void say_true(const struct connection *c, const char *word) {
    if (is_word(word, "CLUSTER"))
        say_map(HOSTILE_MAP_TRUE);
    else if (is_word(word, "SENTINEL"))
        say_address("127.0.0.1", shared->ports[0]);
    else if (is_word(word, "ROLE"))
        say_role(c);
    else if (is_word(word, "CONFIG"))
        say_settings(false);
    else if (is_word(word, "SCRIPT"))
        say("$40\r\n0123456789012345678901234567890123456789\r\n");
    else
        say("+OK\r\n");
}

static void say_untrue(const char *word) {
    if (is_word(word, "SENTINEL"))
        say_untrue_address();
    else if (is_word(word, "ROLE"))
        say_untrue_role();
    else if (is_word(word, "CONFIG"))
        say_settings(true);
    else
        say("%s", any(1) ? "-ERR no\r\n" : "-NOPERM this user has no permissions to run the command\r\n");
}

/* ---- Decisions ---- */

static void say_error(void) {
    static const char *const errors[] = {
        "NOSCRIPT No matching script",
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script",
        "OOM command not allowed",
        "MISCONF no disk",
        "NOREPLICAS",
        "TRYAGAIN",
        "NOAUTH Authentication required.",
        "WRONGPASS",
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "NOPERM No permissions to access a key",
        "ERR unknown command",
        "ERR max number of clients reached",
        "DENIED protected mode",
        "WRONGTYPE",
        "NOTABUCKET",
        "MOVED",
        "MOVED 1 x:1",
        "ASK 99999 127.0.0.1:1",
        "",
    };
    say("-%s\r\n", errors[any(COUNT(errors) - 1)]);
}

static void say_garbage(void) {
    static const char *const garbage[] = {":\r\n",
                                          "*1\r\n:1\r\n",
                                          "*4\r\n:9\r\n:9\r\n:9\r\n:9\r\n",
                                          "%1\r\n",
                                          "$99999999\r\n",
                                          "*999999999\r\n",
                                          ">1\r\n+x\r\n",
                                          "\r\n\r\n",
                                          "HTTP/1.1 200 OK\r\n",
                                          "*5\r\n:1\r\n:1\r\n:0\r\n:0\r\n:5\r\n",
                                          "$-1\r\n",
                                          "*-1\r\n",
                                          "_\r\n"};
    say("%s", garbage[any(COUNT(garbage) - 1)]);
}

static void say_verdict(const char *word) {
    if (strncasecmp(word, "STEADY.", 7) != 0)
        say("%s", any(3) ? ":1\r\n" : ":-1\r\n");
    else if (is_word(word, "STEADY.RESET"))
        say(":1\r\n");
    else
        say("*5\r\n:1\r\n:1\r\n:1000\r\n:0\r\n:0\r\n");
}

static void say_redirect(const char *word, unsigned slot, const char *host, int port) {
    say("-%s %u %s:%d\r\n", word, slot, host, port);
}

static void act(struct connection *c, enum hostile_act what, const char *word, unsigned slot) {
    switch (what) {
    case HOSTILE_MOVED_UP: say_redirect("MOVED", slot, new_address(), a_port()); break;
    case HOSTILE_MOVED_DEAD: say_redirect("MOVED", slot, new_address(), shared->dead); break;
    case HOSTILE_MOVED_HOLE: say_redirect("MOVED", slot, new_address(), shared->hole); break;
    case HOSTILE_MOVED_NAME: say_redirect("MOVED", slot, new_name(), a_port()); break;
    case HOSTILE_MOVED_SELF: say_redirect("MOVED", slot, "", a_port()); break;
    case HOSTILE_MOVED_ANY: say_redirect("MOVED", slot, "?", a_port()); break;
    case HOSTILE_ASK_UP: say_redirect("ASK", slot, new_address(), a_port()); break;
    case HOSTILE_CLUSTERDOWN: say("-CLUSTERDOWN The cluster is down\r\n"); break;
    case HOSTILE_ERROR: say_error(); break;
    case HOSTILE_LONG_ERROR: say("-ERR %0*d\r\n", 1000 + (int)any(8000), 0); break;
    case HOSTILE_GARBAGE: say_garbage(); break;
    case HOSTILE_TWICE:
        say_verdict(word);
        say_verdict(word);
        break;
    case HOSTILE_HALF:
        say("*4\r\n:1\r\n:");
        c->silent = true;
        break;
    case HOSTILE_HANG_UP:
        if (any(1)) say_verdict(word);
        c->doomed = true;
        break;
    case HOSTILE_SILENCE: c->silent = true; break;
    case HOSTILE_LATE: c->due = now_us() + any(LATE_MOST); /* fall through */
    default: say_verdict(word); break;
    }
}

/* ---- Commands ---- */

static unsigned choose(const unsigned *odds, unsigned n) {
    unsigned sum = 0, i;
    for (i = 0; i < n; i++)
        sum += odds[i];
    unsigned left = any(sum - 1);
    for (i = 0; left >= odds[i]; i++)
        left -= odds[i];
    return i;
}

static bool is_decision(const char *word) {
    return strncasecmp(word, "EVAL", 4) == 0 || strncasecmp(word, "STEADY.", 7) == 0;
}

static void answer_other(struct connection *c, const char *word) {
    switch (choose(manners[c->port].other, 4)) {
    case TRUE_ANSWER: say_true(c, word); break;
    case UNTRUE_ANSWER: say_untrue(word); break;
    case HUGE_ANSWER: say_thick(2000); break;
    default: act(c, (enum hostile_act)any(HOSTILE_ACTS - 1), "EVALSHA", any(STEADY__SLOTS - 1)); break;
    }
}

static void answer(struct connection *c, const char *word, unsigned slot) {
    const struct manner *manner = &manners[c->port];
    if (is_decision(word)) {
        shared->heard++;
        act(c, (enum hostile_act)choose(manner->act, HOSTILE_ACTS), word, slot);
        return;
    }
    const enum hostile_map map = (enum hostile_map)choose(manner->map, HOSTILE_MAPS);
    if (!is_word(word, "CLUSTER") || map == HOSTILE_MAP_OTHER) {
        answer_other(c, word);
        return;
    }
    say_map(map);
    if (map == HOSTILE_MAP_HALF) c->silent = true;
}

static void send_reply(struct connection *c) {
    while (c->out_len + len > c->out_room) {
        c->out_room = c->out_room > 0 ? 2 * c->out_room : 1024;
        c->out = realloc(c->out, c->out_room);
        if (c->out == NULL) abort();
    }
    if (len == 0) return;
    memcpy(c->out + c->out_len, reply, len);
    c->out_len += len;
    len = 0;
}

/* Reads the bulk string at `at`, and moves `at` behind it. False: it is incomplete. */
static bool next_bulk(const struct connection *c, size_t *at, const char **text, size_t *text_len) {
    const char *end = memchr(c->in + *at, '\n', c->in_len - *at);
    if (end == NULL) return false;
    *text_len = strtoul(c->in + *at + 1, NULL, 10);
    *text = end + 1;
    *at = (size_t)(end + 1 - c->in) + *text_len + 2;
    return *at <= c->in_len;
}

/* The length of the first command; 0: it is incomplete. The key is its fourth word, or the second in a command of our
 * module. */
static size_t read_command(const struct connection *c, char word[24], unsigned *slot) {
    const char *end = memchr(c->in, '\n', c->in_len), *text;
    if (end == NULL) return 0;
    const long words = strtol(c->in + 1, NULL, 10);
    size_t at = (size_t)(end + 1 - c->in), text_len;
    for (long i = 0; i < words; i++) {
        if (!next_bulk(c, &at, &text, &text_len)) return 0;
        if (i == 0) snprintf(word, 24, "%.*s", (int)text_len, text);
        if (i == (strncasecmp(word, "STEADY.", 7) == 0 ? 1 : 3)) *slot = steady__slot_of(text, text_len);
    }
    return at;
}

static void obey(struct connection *c) {
    char word[24] = "";
    unsigned slot = 0;
    for (size_t n; c->in_len > 0 && (n = read_command(c, word, &slot)) > 0;) {
        memmove(c->in, c->in + n, c->in_len -= n);
        if (!c->silent && !c->doomed) answer(c, word, slot);
        send_reply(c);
    }
}

/* ---- Orders ---- */

static void be_honest(struct manner *manner) {
    memset(manner, 0, sizeof *manner);
    manner->act[HOSTILE_VERDICT] = manner->map[HOSTILE_MAP_TRUE] = manner->other[TRUE_ANSWER] = 1;
}

/* Draws a few kinds of replies, so that each behaviour lasts long enough to have an effect. */
static void draw(struct manner *manner) {
    be_honest(manner);
    manner->act[HOSTILE_VERDICT] = any(8);
    for (unsigned i = 0; i < 3; i++) {
        manner->act[any(HOSTILE_ACTS - 1)] += 1 + any(8);
        manner->map[any(HOSTILE_MAPS - 1)] += 1 + any(8);
    }
    manner->other[TRUE_ANSWER] = 1 + any(16);
    manner->other[UNTRUE_ANSWER] = any(8);
    manner->other[HUGE_ANSWER] = any(9) == 0;
    manner->other[OTHER_ANSWER] = any(2);
}

/* Discards replies that were chosen before and not sent, because they are not honest. */
static void repent(struct connection *c) {
    c->doomed = c->doomed || c->silent || c->out_from < c->out_len;
    c->out_from = c->out_len = 0;
}

static void follow_orders(void) {
    const uint64_t orders = shared->orders;
    if (orders == followed) return;
    followed = orders;
    if (orders >> 60 == DRAWS) seed = (orders & UINT32_MAX) + 1;
    for (unsigned i = 0; i < HOSTILE_PORTS; i++) {
        be_honest(&manners[i]);
        if (orders >> 60 == DRAWS) draw(&manners[i]);
        if (orders >> 60 == DOES) {
            manners[i].act[HOSTILE_VERDICT] = manners[i].map[HOSTILE_MAP_TRUE] = 0;
            manners[i].act[orders & 255] = manners[i].map[orders >> 8 & 255] = 1;
        }
    }
    for (unsigned i = 0; orders >> 60 == IS_HONEST && i < count; i++)
        repent(connections[i]);
}

/* ---- Sockets ---- */

static int bind_socket(int *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t a_len = sizeof a;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || getsockname(fd, (struct sockaddr *)&a, &a_len) != 0)
        abort();
    *port = ntohs(a.sin_port);
    return fd;
}

/* The queue is full, so the system ignores further connection attempts. */
static void fill_queue(int port) {
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    for (size_t i = 0; i < COUNT(fillers); i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fillers[i] < 0 || (connect(fillers[i], (const struct sockaddr *)&a, sizeof a) != 0 && errno != EINPROGRESS))
            abort();
    }
}

static void open_ports(void) {
    for (unsigned i = 0; i < HOSTILE_PORTS; i++) {
        listeners[i] = bind_socket(&shared->ports[i]);
        if (listen(listeners[i], 4096) != 0) abort();
    }
    bind_socket(&shared->dead);
    if (listen(bind_socket(&shared->hole), 1) != 0) abort();
    fill_queue(shared->hole);
}

static void let_in(int port) {
    for (int fd; (fd = accept4(listeners[port], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
        struct connection *c = count < CONNECTIONS ? calloc(1, sizeof *c) : NULL;
        if (c == NULL) abort();
        c->fd = fd;
        c->port = port;
        connections[count++] = c;
        shared->accepted++;
        shared->open = count;
        if (count > shared->most_open) shared->most_open = count;
    }
}

static void let_go(unsigned i) {
    struct connection *c = connections[i];
    close(c->fd);
    free(c->out);
    free(c);
    connections[i] = connections[--count];
    shared->open = count;
}

/* False: the connection has ended. */
static bool serve(struct connection *c, bool readable) {
    if (readable && c->in_len < COMMAND_MAX) {
        const ssize_t n = recv(c->fd, c->in + c->in_len, COMMAND_MAX - c->in_len, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) return false;
        if (n > 0) c->in_len += (size_t)n;
        obey(c);
    }
    if (c->out_from < c->out_len && now_us() >= c->due) {
        const ssize_t n = send(c->fd, c->out + c->out_from, c->out_len - c->out_from, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return false;
        if (n > 0) c->out_from += (size_t)n;
        if (c->out_from == c->out_len) c->out_from = c->out_len = 0;
    }
    return !c->doomed || c->out_len > 0;
}

static void turn(void) {
    static struct pollfd fds[CONNECTIONS + HOSTILE_PORTS];
    const unsigned before = count;
    int wait = 20;
    for (unsigned i = 0; i < before; i++) {
        const struct connection *c = connections[i];
        const bool sends = c->out_from < c->out_len, rests = now_us() < c->due;
        if (sends && rests) wait = 1;
        fds[i] = (struct pollfd){c->fd, (short)(POLLIN | (sends && !rests ? POLLOUT : 0)), 0};
    }
    for (unsigned i = 0; i < HOSTILE_PORTS; i++)
        fds[before + i] = (struct pollfd){listeners[i], POLLIN, 0};
    poll(fds, before + HOSTILE_PORTS, wait);
    follow_orders();
    for (unsigned i = before; i-- > 0;)
        if (!serve(connections[i], fds[i].revents != 0)) let_go(i);
    for (unsigned i = 0; i < HOSTILE_PORTS; i++)
        if (fds[before + i].revents != 0) let_in((int)i);
}

static void run(void) {
    const struct rlimit limit = {CONNECTIONS + 64, CONNECTIONS + 64};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_NOFILE, &limit);
    reply = malloc(REPLY_MAX);
    seed = 1;
    followed = UINT64_MAX;
    if (reply == NULL) abort();
    for (;;)
        turn();
}

/* ---- The other process ---- */

struct hostile *hostile_start(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) abort();
    int ready[2];
    char byte;
    if (pipe(ready) != 0) abort();
    const pid_t pid = fork();
    if (pid < 0) abort();
    if (pid == 0) {
        open_ports();
        close(ready[0]);
        close(ready[1]);
        run();
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 0) abort();
    close(ready[0]);
    shared->pid = pid;
    return shared;
}

int hostile_port(const struct hostile *server, int number) { return server->ports[number]; }

void hostile_stop(struct hostile *server) {
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    munmap(server, sizeof *server);
}

void hostile_is_honest(struct hostile *server) { server->orders = (uint64_t)IS_HONEST << 60; }

void hostile_does(struct hostile *server, enum hostile_act act, enum hostile_map map) {
    server->orders = (uint64_t)DOES << 60 | (uint64_t)map << 8 | (uint64_t)act;
}

void hostile_draws(struct hostile *server, uint32_t by) { server->orders = (uint64_t)DRAWS << 60 | by; }

unsigned hostile_heard(const struct hostile *server) { return server->heard; }
unsigned hostile_accepted(const struct hostile *server) { return server->accepted; }
unsigned hostile_most_open(const struct hostile *server) { return server->most_open; }

/* ---- The process under test ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
size_t __sanitizer_get_current_allocated_bytes(void);
size_t process_memory(void) { return __sanitizer_get_current_allocated_bytes(); }
#else
size_t process_memory(void) {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}
#endif

unsigned process_sockets(void) {
    struct stat status;
    unsigned n = 0;
    for (int fd = 0; fd < HOSTILE_DESCRIPTORS; fd++)
        if (fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode)) n++;
    return n;
}
