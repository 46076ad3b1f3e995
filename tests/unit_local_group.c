/* SPDX-License-Identifier: MIT
 * Calls with a group on the table of the embedded store, in one thread and virtual time: they agree with the vectors,
 * and with a full neighbourhood they stay on the safe side. */
#include <jansson.h>
#include <stdio.h>

#include "group_rig.h"
#include "table_rig.h"

#define VECTORS "tests/vectors/limits.jsonl"

/* ---- Vectors ---- */

/* The vectors begin at a time of day, and the clock of the table is younger. */
#define BEGINNING ((int64_t)1 << 49)

static struct {
    int64_t earlier; /* us by which all times of the sequence are shifted */
    struct fixture f;
    int sequence, step;
} run;

static const char *const keys[MEMBERS] = {"a", "b", "c", "d", "e", "f", "g", "h"};

static int64_t number(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_boolean(value) ? json_is_true(value) : json_integer_value(value);
}

static int64_t number_at(const json_t *array, size_t i) {
    const json_t *value = json_array_get(array, i);
    return json_is_boolean(value) ? json_is_true(value) : json_integer_value(value);
}

static void same(const char *what, int64_t got, int64_t expected) {
    if (got != expected)
        fail_msg("sequence %d, step %d: %s is %lld, expected %lld", run.sequence, run.step, what, (long long)got,
                 (long long)expected);
}

static struct steady__rate rate_of(const json_t *limit) {
    return (struct steady__rate){number_at(limit, 0), number_at(limit, 1), number_at(limit, 2), number_at(limit, 3)};
}

static enum steady__kind kind_of(const char *text) {
    static const char *const names[STEADY__KINDS] = {"take", "look", "charge", "shadow"};
    for (int i = 0; i < STEADY__KINDS; i++)
        if (strcmp(text, names[i]) == 0) return (enum steady__kind)i;
    fail();
    return STEADY__TAKE;
}

static void check_members(const struct group_call *c, const json_t *expect) {
    for (size_t i = 0; i < c->call.group->n; i++) {
        const steady_part_result *r = &c->call.group->results[i];
        const json_t *each = json_array_get(json_object_get(expect, "each"), i);
        same("success of a part", r->success, number_at(each, 0));
        same("level of a part", r->level, number_at(each, 1));
        same("until_next_drop of a part", r->until_next_drop, number_at(each, 2));
        same("blocked_for of a part", r->blocked_for, number_at(each, 3));
        same("retry_after of a part", r->retry_after, number_at(each, 4));
        same("granted of a part", r->granted, number_at(json_object_get(expect, "granted"), i));
        same("moment of a part", c->call.group->members[i].moment, group_now);
    }
}

static void run_consume(const json_t *step) {
    const json_t *parts = json_object_get(step, "parts"), *expect = json_object_get(step, "expect");
    const bool peek = strcmp(json_string_value(json_object_get(step, "op")), "peek") == 0;
    const struct steady__how how = {.max_wait = number(step, "max_wait"), .at_least = number(step, "at_least")};
    struct group_call c;
    group_begin(&c, peek ? STEADY__PEEK_ALL : STEADY__CONSUME_ALL, &how);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        group_take(&c, keys[i], rate_of(json_array_get(part, 0)), number_at(part, 1),
                   kind_of(json_string_value(json_array_get(part, 2))));
    }
    group_run(&c, &run.f.table);
    check_members(&c, expect);
    const steady_part_result *named = &c.call.group->results[c.result.part];
    same("success", c.result.success, number(expect, "success"));
    same("part", (int64_t)c.result.part, number(expect, "part"));
    same("wait", c.result.must_wait, number(expect, "wait"));
    same("retry_after", c.result.retry_after, number(expect, "retry_after"));
    same("level", c.result.level, named->level);
    same("granted", c.result.granted, named->granted);
    same("atomic", c.result.atomic, json_array_size(parts) == 1);
    same("n_parts", (int64_t)c.result.n_parts, (int64_t)json_array_size(parts));
    group_end(&c);
}

static void run_settle(const json_t *step) {
    const json_t *expect = json_object_get(step, "expect");
    struct group_call c;
    group_begin(&c, STEADY__SETTLE, NULL);
    struct steady__settlement *s =
        &group_add(&c, keys[number(step, "bucket")], rate_of(json_object_get(step, "limit")))->settlement;
    s->reserved = number(step, "reserved");
    s->moment = number(step, "moment") - run.earlier;
    s->actual = number(step, "actual");
    s->same_rate = number(step, "same_rate");
    group_run(&c, &run.f.table);
    const steady_part_result *r = &c.call.group->results[0];
    same("success", c.result.success, true);
    same("level", r->level, number(expect, "level"));
    same("until_next_drop", r->until_next_drop, number(expect, "until_next_drop"));
    same("blocked_for", r->blocked_for, number(expect, "blocked_for"));
    same("given_back", r->given_back, number(expect, "given_back"));
    same("charged", r->charged, number(expect, "charged"));
    group_end(&c);
}

