/* SPDX-License-Identifier: MIT
 * The rules of leases, one by one, with a clock of the test. For random histories see unit_leases_model.c. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "core/url.h"
#include "group.h"
#include "redis/leases.h"

#define MS STEADY_MILLISECOND
#define AGE (100 * MS)
#define GROUP 8 /* entries of a group of the table */
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* 1,600 drops: a take asks for 100 at most. A drop leaks in 500 us, so 100 drops leak in 50 ms. */
static const struct steady__rate rate = {1600, 500, 1, 0};

static steady_us now;
static struct steady__leases *leases;
static struct steady__lease_holder holder, another;
static struct steady__lease_look look;
static struct steady__lease_end end;
static int ticket;

static steady_us test_now(const struct steady__denials_world *world) {
    (void)world;
    return now;
}

/* The first letter is the group. */
static struct steady__hash test_hash(const struct steady__denials_world *world,
                                     const unsigned char key[STEADY__SIPHASH_KEY], const void *bytes, size_t len) {
    struct steady__hash hash = {{0, *(const unsigned char *)bytes}};
    (void)world;
    (void)key;
    memcpy(hash.word, bytes, len < sizeof hash.word[0] ? len : sizeof hash.word[0]);
    return hash;
}

static const struct steady__denials_world world = {test_now, test_hash};

static int set_up(void **state) {
    (void)state;
    now = 1000 * STEADY_SECOND;
    leases = steady__leases_new(AGE, &world);
    steady__list_init(&holder.leases);
    steady__list_init(&another.leases);
    return leases != NULL ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    steady__leases_release(leases);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static struct steady__hash name_of(const char *key) { return steady__leases_name(leases, key, strlen(key)); }

static enum steady__lease_answer ask_with(struct steady__lease_holder *by, const char *key,
                                          const struct steady__rate *at, int64_t amount) {
    steady__leases_ask(leases, by, name_of(key), at, amount, &look);
    return look.answer;
}

static enum steady__lease_answer ask_for(const char *key, int64_t amount) {
    return ask_with(&holder, key, &rate, amount);
}

static enum steady__lease_answer ask(const char *key) { return ask_for(key, 1); }

static enum steady__lease_answer spend(const char *key, int64_t amount) {
    struct steady__decision decision;
    return steady__leases_spend(leases, name_of(key), &rate, amount, &decision);
}

/* The take asks for what was used. It was sent `trip` ago. */
static bool grant_with(struct steady__lease_holder *by, const char *key, int64_t granted, int64_t amount,
                       steady_us trip) {
    const struct steady__lease_take take = {.ticket = &ticket,
                                            .granted = granted,
                                            .amount = amount,
                                            .sent = now - trip,
                                            .level = 700,
                                            .until_next_drop = 33};
    return steady__leases_granted(leases, by, name_of(key), &take);
}

static bool grant(const char *key, int64_t granted) { return grant_with(&holder, key, granted, 1, 0); }

static void use(const char *key, int uses) {
    for (int i = 0; i < uses; i++)
        assert_int_equal(ask(key), STEADY__LEASE_NONE);
}

/* The fourth use of the bucket takes `n` for itself and the three before it. */
static void start_take(struct steady__lease_holder *by, const char *key, int64_t n) {
    use(key, 2);
    assert_int_equal(ask_for(key, n - 3), STEADY__LEASE_NONE);
    assert_int_equal(ask_with(by, key, &rate, 1), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, n);
}

static void take(const char *key, int64_t n, int64_t granted) {
    start_take(&holder, key, n);
    assert_int_equal(grant(key, granted), granted > 1);
}

static size_t end_some(struct steady__lease_holder *of, bool all) {
    struct steady__lease_end ends[4];
    const size_t n = steady__leases_end(leases, of, all, ends, COUNT(ends));
    if (n > 0) end = ends[0];
    return n;
}

static void assert_end(const struct steady__lease_end *it, int64_t granted, int64_t spent, bool is_due) {
    assert_ptr_equal(it->ticket, &ticket);
    assert_int_equal(it->granted, granted);
    if (is_due) assert_int_equal(it->spent, spent);
    assert_int_equal(it->is_due, is_due);
}

/* ---- When a call takes, and how much ---- */

static void fourth_use_within_the_age_takes(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask("a"), STEADY__LEASE_NONE);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 4);
    assert_int_equal(ask("b"), STEADY__LEASE_NONE);
}

static void take_asks_for_what_was_used_in_the_last_age(void **state) {
    (void)state;
    assert_int_equal(ask_for("a", 7), STEADY__LEASE_NONE);
    assert_int_equal(ask_for("a", 20), STEADY__LEASE_NONE);
    assert_int_equal(ask_for("a", 11), STEADY__LEASE_NONE);
    now += AGE - 1;
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 39);
}

