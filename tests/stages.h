/* SPDX-License-Identifier: MIT
 * The four loops, as a test that is the same on all of them likes to have them. */
#ifndef STAGES_H
#define STAGES_H

#include <hiredis/async.h>
#include <stdbool.h>

#include "steady.h"

struct stage {
    const char *name;
    steady_loop (*make)(void);
    void (*turn)(void *loop);                                     /* waits for something to happen, and lets it */
    bool (*leave)(void *loop);                                    /* frees it: whether nothing was left in it */
    int (*attach)(struct redisAsyncContext *context, void *loop); /* hiredis's adapter, or one of our own */
    void (*go_on)(void *loop, steady_us time); /* in a forked child: makes it fit for that, and runs it for so long */
};

#define STAGES 4
extern const struct stage *const stages[STAGES];

/* libev and libevent give different values to the same names, so no source may see both. */
extern const struct stage stage_ev;

#endif
