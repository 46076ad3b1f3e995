/* SPDX-License-Identifier: MIT
 * The choice of the engine: the module if the server has it and the user may call it, otherwise the scripts. */
#include "support.h"

#include "fake_node.h"
#include "fake_server.h"

static struct server with_module, without;
static steady_poller *poller;
static steady_loop loop;

static int group_set_up(void **state) {
    (void)state;
    server_start(&with_module, module_options());
    server_start(&without, NULL);
    return 0;
}

static int group_tear_down(void **state) {
    (void)state;
    server_stop(&with_module);
    server_stop(&without);
    return 0;
}

static int set_up(void **state) {
    (void)state;
    server_ask(&with_module, "FLUSHALL");
    server_ask(&with_module, "CONFIG RESETSTAT");
    server_ask(&without, "FLUSHALL");
    server_ask(&without, "CONFIG RESETSTAT");
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady_poller_free(&poller);
    return 0;
}

static steady_store *open_with(const char *url, enum steady_engine engine) {
    return open_store(url, &(steady_store_options){.loop = &loop, .timeout = 2 * STEADY_SECOND, .engine = engine});
}

/* Calls of a command, executed or refused. */
static long long calls(const struct server *server, const char *command) {
    char field[64];
    snprintf(field, sizeof field, "cmdstat_%s:calls", command);
    return server_stat(server, field);
}

static void consume_many(steady_throttler *throttler, int count, struct tally *tally) {
    for (int i = 0; i < count; i++)
        consume_counted(throttler, "k", 1, tally);
    run_until_done(poller, tally, 5 * STEADY_SECOND);
}

static const struct {
    enum steady_engine engine;
    long long module, scripts;
} asked[] = {{STEADY_ENGINE_AUTO, 51, 49}, {STEADY_ENGINE_MODULE, 100, 0}, {STEADY_ENGINE_SCRIPT, 0, 100}};

/* The first decision detects the module. Decisions sent with it use the scripts, and all later ones the module. */
static void module_is_used_after_the_first_answer(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(asked); i++) {
        struct tally tally = {0};
        server_ask(&with_module, "FLUSHALL");
        server_ask(&with_module, "CONFIG RESETSTAT");
        steady_store *store = open_with(with_module.url, asked[i].engine);
        steady_throttler *throttler = new_throttler(store, 60, HOUR);
        consume_many(throttler, 50, &tally);
        consume_many(throttler, 50, &tally);
        assert_int_equal(tally.allowed, 60);
        assert_int_equal(tally.denied, 40);
        assert_int_equal(calls(&with_module, "steady.consume"), asked[i].module);
        assert_true(calls(&with_module, "evalsha") >= asked[i].scripts);
        if (asked[i].scripts == 0) assert_int_equal(calls(&with_module, "evalsha"), 0);
        steady_throttler_free(&throttler);
        steady_store_close(&store);
    }
}

static void assert_same(const steady_result *a, const steady_result *b) {
    assert_int_equal(a->error, b->error);
    assert_int_equal(a->source, b->source);
    assert_int_equal(a->success, b->success);
    assert_int_equal(a->level, b->level);
    assert_true(b->until_next_drop <= a->until_next_drop && a->until_next_drop - b->until_next_drop < STEADY_SECOND);
    assert_int_equal(a->blocked_for > 0, b->blocked_for > 0);
    assert_int_equal(a->retry_after > 0, b->retry_after > 0);
    assert_int_equal(a->retry_after < 0, b->retry_after < 0);
}

