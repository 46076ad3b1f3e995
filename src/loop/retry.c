/* SPDX-License-Identifier: MIT
 * A loop over the loop of the caller. It starts a timer again that the loop of the caller could not start.
 *
 * Many states of a store end by a timer alone: the back-off of a connection, or the deadline of a decision. If such a
 * timer does not start, it goes into a list, with the time at which it is due. Each timer that fires and each new
 * decision try to start the timers in the list. So a failure lasts until the next call at most, and no other part of
 * the library checks the result of timer_start.
 *
 * Descriptors are watched by the loop of the caller directly. If that fails, the connection is closed, or sets its
 * events again later (steady__watch_want). */
#include "loop/retry.h"

#include <stdlib.h>

struct timer {
    struct steady__list place; /* in `failed`, or nowhere */
    struct steady__retry *retry;
    void *timer; /* of the caller's loop */
    bool running;
    steady_us due; /* while in `failed` */
    void (*fired)(void *arg);
    void *arg;
};

#define TIMER(list) STEADY__OWNER(struct timer, place, list)

static void *retry_io_new(void *loop, int fd, void (*ready)(void *arg, int events), void *arg) {
    const steady_loop *theirs = &((struct steady__retry *)loop)->theirs;
    return theirs->ops->io_new(theirs->loop, fd, ready, arg);
}

static steady_us retry_now(void *loop) { return steady__loop_now(&((struct steady__retry *)loop)->theirs); }

static bool retry_start(struct timer *timer, steady_us delay) {
    const steady_loop_ops *ops = timer->retry->theirs.ops;
    const bool ran = timer->running;
    timer->running = ops->timer_start(timer->timer, delay) == 0;
    if (ran && !timer->running) ops->timer_stop(timer->timer);
    return timer->running;
}

bool steady__retry_now(struct steady__retry *retry) {
    while (!steady__list_empty(&retry->failed)) {
        struct timer *timer = TIMER(retry->failed.next);
        const steady_us delay = timer->due - retry_now(retry);
        if (!retry_start(timer, delay > 0 ? delay : 0)) return false;
        steady__list_remove(&timer->place);
    }
    return true;
}

/* In a forked child the timers belong to the parent, so none is started. The callback may free the timer. */
static void retry_fired(void *arg) {
    struct timer *timer = arg;
    struct steady__retry *retry = timer->retry;
    timer->running = false;
    if (!steady__list_empty(&retry->failed) && !steady__forked(retry->fork_guard)) steady__retry_now(retry);
    timer->fired(timer->arg);
}

static void *retry_timer_new(void *loop, void (*ring)(void *arg), void *arg) {
    struct steady__retry *retry = loop;
    struct timer *timer = calloc(1, sizeof *timer);
    if (timer == NULL) return NULL;
    steady__list_init(&timer->place);
    timer->retry = retry;
    timer->fired = ring;
    timer->arg = arg;
    timer->timer = retry->theirs.ops->timer_new(retry->theirs.loop, retry_fired, timer);
    if (timer->timer != NULL) return timer;
    free(timer);
    return NULL;
}

static int retry_timer_start(void *handle, steady_us delay) {
    struct timer *timer = handle;
    steady__list_remove(&timer->place);
    if (retry_start(timer, delay)) return 0;
    timer->due = retry_now(timer->retry) + delay;
    steady__list_append(&timer->retry->failed, &timer->place);
    return 0;
}

static void retry_timer_stop(void *handle) {
    struct timer *timer = handle;
    steady__list_remove(&timer->place);
    if (timer->running) timer->retry->theirs.ops->timer_stop(timer->timer);
    timer->running = false;
}

static void retry_timer_free(void *handle) {
    struct timer *timer = handle;
    steady__list_remove(&timer->place);
    timer->retry->theirs.ops->timer_free(timer->timer);
    free(timer);
}

steady_loop steady__retry_loop(struct steady__retry *retry, const steady_loop *theirs,
                               const struct steady__fork_guard *fork_guard) {
    retry->theirs = *theirs;
    retry->fork_guard = fork_guard;
    steady__list_init(&retry->failed);
    retry->ops = (steady_loop_ops){.name = theirs->ops->name,
                                   .io_new = retry_io_new,
                                   .io_want = theirs->ops->io_want,
                                   .io_free = theirs->ops->io_free,
                                   .timer_new = retry_timer_new,
                                   .timer_start = retry_timer_start,
                                   .timer_stop = retry_timer_stop,
                                   .timer_free = retry_timer_free,
                                   .now = theirs->ops->now != NULL ? retry_now : NULL};
    return (steady_loop){.ops = &retry->ops, .loop = retry};
}
