/* SPDX-License-Identifier: MIT
 * The built-in loop, libuv and libevent, as stages. */
#include "stages.h"

#include <event2/event.h>
#include <hiredis/adapters/libevent.h>
#include <hiredis/adapters/libuv.h>
#include <stdlib.h>
#include <steady/event.h>
#include <steady/uv.h>
#include <uv.h>

#include "support.h"

static steady_loop make_poller(void) {
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    return steady_poller_loop(poller);
}

static void turn_poller(void *loop) { assert_true(steady_poller_run(loop, STEADY_SECOND) >= 0); }

static bool leave_poller(void *loop) {
    steady_poller *poller = loop;
    const bool idle = steady_poller_run(poller, 5 * STEADY_MILLISECOND) == 0;
    steady_poller_free(&poller);
    return idle;
}

static void go_on_poller(void *loop, steady_us time) {
    const steady_us until = now_us() + time;
    for (steady_us now = now_us(); now < until; now = now_us())
        assert_true(steady_poller_run(loop, until - now) >= 0);
}

static steady_loop make_uv(void) {
    uv_loop_t *loop = malloc(sizeof *loop);
    assert_non_null(loop);
    assert_int_equal(uv_loop_init(loop), 0);
    return steady_uv_loop(loop);
}

/* UV_RUN_ONCE waits for a descriptor even in a turn in which timers have run. */
static void turn_uv(void *loop) {
    uv_run(loop, UV_RUN_NOWAIT);
    sleep_us(100);
}

static bool leave_uv(void *loop) {
    uv_run(loop, UV_RUN_NOWAIT); /* one turn, as documented in steady/uv.h */
    const bool empty = uv_loop_close(loop) == 0;
    free(loop);
    return empty;
}

static void stop_uv(uv_timer_t *timer) { uv_stop(timer->loop); }

static void go_on_uv(void *loop, steady_us time) {
    uv_timer_t timer;
    assert_int_equal(uv_loop_fork(loop), 0);
    assert_int_equal(uv_timer_init(loop, &timer), 0);
    assert_int_equal(uv_timer_start(&timer, stop_uv, (uint64_t)(time / STEADY_MILLISECOND), 0), 0);
    uv_run(loop, UV_RUN_DEFAULT);
}

static steady_loop make_event(void) { return steady_event_loop(event_base_new()); }

static void turn_event(void *loop) { event_base_loop(loop, EVLOOP_ONCE); }

static bool leave_event(void *loop) {
    const bool empty = event_base_get_num_events(loop, EVENT_BASE_COUNT_ADDED) == 0;
    event_base_free(loop);
    return empty;
}

static void go_on_event(void *loop, steady_us time) {
    const struct timeval t = {(time_t)(time / STEADY_SECOND), (suseconds_t)(time % STEADY_SECOND)};
    assert_int_equal(event_reinit(loop), 0);
    assert_int_equal(event_base_loopexit(loop, &t), 0);
    event_base_loop(loop, EVLOOP_NO_EXIT_ON_EMPTY);
}

static int attach_uv(struct redisAsyncContext *context, void *loop) { return redisLibuvAttach(context, loop); }

static int attach_event(struct redisAsyncContext *context, void *loop) { return redisLibeventAttach(context, loop); }

/* An adapter for the built-in loop. Adapters may lack delRead, and this one does. */
struct adapter {
    redisAsyncContext *context;
    const steady_loop_ops *ops;
    void *io;
    int wanted;
    int fd;
};

static void adapter_ready(void *arg, int events) {
    struct adapter *adapter = arg;
    redisAsyncContext *context = adapter->context;
    const bool writable = (events & STEADY_WRITABLE) != 0 && (adapter->wanted & STEADY_WRITABLE) != 0;
    if (writable)
        redisAsyncHandleWrite(context); /* may free the context without telling us */
    else
        redisAsyncHandleRead(context);
}

static void adapter_want(struct adapter *adapter, int wanted) {
    adapter->wanted = wanted;
    adapter->ops->io_want(adapter->io, wanted);
}

static void adapter_add_read(void *arg) {
    struct adapter *adapter = arg;
    adapter_want(adapter, adapter->wanted | STEADY_READABLE);
}

static void adapter_add_write(void *arg) {
    struct adapter *adapter = arg;
    adapter_want(adapter, adapter->wanted | STEADY_WRITABLE);
}

static void adapter_del_write(void *arg) {
    struct adapter *adapter = arg;
    adapter_want(adapter, adapter->wanted & ~STEADY_WRITABLE);
}

static void adapter_cleanup(void *arg) {
    struct adapter *adapter = arg;
    adapter->ops->io_free(adapter->io);
    adapter->context->ev.cleanup = NULL;
    free(adapter);
}

static int attach_poller(struct redisAsyncContext *context, void *poller) {
    const steady_loop loop = steady_poller_loop(poller);
    struct adapter *adapter = calloc(1, sizeof *adapter);
    assert_non_null(adapter);
    adapter->context = context;
    adapter->ops = loop.ops;
    adapter->io = loop.ops->io_new(poller, context->c.fd, adapter_ready, adapter);
    assert_non_null(adapter->io);
    context->ev.data = adapter;
    context->ev.addRead = adapter_add_read;
    context->ev.addWrite = adapter_add_write;
    context->ev.delWrite = adapter_del_write;
    context->ev.cleanup = adapter_cleanup;
    return REDIS_OK;
}

const struct stage *const stages[STAGES] = {
    &(const struct stage){"poll", make_poller, turn_poller, leave_poller, attach_poller, go_on_poller},
    &(const struct stage){"libuv", make_uv, turn_uv, leave_uv, attach_uv, go_on_uv},
    &(const struct stage){"libevent", make_event, turn_event, leave_event, attach_event, go_on_event},
    &stage_ev,
};
