/* SPDX-License-Identifier: MIT
 * The decisions in flight on one loop: their deadlines, what a reply makes of them, when they are asked again. */
#ifndef STEADY__FLIGHT_H
#define STEADY__FLIGHT_H

#include "link.h"
#include "retry.h"
#include "store.h"

/* What carries requests to a server. A link does; so does a connection of the caller's. */
struct steady__carrier {
    int (*submit)(void *carrier, struct steady__request *request);
    /* What it ends as, see steady__link_forget. held: the loop was held meanwhile. */
    int (*forget)(void *carrier, struct steady__request *request, bool held);
    void (*catch_up)(void *carrier); /* NULL: it cannot */
    void (*close)(void *carrier);
    /* What a request that is not on the wire waits for: see steady__link_doing. NULL: it cannot tell. */
    const char *(*doing)(void *carrier, const struct steady__request *request);
    uint64_t (*reconnects)(const void *carrier); /* connections made after the first; NULL: it makes none */
};

/* What was said last of one that was late. */
struct steady__late {
    int error;         /* 0: nothing was said yet */
    const char *doing; /* a string that lasts, or NULL */
    steady_message why;
};

struct steady__flight {
    steady_store *store; /* which is held while callbacks run */
    steady_loop loop;
    struct steady__retry *retry; /* whose loop that is; NULL: its timers never fail */
    steady_us timeout;
    uint32_t max_in_flight;
    enum steady_engine engine;
    steady_message *trouble;
    const struct steady__birthmark *birthmark;
    void (*log)(void *data, enum steady_log_level level, const char *text); /* NULL: nobody listens */
    void *log_data;
    const struct steady__url *url; /* for the log */
    const struct steady__carrier *carrier_class;
    void *carrier;
    struct steady__list due;     /* by deadline, which is the order of submission */
    struct steady__list failed;  /* ended before they began; to be told by the loop */
    struct steady__list telling; /* those of them whose turn it is */
    struct steady__list spare;
    struct steady__slab *slabs;
    struct steady__alarm alarm;
    bool closed;
    bool in_portions; /* so many came back unanswered at once that the loop tells them, and what comes back meanwhile */
    bool last_turn;   /* has been given: see flight.c */
    steady_us held;   /* how long the loop was held, in all */
    struct steady__late late;
    unsigned surveys; /* how often the server has been asked for its settings */
    bool surveyed;    /* it is being asked, or has answered */
    steady_stats stats;
};

/* What a flight wants of requests, for whoever opens its carrier. */
extern const struct steady__link_owner steady__flight_owner;

/* Expects store, loop, timeout, max_in_flight, trouble, birthmark and log filled in, and the rest zero. 0 or -1. */
int steady__flight_init(struct steady__flight *flight);

/* Starts a decision: 0, or STEADY_OVERLOADED, STEADY_NO_MEMORY, or STEADY_SYSTEM if the loop starts no timer. Its
 * result goes to *answer, whose error is STEADY__PENDING until then; where answer is NULL, to its callback. */
#define STEADY__PENDING 1
int steady__flight_submit(struct steady__flight *flight, const struct steady__call *call, steady_result *answer);

/* A decision that is not begun: counts it, leaves the reason in *trouble, and returns the error. */
int steady__turn_away(steady_stats *stats, steady_message *trouble, const struct steady__call *call, int error,
                      const char *why);

#define STEADY__FORKED_TEXT "this process was forked from the one that opened the store; open a store of its own"

/* Ends all as if their deadlines had come, for a loop that cannot go on. */
void steady__flight_give_up(struct steady__flight *flight);

/* Ends all as cancelled, and closes the carrier. */
void steady__flight_close(struct steady__flight *flight);

/* Memory; after close. */
void steady__flight_free(struct steady__flight *flight);

#endif
