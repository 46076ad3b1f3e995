/* SPDX-License-Identifier: MIT
 * Calls on several buckets through the public API, on an embedded store: throttlers with several limits, calls over
 * several keys, waits, partial grants, charges, reservations and settlements. unit_local_group.c tests the store. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "client.h"

#define HOUR (3600 * STEADY_SECOND)

/* Slow limits: during a test nothing leaks. */
static const steady_limit burst = {.max_capacity = 10, .drop_recharge = HOUR, .name = "burst"};
static const steady_limit daily = {.max_capacity = 15, .drop_recharge = HOUR, .name = "daily"};

static steady_throttler *both;
static steady_part_result each[64];

static steady_throttler *throttler_of(const steady_limit *limits, size_t n, steady_throttler_options options) {
    steady_throttler *t = NULL;
    steady_message why = {.text = ""};
    if (steady_throttler_new_limits(&t, store, limits, n, &options, &why) != 0) fail_msg("%s", why.text);
    return t;
}

static int set_up(void **state) {
    const steady_limit limits[] = {burst, daily};
    client_set_up(state);
    client_open("memory:", STEADY_SECOND);
    both = throttler_of(limits, 2, (steady_throttler_options){.prefix = "p:"});
    return 0;
}

static int tear_down(void **state) {
    steady_throttler_free(&both);
    client_close();
    return client_tear_down(state);
}

static steady_result decide(steady_throttler *t, const char *key, steady_call call, steady_how how) {
    steady_result r;
    steady_message why = {.text = ""};
    how.parts = each;
    how.parts_room = COUNT(each);
    how.why = &why;
    call.how = &how;
    call.key = key;
    call.key_len = strlen(key);
    if (steady_decide_sync(t, &call, &r) != 0) fail_msg("error %d: %s", r.error, why.text);
    return r;
}

static steady_result consume(steady_throttler *t, const char *key, int64_t amount, steady_how how) {
    return decide(t, key, (steady_call){.amount = amount}, how);
}

static const steady_how plain;

static void assert_levels(const char *key, int64_t first, int64_t second) {
    decide(both, key, (steady_call){.verb = STEADY_PEEK}, plain);
    assert_int_equal(each[0].level, first);
    assert_int_equal(each[1].level, second);
}

static void limits_of_a_throttler_are_charged_together_or_not_at_all(void **state) {
    (void)state;
    steady_result r = consume(both, "k", 8, plain);
    assert_true(r.success);
    assert_int_equal(r.n_parts, 2);
    assert_int_equal(r.part, 0); /* 2 of 8 more fit; into the other one 7 of 8 */
    assert_int_equal(r.level, 8);
    assert_string_equal(each[0].name, "burst");
    assert_string_equal(each[1].name, "daily");
    assert_int_equal(each[1].granted, 8);
    r = consume(both, "k", 3, plain);
    assert_false(r.success);
    assert_int_equal(r.part, 0);
    assert_true(r.retry_after > 0);
    assert_int_equal(r.retry_after, each[0].retry_after);
    assert_true(each[1].success);
    assert_levels("k", 8, 8);
    assert_levels("other", 0, 0);
}

/* A small call has its group on the stack, a large one in memory of its own. */
static void a_call_may_have_any_number_of_keys_up_to_64(void **state) {
    (void)state;
    steady_throttler *one = throttler_of(&burst, 1, (steady_throttler_options){.prefix = "many:"});
    char keys[64][900];
    steady_part parts[64];
    for (size_t n = 1; n <= 64; n++) {
        steady_result r;
        for (size_t i = 0; i < n; i++) {
            const int len = snprintf(keys[i], sizeof keys[i], "%0*zu:%zu", n % 2 == 0 ? 800 : 1, i, n);
            parts[i] = (steady_part){.throttler = one, .key = keys[i], .key_len = (size_t)len, .amount = 7};
        }
        const steady_how how = {.parts = each, .parts_room = COUNT(each), .reserve = n % 3 == 0};
        for (int time = 0; time < 2; time++) {
            assert_int_equal(steady_consume_all_sync(parts, n, &how, &r), 0);
            assert_int_equal(r.success, time == 0);
            assert_int_equal(r.n_parts, n);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(each[i].level, 7);
            assert_int_equal(r.reservation != NULL, time == 0 && n % 3 == 0);
            steady_reservation_free(&r.reservation);
        }
    }
    steady_throttler_free(&one);
}

