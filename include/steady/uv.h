/* SPDX-License-Identifier: MIT
 * Steady on libuv:
 *
 *     steady_loop loop = steady_uv_loop(uv_default_loop());
 *     steady_store_options options = {.loop = &loop};
 *
 * A store keeps the loop alive until it is closed. Closing the store closes its handles. As usual with libuv, the next
 * turn of the loop frees their memory. In a forked child, close the store before uv_loop_fork; otherwise its handles
 * keep the loop alive, and never fire. */
#ifndef STEADY_UV_H
#define STEADY_UV_H

#include <stdlib.h>
#include <steady.h>
#include <uv.h>

struct steady_uv_io {
    uv_poll_t handle;
    int wanted; /* events of libuv */
    void (*ready)(void *arg, int events);
    void *arg;
};

/* A delay of 0 uses an idle handle. Before libuv 1.46 a timer with delay 0 that is started in the callback of a timer
 * fires in the same turn of the loop. If each callback starts it again, that turn never ends. */
struct steady_uv_timer {
    uv_timer_t handle;
    uv_idle_t now;
    int n_open; /* of these two handles */
    void (*fired)(void *arg);
    void *arg;
};

/* A pointer to any of its handles is for libuv a pointer to a uv_handle_t. */
static inline void steady_uv_close(void *handle, uv_close_cb closed) {
    uv_close(STEADY_CAST(uv_handle_t *, handle), closed);
}

static inline void steady_uv_freed(uv_handle_t *handle) { free(handle->data); }

static inline void steady_uv_ready(uv_poll_t *handle, int status, int events);

static inline int steady_uv_io_watch(struct steady_uv_io *io) {
    if (io->wanted == 0) return uv_poll_stop(&io->handle) == 0 ? 0 : -1;
    return uv_poll_start(&io->handle, io->wanted, steady_uv_ready) == 0 ? 0 : -1;
}

/* libuv stops a handle that has an error. A reply may wait before that error, so watch it again. */
static inline void steady_uv_ready(uv_poll_t *handle, int status, int events) {
    struct steady_uv_io *io = STEADY_CAST(struct steady_uv_io *, handle->data);
    int seen =
        ((events & UV_READABLE) != 0 ? STEADY_READABLE : 0) | ((events & UV_WRITABLE) != 0 ? STEADY_WRITABLE : 0);
    if (status < 0) steady_uv_io_watch(io); /* first: `ready` may free io */
    io->ready(io->arg, status < 0 ? STEADY_READABLE | STEADY_WRITABLE : seen);
}

static inline void *steady_uv_io_new(void *loop, int fd, void (*ready)(void *arg, int events), void *arg) {
    struct steady_uv_io *io = STEADY_CAST(struct steady_uv_io *, malloc(sizeof *io));
    if (io == STEADY_NULL) return STEADY_NULL;
    if (uv_poll_init(STEADY_CAST(uv_loop_t *, loop), &io->handle, fd) != 0) {
        free(io);
        return STEADY_NULL;
    }
    io->handle.data = io;
    io->wanted = 0;
    io->ready = ready;
    io->arg = arg;
    return io;
}

static inline int steady_uv_io_want(void *handle, int events) {
    struct steady_uv_io *io = STEADY_CAST(struct steady_uv_io *, handle);
    io->wanted =
        ((events & STEADY_READABLE) != 0 ? UV_READABLE : 0) | ((events & STEADY_WRITABLE) != 0 ? UV_WRITABLE : 0);
    return steady_uv_io_watch(io);
}

static inline void steady_uv_io_free(void *handle) {
    steady_uv_close(&STEADY_CAST(struct steady_uv_io *, handle)->handle, steady_uv_freed);
}

static inline void *steady_uv_timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    struct steady_uv_timer *timer = STEADY_CAST(struct steady_uv_timer *, malloc(sizeof *timer));
    if (timer == STEADY_NULL) return STEADY_NULL;
    uv_timer_init(STEADY_CAST(uv_loop_t *, loop), &timer->handle);
    uv_idle_init(STEADY_CAST(uv_loop_t *, loop), &timer->now);
    timer->handle.data = timer->now.data = timer;
    timer->n_open = 2;
    timer->fired = fired;
    timer->arg = arg;
    return timer;
}

static inline void steady_uv_timer_stop(void *handle) {
    struct steady_uv_timer *timer = STEADY_CAST(struct steady_uv_timer *, handle);
    uv_timer_stop(&timer->handle);
    uv_idle_stop(&timer->now);
}

static inline void steady_uv_fired(uv_timer_t *handle) {
    struct steady_uv_timer *timer = STEADY_CAST(struct steady_uv_timer *, handle->data);
    timer->fired(timer->arg);
}

static inline void steady_uv_fired_now(uv_idle_t *handle) {
    struct steady_uv_timer *timer = STEADY_CAST(struct steady_uv_timer *, handle->data);
    uv_idle_stop(handle);
    timer->fired(timer->arg);
}

/* libuv counts milliseconds from the start of the loop's turn. So a timer may fire early; Steady reads a clock. */
static inline int steady_uv_timer_start(void *handle, steady_us delay) {
    struct steady_uv_timer *timer = STEADY_CAST(struct steady_uv_timer *, handle);
    steady_uv_timer_stop(timer);
    if (delay <= 0) return uv_idle_start(&timer->now, steady_uv_fired_now) == 0 ? 0 : -1;
    return uv_timer_start(&timer->handle, steady_uv_fired, STEADY_CAST(uint64_t, (delay + 999) / 1000), 0) == 0 ? 0
                                                                                                                : -1;
}

static inline void steady_uv_timer_closed(uv_handle_t *handle) {
    struct steady_uv_timer *timer = STEADY_CAST(struct steady_uv_timer *, handle->data);
    if (--timer->n_open == 0) free(timer);
}

static inline void steady_uv_timer_free(void *handle) {
    struct steady_uv_timer *timer = STEADY_CAST(struct steady_uv_timer *, handle);
    steady_uv_close(&timer->handle, steady_uv_timer_closed);
    steady_uv_close(&timer->now, steady_uv_timer_closed);
}

static inline steady_loop steady_uv_loop(uv_loop_t *loop) {
    static const steady_loop_ops ops = {"libuv",
                                        steady_uv_io_new,
                                        steady_uv_io_want,
                                        steady_uv_io_free,
                                        steady_uv_timer_new,
                                        steady_uv_timer_start,
                                        steady_uv_timer_stop,
                                        steady_uv_timer_free,
                                        STEADY_NULL,
                                        {STEADY_NULL, STEADY_NULL, STEADY_NULL, STEADY_NULL}};
    steady_loop result;
    result.ops = &ops;
    result.reserved[0] = result.reserved[1] = STEADY_NULL;
    result.loop = loop;
    return result;
}

#endif
