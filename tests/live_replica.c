/* SPDX-License-Identifier: MIT
 * Peeks sent to a replica: which server answers, and that each peek is answered although the replica fails. */
#include "support.h"

#include <stdlib.h>

#define MS STEADY_MILLISECOND
#define TIMEOUT (100 * MS)
#define PATIENT (10 * STEADY_SECOND) /* the timeout if each peek must have a verdict: only a lost one takes as long */

static struct server primary, replica;
static steady_poller *poller;
static steady_loop loop;
static struct log_lines log_lines;
static steady_store *store;
static steady_throttler *throttler;

static void follow(void) {
    const steady_us until = now_us() + 10 * STEADY_SECOND;
    server_ask(&replica, "REPLICAOF 127.0.0.1 %d", primary.port);
    while (strstr(server_ask(&primary, "ROLE"), "127.0.0.1") == NULL) {
        if (now_us() > until) fail_msg("the replica does not follow: %s", server_ask(&replica, "INFO replication"));
        sleep_us(10 * MS);
    }
}

static int set_up(void **state) {
    (void)state;
    memset(&log_lines, 0, sizeof log_lines);
    server_start(&primary, "--repl-diskless-sync-delay 0");
    server_start(&replica, "--repl-diskless-sync-delay 0");
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    return 0;
}

static void close_all(void) {
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static int tear_down(void **state) {
    (void)state;
    close_all();
    steady_poller_free(&poller);
    server_stop(&replica);
    server_stop(&primary);
    return 0;
}

static void open_with(const char *credentials, const char *query, steady_us timeout) {
    char url[128];
    const steady_store_options options = {
        .loop = &loop, .timeout = timeout, .log = remember_line, .log_data = &log_lines};
    snprintf(url, sizeof url, "redis://%s127.0.0.1:%d%s", credentials, primary.port, query);
    store = open_store(url, &options);
    throttler = new_throttler(store, 1000, HOUR);
}

static void peek_counted(const char *key, struct tally *tally) {
    assert_int_equal(steady_peek(throttler, key, strlen(key), count_result, expect_result(tally)), 0);
}

/* Makes a peek each 2 ms for `time`, then waits for all answers. */
static void peek_for(struct tally *tally, steady_us time) {
    const steady_us until = now_us() + time;
    while (now_us() < until) {
        peek_counted("k", tally);
        run_for(poller, 2 * MS);
    }
    run_until_done(poller, tally, 2 * PATIENT);
}

static long long asked(const struct server *server) { return server_stat(server, "cmdstat_evalsha:calls"); }

/* Waits until the replica is used, at most `limit` and what the machine took away. */
static void await_replica(steady_us limit) {
    const long long before = asked(&replica);
    const steady_us since = now_us(), taken = taken_away();
    struct tally tally = {0};
    while (asked(&replica) == before) {
        if (now_us() - since > limit + slack_since(taken)) fail_msg("no peek at the replica: %s", last_error_of(store));
        peek_for(&tally, 20 * MS);
    }
    assert_int_equal(tally.verdicts, tally.called);
}

static void replica_answers_peeks_and_primary_answers_consumes(void **state) {
    struct tally tally = {0}, peeks = {0};
    (void)state;
    follow();
    open_with("", "?peek=replica", PATIENT);
    await_replica(2 * STEADY_SECOND);
    for (int i = 0; i < 7; i++)
        consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, 2 * PATIENT);
    assert_int_equal(tally.allowed, 7);
    char stored[64];
    snprintf(stored, sizeof stored, "%s", server_ask(&primary, "GET k"));
    for (const steady_us until = now_us() + PATIENT; strcmp(server_ask(&replica, "GET k"), stored) != 0;)
        assert_true(now_us() < until);
    const long long at_primary = asked(&primary), at_replica = asked(&replica);
    for (int i = 0; i < 100; i++)
        peek_counted("k", &peeks);
    run_until_done(poller, &peeks, 2 * PATIENT);
    assert_int_equal(peeks.verdicts, 100);
    assert_int_equal(peeks.last.level, 7);
    assert_int_equal(asked(&primary), at_primary);
    assert_int_equal(asked(&replica), at_replica + 100);
    server_ask(&replica, "SCRIPT FLUSH");
    memset(&peeks, 0, sizeof peeks);
    peek_for(&peeks, 50 * MS);
    assert_int_equal(peeks.verdicts, peeks.called);
    assert_int_equal(asked(&primary), at_primary);
    assert_int_equal(log_lines.lines, 0);
}

