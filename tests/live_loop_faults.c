/* SPDX-License-Identifier: MIT
 * An event loop that fails: each call that starts a timer, watches a descriptor, creates either, or allocates fails
 * in turn, once or for a while. Meanwhile the store connects, loses its connection, and connects again. Each
 * decision is called back, with any result. Once the loop works, later decisions get verdicts. */
#include "support.h"

#include <event2/event.h>
#include <hiredis/adapters/libevent.h>
#include <stdlib.h>
#include <steady/event.h>
#include <steady/hiredis.h>

#include "alloc.h"
#include "certificates.h"
#include "redis_cluster.h"
#include "sentinels.h"

#define MS STEADY_MILLISECOND
#define TIMEOUT (20 * MS)
#define WHILE (30 * MS)
#define AGAIN (3 * STEADY_SECOND) /* a store has this long to recover */

/* ---- The loop ---- */

enum call { TIMER_START, IO_WANT, TIMER_NEW, IO_NEW, MALLOC, CALLS };
static const char *const names[] = {"timer_start", "io_want", "timer_new", "io_new", "malloc"};

static struct {
    enum call call;
    unsigned nth, seen; /* the first call is 1; 0: no call fails */
    steady_us lasts, until;
} fault;

static steady_loop base; /* the working loop */
static steady_poller *poller;
static struct event_base *events; /* NULL: the poller is used */

static bool fails(enum call call) {
    if (fault.nth == 0 || fault.call != call || ++fault.seen < fault.nth) return false;
    if (fault.seen == fault.nth) fault.until = now_us() + fault.lasts;
    return fault.seen == fault.nth || now_us() < fault.until;
}

static void *io_new(void *loop, int fd, void (*ready)(void *arg, int seen), void *arg) {
    (void)loop;
    return fails(IO_NEW) ? NULL : base.ops->io_new(base.loop, fd, ready, arg);
}

/* Some adapters drop the old events before they ask for the new ones. */
static int io_want(void *io, int wanted) {
    if (!fails(IO_WANT)) return base.ops->io_want(io, wanted);
    base.ops->io_want(io, 0);
    return -1;
}

static void io_free(void *io) { base.ops->io_free(io); }

static void *timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    (void)loop;
    return fails(TIMER_NEW) ? NULL : base.ops->timer_new(base.loop, fired, arg);
}

/* Some loops stop a timer before they start it again: asyncio cannot restart a timer. */
static int timer_start(void *timer, steady_us delay) {
    if (!fails(TIMER_START)) return base.ops->timer_start(timer, delay);
    base.ops->timer_stop(timer);
    return -1;
}

static void timer_stop(void *timer) { base.ops->timer_stop(timer); }
static void timer_free(void *timer) { base.ops->timer_free(timer); }

static const steady_loop_ops ops = {.name = "failing",
                                    .io_new = io_new,
                                    .io_want = io_want,
                                    .io_free = io_free,
                                    .timer_new = timer_new,
                                    .timer_start = timer_start,
                                    .timer_stop = timer_stop,
                                    .timer_free = timer_free};
static const steady_loop loop = {.ops = &ops};

static void turn(steady_us wait) {
    if (events == NULL) {
        assert_true(steady_poller_run(poller, wait) >= 0);
        return;
    }
    const struct timeval t = {wait / STEADY_SECOND, wait % STEADY_SECOND};
    event_base_loopexit(events, &t);
    event_base_loop(events, EVLOOP_ONCE);
}

/* ---- A store on it ---- */

static struct server server, sentinel, replica;
static struct cluster cluster;
static int tls_port; /* 0: this build has no TLS */

static steady_store *store;
static steady_throttler *throttler;
static const steady_limit limit = {.max_capacity = 1000000, .drop_recharge = HOUR};
static const steady_store_options options = {.loop = &loop, .timeout = TIMEOUT};

static int asked, answered, verdicts;

static void count(const steady_result *result, void *data) {
    (void)data;
    answered++;
    verdicts += result->error == 0;
}

static void ask_one(const char *key) { asked += steady_consume(throttler, key, strlen(key), 1, count, NULL) == 0; }

