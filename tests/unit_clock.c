/* SPDX-License-Identifier: MIT
 * The option `clock` of a store: the time of the buckets is that of the test. */
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "steady.h"
#include "steady/client.h"

#define VECTORS "tests/vectors/bucket.jsonl"
#define YEAR (365 * 24 * 3600 * STEADY_SECOND)

static _Atomic steady_us now;
static atomic_uint reads;

static steady_us read_now(void *data) {
    assert_ptr_equal(data, &now);
    atomic_fetch_add(&reads, 1);
    return now;
}

static const steady_limit two = {.max_capacity = 2, .drop_recharge = 10 * STEADY_SECOND};

static struct scene {
    steady_store *store;
    steady_throttler *throttler;
    steady_result r;
} scene;

static void open_at(steady_us time, const steady_limit *limit, const steady_loop *loop) {
    const steady_store_options options = {.loop = loop, .buckets = 64, .clock = read_now, .clock_data = &now};
    now = time;
    assert_int_equal(steady_store_open(&scene.store, "memory:", &options, NULL), 0);
    assert_int_equal(steady_throttler_new(&scene.throttler, scene.store, limit, NULL, NULL), 0);
}

static void shut(void) {
    steady_throttler_free(&scene.throttler);
    steady_store_close(&scene.store);
}

static bool consume(int64_t amount) {
    assert_int_equal(steady_consume_sync(scene.throttler, "key", 3, amount, &scene.r), 0);
    return scene.r.success;
}

static uint64_t clock_steps(void) {
    steady_stats stats;
    steady_store_stats(scene.store, &stats);
    return stats.clock_steps;
}

/* ---- Decisions ---- */

static void time_passes_only_if_the_clock_moves(void **state) {
    static const steady_us starts[] = {0, 1764000000 * STEADY_SECOND, -5 * YEAR, INT64_MAX - YEAR, INT64_MIN + YEAR};
    (void)state;
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        open_at(starts[i], &two, NULL);
        assert_true(consume(2));
        assert_int_equal(scene.r.until_next_drop, 10 * STEADY_SECOND);
        assert_false(consume(1));
        assert_int_equal(scene.r.retry_after, 10 * STEADY_SECOND);
        now += 10 * STEADY_SECOND - 1;
        assert_false(consume(1));
        assert_int_equal(scene.r.retry_after, 1);
        now += 1;
        assert_true(consume(1));
        assert_int_equal(scene.r.level, 2);
        assert_int_equal(clock_steps(), 0);
        shut();
    }
}

static void clock_that_goes_back_is_a_step_and_gives_no_room(void **state) {
    (void)state;
    open_at(YEAR, &two, NULL);
    assert_true(consume(2));
    now = 0;
    assert_false(consume(1));
    assert_int_equal(scene.r.retry_after, 10 * STEADY_SECOND);
    assert_int_equal(clock_steps(), 1);
    now = 10 * STEADY_SECOND;
    assert_true(consume(1));
    shut();
}

/* 2^49 us before and after the opening. */
static void time_out_of_range_counts_as_the_last_one_within(void **state) {
    static const steady_us far[] = {INT64_C(1) << 49, INT64_MAX};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        open_at(0, &two, NULL);
        now = far[i] - 1;
        if (i == 0) assert_true(consume(2)); /* the last time but one */
        now = far[i];
        assert_int_equal(consume(2), i == 1);
        assert_int_equal(scene.r.until_next_drop, 10 * STEADY_SECOND);
        shut();
        open_at(0, &two, NULL);
        now = -far[i] - 1;
        assert_true(consume(2));
        now += STEADY_SECOND;
        assert_int_equal(consume(0), true);
        assert_int_equal(scene.r.until_next_drop, (i == 0 ? 9 : 10) * STEADY_SECOND + (i == 0));
        shut();
    }
}

static void time_before_the_first_of_all_does_not_overflow(void **state) {
    (void)state;
    for (steady_us opened = 1; opened < 3; opened++) {
        open_at(opened, &two, NULL);
        now = INT64_MIN;
        assert_true(consume(2));
        now = INT64_MIN + STEADY_SECOND;
        assert_true(consume(0));
        assert_int_equal(scene.r.until_next_drop, 10 * STEADY_SECOND);
        now = opened;
        assert_true(consume(2));
        shut();
    }
}

