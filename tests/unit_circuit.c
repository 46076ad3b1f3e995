/* SPDX-License-Identifier: MIT
 * A server that is connected and decides nothing for now: it is asked now and then, by one, until it decides again. */
#include "client.h"

#include "fake_node.h"

#define TIMEOUT (500 * MS)
#define PROBES_A_SECOND 20
#define VERDICT ":3600000000\r\n"
#define LOADING "-LOADING Redis is loading the dataset in memory\r\n"

static struct fake_node *node;

static int set_up(void **state) {
    node = fake_node_start(false);
    return client_set_up(state);
}

static int tear_down(void **state) {
    client_close();
    fake_node_stop(node);
    return client_tear_down(state);
}

static void open_it(void) { client_open_at(fake_node_port(node), TIMEOUT); }

static void says(const char *word, const char *reply) { fake_node_says(node, word, reply, strlen(reply), 0); }

/* One decision each millisecond, for a time; how many the server heard of. */
static unsigned ask_for(steady_us time, struct tally *tally) {
    const unsigned before = fake_node_heard(node, "EVALSHA");
    for (const steady_us end = now_us() + time; now_us() < end;) {
        consume_counted(throttler, "k", 1, tally);
        run_for(poller, MS);
    }
    run_until_done(poller, tally, STEADY_SECOND);
    return fake_node_heard(node, "EVALSHA") - before;
}

static void check_asked_now_and_then(const char *refusal, const char *word) {
    struct tally tally = {0};
    says("EVALSHA", VERDICT);
    open_it();
    assert_int_equal(client_ask(), 0);
    says("EVALSHA", refusal);
    const steady_us begin = now_us();
    const unsigned heard = ask_for(STEADY_SECOND, &tally);
    const steady_us time = now_us() - begin;
    assert_between(heard, 2, 2 + PROBES_A_SECOND * time / STEADY_SECOND);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.submitted);
    assert_int_equal(strncmp(steady_store_trouble(store), word, strlen(word)), 0);
    assert_int_equal(log_lines.lines, 1);
    assert_non_null(strstr(log_lines.last, word));

    says("EVALSHA", VERDICT);
    for (const steady_us end = now_us() + STEADY_SECOND; client_ask() != 0;) {
        assert_true(now_us() < end);
        run_for(poller, MS);
    }
    assert_int_equal(log_lines.lines, 2);
    struct tally after = {0};
    ask_for(20 * MS, &after);
    assert_int_equal(after.verdicts, after.submitted);
    assert_int_equal(client_reconnects(), 0);
}

static void test_loading(void **state) {
    (void)state;
    check_asked_now_and_then(LOADING, "LOADING");
}

static void test_busy(void **state) {
    (void)state;
    check_asked_now_and_then("-BUSY Redis is busy running a script. You can only call SCRIPT KILL\r\n", "BUSY");
}

static void test_master_down(void **state) {
    (void)state;
    check_asked_now_and_then("-MASTERDOWN Link with MASTER is down\r\n", "MASTERDOWN");
}

/* A full server refuses some and takes others (a drain, a peek): it is asked each time. */
static void test_full_is_asked_each_time(void **state) {
    struct tally tally = {0};
    (void)state;
    says("EVALSHA", "-OOM command not allowed when used memory > 'maxmemory'.\r\n");
    open_it();
    const unsigned heard = ask_for(100 * MS, &tally);
    assert_int_equal(heard, tally.submitted);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.submitted);
}

/* Those on their way when the first refusal comes have their own answers, and one verdict among them is enough. */
static void test_pipelined(void **state) {
    struct tally tally = {0};
    (void)state;
    says("EVALSHA", VERDICT);
    fake_node_says(node, "EVALSHA", LOADING, strlen(LOADING), 10);
    open_it();
    for (int i = 0; i < 20; i++)
        consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 10);
    assert_int_equal(tally.verdicts, 10);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(log_lines.lines, 2);
}

