/* SPDX-License-Identifier: MIT
 * Memory, on a real Redis: each allocation of the library fails in turn, and a decision allocates nothing.
 * Exception: on a connection of the caller, hiredis allocates the replies. */
#include "support.h"

#include <errno.h>
#include <event2/event.h>
#include <hiredis/adapters/libevent.h>
#include <stdlib.h>
#include <steady/event.h>
#include <steady/hiredis.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "alloc.h"
#include "certificates.h"
#include "redis_cluster.h"
#include "sentinels.h"

#define ROUNDS 400
#define LONG_KEY "a key that is longer than those which fit where the others are kept, 64 bytes"

static struct server server, replica, sentinel;
static struct cluster cluster;
static int tls_port; /* 0: this build has no TLS */

static const steady_limit limit = {.max_capacity = 1000000, .drop_recharge = HOUR};

/* The state and the findings of one run of a scene. */
struct scene {
    steady_store *store;
    steady_throttler *throttler;
    struct event_base *base;
    steady_poller *poller;
    int asked, answered;
    int allowed, unsure; /* consumes */
    int error;           /* the last error */
    bool not_asked;      /* it ended a call before the store was asked */
    int64_t foreign;     /* blocks that the hiredis adapter, a header, allocates for us to free */
};

static void note(struct scene *s, const steady_result *r) {
    if (r->error == 0 && r->success) s->allowed++;
    if (r->error == STEADY_UNKNOWN || r->error == STEADY_CANCELLED) s->unsure++;
    if (r->error != 0) s->error = r->error;
}

static void on_consume(const steady_result *result, void *data) {
    struct scene *s = data;
    s->answered++;
    note(s, result);
}

static void on_peek(const steady_result *result, void *data) {
    struct scene *s = data;
    s->answered++;
    if (result->error != 0) s->error = result->error;
}

/* Runs the loop until each decision has ended. */
static void run(struct scene *s) {
    while (s->answered < s->asked) {
        if (s->base != NULL)
            event_base_loop(s->base, EVLOOP_ONCE);
        else if (steady_poller_run(s->poller, STEADY_SECOND) < 0)
            return; /* steady_store_close ends the rest */
    }
}

static void ask(struct scene *s, const char *key) {
    int error = steady_consume(s->throttler, key, strlen(key), 1, on_consume, s);
    if (error == 0) s->asked++;
    if (error == 0) error = steady_peek(s->throttler, key, strlen(key), on_peek, s);
    if (error == 0) s->asked++;
    if (error != 0) s->error = error;
}

static void ask_blocking(struct scene *s, const char *key) {
    steady_result r;
    if (steady_consume_sync(s->throttler, key, strlen(key), 1, &r) != 0) s->error = r.error;
    note(s, &r);
    if (steady_peek_sync(s->throttler, key, strlen(key), &r) != 0) s->error = r.error;
}

#define KEYS 60 /* so that a call needs a longer buffer */

static void on_group(const steady_result *result, void *data) {
    steady_reservation *reservation = result->reservation;
    on_consume(result, data);
    steady_reservation_free(&reservation);
}

/* Takes one drop of the key, and one of each of many long keys. Every second call is a short one. */
static void ask_group(struct scene *s, const char *key, int number) {
    static char long_keys[KEYS][1000];
    steady_part parts[KEYS] = {{.throttler = s->throttler, .key = key, .key_len = strlen(key), .amount = 1}};
    const size_t n = number % 2 == 0 ? KEYS : 2;
    for (size_t i = 1; i < n; i++) {
        memset(long_keys[i], 'k', sizeof long_keys[i]);
        snprintf(long_keys[i], 20, "%zu", i);
        parts[i] =
            (steady_part){.throttler = s->throttler, .key = long_keys[i], .key_len = sizeof long_keys[i], .amount = 1};
    }
    const int error = steady_consume_all(parts, n, &(steady_how){.reserve = true}, on_group, s, NULL);
    if (error == 0) s->asked++;
    if (error != 0) s->error = error;
    s->not_asked = error == STEADY_NO_MEMORY;
    if (error != 0 || s->base != NULL || number > 0) return;
    steady_result r;
    if (steady_consume_all_sync(parts, n, NULL, &r) != 0) s->error = r.error;
    s->not_asked = r.error == STEADY_NO_MEMORY;
    note(s, &r);
}