static void larger_one_of_two_windows_counts(void **state) {
    (void)state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask_for("a", 51), STEADY__LEASE_NONE); /* too many to take for */
    use("b", 3);
    now += 2 * AGE - 1; /* the second window has begun an age after the first one */
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 100);
    use("b", 3);
    assert_int_equal(ask("b"), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 4);
}

static void window_before_the_last_counts_no_more(void **state) {
    (void)state;
    for (int i = 0; i < 5; i++)
        ask_for("a", 60);
    now += 2 * AGE;
    assert_int_equal(ask("a"), STEADY__LEASE_NONE);
    now += AGE;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask("a"), STEADY__LEASE_NONE);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 4);
}

/* The windows follow each other without a gap: the second one begins at AGE, not at the first use after it. */
static void windows_have_no_gap(void **state) {
    (void)state;
    use("a", 3);
    now += 2 * AGE - 1;
    use("a", 3);
    now += 1; /* the third window begins */
    use("a", 3);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 4);
}

static void take_asks_for_a_sixteenth_of_the_capacity_at_most(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask_for("a", 400), STEADY__LEASE_NONE);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 1600 / 16);
    const struct steady__rate odd = {1615, 500, 1, 0};
    for (int i = 0; i < 3; i++)
        ask_with(&holder, "b", &odd, 400);
    assert_int_equal(ask_with(&holder, "b", &odd, 1), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 100);
}

static void call_for_over_half_of_a_lease_takes_none(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++)
        assert_int_equal(ask_for("a", 51), STEADY__LEASE_NONE);
    assert_int_equal(ask_for("a", 50), STEADY__LEASE_TAKE);
    const struct steady__rate small = {31, 500, 1, 0};
    for (int i = 0; i < 40; i++)
        assert_int_equal(ask_with(&holder, "b", &small, 1), STEADY__LEASE_NONE);
}

static void far_server_has_no_leases(void **state) {
    (void)state;
    take("a", 40, 40);
    now += AGE; /* it is too old */
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_ptr_equal(look.end.ticket, &ticket);
    assert_true(grant_with(&holder, "a", look.take, 1, AGE / 2 - 1));
    now += AGE;
    assert_int_equal(ask("a"), STEADY__LEASE_NONE); /* there were too few uses in the last age */
    use("a", 2);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_true(grant_with(&holder, "a", look.take, 1, AGE / 2));
    assert_int_equal(ask("a"), STEADY__LEASE_SPENT); /* this one is still spent */
    const steady_us pauses_until = now + 4 * AGE;
    while (now + 10 * MS < pauses_until) {
        now += 10 * MS;
        assert_int_not_equal(ask("a"), STEADY__LEASE_TAKE);
    }
    now = pauses_until - 1;
    assert_int_equal(ask("a"), STEADY__LEASE_NONE);
    now = pauses_until;
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
}

/* ---- While a take is in flight ---- */

static void calls_wait_for_the_take_of_their_loop(void **state) {
    (void)state;
    start_take(&holder, "a", 40);
    assert_int_equal(ask("a"), STEADY__LEASE_WAIT);
    assert_int_equal(ask_for("a", 40), STEADY__LEASE_WAIT);
    assert_int_equal(ask_for("a", 41), STEADY__LEASE_NONE); /* no lease could answer it */
    assert_int_equal(ask_with(&another, "a", &rate, 1), STEADY__LEASE_NONE);
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE);
}

static void call_that_waits_counts_as_a_use_only_later(void **state) {
    (void)state;
    use("a", 3);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    for (int i = 0; i < 20; i++)
        assert_int_equal(ask("a"), STEADY__LEASE_WAIT);
    assert_true(grant("a", 4));
    assert_int_equal(ask_for("a", 3), STEADY__LEASE_SPENT);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 8);
}

static void take_that_fails_counts_anew(void **state) {
    (void)state;
    start_take(&holder, "a", 30);
    steady__leases_failed(leases, name_of("a"));
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask("a"), STEADY__LEASE_NONE);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 4);
}

/* ---- Spending ---- */

static void lease_is_spent_drop_by_drop(void **state) {
    struct steady__decision decision;
    (void)state;
    take("a", 40, 40);
    assert_int_equal(steady__leases_spend(leases, name_of("a"), &rate, 30, &decision), STEADY__LEASE_SPENT);
    assert_true(decision.success);
    assert_int_equal(decision.level, 700);
    assert_int_equal(decision.until_next_drop, 33);
    assert_int_equal(decision.retry_after, 0);
    assert_int_equal(decision.blocked_for, 0);
    assert_int_equal(spend("a", 10), STEADY__LEASE_NONE);
    assert_int_equal(spend("b", 1), STEADY__LEASE_NONE);
    assert_int_equal(spend("a", 9), STEADY__LEASE_SPENT);
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE);
    assert_int_equal(end_some(&holder, false), 1);
    assert_end(&end, 40, 40, false);
}

