/* SPDX-License-Identifier: MIT
 * The memory of denials on a real server: what an attack costs, what is seen at once, and calls that wait. */
#include <pthread.h>
#include <stdlib.h>

#include "rig.h"

#define CAPACITY 20
#define LEAK (20 * MS) /* a drop */
#define VALID STEADY_SECOND

static steady_store *second;

/* ---- Set-up ---- */

static void open_with(steady_us timeout, steady_us deny_memory, const steady_loop *loop) {
    const steady_store_options options = {
        .loop = loop, .timeout = timeout, .deny_memory = deny_memory, .deny_memory_off = deny_memory == 0};
    rig.store = open_store(rig.server.url, &options);
    rig.throttler = new_throttler(rig.store, CAPACITY, LEAK);
}

static steady_result ask(const char *key, int64_t amount) {
    steady_result r = {0};
    steady_consume_sync(rig.throttler, key, strlen(key), amount, &r);
    return r;
}

/* The server decided so often. */
static long long asked(void) {
    const char *line = strstr(server_ask(&rig.server, "INFO COMMANDSTATS"), "cmdstat_evalsha:calls=");
    return line != NULL ? strtoll(line + strlen("cmdstat_evalsha:calls="), NULL, 10) : 0;
}

/* Fills the bucket until a call is denied. */
static void fill(const char *key) {
    steady_result r;
    do
        r = ask(key, 1);
    while (r.success);
    assert_int_equal(r.error, 0);
}

/* For each drop that leaks in `time`: the call that gets it, and one that comes too early by part of a round trip. One
 * for each VALID, and those of the beginning. */
static long long most_calls(steady_us time, long long at_first) {
    return 2 * (time / LEAK + 1) + time / VALID + 1 + at_first;
}

/* Of what may be allowed, 98 % is, unless the machine took time away. */
static void assert_allowed(unsigned long allowed, steady_us time, steady_us taken) {
    assert_true((long long)allowed <= CAPACITY + time / LEAK + 1);
    if (taken == 0) assert_true((long long)allowed * 100 >= (CAPACITY + time / LEAK - 1) * 98);
}

/* ---- What an attack costs ---- */

struct attack {
    struct tally tally;
    steady_us until;
};

static void attack_again(const steady_result *result, void *data) {
    struct attack *attack = data;
    attack->tally.called++;
    attack->tally.errors[-result->error]++;
    attack->tally.allowed += result->success;
    if (result->error != 0 || now_us() >= attack->until) return;
    if (steady_consume(rig.throttler, "k", 1, 1, attack_again, attack) == 0) attack->tally.submitted++;
}

/* 64 calls are in flight on the loop. The store is open. */
static void assert_attack_on_a_loop_is_cheap(void) {
    const steady_us time = 2 * STEADY_SECOND;
    warm_up();
    const long long before = asked();
    const uint64_t decided = stats().decisions;
    const steady_us taken = taken_away(), begin = now_us();
    struct attack attack = {.until = begin + time};
    for (int i = 0; i < 64; i++)
        if (steady_consume(rig.throttler, "k", 1, 1, attack_again, &attack) == 0) attack.tally.submitted++;
    run_until_done(rig.poller, &attack.tally, 2 * time);
    const steady_us took = now_us() - begin;
    const long long calls = asked() - before;
    print_message("# %lu decisions, %lld calls, %llu from memory, %lu allowed\n", attack.tally.called, calls,
                  (unsigned long long)stats().from_memory, attack.tally.allowed);
    for (int i = 1; i < (int)COUNT(attack.tally.errors); i++)
        if (attack.tally.errors[i] > 0) fail_msg("%lu ended as %s", attack.tally.errors[i], steady_error_name(-i));
    assert_true(calls <= most_calls(took, 64));
    assert_true(attack.tally.called > 10 * (unsigned long)calls);
    assert_allowed(attack.tally.allowed + 1, took, taken_away() - taken); /* one was taken by warm_up */
    assert_int_equal(stats().from_memory + (uint64_t)calls, stats().decisions - decided);
    assert_loop_never_held();
}

