/* SPDX-License-Identifier: MIT
 * A pool without a real server: what it refuses, what it keeps of its options, and how a thread wakes the driver. */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "certificates.h"
#include "fake_node.h"

#define MS STEADY_MILLISECOND
#define NO_SERVER "unix:/nonexistent/steady.sock"

static steady_store *store;
static steady_throttler *throttler;

static int tear_down(void **state) {
    (void)state;
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    return 0;
}

#define TEST(test) cmocka_unit_test_teardown(test, tear_down)

/* ---- Arguments ---- */

static void assert_refused(uint32_t connections, const steady_store_options *options, const char *url,
                           const char *text) {
    steady_message why = {.text = ""};
    assert_int_equal(steady_pool_open(&store, url, connections, options, &why), STEADY_BAD_ARGUMENT);
    assert_null(store);
    if (strstr(why.text, text) == NULL) fail_msg("not \"%s\": %s", text, why.text);
}

static void pool_refuses_a_loop_and_wrong_arguments(void **state) {
    static const steady_loop loop = {0};
    static const steady_tls_options tls = {.ca_file = "/ca.pem"};
    (void)state;
    assert_refused(0, &(steady_store_options){.loop = &loop}, NO_SERVER, "loop");
    assert_refused(0, &(steady_store_options){.loop = &loop}, "memory:", "loop");
    assert_refused(65, NULL, NO_SERVER, "connections is 65");
    assert_refused(65, NULL, "memory:", "connections is 65");
    assert_refused(1, &(steady_store_options){.timeout = -1}, NO_SERVER, "timeout");
    assert_refused(1, &(steady_store_options){.tls = &tls}, NO_SERVER, "TLS");
    assert_refused(1, NULL, "nonsense://", "");
    assert_int_equal(steady_pool_open(NULL, NO_SERVER, 1, NULL, NULL), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_pool_open(&store, NO_SERVER, 64, NULL, NULL), 0);
}

static void pool_has_no_asynchronous_calls(void **state) {
    struct tally tally = {0};
    (void)state;
    assert_int_equal(steady_pool_open(&store, NO_SERVER, 0, NULL, NULL), 0);
    throttler = new_throttler(store, 5, HOUR);
    assert_int_equal(steady_consume(throttler, "k", 1, 1, count_result, &tally), STEADY_NO_LOOP);
    assert_int_equal(steady_cancel(throttler, 1), STEADY_NOT_IN_FLIGHT);
    assert_int_equal(tally.called, 0);
}

static void pool_without_a_call_is_connecting_and_has_counted_nothing(void **state) {
    steady_stats stats;
    static const steady_stats none;
    (void)state;
    assert_int_equal(steady_pool_open(&store, NO_SERVER, 3, NULL, NULL), 0);
    steady_store_stats(store, &stats);
    assert_memory_equal(&stats, &none, sizeof stats);
    assert_int_equal(steady_store_state(store), STEADY_CONNECTING);
    assert_string_equal(last_error_of(store), "");
}

static void missing_server_is_counted_and_named(void **state) {
    steady_result r;
    steady_stats stats;
    (void)state;
    assert_int_equal(steady_pool_open(&store, NO_SERVER, 2, NULL, NULL), 0);
    throttler = new_throttler(store, 5, HOUR);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), STEADY_UNAVAILABLE);
    steady_store_stats(store, &stats);
    assert_int_equal(stats.decisions, 1);
    assert_int_equal(stats.unavailable, 1);
    assert_int_equal(steady_store_state(store), STEADY_DOWN);
    assert_string_not_equal(last_error_of(store), "");
}

/* ---- Embedded ---- */

static void *consume_one(void *arg) {
    steady_consume_sync(throttler, "k", 1, 1, arg);
    return NULL;
}

static void embedded_url_gives_an_embedded_store(void **state) {
    steady_result r = {.error = STEADY_SYSTEM};
    pthread_t thread;
    (void)state;
    assert_int_equal(steady_pool_open(&store, NULL, 2, NULL, NULL), 0);
    throttler = new_throttler(store, 5, HOUR);
    assert_int_equal(steady_store_state(store), STEADY_READY);
    assert_int_equal(pthread_create(&thread, NULL, consume_one, &r), 0);
    pthread_join(thread, NULL);
    assert_int_equal(r.error, 0);
    assert_int_equal(r.level, 1);
}

