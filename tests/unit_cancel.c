/* SPDX-License-Identifier: MIT
 * The long form of a decision, and ending one by its id: on a server, and in an embedded store. */
#include "client.h"

#include <pthread.h>

#include "fake_node.h"

#define VERDICT ":3600000000\r\n"

static struct fake_node *node;
static const char *stores[] = {"redis", "memory:"};
static const steady_call one = {.verb = STEADY_CONSUME, .key = "k", .key_len = 1, .amount = 1};

static int set_up(void **state) {
    node = fake_node_start(false);
    fake_node_says(node, "EVALSHA", VERDICT, strlen(VERDICT), 0);
    return client_set_up(state);
}

static int tear_down(void **state) {
    client_close();
    fake_node_stop(node);
    return client_tear_down(state);
}

static void open_it(const char *which) {
    client_close();
    if (strcmp(which, "redis") != 0)
        client_open(which, STEADY_SECOND);
    else
        client_open_at(fake_node_port(node), STEADY_SECOND);
}

/* Waits for so many callbacks, and a little for one too many. */
static void await_answers(const int *answers, int count) {
    for (const steady_us until = now_us() + 5 * STEADY_SECOND; *answers < count && now_us() < until;)
        run_for(poller, MS);
    run_for(poller, 20 * MS);
    assert_int_equal(*answers, count);
}

static void never(const steady_result *result, void *data) {
    (void)result;
    (void)data;
    fail_msg("a cancelled decision called back");
}

static void count(const steady_result *result, void *data) {
    (void)result;
    ++*(int *)data;
}

static uint64_t start(steady_callback callback, void *data) {
    uint64_t id = 0;
    assert_int_equal(steady_decide(throttler, &one, callback, data, &id), 0);
    assert_true(id != 0);
    return id;
}

static void assert_all_counted(uint64_t decisions) {
    steady_stats stats;
    steady_store_stats(store, &stats);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.decisions, decisions);
    assert_int_equal(stats.allowed + stats.denied + stats.unavailable + stats.unknown, decisions);
}

static void cancelled_decision_runs_no_callback(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(stores); i++) {
        int answers = 0;
        open_it(stores[i]);
        client_ask(); /* now it is connected, so the next one is on the wire */
        const uint64_t first = start(never, NULL), second = start(count, &answers), third = start(never, NULL);
        assert_int_equal(steady_cancel(throttler, third), 0);
        assert_int_equal(steady_cancel(throttler, first), 0);
        assert_true(first != second && second != third);
        await_answers(&answers, 1);
        assert_int_equal(client_ask(), 0); /* its reply is its own, not that of a cancelled one */
        assert_all_counted(5);
    }
}

static void decision_cancelled_before_it_is_sent_is_not_sent(void **state) {
    steady_stats stats;
    (void)state;
    open_it("redis");
    assert_int_equal(steady_cancel(throttler, start(never, NULL)), 0);
    run_for(poller, 50 * MS);
    assert_int_equal(fake_node_heard(node, ""), 0);
    steady_store_stats(store, &stats);
    assert_int_equal(stats.unavailable, 1);
    assert_all_counted(1);
}

static void old_id_is_not_in_flight(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(stores); i++) {
        int answers = 0;
        open_it(stores[i]);
        const uint64_t old = start(count, &answers), twice = start(never, NULL);
        assert_int_equal(steady_cancel(throttler, twice), 0);
        assert_int_equal(steady_cancel(throttler, twice), STEADY_NOT_IN_FLIGHT);
        await_answers(&answers, 1);
        assert_int_equal(steady_cancel(throttler, old), STEADY_NOT_IN_FLIGHT);
        const uint64_t none[] = {0, 1000, UINT64_MAX, old + 1};
        for (size_t n = 0; n < COUNT(none); n++)
            assert_int_equal(steady_cancel(throttler, none[n]), STEADY_NOT_IN_FLIGHT);
        /* New decisions use the place of the old ones. */
        start(count, &answers);
        start(count, &answers);
        assert_int_equal(steady_cancel(throttler, old), STEADY_NOT_IN_FLIGHT);
        assert_int_equal(steady_cancel(throttler, twice), STEADY_NOT_IN_FLIGHT);
        await_answers(&answers, 3);
    }
}

static uint64_t others[3];

static void cancel_the_others(const steady_result *result, void *data) {
    (void)result;
    for (size_t i = 0; i < COUNT(others); i++)
        assert_int_equal(steady_cancel(throttler, others[i]), i == 1 ? STEADY_NOT_IN_FLIGHT : 0);
    ++*(int *)data;
}

static void decisions_are_cancelled_inside_a_callback(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(stores); i++) {
        int answers = 0;
        open_it(stores[i]);
        client_ask();
        others[1] = start(cancel_the_others, &answers);
        others[0] = start(never, NULL);
        others[2] = start(never, NULL);
        start(count, &answers);
        await_answers(&answers, 2);
        assert_all_counted(5);
    }
}

