/* SPDX-License-Identifier: MIT
 * Timers on a loop that cannot start them for a while. */
#include "support.h"

#include "loop/retry.h"

#define TIMERS 4

/* A loop whose clock and timers the test moves. */
static struct fake_timer {
    void (*fired)(void *arg);
    void *arg;
    bool running;
    steady_us delay;
    int stops;
} timers[TIMERS];
static int made, starts;
static bool refuses;
static steady_us clock_now;

static steady_us fake_now(void *unused) {
    (void)unused;
    return clock_now;
}

static void *fake_timer_new(void *unused, void (*fired)(void *arg), void *arg) {
    (void)unused;
    assert_true(made < TIMERS);
    timers[made] = (struct fake_timer){.fired = fired, .arg = arg};
    return &timers[made++];
}

static int fake_timer_start(void *timer, steady_us delay) {
    struct fake_timer *t = timer;
    starts++;
    if (refuses) return -1;
    t->running = true;
    t->delay = delay;
    return 0;
}

static void fake_timer_stop(void *timer) {
    ((struct fake_timer *)timer)->running = false;
    ((struct fake_timer *)timer)->stops++;
}

static void fake_timer_free(void *timer) { ((struct fake_timer *)timer)->running = false; }

static const steady_loop_ops fake_ops = {.name = "fake",
                                         .now = fake_now,
                                         .timer_new = fake_timer_new,
                                         .timer_start = fake_timer_start,
                                         .timer_stop = fake_timer_stop,
                                         .timer_free = fake_timer_free};

static struct steady__fork_guard guard;
static struct steady__retry retry;
static steady_loop loop;
static void *timer[TIMERS];
static int rung[TIMERS];

static void ring(void *arg) { ++*(int *)arg; }

static int set_up(void **state) {
    (void)state;
    made = starts = 0;
    refuses = false;
    clock_now = 1000;
    memset(rung, 0, sizeof rung);
    steady__fork_guard_set(&guard, false);
    loop = steady__retry_loop(&retry, &(steady_loop){.ops = &fake_ops}, &guard);
    for (int i = 0; i < 3; i++) {
        timer[i] = loop.ops->timer_new(loop.loop, ring, &rung[i]);
        assert_non_null(timer[i]);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        loop.ops->timer_free(timer[i]);
    steady__fork_guard_clear(&guard);
    return 0;
}

static void start_in_vain(int i, steady_us delay) {
    refuses = true;
    assert_int_equal(loop.ops->timer_start(timer[i], delay), 0);
    assert_false(timers[i].running);
    refuses = false;
}

static void failed_timer_is_started_later_for_the_time_that_is_left(void **state) {
    (void)state;
    start_in_vain(0, 500);
    start_in_vain(1, 100);
    clock_now += 200;
    assert_true(steady__retry_runs(&retry));
    assert_true(timers[0].running && timers[1].running);
    assert_int_equal(timers[0].delay, 300);
    assert_int_equal(timers[1].delay, 0); /* already due */
    assert_true(steady__list_empty(&retry.failed));
}

static void failed_timer_stays_failed_while_the_loop_refuses(void **state) {
    (void)state;
    start_in_vain(0, 500);
    refuses = true;
    for (int i = 0; i < 3; i++)
        assert_false(steady__retry_runs(&retry));
    assert_int_equal(starts, 4);
    refuses = false;
    assert_true(steady__retry_runs(&retry));
    assert_true(timers[0].running);
}

static void timer_that_fires_starts_the_failed_ones(void **state) {
    (void)state;
    assert_int_equal(loop.ops->timer_start(timer[2], 10), 0);
    start_in_vain(0, 500);
    timers[2].fired(timers[2].arg);
    assert_int_equal(rung[2], 1);
    assert_true(timers[0].running);
}

static void stopped_or_freed_timer_is_not_started_again(void **state) {
    (void)state;
    start_in_vain(0, 500);
    start_in_vain(1, 500);
    loop.ops->timer_stop(timer[0]);
    loop.ops->timer_free(timer[1]);
    starts = 0;
    assert_true(steady__retry_runs(&retry));
    assert_int_equal(starts, 0);
    timer[1] = loop.ops->timer_new(loop.loop, ring, &rung[1]);
}

/* Otherwise it would fire at its old time. */
static void running_timer_that_cannot_be_restarted_is_stopped(void **state) {
    (void)state;
    assert_int_equal(loop.ops->timer_start(timer[0], 10), 0);
    start_in_vain(0, 500);
    assert_int_equal(timers[0].stops, 1);
    assert_true(steady__retry_runs(&retry));
    assert_int_equal(timers[0].delay, 500);
}

int main(void) {
#define WITH_TIMERS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_TIMERS(failed_timer_is_started_later_for_the_time_that_is_left),
        WITH_TIMERS(failed_timer_stays_failed_while_the_loop_refuses),
        WITH_TIMERS(timer_that_fires_starts_the_failed_ones),
        WITH_TIMERS(stopped_or_freed_timer_is_not_started_again),
        WITH_TIMERS(running_timer_that_cannot_be_restarted_is_stopped),
    };
    return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
