/* SPDX-License-Identifier: MIT
 * Limits, durations and rates: which texts are accepted, which are refused, and with which reason. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "assertions.h"
#include "core/limit.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define TWO_53 (INT64_C(1) << 53)
#define DAY (86400 * STEADY_SECOND)

static void assert_says(const steady_message *why, const char *part, const char *about) {
    if (strstr(why->text, part) == NULL) fail_msg("for %s: \"%s\" does not say \"%s\"", about, why->text, part);
}

/* ---- Durations ---- */

static const struct {
    const char *text;
    steady_us us;
} durations[] = {
    {"5s", 5000000},
    {"250ms", 250000},
    {"1us", 1},
    {"0s", 0},
    {"0.0s", 0},
    {"1h30m", 5400 * STEADY_SECOND},
    {"1d2h3m4s5ms6us", DAY + 2 * 3600 * STEADY_SECOND + 3 * 60 * STEADY_SECOND + 4005006},
    {"1d1us", DAY + 1},
    {"90m", 5400 * STEADY_SECOND},
    {"0.5s", 500000},
    {"1.5h", 5400 * STEADY_SECOND},
    {"1.5h30m", 7200 * STEADY_SECOND},
    {"0.000001s", 1},
    {"0.0000010000000000000000000s", 1},
    {"007s", 7000000},
    {"0.1ms", 100},
    {"3.0us", 3},
    {"0.00000000125d", 108},
    {"0.0001220703125d", 10546875}, /* 2^-13 of a day: the most digits that can be exact */
    {"9007199254740991us", TWO_53 - 1},
    {"9007199254.740991s", TWO_53 - 1},
    {"104249d23h47m34.740991s", TWO_53 - 1},
};

static void durations_are_exact(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(durations); i++) {
        steady_us us = -1;
        steady_message why = {.text = ""};
        const int error = steady_duration_parse(&us, durations[i].text, &why);
        if (error != 0 || us != durations[i].us)
            fail_msg("%s: %lld us, error %d, %s", durations[i].text, (long long)us, error, why.text);
    }
}

static const struct {
    const char *text;
    const char *says;
} bad_durations[] = {
    {"", "duration \"\" is not a duration such as 5s"},
    {"s", "is not a duration"},
    {"5", "\"5\" lacks a unit: did you mean \"5s\"? (units: us ms s m h d)"},
    {"0.5", "did you mean \"0.5s\"?"},
    {"1h30", "did you mean \"1h30m\"?"},
    {"1s5", "did you mean \"1s5ms\"?"},
    {"1us5", "is not a duration"},
    {"5week", "has an unknown unit; the units are us ms s m h d"},
    {"5minutes", "has an unknown unit"},
    {"5min", "has an unknown unit; the units are us ms s m h d"},
    {"5sec", "has an unknown unit"},
    {"5S", "is not a duration"},
    {"1e3s", "has an unknown unit"},
    {"0x5s", "has an unknown unit"},
    {"30m1h", "must have its largest unit first"},
    {"1s1s", "each only once"},
    {" 5s", "is not a duration"},
    {"5s ", "is not a duration"},
    {"5 s", "is not a duration"},
    {"5s\n", "\"5s?\""},
    {"+5s", "is not a duration"},
    {"-5s", "is not a duration"},
    {".5s", "is not a duration"},
    {"5.s", "is not a duration"},
    {"5.", "is not a duration"},
    {"1.2.3s", "is not a duration"},
    {"1,5s", "is not a duration"},
    {"nan", "is not a duration"},
    {"inf", "is not a duration"},
    {"\xd9\xa5s", "duration \"??s\" is not a duration"},
    {"5\xc2\xb5s", "\"5??s\" is not a duration"},
    {"0.0000001s", "\"0.0000001s\" is not a whole number of microseconds"},
    {"1.0000001s", "is not a whole number of microseconds"},
    {"0.5us", "is not a whole number of microseconds"},
    {"0.00006103515625d", "is not a whole number of microseconds"}, /* 2^-14 of a day */
    {"0.3333333333333333333333333333333333d", "is not a whole number of microseconds"},
    {"9007199254740992us", "is too long; it must be below 9007199254740992us"},
    {"9007199254.740992s", "is too long"},
    {"104249d23h47m34.740992s", "is too long"},
    {"104250d", "is too long"},
    {"18446744073709551621s", "is too long"}, /* 2^64 + 5 */
    {"+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxyyy", "\"+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxyyy\" is"},
    {"+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxyyyy", "\"+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...\" is"},
    {"99999999999999999999999999999999999999999999999999999999s",
     "\"99999999999999999999999999999999999999999999...\""},
};