static void lease_is_spent_until_its_age_after_the_sending(void **state) {
    (void)state;
    start_take(&holder, "a", 40);
    assert_true(grant_with(&holder, "a", 40, 1, 30 * MS));
    now += 70 * MS - 1;
    assert_int_equal(spend("a", 1), STEADY__LEASE_SPENT);
    now += 1;
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_end(&look.end, 40, 2, false); /* 40 drops have leaked within 20 ms */
}

static void lease_of_another_limit_is_not_spent(void **state) {
    const struct steady__rate others[] = {{1599, 500, 1, 0}, {1600, 501, 1, 0}, {1600, 500, 2, 0}};
    struct steady__decision decision;
    (void)state;
    take("a", 40, 40);
    for (size_t i = 0; i < COUNT(others); i++)
        assert_int_equal(steady__leases_spend(leases, name_of("a"), &others[i], 1, &decision), STEADY__LEASE_NONE);
    assert_int_equal(spend("a", 1), STEADY__LEASE_SPENT);
}

static void take_of_its_own_drops_only_is_no_lease(void **state) {
    (void)state;
    start_take(&holder, "a", 40);
    assert_false(grant_with(&holder, "a", 1, 1, 0));
    assert_int_equal(end_some(&holder, true), 0);
    assert_int_equal(steady__leases_due(leases, &holder), -1);
}

/* ---- A short take ---- */

static void short_take_denies_until_what_it_asked_for_has_leaked(void **state) {
    (void)state;
    take("a", 40, 1); /* 40 drops leak in 20 ms */
    assert_int_equal(ask("a"), STEADY__LEASE_SHORT);
    assert_false(look.decision.success);
    assert_int_equal(look.decision.level, 700);
    assert_int_equal(look.decision.retry_after, 20 * MS);
    assert_int_equal(ask_for("a", 40), STEADY__LEASE_SHORT);
    assert_int_equal(ask_for("a", 41), STEADY__LEASE_NONE);
    now += 20 * MS - 1;
    assert_int_equal(spend("a", 1), STEADY__LEASE_SHORT);
    now += 1;
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
}

static void short_take_denies_for_the_age_at_most(void **state) {
    const struct steady__rate slow = {1600, STEADY_SECOND, 1, 0};
    (void)state;
    for (int i = 0; i < 3; i++)
        ask_with(&holder, "a", &slow, 1);
    assert_int_equal(ask_with(&holder, "a", &slow, 1), STEADY__LEASE_TAKE);
    assert_false(grant_with(&holder, "a", 0, 1, 30 * MS)); /* counted from the sending */
    assert_int_equal(ask_with(&holder, "a", &slow, 1), STEADY__LEASE_SHORT);
    assert_int_equal(look.decision.retry_after, 70 * MS);
    now += 70 * MS - 1;
    assert_int_equal(ask_with(&holder, "a", &slow, 1), STEADY__LEASE_SHORT);
    now += 1;
    assert_int_not_equal(ask_with(&holder, "a", &slow, 1), STEADY__LEASE_SHORT);
}

static void blocked_bucket_is_asked_and_has_no_lease(void **state) {
    (void)state;
    start_take(&holder, "a", 40);
    const struct steady__lease_take none = {.ticket = &ticket, .amount = 1, .sent = now, .is_blocked = true};
    assert_false(steady__leases_granted(leases, &holder, name_of("a"), &none));
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE);
    for (int i = 0; i < 40; i++, now += AGE / 10)
        assert_int_equal(ask("a"), STEADY__LEASE_NONE);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
}

static void short_lease_is_spent_before_it_denies(void **state) {
    (void)state;
    take("a", 40, 10);
    assert_int_equal(ask_for("a", 10), STEADY__LEASE_SHORT);
    for (int i = 0; i < 9; i++)
        assert_int_equal(ask("a"), STEADY__LEASE_SPENT);
    assert_int_equal(ask("a"), STEADY__LEASE_SHORT);
}

static void full_take_denies_nothing(void **state) {
    (void)state;
    take("a", 40, 1);
    now += 20 * MS;
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_true(grant("a", look.take));
    assert_int_equal(spend("a", look.take - 1), STEADY__LEASE_SPENT);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
}

