/* SPDX-License-Identifier: MIT
 * libev, as a stage. */
#include <ev.h>
#include <hiredis/adapters/libev.h>
#include <steady/ev.h>

#include "stages.h"

static steady_loop make_ev(void) { return steady_ev_loop(ev_loop_new(EVFLAG_AUTO)); }

static void turn_ev(void *loop) { ev_run(loop, EVRUN_ONCE); }

static bool leave_ev(void *loop) {
    const bool empty = !ev_run(loop, EVRUN_NOWAIT); /* true: watchers are active */
    ev_loop_destroy(loop);
    return empty;
}

static void stop_ev(struct ev_loop *loop, ev_timer *timer, int events) {
    (void)timer;
    (void)events;
    ev_break(loop, EVBREAK_ALL);
}

static void go_on_ev(void *loop, steady_us time) {
    ev_timer timer;
    ev_loop_fork(loop);
    ev_now_update(loop);
    ev_init(&timer, stop_ev);
    ev_timer_set(&timer, (ev_tstamp)time / 1e6, 0.);
    ev_timer_start(loop, &timer);
    ev_run(loop, 0);
}

static int attach_ev(struct redisAsyncContext *context, void *loop) { return redisLibevAttach(loop, context); }

const struct stage stage_ev = {"libev", make_ev, turn_ev, leave_ev, attach_ev, go_on_ev};
