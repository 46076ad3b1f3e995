/* SPDX-License-Identifier: MIT
 * Log lines about one server: their text, and how many there are. The loop is a clock that the test sets. */
#include "support.h"

#include "conn/log.h"
#include "loop/loop.h"

#define MINUTE (60 * STEADY_SECOND)

static steady_us clock_us;
static steady_us time_now(void *arg) {
    (void)arg;
    return clock_us;
}
static const steady_loop_ops clock_ops = {.name = "clock", .now = time_now};
static const steady_loop loop = {.ops = &clock_ops};

static struct log_lines lines;
static struct steady__log server_log;

static int set_up(void **state) {
    (void)state;
    clock_us = HOUR;
    memset(&lines, 0, sizeof lines);
    server_log = (struct steady__log){.log = remember_line, .log_data = &lines, .where = "here:1"};
    return 0;
}

static void decide(void) { steady__log_reply(&server_log, &loop, STEADY__CIRCUIT_DECIDES, ""); }
static void refuse(void) { steady__log_reply(&server_log, &loop, STEADY__CIRCUIT_REFUSES, "OOM"); }
static void go_down(void) { steady__log_server_down(&server_log, "connection lost", "reset"); }

/* Fails unless there are this many lines and warnings, and this is the last line. */
static void assert_lines(unsigned count, unsigned warnings, const char *text) {
    assert_int_equal(lines.lines, count);
    assert_int_equal(lines.warnings, warnings);
    assert_string_equal(lines.last, text);
}

#define DOWN "here:1: connection lost: reset"
#define REFUSED "here:1: the server refuses decisions: OOM"
#define AGAIN "here:1: making decisions again"

/* ---- Texts ---- */

static void line_has_the_place_the_event_and_the_reason(void **state) {
    (void)state;
    steady__log_warn(&server_log, "no name", "NOPERM");
    assert_lines(1, 1, "here:1: no name: NOPERM");
    steady__log_warn(&server_log, "no name", "");
    assert_lines(2, 2, "here:1: no name");
}

static void line_without_a_place_begins_with_the_event(void **state) {
    (void)state;
    server_log.where[0] = '\0';
    steady__log_warn(&server_log, "no name", "NOPERM");
    assert_lines(1, 1, "no name: NOPERM");
}

static void place_is_that_of_the_server_without_secrets(void **state) {
    struct steady__url service, at;
    (void)state;
    assert_int_equal(steady__url_parse(&service, "redis://ann:s3cret@service.test:7000", NULL), 0);
    assert_int_equal(steady__url_parse(&at, "redis://[::1]:7001", NULL), 0);
    steady__log_set_server(&server_log, &service, &service);
    assert_string_equal(server_log.where, "service.test:7000");
    steady__log_set_server(&server_log, &at, &service);
    assert_string_equal(server_log.where, "[::1]:7001");
    at.host = "s3cret.test";
    at.named = true;
    steady__log_set_server(&server_log, &at, &service);
    assert_null(strstr(server_log.where, "s3cret"));
    assert_non_null(strstr(server_log.where, ":7001"));
    steady__url_clear(&service);
    steady__url_clear(&at);
}

/* The longest place and reason that there are: a path of 299 bytes, and a message. */
static void line_that_is_too_long_is_cut(void **state) {
    char why[300];
    (void)state;
    memset(server_log.where, 'p', sizeof server_log.where - 1);
    server_log.where[sizeof server_log.where - 1] = '\0';
    memset(why, 'w', sizeof why - 1);
    why[sizeof why - 1] = '\0';
    steady__log_warn(&server_log, "event", why);
    assert_int_equal(lines.lines, 1);
    assert_int_equal(strlen(lines.last), sizeof lines.last - 1);
    assert_non_null(strstr(lines.last, "p: event: w"));
}

static void warning_changes_no_state_of_the_log(void **state) {
    (void)state;
    steady__log_warn(&server_log, "no name", "");
    decide();
    assert_lines(1, 1, "here:1: no name");
    go_down();
    steady__log_warn(&server_log, "no name", "");
    go_down();
    assert_lines(3, 3, "here:1: no name");
}