static void full_take_of_a_larger_call_ends_the_denials(void **state) {
    (void)state;
    take("a", 40, 1);
    assert_int_equal(ask_for("a", 41), STEADY__LEASE_NONE);
    assert_int_equal(ask("a"), STEADY__LEASE_SHORT);
    assert_int_equal(ask_for("a", 41), STEADY__LEASE_TAKE);
    assert_true(grant_with(&holder, "a", 100, 41, 0));
    assert_int_equal(spend("a", 59), STEADY__LEASE_SPENT);
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE);
}

/* ---- The end ---- */

static void unused_lease_ends_after_a_quarter_of_the_age(void **state) {
    const struct steady__rate slow = {1600, STEADY_SECOND, 1, 0};
    struct steady__decision decision;
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask_with(&holder, "a", &slow, 10), STEADY__LEASE_NONE);
    assert_int_equal(ask_with(&holder, "a", &slow, 1), STEADY__LEASE_TAKE);
    assert_true(grant("a", 31));
    assert_int_equal(steady__leases_due(leases, &holder), now + AGE / 4);
    now += AGE / 4 - 1;
    assert_int_equal(end_some(&holder, false), 0);
    assert_int_equal(steady__leases_spend(leases, name_of("a"), &slow, 3, &decision), STEADY__LEASE_SPENT);
    assert_int_equal(steady__leases_due(leases, &holder), now + AGE / 4);
    assert_int_equal(steady__leases_due(leases, &another), -1);
    now += AGE / 4;
    assert_int_equal(end_some(&another, false), 0);
    assert_int_equal(end_some(&holder, false), 1);
    assert_end(&end, 31, 4, true);
    assert_int_equal(end_some(&holder, true), 0);
    assert_int_equal(steady__leases_spend(leases, name_of("a"), &slow, 1, &decision), STEADY__LEASE_NONE);
}

static void lease_in_use_is_due_at_its_age(void **state) {
    (void)state;
    start_take(&holder, "a", 40);
    assert_true(grant_with(&holder, "a", 40, 1, 10 * MS));
    now += 80 * MS;
    assert_int_equal(spend("a", 1), STEADY__LEASE_SPENT);
    assert_int_equal(steady__leases_due(leases, &holder), now + 10 * MS);
    now += 10 * MS - 1;
    assert_int_equal(end_some(&holder, false), 0);
    now += 1;
    assert_int_equal(end_some(&holder, false), 1);
}

static void spent_lease_ends_at_once_and_is_not_settled(void **state) {
    (void)state;
    take("a", 40, 40);
    assert_int_equal(end_some(&holder, false), 0);
    assert_int_equal(spend("a", 39), STEADY__LEASE_SPENT);
    assert_int_equal(end_some(&holder, false), 1);
    assert_end(&end, 40, 40, false);
}

/* Since it was put in, it may have leaked: 40 drops in 20 ms after the reply. */
static void lease_that_has_leaked_is_not_settled(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        take(i == 0 ? "a" : "b", 40, 40);
        now += 20 * MS - (i == 0);
        assert_int_equal(end_some(&holder, true), 1);
        assert_end(&end, 40, 1, i == 0);
    }
}

static void leases_end_in_portions(void **state) {
    const char *const keys[] = {"a", "b", "c", "d", "e", "f"};
    (void)state;
    for (size_t i = 0; i < COUNT(keys); i++)
        take(keys[i], 40, 40);
    assert_int_equal(end_some(&another, true), 0);
    assert_int_equal(end_some(&holder, true), 4);
    assert_int_equal(end_some(&holder, true), 2);
    assert_int_equal(end_some(&holder, true), 0);
}

static void take_replaces_a_lease_that_is_not_enough(void **state) {
    (void)state;
    take("a", 40, 40);
    assert_int_equal(spend("a", 30), STEADY__LEASE_SPENT);
    assert_int_equal(ask_for("a", 20), STEADY__LEASE_TAKE);
    assert_end(&look.end, 40, 31, true);
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE);
}

/* A call that is sent as it is leaves the lease to the others. */
static void large_call_leaves_the_lease(void **state) {
    (void)state;
    take("a", 40, 40);
    assert_int_equal(ask_for("a", 60), STEADY__LEASE_NONE);
    assert_null(look.end.ticket);
    assert_int_equal(spend("a", 39), STEADY__LEASE_SPENT);
}

static void only_its_holder_ends_a_lease(void **state) {
    (void)state;
    take("a", 40, 40);
    assert_int_equal(spend("a", 30), STEADY__LEASE_SPENT);
    assert_int_equal(ask_with(&another, "a", &rate, 20), STEADY__LEASE_NONE);
    assert_null(look.end.ticket);
    now += AGE;
    assert_int_equal(ask_with(&another, "a", &rate, 1), STEADY__LEASE_TAKE);
    assert_null(look.end.ticket);
    assert_int_equal(end_some(&another, true), 0);
    assert_int_equal(end_some(&holder, false), 1);
}

