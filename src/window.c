/* SPDX-License-Identifier: MIT
 * How many requests may be unanswered on one connection, so that what is sent is answered in time.
 *
 * More may be asked of a server than it can answer. What is sent all the same is answered late, when its decision has
 * ended as unknown; it is charged nevertheless, and delays what comes after it: soon everything is late, and the server
 * works for nobody. So what cannot be answered soon waits here, where it can end without having been charged.
 *
 * It is what TCP does about the queues of a network, with the delay as the signal (Jacobson, "Congestion avoidance and
 * control", 1988; Brakmo and Peterson, "TCP Vegas", 1995). The window grows by one with each reply, that is, doubles in
 * the time of a reply, as long as it is what requests wait for and the queue costs no more than an eighth of what the
 * timeout leaves, and slowly up to a quarter; beyond that it falls, once for each window, to what would have cost a
 * quarter. The delay is the age of the first unanswered request once all has been read that had come, not the time that
 * replies took: a program that is busy for long before it reads them tells nothing of the server.
 *
 * What a reply takes with nothing ahead of it is not owed to the queue, but to the network or to other clients. It is
 * let pass, up to half the timeout: else the clients of one server, each beginning with the queues of those before it,
 * would all be late again. It is known from replies that had next to nothing ahead of them; and where the window has
 * been lowered and the delay is still long, from two requests of which one had many more ahead than the other: it is
 * where the line through both meets the axis. If the window was lowered for what turns out not to be owed to it, half
 * of that is taken back. What the network takes is no more than connecting took, and than any reply; it is let pass
 * nearly whatever it is, since a smaller window would not help. */
#include "window.h"

#define EACH 100 /* us of the timeout: a server of 40,000 decisions a second begins with a quarter of the timeout */
#define LEAST 16
#define MOST 16777216
#define GENTLY 16 /* replies for which it grows by one, where the delay is not all the network's */
#define SLOWLY 32

static steady_us window_lesser(steady_us a, steady_us b) { return a < b ? a : b; }
static steady_us window_greater(steady_us a, steady_us b) { return a > b ? a : b; }

void steady__window_open(struct steady__window *window, steady_us timeout, steady_us round_trip) {
    const steady_us first = timeout / EACH, way = window_greater(round_trip, 0); /* the clock may be a caller's */
    *window = (struct steady__window){.timeout = timeout, .size = MOST, .round_trip = way, .base = way};
    if (first < MOST) window->size = first > LEAST ? (uint32_t)first : LEAST;
}

static steady_us window_network(const struct steady__window *window) {
    return window_lesser(window->round_trip, window->timeout / 8 * 7);
}

/* What is not owed to our own queue, and part of what the timeout leaves beyond it. */
static steady_us window_allowance(const struct steady__window *window, int part) {
    const steady_us least = window_greater(window_lesser(window->base, window->timeout / 2), window_network(window));
    return least + (window->timeout - least) / part;
}

void steady__window_answered(struct steady__window *window, uint32_t ahead, steady_us took) {
    if (took < 0) return; /* a clock of the caller's */
    if (took < window->round_trip) window->round_trip = took;
    if (took < window->base || ahead < LEAST) window->base = took;
}

/* Where many more ahead do not cost more in proportion, the rest is not owed to them. */
static void window_learn(struct steady__window *window, uint32_t ahead, steady_us age) {
    const uint32_t few = window->ahead < ahead ? window->ahead : ahead,
                   many = window->ahead < ahead ? ahead : window->ahead;
    if (!window->narrowed || many - few <= few) return;
    const double each = ((double)age - (double)window->age) / ((double)ahead - (double)window->ahead);
    const steady_us rest = age - (steady_us)(each > 0 ? each * ahead : 0);
    if (rest > window->base) window->base = rest;
}

/* It would not have been lowered, had been known what is now. */
static void window_restore(struct steady__window *window) {
    if (!window->narrowed || window->age > window_allowance(window, 4)) return;
    window->size += (window->before - window->size) / 2;
    window->narrowed = false;
}

static void window_lower(struct steady__window *window, uint32_t ahead, steady_us age) {
    const double fits = ((double)ahead + 1) * (double)window_allowance(window, 4) / (double)age;
    if (!window->narrowed) window->before = window->size;
    if (fits < window->size) window->size = fits > LEAST ? (uint32_t)fits : LEAST;
    window->narrowed = true;
    window->ahead = ahead;
    window->age = age;
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
    window->narrowed = false;
}

void steady__window_look(struct steady__window *window, uint64_t head, uint64_t tail, uint32_t ahead, steady_us age) {
    const uint64_t replies = head - window->seen;
    const steady_us known = replies > 0 ? window_greater(age, window->seen_age) : age; /* the delay, as far as it is */
    if (age > window_allowance(window, 4)) window_learn(window, ahead, age);
    window_restore(window);
    if (age > window_allowance(window, 4) && head >= window->lowered && (ahead >= LEAST || window->size == LEAST)) {
        window_lower(window, ahead, age);
        window->lowered = tail;
    } else if (window->limits && known <= window_allowance(window, 4)) {
        window_grow(window, replies, known);
    }
    window->seen = head;
    window->seen_age = age;
    window->limits = false;
}

/* Twice the age of the first, but no more than leaves those alone that have not waited for long. */
steady_us steady__window_expected_latency(const struct steady__window *window, steady_us age) {
    return window_lesser(2 * age, window_allowance(window, 2));
}
