/* SPDX-License-Identifier: MIT
 * An event loop that waits for nothing: descriptors of the simulated network, timers of the simulated time. It is late,
 * it stands still, and it calls what is ready at the same time in any order. */
#ifndef SIM_LOOP_H
#define SIM_LOOP_H

#include "world.h"

struct sim_io;
struct sim_timer;

struct sim_loop {
    steady_loop api;
    steady_us local; /* its own time, ahead of the world's while something blocks it */
    steady_us wake_at;
    steady_us late;    /* its timers are late by up to this, while there are faults */
    steady_us stalled; /* how long it has been blocked, in all */
    struct sim_io *ios;
    struct sim_timer *timers;
    int64_t io_count, timer_count;
    int64_t io_fails_one_in; /* 0: never */
};

void sim_loop_init(struct sim_loop *loop, steady_us late);
steady_us sim_loop_now(const struct sim_loop *loop);

/* There may be something to do at that time. */
void sim_loop_wake(struct sim_loop *loop, steady_us when);

/* Something keeps it from running: a callback that takes long, a busy machine. Not beyond the time of the faults. */
void sim_loop_block(struct sim_loop *loop, steady_us time);

#endif