static void bad_durations_are_refused_with_a_reason(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(bad_durations); i++) {
        steady_us us = 77;
        steady_message why = {.text = ""};
        if (steady_duration_parse(&us, bad_durations[i].text, &why) != STEADY_BAD_ARGUMENT || us != 77)
            fail_msg("\"%s\" was taken", bad_durations[i].text);
        assert_says(&why, bad_durations[i].says, bad_durations[i].text);
        assert_int_equal(steady_duration_parse(&us, bad_durations[i].text, NULL), STEADY_BAD_ARGUMENT);
    }
}

/* ---- Rates ---- */

static const struct {
    const char *text;
    int64_t capacity;
    steady_us recharge;
    int64_t drops;
} rates[] = {
    {"100/min", 100, 60 * STEADY_SECOND, 100},
    {"3/s", 3, STEADY_SECOND, 3},
    {"3/sec", 3, STEADY_SECOND, 3},
    {"3/1s", 3, STEADY_SECOND, 3},
    {"5/250ms", 5, 250000, 5},
    {"10/day", 10, DAY, 10},
    {"10/d", 10, DAY, 10},
    {"7/hour", 7, 3600 * STEADY_SECOND, 7},
    {"5/second", 5, STEADY_SECOND, 5},
    {"5/seconds", 5, STEADY_SECOND, 5},
    {"5/secs", 5, STEADY_SECOND, 5},
    {"10/minute", 10, 60 * STEADY_SECOND, 10},
    {"10/minutes", 10, 60 * STEADY_SECOND, 10},
    {"10/mins", 10, 60 * STEADY_SECOND, 10},
    {"10/hours", 10, 3600 * STEADY_SECOND, 10},
    {"10/hr", 10, 3600 * STEADY_SECOND, 10},
    {"10/hrs", 10, 3600 * STEADY_SECOND, 10},
    {"10/days", 10, DAY, 10},
    {"10/week", 10, 7 * DAY, 10},
    {"10/2weeks", 10, 14 * DAY, 10},
    {"10/1week1day", 10, 8 * DAY, 10},
    {"10/15minutes", 10, 900 * STEADY_SECOND, 10},
    {"10/1hour30minutes", 10, 5400 * STEADY_SECOND, 10},
    {"1/millisecond", 1, 1000, 1},
    {"1/5microseconds", 1, 5, 1},
    {"7/2min", 7, 120 * STEADY_SECOND, 7},
    {"1/us", 1, 1, 1},
    {"1/0.5ms", 1, 500, 1},
    {"1000/1h30m", 1000, 5400 * STEADY_SECOND, 1000},
    {"1000000/s", 1000000, STEADY_SECOND, 1000000},
    {"2000000/s", 2000000, 1, 2}, /* drops over 10^6: lowest terms */
    {"1000000000/s", 1000000000, 1, 1000},
    {"2147483647/2147483647us", 2147483647, 1, 1},
    {"1000000/10d", 1000000, 864000, 1}, /* 10^6 * 10 d is over 2^53 */
    {"1/9007199254740991us", 1, TWO_53 - 1, 1},
    {"100/min burst 20", 20, 60 * STEADY_SECOND, 100},
    {"3/s burst 1", 1, STEADY_SECOND, 3},
    {"1/s burst 2147483647", INT32_MAX, STEADY_SECOND, 1},
    {"5000000/s burst 10", 10, 1, 5},
    {"10/1h30m burst 500", 500, 5400 * STEADY_SECOND, 10},
};

static void rates_are_parsed(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(rates); i++) {
        steady_limit limit = {.block_duration = 17};
        steady_message why = {.text = ""};
        if (steady_limit_parse(&limit, rates[i].text, &why) != 0) fail_msg("%s: %s", rates[i].text, why.text);
        assert_int_equal(limit.max_capacity, rates[i].capacity);
        assert_int_equal(limit.drop_recharge, rates[i].recharge);
        assert_int_equal(limit.drops, rates[i].drops);
        assert_int_equal(limit.block_duration, 17);
        limit.block_duration = 0;
        assert_int_equal(steady_limit_check(&limit, &why), 0);
    }
}