static void each_limit_of_a_throttler_has_its_own_amount(void **state) {
    (void)state;
    const int64_t amounts[] = {1, 12}, too_many[] = {1, 4};
    assert_true(decide(both, "k", (steady_call){.amounts = amounts}, plain).success);
    assert_levels("k", 1, 12);
    const steady_result r = decide(both, "k", (steady_call){.amounts = too_many}, plain);
    assert_false(r.success);
    assert_int_equal(r.part, 1);
    assert_levels("k", 1, 12);
}

/* PREFIX{KEY}NAME, in which %, { and } of the key are escaped. */
static void buckets_of_several_limits_have_their_documented_keys(void **state) {
    (void)state;
    steady_throttler *raw = throttler_of(&burst, 1, (steady_throttler_options){.prefix = NULL});
    steady_result r;
    consume(both, "a{b}%", 3, plain);
    const char *key = "p:{a%7Bb%7D%25}burst";
    assert_int_equal(steady_peek_sync(raw, key, strlen(key), &r), 0);
    assert_int_equal(r.level, 3);
    steady_throttler_free(&raw);
}

static void longest_key_of_several_limits_counts_its_escapes(void **state) {
    (void)state;
    char key[1024];
    steady_result r;
    memset(key, '%', sizeof key);
    const size_t room = 1024 - strlen("p:{}burst");
    assert_int_equal(steady_consume_sync(both, key, room / 3, 1, &r), 0);
    assert_int_equal(steady_consume_sync(both, key, room / 3 + 1, 1, &r), STEADY_BAD_ARGUMENT);
    memset(key, 'k', sizeof key);
    assert_int_equal(steady_consume_sync(both, key, room, 1, &r), 0);
    assert_int_equal(steady_consume_sync(both, key, room + 1, 1, &r), STEADY_BAD_ARGUMENT);
}

static void limit_without_a_name_is_named_by_its_period(void **state) {
    (void)state;
    const steady_limit limits[] = {{.max_capacity = 10, .drop_recharge = STEADY_SECOND, .drops = 10},
                                   {.max_capacity = 100, .drop_recharge = 60 * STEADY_SECOND, .drops = 100},
                                   {.max_capacity = 1, .drop_recharge = 90 * 60 * STEADY_SECOND},
                                   {.max_capacity = 1, .drop_recharge = 1500},
                                   {.max_capacity = 1, .drop_recharge = 24 * HOUR}};
    const char *names[] = {"1s", "1m", "1h30m", "1ms500us", "1d"};
    steady_throttler *t = throttler_of(limits, COUNT(limits), (steady_throttler_options){.prefix = NULL});
    consume(t, "k", 1, plain);
    for (size_t i = 0; i < COUNT(names); i++)
        assert_string_equal(each[i].name, names[i]);
    steady_throttler_free(&t);
}

static void reset_empties_all_limits(void **state) {
    steady_result r;
    (void)state;
    consume(both, "k", 8, plain);
    assert_int_equal(steady_reset_sync(both, "k", 1, &r), 0);
    assert_true(r.success);
    assert_levels("k", 0, 0);
}

/* ---- Several keys ---- */

