/* SPDX-License-Identifier: MIT
 * The four loops with one interface, for tests that are the same on all of them. */
#ifndef STAGES_H
#define STAGES_H

#include <hiredis/async.h>
#include <stdbool.h>

#include "steady.h"

struct stage {
    const char *name;
    steady_loop (*make)(void);
    void (*turn)(void *loop);                                     /* waits for an event and handles it */
    bool (*leave)(void *loop);                                    /* frees the loop; true: nothing was left in it */
    int (*attach)(struct redisAsyncContext *context, void *loop); /* hiredis's adapter, or our own */
    void (*go_on)(void *loop, steady_us time);                    /* in a forked child: revives the loop and runs it */
};

#define STAGES 4
extern const struct stage *const stages[STAGES];

/* libev and libevent give different values to the same names, so no source file may include both. */
extern const struct stage stage_ev;

#endif
