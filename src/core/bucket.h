/* SPDX-License-Identifier: MIT
 * The leaky bucket: integers in, a decision out. No clock, no lock, no allocation.
 *
 * All times are whole microseconds below 2^53; see bucket.c for the arithmetic. */
#ifndef STEADY__BUCKET_H
#define STEADY__BUCKET_H

#include <stdbool.h>
#include <stdint.h>

/* The call on a bucket. */
enum steady__verb {
    STEADY__CONSUME,
    STEADY__PEEK,
    STEADY__RESET,
    STEADY__CONSUME_ALL, /* the rest: a group of parts, see core/parts.h and store.h */
    STEADY__PEEK_ALL,
    STEADY__SETTLE,
    STEADY__RESET_ALL,
    STEADY__VERBS
};

/* Whether a call with this verb decides, and so counts as a decision. */
static inline bool steady__verb_decides(enum steady__verb verb) {
    return verb != STEADY__RESET && verb != STEADY__RESET_ALL && verb != STEADY__SETTLE;
}

#define STEADY__EXACT ((int64_t)1 << 53) /* every time and every capacity * recharge stays below */
#define STEADY__CAPACITY_MAX INT32_MAX
#define STEADY__DROPS_MAX 1000000
#define STEADY__BLOCK_LIMIT ((int64_t)1 << 52) /* so that now + block stays below 2^53 */

/* A limit whose fields are in range, as limit.c checks. drops is never 0 here. */
struct steady__rate {
    int64_t capacity; /* drops the bucket can hold */
    int64_t recharge; /* us in which `drops` drops leak */
    int64_t drops;
    int64_t block; /* us that an overflow blocks the key; 0: no block */
};

/* The stored state of a bucket. All zero is an empty bucket. */
struct steady__bucket {
    int64_t level;
    int64_t last;          /* the time up to which leaks are counted: us ... */
    int64_t rem;           /* ... and 1/drops us */
    int64_t blocked_until; /* us; 0: not blocked */
};

struct steady__decision {
    bool success;
    bool stepped; /* the clock was behind the bucket */
    bool changed; /* store the bucket, or delete it if it is empty and not blocked */
    int64_t level;
    int64_t until_next_drop; /* us */
    int64_t blocked_for;     /* us */
    int64_t retry_after;     /* us; -1: never */
    int64_t busy_for;        /* us until the bucket is empty and not blocked: its time to live */
};

/* Puts `amount` drops in; a negative amount takes drops out. Writes the new state to `bucket` if decision->changed;
 * otherwise `bucket` stays as it was. */
void steady__bucket_consume(struct steady__bucket *bucket, const struct steady__rate *rate, int64_t now, int64_t amount,
                            struct steady__decision *decision);

/* The decision that a consume of one drop would get. The bucket does not change. */
void steady__bucket_peek(const struct steady__bucket *bucket, const struct steady__rate *rate, int64_t now,
                         struct steady__decision *decision);

/* Brings a bucket to `now` in place: any stored state, a clock that stepped back, the leak, the end of a block. Returns
 * the phase: the time since the last leak, in 1/drops us. It can be negative, by less than 1 us. */
int64_t steady__bucket_advance(struct steady__bucket *bucket, const struct steady__rate *rate, int64_t now,
                               bool *stepped);

/* The time until the first `count` drops have leaked, in us. count * recharge must be below 2^63. */
int64_t steady__bucket_wait_for(int64_t count, int64_t phase, const struct steady__rate *rate);

/* Fills the fields of a decision from decision->success and the bucket after it. `phase` is the time since the last
 * leak, in 1/drops us. */
void steady__bucket_report(struct steady__decision *decision, const struct steady__rate *rate, int64_t level,
                           int64_t phase, int64_t blocked_for, int64_t amount);

#endif
