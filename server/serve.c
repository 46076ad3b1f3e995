/* SPDX-License-Identifier: MIT
 * steady serve: options, threads, signals, and the end. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "admin.h"
#include "client.h"
#include "commands.h"
#include "decision_log.h"
#include "reload.h"
#include "worker.h"

/* Exit codes. CANNOT_START: options, files, addresses, rules. */
enum { CANNOT_START = 2, FAILED = 1, SD_FIRST_FD = 3, OTHER_DESCRIPTORS = 200, FEW_CONNECTIONS = 4096 };

void server_log(const char *format, ...) {
    char text[1200], quoted[1200], when[32];
    va_list arguments;
    const time_t now = time(NULL);
    struct tm utc;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    const int len = snprintf(quoted, sizeof quoted, "%s steady: %s\n", when, text);
    if (len > 0) (void)!write(STDERR_FILENO, quoted, (size_t)len < sizeof quoted ? (size_t)len : sizeof quoted - 1);
}

/* ---- Options ---- */

static const char help[] = "usage: steady serve [OPTIONS]\n"
                           "\n"
                           "Answers rate-limit questions over HTTP, gRPC (Envoy) and RESP.\n"
                           "\n"
                           "  --config FILE       the rules; see steady-rules(5)\n"
                           "  --limit RATE        one limit for each address instead, such as 100/min\n"
                           "  --store URL         where the buckets are; instead of the store of the rules\n"
                           "  --listen ADDRESS    host:port or unix:/path; 127.0.0.1:4780 by default\n"
                           "  --admin ADDRESS     the admin socket: unix:/path, or a loopback address with a port\n"
                           "  --threads N         1 to 8; by default one for each core\n"
                           "  --buckets N         of memory: and file:, how many live buckets fit\n"
                           "  --timeout DURATION  how long a decision of a Redis store may take; 100ms by default\n"
                           "  --max-connections N at most so many clients; 20000 by default\n"
                           "  --log FILE          the decision log, JSON lines\n"
                           "  --log-share SHARE   the share of decisions that are logged, 0 to 1; 1 by default\n"
                           "  --help\n";

static int serve_complain(const char *option, const char *value, const char *must) {
    char quoted[200];
    steady_quote(quoted, sizeof quoted, value);
    fprintf(stderr, "steady serve: %s is \"%s\"; it must be %s\n", option, quoted, must);
    return CANNOT_START;
}

static bool serve_number(uint32_t *number, const char *text, uint32_t least, uint32_t most) {
    char *end = NULL;
    errno = 0;
    const unsigned long long n = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || n < least || n > most) return false;
    *number = (uint32_t)n;
    return true;
}

static int serve_options(struct server_options *options, int argc, char **argv) {
    static const struct option names[] = {{"config", required_argument, NULL, 'c'},
                                          {"limit", required_argument, NULL, 'l'},
                                          {"store", required_argument, NULL, 's'},
                                          {"listen", required_argument, NULL, 'a'},
                                          {"admin", required_argument, NULL, 'A'},
                                          {"threads", required_argument, NULL, 't'},
                                          {"buckets", required_argument, NULL, 'b'},
                                          {"timeout", required_argument, NULL, 'T'},
                                          {"log", required_argument, NULL, 'L'},
                                          {"log-share", required_argument, NULL, 'S'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"max-connections", required_argument, NULL, 'm'},
                                          {NULL, 0, NULL, 0}};
    uint32_t threads = 0;
    steady_message why;
    char *end = NULL;
    *options = (struct server_options){.listen = "127.0.0.1:4780", .log_share = 1, .max_connections = 20000};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'c': options->config = optarg; break;
        case 'l': options->limit = optarg; break;
        case 's': options->store = optarg; break;
        case 'a': options->listen = optarg; break;
        case 'A': options->admin = optarg; break;
        case 'L': options->log = optarg; break;
        case 't':
            if (!serve_number(&threads, optarg, 1, WORKERS_MOST)) return serve_complain("--threads", optarg, "1 to 8");
            options->threads = (int)threads;
            break;
        case 'b':
            if (!serve_number(&options->buckets, optarg, 1, 1U << 30))
                return serve_complain("--buckets", optarg, "1 to 1073741824");
            break;
        case 'm':
            if (!serve_number(&options->max_connections, optarg, 1, 1U << 20))
                return serve_complain("--max-connections", optarg, "1 to 1048576");
            break;
        case 'T':
            if (steady_duration_parse(&options->timeout, optarg, &why) != 0)
                return serve_complain("--timeout", optarg, "a duration such as 100ms");
            break;
        case 'S':
            options->log_share = strtod(optarg, &end);
            if (end == optarg || *end != '\0' || !(options->log_share >= 0 && options->log_share <= 1))
                return serve_complain("--log-share", optarg, "a number from 0 to 1");
            break;
        case 'h': fputs(help, stdout); exit(0);
        default: fprintf(stderr, "steady serve --help lists the options\n"); return CANNOT_START;
        }
    }
    if (optind < argc) return serve_complain("an argument", argv[optind], "an option");
    if ((options->config == NULL) == (options->limit == NULL)) {
        fprintf(stderr, "steady serve: give either --config FILE or --limit RATE, such as --limit 100/min\n");
        return CANNOT_START;
    }
    return 0;
}

