/* SPDX-License-Identifier: MIT
 * Properties of a bucket for any numbers: the bound, exact waits, failures that change nothing, conservation. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "assertions.h"
#include "core/bucket.h"
#include "random.h"

#define NOW INT64_C(1764000000000000)
#define ROUNDS 100000

static const struct steady__bucket empty;

static struct steady__decision consume(struct steady__bucket *b, const struct steady__rate *rate, int64_t now,
                                       int64_t n) {
    struct steady__decision d;
    steady__bucket_consume(b, rate, now, n, &d);
    return d;
}

static struct steady__decision peek(const struct steady__bucket *b, const struct steady__rate *rate, int64_t now) {
    struct steady__decision d;
    steady__bucket_peek(b, rate, now, &d);
    return d;
}

/* Small numbers, so that a few hundred us cover all cases. */
static struct steady__rate small_rate(uint64_t *seed) {
    return (struct steady__rate){random_in(seed, 1, 12), random_in(seed, 1, 40), random_in(seed, 1, 9), 0};
}

static struct steady__bucket some_bucket(uint64_t *seed, const struct steady__rate *rate, int64_t now) {
    return (struct steady__bucket){random_in(seed, 0, rate->capacity + 3), now - random_in(seed, 0, 60),
                                   random_in(seed, 0, rate->drops - 1), 0};
}

/* In any window W at most capacity + W * drops / recharge drops are admitted. A greedy client asks at random moments.
 * Only windows that begin at an admission can break the bound. */
static void admissions_in_any_window_stay_within_the_bound(void **state) {
    (void)state;
    enum { ADMISSIONS = 300 };
    uint64_t seed = 1;
    for (int round = 0; round < 300; round++) {
        const struct steady__rate rate = small_rate(&seed);
        struct steady__bucket b = empty;
        int64_t when[ADMISSIONS], amount[ADMISSIONS], now = NOW;
        for (int i = 0; i < ADMISSIONS;) {
            now += random_in(&seed, 0, 1 + rate.recharge / rate.drops);
            const int64_t n = random_in(&seed, 1, rate.capacity);
            if (!consume(&b, &rate, now, n).success) continue;
            when[i] = now;
            amount[i++] = n;
        }
        for (int from = 0; from < ADMISSIONS; from++) {
            int64_t sum = 0;
            for (int to = from; to < ADMISSIONS; to++) {
                sum += amount[to];
                assert_true((sum - rate.capacity) * rate.recharge <= (when[to] - when[from]) * rate.drops);
            }
        }
    }
}

/* A client that always retries exactly after retry_after is admitted for each drop that leaks. */
static void greedy_client_is_admitted_at_exactly_the_leak_rate(void **state) {
    (void)state;
    const struct steady__rate rate = {1, 1000000, 3, 0};
    struct steady__bucket b = empty;
    int64_t now = NOW, admitted = 0;
    while (now < NOW + 1000 * INT64_C(1000000)) {
        const struct steady__decision d = consume(&b, &rate, now, 1);
        admitted += d.success;
        now += d.success ? 0 : d.retry_after;
    }
    assert_int_equal(admitted, 3000);
}

static void retry_after_is_exact(void **state) {
    (void)state;
    uint64_t seed = 2;
    int denied = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct steady__rate rate = small_rate(&seed);
        rate.block = random_next(&seed) % 2 ? random_in(&seed, 1, 30) : 0;
        struct steady__bucket b = some_bucket(&seed, &rate, NOW);
        const int64_t n = random_in(&seed, 0, rate.capacity);
        const struct steady__decision d = consume(&b, &rate, NOW, n);
        if (d.success) continue;
        denied++;
        assert_true(d.retry_after > 0);
        rate.block = 0; /* otherwise the second call starts a block */
        struct steady__bucket early = b, right = b;
        assert_false(consume(&early, &rate, NOW + d.retry_after - 1, n).success);
        assert_true(consume(&right, &rate, NOW + d.retry_after, n).success);
    }
    assert_true(denied > ROUNDS / 10);
}

