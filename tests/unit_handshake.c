/* SPDX-License-Identifier: MIT
 * The handshake of a connection, AUTH and SELECT, against a fake server that is silent, refuses or sends anything. */
#include "client.h"
#include "fake_server.h"

#define TIMEOUT (100 * MS)

static struct fake_server *fake;

static void close_all(void) {
    client_close();
    if (fake != NULL) fake_stop(fake);
    fake = NULL;
}

static int tear_down(void **state) {
    close_all();
    return client_tear_down(state);
}

static void open_on(const struct fake_step *steps, size_t count) {
    char url[64];
    fake = fake_start(steps, count);
    snprintf(url, sizeof url, "redis://:hunter2@127.0.0.1:%d", fake_port(fake));
    client_open(url, TIMEOUT);
}

static void silence_after_auth_is_unavailable_at_the_deadline(void **state) {
    static const struct fake_step steps[] = {{FAKE_ACCEPT, 0, NULL, 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0}};
    struct tally tally = {0};
    (void)state;
    open_on(steps, COUNT(steps));
    consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.last.error, STEADY_UNAVAILABLE); /* never written */
    assert_true(tally.slowest < TIMEOUT + SLACK_OF(tally));
    run_for(poller, 5 * TIMEOUT);
    assert_non_null(strstr(log_lines.all, "does not answer"));
}

static void refused_handshake_is_told_without_the_password(void **state) {
    static const char *const answers[] = {
        "-ERR unknown command 'AUTH', with args beginning with: 'hunter2' \r\n",
        "-WRONGPASS hunter2 is not it\r\n",
        "-hunter2\r\n",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        const struct fake_step steps[] = {
            {FAKE_ACCEPT, 0, NULL, 0},
            {FAKE_EXPECT, 1, NULL, 0},
            {FAKE_SEND, 0, answers[i], 0},
            {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        };
        open_on(steps, COUNT(steps));
        assert_int_equal(client_ask(), STEADY_REFUSED);
        assert_int_equal(client_ask(), STEADY_REFUSED); /* at once, because the error is known */
        assert_null(strstr(log_lines.all, "hunter2"));
        assert_null(strstr(last_error_of(store), "hunter2"));
        close_all();
    }
}

/* With max_in_flight = 1, a handshake of two requests is sent at once. */
static void handshake_of_two_requests_ignores_max_in_flight(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 2, NULL, 0},   {FAKE_SEND, 0, "+OK\r\n+OK\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, ":1\r\n", 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    char url[64];
    (void)state;
    fake = fake_start(steps, COUNT(steps));
    snprintf(url, sizeof url, "redis://:hunter2@127.0.0.1:%d/7", fake_port(fake));
    client_open_with(url,
                     (steady_store_options){.timeout = TIMEOUT, .max_in_flight = 1, .engine = STEADY_ENGINE_SCRIPT});
    assert_int_equal(client_ask(), 0);
}

static void invalid_handshake_reply_is_unavailable(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":1\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    open_on(steps, COUNT(steps));
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
}

int main(void) {
#define WITH_POLLER(test) cmocka_unit_test_setup_teardown(test, client_set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_POLLER(silence_after_auth_is_unavailable_at_the_deadline),
        WITH_POLLER(refused_handshake_is_told_without_the_password),
        WITH_POLLER(handshake_of_two_requests_ignores_max_in_flight),
        WITH_POLLER(invalid_handshake_reply_is_unavailable),
    };
    return cmocka_run_group_tests_name("handshake", tests, NULL, NULL);
}