static void attack_on_a_loop_costs_two_calls_for_each_drop(void **state) {
    (void)state;
    open_with(STEADY_SECOND, VALID, &rig.loop);
    assert_attack_on_a_loop_is_cheap();
}

static void blocking_attack_costs_two_calls_for_each_drop(void **state) {
    const steady_us time = STEADY_SECOND;
    unsigned long allowed = 0, n = 0;
    (void)state;
    open_with(STEADY_SECOND, VALID, NULL);
    assert_true(ask("other", 1).success);
    const long long before = asked();
    const steady_us taken = taken_away(), begin = now_us();
    for (; now_us() - begin < time; n++) {
        const steady_result r = ask("k", 1);
        assert_int_equal(r.error, 0);
        assert_true(r.success || r.retry_after > 0);
        assert_true(r.success || r.level == CAPACITY);
        assert_in_range(r.until_next_drop, 1, LEAK);
        allowed += r.success;
    }
    const long long calls = asked() - before;
    print_message("# %lu decisions, %lld calls, %lu allowed\n", n, calls, allowed);
    assert_true(calls <= most_calls(now_us() - begin, CAPACITY));
    assert_allowed(allowed, now_us() - begin, taken_away() - taken);
}

/* ---- Several buckets ---- */

/* Each key has the bucket of the attack, and one with much room. */
static void open_several(steady_us timeout, steady_us leak, const steady_loop *loop) {
    const steady_limit limits[] = {{.max_capacity = LARGE, .drop_recharge = STEADY_SECOND, .name = "wide"},
                                   {.max_capacity = CAPACITY, .drop_recharge = leak, .name = "narrow"}};
    open_with(timeout, VALID, loop);
    steady_throttler_free(&rig.throttler);
    assert_int_equal(steady_throttler_new_limits(&rig.throttler, rig.store, limits, 2, NULL, NULL), 0);
}

static void attack_on_several_buckets_costs_two_calls_for_each_drop(void **state) {
    (void)state;
    open_several(STEADY_SECOND, LEAK, &rig.loop);
    assert_attack_on_a_loop_is_cheap();
}

/* The bucket that was not asked has no numbers. */
static void denial_of_several_buckets_is_about_the_one_that_denies(void **state) {
    steady_part_result each[2];
    const steady_how how = {.reserve = true, .parts = each, .parts_room = 2};
    const steady_call call = {.key = "k", .key_len = 1, .amount = CAPACITY, .how = &how};
    steady_result r = {0};
    (void)state;
    open_several(STEADY_SECOND, LEAK, NULL);
    assert_int_equal(steady_decide_sync(rig.throttler, &call, &r), 0);
    assert_true(r.success && each[0].answered && each[1].answered);
    steady_reservation_free(&r.reservation);
    const long long before = asked();
    assert_int_equal(steady_decide_sync(rig.throttler, &call, &r), 0);
    assert_int_equal(r.source, STEADY_FROM_MEMORY);
    assert_false(r.success);
    assert_null(r.reservation);
    assert_true(r.part == 1 && r.n_parts == 2);
    assert_true(r.level > 0 && r.retry_after > 0 && r.granted == 0);
    assert_string_equal(each[0].name, "wide");
    assert_false(each[0].answered || each[0].success);
    assert_true(each[0].level == 0 && each[0].until_next_drop == 0 && each[0].retry_after == 0);
    assert_string_equal(each[1].name, "narrow");
    assert_true(each[1].answered && !each[1].success && each[1].level == r.level);
    assert_int_equal(each[1].retry_after, r.retry_after);
    assert_int_equal(asked(), before);
    assert_int_equal(steady_reset_sync(rig.throttler, "k", 1, &r), 0);
    assert_int_equal(steady_decide_sync(rig.throttler, &call, &r), 0);
    assert_true(r.success);
    steady_reservation_free(&r.reservation);
}

