/* SPDX-License-Identifier: MIT
 * The built-in loop: timers, descriptors, and what a callback may do to both. */
#include "support.h"

#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS STEADY_MILLISECOND

struct bench {
    steady_poller *poller;
    steady_loop loop;
    int pair[2];
};

static int set_up(void **state) {
    static struct bench bench;
    assert_int_equal(steady_poller_new(&bench.poller), 0);
    bench.loop = steady_poller_loop(bench.poller);
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, bench.pair), errno);
    *state = &bench;
    return 0;
}

static int tear_down(void **state) {
    struct bench *bench = *state;
    steady_poller_free(&bench->poller);
    close(bench->pair[0]);
    close(bench->pair[1]);
    return 0;
}

/* What a callback was called with, and what it is to do. */
struct spy {
    struct bench *bench;
    int calls, events;
    steady_us at;
    int *order;
    int rank;
    void *frees_timer, *frees_io, *starts;
    bool runs_again, frees_poller;
};

static void act(struct spy *spy) {
    const steady_loop_ops *ops = spy->bench->loop.ops;
    spy->calls++;
    spy->at = now_us();
    if (spy->order != NULL) spy->rank = ++*spy->order;
    if (spy->frees_timer != NULL) ops->timer_free(spy->frees_timer);
    if (spy->frees_io != NULL) ops->io_free(spy->frees_io);
    spy->frees_timer = spy->frees_io = NULL;
    if (spy->starts != NULL) ops->timer_start(spy->starts, 0);
    if (spy->runs_again) steady_poller_run(spy->bench->poller, 0);
    if (spy->frees_poller) steady_poller_free(&spy->bench->poller);
}

static void fired(void *arg) { act(arg); }

static void ready(void *arg, int events) {
    ((struct spy *)arg)->events = events;
    act(arg);
}

static void test_bad_arguments(void **state) {
    steady_poller *none = NULL;
    (void)state;
    assert_int_equal(steady_poller_new(NULL), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_poller_run(NULL, 0), STEADY_BAD_ARGUMENT);
    steady_poller_free(NULL);
    steady_poller_free(&none);
}

static void test_nothing_happens(void **state) {
    struct bench *bench = *state;
    steady_us begin = now_us();
    assert_int_equal(steady_poller_run(bench->poller, 0), 0);
    assert_true(now_us() - begin < 20 * MS);
    begin = now_us();
    assert_int_equal(steady_poller_run(bench->poller, 20 * MS), 0);
    assert_true(now_us() - begin >= 20 * MS);
}

static void test_timer_is_never_early(void **state) {
    struct bench *bench = *state;
    static const steady_us delays[] = {0, 1, 999, 1000, 1001, 7777, 20000};
    struct spy spy = {.bench = bench};
    void *timer = bench->loop.ops->timer_new(bench->loop.loop, fired, &spy);
    for (size_t i = 0; i < COUNT(delays); i++) {
        const steady_us begin = now_us();
        assert_int_equal(bench->loop.ops->timer_start(timer, delays[i]), 0);
        assert_int_equal(steady_poller_run(bench->poller, -1), 1);
        assert_true(spy.at - begin >= delays[i]);
        assert_true(spy.at - begin < delays[i] + 50 * MS);
    }
    assert_int_equal(spy.calls, COUNT(delays));
    assert_int_equal(steady_poller_run(bench->poller, 2 * MS), 0); /* once */
}

static void test_timers_in_order(void **state) {
    struct bench *bench = *state;
    static const steady_us delays[] = {3000, 1000, 2000, 1000, 0};
    static const int ranks[] = {5, 2, 4, 3, 1};
    struct spy spies[COUNT(delays)];
    int order = 0, ran = 0;
    for (size_t i = 0; i < COUNT(delays); i++) {
        spies[i] = (struct spy){.bench = bench, .order = &order};
        void *timer = bench->loop.ops->timer_new(bench->loop.loop, fired, &spies[i]);
        bench->loop.ops->timer_start(timer, delays[i]);
    }
    sleep_us(5 * MS);
    while (ran < (int)COUNT(delays))
        ran += steady_poller_run(bench->poller, -1);
    for (size_t i = 0; i < COUNT(delays); i++)
        assert_int_equal(spies[i].rank, ranks[i]);
}

