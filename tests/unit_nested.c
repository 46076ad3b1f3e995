/* SPDX-License-Identifier: MIT
 * Callbacks, of decisions and of the log, that run the loop themselves: what waits has its end in there, once. */
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

/* Three that go out in one go, behind one that is on its way; until the server has heard so many. */
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
    sleep_us(10 * MS); /* so that all is read at once */
}

/* Those written and lost are unknown, also where their deadlines come before they are told. */
static void test_lost_and_past_their_deadlines(void **state) {
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

/* One reply too many: what comes after it belongs to nobody, whoever reads it. */
static void test_shifted_replies(void **state) {
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

/* Asked while the replies to others have been read and not been looked at yet. */
static void test_asked_before_unread_replies(void **state) {
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

/* The callback of a reply waits for another one that has been read with it. */
static void test_awaited_behind_its_own_reply(void **state) {
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

/* And that of one that was lost for another that was lost with it. */
static void test_awaited_while_handed_back(void **state) {
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

/* What has been read by the deadline is an answer, though nobody has looked at it yet: whatever the loop looks at
 * first. */
static void test_unread_at_the_deadline(void **state) {
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
        consume_counted(throttler, "k", 1, &tally); /* goes out alone */
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
            assert_int_equal(called[n], 1); /* nor once more at the end */
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

/* What is asked of a server that is back does not end as what was asked of the one that was away. */
static void test_asked_while_others_are_handed_back(void **state) {
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

/* The server is known to be down: each decision ends at the next turn, whoever runs that. */
static void test_ended_before_they_began(void **state) {
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

static void test_closed_before_they_were_told(void **state) {
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

/* A deadline that comes while the callback of another one runs the loop is kept. */
static void test_deadline_in_a_deadline(void **state) {
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
    assert_true(ended_at[1] < ended_at[0] + 2 * TIMEOUT); /* while that one waited */
}

static void wait_in_the_log(void *data, enum steady_log_level level, const char *text) {
    (void)data;
    (void)level;
    (void)text;
    run_for(poller, 2 * TIMEOUT);
}

/* The log hears that the server decides nothing because of a decision, whose deadline passes in there. */
static void test_log_of_a_decision(void **state) {
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

/* And that the connection was lost, or there is none. */
static void test_log_of_a_loss(void **state) {
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

/* A child that comes into the world in there does not connect in its parent's name. */
static void test_forked_while_handed_back(void **state) {
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
        cmocka_unit_test_setup_teardown(test_lost_and_past_their_deadlines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_shifted_replies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_asked_before_unread_replies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_awaited_behind_its_own_reply, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_awaited_while_handed_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unread_at_the_deadline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_asked_while_others_are_handed_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ended_before_they_began, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_closed_before_they_were_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_deadline_in_a_deadline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_log_of_a_decision, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_log_of_a_loss, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_forked_while_handed_back, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