/* Another call fills a bucket while calls on two wait for a third one. They are denied without a request. */
static void waiting_call_on_several_buckets_is_denied_by_any_of_them(void **state) {
    struct tally first = {0}, waiting = {0};
    (void)state;
    open_several(5 * STEADY_SECOND, STEADY_SECOND / 2, &rig.loop); /* no second drop leaks on a slow machine */
    steady_throttler *other = new_throttler(rig.store, 1, HOUR);
    do {
        first = (struct tally){0};
        consume_counted(rig.throttler, "k", 1, &first);
        run_until_done(rig.poller, &first, STEADY_SECOND);
    } while (first.denied == 0);
    sleep_us(first.last.until_next_drop + MS);
    const long long before = asked();
    first = (struct tally){0};
    consume_counted(rig.throttler, "k", 1, &first); /* the drop that has leaked */
    consume_counted(other, "o", 1, &first);
    const steady_part parts[] = {{.throttler = rig.throttler, .key = "k", .key_len = 1, .amount = 1},
                                 {.throttler = other, .key = "o", .key_len = 1, .amount = 1}};
    for (int i = 0; i < 10; i++)
        assert_int_equal(steady_consume_all(parts, 2, NULL, count_result, expect_result(&waiting), NULL), 0);
    run_until_done(rig.poller, &waiting, STEADY_SECOND);
    assert_int_equal(waiting.denied, 10);
    assert_int_equal(waiting.last.source, STEADY_FROM_MEMORY);
    assert_in_range(asked() - before, 2, 4);
    steady_throttler_free(&other);
}

/* Three drops of the narrow bucket have leaked, and each call takes one of them. So the second call does not wait for
 * the first one, whatever both take from the wide bucket. */
static void calls_on_several_buckets_count_the_drops_of_the_one_that_was_full(void **state) {
    const int64_t amounts[] = {9, 1};
    const steady_call call = {.key = "k", .key_len = 1, .amounts = amounts};
    struct tally known = {0}, tally = {0};
    (void)state;
    open_several(STEADY_SECOND, STEADY_SECOND / 10, &rig.loop);
    while (known.denied == 0) {
        consume_counted(rig.throttler, "k", 1, &known);
        run_until_done(rig.poller, &known, STEADY_SECOND);
    }
    sleep_us(350 * MS);
    server_freeze(&rig.server);
    for (int i = 0; i < 2; i++)
        assert_int_equal(steady_decide(rig.throttler, &call, count_result, expect_result(&tally), NULL), 0);
    run_until_done(rig.poller, &tally, 5 * STEADY_SECOND);
    server_thaw(&rig.server);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 2);
}

struct attacker {
    steady_us until;
    unsigned long allowed, called;
    pthread_t thread;
};

static void *attack_blocking(void *arg) {
    struct attacker *attacker = arg;
    while (now_us() < attacker->until) {
        const steady_result r = ask("k", 1);
        if (r.error != 0) return NULL;
        attacker->allowed += r.success;
        attacker->called++;
    }
    return attacker;
}

