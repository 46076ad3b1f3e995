/* SPDX-License-Identifier: MIT
 * Times and durations of logs, against the calendar of the C library, and against times that are written by hand. */
#include <time.h>

#include "support.h"

#include "replay/log_time.h"

static struct rules_text text_of(const char *text) { return (struct rules_text){text, strlen(text)}; }

/* us of a time in any form; -1: it is none. */
static int64_t any(const char *text) {
    struct log_time_cache cache = {0};
    struct log_time time;
    return log_time_any(&time, &cache, text_of(text)) ? time.us : -1;
}

static int64_t number(const char *text, enum log_time_unit unit) {
    struct log_time time;
    return log_time_number(&time, text_of(text), unit) ? time.us : -1;
}

static int64_t duration(const char *text, enum log_time_unit unit) {
    int64_t us;
    return log_time_duration(&us, text_of(text), unit) ? us : -1;
}

static void every_day_from_1970_to_2200_is_that_of_the_c_library(void **state) {
    const time_t end = 7289654400; /* 2201-01-01 */
    struct log_time_cache cache = {0};
    struct log_time time;
    char text[64];
    int64_t us;
    (void)state;
    for (time_t at = 0; at < end; at += 86400) {
        const time_t second = at + (at / 86400 * 7919) % 86400;
        struct tm utc;
        gmtime_r(&second, &utc);
        strftime(text, sizeof text, "%d/%b/%Y:%H:%M:%S +0000", &utc);
        assert_true(log_time_clf(&time, &cache, text_of(text)));
        assert_int_equal(time.us, second * STEADY_SECOND);
        assert_true(time.whole_second);
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
        assert_true(log_time_iso(&time, text_of(text)));
        assert_int_equal(time.us, second * STEADY_SECOND);
        strftime(text, sizeof text, "%Y-%m-%d", &utc);
        assert_true(log_time_date(&us, text_of(text)));
        assert_int_equal(us, at * STEADY_SECOND);
    }
    assert_int_equal(any("2200-12-31T23:59:59.999999Z"), end * STEADY_SECOND - 1);
    assert_int_equal(any("2201-01-01T00:00:00Z"), -1);
    assert_int_equal(any("1969-12-31T23:59:59Z"), -1);
}

static void leap_years_have_the_29th_of_february(void **state) {
    (void)state;
    assert_true(any("2000-02-29T00:00:00Z") == 951782400 * STEADY_SECOND);
    assert_true(any("2024-02-29T00:00:00Z") == 1709164800 * STEADY_SECOND);
    assert_int_equal(any("2100-02-29T00:00:00Z"), -1);
    assert_int_equal(any("2023-02-29T00:00:00Z"), -1);
    assert_int_equal(any("29/Feb/2023:00:00:00 +0000"), -1);
    assert_int_equal(any("2023-04-31T00:00:00Z"), -1);
}

static void zones_and_fractions_are_exact(void **state) {
    const int64_t at = 971211336 * STEADY_SECOND; /* 2000-10-10 20:55:36 UTC */
    (void)state;
    assert_int_equal(any("10/Oct/2000:13:55:36 -0700"), at);
    assert_int_equal(any("[10/Oct/2000:13:55:36 -0700]"), at);
    assert_int_equal(any("11/Oct/2000:02:25:36 +0530"), at);
    assert_int_equal(any("10/Oct/2000:20:55:36.633"), at + 633000);
    assert_int_equal(any("2000-10-10T20:55:36Z"), at);
    assert_int_equal(any("2000-10-10T13:55:36.123456789-07:00"), at + 123456);
    assert_int_equal(any("2000-10-10 20:55:36,5"), at + 500000);
    assert_int_equal(any("2000-10-10 20:55:36.000001 UTC"), at + 1);
    assert_int_equal(any("2000-10-10T20:55:36+00"), at);
    assert_int_equal(any("2000-10-10T20:55:36"), at);
    assert_int_equal(any("2000-10-10T20:55:60Z"), at + 23 * STEADY_SECOND); /* a leap second is the second before it */
}