/* Each error has a text. */
static void close_scene(struct scene *s) {
    if (s->store != NULL && s->asked > 0 && s->error != 0 && !s->not_asked)
        assert_true(*last_error_of(s->store) != '\0');
    steady_throttler_free(&s->throttler);
    steady_store_close(&s->store);
    steady_poller_free(&s->poller);
    assert_int_equal(s->answered, s->asked);
}

/* ---- Scenes: 0, or the error that ended it ---- */

static int open_on_poller(struct scene *s, const char *url) {
    static const steady_throttler_options prefixed = {.prefix = "p:"};
    int error = steady_poller_new(&s->poller);
    if (error != 0) return error;
    const steady_loop loop = steady_poller_loop(s->poller);
    error = steady_store_open(&s->store, url, &(steady_store_options){.loop = &loop}, NULL);
    return error != 0 ? error : steady_throttler_new(&s->throttler, s->store, &limit, &prefixed, NULL);
}

static void play_on_poller(struct scene *s, const char *key) {
    s->error = open_on_poller(s, server.url);
    for (int i = 0; s->error == 0 && i < 40; i++) /* more than fits into the first allocation */
        ask(s, key);
    if (s->error == 0 || s->asked > 0) run(s);
    if (s->error == 0) ask_blocking(s, key);
    close_scene(s);
}

static void play_blocking(struct scene *s, const char *key) {
    static const steady_throttler_options prefixed = {.prefix = "p:"};
    s->error = steady_store_open(&s->store, server.unix_url, NULL, NULL);
    if (s->error == 0) s->error = steady_throttler_new(&s->throttler, s->store, &limit, &prefixed, NULL);
    for (int i = 0; s->error == 0 && i < 3; i++)
        ask_blocking(s, key);
    close_scene(s);
}

static void play_in_pool(struct scene *s, const char *key) {
    static const steady_throttler_options prefixed = {.prefix = "p:"};
    s->error = steady_pool_open(&s->store, server.unix_url, 2, &(steady_store_options){.client_name = "pool"}, NULL);
    if (s->error == 0) s->error = steady_throttler_new(&s->throttler, s->store, &limit, &prefixed, NULL);
    for (int i = 0; s->error == 0 && i < 3; i++)
        ask_blocking(s, key);
    close_scene(s);
}

static void play_groups(struct scene *s, const char *key) {
    s->error = open_on_poller(s, server.url);
    for (int i = 0; s->error == 0 && i < 6; i++) {
        ask_group(s, key, i);
        if (s->asked > 0 && i == 1) run(s);
    }
    if (s->asked > 0) run(s);
    close_scene(s);
}

/* A thread looks the name up. It frees its memory later. */
static void play_by_name(struct scene *s, const char *key) {
    char url[64];
    snprintf(url, sizeof url, "redis://localhost:%d", server.port);
    s->error = open_on_poller(s, url);
    if (s->error == 0) ask(s, key);
    if (s->asked > 0) run(s);
    close_scene(s);
}

/* The store asks a sentinel, then the server for its replica. The replica gets a connection too. */
static void play_by_sentinel(struct scene *s, const char *key) {
    char url[96];
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/main?peek=replica", sentinel.port);
    s->error = open_on_poller(s, url);
    if (s->error == 0) ask(s, key);
    if (s->asked > 0) run(s);
    for (int i = 0; s->asked > 0 && i < 20; i++)
        steady_poller_run(s->poller, STEADY_MILLISECOND);
    if (s->error == 0) ask(s, key);
    if (s->asked > 0) run(s);
    close_scene(s);
}

/* Allocations of OpenSSL do not count: see unit_tls. */
static void play_over_tls(struct scene *s, const char *key) {
    char url[160];
    snprintf(url, sizeof url, "rediss://127.0.0.1:%d?tls_ca=%s", tls_port, certificate("ca.pem"));
    s->error = open_on_poller(s, url);
    for (int i = 0; s->error == 0 && i < 3; i++)
        ask(s, key);
    if (s->asked > 0) run(s);
    if (s->error == 0) ask_blocking(s, key);
    close_scene(s);
}