/* ---- A limit that changes ---- */

static void lease_ends_when_the_capacity_changes(void **state) {
    const struct steady__rate lower = {800, 500, 1, 0};
    (void)state;
    take("a", 40, 40);
    assert_int_equal(ask_with(&holder, "a", &lower, 1), STEADY__LEASE_NONE);
    assert_end(&look.end, 40, 1, true);
    assert_int_equal(look.end.rate.capacity, 800);
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE); /* under the old limit */
    for (int i = 0; i < 2; i++)
        assert_int_equal(ask_with(&holder, "a", &lower, 1), STEADY__LEASE_NONE);
    assert_int_equal(ask_with(&holder, "a", &lower, 1), STEADY__LEASE_TAKE);
    assert_int_equal(look.take, 4);
}

/* A settle gives nothing back under another rate. */
static void lease_ends_unsettled_when_the_rate_changes(void **state) {
    const struct steady__rate others[] = {{1600, 400, 1, 0}, {1600, 600, 1, 0}, {1600, 500, 2, 0}};
    static const char *const keys[] = {"a", "b", "c"};
    (void)state;
    for (size_t i = 0; i < COUNT(others); i++) {
        take(keys[i], 40, 40);
        assert_int_equal(ask_with(&holder, keys[i], &others[i], 1), STEADY__LEASE_NONE);
        assert_end(&look.end, 40, 1, false);
    }
}

static void change_of_the_limit_ends_the_denials(void **state) {
    const struct steady__rate higher = {3200, 500, 1, 0};
    (void)state;
    take("a", 40, 1);
    assert_int_equal(ask_with(&holder, "a", &higher, 1), STEADY__LEASE_NONE);
    assert_int_equal(ask("a"), STEADY__LEASE_NONE);
}

static void lease_of_another_loop_outlives_a_change_of_the_limit(void **state) {
    const struct steady__rate lower = {800, 500, 1, 0};
    (void)state;
    take("a", 40, 40);
    assert_int_equal(ask_with(&another, "a", &lower, 1), STEADY__LEASE_NONE);
    assert_null(look.end.ticket);
    assert_int_equal(end_some(&holder, true), 1);
    assert_end(&end, 40, 1, true);
    assert_int_equal(end.rate.capacity, 1600);
}

/* The threads of a pool do not use one of its connections any more. */
static void lease_of_an_idle_loop_keeps_no_other_from_a_lease(void **state) {
    (void)state;
    take("a", 100, 100);
    assert_int_equal(spend("a", 64), STEADY__LEASE_SPENT);
    assert_int_equal(ask_with(&another, "a", &rate, 37), STEADY__LEASE_NONE); /* it is not over */
    now += AGE / 4;
    assert_int_equal(ask_with(&another, "a", &rate, 37), STEADY__LEASE_TAKE);
    const int64_t n = look.take;
    assert_null(look.end.ticket);
    assert_true(grant_with(&another, "a", n, 37, 0));
    assert_int_equal(spend("a", n - 37), STEADY__LEASE_SPENT);
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE); /* nor those that were left behind */
    assert_int_equal(end_some(&holder, false), 1);
    assert_end(&end, 100, 65, true);
    assert_int_equal(end_some(&another, false), 1);
    assert_end(&end, n, n, false);
}

static void reset_voids_a_lease_that_was_left_behind(void **state) {
    (void)state;
    take("a", 100, 100);
    now += AGE / 4;
    assert_int_equal(ask_with(&another, "a", &rate, 100), STEADY__LEASE_NONE); /* the lease is left behind */
    steady__leases_forget(leases, &another, name_of("a"), true, &end);
    assert_null(end.ticket);
    assert_int_equal(end_some(&holder, false), 1);
    assert_false(end.is_due);
}

static void limit_that_changes_behind_a_take_is_sent_as_it_is(void **state) {
    const struct steady__rate lower = {800, 500, 1, 0};
    (void)state;
    start_take(&holder, "a", 40);
    assert_int_equal(ask_with(&holder, "a", &lower, 1), STEADY__LEASE_NONE);
    assert_true(grant("a", 40));
    assert_int_equal(ask_with(&holder, "a", &lower, 1), STEADY__LEASE_NONE);
    assert_end(&look.end, 40, 1, true);
}

/* ---- Drops that are given back ---- */

static void forget(const char *key, bool reset) { steady__leases_forget(leases, &holder, name_of(key), reset, &end); }

static void reset_ends_a_lease_unsettled(void **state) {
    (void)state;
    take("a", 40, 40);
    forget("b", true);
    assert_null(end.ticket);
    forget("a", true);
    assert_end(&end, 40, 0, false);
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE);
    assert_int_equal(end_some(&holder, true), 0);
}

