/* SPDX-License-Identifier: MIT
 * Callbacks of decisions and of the log that run the loop: each waiting decision ends there, once. */
#include "client.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_node.h"
#include "stages.h"

#define TIMEOUT (60 * MS)
#define VERDICT ":3600000000\r\n"

static struct fake_node *node;
static unsigned called[3];
static int errors[3];
static steady_us ended_at[3];

static int set_up(void **state) {
    memset(called, 0, sizeof called);
    memset(ended_at, 0, sizeof ended_at);
    node = fake_node_start(false);
    return client_set_up(state);
}

static int tear_down(void **state) {
    client_close();
    fake_node_stop(node);
    return client_tear_down(state);
}

static void open_at(int port, void (*log)(void *data, enum steady_log_level level, const char *text)) {
    char url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", port);
    client_open_with(url, (steady_store_options){.timeout = TIMEOUT, .engine = STEADY_ENGINE_SCRIPT, .log = log});
}

static void ended(const steady_result *result, void *data) {
    const size_t i = (size_t)((unsigned *)data - called);
    called[i]++;
    errors[i] = result->error;
    ended_at[i] = now_us();
}

static void ended_and_waits(const steady_result *result, void *data) {
    ended(result, data);
    run_for(poller, 2 * TIMEOUT);
}

static void ask(unsigned i, void (*callback)(const steady_result *result, void *data)) {
    assert_int_equal(steady_consume(throttler, "k", 1, 1, callback, &called[i]), 0);
}

static void assert_each_ended_once(void) {
    steady_stats stats;
    run_for(poller, 2 * TIMEOUT);
    for (int i = 0; i < 3; i++)
        assert_int_equal(called[i], 1);
    steady_store_stats(store, &stats);
    assert_int_equal(stats.in_flight, 0);
}

/* Sends three requests in one write, behind one that is in flight. Waits until the server has received `heard`
 * requests. */
static void ask_three(void (*callback)(const steady_result *result, void *data), unsigned heard) {
    static struct tally first;
    first = (struct tally){0};
    consume_counted(throttler, "k", 1, &first);
    ask(0, callback);
    ask(1, ended);
    ask(2, ended);
    steady_poller_run(poller, 0);
    for (int i = 0; i < 1000 && fake_node_heard(node, "EVALSHA") < heard; i++)
        sleep_us(MS);
    sleep_us(10 * MS); /* so that all replies are read at once */
}

/* A request that was written and lost is unknown, also if its deadline passes before its callback runs. */
static void lost_requests_past_their_deadline_are_unknown_once(void **state) {
    (void)state;
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 0);
    fake_node_says(node, "EVALSHA", VERDICT, 0, 1);
    open_at(fake_node_port(node), NULL);
    run_for(poller, 20 * MS);
    ask_three(ended_and_waits, 2);
    assert_each_ended_once();
    for (int i = 0; i < 3; i++)
        assert_int_equal(errors[i], STEADY_UNKNOWN);
}

/* After one surplus reply, no reply can be matched to a request, in any turn of the loop. */
static void requests_behind_a_surplus_reply_are_unknown(void **state) {
    (void)state;
    fake_node_says(node, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(node, "EVALSHA", "$5\r\nhello\r\n" VERDICT, 0, 1);
    fake_node_says(node, "EVALSHA", VERDICT, 0, 1);
    open_at(fake_node_port(node), NULL);
    run_for(poller, 20 * MS);
    ask_three(ended_and_waits, 4);
    assert_each_ended_once();
    for (int i = 0; i < 3; i++)
        assert_int_equal(errors[i], STEADY_UNKNOWN);
}

static struct tally inner;

static void asks_and_awaits(const steady_result *result, void *data) {
    ended(result, data);
    inner = (struct tally){0};
    consume_counted(throttler, "k", 1, &inner);
    run_until_done(poller, &inner, STEADY_SECOND);
}

/* The decision is asked while replies to others have been received but not read. */
static void decision_asked_in_a_callback_is_answered_before_unread_replies(void **state) {
    (void)state;
    fake_node_says(node, "EVALSHA", VERDICT, 0, 0);
    client_open_at(fake_node_port(node), 5 * STEADY_SECOND);
    run_for(poller, 20 * MS);
    ask_three(asks_and_awaits, 4);
    assert_each_ended_once();
    for (int i = 0; i < 3; i++)
        assert_int_equal(errors[i], 0);
    assert_int_equal(inner.verdicts, 1);
    assert_true(inner.slowest < STEADY_SECOND);
}

static steady_us waited;

static void awaits_the_next(const steady_result *result, void *data) {
    ended(result, data);
    const steady_us since = now_us();
    while (called[1] == 0 && now_us() < since + 5 * STEADY_SECOND)
        run_for(poller, MS);
    waited = now_us() - since;
}

/* The callback of a reply waits for another reply in the same buffer. */
static void callback_can_wait_for_the_next_reply_in_the_buffer(void **state) {
    (void)state;
    fake_node_says(node, "EVALSHA", VERDICT, 0, 0);
    client_open_at(fake_node_port(node), 2 * STEADY_SECOND);
    run_for(poller, 20 * MS);
    ask_three(awaits_the_next, 4);
    assert_each_ended_once();
    for (int i = 0; i < 3; i++)
        assert_int_equal(errors[i], 0);
    assert_true(waited < STEADY_SECOND);
}

/* The callback of a lost request waits for another one that was lost with it. */
static void callback_of_a_lost_request_can_wait_for_the_next_lost_one(void **state) {
    (void)state;
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 0);
    fake_node_says(node, "EVALSHA", VERDICT, 0, 1);
    client_open_at(fake_node_port(node), 2 * STEADY_SECOND);
    run_for(poller, 20 * MS);
    ask_three(awaits_the_next, 2);
    assert_each_ended_once();
    for (int i = 0; i < 3; i++)
        assert_int_equal(errors[i], STEADY_UNKNOWN);
    assert_true(waited < STEADY_SECOND);
}

