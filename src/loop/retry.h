/* SPDX-License-Identifier: MIT
 * A loop whose timers are started again where that has failed. */
#ifndef STEADY__RETRY_H
#define STEADY__RETRY_H

#include "core/list.h"
#include "loop/fork_guard.h"
#include "loop/loop.h"

/* Outlives what uses its loop. */
struct steady__retry {
    steady_loop theirs; /* the caller's */
    steady_loop_ops ops;
    const struct steady__fork_guard *fork_guard;
    struct steady__list failed; /* timers that are not running, and should be */
};

/* A loop over theirs, for the parts of a store. Its timer_start returns 0 in any case. */
steady_loop steady__retry_loop(struct steady__retry *retry, const steady_loop *theirs,
                               const struct steady__fork_guard *fork_guard);

/* Starts again what has failed. False: the caller's loop still starts no timer. */
bool steady__retry_now(struct steady__retry *retry);

/* retry: NULL where timers cannot fail. */
static inline bool steady__retry_runs(struct steady__retry *retry) {
    return retry == NULL || steady__list_empty(&retry->failed) || steady__retry_now(retry);
}

#endif
