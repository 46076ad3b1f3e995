/* SPDX-License-Identifier: MIT
 * What the memory of denials answers to calls on several buckets, against a server: random calls of this process and of
 * others, and the single rules. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "group.h"
#include "policy.h"
#include "random.h"
#include "redis/deny_memory.h"

#define BEGIN (((steady_us)1 << 51) + 1000 * STEADY_SECOND)
#define VALID STEADY_SECOND
#define MS STEADY_MILLISECOND
enum { BUCKETS = 4, VARIANTS = 4 };

/* ---- The process ---- */

static steady_us now; /* of the clock of the memory */
static struct steady__deny_memory memory;
static steady_throttler throttler;

static steady_us read_now(const struct steady__denials_world *world) {
    (void)world;
    return now;
}

static struct steady__hash hash_of(const struct steady__denials_world *world,
                                   const unsigned char key[STEADY__SIPHASH_KEY], const void *bytes, size_t len) {
    (void)world;
    return steady__siphash(key, bytes, len);
}

static const struct steady__denials_world world = {read_now, hash_of};

static int set_up(void **state) {
    (void)state;
    now = BEGIN;
    memory = (struct steady__deny_memory){.denials = steady__denials_new(&world), .scope = 7, .valid = VALID};
    return memory.denials != NULL ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    steady__deny_memory_close(&memory);
    return 0;
}

/* ---- A server ---- */

static struct steady__bucket buckets[BUCKETS];
static struct steady__terms terms[BUCKETS][VARIANTS]; /* several limits of one bucket; the first is the usual one */
static steady_us server;                              /* its clock */

static const char *const keys[BUCKETS] = {"a", "b", "c", "d"};

/* A call on buckets. Its parts name them by `at`. */
struct asked {
    struct steady__call call;
    size_t n;
    int at[BUCKETS];
};

static void begin_call(struct asked *asked) {
    struct steady__group *group = steady__group_new(BUCKETS, BUCKETS);
    assert_non_null(group);
    *asked = (struct asked){.call = {.verb = STEADY__CONSUME_ALL, .group = group}};
}

static void add(struct asked *asked, int bucket, int variant, int64_t amount, enum steady__kind kind) {
    struct steady__group *group = asked->call.group;
    struct steady__member *member = steady__group_add(group, &throttler, &terms[bucket][variant], keys[bucket], 1);
    member->part.amount = amount;
    member->part.kind = kind;
    group->results[group->n - 1] = (steady_part_result){.name = keys[bucket]};
    asked->at[asked->n++] = bucket;
}

/* The server decides on the call. `keep` false: it only would. Returns whether a block has started. */
static bool decide(const struct asked *asked, bool keep, steady_result *result) {
    struct steady__bucket each[BUCKETS], before[BUCKETS];
    bool changed[BUCKETS] = {false}, started = false;
    for (size_t i = 0; i < asked->n; i++)
        each[i] = before[i] = buckets[asked->at[i]];
    steady__group_decide(&asked->call, each, server, changed, result);
    for (size_t i = 0; i < asked->n; i++) {
        const bool was_blocked = before[i].blocked_until > server;
        started = started || (changed[i] && !was_blocked && each[i].blocked_until > server);
        if (keep && changed[i]) buckets[asked->at[i]] = each[i];
    }
    return started;
}

static void clear_results(const struct asked *asked) {
    for (size_t i = 0; i < asked->n; i++)
        asked->call.group->results[i] = (steady_part_result){.name = keys[asked->at[i]]};
}

/* ---- A model ---- */

struct history {
    uint64_t seed;
    int64_t drift; /* of the client's clock, in millionths */
    steady_us rest, trip;
    bool others[BUCKETS]; /* others have put drops in since the last reply */
    unsigned remembered, beside_a_block;
};

static void pass(struct history *h, steady_us time) {
    server += time;
    h->rest += time * h->drift;
    now += time + h->rest / 1000000;
    h->rest %= 1000000;
}

/* Limits of one bucket that leak alike, one of them with a block, and one that leaks faster. Others use the first one:
 * a faster limit of theirs is an exception. */
