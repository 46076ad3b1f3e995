/* SPDX-License-Identifier: MIT
 * How many requests may be unanswered on one connection, so that what is sent is answered in time. */
#ifndef STEADY__WINDOW_H
#define STEADY__WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "steady.h"

struct steady__window {
    steady_us timeout;
    uint32_t size;
    bool limits;          /* a request has waited for it since the last look */
    bool narrowed;        /* it has been lowered, and has not grown since */
    steady_us round_trip; /* of the network, at most */
    steady_us base;       /* what a reply takes with next to nothing ahead of it */
    uint64_t seen;        /* the first unanswered request, at the last look */
    steady_us seen_age;
    uint64_t lowered; /* the number of the first request that was sent since it was lowered */
    uint32_t before;  /* its size, before */
    uint32_t ahead;   /* of the request for whose age that was */
    steady_us age;
    uint64_t credit; /* replies for which it is yet to grow */
};

/* Of a new connection, which took `round_trip` to be made. timeout: from the submit of a request to its answer. */
void steady__window_open(struct steady__window *window, steady_us timeout, steady_us round_trip);

/* A reply has come that `took` so long; so many requests were unanswered when its own was sent. */
void steady__window_answered(struct steady__window *window, uint32_t ahead, steady_us took);

/* What has come has been read, and the requests from `head` on, up to `tail`, are unanswered: the first of them was
 * sent `age` ago, with `ahead` before it. */
void steady__window_look(struct steady__window *window, uint64_t head, uint64_t tail, uint32_t ahead, steady_us age);

/* What a request that is sent now has to reckon with, where the first unanswered one was sent `age` ago. */
steady_us steady__window_expected_latency(const struct steady__window *window, steady_us age);

#endif