static void caller_without_a_log_gets_no_lines(void **state) {
    (void)state;
    server_log.log = NULL;
    steady__log_warn(&server_log, "no name", "");
    go_down();
    decide();
    refuse();
    assert_int_equal(lines.lines, 0);
}

/* ---- A server that is down ---- */

static void server_that_is_down_is_logged_once_until_it_decides(void **state) {
    (void)state;
    go_down();
    assert_lines(1, 1, DOWN);
    clock_us += HOUR;
    go_down();
    steady__log_reply(&server_log, &loop, STEADY__CIRCUIT_OPENED, "LOADING");
    assert_lines(1, 1, DOWN);
    decide();
    assert_lines(2, 1, AGAIN);
    decide();
    assert_lines(2, 1, AGAIN);
    go_down();
    assert_lines(3, 2, DOWN);
}

static void first_decision_is_not_logged_without_a_failure_before_it(void **state) {
    (void)state;
    decide();
    assert_int_equal(lines.lines, 0);
}

static void reply_that_shows_nothing_new_is_not_logged(void **state) {
    (void)state;
    steady__log_reply(&server_log, &loop, STEADY__CIRCUIT_NOTHING, "ERR");
    assert_int_equal(lines.lines, 0);
    go_down();
    steady__log_reply(&server_log, &loop, STEADY__CIRCUIT_NOTHING, "ERR");
    assert_lines(1, 1, DOWN);
}

static void open_circuit_is_logged_once_with_its_reason(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        steady__log_reply(&server_log, &loop, STEADY__CIRCUIT_OPENED, "LOADING");
    assert_lines(1, 1, "here:1: the server makes no decisions for now: LOADING");
    go_down();
    assert_int_equal(lines.lines, 1);
    decide();
    assert_lines(2, 1, AGAIN);
}

/* ---- Refusals ---- */

static void refusals_are_logged_once_until_decisions_are_made(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++, clock_us += 2 * MINUTE)
        refuse();
    assert_lines(1, 1, REFUSED);
    decide();
    assert_lines(2, 1, AGAIN);
}

/* Its clock began less than a minute ago. Zero means that no refusal was logged. */
static void first_refusal_is_logged_on_a_machine_that_has_just_started(void **state) {
    (void)state;
    clock_us = STEADY_SECOND;
    assert_true(steady__log_needs_reason(&server_log, &loop, STEADY__CIRCUIT_REFUSES));
    refuse();
    assert_lines(1, 1, REFUSED);
}

static void refusals_are_over_a_second_after_the_last_one(void **state) {
    (void)state;
    refuse();
    clock_us += STEADY_SECOND - 1;
    decide();
    assert_lines(1, 1, REFUSED);
    refuse();
    clock_us += STEADY_SECOND - 1;
    decide();
    assert_lines(1, 1, REFUSED);
    clock_us += 1;
    decide();
    assert_lines(2, 1, AGAIN);
}

/* A server that is short of memory refuses some of the decisions for hours. */
static void refusals_between_decisions_are_logged_once(void **state) {
    (void)state;
    for (int i = 0; i < 1000; i++) {
        refuse();
        clock_us += STEADY_SECOND / 2;
        decide();
        clock_us += STEADY_SECOND / 4;
    }
    assert_lines(1, 1, REFUSED);
}

static void refusals_that_come_and_go_are_logged_once_a_minute(void **state) {
    const steady_us begun_at = clock_us;
    (void)state;
    refuse();
    clock_us += STEADY_SECOND;
    decide();
    assert_lines(2, 1, AGAIN);
    clock_us = begun_at + MINUTE - 1;
    refuse();
    clock_us += 2 * STEADY_SECOND;
    decide();
    assert_lines(2, 1, AGAIN);
    clock_us = begun_at + MINUTE;
    refuse();
    assert_lines(3, 2, REFUSED);
}

static void refusal_by_a_server_that_is_down_is_not_logged(void **state) {
    (void)state;
    go_down();
    refuse();
    assert_lines(1, 1, DOWN);
    decide();
    assert_lines(2, 1, AGAIN);
}

