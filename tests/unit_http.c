/* SPDX-License-Identifier: MIT
 * Rate-limit header fields and problem documents: every form byte by byte, rounding, quoting, and what is refused. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "random.h"
#include "steady/http.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define MAX_CAPACITY INT64_C(2147483647)

static steady_limit limit_of(int64_t capacity, steady_us recharge, int64_t drops) {
    return (steady_limit){.max_capacity = capacity, .drop_recharge = recharge, .drops = drops};
}

static steady_http_policy allowed(const char *name, const steady_limit *limit, int64_t level) {
    return (steady_http_policy){.name = name, .limit = limit, .success = true, .level = level};
}

static steady_http_policy denied(const char *name, const steady_limit *limit, int64_t level, steady_us retry_after) {
    return (steady_http_policy){.name = name, .limit = limit, .level = level, .retry_after = retry_after};
}

/* The fields as lines. */
static const char *lines_of(enum steady_http_form form, const steady_http_policy *policies, size_t n) {
    static char lines[1024];
    char text[512];
    steady_http_field fields[STEADY_HTTP_FIELDS_MAX] = {{0}};
    const int count = steady_http_fields(form, policies, n, fields, text, sizeof text);
    size_t len = 0;
    assert_true(count >= 0);
    lines[0] = '\0';
    for (int i = 0; i < count; i++) {
        assert_int_equal(fields[i].value_len, strlen(fields[i].value));
        len += (size_t)snprintf(lines + len, sizeof lines - len, "%s: %s\n", fields[i].name, fields[i].value);
    }
    return lines;
}

/* ---- draft-11 ---- */

static const struct {
    int64_t capacity;
    steady_us recharge;
    int64_t drops, level;
    steady_us retry_after; /* 0: allowed */
    const char *lines;
} golden[] = {
    {100, 600000, 1, 1, 0, "ratelimit-policy: \"n\";q=100;w=60\nratelimit: \"n\";r=99;t=60\n"},
    {100, 600000, 1, 50, 0, "ratelimit-policy: \"n\";q=100;w=60\nratelimit: \"n\";r=50;t=30\n"},
    {100, 600000, 0, 50, 0, "ratelimit-policy: \"n\";q=100;w=60\nratelimit: \"n\";r=50;t=30\n"},
    {100, 600000, 1, 99, 0, "ratelimit-policy: \"n\";q=100;w=60\nratelimit: \"n\";r=1;t=1\n"},
    {100, 600000, 1, 100, 0, "ratelimit-policy: \"n\";q=100;w=60\nratelimit: \"n\";r=0;t=1\n"},
    {100, 600000, 1, 150, 0,
     "ratelimit-policy: \"n\";q=100;w=60\nratelimit: \"n\";r=0;t=1\n"}, /* the limit was lowered */
    {100, 600000, 1, 100, 1, "ratelimit-policy: \"n\";q=100;w=60\nratelimit: \"n\";r=0;t=1\n"},
    {100, 600000, 1, 90, 3000000, "ratelimit-policy: \"n\";q=100;w=60\nratelimit: \"n\";r=5;t=3\n"},
    {100, 600000, 1, 90, 2000001, "ratelimit-policy: \"n\";q=100;w=60\nratelimit: \"n\";r=5;t=3\n"},
    {5, 1000000, 3, 1, 0, "ratelimit-policy: \"n\";q=5;w=2\nratelimit: \"n\";r=4;t=2\n"},
    {10, 1000, 1, 0, 0, "ratelimit-policy: \"n\";q=10;w=1\nratelimit: \"n\";r=10;t=1\n"},
    {1, 1, 1, 1, 0, "ratelimit-policy: \"n\";q=1;w=1\nratelimit: \"n\";r=0;t=1\n"},
    {1, 86400000001, 1, 1, 86400000001, "ratelimit-policy: \"n\";q=1;w=86401\nratelimit: \"n\";r=0;t=86401\n"},
    {1, 1, 1000000, 0, INT64_MAX, "ratelimit-policy: \"n\";q=1;w=1\nratelimit: \"n\";r=1;t=9223372036855\n"},
    {MAX_CAPACITY, 4194303, 1, 0, 0,
     "ratelimit-policy: \"n\";q=2147483647;w=9007197104\nratelimit: \"n\";r=2147483647;t=9007197104\n"},
};

static void draft_11_has_the_golden_values(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(golden); i++) {
        const steady_limit limit = limit_of(golden[i].capacity, golden[i].recharge, golden[i].drops);
        const steady_http_policy policy = golden[i].retry_after == 0
                                              ? allowed("n", &limit, golden[i].level)
                                              : denied("n", &limit, golden[i].level, golden[i].retry_after);
        assert_string_equal(lines_of(STEADY_HTTP_DRAFT_11, &policy, 1), golden[i].lines);
    }
}

