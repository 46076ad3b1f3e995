/* SPDX-License-Identifier: MIT
 * Needed capacities and trials of many limits, against plain simulations with steady__bucket_consume. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "random.h"
#include "replay/series.h"
#include "replay/suggest.h"

#define NOW INT64_C(1764000000000000)

enum { EVENTS_MOST = 60 };

static const struct steady__bucket empty;

/* How many requests a bucket denies. */
static uint64_t simulate(struct steady__rate rate, int64_t capacity, const struct series_event *events, size_t n) {
    struct steady__bucket bucket = empty;
    struct steady__decision decision;
    uint64_t denied = 0;
    rate.capacity = capacity;
    for (size_t i = 0; i < n; i++) {
        steady__bucket_consume(&bucket, &rate, events[i].time, events[i].amount, &decision);
        denied += !decision.success;
    }
    return denied;
}

static size_t random_events(struct series_event *events, uint64_t *seed, int64_t gap) {
    const size_t n = (size_t)random_in(seed, 1, EVENTS_MOST);
    int64_t now = NOW + random_in(seed, 0, 1000);
    for (size_t i = 0; i < n; i++) {
        now += random_in(seed, 0, 2) == 0 ? 0 : random_in(seed, 0, gap);
        int64_t amount = random_in(seed, 0, 4) > 0 ? 1 : random_in(seed, -3, 6);
        events[i] = (struct series_event){now, amount == 0 ? 1 : amount};
    }
    return n;
}

static struct steady__rate random_rate(uint64_t *seed) {
    return (struct steady__rate){1, random_in(seed, 1, 60), random_in(seed, 1, 7), 0};
}

static int64_t needed(const struct steady__rate *rate, const struct series_event *events, size_t n) {
    const struct needed_rate needed_rate_of = needed_rate(rate);
    struct needed needed = {0};
    int64_t most = 0;
    for (size_t i = 0; i < n; i++) {
        needed_leak(&needed, &needed_rate_of, events[i].time);
        assert_true(needed_add(&needed, &needed_rate_of, events[i].amount));
        if (needed.content > most) most = needed.content;
    }
    return needed_level(most, &needed_rate_of);
}

/* A search over all capacities finds the same one. */
static void the_needed_capacity_is_the_smallest_that_denies_nothing(void **state) {
    (void)state;
    struct series_event events[EVENTS_MOST];
    uint64_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        const struct steady__rate rate = random_rate(&seed);
        const size_t n = random_events(events, &seed, 40);
        const int64_t found = needed(&rate, events, n);
        int64_t capacity = 1;
        while (simulate(rate, capacity, events, n) > 0)
            capacity++;
        assert_int_equal(found < 1 ? 1 : found, capacity);
    }
}

/* The content is the level and the phase of a bucket of the highest capacity, at any time and rate. */
static void the_content_is_that_of_a_bucket_that_takes_everything(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 20000; round++) {
        struct steady__rate rate = {STEADY__LEVEL_MAX, random_edgy(&seed, 1, INT64_C(1) << 22),
                                    random_edgy(&seed, 1, STEADY__DROPS_MAX), 0};
        const struct needed_rate of = needed_rate(&rate);
        struct steady__bucket bucket = empty;
        struct steady__decision decision;
        struct needed needed = {0};
        int64_t now = NOW;
        for (int i = 0; i < 20; i++) {
            const int64_t amount = random_edgy(&seed, 1, 1000000);
            now += random_edgy(&seed, 0, INT64_C(1) << random_in(&seed, 1, 44));
            needed_leak(&needed, &of, now);
            assert_true(needed_add(&needed, &of, amount));
            steady__bucket_consume(&bucket, &rate, now, amount, &decision);
            assert_true(decision.success);
            assert_int_equal(needed_level(needed.content, &of), decision.level);
        }
    }
}

/* A level that cannot be counted: no capacity is enough. */
static void what_no_capacity_can_hold_is_told(void **state) {
    (void)state;
    const struct steady__rate slow = {1, INT64_C(1) << 50, 1, 0}, fast = {1, 1, 1, 0};
    struct needed_rate rate = needed_rate(&slow);
    struct needed needed = {0};
    assert_int_equal(rate.top, 7);
    assert_true(needed_add(&needed, &rate, 7));
    assert_false(needed_add(&needed, &rate, 1));
    assert_false(needed_add(&needed, &rate, INT32_MAX));
    assert_true(needed_add(&needed, &rate, -INT32_MAX));
    assert_int_equal(needed.content, 0);
    rate = needed_rate(&fast);
    assert_true(needed_add(&needed, &rate, INT32_MAX));
    assert_false(needed_add(&needed, &rate, 1));
}