static const struct stage *stage;

static void takes_a_deadline(const steady_result *result, void *data) {
    ended(result, data);
    sleep_us(2 * TIMEOUT);
    stage->turn(loop.loop);
}

/* A reply that was received before the deadline counts, even if it is read later, in any order of timers and
 * descriptors. */
static void reply_unread_at_the_deadline_still_counts(void **state) {
    const steady_loop own = loop;
    (void)state;
    fake_node_says(node, "EVALSHA", VERDICT, 0, 0);
    for (int i = 0; i < STAGES; i++) {
        struct tally tally = {0};
        const unsigned heard = fake_node_heard(node, "EVALSHA");
        stage = stages[i];
        loop = stage->make();
        memset(called, 0, sizeof called);
        open_at(fake_node_port(node), NULL);
        consume_counted(throttler, "k", 1, &tally);
        while (tally.called == 0)
            stage->turn(loop.loop);
        consume_counted(throttler, "k", 1, &tally); /* sent alone */
        ask(0, takes_a_deadline);
        ask(1, ended);
        ask(2, ended);
        while (fake_node_heard(node, "EVALSHA") < heard + 5)
            stage->turn(loop.loop);
        sleep_us(10 * MS);
        while (called[0] + called[1] + called[2] < 3)
            stage->turn(loop.loop);
        for (int n = 0; n < 3; n++) {
            assert_int_equal(called[n], 1);
            assert_int_equal(errors[n], 0);
        }
        client_close();
        for (int n = 0; n < 3; n++)
            assert_int_equal(called[n], 1); /* and not once more at close */
        assert_true(stage->leave(loop.loop));
    }
    loop = own;
}

static void reconnects_and_asks(const steady_result *result, void *data) {
    ended(result, data);
    for (int i = 0; i < 200 && fake_node_accepted(node) < 2; i++)
        run_for(poller, 10 * MS);
    run_for(poller, 20 * MS);
    ask(1, ended);
    ask(2, ended);
}

/* A decision asked after a reconnection does not end like the decisions of the lost connection. */
static void decision_after_a_reconnection_does_not_end_with_the_lost_ones(void **state) {
    (void)state;
    fake_node_says(node, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 1);
    open_at(fake_node_port(node), NULL);
    run_for(poller, 20 * MS);
    ask(0, reconnects_and_asks);
    run_for(poller, 100 * MS);
    assert_each_ended_once();
    assert_int_equal(errors[0], STEADY_UNKNOWN);
    assert_int_equal(errors[1], 0);
    assert_int_equal(errors[2], 0);
}

static void asks_and_waits(const steady_result *result, void *data) {
    ended(result, data);
    ask(2, ended);
    run_for(poller, 10 * MS);
}

/* The server is known to be down: each decision ends in the next turn, also in a nested one. */
static void decisions_without_a_server_end_once_in_nested_turns(void **state) {
    (void)state;
    open_at(free_port(), NULL);
    run_for(poller, 50 * MS);
    ask(0, asks_and_waits);
    ask(1, ended);
    assert_each_ended_once();
    for (int i = 0; i < 3; i++)
        assert_int_equal(errors[i], STEADY_UNAVAILABLE);
}

