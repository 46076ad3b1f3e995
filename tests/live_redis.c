/* SPDX-License-Identifier: MIT
 * The Redis store without faults, and what the server refuses: results, keys, credentials, rights, closing. */
#include "support.h"

#include <pthread.h>
#include <stdlib.h>

static struct server server;
static steady_poller *poller;
static steady_loop loop;
static const steady_store_options patient = {.loop = &loop, .timeout = 5 * STEADY_SECOND};

static int group_set_up(void **state) {
    (void)state;
    server_start(&server, NULL);
    return 0;
}

static int group_tear_down(void **state) {
    (void)state;
    server_stop(&server);
    return 0;
}

static int set_up(void **state) {
    (void)state;
    server_ask(&server, "FLUSHALL");
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady_poller_free(&poller);
    return 0;
}

/* ---- Answers ---- */

static void blocking_calls_return_each_field(void **state) {
    steady_store *store = open_store(server.url, NULL);
    const steady_limit limit = {.max_capacity = 2, .drop_recharge = HOUR, .block_duration = 2 * HOUR};
    steady_throttler *throttler = NULL;
    steady_result r;
    (void)state;
    assert_int_equal(steady_throttler_new(&throttler, store, &limit, NULL, NULL), 0);
    assert_int_equal(steady_peek_sync(throttler, "k", 1, &r), 0);
    assert_true(r.success && r.level == 0 && r.until_next_drop == HOUR);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 2, &r), 0);
    assert_true(r.success && r.level == 2 && r.source == STEADY_FROM_STORE);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), 0);
    assert_true(!r.success && r.level == 2 && r.blocked_for == 2 * HOUR && r.retry_after > 0);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 3, &r), 0);
    assert_int_equal(r.retry_after, -1);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, -1, &r), 0);
    assert_true(r.success && r.level == 1 && r.blocked_for > 0);
    assert_int_equal(steady_reset_sync(throttler, "k", 1, &r), 0);
    assert_true(r.success && r.level == 0 && r.blocked_for == 0);
    assert_string_equal(server_ask(&server, "DBSIZE"), "0");
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static void counters_add_up(void **state) {
    steady_store *store = open_store(server.url, &patient);
    const steady_limit limit = {.max_capacity = 3, .drop_recharge = HOUR, .block_duration = HOUR};
    steady_throttler *throttler = NULL;
    struct tally tally = {0};
    steady_result r;
    steady_stats s;
    (void)state;
    assert_int_equal(steady_throttler_new(&throttler, store, &limit, NULL, NULL), 0);
    for (int i = 0; i < 5; i++)
        consume_counted(throttler, "k", 1, &tally);
    assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
    steady_store_stats(store, &s);
    assert_int_equal(s.in_flight, 6);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(steady_reset(throttler, "k", 1, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), 0);
    steady_store_stats(store, &s);
    assert_int_equal(s.in_flight, 0);
    assert_int_equal(s.decisions, 7); /* a reset is no decision */
    assert_int_equal(s.allowed + s.denied, 7);
    assert_int_equal(s.allowed, 4);
    assert_int_equal(s.blocked, 3);
    assert_int_equal(s.unavailable + s.unknown + s.timeouts + s.reconnects + s.clock_steps + s.overflowed, 0);
    assert_string_equal(last_error_of(store), "");
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static void pipelined_decisions_admit_exactly_the_capacity(void **state) {
    steady_store *store = open_store(server.url, &patient);
    steady_throttler *throttler = new_throttler(store, 7000, HOUR);
    struct tally tally = {0};
    (void)state;
    for (int i = 0; i < 10000; i++)
        consume_counted(throttler, "k", 1, &tally);
    assert_int_equal(tally.called, 0); /* no callback runs inside the call */
    run_until_done(poller, &tally, 10 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 7000);
    assert_int_equal(tally.denied, 3000);
    assert_int_equal(tally.last.level, 7000);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* ---- Keys ---- */

static void key_may_hold_any_bytes(void **state) {
    static const char key[] = "\0a\r\nb{c} \"\x80\xff'*1\r\n$7\r\nFLUSHDB\r\n";
    steady_store *store = open_store(server.url, &patient);
    steady_throttler *throttler = new_throttler(store, 5, HOUR);
    struct tally tally = {0};
    steady_result r;
    (void)state;
    assert_int_equal(steady_consume_sync(throttler, key, sizeof key - 1, 2, &r), 0);
    assert_int_equal(steady_consume_sync(throttler, "", 1, 1, &r), 0); /* one NUL byte */
    assert_int_equal(steady_consume(throttler, key, sizeof key - 1, 1, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.last.level, 3);
    assert_string_equal(server_ask(&server, "EXISTS %b %b", key, sizeof key - 1, "", (size_t)1), "2");
    assert_string_equal(server_ask(&server, "DBSIZE"), "2");
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static void key_has_1_to_1024_bytes(void **state) {
    static const size_t lengths[] = {1, 63, 64, 65, 1023, 1024};
    steady_store *store = open_store(server.url, &patient);
    steady_throttler *throttler = new_throttler(store, 9, HOUR);
    char *key = malloc(65536);
    struct tally tally = {0};
    steady_result r;
    (void)state;
    memset(key, 'k', 65536);
    for (int round = 0; round < 3; round++) /* memory of a decision is used again for keys of other lengths */
        for (size_t i = 0; i < COUNT(lengths); i++)
            assert_int_equal(steady_consume(throttler, key, lengths[(i + (size_t)round) % COUNT(lengths)], 1,
                                            count_result, expect_result(&tally)),
                             0);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 3 * COUNT(lengths));
    for (size_t i = 0; i < COUNT(lengths); i++) {
        assert_int_equal(steady_peek_sync(throttler, key, lengths[i], &r), 0);
        assert_int_equal(r.level, 3);
    }
    assert_int_equal(steady_consume_sync(throttler, key, 1025, 1, &r), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_consume_sync(throttler, key, 65536, 1, &r), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_consume_sync(throttler, key, 0, 1, &r), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_consume_sync(throttler, key, SIZE_MAX, 1, &r), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_consume(throttler, NULL, 3, 1, count_result, NULL), STEADY_BAD_ARGUMENT);
    assert_string_equal(server_ask(&server, "DBSIZE"), "6");
    free(key);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static void foreign_value_is_not_a_bucket_and_stays(void **state) {
    steady_store *store = open_store(server.url, NULL);
    steady_throttler *throttler = new_throttler(store, 5, HOUR);
    steady_result r;
    (void)state;
    server_ask(&server, "RPUSH list a b");
    server_ask(&server, "SET text precious");
    static const char *const keys[] = {"list", "text"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(steady_consume_sync(throttler, keys[i], 4, 1, &r), STEADY_NOT_A_BUCKET);
        assert_int_equal(r.source, STEADY_FROM_NOWHERE);
        assert_int_equal(steady_peek_sync(throttler, keys[i], 4, &r), STEADY_NOT_A_BUCKET);
        assert_int_equal(steady_reset_sync(throttler, keys[i], 4, &r), STEADY_NOT_A_BUCKET);
        assert_string_not_equal(last_error_of(store), "");
    }
    assert_string_equal(server_ask(&server, "LRANGE list 0 -1"), "a b");
    assert_string_equal(server_ask(&server, "GET text"), "precious");
    assert_int_equal(steady_consume_sync(throttler, "mine", 4, 1, &r), 0); /* the connection still works */
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* ---- Databases, credentials, rights ---- */

static void tcp_and_unix_socket_reach_the_database_of_the_url(void **state) {
    char url[128];
    steady_result r;
    (void)state;
    snprintf(url, sizeof url, "%s?db=3", server.unix_url);
    steady_store *by_unix = open_store(url, NULL);
    snprintf(url, sizeof url, "%s/3", server.url);
    steady_store *by_tcp = open_store(url, NULL);
    steady_throttler *a = new_throttler(by_unix, 9, HOUR), *b = new_throttler(by_tcp, 9, HOUR);
    assert_int_equal(steady_consume_sync(a, "k", 1, 1, &r), 0);
    assert_int_equal(steady_consume_sync(b, "k", 1, 1, &r), 0);
    assert_int_equal(r.level, 2);
    assert_string_equal(server_ask(&server, "DBSIZE"), "0"); /* of database 0 */
    steady_throttler_free(&a);
    steady_throttler_free(&b);
    steady_store_close(&by_unix);
    steady_store_close(&by_tcp);
}

static void database_out_of_range_is_refused(void **state) {
    char url[128];
    steady_result r;
    (void)state;
    snprintf(url, sizeof url, "%s/99", server.url);
    steady_store *store = open_store(url, NULL);
    steady_throttler *throttler = new_throttler(store, 9, HOUR);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), STEADY_REFUSED);
    assert_non_null(strstr(last_error_of(store), "DB index"));
    assert_string_equal(server_ask(&server, "DBSIZE"), "0");
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* The result of a decision for the user in the URL. */
static int ask_as(const char *credentials, const char *key, char trouble[256]) {
    char url[160];
    steady_result r;
    struct log_lines log = {0};
    const steady_store_options options = {.log = remember_line, .log_data = &log};
    snprintf(url, sizeof url, "redis://%s127.0.0.1:%d", credentials, server.port);
    steady_store *store = open_store(url, &options);
    steady_throttler *throttler = new_throttler(store, 9, HOUR);
    const int error = steady_consume_sync(throttler, key, strlen(key), 1, &r);
    snprintf(trouble, 256, "%s", last_error_of(store));
    if (strstr(log.all, "hunter2") != NULL || strstr(trouble, "hunter2") != NULL) fail_msg("a password is shown");
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    return error;
}

static void wrong_credentials_are_refused_without_showing_the_password(void **state) {
    char trouble[256];
    (void)state;
    server_ask(&server, "ACL SETUSER app on >hunter2 allkeys +@all");
    assert_int_equal(ask_as("app:hunter2@", "k", trouble), 0);
    assert_int_equal(ask_as("app:wrong@", "k", trouble), STEADY_REFUSED);
    assert_non_null(strstr(trouble, "WRONGPASS"));
    assert_int_equal(ask_as("nobody:hunter2@", "k", trouble), STEADY_REFUSED);
    assert_int_equal(ask_as(":hunter2@", "k", trouble), STEADY_REFUSED); /* the default user has no password */
    server_ask(&server, "CONFIG SET requirepass hunter2");
    assert_int_equal(ask_as("", "k", trouble), STEADY_REFUSED);
    assert_non_null(strstr(trouble, "NOAUTH"));
    assert_int_equal(ask_as(":hunter2@", "k", trouble), 0);
    assert_int_equal(ask_as("default:hunter2@", "k", trouble), 0);
    server_ask(&server, "AUTH hunter2");
    server_kill(&server); /* a restart resets the password */
    server_restart(&server, true);
}

/* The same line stands in docs/reference/acl.md. */
#define MINIMAL "resetkeys ~rl:* resetchannels -@all +evalsha +script|load +get +set +del +time"

static void rights_of_the_acl_page_suffice(void **state) {
    char trouble[256];
    (void)state;
    server_ask(&server, "SCRIPT FLUSH");
    server_ask(&server, "ACL SETUSER app reset");
    assert_string_equal(server_ask(&server, "ACL SETUSER app on >hunter2 " MINIMAL), "OK");
    assert_int_equal(ask_as("app:hunter2@", "rl:k", trouble), 0); /* loads the script */
    assert_int_equal(ask_as("app:hunter2@", "rl:k", trouble), 0);
    assert_int_equal(ask_as("app:hunter2@", "other", trouble), STEADY_REFUSED);
    char url[96];
    steady_result r;
    snprintf(url, sizeof url, "redis://app:hunter2@127.0.0.1:%d", server.port);
    steady_store *store = open_store(url, NULL);
    steady_throttler *throttler = new_throttler(store, 1, HOUR);
    assert_int_equal(steady_consume_sync(throttler, "rl:all", 6, 1, &r), 0);
    assert_int_equal(steady_consume_sync(throttler, "rl:all", 6, 1, &r), 0);
    assert_int_equal(steady_consume_sync(throttler, "rl:all", 6, -1, &r), 0); /* deletes */
    assert_int_equal(steady_peek_sync(throttler, "rl:all", 6, &r), 0);
    assert_int_equal(steady_reset_sync(throttler, "rl:all", 6, &r), 0);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* Without any right of the minimal user, a decision is refused. */
static void each_right_of_the_acl_page_is_needed(void **state) {
    static const char *const rights[] = {"evalsha", "get", "set", "del", "time"};
    char trouble[256];
    (void)state;
    for (size_t i = 0; i < COUNT(rights); i++) {
        char url[96];
        steady_result r;
        int worst = 0;
        server_ask(&server, "ACL SETUSER app reset");
        server_ask(&server, "ACL SETUSER app on >hunter2 " MINIMAL);
        server_ask(&server, "FLUSHALL");
        assert_int_equal(ask_as("app:hunter2@", "rl:k", trouble), 0);
        char right[32];
        snprintf(right, sizeof right, "-%s", rights[i]);
        assert_string_equal(server_ask(&server, "ACL SETUSER app %s", right), "OK");
        snprintf(url, sizeof url, "redis://app:hunter2@127.0.0.1:%d", server.port);
        steady_store *store = open_store(url, NULL);
        steady_throttler *throttler = new_throttler(store, 9, HOUR);
        for (int amount = 1; amount >= -2; amount -= 3) {
            const int error = steady_consume_sync(throttler, "rl:k", 4, amount, &r);
            if (error != 0) worst = error;
        }
        if (worst != STEADY_REFUSED) fail_msg("without %s: %d", rights[i], worst);
        steady_throttler_free(&throttler);
        steady_store_close(&store);
    }
}

/* A user without the right to load scripts works only if another user has loaded them. */
static void user_without_script_load_needs_another_to_load(void **state) {
    char trouble[256];
    (void)state;
    server_ask(&server, "ACL SETUSER app reset");
    server_ask(&server, "ACL SETUSER app on >hunter2 " MINIMAL " -script|load");
    server_ask(&server, "SCRIPT FLUSH");
    assert_int_equal(ask_as("app:hunter2@", "rl:k", trouble), STEADY_UNAVAILABLE);
    assert_non_null(strstr(trouble, "NOPERM"));
    assert_int_equal(ask_as("", "rl:k", trouble), 0);
    assert_int_equal(ask_as("app:hunter2@", "rl:k", trouble), 0);
}

/* The user loses its rights while the store is in use, and gets them back. */
static void changed_rights_apply_to_the_next_decision(void **state) {
    char url[96];
    steady_result r;
    (void)state;
    server_ask(&server, "ACL SETUSER app reset");
    server_ask(&server, "ACL SETUSER app on >hunter2 " MINIMAL);
    snprintf(url, sizeof url, "redis://app:hunter2@127.0.0.1:%d", server.port);
    steady_store *store = open_store(url, NULL);
    steady_throttler *throttler = new_throttler(store, 9, HOUR);
    assert_int_equal(steady_consume_sync(throttler, "rl:k", 4, 1, &r), 0);
    server_ask(&server, "ACL SETUSER app -evalsha");
    assert_int_equal(steady_consume_sync(throttler, "rl:k", 4, 1, &r), STEADY_REFUSED);
    server_ask(&server, "ACL SETUSER app +evalsha");
    assert_int_equal(steady_consume_sync(throttler, "rl:k", 4, 1, &r), 0);
    assert_int_equal(r.level, 2);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* ---- Rejected calls ---- */

static void decision_beyond_max_in_flight_is_overloaded(void **state) {
    steady_store_options options = patient;
    options.max_in_flight = 10;
    steady_store *store = open_store(server.url, &options);
    steady_throttler *throttler = new_throttler(store, 100, HOUR);
    struct tally tally = {0};
    (void)state;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 10; i++)
            consume_counted(throttler, "k", 1, &tally);
        assert_int_equal(steady_consume(throttler, "k", 1, 1, count_result, NULL), STEADY_OVERLOADED);
        assert_string_equal(last_error_of(store), "max_in_flight decisions are already in flight");
        run_until_done(poller, &tally, 5 * STEADY_SECOND);
    }
    assert_int_equal(tally.last.level, 30);
    steady_stats stats;
    steady_store_stats(store, &stats);
    assert_int_equal(stats.decisions, 33);
    assert_int_equal(stats.allowed, 30);
    assert_int_equal(stats.unavailable, 3);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static void *ask_from_elsewhere(void *throttler) {
    steady_result r;
    const int async = steady_consume(throttler, "k", 1, 1, count_result, NULL);
    const int sync = steady_consume_sync(throttler, "k", 1, 1, &r);
    return async == STEADY_NO_LOOP && sync == STEADY_WRONG_THREAD ? throttler : NULL;
}

static void bad_arguments_are_rejected(void **state) {
    steady_store *store = open_store(server.url, NULL);
    steady_throttler *throttler = new_throttler(store, 100, HOUR);
    steady_store_options options = {.timeout = -1};
    steady_store *none = NULL;
    steady_message why = {.text = ""};
    pthread_t other;
    void *same = NULL;
    (void)state;
    assert_int_equal(steady_consume(throttler, "k", 1, 1, count_result, NULL), STEADY_NO_LOOP);
    assert_int_equal(steady_store_open(&none, server.url, &options, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "timeout"));
    options.timeout = INT64_MAX;
    assert_int_equal(steady_store_open(&none, server.url, &options, &why), STEADY_BAD_ARGUMENT);
    assert_int_equal(pthread_create(&other, NULL, ask_from_elsewhere, throttler), 0);
    pthread_join(other, &same);
    assert_ptr_equal(same, throttler);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* ---- Closing ---- */

static void closing_cancels_decisions_in_flight(void **state) {
    steady_store *store = open_store(server.url, &patient);
    steady_throttler *throttler = new_throttler(store, 1000, HOUR);
    struct tally tally = {0};
    steady_result r;
    (void)state;
    for (int i = 0; i < 100; i++)
        consume_counted(throttler, "k", 1, &tally);
    steady_poller_run(poller, 0); /* connecting, or not yet */
    steady_store_close(&store);
    assert_null(store);
    assert_int_equal(tally.called, 100);
    assert_int_equal(tally.errors[-STEADY_CANCELLED], 100 - tally.verdicts);
    run_for(poller, 10 * STEADY_MILLISECOND);
    assert_int_equal(tally.called, 100);
    assert_int_equal(steady_consume(throttler, "k", 1, 1, count_result, NULL), STEADY_CLOSED);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), STEADY_CLOSED);
    steady_throttler_free(&throttler);
}

/* What a callback does once, when `at` callbacks have run. */
struct plot {
    steady_store *store;
    steady_throttler *throttler;
    unsigned called, cancelled, at;
    enum { CLOSE, FREE, BOTH, AGAIN, BLOCK, RUN } what;
};

static void count_plot(const steady_result *result, void *data);

static void carry_out(struct plot *plot) {
    steady_result r;
    if (plot->what == CLOSE || plot->what == BOTH) steady_store_close(&plot->store);
    if (plot->what == FREE || plot->what == BOTH) steady_throttler_free(&plot->throttler);
    if (plot->what == AGAIN) assert_int_equal(steady_consume(plot->throttler, "k", 1, 1, count_plot, plot), 0);
    if (plot->what == BLOCK) assert_int_equal(steady_consume_sync(plot->throttler, "other", 5, 1, &r), 0);
    if (plot->what == RUN) steady_poller_run(poller, 10 * STEADY_MILLISECOND);
}

static void count_plot(const steady_result *result, void *data) {
    struct plot *plot = data;
    if (result->error == STEADY_CANCELLED) {
        plot->cancelled++;
        if (plot->throttler != NULL)
            assert_int_equal(steady_consume(plot->throttler, "k", 1, 1, count_plot, plot), STEADY_CLOSED);
    } else {
        assert_int_equal(result->error, 0);
    }
    if (++plot->called == plot->at) carry_out(plot);
}

static void run_plot(unsigned what, unsigned at, unsigned in_flight) {
    struct plot plot = {.at = at, .what = what};
    plot.store = open_store(server.url, &patient);
    plot.throttler = new_throttler(plot.store, 1000000, HOUR);
    for (unsigned i = 0; i < in_flight; i++)
        assert_int_equal(steady_consume(plot.throttler, "k", 1, 1, count_plot, &plot), 0);
    const unsigned expected = in_flight + (what == AGAIN);
    const steady_us until = now_us() + 5 * STEADY_SECOND;
    while (plot.called < expected && now_us() < until)
        steady_poller_run(poller, STEADY_SECOND);
    assert_int_equal(plot.called, expected);
    if (what == CLOSE || what == BOTH) assert_int_equal(plot.cancelled, in_flight - at);
    steady_throttler_free(&plot.throttler);
    steady_store_close(&plot.store);
    steady_poller_run(poller, 0);
    assert_int_equal(plot.called, expected);
}

static void callback_may_close_free_or_run(void **state) {
    (void)state;
    for (int what = CLOSE; what <= RUN; what++)
        for (unsigned at = 1; at <= 64; at *= 4)
            run_plot((unsigned)what, at, 64);
}

static void close_on_line(void *data, enum steady_log_level level, const char *text) {
    (void)level;
    (void)text;
    steady_store_close(data);
}

/* The store may be closed inside the log callback. */
static void log_may_close_the_store(void **state) {
    steady_store *store = NULL;
    steady_store_options options = {.log = close_on_line, .log_data = &store};
    steady_result r;
    char url[64];
    (void)state;
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", free_port());
    for (int with_loop = 0; with_loop < 2; with_loop++) {
        options.loop = with_loop ? &loop : NULL;
        store = open_store(url, &options);
        steady_throttler *throttler = new_throttler(store, 9, HOUR);
        struct tally tally = {0};
        if (with_loop) {
            consume_counted(throttler, "k", 1, &tally);
            run_until_done(poller, &tally, 5 * STEADY_SECOND);
        } else {
            assert_true(steady_consume_sync(throttler, "k", 1, 1, &r) != 0);
        }
        run_for(poller, 5 * STEADY_MILLISECOND);
        assert_null(store);
        steady_throttler_free(&throttler);
    }
}

struct user {
    steady_store *store;
    steady_throttler *throttler;
};

static void end_on_line(void *data, enum steady_log_level level, const char *text) {
    struct user *user = data;
    (void)level;
    (void)text;
    steady_throttler_free(&user->throttler);
    steady_store_close(&user->store);
}

static void log_may_free_the_throttler(void **state) {
    struct user user;
    const steady_store_options options = {.log = end_on_line, .log_data = &user};
    steady_result r;
    char url[64];
    (void)state;
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", free_port());
    user.store = open_store(url, &options);
    user.throttler = new_throttler(user.store, 9, HOUR);
    assert_true(steady_consume_sync(user.throttler, "k", 1, 1, &r) != 0);
    assert_null(user.throttler);
    assert_null(user.store);
}

int main(void) {
#define WITH_POLLER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_POLLER(blocking_calls_return_each_field),
        WITH_POLLER(counters_add_up),
        WITH_POLLER(pipelined_decisions_admit_exactly_the_capacity),
        WITH_POLLER(key_may_hold_any_bytes),
        WITH_POLLER(key_has_1_to_1024_bytes),
        WITH_POLLER(foreign_value_is_not_a_bucket_and_stays),
        WITH_POLLER(tcp_and_unix_socket_reach_the_database_of_the_url),
        WITH_POLLER(database_out_of_range_is_refused),
        WITH_POLLER(wrong_credentials_are_refused_without_showing_the_password),
        WITH_POLLER(rights_of_the_acl_page_suffice),
        WITH_POLLER(each_right_of_the_acl_page_is_needed),
        WITH_POLLER(user_without_script_load_needs_another_to_load),
        WITH_POLLER(changed_rights_apply_to_the_next_decision),
        WITH_POLLER(decision_beyond_max_in_flight_is_overloaded),
        WITH_POLLER(bad_arguments_are_rejected),
        WITH_POLLER(closing_cancels_decisions_in_flight),
        WITH_POLLER(callback_may_close_free_or_run),
        WITH_POLLER(log_may_close_the_store),
        WITH_POLLER(log_may_free_the_throttler),
    };
    return cmocka_run_group_tests_name("redis", tests, group_set_up, group_tear_down);
}
