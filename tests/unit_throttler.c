/* SPDX-License-Identifier: MIT
 * What a throttler adds to a store: the prefix, and the policy for decisions without a verdict. The store that does not
 * answer is a Redis store without a server. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "assertions.h"
#include "last_error.h"
#include "steady.h"

#define NO_SERVER "unix:/nonexistent/steady.sock"

static const steady_limit hundred = {.max_capacity = 100, .drop_recharge = 3600 * STEADY_SECOND};

struct pair {
    steady_store *store;
    steady_throttler *throttler;
};

static struct pair open_pair(const char *url, const steady_limit *limit, const steady_throttler_options *options) {
    struct pair p = {NULL, NULL};
    assert_int_equal(steady_store_open(&p.store, url, NULL, NULL), 0);
    assert_int_equal(steady_throttler_new(&p.throttler, p.store, limit, options, NULL), 0);
    return p;
}

static void close_pair(struct pair *p) {
    steady_throttler_free(&p->throttler);
    steady_store_close(&p->store);
}

static void report_policy_returns_the_error(void **state) {
    (void)state;
    steady_result r;
    struct pair p = open_pair(NO_SERVER, &hundred, NULL);
    assert_int_equal(steady_consume_sync(p.throttler, "k", 1, 1, &r), STEADY_UNAVAILABLE);
    assert_int_equal(r.error, STEADY_UNAVAILABLE);
    assert_int_equal(r.source, STEADY_FROM_NOWHERE);
    assert_true(!r.success && r.level == 0 && r.until_next_drop == 0 && r.blocked_for == 0 && r.retry_after == 0);
    assert_true(strlen(last_error_of(p.store)) > 0);
    close_pair(&p);
}

static void deny_and_allow_policies_answer_without_the_store(void **state) {
    (void)state;
    static const enum steady_policy policies[] = {STEADY_DENY, STEADY_ALLOW};
    static const steady_us retry_after[] = {STEADY_SECOND, 0};
    for (int i = 0; i < 2; i++) {
        steady_result r;
        struct pair p = open_pair(NO_SERVER, &hundred, &(steady_throttler_options){.on_error = policies[i]});
        assert_int_equal(steady_consume_sync(p.throttler, "k", 1, 1, &r), 0);
        assert_int_equal(r.success, policies[i] == STEADY_ALLOW);
        assert_int_equal(r.source, STEADY_FROM_POLICY);
        assert_int_equal(r.error, STEADY_UNAVAILABLE);
        assert_true(r.level == 0 && r.until_next_drop == 0 && r.blocked_for == 0);
        assert_int_equal(r.retry_after, retry_after[i]);
        assert_int_equal(steady_peek_sync(p.throttler, "k", 1, &r), 0);
        assert_int_equal(r.source, STEADY_FROM_POLICY);
        assert_int_equal(r.retry_after, retry_after[i]);
        assert_int_equal(steady_consume_sync(p.throttler, "k", 1, 100, &r), 0);
        assert_int_equal(r.retry_after, retry_after[i]);
        assert_int_equal(steady_reset_sync(p.throttler, "k", 1, &r), STEADY_UNAVAILABLE);
        assert_int_equal(r.source, STEADY_FROM_NOWHERE);
        assert_int_equal(steady_consume_sync(p.throttler, "", 0, 1, &r), STEADY_BAD_ARGUMENT);
        assert_int_equal(r.source, STEADY_FROM_NOWHERE);
        close_pair(&p);
    }
}

static void deny_policy_tells_that_an_amount_over_the_capacity_never_fits(void **state) {
    (void)state;
    steady_result r;
    struct pair p = open_pair(NO_SERVER, &hundred, &(steady_throttler_options){.on_error = STEADY_DENY});
    assert_int_equal(steady_consume_sync(p.throttler, "k", 1, 101, &r), 0);
    assert_false(r.success);
    assert_int_equal(r.source, STEADY_FROM_POLICY);
    assert_int_equal(r.retry_after, -1);
    close_pair(&p);
}

/* A quarter of a capacity of a hundred, and a quarter of the rate. */
static void local_policy_allows_its_share_of_the_limit(void **state) {
    (void)state;
    steady_result r;
    struct pair p =
        open_pair(NO_SERVER, &hundred, &(steady_throttler_options){.on_error = STEADY_LOCAL, .local_share = 4});
    for (int i = 1; i <= 25; i++) {
        assert_int_equal(steady_consume_sync(p.throttler, "k", 1, 1, &r), 0);
        assert_true(r.success && r.level == i && r.source == STEADY_FROM_LOCAL && r.error == STEADY_UNAVAILABLE);
    }
    assert_int_equal(steady_consume_sync(p.throttler, "k", 1, 1, &r), 0);
    assert_false(r.success);
    assert_between(r.retry_after, 4 * 3600 * STEADY_SECOND - 60 * STEADY_SECOND, 4 * 3600 * STEADY_SECOND);
    assert_int_equal(steady_consume_sync(p.throttler, "k", 1, 26, &r), 0);
    assert_int_equal(r.retry_after, -1);
    assert_int_equal(steady_consume_sync(p.throttler, "other", 5, 1, &r), 0);
    assert_int_equal(r.level, 1);
    close_pair(&p);
}