/* ---- What a child needs ---- */

static int play_child(void) {
    steady_result r;
    steady_stats stats;
    if (steady_consume_sync(throttler, "k", 1, 1, &r) != STEADY_UNAVAILABLE) return 1;
    if (strstr(last_error_of(store), "ca.pem") == NULL) return 2;
    steady_store_stats(store, &stats);
    return stats.decisions == 1 && stats.unavailable == 1 ? 0 : 3;
}

/* The options were in memory of the caller, which is used otherwise by then. */
static void child_reads_the_tls_files_again_and_names_the_missing_one(void **state) {
    char name[128];
    const steady_tls_options tls = {.ca_file = name};
    steady_message why = {.text = ""};
    int status = 0;
    (void)state;
    certificates_make();
    snprintf(name, sizeof name, "%s", certificate("ca.pem"));
    const int error = steady_pool_open(&store, "rediss://127.0.0.1:1", 1, &(steady_store_options){.tls = &tls}, &why);
    certificates_remove();
    if (error == STEADY_UNSUPPORTED) skip_because("this build has no TLS");
    assert_string_equal(why.text, "");
    memset(name, '?', sizeof name - 1);
    throttler = new_throttler(store, 5, HOUR);
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) _exit(play_child());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void pool_that_cannot_read_its_tls_files_is_not_opened(void **state) {
    const steady_tls_options tls = {.ca_file = "/nonexistent/ca.pem"};
    steady_message why = {.text = ""};
    (void)state;
    const int error = steady_pool_open(&store, "rediss://127.0.0.1:1", 1, &(steady_store_options){.tls = &tls}, &why);
    if (error == STEADY_UNSUPPORTED) skip_because("this build has no TLS");
    assert_int_equal(error, STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "/nonexistent/ca.pem"));
    assert_null(store);
}

/* ---- Waking ---- */

static void await_heard(struct fake_node *node, unsigned n, steady_us limit) {
    const steady_us give_up = now_us() + limit;
    while (fake_node_heard(node, "EVALSHA") < n && now_us() < give_up)
        sleep_us(MS);
    assert_int_equal(fake_node_heard(node, "EVALSHA"), n);
}

/* The thread that drives waits for a server that is silent. Its timers are due after a tenth of the timeout. */
static void call_is_sent_while_another_thread_waits_for_its_reply(void **state) {
    struct fake_node *node = fake_node_start(false);
    steady_result results[3];
    pthread_t threads[3];
    char url[64];
    (void)state;
    fake_node_says(node, "EVALSHA", FAKE_SILENCE, 0, 0);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_node_port(node));
    const steady_store_options options = {.timeout = 60 * STEADY_SECOND, .engine = STEADY_ENGINE_SCRIPT};
    assert_int_equal(steady_pool_open(&store, url, 1, &options, NULL), 0);
    throttler = new_throttler(store, 5, HOUR);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, consume_one, &results[i]), 0);
        await_heard(node, i + 1, 3 * STEADY_SECOND);
        sleep_us(10 * MS); /* until it sleeps */
    }
    assert_int_equal(fake_node_accepted(node), 1);
    steady_store_close(&store);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(results[i].error, STEADY_CANCELLED);
    }
    fake_node_stop(node);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(pool_refuses_a_loop_and_wrong_arguments),
        TEST(pool_has_no_asynchronous_calls),
        TEST(pool_without_a_call_is_connecting_and_has_counted_nothing),
        TEST(missing_server_is_counted_and_named),
        TEST(embedded_url_gives_an_embedded_store),
        TEST(child_reads_the_tls_files_again_and_names_the_missing_one),
        TEST(pool_that_cannot_read_its_tls_files_is_not_opened),
        TEST(call_is_sent_while_another_thread_waits_for_its_reply),
    };
    return cmocka_run_group_tests_name("unit_pool", tests, NULL, NULL);
}