static void closes(const steady_result *result, void *data) {
    ended(result, data);
    steady_store_close(&store);
}

static void close_in_a_callback_cancels_the_unavailable_rest(void **state) {
    (void)state;
    open_at(free_port(), NULL);
    run_for(poller, 50 * MS);
    ask(0, closes);
    ask(1, ended);
    run_for(poller, 20 * MS);
    assert_int_equal(called[0], 1);
    assert_int_equal(called[1], 1);
    assert_int_equal(errors[1], STEADY_CANCELLED);
}

/* A deadline is kept while the callback of another deadline runs the loop. */
static void deadline_is_kept_in_the_callback_of_another(void **state) {
    (void)state;
    fake_node_says(node, "EVALSHA", FAKE_SILENCE, 0, 0);
    open_at(fake_node_port(node), NULL);
    run_for(poller, 20 * MS);
    ask(0, ended_and_waits);
    run_for(poller, 20 * MS);
    const steady_us asked_at = now_us();
    ask(1, ended);
    ask(2, ended);
    assert_each_ended_once();
    assert_true(ended_at[1] >= asked_at + TIMEOUT);
    assert_true(ended_at[1] < ended_at[0] + 2 * TIMEOUT); /* while the other callback waited */
}

static void wait_in_the_log(void *data, enum steady_log_level level, const char *text) {
    (void)data;
    (void)level;
    (void)text;
    run_for(poller, 2 * TIMEOUT);
}

/* The log callback reports that a decision found the server loading. Deadlines pass while it runs the loop. */
static void log_of_a_loading_server_may_run_the_loop(void **state) {
    (void)state;
    fake_node_says(node, "EVALSHA", "-LOADING Redis is loading the dataset in memory\r\n", 0, 0);
    open_at(fake_node_port(node), wait_in_the_log);
    run_for(poller, 20 * MS);
    for (unsigned i = 0; i < 3; i++)
        ask(i, ended);
    assert_each_ended_once();
    for (int i = 0; i < 3; i++)
        assert_int_equal(errors[i], STEADY_UNAVAILABLE);
}

/* The same for a lost connection, and for a server that is down. */
static void log_of_a_lost_connection_may_run_the_loop(void **state) {
    (void)state;
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 0);
    fake_node_says(node, "EVALSHA", VERDICT, 0, 1);
    open_at(fake_node_port(node), wait_in_the_log);
    run_for(poller, 20 * MS);
    ask_three(ended, 2);
    assert_each_ended_once();
    for (int i = 0; i < 3; i++)
        assert_int_equal(errors[i], STEADY_UNKNOWN);
}

static pid_t child;

static void ended_and_forks(const steady_result *result, void *data) {
    ended(result, data);
    child = fork();
    assert_return_code(child, errno);
}

static void ended_and_leaves(const steady_result *result, void *data) {
    ended_and_waits(result, data);
    if (child == 0) _exit(0);
}

/* A child that is forked in a callback does not connect for its parent. */
static void child_forked_in_a_callback_does_not_connect(void **state) {
    int status = -1;
    (void)state;
    fake_node_says(node, "EVALSHA", FAKE_HANG_UP, 0, 0);
    open_at(fake_node_port(node), NULL);
    run_for(poller, 20 * MS);
    child = -1;
    ask(0, ended_and_leaves);
    ask(1, ended_and_forks);
    ask(2, ended);
    run_for(poller, 2 * TIMEOUT);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_each_ended_once();
    assert_int_equal(fake_node_accepted(node), 1 + client_reconnects());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lost_requests_past_their_deadline_are_unknown_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(requests_behind_a_surplus_reply_are_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decision_asked_in_a_callback_is_answered_before_unread_replies, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(callback_can_wait_for_the_next_reply_in_the_buffer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(callback_of_a_lost_request_can_wait_for_the_next_lost_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reply_unread_at_the_deadline_still_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decision_after_a_reconnection_does_not_end_with_the_lost_ones, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(decisions_without_a_server_end_once_in_nested_turns, set_up, tear_down),
        cmocka_unit_test_setup_teardown(close_in_a_callback_cancels_the_unavailable_rest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(deadline_is_kept_in_the_callback_of_another, set_up, tear_down),
        cmocka_unit_test_setup_teardown(log_of_a_loading_server_may_run_the_loop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(log_of_a_lost_connection_may_run_the_loop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(child_forked_in_a_callback_does_not_connect, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
