/* SPDX-License-Identifier: MIT
 * A store on a hiredis context of the caller, with each adapter that is installed: what the two share, and which
 * faults the store survives. */
#include "support.h"

#include <errno.h>
#include <hiredis/async.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_server.h"
#include "stages.h"
#include "steady/hiredis.h"

#define MS STEADY_MILLISECOND
#define TIMEOUT (100 * MS)

static struct server server;

struct act {
    const struct stage *stage;
    steady_loop loop;
    redisAsyncContext *context; /* NULL: freed */
    steady_store *store;
    steady_throttler *throttler;
    struct log_lines log;
    void *adapter; /* ev.data as the adapter left it */
    unsigned own, own_null;
    bool connected, disconnected;
};

static struct act act; /* one test uses it at a time */

static void on_connect(const redisAsyncContext *context, int status) {
    (void)context;
    act.connected = status == REDIS_OK;
    if (status != REDIS_OK) act.context = NULL;
}

static void on_disconnect(const redisAsyncContext *context, int status) {
    (void)context;
    (void)status;
    act.disconnected = true;
    act.context = NULL;
}

static void turn(void) { act.stage->turn(act.loop.loop); }

static void connect_to(const struct stage *stage, int port) {
    act = (struct act){.stage = stage, .loop = stage->make()};
    act.context = redisAsyncConnect("127.0.0.1", port);
    assert_non_null(act.context);
    assert_int_equal(stage->attach(act.context, act.loop.loop), REDIS_OK);
    redisAsyncSetConnectCallback(act.context, on_connect);
    redisAsyncSetDisconnectCallback(act.context, on_disconnect);
    act.adapter = act.context->ev.data;
}

static void open_to(const struct stage *stage, int port, steady_store_options options) {
    steady_message why = {.text = ""};
    connect_to(stage, port);
    options.loop = &act.loop;
    if (options.log == NULL) options.log = remember_line;
    if (options.log_data == NULL) options.log_data = &act.log;
    if (steady_store_attach(&act.store, act.context, &options, &why) != 0) fail_msg("%s", why.text);
    act.throttler = new_throttler(act.store, 1000000, HOUR);
}

static void open_on(const struct stage *stage, int port, steady_us timeout) {
    open_to(stage, port, (steady_store_options){.timeout = timeout});
}

static void open_script(const struct stage *stage, int port) {
    open_to(stage, port, (steady_store_options){.timeout = 5 * STEADY_SECOND, .engine = STEADY_ENGINE_SCRIPT});
}

static void close_act(void) {
    steady_throttler_free(&act.throttler);
    steady_store_close(&act.store);
    if (act.context != NULL) redisAsyncFree(act.context);
    if (!act.stage->leave(act.loop.loop)) fail_msg("%s: something is left in the loop", act.stage->name);
    if (server.pid != 0) server_ask(&server, "FLUSHALL");
}

static void run_act(const struct tally *tally, steady_us limit) {
    const steady_us until = now_us() + limit;
    while (tally->called < tally->submitted) {
        if (now_us() > until) fail_msg("%s: %lu of %lu in time", act.stage->name, tally->called, tally->submitted);
        turn();
    }
}

static void on_own(redisAsyncContext *context, void *reply, void *expected) {
    (void)context;
    if (reply == NULL) {
        act.own_null++;
        return;
    }
    assert_string_equal(((redisReply *)reply)->str, expected);
    act.own++;
}

static void run_own(unsigned count) {
    const steady_us until = now_us() + 2 * STEADY_SECOND;
    while (act.own < count) {
        if (now_us() > until) fail_msg("%s: own commands hang", act.stage->name);
        turn();
    }
}

/* ---- Sharing ---- */