static void texts_that_are_no_times_are_refused(void **state) {
    static const char *const none[] = {"",
                                       "-",
                                       "x",
                                       "10/Oct/2000:13:55",
                                       "10/Oct/2000:24:00:00 +0000",
                                       "10/Okt/2000:13:55:36 +0000",
                                       "32/Oct/2000:13:55:36 +0000",
                                       "10/Oct/2000:13:55:36 +0000 x",
                                       "10/Oct/2000:13:55:36 0700",
                                       "10/Oct/2000:13:55:36.",
                                       "2000-13-10T20:55:36Z",
                                       "2000-10-10T20:60:36Z",
                                       "2000-10-10T20:55:36.Z",
                                       "2000-10-10T20:55:36+7",
                                       "2000-10-10T20:55:36+07:",
                                       "2000-10-10T20:55",
                                       "2000-10-1020:55:36Z",
                                       "-1",
                                       "1.2.3",
                                       "1e",
                                       "99999999999999999999",
                                       "1e30",
                                       "+0x10"};
    (void)state;
    for (size_t i = 0; i < COUNT(none); i++)
        if (any(none[i]) != -1) fail_msg("%s is %lld", none[i], (long long)any(none[i]));
}

static void size_of_a_number_tells_its_unit(void **state) {
    const int64_t us = INT64_C(1646861401524102);
    (void)state;
    assert_int_equal(any("1646861401"), 1646861401 * STEADY_SECOND);
    assert_int_equal(any("1646861401.524102"), us);
    assert_int_equal(any("1646861401.5241029"), us);
    assert_int_equal(any("1.6468614015241029e9"), us);
    assert_int_equal(any("1646861401524"), us - 102);
    assert_int_equal(any("1646861401524102"), us);
    assert_int_equal(any("1646861401524102900"), us);
    assert_int_equal(number("1380355802.123", LOG_TIME_S), INT64_C(1380355802123000));
    assert_int_equal(number("1000", LOG_TIME_MS), STEADY_SECOND);
    assert_int_equal(number("7289654400", LOG_TIME_S), -1); /* the year 2201 */
}

static void only_a_number_of_seconds_without_fraction_is_a_whole_second(void **state) {
    struct log_time time;
    (void)state;
    assert_true(log_time_number(&time, text_of("1646861401"), LOG_TIME_GUESS) && time.whole_second);
    assert_true(log_time_number(&time, text_of("1646861401.000"), LOG_TIME_GUESS) && !time.whole_second);
    assert_true(log_time_number(&time, text_of("1646861401000"), LOG_TIME_GUESS) && !time.whole_second);
}

static void next_line_of_another_second_is_not_taken_from_the_cache(void **state) {
    struct log_time_cache cache = {0};
    struct log_time time;
    (void)state;
    for (int i = 0; i < 120; i++) {
        char text[32];
        snprintf(text, sizeof text, "10/Oct/2000:13:%02d:%02d %s", i / 60, i % 60, i % 2 == 0 ? "+0000" : "+0100");
        for (int twice = 0; twice < 2; twice++) {
            assert_true(log_time_clf(&time, &cache, text_of(text)));
            assert_int_equal(time.us, (971182800 + i - (i % 2) * 3600) * STEADY_SECOND);
        }
    }
    assert_false(log_time_clf(&time, &cache, text_of("10/Oct/2000:13:01:59 +01x0")));
}

static void columns_of_date_and_time_are_read(void **state) {
    int64_t us;
    bool whole;
    (void)state;
    assert_true(log_time_of_day(&us, &whole, text_of("13:55:36")) && whole);
    assert_int_equal(us, (13 * 3600 + 55 * 60 + 36) * STEADY_SECOND);
    assert_true(log_time_of_day(&us, &whole, text_of("00:00:01.25")) && !whole);
    assert_int_equal(us, 1250000);
    assert_false(log_time_of_day(&us, &whole, text_of("13:55")));
    assert_false(log_time_of_day(&us, &whole, text_of("13:55:36.")));
    assert_false(log_time_of_day(&us, &whole, text_of("25:55:36")));
    assert_false(log_time_date(&us, text_of("2000-00-10")));
    assert_false(log_time_date(&us, text_of("2000-10-10 ")));
}