static void parts_of_several_throttlers_are_one_decision(void **state) {
    (void)state;
    const steady_limit wide = {.max_capacity = 100, .drop_recharge = HOUR};
    steady_throttler *all = throttler_of(&wide, 1, (steady_throttler_options){.prefix = "all:"});
    steady_part parts[] = {{.throttler = both, .key = "u", .key_len = 1, .amount = 6},
                           {.throttler = all, .key = "x", .key_len = 1, .amount = 1}};
    const steady_how how = {.parts = each, .parts_room = COUNT(each)};
    steady_result r;
    assert_int_equal(steady_consume_all_sync(parts, 2, &how, &r), 0);
    assert_true(r.success);
    assert_int_equal(r.n_parts, 3);
    assert_int_equal(each[1].part, 0);
    assert_int_equal(each[2].part, 1);
    assert_string_equal(each[2].name, "1h");
    assert_int_equal(steady_consume_all_sync(parts, 2, &how, &r), 0);
    assert_false(r.success);
    assert_int_equal(r.part, 0);
    assert_int_equal(each[2].level, 1); /* nothing was charged */
    parts[0].kind = STEADY_SHADOW;
    assert_int_equal(steady_consume_all_sync(parts, 2, &how, &r), 0);
    assert_true(r.success);
    assert_false(each[0].success);
    assert_true(each[1].success); /* daily: 12 of 15 */
    assert_int_equal(each[2].level, 2);
    parts[0].kind = STEADY_LOOK;
    parts[0].amount = 4;
    assert_int_equal(steady_peek_all_sync(parts, 2, &how, &r), 0);
    assert_false(r.success); /* daily has room for 3 */
    assert_int_equal(r.part, 1);
    parts[0].amount = 3;
    assert_int_equal(steady_peek_all_sync(parts, 2, &how, &r), 0);
    assert_true(r.success);
    assert_levels("u", 6, 12);
    steady_throttler_free(&all);
}

struct answer {
    int count;
    bool success;
    size_t n_parts;
    int64_t level[3];
    steady_reservation *reservation;
};

static void keep(const steady_result *result, void *data) {
    struct answer *a = data;
    a->count++;
    a->success = result->success;
    a->n_parts = result->n_parts;
    for (size_t i = 0; i < result->n_parts && i < 3; i++)
        a->level[i] = result->parts[i].level;
    a->reservation = result->reservation;
}

static void asynchronous_call_lists_its_parts_in_the_callback(void **state) {
    struct answer a = {0};
    uint64_t id = 0;
    (void)state;
    const steady_part part = {.throttler = both, .key = "k", .key_len = 1, .amount = 2};
    const steady_how how = {.reserve = true};
    assert_int_equal(steady_consume_all(&part, 1, &how, keep, &a, &id), 0);
    assert_true(id != 0);
    assert_int_equal(a.count, 0);
    run_for(poller, 10 * MS);
    assert_int_equal(a.count, 1);
    assert_true(a.success);
    assert_int_equal(a.n_parts, 2);
    assert_int_equal(a.level[0], 2);
    assert_int_equal(a.level[1], 2);
    steady_throttler *throttlers[] = {both};
    struct answer settled = {0};
    const steady_settlement s = {.reservation = a.reservation, .throttlers = throttlers, .n_throttlers = 1};
    assert_int_equal(steady_settle(&s, keep, &settled, NULL), 0);
    steady_reservation_free(&a.reservation); /* the settle in flight has its own reference */
    run_for(poller, 10 * MS);
    assert_int_equal(settled.count, 1);
    assert_levels("k", 0, 0);
}

/* The log of memory: freed throttlers, cancelled and closed calls. Run under AddressSanitizer. */
static void group_in_flight_outlives_its_throttler_and_is_cancelled_with_the_store(void **state) {
    struct answer a = {0}, b = {0};
    uint64_t id = 0;
    (void)state;
    const steady_part part = {.throttler = both, .key = "k", .key_len = 1, .amount = 1};
    const steady_how how = {.reserve = true};
    assert_int_equal(steady_consume_all(&part, 1, &how, keep, &a, &id), 0);
    assert_int_equal(steady_cancel(both, id), 0);
    assert_int_equal(steady_consume_all(&part, 1, &how, keep, &a, NULL), 0);
    assert_int_equal(steady_peek_all(&part, 1, NULL, keep, &b, NULL), 0);
    steady_throttler_free(&both);
    client_close();
    assert_int_equal(a.count, 1);
    assert_int_equal(b.count, 1);
    assert_false(a.success);
    assert_null(a.reservation);
}

