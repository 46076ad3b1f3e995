/* SPDX-License-Identifier: MIT
 * The decisions in flight on one loop: their deadlines, their replies, and when they are sent again. */
#ifndef STEADY__INFLIGHT_H
#define STEADY__INFLIGHT_H

#include "conn/connection.h"
#include "loop/retry.h"
#include "redis/deny_memory.h"
#include "redis/leases.h"
#include "store.h"

/* The interface of a transport of requests: a cluster (or a single server), a replica, or a client of the caller. */
struct steady__transport {
    int (*submit)(void *transport, struct steady__request *request);
    /* Takes a request back, and returns its error: see steady__connection_forget. held: the loop was held meanwhile. */
    int (*forget)(void *transport, struct steady__request *request, bool held);
    void (*catch_up)(void *transport); /* reads the replies that have arrived; NULL: not possible */
    void (*close)(void *transport);
    /* The step that a request waits for, if it is not on the wire: see steady__connection_activity. NULL: not known. */
    const char *(*doing)(void *transport, const struct steady__request *request);
    /* Whether no node may have all keys of a request. NULL: a request is never divided, whatever the server says. */
    bool (*divides)(void *transport, const struct steady__request *request);
};

#define STEADY__GATES 64 /* a power of two */

struct steady__gate;

/* The text of the last timeout, to be reused for the next one of the same kind. */
struct steady__late {
    int error;         /* 0: no text yet */
    const char *doing; /* static text, or NULL */
    steady_message why;
};

/* What a store counts. Its thread writes them; any thread reads them. */
struct steady__counters {
    steady__counter decisions, allowed, denied, blocked, unavailable, unknown;
    steady__counter clock_steps, reconnects, script_loads, in_flight, timeouts, from_memory, from_lease;
};

void steady__counters_read(const struct steady__counters *counters, steady_stats *stats);

struct steady__inflight {
    steady_store *store; /* held while callbacks run */
    steady_loop loop;
    struct steady__retry *retry; /* the owner of the loop; NULL: its timers never fail */
    steady_us timeout;
    uint32_t max_in_flight;
    enum steady_engine engine;
    struct steady__last_error *last_error;
    struct steady__counters *counters;
    const struct steady__fork_guard *fork_guard;
    void (*log)(void *data, enum steady_log_level level, const char *text); /* NULL: no log */
    void *log_data;
    const struct steady__url *url;           /* for the log */
    void (*answered)(steady_result *answer); /* called when an *answer is there; NULL: not called */
    const struct steady__transport *transport_class;
    void *transport;
    struct steady__list due;       /* by deadline, which is the order of submit */
    struct steady__list failed;    /* failed inside submit; finished from the loop */
    struct steady__list finishing; /* decisions that are being finished now */
    struct steady__list spare;
    struct steady__slab **slabs; /* an id holds an index into them */
    size_t n_slabs, slabs_room;
    uint64_t submitted; /* decisions so far, for the ids */
    uint64_t sessions;  /* connections that have a name */
    struct steady__alarm alarm;
    bool closed;
    bool ending_in_portions; /* many decisions came back unanswered at once; these and later ones end in portions from
                         the loop */
    bool extra_turn_given;   /* the loop had its extra turn: see inflight_wait_for_replies */
    steady_us held;          /* the total time that the loop was held */
    struct steady__late late;
    unsigned eviction_queries; /* how often the settings of the server were queried */
    bool eviction_asked;       /* the query is in flight, or answered */
    uint64_t n_in_flight;
    struct steady__deny_memory memory;         /* of denials; it belongs to the store */
    struct steady__gate *gates[STEADY__GATES]; /* by the name of the bucket */
    steady_us opens_at;                        /* when the first of them has to be opened by the alarm; 0: none has */
    struct steady__leases *leases;             /* of the store; NULL: it has none */
    struct steady__lease_holder leases_held;   /* by this loop */
    struct steady__list takers;                /* calls that take a lease */
    steady_us leases_end_at;                   /* when the alarm has to end a lease; 0: this loop has none */
    bool closing;                              /* only settles are sent */
};

/* The owner of the requests, for the transport. */
extern const struct steady__connection_owner steady__inflight_owner;

/* Expects store, loop, timeout, max_in_flight, last_error, counters, fork_guard and log to be set, and the rest zero. 0
 * or -1. */
int steady__inflight_init(struct steady__inflight *inflight);

/* Starts a decision: 0, or STEADY_OVERLOADED, STEADY_NO_MEMORY, or STEADY_SYSTEM if the event loop cannot start a
 * timer. Its result goes to *answer, whose error is STEADY__PENDING until then; if answer is NULL, to its callback.
 */
#define STEADY__PENDING 1
int steady__inflight_submit(struct steady__inflight *inflight, const struct steady__call *call, steady_result *answer,
                            uint64_t *id);

/* Counts a call that was answered without a request: from the memory of denials, or from a lease. */
void steady__counters_answer(struct steady__counters *counters, const steady_result *result);

/* Ends a decision without its callback. False: no decision with this id is in flight. It may be called inside a
 * callback, also while the store is closed. */
bool steady__inflight_cancel(struct steady__inflight *inflight, uint64_t id);

/* Moves the deadline of a decision up to now. False: no decision with this id is in flight. It may be called
 * inside a callback. */
bool steady__inflight_expire(struct steady__inflight *inflight, uint64_t id);

/* Rejects a decision before it starts: counts it, writes the reason to *last_error, and returns the error. */
int steady__reject(struct steady__counters *counters, struct steady__last_error *last_error,
                   const struct steady__call *call, int error, const char *why);

#define STEADY__FORKED_TEXT "this process was forked after the store was opened; open a new store in it"

/* Ends all decisions as if their deadlines had passed, because the loop cannot go on. */
void steady__inflight_give_up(struct steady__inflight *inflight);

/* Ends all decisions as cancelled, and closes the transport. */
void steady__inflight_close(struct steady__inflight *inflight);

/* Frees the memory. Call it after close. */
void steady__inflight_free(struct steady__inflight *inflight);

#endif