static redisAsyncContext *context_on(struct event_base *base) {
    redisAsyncContext *context = redisAsyncConnect("127.0.0.1", server.port);
    assert_non_null(context);
    assert_int_equal(context->err, 0);
    assert_int_equal(redisLibeventAttach(context, base), REDIS_OK);
    return context;
}

static int attach(struct scene *s, redisAsyncContext *context) {
    static const steady_throttler_options prefixed = {.prefix = "p:"};
    const steady_loop loop = steady_event_loop(s->base);
    const int error = steady_store_attach(&s->store, context, &(steady_store_options){.loop = &loop}, NULL);
    return error != 0 ? error : steady_throttler_new(&s->throttler, s->store, &limit, &prefixed, NULL);
}

/* ---- Each allocation fails ---- */

static void wait_for_blocks(int64_t blocks) {
    const steady_us until = now_us() + 5 * STEADY_SECOND;
    while (alloc_blocks() != blocks && now_us() < until)
        sleep_us(STEADY_MILLISECOND);
    assert_int_equal(alloc_blocks(), blocks);
}

/* Overloaded: this process could not send the decision, so it must not pass. */
static bool is_want_of_memory(int error) {
    return error == STEADY_NO_MEMORY || error == STEADY_OVERLOADED || error == STEADY_SYSTEM ||
           error == STEADY_OVERLOADED || error == STEADY_UNAVAILABLE || error == STEADY_UNKNOWN;
}

/* The value at the server, or in a cluster at the node that owns the key. */
static const char *stored(const char *key) {
    const char *text = server_ask(cluster.count > 0 ? &cluster.nodes[0] : &server, "GET p:%s", key);
    for (unsigned i = 1; i < cluster.count && strncmp(text, "-MOVED", 6) == 0; i++)
        text = server_ask(&cluster.nodes[i], "GET p:%s", key);
    return text;
}

/* At least the allowed decisions were charged, and at most these and the unknown ones. */
static void assert_charged(const struct scene *s, const char *key) {
    int level = 0;
    double last = 0;
    sscanf(stored(key), "%d %lf", &level, &last);
    if (level > 0 && (double)time(NULL) >= last + 3601) level--; /* the rest of a drop that was given back */
    assert_between(level, s->allowed, s->allowed + s->unsure);
}

static void every_allocation_may_fail(void (*play)(struct scene *, const char *), const char *name) {
    int64_t blocks = alloc_blocks();
    uint64_t nth = 0;
    bool failed = true;
    while (failed) {
        char key[128];
        struct scene s = {0};
        snprintf(key, sizeof key, "%s %s %d", name, LONG_KEY, (int)++nth);
        alloc_fail(nth);
        play(&s, key);
        failed = alloc_failed();
        alloc_fail(0);
        if (s.error != 0 && !(failed && is_want_of_memory(s.error)))
            fail_msg("%s, allocation %d: %s", name, (int)nth, steady_error_name(s.error));
        blocks -= s.foreign;
        wait_for_blocks(blocks);
        assert_charged(&s, key);
    }
    assert_true(nth > 8); /* the wrappers are there */
}

static void store_on_a_loop_survives_each_failed_allocation(void **state) {
    (void)state;
    every_allocation_may_fail(play_on_poller, "loop");
}

static void blocking_store_survives_each_failed_allocation(void **state) {
    (void)state;
    every_allocation_may_fail(play_blocking, "blocking");
}

static void pool_survives_each_failed_allocation(void **state) {
    (void)state;
    every_allocation_may_fail(play_in_pool, "pool");
}

