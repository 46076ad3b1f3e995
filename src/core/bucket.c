/* SPDX-License-Identifier: MIT
 * The leaky bucket: integers in, a decision out.
 *
 * Time is counted in units of 1/drops us. So a rate such as 3/s never drifts: a drop leaks every `recharge` units. The
 * phase is the number of units since the last leak.
 *
 * lua/consume.lua does the same steps in doubles, which are exact below 2^53. So no value here may be 2^53 or larger.
 * One product could be: elapsed * drops. It is used only if the bucket has not emptied. Then it is below level *
 * recharge. */
#include "core/bucket.h"

static const struct steady__bucket empty_bucket;

static int64_t bucket_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t bucket_max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* Makes any stored state, such as one of another limit, a state that this limit could have written. */
static void bucket_normalise(struct steady__bucket *b, const struct steady__rate *rate) {
    b->level = bucket_max64(0, b->level);
    if (b->level > rate->capacity) b->level = bucket_min64(b->level, (STEADY__EXACT - 1) / rate->recharge);
    b->last = bucket_max64(0, bucket_min64(b->last, STEADY__EXACT - 1));
    if (b->rem < 0 || b->rem >= rate->drops) b->rem = 0;
    b->blocked_until = bucket_max64(0, bucket_min64(b->blocked_until, STEADY__EXACT - 1));
}

/* If the clock stepped back, move the bucket back with it: nothing fills, nothing empties, no block grows. */
static bool bucket_step_back(struct steady__bucket *b, int64_t now) {
    if (b->last <= now) return false;
    if (b->blocked_until != 0) b->blocked_until = bucket_max64(0, b->blocked_until - (b->last - now));
    b->last = now;
    b->rem = 0;
    return true;
}

int64_t steady__bucket_wait_for(int64_t count, int64_t phase, const struct steady__rate *rate) {
    return bucket_wait_for(count, phase, rate);
}

/* Inlined into the functions below: a call of its own costs a decision 45 instructions more. */
static inline int64_t bucket_advance(struct steady__bucket *b, const struct steady__rate *rate, int64_t now,
                                     bool *stepped) {
    bucket_normalise(b, rate);
    *stepped = bucket_step_back(b, now);
    const int64_t phase = bucket_leak(b, rate, now);
    if (b->blocked_until <= now) b->blocked_until = 0;
    return phase;
}

int64_t steady__bucket_advance(struct steady__bucket *bucket, const struct steady__rate *rate, int64_t now,
                               bool *stepped) {
    return bucket_advance(bucket, rate, now, stepped);
}

static bool bucket_fits(int64_t level, const struct steady__rate *rate, int64_t amount) {
    return level + amount <= rate->capacity;
}

void steady__bucket_report(struct steady__decision *d, const struct steady__rate *rate, int64_t level, int64_t phase,
                           int64_t blocked_for, int64_t amount) {
    d->level = level;
    d->until_next_drop = bucket_wait_for(1, phase, rate);
    d->blocked_for = blocked_for;
    d->busy_for = level == 0 ? blocked_for : bucket_max64(blocked_for, bucket_wait_for(level, phase, rate));
    if (d->success) {
        d->retry_after = 0;
    } else if (amount > rate->capacity) {
        d->retry_after = -1;
    } else {
        d->retry_after = blocked_for;
        if (amount > 0 && !bucket_fits(level, rate, amount))
            d->retry_after = bucket_max64(blocked_for, bucket_wait_for(level + amount - rate->capacity, phase, rate));
    }
}

static void bucket_consume_any(struct steady__bucket *bucket, const struct steady__rate *rate, int64_t now,
                               int64_t amount, struct steady__decision *d) {
    struct steady__bucket b = *bucket;
    int64_t phase = bucket_advance(&b, rate, now, &d->stepped);

    d->success = amount < 0 || (b.blocked_until == 0 && (amount == 0 || bucket_fits(b.level, rate, amount)));
    d->changed = amount != 0 && (d->success || d->stepped);
    if (d->success) {
        b.level = bucket_max64(0, b.level + amount);
        if (b.level == 0) {
            b.last = now;
            b.rem = 0;
            phase = 0;
        }
    } else if (b.blocked_until == 0 && rate->block != 0 && amount <= rate->capacity) {
        b.blocked_until = now + rate->block;
        d->changed = true;
    }
    steady__bucket_report(d, rate, b.level, phase, bucket_max64(0, b.blocked_until - now), amount);
    if (d->changed) *bucket = d->busy_for == 0 ? empty_bucket : b;
}

void steady__bucket_consume(struct steady__bucket *bucket, const struct steady__rate *rate, int64_t now, int64_t amount,
                            struct steady__decision *d) {
    struct steady__bucket b = *bucket;
    if (!steady__bucket_consume_usual(&b, rate, now, amount, d))
        bucket_consume_any(bucket, rate, now, amount, d);
    else if (d->changed)
        *bucket = b;
}

void steady__bucket_peek(const struct steady__bucket *bucket, const struct steady__rate *rate, int64_t now,
                         struct steady__decision *d) {
    struct steady__bucket b = *bucket;
    const int64_t phase = bucket_advance(&b, rate, now, &d->stepped);
    d->success = b.blocked_until == 0 && bucket_fits(b.level, rate, 1);
    d->changed = false;
    steady__bucket_report(d, rate, b.level, phase, bucket_max64(0, b.blocked_until - now), 1);
}
