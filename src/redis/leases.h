/* SPDX-License-Identifier: MIT
 * The leases of a store: drops that it has taken ahead for its hottest buckets, and spends itself. The loops and
 * threads of a store share one table. It sends nothing: inflight.c takes and returns the drops. */
#ifndef STEADY__LEASES_H
#define STEADY__LEASES_H

#include "core/bucket.h"
#include "core/list.h"
#include "redis/denials.h"
#include "store.h"

struct steady__leases;

/* The lease_age of a store; 0: no leases. */
steady_us steady__leases_age(const struct steady__url *url, const steady_store_options *options);

/* age: for how long the drops of a lease may be spent. world: the clock and the hash; it outlives the leases; NULL:
 * those of the system. Returns one holder of the table, or NULL: out of memory. */
struct steady__leases *steady__leases_new(steady_us age, const struct steady__denials_world *world);
void steady__leases_hold(struct steady__leases *leases);
void steady__leases_release(struct steady__leases *leases); /* NULL is fine */

steady_us steady__leases_now(const struct steady__leases *leases);
struct steady__hash steady__leases_name(const struct steady__leases *leases, const char *key, size_t key_len);

/* The drops of a call that a lease may answer: a consume of one bucket, without a block and without options. Otherwise
 * 0. */
int64_t steady__leases_amount(const struct steady__call *call);

/* A loop of a store, which takes leases and returns them. Only its thread uses it. */
struct steady__lease_holder {
    struct steady__list leases;
};

/* A lease that has ended. */
struct steady__lease_end {
    void *ticket; /* of steady__leases_granted; NULL: no lease has ended */
    int64_t granted, spent;
    struct steady__rate rate; /* of the bucket now */
    bool is_due;              /* drops may be left in the bucket: settle them. False: only free the ticket */
};

enum steady__lease_answer {
    STEADY__LEASE_NONE,  /* the call is sent as it is */
    STEADY__LEASE_SPENT, /* the call is allowed: its drops were taken before */
    STEADY__LEASE_SHORT, /* the call is denied: the last take got less than it asked for */
    STEADY__LEASE_WAIT,  /* the call waits for the take that its loop has in flight */
    STEADY__LEASE_TAKE   /* the call is to take `take` drops, or at least its own */
};

struct steady__lease_look {
    enum steady__lease_answer answer;
    struct steady__decision decision; /* SPENT and SHORT; its level is that of the answer of the store */
    int64_t take;                     /* TAKE */
    struct steady__lease_end end;     /* NONE and TAKE: the lease that it replaces */
};

/* Spends a lease: SPENT, SHORT or NONE. Any thread may call it. */
enum steady__lease_answer steady__leases_spend(struct steady__leases *leases, struct steady__hash name,
                                               const struct steady__rate *rate, int64_t amount,
                                               struct steady__decision *decision);

/* What becomes of a call. It counts as a use of the bucket, unless the answer is WAIT. After TAKE, the holder calls
 * steady__leases_granted, steady__leases_failed or steady__leases_put_off. */
void steady__leases_ask(struct steady__leases *leases, struct steady__lease_holder *holder, struct steady__hash name,
                        const struct steady__rate *rate, int64_t amount, struct steady__lease_look *look);

/* The reply to a take. */
struct steady__lease_take {
    void *ticket;    /* for the return */
    int64_t granted; /* 0: denied */
    int64_t amount;  /* of the call that took; it is spent */
    steady_us sent;  /* before the request was sent */
    int64_t level;   /* after the take */
    steady_us until_next_drop;
    bool is_blocked;
};

/* False: there is no lease, and the ticket stays with the caller. */
bool steady__leases_granted(struct steady__leases *leases, struct steady__lease_holder *holder,
                            struct steady__hash name, const struct steady__lease_take *take);

/* Whether a lease answers the call. Then *result, which is cleared, is filled. Any thread may ask. leases: NULL: no. */
bool steady__leases_answer(struct steady__leases *leases, const struct steady__call *call, steady_result *result);

/* A take has failed, or its outcome is not known. */
void steady__leases_failed(struct steady__leases *leases, struct steady__hash name);

/* A take is not sent now. A later call may take. */
void steady__leases_put_off(struct steady__leases *leases, struct steady__hash name);

/* Drops were given back, so calls are denied no longer. reset: the bucket is empty, so its lease ends; *end is not due.
 * A lease of another loop is void, too, but stays with its holder. */
void steady__leases_forget(struct steady__leases *leases, struct steady__lease_holder *holder, struct steady__hash name,
                           bool reset, struct steady__lease_end *end);

/* Ends leases of the holder that are due: spent, too old, or unused for a quarter of the age. all: any lease. Returns
 * how many, up to `most`. */
size_t steady__leases_end(struct steady__leases *leases, struct steady__lease_holder *holder, bool all,
                          struct steady__lease_end *ends, size_t most);

/* When the next lease of the holder is due, by the clock of the leases; -1: it has none. */
steady_us steady__leases_due(struct steady__leases *leases, struct steady__lease_holder *holder);

#endif
