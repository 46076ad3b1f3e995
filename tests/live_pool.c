/* SPDX-License-Identifier: MIT
 * A pool on a real server: blocking calls from many threads, lost servers, forks, and closing under way. */
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random.h"

#define MS STEADY_MILLISECOND
#define THREADS 8
#define LARGE 800000
#define KEY "k"
#define ENDLESS -1
#define PATIENT (5 * STEADY_SECOND)
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CALLS 600
#define WAVES 40
#define FORKS 15
#else
#define CALLS 4000
#define WAVES 300
#define FORKS 60
#endif

static struct server server;
static steady_store *store;
static steady_throttler *throttler;

/* ---- A pool and its threads. A thread cannot fail a test, so it counts, and the test looks at the sums. ---- */

struct crowd {
    steady_throttler *throttler;
    const char *key;
    atomic_bool stop;
    bool endless;      /* until stop */
    atomic_long calls; /* otherwise: left to make */
    atomic_long ended, allowed, denied, errors[32];
    atomic_long slowest; /* us */
    atomic_int threads;  /* that have ended */
    pthread_t ids[64];
    int n;
};

static void crowd_note(struct crowd *crowd, const steady_result *r, steady_us took) {
    long slowest = atomic_load(&crowd->slowest);
    if (r->error != 0) atomic_fetch_add(&crowd->errors[-r->error], 1);
    if (r->source == STEADY_FROM_STORE) atomic_fetch_add(r->success ? &crowd->allowed : &crowd->denied, 1);
    while (took > slowest && !atomic_compare_exchange_weak(&crowd->slowest, &slowest, (long)took))
        continue;
    atomic_fetch_add(&crowd->ended, 1);
}

static void *crowd_work(void *arg) {
    struct crowd *crowd = arg;
    while (!atomic_load(&crowd->stop) && (crowd->endless || atomic_fetch_sub(&crowd->calls, 1) > 0)) {
        steady_result r;
        const steady_us began = now_us();
        steady_consume_sync(crowd->throttler, crowd->key, strlen(crowd->key), 1, &r);
        crowd_note(crowd, &r, now_us() - began);
        if (r.error == STEADY_CLOSED || r.error == STEADY_UNAVAILABLE) sleep_us(MS);
    }
    atomic_fetch_add(&crowd->threads, 1);
    return NULL;
}

static void crowd_start(struct crowd *crowd, int n, long calls) {
    crowd->throttler = throttler;
    crowd->key = KEY;
    crowd->n = n;
    crowd->endless = calls == ENDLESS;
    atomic_store(&crowd->calls, calls);
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_create(&crowd->ids[i], NULL, crowd_work, crowd), 0);
}

static void crowd_join(struct crowd *crowd) {
    const steady_us give_up = now_us() + 60 * STEADY_SECOND;
    while (atomic_load(&crowd->threads) < crowd->n && now_us() < give_up)
        sleep_us(MS);
    assert_int_equal(atomic_load(&crowd->threads), crowd->n); /* otherwise a call has not ended */
    for (int i = 0; i < crowd->n; i++)
        pthread_join(crowd->ids[i], NULL);
}

static void crowd_stop(struct crowd *crowd) {
    atomic_store(&crowd->stop, true);
    crowd_join(crowd);
}

static long crowd_failed(const struct crowd *crowd) {
    long sum = 0;
    for (size_t i = 0; i < COUNT(crowd->errors); i++)
        sum += atomic_load(&crowd->errors[i]);
    return sum;
}

/* All calls have ended, with a verdict or with one of these two errors. */
static void assert_only_errors(const struct crowd *crowd, int a, int b) {
    for (int i = 0; i < (int)COUNT(crowd->errors); i++)
        if (i != -a && i != -b && atomic_load(&crowd->errors[i]) > 0)
            fail_msg("%ld calls ended as %s", atomic_load(&crowd->errors[i]), steady_error_name(-i));
    assert_int_equal(atomic_load(&crowd->ended),
                     atomic_load(&crowd->allowed) + atomic_load(&crowd->denied) + crowd_failed(crowd));
}

