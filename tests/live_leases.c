/* SPDX-License-Identifier: MIT
 * Leases on a real server: what they save, when they are returned, and what they never answer. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rig.h"

#define CAPACITY 16000
#define SHARE (CAPACITY / 16)     /* the largest lease */
#define LEAK (10 * STEADY_SECOND) /* a drop: so the level is what was put in */
#define AGE (400 * MS)

/* ---- Set-up ---- */

static void open_with(steady_us age, const steady_loop *loop, steady_us leak) {
    const steady_store_options options = {
        .loop = loop, .timeout = STEADY_SECOND, .lease_age = age, .deny_memory_off = true};
    rig.store = open_store(rig.server.url, &options);
    const steady_limit limit = {.max_capacity = CAPACITY, .drop_recharge = leak};
    assert_int_equal(steady_throttler_new(&rig.throttler, rig.store, &limit, NULL, NULL), 0);
}

static steady_result ask_for(steady_throttler *throttler, const char *key, int64_t amount) {
    steady_result r = {0};
    steady_consume_sync(throttler, key, strlen(key), amount, &r);
    return r;
}

static steady_result ask(const char *key, int64_t amount) { return ask_for(rig.throttler, key, amount); }

/* Calls until one is answered from a lease. Returns how many drops were allowed. */
static unsigned long get_lease(const char *key) {
    for (unsigned long n = 1; n <= 100; n++) {
        const steady_result r = ask(key, 1);
        assert_int_equal(r.error, 0);
        assert_true(r.success);
        if (r.source == STEADY_FROM_LEASE) return n;
    }
    fail_msg("no lease after 100 calls");
    return 0;
}

/* The next call takes a lease. */
#define USES 3
static void before_a_take(struct tally *tally) {
    for (int i = 0; i < USES; i++) {
        consume_counted(rig.throttler, "k", 1, tally);
        run_until_done(rig.poller, tally, STEADY_SECOND);
    }
}

/* The level that others see. */
static long long level_now(const char *key) {
    const steady_store_options options = {.timeout = STEADY_SECOND};
    const steady_limit limit = {.max_capacity = CAPACITY, .drop_recharge = LEAK};
    steady_store *store = open_store(rig.server.url, &options);
    steady_throttler *throttler = NULL;
    steady_result r = {0};
    assert_int_equal(steady_throttler_new(&throttler, store, &limit, NULL, NULL), 0);
    assert_int_equal(steady_peek_sync(throttler, key, strlen(key), &r), 0);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    return r.level;
}

/* Waits until the bucket has this level. */
static void assert_level_within(const char *key, long long wanted, steady_us time) {
    const steady_us begin = now_us(), taken = taken_away();
    long long seen;
    while ((seen = level_now(key)) != wanted) {
        run_for(rig.poller, 5 * MS);
        if (now_us() - begin > time + slack_since(taken)) fail_msg("the level is %lld; it must be %lld", seen, wanted);
    }
}

static long long asked(void) {
    const char *line = strstr(server_ask(&rig.server, "INFO COMMANDSTATS"), "cmdstat_evalsha:calls=");
    return line != NULL ? strtoll(line + strlen("cmdstat_evalsha:calls="), NULL, 10) : 0;
}

/* ---- What it saves ---- */

static void blocking_calls_on_a_hot_key_take_few_requests(void **state) {
    unsigned long allowed = 0;
    (void)state;
    open_with(AGE, NULL, LEAK);
    for (int i = 0; i < CAPACITY; i++)
        allowed += ask("k", 1).success;
    print_message("# %lld requests for %d decisions\n", asked(), CAPACITY);
    assert_int_equal(allowed, CAPACITY);
    assert_true(asked() < 200);
    assert_int_equal(stats().decisions, CAPACITY);
    assert_int_equal(stats().allowed, CAPACITY);
    assert_true(stats().from_lease > CAPACITY - 200);
    assert_int_equal(level("k"), CAPACITY);
    assert_false(ask("k", 1).success);
}