static const struct {
    const char *text;
    const char *says;
} bad_rates[] = {
    {"", "rate \"\": write a count, a slash and a period, such as 100/min"},
    {"100", "write a count, a slash and a period"},
    {"/s", "write a count"},
    {"-1/s", "write a count"},
    {"+1/s", "write a count"},
    {" 1/s", "write a count"},
    {"1 /s", "write a count"},
    {"1.5/s", "write a count"},
    {"1e3/s", "write a count"},
    {"0x10/s", "write a count"},
    {"\xd9\xa5/s", "?/s\": write a count"},
    {"0/s", "the count must be 1 .. 2147483647"},
    {"2147483648/s", "the count must be 1 .. 2147483647"},
    {"18446744073709551617/s", "the count must be 1 .. 2147483647"},
    {"5/", "rate period \"\" is not a duration"},
    {"5/60", "rate period \"60\" lacks a unit: did you mean \"60s\"?"},
    {"5/ s", "is not a duration"},
    {"5/s ", "rate period \"s \" is not a duration"},
    {"5/min30s", "is not a duration"},
    {"5//s", "is not a duration"},
    {"5/month",
     "rate period \"month\" has an unknown unit; the units are us ms s m h d, or second minute hour day week"},
    {"5/minutess", "has an unknown unit"},
    {"5/w", "has an unknown unit"},
    {"5/ss", "has an unknown unit"},
    {"5/Minute", "is not a duration"},
    {"5/1minute1week", "must have its largest unit first"},
    {"5/1week5", "did you mean \"1week5d\"?"},
    {"5/1weeks1d1h1m1s1ms1us1", "is not a duration"},
    {"5/0s", "rate \"5/0s\": the period must be at least 1us"},
    {"1000003/s", "rate \"1000003/s\": in lowest terms it is 1000003/1000000us; that count must be at most 1000000"},
    {"2000006/2s", "in lowest terms it is 1000003/1000000us"},
    {"2147483647/285d", "in lowest terms it is 2147483647/24624000000000us; that count must be at most 1000000"},
    {"2/9007199254740991us", "the count times the period in lowest terms is 2 * 9007199254740991us; it must be below "
                             "9007199254740992us (2^53)"},
    {"2000000000/9007199254000000us", "is 2000000000 * 4503599627us; it must be below"},
    {"1/9007199254740992us", "is too long"},
    {"100/min burst", "rate period \"min burst\" is not a duration"},
    {"100/min burst ", "the burst must be 1 .. 2147483647, as in 100/min burst 20"},
    {"100/min burst 0", "the burst must be 1 .. 2147483647"},
    {"100/min burst -1", "the burst must be"},
    {"100/min burst 2147483648", "the burst must be"},
    {"100/min burst 20 ", "the burst must be"},
    {"100/min burst 20 burst 30", "the burst must be"},
    {"100/min  burst 20", "is not a duration"},
    {"100/min BURST 20", "is not a duration"},
    {"1000000/9007199254740991us burst 2", "the burst times the period in lowest terms is 2 * 9007199254740991us"},
    {" burst 20", "write a count"},
};

static void bad_rates_are_refused_with_a_reason(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(bad_rates); i++) {
        const steady_limit before = {.max_capacity = 1, .drop_recharge = 2, .drops = 3, .block_duration = 4};
        steady_limit limit = before;
        steady_message why = {.text = ""};
        if (steady_limit_parse(&limit, bad_rates[i].text, &why) != STEADY_BAD_ARGUMENT)
            fail_msg("\"%s\" was taken", bad_rates[i].text);
        assert_memory_equal(&limit, &before, sizeof limit);
        assert_says(&why, bad_rates[i].says, bad_rates[i].text);
    }
}

/* ---- Limits ---- */

