/* SPDX-License-Identifier: MIT
 * The built-in loop: timers, descriptors, wake, and what callbacks may do. */
#include "support.h"

#include "loop/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
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

/* Records the calls of a callback, and says what the callback does. */
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

static void null_is_refused(void **state) {
    steady_poller *none = NULL;
    (void)state;
    assert_int_equal(steady_poller_new(NULL), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_poller_run(NULL, 0), STEADY_BAD_ARGUMENT);
    steady_poller_free(NULL);
    steady_poller_free(&none);
}

static void run_without_events_waits_the_given_time(void **state) {
    struct bench *bench = *state;
    steady_us begin = now_us();
    assert_int_equal(steady_poller_run(bench->poller, 0), 0);
    assert_true(now_us() - begin < 20 * MS);
    begin = now_us();
    assert_int_equal(steady_poller_run(bench->poller, 20 * MS), 0);
    assert_true(now_us() - begin >= 20 * MS);
}

static void timer_is_never_early(void **state) {
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
    assert_int_equal(steady_poller_run(bench->poller, 2 * MS), 0); /* each runs once */
}

static void timers_run_in_the_order_of_their_times(void **state) {
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

static void timer_of_infinite_delay_never_runs(void **state) {
    struct bench *bench = *state;
    struct spy spy = {.bench = bench};
    void *timer = bench->loop.ops->timer_new(bench->poller, fired, &spy);
    assert_int_equal(bench->loop.ops->timer_start(timer, INT64_MAX), 0);
    assert_int_equal(steady_poller_run(bench->poller, 2 * MS), 0);
    assert_int_equal(spy.calls, 0);
    bench->loop.ops->timer_free(timer);
}

static void timer_can_be_restarted_and_stopped(void **state) {
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

static void descriptor_reports_the_events_it_wants(void **state) {
    struct bench *bench = *state;
    const steady_loop_ops *ops = bench->loop.ops;
    struct spy spy = {.bench = bench};
    void *io = ops->io_new(bench->loop.loop, bench->pair[0], ready, &spy);
    assert_int_equal(write(bench->pair[1], "x", 1), 1);
    assert_int_equal(steady_poller_run(bench->poller, MS), 0); /* no event is wanted yet */
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
    ops->io_want(io, STEADY_READABLE); /* a hang-up is reported whatever is wanted */
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(spy.events & STEADY_READABLE, STEADY_READABLE);
    ops->io_free(io);
    assert_int_equal(steady_poller_run(bench->poller, 0), 0);
    bench->pair[1] = dup(bench->pair[0]);
}

static void only_ready_descriptors_run_their_callbacks(void **state) {
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

/* Two descriptors are ready in one turn. The callback of the first frees both. */
static void callback_may_free_itself_and_others(void **state) {
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
    second.frees_io = a; /* b comes before a now */
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

static void timer_that_restarts_itself_runs_once_a_turn(void **state) {
    struct bench *bench = *state;
    struct spy spy = {.bench = bench};
    spy.starts = bench->loop.ops->timer_new(bench->loop.loop, fired, &spy);
    bench->loop.ops->timer_start(spy.starts, 0);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(steady_poller_run(bench->poller, -1), 1);
    assert_int_equal(spy.calls, 2);
}

static void callback_may_run_the_loop(void **state) {
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

static void callback_may_free_the_poller(void **state) {
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

/* ---- Waking ---- */

static steady_poller *to_wake;

static void nothing(int signal_number) { (void)signal_number; }
static void wakes(int signal_number) {
    (void)signal_number;
    errno = EDOM;
    steady_poller_wake(to_wake);
    if (errno != EDOM) abort();
}

static void handle(void (*handler)(int)) {
    const struct sigaction action = {.sa_handler = handler}; /* without SA_RESTART */
    sigaction(SIGUSR1, &action, NULL);
}

static void *signals_later(void *thread) {
    sleep_us(20 * MS);
    pthread_kill(*(pthread_t *)thread, SIGUSR1);
    return NULL;
}

static void *wakes_later(void *poller) {
    sleep_us(20 * MS);
    steady_poller_wake(poller);
    return NULL;
}

/* The time of a wait that `later` ended, in which no callback ran. */
static steady_us ended_by(void *(*later)(void *), void *arg, steady_poller *poller, steady_us max_wait) {
    pthread_t other;
    const steady_us begin = now_us();
    assert_int_equal(pthread_create(&other, NULL, later, arg), 0);
    assert_int_equal(steady_poller_run(poller, max_wait), 0);
    const steady_us took = now_us() - begin;
    pthread_join(other, NULL);
    return took;
}

static void signal_ends_a_wait(void **state) {
    struct bench *bench = *state;
    pthread_t self = pthread_self();
    handle(nothing);
    assert_between(ended_by(signals_later, &self, bench->poller, -1), 20 * MS, STEADY_SECOND);
    assert_between(ended_by(signals_later, &self, bench->poller, HOUR), 20 * MS, STEADY_SECOND);
}

static void another_thread_ends_a_wait(void **state) {
    struct bench *bench = *state;
    assert_between(ended_by(wakes_later, bench->poller, bench->poller, -1), 20 * MS, STEADY_SECOND);
    assert_between(ended_by(wakes_later, bench->poller, bench->poller, HOUR), 20 * MS, STEADY_SECOND);
}

static void signal_handler_ends_the_next_wait(void **state) {
    struct bench *bench = *state;
    to_wake = bench->poller;
    handle(wakes);
    for (int i = 0; i < 3; i++)
        raise(SIGUSR1);
    assert_int_equal(steady_poller_run(bench->poller, -1), 0);
    const steady_us begin = now_us();
    assert_int_equal(steady_poller_run(bench->poller, 20 * MS), 0); /* several wakes count as one */
    assert_true(now_us() - begin >= 20 * MS);
}

/* A wake does not delay callbacks that are due. */
static void woken_poller_runs_the_callbacks_that_are_due(void **state) {
    struct bench *bench = *state;
    struct spy spy = {.bench = bench}, timed = {.bench = bench};
    void *io = bench->loop.ops->io_new(bench->loop.loop, bench->pair[0], ready, &spy);
    void *timer = bench->loop.ops->timer_new(bench->loop.loop, fired, &timed);
    bench->loop.ops->io_want(io, STEADY_WRITABLE);
    bench->loop.ops->timer_start(timer, 0);
    sleep_us(MS);
    steady_poller_wake(bench->poller);
    assert_int_equal(steady_poller_run(bench->poller, -1), 2);
    bench->loop.ops->io_free(io);
    bench->loop.ops->timer_free(timer);
}

static void wake_works_with_any_number_of_descriptors(void **state) {
    struct bench *bench = *state;
    struct spy spy = {.bench = bench};
    void *ios[33];
    for (int i = 0; i < 33; i++) {
        ios[i] = bench->loop.ops->io_new(bench->loop.loop, bench->pair[0], ready, &spy);
        bench->loop.ops->io_want(ios[i], STEADY_READABLE);
        steady_poller_wake(bench->poller);
        assert_int_equal(steady_poller_run(bench->poller, -1), 0);
    }
    for (int i = 0; i < 33; i++)
        bench->loop.ops->io_free(ios[i]);
}

static void poller_without_a_wake_descriptor_ignores_wake(void **state) {
    steady_poller *deaf = NULL;
    (void)state;
    steady_poller_wake(NULL);
    assert_int_equal(steady__poller_new_deaf(&deaf), 0);
    steady_poller_wake(deaf);
    assert_int_equal(steady_poller_run(deaf, MS), 0);
    steady_poller_free(&deaf);
}

/* The first run in a child returns at once. After that, parent and child wake only themselves. */
static int wake_in_child(steady_poller *poller) {
    steady_poller_wake(poller);
    if (steady_poller_run(poller, -1) != 0) return 1;
    const steady_us begin = now_us();
    if (steady_poller_run(poller, 20 * MS) != 0 || now_us() - begin < 20 * MS) return 2;
    steady_poller_wake(poller);
    return steady_poller_run(poller, -1) == 0 ? 0 : 3;
}

static void forked_child_and_parent_wake_only_themselves(void **state) {
    struct bench *bench = *state;
    int status = -1;
    assert_int_equal(steady_poller_run(bench->poller, 0), 0);
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) {
        alarm(10);
        steady_poller_run(bench->poller, -1);
        _exit(wake_in_child(bench->poller));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    const steady_us begin = now_us();
    assert_int_equal(steady_poller_run(bench->poller, 20 * MS), 0);
    assert_true(now_us() - begin >= 20 * MS);
    steady_poller_wake(bench->poller);
    assert_int_equal(steady_poller_run(bench->poller, -1), 0);
}

int main(void) {
#define IN_BENCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_is_refused),
        IN_BENCH(run_without_events_waits_the_given_time),
        IN_BENCH(timer_is_never_early),
        IN_BENCH(timers_run_in_the_order_of_their_times),
        IN_BENCH(timer_of_infinite_delay_never_runs),
        IN_BENCH(timer_can_be_restarted_and_stopped),
        IN_BENCH(descriptor_reports_the_events_it_wants),
        IN_BENCH(only_ready_descriptors_run_their_callbacks),
        IN_BENCH(callback_may_free_itself_and_others),
        IN_BENCH(timer_that_restarts_itself_runs_once_a_turn),
        IN_BENCH(callback_may_run_the_loop),
        IN_BENCH(callback_may_free_the_poller),
        IN_BENCH(signal_ends_a_wait),
        IN_BENCH(another_thread_ends_a_wait),
        IN_BENCH(signal_handler_ends_the_next_wait),
        IN_BENCH(woken_poller_runs_the_callbacks_that_are_due),
        IN_BENCH(wake_works_with_any_number_of_descriptors),
        cmocka_unit_test(poller_without_a_wake_descriptor_ignores_wake),
        IN_BENCH(forked_child_and_parent_wake_only_themselves),
    };
    return cmocka_run_group_tests_name("poller", tests, NULL, NULL);
}