/* ---- Waiting ---- */

static void call_with_a_wait_takes_a_place_in_line(void **state) {
    (void)state;
    const steady_how patient = {.max_wait = 10 * HOUR};
    assert_int_equal(consume(both, "k", 10, plain).must_wait, 0);
    const steady_result first = consume(both, "k", 1, patient), second = consume(both, "k", 1, patient);
    assert_true(first.success && second.success);
    assert_true(first.must_wait > HOUR - STEADY_SECOND && first.must_wait <= HOUR);
    assert_true(second.must_wait > 2 * HOUR - STEADY_SECOND && second.must_wait <= 2 * HOUR);
    assert_false(consume(both, "k", 1, plain).success); /* a call that does not wait is denied meanwhile */
    const steady_result late = consume(both, "k", 1, (steady_how){.max_wait = 2 * HOUR});
    assert_false(late.success);
    assert_int_equal(late.must_wait, 0);
    assert_true(late.retry_after > HOUR - STEADY_SECOND && late.retry_after <= HOUR);
}

static void max_ahead_bounds_the_queue(void **state) {
    (void)state;
    steady_throttler *t = throttler_of(&burst, 1, (steady_throttler_options){.prefix = "q:", .max_ahead = 2 * HOUR});
    const steady_how patient = {.max_wait = INT64_C(1) << 52};
    assert_true(consume(t, "k", 12, patient).success);
    assert_false(consume(t, "k", 1, patient).success);
    steady_throttler_free(&t);
    steady_message why = {.text = ""};
    const steady_throttler_options below = {.max_ahead = -1}, above = {.max_ahead = (INT64_C(1) << 52) + 1};
    assert_int_equal(steady_throttler_new(&t, store, &burst, &below, &why), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "max_ahead is -1 us; it must be 0 .. 4503599627370496 us (2^52)");
    assert_int_equal(steady_throttler_new(&t, store, &burst, &above, &why), STEADY_BAD_ARGUMENT);
}

static void clamped_amount_counts_as_the_capacity(void **state) {
    steady_result r;
    (void)state;
    const steady_limit limits[] = {burst, daily};
    steady_throttler *one = throttler_of(&burst, 1, (steady_throttler_options){.prefix = "c:", .clamp = true});
    steady_throttler *two = throttler_of(limits, 2, (steady_throttler_options){.prefix = "d:", .clamp = true});
    assert_int_equal(steady_consume_sync(one, "k", 1, 11, &r), 0);
    assert_true(r.success);
    assert_int_equal(r.granted, 10);
    assert_false(consume(both, "k", 11, plain).success);
    assert_true(consume(two, "k", 100, plain).success);
    assert_int_equal(each[0].granted, 10);
    assert_int_equal(each[1].granted, 15);
    assert_true(consume(two, "l", 100, (steady_how){.at_least = 50}).success);
    assert_int_equal(each[0].granted, 10);
    assert_int_equal(each[1].granted, 10);
    steady_throttler_free(&one);
    steady_throttler_free(&two);
}

static void as_much_as_fits_is_the_same_in_all_limits(void **state) {
    (void)state;
    consume(both, "k", 7, plain);
    const steady_result r = consume(both, "k", 9, (steady_how){.at_least = 2});
    assert_true(r.success);
    assert_int_equal(r.granted, 3);
    assert_int_equal(each[1].granted, 3);
    assert_levels("k", 10, 10);
    assert_false(consume(both, "k", 9, (steady_how){.at_least = 1}).success);
}

