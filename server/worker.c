/* SPDX-License-Identifier: MIT
 * The threads of the daemon. Each has a loop, a listening socket of its own (SO_REUSEPORT: the system spreads the
 * connections), and a store. */
#include "worker.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <steady/uv.h>

#include "client.h"
#include "decision_log.h"

enum {
    BACKLOG = 1024,
    TICK_MS = 1000,
    TOP_PERIOD_MS = 300 * 1000,
    LAST_REQUESTS_MS = 200, /* requests on their way are answered, when the daemon ends */
    DRAIN_MS = 10 * 1000    /* and requests that were read */
};

static _Thread_local char worker_reason[600];

__attribute__((format(printf, 1, 2))) static const char *worker_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(worker_reason, sizeof worker_reason, format, arguments);
    va_end(arguments);
    return worker_reason;
}

/* ---- The store ---- */

static void worker_store_says(void *data, enum steady_log_level level, const char *text) {
    (void)data;
    server_log("%s%s", level == STEADY_LOG_WARNING ? "warning: " : "", text);
}

static const char *worker_open_store(struct worker *worker) {
    struct server *server = worker->server;
    const steady_loop loop = steady_uv_loop(&worker->loop);
    const steady_store_options options = {.loop = &loop, .timeout = server->options.timeout, .log = worker_store_says};
    steady_message why;
    worker->blocking = server->embedded != NULL;
    worker->store = server->embedded;
    if (worker->store != NULL) return NULL;
    const char *url = server->options.store != NULL ? server->options.store : server->rules->rules->store;
    if (steady_store_open(&worker->store, url, &options, &why) != 0) return worker_fail("the store: %s", why.text);
    return NULL;
}

/* ---- Rules ---- */

static struct shared_rules *worker_current_rules(struct server *server, uint64_t *version) {
    uv_rwlock_rdlock(&server->rules_lock);
    struct shared_rules *rules = shared_rules_use(server->rules);
    *version = server->rules_version;
    uv_rwlock_rdunlock(&server->rules_lock);
    return rules;
}

/* If the new rules cannot be used, the old ones stay. */
static const char *worker_take_rules(struct worker *worker) {
    steady_message why = {.text = "out of memory"};
    uint64_t version;
    struct shared_rules *rules = worker_current_rules(worker->server, &version);
    struct ruleset *set =
        version != worker->rules_version ? ruleset_new(rules, worker->store, &worker->metrics, &why) : NULL;
    struct throttlers *throttlers =
        set != NULL ? throttlers_new(worker->store, rules->rules->on_error, rules->rules->local_share) : NULL;
    const bool failed = throttlers == NULL && version != worker->rules_version;
    if (failed) {
        ruleset_leave(set);
    } else if (set != NULL) {
        ruleset_leave(worker->set);
        throttlers_free(worker->throttlers);
        worker->set = set;
        worker->throttlers = throttlers;
        worker->rules_version = version;
    }
    shared_rules_leave(rules);
    return failed ? worker_fail("the rules cannot be used: %s", why.text) : NULL;
}

/* ---- Events ---- */

static void worker_on_tick(uv_timer_t *tick);

static void worker_on_wake(uv_async_t *wake) {
    struct worker *worker = wake->data;
    const char *why = worker_take_rules(worker);
    if (why != NULL) server_log("%s", why);
    if (!atomic_load(&worker->server->draining) || worker->drains) return;
    worker->drains = true;
    worker->drained_at = worker->now + DRAIN_MS;
    client_drain_all(worker, false);
    uv_timer_start(&worker->tick, worker_on_tick, client_any(worker) ? LAST_REQUESTS_MS : 0, TICK_MS);
}

static void worker_close_listeners(struct worker *worker) {
    for (int i = 0; i < worker->n_listeners; i++)
        uv_close(worker->listeners[i], (uv_close_cb)free);
    worker->n_listeners = 0;
}

static void worker_after_poll(uv_check_t *check) {
    struct worker *worker = check->data;
    worker->now = uv_now(&worker->loop);
    client_send_dirty(worker);
    if (worker->drains_last && !client_any(worker)) uv_stop(&worker->loop);
}