/* Shares that cannot be that small: at least one drop, and a recharge that stays in range. */
static void smallest_local_share_still_allows_a_drop(void **state) {
    (void)state;
    const steady_limit limits[] = {{.max_capacity = 1, .drop_recharge = ((steady_us)1 << 53) - 1},
                                   {.max_capacity = INT32_MAX, .drop_recharge = 4194304},
                                   {.max_capacity = 3, .drop_recharge = 1, .drops = 1000000}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        steady_result r;
        struct pair p = open_pair(NO_SERVER, &limits[i],
                                  &(steady_throttler_options){.on_error = STEADY_LOCAL, .local_share = UINT32_MAX});
        assert_int_equal(steady_consume_sync(p.throttler, "k", 1, 1, &r), 0);
        assert_true(r.success && r.level == 1 && r.source == STEADY_FROM_LOCAL);
        close_pair(&p);
    }
}

static int answered;

static void count_answer(const steady_result *result, void *data) {
    (void)result;
    *(steady_result *)data = *result;
    answered++;
}

static void policy_holds_for_callbacks_after_the_throttler_is_freed(void **state) {
    (void)state;
    static const struct {
        enum steady_policy policy;
        enum steady_source source;
        bool success;
    } rows[] = {{STEADY_REPORT, STEADY_FROM_NOWHERE, false},
                {STEADY_DENY, STEADY_FROM_POLICY, false},
                {STEADY_ALLOW, STEADY_FROM_POLICY, true},
                {STEADY_LOCAL, STEADY_FROM_LOCAL, true}};
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pair p = {NULL, NULL};
        steady_result r = {0};
        answered = 0;
        assert_int_equal(steady_store_open(&p.store, NO_SERVER, &(steady_store_options){.loop = &loop}, NULL), 0);
        assert_int_equal(steady_throttler_new(&p.throttler, p.store, &hundred,
                                              &(steady_throttler_options){.on_error = rows[i].policy}, NULL),
                         0);
        assert_int_equal(steady_consume(p.throttler, "k", 1, 1, count_answer, &r), 0);
        steady_throttler_free(&p.throttler); /* the decision still has its policy */
        while (answered == 0)
            assert_true(steady_poller_run(poller, STEADY_SECOND) >= 0);
        assert_int_equal(r.error, STEADY_UNAVAILABLE);
        assert_int_equal(r.source, rows[i].source);
        assert_int_equal(r.success, rows[i].success);
        close_pair(&p);
        assert_int_equal(answered, 1);
    }
    steady_poller_free(&poller);
}

static void prefix_is_part_of_the_key(void **state) {
    (void)state;
    steady_result r;
    struct pair plain = open_pair("memory:", &hundred, NULL);
    steady_throttler *prefixed = NULL;
    assert_int_equal(
        steady_throttler_new(&prefixed, plain.store, &hundred, &(steady_throttler_options){.prefix = "api:"}, NULL), 0);
    assert_int_equal(steady_consume_sync(prefixed, "k", 1, 5, &r), 0);
    assert_int_equal(steady_peek_sync(plain.throttler, "k", 1, &r), 0);
    assert_int_equal(r.level, 0);
    assert_int_equal(steady_peek_sync(plain.throttler, "api:k", 5, &r), 0);
    assert_int_equal(r.level, 5);
    steady_throttler_free(&prefixed);
    close_pair(&plain);
}

/* 100 a minute equals one in 0.6 s exactly, so both limits use the same buckets. */
static void limits_of_equal_rates_share_a_bucket(void **state) {
    (void)state;
    steady_result r, s;
    steady_limit rate = {.block_duration = 0};
    assert_int_equal(steady_limit_parse(&rate, "100/min", NULL), 0);
    const steady_limit same = {.max_capacity = 100, .drop_recharge = 600 * STEADY_MILLISECOND};
    struct pair p = open_pair("memory:", &rate, NULL);
    steady_throttler *other = NULL;
    assert_int_equal(steady_throttler_new(&other, p.store, &same, NULL, NULL), 0);
    assert_int_equal(steady_consume_sync(p.throttler, "k", 1, 100, &r), 0);
    assert_int_equal(steady_consume_sync(other, "k", 1, 1, &s), 0);
    assert_false(s.success);
    assert_between(s.retry_after, 1, 600 * STEADY_MILLISECOND);
    steady_throttler_free(&other);
    close_pair(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(report_policy_returns_the_error),
        cmocka_unit_test(deny_and_allow_policies_answer_without_the_store),
        cmocka_unit_test(deny_policy_tells_that_an_amount_over_the_capacity_never_fits),
        cmocka_unit_test(local_policy_allows_its_share_of_the_limit),
        cmocka_unit_test(smallest_local_share_still_allows_a_drop),
        cmocka_unit_test(policy_holds_for_callbacks_after_the_throttler_is_freed),
        cmocka_unit_test(prefix_is_part_of_the_key),
        cmocka_unit_test(limits_of_equal_rates_share_a_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