static void durations_are_in_the_unit_of_their_field_or_their_suffix(void **state) {
    (void)state;
    assert_int_equal(duration("0.123", LOG_TIME_S), 123000);
    assert_int_equal(duration("0.000929675", LOG_TIME_S), 929);
    assert_int_equal(duration("4.5e-05", LOG_TIME_S), 45);
    assert_int_equal(duration("1234", LOG_TIME_US), 1234);
    assert_int_equal(duration("12", LOG_TIME_MS), 12000);
    assert_int_equal(duration("1234567", LOG_TIME_NS), 1234);
    assert_int_equal(duration("+12", LOG_TIME_MS), 12000);
    assert_int_equal(duration("12ms", LOG_TIME_GUESS), 12000);
    assert_int_equal(duration("1.5s", LOG_TIME_MS), 1500000);
    assert_int_equal(duration("1m2.5s", LOG_TIME_GUESS), 62500000);
    assert_int_equal(duration("1h0m0s", LOG_TIME_GUESS), HOUR);
    assert_int_equal(duration("929.675\xc2\xb5s", LOG_TIME_GUESS), 929);
    assert_int_equal(duration("12", LOG_TIME_GUESS), -1);
    assert_int_equal(duration("-1", LOG_TIME_MS), -1);
    assert_int_equal(duration("-", LOG_TIME_S), -1);
    assert_int_equal(duration("12 ms", LOG_TIME_S), -1);
    assert_int_equal(duration("99999999999", LOG_TIME_S), -1);
    assert_int_equal(duration("9e18h9e18h", LOG_TIME_S), -1);
}

static int64_t pattern(const char *form, const char *text) {
    struct log_time_parts parts = {.month = 1, .day = 1};
    struct log_time time;
    if (log_time_pattern(&parts, form, strlen(form), text_of(text)) != strlen(text)) return -1;
    return log_time_join(&time, &parts) ? time.us : -1;
}

static void forms_of_strftime_are_read(void **state) {
    const int64_t at = 971211336 * STEADY_SECOND;
    (void)state;
    assert_int_equal(pattern("%d/%b/%Y:%H:%M:%S %z", "10/Oct/2000:13:55:36 -0700"), at);
    assert_int_equal(pattern("%d/%b/%Y:%T %z", "10/Oct/2000:13:55:36 -0700"), at);
    assert_int_equal(pattern("%FT%T%z", "2000-10-10T13:55:36-07:00"), at);
    assert_int_equal(pattern("%D %T", "10/10/00 20:55:36"), at);
    assert_int_equal(pattern("%e %b %Y %R", " 1 Oct 2000 00:00"), 970358400 * STEADY_SECOND);
    assert_int_equal(pattern("%s", "971211336"), at);
    assert_int_equal(pattern("%s.%3f", "971211336.250"), at + 250000);
    assert_int_equal(pattern("%s%3f", "971211336250"), -1); /* nothing tells where the seconds end */
    assert_int_equal(pattern("%FT%T.%fZ", "2000-10-10T20:55:36.000001999Z"), at + 1);
    assert_int_equal(pattern("%F", "2000-10-10"), -1); /* the time of the day is missing */
    assert_int_equal(pattern("%FT%T", "2000-10-10 13:55:36"), -1);
    assert_null(log_time_pattern_fault("%FT%T.%%", 8));
    const char *form = "%F %Q";
    assert_ptr_equal(log_time_pattern_fault(form, 5), form + 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_day_from_1970_to_2200_is_that_of_the_c_library),
        cmocka_unit_test(leap_years_have_the_29th_of_february),
        cmocka_unit_test(zones_and_fractions_are_exact),
        cmocka_unit_test(texts_that_are_no_times_are_refused),
        cmocka_unit_test(size_of_a_number_tells_its_unit),
        cmocka_unit_test(only_a_number_of_seconds_without_fraction_is_a_whole_second),
        cmocka_unit_test(next_line_of_another_second_is_not_taken_from_the_cache),
        cmocka_unit_test(columns_of_date_and_time_are_read),
        cmocka_unit_test(durations_are_in_the_unit_of_their_field_or_their_suffix),
        cmocka_unit_test(forms_of_strftime_are_read),
    };
    return cmocka_run_group_tests_name("log_time", tests, NULL, NULL);
}
