/* SPDX-License-Identifier: MIT
 * The table in one thread and virtual time, when the slots of a key are taken: the bucket that the limits of one rate
 * share there, and the key that gets a slot that is free again. */
#include "table_rig.h"

/* ---- One limit ---- */

static void keys_without_a_slot_share_one_bucket(void **state) {
    (void)state;
    struct fixture f;
    struct steady__answer answer;
    const struct steady__rate rate = {3, 100 * SECOND, 1, 0};
    set_up(&f, 64);
    fill(&f, &rate);
    for (uint64_t tag = 101; tag <= 103; tag++) {
        answer = ask(&f, neighbour(tag), &rate, 1);
        assert_true(answer.overflowed && answer.decision.success);
        assert_int_equal(answer.decision.level, tag - 100);
    }
    answer = ask(&f, neighbour(104), &rate, 1);
    assert_true(answer.overflowed && !answer.decision.success);
    answer = peek(&f, neighbour(105), &rate);
    assert_true(answer.overflowed);
    assert_int_equal(answer.decision.level, 3);
    assert_int_equal(ask(&f, neighbour(16), &rate, 1).decision.level, 2);

    for (uint64_t tag = 101; tag <= 110; tag++)
        reset(&f, neighbour(tag));
    assert_int_equal(peek(&f, neighbour(105), &rate).decision.level, 3);
    tear_down(&f);
}

static void shared_bucket_blocks_all_its_keys(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate rate = {1, 100 * SECOND, 1, SECOND};
    set_up(&f, 64);
    fill(&f, &rate);
    ask(&f, neighbour(101), &rate, 1);
    assert_int_equal(ask(&f, neighbour(102), &rate, 1).decision.blocked_for, SECOND);
    assert_int_equal(peek(&f, neighbour(103), &rate).decision.blocked_for, SECOND);
    reset(&f, neighbour(103));
    assert_int_equal(peek(&f, neighbour(103), &rate).decision.blocked_for, SECOND);
    tear_down(&f);
}

/* ---- No free slot and several limits ---- */

static const struct steady__rate filler = {3, 1000000 * SECOND, 1, 0};
static const struct steady__rate login = {5, 3600 * SECOND, 1, 0}, page = {1000, 1000, 1, 0};
static const struct steady__rate blocking_login = {5, 3600 * SECOND, 1, 600 * SECOND};

static void limits_of_different_rates_have_different_shared_buckets(void **state) {
    (void)state;
    struct fixture f;
    set_up(&f, 512);
    fill(&f, &filler);
    for (uint64_t tag = 101; tag <= 106; tag++)
        assert_int_equal(ask(&f, neighbour(tag), &login, 1).decision.success, tag <= 105);
    for (uint64_t tag = 200; tag < 300; tag++) {
        f.now += SECOND / 100;
        const struct steady__answer answer = ask(&f, neighbour(tag), &page, 1);
        assert_true(answer.overflowed && answer.decision.success);
        assert_int_equal(answer.decision.level, 1);
        assert_false(ask(&f, neighbour(101), &login, 1).decision.success);
    }
    f.now += 3599 * SECOND;
    assert_true(ask(&f, neighbour(101), &login, 1).decision.success);
    assert_false(ask(&f, neighbour(101), &login, 1).decision.success);
    tear_down(&f);
}

/* A key has one bucket for all limits of one rate, whatever their capacity, and with or without a block. */
static void limits_of_one_rate_share_a_bucket(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate larger = {20, 3600 * SECOND, 1, 0};
    set_up(&f, 512);
    fill(&f, &filler);
    for (int i = 1; i <= 5; i++)
        assert_int_equal(ask(&f, neighbour(101), &login, 1).decision.level, i);
    assert_false(ask(&f, neighbour(101), &blocking_login, 1).decision.success);
    assert_int_equal(peek(&f, neighbour(101), &login).decision.blocked_for, 600 * SECOND);
    assert_false(ask(&f, neighbour(101), &larger, 1).decision.success);
    f.now += 600 * SECOND;
    for (int i = 6; i <= 20; i++)
        assert_int_equal(ask(&f, neighbour(101), &larger, 1).decision.level, i);
    assert_false(ask(&f, neighbour(101), &larger, 1).decision.success);
    assert_false(ask(&f, neighbour(101), &login, 1).decision.success);
    for (uint64_t tag = 1; tag <= NEIGHBOURS; tag++)
        reset(&f, neighbour(tag));
    assert_int_equal(peek(&f, neighbour(101), &login).decision.level, 20);
    assert_false(ask(&f, neighbour(101), &login, 1).decision.success);
    assert_false(ask(&f, neighbour(101), &larger, 1).decision.success);
    tear_down(&f);
}

