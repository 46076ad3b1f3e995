/* SPDX-License-Identifier: MIT
 * Shared by all tests: a redis-server of their own, commands to it, decisions whose callbacks are counted, and time. */
#include "support.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <hiredis/hiredis.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

steady_us now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

void sleep_us(steady_us us) {
    struct timespec t = {(time_t)(us / STEADY_SECOND), (long)(us % STEADY_SECOND) * 1000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

/* ---- What the machine takes away ---- */

#define MOST_SERVERS 64
static pid_t servers[MOST_SERVERS];

static void note_server(pid_t old, pid_t new) {
    for (size_t i = 0; i < MOST_SERVERS; i++) {
        if (servers[i] != old) continue;
        servers[i] = new;
        return;
    }
}

/* As the kernel counts it: "ran waited slices", in nanoseconds. */
static steady_us waited_of(const char *pid, const char *thread) {
    char path[320], text[96] = "";
    char *end = NULL;
    snprintf(path, sizeof path, "/proc/%s/task/%s/schedstat", pid, thread);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) <= 0) text[0] = '\0';
    close(fd);
    strtoull(text, &end, 10);
    return (steady_us)(strtoull(end, NULL, 10) / 1000);
}

static steady_us waited_by_threads(const char *pid) {
    char path[64];
    steady_us sum = 0;
    snprintf(path, sizeof path, "/proc/%s/task", pid);
    DIR *threads = opendir(path);
    if (threads == NULL) return 0;
    for (struct dirent *thread; (thread = readdir(threads)) != NULL;)
        if (thread->d_name[0] != '.') sum += waited_of(pid, thread->d_name);
    closedir(threads);
    return sum;
}

/* A thread that has ended is not counted any more: the sum never falls. */
steady_us taken_away(void) {
    static steady_us read_at, last, sum;
    if (read_at != 0 && now_us() - read_at < STEADY_MILLISECOND) return sum;
    const int error = errno;
    steady_us now = waited_by_threads("self");
    for (size_t i = 0; i < MOST_SERVERS; i++) {
        char pid[16];
        snprintf(pid, sizeof pid, "%d", (int)servers[i]);
        if (servers[i] != 0) now += waited_by_threads(pid);
    }
    if (now > last) sum += now - last;
    last = now;
    read_at = now_us();
    errno = error;
    return sum;
}

/* ---- Ports ---- */

/* Below the range from which the kernel takes the ports of outgoing connections. tests/resp.py has the same numbers. */
#define LOWEST_PORT 10000
#define PORTS_EACH 100
#define BLOCKS 200

/* The name of an abstract socket reserves a block of ports. The socket stays open until the process ends. */
static bool reserve(unsigned block) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "steady-test-ports-%u", block);
    if (fd < 0) return false;
    if (bind(fd, (struct sockaddr *)&name,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1) + (socklen_t)length) == 0)
        return true;
    close(fd);
    return false;
}

static int first_port;

static void reserve_ports(void) {
    for (unsigned i = 0; first_port == 0 && i < BLOCKS; i++) {
        const unsigned block = ((unsigned)getpid() + i) % BLOCKS;
        if (reserve(block)) first_port = LOWEST_PORT + (int)block * PORTS_EACH;
    }
}