static void make_limits(struct history *h, int64_t scale) {
    for (int i = 0; i < BUCKETS; i++) {
        const struct steady__rate rate = {random_in(&h->seed, 1, 8), random_in(&h->seed, 1, 40) * scale,
                                          random_in(&h->seed, 1, 9), 0};
        for (int k = 0; k < VARIANTS; k++)
            terms[i][k] = (struct steady__terms){.rate = rate};
        terms[i][1].rate.capacity = random_in(&h->seed, 1, 2 * rate.capacity);
        terms[i][2].rate.block = random_in(&h->seed, 1, 4 * rate.recharge);
        terms[i][3].rate.recharge = random_in(&h->seed, 1, rate.recharge);
        buckets[i] = (struct steady__bucket){.last = server};
    }
}

/* Mostly takes, and rarely a drain. */
static void make_call(struct history *h, struct asked *asked) {
    const int first = (int)random_in(&h->seed, 0, BUCKETS - 1), n = (int)random_in(&h->seed, 1, BUCKETS);
    begin_call(asked);
    for (int i = 0; i < n; i++) {
        const int bucket = (first + i) % BUCKETS;
        const int variant = random_in(&h->seed, 0, 2) > 0 ? 0 : (int)random_in(&h->seed, 1, VARIANTS - 1);
        const int kind = random_in(&h->seed, 0, 2) > 0 ? STEADY__TAKE : (int)random_in(&h->seed, 0, STEADY__KINDS - 1);
        const int64_t capacity = terms[bucket][variant].rate.capacity;
        int64_t amount = random_in(&h->seed, 0, capacity + (random_in(&h->seed, 0, 9) == 0));
        if (kind == STEADY__TAKE && random_in(&h->seed, 0, 29) == 0) amount = -random_in(&h->seed, 1, capacity);
        add(asked, bucket, variant, amount, (enum steady__kind)kind);
    }
    if (random_in(&h->seed, 0, 9) == 0) asked->call.group->how.max_wait = random_in(&h->seed, 1, STEADY_SECOND);
}

/* The server would deny by the bucket that the memory names, and would start no block. */
static void check(struct history *h, const struct asked *asked, const steady_result *told) {
    steady_result real;
    steady_part_result said[BUCKETS];
    memcpy(said, asked->call.group->results, asked->n * sizeof said[0]);
    assert_int_equal(told->source, STEADY_FROM_MEMORY);
    assert_false(told->success);
    assert_int_equal(told->n_parts, asked->n);
    clear_results(asked);
    assert_false(decide(asked, false, &real));
    assert_false(real.success);
    for (size_t i = 0; i < asked->n; i++) {
        const steady_part_result *its = &asked->call.group->results[i];
        if (i != told->part) {
            assert_true(!said[i].answered && !said[i].success && said[i].level == 0 && said[i].retry_after == 0);
            continue;
        }
        assert_true(said[i].answered && !said[i].success && said[i].granted == 0);
        assert_true(steady__group_votes(&asked->call.group->members[i].part));
        assert_false(its->success);
        assert_true(said[i].level == told->level && said[i].retry_after == told->retry_after);
        assert_true((told->retry_after == -1) == (its->retry_after == -1));
        const steady_us drift = VALID / 1000 + 2;
        assert_true(told->retry_after <= its->retry_after + h->trip + drift);
        if (!h->others[asked->at[i]]) assert_true(told->retry_after >= its->retry_after - drift);
        h->beside_a_block += asked->call.group->members[i].part.rate->block != 0;
    }
    h->remembered++;
}

static void make_a_call(struct history *h) {
    struct asked asked;
    steady_result result = {0};
    make_call(h, &asked);
    if (steady__deny_memory_denies(&memory, &asked.call, &result)) {
        check(h, &asked, &result);
    } else {
        const steady_us sent = now;
        pass(h, random_in(&h->seed, 0, h->trip / 2));
        decide(&asked, true, &result);
        pass(h, random_in(&h->seed, 0, h->trip / 2));
        steady__deny_memory_learn(&memory, &asked.call, &result, sent);
        steady__deny_memory_ended(&memory, &asked.call);
        for (size_t i = 0; i < asked.n; i++)
            h->others[asked.at[i]] = false;
    }
    free(asked.call.group);
}