/* ---- Series of many keys ---- */

enum { KEYS = 3000, LIMITS = 2, RATES = 3 };

/* Keys whose events are known, written in the order of time as the engine does. */
struct world {
    struct series *series;
    struct series_event *events[LIMITS][KEYS];
    size_t n[LIMITS][KEYS];
};

static struct world *world_new(uint64_t seed, size_t hot) {
    struct world *world = calloc(1, sizeof *world);
    int64_t now = NOW;
    world->series = series_new("/tmp");
    assert_non_null(world->series);
    for (size_t i = 0; i < KEYS * 30 + hot; i++) {
        const size_t limit = (size_t)random_in(&seed, 0, LIMITS - 1);
        const size_t key = i < hot ? 7 : (size_t)random_in(&seed, 0, KEYS - 1);
        const int64_t amount = random_in(&seed, 1, 10) > 1 ? 1 : random_in(&seed, 1, 4);
        now += random_in(&seed, 0, 20);
        size_t *n = &world->n[limit][key];
        if ((*n & (*n + 1)) == 0) /* one less than a power of two */
            world->events[limit][key] =
                realloc(world->events[limit][key], (2 * *n + 2) * sizeof *world->events[limit][key]);
        world->events[limit][key][(*n)++] = (struct series_event){now, amount};
        /* The number of the key is a hash that is not random. Both limits have the same hashes. */
        series_add(world->series, limit, (key + 1) * UINT64_C(0x9e3779b97f4a7c15), now, amount);
    }
    assert_null(series_error(world->series));
    return world;
}

static void world_free(struct world *world) {
    for (size_t l = 0; l < LIMITS; l++)
        for (size_t k = 0; k < KEYS; k++)
            free(world->events[l][k]);
    series_free(world->series);
    free(world);
}

static const struct steady__rate rates[RATES] = {{1, 100000, 1, 0}, {1, 7000, 3, 0}, {1, 1000, 1, 5000}};

static void check_needed(struct world *world) {
    struct series_need *needs = calloc(LIMITS, sizeof *needs);
    struct histogram *expected = calloc(1, sizeof *expected);
    for (size_t l = 0; l < LIMITS; l++) {
        needs[l].n_rates = RATES - l;
        for (size_t r = 0; r < needs[l].n_rates; r++)
            needs[l].rates[r] = needed_rate(&rates[r]);
    }
    assert_true(series_find_needed(world->series, needs, LIMITS));
    for (size_t l = 0; l < LIMITS; l++)
        for (size_t r = 0; r < needs[l].n_rates; r++) {
            memset(expected, 0, sizeof *expected);
            for (size_t k = 0; k < KEYS; k++)
                if (world->n[l][k] > 0) histogram_add(expected, needed(&rates[r], world->events[l][k], world->n[l][k]));
            assert_memory_equal(needs[l].needed[r], expected, sizeof *expected);
            assert_int_equal(needs[l].over[r], 0);
        }
    series_free_needed(needs, LIMITS);
    free(expected);
    free(needs);
}

static void check_trials(struct world *world) {
    static const int64_t capacities[] = {1, 2, 3, 5, 8, 20, 50, 1000};
    enum { CAPACITIES = sizeof capacities / sizeof capacities[0] };
    struct series_trial *trials = calloc(LIMITS, sizeof *trials);
    for (size_t l = 0; l < LIMITS; l++) {
        trials[l].n_rows = RATES - l;
        for (size_t r = 0; r < trials[l].n_rows; r++) {
            trials[l].rows[r].rate = rates[r];
            trials[l].rows[r].n = CAPACITIES;
            memcpy(trials[l].rows[r].capacities, capacities, sizeof capacities);
        }
    }
    assert_true(series_try(world->series, trials, LIMITS));
    for (size_t l = 0; l < LIMITS; l++)
        for (size_t r = 0; r < trials[l].n_rows; r++)
            for (size_t c = 0; c < CAPACITIES; c++) {
                uint64_t keys = 0, requests = 0;
                for (size_t k = 0; k < KEYS; k++) {
                    const uint64_t denied = simulate(rates[r], capacities[c], world->events[l][k], world->n[l][k]);
                    keys += denied > 0;
                    requests += denied;
                }
                assert_int_equal(trials[l].rows[r].keys_denied[c], keys);
                assert_int_equal(trials[l].rows[r].requests_denied[c], requests);
            }
    free(trials);
}

