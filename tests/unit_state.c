/* SPDX-License-Identifier: MIT
 * What any thread may ask of a store: its state, its counters and its last error. Run it with TSan. */
#include "client.h"

#include <pthread.h>
#include <stdatomic.h>

#include "fake_node.h"

#define TIMEOUT (100 * MS)
#define PATIENCE (10 * STEADY_SECOND) /* for what must come */
#define VERDICT ":3600000000\r\n"
#define LOADING "-LOADING Redis is loading the dataset in memory\r\n"
#define WRONG "-ERR something is wrong\r\n"

static struct fake_node *node;

static int set_up(void **state) {
    node = fake_node_start(false);
    return client_set_up(state);
}

static int tear_down(void **state) {
    client_close();
    if (node != NULL) fake_node_stop(node);
    return client_tear_down(state);
}

static void says(const char *word, const char *reply) { fake_node_says(node, word, reply, strlen(reply), 0); }

static void wait_for_state(enum steady_state state) {
    for (const steady_us end = now_us() + PATIENCE; steady_store_state(store) != state;) {
        if (now_us() > end) fail_msg("the state is %d, not %d", (int)steady_store_state(store), (int)state);
        run_for(poller, MS);
    }
}

static void store_is_connecting_then_ready_then_down_then_ready(void **state) {
    (void)state;
    says("EVALSHA", VERDICT);
    client_open_at(fake_node_port(node), TIMEOUT);
    assert_int_equal(steady_store_state(store), STEADY_CONNECTING);
    wait_for_state(STEADY_READY);
    assert_int_equal(fake_node_heard(node, ""), 0); /* no decision was needed, and none was sent */
    says("EVALSHA", LOADING);
    client_ask();
    assert_int_equal(steady_store_state(store), STEADY_DOWN);
    says("EVALSHA", VERDICT);
    for (const steady_us end = now_us() + PATIENCE; client_ask() != 0;)
        assert_true(now_us() < end);
    assert_int_equal(steady_store_state(store), STEADY_READY);
    fake_node_stop(node);
    node = NULL;
    wait_for_state(STEADY_DOWN);
}

static void store_is_down_if_no_server_listens(void **state) {
    (void)state;
    const int port = fake_node_port(node);
    fake_node_stop(node);
    node = NULL;
    client_open_at(port, TIMEOUT);
    wait_for_state(STEADY_DOWN);
}

static void store_without_loop_is_ready_after_its_first_blocking_call(void **state) {
    char url[64];
    steady_result r;
    (void)state;
    says("EVALSHA", VERDICT);
    client_open_at(fake_node_port(node), TIMEOUT); /* for tear_down */
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_node_port(node));
    const steady_store_options options = {.engine = STEADY_ENGINE_SCRIPT, .timeout = PATIENCE};
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = STEADY_SECOND};
    steady_store *own = NULL;
    steady_throttler *t = NULL;
    assert_int_equal(steady_store_open(&own, url, &options, NULL), 0);
    assert_int_equal(steady_throttler_new(&t, own, &limit, NULL, NULL), 0);
    assert_int_equal(steady_store_state(own), STEADY_CONNECTING);
    assert_int_equal(steady_consume_sync(t, "k", 1, 1, &r), 0);
    assert_int_equal(steady_store_state(own), STEADY_READY);
    steady_throttler_free(&t);
    steady_store_close(&own);
}

static void embedded_store_is_always_ready(void **state) {
    (void)state;
    client_open("memory:", 0);
    assert_int_equal(steady_store_state(store), STEADY_READY);
    assert_int_equal(steady_store_state(NULL), STEADY_DOWN);
}

/* ---- From other threads ---- */

static atomic_bool stop;

struct watcher {
    pthread_t thread;
    atomic_uint looks;
};

static void *watch(void *arg) {
    struct watcher *watcher = arg;
    uint64_t before = 0;
    while (!atomic_load(&stop)) {
        steady_stats stats;
        steady_message last;
        steady_store_stats(store, &stats);
        steady_store_last_error(store, &last);
        /* A text is one of those that were written, whole. */
        if (*last.text != '\0' && strcmp(last.text, "ERR something is wrong") != 0 &&
            strncmp(last.text, "max_in_flight decisions ", 24) != 0)
            fail_msg("torn: \"%s\"", last.text);
        if (stats.decisions < before) fail_msg("decisions went back");
        before = stats.decisions;
        if (steady_store_state(store) > STEADY_DOWN) fail_msg("no state");
        atomic_fetch_add(&watcher->looks, 1);
    }
    return NULL;
}

static void never(const steady_result *result, void *data) {
    (void)result;
    (void)data;
    fail_msg("a call that returned an error called back");
}

#define LOOKS 100

/* Decides at least a thousand times, and until each watcher has looked LOOKS times meanwhile: a thousand decisions of
 * the embedded store take less than a thread may need to begin. */
static void decide_while_watched(void) {
    struct watcher watchers[2] = {{.looks = 0}, {.looks = 0}};
    struct tally tally = {0};
    uint64_t rounds = 0;
    const steady_us until = now_us() + 2 * PATIENCE;
    atomic_store(&stop, false);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&watchers[i].thread, NULL, watch, &watchers[i]), 0);
    /* The second is too much, so both texts are written in turn. */
    while (rounds < 1000 || (now_us() < until && (watchers[0].looks < LOOKS || watchers[1].looks < LOOKS))) {
        rounds++;
        consume_counted(throttler, "k", 1, &tally);
        assert_int_equal(steady_consume(throttler, "k", 1, 1, never, NULL), STEADY_OVERLOADED);
        run_until_done(poller, &tally, 2 * PATIENCE);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(watchers[i].thread, NULL);
        assert_true(watchers[i].looks >= LOOKS);
    }
    steady_stats stats;
    steady_store_stats(store, &stats);
    assert_int_equal(stats.decisions, 2 * rounds);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.allowed + stats.denied + stats.unavailable + stats.unknown, 2 * rounds);
}

static void open_for_one(bool embedded) {
    char url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_node_port(node));
    client_open_with(embedded ? "memory:" : url,
                     (steady_store_options){.engine = STEADY_ENGINE_SCRIPT, .timeout = PATIENCE, .max_in_flight = 1});
}

static void redis_store_is_watched_from_other_threads(void **state) {
    (void)state;
    says("EVALSHA", WRONG);
    open_for_one(false);
    decide_while_watched();
}

static void embedded_store_is_watched_from_other_threads(void **state) {
    (void)state;
    open_for_one(true);
    decide_while_watched();
}

static void last_error_is_a_copy_that_outlives_the_store(void **state) {
    steady_message last;
    (void)state;
    says("EVALSHA", WRONG);
    client_open_at(fake_node_port(node), PATIENCE);
    memset(&last, 0x5a, sizeof last);
    steady_store_last_error(store, &last);
    assert_string_equal(last.text, "");
    assert_int_equal(client_ask(), STEADY_SERVER);
    steady_store_last_error(store, &last);
    steady_store_last_error(store, NULL);
    client_close();
    assert_string_equal(last.text, "ERR something is wrong");
    steady_store_last_error(NULL, &last);
    assert_string_equal(last.text, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(store_is_connecting_then_ready_then_down_then_ready),
        TEST(store_is_down_if_no_server_listens),
        TEST(store_without_loop_is_ready_after_its_first_blocking_call),
        TEST(embedded_store_is_always_ready),
        TEST(redis_store_is_watched_from_other_threads),
        TEST(embedded_store_is_watched_from_other_threads),
        TEST(last_error_is_a_copy_that_outlives_the_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
