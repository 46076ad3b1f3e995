/* SPDX-License-Identifier: MIT
 * Counters of a worker. Only its own thread counts; any thread may read. So a counter needs no lock. */
#ifndef STEADY_SERVER_METRICS_H
#define STEADY_SERVER_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "buffer.h"

typedef _Atomic uint64_t metrics_counter;

static inline void metrics_add(metrics_counter *counter, uint64_t n) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t metrics_get(metrics_counter *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Of the limits of one name. */
struct limit_counters {
    char name[65];
    struct buffer json; /* the whole name in quotes, for the decision log */
    metrics_counter allowed, denied, no_verdict, near_limit;
    metrics_counter shadow_denied; /* of shadow limits, which deny nothing */
    struct limit_counters *_Atomic next;
};

enum metrics_protocol { METRICS_HTTP, METRICS_GRPC, METRICS_RESP, METRICS_PROTOCOLS };
enum metrics_verdict { METRICS_ALLOWED, METRICS_DENIED, METRICS_NONE, METRICS_VERDICTS };
enum { METRICS_STEPS = 14 };

struct metrics {
    struct limit_counters *_Atomic limits;
    metrics_counter connections[METRICS_PROTOCOLS]; /* open now */
    metrics_counter answers[METRICS_VERDICTS];      /* to requests, which may have several limits */
    metrics_counter log_dropped;                    /* lines of the decision log that were not written */
    metrics_counter refused;                        /* requests that were not valid */
    metrics_counter seconds[METRICS_STEPS + 1];     /* decisions by their time: a histogram */
    metrics_counter seconds_sum_us;
};

/* The counters of a name; made if there are none. They stay until metrics_free. NULL: out of memory. */
struct limit_counters *metrics_of(struct metrics *metrics, const char *name);

/* Counts the time of a decision. */
void metrics_time(struct metrics *metrics, uint64_t us);

void metrics_free(struct metrics *metrics);

struct server;

/* The counters of a name in all workers. */
struct limit_sum {
    const char *name; /* as long as the daemon runs */
    uint64_t allowed, denied, no_verdict, near_limit, shadow_denied;
};

struct limit_sums {
    struct limit_sum *all;
    size_t n, room;
};

/* Sums up the limits; free(sums->all). May be called from any thread, as all below. */
void metrics_sum_limits(struct limit_sums *sums, struct server *server);
uint64_t metrics_answers(struct server *server, enum metrics_verdict verdict);
uint64_t metrics_connections(struct server *server, enum metrics_protocol protocol);
uint64_t metrics_log_dropped(struct server *server);

/* How many stores there are, and how many of them can make decisions. */
int metrics_stores(struct server *server, int *ready);

/* The counters of all workers, in Prometheus' text format 0.0.4. */
void metrics_text(struct buffer *out, struct server *server);

#endif