/* The smallest table has one overflow bucket. A limit that must wait for it is told how long. */
static void limit_without_a_shared_bucket_is_denied_until_one_is_free(void **state) {
    (void)state;
    struct fixture f;
    struct steady__answer answer;
    const struct steady__rate blocking_page = {1000, 1000, 1, SECOND};
    set_up(&f, 64);
    fill(&f, &filler);
    for (uint64_t tag = 101; tag <= 105; tag++)
        ask(&f, neighbour(tag), &login, 1);
    answer = ask(&f, neighbour(200), &blocking_page, 1);
    assert_true(answer.overflowed && !answer.decision.success);
    assert_int_equal(answer.decision.level, 1000);
    assert_int_equal(answer.decision.blocked_for, 0);
    assert_between(answer.decision.retry_after, 5 * 3600 * SECOND, 5 * 3636 * SECOND);
    assert_int_equal(answer.decision.until_next_drop, answer.decision.retry_after);
    assert_int_equal(ask(&f, neighbour(200), &blocking_page, 1001).decision.retry_after, -1);
    assert_true(ask(&f, neighbour(200), &blocking_page, 0).decision.success);
    assert_int_equal(peek(&f, neighbour(200), &page).decision.retry_after, answer.decision.retry_after);
    f.now += answer.decision.retry_after - 1;
    assert_false(ask(&f, neighbour(200), &page, 1).decision.success);
    f.now += 1;
    assert_true(ask(&f, neighbour(200), &page, 1).decision.success);
    assert_int_equal(ask(&f, neighbour(101), &login, 1).decision.retry_after, 1000);
    f.now += 1000;
    assert_true(ask(&f, neighbour(101), &login, 1).decision.success);
    tear_down(&f);
}

/* Also with more limits than overflow buckets: what a limit allows, a bucket of its own would have allowed. */
static void any_mix_of_limits_allows_no_more_than_each_alone(void **state) {
    (void)state;
    static const struct steady__rate limits[] = {{5, 100 * SECOND, 1, 0}, {1000, 1000, 1, 0},
                                                 {3, SECOND, 1, 0},       {5, 100 * SECOND, 1, 5 * SECOND},
                                                 {20, SECOND, 7, 0},      {2, 50000, 1, 0}};
    static const uint32_t sizes[] = {64, 128, 256, 512};
    for (size_t size = 0; size < 4; size++) {
        struct fixture f;
        struct steady__bucket alone[6] = {{0}};
        int admitted[6] = {0};
        set_up(&f, sizes[size]);
        fill(&f, &filler);
        for (int i = 0; i < 100000; i++) {
            const size_t which = random64() % 6;
            struct steady__rate rate = limits[which];
            const int64_t amount = (int64_t)(random64() % 3) + 1;
            f.now += (int64_t)(random64() % 400000);
            if (!ask(&f, neighbour(100 + random64() % 50), &rate, amount).decision.success) continue;
            struct steady__decision d;
            rate.block = 0;
            steady__bucket_consume(&alone[which], &rate, f.now, amount, &d);
            assert_true(d.success);
            admitted[which]++;
        }
        for (size_t which = 0; which < 6 && sizes[size] >= 256; which++)
            assert_true(admitted[which] > 0);
        f.now += 600 * SECOND;
        assert_true(ask(&f, neighbour(100), &limits[5], 1).decision.success);
        tear_down(&f);
    }
}

/* A drain succeeds, as on an empty bucket, and takes out no drops of other keys. The next decision finds what it
 * reports. */
static void drain_succeeds_and_leaves_the_shared_bucket_alone(void **state) {
    (void)state;
    static const uint32_t sizes[] = {64, 512};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        set_up(&f, sizes[i]);
        fill(&f, &filler);
        ask(&f, neighbour(100), &blocking_login, 5);
        ask(&f, neighbour(101), &blocking_login, 1);
        for (uint64_t tag = 200; tag < 210; tag++) {
            const struct steady__answer answer = ask(&f, neighbour(tag), &blocking_login, -1);
            assert_true(answer.overflowed && answer.decision.success);
            assert_int_equal(answer.decision.level, 5);
            assert_int_equal(answer.decision.blocked_for, 600 * SECOND);
            assert_int_equal(answer.decision.retry_after, 0);
            assert_true(ask(&f, neighbour(tag), &page, -1).decision.success);
            assert_int_equal(ask(&f, neighbour(100), &blocking_login, 1).decision.level, 5);
        }
        tear_down(&f);
    }
}