static void store_and_program_share_one_connection(const struct stage *stage) {
    struct tally tally = {0};
    steady_result r;
    open_on(stage, server.port, 5 * STEADY_SECOND); /* still connecting */
    for (int i = 0; i < 1000; i++) {
        consume_counted(act.throttler, "k", 1, &tally);
        if (i % 10 == 0) assert_int_equal(redisAsyncCommand(act.context, on_own, "hello", "ECHO hello"), REDIS_OK);
    }
    assert_int_equal(tally.called, 0);
    run_act(&tally, 5 * STEADY_SECOND);
    run_own(100);
    assert_int_equal(tally.allowed, 1000);
    assert_int_equal(tally.last.level, 1000);
    assert_int_equal(steady_peek(act.throttler, "k", 1, count_result, expect_result(&tally)), 0);
    run_act(&tally, STEADY_SECOND);
    assert_int_equal(tally.last.level, 1000);
    assert_int_equal(steady_reset(act.throttler, "k", 1, count_result, expect_result(&tally)), 0);
    run_act(&tally, STEADY_SECOND);
    assert_int_equal(tally.last.level, 0);
    server_ask(&server, "SET text precious");
    consume_counted(act.throttler, "text", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    assert_int_equal(tally.last.error, STEADY_NOT_A_BUCKET);
    assert_int_equal(steady_consume_sync(act.throttler, "k", 1, 1, &r), STEADY_UNSUPPORTED);
    assert_string_equal(last_error_of(act.store), "a store on a hiredis context has no ..._sync calls");
    close_act();
}

static void flushed_script_is_loaded_once_for_each_flush(const struct stage *stage) {
    struct tally tally = {0};
    steady_stats stats;
    open_on(stage, server.port, 5 * STEADY_SECOND);
    for (int round = 1; round <= 3; round++) {
        server_ask(&server, "SCRIPT FLUSH");
        for (int i = 0; i < 500; i++)
            consume_counted(act.throttler, "k", 1, &tally);
        run_act(&tally, 5 * STEADY_SECOND);
        assert_int_equal(tally.allowed, 500 * round);
    }
    assert_int_equal(tally.last.level, 1500);
    steady_store_stats(act.store, &stats);
    assert_int_equal(stats.script_loads, 3);
    assert_int_equal(stats.decisions, 1500);
    close_act();
}

static void frozen_server_leaves_decisions_unknown_and_late_replies_are_dropped(const struct stage *stage) {
    struct tally tally = {0}, frozen = {0}, after = {0};
    open_on(stage, server.port, TIMEOUT);
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    server_freeze(&server);
    for (int i = 0; i < 20; i++)
        consume_counted(act.throttler, "frozen", 1, &frozen);
    run_act(&frozen, STEADY_SECOND);
    server_thaw(&server);
    assert_int_equal(frozen.errors[-STEADY_UNKNOWN], 20);
    assert_between(frozen.slowest, TIMEOUT, TIMEOUT + 50 * MS + frozen.taken_away);
    for (int i = 0; i < 20; i++)
        consume_counted(act.throttler, "after", 1, &after);
    run_act(&after, STEADY_SECOND);
    assert_int_equal(after.allowed, 20);
    assert_int_equal(after.last.level, 20);
    assert_int_equal(frozen.called, 20);
    close_act();
}

/* hiredis keeps a request that was given up until it is sent, and its reply is still due. So their number is
 * limited. */
static void silent_server_gets_no_more_requests_than_max_in_flight(const struct stage *stage) {
    struct tally tally = {0}, silent = {0};
    open_to(stage, server.port, (steady_store_options){.timeout = TIMEOUT, .max_in_flight = 10});
    server_ask(&server, "SCRIPT FLUSH");
    for (int i = 0; i < 10; i++)
        consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    assert_int_equal(tally.allowed, 10); /* a SCRIPT LOAD does not count */
    server_freeze(&server);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 10; i++)
            consume_counted(act.throttler, "k", 1, &silent);
        run_act(&silent, STEADY_SECOND);
    }
    assert_true(silent.errors[-STEADY_UNKNOWN] == 10 && silent.errors[-STEADY_UNAVAILABLE] == 40);
    assert_non_null(strstr(last_error_of(act.store), "owes 10 replies"));
    server_thaw(&server);
    for (const steady_us until = now_us() + STEADY_SECOND; tally.allowed == 10 && now_us() < until;) {
        consume_counted(act.throttler, "k", 1, &tally);
        run_act(&tally, STEADY_SECOND);
    }
    assert_int_equal(tally.last.level, 21);
    close_act();
}

