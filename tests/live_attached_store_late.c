/* SPDX-License-Identifier: MIT
 * A store on a hiredis context of the caller. Its loop does not run for longer than the timeout, or its server
 * refuses. */
#include "support.h"

#include <hiredis/async.h>

#include "stages.h"
#include "steady/hiredis.h"

#define MS STEADY_MILLISECOND
#define TIMEOUT (100 * MS)
#define TIMES 10
#define MANY 10000

static struct server server;

static struct log_lines lines;
static steady_loop loop;
static redisAsyncContext *context;
static steady_store *store;
static steady_throttler *throttler;

static void connect_on(const struct stage *stage) {
    lines = (struct log_lines){0};
    loop = stage->make();
    context = redisAsyncConnect("127.0.0.1", server.port);
    assert_non_null(context);
    assert_int_equal(stage->attach(context, loop.loop), REDIS_OK);
}

static void open_by(const steady_loop *timers) {
    steady_message why = {.text = ""};
    const steady_store_options options = {
        .loop = timers, .timeout = TIMEOUT, .engine = STEADY_ENGINE_SCRIPT, .log = remember_line, .log_data = &lines};
    if (steady_store_attach(&store, context, &options, &why) != 0) fail_msg("%s", why.text);
    throttler = new_throttler(store, 1000000, HOUR);
}

static void open_on(const struct stage *stage) {
    connect_on(stage);
    open_by(&loop);
}

static void close_on(const struct stage *stage) {
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    redisAsyncFree(context);
    assert_true(stage->leave(loop.loop));
}

static void run_until(const struct stage *stage, const struct tally *tally) {
    for (const steady_us end = now_us() + 2 * STEADY_SECOND; tally->called < tally->submitted;) {
        if (now_us() > end) fail_msg("%s: %lu of %lu in time", stage->name, tally->called, tally->submitted);
        stage->turn(loop.loop);
    }
}

/* A reply that arrived meanwhile counts, although a loop may look at its timers first. The other decisions end then. */
static void keep_away(const struct stage *stage, bool frozen) {
    struct tally tally = {0};
    open_on(stage);
    consume_counted(throttler, "k", 1, &tally);
    run_until(stage, &tally);

    if (frozen) server_freeze(&server);
    for (int i = 0; i < TIMES; i++)
        consume_counted(throttler, "k", 1, &tally);
    for (const steady_us end = now_us() + 20 * MS; now_us() < end && tally.called < tally.submitted;)
        stage->turn(loop.loop); /* the requests are written here, and perhaps answered; then no timer ends a turn */
    for (int i = 0; i < TIMES; i++)
        consume_counted(throttler, "k", 1, &tally);
    stage->turn(loop.loop);
    sleep_us(3 * TIMEOUT);
    const steady_us since = now_us();
    run_until(stage, &tally);
    assert_true(now_us() - since < TIMEOUT);
    if (frozen) server_thaw(&server);
    assert_int_equal(tally.verdicts, frozen ? 1 : 1 + 2 * TIMES);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], frozen ? 2 * TIMES : 0);
    close_on(stage);
}

/* The log gets one line when decisions are refused, and one when they are made again. */
static void refusals_and_recovery_are_logged_once_each(void **state) {
    (void)state;
    for (int i = 0; i < STAGES; i++) {
        struct tally tally = {0};
        open_on(stages[i]);
        server_ask(&server, "CONFIG SET maxmemory 1");
        for (int n = 0; n < TIMES; n++) {
            consume_counted(throttler, "k", 1, &tally);
            run_until(stages[i], &tally);
        }
        assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], TIMES);
        assert_int_equal(lines.lines, 1);
        assert_string_equal(lines.last,
                            "the server refuses decisions: OOM command not allowed when used memory > 'maxmemory'.");
        server_ask(&server, "CONFIG SET maxmemory 0");
        sleep_us(1100 * MS);
        consume_counted(throttler, "k", 1, &tally);
        run_until(stages[i], &tally);
        assert_int_equal(tally.verdicts, 1);
        assert_int_equal(lines.lines, 2);
        assert_string_equal(lines.last, "making decisions again");
        close_on(stages[i]);
    }
}

static void answers_that_came_while_the_loop_was_held_count(void **state) {
    (void)state;
    for (int i = 0; i < STAGES; i++)
        keep_away(stages[i], false);
}

static void unanswered_decisions_end_when_the_held_loop_goes_on(void **state) {
    (void)state;
    for (int i = 0; i < STAGES; i++)
        keep_away(stages[i], true);
}

static const steady_loop_ops *inner_ops;
static bool counts;
static unsigned turns_given;

static int counted_start(void *timer, steady_us delay) {
    turns_given += counts && delay == MS;
    return inner_ops->timer_start(timer, delay);
}

/* The loop gets one turn to read in, however many decisions are late. */
static void late_at_once(const struct stage *stage) {
    struct tally tally = {0};
    connect_on(stage);
    steady_loop_ops ops = *loop.ops;
    ops.timer_start = counted_start;
    inner_ops = loop.ops;
    open_by(&(steady_loop){.ops = &ops, .loop = loop.loop});
    consume_counted(throttler, "k", 1, &tally);
    run_until(stage, &tally);
    server_freeze(&server);
    turns_given = 0;
    counts = true;
    for (int i = 0; i < MANY; i++)
        consume_counted(throttler, "k", 1, &tally);
    stage->turn(loop.loop);
    sleep_us(2 * TIMEOUT);
    run_until(stage, &tally);
    counts = false;
    server_thaw(&server);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN] + tally.errors[-STEADY_UNAVAILABLE], MANY);
    assert_between(turns_given, 1, 3); /* sending may take longer than the timeout */
    close_on(stage);
}

static void many_late_decisions_wait_for_one_turn_of_the_loop(void **state) {
    (void)state;
    for (int i = 0; i < STAGES; i++)
        late_at_once(stages[i]);
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
        cmocka_unit_test(answers_that_came_while_the_loop_was_held_count),
        cmocka_unit_test(unanswered_decisions_end_when_the_held_loop_goes_on),
        cmocka_unit_test(many_late_decisions_wait_for_one_turn_of_the_loop),
        cmocka_unit_test(refusals_and_recovery_are_logged_once_each),
    };
    return cmocka_run_group_tests_name("attach late", tests, group_set_up, group_tear_down);
}
