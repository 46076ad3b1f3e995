/* SPDX-License-Identifier: MIT
 * A connection whose server is not the primary, or fails again and again: which requests are sent again, and how often
 * it connects. */
#include "client.h"

#include "fake_node.h"
#include "fake_server.h"

#define TIMEOUT (200 * MS)
#define MASTER "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
#define SLAVE "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:0\r\n"
/* A connection that first asks for the role. */
#define IN_THE_ROLE_OF(role)                                                                                           \
    {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 1, NULL, 0}, { FAKE_SEND, 0, role, 0 }

static struct fake_server *fake;

static int tear_down(void **state) {
    client_close();
    if (fake != NULL) fake_stop(fake);
    fake = NULL;
    return client_tear_down(state);
}

static void open_on(const struct fake_step *steps, size_t count) {
    fake = fake_start(steps, count);
    client_open_at(fake_port(fake), TIMEOUT);
}

/* Two decisions are refused. Each is sent again, once, to a server with the right role. */
static void readonly_decisions_are_sent_again_to_the_primary(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 3, NULL, 0},
        {FAKE_SEND, 0, ":3600000000\r\n-READONLY no\r\n-READONLY no\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        IN_THE_ROLE_OF(MASTER),
        {FAKE_EXPECT, 2, NULL, 0},
        {FAKE_SEND, 0, ":3600000000\r\n:7200000000\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally tally = {0};
    (void)state;
    open_on(steps, COUNT(steps));
    for (int i = 0; i < 3; i++)
        consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 3);
    assert_int_equal(tally.last.level, 2);
    assert_int_equal(log_lines.lines, 2); /* lost, and found */
    steady_store_close(&store);
    assert_int_equal(fake_count(fake, "EVALSHA"), 5);
    assert_int_equal(fake_count(fake, "*1\r\n$4\r\nROLE\r\n"), 1);
}

/* A NOSCRIPT on a draining connection says nothing about the next connection. */
static void noscript_on_a_draining_connection_loads_nothing_on_the_next(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 2, NULL, 0},
        {FAKE_SEND, 0, "-READONLY no\r\n-NOSCRIPT no\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        IN_THE_ROLE_OF(MASTER),
        {FAKE_EXPECT, 2, NULL, 0},
        {FAKE_SEND, 0, ":3600000000\r\n:7200000000\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally tally = {0};
    steady_stats stats;
    (void)state;
    open_on(steps, COUNT(steps));
    for (int i = 0; i < 2; i++)
        consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 2);
    steady_store_stats(store, &stats);
    assert_int_equal(stats.script_loads, 0);
    steady_store_close(&store);
    assert_int_equal(fake_count(fake, "SCRIPT"), 0);
}

/* On an old connection, too, a verdict behind a READONLY does not show that the server is the primary. */
static void verdict_behind_readonly_does_not_confirm_the_primary(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":3600000000\r\n", 0},
        {FAKE_EXPECT, 2, NULL, 0},
        {FAKE_SEND, 0, "-READONLY no\r\n:3600000000\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        IN_THE_ROLE_OF(MASTER),
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":7200000000\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally tally = {0};
    (void)state;
    open_on(steps, COUNT(steps));
    assert_int_equal(client_ask(), 0);
    run_for(poller, STEADY_SECOND + 100 * MS);
    consume_counted(throttler, "k", 1, &tally);
    assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 2);
    steady_store_close(&store);
    assert_int_equal(fake_count(fake, "*1\r\n$4\r\nROLE\r\n"), 1);
}

/* The name leads to the same server, which is a replica now. It gets no decisions, and connections are made with
 * back-off. */
static void replica_is_not_used_and_reconnected_with_back_off(void **state) {
    struct fake_step steps[64] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, "-READONLY no\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    static const struct fake_step replica[] = {
        IN_THE_ROLE_OF(SLAVE),
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    for (size_t i = 4; i < COUNT(steps); i += 4)
        memcpy(&steps[i], replica, sizeof replica);
    open_on(steps, COUNT(steps));
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
    assert_non_null(strstr(last_error_of(store), "not a primary"));
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE); /* at once, without a request */
    run_for(poller, STEADY_SECOND);
    assert_between(client_reconnects(), 3, 10);
    assert_int_equal(log_lines.lines, 1);
    client_close();
    fake_stop(fake);
    fake = NULL;
}

/* Without permission for ROLE, the role is unknown until the first READONLY. Peeks answered in between do not show that
 * the server is the primary. */