/* The line about refusals already says that the server makes no decisions. */
static void lost_connection_is_not_logged_while_all_decisions_are_refused(void **state) {
    (void)state;
    refuse();
    go_down();
    assert_lines(1, 1, REFUSED);
}

static void lost_connection_is_logged_between_decisions_and_refusals(void **state) {
    (void)state;
    refuse();
    decide();
    go_down();
    assert_lines(2, 2, DOWN);
    decide();
    assert_lines(3, 2, AGAIN);
}

/* ---- Reasons ---- */

static bool needs_reason(enum steady__circuit_event news) { return steady__log_needs_reason(&server_log, &loop, news); }

static void only_bad_news_needs_a_reason(void **state) {
    (void)state;
    assert_false(needs_reason(STEADY__CIRCUIT_NOTHING));
    assert_false(needs_reason(STEADY__CIRCUIT_DECIDES));
    assert_true(needs_reason(STEADY__CIRCUIT_OPENED));
    assert_true(needs_reason(STEADY__CIRCUIT_REFUSES));
}

static void reason_is_not_needed_without_a_log(void **state) {
    (void)state;
    server_log.log = NULL;
    assert_false(needs_reason(STEADY__CIRCUIT_OPENED));
    assert_false(needs_reason(STEADY__CIRCUIT_REFUSES));
}

/* Otherwise a line would lack its reason, or a reason would be written for each refusal. */
static void reason_is_needed_exactly_for_news_that_is_logged(void **state) {
    static const enum steady__circuit_event news[] = {STEADY__CIRCUIT_DECIDES, STEADY__CIRCUIT_OPENED,
                                                      STEADY__CIRCUIT_REFUSES};
    static const steady_us steps[] = {0, STEADY_SECOND / 2, 3 * STEADY_SECOND, MINUTE};
    (void)state;
    unsigned needed = 0;
    for (unsigned path = 0; path < 12 * 12 * 12 * 12; path++) { /* each sequence of four events and steps */
        set_up(NULL);
        for (unsigned rest = path, n = 0; n < 4; n++, rest /= 12) {
            const enum steady__circuit_event event = news[rest % 3];
            const unsigned before = lines.warnings;
            clock_us += steps[rest % 12 / 3];
            const bool needs = needs_reason(event);
            steady__log_reply(&server_log, &loop, event, "why");
            if (needs != (lines.warnings > before)) fail_msg("path %u, event %u: %d", path, n, needs);
            needed += needs;
        }
    }
    assert_true(needed > 0);
}

#define WITH_LOG(test) cmocka_unit_test_setup(test, set_up)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_LOG(line_has_the_place_the_event_and_the_reason),
        WITH_LOG(line_without_a_place_begins_with_the_event),
        WITH_LOG(place_is_that_of_the_server_without_secrets),
        WITH_LOG(line_that_is_too_long_is_cut),
        WITH_LOG(warning_changes_no_state_of_the_log),
        WITH_LOG(caller_without_a_log_gets_no_lines),
        WITH_LOG(server_that_is_down_is_logged_once_until_it_decides),
        WITH_LOG(first_decision_is_not_logged_without_a_failure_before_it),
        WITH_LOG(reply_that_shows_nothing_new_is_not_logged),
        WITH_LOG(open_circuit_is_logged_once_with_its_reason),
        WITH_LOG(refusals_are_logged_once_until_decisions_are_made),
        WITH_LOG(first_refusal_is_logged_on_a_machine_that_has_just_started),
        WITH_LOG(refusals_are_over_a_second_after_the_last_one),
        WITH_LOG(refusals_between_decisions_are_logged_once),
        WITH_LOG(refusals_that_come_and_go_are_logged_once_a_minute),
        WITH_LOG(refusal_by_a_server_that_is_down_is_not_logged),
        WITH_LOG(lost_connection_is_not_logged_while_all_decisions_are_refused),
        WITH_LOG(lost_connection_is_logged_between_decisions_and_refusals),
        WITH_LOG(only_bad_news_needs_a_reason),
        WITH_LOG(reason_is_not_needed_without_a_log),
        WITH_LOG(reason_is_needed_exactly_for_news_that_is_logged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
