/* SPDX-License-Identifier: MIT
 * The window: how many requests may be unanswered on one connection, so that their replies come in time. */
#ifndef STEADY__WINDOW_H
#define STEADY__WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "steady.h"

struct steady__window {
    steady_us timeout;
    uint32_t size;
    bool was_full;        /* a request waited for the window since the last look */
    bool reduced;         /* reduced, and not grown since */
    steady_us round_trip; /* upper bound of the network's round trip */
    steady_us base;       /* latency of a reply with hardly a request ahead of it */
    uint64_t seen;        /* index of the first unanswered request, at the last look */
    steady_us seen_age;
    uint64_t first_since_reduction; /* index of the first request sent after the last reduction */
    uint32_t unreduced_size;        /* before that reduction */
    uint32_t reduction_ahead;       /* requests ahead of the request that caused it */
    steady_us reduction_age;        /* of that request */
    uint64_t credit;                /* replies that have not yet made the window grow */
};

/* Opens the window of a new connection that took `round_trip` to connect. timeout: from submit to answer. */
void steady__window_open(struct steady__window *window, steady_us timeout, steady_us round_trip);

/* A reply came `took` after its request was sent, with `ahead` unanswered requests before it. */
void steady__window_answered(struct steady__window *window, uint32_t ahead, steady_us took);

/* Adapts the window. All received replies are read. The requests from `head` up to `tail` are unanswered. The first of
 * them was sent `age` ago, with `ahead` unanswered requests before it. */
void steady__window_look(struct steady__window *window, uint64_t head, uint64_t tail, uint32_t ahead, steady_us age);

/* The expected latency of a request that is sent now, if the first unanswered one was sent `age` ago. */
steady_us steady__window_expected_latency(const struct steady__window *window, steady_us age);

#endif