/* Old counts are forgotten period by period. So the top keys are those of the last 5 to 10 minutes. */
static void worker_show_top(struct worker *worker) {
    if (worker->now - worker->top_turned_at >= TOP_PERIOD_MS) {
        worker->denied.before = worker->denied.now;
        worker->allowed.before = worker->allowed.now;
        memset(&worker->denied.now, 0, sizeof worker->denied.now);
        memset(&worker->allowed.now, 0, sizeof worker->allowed.now);
        worker->top_since = worker->top_turned_at;
        worker->top_turned_at = worker->now;
    }
    uv_mutex_lock(&worker->shown_lock);
    worker->denied.shown = worker->denied.before;
    worker->allowed.shown = worker->allowed.before;
    top_merge(&worker->denied.shown, &worker->denied.now);
    top_merge(&worker->allowed.shown, &worker->allowed.now);
    uv_mutex_unlock(&worker->shown_lock);
}

/* What one worker does for all. */
static void worker_on_first_tick(struct worker *worker) {
    decision_log_look(worker->server);
    history_add(&worker->server->history, worker->server, worker->now);
}

static void worker_on_tick(uv_timer_t *tick) {
    struct worker *worker = tick->data;
    worker->now = uv_now(&worker->loop);
    client_close_late(worker);
    decision_log_flush(worker);
    if (worker->number == 0) worker_on_first_tick(worker);
    if (worker->server->has_admin) worker_show_top(worker);
    if (worker->drains && !worker->drains_last) {
        worker->drains_last = true;
        worker_close_listeners(worker);
        client_drain_all(worker, true);
    }
    if (worker->drains && (worker->now >= worker->drained_at || !client_any(worker))) uv_stop(&worker->loop);
}

const char *worker_open(struct worker *worker, struct server *server, int number) {
    int error = uv_loop_init(&worker->loop);
    if (error != 0) return worker_fail("no event loop: %s", uv_strerror(error));
    error = uv_async_init(&worker->loop, &worker->wake, worker_on_wake);
    if (error != 0) {
        uv_loop_close(&worker->loop);
        return worker_fail("no event loop: %s", uv_strerror(error));
    }
    worker->server = server; /* from here on it must be closed */
    worker->number = number;
    uv_check_init(&worker->loop, &worker->after_poll);
    uv_idle_init(&worker->loop, &worker->no_wait);
    uv_timer_init(&worker->loop, &worker->tick);
    worker->wake.data = worker->after_poll.data = worker->tick.data = worker;
    uv_check_start(&worker->after_poll, worker_after_poll);
    uv_timer_start(&worker->tick, worker_on_tick, TICK_MS, TICK_MS);
    uv_mutex_init(&worker->shown_lock);
    worker->now = worker->top_since = worker->top_turned_at = uv_now(&worker->loop);
    worker->chance = uv_hrtime() ^ (uint64_t)number << 32;
    return NULL;
}

const char *worker_start(struct worker *worker) {
    static const steady_limit any = {.max_capacity = 1, .drop_recharge = STEADY_SECOND};
    const char *why = worker_open_store(worker);
    if (why != NULL) return why;
    if (steady_throttler_new(&worker->any, worker->store, &any, NULL, NULL) != 0) return "out of memory";
    worker->unnamed = metrics_of(&worker->metrics, "");
    return worker->unnamed != NULL ? worker_take_rules(worker) : "out of memory";
}

void worker_wake(struct worker *worker) { uv_async_send(&worker->wake); }

static void worker_close_handle(uv_handle_t *handle, void *data) {
    const struct worker *worker = data;
    const bool ours = handle == (const uv_handle_t *)&worker->wake ||
                      handle == (const uv_handle_t *)&worker->after_poll ||
                      handle == (const uv_handle_t *)&worker->no_wait || handle == (const uv_handle_t *)&worker->tick;
    if (ours && !uv_is_closing(handle)) uv_close(handle, NULL);
}