static void a_blocked_key_has_nothing_left(void **state) {
    (void)state;
    const steady_limit limit = limit_of(100, 600000, 1);
    steady_http_policy policy = denied("n", &limit, 10, 60 * STEADY_SECOND);
    policy.blocked_for = 60 * STEADY_SECOND;
    assert_string_equal(lines_of(STEADY_HTTP_DRAFT_11, &policy, 1),
                        "ratelimit-policy: \"n\";q=100;w=60\nratelimit: \"n\";r=0;t=60\n");
}

static void a_name_is_quoted(void **state) {
    (void)state;
    const steady_limit limit = limit_of(10, 60 * STEADY_SECOND, 1);
    const steady_http_policy policy = allowed("a \"b\" \\ c~", &limit, 1);
    assert_string_equal(lines_of(STEADY_HTTP_DRAFT_11, &policy, 1),
                        "ratelimit-policy: \"a \\\"b\\\" \\\\ c~\";q=10;w=600\n"
                        "ratelimit: \"a \\\"b\\\" \\\\ c~\";r=9;t=540\n");
}

/* ---- Several policies ---- */

static void if_one_denies_the_others_are_not_in_the_state(void **state) {
    (void)state;
    const steady_limit wide = limit_of(10, STEADY_SECOND, 1), narrow = limit_of(1, 5 * STEADY_SECOND, 1);
    const steady_http_policy policies[] = {allowed("requests", &wide, 3), denied("logins", &narrow, 1, 4500000)};
    assert_string_equal(
        lines_of(STEADY_HTTP_DRAFT_11, policies, 2),
        "ratelimit-policy: \"requests\";q=10;w=10, \"logins\";q=1;w=5\nratelimit: \"logins\";r=0;t=5\n");
    assert_string_equal(lines_of(STEADY_HTTP_DRAFT_11, policies, 1),
                        "ratelimit-policy: \"requests\";q=10;w=10\nratelimit: \"requests\";r=7;t=7\n");
}

static void a_policy_that_can_never_fit_has_no_state(void **state) {
    (void)state;
    const steady_limit wide = limit_of(10, STEADY_SECOND, 1), narrow = limit_of(1, 5 * STEADY_SECOND, 1);
    const steady_http_policy policies[] = {denied("never", &narrow, 1, -1), denied("later", &wide, 10, STEADY_SECOND)};
    assert_string_equal(lines_of(STEADY_HTTP_DRAFT_11, policies, 2),
                        "ratelimit-policy: \"never\";q=1;w=5, \"later\";q=10;w=10\nratelimit: \"later\";r=0;t=1\n");
    assert_string_equal(lines_of(STEADY_HTTP_DRAFT_11, policies, 1), "ratelimit-policy: \"never\";q=1;w=5\n");
    assert_string_equal(lines_of(STEADY_HTTP_DRAFT_07, policies, 1), "ratelimit-policy: 1;w=5\n");
    assert_string_equal(lines_of(STEADY_HTTP_DRAFT_03, policies, 1), "");
}

static void older_forms_show_the_tightest_policy(void **state) {
    (void)state;
    const steady_limit five = limit_of(5, 60 * STEADY_SECOND, 1), ten = limit_of(10, 60 * STEADY_SECOND, 1),
                       slow = limit_of(5, 90 * STEADY_SECOND, 1);
    const steady_http_policy policies[] = {allowed("a", &ten, 1), allowed("b", &five, 1), allowed("c", &slow, 1)};
    assert_string_equal(lines_of(STEADY_HTTP_DRAFT_07, policies, 2),
                        "ratelimit-policy: 10;w=600, 5;w=300\nratelimit: limit=5, remaining=4, reset=240\n");
    assert_string_equal(lines_of(STEADY_HTTP_DRAFT_03, policies, 2),
                        "ratelimit-limit: 5\nratelimit-remaining: 4\nratelimit-reset: 240\n");
    assert_string_equal(lines_of(STEADY_HTTP_X, policies, 2),
                        "x-ratelimit-limit: 5\nx-ratelimit-remaining: 4\nx-ratelimit-reset: 240\n");
    assert_string_equal(lines_of(STEADY_HTTP_X, policies, 3),
                        "x-ratelimit-limit: 5\nx-ratelimit-remaining: 4\nx-ratelimit-reset: 360\n");
}