/* In a child: 0: the n-th allocation did not fail; 1: it did; 2: wrong. */
static int play_child_without_memory(struct scene *s, uint64_t nth) {
    steady_result r;
    alloc_fail(nth);
    const int error = steady_consume_sync(s->throttler, "child", 5, 1, &r);
    const bool failed = alloc_failed();
    alloc_fail(0);
    if (error != 0 && !(failed && is_want_of_memory(error))) return 2;
    const steady_us give_up = now_us() + 5 * STEADY_SECOND; /* after a failed attempt there is a pause */
    while (steady_consume_sync(s->throttler, "child", 5, 1, &r) != 0 && now_us() < give_up)
        sleep_us(STEADY_MILLISECOND);
    return r.error != 0 ? 2 : failed;
}

static void child_of_a_pool_survives_each_failed_allocation(void **state) {
    struct scene s = {0};
    int status = 256;
    uint64_t nth = 0;
    (void)state;
    assert_int_equal(steady_pool_open(&s.store, server.url, 1, NULL, NULL), 0);
    assert_int_equal(steady_throttler_new(&s.throttler, s.store, &limit, NULL, NULL), 0);
    ask_blocking(&s, "parent");
    while (status != 0) {
        const pid_t pid = fork();
        nth++;
        assert_return_code(pid, errno);
        if (pid == 0) _exit(play_child_without_memory(&s, nth));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (status != 0 && status != 256) fail_msg("allocation %d: status %d", (int)nth, status);
    }
    assert_true(nth > 8);
    close_scene(&s);
}

static void name_lookup_survives_each_failed_allocation(void **state) {
    (void)state;
    every_allocation_may_fail(play_by_name, "name");
}

static void sentinel_store_survives_each_failed_allocation(void **state) {
    (void)state;
    every_allocation_may_fail(play_by_sentinel, "sentinel");
}

static int64_t foreign_blocks(struct event_base *base) {
    const int64_t blocks = alloc_blocks();
    redisAsyncFree(context_on(base));
    return blocks - alloc_blocks();
}

/* Create the context before allocations fail: the hiredis adapter does not survive a failed allocation. */
static void play_attached(struct scene *s, const char *key) {
    const uint64_t nth = alloc_failing();
    alloc_fail(0);
    s->base = event_base_new();
    s->foreign = 2 * foreign_blocks(s->base);
    redisAsyncContext *context = context_on(s->base);
    alloc_fail(nth);
    s->error = attach(s, context);
    for (int i = 0; s->error == 0 && i < 40; i++)
        ask(s, key);
    if (s->asked > 0) run(s);
    const bool failed = alloc_failed();
    close_scene(s);
    redisAsyncFree(context);
    event_base_free(s->base);
    if (!failed) assert_int_equal(s->error, 0);
}

static void attached_store_survives_each_failed_allocation(void **state) {
    (void)state;
    every_allocation_may_fail(play_attached, "attached");
}

static void play_groups_attached(struct scene *s, const char *key) {
    const uint64_t nth = alloc_failing();
    alloc_fail(0);
    s->base = event_base_new();
    s->foreign = 2 * foreign_blocks(s->base);
    redisAsyncContext *context = context_on(s->base);
    alloc_fail(nth);
    s->error = attach(s, context);
    for (int i = 0; s->error == 0 && i < 6; i++)
        ask_group(s, key, i);
    if (s->asked > 0) run(s);
    close_scene(s);
    redisAsyncFree(context);
    event_base_free(s->base);
}

static void calls_on_many_keys_survive_each_failed_allocation(void **state) {
    (void)state;
    every_allocation_may_fail(play_groups, "group");
    every_allocation_may_fail(play_groups_attached, "attached group");
}

static void play_on_cluster(struct scene *s, const char *key) {
    s->error = open_on_poller(s, cluster.nodes[0].url);
    for (int i = 0; s->error == 0 && i < 40; i++)
        ask(s, key);
    if (s->error == 0 || s->asked > 0) run(s);
    if (s->error == 0) ask_blocking(s, key);
    close_scene(s);
}

/* Plays with a key of the third server. */
static void every_allocation_may_fail_in_a_cluster(void (*play)(struct scene *s, const char *key)) {
    char tag[16], name[20];
    cluster_start(&cluster, PRIMARIES, NULL);
    cluster_tag(tag, 2, 0);
    snprintf(name, sizeof name, "{%s}", tag);
    every_allocation_may_fail(play, name);
    cluster_stop(&cluster);
}

