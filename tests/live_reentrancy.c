/* SPDX-License-Identifier: MIT
 * Each pair of acts that a program may do inside two callbacks, on each store. */
#include "rig.h"

#include <stdlib.h>
#include <unistd.h>

#define IN_FLIGHT 8

static steady_throttler *second;
static steady_store *store, *another;
static struct tally tally;
static unsigned seen;
static int plan[2]; /* what the first and the second callback do */

static void count_and_act(const steady_result *result, void *data);

/* ---- Acts in callbacks ---- */

static void ask_again(void) {
    void *expected = expect_result(&tally);
    if (steady_consume(rig.throttler, "again", 5, 1, count_and_act, expected) == 0) return;
    free(expected);
    tally.submitted--;
}

static void do_nothing(void) {}
static void consume(void) { ask_again(); }
static void consume_waiting(void) {
    steady_result r;
    (void)steady_consume_sync(rig.throttler, "sync", 4, 1, &r);
}
static void peek(void) {
    void *expected = expect_result(&tally);
    if (steady_peek(rig.throttler, "k", 1, count_and_act, expected) == 0) return;
    free(expected);
    tally.submitted--;
}
static void reset(void) {
    void *expected = expect_result(&tally);
    if (steady_reset(second, "k", 1, count_and_act, expected) == 0) return;
    free(expected);
    tally.submitted--;
}
static void look_at_figures(void) {
    steady_stats s;
    steady_store_stats(store, &s);
    if (store != NULL) assert_int_equal(s.in_flight, tally.submitted - tally.called);
    assert_true(strlen(last_error_of(store)) < 1024);
}
static void peek_and_reset(void) {
    steady_result r;
    (void)steady_peek_sync(rig.throttler, "k", 1, &r);
    (void)steady_reset_sync(second, "k", 1, &r);
}
static void close_store(void) { steady_store_close(&store); }
static void free_throttler(void) { steady_throttler_free(&rig.throttler); }
static void free_both(void) {
    steady_throttler_free(&rig.throttler);
    steady_throttler_free(&second);
}
static void close_and_free(void) {
    steady_store_close(&store);
    free_both();
}
static void free_and_close(void) {
    free_both();
    steady_store_close(&store);
}
static void open_another(void) {
    const steady_store_options options = {.loop = &rig.loop};
    if (another == NULL && rig.poller != NULL) another = open_store(rig.server.url, &options);
}
/* Close the stores that use the loop first. */
static void free_the_loop(void) {
    close_and_free();
    steady_store_close(&another);
    steady_poller_free(&rig.poller);
}
static void run_the_loop(void) { steady_poller_run(rig.poller, MS); }
static void make_a_throttler(void) {
    const steady_limit limit = {.max_capacity = 5, .drop_recharge = HOUR};
    steady_throttler *throttler = NULL;
    (void)steady_throttler_new(&throttler, store, &limit, NULL, NULL);
    steady_throttler_free(&throttler);
}
static void lose_the_connection(void) { server_ask(&rig.server, "CLIENT KILL TYPE normal"); }

static void (*const acts[])(void) = {
    do_nothing,      peek,           reset,        look_at_figures,  free_the_loop,       consume,
    consume_waiting, peek_and_reset, close_store,  free_throttler,   free_both,           close_and_free,
    free_and_close,  open_another,   run_the_loop, make_a_throttler, lose_the_connection,
};

static void count_and_act(const steady_result *result, void *data) {
    count_result(result, data);
    if (seen < 2) acts[plan[seen++]]();
}

/* ---- All pairs ---- */

static void run_pair(const char *url, int first, int then) {
    const steady_store_options options = {.loop = &rig.loop, .timeout = TIMEOUT};
    if (rig.poller == NULL) assert_int_equal(steady_poller_new(&rig.poller), 0);
    rig.loop = steady_poller_loop(rig.poller);
    plan[0] = first;
    plan[1] = then;
    seen = 0;
    memset(&tally, 0, sizeof tally);
    store = open_store(url, &options);
    rig.throttler = new_throttler(store, LARGE, RECHARGE);
    second = new_throttler(store, LARGE, RECHARGE);
    for (int i = 0; i < IN_FLIGHT; i++) {
        void *expected = expect_result(&tally);
        assert_int_equal(steady_consume(i % 2 ? second : rig.throttler, "k", 1, 1, count_and_act, expected), 0);
    }
    assert_int_equal(tally.called, 0);
    run_until_done(rig.poller, &tally, 5 * STEADY_SECOND);
    steady_throttler_free(&rig.throttler);
    steady_throttler_free(&second);
    steady_store_close(&store);
    steady_store_close(&another);
    const unsigned long called = tally.called;
    run_for(rig.poller, 0);
    if (tally.called != called || called != tally.submitted || called < IN_FLIGHT)
        fail_msg("%d then %d: %lu called of %lu", first, then, tally.called, tally.submitted);
}

static void run_all(const char *url) {
    for (int first = 0; first < (int)COUNT(acts); first++)
        for (int then = 0; then < (int)COUNT(acts); then++)
            run_pair(url, first, then);
}

static void callbacks_on_redis_may_do_any_pair_of_acts(void **state) {
    (void)state;
    run_all(rig.server.url);
}

static void callbacks_in_memory_may_do_any_pair_of_acts(void **state) {
    (void)state;
    run_all("memory:");
}

static void callbacks_on_a_file_may_do_any_pair_of_acts(void **state) {
    char url[128];
    (void)state;
    snprintf(url, sizeof url, "file:%s/buckets", rig.server.dir);
    run_all(url);
}

/* Every callback says that there is no usable connection. */
static void callbacks_without_a_server_may_do_any_pair_of_acts(void **state) {
    char url[64];
    (void)state;
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", free_port());
    for (int first = 0; first < (int)COUNT(acts) - 1; first++)
        for (int then = 0; then < (int)COUNT(acts) - 1; then++)
            run_pair(url, first, then);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_RIG(callbacks_on_redis_may_do_any_pair_of_acts),
        WITH_RIG(callbacks_in_memory_may_do_any_pair_of_acts),
        WITH_RIG(callbacks_on_a_file_may_do_any_pair_of_acts),
        WITH_RIG(callbacks_without_a_server_may_do_any_pair_of_acts),
    };
    return cmocka_run_group_tests_name("reentrancy", tests, NULL, NULL);
}