static void older_forms_show_the_policy_that_denies_for_the_longest_time(void **state) {
    (void)state;
    const steady_limit limit = limit_of(100, STEADY_SECOND, 1);
    const steady_http_policy policies[] = {allowed("a", &limit, 99), denied("b", &limit, 90, 15 * STEADY_SECOND),
                                           denied("c", &limit, 80, 25 * STEADY_SECOND), denied("d", &limit, 99, 1)};
    assert_string_equal(lines_of(STEADY_HTTP_X, policies, 4),
                        "x-ratelimit-limit: 100\nx-ratelimit-remaining: 20\nx-ratelimit-reset: 25\n");
}

/* ---- Any valid limit ---- */

static int64_t number_after(const char *text, const char *mark) {
    const char *at = strstr(text, mark);
    assert_non_null(at);
    return strtoll(at + strlen(mark), NULL, 10);
}

/* r drops leak within t seconds, so r/t is not over the rate. */
static void a_field_never_promises_more_than_leaks(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 100000; i++) {
        const int64_t capacity = random_edgy(&seed, 1, MAX_CAPACITY);
        const steady_us recharge = random_edgy(&seed, 1, ((INT64_C(1) << 53) - 1) / capacity);
        const int64_t drops = random_edgy(&seed, 1, 1000000), level = random_edgy(&seed, 0, capacity + capacity / 8);
        const steady_us wait = random_edgy(&seed, 1, INT64_MAX);
        const bool denies = random_next(&seed) % 2;
        const steady_limit limit = limit_of(capacity, recharge, drops);
        const steady_http_policy policy = denies ? denied("n", &limit, level, wait) : allowed("n", &limit, level);
        const char *lines = lines_of(STEADY_HTTP_DRAFT_11, &policy, 1);
        const int64_t r = number_after(lines, ";r="), t = number_after(lines, ";t="), in = drops * STEADY_SECOND;
        assert_true(t >= 1 && t >= r * recharge / in + (r * recharge % in > 0));
        assert_true(r >= 0 && r <= (level < capacity ? capacity - level : 0));
        assert_true(denies ? t == wait / STEADY_SECOND + (wait % STEADY_SECOND > 0)
                           : r == (level < capacity ? capacity - level : 0));
        assert_int_equal(number_after(lines, ";q="), capacity);
    }
}

/* ---- What is refused ---- */

static void a_bad_argument_makes_no_field(void **state) {
    (void)state;
    char text[512];
    steady_http_field fields[STEADY_HTTP_FIELDS_MAX] = {{0}};
    static const char *const names[] = {NULL, "", "a\n", "\x7f", "caf\xc3\xa9", "a\r\nset-cookie: b"};
    const steady_limit good = limit_of(10, STEADY_SECOND, 1), bad = limit_of(0, STEADY_SECOND, 1);
    for (size_t i = 0; i < COUNT(names); i++) {
        const steady_http_policy policies[] = {allowed("n", &good, 1), allowed(names[i], &good, 1)};
        assert_int_equal(steady_http_fields(0, policies, 2, fields, text, sizeof text), STEADY_BAD_ARGUMENT);
    }
    steady_http_policy newer = allowed("n", &good, 1);
    newer.reserved[3] = 1;
    assert_int_equal(steady_http_fields(0, &newer, 1, fields, text, sizeof text), STEADY_BAD_ARGUMENT);
    const steady_http_policy policy = allowed("n", &good, 1), wrong = allowed("n", &bad, 1), without = {.name = "n"};
    assert_int_equal(steady_http_fields(0, &wrong, 1, fields, text, sizeof text), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_http_fields(0, &without, 1, fields, text, sizeof text), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_http_fields(0, &policy, 0, fields, text, sizeof text), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_http_fields(0, NULL, 1, fields, text, sizeof text), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_http_fields(0, &policy, 1, NULL, text, sizeof text), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_http_fields(0, &policy, 1, fields, NULL, sizeof text), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_http_fields((enum steady_http_form)4, &policy, 1, fields, text, sizeof text),
                     STEADY_BAD_ARGUMENT);
}

/* The longest values: each byte of the name is escaped. */
static void the_room_that_the_header_names_is_enough(void **state) {
    (void)state;
    char text[STEADY_HTTP_TEXT_MAX(3, 4) + 1];
    steady_http_field fields[STEADY_HTTP_FIELDS_MAX] = {{0}};
    const steady_limit limit = limit_of(MAX_CAPACITY, 4194304, 1);
    const steady_http_policy one = denied("\"\"\\\"", &limit, 0, INT64_MAX), policies[] = {one, one, one};
    for (int form = STEADY_HTTP_DRAFT_11; form <= STEADY_HTTP_X; form++) {
        memset(text, 7, sizeof text);
        assert_true(steady_http_fields((enum steady_http_form)form, policies, 3, fields, text, sizeof text - 1) >= 2);
        assert_int_equal(text[sizeof text - 1], 7);
    }
}