static bool can_listen(int port) {
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    const int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(fd, errno);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const bool can = bind(fd, (const struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return can;
}

int free_port(void) {
    static int next;
    if (first_port == 0) fail_msg("other tests have all %d blocks of ports", BLOCKS);
    for (int i = 0; i < PORTS_EACH; i++) {
        const int port = first_port + next++ % PORTS_EACH;
        if (can_listen(port)) return port;
    }
    fail_msg("all ports from %d on are in use", first_port);
    return 0;
}

/* ---- A redis-server ---- */

static void exec_server(const struct server *server) {
    char line[1024];
    const char *program = getenv("REDIS_SERVER");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(line, sizeof line,
             "exec %s --bind 127.0.0.1 --port %d --dir %s --unixsocket %s/s --save '' --appendonly no %s >%s/log 2>&1",
             program != NULL ? program : "redis-server", server->port, server->dir, server->dir, server->options,
             server->dir);
    execl("/bin/sh", "sh", "-c", line, (char *)NULL);
    _exit(127);
}

static bool answers(const struct server *server) {
    char path[96];
    snprintf(path, sizeof path, "%s/s", server->dir);
    redisContext *c = redisConnectUnix(path);
    redisReply *reply = c != NULL && c->err == 0 ? redisCommand(c, "PING") : NULL;
    const bool yes = reply != NULL;
    freeReplyObject(reply);
    redisFree(c);
    return yes;
}

static void launch(struct server *server) {
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) exec_server(server);
    server->pid = pid;
    note_server(0, pid);
}

static void fail_with_log(struct server *server) {
    char path[96], text[2048] = "";
    note_server(server->pid, 0);
    server->pid = 0;
    snprintf(path, sizeof path, "%s/log", server->dir);
    FILE *log = fopen(path, "r");
    if (log != NULL) {
        text[fread(text, 1, sizeof text - 1, log)] = '\0';
        fclose(log);
    }
    fail_msg("the redis-server has ended: %s", text);
}

static void await(struct server *server) {
    const steady_us until = now_us() + 20 * STEADY_SECOND;
    while (!answers(server)) {
        if (waitpid(server->pid, NULL, WNOHANG) == server->pid) fail_with_log(server);
        if (now_us() > until) fail_msg("redis-server in %s does not answer", server->dir);
        sleep_us(5 * STEADY_MILLISECOND);
    }
}

const char *module_path(void) {
    static char path[PATH_MAX];
    char relative[PATH_MAX - 16];
    const char *build = getenv("BUILD");
    snprintf(relative, sizeof relative, "%s/steady.so", build != NULL ? build : "build");
    if (realpath(relative, path) == NULL) fail_msg("there is no %s", relative);
    return path;
}

const char *module_options(void) {
    static char options[PATH_MAX + 64];
    snprintf(options, sizeof options, "--enable-module-command yes --loadmodule %s", module_path());
    return options;
}

void server_start(struct server *server, const char *options) {
    memset(server, 0, sizeof *server);
    snprintf(server->dir, sizeof server->dir, "/tmp/steady-test-XXXXXX");
    assert_non_null(mkdtemp(server->dir));
    server->port = free_port();
    snprintf(server->url, sizeof server->url, "redis://127.0.0.1:%d", server->port);
    snprintf(server->unix_url, sizeof server->unix_url, "unix:%s/s", server->dir);
    snprintf(server->options, sizeof server->options, "%s", options != NULL ? options : "");
    launch(server);
    await(server);
}

void server_restart(struct server *server, bool wait) {
    launch(server);
    if (wait) await(server);
}

void server_kill(struct server *server) {
    if (server->pid == 0) return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    note_server(server->pid, 0);
    server->pid = 0;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *ftw) {
    (void)status;
    (void)kind;
    (void)ftw;
    return remove(path);
}

void server_stop(struct server *server) {
    server_kill(server);
    if (server->dir[0] != '\0') nftw(server->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    server->dir[0] = '\0';
}

void server_freeze(struct server *server) { kill(server->pid, SIGSTOP); }

void server_thaw(struct server *server) { kill(server->pid, SIGCONT); }

static void print_reply(char *out, size_t size, const redisReply *reply) {
    size_t n = 0;
    switch (reply->type) {
    case REDIS_REPLY_INTEGER: snprintf(out, size, "%lld", reply->integer); break;
    case REDIS_REPLY_NIL: snprintf(out, size, "(nil)"); break;
    case REDIS_REPLY_ERROR: snprintf(out, size, "-%s", reply->str); break;
    case REDIS_REPLY_ARRAY:
        out[0] = '\0';
        for (size_t i = 0; i < reply->elements && n + 2 < size; i++) {
            if (i > 0) out[n++] = ' ';
            print_reply(out + n, size - n, reply->element[i]);
            n += strlen(out + n);
        }
        break;
    default: snprintf(out, size, "%s", reply->str); break;
    }
}

/* hiredis raises SIGPIPE if the server has closed the connection, for example because of too many clients. */
static redisReply *ask_quietly(redisContext *c, const char *format, va_list args) {
    const struct timespec at_once = {0, 0};
    sigset_t pipe_signal, before;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    redisReply *reply = redisvCommand(c, format, args);
    sigtimedwait(&pipe_signal, NULL, &at_once);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return reply;
}

const char *server_ask(const struct server *server, const char *format, ...) {
    static char text[65536];
    char path[96];
    va_list args;
    snprintf(path, sizeof path, "%s/s", server->dir);
    redisContext *c = redisConnectUnix(path);
    if (c == NULL || c->err != 0) fail_msg("cannot connect to the redis-server in %s", server->dir);
    va_start(args, format);
    redisReply *reply = ask_quietly(c, format, args);
    va_end(args);
    if (reply == NULL)
        snprintf(text, sizeof text, "-%s", c->errstr);
    else
        print_reply(text, sizeof text, reply);
    if (reply != NULL) freeReplyObject(reply);
    redisFree(c);
    return text;
}

long long server_stat(const struct server *server, const char *field) {
    const char *line = strstr(server_ask(server, "INFO ALL"), field);
    if (line == NULL) return 0;
    return atoll(line + strlen(field) + 1);
}

/* ---- Figures ---- */

/* Of all decisions of this program. */
static struct {
    pid_t pid;
    unsigned long decisions, verdicts, unknown;
    long long lost, doubled;
    steady_us slowest;
} figures;

static void note_figures(const steady_result *result, steady_us took) {
    figures.decisions++;
    if (result->error == 0) figures.verdicts++;
    if (result->error == STEADY_UNKNOWN) figures.unknown++;
    if (took > figures.slowest) figures.slowest = took;
}

static void show_figures(void) {
    if (getpid() != figures.pid || figures.decisions == 0) return;
    printf("# figures: decisions=%lu verdicts=%lu unknown=%lu lost=%lld doubled=%lld worst_us=%lld\n",
           figures.decisions, figures.verdicts, figures.unknown, figures.lost, figures.doubled,
           (long long)figures.slowest);
}

/* The Makefile links this into every test. The ports are reserved before a test counts its descriptors. STEADY_TEST
 * names the one test to run, for `make faults`. */
void choose_test(void);
__attribute__((constructor)) void choose_test(void) {
    const char *name = getenv("STEADY_TEST");
    figures.pid = getpid();
    reserve_ports();
    if (name == NULL) return;
    cmocka_set_test_filter(name);
    atexit(show_figures);
}

steady_us how_long(steady_us briefly, steady_us at_length) {
    return getenv("STEADY_TEST") != NULL ? at_length : briefly;
}

void account_lost(const struct tally *tally, long long charged, long long most) {
    const long long allowed = (long long)tally->allowed;
    const long long possible = allowed + (long long)tally->errors[-STEADY_UNKNOWN];
    if (charged < allowed) figures.lost += allowed - charged;
    if (charged > possible) figures.doubled += charged - possible;
    if (charged < allowed - most || charged > possible)
        fail_msg("charged %lld of %lld to %lld", charged, allowed - most, possible);
}

void account(const struct tally *tally, long long charged) { account_lost(tally, charged, 0); }

/* ---- Decisions ---- */

static bool tallies_gone;

void forget_tallies(bool gone) { tallies_gone = gone; }

steady_us waited_for_processor;

struct expected {
    struct tally *tally;
    steady_us since, waited, taken_away;
};

void *expect_result(struct tally *tally) {
    struct expected *expected = malloc(sizeof *expected);
    assert_non_null(expected);
    *expected = (struct expected){tally, now_us(), waited_for_processor, taken_away()};
    tally->submitted++;
    return expected;
}

static void note_time(struct tally *tally, const struct expected *expected, steady_us took) {
    const steady_us waited = waited_for_processor - expected->waited, taken = taken_away() - expected->taken_away;
    const steady_us away = waited > taken ? waited : taken, own = took > away ? took - away : 0;
    if (took > tally->slowest) {
        tally->slowest = took;
        tally->taken_away = away;
    }
    tally->took[own < TOOK_STEPS * TOOK_STEP ? own / TOOK_STEP : TOOK_STEPS]++;
}

unsigned long slower(const struct tally *tally, steady_us than) {
    unsigned long count = 0;
    for (size_t i = (size_t)(than / TOOK_STEP); i <= TOOK_STEPS; i++)
        count += tally->took[i];
    return count;
}

/* A second callback of one decision frees its memory twice, which the allocator detects. */
void count_result(const steady_result *result, void *data) {
    const struct expected expected = *(struct expected *)data;
    struct tally *tally = expected.tally;
    const steady_us took = now_us() - expected.since;
    free(data);
    if (tallies_gone) return;
    tally->called++;
    tally->last = *result;
    note_time(tally, &expected, took);
    note_figures(result, took);
    if (result->error != 0)
        tally->errors[-result->error & 15]++;
    else
        tally->verdicts++;
    if (result->error == 0 && result->success) tally->allowed++;
    if (result->error == 0 && !result->success) tally->denied++;
}

void consume_counted(steady_throttler *throttler, const char *key, int64_t amount, struct tally *tally) {
    void *expected = expect_result(tally);
    assert_int_equal(steady_consume(throttler, key, strlen(key), amount, count_result, expected), 0);
}

void assert_all_answered(const struct tally *tally, steady_us timeout) {
    const unsigned long late =
        tally->errors[-STEADY_UNKNOWN] + tally->errors[-STEADY_UNAVAILABLE] + tally->errors[-STEADY_OVERLOADED];
    const bool slow_machine = tally->slowest >= timeout && tally->taken_away >= timeout / 2;
    if (tally->verdicts == tally->called) return;
    if (!slow_machine || tally->verdicts + late != tally->called || late > 1 + tally->called / 10)
        fail_msg("%lu of %lu have a verdict", tally->verdicts, tally->called);
    print_message("# %lu of %lu ended late: the machine took away %lld us\n", late, tally->called,
                  (long long)tally->taken_away);
}

steady_store *open_store(const char *url, const steady_store_options *options) {
    steady_store *store = NULL;
    steady_message why = {.text = ""};
    if (steady_store_open(&store, url, options, &why) != 0) fail_msg("%s: %s", url, why.text);
    return store;
}

steady_throttler *new_throttler(steady_store *store, int64_t capacity, steady_us recharge) {
    const steady_limit limit = {.max_capacity = capacity, .drop_recharge = recharge};
    steady_throttler *throttler = NULL;
    steady_message why = {.text = ""};
    if (steady_throttler_new(&throttler, store, &limit, NULL, &why) != 0) fail_msg("%s", why.text);
    return throttler;
}

void run_until_done(steady_poller *poller, const struct tally *tally, steady_us limit) {
    const steady_us until = now_us() + limit;
    while (tally->called < tally->submitted) {
        const steady_us left = until - now_us();
        if (left <= 0) fail_msg("%lu of %lu callbacks in time", tally->called, tally->submitted);
        assert_true(steady_poller_run(poller, left) >= 0);
    }
}

void run_for(steady_poller *poller, steady_us time) {
    const steady_us until = now_us() + time;
    for (steady_us left = time; left > 0; left = until - now_us())
        assert_true(steady_poller_run(poller, left) >= 0);
}

/* ---- A log that keeps its lines ---- */

void remember_line(void *data, enum steady_log_level level, const char *text) {
    struct log_lines *log = data;
    log->lines++;
    if (level == STEADY_LOG_WARNING) log->warnings++;
    snprintf(log->last, sizeof log->last, "%s", text);
    const size_t n = strlen(log->all);
    snprintf(log->all + n, sizeof log->all - n, "%s\n", text);
}