/* The probe finds the script gone, as after any restart: it is loaded, and the probe decided. */
static void test_probe_loads_the_script(void **state) {
    static const char sha[] = "$40\r\n0123456789012345678901234567890123456789\r\n",
                      gone[] = "-NOSCRIPT No matching.\r\n";
    (void)state;
    says("EVALSHA", VERDICT);
    says("SCRIPT", sha);
    fake_node_says(node, "EVALSHA", gone, strlen(gone), 1);
    fake_node_says(node, "EVALSHA", LOADING, strlen(LOADING), 1);
    open_it();
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE); /* without asking */
    assert_int_equal(fake_node_heard(node, "EVALSHA"), 1);
    run_for(poller, 110 * MS);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(fake_node_heard(node, "EVALSHA"), 3);
    assert_int_equal(fake_node_heard(node, "SCRIPT"), 1);
}

/* A server that is loading says at once that it knows no such command, and that is no decision. */
static void test_loading_without_the_module(void **state) {
    char url[64];
    (void)state;
    says("STEADY.CONSUME", "-ERR unknown command 'STEADY.CONSUME'\r\n");
    says("EVALSHA", LOADING);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_node_port(node));
    client_open_with(url, (steady_store_options){.timeout = TIMEOUT});
    for (int round = 0; round < 3; round++) {
        assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
        fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 1);
        run_for(poller, 110 * MS);
        assert_int_equal(client_ask(), STEADY_UNKNOWN); /* the probe */
        run_for(poller, 50 * MS);
    }
    assert_int_equal(log_lines.lines, 1);
    says("EVALSHA", VERDICT);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(log_lines.lines, 2);
}

/* A connection made anew says nothing of the one before. */
static void test_new_connection_begins_anew(void **state) {
    (void)state;
    says("EVALSHA", VERDICT);
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 1);
    fake_node_says(node, "EVALSHA", LOADING, strlen(LOADING), 1);
    open_it();
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
    run_for(poller, 110 * MS);
    assert_int_equal(client_ask(), STEADY_UNKNOWN);
    run_for(poller, 50 * MS);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(log_lines.lines, 2); /* away, and back: what kept it away meanwhile is told once */
}

/* Questions are answered while it decides nothing: that is no news. */
static void test_answers_that_are_no_decisions(void **state) {
    char url[64];
    struct tally tally = {0};
    (void)state;
    says("EVALSHA", VERDICT);
    says("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    snprintf(url, sizeof url, "redis://127.0.0.1:%d?peek=replica", fake_node_port(node));
    client_open(url, TIMEOUT);
    assert_int_equal(client_ask(), 0);
    fake_node_says(node, "EVALSHA", LOADING, strlen(LOADING), 0);
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 1);
    assert_int_equal(client_ask(), STEADY_UNKNOWN);
    run_for(poller, 1200 * MS); /* in which it is asked for its role */
    assert_true(fake_node_heard(node, "ROLE") > 1);
    assert_int_equal(log_lines.lines, 1);
    ask_for(100 * MS, &tally);
    assert_int_equal(log_lines.lines, 1);
    says("EVALSHA", VERDICT);
    run_for(poller, 110 * MS);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(log_lines.lines, 2);
}

/* Also of what is refused the log hears twice, and not that a server that refuses is back. */
static void test_refused(void **state) {
    static const char *const refusals[] = {"-OOM command not allowed\r\n", "-NOPERM no\r\n", "-NOAUTH no\r\n"};
    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        struct tally tally = {0};
        memset(&log_lines, 0, sizeof log_lines);
        says("EVALSHA", refusals[i]);
        open_it();
        ask_for(100 * MS, &tally);
        assert_int_equal(tally.verdicts, 0);
        assert_int_equal(log_lines.lines, 1);
        assert_int_equal(log_lines.warnings, 1);
        assert_non_null(strstr(log_lines.last, "decisions are refused: "));
        fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 1);
        ask_for(300 * MS, &tally);
        assert_int_equal(log_lines.lines, 1);
        says("EVALSHA", VERDICT);
        run_for(poller, 1100 * MS);
        assert_int_equal(client_ask(), 0);
        assert_int_equal(log_lines.lines, 2);
        client_close();
    }
}