/* The bucket as it is in its slot; all zero if it is empty and not blocked. */
static struct steady__bucket stored(size_t i, const struct steady__rate *rate) {
    static const unsigned char key[STEADY__SIPHASH_KEY];
    struct steady__errand read = {.task = STEADY__READ};
    struct steady__answer answer;
    struct steady__decision d;
    struct steady__ask a = {.place = steady__table_place(&run.f.table, steady__siphash(key, keys[i], 1)),
                            .rate = rate,
                            .stepped = true,
                            .errand = &read,
                            .now = group_now};
    assert_true(steady__table_decide(&a, &answer));
    steady__bucket_peek(&read.bucket, rate, group_now, &d);
    return d.busy_for > 0 ? read.bucket : (struct steady__bucket){0};
}

static void check_stored(const json_t *step) {
    const json_t *all = json_object_get(step, "stored"), *parts = json_object_get(step, "parts");
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *expected = json_array_get(all, i);
        const json_t *limit = parts != NULL ? json_array_get(json_array_get(parts, i), 0) : NULL;
        if (limit == NULL && (int64_t)i == number(step, "bucket")) limit = json_object_get(step, "limit");
        if (limit == NULL) continue;
        const struct steady__rate rate = rate_of(limit);
        const struct steady__bucket b = stored(i, &rate);
        const bool there = json_is_array(expected);
        const int64_t blocked_until = there ? number_at(expected, 3) : 0;
        same("stored level", b.level, there ? number_at(expected, 0) : 0);
        same("stored last", b.last, there ? number_at(expected, 1) - run.earlier : 0);
        same("stored rem", b.rem, there ? number_at(expected, 2) : 0);
        same("stored blocked_until", b.blocked_until, blocked_until != 0 ? blocked_until - run.earlier : 0);
    }
}

/* A block of this step ends after the last time of the table, which cuts it. */
static bool is_cut(const json_t *step) {
    const json_t *each = json_object_get(json_object_get(step, "expect"), "each");
    for (size_t i = 0; i < json_array_size(each); i++)
        if (number_at(json_array_get(each, i), 3) > STEADY__TIME_MAX - group_now) return true;
    return false;
}

/* Returns the number of steps that agree. */
static int run_sequence(const json_t *steps) {
    int64_t first = INT64_MAX;
    for (size_t i = 0; i < json_array_size(steps); i++)
        if (number(json_array_get(steps, i), "now") < first) first = number(json_array_get(steps, i), "now");
    run.earlier = first - BEGINNING;
    set_up(&run.f, 64);
    for (run.step = 0; run.step < (int)json_array_size(steps); run.step++) {
        const json_t *step = json_array_get(steps, (size_t)run.step);
        group_now = number(step, "now") - run.earlier;
        if (is_cut(step)) break;
        if (json_object_get(step, "parts") != NULL)
            run_consume(step);
        else
            run_settle(step);
        check_stored(step);
    }
    tear_down(&run.f);
    return run.step;
}

static void table_agrees_with_the_vectors(void **state) {
    (void)state;
    FILE *file = fopen(VECTORS, "r");
    char *line = NULL;
    size_t room = 0;
    int agreed = 0;
    if (file == NULL) skip_because("started in another folder: " VECTORS " is not there");
    while (getline(&line, &room, file) > 0) {
        json_t *sequence = json_loads(line, 0, NULL);
        assert_non_null(sequence);
        run.sequence = (int)number(sequence, "sequence");
        agreed += run_sequence(json_object_get(sequence, "steps"));
        json_decref(sequence);
    }
    free(line);
    fclose(file);
    print_message("# %d steps agree\n", agreed);
    assert_true(agreed > 6000);
}

/* ---- What a call meets ---- */

