/* SPDX-License-Identifier: MIT
 * Steady on libev:
 *
 *     steady_loop loop = steady_ev_loop(EV_DEFAULT);
 *     steady_store_options options = {.loop = &loop};
 *
 * A store keeps ev_run running until it is closed. Close it before ev_loop_destroy, and in a forked child before
 * ev_loop_fork. A source file can include only one of <steady/ev.h> and <steady/event.h>, because libev and libevent
 * give different values to the same names. */
#ifndef STEADY_EV_H
#define STEADY_EV_H

#include <ev.h>
#include <stdlib.h>
#include <steady.h>

struct steady_ev_io {
    ev_io watcher;
    struct ev_loop *loop;
    void (*ready)(void *arg, int events);
    void *arg;
};

struct steady_ev_timer {
    ev_timer watcher;
    struct ev_loop *loop;
    void (*fired)(void *arg);
    void *arg;
};

static inline void steady_ev_ready(struct ev_loop *loop, ev_io *watcher, int events) {
    struct steady_ev_io *io = STEADY_CAST(struct steady_ev_io *, watcher->data);
    int seen = ((events & EV_READ) != 0 ? STEADY_READABLE : 0) | ((events & EV_WRITE) != 0 ? STEADY_WRITABLE : 0);
    (void)loop;
    io->ready(io->arg, (events & EV_ERROR) != 0 ? STEADY_READABLE | STEADY_WRITABLE : seen);
}

static inline void *steady_ev_io_new(void *loop, int fd, void (*ready)(void *arg, int events), void *arg) {
    struct steady_ev_io *io = STEADY_CAST(struct steady_ev_io *, malloc(sizeof *io));
    if (io == STEADY_NULL) return STEADY_NULL;
    ev_init(&io->watcher, steady_ev_ready);
    ev_io_set(&io->watcher, fd, EV_NONE);
    io->watcher.data = io;
    io->loop = STEADY_CAST(struct ev_loop *, loop);
    io->ready = ready;
    io->arg = arg;
    return io;
}

static inline int steady_ev_io_want(void *handle, int events) {
    struct steady_ev_io *io = STEADY_CAST(struct steady_ev_io *, handle);
    ev_io_stop(io->loop, &io->watcher);
    ev_io_set(&io->watcher, io->watcher.fd,
              ((events & STEADY_READABLE) != 0 ? EV_READ : 0) | ((events & STEADY_WRITABLE) != 0 ? EV_WRITE : 0));
    if (events != 0) ev_io_start(io->loop, &io->watcher);
    return 0;
}

static inline void steady_ev_io_free(void *handle) {
    struct steady_ev_io *io = STEADY_CAST(struct steady_ev_io *, handle);
    ev_io_stop(io->loop, &io->watcher);
    free(io);
}

static inline void steady_ev_fired(struct ev_loop *loop, ev_timer *watcher, int events) {
    struct steady_ev_timer *timer = STEADY_CAST(struct steady_ev_timer *, watcher->data);
    (void)loop;
    (void)events;
    timer->fired(timer->arg);
}

static inline void *steady_ev_timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    struct steady_ev_timer *timer = STEADY_CAST(struct steady_ev_timer *, malloc(sizeof *timer));
    if (timer == STEADY_NULL) return STEADY_NULL;
    ev_init(&timer->watcher, steady_ev_fired);
    timer->watcher.data = timer;
    timer->loop = STEADY_CAST(struct ev_loop *, loop);
    timer->fired = fired;
    timer->arg = arg;
    return timer;
}

static inline int steady_ev_timer_start(void *handle, steady_us delay) {
    struct steady_ev_timer *timer = STEADY_CAST(struct steady_ev_timer *, handle);
    ev_timer_stop(timer->loop, &timer->watcher);
    ev_timer_set(&timer->watcher, STEADY_CAST(ev_tstamp, delay) / 1e6, 0.);
    ev_timer_start(timer->loop, &timer->watcher);
    return 0;
}

static inline void steady_ev_timer_stop(void *handle) {
    struct steady_ev_timer *timer = STEADY_CAST(struct steady_ev_timer *, handle);
    ev_timer_stop(timer->loop, &timer->watcher);
}

static inline void steady_ev_timer_free(void *handle) {
    steady_ev_timer_stop(handle);
    free(handle);
}

static inline steady_loop steady_ev_loop(struct ev_loop *loop) {
    static const steady_loop_ops ops = {"libev",
                                        steady_ev_io_new,
                                        steady_ev_io_want,
                                        steady_ev_io_free,
                                        steady_ev_timer_new,
                                        steady_ev_timer_start,
                                        steady_ev_timer_stop,
                                        steady_ev_timer_free,
                                        STEADY_NULL,
                                        {STEADY_NULL, STEADY_NULL, STEADY_NULL, STEADY_NULL}};
    steady_loop result;
    result.ops = &ops;
    result.reserved[0] = result.reserved[1] = STEADY_NULL;
    result.loop = loop;
    return result;
}

#endif
