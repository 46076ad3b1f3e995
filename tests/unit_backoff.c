/* SPDX-License-Identifier: MIT
 * Back-off: the pauses between attempts, and their jitter. */
#include "support.h"

#include "conn/backoff.h"
#include "random.h"

#define MS STEADY_MILLISECOND

static void pauses_double_from_first_to_last(void **state) {
    static const steady_us pauses[] = {20 * MS, 40 * MS, 80 * MS, 160 * MS, 320 * MS, 500 * MS, 500 * MS};
    struct steady__backoff backoff = STEADY__RECONNECT_BACKOFF;
    (void)state;
    for (size_t i = 0; i < COUNT(pauses); i++)
        assert_int_equal(steady__backoff_next(&backoff), pauses[i]);
}

static void assert_doubles_up_to_last(steady_us first, steady_us last) {
    struct steady__backoff backoff = {.first = first, .last = last};
    steady_us before = steady__backoff_next(&backoff);
    int steps = 0;
    assert_int_equal(before, first);
    for (; before < last; steps++) {
        const steady_us pause = steady__backoff_next(&backoff);
        if (pause != last) assert_int_equal(pause, 2 * before);
        assert_true(pause > before && pause <= last);
        before = pause;
    }
    assert_in_range(steps, 0, 63);
    for (int i = 0; i < 3; i++)
        assert_int_equal(steady__backoff_next(&backoff), last);
}

/* Also where `last` is no multiple of `first`, is odd, or is so large that twice a pause could overflow. */
static void pause_stops_at_last_whatever_last_is(void **state) {
    uint64_t seed = 5;
    (void)state;
    for (steady_us last = 1; last <= 100; last++)
        for (steady_us first = 1; first <= last; first++)
            assert_doubles_up_to_last(first, last);
    assert_doubles_up_to_last(1, INT64_MAX);
    assert_doubles_up_to_last(INT64_MAX - 1, INT64_MAX);
    assert_doubles_up_to_last(INT64_MAX / 2, INT64_MAX);
    for (int i = 0; i < 10000; i++) {
        const steady_us last = random_edgy(&seed, 1, INT64_MAX);
        assert_doubles_up_to_last(random_edgy(&seed, 1, last), last);
    }
}

/* The cluster changes `last` between two pauses. */
static void pause_is_capped_when_last_has_become_shorter(void **state) {
    struct steady__backoff backoff = {.first = 20 * MS, .last = 30 * STEADY_SECOND};
    (void)state;
    for (int i = 0; i < 20; i++)
        steady__backoff_next(&backoff);
    backoff.last = 300 * MS;
    for (int i = 0; i < 3; i++)
        assert_int_equal(steady__backoff_next(&backoff), 300 * MS);
    backoff.last = 10 * MS;
    steady__backoff_reset(&backoff);
    assert_int_equal(steady__backoff_next(&backoff), 10 * MS);
}

static void reset_begins_at_first_again(void **state) {
    struct steady__backoff backoff = STEADY__RECONNECT_BACKOFF;
    (void)state;
    for (int i = 0; i < 4; i++)
        steady__backoff_next(&backoff);
    steady__backoff_reset(&backoff);
    assert_int_equal(steady__backoff_next(&backoff), 20 * MS);
    assert_int_equal(steady__backoff_next(&backoff), 40 * MS);
}

/* ---- Jitter ---- */

static uint64_t seed;
static uint64_t seeded(const struct steady__net *net) {
    (void)net;
    return random_next(&seed);
}
static const struct steady__net net = {.random = seeded};

/* The least and the most of many pauses after `failures` failed attempts. */
static void reconnect_pauses(int failures, bool refused, steady_us *least, steady_us *most) {
    *least = INT64_MAX;
    *most = 0;
    for (int i = 0; i < 10000; i++) {
        struct steady__backoff backoff = STEADY__RECONNECT_BACKOFF;
        steady_us pause = 0;
        for (int n = 0; n < failures; n++)
            pause = steady__reconnect_pause(&backoff, &net, refused);
        if (pause < *least) *least = pause;
        if (pause > *most) *most = pause;
    }
}

static void jitter_is_from_zero_to_its_bound(void **state) {
    bool seen[4] = {false};
    (void)state;
    seed = 7;
    assert_int_equal(steady__jitter(&net, 0), 0);
    for (int i = 0; i < 1000; i++) {
        const steady_us pause = steady__jitter(&net, 3);
        assert_in_range(pause, 0, 3);
        seen[pause] = true;
    }
    assert_true(seen[0] && seen[1] && seen[2] && seen[3]);
}

static void reconnect_pause_is_from_half_to_all_of_the_back_off(void **state) {
    static const steady_us pauses[] = {20 * MS, 40 * MS, 80 * MS, 160 * MS, 320 * MS, 500 * MS, 500 * MS};
    steady_us least, most;
    (void)state;
    seed = 8;
    for (size_t i = 0; i < COUNT(pauses); i++) {
        reconnect_pauses((int)i + 1, false, &least, &most);
        assert_in_range(least, pauses[i] / 2, pauses[i] / 100 * 51);
        assert_in_range(most, pauses[i] / 100 * 99, pauses[i]);
    }
}

static void refused_pause_is_at_least_a_second_and_does_not_grow(void **state) {
    steady_us least, most;
    (void)state;
    seed = 9;
    for (int failures = 1; failures < 10; failures += 4) {
        reconnect_pauses(failures, true, &least, &most);
        assert_in_range(least, STEADY_SECOND, STEADY_SECOND + 5 * MS);
        assert_in_range(most, STEADY_SECOND + 495 * MS, STEADY_SECOND + 500 * MS);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pauses_double_from_first_to_last),
        cmocka_unit_test(pause_stops_at_last_whatever_last_is),
        cmocka_unit_test(pause_is_capped_when_last_has_become_shorter),
        cmocka_unit_test(reset_begins_at_first_again),
        cmocka_unit_test(jitter_is_from_zero_to_its_bound),
        cmocka_unit_test(reconnect_pause_is_from_half_to_all_of_the_back_off),
        cmocka_unit_test(refused_pause_is_at_least_a_second_and_does_not_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