static void until_next_drop_is_exact(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int round = 0; round < ROUNDS; round++) {
        const struct steady__rate rate = small_rate(&seed);
        const struct steady__bucket b = some_bucket(&seed, &rate, NOW);
        const struct steady__decision d = peek(&b, &rate, NOW);
        if (d.level == 0) {
            assert_int_equal(d.until_next_drop, (rate.recharge + rate.drops - 1) / rate.drops);
            continue;
        }
        assert_int_equal(peek(&b, &rate, NOW + d.until_next_drop - 1).level, d.level);
        assert_true(peek(&b, &rate, NOW + d.until_next_drop).level < d.level);
        assert_true(peek(&b, &rate, NOW + d.busy_for - 1).level > 0);
        assert_int_equal(peek(&b, &rate, NOW + d.busy_for).level, 0);
    }
}

static void denied_consume_changes_nothing(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (int round = 0; round < ROUNDS; round++) {
        const struct steady__rate rate = small_rate(&seed);
        const struct steady__bucket before = some_bucket(&seed, &rate, NOW);
        struct steady__bucket b = before;
        const struct steady__decision d = consume(&b, &rate, NOW, random_in(&seed, 1, 2 * rate.capacity));
        assert_int_equal(d.success, d.changed);
        if (!d.success) assert_memory_equal(&b, &before, sizeof b);
    }
}

static void peek_equals_the_next_consume(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < ROUNDS; round++) {
        struct steady__rate rate = small_rate(&seed);
        struct steady__bucket b = some_bucket(&seed, &rate, NOW);
        b.blocked_until = random_next(&seed) % 3 == 0 ? NOW + random_in(&seed, -5, 20) : 0;
        const struct steady__decision p = peek(&b, &rate, NOW), c = consume(&b, &rate, NOW, 1);
        assert_int_equal(p.success, c.success);
        assert_int_equal(p.retry_after, c.retry_after);
        assert_int_equal(p.blocked_for, c.blocked_for);
        assert_int_equal(p.level + c.success, c.level);
    }
}

static void two_consumes_equal_one_consume_of_their_sum(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (int round = 0; round < ROUNDS; round++) {
        const struct steady__rate rate = small_rate(&seed);
        struct steady__bucket whole = some_bucket(&seed, &rate, NOW), halves = whole;
        const int64_t x = random_in(&seed, 1, 6), y = random_in(&seed, 1, 6);
        if (!consume(&whole, &rate, NOW, x + y).success) continue;
        assert_true(consume(&halves, &rate, NOW, x).success);
        assert_true(consume(&halves, &rate, NOW, y).success);
        assert_memory_equal(&whole, &halves, sizeof whole);
    }
}

static void drained_drops_can_be_put_back(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int round = 0; round < ROUNDS; round++) {
        const struct steady__rate rate = small_rate(&seed);
        struct steady__bucket b = some_bucket(&seed, &rate, NOW);
        const int64_t before = peek(&b, &rate, NOW).level, out = random_in(&seed, 1, 15);
        const struct steady__decision drained = consume(&b, &rate, NOW, -out);
        assert_true(drained.success);
        assert_int_equal(drained.level, before > out ? before - out : 0);
        const int64_t taken = before - drained.level;
        if (taken == 0 || before > rate.capacity) continue;
        assert_int_equal(consume(&b, &rate, NOW, taken).level, before);
    }
}

static void blocked_and_overfull_bucket_can_be_drained(void **state) {
    (void)state;
    const struct steady__rate rate = {5, 1000, 1, 700};
    struct steady__bucket b = {9, NOW, 0, NOW + 100};
    const struct steady__decision d = consume(&b, &rate, NOW, -6);
    assert_true(d.success);
    assert_int_equal(d.level, 3);
    assert_int_equal(d.blocked_for, 100);
    assert_false(consume(&b, &rate, NOW + 99, 1).success);
    assert_true(consume(&b, &rate, NOW + 100, 1).success);
}