/* A connected server that decides nothing gets a probe now and then. */
static void server_without_decisions_gets_few_probes(const struct stage *stage) {
    struct tally tally = {0};
    open_on(stage, server.port, 5 * STEADY_SECOND);
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    server_ask(&server, "CONFIG SET replica-serve-stale-data no");
    server_ask(&server, "REPLICAOF 127.0.0.1 %d", free_port());
    const long long before = server_stat(&server, "errorstat_MASTERDOWN:count");
    const steady_us begin = now_us();
    while (now_us() - begin < 200 * MS) {
        assert_int_equal(steady_peek(act.throttler, "k", 1, count_result, expect_result(&tally)), 0);
        run_act(&tally, STEADY_SECOND);
        assert_int_equal(tally.last.error, STEADY_UNAVAILABLE);
    }
    const long long asked = server_stat(&server, "errorstat_MASTERDOWN:count") - before;
    assert_between(asked, 1, 2 + 20 * (now_us() - begin) / STEADY_SECOND);
    assert_int_equal(strncmp(last_error_of(act.store), "MASTERDOWN", 10), 0);
    assert_int_equal(act.log.lines, 1);
    server_ask(&server, "REPLICAOF NO ONE");
    while (tally.last.error != 0 && now_us() - begin < 2 * STEADY_SECOND) {
        assert_int_equal(steady_peek(act.throttler, "k", 1, count_result, expect_result(&tally)), 0);
        run_act(&tally, STEADY_SECOND);
    }
    assert_int_equal(tally.last.error, 0);
    assert_int_equal(tally.last.level, 1);
    assert_int_equal(act.log.lines, 2);
    server_ask(&server, "CONFIG SET replica-serve-stale-data yes");
    close_act();
}

/* The store closes with replies outstanding. The context stays connected, and its adapter data is restored. */
static void closing_the_store_leaves_the_context_usable(const struct stage *stage) {
    struct tally tally = {0};
    open_on(stage, server.port, 5 * STEADY_SECOND);
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    for (int i = 0; i < 50; i++)
        consume_counted(act.throttler, "k", 1, &tally);
    assert_int_equal(redisAsyncCommand(act.context, on_own, "between", "ECHO between"), REDIS_OK);
    steady_store_close(&act.store);
    assert_int_equal(tally.errors[-STEADY_CANCELLED], 50);
    assert_ptr_equal(act.context->ev.data, act.adapter);
    assert_int_equal(redisAsyncCommand(act.context, on_own, "after", "ECHO after"), REDIS_OK);
    run_own(2);
    assert_int_equal(tally.called, 51);
    assert_int_equal(act.disconnected, false);
    close_act();
}

/* ---- The context goes ---- */

static void assert_no_context_is_survived(struct tally *tally) {
    const unsigned long called = tally->called;
    consume_counted(act.throttler, "k", 1, tally);
    assert_int_equal(tally->called, called);
    run_act(tally, STEADY_SECOND);
    assert_int_equal(tally->last.error, STEADY_UNAVAILABLE);
    assert_int_equal(act.log.lines, 1);
    assert_string_not_equal(last_error_of(act.store), "");
}

static void freed_context_leaves_decisions_unknown_then_unavailable(const struct stage *stage) {
    struct tally tally = {0};
    open_on(stage, server.port, 5 * STEADY_SECOND);
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    for (int i = 0; i < 50; i++)
        consume_counted(act.throttler, "k", 1, &tally);
    redisAsyncFree(act.context);
    act.context = NULL;
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 50);
    assert_no_context_is_survived(&tally);
    close_act();
}

static void disconnected_context_answers_first_then_is_unavailable(const struct stage *stage) {
    struct tally tally = {0};
    open_script(stage, server.port);
    for (int i = 0; i < 50; i++)
        consume_counted(act.throttler, "k", 1, &tally);
    while (!act.connected)
        turn();
    redisAsyncDisconnect(act.context); /* after the replies */
    run_act(&tally, STEADY_SECOND);
    assert_int_equal(tally.allowed, 50);
    assert_no_context_is_survived(&tally);
    close_act();
}