static void refuse_every_other(int times) {
    for (int i = 0; i < times; i++) {
        fake_node_says_nothing_more(node);
        says("EVALSHA", i % 2 == 0 ? VERDICT : "-NOPERM no\r\n");
        assert_int_equal(client_ask(), i % 2 == 0 ? 0 : STEADY_REFUSED);
    }
}

/* Where one key is refused and another is not, the log hears of it once in a long while. */
static void test_refused_now_and_then(void **state) {
    (void)state;
    open_it();
    refuse_every_other(100);
    assert_int_equal(log_lines.lines, 1);
    run_for(poller, 1100 * MS);
    refuse_every_other(100);
    assert_int_equal(log_lines.lines, 2);
}

/* Nor do refusals hide from the log that the server is lost. */
static void test_lost_while_some_are_refused(void **state) {
    (void)state;
    open_it();
    refuse_every_other(11);
    assert_int_equal(log_lines.lines, 1);
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 1);
    client_ask();
    assert_int_equal(log_lines.lines, 2);
    assert_non_null(strstr(log_lines.last, "connection lost"));
    says("EVALSHA", VERDICT);
    run_for(poller, 200 * MS);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(log_lines.lines, 3);
    assert_non_null(strstr(log_lines.last, "answering again"));
}

/* A probe that is not answered lets no other pass before its time. */
static void test_probe_without_an_answer(void **state) {
    struct tally tally = {0};
    (void)state;
    fake_node_says(node, "EVALSHA", FAKE_SILENCE, 0, 0);
    fake_node_says(node, "EVALSHA", LOADING, strlen(LOADING), 1);
    open_it();
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
    const steady_us begin = now_us();
    ask_for(300 * MS, &tally);
    const steady_us time = now_us() - begin;
    assert_between(tally.errors[-STEADY_UNKNOWN], 1, 2 + PROBES_A_SECOND * time / STEADY_SECOND);
}

/* After an outage the next loss is one of a server that was there: what is asked meanwhile waits. */
static void test_lost_after_an_outage(void **state) {
    (void)state;
    says("EVALSHA", VERDICT);
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 1);
    fake_node_says(node, "EVALSHA", VERDICT, strlen(VERDICT), 1);
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 1);
    open_it();
    assert_int_equal(client_ask(), STEADY_UNKNOWN); /* an attempt that came to nothing */
    run_for(poller, 200 * MS);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(client_ask(), STEADY_UNKNOWN);
    assert_int_equal(client_ask(), 0);
}

static void test_blocking_calls(void **state) {
    steady_result r;
    (void)state;
    says("EVALSHA", LOADING);
    open_it();
    for (int i = 0; i < 50; i++)
        assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), STEADY_UNAVAILABLE);
    assert_between(fake_node_heard(node, "EVALSHA"), 1, 5);
    says("EVALSHA", VERDICT);
    sleep_us(110 * MS);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), 0);
}

static void close_it(void *data, enum steady_log_level level, const char *text) {
    (void)data;
    (void)level;
    (void)text;
    steady_store_close(&store);
}

static void test_closed_by_the_log(void **state) {
    struct tally tally = {0};
    char url[64];
    (void)state;
    says("EVALSHA", LOADING);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_node_port(node));
    client_open_with(url, (steady_store_options){.engine = STEADY_ENGINE_SCRIPT, .log = close_it});
    consume_counted(throttler, "k", 1, &tally);
    consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.called, 2);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE] + tally.errors[-STEADY_CANCELLED], 2);
    assert_null(store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_loading, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_busy, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_master_down, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_full_is_asked_each_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pipelined, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_probe_loads_the_script, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_loading_without_the_module, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_new_connection_begins_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_answers_that_are_no_decisions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused_now_and_then, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lost_while_some_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_probe_without_an_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lost_after_an_outage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_blocking_calls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_closed_by_the_log, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