static void block_ends_when_the_clock_says_so(void **state) {
    const steady_limit blocks = {
        .max_capacity = 1, .drop_recharge = STEADY_SECOND, .block_duration = 60 * STEADY_SECOND};
    (void)state;
    open_at(0, &blocks, NULL);
    assert_true(consume(1));
    assert_false(consume(1));
    now = 60 * STEADY_SECOND - 1;
    assert_false(consume(1));
    assert_int_equal(scene.r.blocked_for, 1);
    now++;
    assert_true(consume(1));
    shut();
}

static void reset_at_a_set_time_empties_the_bucket(void **state) {
    (void)state;
    open_at(0, &two, NULL);
    assert_true(consume(2));
    assert_int_equal(steady_reset_sync(scene.throttler, "key", 3, &scene.r), 0);
    assert_true(consume(2));
    shut();
}

/* ---- Options of a call ---- */

static void place_in_line_counts_by_the_clock(void **state) {
    const steady_how how = {.max_wait = 60 * STEADY_SECOND};
    const steady_call call = {.key = "key", .key_len = 3, .amount = 1, .how = &how};
    (void)state;
    open_at(0, &two, NULL);
    assert_true(consume(2));
    now = 4 * STEADY_SECOND;
    for (int place = 1; place <= 6; place++) {
        assert_int_equal(steady_decide_sync(scene.throttler, &call, &scene.r), 0);
        assert_true(scene.r.success);
        assert_int_equal(scene.r.must_wait, (10 * place - 4) * STEADY_SECOND);
    }
    assert_int_equal(steady_decide_sync(scene.throttler, &call, &scene.r), 0);
    assert_false(scene.r.success);
    shut();
}

static void reservation_gives_back_what_has_not_leaked_by_the_clock(void **state) {
    steady_part_result parts[1] = {{0}};
    const steady_how how = {.reserve = true};
    const steady_call call = {.key = "key", .key_len = 3, .amount = 2, .how = &how};
    (void)state;
    open_at(1764000000 * STEADY_SECOND, &two, NULL);
    assert_int_equal(steady_decide_sync(scene.throttler, &call, &scene.r), 0);
    steady_reservation *reservation = scene.r.reservation;
    size_t n = 0;
    assert_int_equal(steady_reservation_parts(reservation, &n)[0].moment, INT64_C(1) << 49);
    now += 5 * STEADY_SECOND;
    const steady_settlement settlement = {
        .reservation = reservation, .throttlers = &scene.throttler, .n_throttlers = 1, .parts = parts, .parts_room = 1};
    assert_int_equal(steady_settle_sync(&settlement, &scene.r), 0);
    assert_int_equal(parts[0].given_back, 15 * STEADY_SECOND); /* in 1/drops us: one and a half drops */
    assert_int_equal(parts[0].level, 0);
    steady_reservation_free(&reservation);
    shut();
}

static void call_on_two_keys_counts_by_the_clock(void **state) {
    steady_part parts[2];
    (void)state;
    open_at(0, &two, NULL);
    for (int i = 0; i < 2; i++)
        parts[i] = (steady_part){.throttler = scene.throttler, .key = i == 0 ? "a" : "b", .key_len = 1, .amount = 2};
    assert_int_equal(steady_consume_all_sync(parts, 2, NULL, &scene.r), 0);
    assert_true(scene.r.success);
    now = 20 * STEADY_SECOND - 1;
    assert_int_equal(steady_consume_all_sync(parts, 2, NULL, &scene.r), 0);
    assert_int_equal(scene.r.retry_after, 1);
    now++;
    assert_int_equal(steady_consume_all_sync(parts, 2, NULL, &scene.r), 0);
    assert_true(scene.r.success);
    shut();
}

/* ---- The asynchronous calls ---- */

static void keep(const steady_result *result, void *data) { *(steady_result *)data = *result; }

static void callback_comes_although_the_clock_stands_still(void **state) {
    steady_poller *poller = NULL;
    steady_result r = {.error = 1};
    (void)state;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    open_at(0, &two, &loop);
    assert_int_equal(steady_consume(scene.throttler, "key", 3, 1, keep, &r), 0);
    while (r.error == 1)
        steady_poller_run(poller, STEADY_SECOND);
    assert_int_equal(r.error, 0);
    assert_true(r.success);
    shut();
    steady_poller_free(&poller);
}

/* ---- Threads ---- */

#define THREADS 4
#define DECISIONS 20000