static void close_does_not_call_back_what_a_callback_cancels(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(stores); i++) {
        int answers = 0;
        open_it(stores[i]);
        client_ask();
        others[1] = start(cancel_the_others, &answers);
        others[0] = start(never, NULL);
        others[2] = start(never, NULL);
        steady_store_close(&store);
        assert_int_equal(answers, 1);
        assert_int_equal(steady_cancel(throttler, others[0]), STEADY_NOT_IN_FLIGHT);
    }
}

static void many_are_cancelled_in_any_order(void **state) {
    enum { MANY = 1000 };
    static uint64_t ids[MANY];
    (void)state;
    for (size_t i = 0; i < COUNT(stores); i++) {
        int answers = 0;
        open_it(stores[i]);
        for (int n = 0; n < MANY; n++)
            ids[n] = start(n % 3 == 0 ? count : never, &answers);
        for (int n = 1; n < MANY; n++) {
            const int at = n * 7 % MANY;
            if (at % 3 != 0) assert_int_equal(steady_cancel(throttler, ids[at]), 0);
        }
        await_answers(&answers, 334);
        assert_all_counted(MANY);
    }
}

static void *cancel_elsewhere(void *arg) {
    *(int *)arg = steady_cancel(throttler, 1);
    return NULL;
}

static void cancel_checks_its_arguments(void **state) {
    pthread_t thread;
    int error = 0;
    (void)state;
    open_it("memory:");
    assert_int_equal(steady_cancel(NULL, 1), STEADY_BAD_ARGUMENT);
    assert_int_equal(pthread_create(&thread, NULL, cancel_elsewhere, &error), 0);
    pthread_join(thread, NULL);
    assert_int_equal(error, STEADY_WRONG_THREAD);
}

/* ---- steady_expire ---- */

static void note(const steady_result *result, void *data) { *(steady_result *)data = *result; }

static steady_result expired_with(enum steady_policy policy, enum steady_kind kind) {
    const steady_limit limit = {.max_capacity = 1, .drop_recharge = 3600 * STEADY_SECOND};
    const steady_throttler_options options = {.on_error = policy};
    const steady_how how = {.reserve = kind != STEADY_TAKE};
    const steady_call call = {.verb = STEADY_CONSUME, .key = "k", .key_len = 1, .amount = 1, .kind = kind, .how = &how};
    steady_result got = {.retry_after = 77};
    steady_throttler *its = NULL;
    uint64_t id = 0;
    assert_int_equal(steady_throttler_new(&its, store, &limit, &options, NULL), 0);
    assert_int_equal(steady_decide(its, &call, note, &got, &id), 0);
    run_for(poller, 50 * MS);
    assert_int_equal(steady_expire(throttler, id), 0); /* any throttler of the store */
    assert_int_equal(steady_expire(its, id), 0);       /* it is ending already */
    assert_int_equal(got.retry_after, 77);
    run_for(poller, 50 * MS);
    assert_int_equal(steady_expire(its, id), STEADY_NOT_IN_FLIGHT);
    steady_throttler_free(&its);
    return got;
}

static void expired_decision_is_answered_by_its_policy(void **state) {
    (void)state;
    open_it("redis");
    assert_int_equal(client_ask(), 0);
    fake_node_says(node, "EVALSHA", FAKE_SILENCE, 0, 0);
    steady_result r = expired_with(STEADY_REPORT, STEADY_TAKE);
    assert_true(r.error == STEADY_UNKNOWN && r.source == STEADY_FROM_NOWHERE && !r.success);
    r = expired_with(STEADY_ALLOW, STEADY_TAKE);
    assert_true(r.error == STEADY_UNKNOWN && r.source == STEADY_FROM_POLICY && r.success);
    r = expired_with(STEADY_DENY, STEADY_LOOK);
    assert_true(r.error == STEADY_UNKNOWN && r.source == STEADY_FROM_POLICY && !r.success);
    r = expired_with(STEADY_LOCAL, STEADY_TAKE);
    assert_true(r.error == STEADY_UNKNOWN && r.source == STEADY_FROM_LOCAL && r.success && r.level == 1);
    r = expired_with(STEADY_LOCAL, STEADY_TAKE);
    assert_true(r.source == STEADY_FROM_LOCAL && !r.success && r.retry_after > 3500 * STEADY_SECOND);
    steady_stats stats;
    steady_store_stats(store, &stats);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.unknown, 5);
    assert_int_equal(stats.timeouts, 5);
}

static void late_reply_of_an_expired_decision_is_not_that_of_the_next(void **state) {
    int answers = 0;
    (void)state;
    open_it("redis");
    assert_int_equal(client_ask(), 0);
    fake_node_is_slow(node, "EVALSHA", 100 * MS);
    const uint64_t first = start(count, &answers);
    run_for(poller, 20 * MS);
    assert_int_equal(steady_expire(throttler, first), 0);
    await_answers(&answers, 1);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(answers, 1);
    assert_all_counted(3);
}

