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

/* ---- The usual case of a consume ----
 *
 * Inlined into bucket.c and into the embedded store, where a decision stays in registers. */

/* The whole us that cover this many units. */
static inline int64_t bucket_ceil_us(int64_t units, int64_t drops) {
    return drops == 1 ? units : (units + drops - 1) / drops;
}

static inline int64_t bucket_wait_for(int64_t count, int64_t phase, const struct steady__rate *rate) {
    return bucket_ceil_us(count * rate->recharge - phase, rate->drops);
}

/* Removes the drops that have leaked by `now`, and returns the phase. The phase can be negative, by less than 1 us. A
 * product that does not fit into 64 bits is longer than any bucket takes to empty. */
static inline int64_t bucket_leak(struct steady__bucket *bucket, const struct steady__rate *rate, int64_t now) {
    int64_t units;
    const bool overflows = __builtin_mul_overflow(now - bucket->last, rate->drops, &units);
    if (bucket->level == 0 || overflows || units - bucket->rem >= bucket->level * rate->recharge) {
        bucket->level = 0;
        bucket->last = now;
        bucket->rem = 0;
        return 0;
    }
    units -= bucket->rem;
    if (units < rate->recharge) return units;
    const int64_t leaked = units / rate->recharge;
    const int64_t accounted = bucket->rem + leaked * rate->recharge;
    bucket->level -= leaked;
    bucket->last += rate->drops == 1 ? accounted : accounted / rate->drops;
    bucket->rem = rate->drops == 1 ? 0 : accounted % rate->drops;
    return units - leaked * rate->recharge;
}

/* The usual case of steady__bucket_consume: drops are put into a bucket that has no block and that this limit could
 * have written, and the clock has not stepped back. The drops fit, or they are denied without a block. False: it is
 * another case, and only *bucket may have changed. */
static inline bool steady__bucket_consume_usual(struct steady__bucket *bucket, const struct steady__rate *rate,
                                                int64_t now, int64_t amount, struct steady__decision *d) {
    if (amount <= 0 || bucket->blocked_until != 0 || bucket->last < 0 || bucket->last > now) return false;
    if (bucket->level < 0 || bucket->level > rate->capacity) return false;
    if (bucket->rem < 0 || bucket->rem >= rate->drops) return false;
    const int64_t phase = bucket_leak(bucket, rate, now);
    const int64_t surplus = bucket->level + amount - rate->capacity;
    if (surplus > 0 && (rate->block != 0 || amount > rate->capacity)) return false;
    if (surplus <= 0) bucket->level += amount;
    d->success = d->changed = surplus <= 0;
    d->stepped = false;
    d->level = bucket->level;
    d->until_next_drop = bucket_wait_for(1, phase, rate);
    d->blocked_for = 0;
    d->retry_after = surplus > 0 ? bucket_wait_for(surplus, phase, rate) : 0;
    d->busy_for = bucket_wait_for(bucket->level, phase, rate);
    return true;
}

#endif
