/* SPDX-License-Identifier: MIT
 * A loop over the loop of the caller. It starts a timer again that the loop of the caller could not start. */
#ifndef STEADY__RETRY_H
#define STEADY__RETRY_H

#include "core/list.h"
#include "loop/fork_guard.h"
#include "loop/loop.h"

/* Must outlive all users of its loop. */
struct steady__retry {
    steady_loop theirs; /* of the caller */
    steady_loop_ops ops;
    const struct steady__fork_guard *fork_guard;
    struct steady__list failed; /* timers that could not be started */
};

/* The loop for the parts of a store. Its timer_start always returns 0. */
steady_loop steady__retry_loop(struct steady__retry *retry, const steady_loop *theirs,
                               const struct steady__fork_guard *fork_guard);

/* Starts the failed timers. False: the loop of the caller still starts none. */
bool steady__retry_now(struct steady__retry *retry);

/* Whether all timers run. retry: NULL if timers cannot fail. */
static inline bool steady__retry_runs(struct steady__retry *retry) {
    return retry == NULL || steady__list_empty(&retry->failed) || steady__retry_now(retry);
}

#endif
