/* SPDX-License-Identifier: MIT
 * The table in one thread and virtual time: a key in its own slot gets the decisions of a single bucket, and any bytes
 * do no harm. */
#include "table_rig.h"

/* ---- One key ---- */

static const struct steady__rate rates[] = {
    {10, 5 * SECOND, 1, 0}, {3, 1000, 1, 20000}, {100, SECOND, 7, 0}, {2147483647, 4000000, 1000000, 0}, {1, 1, 1, 5}};

static void table_decides_like_a_single_bucket(void **state) {
    (void)state;
    struct fixture f;
    set_up(&f, 64);
    for (uint64_t life = 0; life < 500; life++) {
        const struct steady__rate *rate = &rates[life % 5];
        const struct steady__hash hash = {{random64(), random64()}};
        struct steady__bucket alone = {0};
        for (int i = 0; i < 100; i++) {
            struct steady__decision expected;
            const int64_t amount = (int64_t)(random64() % 12) - 3;
            f.now += (int64_t)(random64() % (uint64_t)(2 * rate->recharge));
            struct steady__answer answer = peek(&f, hash, rate);
            steady__bucket_peek(&alone, rate, f.now, &expected);
            assert_answers(&answer.decision, &expected);
            answer = ask(&f, hash, rate, amount);
            steady__bucket_consume(&alone, rate, f.now, amount, &expected);
            assert_answers(&answer.decision, &expected);
        }
        reset(&f, hash);
        assert_int_equal(peek(&f, hash, rate).decision.level, 0);
        assert_int_equal(peek(&f, hash, rate).decision.blocked_for, 0);
    }
    tear_down(&f);
}

/* A bucket as Redis keeps it: forgotten when it has drained under the limit of its last write. */
struct expiring {
    struct steady__bucket bucket;
    int64_t gone_at;
    int64_t slack; /* a slot may keep the bucket for so much longer */
};

static void expire(struct expiring *e, int64_t *now) {
    if (*now < e->gone_at) return;
    *now = *now > e->gone_at + e->slack ? *now : e->gone_at + e->slack;
    memset(e, 0, sizeof *e);
}

static struct steady__decision consume_expiring(struct expiring *e, const struct steady__rate *rate, int64_t now,
                                                int64_t amount) {
    struct steady__decision d;
    steady__bucket_consume(&e->bucket, rate, now, amount, &d);
    if (d.changed) {
        e->gone_at = now + d.busy_for;
        e->slack = d.busy_for == 0 ? 0 : (e->gone_at - e->bucket.last) / 64 + 1;
    }
    return d;
}

/* The limit changes all the time. As on Redis, a denied decision of a limit without a block writes nothing. */
static void table_forgets_a_bucket_when_redis_does(void **state) {
    (void)state;
    static const struct steady__rate limits[] = {{10, 1000, 1, 0},         {10, 3600 * SECOND, 1, 0},
                                                 {5, 20000, 7, 3000},      {5, 60 * SECOND, 1, 90 * SECOND},
                                                 {20, SECOND, 1000, 5000}, {3, 10 * SECOND, 1, SECOND}};
    struct fixture f;
    set_up(&f, 64);
    for (uint64_t life = 0; life < 3000; life++) {
        const struct steady__hash hash = {{random64(), random64()}};
        struct expiring e = {.gone_at = INT64_MAX};
        for (int i = 0; i < 20; i++) {
            struct steady__decision expected;
            const struct steady__rate *limit = &limits[random64() % 6];
            const int64_t amount = (int64_t)(random64() % 9) - 1;
            f.now += (int64_t)(random64() % (uint64_t)(random64() % 3 == 0 ? 3 * limit->recharge : 3000));
            expire(&e, &f.now);
            struct steady__answer answer = peek(&f, hash, limit);
            steady__bucket_peek(&e.bucket, limit, f.now, &expected);
            assert_answers(&answer.decision, &expected);
            answer = ask(&f, hash, limit, amount);
            expected = consume_expiring(&e, limit, f.now, amount);
            assert_answers(&answer.decision, &expected);
        }
        reset(&f, hash);
    }
    tear_down(&f);
}

static void bucket_drained_under_one_limit_is_drained_under_all(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate fast = {10, 1000, 1, 0}, slow = {10, 36000 * SECOND, 1, 0};
    const struct steady__rate blocking = {10, 1000, 1, SECOND};
    set_up(&f, 64);
    for (uint64_t tag = 1; tag <= 2; tag++)
        ask(&f, neighbour(tag), &fast, 10);
    ask(&f, neighbour(2), &blocking, 1);
    f.now += 10 * 1000 - 1;
    assert_int_equal(peek(&f, neighbour(1), &slow).decision.level, 10);
    f.now += 1 + 100;
    assert_int_equal(peek(&f, neighbour(1), &slow).decision.level, 0);
    assert_int_equal(ask(&f, neighbour(1), &slow, 1).decision.level, 1);
    assert_false(ask(&f, neighbour(2), &slow, 1).decision.success);
    f.now += SECOND;
    assert_int_equal(ask(&f, neighbour(2), &slow, 1).decision.level, 1);
    tear_down(&f);
}

