/* SPDX-License-Identifier: MIT
 * The decisions in flight on one loop: their deadlines, what a reply makes of them, when they are asked again. */
#ifndef STEADY__INFLIGHT_H
#define STEADY__INFLIGHT_H

#include "connection.h"
#include "retry.h"
#include "store.h"

/* What carries requests to a server. A link does; so does a connection of the caller's. */
struct steady__transport {
    int (*submit)(void *transport, struct steady__request *request);
    bool (*forget)(void *transport, struct steady__request *request);
    void (*catch_up)(void *transport); /* NULL: it cannot */
    void (*close)(void *transport);
    /* What a request that is not on the wire waits for: see steady__connection_activity. NULL: it cannot tell. */
    const char *(*doing)(void *transport, const struct steady__request *request);
    uint64_t (*reconnects)(const void *transport); /* connections made after the first; NULL: it makes none */
};

/* What was said last of one that was late. */
struct steady__late {
    bool written;
    const char *doing; /* a string that lasts, or NULL */
    steady_message why;
};

struct steady__inflight {
    steady_store *store; /* which is held while callbacks run */
    steady_loop loop;
    struct steady__retry *retry; /* whose loop that is; NULL: its timers never fail */
    steady_us timeout;
    uint32_t max_in_flight;
    enum steady_engine engine;
    steady_message *last_error;
    const struct steady__fork_guard *fork_guard;
    void (*log)(void *data, enum steady_log_level level, const char *text); /* NULL: nobody listens */
    void *log_data;
    const struct steady__url *url; /* for the log */
    const struct steady__transport *transport_class;
    void *transport;
    struct steady__list due;     /* by deadline, which is the order of submission */
    struct steady__list failed;  /* ended before they began; to be told by the loop */
    struct steady__list telling; /* those of them whose turn it is */
    struct steady__list spare;
    struct steady__slab *slabs;
    struct steady__alarm alarm;
    bool closed;
    bool last_turn; /* has been given: see inflight.c */
    struct steady__late late;
    unsigned eviction_queries; /* how often the server has been asked for its settings */
    bool eviction_asked;       /* it is being asked, or has answered */
    steady_stats stats;
};

/* What a flight wants of requests, for whoever opens its carrier. */
extern const struct steady__connection_owner steady__inflight_owner;

/* Expects store, loop, timeout, max_in_flight, trouble, fork_guard and log filled in, and the rest zero. 0 or -1. */
int steady__inflight_init(struct steady__inflight *inflight);

/* Starts a decision: 0, or STEADY_OVERLOADED, STEADY_NO_MEMORY, or STEADY_SYSTEM if the loop starts no timer. Its
 * result goes to *answer, whose error is STEADY__PENDING until then; where answer is NULL, to its callback. */
#define STEADY__PENDING 1
int steady__inflight_submit(struct steady__inflight *inflight, const struct steady__call *call, steady_result *answer);

/* A decision that is not begun: counts it, leaves the reason in *trouble, and returns the error. */
int steady__turn_away(steady_stats *stats, steady_message *last_error, const struct steady__call *call, int error,
                      const char *why);

#define STEADY__FORKED_TEXT "this process was forked from the one that opened the store; open a store of its own"

/* Ends all as if their deadlines had come, for a loop that cannot go on. */
void steady__inflight_give_up(struct steady__inflight *inflight);

/* Ends all as cancelled, and closes the carrier. */
void steady__inflight_close(struct steady__inflight *inflight);

/* Memory; after close. */
void steady__inflight_free(struct steady__inflight *inflight);

#endif