static void open_pool_with(uint32_t connections, steady_store_options options, int64_t capacity) {
    steady_message why = {.text = ""};
    char name[] = "pool"; /* the pool keeps its own */
    options.client_name = name;
    if (steady_pool_open(&store, server.url, connections, &options, &why) != 0) fail_msg("%s", why.text);
    memset(name, '?', sizeof name - 1);
    throttler = new_throttler(store, capacity, HOUR);
}

static void open_pool(uint32_t connections, steady_us timeout, int64_t capacity) {
    open_pool_with(connections, (steady_store_options){.timeout = timeout}, capacity);
}

static int ask_one(void) {
    steady_result r;
    return steady_consume_sync(throttler, KEY, 1, 1, &r);
}

static long long level(void) {
    steady_result r = {0};
    assert_int_equal(steady_peek_sync(throttler, KEY, 1, &r), 0);
    return (long long)r.level;
}

/* Connections of the server with this name. */
static unsigned connections_named(const char *name) {
    char field[64];
    unsigned n = 0;
    snprintf(field, sizeof field, " name=%s ", name);
    for (const char *at = server_ask(&server, "CLIENT LIST"); (at = strstr(at, field)) != NULL; at++)
        n++;
    return n;
}

static void await_connections(unsigned n) {
    const steady_us give_up = now_us() + 5 * STEADY_SECOND;
    while (connections_named("pool") != n && now_us() < give_up)
        sleep_us(10 * MS);
    assert_int_equal(connections_named("pool"), n);
}

static int set_up(void **state) {
    (void)state;
    server_start(&server, NULL);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    server_stop(&server);
    return 0;
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

/* ---- Without faults ---- */

static void calls_of_eight_threads_share_one_connection_and_admit_exactly_the_capacity(void **state) {
    static struct crowd crowd;
    steady_stats stats;
    (void)state;
    open_pool(0, PATIENT, THREADS * CALLS / 2);
    crowd_start(&crowd, THREADS, THREADS * CALLS);
    crowd_join(&crowd);
    assert_int_equal(crowd_failed(&crowd), 0);
    assert_int_equal(atomic_load(&crowd.ended), THREADS * CALLS);
    assert_int_equal(atomic_load(&crowd.allowed), THREADS * CALLS / 2);
    assert_int_equal(level(), THREADS * CALLS / 2);
    assert_int_equal(connections_named("pool"), 1);
    steady_store_stats(store, &stats);
    assert_int_equal(stats.decisions, THREADS * CALLS + 1);
    assert_int_equal(stats.allowed, THREADS * CALLS / 2);
    assert_int_equal(stats.in_flight + stats.reconnects + stats.timeouts, 0);
    assert_int_equal(steady_store_state(store), STEADY_READY);
    assert_string_equal(last_error_of(store), "");
}

static void pool_of_three_makes_at_most_three_connections(void **state) {
    static struct crowd crowd;
    (void)state;
    open_pool(3, PATIENT, LARGE);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(connections_named("pool"), 1);
    crowd_start(&crowd, 2 * THREADS, 2 * CALLS);
    crowd_join(&crowd);
    assert_int_equal(crowd_failed(&crowd), 0);
    assert_between(connections_named("pool"), 2, 3);
    assert_int_equal(level(), 2 * CALLS + 1);
}

/* In most waves a thread drives whose call ends before those of others. */
static void no_call_is_lost_while_threads_come_and_go(void **state) {
    uint64_t seed = 1;
    long asked = 0;
    (void)state;
    open_pool(0, PATIENT, LARGE);
    for (int i = 0; i < WAVES; i++) {
        static struct crowd crowds[2];
        memset(crowds, 0, sizeof crowds);
        for (int k = 0; k < 2; k++) {
            const long calls = (long)random_in(&seed, 1, 40);
            crowd_start(&crowds[k], (int)random_in(&seed, 1, 12), calls);
            asked += calls;
        }
        for (int k = 0; k < 2; k++) {
            crowd_join(&crowds[k]);
            assert_int_equal(crowd_failed(&crowds[k]), 0);
        }
    }
    assert_int_equal(level(), asked);
}

static void *ask_on_own_throttler(void *arg) {
    struct crowd *crowd = arg;
    const steady_limit limit = {.max_capacity = LARGE, .drop_recharge = HOUR};
    for (int i = 0; i < 50; i++) {
        steady_throttler *own = NULL;
        steady_result r;
        if (steady_throttler_new(&own, store, &limit, NULL, NULL) != 0) continue;
        steady_consume_sync(own, KEY, 1, 1, &r);
        crowd_note(crowd, &r, 0);
        steady_throttler_free(&own);
    }
    return NULL;
}

static void any_thread_may_make_and_free_throttlers(void **state) {
    static struct crowd crowd;
    (void)state;
    open_pool(0, PATIENT, LARGE);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&crowd.ids[i], NULL, ask_on_own_throttler, &crowd), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(crowd.ids[i], NULL);
    assert_int_equal(crowd_failed(&crowd), 0);
    assert_int_equal(level(), THREADS * 50);
}