/* The first server is known to the store before the store knows that it belongs to a cluster, or where the key is. */
static void cluster_store_survives_each_failed_allocation(void **state) {
    (void)state;
    every_allocation_may_fail_in_a_cluster(play_on_cluster);
}

/* Calls on a key of each node. */
static void ask_nodes(struct scene *s, const char *key, bool blocking) {
    steady_part parts[PRIMARIES] = {{.throttler = s->throttler, .key = key, .key_len = strlen(key), .amount = 1}};
    char tags[PRIMARIES][16], keys[PRIMARIES][40];
    for (unsigned i = 1; i < PRIMARIES; i++) {
        cluster_tag(tags[i], i - 1, 0);
        snprintf(keys[i], sizeof keys[i], "{%s}of all", tags[i]);
        parts[i] = (steady_part){.throttler = s->throttler, .key = keys[i], .key_len = strlen(keys[i]), .amount = 1};
    }
    if (blocking) {
        steady_result r;
        if (steady_consume_all_sync(parts, PRIMARIES, NULL, &r) != 0) s->error = r.error;
        s->not_asked = r.error == STEADY_NO_MEMORY;
        note(s, &r);
        return;
    }
    const int error = steady_consume_all(parts, PRIMARIES, &(steady_how){.reserve = true}, on_group, s, NULL);
    if (error == 0) s->asked++;
    if (error != 0) s->error = error;
    s->not_asked = error == STEADY_NO_MEMORY;
}

static void play_on_all_nodes(struct scene *s, const char *key) {
    s->error = open_on_poller(s, cluster.nodes[0].url);
    for (int i = 0; s->error == 0 && i < 6; i++) {
        ask_nodes(s, key, false);
        if (s->asked > 0 && i % 3 == 0) run(s);
    }
    if (s->asked > 0) run(s);
    if (s->error == 0) ask_nodes(s, key, true);
    close_scene(s);
}

/* What an allocation that fails between two rounds leaves behind is given back. */
static void calls_in_several_slots_survive_each_failed_allocation(void **state) {
    (void)state;
    every_allocation_may_fail_in_a_cluster(play_on_all_nodes);
}

static void tls_store_survives_each_failed_allocation(void **state) {
    (void)state;
    if (tls_port == 0) skip_because("this build has no TLS");
    every_allocation_may_fail(play_over_tls, "tls");
}

/* No memory is left for a SCRIPT LOAD, because as many decisions are in flight as were allocated. Each decision
 * sends the script itself. */
static void lost_script_is_sent_with_each_decision_if_memory_is_out(void **state) {
    (void)state;
    struct scene s = {0};
    for (int i = 0; i < 2; i++) { /* the second round finds the scripts loaded */
        close_scene(&s);
        assert_int_equal(open_on_poller(&s, server.url), 0);
        ask(&s, "lost");
        run(&s);
    }
    server_ask(&server, "SCRIPT FLUSH");
    for (int i = 0; i < 16; i++) /* each ask makes two decisions */
        ask(&s, "lost");
    alloc_fail_all(true);
    run(&s);
    alloc_fail_all(false);
    assert_int_equal(s.error, 0);
    steady_stats stats;
    steady_store_stats(s.store, &stats);
    assert_int_equal(stats.script_loads, 0);
    close_scene(&s);
}

/* ---- No allocation ---- */

static void ask_many(struct scene *s) {
    for (int i = 0; i < ROUNDS; i++) {
        char key[128];
        snprintf(key, sizeof key, "%s%d", i % 2 == 0 ? "" : LONG_KEY, i);
        ask(s, key);
        if (i % 50 == 49) run(s);
    }
    run(s);
    assert_int_equal(s->error, 0);
}

static void wait_many(struct scene *s) {
    for (int i = 0; i < ROUNDS; i++)
        ask_blocking(s, i % 2 == 0 ? "short" : LONG_KEY);
    assert_int_equal(s->error, 0);
}