static void calls_of_a_loop_wait_for_the_lease(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(AGE, &rig.loop, LEAK);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 100; i++)
            consume_counted(rig.throttler, "k", 1, &tally);
        run_until_done(rig.poller, &tally, 10 * STEADY_SECOND);
    }
    print_message("# %lld requests for 2000 decisions\n", asked());
    assert_int_equal(tally.allowed, 2000);
    assert_true(asked() < 150);
    assert_loop_never_held();
}

struct caller {
    pthread_t thread;
    unsigned long allowed;
    bool failed;
};

static void *call_often(void *arg) {
    struct caller *caller = arg;
    for (int i = 0; i < CAPACITY / 2; i++) {
        const steady_result r = ask("k", 1);
        caller->failed = caller->failed || r.error != 0;
        caller->allowed += r.success;
    }
    return NULL;
}

static void threads_of_a_pool_share_leases(void **state) {
    const steady_store_options options = {.timeout = STEADY_SECOND, .lease_age = AGE, .deny_memory_off = true};
    const steady_limit limit = {.max_capacity = CAPACITY, .drop_recharge = LEAK};
    struct caller callers[4] = {{0}};
    unsigned long allowed = 0;
    (void)state;
    assert_int_equal(steady_pool_open(&rig.store, rig.server.url, 2, &options, NULL), 0);
    assert_int_equal(steady_throttler_new(&rig.throttler, rig.store, &limit, NULL, NULL), 0);
    for (size_t i = 0; i < COUNT(callers); i++)
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    for (size_t i = 0; i < COUNT(callers); i++) {
        pthread_join(callers[i].thread, NULL);
        assert_false(callers[i].failed);
        allowed += callers[i].allowed;
    }
    print_message("# %lld requests for %d decisions of 4 threads\n", asked(), 2 * CAPACITY);
    assert_in_range(allowed, 1, CAPACITY);
    assert_true(asked() < CAPACITY / 8);
    assert_int_equal(stats().decisions, 2 * CAPACITY);
    assert_int_equal(stats().allowed, allowed);
    assert_int_equal(stats().denied, 2 * CAPACITY - allowed);
    assert_in_range(level("k"), allowed, CAPACITY);
}

/* ---- What it answers ---- */

static void answer_from_a_lease_has_the_level_of_the_take(void **state) {
    (void)state;
    open_with(AGE, NULL, LEAK);
    get_lease("k");
    const long long there = level_now("k");
    const steady_result r = ask("k", 1);
    assert_true(r.success);
    assert_int_equal(r.source, STEADY_FROM_LEASE);
    assert_int_equal(r.level, there);
    assert_int_equal(r.granted, 1);
    assert_int_equal(r.retry_after, 0);
    assert_true(r.atomic);
    assert_true(r.until_next_drop > 0);
}

static void call_on_one_part_has_the_numbers_of_its_part(void **state) {
    steady_part_result each = {0};
    const steady_how how = {.parts = &each, .parts_room = 1};
    steady_result r = {0};
    (void)state;
    open_with(AGE, NULL, LEAK);
    get_lease("k");
    const steady_part part = {.throttler = rig.throttler, .key = "k", .key_len = 1, .amount = 1};
    assert_int_equal(steady_consume_all_sync(&part, 1, &how, &r), 0);
    assert_int_equal(r.source, STEADY_FROM_LEASE);
    assert_true(r.success && each.success);
    assert_int_equal(r.n_parts, 1);
    assert_int_equal(each.granted, 1);
    assert_int_equal(each.level, r.level);
}