static void attack_of_threads_on_a_pool_costs_two_calls_for_each_drop(void **state) {
    const steady_us time = STEADY_SECOND;
    const steady_store_options options = {.timeout = STEADY_SECOND, .deny_memory = VALID};
    struct attacker attackers[4];
    unsigned long allowed = 0, called = 0;
    (void)state;
    assert_int_equal(steady_pool_open(&rig.store, rig.server.url, 1, &options, NULL), 0);
    rig.throttler = new_throttler(rig.store, CAPACITY, LEAK);
    assert_true(ask("other", 1).success);
    const long long before = asked();
    const steady_us taken = taken_away(), begin = now_us();
    for (int i = 0; i < 4; i++) {
        attackers[i] = (struct attacker){.until = begin + time};
        assert_int_equal(pthread_create(&attackers[i].thread, NULL, attack_blocking, &attackers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *result = NULL;
        pthread_join(attackers[i].thread, &result);
        assert_non_null(result);
        allowed += attackers[i].allowed;
        called += attackers[i].called;
    }
    const long long calls = asked() - before;
    print_message("# %lu decisions, %lld calls, %lu allowed\n", called, calls, allowed);
    assert_true(calls <= most_calls(now_us() - begin, CAPACITY + 4));
    assert_allowed(allowed, now_us() - begin, taken_away() - taken);
    assert_int_equal(stats().decisions, called + 1);
    assert_int_equal(stats().from_memory + (uint64_t)calls, called);
}

static void store_without_a_memory_asks_each_time(void **state) {
    (void)state;
    open_with(STEADY_SECOND, 0, NULL);
    fill("k");
    const long long before = asked();
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask("k", CAPACITY).source, STEADY_FROM_STORE);
    assert_int_equal(asked() - before, 10);
    assert_int_equal(stats().from_memory, 0);
}

static void another_store_of_the_process_knows_at_once(void **state) {
    steady_result r = {0};
    (void)state;
    open_with(STEADY_SECOND, VALID, NULL);
    fill("k");
    const steady_store_options options = {.deny_memory = VALID};
    second = open_store(rig.server.url, &options);
    steady_throttler *throttler = new_throttler(second, CAPACITY, LEAK);
    const long long before = asked();
    assert_int_equal(steady_consume_sync(throttler, "k", 1, CAPACITY, &r), 0);
    assert_int_equal(r.source, STEADY_FROM_MEMORY);
    assert_int_equal(asked(), before);
    steady_throttler_free(&throttler);
    steady_store_close(&second);
}

/* It may come from a replica, or from a primary that has become one. */
static void answer_of_a_peek_is_not_remembered(void **state) {
    steady_result r = {0};
    (void)state;
    open_with(STEADY_SECOND, VALID, NULL);
    second = open_store(rig.server.url, &(steady_store_options){.deny_memory_off = true});
    steady_throttler *throttler = new_throttler(second, CAPACITY, LEAK);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, CAPACITY, &r), 0);
    assert_int_equal(steady_peek_sync(rig.throttler, "k", 1, &r), 0);
    assert_true(r.level > 0);
    assert_int_equal(ask("k", CAPACITY).source, STEADY_FROM_STORE);
    assert_int_equal(steady_consume_sync(throttler, "l", 1, CAPACITY, &r), 0);
    const steady_part parts[] = {{.throttler = rig.throttler, .key = "l", .key_len = 1, .amount = 1},
                                 {.throttler = rig.throttler, .key = "m", .key_len = 1, .amount = 1}};
    assert_int_equal(steady_peek_all_sync(parts, COUNT(parts), NULL, &r), 0);
    assert_int_equal(ask("l", CAPACITY).source, STEADY_FROM_STORE);
    steady_throttler_free(&throttler);
    steady_store_close(&second);
}

static void call_on_one_part_has_the_numbers_of_its_part(void **state) {
    steady_part_result each = {0};
    const steady_how how = {.reserve = true, .parts = &each, .parts_room = 1};
    steady_result r = {0};
    (void)state;
    open_with(STEADY_SECOND, VALID, NULL);
    fill("k");
    const steady_part part = {.throttler = rig.throttler, .key = "k", .key_len = 1, .amount = CAPACITY};
    const long long before = asked();
    assert_int_equal(steady_consume_all_sync(&part, 1, &how, &r), 0);
    assert_int_equal(r.source, STEADY_FROM_MEMORY);
    assert_false(r.success);
    assert_null(r.reservation);
    assert_int_equal(r.n_parts, 1);
    assert_int_equal(each.level, r.level);
    assert_int_equal(each.retry_after, r.retry_after);
    assert_true(r.level > 0 && r.retry_after > 0 && !each.success);
    assert_int_equal(asked(), before);
    const steady_how patient = {.max_wait = STEADY_SECOND};
    assert_int_equal(steady_consume_all_sync(&part, 1, &patient, &r), 0);
    assert_int_equal(r.source, STEADY_FROM_STORE);
    assert_true(r.success);
}