static void clock_behind_the_bucket_is_reported_before_it_is_used(void **state) {
    (void)state;
    struct fixture f;
    struct steady__answer answer;
    const struct steady__rate rate = {2, 10 * SECOND, 1, 60 * SECOND};
    set_up(&f, 64);
    ask(&f, neighbour(1), &rate, 2);
    ask(&f, neighbour(1), &rate, 1);
    struct steady__ask a = {.place = steady__table_place(&f.table, neighbour(1)), .rate = &rate, .amount = 1};
    for (int peeking = 0; peeking < 2; peeking++) {
        a.now = START - SECOND;
        a.peek = peeking;
        assert_false(steady__table_decide(&a, &answer));
        assert_int_equal(answer.ahead, START);
    }
    a.peek = false;
    a.stepped = true;
    assert_true(steady__table_decide(&a, &answer));
    assert_true(answer.decision.stepped);
    assert_int_equal(answer.decision.blocked_for, 60 * SECOND);
    assert_int_equal(answer.decision.until_next_drop, 10 * SECOND);
    f.now = START - SECOND;
    assert_int_equal(peek(&f, neighbour(1), &rate).decision.blocked_for, 60 * SECOND);
    tear_down(&f);
}

/* The block was over when the clock was set back, and does not begin again. */
static void clock_set_back_does_not_revive_a_finished_block(void **state) {
    (void)state;
    struct fixture f;
    struct steady__answer answer;
    const struct steady__rate rate = {2, 100 * SECOND, 1, SECOND};
    set_up(&f, 64);
    ask(&f, neighbour(1), &rate, 2);
    ask(&f, neighbour(1), &rate, 1);
    f.now += 150 * SECOND;
    ask(&f, neighbour(1), &rate, 1);
    struct steady__ask a = {.place = steady__table_place(&f.table, neighbour(1)),
                            .rate = &rate,
                            .amount = -1,
                            .now = START,
                            .stepped = true};
    assert_true(steady__table_decide(&a, &answer));
    assert_int_equal(answer.decision.blocked_for, 0);
    assert_int_equal(answer.decision.level, 1);
    f.now = START;
    assert_int_equal(peek(&f, neighbour(1), &rate).decision.blocked_for, 0);
    tear_down(&f);
}

static void times_beyond_the_last_are_the_last(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate rate = {1, SECOND, 1, ((int64_t)1 << 52) - 1};
    set_up(&f, 64);
    ask(&f, neighbour(1), &rate, 1);
    assert_int_equal(ask(&f, neighbour(1), &rate, 1).decision.blocked_for, STEADY__TIME_MAX - START);
    assert_int_equal(peek(&f, neighbour(1), &rate).decision.blocked_for, STEADY__TIME_MAX - START);
    f.now = INT64_MAX;
    assert_true(ask(&f, neighbour(1), &rate, 1).decision.success);
    assert_false(ask(&f, neighbour(1), &rate, 1).decision.success);
    reset(&f, neighbour(1));
    assert_true(ask(&f, neighbour(1), &rate, 1).decision.success);
    tear_down(&f);
}

static void decision_without_an_effect_writes_nothing(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate rate = {5, SECOND, 1, 0};
    set_up(&f, 64);
    const size_t size = steady__table_bytes(64);
    unsigned char *before = malloc(size);
    assert_non_null(before);
    for (uint64_t filled = 0; filled < 2; filled++) {
        if (filled) ask(&f, neighbour(1), &rate, 5);
        memcpy(before, f.bytes, size);
        for (uint64_t tag = 1; tag <= 2; tag++) {
            peek(&f, neighbour(tag), &rate);
            ask(&f, neighbour(tag), &rate, 0);
            assert_int_equal(ask(&f, neighbour(tag), &rate, 6).decision.retry_after, -1);
        }
        ask(&f, neighbour(2), &rate, -1);
        reset(&f, neighbour(2));
        assert_memory_equal(before, f.bytes, size);
    }
    free(before);
    tear_down(&f);
}

/* ---- Many keys ---- */

static void table_has_room_for_its_number_of_keys(void **state) {
    (void)state;
    const struct steady__rate rate = {1, SECOND, 1, 0};
    static const uint32_t sizes[] = {64, 1024, 65536};
    for (size_t i = 0; i < 3; i++) {
        struct fixture f;
        set_up(&f, sizes[i]);
        for (int pass = 0; pass < 2; pass++) {
            random_state = i;
            for (uint32_t key = 0; key < sizes[i]; key++) {
                const struct steady__hash hash = {{random64(), random64()}};
                const struct steady__answer answer = ask(&f, hash, &rate, 1);
                assert_false(answer.overflowed);
                assert_int_equal(answer.decision.success, pass == 0);
            }
        }
        tear_down(&f);
    }
}