static void reset_voids_the_lease_of_another_loop(void **state) {
    (void)state;
    start_take(&another, "a", 40);
    assert_true(grant_with(&another, "a", 40, 1, 0));
    forget("a", true);
    assert_null(end.ticket);
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE);
    assert_int_equal(end_some(&holder, true), 0);
    assert_int_equal(end_some(&another, false), 1);
    assert_end(&end, 40, 0, false);
}

static void reset_voids_the_take_in_flight_and_no_later_one(void **state) {
    (void)state;
    start_take(&holder, "a", 40);
    forget("a", true);
    assert_false(grant("a", 40));
    assert_int_equal(spend("a", 1), STEADY__LEASE_NONE);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_true(grant("a", 40));
    assert_int_equal(ask("a"), STEADY__LEASE_SPENT);
}

static void reset_before_a_take_that_failed_voids_nothing_later(void **state) {
    (void)state;
    use("a", 3);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    forget("a", true);
    steady__leases_failed(leases, name_of("a"));
    use("a", 3);
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
    assert_true(grant("a", 4));
}

static void void_take_does_not_deny(void **state) {
    (void)state;
    start_take(&holder, "a", 40);
    forget("a", true);
    assert_false(grant("a", 0));
    assert_int_equal(ask("a"), STEADY__LEASE_TAKE);
}

static void give_back_ends_denials_and_no_lease(void **state) {
    (void)state;
    take("a", 40, 10);
    assert_int_equal(ask_for("a", 10), STEADY__LEASE_SHORT);
    forget("a", false);
    assert_null(end.ticket);
    assert_int_equal(spend("a", 10), STEADY__LEASE_NONE);
    assert_int_equal(spend("a", 9), STEADY__LEASE_SPENT);
}

/* ---- The table ---- */

static const char *key_in_group(int i) {
    static char keys[100][4];
    char *key = keys[i];
    key[0] = 'g';
    key[1] = (char)('A' + i / 10);
    key[2] = (char)('0' + i % 10);
    return key;
}

static void bucket_without_an_entry_has_no_lease(void **state) {
    (void)state;
    for (int i = 0; i < GROUP; i++)
        take(key_in_group(i), 40, 40);
    for (int i = 0; i < 20; i++)
        assert_int_equal(ask(key_in_group(GROUP)), STEADY__LEASE_NONE);
    assert_int_equal(spend(key_in_group(GROUP), 1), STEADY__LEASE_NONE);
    take("another group", 40, 40);
    for (int i = 0; i < GROUP; i++)
        assert_int_equal(spend(key_in_group(i), 1), STEADY__LEASE_SPENT);
}

static void entry_with_a_take_in_flight_stays(void **state) {
    (void)state;
    for (int i = 0; i < GROUP; i++) {
        use(key_in_group(i), 3);
        assert_int_equal(ask(key_in_group(i)), STEADY__LEASE_TAKE);
    }
    now += 10 * AGE;
    for (int i = 0; i < 20; i++)
        assert_int_equal(ask(key_in_group(GROUP)), STEADY__LEASE_NONE);
    for (int i = 0; i < GROUP; i++)
        assert_true(grant(key_in_group(i), 4));
}

/* A store that only blocks may leave its leases for long. */
static void entry_with_an_old_lease_stays(void **state) {
    (void)state;
    for (int i = 0; i < GROUP; i++)
        take(key_in_group(i), 40, 40);
    now += 10 * AGE;
    for (int i = 0; i < 20; i++)
        assert_int_equal(ask(key_in_group(GROUP)), STEADY__LEASE_NONE);
    assert_int_equal(end_some(&holder, false), 4);
    assert_int_equal(end_some(&holder, false), 4);
    assert_int_equal(end_some(&holder, true), 0);
}

static void entry_that_is_not_used_is_replaced(void **state) {
    (void)state;
    for (int i = 0; i < GROUP; i++)
        use(key_in_group(i), 2);
    now += 2 * AGE - 1;
    use(key_in_group(50), 3);
    assert_int_equal(ask(key_in_group(50)), STEADY__LEASE_NONE);
    now += 1;
    use(key_in_group(50), 3);
    assert_int_equal(ask(key_in_group(50)), STEADY__LEASE_TAKE);
}

static void flood_replaces_the_oldest_entry(void **state) {
    (void)state;
    for (int i = 0; i < GROUP; i++, now++)
        use(key_in_group(i), 1);
    use(key_in_group(GROUP), 1);
    use(key_in_group(GROUP - 1), 2);
    assert_int_equal(ask(key_in_group(GROUP - 1)), STEADY__LEASE_TAKE);
}

