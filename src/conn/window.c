/* SPDX-License-Identifier: MIT
 * The window: how many requests may be unanswered on one connection, so that their replies come in time.
 *
 * A program may ask a server for more than it can answer. A request that is sent all the same is answered late: its
 * decision has ended as unknown, is charged, and delays the requests behind it. Soon every reply is late. So a request
 * that cannot be answered in time waits here, where it can end without a charge.
 *
 * This is the congestion window of TCP, with the delay as the signal (Jacobson, "Congestion avoidance and control",
 * 1988; Brakmo and Peterson, "TCP Vegas", 1995). The delay is the age of the first unanswered request when all received
 * replies are read. The latency of a reply is not used: the program may have been busy before it read the reply.
 *
 * Growth, while requests wait for the window. `room` is the timeout less the time that is not due to our queue:
 *
 *     delay                                    the window grows by one for each
 *     at most the network's + room / 8         reply: it doubles in the time of a reply
 *     at most the base's + room / 8            GENTLY replies
 *     at most the base's + room / 4            SLOWLY replies
 *
 * Above that, it shrinks once for each window, to the size that would have cost room / 4.
 *
 * The base is the latency of a reply with nothing ahead of it: the network and the other clients. A smaller window does
 * not lower it, so it is accepted up to half of the timeout. Otherwise clients of a server that start one after the
 * other, behind the queues of earlier clients, would all be late. The base is learned in two ways:
 *   - from replies with hardly a request ahead of them;
 *   - if the window was reduced and the delay stays long: from two requests with very different numbers of requests
 * ahead. The line through both (requests ahead, delay) meets the axis at the base. If a higher base shows that a
 * reduction was wrong, half of it is undone.
 *
 * The network's round trip is at most the time of connecting, and at most the latency of any reply. It is accepted
 * nearly whatever it is, because a smaller window would not help. */
#include "conn/window.h"

#define EACH                                                                                                           \
    100 /* first size: one request for each 100 us of the timeout. At 40,000 decisions a second they take a quarter of \
           it */
#define LEAST 16
#define MOST 16777216
#define GENTLY 16 /* replies, see above */
#define SLOWLY 32

static steady_us window_lesser(steady_us a, steady_us b) { return a < b ? a : b; }
static steady_us window_greater(steady_us a, steady_us b) { return a > b ? a : b; }

void steady__window_open(struct steady__window *window, steady_us timeout, steady_us round_trip) {
    const steady_us first = timeout / EACH,
                    way = window_greater(round_trip, 0); /* the clock may be the caller's, and step */
    *window = (struct steady__window){.timeout = timeout, .size = MOST, .round_trip = way, .base = way};
    if (first < MOST) window->size = first > LEAST ? (uint32_t)first : LEAST;
}

static steady_us window_network(const struct steady__window *window) {
    return window_lesser(window->round_trip, window->timeout / 8 * 7);
}

/* The time that is not due to our queue, and a part of the room that the timeout leaves. */
static steady_us window_allowance(const struct steady__window *window, int part) {
    const steady_us least = window_greater(window_lesser(window->base, window->timeout / 2), window_network(window));
    return least + (window->timeout - least) / part;
}

void steady__window_answered(struct steady__window *window, uint32_t ahead, steady_us took) {
    if (took < 0) return; /* the caller's clock stepped */
    if (took < window->round_trip) window->round_trip = took;
    if (took < window->base || ahead < LEAST) window->base = took;
}

/* Learns the base from two requests with different numbers of requests ahead. */
static void window_learn(struct steady__window *window, uint32_t ahead, steady_us age) {
    const uint32_t few = window->reduction_ahead < ahead ? window->reduction_ahead : ahead,
                   many = window->reduction_ahead < ahead ? ahead : window->reduction_ahead;
    if (!window->reduced || many - few <= few) return;
    const double each =
        ((double)age - (double)window->reduction_age) / ((double)ahead - (double)window->reduction_ahead);
    const steady_us rest = age - (steady_us)(each > 0 ? each * ahead : 0);
    if (rest > window->base) window->base = rest;
}

/* Undoes half of the last reduction if the new base shows that it was not needed. */
static void window_restore(struct steady__window *window) {
    if (!window->reduced || window->reduction_age > window_allowance(window, 4)) return;
    window->size += (window->unreduced_size - window->size) / 2;
    window->reduced = false;
}

static void window_reduce(struct steady__window *window, uint32_t ahead, steady_us age) {
    const double fits = ((double)ahead + 1) * (double)window_allowance(window, 4) / (double)age;
    if (!window->reduced) window->unreduced_size = window->size;
    if (fits < window->size) window->size = fits > LEAST ? (uint32_t)fits : LEAST;
    window->reduced = true;
    window->reduction_ahead = ahead;
    window->reduction_age = age;
}

static unsigned window_pace(const struct steady__window *window, steady_us age) {
    if (age <= window_network(window) + (window->timeout - window_network(window)) / 8) return 1;
    return age <= window_allowance(window, 8) ? GENTLY : SLOWLY;
}

static void window_grow(struct steady__window *window, uint64_t replies, steady_us age) {
    if (replies == 0 || replies > MOST - window->size) return;
    const unsigned each = window_pace(window, age);
    window->credit += replies;
    window->size += (uint32_t)(window->credit / each);
    window->credit %= each;
    window->reduced = false;
}

void steady__window_look(struct steady__window *window, uint64_t head, uint64_t tail, uint32_t ahead, steady_us age) {
    const uint64_t replies = head - window->seen;
    const steady_us known =
        replies > 0 ? window_greater(age, window->seen_age) : age; /* the longest delay since the last look */
    if (age > window_allowance(window, 4)) window_learn(window, ahead, age);
    window_restore(window);
    if (age > window_allowance(window, 4) && head >= window->first_since_reduction &&
        (ahead >= LEAST || window->size == LEAST)) {
        window_reduce(window, ahead, age);
        window->first_since_reduction = tail;
    } else if (window->was_full && known <= window_allowance(window, 4)) {
        window_grow(window, replies, known);
    }
    window->seen = head;
    window->seen_age = age;
    window->was_full = false;
}

/* Twice the age of the first unanswered request, but not so much that requests which have just come are given up. */
steady_us steady__window_expected_latency(const struct steady__window *window, steady_us age) {
    return window_lesser(2 * age, window_allowance(window, 2));
}