/* Each step is made by one engine, and both see the same result. */
static void module_and_scripts_share_buckets(void **state) {
    static const int64_t amounts[] = {1, 4, 0, 7, -2, 3, 11, 5, 2, 1, -20, 1};
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = HOUR, .drops = 7, .block_duration = 2 * HOUR};
    steady_store *stores[2];
    steady_throttler *throttlers[2] = {NULL, NULL};
    (void)state;
    for (int i = 0; i < 2; i++) {
        stores[i] = open_with(with_module.url, i == 0 ? STEADY_ENGINE_MODULE : STEADY_ENGINE_SCRIPT);
        assert_int_equal(steady_throttler_new(&throttlers[i], stores[i], &limit, NULL, NULL), 0);
    }
    for (int swapped = 0; swapped < 2; swapped++) {
        for (size_t i = 0; i < COUNT(amounts); i++) {
            steady_result own, seen[2];
            const size_t maker = (i + (size_t)swapped) % 2;
            assert_int_equal(steady_consume_sync(throttlers[maker], "k", 1, amounts[i], &own), 0);
            for (int k = 0; k < 2; k++)
                assert_int_equal(steady_peek_sync(throttlers[k], "k", 1, &seen[k]), 0);
            assert_same(&seen[0], &seen[1]);
            assert_int_equal(own.level, seen[0].level);
        }
        steady_result r[2];
        for (int k = 0; k < 2; k++) {
            assert_int_equal(steady_reset_sync(throttlers[k], "k", 1, &r[k]), 0);
            assert_true(r[k].success && r[k].level == 0 && r[k].until_next_drop > 0 && r[k].retry_after == 0);
        }
        assert_int_equal(r[0].until_next_drop, r[1].until_next_drop);
        assert_string_equal(server_ask(&with_module, "EXISTS k"), "0");
    }
    for (int i = 0; i < 2; i++) {
        steady_throttler_free(&throttlers[i]);
        steady_store_close(&stores[i]);
    }
}

static void server_without_module_is_asked_for_it_once(void **state) {
    struct tally tally = {0};
    (void)state;
    steady_store *store = open_with(without.url, STEADY_ENGINE_AUTO);
    steady_throttler *throttler = new_throttler(store, 10, HOUR);
    consume_many(throttler, 1, &tally);
    consume_many(throttler, 30, &tally);
    assert_int_equal(tally.allowed, 10);
    assert_int_equal(tally.denied, 21);
    assert_int_equal(server_stat(&without, "errorstat_ERR:count"), 1); /* one probe */
    assert_int_equal(server_stat(&without, "total_connections_received") > 0, 1);
    steady_throttler_free(&throttler);
    steady_store_close(&store);

    store = open_with(without.url, STEADY_ENGINE_MODULE);
    throttler = new_throttler(store, 10, HOUR);
    consume_counted(throttler, "some:key", 1, &tally);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.last.error, STEADY_SERVER);
    assert_non_null(strstr(last_error_of(store), "unknown command"));
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* A user without the right to the module commands uses the scripts. A refused key does not turn the module off. */
static void user_without_module_rights_is_served_by_scripts(void **state) {
    char url[96];
    struct tally tally = {0};
    (void)state;
    server_ask(&with_module, "ACL SETUSER plain on >pw ~* +evalsha +eval +script|load +get +set +del +time");
    server_ask(&with_module, "ACL SETUSER module on >pw ~rl:* +steady.consume");
    snprintf(url, sizeof url, "redis://plain:pw@127.0.0.1:%d", with_module.port);
    steady_store *store = open_with(url, STEADY_ENGINE_AUTO);
    steady_throttler *throttler = new_throttler(store, 10, HOUR);
    consume_many(throttler, 1, &tally);
    consume_many(throttler, 19, &tally);
    assert_int_equal(tally.allowed, 10);
    assert_int_equal(tally.denied, 10);
    assert_int_equal(server_stat(&with_module, "errorstat_NOPERM:count"), 1);
    steady_throttler_free(&throttler);
    steady_store_close(&store);

    snprintf(url, sizeof url, "redis://module:pw@127.0.0.1:%d", with_module.port);
    store = open_with(url, STEADY_ENGINE_AUTO);
    throttler = new_throttler(store, 10, HOUR);
    consume_counted(throttler, "elsewhere", 1, &tally);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.last.error, STEADY_REFUSED);
    for (int i = 0; i < 3; i++) {
        consume_counted(throttler, "rl:k", 1, &tally);
        run_until_done(poller, &tally, 5 * STEADY_SECOND);
        assert_int_equal(tally.last.error, 0);
    }
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    server_ask(&with_module, "ACL DELUSER plain module"); /* a module cannot be unloaded while ACL rules name it */
}

