/* SPDX-License-Identifier: MIT
 * An event loop without real waiting: descriptors of the simulated network, timers of the simulated time. It may be
 * late or blocked, and calls handlers that are due at the same time in any order. */
#ifndef SIM_LOOP_H
#define SIM_LOOP_H

#include "world.h"

struct sim_io;
struct sim_timer;

struct sim_loop {
    steady_loop api;
    steady_us local; /* the loop's time, ahead of the world's time while the loop is blocked */
    steady_us wake_at;
    steady_us late;    /* its timers are late by at most this during the faults */
    steady_us stalled; /* the sum of all times for which it was blocked */
    struct sim_io *ios;
    struct sim_timer *timers;
    int64_t io_count, timer_count;
    int64_t io_fails_one_in; /* 0: no failure */
};

void sim_loop_init(struct sim_loop *loop, steady_us late);
steady_us sim_loop_now(const struct sim_loop *loop);
steady_us sim_loop_running_now(void); /* of the loop whose turn it is */

/* Makes the loop run a turn at that time. */
void sim_loop_wake(struct sim_loop *loop, steady_us when);

/* Blocks the loop, like a slow callback or a busy machine, at most until the end of the faults. */
void sim_loop_block(struct sim_loop *loop, steady_us time);

#endif