/* ---- Calls on several buckets ---- */

static steady_throttler *two_limits;

static void *ask_for_two_limits(void *arg) {
    struct crowd *crowd = arg;
    for (int i = 0; i < CALLS / 10; i++) {
        steady_part_result parts[2] = {{0}};
        const steady_how how = {.parts = parts, .parts_room = 2, .reserve = true};
        const steady_part part = {.throttler = two_limits, .key = KEY, .key_len = 1, .amount = 2};
        steady_result r;
        steady_consume_all_sync(&part, 1, &how, &r);
        if (r.error == 0 && (r.n_parts != 2 || r.parts != parts || parts[0].level != parts[1].level))
            r.error = STEADY_SYSTEM; /* the results of another call */
        if (r.error == 0 && r.success) {
            const steady_settlement settlement = {.reservation = r.reservation, .store = store, .actual = 1};
            steady_result settled;
            if (steady_settle_sync(&settlement, &settled) != 0) r.error = settled.error;
        }
        crowd_note(crowd, &r, 0);
        steady_reservation_free(&r.reservation);
    }
    return NULL;
}

static void calls_on_several_buckets_have_their_own_results(void **state) {
    const steady_limit limits[2] = {{.max_capacity = LARGE, .drop_recharge = 2 * HOUR},
                                    {.max_capacity = LARGE, .drop_recharge = 3 * HOUR}};
    static struct crowd crowd;
    steady_result r;
    (void)state;
    open_pool(0, PATIENT, LARGE);
    assert_int_equal(steady_throttler_new_limits(&two_limits, store, limits, 2, NULL, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&crowd.ids[i], NULL, ask_for_two_limits, &crowd), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(crowd.ids[i], NULL);
    for (size_t i = 0; i < COUNT(crowd.errors); i++)
        if (atomic_load(&crowd.errors[i]) > 0)
            fail_msg("%ld %s: %s", atomic_load(&crowd.errors[i]), steady_error_name(-(int)i), last_error_of(store));
    assert_int_equal(atomic_load(&crowd.allowed), THREADS * (CALLS / 10));
    assert_int_equal(steady_peek_sync(two_limits, KEY, 1, &r), 0);
    assert_int_equal(r.level, THREADS * (CALLS / 10));
    steady_throttler_free(&two_limits);
}

/* ---- Lost servers ---- */

#define TIMEOUT (100 * MS)

static void assert_in_time(const struct crowd *crowd, steady_us taken_before) {
    assert_between(atomic_load(&crowd->slowest), 0, TIMEOUT + slack_since(taken_before));
}

static void assert_charged(struct crowd *crowd, long long charged) {
    assert_between(charged, atomic_load(&crowd->allowed),
                   atomic_load(&crowd->allowed) + atomic_load(&crowd->errors[-STEADY_UNKNOWN]));
}

static void assert_used_again(struct crowd *crowd) {
    const long allowed = atomic_load(&crowd->allowed);
    const steady_us give_up = now_us() + 5 * STEADY_SECOND;
    while (atomic_load(&crowd->allowed) < allowed + 100 && now_us() < give_up)
        sleep_us(MS);
    assert_true(atomic_load(&crowd->allowed) >= allowed + 100);
}

static void killed_server_ends_each_call_in_time_and_is_used_again(void **state) {
    static struct crowd crowd;
    const steady_us before = taken_away();
    (void)state;
    open_pool(0, TIMEOUT, LARGE);
    crowd_start(&crowd, THREADS, ENDLESS);
    assert_used_again(&crowd);
    server_kill(&server);
    sleep_us(300 * MS);
    assert_int_equal(steady_store_state(store), STEADY_DOWN);
    server_restart(&server, true);
    assert_used_again(&crowd);
    crowd_stop(&crowd);
    assert_only_errors(&crowd, STEADY_UNAVAILABLE, STEADY_UNKNOWN);
    assert_true(atomic_load(&crowd.errors[-STEADY_UNAVAILABLE]) > 0);
    assert_in_time(&crowd, before);
    assert_string_not_equal(last_error_of(store), "");
}

static void frozen_server_ends_each_call_in_time_and_charges_at_most_the_unknown_ones(void **state) {
    static struct crowd crowd;
    const steady_us before = taken_away();
    (void)state;
    open_pool(0, TIMEOUT, LARGE);
    crowd_start(&crowd, THREADS, ENDLESS);
    assert_used_again(&crowd);
    server_freeze(&server);
    sleep_us(400 * MS);
    server_thaw(&server);
    assert_used_again(&crowd);
    crowd_stop(&crowd);
    assert_true(atomic_load(&crowd.errors[-STEADY_UNKNOWN]) > 0);
    assert_in_time(&crowd, before);
    assert_charged(&crowd, level());
}

static void lost_connection_is_noticed_before_the_next_call(void **state) {
    (void)state;
    open_pool(0, PATIENT, LARGE);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ask_one(), 0);
        server_ask(&server, "CLIENT KILL TYPE normal");
        sleep_us(5 * MS);
    }
    assert_int_equal(ask_one(), 0);
    assert_int_equal(level(), 21);
}