/* The bucket is full after a take that got less than it asked for. */
static void short_lease_denies_until_it_may_ask_again(void **state) {
    (void)state;
    open_with(AGE, NULL, LEAK);
    assert_true(ask("k", CAPACITY - 50).success);
    steady_result r;
    do
        r = ask("k", 1);
    while (r.success);
    assert_int_equal(r.error, 0);
    const steady_us denied = now_us(), taken = taken_away();
    const long long before = asked();
    r = ask("k", 1);
    assert_false(r.success);
    assert_int_equal(r.source, STEADY_FROM_LEASE);
    assert_int_equal(r.level, CAPACITY);
    assert_in_range(r.retry_after, 1, AGE);
    assert_int_equal(asked(), before);
    sleep_us(r.retry_after);
    r = ask("k", 1);
    assert_int_equal(r.source, STEADY_FROM_STORE);
    assert_true(now_us() - denied < AGE + slack_since(taken));
}

/* A caller must see the block, and its wait. */
static void blocked_key_is_not_denied_by_a_lease(void **state) {
    const steady_limit ban = {.max_capacity = 1, .drop_recharge = STEADY_SECOND, .block_duration = 600 * STEADY_SECOND};
    steady_throttler *banning = NULL;
    steady_result r;
    (void)state;
    open_with(AGE, NULL, LEAK);
    get_lease("k");
    assert_int_equal(steady_throttler_new(&banning, rig.store, &ban, NULL, NULL), 0);
    assert_true(ask_for(banning, "k", 1).blocked_for > 0);
    do
        r = ask("k", 1);
    while (r.success);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(r.error, 0);
        assert_false(r.success);
        assert_int_equal(r.source, STEADY_FROM_STORE);
        assert_true(r.blocked_for > STEADY_SECOND && r.retry_after >= r.blocked_for);
        r = ask("k", 1);
    }
    steady_throttler_free(&banning);
}

static void others_ask_the_store(void **state) {
    steady_result r = {0};
    (void)state;
    open_with(AGE, NULL, LEAK);
    get_lease("k");
    const steady_limit blocks = {.max_capacity = CAPACITY, .drop_recharge = LEAK, .block_duration = STEADY_SECOND};
    steady_throttler *blocking = NULL;
    assert_int_equal(steady_throttler_new(&blocking, rig.store, &blocks, NULL, NULL), 0);
    for (int i = 0; i < 50; i++)
        assert_int_equal(ask_for(blocking, "b", 1).source, STEADY_FROM_STORE);
    assert_int_equal(steady_peek_sync(rig.throttler, "k", 1, &r), 0);
    assert_int_equal(r.source, STEADY_FROM_STORE);
    assert_int_equal(ask("k", 0).source, STEADY_FROM_STORE);
    assert_int_equal(ask("k", SHARE + 1).source, STEADY_FROM_STORE);
    const steady_how hows[] = {{.max_wait = 1}, {.at_least = 1}, {.reserve = true}};
    for (size_t i = 0; i < COUNT(hows); i++) {
        const steady_call call = {.key = "k", .key_len = 1, .amount = 1, .how = &hows[i]};
        assert_int_equal(steady_decide_sync(rig.throttler, &call, &r), 0);
        assert_int_equal(r.source, STEADY_FROM_STORE);
        steady_reservation_free(&r.reservation);
    }
    const steady_part parts[] = {{.throttler = rig.throttler, .key = "k", .key_len = 1, .amount = 1},
                                 {.throttler = rig.throttler, .key = "l", .key_len = 1, .amount = 1}};
    assert_int_equal(steady_consume_all_sync(parts, 2, NULL, &r), 0);
    assert_int_equal(r.source, STEADY_FROM_STORE);
    const steady_part charge = {
        .throttler = rig.throttler, .key = "k", .key_len = 1, .amount = 1, .kind = STEADY_CHARGE};
    assert_int_equal(steady_consume_all_sync(&charge, 1, NULL, &r), 0);
    assert_int_equal(r.source, STEADY_FROM_STORE);
    steady_throttler_free(&blocking);
}

static void bucket_of_a_small_capacity_has_no_lease(void **state) {
    const steady_store_options options = {.timeout = STEADY_SECOND, .lease_age = AGE, .deny_memory_off = true};
    (void)state;
    rig.store = open_store(rig.server.url, &options);
    rig.throttler = new_throttler(rig.store, 31, LEAK);
    for (int i = 0; i < 40; i++)
        assert_int_equal(ask("k", 1).source, STEADY_FROM_STORE);
}