static void test_timer_for_ever(void **state) {
    struct bench *bench = *state;
    struct spy spy = {.bench = bench};
    void *timer = bench->loop.ops->timer_new(bench->poller, fired, &spy);
    assert_int_equal(bench->loop.ops->timer_start(timer, INT64_MAX), 0);
    assert_int_equal(steady_poller_run(bench->poller, 2 * MS), 0);
    assert_int_equal(spy.calls, 0);
    bench->loop.ops->timer_free(timer);
}

static void test_timer_started_anew_and_stopped(void **state) {
    struct bench *bench = *state;
    const steady_loop_ops *ops = bench->loop.ops;
    struct spy spy = {.bench = bench};
    void *timer = ops->timer_new(bench->loop.loop, fired, &spy);
    const steady_us begin = now_us();
    ops->timer_start(timer, HOUR);
    ops->timer_start(timer, 10 * MS);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_true(spy.at - begin >= 10 * MS && spy.at - begin < STEADY_SECOND);
    ops->timer_start(timer, 0);
    ops->timer_stop(timer);
    ops->timer_stop(timer);
    assert_int_equal(steady_poller_run(bench->poller, 2 * MS), 0);
}

static void test_descriptor(void **state) {
    struct bench *bench = *state;
    const steady_loop_ops *ops = bench->loop.ops;
    struct spy spy = {.bench = bench};
    void *io = ops->io_new(bench->loop.loop, bench->pair[0], ready, &spy);
    assert_int_equal(write(bench->pair[1], "x", 1), 1);
    assert_int_equal(steady_poller_run(bench->poller, MS), 0); /* nothing wanted yet */
    ops->io_want(io, STEADY_READABLE);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(spy.events, STEADY_READABLE);
    ops->io_want(io, STEADY_READABLE | STEADY_WRITABLE);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(spy.events, STEADY_READABLE | STEADY_WRITABLE);
    ops->io_want(io, STEADY_WRITABLE);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(spy.events, STEADY_WRITABLE);
    close(bench->pair[1]);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    ops->io_want(io, STEADY_READABLE); /* a hang-up: whatever is wanted */
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(spy.events & STEADY_READABLE, STEADY_READABLE);
    ops->io_free(io);
    assert_int_equal(steady_poller_run(bench->poller, 0), 0);
    bench->pair[1] = dup(bench->pair[0]);
}

static void test_many_descriptors(void **state) {
    struct bench *bench = *state;
    struct spy spies[50];
    void *ios[50];
    for (int i = 0; i < 50; i++) {
        spies[i] = (struct spy){.bench = bench};
        ios[i] = bench->loop.ops->io_new(bench->loop.loop, bench->pair[0], ready, &spies[i]);
        bench->loop.ops->io_want(ios[i], i % 2 == 0 ? STEADY_WRITABLE : STEADY_READABLE);
    }
    assert_int_equal(steady_poller_run(bench->poller, -1), 25);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(spies[i].calls, i % 2 == 0);
        bench->loop.ops->io_free(ios[i]);
    }
}

/* Two descriptors are ready in one turn, and the first one's callback frees both. */
static void test_free_inside_callbacks(void **state) {
    struct bench *bench = *state;
    const steady_loop_ops *ops = bench->loop.ops;
    struct spy first = {.bench = bench}, second = {.bench = bench}, timed = {.bench = bench};
    void *a = ops->io_new(bench->loop.loop, bench->pair[0], ready, &first);
    void *b = ops->io_new(bench->loop.loop, bench->pair[1], ready, &second);
    void *timer = ops->timer_new(bench->loop.loop, fired, &timed);
    ops->io_want(a, STEADY_WRITABLE);
    ops->io_want(b, STEADY_WRITABLE);
    ops->timer_start(timer, 0);
    sleep_us(MS);
    ops->io_free(a);
    a = ops->io_new(bench->loop.loop, bench->pair[0], ready, &first);
    ops->io_want(a, STEADY_WRITABLE);
    second.frees_io = a; /* b is before a now */
    second.frees_timer = timer;
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(second.calls, 1);
    assert_int_equal(first.calls, 0);
    assert_int_equal(timed.calls, 0);
    second.frees_io = b; /* itself */
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    timer = ops->timer_new(bench->loop.loop, fired, &timed);
    timed.frees_timer = timer; /* itself */
    ops->timer_start(timer, 0);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(steady_poller_run(bench->poller, MS), 0);
}