static void put_in_by_others(struct history *h) {
    const int bucket = (int)random_in(&h->seed, 0, BUCKETS - 1);
    struct steady__decision d;
    steady__bucket_consume(&buckets[bucket], &terms[bucket][0].rate, server, random_in(&h->seed, 1, 8), &d);
    h->others[bucket] = h->others[bucket] || d.success;
}

static void calls_denied_from_memory_are_denied_by_the_server(void **state) {
    unsigned remembered = 0, beside_a_block = 0;
    for (int round = 0; round < 3000; round++) {
        struct history h = {.seed = (uint64_t)round + 1};
        const int64_t scale = (int64_t[]){1, 1000, 100000}[round % 3];
        server = BEGIN / 3;
        set_up(state);
        make_limits(&h, scale);
        h.drift = random_in(&h.seed, -500, 500);
        h.trip = random_in(&h.seed, 0, 20 * scale);
        for (int i = 0; i < 100; i++) {
            pass(&h, random_in(&h.seed, 0, terms[0][0].rate.recharge / terms[0][0].rate.drops));
            if (random_in(&h.seed, 0, 3) == 0)
                put_in_by_others(&h);
            else
                make_a_call(&h);
        }
        tear_down(state);
        remembered += h.remembered;
        beside_a_block += h.beside_a_block;
    }
    print_message("# %u denied from memory, %u of them blocked\n", remembered, beside_a_block);
    assert_in_range(remembered, 10000, 250000);
    assert_in_range(beside_a_block, 500, 100000);
}

/* ---- Single rules ---- */

#define TEN                                                                                                            \
    (struct steady__rate) { 10, 10 * STEADY_SECOND, 1, 0 }

/* Two buckets of ten drops. A call has filled those that are named. */
static void fill(bool a, bool b, bool c) {
    const bool full[] = {a, b, c, false};
    struct asked asked;
    steady_result result;
    server = BEGIN / 3;
    for (int i = 0; i < BUCKETS; i++) {
        for (int k = 0; k < VARIANTS; k++)
            terms[i][k] = (struct steady__terms){.rate = TEN};
        terms[i][1].rate.block = STEADY_SECOND;
        terms[i][2].rate.capacity = 20;
        buckets[i] = (struct steady__bucket){.level = full[i] ? 10 : 0, .last = server};
    }
    for (int i = 0; i < BUCKETS; i++) {
        begin_call(&asked);
        add(&asked, i, 0, 1, STEADY__TAKE);
        decide(&asked, true, &result);
        steady__deny_memory_learn(&memory, &asked.call, &result, now);
        free(asked.call.group);
    }
    now += MS;
    server += MS;
}

/* Ends the call. Returns the bucket that denies it from memory, or -1. */
static int denied_by(struct asked *asked) {
    steady_result result;
    const bool denies = steady__deny_memory_denies(&memory, &asked->call, &result);
    const int by = denies ? asked->at[result.part] : -1;
    free(asked->call.group);
    return by;
}

static int denied_by_two(int a, enum steady__kind a_kind, int b, enum steady__kind b_kind) {
    struct asked asked;
    begin_call(&asked);
    add(&asked, a, 0, 1, a_kind);
    add(&asked, b, 0, 1, b_kind);
    return denied_by(&asked);
}

static void full_bucket_denies_a_call_on_several(void **state) {
    (void)state;
    fill(false, true, false);
    assert_int_equal(denied_by_two(0, STEADY__TAKE, 1, STEADY__TAKE), 1);
    assert_int_equal(denied_by_two(1, STEADY__TAKE, 0, STEADY__TAKE), 1);
    assert_int_equal(denied_by_two(0, STEADY__TAKE, 2, STEADY__TAKE), -1);
    assert_int_equal(denied_by_two(0, STEADY__TAKE, 3, STEADY__TAKE), -1);
}