/* No free slot, five drops of a limit in its overflow bucket, and then one free slot. */
static void set_up_overflowed(struct fixture *f, const struct steady__rate *rate) {
    set_up(f, 512);
    fill(f, &filler);
    for (uint64_t tag = 101; tag <= 105; tag++)
        assert_true(ask(f, neighbour(tag), rate, 1).decision.success);
    reset(f, neighbour(5));
}

static void new_bucket_begins_with_the_state_of_the_shared_one(void **state) {
    (void)state;
    struct fixture f;
    struct steady__answer answer;
    set_up_overflowed(&f, &login);
    answer = ask(&f, neighbour(101), &login, 1);
    assert_true(answer.overflowed && !answer.decision.success);
    assert_int_equal(answer.decision.retry_after, 3600 * SECOND);
    assert_int_equal(peek(&f, neighbour(101), &login).decision.level, 5);
    f.now += 3600 * SECOND;
    answer = ask(&f, neighbour(101), &login, 1);
    assert_true(answer.decision.success && !answer.overflowed);
    assert_int_equal(answer.decision.level, 5);
    assert_int_equal(peek(&f, neighbour(102), &login).decision.level, 4);
    reset(&f, neighbour(6));
    answer = ask(&f, neighbour(300), &page, 1);
    assert_int_equal(answer.decision.level, 1);
    f.now += 5 * 3600 * SECOND;
    assert_false(peek(&f, neighbour(102), &login).overflowed);
    answer = ask(&f, neighbour(102), &login, 1);
    assert_int_equal(answer.decision.level, 1);
    assert_false(answer.overflowed);
    tear_down(&f);
}

static void new_bucket_over_its_capacity_is_blocked_alone(void **state) {
    (void)state;
    struct fixture f;
    struct steady__answer answer;
    set_up_overflowed(&f, &blocking_login);
    answer = ask(&f, neighbour(101), &blocking_login, 1);
    assert_false(answer.overflowed);
    assert_int_equal(answer.decision.blocked_for, 600 * SECOND);
    assert_int_equal(peek(&f, neighbour(102), &blocking_login).decision.blocked_for, 0);
    f.now += SECOND;
    assert_int_equal(peek(&f, neighbour(101), &blocking_login).decision.blocked_for, 599 * SECOND);
    assert_int_equal(ask(&f, neighbour(102), &blocking_login, 1).decision.blocked_for, 600 * SECOND);
    reset(&f, neighbour(6));
    answer = ask(&f, neighbour(103), &blocking_login, -2);
    assert_true(answer.decision.success && !answer.overflowed);
    assert_int_equal(answer.decision.level, 3);
    assert_int_equal(answer.decision.blocked_for, 600 * SECOND);
    f.now += 600 * SECOND - 1;
    assert_int_equal(ask(&f, neighbour(103), &blocking_login, 1).decision.blocked_for, 1);
    f.now += 1;
    assert_int_equal(ask(&f, neighbour(103), &blocking_login, 1).decision.level, 4);
    tear_down(&f);
}

/* A key that was reset or drained is empty, whatever the overflow bucket holds. */
static void new_bucket_after_a_reset_or_drain_is_empty(void **state) {
    (void)state;
    for (int drained = 0; drained < 2; drained++) {
        struct fixture f;
        set_up_overflowed(&f, &login);
        for (int times = 0; times < 2; times++) {
            if (drained)
                assert_int_equal(ask(&f, neighbour(101), &login, -9).decision.level, 0);
            else
                reset(&f, neighbour(101));
            assert_int_equal(peek(&f, neighbour(101), &login).decision.level, 0);
            assert_int_equal(ask(&f, neighbour(101), &login, 2).decision.level, 2);
        }
        assert_int_equal(peek(&f, neighbour(102), &login).decision.level, 5);
        tear_down(&f);
    }
}

static void clock_behind_the_shared_bucket_is_reported(void **state) {
    (void)state;
    struct fixture f;
    struct steady__answer answer;
    set_up_overflowed(&f, &login);
    f.now += 7200 * SECOND;
    struct steady__ask a = {.place = steady__table_place(&f.table, neighbour(101)), .rate = &login, .amount = 1};
    a.now = START - SECOND;
    assert_false(steady__table_decide(&a, &answer));
    assert_int_equal(answer.ahead, START);
    a.stepped = true;
    a.amount = -1;
    assert_true(steady__table_decide(&a, &answer));
    assert_true(answer.decision.stepped);
    assert_int_equal(answer.decision.level, 4);
    tear_down(&f);
}