/* ---- systemd: see sd_listen_fds(3) and sd_notify(3) ---- */

/* -1: the number of descriptors is malformed. */
static int serve_listen_fds(void) {
    const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
    char *end = NULL;
    if (pid == NULL || n == NULL || strtol(pid, NULL, 10) != (long)getpid()) return 0;
    const long fds = strtol(n, &end, 10);
    return end == n || *end != '\0' || fds < 0 || fds > INT_MAX ? -1 : (int)fds;
}

static void serve_notify(const char *state) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || (*path != '/' && *path != '@') || strlen(path) >= sizeof address.sun_path) return;
    memcpy(address.sun_path, path, strlen(path));
    if (*path == '@') address.sun_path[0] = '\0';
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (fd >= 0) (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, len);
    if (fd >= 0) close(fd);
}

/* ---- Signals ---- */

struct signals {
    uv_signal_t hup, term, interrupt;
};

void server_end(struct server *server) {
    if (atomic_exchange(&server->draining, true)) return;
    server_log("ending");
    serve_notify("STOPPING=1\n");
    for (int i = 0; i < server->n_workers; i++)
        worker_wake(&server->workers[i]);
}

static void serve_on_signal(uv_signal_t *signal, int number) {
    struct server *server = signal->data;
    if (number == SIGHUP) {
        decision_log_look(server);
        reload_now(server);
    } else {
        server_end(server);
    }
}

/* Until the signals are watched, they wait: a SIGHUP would end the daemon. */
static void serve_block_signals(int how) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(how, &signals, NULL);
}

static void serve_watch_signal(struct server *server, uv_signal_t *signal, int number) {
    uv_signal_init(&server->workers[0].loop, signal);
    signal->data = server;
    uv_signal_start(signal, serve_on_signal, number);
    uv_unref((uv_handle_t *)signal);
}

/* ---- Start and end ---- */

/* Each connection takes a descriptor. If the system allows fewer, there are fewer connections: stores, files and the
 * admin need descriptors, too. */
static void serve_raise_limit(struct server_options *options) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    const rlim_t wanted = options->max_connections + (rlim_t)OTHER_DESCRIPTORS;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur >= wanted) return;
    options->max_connections = limit.rlim_cur > 2 * OTHER_DESCRIPTORS ? (uint32_t)(limit.rlim_cur - OTHER_DESCRIPTORS)
                                                                      : (uint32_t)(limit.rlim_cur / 2);
}

/* A limit that serves many clients is no surprise. */
static void serve_tell_limit(const struct server_options *options) {
    if (options->max_connections < options->connections_asked && options->max_connections < FEW_CONNECTIONS)
        server_log("warning: at most %" PRIu32
                   " connections, because the process may have too few descriptors (ulimit -n)",
                   options->max_connections);
}

static const char *serve_open_embedded(struct server *server) {
    static char why[600];
    steady_message reason;
    const char *url = server->options.store != NULL ? server->options.store : server->rules->rules->store;
    const steady_store_options options = {.buckets = server->options.buckets};
    if (strncmp(url, "memory:", 7) != 0 && strncmp(url, "file:", 5) != 0) return NULL;
    if (steady_store_open(&server->embedded, url, &options, &reason) == 0) return NULL;
    snprintf(why, sizeof why, "the store: %s", reason.text);
    return why;
}

/* Each worker listens for itself. A socket of systemd has a copy of its descriptor for each. A Unix socket has one
 * listener, so the first worker has it. *at: the address, for the log. */
