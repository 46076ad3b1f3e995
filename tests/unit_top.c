/* SPDX-License-Identifier: MIT
 * The keys with the most decisions: counts against exact ones, on streams that are drawn by chance. */
#include "support.h"

#include "server/top.h"

enum { KEYS = 5000, DRAWS = 200000 };

static const struct top_bucket bucket = {.level = 1, .capacity = 1};

/* A few keys are frequent, most are rare: the square of a number by chance. */
static size_t draw(uint64_t *seed) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    const uint64_t x = (*seed >> 33) % KEYS;
    return (size_t)(x * x / KEYS * x / KEYS);
}

static void count(struct top *top, uint64_t *exact, uint64_t *seed, size_t draws) {
    char key[32];
    for (size_t i = 0; i < draws; i++) {
        const size_t n = draw(seed);
        exact[n]++;
        snprintf(key, sizeof key, "key %zu", n);
        top_count(top, "limit", (struct rules_text){key, strlen(key)}, &bucket);
    }
}

static uint64_t count_of(const struct top *top, size_t n) {
    char key[32];
    snprintf(key, sizeof key, "key %zu", n);
    for (size_t i = 0; i < TOP_ENTRIES; i++)
        if (top->hashes[i] != 0 && top->entries[i].key_len == strlen(key) &&
            memcmp(top->entries[i].key, key, strlen(key)) == 0)
            return top->counts[i];
    return 0;
}

/* No count is too high, and none is too low by more than the stated error. */
static void check_bound(const struct top *top, const uint64_t *exact, uint64_t total) {
    assert_int_equal(top->total, total);
    assert_true(top->error > 0 && top->error <= total / (TOP_ENTRIES + 1));
    for (size_t n = 0; n < KEYS; n++) {
        const uint64_t shown = count_of(top, n);
        assert_true(shown <= exact[n]);
        assert_true(shown + top->error >= exact[n]);
    }
}

static void counts_are_too_low_by_the_stated_share_at_most(void **state) {
    static struct top top;
    static uint64_t exact[KEYS];
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        uint64_t chance = seed;
        memset(&top, 0, sizeof top);
        memset(exact, 0, sizeof exact);
        count(&top, exact, &chance, DRAWS);
        check_bound(&top, exact, DRAWS);
        assert_true(exact[0] > DRAWS / (TOP_ENTRIES + 1)); /* so it must be there, and it is the first */
        size_t sorted[TOP_ENTRIES];
        const size_t n = top_sorted(&top, sorted);
        assert_int_equal(top.counts[sorted[0]], count_of(&top, 0));
        for (size_t i = 1; i < n; i++)
            assert_true(top.counts[sorted[i - 1]] >= top.counts[sorted[i]]);
    }
}

static void sum_of_tables_keeps_the_bound(void **state) {
    static struct top tops[4], sum;
    static uint64_t exact[KEYS];
    uint64_t chance = 7;
    (void)state;
    memset(tops, 0, sizeof tops);
    memset(&sum, 0, sizeof sum);
    memset(exact, 0, sizeof exact);
    for (size_t i = 0; i < 4; i++) {
        count(&tops[i], exact, &chance, DRAWS / 4);
        top_merge(&sum, &tops[i]);
    }
    check_bound(&sum, exact, DRAWS);
}

static void one_key_of_two_limits_is_two_entries(void **state) {
    static struct top top;
    size_t sorted[TOP_ENTRIES];
    const struct rules_text key = {"k", 1};
    (void)state;
    memset(&top, 0, sizeof top);
    top_count(&top, "a", key, &bucket);
    top_count(&top, "b", key, &bucket);
    top_count(&top, "b", key, &bucket);
    assert_int_equal(top_sorted(&top, sorted), 2);
    assert_string_equal(top.entries[sorted[0]].limit, "b");
}

static void long_key_is_cut_and_says_so(void **state) {
    static struct top top;
    char long_key[TOP_KEY_MOST + 1];
    (void)state;
    memset(&top, 0, sizeof top);
    memset(long_key, 'x', sizeof long_key);
    top_count(&top, "a", (struct rules_text){long_key, sizeof long_key}, &bucket);
    size_t sorted[TOP_ENTRIES];
    assert_int_equal(top_sorted(&top, sorted), 1);
    assert_int_equal(top.entries[sorted[0]].key_len, sizeof long_key);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_too_low_by_the_stated_share_at_most),
        cmocka_unit_test(sum_of_tables_keeps_the_bound),
        cmocka_unit_test(one_key_of_two_limits_is_two_entries),
        cmocka_unit_test(long_key_is_cut_and_says_so),
    };
    return cmocka_run_group_tests_name("top", tests, NULL, NULL);
}