static void ask(const char *key) {
    if (throttler == NULL) return;
    ask_one(key);
    asked += steady_peek(throttler, key, strlen(key), count, NULL) == 0;
}

/* In a cluster these keys lie in several slots, of several nodes. */
static void ask_several(const char *key) {
    if (throttler == NULL) return;
    const steady_part parts[] = {{.throttler = throttler, .key = key, .key_len = strlen(key), .amount = 1},
                                 {.throttler = throttler, .key = "other", .key_len = 5, .amount = 1},
                                 {.throttler = throttler, .key = "third", .key_len = 5, .amount = 1}};
    asked += steady_consume_all(parts, COUNT(parts), NULL, count, NULL, NULL) == 0;
}

static void run(steady_us time) {
    for (const steady_us until = now_us() + time; now_us() < until && answered < asked;)
        turn(5 * MS);
}

static void open_at(const char *url) {
    if (steady_store_open(&store, url, &options, NULL) == 0)
        steady_throttler_new(&throttler, store, &limit, NULL, NULL);
}

static void close_all(void) {
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    assert_int_equal(answered, asked);
}

/* ---- Scenes: the store works while the loop fails ---- */

static void kill_connections(struct server *at) { server_ask(at, "CLIENT KILL TYPE normal"); }

static void ask_and_lose(struct server *servers, unsigned count_of_them) {
    ask("a");
    run(2 * TIMEOUT);
    for (unsigned i = 0; i < count_of_them; i++)
        kill_connections(&servers[i]);
    ask("b");
    run(2 * TIMEOUT);
    ask("c");
    run(2 * TIMEOUT);
}

static void play_server(void) {
    open_at(server.url);
    ask_and_lose(&server, 1);
}

static void play_frozen(void) {
    open_at(server.unix_url);
    ask("a");
    run(2 * TIMEOUT);
    server_freeze(&server);
    ask("b");
    run(2 * TIMEOUT);
    ask("c");
    run(6 * TIMEOUT);
    server_thaw(&server);
}

/* No server listens at first. */
static void play_refused(void) {
    char url[64];
    snprintf(url, sizeof url, "redis://localhost:%d", server.port);
    server_kill(&server);
    open_at(url);
    ask("a");
    run(2 * TIMEOUT);
    ask("b");
    run(2 * TIMEOUT);
    server_restart(&server, true);
    ask("c");
    run(2 * TIMEOUT);
}

static void play_tls(void) {
    char url[200];
    snprintf(url, sizeof url, "rediss://127.0.0.1:%d?tls_ca=%s", tls_port, certificate("ca.pem"));
    open_at(url);
    ask_and_lose(&server, 1);
}

static void play_sentinel(void) {
    char url[96];
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/main?peek=replica", sentinel.port);
    open_at(url);
    ask_and_lose(&server, 1);
    kill_connections(&sentinel);
    kill_connections(&replica);
    kill_connections(&server);
    ask("d");
    run(2 * TIMEOUT);
}

static void play_cluster(void) {
    open_at(cluster.nodes[0].url);
    ask_and_lose(cluster.nodes, cluster.count);
}

static void play_several_slots(void) {
    open_at(cluster.nodes[0].url);
    ask_several("a");
    run(2 * TIMEOUT);
    ask_several("b");
    ask_several("c");
    turn(0);
    for (unsigned i = 0; i < cluster.count; i++)
        kill_connections(&cluster.nodes[i]);
    run(2 * TIMEOUT);
    ask_several("d");
    run(2 * TIMEOUT);
}

static redisAsyncContext *context;
static bool disconnected;

static void on_disconnect(const redisAsyncContext *of, int status) {
    (void)of;
    (void)status;
    disconnected = true;
}

/* The context belongs to the caller. When it is gone, the caller makes another context and store. */
static void play_attached(void) {
    disconnected = false;
    context = redisAsyncConnect("127.0.0.1", server.port);
    assert_int_equal(context->err, 0);
    assert_int_equal(redisLibeventAttach(context, events), REDIS_OK);
    redisAsyncSetDisconnectCallback(context, on_disconnect);
    if (steady_store_attach(&store, context, &options, NULL) == 0)
        steady_throttler_new(&throttler, store, &limit, NULL, NULL);
    for (int i = 0; i < 3; i++) {
        ask("a");
        run(2 * TIMEOUT);
    }
}