/* A look starts no block, so its limit may have one. */
static void only_buckets_with_a_vote_deny(void **state) {
    struct asked asked;
    (void)state;
    fill(false, true, false);
    begin_call(&asked);
    add(&asked, 2, 0, 1, STEADY__TAKE);
    add(&asked, 1, 1, 1, STEADY__LOOK);
    assert_int_equal(denied_by(&asked), 1);
    assert_int_equal(denied_by_two(0, STEADY__TAKE, 1, STEADY__LOOK), 1);
    assert_int_equal(denied_by_two(0, STEADY__TAKE, 1, STEADY__SHADOW), -1);
    assert_int_equal(denied_by_two(0, STEADY__TAKE, 1, STEADY__CHARGE), -1);
    assert_int_equal(denied_by_two(0, STEADY__CHARGE, 1, STEADY__TAKE), 1);
    assert_int_equal(denied_by_two(0, STEADY__SHADOW, 1, STEADY__TAKE), 1);
}

static void amounts_that_take_nothing_deny_nothing(void **state) {
    struct asked asked;
    (void)state;
    fill(false, true, false);
    for (int amount = -1; amount <= 1; amount++) {
        begin_call(&asked);
        add(&asked, 0, 0, 1, STEADY__TAKE);
        add(&asked, 1, 0, amount, STEADY__TAKE);
        assert_int_equal(denied_by(&asked), amount > 0 ? 1 : -1);
    }
}

/* The server has to start the block of a bucket whose room is not known, or that is full, too. */
static void call_that_may_start_a_block_is_not_denied(void **state) {
    static const enum steady__kind kinds[] = {STEADY__TAKE, STEADY__SHADOW, STEADY__LOOK, STEADY__CHARGE};
    struct asked asked;
    (void)state;
    fill(true, true, false);
    for (size_t i = 0; i < 4; i++)
        for (int other = 1; other < 3; other++) { /* full, and not known */
            begin_call(&asked);
            add(&asked, 0, 0, 1, STEADY__TAKE);
            add(&asked, other, 1, 1, kinds[i]);
            const bool starts_none = kinds[i] == STEADY__LOOK || kinds[i] == STEADY__CHARGE;
            assert_int_equal(denied_by(&asked), starts_none ? 0 : -1);
        }
}

/* Its block has started already. */
static void blocked_bucket_denies_a_call_on_several(void **state) {
    struct asked asked;
    steady_result result;
    (void)state;
    fill(true, true, false);
    begin_call(&asked);
    add(&asked, 1, 1, 1, STEADY__TAKE);
    decide(&asked, true, &result);
    assert_int_equal(result.blocked_for, STEADY_SECOND);
    steady__deny_memory_learn(&memory, &asked.call, &result, now);
    free(asked.call.group);
    begin_call(&asked);
    add(&asked, 2, 0, 1, STEADY__TAKE);
    add(&asked, 1, 1, 1, STEADY__TAKE);
    assert_int_equal(denied_by(&asked), 1);
    begin_call(&asked); /* the other one may have to start its own */
    add(&asked, 2, 1, 1, STEADY__TAKE);
    add(&asked, 1, 1, 1, STEADY__TAKE);
    assert_int_equal(denied_by(&asked), -1);
}

/* Among full buckets, the longest wait is told. */
static void longest_wait_is_told(void **state) {
    struct asked asked;
    (void)state;
    fill(true, true, true);
    for (int i = 0; i < 3; i++) {
        begin_call(&asked);
        for (int k = 0; k < 3; k++)
            add(&asked, k, 0, k == i ? 3 : 2, STEADY__TAKE);
        assert_int_equal(denied_by(&asked), i);
        begin_call(&asked);
        for (int k = 0; k < 3; k++)
            add(&asked, k, 0, k == i ? 11 : 9, STEADY__TAKE); /* never */
        assert_int_equal(denied_by(&asked), i);
    }
}

/* The server tells of the bucket that denies for ever. */
static void call_that_never_fits_elsewhere_asks_the_server(void **state) {
    struct asked asked;
    (void)state;
    fill(true, true, false);
    for (int amount = 10; amount <= 11; amount++) {
        begin_call(&asked);
        add(&asked, 0, 0, 1, STEADY__TAKE);
        add(&asked, 3, 0, amount, STEADY__TAKE);
        assert_int_equal(denied_by(&asked), amount == 10 ? 0 : -1);
    }
    begin_call(&asked);
    add(&asked, 0, 0, 11, STEADY__TAKE); /* it is known to deny for ever, too */
    add(&asked, 3, 0, 11, STEADY__TAKE);
    assert_int_equal(denied_by(&asked), 0);
    begin_call(&asked);
    add(&asked, 0, 0, 1, STEADY__TAKE);
    add(&asked, 3, 0, 11, STEADY__SHADOW);
    assert_int_equal(denied_by(&asked), 0);
}

