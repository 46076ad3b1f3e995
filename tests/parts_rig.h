/* SPDX-License-Identifier: MIT
 * Random buckets, calls and times for the tests of core/parts.c, and exact numbers. */
#ifndef PARTS_RIG_H
#define PARTS_RIG_H

#include <stdlib.h>

#include "assertions.h"
#include "core/parts.h"
#include "random.h"

#define BUCKETS 4

__extension__ typedef __int128 wide;

static inline wide wide_min(wide a, wide b) { return a < b ? a : b; }
static inline wide wide_max(wide a, wide b) { return a > b ? a : b; }
static inline wide ceil_div(wide a, wide b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }

/* Each test makes this many rounds. STEADY_TEST names the one test to run, which then makes many more. */
static inline int rounds(int briefly) { return getenv("STEADY_TEST") != NULL ? 40 * briefly : briefly; }

/* The highest level that can be counted. */
static inline int64_t top_of(const struct steady__rate *rate) {
    return (int64_t)wide_min(STEADY__LEVEL_MAX, (STEADY__EXACT - 1) / rate->recharge);
}

/* What has yet to leak from a stored bucket, in 1/drops us. Its clock does not step back. */
static inline wide content_of(const struct steady__bucket *b, const struct steady__rate *rate, int64_t now) {
    const wide leaked = (wide)(now - b->last) * rate->drops - b->rem;
    return b->level == 0 ? 0 : wide_max(0, (wide)b->level * rate->recharge - leaked);
}

/* Small numbers: a few us cover all cases, and amounts of 1 to 10 collide. */
static inline struct steady__rate small_rate(uint64_t *seed) {
    return (struct steady__rate){random_in(seed, 1, 9), random_in(seed, 1, 30),
                                 random_next(seed) % 2 ? 1 : random_in(seed, 1, 9),
                                 random_next(seed) % 3 ? 0 : random_in(seed, 1, 40)};
}

/* Any limit, also one near 2^53. */
static inline struct steady__rate any_rate(uint64_t *seed) {
    static const int64_t common_drops[] = {1, 1, 1, 3, 7, 1000, 1000000};
    struct steady__rate rate = {.capacity = random_edgy(seed, 1, STEADY__CAPACITY_MAX)};
    rate.recharge = random_edgy(seed, 1, (STEADY__EXACT - 1) / rate.capacity);
    if (random_next(seed) % 8 == 0) { /* 2^53 is a multiple of it */
        rate.capacity = random_in(seed, 1, 7);
        rate.recharge = INT64_C(1) << random_in(seed, 20, 50);
    }
    rate.drops = random_next(seed) % 4 ? common_drops[random_next(seed) % 7] : random_edgy(seed, 1, STEADY__DROPS_MAX);
    rate.block = random_next(seed) % 3 ? 0 : random_edgy(seed, 1, STEADY__BLOCK_LIMIT - 1);
    return rate;
}

/* A positive amount: near the capacity, near the room, or any. */
static inline int64_t some_amount(uint64_t *seed, const struct steady__rate *rate, int64_t level) {
    int64_t amount;
    switch (random_next(seed) % 6) {
    case 0: amount = 1; break;
    case 1: amount = rate->capacity + random_in(seed, -1, 2); break;
    case 2: amount = rate->capacity - level + random_in(seed, -1, 1); break;
    case 3: amount = top_of(rate) - level + random_in(seed, -1, 1); break;
    default: amount = random_in(seed, 1, rate->capacity); break;
    }
    return (int64_t)wide_max(1, wide_min(amount, INT32_MAX));
}

/* A pause after which the bucket has changed a little, or is nearly empty, or its block is nearly over. */
static inline int64_t some_pause(uint64_t *seed, const struct steady__rate *rate, const struct steady__bucket *b,
                                 int64_t now) {
    int64_t pause;
    switch (random_next(seed) % 8) {
    case 0: pause = random_in(seed, 0, 3); break;
    case 1: pause = random_in(seed, 0, rate->recharge / rate->drops + 1); break;
    case 2: pause = rate->recharge / rate->drops + random_in(seed, -1, 2); break;
    case 3: pause = (int64_t)(content_of(b, rate, now) / rate->drops) + random_in(seed, -2, 2); break;
    case 4: pause = b->blocked_until - now + random_in(seed, -1, 1); break;
    default: pause = 0; break;
    }
    return pause < 0 || now + pause >= STEADY__BLOCK_LIMIT ? 0 : pause;
}

static inline int64_t some_max_wait(uint64_t *seed, const struct steady__rate *rate) {
    switch (random_next(seed) % 6) {
    case 0: return STEADY__MAX_WAIT;
    case 1: return random_in(seed, 0, rate->recharge / rate->drops + 1);
    case 2: return random_in(seed, 0, (int64_t)wide_min(STEADY__MAX_WAIT, (wide)20 * rate->recharge / rate->drops));
    default: return 0;
    }
}

/* The numbers 0 to n-1 in any order. */
static inline void shuffle(uint64_t *seed, size_t *order, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const size_t j = (size_t)random_in(seed, 0, (int64_t)i);
        order[i] = order[j];
        order[j] = i;
    }
}

#endif