/* In each of the states of a hot key. */
static void keys_that_are_used_once_push_out_no_hot_key(void **state) {
    (void)state;
    int flood = 20;
    take(key_in_group(0), 40, 1); /* it is short */
    for (int i = 0; i < 30; i++)
        assert_int_equal(ask(key_in_group(flood++ % 80 + 20)), STEADY__LEASE_NONE);
    assert_int_equal(ask(key_in_group(0)), STEADY__LEASE_SHORT);
    now += AGE;
    assert_int_equal(ask(key_in_group(0)), STEADY__LEASE_TAKE); /* the first use of a new window */
    grant(key_in_group(0), 0);
    for (int i = 0; i < 30; i++)
        assert_int_equal(ask(key_in_group(flood++ % 80 + 20)), STEADY__LEASE_NONE);
    assert_int_equal(ask(key_in_group(0)), STEADY__LEASE_SHORT);
}

/* ---- Which calls use leases ---- */

static void plain_consume_of_one_bucket_uses_leases(void **state) {
    struct steady__terms terms = {.rate = rate};
    struct steady__call call = {.verb = STEADY__CONSUME, .amount = 3, .key = "a", .key_len = 1, .terms = &terms};
    (void)state;
    assert_int_equal(steady__leases_amount(&call), 3);
    for (int64_t amount = -1; amount <= 0; amount++) {
        call.amount = amount;
        assert_int_equal(steady__leases_amount(&call), 0);
    }
    call.amount = 3;
    for (enum steady__verb verb = STEADY__CONSUME + 1; verb <= STEADY__RESET; verb++) {
        call.verb = verb;
        assert_int_equal(steady__leases_amount(&call), 0);
    }
    call.verb = STEADY__CONSUME;
    terms.rate.block = 1;
    assert_int_equal(steady__leases_amount(&call), 0);
}

static void consume_of_one_plain_part_uses_leases(void **state) {
    struct steady__terms terms = {.rate = rate};
    int reservation;
    struct steady__member member = {.terms = &terms, .part = {.rate = &terms.rate, .amount = 5, .kind = STEADY__TAKE}};
    struct steady__group group = {.n = 1, .members = &member};
    struct steady__call call = {.verb = STEADY__CONSUME_ALL, .terms = &terms, .group = &group};
    (void)state;
    assert_int_equal(steady__leases_amount(&call), 5);
    for (int i = 0; i < 9; i++) {
        struct steady__group other = group;
        struct steady__member its = member;
        struct steady__call with = call;
        with.group = &other;
        other.members = &its;
        switch (i) {
        case 0: other.n = 2; break;
        case 1: other.how.max_wait = 1; break;
        case 2: other.how.at_least = 1; break;
        case 3: other.how.peek = true; break;
        case 4: other.reservation = (void *)&reservation; break;
        case 5: its.part.kind = STEADY__CHARGE; break;
        case 6: its.part.amount = -1; break;
        case 7: with.verb = STEADY__PEEK_ALL; break;
        default: with.verb = STEADY__SETTLE;
        }
        assert_int_equal(steady__leases_amount(&with), 0);
    }
    terms.rate.block = 1;
    assert_int_equal(steady__leases_amount(&call), 0);
}

static void answer_has_the_fields_of_the_decision(void **state) {
    const struct steady__terms terms = {.rate = rate};
    const struct steady__call call = {.verb = STEADY__CONSUME, .amount = 1, .key = "a", .key_len = 1, .terms = &terms};
    steady_result result;
    (void)state;
    assert_false(steady__leases_answer(NULL, &call, &result));
    assert_false(steady__leases_answer(leases, &call, &result));
    take("a", 40, 10);
    for (int i = 0; i < 9; i++) {
        assert_true(steady__leases_answer(leases, &call, &result));
        assert_true(result.success && result.atomic);
        assert_int_equal(result.source, STEADY_FROM_LEASE);
        assert_int_equal(result.level, 700);
        assert_int_equal(result.until_next_drop, 33);
        assert_int_equal(result.retry_after, 0);
    }
    assert_true(steady__leases_answer(leases, &call, &result));
    assert_false(result.success);
    assert_int_equal(result.source, STEADY_FROM_LEASE);
    assert_int_equal(result.retry_after, 20 * MS);
}

static void option_of_the_url_wins(void **state) {
    const steady_store_options options = {.lease_age = 7 * MS}, none = {0};
    (void)state;
    assert_int_equal(steady__leases_age(&(struct steady__url){.lease_age = 0}, &none), 0);
    assert_int_equal(steady__leases_age(&(struct steady__url){.lease_age = 0}, &options), 7 * MS);
    assert_int_equal(steady__leases_age(&(struct steady__url){.lease_age = 5 * MS}, &options), 5 * MS);
    assert_int_equal(steady__leases_age(&(struct steady__url){.lease_age = -1}, &options), 0);
}