static void drained_slot_goes_to_another_key(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate slow = {3, 1000 * SECOND, 1, 0}, fast = {3, SECOND, 1, 0};
    set_up(&f, 64);
    fill(&f, &slow);
    reset(&f, neighbour(5));
    assert_false(ask(&f, neighbour(100), &fast, 2).overflowed);
    f.now += 2 * SECOND - 1;
    assert_true(peek(&f, neighbour(200), &slow).overflowed);
    f.now += 1 + 2 * SECOND / 100;
    assert_false(ask(&f, neighbour(300), &slow, 1).overflowed);
    assert_int_equal(peek(&f, neighbour(300), &slow).decision.level, 1);
    assert_true(peek(&f, neighbour(100), &fast).overflowed);
    for (uint64_t tag = 1; tag <= NEIGHBOURS; tag++)
        if (tag != 5) assert_int_equal(peek(&f, neighbour(tag), &slow).decision.level, 1);
    tear_down(&f);
}

/* For any time to drain, within one percent. */
static void slot_is_kept_until_its_bucket_has_drained(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate slow = {1, (int64_t)1 << 52, 1, 0};
    for (int64_t length = 1; length < (int64_t)1 << 48; length += length / 3 + 1) {
        const struct steady__rate rate = {1, length, 1, 0};
        set_up(&f, 64);
        fill(&f, &slow);
        reset(&f, neighbour(5));
        ask(&f, neighbour(100), &rate, 1);
        f.now += length - 1;
        assert_true(peek(&f, neighbour(200), &slow).overflowed);
        f.now += 1 + length / 100;
        assert_false(ask(&f, neighbour(200), &slow, 1).overflowed);
        tear_down(&f);
    }
}

static void slot_is_kept_until_its_block_ends(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate slow = {1, 1000 * SECOND, 1, 0}, blocking = {1, SECOND, 1, 60 * SECOND};
    set_up(&f, 64);
    fill(&f, &slow);
    reset(&f, neighbour(5));
    ask(&f, neighbour(100), &blocking, 1);
    ask(&f, neighbour(100), &blocking, 1);
    f.now += 60 * SECOND - 1;
    assert_true(peek(&f, neighbour(200), &slow).overflowed);
    assert_int_equal(peek(&f, neighbour(100), &blocking).decision.blocked_for, 1);
    f.now += 1;
    assert_false(ask(&f, neighbour(300), &slow, 1).overflowed);
    tear_down(&f);
}

/* A slot counts its keys in 13 bits. */
static void slot_serves_thousands_of_keys_one_after_another(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate slow = {1, 1000 * SECOND, 1, 0};
    set_up(&f, 64);
    fill(&f, &slow);
    for (uint64_t tag = 100; tag < 20100; tag++) {
        reset(&f, neighbour(tag == 100 ? 5 : tag - 1));
        assert_false(ask(&f, neighbour(tag), &slow, 1).overflowed);
        assert_false(ask(&f, neighbour(tag), &slow, 1).decision.success);
    }
    assert_true(ask(&f, neighbour(99), &slow, 1).overflowed);
    tear_down(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_without_a_slot_share_one_bucket),
        cmocka_unit_test(shared_bucket_blocks_all_its_keys),
        cmocka_unit_test(limits_of_different_rates_have_different_shared_buckets),
        cmocka_unit_test(limits_of_one_rate_share_a_bucket),
        cmocka_unit_test(limit_without_a_shared_bucket_is_denied_until_one_is_free),
        cmocka_unit_test(any_mix_of_limits_allows_no_more_than_each_alone),
        cmocka_unit_test(drain_succeeds_and_leaves_the_shared_bucket_alone),
        cmocka_unit_test(new_bucket_begins_with_the_state_of_the_shared_one),
        cmocka_unit_test(new_bucket_over_its_capacity_is_blocked_alone),
        cmocka_unit_test(new_bucket_after_a_reset_or_drain_is_empty),
        cmocka_unit_test(clock_behind_the_shared_bucket_is_reported),
        cmocka_unit_test(drained_slot_goes_to_another_key),
        cmocka_unit_test(slot_is_kept_until_its_bucket_has_drained),
        cmocka_unit_test(slot_is_kept_until_its_block_ends),
        cmocka_unit_test(slot_serves_thousands_of_keys_one_after_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