static const struct {
    steady_limit limit;
    const char *says; /* NULL: accepted */
} limits[] = {
    {{10, 5000000, 0, 0, NULL, {0}}, NULL},
    {{1, 1, 1, 0, NULL, {0}}, NULL},
    {{INT32_MAX, 1, 0, 0, NULL, {0}}, NULL},
    {{INT32_MAX, 4194304, 0, 0, NULL, {0}}, NULL}, /* 2^22 * (2^31-1) is below 2^53 */
    {{INT32_MAX, 4194305, 0, 0, NULL, {0}}, "max_capacity * drop_recharge is 2147483647 * 4194305 us"},
    {{1, TWO_53 - 1, 0, 0, NULL, {0}}, NULL},
    {{1, TWO_53, 0, 0, NULL, {0}}, "drop_recharge is 9007199254740992; it must be 1 .. 9007199254740991 us"},
    {{2, TWO_53 / 2, 0, 0, NULL, {0}}, "it must be below 9007199254740992 us (2^53)"},
    {{2, TWO_53 / 2 - 1, 0, 0, NULL, {0}}, NULL},
    {{0, 1, 0, 0, NULL, {0}}, "max_capacity is 0; it must be 1 .. 2147483647"},
    {{-1, 1, 0, 0, NULL, {0}}, "max_capacity is -1"},
    {{INT64_C(2147483648), 1, 0, 0, NULL, {0}}, "max_capacity is 2147483648; it must be 1 .. 2147483647"},
    {{INT64_MAX, INT64_MAX, 0, 0, NULL, {0}}, "max_capacity is 9223372036854775807"},
    {{1, 0, 0, 0, NULL, {0}}, "drop_recharge is 0"},
    {{1, INT64_MIN, 0, 0, NULL, {0}}, "drop_recharge is -9223372036854775808"},
    {{1, INT64_MAX, 0, 0, NULL, {0}}, "drop_recharge is 9223372036854775807"},
    {{1, 1, 1000000, 0, NULL, {0}}, NULL},
    {{1, 1, 1000001, 0, NULL, {0}}, "drops is 1000001; it must be 0 .. 1000000"},
    {{1, 1, -1, 0, NULL, {0}}, "drops is -1"},
    {{1, 1, 0, TWO_53 / 2 - 1, NULL, {0}}, NULL},
    {{1, 1, 0, TWO_53 / 2, NULL, {0}}, "block_duration is 4503599627370496; it must be 0 .. 4503599627370495 us"},
    {{1, 1, 0, -1, NULL, {0}}, "block_duration is -1"},
};

static void limits_out_of_range_are_refused_with_a_reason(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(limits); i++) {
        struct steady__rate rate;
        steady_message why = {.text = ""};
        const int want = limits[i].says == NULL ? 0 : STEADY_BAD_ARGUMENT;
        if (steady_limit_check(&limits[i].limit, &why) != want) fail_msg("limit %zu: %s", i, why.text);
        assert_int_equal(steady__limit_rate(&rate, &limits[i].limit, NULL), want);
        if (want != 0) assert_says(&why, limits[i].says, "a limit");
    }
}

static void assert_rate(steady_limit limit, int64_t recharge, int64_t drops) {
    struct steady__rate rate;
    assert_int_equal(steady__limit_rate(&rate, &limit, NULL), 0);
    assert_int_equal(rate.capacity, limit.max_capacity);
    assert_int_equal(rate.recharge, recharge);
    assert_int_equal(rate.drops, drops);
    assert_int_equal(rate.block, limit.block_duration);
}

static void limit_gives_a_rate_in_lowest_terms(void **state) {
    (void)state;
    assert_rate((steady_limit){10, 5000000, 0, 9, NULL, {0}}, 5000000, 1);
    assert_rate((steady_limit){100, 60 * STEADY_SECOND, 100, 0, NULL, {0}}, 600000, 1);
    assert_rate((steady_limit){3, STEADY_SECOND, 3, 1, NULL, {0}}, 1000000, 3);
    assert_rate((steady_limit){3, STEADY_SECOND, 6, 0, NULL, {0}}, 500000, 3);
    assert_rate((steady_limit){1, 1000000, 1000000, 0, NULL, {0}}, 1, 1);
    assert_rate((steady_limit){1, 1, 1000000, 0, NULL, {0}}, 1, 1000000);
    assert_rate((steady_limit){1, TWO_53 - 1, 6361, 0, NULL, {0}}, (TWO_53 - 1) / 6361, 1);
}

static void null_is_refused_with_a_reason(void **state) {
    steady_limit limit = {0};
    steady_us us = 0;
    steady_message why;
    struct steady__rate rate;
    (void)state;
    assert_int_equal(steady_limit_check(NULL, &why), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "limit is NULL");
    assert_int_equal(steady__limit_rate(&rate, NULL, NULL), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_limit_parse(NULL, "3/s", &why), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_limit_parse(&limit, NULL, &why), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "rate is NULL");
    assert_int_equal(steady_duration_parse(NULL, "5s", &why), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_duration_parse(&us, NULL, &why), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "text is NULL");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_exact),
        cmocka_unit_test(bad_durations_are_refused_with_a_reason),
        cmocka_unit_test(rates_are_parsed),
        cmocka_unit_test(bad_rates_are_refused_with_a_reason),
        cmocka_unit_test(limits_out_of_range_are_refused_with_a_reason),
        cmocka_unit_test(limit_gives_a_rate_in_lowest_terms),
        cmocka_unit_test(null_is_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