static void charge_goes_in_whatever_the_level(void **state) {
    steady_result r;
    (void)state;
    assert_int_equal(steady_charge_sync(both, "k", 1, 40, &r), 0);
    assert_true(r.success);
    assert_levels("k", 40, 40);
    assert_int_equal(steady_charge_sync(throttler, "k", 1, 12, &r), 0); /* of one limit */
    assert_int_equal(r.granted, 12);
    assert_int_equal(r.level, 12);
    assert_int_equal(steady_charge_sync(throttler, "k", 1, -1, &r), STEADY_BAD_ARGUMENT);
    struct answer a = {0};
    assert_int_equal(steady_charge(throttler, "k", 1, 1, keep, &a), 0);
    run_for(poller, 10 * MS);
    assert_int_equal(a.level[0], 13);
}

/* ---- Reserve, then settle ---- */

static steady_reservation *reserve(steady_throttler *t, const char *key, int64_t amount) {
    const steady_result r = consume(t, key, amount, (steady_how){.reserve = true});
    assert_true(r.success);
    assert_non_null(r.reservation);
    return r.reservation;
}

static int settle(steady_reservation *reservation, int64_t actual, const int64_t *actuals, steady_result *r) {
    steady_throttler *throttlers[] = {throttler, both};
    const steady_settlement s = {
        .reservation = reservation, .actual = actual, .actuals = actuals, .throttlers = throttlers, .n_throttlers = 2};
    return steady_settle_sync(&s, r);
}

static void settlement_corrects_each_limit(void **state) {
    steady_result r;
    (void)state;
    steady_reservation *reservation = reserve(both, "k", 8);
    const int64_t actuals[] = {2, -1};
    assert_int_equal(settle(reservation, 0, actuals, &r), 0);
    assert_int_equal(r.n_parts, 1);
    assert_levels("k", 2, 8);
    steady_reservation_free(&reservation);
    reservation = reserve(both, "l", 8);
    const int64_t more[] = {20, 8};
    assert_int_equal(settle(reservation, 0, more, &r), 0);
    assert_levels("l", 20, 8);
    steady_reservation_free(&reservation);
}

static void reservation_is_settled_once(void **state) {
    steady_result r;
    (void)state;
    steady_reservation *reservation = reserve(both, "k", 8);
    assert_int_equal(settle(reservation, 3, NULL, &r), 0);
    assert_int_equal(settle(reservation, 3, NULL, &r), STEADY_BAD_ARGUMENT);
    assert_levels("k", 3, 3);
    steady_reservation_free(&reservation);
}

static void reservation_travels_as_text(void **state) {
    char text[512];
    steady_result r;
    steady_message why = {.text = ""};
    (void)state;
    steady_reservation *reservation = reserve(both, "user {42}\n", 8), *there = NULL;
    assert_true(steady_reservation_text(reservation, text, sizeof text) < sizeof text);
    steady_reservation_free(&reservation);
    for (const char *c = text; *c != '\0'; c++)
        assert_true(*c > ' ' && *c <= '~');
    if (steady_reservation_parse(&there, text, &why) != 0) fail_msg("%s", why.text);
    assert_int_equal(settle(there, 0, NULL, &r), 0);
    assert_levels("user {42}\n", 0, 0);
    steady_reservation_free(&there);
}

static void denied_call_and_peek_make_no_reservation(void **state) {
    (void)state;
    const steady_how how = {.reserve = true};
    assert_null(consume(both, "k", 11, how).reservation);
    assert_null(decide(both, "k", (steady_call){.verb = STEADY_PEEK, .amount = 1}, how).reservation);
    assert_levels("k", 0, 0);
}