/* Otherwise both would spend the same drops. */
static void child_of_fork_spends_no_lease_of_its_parent(void **state) {
    const steady_store_options options = {.timeout = STEADY_SECOND, .lease_age = AGE, .deny_memory_off = true};
    const steady_limit limit = {.max_capacity = CAPACITY, .drop_recharge = LEAK};
    (void)state;
    for (int pool = 0; pool < 2; pool++) {
        const char *key = pool ? "p" : "k";
        if (pool) assert_int_equal(steady_pool_open(&rig.store, rig.server.url, 1, &options, NULL), 0);
        if (!pool) rig.store = open_store(rig.server.url, &options);
        assert_int_equal(steady_throttler_new(&rig.throttler, rig.store, &limit, NULL, NULL), 0);
        get_lease(key);
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            const steady_result r = ask(key, 1);
            _exit(r.source == (pool ? STEADY_FROM_STORE : STEADY_FROM_NOWHERE) ? 0 : 1);
        }
        int status = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(ask(key, 1).source, STEADY_FROM_LEASE);
        rig_close();
    }
}

/* Its socket is that of the parent. A settle over it would give back drops that the parent spends, and its reply would
 * be taken for that to a call of the parent. */
static void child_of_fork_that_closes_the_store_returns_no_lease_of_its_parent(void **state) {
    (void)state;
    for (int loop = 0; loop < 2; loop++) {
        const char *key = "k";
        struct tally tally = {0};
        open_with(60 * STEADY_SECOND, loop ? &rig.loop : NULL, LEAK);
        for (int n = 0; loop && n < 20; n++) {
            consume_counted(rig.throttler, key, 1, &tally);
            run_until_done(rig.poller, &tally, STEADY_SECOND);
        }
        if (!loop) get_lease(key);
        const long long before = level_now(key), requests = asked();
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            steady_throttler_free(&rig.throttler);
            steady_store_close(&rig.store);
            _exit(0);
        }
        int status = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(level_now(key), before);
        assert_int_equal(asked(), requests + 1); /* the look at the level */
        const steady_result r = ask("another", 1);
        assert_int_equal(r.error, 0);
        assert_int_equal(r.level, 1);
        assert_int_equal(stats().reconnects, 0);
        assert_int_equal(stats().unknown, 0);
        server_ask(&rig.server, "FLUSHALL");
        rig_close();
    }
}