static void connections_killed_under_load_charge_at_most_the_unknown_calls(void **state) {
    static struct crowd crowd;
    (void)state;
    open_pool(2, PATIENT, LARGE);
    crowd_start(&crowd, THREADS, ENDLESS);
    for (int i = 0; i < 20; i++) {
        sleep_us(10 * MS);
        server_ask(&server, "CLIENT KILL TYPE normal");
    }
    assert_used_again(&crowd);
    crowd_stop(&crowd);
    assert_only_errors(&crowd, STEADY_UNKNOWN, STEADY_UNAVAILABLE);
    assert_charged(&crowd, level());
}

/* ---- Fork ---- */

static unsigned descriptors_of_sockets(void) {
    unsigned n = 0;
    char path[300], target[64];
    DIR *directory = opendir("/proc/self/fd");
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        const ssize_t len = readlink(path, target, sizeof target);
        if (len > 7 && strncmp(target, "socket:", 7) == 0) n++;
    }
    if (directory != NULL) closedir(directory);
    return n;
}

/* In the child: 0, or the number of the line that found a fault. */
static int play_child(unsigned sockets) {
    steady_result r;
    steady_stats stats;
    if (steady_store_state(store) != STEADY_CONNECTING) return __LINE__ % 250;
    for (int i = 0; i < 20; i++)
        if (steady_consume_sync(throttler, "child", 5, 1, &r) != 0) return __LINE__ % 250;
    steady_store_stats(store, &stats);
    if (stats.decisions != 20 || stats.allowed != 20 || stats.in_flight != 0) return __LINE__ % 250;
    if (descriptors_of_sockets() != sockets) return __LINE__ % 250; /* the parent's is closed, its own is open */
#if !defined(__SANITIZE_THREAD__)                                   /* which forbids new threads here */
    static struct crowd crowd;
    crowd.throttler = throttler;
    crowd.key = "child";
    atomic_store(&crowd.calls, 40);
    for (int i = 0; i < 4; i++)
        if (pthread_create(&crowd.ids[i], NULL, crowd_work, &crowd) != 0) return __LINE__ % 250;
    for (int i = 0; i < 4; i++)
        pthread_join(crowd.ids[i], NULL);
    if (atomic_load(&crowd.allowed) != 40) return __LINE__ % 250;
#endif
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    return descriptors_of_sockets() == sockets - 1 ? 0 : __LINE__ % 250;
}