static void primary_answers_peeks_if_no_replica_is_known(void **state) {
    static const char *const users[] = {"", "blind:sesame@"};
    (void)state;
    server_ask(&primary, "ACL SETUSER blind on >sesame ~* -@all +evalsha +script|load +get +set +del +time");
    for (size_t i = 0; i < COUNT(users); i++) {
        struct tally tally = {0};
        open_with(users[i], "?peek=replica", PATIENT);
        peek_for(&tally, 300 * MS);
        assert_int_equal(tally.verdicts, tally.called);
        assert_int_equal(log_lines.lines, 0);
        close_all();
        follow(); /* the second user may not ask for the replicas */
    }
    assert_int_equal(asked(&replica), 0);
}

/* Rights are not replicated. A peek that the replica refuses is sent to the primary. */
static void primary_answers_peeks_that_the_replica_refuses(void **state) {
    static const char *const fewer[] = {"-evalsha", "-get", "-script|load -eval"};
    (void)state;
    follow();
    server_ask(&primary, "ACL SETUSER app on >sesame ~* +@all");
    for (size_t i = 0; i < COUNT(fewer); i++) {
        char rights[64];
        struct tally tally = {0};
        server_ask(&replica, "ACL SETUSER app on >sesame ~* +@all");
        open_with("app:sesame@", "?peek=replica", PATIENT);
        await_replica(2 * STEADY_SECOND);
        server_ask(&replica, "SCRIPT FLUSH");
        snprintf(rights, sizeof rights, "ACL SETUSER app %s", fewer[i]);
        assert_string_equal(server_ask(&replica, rights), "OK");
        const long long before = server_stat(&replica, "total_error_replies");
        peek_for(&tally, STEADY_SECOND);
        print_message("# %s: %s\n", fewer[i], last_error_of(store));
        assert_int_equal(tally.verdicts, tally.called);
        assert_between(server_stat(&replica, "total_error_replies") - before, 1, 12);
        server_ask(&replica, "ACL SETUSER app +@all");
        await_replica(2 * STEADY_SECOND);
        close_all();
    }
    assert_int_equal(log_lines.lines, 0);
}

/* The replica is killed under load and restarted. No peek is lost, and nothing is logged, because the primary
 * answers. */
static void replica_restarted_loses_no_peek(void **state) {
    struct tally tally = {0};
    (void)state;
    follow();
    open_with("", "?peek=replica", PATIENT);
    await_replica(2 * STEADY_SECOND);
    for (int i = 0; i < 500; i++)
        peek_counted("k", &tally);
    steady_poller_run(poller, 0);
    server_kill(&replica);
    run_until_done(poller, &tally, 2 * PATIENT);
    peek_for(&tally, 300 * MS);
    assert_int_equal(tally.verdicts, tally.called);
    server_restart(&replica, true);
    follow();
    await_replica(3 * STEADY_SECOND);
    assert_int_equal(log_lines.lines, 0);
}

static void frozen_replica_is_left_after_a_timeout(void **state) {
    struct tally tally = {0}, later = {0};
    (void)state;
    follow();
    open_with("", "?peek=replica", TIMEOUT);
    await_replica(2 * STEADY_SECOND);
    server_freeze(&replica);
    peek_for(&tally, 2 * TIMEOUT);
    assert_true(tally.errors[-STEADY_UNKNOWN] > 0);
    assert_true(tally.slowest < TIMEOUT + SLACK_OF(tally));
    peek_for(&later, STEADY_SECOND);
    print_message("frozen: %lu of %lu peeks lost in the first 200 ms, %lu of %lu in the next second\n",
                  tally.errors[-STEADY_UNKNOWN], tally.called, later.errors[-STEADY_UNKNOWN], later.called);
    assert_true(later.errors[-STEADY_UNKNOWN] <= 1);
    server_thaw(&replica);
}

