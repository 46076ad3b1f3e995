/* SPDX-License-Identifier: MIT
 * The watch on the loop: it tells a handler that holds the loop from a thread that waits for a processor. The tests
 * of faults rely on it. */
#include "rig.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

static steady_us worked(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

/* Counts the processor time of the thread: on a busy machine, work measured by the clock would be less. */
static void work_for(steady_us time) {
    for (const steady_us until = worked() + time; worked() < until;)
        ;
}

static void sleep_20(void *arg) {
    usleep(20000);
    *(bool *)arg = true;
}
static void work_30(void *arg) {
    work_for(30 * MS);
    *(bool *)arg = true;
}
static void work_1(void *arg) {
    work_for(MS);
    *(bool *)arg = true;
}

static void run_handler(void (*handler)(void *arg)) {
    bool called = false;
    void *timer = rig.loop.ops->timer_new(rig.loop.loop, handler, &called);
    assert_non_null(timer);
    rig.loop.ops->timer_start(timer, 0);
    while (!called)
        assert_true(steady_poller_run(rig.poller, STEADY_SECOND) >= 0);
    rig.loop.ops->timer_free(timer);
}

static void sleep_counts_as_holding_the_loop(void **state) {
    (void)state;
    run_handler(sleep_20);
    assert_between(longest_held, 20 * MS, 200 * MS);
}

/* Only the work of the thread itself counts, because other processes may interrupt it. */
static void work_counts_as_holding_the_loop(void **state) {
    (void)state;
    for (int i = 0; i < 20 && longest_held < 15 * MS; i++)
        run_handler(work_30);
    assert_between(longest_held, 15 * MS, 35 * MS);
}

static void keep_busy(void) { work_for(10 * MS); }

/* Other processes keep each processor busy, so a handler of 1 ms takes many milliseconds. */
static void waits_for_a_processor_do_not_count(void **state) {
    pid_t others[6];
    const size_t count = sizeof others / sizeof *others;
    steady_us slowest = 0;
    (void)state;
    for (size_t i = 0; i < count; i++)
        others[i] = start_child(keep_busy);
    for (int i = 0; i < 500; i++) {
        const steady_us begin = now_us();
        run_handler(work_1);
        if (now_us() - begin > slowest) slowest = now_us() - begin;
    }
    for (size_t i = 0; i < count; i++)
        end_child(others[i]);
    print_message("turns of 1 ms took up to %lld us, and count as %lld\n", (long long)slowest, (long long)longest_held);
    assert_loop_never_held();
}

/* Of two threads that work on one processor, one always waits. */
static void *works(void *arg) {
    work_for(100 * MS);
    return arg;
}

static void wait_of_a_thread_is_taken_away_and_sleep_is_not(void **state) {
    cpu_set_t before, first;
    pthread_t threads[2];
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&first);
    for (size_t i = 0; CPU_COUNT(&first) == 0; i++)
        if (CPU_ISSET(i, &before)) CPU_SET(i, &first);
    const steady_us idle = taken_away(), since = now_us();
    sleep_us(50 * MS);
    assert_true(taken_away() - idle < now_us() - since);
    assert_int_equal(sched_setaffinity(0, sizeof first, &first), 0);
    const steady_us busy = taken_away();
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, works, NULL), 0);
    sleep_us(80 * MS); /* of at least 200 ms; neither has ended */
    const steady_us taken = taken_away() - busy;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_true(taken > 20 * MS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_RIG(sleep_counts_as_holding_the_loop),
        WITH_RIG(work_counts_as_holding_the_loop),
        WITH_RIG(waits_for_a_processor_do_not_count),
        WITH_RIG(wait_of_a_thread_is_taken_away_and_sleep_is_not),
    };
    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
