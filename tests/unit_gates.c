/* SPDX-License-Identifier: MIT
 * Calls that wait at a gate of a remembered bucket, against a fake server: when they go on, and when they end. */
#include "client.h"
#include "fake_server.h"

#define LEAK (20 * MS)
#define SENT(text)                                                                                                     \
    {FAKE_EXPECT, 1, NULL, 0}, { FAKE_SEND, 0, text, 0 }

/* Full, and the next drop leaks after 5 ms: 10 * 20000 - 15000. */
#define DENIED ":-185001\r\n"
#define ALLOWED ":200000\r\n"

static struct fake_server *fake;
static steady_throttler *fast; /* a drop in 20 ms */

static int tear_down(void **state) {
    steady_throttler_free(&fast);
    client_close();
    if (fake != NULL) fake_stop(fake);
    fake = NULL;
    return client_tear_down(state);
}

/* Then the bucket is remembered, and has had room for one drop since. */
static void open_on(const struct fake_step *steps, size_t count, steady_us timeout) {
    struct tally tally = {0};
    char url[64];
    fake = fake_start(steps, count);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_port(fake));
    client_open_with(url, (steady_store_options){
                              .timeout = timeout, .engine = STEADY_ENGINE_SCRIPT, .deny_memory = 10 * STEADY_SECOND});
    fast = new_throttler(store, 10, LEAK);
    consume_counted(fast, "k", 1, &tally);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.denied, 1);
    sleep_us(LEAK);
}

/* The first call was too early by part of its round trip. No reply opens the gate for the second one. */
static void call_behind_one_that_was_too_early_is_sent_after_its_wait(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, SENT(DENIED),  {FAKE_EXPECT, 1, NULL, 0},      {FAKE_SLEEP, 30, NULL, 0},
        {FAKE_SEND, 0, DENIED, 0}, SENT(ALLOWED), {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally first = {0}, second = {0};
    (void)state;
    open_on(steps, COUNT(steps), STEADY_SECOND);
    consume_counted(fast, "k", 1, &first);
    consume_counted(fast, "k", 1, &second);
    run_until_done(poller, &second, STEADY_SECOND);
    assert_int_equal(first.denied, 1);
    assert_int_equal(second.allowed, 1);
    assert_true(second.slowest < STEADY_SECOND / 2 + SLACK_OF(second));
}

/* At level 6 of 10 there is room for one drop in flight and three more. */
static void call_that_fits_beside_those_in_flight_is_sent_at_once(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},      SENT(DENIED),
        {FAKE_EXPECT, 2, NULL, 0},      {FAKE_SEND, 0, ":120000\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0},      {FAKE_SEND, 0, ":140000\r\n:200000\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally first = {0}, second = {0}, third = {0};
    (void)state;
    open_on(steps, COUNT(steps), STEADY_SECOND);
    sleep_us(2 * LEAK);
    consume_counted(fast, "k", 1, &first);
    consume_counted(fast, "k", 1, &second);
    run_until_done(poller, &first, STEADY_SECOND);
    consume_counted(fast, "k", 3, &third);
    run_until_done(poller, &third, STEADY_SECOND);
    assert_int_equal(first.allowed + second.allowed + third.allowed, 3);
}

/* The second call needs all the room. The third one would fit beside the first one. */
static void call_waits_behind_an_earlier_one_that_needs_more_room(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, SENT(DENIED), SENT(":1\r\n"), SENT(ALLOWED), {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally first = {0}, second = {0}, third = {0};
    (void)state;
    open_on(steps, COUNT(steps), STEADY_SECOND);
    sleep_us(10 * LEAK);
    consume_counted(fast, "k", 1, &first);
    consume_counted(fast, "k", 10, &second);
    consume_counted(fast, "k", 1, &third);
    run_until_done(poller, &third, STEADY_SECOND);
    assert_int_equal(first.allowed + second.allowed, 2);
    assert_int_equal(third.last.source, STEADY_FROM_MEMORY);
}

/* Full, and the next drop leaks after 900 ms or 20 ms: of a drop in a second, 100 ms or 980 ms have passed. The round
 * trip of both replies takes a second, so each drop may have leaked. */
#define DENIED_FOR_900_MS ":-9900001\r\n"
#define DENIED_FOR_20_MS ":-9020001\r\n"

static void gate_of_the_earlier_drop_opens_before_one_that_was_asked_before(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},      {FAKE_EXPECT, 2, NULL, 0},
        {FAKE_SLEEP, 1000, NULL, 0},    {FAKE_SEND, 0, DENIED_FOR_900_MS DENIED_FOR_20_MS, 0},
        SENT(":10000000\r\n"),          SENT(":10000000\r\n"),
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally known = {0}, late = {0}, early = {0};
    char url[64];
    (void)state;
    fake = fake_start(steps, COUNT(steps));
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_port(fake));
    client_open_with(url, (steady_store_options){.timeout = 5 * STEADY_SECOND,
                                                 .engine = STEADY_ENGINE_SCRIPT,
                                                 .deny_memory = 10 * STEADY_SECOND});
    fast = new_throttler(store, 10, STEADY_SECOND);
    consume_counted(fast, "late", 1, &known);
    consume_counted(fast, "early", 1, &known);
    run_until_done(poller, &known, 5 * STEADY_SECOND);
    assert_int_equal(known.denied, 2);
    consume_counted(fast, "late", 1, &late);
    consume_counted(fast, "early", 1, &early);
    run_until_done(poller, &early, 5 * STEADY_SECOND);
    assert_int_equal(early.allowed, 1);
    assert_true(early.slowest < 450 * MS + SLACK_OF(early));
    run_until_done(poller, &late, 5 * STEADY_SECOND);
    assert_int_equal(late.allowed, 1);
    assert_true(late.slowest >= 890 * MS);
}