static void calls_with_options_ask_the_server(void **state) {
    struct asked asked;
    (void)state;
    fill(true, true, false);
    for (int i = 0; i < 4; i++) {
        begin_call(&asked);
        add(&asked, 0, 0, 1, STEADY__TAKE);
        add(&asked, 1, 0, 1, STEADY__TAKE);
        if (i == 1) asked.call.group->how.max_wait = 1;
        if (i == 2) asked.call.group->how.at_least = 1;
        if (i == 3) asked.call.verb = STEADY__PEEK_ALL;
        assert_int_equal(denied_by(&asked), i == 0 ? 0 : -1);
    }
}

/* That of the server, as its limit is. */
static void each_bucket_has_its_own_limit(void **state) {
    struct asked asked;
    (void)state;
    fill(true, true, false);
    begin_call(&asked);
    add(&asked, 0, 2, 1, STEADY__TAKE); /* of twenty */
    add(&asked, 2, 0, 1, STEADY__TAKE);
    assert_int_equal(denied_by(&asked), -1);
    begin_call(&asked);
    add(&asked, 0, 2, 1, STEADY__TAKE);
    add(&asked, 1, 0, 1, STEADY__TAKE);
    assert_int_equal(denied_by(&asked), 1);
}

/* A bucket that was not answered says nothing. */
static void bucket_without_an_answer_is_not_learned(void **state) {
    struct asked asked;
    steady_result result;
    (void)state;
    fill(false, false, false);
    buckets[0].level = buckets[1].level = 10;
    begin_call(&asked);
    add(&asked, 0, 0, 1, STEADY__TAKE);
    add(&asked, 1, 0, 1, STEADY__TAKE);
    decide(&asked, true, &result);
    asked.call.group->results[0].answered = false;
    steady__deny_memory_learn(&memory, &asked.call, &result, now);
    free(asked.call.group);
    assert_int_equal(denied_by_two(0, STEADY__TAKE, 2, STEADY__TAKE), -1);
    assert_int_equal(denied_by_two(1, STEADY__TAKE, 2, STEADY__TAKE), 1);
}

/* A bucket that was drained in a call on several, and those that were reset or settled. */
static void give_back_in_a_call_on_several_is_seen_at_once(void **state) {
    static const enum steady__verb verbs[] = {STEADY__CONSUME_ALL, STEADY__RESET_ALL, STEADY__SETTLE};
    struct asked asked;
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        fill(true, true, false);
        assert_int_equal(denied_by_two(1, STEADY__TAKE, 2, STEADY__TAKE), 1);
        begin_call(&asked);
        add(&asked, 0, 0, 0, STEADY__TAKE);
        add(&asked, 1, 0, i == 0 ? -1 : 0, STEADY__TAKE);
        asked.call.verb = verbs[i];
        steady__deny_memory_ended(&memory, &asked.call);
        free(asked.call.group);
        assert_int_equal(denied_by_two(1, STEADY__TAKE, 2, STEADY__TAKE), -1);
        now += 61 * STEADY_SECOND;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_denied_from_memory_are_denied_by_the_server),
        TEST(full_bucket_denies_a_call_on_several),
        TEST(only_buckets_with_a_vote_deny),
        TEST(amounts_that_take_nothing_deny_nothing),
        TEST(call_that_may_start_a_block_is_not_denied),
        TEST(blocked_bucket_denies_a_call_on_several),
        TEST(longest_wait_is_told),
        TEST(call_that_never_fits_elsewhere_asks_the_server),
        TEST(calls_with_options_ask_the_server),
        TEST(each_bucket_has_its_own_limit),
        TEST(bucket_without_an_answer_is_not_learned),
        TEST(give_back_in_a_call_on_several_is_seen_at_once),
    };
    return cmocka_run_group_tests_name("deny_memory", tests, NULL, NULL);
}
