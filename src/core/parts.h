/* SPDX-License-Identifier: MIT
 * A decision over several buckets: all or nothing. No clock, no lock, no allocation. The same functions decide in the
 * embedded store and in the module. For the scripts, the client computes the result from the buckets in their reply. */
#ifndef STEADY__PARTS_H
#define STEADY__PARTS_H

#include <stddef.h>

#include "core/bucket.h"

#define STEADY__PARTS_MAX 64
#define STEADY__MAX_WAIT ((int64_t)1 << 52) /* us */
#define STEADY__LEVEL_MAX INT32_MAX

enum steady__kind {
    STEADY__TAKE,   /* votes; drops go in, or out if the amount is negative */
    STEADY__LOOK,   /* votes; nothing goes in */
    STEADY__CHARGE, /* no vote; drops go in whatever the level, blocked or not, up to the highest level */
    STEADY__SHADOW, /* no vote; drops go in if they fit */
    STEADY__KINDS
};

struct steady__part {
    const struct steady__rate *rate;
    int64_t amount; /* within +-(2^31-1); negative for kind TAKE only */
    enum steady__kind kind;
};

struct steady__how {
    int64_t max_wait; /* us, 0 to STEADY__MAX_WAIT */
    int64_t at_least; /* 0: all of the amount. Otherwise all parts are of kind TAKE with one amount, at_least or more */
    bool peek;        /* write nothing, start no block, report the levels before the call */
};

struct steady__part_decision {
    struct steady__decision bucket; /* success: the part allows. changed: store the bucket. */
    int64_t granted;                /* drops that the call puts in; negative for a drain */
};

struct steady__verdict {
    bool success;
    size_t part;         /* the part that the answer names */
    int64_t wait;        /* us that the caller has to wait although the call succeeded */
    int64_t retry_after; /* us; -1: never */
};

/* Decides on 1 to STEADY__PARTS_MAX parts. buckets[i] is the stored bucket of parts[i]. It gets the new state if
 * each[i].bucket.changed; all zero: delete it. Otherwise it stays as it was. */
void steady__parts_decide(const struct steady__part *parts, size_t n, const struct steady__how *how, int64_t now,
                          struct steady__bucket *buckets, struct steady__part_decision *each,
                          struct steady__verdict *verdict);

/* The part that the answer names. If the call is allowed, the fewest more of its amount fit into this part. If it is
 * denied, this part has the longest wait. Reads success, level and retry_after of each[i].bucket. partial: the amount
 * that each part got, if the call has at_least; otherwise 0. */
size_t steady__parts_name(const struct steady__part *parts, size_t n, bool allowed,
                          const struct steady__part_decision *each, int64_t partial);

/* A reservation of one bucket, and its true cost. */
struct steady__settlement {
    const struct steady__rate *rate; /* the present limit */
    bool same_rate;                  /* it leaks as the limit of the reservation did */
    int64_t reserved;                /* drops that were granted, 0 to 2^31-1 */
    int64_t moment;                  /* of the reservation, us of the store's clock */
    int64_t actual;                  /* drops, 0 to 2^31-1 */
};

struct steady__settled {
    struct steady__decision bucket; /* success is true, retry_after 0 */
    int64_t given_back;             /* in 1/drops us */
    int64_t charged;                /* drops */
};

/* Corrects the bucket of a reservation: gives back what is left of the difference, or charges what was too little. */
void steady__settle(const struct steady__settlement *settlement, int64_t now, struct steady__bucket *bucket,
                    struct steady__settled *settled);

/* Makes the bucket with this level, phase and block at `now`: the reverse of steady__bucket_advance. */
struct steady__bucket steady__bucket_at(const struct steady__rate *rate, int64_t now, int64_t level, int64_t phase,
                                        int64_t blocked_for);

#endif
