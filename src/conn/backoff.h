/* SPDX-License-Identifier: MIT
 * Exponential back-off: the pause before the next attempt doubles from the first to the last. */
#ifndef STEADY__BACKOFF_H
#define STEADY__BACKOFF_H

#include "conn/net.h"

struct steady__backoff {
    steady_us first, last; /* the shortest and the longest pause, before jitter */
    steady_us next;        /* 0: the first */
};

/* The pause before the next attempt, before jitter: at most `last`, even if `last` was longer before. Doubles the pause
 * after it. */
steady_us steady__backoff_next(struct steady__backoff *backoff);

static inline void steady__backoff_reset(struct steady__backoff *backoff) { backoff->next = 0; }

/* A random time from 0 to `most`. */
steady_us steady__jitter(const struct steady__net *net, steady_us most);

/* A random time from half of `pause` to all of it. */
steady_us steady__jittered(const struct steady__net *net, steady_us pause);

/* Attempts to connect to a server: 20 ms to 500 ms, so that the server is used within a second of its return. */
#define STEADY__RECONNECT_BACKOFF                                                                                      \
    (struct steady__backoff) { .first = 20 * STEADY_MILLISECOND, .last = 500 * STEADY_MILLISECOND }

/* The pause after a failed attempt to connect, with jitter. refused: the server rejects the credentials; then it is at
 * least a second and does not grow. */
steady_us steady__reconnect_pause(struct steady__backoff *backoff, const struct steady__net *net, bool refused);

#endif