/* ---- The module's rights and no others ---- */

static steady_store *open_as_only(steady_us timeout) {
    char url[96];
    server_ask(&with_module, "ACL SETUSER only on >pw resetkeys ~rl:* -@all +steady.consume +steady.peek");
    snprintf(url, sizeof url, "redis://only:pw@127.0.0.1:%d", with_module.port);
    return open_store(url, &(steady_store_options){.loop = &loop, .timeout = timeout});
}

static void close_only(steady_store **store, steady_throttler **throttler) {
    steady_throttler_free(throttler);
    steady_store_close(store);
    server_ask(&with_module, "ACL DELUSER only");
}

static void burst(steady_throttler *throttler, struct tally *tally, const char *stranger) {
    *tally = (struct tally){0};
    for (int i = 0; i < 50; i++)
        consume_counted(throttler, stranger != NULL && i == 0 ? stranger : "rl:k", 1, tally);
    run_until_done(poller, tally, 5 * STEADY_SECOND);
}

/* Requests sent before the first answer use the scripts. The server refuses them, and they go to the module. */
static void user_without_script_rights_has_a_first_burst_served_by_the_module(void **state) {
    struct tally tally;
    (void)state;
    steady_store *store = open_as_only(2 * STEADY_SECOND);
    steady_throttler *throttler = new_throttler(store, 1000, HOUR);
    burst(throttler, &tally, NULL);
    assert_int_equal(tally.allowed, 50);
    assert_int_equal(tally.last.level, 50);
    close_only(&store, &throttler);
}

static void refused_key_does_not_turn_off_the_module(void **state) {
    struct tally tally;
    (void)state;
    steady_store *store = open_as_only(2 * STEADY_SECOND);
    steady_throttler *throttler = new_throttler(store, 1000, HOUR);
    for (int i = 0; i < 3; i++) {
        burst(throttler, &tally, "stranger");
        assert_int_equal(tally.errors[-STEADY_REFUSED], 1);
        assert_int_equal(tally.allowed, 49);
    }
    assert_between(calls(&with_module, "evalsha"), 0, 49); /* only in the first burst */
    close_only(&store, &throttler);
}