static const char *serve_listen(struct server *server, const char **at) {
    const int fds = serve_listen_fds();
    const bool shared = fds == 0 && strncmp(server->options.listen, "unix:", 5) == 0;
    const char *why = NULL;
    static char bound[300];
    const char *where = server->options.listen;
    if (fds < 0) return "LISTEN_FDS is no number of sockets";
    if (fds > 1) return "systemd passes several sockets; the .socket unit must have one ListenStream";
    for (int i = 0; i < (shared ? 1 : server->n_workers) && why == NULL; i++) {
        const int fd = fds == 0 ? -1 : i == 0 ? SD_FIRST_FD : fcntl(SD_FIRST_FD, F_DUPFD_CLOEXEC, 0);
        if (fds > 0 && fd < 0) return "the socket of systemd cannot be copied";
        why = worker_listen(&server->workers[i], where, fd, false);
        const char *colon = strrchr(where, ':');
        if (i == 0 && why == NULL && fds == 0 && !shared && colon != NULL && strcmp(colon, ":0") == 0) {
            snprintf(bound, sizeof bound, "%.*s:%d", (int)(colon - where), where, worker_port(&server->workers[0]));
            where = bound; /* the others listen at the port that the system chose */
        }
    }
    *at = fds > 0 ? "the socket of systemd" : where;
    return why;
}

static void serve_thread(void *worker) { worker_run(worker); }

static int serve_run(struct server *server) {
    struct signals signals;
    serve_watch_signal(server, &signals.hup, SIGHUP);
    serve_watch_signal(server, &signals.term, SIGTERM);
    serve_watch_signal(server, &signals.interrupt, SIGINT);
    serve_block_signals(SIG_UNBLOCK);
    reload_watch(server);
    uv_barrier_init(&server->all_started, (unsigned)server->n_workers);
    uv_barrier_init(&server->all_ended, (unsigned)server->n_workers);
    for (int i = 1; i < server->n_workers; i++)
        if (uv_thread_create(&server->workers[i].thread, serve_thread, &server->workers[i]) != 0) {
            server_log("error: a thread could not be started");
            exit(FAILED);
        }
    serve_notify("READY=1\n");
    const bool ran = worker_run(&server->workers[0]);
    for (int i = 1; i < server->n_workers; i++)
        uv_thread_join(&server->workers[i].thread);
    uv_barrier_destroy(&server->all_started);
    uv_barrier_destroy(&server->all_ended);
    reload_stop(server);
    uv_close((uv_handle_t *)&signals.hup, NULL);
    uv_close((uv_handle_t *)&signals.term, NULL);
    uv_close((uv_handle_t *)&signals.interrupt, NULL);
    for (int i = 0; i < server->n_workers; i++)
        worker_close(&server->workers[i]); /* before `signals` is gone */
    server_log("ended");
    return ran ? 0 : CANNOT_START;
}

static int serve_open(struct server *server) {
    const char *why = reload_first(server), *at = NULL;
    if (why == NULL) why = serve_open_embedded(server);
    if (why == NULL) why = decision_log_open(server);
    for (int i = 0; i < server->n_workers && why == NULL; i++)
        why = worker_open(&server->workers[i], server, i);
    /* This thread runs the first worker. It starts now, so that a wrong store is told before a client can connect. */
    if (why == NULL) why = worker_start(&server->workers[0]);
    if (why == NULL) why = serve_listen(server, &at);
    if (why == NULL && server->options.admin != NULL) why = admin_open(server);
    if (why == NULL) {
        serve_tell_limit(&server->options);
        server_log("listening at %s", at);
        return serve_run(server);
    }
    fprintf(stderr, "steady serve: %s\n", why);
    for (int i = 0; i < server->n_workers; i++)
        if (server->workers[i].server != NULL) worker_close(&server->workers[i]);
    return CANNOT_START;
}

int serve_main(int argc, char **argv) {
    struct server server = {.log_fd = -1, .started_at = time(NULL)};
    const int code = serve_options(&server.options, argc, argv);
    if (code != 0) return code;
    signal(SIGPIPE, SIG_IGN);
    serve_block_signals(SIG_BLOCK);
    server.options.connections_asked = server.options.max_connections;
    serve_raise_limit(&server.options);
    const int cores = (int)uv_available_parallelism();
    server.n_workers = server.options.threads > 0 ? server.options.threads
                       : cores < WORKERS_MOST     ? cores
                                                  : WORKERS_MOST;
    server.workers = calloc((size_t)server.n_workers, sizeof *server.workers);
    if (server.workers == NULL) return FAILED;
    uv_rwlock_init(&server.rules_lock);
    const int ended = serve_open(&server);
    steady_store_close(&server.embedded);
    decision_log_close(&server);
    shared_rules_leave(server.rules);
    rules_includes_free(&server.includes);
    uv_rwlock_destroy(&server.rules_lock);
    free(server.workers);
    return ended;
}