static void limit_that_leaks_at_another_rate_today_gives_nothing_back(void **state) {
    steady_result r;
    (void)state;
    const steady_limit faster = {.max_capacity = 10, .drop_recharge = HOUR / 2, .name = "burst"};
    const steady_limit limits[] = {faster, daily};
    steady_reservation *reservation = reserve(both, "k", 8);
    steady_throttler *today = throttler_of(limits, 2, (steady_throttler_options){.prefix = "p:"});
    const steady_settlement s = {.reservation = reservation, .throttlers = &today, .n_throttlers = 1};
    assert_int_equal(steady_settle_sync(&s, &r), 0);
    decide(today, "k", (steady_call){.verb = STEADY_PEEK}, plain);
    assert_int_equal(each[0].level, 8);
    assert_int_equal(each[1].level, 0);
    steady_throttler_free(&today);
    steady_reservation_free(&reservation);
}

static void reservation_of_another_throttler_is_refused(void **state) {
    steady_result r;
    (void)state;
    steady_throttler *other = throttler_of(&burst, 1, (steady_throttler_options){.prefix = "z:"});
    steady_reservation *reservation = reserve(other, "k", 8);
    assert_int_equal(settle(reservation, 0, NULL, &r), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_peek_sync(other, "k", 1, &r), 0);
    assert_int_equal(r.level, 8);
    steady_throttler_free(&other);
    steady_reservation_free(&reservation);
}

/* Throttlers with one prefix are told apart by the names and rates of their limits. */
static void reservation_is_settled_with_the_limit_that_made_it(void **state) {
    steady_result r;
    (void)state;
    const steady_limit fast = {.max_capacity = 100, .drop_recharge = STEADY_MILLISECOND, .name = "fast"};
    const steady_limit slow = {.max_capacity = 100, .drop_recharge = HOUR, .name = "slow"};
    const steady_limit slower = {.max_capacity = 100, .drop_recharge = 2 * HOUR, .name = "slow"};
    steady_throttler *f = throttler_of(&fast, 1, (steady_throttler_options){.prefix = NULL});
    steady_throttler *s = throttler_of(&slow, 1, (steady_throttler_options){.prefix = NULL});
    steady_throttler *t = throttler_of(&slower, 1, (steady_throttler_options){.prefix = NULL});
    steady_throttler *orders[][3] = {{f, s, t}, {t, s, f}, {s, f, t}, {f, t, s}};
    for (size_t i = 0; i < COUNT(orders); i++) {
        char key[] = {'k', (char)('0' + i), '\0'};
        assert_true(consume(s, key, 20, plain).success);
        steady_reservation *reservation = reserve(s, key, 60);
        const steady_settlement settlement = {
            .reservation = reservation, .actual = 10, .throttlers = orders[i], .n_throttlers = 3};
        assert_int_equal(steady_settle_sync(&settlement, &r), 0);
        assert_int_equal(steady_peek_sync(s, key, 2, &r), 0);
        assert_int_equal(r.level, 30);
        steady_reservation_free(&reservation);
    }
    steady_throttler_free(&f);
    steady_throttler_free(&s);
    steady_throttler_free(&t);
}

/* The drops there are those of others. */
static void reservation_of_another_embedded_store_gives_nothing_back(void **state) {
    steady_result r;
    (void)state;
    steady_store *elsewhere = NULL;
    steady_throttler *there = NULL;
    assert_int_equal(steady_store_open(&elsewhere, "memory:", NULL, NULL), 0);
    assert_int_equal(steady_throttler_new(&there, elsewhere, &burst, NULL, NULL), 0);
    steady_throttler *here = throttler_of(&burst, 1, (steady_throttler_options){.prefix = NULL});
    steady_reservation *reservation = reserve(here, "k", 8);
    assert_int_equal(steady_consume_sync(there, "k", 1, 8, &r), 0);
    const steady_settlement settlement = {.reservation = reservation, .throttlers = &there, .n_throttlers = 1};
    assert_int_equal(steady_settle_sync(&settlement, &r), 0);
    assert_int_equal(steady_peek_sync(there, "k", 1, &r), 0);
    assert_int_equal(r.level, 8);
    steady_reservation_free(&reservation);
    steady_throttler_free(&here);
    steady_throttler_free(&there);
    steady_store_close(&elsewhere);
}

