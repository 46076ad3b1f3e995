/* SPDX-License-Identifier: MIT
 * Steady on libevent 2:
 *
 *     steady_loop loop = steady_event_loop(base);
 *     steady_store_options options = {.loop = &loop};
 *
 * A store keeps event_base_dispatch running until it is closed. Close it before event_base_free, and in a forked child
 * before event_reinit. A source file can include only one of <steady/ev.h> and <steady/event.h>, because libev and
 * libevent give different values to the same names. */
#ifndef STEADY_EVENT_H
#define STEADY_EVENT_H

#include <event2/event.h>
#include <stdlib.h>
#include <steady.h>

struct steady_event_io {
    struct event *event;
    struct event_base *base;
    void (*ready)(void *arg, int events);
    void *arg;
};

struct steady_event_timer {
    struct event *event;
    void (*fired)(void *arg);
    void *arg;
};

static inline void steady_event_ready(evutil_socket_t fd, short events, void *arg) {
    struct steady_event_io *io = STEADY_CAST(struct steady_event_io *, arg);
    (void)fd;
    io->ready(io->arg,
              ((events & EV_READ) != 0 ? STEADY_READABLE : 0) | ((events & EV_WRITE) != 0 ? STEADY_WRITABLE : 0));
}

static inline void *steady_event_io_new(void *loop, int fd, void (*ready)(void *arg, int events), void *arg) {
    struct steady_event_io *io = STEADY_CAST(struct steady_event_io *, malloc(sizeof *io));
    if (io == STEADY_NULL) return STEADY_NULL;
    io->base = STEADY_CAST(struct event_base *, loop);
    io->ready = ready;
    io->arg = arg;
    io->event = event_new(io->base, fd, EV_PERSIST, steady_event_ready, io);
    if (io->event != STEADY_NULL) return io;
    free(io);
    return STEADY_NULL;
}

/* libevent reports an error as the events that are wanted. Steady always wants at least EV_READ. */
static inline int steady_event_io_want(void *handle, int events) {
    struct steady_event_io *io = STEADY_CAST(struct steady_event_io *, handle);
    int wanted = ((events & STEADY_READABLE) != 0 ? EV_READ : 0) | ((events & STEADY_WRITABLE) != 0 ? EV_WRITE : 0);
    if (event_del(io->event) != 0) return -1;
    if (wanted == 0) return 0;
    if (event_assign(io->event, io->base, event_get_fd(io->event), STEADY_CAST(short, EV_PERSIST | wanted),
                     steady_event_ready, io) != 0)
        return -1;
    return event_add(io->event, STEADY_NULL);
}

static inline void steady_event_io_free(void *handle) {
    event_free((STEADY_CAST(struct steady_event_io *, handle))->event);
    free(handle);
}

static inline void steady_event_fired(evutil_socket_t fd, short events, void *arg) {
    struct steady_event_timer *timer = STEADY_CAST(struct steady_event_timer *, arg);
    (void)fd;
    (void)events;
    timer->fired(timer->arg);
}

static inline void *steady_event_timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    struct steady_event_timer *timer = STEADY_CAST(struct steady_event_timer *, malloc(sizeof *timer));
    if (timer == STEADY_NULL) return STEADY_NULL;
    timer->fired = fired;
    timer->arg = arg;
    timer->event = event_new(STEADY_CAST(struct event_base *, loop), -1, 0, steady_event_fired, timer);
    if (timer->event != STEADY_NULL) return timer;
    free(timer);
    return STEADY_NULL;
}

static inline int steady_event_timer_start(void *handle, steady_us delay) {
    struct timeval t;
    t.tv_sec = STEADY_CAST(time_t, (delay / STEADY_SECOND));
    t.tv_usec = STEADY_CAST(suseconds_t, (delay % STEADY_SECOND));
    return event_add((STEADY_CAST(struct steady_event_timer *, handle))->event, &t);
}

static inline void steady_event_timer_stop(void *handle) {
    event_del((STEADY_CAST(struct steady_event_timer *, handle))->event);
}

static inline void steady_event_timer_free(void *handle) {
    event_free((STEADY_CAST(struct steady_event_timer *, handle))->event);
    free(handle);
}

static inline steady_loop steady_event_loop(struct event_base *base) {
    static const steady_loop_ops ops = {"libevent",
                                        steady_event_io_new,
                                        steady_event_io_want,
                                        steady_event_io_free,
                                        steady_event_timer_new,
                                        steady_event_timer_start,
                                        steady_event_timer_stop,
                                        steady_event_timer_free,
                                        STEADY_NULL,
                                        {STEADY_NULL, STEADY_NULL, STEADY_NULL, STEADY_NULL}};
    steady_loop result;
    result.ops = &ops;
    result.reserved[0] = result.reserved[1] = STEADY_NULL;
    result.loop = base;
    return result;
}

#endif