/* The memory of denials knows that a take would get nothing. */
static void attack_on_a_loop_costs_no_take_for_each_age(void **state) {
    const steady_us age = 10 * MS;
    const steady_store_options options = {.loop = &rig.loop, .timeout = STEADY_SECOND, .lease_age = age};
    const steady_limit limit = {.max_capacity = CAPACITY, .drop_recharge = LEAK};
    struct tally tally = {0};
    (void)state;
    rig.store = open_store(rig.server.url, &options);
    assert_int_equal(steady_throttler_new(&rig.throttler, rig.store, &limit, NULL, NULL), 0);
    consume_counted(rig.throttler, "k", CAPACITY, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    const steady_us begin = now_us();
    int rounds = 0;
    for (; now_us() - begin < STEADY_SECOND || rounds < 200; rounds++) {
        for (int i = 0; i < 10; i++)
            consume_counted(rig.throttler, "k", 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
        run_for(rig.poller, MS);
    }
    print_message("# %lld requests for %d decisions\n", asked(), 10 * rounds);
    assert_int_equal(tally.allowed, 1);
    assert_true(asked() <= 4 + 2 * (now_us() - begin) / STEADY_SECOND);
}

static void url_sets_the_age(void **state) {
    char url[128];
    (void)state;
    snprintf(url, sizeof url, "%s?lease_age=400ms", rig.server.url);
    rig.store = open_store(url, NULL);
    const steady_limit limit = {.max_capacity = CAPACITY, .drop_recharge = LEAK};
    assert_int_equal(steady_throttler_new(&rig.throttler, rig.store, &limit, NULL, NULL), 0);
    get_lease("k");
}

/* ---- When it is returned ---- */

static unsigned long lease_on_the_loop(unsigned long calls) {
    struct tally tally = {0};
    for (unsigned long n = 0; n < calls; n++) {
        consume_counted(rig.throttler, "k", 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
    }
    assert_int_equal(tally.allowed, calls);
    assert_true(stats().from_lease > 0);
    return calls;
}

static void unused_lease_is_returned_after_a_quarter_of_its_age(void **state) {
    (void)state;
    open_with(8 * STEADY_SECOND, &rig.loop, LEAK);
    const unsigned long spent = lease_on_the_loop(70);
    assert_true(level_now("k") > (long long)spent);
    const steady_us begin = now_us();
    assert_level_within("k", (long long)spent, 3 * STEADY_SECOND);
    assert_true(now_us() - begin > STEADY_SECOND);
}

/* The alarm of the deadlines would ring after six seconds. */
static void unused_lease_is_returned_in_time_however_long_the_timeout_is(void **state) {
    const steady_store_options options = {
        .loop = &rig.loop, .timeout = 60 * STEADY_SECOND, .lease_age = 2 * STEADY_SECOND, .deny_memory_off = true};
    struct tally tally = {0};
    (void)state;
    rig.store = open_store(rig.server.url, &options);
    rig.throttler = new_throttler(rig.store, CAPACITY, LEAK);
    before_a_take(&tally);
    consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_true(level_now("k") > USES + 1); /* nothing of it is spent */
    assert_level_within("k", USES + 1, 2 * STEADY_SECOND);
}

static void lease_is_returned_when_the_store_is_closed(void **state) {
    (void)state;
    open_with(60 * STEADY_SECOND, &rig.loop, LEAK);
    const unsigned long spent = lease_on_the_loop(70);
    assert_true(level_now("k") > (long long)spent);
    rig_close();
    assert_level_within("k", (long long)spent, STEADY_SECOND);
}

static void blocking_store_returns_leases_when_it_is_closed(void **state) {
    (void)state;
    open_with(60 * STEADY_SECOND, NULL, LEAK);
    const unsigned long spent = get_lease("k");
    assert_true(level_now("k") > (long long)spent);
    rig_close();
    assert_level_within("k", (long long)spent, STEADY_SECOND);
}

static void blocking_store_returns_leases_at_its_next_request(void **state) {
    (void)state;
    open_with(200 * MS, NULL, LEAK);
    const unsigned long spent = get_lease("k");
    sleep_us(100 * MS);
    assert_true(level_now("k") > (long long)spent);
    assert_true(ask("other", 1).success);
    assert_level_within("k", (long long)spent, STEADY_SECOND);
}

static void pool_returns_leases_when_it_is_closed(void **state) {
    const steady_store_options options = {
        .timeout = STEADY_SECOND, .lease_age = 60 * STEADY_SECOND, .deny_memory_off = true};
    const steady_limit limit = {.max_capacity = CAPACITY, .drop_recharge = LEAK};
    (void)state;
    assert_int_equal(steady_pool_open(&rig.store, rig.server.url, 2, &options, NULL), 0);
    assert_int_equal(steady_throttler_new(&rig.throttler, rig.store, &limit, NULL, NULL), 0);
    const unsigned long spent = get_lease("k");
    assert_true(level_now("k") > (long long)spent);
    rig_close();
    assert_level_within("k", (long long)spent, STEADY_SECOND);
}

static void lease_of_a_throttler_that_is_freed_is_returned(void **state) {
    (void)state;
    open_with(60 * STEADY_SECOND, &rig.loop, LEAK);
    const unsigned long spent = lease_on_the_loop(70);
    steady_throttler_free(&rig.throttler);
    steady_store_close(&rig.store);
    assert_level_within("k", (long long)spent, STEADY_SECOND);
}

/* The drops of the old lease leave the bucket, and the calls are counted anew. */
static void lease_is_returned_if_the_limit_changes(void **state) {
    (void)state;
    open_with(60 * STEADY_SECOND, NULL, LEAK);
    const unsigned long spent = get_lease("k");
    const steady_limit lower = {.max_capacity = 500, .drop_recharge = LEAK};
    steady_throttler *lowered = NULL;
    assert_int_equal(steady_throttler_new(&lowered, rig.store, &lower, NULL, NULL), 0);
    const steady_result r = ask_for(lowered, "k", 1);
    assert_true(r.success);
    assert_int_equal(r.source, STEADY_FROM_STORE);
    assert_level_within("k", (long long)spent + 1, STEADY_SECOND);
    steady_throttler_free(&lowered);
}

/* ---- What voids it ---- */

static void own_reset_voids_a_lease(void **state) {
    steady_result r = {0};
    (void)state;
    open_with(60 * STEADY_SECOND, NULL, LEAK);
    get_lease("k");
    assert_int_equal(steady_reset_sync(rig.throttler, "k", 1, &r), 0);
    assert_int_equal(ask("k", CAPACITY).source, STEADY_FROM_STORE);
    assert_false(ask("k", 1).success);
    assert_int_equal(level("k"), CAPACITY);
}

/* The call is sent behind the reset. */
static void reset_that_is_not_answered_yet_voids_a_lease(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(60 * STEADY_SECOND, &rig.loop, LEAK);
    lease_on_the_loop(70);
    assert_int_equal(steady_reset(rig.throttler, "other", 5, count_result, expect_result(&tally)), 0);
    run_until_done(rig.poller, &tally, STEADY_SECOND); /* the server has the script now, so the order stays */
    assert_int_equal(steady_reset(rig.throttler, "k", 1, count_result, expect_result(&tally)), 0);
    consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.last.source, STEADY_FROM_STORE);
    assert_true(tally.last.level >= 1 && level_now("k") >= 1);
}

/* The blocking part takes the lease, on its own connection, before the reset of the loop goes out. */
static void reset_voids_a_lease_that_was_taken_before_its_answer(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(60 * STEADY_SECOND, &rig.loop, LEAK);
    assert_int_equal(steady_reset(rig.throttler, "k", 1, count_result, expect_result(&tally)), 0);
    get_lease("k");
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(level_now("k"), 0);
    assert_int_equal(ask("k", 1).source, STEADY_FROM_STORE);
}

/* The reset is sent behind a take, on the same connection. What was taken is not in the bucket any more. */
static void reset_behind_a_take_voids_its_lease(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(60 * STEADY_SECOND, &rig.loop, LEAK);
    before_a_take(&tally);
    consume_counted(rig.throttler, "k", 1, &tally);
    assert_int_equal(steady_reset(rig.throttler, "k", 1, count_result, expect_result(&tally)), 0);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, USES + 2);
    assert_int_equal(level_now("k"), 0);
    consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_true(level_now("k") > 0);
}

static void own_give_back_ends_the_denials_of_a_short_lease(void **state) {
    (void)state;
    open_with(60 * STEADY_SECOND, NULL, LEAK);
    assert_true(ask("k", CAPACITY - 50).success);
    steady_result r;
    do
        r = ask("k", 1);
    while (r.success);
    assert_int_equal(ask("k", 1).source, STEADY_FROM_LEASE);
    assert_true(ask("k", -CAPACITY).success);
    assert_true(ask("k", 1).success);
}

static void own_give_back_leaves_a_lease(void **state) {
    (void)state;
    open_with(60 * STEADY_SECOND, NULL, LEAK);
    get_lease("k");
    assert_int_equal(ask("k", -1).source, STEADY_FROM_STORE);
    assert_int_equal(ask("k", 1).source, STEADY_FROM_LEASE);
}

/* ---- Faults ---- */

/* The server stops before it answers the take: the call that takes is unknown, and those that wait were not sent. */
static void take_without_an_answer_gives_no_lease(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(60 * STEADY_SECOND, &rig.loop, LEAK);
    before_a_take(&tally);
    const uint64_t before = stats().from_lease;
    server_freeze(&rig.server);
    for (int i = 0; i < 10; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, 10 * STEADY_SECOND);
    server_thaw(&rig.server);
    assert_int_equal(tally.allowed, USES);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 1);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE] + tally.errors[-STEADY_OVERLOADED], 9);
    assert_int_equal(stats().from_lease, before);
    assert_used_again();
}

