/* SPDX-License-Identifier: MIT
 * Alarms and watches, on a loop of the caller that is early, or refuses a change. */
#include "support.h"

#include "loop/loop.h"

/* ---- Alarms ---- */

static struct {
    steady_us now, delay;
    int starts;
} clockwork;

static steady_us clockwork_now(void *unused) {
    (void)unused;
    return clockwork.now;
}

static void *clockwork_timer_new(void *unused, void (*ring)(void *arg), void *arg) {
    (void)unused;
    (void)ring;
    (void)arg;
    return &clockwork;
}

static int clockwork_timer_start(void *unused, steady_us delay) {
    (void)unused;
    clockwork.delay = delay;
    clockwork.starts++;
    return 0;
}

static const steady_loop_ops clockwork_ops = {
    .name = "clockwork", .now = clockwork_now, .timer_new = clockwork_timer_new, .timer_start = clockwork_timer_start};

/* libuv and other loops count a delay from the beginning of their turn, which may be long ago. */
static void early_alarm_is_set_again(void **state) {
    static const steady_loop clock = {.ops = &clockwork_ops};
    struct steady__alarm alarm;
    (void)state;
    memset(&clockwork, 0, sizeof clockwork);
    clockwork.now = -70; /* a clock may start anywhere */
    assert_int_equal(steady__alarm_new(&alarm, &clock, NULL, NULL), 0);
    steady__alarm_set(&alarm, 100);
    assert_int_equal(clockwork.delay, 100);
    clockwork.now += 40;
    assert_false(steady__alarm_rang(&alarm));
    assert_true(alarm.set);
    assert_int_equal(clockwork.delay, 60);
    clockwork.now += 60;
    assert_true(steady__alarm_rang(&alarm));
    assert_false(alarm.set);
    steady__alarm_set(&alarm, 0);
    assert_int_equal(clockwork.delay, 0);
    assert_true(steady__alarm_rang(&alarm));
    assert_int_equal(clockwork.starts, 3);
}

/* ---- Watches ---- */

static struct {
    int wanted, calls, frees;
    bool refuses;
} descriptor;

static void *descriptor_new(void *unused, int fd, void (*ready)(void *arg, int events), void *arg) {
    (void)unused;
    (void)fd;
    (void)ready;
    (void)arg;
    return &descriptor;
}

static int descriptor_want(void *unused, int events) {
    (void)unused;
    descriptor.calls++;
    if (descriptor.refuses) return -1;
    descriptor.wanted = events;
    return 0;
}

static void descriptor_free(void *unused) {
    (void)unused;
    descriptor.frees++;
}

static const steady_loop_ops descriptor_ops = {
    .name = "descriptor", .io_new = descriptor_new, .io_want = descriptor_want, .io_free = descriptor_free};
static const steady_loop descriptor_loop = {.ops = &descriptor_ops};

static int start_watch(struct steady__watch *watch, bool refuses) {
    memset(&descriptor, 0, sizeof descriptor);
    descriptor.refuses = refuses;
    return steady__watch_start(watch, &descriptor_loop, 7, STEADY_READABLE, NULL, NULL);
}

static void watch_tells_the_loop_only_changes(void **state) {
    struct steady__watch watch;
    (void)state;
    assert_int_equal(start_watch(&watch, false), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(steady__watch_want(&watch, STEADY_READABLE), 0);
    assert_int_equal(descriptor.calls, 1);
    assert_int_equal(steady__watch_want(&watch, STEADY_READABLE | STEADY_WRITABLE), 0);
    assert_int_equal(descriptor.calls, 2);
    steady__watch_stop(&watch);
    steady__watch_stop(&watch);
    assert_int_equal(descriptor.frees, 1);
    assert_int_equal(steady__watch_want(&watch, STEADY_WRITABLE), 0);
    assert_int_equal(descriptor.calls, 2);
}

/* The adapter has dropped the old events, and has not got the new ones: both must be told again. */
static void refused_change_of_a_watch_is_told_again(void **state) {
    static const int again[] = {STEADY_READABLE, STEADY_WRITABLE};
    (void)state;
    for (size_t i = 0; i < COUNT(again); i++) {
        struct steady__watch watch;
        assert_int_equal(start_watch(&watch, false), 0);
        descriptor.refuses = true;
        assert_int_equal(steady__watch_want(&watch, STEADY_WRITABLE), -1);
        descriptor.refuses = false;
        assert_int_equal(steady__watch_want(&watch, again[i]), 0);
        assert_int_equal(descriptor.calls, 3);
        assert_int_equal(descriptor.wanted, again[i]);
        steady__watch_stop(&watch);
    }
}

static void watch_that_cannot_start_is_freed(void **state) {
    struct steady__watch watch;
    (void)state;
    assert_int_equal(start_watch(&watch, true), -1);
    assert_null(watch.io);
    assert_int_equal(descriptor.frees, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(early_alarm_is_set_again),
        cmocka_unit_test(watch_tells_the_loop_only_changes),
        cmocka_unit_test(refused_change_of_a_watch_is_told_again),
        cmocka_unit_test(watch_that_cannot_start_is_freed),
    };
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