static void call_counts_buckets_ahead_of_the_clock_and_new_slots(void **state) {
    (void)state;
    const struct steady__rate rate = {5, 3600 * SECOND, 1, 0};
    struct fixture f;
    struct group_call c;
    set_up(&f, 64);
    for (int times = 0; times < 3; times++) {
        group_now = f.now - times * SECOND;
        group_begin(&c, times == 2 ? STEADY__SETTLE : STEADY__CONSUME_ALL, NULL);
        for (size_t i = 0; i < 2; i++) {
            group_take(&c, keys[i], rate, 1, STEADY__TAKE);
            c.call.group->members[i].settlement.actual = 1;
        }
        group_run(&c, &f.table);
        assert_true(c.result.success);
        assert_int_equal(c.site.grew, times == 0 ? 2 : 0);
        assert_int_equal(c.site.stepped, times == 0 ? 0 : 2);
        assert_false(c.site.overflowed);
        assert_int_equal(c.call.group->results[1].level, times + 1);
        group_end(&c);
    }
    group_now = f.now - 10 * SECOND;
    group_begin(&c, STEADY__CONSUME_ALL, NULL);
    group_take(&c, keys[0], rate, 1, STEADY__TAKE);
    group_run(&c, &f.table);
    assert_int_equal(c.site.stepped, 1);
    group_end(&c);
    tear_down(&f);
}

static void block_of_a_member_ends_at_the_last_time_of_the_table(void **state) {
    (void)state;
    const struct steady__rate rate = {1, 1000, 1, STEADY__BLOCK_LIMIT - 1};
    struct fixture f;
    set_up(&f, 64);
    group_now = STEADY__TIME_MAX - 10;
    for (size_t n = 1; n <= 2; n++) {
        struct group_call c;
        group_begin(&c, STEADY__CONSUME_ALL, NULL);
        for (size_t i = 0; i < n; i++)
            group_take(&c, keys[i], rate, 1, STEADY__CHARGE);
        group_run(&c, &f.table);
        for (size_t i = 0; i < n; i++)
            c.call.group->members[i].part.kind = STEADY__TAKE;
        group_run(&c, &f.table);
        assert_false(c.result.success);
        assert_int_equal(c.result.blocked_for, 10);
        group_end(&c);
    }
    tear_down(&f);
}

/* ---- Reset ---- */

static void reset_empties_all_buckets_of_a_call(void **state) {
    (void)state;
    const struct steady__rate rate = {5, 3600 * SECOND, 1, 600 * SECOND};
    struct fixture f;
    set_up(&f, 64);
    group_now = f.now;
    for (size_t n = 1; n <= 2; n++) {
        struct group_call c;
        for (int times = 0; times < 2; times++) {
            group_begin(&c, STEADY__CONSUME_ALL, NULL);
            for (size_t i = 0; i < n; i++)
                group_take(&c, keys[i], rate, 3, STEADY__TAKE);
            group_run(&c, &f.table);
            assert_int_equal(c.result.success, times == 0);
            group_end(&c);
        }
        group_begin(&c, STEADY__RESET_ALL, NULL);
        for (size_t i = 0; i < n; i++)
            group_take(&c, keys[i], rate, 0, STEADY__TAKE);
        group_run(&c, &f.table);
        assert_true(c.result.success);
        assert_int_equal(c.result.atomic, n == 1);
        group_end(&c);
        group_begin(&c, STEADY__PEEK_ALL, NULL);
        for (size_t i = 0; i < n; i++)
            group_take(&c, keys[i], rate, 5, STEADY__TAKE);
        group_run(&c, &f.table);
        assert_true(c.result.success);
        group_end(&c);
    }
    tear_down(&f);
}

/* ---- No free slot ---- */

static const struct steady__rate login = {5, 3600 * SECOND, 1, 0}, page = {1000, 1000, 1, 0};
static const struct steady__rate strict_login = {5, 3600 * SECOND, 1, 600 * SECOND};
static const struct steady__rate strict_page = {1000, 1000, 1, SECOND};

/* Every slot has a key that stays for 2^38 us. The overflow buckets are empty. 64 buckets have one, 512 have twelve. */
static void set_up_full(struct fixture *f, uint32_t buckets) {
    set_up(f, buckets);
    group_now = f->now;
    uint64_t *word = f->bytes;
    for (uint64_t i = 0; i < (uint64_t)f->table.groups * STEADY__GROUP_SLOTS; i++, word += 4) {
        word[0] = i + 1;
        word[2] = (uint64_t)f->now << 14;
        word[3] = (uint64_t)1 << 33 | 32 << 7;
    }
}

static void empty_all_slots(struct fixture *f) {
    memset(f->bytes, 0, (size_t)f->table.groups * STEADY__GROUP_SLOTS * STEADY__SLOT_SIZE);
}