static void a_text_that_is_too_small_is_an_error_and_nothing_is_written_behind_it(void **state) {
    (void)state;
    char text[64];
    steady_http_field fields[STEADY_HTTP_FIELDS_MAX] = {{0}};
    const steady_limit limit = limit_of(100, 600000, 1);
    const steady_http_policy policy = allowed("n", &limit, 1);
    for (int form = STEADY_HTTP_DRAFT_11; form <= STEADY_HTTP_X; form++) {
        size_t size = 0;
        for (int count = STEADY_NO_MEMORY; count == STEADY_NO_MEMORY; size++) {
            memset(text, 7, sizeof text);
            count = steady_http_fields((enum steady_http_form)form, &policy, 1, fields, text, size);
            for (size_t i = size; i < sizeof text; i++)
                assert_int_equal(text[i], 7);
        }
        assert_in_range(size, 8, sizeof text);
    }
}

static void retry_after_is_rounded_up_to_seconds(void **state) {
    (void)state;
    static const steady_us waits[][2] = {{0, 1},       {1, 1},       {999999, 1},
                                         {1000000, 1}, {1000001, 2}, {INT64_MAX, 9223372036855}};
    for (size_t i = 0; i < COUNT(waits); i++)
        assert_int_equal(steady_http_retry_after(waits[i][0]), waits[i][1]);
}

/* ---- Problems ---- */

static void a_problem_names_the_policies(void **state) {
    (void)state;
    char out[512];
    static const char *const names[] = {"per \"client\"", "a\\b"};
    static const char expected[] =
        "{\"type\": \"https://iana.org/assignments/http-problem-types#quota-exceeded\", "
        "\"title\": \"Request cannot be satisfied as assigned quota has been exceeded\", \"status\": 429, "
        "\"violated-policies\": [\"per \\\"client\\\"\", \"a\\\\b\"]}";
    assert_int_equal(steady_http_problem(out, sizeof out, 429, names, 2), sizeof expected - 1);
    assert_string_equal(out, expected);
    assert_int_equal(steady_http_problem(NULL, 0, 429, names, 2), sizeof expected - 1);
    assert_int_equal(steady_http_problem(out, 10, 429, names, 2), sizeof expected - 1);
    assert_string_equal(out, "{\"type\": ");
}

static void each_status_has_its_problem(void **state) {
    (void)state;
    static const struct {
        int status;
        const char *type;
    } problems[] = {{400, "\"about:blank\""},
                    {422, "\"about:blank\""},
                    {429, "\"https://iana.org/assignments/http-problem-types#quota-exceeded\""},
                    {503, "\"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity\""}};
    for (size_t i = 0; i < COUNT(problems); i++) {
        char out[512], head[128];
        const size_t len = steady_http_problem(out, sizeof out, problems[i].status, NULL, 0);
        assert_int_equal(len, strlen(out));
        snprintf(head, sizeof head, "{\"type\": %s, \"title\": \"", problems[i].type);
        assert_memory_equal(out, head, strlen(head));
        snprintf(head, sizeof head, "\", \"status\": %d}", problems[i].status);
        assert_string_equal(out + len - strlen(head), head);
    }
}

static void another_status_or_a_bad_name_has_no_problem(void **state) {
    (void)state;
    char out[64] = "x";
    static const char *const bad[] = {"a\n"};
    assert_int_equal(steady_http_problem(out, sizeof out, 418, NULL, 0), 0);
    assert_string_equal(out, "");
    assert_int_equal(steady_http_problem(out, sizeof out, 429, bad, 1), 0);
    assert_int_equal(steady_http_problem(out, sizeof out, 429, NULL, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draft_11_has_the_golden_values),
        cmocka_unit_test(a_blocked_key_has_nothing_left),
        cmocka_unit_test(a_name_is_quoted),
        cmocka_unit_test(if_one_denies_the_others_are_not_in_the_state),
        cmocka_unit_test(a_policy_that_can_never_fit_has_no_state),
        cmocka_unit_test(older_forms_show_the_tightest_policy),
        cmocka_unit_test(older_forms_show_the_policy_that_denies_for_the_longest_time),
        cmocka_unit_test(a_field_never_promises_more_than_leaks),
        cmocka_unit_test(a_bad_argument_makes_no_field),
        cmocka_unit_test(the_room_that_the_header_names_is_enough),
        cmocka_unit_test(a_text_that_is_too_small_is_an_error_and_nothing_is_written_behind_it),
        cmocka_unit_test(retry_after_is_rounded_up_to_seconds),
        cmocka_unit_test(a_problem_names_the_policies),
        cmocka_unit_test(each_status_has_its_problem),
        cmocka_unit_test(another_status_or_a_bad_name_has_no_problem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