/* Fills a bucket over a store or a pool, and returns where the next denial comes from. */
static enum steady_source source_of_a_denial(const char *options_of_url, const steady_store_options *options,
                                             bool pool) {
    char url[128];
    snprintf(url, sizeof url, "%s%s", rig.server.url, options_of_url);
    if (pool)
        assert_int_equal(steady_pool_open(&rig.store, url, 1, options, NULL), 0);
    else
        rig.store = open_store(url, options);
    rig.throttler = new_throttler(rig.store, CAPACITY, LEAK);
    fill("k");
    const enum steady_source source = ask("k", CAPACITY).source;
    assert_int_equal(stats().denied, 2);
    steady_result r;
    assert_int_equal(steady_reset_sync(rig.throttler, "k", 1, &r), 0);
    steady_throttler_free(&rig.throttler);
    steady_store_close(&rig.store);
    return source;
}

static void memory_is_on_unless_the_url_or_the_options_take_it_off(void **state) {
    const steady_store_options on = {.deny_memory = VALID}, off = {.deny_memory_off = true};
    (void)state;
    for (int pool = 0; pool < 2; pool++) {
        assert_int_equal(source_of_a_denial("", NULL, pool), STEADY_FROM_MEMORY);
        assert_int_equal(source_of_a_denial("", &off, pool), STEADY_FROM_STORE);
        assert_int_equal(source_of_a_denial("?deny_memory=500ms", &off, pool), STEADY_FROM_MEMORY);
        assert_int_equal(source_of_a_denial("?deny_memory=0", NULL, pool), STEADY_FROM_STORE);
        assert_int_equal(source_of_a_denial("?deny_memory=0", &on, pool), STEADY_FROM_STORE);
        assert_int_equal(source_of_a_denial("?deny_memory=0s", &on, pool), STEADY_FROM_STORE);
    }
}

/* The default is 1 s. */
static void reset_by_others_is_seen_within_a_second_by_default(void **state) {
    (void)state;
    rig.store = open_store(rig.server.url, NULL);
    rig.throttler = new_throttler(rig.store, CAPACITY, 60 * STEADY_SECOND);
    fill("k");
    const steady_us filled = now_us();
    server_ask(&rig.server, "DEL k");
    const steady_result r = ask("k", 1);
    assert_true(r.source == STEADY_FROM_MEMORY || now_us() - filled >= STEADY_SECOND);
    while (!ask("k", 1).success)
        assert_true(now_us() - filled < STEADY_SECOND + slack_since(taken_away()));
    assert_true(now_us() - filled >= STEADY_SECOND - STEADY_SECOND / 100);
}

/* ---- What is seen at once ---- */

static void own_reset_is_seen_at_once(void **state) {
    steady_result r = {0};
    (void)state;
    open_with(STEADY_SECOND, VALID, NULL);
    fill("k");
    assert_int_equal(ask("k", CAPACITY).source, STEADY_FROM_MEMORY);
    assert_int_equal(steady_reset_sync(rig.throttler, "k", 1, &r), 0);
    assert_true(ask("k", CAPACITY).success);
}

static void own_drain_is_seen_at_once(void **state) {
    (void)state;
    open_with(STEADY_SECOND, VALID, NULL);
    fill("k");
    assert_int_equal(ask("k", CAPACITY).source, STEADY_FROM_MEMORY);
    assert_true(ask("k", -CAPACITY).success);
    assert_true(ask("k", CAPACITY).success);
}

static void own_settlement_is_seen_at_once(void **state) {
    const steady_how how = {.reserve = true};
    const steady_call call = {.key = "k", .key_len = 1, .amount = CAPACITY, .how = &how};
    steady_result r = {0};
    (void)state;
    open_with(STEADY_SECOND, VALID, NULL);
    assert_int_equal(steady_decide_sync(rig.throttler, &call, &r), 0);
    assert_true(r.success);
    steady_reservation *reservation = r.reservation;
    assert_false(ask("k", CAPACITY).success);
    assert_int_equal(ask("k", CAPACITY).source, STEADY_FROM_MEMORY);
    const steady_settlement settlement = {.reservation = reservation, .actual = 0, .store = rig.store};
    assert_int_equal(steady_settle_sync(&settlement, &r), 0);
    steady_reservation_free(&reservation);
    assert_true(ask("k", CAPACITY).success);
}

