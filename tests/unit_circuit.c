/* SPDX-License-Identifier: MIT
 * A server that is connected and temporarily makes no decisions: one request at a time probes it until it decides
 * again. */
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

/* Asks once a millisecond for `time`. Returns how many requests the server received. */
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
    assert_int_equal(strncmp(last_error_of(store), word, strlen(word)), 0);
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

static void loading_server_is_probed_until_it_decides(void **state) {
    (void)state;
    check_asked_now_and_then(LOADING, "LOADING");
}

static void busy_server_is_probed_until_it_decides(void **state) {
    (void)state;
    check_asked_now_and_then("-BUSY Redis is busy running a script. You can only call SCRIPT KILL\r\n", "BUSY");
}

static void masterdown_server_is_probed_until_it_decides(void **state) {
    (void)state;
    check_asked_now_and_then("-MASTERDOWN Link with MASTER is down\r\n", "MASTERDOWN");
}

/* A server out of memory refuses some decisions and makes others (a drain, a peek), so it is asked each time. */
static void server_out_of_memory_is_asked_each_time(void **state) {
    struct tally tally = {0};
    (void)state;
    says("EVALSHA", "-OOM command not allowed when used memory > 'maxmemory'.\r\n");
    open_it();
    const unsigned heard = ask_for(100 * MS, &tally);
    assert_int_equal(heard, tally.submitted);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.submitted);
}

/* Requests in flight at the first LOADING have their own replies. One verdict among them shows that the server decides.
 */
static void verdict_behind_loading_in_a_pipeline_closes_the_circuit(void **state) {
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

/* The server lost its script, as after a restart. The probe loads the script, and is decided. */
static void probe_loads_the_missing_script_and_decides(void **state) {
    static const char sha[] = "$40\r\n0123456789012345678901234567890123456789\r\n",
                      gone[] = "-NOSCRIPT No matching.\r\n";
    (void)state;
    says("EVALSHA", VERDICT);
    says("SCRIPT", sha);
    fake_node_says(node, "EVALSHA", gone, strlen(gone), 1);
    fake_node_says(node, "EVALSHA", LOADING, strlen(LOADING), 1);
    open_it();
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE); /* without a request */
    assert_int_equal(fake_node_heard(node, "EVALSHA"), 1);
    run_for(poller, 110 * MS);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(fake_node_heard(node, "EVALSHA"), 3);
    assert_int_equal(fake_node_heard(node, "SCRIPT"), 1);
}

/* A loading server rejects the unknown module command at once. This reply is not a verdict. */
static void unknown_module_command_while_loading_is_no_recovery(void **state) {
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

/* A new connection does not inherit the state of the last one. */
static void new_connection_closes_the_circuit(void **state) {
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
    assert_int_equal(log_lines.lines, 2); /* down and up: the reason is logged once */
}

/* Replies to ROLE while the server makes no decisions do not show that it decides again. */
static void role_replies_while_loading_are_no_recovery(void **state) {
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
    run_for(poller, 1200 * MS); /* the role is asked for meanwhile */
    assert_true(fake_node_heard(node, "ROLE") > 1);
    assert_int_equal(log_lines.lines, 1);
    ask_for(100 * MS, &tally);
    assert_int_equal(log_lines.lines, 1);
    says("EVALSHA", VERDICT);
    run_for(poller, 110 * MS);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(log_lines.lines, 2);
}

/* Refusals are logged twice as well, at their beginning and their end. A server that refuses is not logged as back. */
static void refused_decisions_are_logged_once_until_a_verdict(void **state) {
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
        assert_non_null(strstr(log_lines.last, "the server refuses decisions: "));
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

/* If the server refuses one key and not another, this is logged at most once a second. */
static void alternating_refusals_are_logged_once_a_second(void **state) {
    (void)state;
    open_it();
    refuse_every_other(100);
    assert_int_equal(log_lines.lines, 1);
    run_for(poller, 1100 * MS);
    refuse_every_other(100);
    assert_int_equal(log_lines.lines, 2);
}

/* Refusals do not hide a lost connection from the log. */
static void lost_connection_is_logged_among_refusals(void **state) {
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
    assert_non_null(strstr(log_lines.last, "making decisions again"));
}

/* Until the pause is over, an unanswered probe lets no other request pass. */
static void unanswered_probe_lets_no_other_pass(void **state) {
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

/* After an outage and a recovery, the next loss is like the first: decisions wait for the connection. */
static void decision_after_a_second_loss_waits_for_the_connection(void **state) {
    (void)state;
    says("EVALSHA", VERDICT);
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 1);
    fake_node_says(node, "EVALSHA", VERDICT, strlen(VERDICT), 1);
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 1);
    open_it();
    assert_int_equal(client_ask(), STEADY_UNKNOWN); /* the connection attempt failed */
    run_for(poller, 200 * MS);
    assert_int_equal(client_ask(), 0);
    assert_int_equal(client_ask(), STEADY_UNKNOWN);
    assert_int_equal(client_ask(), 0);
}

static void blocking_calls_probe_a_loading_server_seldom(void **state) {
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

static void store_closed_by_the_log_ends_each_decision_once(void **state) {
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
        cmocka_unit_test_setup_teardown(loading_server_is_probed_until_it_decides, set_up, tear_down),
        cmocka_unit_test_setup_teardown(busy_server_is_probed_until_it_decides, set_up, tear_down),
        cmocka_unit_test_setup_teardown(masterdown_server_is_probed_until_it_decides, set_up, tear_down),
        cmocka_unit_test_setup_teardown(server_out_of_memory_is_asked_each_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(verdict_behind_loading_in_a_pipeline_closes_the_circuit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(probe_loads_the_missing_script_and_decides, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unknown_module_command_while_loading_is_no_recovery, set_up, tear_down),
        cmocka_unit_test_setup_teardown(new_connection_closes_the_circuit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(role_replies_while_loading_are_no_recovery, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refused_decisions_are_logged_once_until_a_verdict, set_up, tear_down),
        cmocka_unit_test_setup_teardown(alternating_refusals_are_logged_once_a_second, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lost_connection_is_logged_among_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unanswered_probe_lets_no_other_pass, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decision_after_a_second_loss_waits_for_the_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(blocking_calls_probe_a_loading_server_seldom, set_up, tear_down),
        cmocka_unit_test_setup_teardown(store_closed_by_the_log_ends_each_decision_once, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