static void fork_child(unsigned sockets) {
    int status = 0;
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) _exit(play_child(sockets));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) fail_msg("the child was killed by signal %d", WTERMSIG(status));
    if (status != 0) fail_msg("the child found a fault in line %d (modulo 250)", WEXITSTATUS(status));
}

static void child_goes_on_with_connections_of_its_own(void **state) {
    (void)state;
    const unsigned sockets = descriptors_of_sockets() + 1;
    open_pool(0, PATIENT, LARGE);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask_one(), 0);
        fork_child(sockets);
        await_connections(1);
    }
    assert_int_equal(ask_one(), 0);
    steady_stats stats;
    steady_store_stats(store, &stats);
    assert_int_equal(stats.reconnects, 0); /* the children did not disturb the connection */
    assert_int_equal(level(), 4);
}

static void child_of_a_pool_without_a_connection_goes_on(void **state) {
    (void)state;
    open_pool(0, PATIENT, LARGE);
    fork_child(descriptors_of_sockets() + 1);
    assert_int_equal(ask_one(), 0);
}

static void parent_and_child_go_on_if_threads_are_in_calls_at_the_fork(void **state) {
    static struct crowd crowd;
    (void)state;
    const unsigned sockets = descriptors_of_sockets() + 1;
    open_pool(0, PATIENT, LARGE);
    crowd_start(&crowd, THREADS, ENDLESS);
    assert_used_again(&crowd);
    for (int i = 0; i < FORKS; i++)
        fork_child(sockets);
    assert_used_again(&crowd);
    crowd_stop(&crowd);
    assert_int_equal(crowd_failed(&crowd), 0);
    assert_int_equal(level(), atomic_load(&crowd.allowed));
}

static void child_that_only_closes_the_pool_does_not_disturb_the_parent(void **state) {
    int status = 0;
    (void)state;
    open_pool(2, PATIENT, LARGE);
    assert_int_equal(ask_one(), 0);
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) {
        steady_throttler_free(&throttler);
        steady_store_close(&store);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(level(), 2);
}

/* ---- Closing ---- */

static void closing_ends_the_calls_of_all_threads(void **state) {
    uint64_t seed = 1;
    (void)state;
    for (int i = 0; i < 30; i++) {
        static struct crowd crowd;
        memset(&crowd, 0, sizeof crowd);
        open_pool(1 + (uint32_t)i % 3, PATIENT, LARGE);
        crowd_start(&crowd, THREADS, ENDLESS);
        sleep_us(random_in(&seed, 0, 5 * MS));
        steady_store_close(&store);
        assert_null(store);
        const long allowed = atomic_load(&crowd.allowed);
        crowd_stop(&crowd);
        assert_int_equal(ask_one(), STEADY_CLOSED);
        assert_only_errors(&crowd, STEADY_CANCELLED, STEADY_CLOSED);
        assert_between(atomic_load(&crowd.allowed), allowed, allowed + THREADS);
        steady_throttler_free(&throttler);
    }
}

