/* SPDX-License-Identifier: MIT
 * A store on a hiredis context of the caller's, whose loop is kept from running for longer than the timeout. */
#include "support.h"

#include <hiredis/async.h>

#include "stages.h"

#define MS STEADY_MILLISECOND
#define TIMEOUT (100 * MS)
#define TIMES 10

static struct server server;

static void run_until(const struct stage *stage, const steady_loop *loop, const struct tally *tally) {
    for (const steady_us end = now_us() + 2 * STEADY_SECOND; tally->called < tally->submitted;) {
        if (now_us() > end) fail_msg("%s: %lu of %lu in time", stage->name, tally->called, tally->submitted);
        stage->turn(loop->loop);
    }
}

/* What was answered meanwhile is an answer, though a loop may look at its timers first. What was not ends then. */
static void keep_away(const struct stage *stage, bool frozen) {
    steady_store *store = NULL;
    steady_message why = {""};
    struct tally tally = {0};
    const steady_loop loop = stage->make();
    redisAsyncContext *context = redisAsyncConnect("127.0.0.1", server.port);
    assert_non_null(context);
    assert_int_equal(stage->attach(context, loop.loop), REDIS_OK);
    const steady_store_options options = {.loop = &loop, .timeout = TIMEOUT, .engine = STEADY_ENGINE_SCRIPT};
    if (steady_store_attach(&store, context, &options, &why) != 0) fail_msg("%s", why.text);
    steady_throttler *throttler = new_throttler(store, 1000000, HOUR);
    consume_counted(throttler, "k", 1, &tally);
    run_until(stage, &loop, &tally);

    if (frozen) server_freeze(&server);
    for (int i = 0; i < TIMES; i++)
        consume_counted(throttler, "k", 1, &tally);
    for (const steady_us end = now_us() + 20 * MS; now_us() < end;)
        stage->turn(loop.loop); /* in which they are written, and may be answered */
    for (int i = 0; i < TIMES; i++)
        consume_counted(throttler, "k", 1, &tally);
    stage->turn(loop.loop);
    sleep_us(3 * TIMEOUT);
    const steady_us since = now_us();
    run_until(stage, &loop, &tally);
    assert_true(now_us() - since < TIMEOUT);
    if (frozen) server_thaw(&server);
    assert_int_equal(tally.verdicts, frozen ? 1 : 1 + 2 * TIMES);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], frozen ? 2 * TIMES : 0);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    redisAsyncFree(context);
    assert_true(stage->leave(loop.loop));
}

static void test_answered_meanwhile(void **state) {
    (void)state;
    for (int i = 0; i < STAGES; i++)
        keep_away(stages[i], false);
}

static void test_not_answered_meanwhile(void **state) {
    (void)state;
    for (int i = 0; i < STAGES; i++)
        keep_away(stages[i], true);
}

static int group_set_up(void **state) {
    (void)state;
    server_start(&server, "");
    return 0;
}

static int group_tear_down(void **state) {
    (void)state;
    server_stop(&server);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answered_meanwhile),
        cmocka_unit_test(test_not_answered_meanwhile),
    };
    return cmocka_run_group_tests_name("attach late", tests, group_set_up, group_tear_down);
}