/* The replica goes on answering without a primary. The store leaves it, because the primary does not list it any
 * more. */
static void replica_cut_off_from_its_primary_is_left(void **state) {
    struct tally tally = {0};
    (void)state;
    follow();
    open_with("", "?peek=replica", PATIENT);
    await_replica(2 * STEADY_SECOND);
    server_ask(&replica, "REPLICAOF NO ONE");
    const steady_us since = now_us(), taken = taken_away();
    long long before;
    do {
        before = asked(&replica);
        peek_for(&tally, 50 * MS);
        assert_true(now_us() - since < 2 * STEADY_SECOND + slack_since(taken));
    } while (asked(&replica) > before);
    print_message("cut off: left after %.0f ms\n", (double)(now_us() - since) / 1e3);
    assert_int_equal(tally.verdicts, tally.called);
    follow();
    await_replica(3 * STEADY_SECOND);
}

/* Peeks go on without the primary. */
static void replica_answers_peeks_without_a_primary(void **state) {
    struct tally tally = {0};
    (void)state;
    follow();
    open_with("", "?peek=replica", PATIENT);
    await_replica(2 * STEADY_SECOND);
    server_kill(&primary);
    peek_for(&tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, tally.called);
}

/* The replica replies that its data may be stale. The primary answers that peek. */
static void stale_replica_sends_peeks_to_the_primary(void **state) {
    struct tally tally = {0};
    (void)state;
    follow();
    open_with("", "?peek=replica", PATIENT);
    await_replica(2 * STEADY_SECOND);
    server_ask(&replica, "CONFIG SET replica-serve-stale-data no");
    server_ask(&replica, "REPLICAOF 127.0.0.1 %d", free_port());
    peek_for(&tally, 500 * MS);
    assert_int_equal(tally.verdicts, tally.called);
}

static void blocking_peek_uses_the_replica(void **state) {
    steady_result r;
    (void)state;
    follow();
    open_with("", "?peek=replica", PATIENT);
    const steady_us until = now_us() + PATIENT;
    while (asked(&replica) == 0) {
        assert_true(now_us() < until);
        assert_int_equal(steady_peek_sync(throttler, "k", 1, &r), 0);
        assert_int_equal(steady_consume_sync(throttler, "k", 1, 0, &r), 0);
    }
    server_kill(&replica);
    for (int i = 0; i < 20; i++)
        assert_int_equal(steady_peek_sync(throttler, "k", 1, &r), 0);
}

/* The callback of a peek closes the store at any moment. */
static void close_store(const steady_result *result, void *data) {
    count_result(result, data);
    close_all();
}

static void store_closed_while_finding_the_replica_ends_each_peek(void **state) {
    (void)state;
    follow();
    for (int i = 0; i < 60; i++) {
        struct tally tally = {0};
        open_with("", "?peek=replica", PATIENT);
        run_for(poller, i * MS / 2);
        peek_counted("k", &tally);
        assert_int_equal(steady_peek(throttler, "k", 1, close_store, expect_result(&tally)), 0);
        run_until_done(poller, &tally, 2 * PATIENT);
        assert_null(store);
    }
}

int main(void) {
#define WITH_REPLICA(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_REPLICA(replica_answers_peeks_and_primary_answers_consumes),
        WITH_REPLICA(primary_answers_peeks_if_no_replica_is_known),
        WITH_REPLICA(replica_restarted_loses_no_peek),
        WITH_REPLICA(frozen_replica_is_left_after_a_timeout),
        WITH_REPLICA(replica_cut_off_from_its_primary_is_left),
        WITH_REPLICA(stale_replica_sends_peeks_to_the_primary),
        WITH_REPLICA(replica_answers_peeks_without_a_primary),
        WITH_REPLICA(blocking_peek_uses_the_replica),
        WITH_REPLICA(store_closed_while_finding_the_replica_ends_each_peek),
        WITH_REPLICA(primary_answers_peeks_that_the_replica_refuses),
    };
    return cmocka_run_group_tests_name("replica", tests, NULL, NULL);
}
