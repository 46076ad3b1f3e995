/* SPDX-License-Identifier: MIT
 * Events in the order of their times. */
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "random.h"
#include "replay/reorder.h"

#define SECOND INT64_C(1000000)
#define NOW (INT64_C(1764000000) * SECOND)

enum { EVENTS_MOST = 20000 };

struct seen {
    int64_t times[EVENTS_MOST];
    uint32_t numbers[EVENTS_MOST];
    size_t n;
};

static struct seen seen;

static void see(void *data, int64_t time, void *event) {
    (void)data;
    assert_true(seen.n < EVENTS_MOST);
    seen.times[seen.n] = time;
    memcpy(&seen.numbers[seen.n++], event, sizeof(uint32_t));
}

static struct reorder *begin(size_t memory, bool spread) {
    const struct reorder_options options = {.memory = memory, .spread = spread, .release = see};
    struct reorder *reorder = reorder_new(&options);
    assert_non_null(reorder);
    seen.n = 0;
    return reorder;
}

static bool add(struct reorder *reorder, int64_t time, bool whole, uint32_t number, size_t size) {
    void *event = reorder_add(reorder, time, whole, size);
    if (event != NULL) memcpy(event, &number, sizeof number);
    return event != NULL;
}

/* The events of a window in any order. Events of one time keep the order in which they came. */
static void events_of_a_window_are_released_in_order(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 50; round++) {
        struct reorder *reorder = begin(64 * 1024 * 1024, false);
        int64_t newest = NOW;
        uint32_t n = 0;
        for (; n < 2000; n++) {
            const int64_t time = newest - random_in(&seed, 0, REORDER_WINDOW - SECOND);
            newest += random_in(&seed, 0, SECOND / 10);
            assert_true(add(reorder, round % 2 == 0 ? time : time / SECOND * SECOND, false, n,
                            (size_t)random_in(&seed, 4, 600)));
            reorder_advance(reorder, newest);
        }
        reorder_end(reorder);
        assert_int_equal(seen.n, n);
        for (size_t i = 1; i < seen.n; i++)
            assert_true(seen.times[i - 1] < seen.times[i] ||
                        (seen.times[i - 1] == seen.times[i] && seen.numbers[i - 1] < seen.numbers[i]));
        assert_int_equal(reorder_window(reorder), REORDER_WINDOW);
        reorder_free(reorder);
    }
}

static void an_event_behind_the_window_is_late(void **state) {
    (void)state;
    struct reorder *reorder = begin(1024 * 1024, false);
    assert_true(add(reorder, NOW, false, 1, 8));
    reorder_advance(reorder, NOW + REORDER_WINDOW - 1);
    assert_int_equal(seen.n, 0);
    assert_true(add(reorder, NOW, false, 2, 8));
    reorder_advance(reorder, NOW + REORDER_WINDOW + SECOND);
    assert_int_equal(seen.n, 2);
    assert_true(reorder_is_late(reorder, NOW));
    assert_false(add(reorder, NOW, false, 3, 8));
    assert_true(add(reorder, NOW + SECOND, false, 4, 8));
    reorder_end(reorder);
    assert_int_equal(seen.n, 3);
    reorder_free(reorder);
}

/* The oldest seconds are released early. The order stays, and the shortest window is known. */
static void too_little_memory_makes_the_window_shorter(void **state) {
    (void)state;
    struct reorder *reorder = begin(256 * 1024, false);
    for (uint32_t i = 0; i < 10000; i++) {
        assert_true(add(reorder, NOW + i * SECOND / 200, false, i, 200));
        reorder_advance(reorder, NOW + i * SECOND / 200);
    }
    assert_true(seen.n > 5000);
    reorder_end(reorder);
    assert_int_equal(seen.n, 10000);
    for (size_t i = 0; i < seen.n; i++)
        assert_int_equal(seen.numbers[i], i);
    assert_between(reorder_window(reorder), SECOND, 10 * SECOND);
    reorder_free(reorder);
}

static void spread_events_of_a_second_have_equal_distances(void **state) {
    (void)state;
    struct reorder *reorder = begin(1024 * 1024, true);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(add(reorder, NOW, true, i, 8));
    assert_true(add(reorder, NOW + SECOND * 3 / 10, false, 9, 8)); /* its time is known */
    reorder_end(reorder);
    static const int64_t times[] = {0, 250000, 300000, 500000, 750000};
    static const uint32_t numbers[] = {0, 1, 9, 2, 3};
    assert_int_equal(seen.n, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(seen.times[i] - NOW, times[i]);
        assert_int_equal(seen.numbers[i], numbers[i]);
    }
    reorder_free(reorder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(events_of_a_window_are_released_in_order),
                                       cmocka_unit_test(an_event_behind_the_window_is_late),
                                       cmocka_unit_test(too_little_memory_makes_the_window_shorter),
                                       cmocka_unit_test(spread_events_of_a_second_have_equal_distances)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