/* The first run may allocate. The second must not. */
static void assert_no_allocation(struct scene *s, void (*many)(struct scene *)) {
    many(s);
    alloc_fail(0);
    many(s);
    assert_int_equal(alloc_count(), 0);
}

static void decision_on_a_server_allocates_nothing(void **state) {
    (void)state;
    struct scene s = {0};
    assert_int_equal(open_on_poller(&s, server.url), 0);
    assert_no_allocation(&s, ask_many);
    assert_no_allocation(&s, wait_many);
    close_scene(&s);
}

static void decision_on_a_cluster_allocates_nothing(void **state) {
    (void)state;
    struct scene s = {0};
    cluster_start(&cluster, PRIMARIES, NULL);
    assert_int_equal(open_on_poller(&s, cluster.nodes[0].url), 0);
    ask_many(&s); /* many decisions are redirected until the map has arrived */
    wait_many(&s);
    assert_no_allocation(&s, ask_many);
    assert_no_allocation(&s, wait_many);
    close_scene(&s);
    cluster_stop(&cluster);
}

static void decision_over_tls_allocates_nothing(void **state) {
    (void)state;
    struct scene s = {0};
    char url[160];
    if (tls_port == 0) skip_because("this build has no TLS");
    snprintf(url, sizeof url, "rediss://127.0.0.1:%d?tls_ca=%s", tls_port, certificate("ca.pem"));
    assert_int_equal(open_on_poller(&s, url), 0);
    assert_no_allocation(&s, ask_many);
    assert_no_allocation(&s, wait_many);
    close_scene(&s);
}

static void decision_on_an_attached_store_allocates_nothing(void **state) {
    (void)state;
    struct scene s = {.base = event_base_new()};
    redisAsyncContext *context = context_on(s.base);
    assert_int_equal(attach(&s, context), 0);
    assert_no_allocation(&s, ask_many);
    close_scene(&s);
    redisAsyncFree(context);
    event_base_free(s.base);
}

static void start_tls(void) {
    steady_store *store = NULL;
    if (steady_store_open(&store, "rediss://h", NULL, NULL) == STEADY_UNSUPPORTED) return;
    steady_store_close(&store);
    tls_port = free_port();
    certificates_make();
    const char *done =
        server_ask(&server,
                   "CONFIG SET tls-auth-clients no tls-ca-cert-file %s tls-cert-file %s "
                   "tls-key-file %s tls-port %d",
                   certificate("ca.pem"), certificate("server.pem"), certificate("server.key"), tls_port);
    assert_string_equal(done, "OK");
}

static int group_set_up(void **state) {
    (void)state;
    server_start(&server, "--repl-diskless-sync-delay 0");
    server_start(&replica, NULL);
    server_ask(&replica, "REPLICAOF 127.0.0.1 %d", server.port);
    while (strstr(server_ask(&server, "ROLE"), "127.0.0.1") == NULL)
        sleep_us(10 * STEADY_MILLISECOND);
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
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_on_a_loop_survives_each_failed_allocation),
        cmocka_unit_test(blocking_store_survives_each_failed_allocation),
        cmocka_unit_test(pool_survives_each_failed_allocation),
        cmocka_unit_test(child_of_a_pool_survives_each_failed_allocation),
        cmocka_unit_test(name_lookup_survives_each_failed_allocation),
        cmocka_unit_test(sentinel_store_survives_each_failed_allocation),
        cmocka_unit_test(tls_store_survives_each_failed_allocation),
        cmocka_unit_test(attached_store_survives_each_failed_allocation),
        cmocka_unit_test(calls_on_many_keys_survive_each_failed_allocation),
        cmocka_unit_test(cluster_store_survives_each_failed_allocation),
        cmocka_unit_test(calls_in_several_slots_survive_each_failed_allocation),
        cmocka_unit_test(lost_script_is_sent_with_each_decision_if_memory_is_out),
        cmocka_unit_test(decision_on_a_server_allocates_nothing),
        cmocka_unit_test(decision_on_a_cluster_allocates_nothing),
        cmocka_unit_test(decision_over_tls_allocates_nothing),
        cmocka_unit_test(decision_on_an_attached_store_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, group_set_up, group_tear_down);
}
