/* SPDX-License-Identifier: MIT
 * Failover under load, with real sentinels: on command, after the death of the primary, and with an old primary that
 * stays writable. The switch is the moment at which most sentinels name another primary. The limit is large and
 * leaks slowly, so it never denies. */
#include "support.h"

#include <stdlib.h>

#include "sentinels.h"

#define MS STEADY_MILLISECOND
#define TIMEOUT (100 * MS)
#define LARGE 1000000

static struct fleet fleet;
static steady_poller *poller;
static steady_loop loop;
static struct log_lines log_lines;
static steady_store *store;
static steady_throttler *throttler, *narrow;

static int start_fleet(void **state) {
    (void)state;
    fleet_start(&fleet);
    return 0;
}

static int stop_fleet(void **state) {
    (void)state;
    fleet_stop(&fleet);
    return 0;
}

static int set_up(void **state) {
    (void)state;
    memset(&log_lines, 0, sizeof log_lines);
    fleet_settle(&fleet);
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    const steady_store_options options = {
        .loop = &loop, .timeout = TIMEOUT, .log = remember_line, .log_data = &log_lines};
    char url[300];
    snprintf(url, sizeof url, "%s&peek=replica", fleet.url);
    store = open_store(url, &options);
    throttler = new_throttler(store, LARGE, HOUR);
    narrow = new_throttler(store, 1, HOUR);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady_throttler_free(&throttler);
    steady_throttler_free(&narrow);
    steady_store_close(&store);
    steady_poller_free(&poller);
    return 0;
}

/* What the client observes during a failover. */
struct course {
    struct server *old, *new; /* new: NULL until the switch */
    steady_us switched_at, used_at;
    steady_us taken_away; /* at the switch, then until use */
    struct tally tally;   /* on keys that never deny */
    struct tally peeks;
    struct tally after; /* the same, submitted a second after the switch or later */
};

/* The port that two of three sentinels name; 0: they disagree. The third sentinel may be frozen. */
static int port_now(void) {
    const int port = sentinel_port(&fleet.sentinels[0]);
    return port == sentinel_port(&fleet.sentinels[1]) ? port : 0;
}

static void look_for_the_switch(struct course *course) {
    const int port = port_now();
    if (port == 0 || port == course->old->port) return;
    course->switched_at = now_us();
    course->taken_away = taken_away();
    course->new = fleet_node(&fleet, port);
}

static void look_for_use(struct course *course) {
    if (strcmp(server_ask(course->new, "GET after"), "(nil)") == 0) return;
    course->used_at = now_us();
    course->taken_away = taken_away() - course->taken_away;
}

static void begin(struct course *course) {
    struct tally tally = {0};
    memset(course, 0, sizeof *course);
    while (port_now() == 0)
        sleep_us(10 * MS);
    course->old = fleet_node(&fleet, port_now());
    server_ask(course->old, "FLUSHALL");
    for (int i = 0; i < 2; i++)
        consume_counted(narrow, "narrow", 1, &tally); /* now the key is denied */
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 2);
}

/* Makes a decision each millisecond until 1.5 s after the switch. `commander` is the sentinel that gets the command,
 * again if it gave up; NULL: no command. */
static void drive(struct course *course, const struct server *commander) {
    const steady_us patience = 40 * STEADY_SECOND, give_up = now_us() + patience;
    steady_us command_at = commander != NULL ? now_us() : give_up;
    for (int i = 0; course->switched_at == 0 || now_us() < course->switched_at + 1500 * MS; i++) {
        if (now_us() > give_up) fail_msg("no switch within %lld s", (long long)(patience / STEADY_SECOND));
        if (course->switched_at == 0 && now_us() >= command_at) {
            server_ask(commander, "SENTINEL FAILOVER main");
            command_at = now_us() + 5 * STEADY_SECOND;
        }
        const bool late = course->switched_at != 0 && now_us() > course->switched_at + STEADY_SECOND;
        consume_counted(throttler, course->switched_at != 0 ? "after" : "k", 1, late ? &course->after : &course->tally);
        assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&course->peeks)), 0);
        run_for(poller, MS);
        if (course->switched_at == 0 && i % 5 == 0) look_for_the_switch(course);
        if (course->switched_at != 0 && course->used_at == 0) look_for_use(course);
    }
    run_until_done(poller, &course->tally, STEADY_SECOND);
    run_until_done(poller, &course->peeks, STEADY_SECOND);
    run_until_done(poller, &course->after, STEADY_SECOND);
}

/* True if the sentinels switched twice, because a slow server looked dead. The client followed, and the checks do
 * not apply. */
static bool switched_again(const struct course *course) {
    const int port = port_now();
    if (port == 0 || port == course->new->port) return false;
    print_message("  the sentinels have switched again: not looked at any further\n");
    return true;
}

static void print_course(const struct course *course, const char *name) {
    const struct tally *t = &course->tally;
    print_message("%s: new primary used %.1f ms after the switch; of %lu decisions until a second later %lu answered, "
                  "%lu unavailable, %lu unknown; slowest %.1f ms; of %lu peeks %lu answered\n",
                  name, (double)(course->used_at - course->switched_at) / 1e3, t->called, t->verdicts,
                  t->errors[-STEADY_UNAVAILABLE], t->errors[-STEADY_UNKNOWN], (double)t->slowest / 1e3,
                  course->peeks.called, course->peeks.verdicts);
}