static void end_attached(void) {
    close_all();
    if (!disconnected) redisAsyncFree(context);
}

static void play_memory(void) {
    open_at("memory:");
    for (int i = 0; i < 3; i++) {
        ask("a");
        run(2 * TIMEOUT);
    }
}

/* ---- Checks ---- */

static bool decides(void) {
    const int before = verdicts;
    const steady_us until = now_us() + AGAIN;
    while (verdicts == before && now_us() < until) {
        ask_one("again");
        run(2 * TIMEOUT);
    }
    return verdicts > before;
}

/* Replies are read as they arrive. If the loop does not watch the connection, they are found at their deadlines. */
static bool hears(void) {
    for (int i = 0; i < 50; i++) {
        const steady_us begin = now_us();
        const int before = verdicts;
        ask_one("again"); /* a second decision would make the loop watch for another event */
        run(2 * TIMEOUT);
        if (verdicts > before && now_us() - begin < TIMEOUT / 2) return true;
    }
    return false;
}

/* Returns false if there is no n-th call. */
static bool play_with(void (*play)(void), void (*end)(void), enum call call, unsigned nth, steady_us lasts) {
    asked = answered = verdicts = 0;
    fault.call = call;
    fault.lasts = lasts;
    fault.seen = 0;
    fault.nth = nth;
    if (call == MALLOC) alloc_fail(nth);
    play();
    const bool happened = call == MALLOC ? alloc_failed() : fault.seen >= nth;
    fault.nth = 0;
    alloc_fail(0);
    if (store != NULL && throttler == NULL) steady_throttler_new(&throttler, store, &limit, NULL, NULL);
    if (store != NULL && !decides())
        fail_msg("after %s, number %u%s: never again", names[call], nth, lasts > 0 ? " and those after it" : "");
    if (store != NULL && !hears()) fail_msg("after %s, number %u: each answer is late", names[call], nth);
    run(AGAIN);
    if (answered != asked) fail_msg("after %s, number %u: %d of %d answered", names[call], nth, answered, asked);
    end();
    return happened;
}

static void each_call_fails(void (*play)(void), void (*end)(void)) {
    unsigned faults = 0;
    for (enum call call = 0; call < CALLS; call++)
        for (int longer = 0; longer < (call == MALLOC ? 1 : 2); longer++)
            for (unsigned nth = 1; play_with(play, end, call, nth, longer * WHILE); nth++)
                faults++;
    print_message("# %u calls failed\n", faults);
    assert_true(faults > 4);
}

static void plain_store_survives_each_failed_call_of_the_loop(void **state) {
    (void)state;
    each_call_fails(play_server, close_all);
}

static void store_of_a_frozen_server_survives_each_failed_call_of_the_loop(void **state) {
    (void)state;
    each_call_fails(play_frozen, close_all);
}

static void store_of_a_late_server_survives_each_failed_call_of_the_loop(void **state) {
    (void)state;
    each_call_fails(play_refused, close_all);
}

static void tls_store_survives_each_failed_call_of_the_loop(void **state) {
    (void)state;
    if (tls_port == 0) skip();
    each_call_fails(play_tls, close_all);
}

static void sentinel_store_survives_each_failed_call_of_the_loop(void **state) {
    (void)state;
    each_call_fails(play_sentinel, close_all);
}

static void cluster_store_survives_each_failed_call_of_the_loop(void **state) {
    (void)state;
    cluster_start(&cluster, PRIMARIES, NULL);
    each_call_fails(play_cluster, close_all);
    cluster_stop(&cluster);
}

static void calls_in_several_slots_survive_each_failed_call_of_the_loop(void **state) {
    (void)state;
    cluster_start(&cluster, PRIMARIES, NULL);
    each_call_fails(play_several_slots, close_all);
    cluster_stop(&cluster);
}

