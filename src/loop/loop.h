/* SPDX-License-Identifier: MIT
 * An event loop as the library uses it. A watch remembers the events that it waits for; an alarm remembers whether it
 * is set. So the adapters need not remember either. */
#ifndef STEADY__LOOP_H
#define STEADY__LOOP_H

#include <time.h>

#include "steady.h"

/* Like steady_poller_new, but without a descriptor of its own: steady_poller_wake does not wake it. */
int steady__poller_new_deaf(steady_poller **poller);

struct steady__watch {
    const steady_loop_ops *ops;
    void *io;   /* NULL: nothing is watched */
    int wanted; /* -1: not known, as the loop has refused a change */
};

struct steady__alarm {
    const steady_loop *loop;
    void *timer;
    bool set; /* a callback of the alarm calls steady__alarm_rang first */
    steady_us due;
};

static inline steady_us steady__loop_now(const steady_loop *loop) {
    struct timespec t;
    if (loop->ops->now != NULL) return loop->ops->now(loop->loop);
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

static inline int steady__watch_want(struct steady__watch *watch, int events) {
    if (watch->io == NULL || watch->wanted == events) return 0;
    const bool taken = watch->ops->io_want(watch->io, events) == 0;
    watch->wanted = taken ? events : -1; /* adapters drop the old events first */
    return taken ? 0 : -1;
}

static inline void steady__watch_stop(struct steady__watch *watch) {
    if (watch->io != NULL) watch->ops->io_free(watch->io);
    watch->io = NULL;
    watch->wanted = 0;
}

static inline int steady__watch_start(struct steady__watch *watch, const steady_loop *loop, int fd, int events,
                                      void (*ready)(void *arg, int events), void *arg) {
    watch->ops = loop->ops;
    watch->wanted = 0;
    watch->io = loop->ops->io_new(loop->loop, fd, ready, arg);
    if (watch->io == NULL) return -1;
    if (steady__watch_want(watch, events) == 0) return 0;
    steady__watch_stop(watch);
    return -1;
}

/* The loop must outlive the alarm. */
static inline int steady__alarm_new(struct steady__alarm *alarm, const steady_loop *loop, void (*fired)(void *arg),
                                    void *arg) {
    alarm->loop = loop;
    alarm->set = false;
    alarm->timer = loop->ops->timer_new(loop->loop, fired, arg);
    return alarm->timer != NULL ? 0 : -1;
}

static inline void steady__alarm_start(struct steady__alarm *alarm, steady_us delay) {
    alarm->set = alarm->loop->ops->timer_start(alarm->timer, delay) == 0;
}

/* If the loop cannot start the timer, `set` is false. Over a steady__retry the timer is started later. */
static inline void steady__alarm_set(struct steady__alarm *alarm, steady_us delay) {
    alarm->due = delay > 0 ? steady__loop_now(alarm->loop) + delay : 0;
    steady__alarm_start(alarm, delay > 0 ? delay : 0);
}

/* False if the alarm rang too early; then it is set again. Some loops measure from a time that they cached long ago. */
static inline bool steady__alarm_rang(struct steady__alarm *alarm) {
    const steady_us early = alarm->due != 0 ? alarm->due - steady__loop_now(alarm->loop) : 0;
    alarm->set = false;
    if (early > 0) steady__alarm_start(alarm, early);
    return early <= 0;
}

static inline void steady__alarm_stop(struct steady__alarm *alarm) {
    if (alarm->set) alarm->loop->ops->timer_stop(alarm->timer);
    alarm->set = false;
}

static inline void steady__alarm_free(struct steady__alarm *alarm) {
    if (alarm->timer != NULL) alarm->loop->ops->timer_free(alarm->timer);
    alarm->timer = NULL;
    alarm->set = false;
}

#endif
