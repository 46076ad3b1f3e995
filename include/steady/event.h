/* SPDX-License-Identifier: MIT
 * Steady on libevent 2:
 *
 *     steady_loop loop = steady_event_loop(base);
 *     steady_store_options options = {.loop = &loop};
 *
 * A store keeps event_base_dispatch running until it is closed. Close it before event_base_free, and in a forked child
 * before event_reinit. libev and libevent give different values to the same names: a source file can include one of
 * <steady/ev.h> and <steady/event.h>. */
#ifndef STEADY_EVENT_H
#define STEADY_EVENT_H

#include <event2/event.h>
#include <stdlib.h>
#include <steady.h>

struct steady__event_io {
    struct event *event;
    struct event_base *base;
    void (*ready)(void *arg, int events);
    void *arg;
};

struct steady__event_timer {
    struct event *event;
    void (*fired)(void *arg);
    void *arg;
};

static inline void steady__event_ready(evutil_socket_t fd, short events, void *arg) {
    struct steady__event_io *io = (struct steady__event_io *)arg;
    (void)fd;
    io->ready(io->arg,
              ((events & EV_READ) != 0 ? STEADY_READABLE : 0) | ((events & EV_WRITE) != 0 ? STEADY_WRITABLE : 0));
}

static inline void *steady__event_io_new(void *loop, int fd, void (*ready)(void *arg, int events), void *arg) {
    struct steady__event_io *io = (struct steady__event_io *)malloc(sizeof *io);
    if (io == NULL) return NULL;
    io->base = (struct event_base *)loop;
    io->ready = ready;
    io->arg = arg;
    io->event = event_new(io->base, fd, EV_PERSIST, steady__event_ready, io);
    if (io->event != NULL) return io;
    free(io);
    return NULL;
}

/* libevent reports an error as whatever was asked for, which for us is at least EV_READ. */
static inline int steady__event_io_want(void *handle, int events) {
    struct steady__event_io *io = (struct steady__event_io *)handle;
    int wanted = ((events & STEADY_READABLE) != 0 ? EV_READ : 0) | ((events & STEADY_WRITABLE) != 0 ? EV_WRITE : 0);
    if (event_del(io->event) != 0) return -1;
    if (wanted == 0) return 0;
    if (event_assign(io->event, io->base, event_get_fd(io->event), (short)(EV_PERSIST | wanted), steady__event_ready,
                     io) != 0)
        return -1;
    return event_add(io->event, NULL);
}

static inline void steady__event_io_free(void *handle) {
    event_free(((struct steady__event_io *)handle)->event);
    free(handle);
}

static inline void steady__event_fired(evutil_socket_t fd, short events, void *arg) {
    struct steady__event_timer *timer = (struct steady__event_timer *)arg;
    (void)fd;
    (void)events;
    timer->fired(timer->arg);
}

static inline void *steady__event_timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    struct steady__event_timer *timer = (struct steady__event_timer *)malloc(sizeof *timer);
    if (timer == NULL) return NULL;
    timer->fired = fired;
    timer->arg = arg;
    timer->event = event_new((struct event_base *)loop, -1, 0, steady__event_fired, timer);
    if (timer->event != NULL) return timer;
    free(timer);
    return NULL;
}

static inline int steady__event_timer_start(void *handle, steady_us delay) {
    struct timeval t;
    t.tv_sec = (time_t)(delay / STEADY_SECOND);
    t.tv_usec = (suseconds_t)(delay % STEADY_SECOND);
    return event_add(((struct steady__event_timer *)handle)->event, &t);
}

static inline void steady__event_timer_stop(void *handle) { event_del(((struct steady__event_timer *)handle)->event); }

static inline void steady__event_timer_free(void *handle) {
    event_free(((struct steady__event_timer *)handle)->event);
    free(handle);
}

static inline steady_loop steady_event_loop(struct event_base *base) {
    static const steady_loop_ops ops = {"libevent",
                                        steady__event_io_new,
                                        steady__event_io_want,
                                        steady__event_io_free,
                                        steady__event_timer_new,
                                        steady__event_timer_start,
                                        steady__event_timer_stop,
                                        steady__event_timer_free,
                                        NULL};
    steady_loop result;
    result.ops = &ops;
    result.loop = base;
    return result;
}

#endif