static void refused_reset_does_not_turn_off_the_module(void **state) {
    struct tally tally = {0};
    (void)state;
    steady_store *store = open_as_only(2 * STEADY_SECOND);
    steady_throttler *throttler = new_throttler(store, 1000, HOUR);
    burst(throttler, &tally, NULL);
    assert_int_equal(steady_reset(throttler, "rl:k", 4, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.last.error, STEADY_REFUSED);
    burst(throttler, &tally, NULL);
    assert_int_equal(tally.allowed, 50);
    assert_int_equal(steady_peek(throttler, "rl:k", 4, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.last.level, 100);
    close_only(&store, &throttler);
}

/* The connection was lost over the probe, so the next connection uses the scripts at first. It probes again when it
 * has to. */
static void module_is_tried_again_after_its_probe_was_lost(void **state) {
    struct tally tally = {0};
    (void)state;
    steady_store *store = open_as_only(100 * STEADY_MILLISECOND);
    steady_throttler *throttler = new_throttler(store, 1000, HOUR);
    run_for(poller, 50 * STEADY_MILLISECOND);
    server_freeze(&with_module);
    consume_counted(throttler, "rl:frozen", 1, &tally);
    run_for(poller, 600 * STEADY_MILLISECOND);
    server_thaw(&with_module);
    assert_int_equal(tally.last.error, STEADY_UNKNOWN);
    for (const steady_us end = now_us() + 2 * STEADY_SECOND; tally.verdicts == 0 && now_us() < end;) {
        consume_counted(throttler, "rl:again", 1, &tally);
        run_for(poller, 10 * STEADY_MILLISECOND);
    }
    burst(throttler, &tally, NULL);
    assert_int_equal(tally.allowed, 50);
    close_only(&store, &throttler);
}

/* The module cannot be unloaded while a connection has called it. After the unloading, the memory is filled to make
 * a dangling pointer fail. */
static void unload(void) {
    char filling[900];
    assert_non_null(strstr(server_ask(&with_module, "MODULE UNLOAD steady"), "not possible"));
    server_ask(&with_module, "CLIENT KILL TYPE normal");
    assert_string_equal(server_ask(&with_module, "MODULE UNLOAD steady"), "OK");
    run_for(poller, 100 * STEADY_MILLISECOND);
    memset(filling, 'x', sizeof filling);
    for (size_t len = 200; len < sizeof filling; len++)
        assert_string_equal(server_ask(&with_module, "SET churn%d %b", (int)len, filling, len), "OK");
    assert_null(strstr(server_ask(&with_module, "CLIENT LIST"), "cmd=steady."));
}

static void unloaded_module_is_replaced_by_scripts_until_a_new_connection(void **state) {
    struct tally tally = {0};
    (void)state;
    steady_store *store = open_with(with_module.url, STEADY_ENGINE_AUTO);
    steady_throttler *throttler = new_throttler(store, 1000, HOUR);
    consume_many(throttler, 1, &tally);
    unload();
    consume_many(throttler, 1, &tally);
    consume_many(throttler, 50, &tally);
    assert_int_equal(calls(&with_module, "evalsha") >= 50, 1);
    assert_string_equal(server_ask(&with_module, "MODULE LOAD %s", module_path()), "OK");
    consume_many(throttler, 50, &tally);
    assert_int_equal(calls(&with_module, "steady.consume"), 0); /* this connection knows of no module */
    server_ask(&with_module, "CLIENT KILL TYPE normal");
    run_for(poller, 100 * STEADY_MILLISECOND);
    consume_many(throttler, 1, &tally);
    consume_many(throttler, 50, &tally);
    assert_int_equal(calls(&with_module, "steady.consume"), 51);
    assert_int_equal(tally.allowed, 153);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* ---- Scripted servers ---- */

#define FIRST                                                                                                          \
    {FAKE_ACCEPT, 0, NULL, 0}, { FAKE_EXPECT, 1, NULL, 0 }
#define DENIED ":-36000000001\r\n"

/* A proxy that hangs up on an unknown command costs one decision. The next connection does not probe. */
static void proxy_that_hangs_up_on_the_module_is_probed_once(void **state) {
    static const struct fake_step steps[] = {
        FIRST, {FAKE_CLOSE, 0, NULL, 0}, FIRST, {FAKE_SEND, 0, DENIED, 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0}};
    struct fake_server *fake = fake_start(steps, COUNT(steps));
    struct tally tally = {0};
    char url[64];
    size_t len;
    (void)state;
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_port(fake));
    steady_store *store = open_with(url, STEADY_ENGINE_AUTO);
    steady_throttler *throttler = new_throttler(store, 10, HOUR);
    consume_many(throttler, 1, &tally);
    assert_int_equal(tally.last.error, STEADY_UNKNOWN);
    for (int i = 0; i < 50 && tally.verdicts == 0; i++) { /* until the new connection is up */
        run_for(poller, 20 * STEADY_MILLISECOND);
        consume_many(throttler, 1, &tally);
    }
    assert_int_equal(tally.denied, 1);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    const char *bytes = fake_finish(fake, &len);
    const char *first = memmem(bytes, len, "STEADY.CONSUME", 14);
    assert_non_null(first);
    assert_null(memmem(first + 1, len - (size_t)(first + 1 - bytes), "STEADY.CONSUME", 14));
    assert_non_null(memmem(bytes, len, "EVALSHA", 7));
    fake_stop(fake);
}

/* The proxy hung up often, so probes are rare now. A connection lost over a probe is made again at once. The first,
 * third and seventh connections are probed. */
static void connection_lost_over_the_probe_is_made_again_at_once(void **state) {
    struct fake_node *node = fake_node_start(false);
    struct tally tally = {0};
    char url[64];
    (void)state;
    fake_node_says(node, "*", FAKE_HANG_UP, 0, 0);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_node_port(node));
    steady_store *store = open_with(url, STEADY_ENGINE_AUTO);
    steady_throttler *throttler = new_throttler(store, 10, HOUR);
    steady_us seventh = 0;
    bool answers = false;
    for (const steady_us end = now_us() + 10 * STEADY_SECOND; tally.verdicts == 0 && now_us() < end;) {
        consume_many(throttler, 1, &tally);
        run_for(poller, STEADY_MILLISECOND);
        if (fake_node_heard(node, "") == 6 && !answers) {
            fake_node_says(node, "EVALSHA", DENIED, strlen(DENIED), 0);
            answers = true;
        }
        if (fake_node_accepted(node) == 7 && seventh == 0) seventh = now_us();
    }
    assert_int_equal(tally.verdicts, 1);
    assert_int_equal(fake_node_accepted(node), 8);
    assert_int_equal(fake_node_heard(node, "STEADY.CONSUME"), 3);
    assert_true(now_us() - seventh < 150 * STEADY_MILLISECOND); /* a back-off would take at least 250 ms by now */
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    fake_node_stop(node);
}

/* A malformed reply of the module is not believed. */
static void malformed_module_reply_is_unknown(void **state) {
    static const char *const wrong[] = {":1\r\n",
                                        "*4\r\n:1\r\n:0\r\n:1\r\n:0\r\n",
                                        "*5\r\n:2\r\n:0\r\n:1\r\n:0\r\n:0\r\n",
                                        "*5\r\n:1\r\n:-1\r\n:1\r\n:0\r\n:0\r\n",
                                        "*5\r\n:1\r\n:0\r\n:0\r\n:0\r\n:0\r\n",
                                        "+OK\r\n"};
    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        const struct fake_step steps[] = {FIRST, {FAKE_SEND, 0, wrong[i], 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0}};
        struct fake_server *fake = fake_start(steps, COUNT(steps));
        struct tally tally = {0};
        char url[64];
        snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_port(fake));
        steady_store *store = open_with(url, STEADY_ENGINE_MODULE);
        steady_throttler *throttler = new_throttler(store, 10, HOUR);
        consume_many(throttler, 1, &tally);
        if (tally.last.error != STEADY_UNKNOWN) fail_msg("reply %zu: %s", i, steady_error_name(tally.last.error));
        steady_throttler_free(&throttler);
        steady_store_close(&store);
        fake_stop(fake);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(module_is_used_after_the_first_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(module_and_scripts_share_buckets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(server_without_module_is_asked_for_it_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(user_without_module_rights_is_served_by_scripts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(user_without_script_rights_has_a_first_burst_served_by_the_module, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(refused_key_does_not_turn_off_the_module, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refused_reset_does_not_turn_off_the_module, set_up, tear_down),
        cmocka_unit_test_setup_teardown(module_is_tried_again_after_its_probe_was_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unloaded_module_is_replaced_by_scripts_until_a_new_connection, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(proxy_that_hangs_up_on_the_module_is_probed_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(connection_lost_over_the_probe_is_made_again_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(malformed_module_reply_is_unknown, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, group_set_up, group_tear_down);
}