static void killed_server_leaves_decisions_unknown_then_unavailable(const struct stage *stage) {
    struct tally tally = {0};
    open_on(stage, server.port, 5 * STEADY_SECOND);
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    server_freeze(&server);
    for (int i = 0; i < 50; i++)
        consume_counted(act.throttler, "k", 1, &tally);
    for (int i = 0; i < 3; i++)
        assert_int_equal(redisAsyncCommand(act.context, on_own, "x", "ECHO x"), REDIS_OK);
    server_kill(&server);
    run_act(&tally, 2 * STEADY_SECOND);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 50);
    assert_no_context_is_survived(&tally);
    assert_int_equal(act.own_null, 3);
    close_act();
    server_restart(&server, true);
}

static void closed_port_makes_decisions_unavailable(const struct stage *stage) {
    struct tally tally = {0};
    /* The libuv adapter of hiredis 0.14 does not tell hiredis of a connection refused: only deadlines end that. */
    if (HIREDIS_MAJOR < 1 && strcmp(stage->name, "libuv") == 0) return;
    open_on(stage, free_port(), 5 * STEADY_SECOND);
    for (int i = 0; i < 10; i++)
        consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, 2 * STEADY_SECOND);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 10);
    assert_no_context_is_survived(&tally);
    close_act();
}

/* ---- Inside callbacks ---- */

static enum { FREE_CONTEXT, CLOSE_STORE, CLOSE_BOTH, DISCONNECT } deed;
static unsigned called;

static void do_deed(const steady_result *result, void *data) {
    (void)result;
    (void)data;
    if (++called != 5) return;
    if (deed != FREE_CONTEXT && deed != DISCONNECT) steady_store_close(&act.store);
    redisAsyncContext *context = act.context;
    if (deed == FREE_CONTEXT || deed == CLOSE_BOTH) redisAsyncFree(context);
    if (deed == DISCONNECT) redisAsyncDisconnect(context);
}

static void callback_may_free_the_context_or_close_the_store(const struct stage *stage) {
    for (deed = FREE_CONTEXT; deed <= DISCONNECT; deed++) {
        open_on(stage, server.port, 5 * STEADY_SECOND);
        called = 0;
        for (int i = 0; i < 20; i++)
            assert_int_equal(steady_consume(act.throttler, "k", 1, 1, do_deed, NULL), 0);
        const steady_us until = now_us() + STEADY_SECOND;
        while (called < 20 && now_us() < until)
            turn();
        assert_int_equal(called, 20);
        close_act();
    }
}

static const struct fake_step loads[] = {
    {FAKE_ACCEPT, 0, NULL, 0},
    {FAKE_EXPECT, 2, NULL, 0},
    {FAKE_SEND, 0, "-LOADING Redis is loading the dataset in memory\r\n", 0},
    {FAKE_AWAIT_CLOSE, 0, NULL, 0},
};

static void close_in_log(void *data, enum steady_log_level level, const char *text) {
    (void)level;
    steady_store_close(data);
    assert_true(strlen(text) > 0); /* the text is valid although the store is closed */
}

static void log_may_close_the_store_when_the_context_is_freed(const struct stage *stage) {
    struct tally tally = {0};
    connect_to(stage, server.port);
    const steady_store_options options = {.loop = &act.loop, .log = close_in_log, .log_data = &act.store};
    assert_int_equal(steady_store_attach(&act.store, act.context, &options, NULL), 0);
    act.throttler = new_throttler(act.store, 9, HOUR);
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    consume_counted(act.throttler, "k", 1, &tally);
    redisAsyncFree(act.context);
    act.context = NULL;
    assert_null(act.store);
    assert_int_equal(tally.called, 2);
    close_act();
}

static void run_in_log(void *data, enum steady_log_level level, const char *text) {
    steady_stats stats;
    remember_line(data, level, text);
    do {
        turn();
        steady_store_stats(act.store, &stats);
    } while (stats.in_flight > 0);
}

/* Two of these loops may run inside a callback. All deadlines pass there, also that of the decision whose answer
 * caused the log line. */