static void closing_ends_calls_that_wait_for_a_silent_server(void **state) {
    static struct crowd crowd;
    (void)state;
    open_pool(0, 30 * STEADY_SECOND, LARGE);
    assert_int_equal(ask_one(), 0);
    server_freeze(&server);
    crowd_start(&crowd, THREADS, THREADS);
    sleep_us(50 * MS);
    const steady_us began = now_us(), before = taken_away();
    steady_store_close(&store);
    crowd_join(&crowd);
    assert_between(now_us() - began, 0, STEADY_SECOND + slack_since(before));
    assert_int_equal(crowd_failed(&crowd), THREADS);
    assert_only_errors(&crowd, STEADY_CANCELLED, STEADY_CLOSED);
    server_thaw(&server);
}

/* ---- Policies ---- */

static void *ask_under_a_policy(void *arg) {
    static const steady_limit limit = {.max_capacity = 80, .drop_recharge = HOUR};
    struct crowd *crowd = arg;
    const steady_throttler_options local = {.on_error = STEADY_LOCAL, .local_share = 2};
    steady_throttler *own = NULL;
    if (steady_throttler_new(&own, store, &limit, &local, NULL) != 0) return NULL;
    for (int i = 0; i < 20; i++) {
        steady_result r;
        steady_consume_sync(own, KEY, 1, 1, &r);
        if (r.source == STEADY_FROM_LOCAL) atomic_fetch_add(r.success ? &crowd->allowed : &crowd->denied, 1);
        atomic_fetch_add(&crowd->ended, 1);
    }
    steady_throttler_free(&own);
    return NULL;
}

static void threads_share_one_local_bucket_while_the_server_is_down(void **state) {
    static struct crowd crowd;
    (void)state;
    open_pool(2, PATIENT, LARGE);
    server_kill(&server);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&crowd.ids[i], NULL, ask_under_a_policy, &crowd), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(crowd.ids[i], NULL);
    assert_int_equal(atomic_load(&crowd.ended), THREADS * 20);
    assert_int_equal(atomic_load(&crowd.allowed), 40);
    assert_int_equal(atomic_load(&crowd.denied), THREADS * 20 - 40);
}

static void deny_policy_answers_once_for_a_call_of_any_thread(void **state) {
    const steady_limit limit = {.max_capacity = 5, .drop_recharge = HOUR};
    const steady_throttler_options deny = {.on_error = STEADY_DENY};
    steady_throttler *denying = NULL;
    steady_result r;
    steady_stats stats;
    (void)state;
    open_pool(0, PATIENT, LARGE);
    server_kill(&server);
    assert_int_equal(steady_throttler_new(&denying, store, &limit, &deny, NULL), 0);
    assert_int_equal(steady_consume_sync(denying, KEY, 1, 1, &r), 0);
    assert_true(!r.success && r.source == STEADY_FROM_POLICY && r.error == STEADY_UNAVAILABLE);
    steady_store_stats(store, &stats);
    assert_int_equal(stats.decisions, 1);
    assert_int_equal(stats.unavailable, 1);
    steady_throttler_free(&denying);
}

/* ---- The log callback ---- */

static void (*act)(void);
static atomic_int logged;

static void act_in_log(void *data, enum steady_log_level level_, const char *text) {
    (void)data, (void)level_, (void)text;
    if (atomic_fetch_add(&logged, 1) == 0) act();
}

static int nested_error;
static void make_a_call(void) {
    steady_result r;
    nested_error = steady_peek_sync(throttler, KEY, 1, &r);
}
static void close_pool(void) { steady_store_close(&store); }
static void free_all(void) {
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}
static pid_t child;
static void fork_there(void) { child = fork(); }

/* Loses the connection, which the log is told, while eight threads call. Then their calls have ended. */
static void act_while_threads_call(void (*what)(void), struct crowd *crowd) {
    memset(crowd, 0, sizeof *crowd);
    atomic_store(&logged, 0);
    act = what;
    open_pool_with(2, (steady_store_options){.timeout = PATIENT, .log = act_in_log}, LARGE);
    crowd_start(crowd, THREADS, ENDLESS);
    while (atomic_load(&crowd->allowed) < 100)
        sleep_us(MS);
    server_ask(&server, "CLIENT KILL TYPE normal");
    const steady_us give_up = now_us() + 10 * STEADY_SECOND;
    while (atomic_load(&logged) == 0 && now_us() < give_up)
        sleep_us(MS);
    assert_true(atomic_load(&logged) > 0);
}