static void amount_over_the_capacity_starts_no_block(void **state) {
    (void)state;
    const struct steady__rate rate = {5, 1000, 1, 700};
    struct steady__bucket b = empty;
    const struct steady__decision d = consume(&b, &rate, NOW, 6);
    assert_false(d.success);
    assert_int_equal(d.retry_after, -1);
    assert_int_equal(d.blocked_for, 0);
    assert_memory_equal(&b, &empty, sizeof b);
}

/* The clock is set back by an hour: no wait grows, nothing leaks or fills, and the step is reported once. */
static void clock_set_back_keeps_level_and_block(void **state) {
    (void)state;
    const struct steady__rate rate = {5, 1000, 1, 700};
    const int64_t hour = INT64_C(3600000000);
    struct steady__bucket b = {5, NOW, 0, NOW + 300};
    assert_true(peek(&b, &rate, NOW - hour).stepped);
    struct steady__decision d = consume(&b, &rate, NOW - hour, 1);
    assert_true(d.stepped && d.changed && !d.success);
    assert_int_equal(d.level, 5);
    assert_int_equal(d.blocked_for, 300);
    assert_int_equal(d.retry_after, 1000);
    d = consume(&b, &rate, NOW - hour + 1000, 1);
    assert_true(d.success && !d.stepped);
}

/* Any state gives numbers in range, and a consume repairs the state. */
static void any_state_gives_numbers_in_range(void **state) {
    (void)state;
    uint64_t seed = 8;
    for (int round = 0; round < ROUNDS; round++) {
        struct steady__rate rate = {random_edgy(&seed, 1, STEADY__CAPACITY_MAX), 1, 1, 0};
        rate.recharge = random_edgy(&seed, 1, (STEADY__EXACT - 1) / rate.capacity);
        rate.drops = random_edgy(&seed, 1, STEADY__DROPS_MAX);
        rate.block = random_edgy(&seed, 0, STEADY__BLOCK_LIMIT - 1);
        struct steady__bucket b;
        uint64_t *words = (uint64_t *)(void *)&b;
        for (size_t i = 0; i < sizeof b / sizeof *words; i++)
            words[i] = random_next(&seed) >> random_in(&seed, 0, 63);
        const int64_t now = random_edgy(&seed, 0, STEADY__BLOCK_LIMIT - 1);
        const struct steady__decision d = consume(&b, &rate, now, random_edgy(&seed, -INT32_MAX, INT32_MAX));
        assert_true(d.level >= 0 && d.level < STEADY__EXACT);
        assert_true(d.until_next_drop > 0 && d.until_next_drop <= STEADY__EXACT);
        assert_true(d.blocked_for >= 0 && d.blocked_for < STEADY__EXACT);
        assert_true(d.retry_after >= -1 && d.retry_after <= STEADY__EXACT);
        assert_true(d.busy_for >= 0 && d.busy_for <= STEADY__EXACT);
        if (d.changed) assert_true(b.last <= now && b.rem < rate.drops);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(admissions_in_any_window_stay_within_the_bound),
        cmocka_unit_test(greedy_client_is_admitted_at_exactly_the_leak_rate),
        cmocka_unit_test(retry_after_is_exact),
        cmocka_unit_test(until_next_drop_is_exact),
        cmocka_unit_test(denied_consume_changes_nothing),
        cmocka_unit_test(peek_equals_the_next_consume),
        cmocka_unit_test(two_consumes_equal_one_consume_of_their_sum),
        cmocka_unit_test(drained_drops_can_be_put_back),
        cmocka_unit_test(blocked_and_overfull_bucket_can_be_drained),
        cmocka_unit_test(amount_over_the_capacity_starts_no_block),
        cmocka_unit_test(clock_set_back_keeps_level_and_block),
        cmocka_unit_test(any_state_gives_numbers_in_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
