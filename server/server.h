/* SPDX-License-Identifier: MIT
 * What the threads of the daemon share, and what each of them has.
 *
 *     server    the process: the options, the shared rules, the threads, the log
 *     worker    a thread: its loop, its listening socket, its store, its ruleset, its counters
 *     client    a connection of a worker; see client.h
 *
 * The first worker also has the admin socket, the signals and the reload. No worker takes a lock to make a decision. */
#ifndef STEADY_SERVER_SERVER_H
#define STEADY_SERVER_SERVER_H

#include <stdatomic.h>
#include <steady/http.h>
#include <time.h>
#include <uv.h>

#include "buffer.h"
#include "history.h"
#include "http1.h"
#include "metrics.h"
#include "question.h"
#include "response.h"
#include "ruleset.h"
#include "top.h"

enum { WORKERS_MOST = 8, LISTENERS_MOST = 4 };

struct server_options {
    const char *config;         /* NULL: `limit` */
    const char *limit;          /* of --limit */
    const char *store;          /* NULL: that of the rules */
    const char *listen;         /* host:port, or unix:/path */
    const char *admin;          /* the same; NULL: no admin socket */
    const char *log;            /* of decisions: a path; NULL: none */
    double log_share;           /* of the decisions that are logged, 0 to 1 */
    int threads;                /* 0: one for each core */
    uint32_t buckets;           /* of an embedded store; 0: the default */
    steady_us timeout;          /* of the store; 0: the default */
    uint32_t max_connections;   /* that the system allows */
    uint32_t connections_asked; /* of --max-connections */
};

struct server {
    struct server_options options;
    steady_store *embedded; /* shared by all workers; NULL: each has a store of its own */
    struct worker *workers;
    int n_workers;
    atomic_uint connections;
    atomic_bool draining;
    uv_barrier_t all_started, all_ended;
    uv_rwlock_t rules_lock; /* of `rules`; a worker takes it only when it gets new rules */
    struct shared_rules *rules;
    uint64_t rules_version;
    _Atomic int64_t loaded_at; /* seconds since 1970 */
    _Atomic uint64_t loads_failed;
    struct rules_error load_error;  /* of the last reload; "" if it was right */
    struct rules_includes includes; /* of the last reload, also if it failed */
    uint64_t stamp, last_stamp;     /* of the files: that was read, and that was seen */
    uv_timer_t watch;
    char admin_token[33];
    int log_fd;    /* of the decision log; -1: none */
    bool log_lost; /* it could not be opened anew */
    struct history history;
    atomic_bool has_admin;
    time_t started_at;
};

struct client;
struct client_list {
    struct client *first, *last;
};

struct worker {
    struct server *server;
    int number;
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t wake;       /* new rules, or the end */
    uv_check_t after_poll; /* sends what the clients of `dirty` have to send */
    uv_idle_t no_wait;     /* active while there are such clients */
    uv_timer_t tick;       /* once a second: deadlines of clients */
    uv_handle_t *listeners[LISTENERS_MOST];
    int n_listeners;
    steady_store *store;
    steady_throttler *any; /* of `store`, for steady_expire */
    bool blocking;         /* the store is embedded: its calls return at once */
    struct ruleset *set;
    uint64_t rules_version;
    struct throttlers *throttlers;  /* of limits that come with a request */
    struct limit_counters *unnamed; /* of such limits */
    struct metrics metrics;
    struct client_list idle, reading, writing, lingering; /* by their deadlines, the first is the next */
    struct client *dirty;
    struct buffer spare[64];
    size_t n_spare;
    uint64_t now;        /* ms of the loop */
    bool drains;         /* the daemon ends */
    bool drains_last;    /* no request is read any more */
    uint64_t drained_at; /* then clients that are left are closed */
    /* For one request at a time: */
    struct rules_match match;
    struct question_part parts[RULES_PARTS_MAX];
    steady_part_result results[RULES_PARTS_MAX];
    char keys[RULES_PARTS_MAX * RULES_KEY_MAX];
    struct rules_field fields[HTTP1_FIELDS_MOST];
    struct {
        struct http_response response;
        char text[STEADY_HTTP_TEXT_MAX(RULES_PARTS_MAX, 64)];
        char problem[256 + RULES_PARTS_MAX * 132];
        char retry[24], retry_ms[24], status[12];
    } answer;
    struct buffer log, log_sent; /* lines of the decision log */
    time_t log_second;
    char log_time[40]; /* the text of that second */
    uv_fs_t log_write;
    bool log_writing, log_failed;
    bool log_cut; /* the last line in the file has no end */
    struct {
        struct top now, before;        /* of this period of TOP_PERIOD_MS, and of the last one */
        struct top shown;              /* both, of a second ago */
    } denied, allowed;                 /* keys */
    uint64_t top_since, top_turned_at; /* ms of the loop: when `before` and `now` began */
    uv_mutex_t shown_lock;             /* of `shown`, which the admin reads */
    uint64_t chance;                   /* the state of worker_random */
    char read[64 * 1024];
};

/* A number by chance, below 2^31. Not for secrets. */
static inline uint32_t worker_random(struct worker *worker) {
    worker->chance = worker->chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(worker->chance >> 33);
}

/* Ends the daemon: clients are answered, and then closed. May be called from any thread. */
void server_end(struct server *server);

/* Writes a line to standard error, with the time. It is cut and escaped. May be called from any thread. */
__attribute__((format(printf, 1, 2))) void server_log(const char *format, ...);

#endif