static void log_callback_may_make_calls(void **state) {
    static struct crowd crowd;
    (void)state;
    act_while_threads_call(make_a_call, &crowd);
    assert_used_again(&crowd);
    crowd_stop(&crowd);
    assert_int_equal(nested_error, 0);
    assert_charged(&crowd, level());
}

static void log_callback_may_close_the_pool(void **state) {
    static struct crowd crowd;
    (void)state;
    act_while_threads_call(close_pool, &crowd);
    const steady_us give_up = now_us() + 10 * STEADY_SECOND;
    while (atomic_load(&crowd.errors[-STEADY_CLOSED]) == 0 && now_us() < give_up)
        sleep_us(MS);
    crowd_stop(&crowd);
    assert_null(store);
    assert_true(atomic_load(&crowd.errors[-STEADY_CLOSED]) > 0);
}

static void log_callback_of_the_only_caller_may_free_all(void **state) {
    steady_result r;
    (void)state;
    atomic_store(&logged, 0);
    act = free_all;
    open_pool_with(0, (steady_store_options){.timeout = PATIENT, .log = act_in_log}, LARGE);
    assert_int_equal(ask_one(), 0);
    server_ask(&server, "CLIENT KILL TYPE normal");
    sleep_us(5 * MS);
    steady_consume_sync(throttler, KEY, 1, 1, &r);
    assert_int_equal(r.error, STEADY_CLOSED);
    assert_null(throttler);
}

static void log_callback_may_fork(void **state) {
    int status = 0;
    (void)state;
    atomic_store(&logged, 0);
    act = fork_there;
    open_pool_with(0, (steady_store_options){.timeout = PATIENT, .log = act_in_log}, LARGE);
    assert_int_equal(ask_one(), 0);
    server_ask(&server, "CLIENT KILL TYPE normal");
    sleep_us(5 * MS);
    const int error = ask_one();
    if (child == 0) _exit(ask_one() == 0 ? 0 : 1);
    assert_return_code(child, errno);
    assert_int_equal(error, 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_SERVER(calls_of_eight_threads_share_one_connection_and_admit_exactly_the_capacity),
        WITH_SERVER(pool_of_three_makes_at_most_three_connections),
        WITH_SERVER(no_call_is_lost_while_threads_come_and_go),
        WITH_SERVER(any_thread_may_make_and_free_throttlers),
        WITH_SERVER(calls_on_several_buckets_have_their_own_results),
        WITH_SERVER(killed_server_ends_each_call_in_time_and_is_used_again),
        WITH_SERVER(frozen_server_ends_each_call_in_time_and_charges_at_most_the_unknown_ones),
        WITH_SERVER(lost_connection_is_noticed_before_the_next_call),
        WITH_SERVER(connections_killed_under_load_charge_at_most_the_unknown_calls),
        WITH_SERVER(child_goes_on_with_connections_of_its_own),
        WITH_SERVER(child_of_a_pool_without_a_connection_goes_on),
        WITH_SERVER(parent_and_child_go_on_if_threads_are_in_calls_at_the_fork),
        WITH_SERVER(child_that_only_closes_the_pool_does_not_disturb_the_parent),
        WITH_SERVER(closing_ends_the_calls_of_all_threads),
        WITH_SERVER(closing_ends_calls_that_wait_for_a_silent_server),
        WITH_SERVER(threads_share_one_local_bucket_while_the_server_is_down),
        WITH_SERVER(deny_policy_answers_once_for_a_call_of_any_thread),
        WITH_SERVER(log_callback_may_make_calls),
        WITH_SERVER(log_callback_may_close_the_pool),
        WITH_SERVER(log_callback_of_the_only_caller_may_free_all),
        WITH_SERVER(log_callback_may_fork),
    };
    return cmocka_run_group_tests_name("live_pool", tests, NULL, NULL);
}