static void key_whose_two_groups_coincide_has_one_bucket(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate rate = {1, SECOND, 1, 0};
    set_up(&f, 64);
    for (uint64_t group = 0; group < 2; group++)
        for (uint64_t tag = 1; tag <= NEIGHBOURS; tag++) {
            const struct steady__hash hash = {{group * UINT64_MAX, tag}};
            assert_false(ask(&f, hash, &rate, 1).overflowed);
            assert_false(ask(&f, hash, &rate, 1).decision.success);
        }
    tear_down(&f);
}

static void key_with_a_tag_of_zero_has_a_bucket(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate rate = {1, SECOND, 1, 0};
    set_up(&f, 64);
    assert_true(ask(&f, neighbour(0), &rate, 1).decision.success);
    for (uint64_t tag = 8; tag < 8 + NEIGHBOURS; tag++)
        ask(&f, neighbour(tag), &rate, 1);
    assert_int_equal(peek(&f, neighbour(0), &rate).decision.level, 1);
    tear_down(&f);
}

/* ---- Rubbish ---- */

static void assert_sane(const struct steady__decision *d, const struct steady__rate *rate) {
    assert_true(d->level >= 0 && d->level <= INT32_MAX);
    assert_true(d->until_next_drop >= 0 && d->until_next_drop <= rate->recharge);
    assert_true(d->blocked_for >= 0 && d->blocked_for <= STEADY__TIME_MAX);
    assert_true(d->retry_after >= -1);
}

static void ask_rubbish(struct fixture *f, struct steady__hash hash, const struct steady__rate *rate) {
    struct steady__answer answer;
    struct steady__ask a = {.place = steady__table_place(&f->table, hash),
                            .rate = rate,
                            .peek = random64() % 4 == 0,
                            .amount = (int64_t)(random64() % 7) - 2,
                            .now = f->now++};
    while (!steady__table_decide(&a, &answer)) {
        assert_true(answer.ahead > a.now);
        a.stepped = true;
    }
    assert_sane(&answer.decision, rate);
    if (random64() % 16 == 0) steady__table_reset(&a.place, a.now);
}

static void make_rubbish(unsigned char *bytes, size_t size, int kind) {
    memset(bytes, kind == 1 ? 0xff : 0, size);
    for (size_t i = 0; i < size && kind != 1; i++)
        if (kind == 0 || random64() % 64 == 0) bytes[i] = (unsigned char)random64();
}

/* A state of another generation than the identity's is not a bucket, whatever its time. */
static void slot_with_the_state_of_another_generation_is_free(void **state) {
    (void)state;
    struct fixture f;
    const struct steady__rate rate = {1, SECOND, 1, 0};
    set_up(&f, 64);
    uint64_t *words = f.bytes;
    for (size_t i = 0; i < steady__table_bytes(64) / sizeof *words; i += 4) {
        words[i + 1] = 5;
        words[i + 2] = (uint64_t)STEADY__TIME_MAX << 14 | 9;
    }
    fill(&f, &rate);
    tear_down(&f);
}

/* Every key asks twice. Half of the keys have tags from the rubbish. */
static void any_bytes_give_numbers_in_range(void **state) {
    (void)state;
    struct fixture f;
    const size_t size = steady__table_bytes(64);
    set_up(&f, 64);
    for (int round = 0; round < 2000; round++) {
        random_state = (uint64_t)round;
        make_rubbish(f.bytes, size, round % 3);
        for (int i = 0; i < 40; i++) {
            struct steady__hash hash = {{random64(), random64()}};
            if (i % 2) memcpy(hash.word, (unsigned char *)f.bytes + random64() % (size / 32) * 32, 8);
            ask_rubbish(&f, hash, &rates[random64() % 5]);
            ask_rubbish(&f, hash, &rates[random64() % 5]);
        }
    }
    tear_down(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_decides_like_a_single_bucket),
        cmocka_unit_test(table_forgets_a_bucket_when_redis_does),
        cmocka_unit_test(bucket_drained_under_one_limit_is_drained_under_all),
        cmocka_unit_test(clock_behind_the_bucket_is_reported_before_it_is_used),
        cmocka_unit_test(clock_set_back_does_not_revive_a_finished_block),
        cmocka_unit_test(times_beyond_the_last_are_the_last),
        cmocka_unit_test(decision_without_an_effect_writes_nothing),
        cmocka_unit_test(table_has_room_for_its_number_of_keys),
        cmocka_unit_test(key_whose_two_groups_coincide_has_one_bucket),
        cmocka_unit_test(key_with_a_tag_of_zero_has_a_bucket),
        cmocka_unit_test(slot_with_the_state_of_another_generation_is_free),
        cmocka_unit_test(any_bytes_give_numbers_in_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