static steady_part_result take_one(struct fixture *f, const char *key, struct steady__rate rate, int64_t amount,
                                   enum steady__kind kind) {
    struct group_call c;
    group_begin(&c, STEADY__CONSUME_ALL, NULL);
    group_take(&c, key, rate, amount, kind);
    group_run(&c, &f->table);
    assert_true(c.result.atomic);
    assert_int_equal(c.result.success, c.call.group->results[0].success || kind == STEADY__SHADOW);
    const steady_part_result result = c.call.group->results[0];
    group_end(&c);
    return result;
}

static steady_part_result settle_one(struct fixture *f, const char *key, struct steady__rate rate, int64_t reserved,
                                     int64_t actual) {
    struct group_call c;
    group_begin(&c, STEADY__SETTLE, NULL);
    struct steady__settlement *s = &group_add(&c, key, rate)->settlement;
    s->reserved = reserved;
    s->actual = actual;
    s->moment = group_now;
    s->same_rate = true;
    group_run(&c, &f->table);
    const steady_part_result result = c.call.group->results[0];
    group_end(&c);
    return result;
}

static void settlement_gives_back_nothing_from_a_shared_bucket(void **state) {
    (void)state;
    struct fixture f;
    set_up_full(&f, 512);
    assert_int_equal(take_one(&f, "x", login, 3, STEADY__TAKE).level, 3);
    steady_part_result r = settle_one(&f, "x", login, 3, 1);
    assert_int_equal(r.given_back, 0);
    assert_int_equal(r.level, 3);
    r = settle_one(&f, "x", login, 3, 5);
    assert_int_equal(r.charged, 2);
    assert_int_equal(r.level, 5);
    assert_false(take_one(&f, "y", login, 1, STEADY__TAKE).success);
    tear_down(&f);
}

/* The copy holds the drops of all keys. Once the key has a bucket of its own, that bucket gives back. */
static void settlement_gives_back_nothing_from_a_copy_of_a_shared_bucket(void **state) {
    (void)state;
    struct fixture f;
    set_up_full(&f, 512);
    take_one(&f, "x", login, 3, STEADY__TAKE);
    empty_all_slots(&f);
    steady_part_result r = settle_one(&f, "x", login, 3, 0);
    assert_int_equal(r.given_back, 0);
    assert_int_equal(r.level, 3);
    assert_int_equal(take_one(&f, "x", login, 1, STEADY__TAKE).level, 4);
    r = settle_one(&f, "x", login, 1, 0);
    assert_int_equal(r.given_back, login.recharge);
    assert_int_equal(r.level, 3);
    tear_down(&f);
}

static void drain_of_a_member_leaves_the_shared_bucket_alone(void **state) {
    (void)state;
    struct fixture f;
    set_up_full(&f, 512);
    take_one(&f, "x", login, 5, STEADY__TAKE);
    steady_part_result r = take_one(&f, "x", login, -2, STEADY__TAKE);
    assert_true(r.success);
    assert_int_equal(r.granted, 0);
    assert_int_equal(r.level, 5);
    assert_int_equal(r.retry_after, 0);
    assert_int_equal(take_one(&f, "x", strict_login, 1, STEADY__TAKE).blocked_for, 600 * SECOND);
    r = take_one(&f, "x", login, -2, STEADY__TAKE);
    assert_true(r.success && r.blocked_for > 0);
    struct group_call c;
    group_begin(&c, STEADY__CONSUME_ALL, NULL);
    group_take(&c, "x", login, -2, STEADY__TAKE);
    group_take(&c, "y", page, 2, STEADY__TAKE);
    group_run(&c, &f.table);
    assert_true(c.result.success && c.site.overflowed);
    assert_int_equal(c.call.group->results[0].granted, 0);
    assert_int_equal(c.call.group->results[0].level, 5);
    assert_int_equal(c.call.group->results[1].level, 2);
    group_end(&c);
    tear_down(&f);
}

static int64_t refused_for(const struct fixture *f) { return 5 * login.recharge + START - f->now; }

static void assert_refused(const steady_part_result *r, const struct fixture *f, int64_t retry_after) {
    assert_int_equal(r->level, 1000);
    assert_int_equal(r->blocked_for, 0);
    assert_int_equal(r->granted, 0);
    assert_between(r->until_next_drop, refused_for(f), refused_for(f) + refused_for(f) / 100);
    assert_int_equal(r->retry_after, retry_after > 0 ? r->until_next_drop : retry_after);
}

