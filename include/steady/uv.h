/* SPDX-License-Identifier: MIT
 * Steady on libuv:
 *
 *     steady_loop loop = steady_uv_loop(uv_default_loop());
 *     steady_store_options options = {.loop = &loop};
 *
 * A store keeps the loop alive until it is closed. Its handles are then closed, and their memory is freed by the next
 * turn of the loop, as usual with libuv. In a forked child close it before uv_loop_fork: what it leaves in the loop
 * then keeps that alive, and never rings for anybody. */
#ifndef STEADY_UV_H
#define STEADY_UV_H

#include <stdlib.h>
#include <steady.h>
#include <uv.h>

struct steady__uv_io {
    uv_poll_t handle;
    int wanted; /* of libuv's events */
    void (*ready)(void *arg, int events);
    void *arg;
};

/* Before libuv 1.46 a timer for now that is started inside a timer's callback fires in the same turn of the loop, and
 * so on for ever if it is started again each time. What is for now is therefore left to an idle handle. */
struct steady__uv_timer {
    uv_timer_t handle;
    uv_idle_t now;
    int n_open; /* of these two */
    void (*fired)(void *arg);
    void *arg;
};

static inline void steady__uv_freed(uv_handle_t *handle) { free(handle->data); }

static inline void steady__uv_ready(uv_poll_t *handle, int status, int events);

static inline int steady__uv_io_watch(struct steady__uv_io *io) {
    if (io->wanted == 0) return uv_poll_stop(&io->handle) == 0 ? 0 : -1;
    return uv_poll_start(&io->handle, io->wanted, steady__uv_ready) == 0 ? 0 : -1;
}

/* libuv stops a handle that has an error, which may be one more thing to read behind a reply. */
static inline void steady__uv_ready(uv_poll_t *handle, int status, int events) {
    struct steady__uv_io *io = (struct steady__uv_io *)handle->data;
    int seen =
        ((events & UV_READABLE) != 0 ? STEADY_READABLE : 0) | ((events & UV_WRITABLE) != 0 ? STEADY_WRITABLE : 0);
    if (status < 0) steady__uv_io_watch(io); /* now, as `ready` may free it */
    io->ready(io->arg, status < 0 ? STEADY_READABLE | STEADY_WRITABLE : seen);
}

static inline void *steady__uv_io_new(void *loop, int fd, void (*ready)(void *arg, int events), void *arg) {
    struct steady__uv_io *io = (struct steady__uv_io *)malloc(sizeof *io);
    if (io == NULL) return NULL;
    if (uv_poll_init((uv_loop_t *)loop, &io->handle, fd) != 0) {
        free(io);
        return NULL;
    }
    io->handle.data = io;
    io->wanted = 0;
    io->ready = ready;
    io->arg = arg;
    return io;
}

static inline int steady__uv_io_want(void *handle, int events) {
    struct steady__uv_io *io = (struct steady__uv_io *)handle;
    io->wanted =
        ((events & STEADY_READABLE) != 0 ? UV_READABLE : 0) | ((events & STEADY_WRITABLE) != 0 ? UV_WRITABLE : 0);
    return steady__uv_io_watch(io);
}

static inline void steady__uv_io_free(void *handle) {
    uv_close((uv_handle_t *)&((struct steady__uv_io *)handle)->handle, steady__uv_freed);
}

static inline void *steady__uv_timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    struct steady__uv_timer *timer = (struct steady__uv_timer *)malloc(sizeof *timer);
    if (timer == NULL) return NULL;
    uv_timer_init((uv_loop_t *)loop, &timer->handle);
    uv_idle_init((uv_loop_t *)loop, &timer->now);
    timer->handle.data = timer->now.data = timer;
    timer->n_open = 2;
    timer->fired = fired;
    timer->arg = arg;
    return timer;
}

static inline void steady__uv_timer_stop(void *handle) {
    struct steady__uv_timer *timer = (struct steady__uv_timer *)handle;
    uv_timer_stop(&timer->handle);
    uv_idle_stop(&timer->now);
}

static inline void steady__uv_fired(uv_timer_t *handle) {
    struct steady__uv_timer *timer = (struct steady__uv_timer *)handle->data;
    timer->fired(timer->arg);
}

static inline void steady__uv_fired_now(uv_idle_t *handle) {
    struct steady__uv_timer *timer = (struct steady__uv_timer *)handle->data;
    uv_idle_stop(handle);
    timer->fired(timer->arg);
}

/* libuv counts in milliseconds, from the start of the loop's turn: who needs to know the time looks at a clock. */
static inline int steady__uv_timer_start(void *handle, steady_us delay) {
    struct steady__uv_timer *timer = (struct steady__uv_timer *)handle;
    steady__uv_timer_stop(timer);
    if (delay <= 0) return uv_idle_start(&timer->now, steady__uv_fired_now) == 0 ? 0 : -1;
    return uv_timer_start(&timer->handle, steady__uv_fired, (uint64_t)((delay + 999) / 1000), 0) == 0 ? 0 : -1;
}

static inline void steady__uv_timer_closed(uv_handle_t *handle) {
    struct steady__uv_timer *timer = (struct steady__uv_timer *)handle->data;
    if (--timer->n_open == 0) free(timer);
}

static inline void steady__uv_timer_free(void *handle) {
    struct steady__uv_timer *timer = (struct steady__uv_timer *)handle;
    uv_close((uv_handle_t *)&timer->handle, steady__uv_timer_closed);
    uv_close((uv_handle_t *)&timer->now, steady__uv_timer_closed);
}

static inline steady_loop steady_uv_loop(uv_loop_t *loop) {
    static const steady_loop_ops ops = {"libuv",
                                        steady__uv_io_new,
                                        steady__uv_io_want,
                                        steady__uv_io_free,
                                        steady__uv_timer_new,
                                        steady__uv_timer_start,
                                        steady__uv_timer_stop,
                                        steady__uv_timer_free,
                                        NULL};
    steady_loop result;
    result.ops = &ops;
    result.loop = loop;
    return result;
}

#endif