/* It may run twice. */
static void worker_stop(struct worker *worker) {
    client_close_all(worker);
    worker_close_listeners(worker);
    ruleset_leave(worker->set);
    throttlers_free(worker->throttlers);
    steady_throttler_free(&worker->any);
    if (worker->store != worker->server->embedded) steady_store_close(&worker->store); /* decisions in flight end */
    worker->set = NULL;
    worker->throttlers = NULL;
    worker->store = NULL;
    decision_log_end(worker);
}

bool worker_run(struct worker *worker) {
    struct server *server = worker->server;
    const char *why = worker->store == NULL ? worker_start(worker) : NULL; /* that of the first worker is open */
    uv_barrier_wait(&server->all_started); /* from here on another worker may ask this store for its state */
    if (why != NULL) {
        server_log("error: %s", why);
        server_end(server);
    } else {
        uv_run(&worker->loop, UV_RUN_DEFAULT);
    }
    uv_barrier_wait(&server->all_ended); /* up to here */
    worker_stop(worker);
    return why == NULL;
}

void worker_close(struct worker *worker) {
    worker_stop(worker); /* if the daemon could not start */
    uv_walk(&worker->loop, worker_close_handle, worker);
    uv_run(&worker->loop, UV_RUN_DEFAULT);
    uv_loop_close(&worker->loop);
    while (worker->n_spare > 0)
        buffer_free(&worker->spare[--worker->n_spare]);
    metrics_free(&worker->metrics);
    uv_mutex_destroy(&worker->shown_lock);
}

/* ---- Listening ---- */

static void worker_on_client(uv_stream_t *listener, int status) {
    struct worker *worker = listener->data;
    if (status == 0) client_accept(worker, listener, false);
}

static void worker_on_admin(uv_stream_t *listener, int status) {
    struct worker *worker = listener->data;
    if (status == 0) client_accept(worker, listener, true);
}

static const char *worker_add(struct worker *worker, uv_stream_t *listener, const char *where, bool admin) {
    const int error = uv_listen(listener, BACKLOG, admin ? worker_on_admin : worker_on_client);
    listener->data = worker;
    worker->listeners[worker->n_listeners++] = (uv_handle_t *)listener;
    return error != 0 ? worker_fail("cannot listen at %s: %s", where, uv_strerror(error)) : NULL;
}

/* A stale socket of a daemon that was killed is removed; one of a living daemon is not. */
static const char *worker_free_path(const char *path) {
    struct stat found;
    if (lstat(path, &found) != 0) return NULL;
    if (!S_ISSOCK(found.st_mode)) return worker_fail("%s exists, and is no socket", path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    const bool alive = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0) close(fd);
    if (alive) return worker_fail("another program listens at %s", path);
    unlink(path);
    return NULL;
}

static const char *worker_listen_path(struct worker *worker, const char *path, bool admin) {
    uv_pipe_t *pipe = calloc(1, sizeof *pipe);
    if (pipe == NULL) return worker_fail("out of memory");
    /* An empty path would be a socket without a name in the file system, and so without a mode. */
    const char *why = *path == '\0' ? worker_fail("unix: needs a path, such as unix:/run/steady.sock")
                      : strlen(path) < sizeof((struct sockaddr_un *)0)->sun_path
                          ? worker_free_path(path)
                          : worker_fail("the path %s is too long", path);
    if (why != NULL) {
        free(pipe);
        return why;
    }
    uv_pipe_init(&worker->loop, pipe, 0);
    const mode_t before = umask(admin ? 0177 : 0117); /* 0600, and 0660 */
    const int error = uv_pipe_bind(pipe, path);
    umask(before);
    if (error == 0) return worker_add(worker, (uv_stream_t *)pipe, path, admin);
    uv_close((uv_handle_t *)pipe, (uv_close_cb)free);
    /* libuv says EACCES for a missing directory. */
    const char *slash = strrchr(path, '/');
    char folder[sizeof((struct sockaddr_un *)0)->sun_path] = "/";
    struct stat found;
    if (slash != NULL && slash != path) snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    if (slash != NULL && stat(folder, &found) != 0 && errno == ENOENT)
        return worker_fail("cannot listen at %s: the directory %s does not exist", path, folder);
    return worker_fail("cannot listen at %s: %s", path, uv_strerror(error));
}