static void clamped_reservation_has_one_actual_for_all_limits(void **state) {
    steady_result r;
    (void)state;
    const steady_limit limits[] = {burst, daily};
    steady_throttler *t = throttler_of(limits, 2, (steady_throttler_options){.prefix = "c:", .clamp = true});
    steady_reservation *reservation = reserve(t, "k", 12);
    assert_int_equal(steady_reservation_parts(reservation, NULL)[0].amount, 12);
    assert_int_equal(steady_reservation_parts(reservation, NULL)[0].granted, 10);
    const steady_settlement settlement = {.reservation = reservation, .actual = 3, .throttlers = &t, .n_throttlers = 1};
    assert_int_equal(steady_settle_sync(&settlement, &r), 0);
    decide(t, "k", (steady_call){.verb = STEADY_PEEK}, plain);
    assert_int_equal(each[0].level, 3);
    assert_int_equal(each[1].level, 3);
    steady_reservation_free(&reservation);
    steady_throttler_free(&t);
}

static void *consume_until_closed(void *arg) {
    steady_throttler *t = arg;
    steady_result r;
    while (steady_consume_sync(t, "k", 1, 1, &r) != STEADY_CLOSED)
        continue;
    return NULL;
}

/* A pool may be closed while other threads are in calls; an embedded one, too. */
static void embedded_pool_is_closed_while_threads_call(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        steady_store *pool = NULL;
        steady_throttler *t = NULL;
        pthread_t threads[2];
        assert_int_equal(steady_pool_open(&pool, "memory:", 0, NULL, NULL), 0);
        assert_int_equal(steady_throttler_new(&t, pool, &burst, NULL, NULL), 0);
        for (size_t k = 0; k < COUNT(threads); k++)
            assert_int_equal(pthread_create(&threads[k], NULL, consume_until_closed, t), 0);
        sleep_us(2 * MS);
        steady_store_close(&pool);
        for (size_t k = 0; k < COUNT(threads); k++)
            pthread_join(threads[k], NULL);
        steady_throttler_free(&t);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(limits_of_a_throttler_are_charged_together_or_not_at_all),
        TEST(a_call_may_have_any_number_of_keys_up_to_64),
        TEST(each_limit_of_a_throttler_has_its_own_amount),
        TEST(buckets_of_several_limits_have_their_documented_keys),
        TEST(longest_key_of_several_limits_counts_its_escapes),
        TEST(limit_without_a_name_is_named_by_its_period),
        TEST(reset_empties_all_limits),
        TEST(parts_of_several_throttlers_are_one_decision),
        TEST(asynchronous_call_lists_its_parts_in_the_callback),
        TEST(group_in_flight_outlives_its_throttler_and_is_cancelled_with_the_store),
        TEST(call_with_a_wait_takes_a_place_in_line),
        TEST(max_ahead_bounds_the_queue),
        TEST(clamped_amount_counts_as_the_capacity),
        TEST(as_much_as_fits_is_the_same_in_all_limits),
        TEST(charge_goes_in_whatever_the_level),
        TEST(settlement_corrects_each_limit),
        TEST(reservation_is_settled_once),
        TEST(reservation_travels_as_text),
        TEST(denied_call_and_peek_make_no_reservation),
        TEST(limit_that_leaks_at_another_rate_today_gives_nothing_back),
        TEST(reservation_of_another_throttler_is_refused),
        TEST(reservation_is_settled_with_the_limit_that_made_it),
        TEST(reservation_of_another_embedded_store_gives_nothing_back),
        TEST(clamped_reservation_has_one_actual_for_all_limits),
        TEST(embedded_pool_is_closed_while_threads_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