static atomic_uint admitted;

static void *consume_often(void *arg) {
    steady_result r;
    (void)arg;
    for (int i = 0; i < DECISIONS; i++)
        if (steady_consume_sync(scene.throttler, "key", 3, 1, &r) == 0 && r.success) atomic_fetch_add(&admitted, 1);
    return NULL;
}

static steady_us tick(void *data) { return atomic_fetch_add((_Atomic steady_us *)data, 1) + 1; }

/* Each read moves the clock. So a thread often meets a bucket that another thread has written at a later time: that is
 * no step. The threads admit the capacity and what has leaked. */
static void threads_admit_what_the_clock_allows(void **state) {
    const steady_limit quick = {.max_capacity = 2, .drop_recharge = 4};
    const steady_store_options options = {.buckets = 64, .clock = tick, .clock_data = &now};
    pthread_t threads[THREADS];
    (void)state;
    now = 0;
    assert_int_equal(steady_store_open(&scene.store, "memory:", &options, NULL), 0);
    assert_int_equal(steady_throttler_new(&scene.throttler, scene.store, &quick, NULL, NULL), 0);
    admitted = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, consume_often, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(now > THREADS * DECISIONS);
    assert_between(admitted, THREADS * DECISIONS / 5, 2 + now / 4);
    assert_int_equal(clock_steps(), 0);
    shut();
}

/* ---- Vectors ---- */

static int64_t number(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_boolean(value) ? json_is_true(value) : json_integer_value(value);
}

static void run_step(const json_t *step) {
    static const char *const names[] = {"success", "level", "until_next_drop", "blocked_for", "retry_after"};
    const steady_limit limit = {.max_capacity = number(step, "capacity"),
                                .drop_recharge = number(step, "recharge"),
                                .drops = number(step, "drops"),
                                .block_duration = number(step, "block")};
    const bool peek = strcmp(json_string_value(json_object_get(step, "op")), "peek") == 0;
    steady_result *r = &scene.r;
    steady_throttler_free(&scene.throttler);
    assert_int_equal(steady_throttler_new(&scene.throttler, scene.store, &limit, NULL, NULL), 0);
    now = number(step, "now");
    if (peek)
        assert_int_equal(steady_peek_sync(scene.throttler, "key", 3, r), 0);
    else
        consume(number(step, "amount"));
    const int64_t got[] = {r->success, r->level, r->until_next_drop, r->blocked_for, r->retry_after};
    for (size_t i = 0; i < 5; i++) {
        const int64_t expected = number(json_object_get(step, "expect"), names[i]);
        if (got[i] != expected)
            fail_msg("%s is %lld, expected %lld: %s", names[i], (long long)got[i], (long long)expected,
                     json_dumps(step, JSON_COMPACT));
    }
    /* A server deletes a bucket that is empty. A table keeps it, and if the clock steps back, it is not over again. */
    if (json_is_null(json_object_get(step, "stored")))
        assert_int_equal(steady_reset_sync(scene.throttler, "key", 3, r), 0);
}

static bool is_in_lowest_terms(const json_t *step) {
    int64_t a = number(step, "recharge"), b = number(step, "drops");
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a == 1;
}

/* False: it lasts longer than the range of a store. Or its rates change, and a throttler reduces one of them to lowest
 * terms: then the fraction in a bucket has another unit. */
static bool can_run(const json_t *steps) {
    const json_t *first = json_array_get(steps, 0);
    bool reduced = false, changed = false;
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *step = json_array_get(steps, i);
        if (llabs(number(step, "now") - number(first, "now")) >= (INT64_C(1) << 49)) return false;
        reduced |= !is_in_lowest_terms(step);
        changed |=
            number(step, "recharge") != number(first, "recharge") || number(step, "drops") != number(first, "drops");
    }
    return !reduced || !changed;
}

/* In a store that is opened at the first step. */
static bool run_sequence(const json_t *steps) {
    if (!can_run(steps)) return false;
    open_at(number(json_array_get(steps, 0), "now"), &two, NULL);
    for (size_t i = 0; i < json_array_size(steps); i++)
        run_step(json_array_get(steps, i));
    shut();
    return true;
}