/* Splits host:port. False: it is none. getaddrinfo would take 99999 for 34463. */
static bool worker_split(const char *where, char *host, size_t size, const char **port) {
    const char *colon = strrchr(where, ':'), *begin = where, *end = colon;
    if (colon == NULL || colon[1] == '\0' || colon[1 + strspn(colon + 1, "0123456789")] != '\0') return false;
    if (strtoul(colon + 1, NULL, 10) > UINT16_MAX) return false;
    if (*where == '[') {
        begin = where + 1;
        if (colon == where || colon[-1] != ']') return false;
        end = colon - 1;
    }
    if ((size_t)(end - begin) >= size || (*where != '[' && memchr(begin, ':', (size_t)(end - begin)) != NULL))
        return false;
    snprintf(host, size, "%.*s", (int)(end - begin), begin);
    *port = colon + 1;
    return true;
}

static const char *worker_bind(struct worker *worker, const struct addrinfo *address, const char *where, bool admin) {
    const int on = 1;
    const bool shared = !admin; /* by the workers of this daemon */
    const int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    uv_tcp_t *tcp = fd >= 0 ? calloc(1, sizeof *tcp) : NULL;
    if (fd < 0) return worker_fail("cannot listen at %s: %s", where, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (shared && worker->number > 0) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (tcp == NULL || bind(fd, address->ai_addr, address->ai_addrlen) != 0) {
        const char *why = worker_fail("cannot listen at %s: %s", where, strerror(errno));
        close(fd);
        free(tcp);
        return why;
    }
    uv_tcp_init(&worker->loop, tcp);
    uv_tcp_open(tcp, fd);
    const char *why = worker_add(worker, (uv_stream_t *)tcp, where, admin);
    /* The first worker shares the address only after it listens. So the address of another daemon is in use. */
    if (why == NULL && shared) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    return why;
}

static const char *worker_listen_fd(struct worker *worker, int fd, const char *where, bool admin) {
    const bool path = uv_guess_handle(fd) == UV_NAMED_PIPE;
    uv_tcp_t *tcp = path ? NULL : calloc(1, sizeof *tcp);
    uv_pipe_t *pipe = path ? calloc(1, sizeof *pipe) : NULL;
    if (tcp == NULL && pipe == NULL) return worker_fail("out of memory");
    if (path)
        uv_pipe_init(&worker->loop, pipe, 0);
    else
        uv_tcp_init(&worker->loop, tcp);
    const int error = path ? uv_pipe_open(pipe, fd) : uv_tcp_open(tcp, fd);
    if (error != 0) return worker_fail("the socket of systemd: %s", uv_strerror(error));
    return worker_add(worker, path ? (uv_stream_t *)pipe : (uv_stream_t *)tcp, where, admin);
}

const char *worker_listen(struct worker *worker, const char *where, int fd, bool admin) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    const char *port;
    char host[256];
    if (fd >= 0) return worker_listen_fd(worker, fd, where, admin);
    if (strncmp(where, "unix:", 5) == 0) return worker_listen_path(worker, where + 5, admin);
    if (!worker_split(where, host, sizeof host, &port))
        return worker_fail("\"%s\" is no address; use host:port, [host]:port or unix:/path", where);
    const int error = getaddrinfo(*host != '\0' ? host : NULL, port, &hints, &found);
    if (error != 0) return worker_fail("%s: %s", where, gai_strerror(error));
    const char *why = worker_bind(worker, found, where, admin);
    freeaddrinfo(found);
    return why;
}

static int worker_port_of(const uv_handle_t *listener) {
    struct sockaddr_storage address;
    int len = sizeof address;
    if (listener->type != UV_TCP ||
        uv_tcp_getsockname((const uv_tcp_t *)listener, (struct sockaddr *)&address, &len) != 0)
        return 0;
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

int worker_port(const struct worker *worker) {
    return worker->n_listeners > 0 ? worker_port_of(worker->listeners[0]) : 0;
}

int worker_admin_port(const struct worker *worker) {
    return worker->n_listeners > 0 ? worker_port_of(worker->listeners[worker->n_listeners - 1]) : 0;
}