/* Of a drop in ten seconds, so that no second one leaks on a slow machine. */
#define DENIED_FOR_5_MS ":-90005001\r\n"

/* It is not late for the server, so the store is not overloaded. Its place in memory was that of a call with an answer.
 */
static void waiting_call_that_expires_is_unavailable(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 4, NULL, 0},
        {FAKE_SEND, 0, DENIED_FOR_5_MS ALLOWED ALLOWED ALLOWED, 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    const steady_call call = {.key = "k", .key_len = 1, .amount = 1};
    struct tally before = {0}, first = {0}, waiting = {0};
    char url[64];
    uint64_t id = 0;
    (void)state;
    fake = fake_start(steps, COUNT(steps));
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_port(fake));
    client_open_with(url, (steady_store_options){.timeout = STEADY_SECOND,
                                                 .engine = STEADY_ENGINE_SCRIPT,
                                                 .deny_memory = 10 * STEADY_SECOND});
    fast = new_throttler(store, 10, 10 * STEADY_SECOND);
    consume_counted(fast, "k", 1, &before);
    for (int i = 0; i < 3; i++)
        consume_counted(fast, "other", 1, &before);
    run_until_done(poller, &before, 5 * STEADY_SECOND);
    assert_int_equal(before.denied, 1);
    sleep_us(20 * MS);
    consume_counted(fast, "k", 1, &first);
    assert_int_equal(steady_decide(fast, &call, count_result, expect_result(&waiting), &id), 0);
    assert_int_equal(steady_expire(fast, id), 0);
    run_until_done(poller, &waiting, 5 * STEADY_SECOND);
    assert_int_equal(waiting.errors[-STEADY_UNAVAILABLE], 1);
    assert_int_equal(first.called, 0);
}

#define WITH_CLIENT(test) cmocka_unit_test_setup_teardown(test, client_set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_CLIENT(call_behind_one_that_was_too_early_is_sent_after_its_wait),
        WITH_CLIENT(call_that_fits_beside_those_in_flight_is_sent_at_once),
        WITH_CLIENT(call_waits_behind_an_earlier_one_that_needs_more_room),
        WITH_CLIENT(gate_of_the_earlier_drop_opens_before_one_that_was_asked_before),
        WITH_CLIENT(waiting_call_that_expires_is_unavailable),
    };
    return cmocka_run_group_tests_name("gates", tests, NULL, NULL);
}