/* Nearly all: a few decisions may end at their deadlines if the machine stands still. */
static void assert_nearly_all(const struct tally *tally) {
    if (tally->verdicts + tally->called / 100 < tally->called)
        fail_msg("%lu of %lu: %s", tally->verdicts, tally->called, last_error_of(store));
}

/* No verdict is wrong, no callback is lost, and one second after the switch all decisions are made. */
static void assert_course(const struct course *course) {
    const struct tally *t = &course->tally;
    assert_true(course->used_at != 0);
    assert_true(course->used_at - course->switched_at < STEADY_SECOND + SLACK + course->taken_away);
    assert_int_equal(t->denied + course->after.denied + course->peeks.denied, 0);
    assert_int_equal(t->verdicts + t->errors[-STEADY_UNAVAILABLE] + t->errors[-STEADY_UNKNOWN], t->called);
    assert_true(t->slowest < TIMEOUT + SLACK_OF(*t));
    if (!switched_again(course)) assert_nearly_all(&course->after);
}

/* The old primary denies this key. It is empty at the new one, which must admit it. */
static void assert_no_stale_denial(const struct course *course) {
    struct tally tally = {0};
    if (switched_again(course)) return;
    assert_string_equal(server_ask(course->new, "DEL narrow"), "1");
    consume_counted(narrow, "narrow", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.allowed, 1);
}

static void failover_on_command_is_followed(void **state) {
    struct course course;
    (void)state;
    begin(&course);
    drive(&course, &fleet.sentinels[1]);
    print_course(&course, "on command");
    assert_course(&course);
    assert_no_stale_denial(&course);
    if (!switched_again(&course) && log_lines.lines != 2) fail_msg("%u lines:\n%s", log_lines.lines, log_lines.all);
}

/* The old primary comes back before a sentinel has demoted it. */
static void killed_primary_is_replaced_and_comes_back_as_replica(void **state) {
    struct course course;
    struct tally tally = {0};
    (void)state;
    begin(&course);
    server_kill(course.old);
    drive(&course, NULL);
    print_course(&course, "kill -9");
    assert_course(&course);
    assert_no_stale_denial(&course);
    if (!switched_again(&course) && log_lines.lines != 2) fail_msg("%u lines:\n%s", log_lines.lines, log_lines.all);
    server_restart(course.old, true);
    for (int i = 0; i < 200; i++) {
        consume_counted(throttler, "back", 1, &tally);
        run_for(poller, MS);
    }
    run_until_done(poller, &tally, STEADY_SECOND);
    if (switched_again(&course)) return;
    assert_int_equal(tally.allowed, tally.called);
    assert_int_equal(atol(server_ask(course.new, "GET back")), tally.allowed);
}

/* The sentinels have no right to demote the old primary. It stays reachable and writable. */
static void old_primary_that_stays_writable_is_left(void **state) {
    struct course course;
    (void)state;
    begin(&course);
    server_ask(course.old, "ACL SETUSER default -replicaof -slaveof -multi -client -config");
    drive(&course, &fleet.sentinels[0]);
    print_course(&course, "old primary unaware");
    assert_int_equal(strncmp(server_ask(course.old, "ROLE"), "master", 6), 0);
    assert_course(&course);
    assert_nearly_all(&course.tally); /* both servers are alive, so nothing is lost */
    assert_no_stale_denial(&course);
    server_ask(course.old, "ACL SETUSER default +@all");
}

/* The primary is frozen: connections stay open and nothing answers. */
static void frozen_primary_is_replaced(void **state) {
    struct course course;
    (void)state;
    begin(&course);
    server_freeze(course.old);
    drive(&course, NULL);
    print_course(&course, "frozen");
    server_thaw(course.old);
    assert_course(&course);
    assert_no_stale_denial(&course);
}

/* The host of the primary is lost, with the sentinel that the store asked. */
static void primary_lost_with_a_sentinel_is_replaced(void **state) {
    struct course course;
    (void)state;
    begin(&course);
    server_freeze(&fleet.sentinels[2]);
    server_kill(course.old);
    drive(&course, NULL);
    print_course(&course, "kill -9, a sentinel frozen");
    server_thaw(&fleet.sentinels[2]);
    server_restart(course.old, true);
    assert_course(&course);
    assert_no_stale_denial(&course);
}

/* Each test takes seconds: two run under a sanitizer, three in `make test`, and all in `make faults`. */
int main(void) {
#define WITH_FLEET(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest all[] = {
        WITH_FLEET(failover_on_command_is_followed),
        WITH_FLEET(killed_primary_is_replaced_and_comes_back_as_replica),
        WITH_FLEET(old_primary_that_stays_writable_is_left),
        WITH_FLEET(frozen_primary_is_replaced),
        WITH_FLEET(primary_lost_with_a_sentinel_is_replaced),
    };
    const struct CMUnitTest essential[] = {
        WITH_FLEET(failover_on_command_is_followed),
        WITH_FLEET(killed_primary_is_replaced_and_comes_back_as_replica),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        WITH_FLEET(old_primary_that_stays_writable_is_left),
#endif
    };
    if (how_long(0, 1) != 0) return cmocka_run_group_tests_name("failover", all, start_fleet, stop_fleet);
    return cmocka_run_group_tests_name("failover", essential, start_fleet, stop_fleet);
}