/* ---- Threads ---- */

#define MANY 100000
static const struct steady__rate wide = {16 * MANY, 1, 1, 0};
static atomic_int waiting;

static void *spend_all(void *arg) {
    struct steady__decision decision;
    int64_t *spent = arg;
    atomic_fetch_sub(&waiting, 1);
    while (waiting > 0)
        ;
    while (steady__leases_spend(leases, name_of("a"), &wide, 1, &decision) == STEADY__LEASE_SPENT)
        (*spent)++;
    return NULL;
}

static void threads_spend_a_lease(const char *key) {
    pthread_t threads[4];
    int64_t spent[4] = {0}, sum = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask_with(&holder, key, &wide, i == 0 ? MANY : 1), STEADY__LEASE_NONE);
    assert_int_equal(ask_with(&holder, key, &wide, 1), STEADY__LEASE_TAKE);
    assert_true(grant(key, MANY));
    waiting = COUNT(threads);
    for (size_t i = 0; i < COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, spend_all, &spent[i]), 0);
    for (size_t i = 0; i < COUNT(threads); i++) {
        pthread_join(threads[i], NULL);
        sum += spent[i];
    }
    assert_int_equal(sum, MANY - 1);
    assert_int_equal(end_some(&holder, false), 1);
}

static void threads_spend_each_drop_once(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++, now += 4 * AGE)
        threads_spend_a_lease("a");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(fourth_use_within_the_age_takes),
        TEST(take_asks_for_what_was_used_in_the_last_age),
        TEST(larger_one_of_two_windows_counts),
        TEST(window_before_the_last_counts_no_more),
        TEST(windows_have_no_gap),
        TEST(take_asks_for_a_sixteenth_of_the_capacity_at_most),
        TEST(call_for_over_half_of_a_lease_takes_none),
        TEST(far_server_has_no_leases),
        TEST(calls_wait_for_the_take_of_their_loop),
        TEST(call_that_waits_counts_as_a_use_only_later),
        TEST(take_that_fails_counts_anew),
        TEST(lease_is_spent_drop_by_drop),
        TEST(lease_is_spent_until_its_age_after_the_sending),
        TEST(lease_of_another_limit_is_not_spent),
        TEST(take_of_its_own_drops_only_is_no_lease),
        TEST(short_take_denies_until_what_it_asked_for_has_leaked),
        TEST(short_take_denies_for_the_age_at_most),
        TEST(blocked_bucket_is_asked_and_has_no_lease),
        TEST(short_lease_is_spent_before_it_denies),
        TEST(full_take_denies_nothing),
        TEST(full_take_of_a_larger_call_ends_the_denials),
        TEST(unused_lease_ends_after_a_quarter_of_the_age),
        TEST(lease_in_use_is_due_at_its_age),
        TEST(spent_lease_ends_at_once_and_is_not_settled),
        TEST(lease_that_has_leaked_is_not_settled),
        TEST(leases_end_in_portions),
        TEST(take_replaces_a_lease_that_is_not_enough),
        TEST(large_call_leaves_the_lease),
        TEST(only_its_holder_ends_a_lease),
        TEST(lease_ends_when_the_capacity_changes),
        TEST(lease_ends_unsettled_when_the_rate_changes),
        TEST(change_of_the_limit_ends_the_denials),
        TEST(lease_of_another_loop_outlives_a_change_of_the_limit),
        TEST(lease_of_an_idle_loop_keeps_no_other_from_a_lease),
        TEST(reset_voids_a_lease_that_was_left_behind),
        TEST(limit_that_changes_behind_a_take_is_sent_as_it_is),
        TEST(reset_ends_a_lease_unsettled),
        TEST(reset_voids_the_lease_of_another_loop),
        TEST(reset_voids_the_take_in_flight_and_no_later_one),
        TEST(reset_before_a_take_that_failed_voids_nothing_later),
        TEST(void_take_does_not_deny),
        TEST(give_back_ends_denials_and_no_lease),
        TEST(bucket_without_an_entry_has_no_lease),
        TEST(entry_with_a_take_in_flight_stays),
        TEST(entry_with_an_old_lease_stays),
        TEST(entry_that_is_not_used_is_replaced),
        TEST(flood_replaces_the_oldest_entry),
        TEST(keys_that_are_used_once_push_out_no_hot_key),
        TEST(plain_consume_of_one_bucket_uses_leases),
        TEST(consume_of_one_plain_part_uses_leases),
        TEST(answer_has_the_fields_of_the_decision),
        TEST(option_of_the_url_wins),
        TEST(threads_spend_each_drop_once),
    };
    return cmocka_run_group_tests_name("leases", tests, NULL, NULL);
}
