/* SPDX-License-Identifier: MIT
 * libev, as a stage. */
#include <ev.h>
#include <hiredis/adapters/libev.h>
#include <steady/ev.h>

#include "stages.h"

static steady_loop make_ev(void) { return steady_ev_loop(ev_loop_new(EVFLAG_AUTO)); }

static void turn_ev(void *loop) { ev_run(loop, EVRUN_ONCE); }

static bool leave_ev(void *loop) {
    const bool empty = !ev_run(loop, EVRUN_NOWAIT); /* whether watchers are active */
    ev_loop_destroy(loop);
    return empty;
}

static int attach_ev(struct redisAsyncContext *context, void *loop) { return redisLibevAttach(loop, context); }

const struct stage stage_ev = {"libev", make_ev, turn_ev, leave_ev, attach_ev};