static void decisions_are_those_of_the_vectors(void **state) {
    static char line[1 << 20];
    unsigned run = 0, left_out = 0;
    FILE *file = fopen(VECTORS, "r");
    (void)state;
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        json_t *sequence = json_loads(line, 0, NULL);
        assert_non_null(sequence);
        if (run_sequence(json_object_get(sequence, "steps")))
            run++;
        else
            left_out++;
        json_decref(sequence);
    }
    fclose(file);
    print_message("# %u sequences, %u left out\n", run, left_out);
    assert_true(run >= 250);
}

/* ---- Stores that have a clock of their own ---- */

static int never_sends(void *client, const char *command, size_t len, steady_client_request *request,
                       steady_message *why) {
    (void)client, (void)command, (void)len, (void)request, (void)why;
    fail();
    return STEADY_UNAVAILABLE;
}

static void never_detaches(void *client) { (void)client; }

static void other_stores_refuse_a_clock_and_say_why(void **state) {
    static const struct {
        const char *url, *says;
    } stores[] = {{"file:/tmp/steady-unit-clock-never-made", "other processes use the buckets of file:"},
                  {"redis://127.0.0.1:1", "a server uses a clock of its own"},
                  {"unix:/tmp/none", "a server"},
                  {"redis+sentinel://127.0.0.1:1/main", "a server"}};
    const steady_store_options options = {.clock = read_now, .clock_data = &now};
    steady_message why;
    (void)state;
    reads = 0;
    for (size_t i = 0; i < sizeof stores / sizeof stores[0]; i++) {
        steady_store *store = (steady_store *)(uintptr_t)1;
        why.text[0] = '\0';
        assert_int_equal(steady_store_open(&store, stores[i].url, &options, &why), STEADY_BAD_ARGUMENT);
        assert_null(store);
        if (strstr(why.text, stores[i].says) == NULL) fail_msg("%s: %s", stores[i].url, why.text);
        assert_int_equal(steady_pool_open(&store, stores[i].url, 2, &options, &why), STEADY_BAD_ARGUMENT);
    }
    const steady_client_ops ops = {.name = "a client", .send = never_sends, .detach = never_detaches};
    steady_poller *poller = NULL;
    steady_store *store = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    const steady_store_options with_loop = {.loop = &loop, .clock = read_now, .clock_data = &now};
    assert_int_equal(steady_store_open_client(&store, &ops, NULL, &with_loop, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "the server of a client uses a clock of its own"));
    const steady_store_options with_memory = {.loop = &loop, .deny_memory = STEADY_SECOND};
    assert_int_equal(steady_store_open_client(&store, &ops, NULL, &with_memory, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "only stores of a URL have a memory"));
    const steady_store_options with_leases = {.loop = &loop, .lease_age = STEADY_SECOND};
    assert_int_equal(steady_store_open_client(&store, &ops, NULL, &with_leases, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "only stores of a URL have leases"));
    steady_poller_free(&poller);
    assert_int_equal(reads, 0);
}

static void pool_in_memory_takes_a_clock(void **state) {
    const steady_store_options options = {.clock = read_now, .clock_data = &now};
    (void)state;
    now = 0;
    assert_int_equal(steady_pool_open(&scene.store, "memory:", 0, &options, NULL), 0);
    assert_int_equal(steady_throttler_new(&scene.throttler, scene.store, &two, NULL, NULL), 0);
    assert_true(consume(2));
    now = 10 * STEADY_SECOND;
    assert_true(consume(1));
    shut();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_passes_only_if_the_clock_moves),
        cmocka_unit_test(clock_that_goes_back_is_a_step_and_gives_no_room),
        cmocka_unit_test(time_out_of_range_counts_as_the_last_one_within),
        cmocka_unit_test(time_before_the_first_of_all_does_not_overflow),
        cmocka_unit_test(block_ends_when_the_clock_says_so),
        cmocka_unit_test(reset_at_a_set_time_empties_the_bucket),
        cmocka_unit_test(place_in_line_counts_by_the_clock),
        cmocka_unit_test(reservation_gives_back_what_has_not_leaked_by_the_clock),
        cmocka_unit_test(call_on_two_keys_counts_by_the_clock),
        cmocka_unit_test(callback_comes_although_the_clock_stands_still),
        cmocka_unit_test(threads_admit_what_the_clock_allows),
        cmocka_unit_test(decisions_are_those_of_the_vectors),
        cmocka_unit_test(other_stores_refuse_a_clock_and_say_why),
        cmocka_unit_test(pool_in_memory_takes_a_clock),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