static void test_timer_that_starts_itself_does_not_spin(void **state) {
    struct bench *bench = *state;
    struct spy spy = {.bench = bench};
    spy.starts = bench->loop.ops->timer_new(bench->loop.loop, fired, &spy);
    bench->loop.ops->timer_start(spy.starts, 0);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(spy.calls, 2);
}

static void test_run_inside_a_callback(void **state) {
    struct bench *bench = *state;
    struct spy outer = {.bench = bench, .runs_again = true}, inner = {.bench = bench};
    void *a = bench->loop.ops->timer_new(bench->loop.loop, fired, &outer);
    void *b = bench->loop.ops->timer_new(bench->loop.loop, fired, &inner);
    inner.frees_timer = b;
    bench->loop.ops->timer_start(a, 0);
    bench->loop.ops->timer_start(b, 0);
    sleep_us(MS);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(outer.calls, 1);
    assert_int_equal(inner.calls, 1);
}

static void test_free_the_poller_inside_a_callback(void **state) {
    struct bench *bench = *state;
    struct spy spy = {.bench = bench, .frees_poller = true}, never = {.bench = bench};
    void *timer = bench->loop.ops->timer_new(bench->loop.loop, fired, &spy);
    void *io = bench->loop.ops->io_new(bench->loop.loop, bench->pair[0], ready, &never);
    bench->loop.ops->io_want(io, STEADY_READABLE);
    bench->loop.ops->timer_start(timer, 0);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_null(bench->poller);
    assert_int_equal(never.calls, 0);
}

static void nothing(int signal_number) { (void)signal_number; }

static void *pester(void *thread) {
    for (int i = 0; i < 20; i++) {
        sleep_us(MS);
        pthread_kill(*(pthread_t *)thread, SIGUSR1);
    }
    return NULL;
}

static void test_signals_do_not_cut_a_wait_short(void **state) {
    struct bench *bench = *state;
    const struct sigaction action = {.sa_handler = nothing}; /* no SA_RESTART */
    pthread_t self = pthread_self(), other;
    sigaction(SIGUSR1, &action, NULL);
    const steady_us begin = now_us();
    assert_int_equal(pthread_create(&other, NULL, pester, &self), 0);
    assert_int_equal(steady_poller_run(bench->poller, 40 * MS), 0);
    assert_true(now_us() - begin >= 40 * MS);
    pthread_join(other, NULL);
}

/* ---- What the library makes of loops ---- */

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

/* libuv and others count from when their turn began, which may be long ago. */
static void test_alarms_that_ring_too_early(void **state) {
    static const steady_loop clock = {.ops = &clockwork_ops};
    struct steady__alarm alarm;
    (void)state;
    memset(&clockwork, 0, sizeof clockwork);
    clockwork.now = -70; /* any age */
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

int main(void) {
#define IN_BENCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_alarms_that_ring_too_early),
        IN_BENCH(test_nothing_happens),
        IN_BENCH(test_timer_is_never_early),
        IN_BENCH(test_timers_in_order),
        IN_BENCH(test_timer_for_ever),
        IN_BENCH(test_timer_started_anew_and_stopped),
        IN_BENCH(test_descriptor),
        IN_BENCH(test_many_descriptors),
        IN_BENCH(test_free_inside_callbacks),
        IN_BENCH(test_timer_that_starts_itself_does_not_spin),
        IN_BENCH(test_run_inside_a_callback),
        IN_BENCH(test_free_the_poller_inside_a_callback),
        IN_BENCH(test_signals_do_not_cut_a_wait_short),
    };
    return cmocka_run_group_tests_name("poller", tests, NULL, NULL);
}
