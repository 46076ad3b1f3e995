/* SPDX-License-Identifier: MIT
 * The capacity that a series of requests needs: the highest level of a bucket that takes every request. A bucket of
 * this capacity denies nothing, and a smaller one denies something.
 *
 * The content of a bucket is what has yet to leak, in 1/drops us. The level is the content in drops, rounded up. */
#ifndef STEADY_REPLAY_NEEDED_H
#define STEADY_REPLAY_NEEDED_H

#include "core/parts.h"

struct needed_rate {
    int64_t recharge, drops;
    int64_t top; /* the highest level that can be counted; no capacity is over it */
};

struct needed {
    int64_t content;
    int64_t last; /* us: the content is that of this time */
};

static inline struct needed_rate needed_rate(const struct steady__rate *rate) {
    const int64_t top = (STEADY__EXACT - 1) / rate->recharge;
    return (struct needed_rate){rate->recharge, rate->drops, top < STEADY__LEVEL_MAX ? top : STEADY__LEVEL_MAX};
}

/* Times do not go back. elapsed * drops is computed only if it is no more than the content, so it does not overflow. */
static inline void needed_leak(struct needed *needed, const struct needed_rate *rate, int64_t now) {
    const int64_t elapsed = now - needed->last;
    const int64_t lasts = rate->drops == 1 ? needed->content : needed->content / rate->drops;
    needed->content = elapsed > lasts ? 0 : needed->content - elapsed * rate->drops;
    needed->last = now;
}

/* Puts drops in, or takes them out. False: the level cannot be counted, so no capacity is enough. */
static inline bool needed_add(struct needed *needed, const struct needed_rate *rate, int64_t amount) {
    if (amount > rate->top) return false;
    if (amount <= -rate->top) {
        needed->content = 0;
        return true;
    }
    needed->content += amount * rate->recharge;
    if (needed->content < 0) needed->content = 0;
    if (needed->content <= rate->top * rate->recharge) return true;
    needed->content = rate->top * rate->recharge;
    return false;
}

static inline int64_t needed_level(int64_t content, const struct needed_rate *rate) {
    return content / rate->recharge + (content % rate->recharge != 0);
}

#endif