static void clock_step_that_a_take_sees_is_counted(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(60 * STEADY_SECOND, &rig.loop, LEAK);
    before_a_take(&tally);
    server_ask(&rig.server, "SET k %s", "3 9000000000.000000 0"); /* the bucket is ahead of the clock */
    assert_int_equal(stats().clock_steps, 0);
    consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_true(tally.last.level > USES + 1);
    assert_int_equal(stats().clock_steps, 1);
}

static void calls_that_wait_go_on_if_the_take_is_cancelled(void **state) {
    struct tally tally = {0};
    uint64_t ids[3];
    void *data[3];
    (void)state;
    open_with(60 * STEADY_SECOND, &rig.loop, LEAK);
    before_a_take(&tally);
    for (int i = 0; i < 3; i++) {
        const steady_call call = {.key = "k", .key_len = 1, .amount = 1};
        data[i] = expect_result(&tally);
        assert_int_equal(steady_decide(rig.throttler, &call, count_result, data[i], &ids[i]), 0);
    }
    tally.submitted -= 2;
    assert_int_equal(steady_cancel(rig.throttler, ids[0]), 0); /* it takes */
    assert_int_equal(steady_cancel(rig.throttler, ids[2]), 0); /* it waits */
    free(data[0]);
    free(data[2]);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.allowed, USES + 1);
    assert_int_equal(steady_cancel(rig.throttler, ids[1]), STEADY_NOT_IN_FLIGHT);
}