/* Another process may have given drops back. It is believed after deny_memory. */
static void reset_by_others_is_seen_after_the_time_of_the_memory(void **state) {
    (void)state;
    open_with(STEADY_SECOND, 200 * MS, NULL);
    fill("k");
    const steady_us filled = now_us();
    server_ask(&rig.server, "DEL k");
    while (!ask("k", CAPACITY).success)
        assert_true(now_us() - filled < 200 * MS + slack_since(taken_away()));
}

/* Then it has no verdict, as every key. */
static void denied_key_of_a_dead_server_stays_denied_for_the_time_of_the_memory(void **state) {
    steady_result r;
    (void)state;
    open_with(TIMEOUT, 200 * MS, NULL);
    fill("k");
    const steady_us filled = now_us();
    server_kill(&rig.server);
    for (r = ask("k", CAPACITY); r.error == 0; r = ask("k", CAPACITY)) {
        assert_false(r.success);
        assert_int_equal(r.source, STEADY_FROM_MEMORY);
        assert_true(now_us() - filled < 200 * MS + slack_since(taken_away()));
    }
    assert_true(now_us() - filled >= 198 * MS);
    assert_int_equal(ask("other", 1).success, false);
    server_restart(&rig.server, false);
}

/* ---- Calls that wait ---- */

/* Fills the bucket, and waits until one drop has leaked. The next call is sent, and those after it wait. Returns a
 * moment at which the bucket was full: on a busy machine more drops may leak. */
static steady_us leak_one(void) {
    struct tally tally = {0};
    steady_us full = 0;
    while (tally.denied == 0) {
        full = now_us();
        consume_counted(rig.throttler, "k", 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
    }
    sleep_us(tally.last.until_next_drop + MS);
    return full;
}

/* The drops that have leaked since, at most. */
static unsigned long leaked_since(steady_us full) { return (unsigned long)((now_us() - full) / LEAK) + 1; }

static void calls_that_fit_only_without_those_in_flight_wait_for_them(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(STEADY_SECOND, VALID, &rig.loop);
    const steady_us full = leak_one();
    const long long before = asked();
    for (int i = 0; i < 50; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    const unsigned long most = leaked_since(full);
    assert_true(asked() - before <= most_calls((steady_us)most * LEAK, 0));
    assert_int_equal(tally.verdicts, 50);
    assert_in_range(tally.allowed, 1, most);
}

static void calls_that_wait_for_a_silent_server_end_at_their_deadline(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(TIMEOUT, VALID, &rig.loop);
    const steady_us full = leak_one();
    server_freeze(&rig.server);
    for (int i = 0; i < 50; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    const unsigned long most = leaked_since(full);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    server_thaw(&rig.server);
    assert_in_range(tally.errors[-STEADY_UNKNOWN], 1, most);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE] + tally.verdicts, 50 - tally.errors[-STEADY_UNKNOWN]);
    assert_true(tally.slowest < TIMEOUT + SLACK_OF(tally));
    assert_used_again();
}

static void waiting_call_can_be_cancelled(void **state) {
    struct tally tally = {0};
    uint64_t ids[10];
    void *data[10];
    (void)state;
    open_with(STEADY_SECOND, VALID, &rig.loop);
    leak_one();
    for (int i = 0; i < 10; i++) {
        const steady_call call = {.key = "k", .key_len = 1, .amount = 1};
        data[i] = expect_result(&tally);
        assert_int_equal(steady_decide(rig.throttler, &call, count_result, data[i], &ids[i]), 0);
    }
    tally.submitted = 8;
    assert_int_equal(steady_cancel(rig.throttler, ids[5]), 0);
    assert_int_equal(steady_cancel(rig.throttler, ids[0]), 0); /* the others wait for its reply */
    free(data[5]);
    free(data[0]);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 8);
    assert_int_equal(steady_cancel(rig.throttler, ids[5]), STEADY_NOT_IN_FLIGHT);
}