static void attached_store_survives_each_failed_call_of_the_loop(void **state) {
    (void)state;
    events = event_base_new();
    base = steady_event_loop(events);
    each_call_fails(play_attached, end_attached);
    event_base_free(events);
    events = NULL;
    base = steady_poller_loop(poller);
}

static void embedded_store_survives_each_failed_call_of_the_loop(void **state) {
    (void)state;
    each_call_fails(play_memory, close_all);
}

/* A decision without a timer could not end by its deadline, so it is not sent, whether the server is up or not. */
static void decision_without_a_timer_is_not_sent(void **state) {
    const char *const urls[] = {server.url, "redis://127.0.0.1:1"};
    steady_stats before, after;
    (void)state;
    for (size_t i = 0; i < COUNT(urls); i++) {
        asked = answered = verdicts = 0;
        open_at(urls[i]);
        ask("before");
        run(STEADY_SECOND);
        run_for(poller, 2 * TIMEOUT); /* all their timers have fired */
        server_ask(&server, "DEL k");
        steady_store_stats(store, &before);
        fault.call = TIMER_START;
        fault.seen = 0;
        fault.nth = 1;
        fault.lasts = HOUR;
        for (int n = 0; n < 3; n++)
            assert_int_equal(steady_consume(throttler, "k", 1, 1, count, NULL), STEADY_SYSTEM);
        fault.nth = 0;
        assert_string_equal(last_error_of(store), "the event loop cannot start a timer");
        steady_store_stats(store, &after);
        assert_int_equal(after.decisions, before.decisions + 3);
        assert_int_equal(after.unavailable, before.unavailable + 3);
        assert_int_equal(after.in_flight, 0);
        assert_string_equal(server_ask(&server, "EXISTS k"), "0");
        close_all();
    }
}

/* ---- */

static void start_tls(void) {
    steady_store *one = NULL;
    if (steady_store_open(&one, "rediss://h", NULL, NULL) == STEADY_UNSUPPORTED) return;
    steady_store_close(&one);
    tls_port = free_port();
    certificates_make();
    assert_string_equal(server_ask(&server,
                                   "CONFIG SET tls-auth-clients no tls-ca-cert-file %s tls-cert-file %s "
                                   "tls-key-file %s tls-port %d",
                                   certificate("ca.pem"), certificate("server.pem"), certificate("server.key"),
                                   tls_port),
                        "OK");
}

static int group_set_up(void **state) {
    (void)state;
    assert_int_equal(steady_poller_new(&poller), 0);
    base = steady_poller_loop(poller);
    server_start(&server, "--repl-diskless-sync-delay 0");
    server_start(&replica, NULL);
    server_ask(&replica, "REPLICAOF 127.0.0.1 %d", server.port);
    while (strstr(server_ask(&server, "ROLE"), "127.0.0.1") == NULL)
        sleep_us(10 * MS);
    sentinel_start(&sentinel, server.port, "");
    start_tls();
    return 0;
}

static int group_tear_down(void **state) {
    (void)state;
    certificates_remove();
    server_stop(&sentinel);
    server_stop(&replica);
    server_stop(&server);
    cluster_stop(&cluster);
    steady_poller_free(&poller);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedded_store_survives_each_failed_call_of_the_loop),
        cmocka_unit_test(decision_without_a_timer_is_not_sent),
        cmocka_unit_test(plain_store_survives_each_failed_call_of_the_loop),
        cmocka_unit_test(tls_store_survives_each_failed_call_of_the_loop),
        cmocka_unit_test(store_of_a_frozen_server_survives_each_failed_call_of_the_loop),
        cmocka_unit_test(sentinel_store_survives_each_failed_call_of_the_loop),
        cmocka_unit_test(attached_store_survives_each_failed_call_of_the_loop),
        cmocka_unit_test(cluster_store_survives_each_failed_call_of_the_loop),
        cmocka_unit_test(calls_in_several_slots_survive_each_failed_call_of_the_loop),
        cmocka_unit_test(store_of_a_late_server_survives_each_failed_call_of_the_loop),
    };
    return cmocka_run_group_tests_name("loop faults", tests, group_set_up, group_tear_down);
}