static void needed_capacities_of_many_keys_are_those_of_each(void **state) {
    (void)state;
    struct world *world = world_new(11, 0);
    check_needed(world);
    check_needed(world); /* the series can be read again */
    world_free(world);
}

static void trials_of_many_keys_deny_what_each_bucket_denies(void **state) {
    (void)state;
    struct world *world = world_new(12, 0);
    check_trials(world);
    world_free(world);
}

/* One key has more requests than are grouped at once, so it comes in pieces. */
static void a_key_with_very_many_requests_is_exact_too(void **state) {
    (void)state;
    struct world *world = world_new(13, 1500000);
    check_needed(world);
    check_trials(world);
    world_free(world);
}

static void a_folder_that_cannot_be_written_is_told(void **state) {
    (void)state;
    struct series *series = series_new("/nonexistent");
    for (int i = 0; i < 3000; i++)
        series_add(series, 0, 1, NOW + i, 1);
    assert_non_null(series_error(series));
    struct series_need need = {.n_rates = 1, .rates = {needed_rate(&rates[0])}};
    assert_false(series_find_needed(series, &need, 1));
    series_free(series);
}

/* ---- Suggestions ---- */

static void rates_of_the_ladder_are_valid_and_ascend(void **state) {
    (void)state;
    steady_limit all[SUGGEST_RATES];
    steady_message why;
    const size_t n = suggest_rates(all);
    assert_between(n, 30, SUGGEST_RATES);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(steady_limit_check(&all[i], &why), 0);
        if (i > 0) assert_true(suggest_speed(&all[i]) > 1.4 * suggest_speed(&all[i - 1]));
    }
}

static void a_capacity_is_rounded_up_by_a_third_at_most(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int i = 0; i < 10000; i++) {
        const int64_t capacity = random_edgy(&seed, 1, INT32_MAX), rounded = suggest_round_up(capacity);
        assert_between(rounded, capacity, capacity + (capacity + 2) / 3);
        assert_int_equal(suggest_round_up(rounded), rounded);
    }
    assert_int_equal(suggest_round_up(0), 1);
    assert_int_equal(suggest_round_up(61), 80);
}

static void the_grid_has_the_limit_among_well_rounded_neighbours(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (int i = 0; i < 10000; i++) {
        const steady_limit limit = {.max_capacity = random_edgy(&seed, 1, INT32_MAX),
                                    .drop_recharge = random_edgy(&seed, 1, INT64_C(86400000000)),
                                    .drops = random_edgy(&seed, 1, 1000)};
        struct report_heat heat = {0};
        suggest_grid(&heat, &limit);
        assert_int_equal(heat.n_rates, REPORT_GRID);
        assert_int_equal(heat.n_capacities, REPORT_GRID);
        assert_true(suggest_speed(&heat.rates[heat.rate_at]) == suggest_speed(&limit));
        assert_int_equal(heat.capacities[heat.capacity_at], limit.max_capacity);
        for (size_t k = 1; k < REPORT_GRID; k++) {
            assert_true(heat.capacities[k - 1] < heat.capacities[k]);
            assert_true(suggest_speed(&heat.rates[k - 1]) < suggest_speed(&heat.rates[k]));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_needed_capacity_is_the_smallest_that_denies_nothing),
                                       cmocka_unit_test(the_content_is_that_of_a_bucket_that_takes_everything),
                                       cmocka_unit_test(what_no_capacity_can_hold_is_told),
                                       cmocka_unit_test(needed_capacities_of_many_keys_are_those_of_each),
                                       cmocka_unit_test(trials_of_many_keys_deny_what_each_bucket_denies),
                                       cmocka_unit_test(a_key_with_very_many_requests_is_exact_too),
                                       cmocka_unit_test(a_folder_that_cannot_be_written_is_told),
                                       cmocka_unit_test(rates_of_the_ladder_are_valid_and_ascend),
                                       cmocka_unit_test(a_capacity_is_rounded_up_by_a_third_at_most),
                                       cmocka_unit_test(the_grid_has_the_limit_among_well_rounded_neighbours)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