static void decision_that_was_not_sent_expires_as_unavailable(void **state) {
    steady_result r = {0};
    uint64_t id = 0;
    (void)state;
    open_it("redis");
    assert_int_equal(steady_decide(throttler, &one, note, &r, &id), 0);
    assert_int_equal(steady_expire(throttler, id), 0);
    run_for(poller, 50 * MS);
    assert_int_equal(r.error, STEADY_UNAVAILABLE);
    assert_int_equal(fake_node_heard(node, "EVALSHA"), 0);
}

static void expired_decision_that_is_cancelled_runs_no_callback(void **state) {
    (void)state;
    open_it("redis");
    const uint64_t id = start(never, NULL);
    assert_int_equal(steady_expire(throttler, id), 0);
    assert_int_equal(steady_cancel(throttler, id), 0);
    run_for(poller, 50 * MS);
    assert_all_counted(1);
}

static void expired_decision_is_told_once_if_the_store_closes(void **state) {
    int answers = 0;
    (void)state;
    open_it("redis");
    assert_int_equal(steady_expire(throttler, start(count, &answers)), 0);
    steady_store_close(&store);
    assert_int_equal(answers, 1);
}

static uint64_t expiring;

static void expire_the_other(const steady_result *result, void *data) {
    (void)result;
    assert_int_equal(steady_expire(throttler, expiring), 0);
    ++*(int *)data;
}

static void decision_expires_inside_a_callback(void **state) {
    int answers = 0;
    (void)state;
    open_it("redis");
    assert_int_equal(client_ask(), 0);
    start(expire_the_other, &answers);
    expiring = start(count, &answers);
    await_answers(&answers, 2);
    assert_all_counted(3);
}

static void embedded_store_has_its_verdict_already(void **state) {
    steady_result r = {0};
    uint64_t id = 0;
    (void)state;
    open_it("memory:");
    assert_int_equal(steady_decide(throttler, &one, note, &r, &id), 0);
    assert_int_equal(steady_expire(throttler, id), 0);
    run_for(poller, 50 * MS);
    assert_true(r.success && r.error == 0);
    assert_int_equal(steady_expire(NULL, id), STEADY_BAD_ARGUMENT);
}

static void long_form_decides_as_the_short_forms(void **state) {
    steady_call call = one;
    steady_result r;
    int answers = 0;
    (void)state;
    open_it("memory:");
    call.amount = 3;
    assert_int_equal(steady_decide_sync(throttler, &call, &r), 0);
    assert_int_equal(r.level, 3);
    call.verb = STEADY_PEEK;
    assert_int_equal(steady_decide_sync(throttler, &call, &r), 0);
    assert_int_equal(r.level, 3);
    call.verb = STEADY_RESET;
    assert_int_equal(steady_decide(throttler, &call, count, &answers, NULL), 0);
    await_answers(&answers, 1);
    assert_int_equal(steady_peek_sync(throttler, "k", 1, &r), 0);
    assert_int_equal(r.level, 0);

    uint64_t id = 7;
    call.verb = (enum steady_verb)3;
    assert_int_equal(steady_decide(throttler, &call, never, NULL, &id), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_decide(throttler, NULL, never, NULL, &id), STEADY_BAD_ARGUMENT);
    for (size_t i = 0; i < COUNT(one.reserved); i++) {
        call = one;
        call.reserved[i] = 1;
        assert_int_equal(steady_decide(throttler, &call, never, NULL, &id), STEADY_BAD_ARGUMENT);
        assert_int_equal(steady_decide_sync(throttler, &call, &r), STEADY_BAD_ARGUMENT);
        assert_int_equal(r.error, STEADY_BAD_ARGUMENT);
    }
    assert_int_equal(id, 7);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(cancelled_decision_runs_no_callback),
        TEST(decision_cancelled_before_it_is_sent_is_not_sent),
        TEST(expired_decision_is_answered_by_its_policy),
        TEST(late_reply_of_an_expired_decision_is_not_that_of_the_next),
        TEST(decision_that_was_not_sent_expires_as_unavailable),
        TEST(expired_decision_that_is_cancelled_runs_no_callback),
        TEST(expired_decision_is_told_once_if_the_store_closes),
        TEST(decision_expires_inside_a_callback),
        TEST(embedded_store_has_its_verdict_already),
        TEST(old_id_is_not_in_flight),
        TEST(decisions_are_cancelled_inside_a_callback),
        TEST(close_does_not_call_back_what_a_callback_cancels),
        TEST(many_are_cancelled_in_any_order),
        TEST(cancel_checks_its_arguments),
        TEST(long_form_decides_as_the_short_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