static void replica_of_unknown_role_is_reconnected_with_back_off(void **state) {
    struct fake_step steps[6 * 32];
    static const struct fake_step replica[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, "-NOPERM no permissions to run the 'role' command\r\n", 0},
        {FAKE_EXPECT, 2, NULL, 0},
        {FAKE_SEND, 0, ":0\r\n-READONLY no\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally tally = {0};
    (void)state;
    for (size_t i = 0; i < COUNT(steps); i += COUNT(replica))
        memcpy(&steps[i], replica, sizeof replica);
    steps[1].number = 0; /* before the first READONLY, the role is not asked for */
    steps[2].len = 0;
    steps[2].bytes = "";
    open_on(steps, COUNT(steps));
    const steady_us until = now_us() + STEADY_SECOND;
    while (now_us() < until) {
        assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
        consume_counted(throttler, "k", 1, &tally);
        run_for(poller, 10 * MS);
    }
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_between(client_reconnects(), 3, 10);
    assert_int_equal(log_lines.lines, 1);
    assert_true(tally.errors[-STEADY_UNAVAILABLE] > tally.called / 2);
    client_close();
    fake_stop(fake);
    fake = NULL;
}

/* A second without READONLY shows that the server is the primary. */
static void unknown_role_is_trusted_after_a_second_without_readonly(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, "-READONLY no\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, "-ERR unknown command 'ROLE'\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":0\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":0\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    open_on(steps, COUNT(steps));
    assert_int_equal(client_ask(), 0);
    assert_int_equal(log_lines.lines, 1);
    run_for(poller, 1100 * MS);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(log_lines.lines, 2);
    assert_non_null(strstr(log_lines.last, "again"));
}

/* A draining connection that is lost with a reply outstanding is replaced all the same. */
static void stalled_replica_is_replaced_after_the_timeout(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},      {FAKE_EXPECT, 2, NULL, 0}, {FAKE_SEND, 0, "-READONLY no\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0}, {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, MASTER, 0},      {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, ":0\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally tally = {0};
    (void)state;
    open_on(steps, COUNT(steps));
    consume_counted(throttler, "k", 1, &tally);
    consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 1);     /* the request without a reply */
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 1); /* the request that waited for it */
    assert_true(tally.slowest < TIMEOUT + SLACK_OF(tally));
    run_for(poller, 2 * TIMEOUT);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(client_reconnects(), 1);
}

/* After seven failed attempts the next pauses are long. After a reply they are short again, so one more failure costs
 * little time. */
static void back_off_restarts_after_a_reply(void **state) {
    enum { FAILURES = 7, ROUNDS = 4 };
    struct fake_step steps[2 * FAILURES + 6 * ROUNDS];
    static const struct fake_step fails[] = {{FAKE_ACCEPT, 0, NULL, 0}, {FAKE_CLOSE, 0, NULL, 0}};
    static const struct fake_step answers_then_fails[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, ":0\r\n", 0},
        {FAKE_CLOSE, 0, NULL, 0},  {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_CLOSE, 0, NULL, 0},
    };
    steady_us verdicts[ROUNDS], least = INT64_MAX;
    (void)state;
    for (int i = 0; i < FAILURES; i++)
        memcpy(&steps[2 * i], fails, sizeof fails);
    for (int i = 0; i < ROUNDS; i++)
        memcpy(&steps[2 * FAILURES + 6 * i], answers_then_fails, sizeof answers_then_fails);
    const steady_us begin = now_us();
    open_on(steps, COUNT(steps));
    for (int i = 0; i < ROUNDS; i++) {
        while (client_ask() != 0)
            run_for(poller, MS);
        verdicts[i] = now_us();
        if (i > 0 && verdicts[i] - verdicts[i - 1] < least) least = verdicts[i] - verdicts[i - 1];
    }
    print_message("%d failures took %.0f ms; an answer, a failure and an answer %.1f ms at best\n", FAILURES,
                  (double)(verdicts[0] - begin) / 1e3, (double)least / 1e3);
    assert_true(verdicts[0] - begin > 500 * MS);
    assert_true(least < 200 * MS); /* instead of the next pause of 250 to 500 ms */
}

/* A server that calls itself primary and answers READONLY: a proxy may do so. */
static void primary_that_answers_readonly_is_reconnected_with_back_off(void **state) {
    struct fake_node *node = fake_node_start(false);
    struct tally tally = {0};
    (void)state;
    fake_node_says(node, "EVALSHA", "-READONLY no\r\n", 0, 0);
    fake_node_says(node, "ROLE", MASTER, 0, 0);
    client_open_at(fake_node_port(node), 100 * MS);
    for (const steady_us end = now_us() + 2 * STEADY_SECOND; now_us() < end;) {
        consume_counted(throttler, "k", 1, &tally);
        run_for(poller, 10 * MS);
    }
    run_until_done(poller, &tally, STEADY_SECOND);
    print_message("%u connections\n", fake_node_accepted(node));
    assert_between(fake_node_accepted(node), 3, 20);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.submitted);
    fake_node_says(node, "EVALSHA", ":3600000000\r\n", 0, 0);
    for (const steady_us end = now_us() + STEADY_SECOND; client_ask() != 0;) {
        assert_true(now_us() < end);
        run_for(poller, 10 * MS);
    }
    client_close();
    fake_node_stop(node);
}

int main(void) {
#define WITH_POLLER(test) cmocka_unit_test_setup_teardown(test, client_set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_POLLER(readonly_decisions_are_sent_again_to_the_primary),
        WITH_POLLER(noscript_on_a_draining_connection_loads_nothing_on_the_next),
        WITH_POLLER(verdict_behind_readonly_does_not_confirm_the_primary),
        WITH_POLLER(replica_is_not_used_and_reconnected_with_back_off),
        WITH_POLLER(replica_of_unknown_role_is_reconnected_with_back_off),
        WITH_POLLER(unknown_role_is_trusted_after_a_second_without_readonly),
        WITH_POLLER(stalled_replica_is_replaced_after_the_timeout),
        WITH_POLLER(back_off_restarts_after_a_reply),
        WITH_POLLER(primary_that_answers_readonly_is_reconnected_with_back_off),
    };
    return cmocka_run_group_tests_name("failover", tests, NULL, NULL);
}