static void store_closed_meanwhile_ends_all_calls(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(60 * STEADY_SECOND, &rig.loop, LEAK);
    before_a_take(&tally);
    for (int i = 0; i < 10; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    rig_close();
    assert_int_equal(tally.called, USES + 10);
    assert_int_equal(tally.errors[-STEADY_CANCELLED], 10);
}

/* The drops that were taken are gone with the connection: a settle on another one could take out those of others. */
static void lease_of_a_lost_connection_is_spent_but_not_settled(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(STEADY_SECOND, &rig.loop, LEAK);
    lease_on_the_loop(70);
    const long long there = level_now("k");
    const uint64_t before = stats().from_lease;
    server_ask(&rig.server, "CLIENT KILL TYPE normal SKIPME yes");
    consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.allowed, 1);
    assert_int_equal(stats().from_lease, before + 1);
    run_for(rig.poller, 2 * STEADY_SECOND);
    assert_int_equal(level_now("k"), there);
}

/* The settle would take out the drops of others. */
static void lease_of_a_lost_server_takes_nothing_out_of_its_successor(void **state) {
    const steady_store_options options = {.timeout = STEADY_SECOND};
    struct tally tally = {0};
    (void)state;
    open_with(4 * STEADY_SECOND, &rig.loop, LEAK);
    lease_on_the_loop(70);
    assert_true(level_now("k") > 70);
    server_kill(&rig.server);
    server_restart(&rig.server, true);
    steady_store *others = open_store(rig.server.url, &options);
    steady_throttler *theirs = new_throttler(others, CAPACITY, LEAK);
    assert_true(ask_for(theirs, "k", 5000).success);
    do {
        consume_counted(rig.throttler, "other", 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
    } while (tally.allowed == 0);
    run_for(rig.poller, 2 * STEADY_SECOND); /* a quarter of the age has passed */
    assert_int_equal(level_now("k"), 5000);
    steady_throttler_free(&theirs);
    steady_store_close(&others);
}

static unsigned long *spent_by_child;

static void hold_a_lease(void) {
    if (rig.store == NULL) {
        open_with(60 * STEADY_SECOND, NULL, LEAK);
        *spent_by_child = get_lease("k");
    }
    sleep_us(MS);
}

/* Nothing is given back, so nothing more is allowed. */
static void lease_of_a_killed_process_stays_in_the_bucket(void **state) {
    (void)state;
    spent_by_child = mmap(NULL, sizeof *spent_by_child, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(spent_by_child, MAP_FAILED);
    const pid_t child = start_child(hold_a_lease);
    const steady_us begin = now_us();
    while (*spent_by_child == 0 && now_us() - begin < 10 * STEADY_SECOND)
        sleep_us(MS);
    end_child(child);
    const long long there = level_now("k");
    assert_true(*spent_by_child > 0 && there > (long long)*spent_by_child);
    sleep_us(300 * MS);
    assert_int_equal(level_now("k"), there);
    munmap(spent_by_child, sizeof *spent_by_child);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_RIG(blocking_calls_on_a_hot_key_take_few_requests),
        WITH_RIG(calls_of_a_loop_wait_for_the_lease),
        WITH_RIG(threads_of_a_pool_share_leases),
        WITH_RIG(answer_from_a_lease_has_the_level_of_the_take),
        WITH_RIG(call_on_one_part_has_the_numbers_of_its_part),
        WITH_RIG(short_lease_denies_until_it_may_ask_again),
        WITH_RIG(blocked_key_is_not_denied_by_a_lease),
        WITH_RIG(others_ask_the_store),
        WITH_RIG(bucket_of_a_small_capacity_has_no_lease),
        WITH_RIG(child_of_fork_spends_no_lease_of_its_parent),
        WITH_RIG(child_of_fork_that_closes_the_store_returns_no_lease_of_its_parent),
        WITH_RIG(attack_on_a_loop_costs_no_take_for_each_age),
        WITH_RIG(url_sets_the_age),
        WITH_RIG(unused_lease_is_returned_after_a_quarter_of_its_age),
        WITH_RIG(unused_lease_is_returned_in_time_however_long_the_timeout_is),
        WITH_RIG(lease_is_returned_when_the_store_is_closed),
        WITH_RIG(blocking_store_returns_leases_when_it_is_closed),
        WITH_RIG(blocking_store_returns_leases_at_its_next_request),
        WITH_RIG(pool_returns_leases_when_it_is_closed),
        WITH_RIG(lease_of_a_throttler_that_is_freed_is_returned),
        WITH_RIG(lease_is_returned_if_the_limit_changes),
        WITH_RIG(own_reset_voids_a_lease),
        WITH_RIG(reset_that_is_not_answered_yet_voids_a_lease),
        WITH_RIG(reset_voids_a_lease_that_was_taken_before_its_answer),
        WITH_RIG(reset_behind_a_take_voids_its_lease),
        WITH_RIG(own_give_back_ends_the_denials_of_a_short_lease),
        WITH_RIG(own_give_back_leaves_a_lease),
        WITH_RIG(take_without_an_answer_gives_no_lease),
        WITH_RIG(clock_step_that_a_take_sees_is_counted),
        WITH_RIG(calls_that_wait_go_on_if_the_take_is_cancelled),
        WITH_RIG(store_closed_meanwhile_ends_all_calls),
        WITH_RIG(lease_of_a_lost_connection_is_spent_but_not_settled),
        WITH_RIG(lease_of_a_lost_server_takes_nothing_out_of_its_successor),
        WITH_RIG(lease_of_a_killed_process_stays_in_the_bucket),
    };
    return cmocka_run_group_tests_name("leases", tests, NULL, NULL);
}