static void log_may_run_the_loop_past_all_deadlines(const struct stage *stage) {
    const steady_store_options options = {.timeout = TIMEOUT, .engine = STEADY_ENGINE_SCRIPT, .log = run_in_log};
    struct tally tally = {0};
    if (strcmp(stage->name, "libuv") == 0 || strcmp(stage->name, "libevent") == 0) return;
    struct fake_server *fake = fake_start(loads, COUNT(loads));
    open_to(stage, fake_port(fake), options);
    for (int i = 0; i < 2; i++)
        consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    assert_int_equal(act.log.lines, 1);
    assert_true(tally.called == 2 && tally.errors[-STEADY_UNAVAILABLE] == 1 && tally.errors[-STEADY_UNKNOWN] == 1);
    close_act();
    fake_stop(fake);
}

static void log_may_close_the_store_when_the_server_loads(const struct stage *stage) {
    struct fake_server *fake = fake_start(loads, COUNT(loads));
    struct tally tally = {0};
    open_to(stage, fake_port(fake),
            (steady_store_options){.engine = STEADY_ENGINE_SCRIPT, .log = close_in_log, .log_data = &act.store});
    for (int i = 0; i < 2; i++)
        consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    assert_null(act.store);
    assert_true(tally.errors[-STEADY_UNAVAILABLE] == 1 && tally.errors[-STEADY_CANCELLED] == 1);
    close_act();
    fake_stop(fake);
}

/* ---- Forked ---- */

/* The loop may still call handlers of a closed store. */
static void close_in_child(void) {
    steady_stats before, after;
    steady_store_stats(act.store, &before);
    if (steady_consume(act.throttler, "k", 1, 1, count_result, NULL) != STEADY_UNAVAILABLE) _exit(1);
    steady_store_stats(act.store, &after);
    if (after.unavailable != before.unavailable + 1 || after.decisions != before.decisions + 1) _exit(2);
    if (strstr(last_error_of(act.store), "forked") == NULL) _exit(3);
    steady_throttler_free(&act.throttler);
    steady_store_close(&act.store);
    redisAsyncFree(act.context);
    act.stage->go_on(act.loop.loop, 2 * TIMEOUT);
    _exit(0);
}

static void forked_child_closes_its_copy_and_the_parent_goes_on(const struct stage *stage) {
    struct tally tally = {0};
    int status = -1;
    if (strcmp(stage->name, "poll") != 0)
        return; /* the hiredis of a child would change the epoll or kqueue set that it shares with its parent */
    open_on(stage, server.port, TIMEOUT);
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) close_in_child();
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    assert_true(tally.allowed == 2 && !act.disconnected);
    close_act();
}

/* ---- Refused ---- */

static void reply_of_wrong_type_ends_use_of_the_context(const struct stage *stage) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 3, NULL, 0},
        {FAKE_SEND, 0, ":1\r\n*2\r\n:1\r\n$1\r\nx\r\n", 0},
        {FAKE_SEND, 0, "$5\r\nstill\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct fake_server *fake = fake_start(steps, COUNT(steps));
    struct tally tally = {0};
    open_script(stage, fake_port(fake));
    consume_counted(act.throttler, "k", 1, &tally);
    consume_counted(act.throttler, "k", 1, &tally);
    assert_int_equal(redisAsyncCommand(act.context, on_own, "still", "ECHO still"), REDIS_OK);
    run_act(&tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 1);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 1);
    run_own(1); /* the library must not close the caller's connection */
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    assert_int_equal(tally.last.error, STEADY_UNAVAILABLE); /* but the store must not use it again */
    close_act();
    fake_stop(fake);
}

static void ask_in_log(void *data, enum steady_log_level level, const char *text) {
    remember_line(&act.log, level, text);
    consume_counted(act.throttler, "k", 1, data);
}

/* One reply too many: no later reply can be matched to its request. */
static void surplus_reply_leaves_all_decisions_unknown(const struct stage *stage) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 3, NULL, 0},
        {FAKE_SEND, 0, "$5\r\nhello\r\n:1\r\n:2\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct fake_server *fake = fake_start(steps, COUNT(steps));
    struct tally tally = {0}, asked = {0};
    const steady_store_options options = {.engine = STEADY_ENGINE_SCRIPT, .log = ask_in_log, .log_data = &asked};
    open_to(stage, fake_port(fake), options);
    for (int i = 0; i < 3; i++)
        consume_counted(act.throttler, "k", 1, &tally);
    run_act(&tally, STEADY_SECOND);
    run_act(&asked, STEADY_SECOND);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 3);
    assert_int_equal(asked.errors[-STEADY_UNAVAILABLE], 1);
    assert_string_equal(act.log.all, "the server sent an unexpected reply\n");
    close_act();
    fake_stop(fake);
}