/* One has its answer and waits for the loop, one waits for the reply of the first. On a busy machine a second drop may
 * leak before; then this one is sent. */
static void decisions_without_a_request_can_expire(void **state) {
    struct tally tally = {0};
    uint64_t ids[3];
    (void)state;
    open_with(STEADY_SECOND, VALID, &rig.loop);
    const steady_us full = leak_one();
    server_freeze(&rig.server);
    for (int i = 0; i < 3; i++) {
        const steady_call call = {.key = "k", .key_len = 1, .amount = i < 2 ? 1 : CAPACITY};
        assert_int_equal(steady_decide(rig.throttler, &call, count_result, expect_result(&tally), &ids[i]), 0);
    }
    const bool waits = now_us() - full < LEAK; /* at most one drop has leaked */
    assert_int_equal(steady_expire(rig.throttler, ids[2]), 0);
    assert_int_equal(steady_expire(rig.throttler, ids[1]), 0);
    run_for(rig.poller, 5 * MS);
    assert_int_equal(tally.called, 2);
    server_thaw(&rig.server);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.called, 3);
    assert_int_equal(tally.verdicts, 2);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE] + tally.errors[-STEADY_UNKNOWN], 1);
    if (waits) assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 1);
    assert_int_equal(ask("other", 1).error, 0);
}

static void store_closed_meanwhile_ends_waiting_calls(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(STEADY_SECOND, VALID, &rig.loop);
    leak_one();
    for (int i = 0; i < 50; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    rig_close();
    assert_int_equal(tally.called, 50);
    assert_int_equal(tally.errors[-STEADY_CANCELLED] + tally.verdicts, 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_RIG(attack_on_a_loop_costs_two_calls_for_each_drop),
        WITH_RIG(blocking_attack_costs_two_calls_for_each_drop),
        WITH_RIG(attack_of_threads_on_a_pool_costs_two_calls_for_each_drop),
        WITH_RIG(attack_on_several_buckets_costs_two_calls_for_each_drop),
        WITH_RIG(denial_of_several_buckets_is_about_the_one_that_denies),
        WITH_RIG(waiting_call_on_several_buckets_is_denied_by_any_of_them),
        WITH_RIG(calls_on_several_buckets_count_the_drops_of_the_one_that_was_full),
        WITH_RIG(store_without_a_memory_asks_each_time),
        WITH_RIG(another_store_of_the_process_knows_at_once),
        WITH_RIG(answer_of_a_peek_is_not_remembered),
        WITH_RIG(call_on_one_part_has_the_numbers_of_its_part),
        WITH_RIG(memory_is_on_unless_the_url_or_the_options_take_it_off),
        WITH_RIG(own_reset_is_seen_at_once),
        WITH_RIG(own_drain_is_seen_at_once),
        WITH_RIG(own_settlement_is_seen_at_once),
        WITH_RIG(reset_by_others_is_seen_after_the_time_of_the_memory),
        WITH_RIG(reset_by_others_is_seen_within_a_second_by_default),
        WITH_RIG(denied_key_of_a_dead_server_stays_denied_for_the_time_of_the_memory),
        WITH_RIG(calls_that_fit_only_without_those_in_flight_wait_for_them),
        WITH_RIG(calls_that_wait_for_a_silent_server_end_at_their_deadline),
        WITH_RIG(waiting_call_can_be_cancelled),
        WITH_RIG(decisions_without_a_request_can_expire),
        WITH_RIG(store_closed_meanwhile_ends_waiting_calls),
    };
    return cmocka_run_group_tests_name("denials", tests, NULL, NULL);
}
