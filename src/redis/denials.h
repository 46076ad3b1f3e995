/* SPDX-License-Identifier: MIT
 * The memory of denials: buckets that this process knows to be full. It denies a call that is certain to be denied,
 * without a request to the server. All stores and threads of a process share one memory. */
#ifndef STEADY__DENIALS_H
#define STEADY__DENIALS_H

#include "core/bucket.h"
#include "core/siphash.h"
#include "core/url.h"
#include "steady.h"

struct steady__denials;

/* The clock and the names of a memory. The simulation replaces them. */
struct steady__denials_world {
    /* Never negative. It counts while the machine sleeps, as the clocks of servers do. */
    steady_us (*now)(const struct steady__denials_world *world);
    struct steady__hash (*hash)(const struct steady__denials_world *world, const unsigned char key[STEADY__SIPHASH_KEY],
                                const void *bytes, size_t len);
};

/* Those of the system. */
extern const struct steady__denials_world steady__denials_system;

/* The memory of this process. NULL: out of memory. */
struct steady__denials *steady__denials_hold(void);
void steady__denials_release(struct steady__denials *denials);

/* The same memory, held once more. */
struct steady__denials *steady__denials_hold_again(struct steady__denials *denials);

/* A memory of its own, for the simulation. `world` outlives it. */
struct steady__denials *steady__denials_new(const struct steady__denials_world *world);

/* The time of its clock. */
steady_us steady__denials_now(const struct steady__denials *denials);

/* The name of a bucket. scope: a hash of the server, so that equal keys of two servers are two buckets. */
struct steady__hash steady__denials_name(const struct steady__denials *denials, uint64_t scope, const char *key,
                                         size_t key_len);
uint64_t steady__denials_scope(const struct steady__denials *denials, const void *server, size_t len);

/* What a reply says of a bucket. */
struct steady__observed {
    const struct steady__rate *rate; /* the limit of the call */
    steady_us sent, came;            /* when its request was sent, and when the reply came */
    int64_t level;                   /* after the call */
    steady_us until_next_drop, blocked_for;
    bool denied;
    int64_t amount;  /* of the call, at least 1: a bucket is worth a place if it has no room for as much */
    steady_us valid; /* for so long after `sent`; at most STEADY__DENY_MEMORY_MAX */
};

/* Whether a reply with these numbers shows no room for the same amount again. Only such a reply is worth a place. */
static inline bool steady__denials_is_full(const struct steady__rate *rate, int64_t level, int64_t amount,
                                           steady_us blocked_for) {
    return level + (amount > 0 ? amount : 1) > rate->capacity || blocked_for > 0;
}

/* Whether a bucket may be remembered. False: nothing was full lately, so a look finds nothing, and a reply that shows
 * room changes nothing. It costs less than the name of a bucket. */
bool steady__denials_in_use(const struct steady__denials *denials);

/* The same. *now: the time of the clock, if true: it is read once. */
bool steady__denials_in_use_at(const struct steady__denials *denials, steady_us *now);

/* Keeps what a reply says, unless a later request has told more. */
void steady__denials_learn(struct steady__denials *denials, struct steady__hash name,
                           const struct steady__observed *observed);

/* Drops were given back, or the bucket was reset: forgets it. Replies to requests that were sent before do not count.
 */
void steady__denials_forget(struct steady__denials *denials, struct steady__hash name, steady_us now);

/* The same for all buckets. */
void steady__denials_forget_all(struct steady__denials *denials, steady_us now);

/* The worst for the call is last. */
enum steady__denial {
    STEADY__UNKNOWN_BUCKET, /* nothing is remembered */
    STEADY__HAS_ROOM,       /* the call may be allowed; `room` says for how many drops there is room */
    STEADY__STALE,          /* what is remembered is too old */
    STEADY__TOO_EARLY,      /* the call may be allowed, but the last one at such a moment was denied. After `wait` it is
                               allowed, if no other call comes first */
    STEADY__FULL            /* the call is certain to be denied; `decision` says how */
};

struct steady__look {
    int64_t room;
    steady_us wait;
    struct steady__decision decision;
};

/* Looks at a bucket for a consume of `amount`, at least 1. valid: for so long a memory counts. */
enum steady__denial steady__denials_look(const struct steady__denials *denials, struct steady__hash name,
                                         const struct steady__rate *rate, int64_t amount, steady_us valid,
                                         steady_us now, struct steady__look *look);

/* How many buckets found no place; for tests and statistics. */
uint64_t steady__denials_crowded(const struct steady__denials *denials);

#endif