static void bad_arguments_are_rejected(const struct stage *stage) {
    steady_store *store = NULL;
    steady_message why = {.text = ""};
    connect_to(stage, server.port);
    steady_store_options options = {.loop = &act.loop};
    assert_int_equal(steady_store_attach(NULL, act.context, &options, &why), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_store_attach(&store, NULL, &options, &why), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_store_attach(&store, act.context, NULL, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "loop"));
    options.timeout = -1;
    assert_int_equal(steady_store_attach(&store, act.context, &options, &why), STEADY_BAD_ARGUMENT);
    options.timeout = 0;
    const steady_tls_options tls = {0};
    const steady_store_options with_tls = {.loop = options.loop, .tls = &tls};
    assert_int_equal(steady_store_attach(&store, act.context, &with_tls, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "TLS"));
    redisAsyncContext *bare = redisAsyncConnect("127.0.0.1", server.port);
    assert_int_equal(steady_store_attach(&store, bare, &options, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "not attached"));
    redisAsyncFree(bare);
    act.context->err = REDIS_ERR_EOF; /* hiredis frees the attached context before the loop runs again */
    assert_int_equal(steady_store_attach(&store, act.context, &options, &why), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "the context has failed: the server closed the connection");
    act.context->err = 0;
    assert_int_equal(redisAsyncCommand(act.context, on_own, "x", "SUBSCRIBE news"), REDIS_OK);
    assert_int_equal(steady_store_attach(&store, act.context, &options, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "subscribed"));
    assert_null(store);
    redisAsyncFree(act.context);
    act.context = NULL;
    close_act();
}

typedef void loop_test(const struct stage *stage);

static void play(void **state) {
    loop_test *const test = *(loop_test **)*state;
    for (size_t i = 0; i < STAGES; i++)
        test(stages[i]);
}

static int group_set_up(void **state) {
    (void)state;
    server_start(&server, NULL);
    return 0;
}

static int group_tear_down(void **state) {
    (void)state;
    server_stop(&server);
    return 0;
}

int main(void) {
#define ON_ALL_LOOPS(test)                                                                                             \
    {                                                                                                                  \
#test, play, NULL, NULL, &(loop_test *) { test }                                                               \
    }
    const struct CMUnitTest tests[] = {
        ON_ALL_LOOPS(store_and_program_share_one_connection),
        ON_ALL_LOOPS(flushed_script_is_loaded_once_for_each_flush),
        ON_ALL_LOOPS(frozen_server_leaves_decisions_unknown_and_late_replies_are_dropped),
        ON_ALL_LOOPS(closing_the_store_leaves_the_context_usable),
        ON_ALL_LOOPS(freed_context_leaves_decisions_unknown_then_unavailable),
        ON_ALL_LOOPS(disconnected_context_answers_first_then_is_unavailable),
        ON_ALL_LOOPS(killed_server_leaves_decisions_unknown_then_unavailable),
        ON_ALL_LOOPS(closed_port_makes_decisions_unavailable),
        ON_ALL_LOOPS(callback_may_free_the_context_or_close_the_store),
        ON_ALL_LOOPS(log_may_close_the_store_when_the_context_is_freed),
        ON_ALL_LOOPS(reply_of_wrong_type_ends_use_of_the_context),
        ON_ALL_LOOPS(bad_arguments_are_rejected),
        ON_ALL_LOOPS(server_without_decisions_gets_few_probes),
        ON_ALL_LOOPS(log_may_run_the_loop_past_all_deadlines),
        ON_ALL_LOOPS(log_may_close_the_store_when_the_server_loads),
        ON_ALL_LOOPS(surplus_reply_leaves_all_decisions_unknown),
        ON_ALL_LOOPS(silent_server_gets_no_more_requests_than_max_in_flight),
        ON_ALL_LOOPS(forked_child_closes_its_copy_and_the_parent_goes_on),
    };
    return cmocka_run_group_tests_name("attach", tests, group_set_up, group_tear_down);
}