/* The only overflow bucket has another rate. */
static void key_without_a_bucket_denies_a_vote_and_gets_no_charge(void **state) {
    (void)state;
    struct fixture f;
    set_up_full(&f, 64);
    take_one(&f, "x", login, 5, STEADY__TAKE);
    for (enum steady__kind kind = STEADY__TAKE; kind < STEADY__KINDS; kind++) {
        const bool allows = kind == STEADY__CHARGE;
        const steady_part_result alone = take_one(&f, "y", strict_page, 1, kind);
        assert_int_equal(alone.success, allows);
        assert_refused(&alone, &f, !allows);
        struct group_call c;
        group_begin(&c, STEADY__CONSUME_ALL, NULL);
        group_take(&c, "x", login, -1, STEADY__TAKE);
        group_take(&c, "y", strict_page, 1, kind);
        group_run(&c, &f.table);
        assert_int_equal(c.result.success, kind == STEADY__CHARGE || kind == STEADY__SHADOW);
        assert_refused(&c.call.group->results[1], &f, !allows);
        if (!c.result.success) assert_int_equal(c.result.part, 1);
        if (!c.result.success) assert_int_equal(c.result.retry_after, alone.retry_after);
        group_end(&c);
    }
    const steady_part_result never = take_one(&f, "y", page, 1001, STEADY__TAKE);
    assert_refused(&never, &f, -1);
    const steady_part_result drain = take_one(&f, "y", page, -1, STEADY__TAKE);
    assert_true(drain.success);
    assert_refused(&drain, &f, 0);
    const steady_part_result settled = settle_one(&f, "y", page, 1, 5);
    assert_int_equal(settled.charged, 0);
    assert_refused(&settled, &f, 0);
    tear_down(&f);
}

/* The overflow bucket is free before the amount would fit into a full bucket. */
static void key_without_a_bucket_is_denied_until_one_is_free(void **state) {
    (void)state;
    const struct steady__rate brief = {5, 1000, 1, 0}, slow = {1000, SECOND, 1, 0};
    struct fixture f;
    set_up_full(&f, 64);
    take_one(&f, "x", brief, 5, STEADY__TAKE);
    for (int peek = 0; peek < 2; peek++) {
        struct group_call c;
        group_begin(&c, peek ? STEADY__PEEK_ALL : STEADY__CONSUME_ALL, NULL);
        group_take(&c, "y", slow, 1000, STEADY__TAKE);
        group_take(&c, "z", slow, 1, STEADY__CHARGE);
        group_run(&c, &f.table);
        assert_false(c.result.success);
        assert_between(c.result.retry_after, 5000, 5050);
        assert_int_equal(c.result.level, 1000);
        assert_int_equal(c.result.blocked_for, 0);
        group_end(&c);
    }
    group_now += 5050;
    assert_true(take_one(&f, "y", slow, 1000, STEADY__TAKE).success);
    tear_down(&f);
}

/* There is no bucket in which a place in line could be kept. */
static void key_without_a_bucket_has_no_line(void **state) {
    (void)state;
    struct fixture f;
    set_up_full(&f, 64);
    take_one(&f, "x", login, 5, STEADY__TAKE);
    for (size_t others = 0; others < 2; others++) {
        struct group_call c;
        group_begin(&c, STEADY__CONSUME_ALL, &(struct steady__how){.max_wait = STEADY__MAX_WAIT});
        group_take(&c, "y", page, 1, STEADY__TAKE);
        if (others > 0) group_take(&c, "x", login, 1, STEADY__TAKE);
        group_run(&c, &f.table);
        assert_false(c.result.success);
        assert_int_equal(c.result.part, 0);
        assert_refused(&c.call.group->results[0], &f, 1);
        group_end(&c);
    }
    assert_int_equal(take_one(&f, "x", login, 0, STEADY__TAKE).level, 5);
    tear_down(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_agrees_with_the_vectors),
        cmocka_unit_test(call_counts_buckets_ahead_of_the_clock_and_new_slots),
        cmocka_unit_test(block_of_a_member_ends_at_the_last_time_of_the_table),
        cmocka_unit_test(reset_empties_all_buckets_of_a_call),
        cmocka_unit_test(settlement_gives_back_nothing_from_a_shared_bucket),
        cmocka_unit_test(settlement_gives_back_nothing_from_a_copy_of_a_shared_bucket),
        cmocka_unit_test(drain_of_a_member_leaves_the_shared_bucket_alone),
        cmocka_unit_test(key_without_a_bucket_denies_a_vote_and_gets_no_charge),
        cmocka_unit_test(key_without_a_bucket_is_denied_until_one_is_free),
        cmocka_unit_test(key_without_a_bucket_has_no_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
