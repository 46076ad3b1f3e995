/* SPDX-License-Identifier: MIT
 * The Redis store with faults of the connection or the process: frozen, killed, restarted, forked, without
 * descriptors. */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Frozen ---- */

static void frozen_server_is_dropped_and_each_decision_ends_in_time(void **state) {
    static const steady_us pauses[] = {1 * MS, 10 * MS, 50 * MS};
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    for (size_t i = 0; i < COUNT(pauses); i++) {
        struct tally tally = {0};
        const uint64_t timeouts = stats().timeouts;
        server_ask(&rig.server, "DEL k");
        server_freeze(&rig.server);
        trickle(&tally, pauses[i], how_long(700 * MS, 3 * STEADY_SECOND));
        assert_int_equal(tally.verdicts, 0);
        assert_int_equal(tally.errors[-STEADY_UNKNOWN] + tally.errors[-STEADY_UNAVAILABLE], tally.called);
        assert_true(tally.errors[-STEADY_UNKNOWN] > 0);
        assert_in_time(&tally);
        assert_true(stats().timeouts > timeouts);
        assert_non_null(strstr(rig.log.last, "does not answer")); /* the connection is dropped after four timeouts */
        server_thaw(&rig.server);
        assert_used_again();
        const unsigned long called = tally.called;
        run_for(rig.poller, 50 * MS);
        assert_int_equal(tally.called, called);
        account(&tally, level("k"));
    }
    assert_loop_never_held();
}

static void blocking_call_to_a_frozen_server_ends_in_time(void **state) {
    steady_result r;
    (void)state;
    rig_open(TIMEOUT);
    assert_int_equal(steady_consume_sync(rig.throttler, "k", 1, 1, &r), 0);
    server_freeze(&rig.server);
    for (int i = 0; i < 6; i++) {
        const steady_us begin = now_us(), before = taken_away();
        const int error = steady_consume_sync(rig.throttler, "k", 1, 1, &r);
        assert_true(error == STEADY_UNKNOWN || error == STEADY_UNAVAILABLE);
        assert_true(now_us() - begin < TIMEOUT + slack_since(before));
    }
    server_thaw(&rig.server);
    const steady_us begin = now_us();
    while (steady_consume_sync(rig.throttler, "k", 1, 1, &r) != 0)
        assert_true(now_us() - begin < STEADY_SECOND);
}

/* The replies come after the deadline on a connection that is kept. Each is discarded. */
static void late_replies_reach_no_other_decision(void **state) {
    struct tally early = {0}, late = {0};
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    server_freeze(&rig.server);
    for (int i = 0; i < 50; i++)
        consume_counted(rig.throttler, "early", 1, &early);
    run_until_done(rig.poller, &early, STEADY_SECOND);
    assert_int_equal(early.errors[-STEADY_UNKNOWN], 50);
    server_thaw(&rig.server);
    for (int i = 0; i < 50; i++)
        consume_counted(rig.throttler, "late", 1, &late);
    run_until_done(rig.poller, &late, STEADY_SECOND);
    assert_int_equal(late.allowed, 50);
    assert_int_equal(late.last.level, 50); /* its own reply, not one 50 places earlier */
    assert_int_equal(early.called, 50);
    assert_int_equal(level("early"), 50);
    assert_int_equal(stats().reconnects, 0);
}

/* Only a request that was written may be charged, however much the socket accepts. */
static void request_that_was_never_written_is_not_charged(void **state) {
    struct tally tally = {0};
    char *key = malloc(1001);
    (void)state;
    memset(key, 'k', 1000);
    key[1000] = '\0';
    rig_open(TIMEOUT);
    warm_up();
    server_freeze(&rig.server);
    for (int i = 0; i < 20000; i++)
        consume_counted(rig.throttler, key, 1, &tally);
    run_until_done(rig.poller, &tally, 5 * STEADY_SECOND);
    assert_true(tally.errors[-STEADY_UNKNOWN] > 0);
    assert_true(tally.errors[-STEADY_UNAVAILABLE] > 0);
    server_thaw(&rig.server);
    assert_used_again();
    account(&tally, level(key));
    free(key);
}

/* ---- Dead ---- */

static void restarted_server_is_used_within_a_second(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    for (int round = 1; round <= 2; round++) {
        server_kill(&rig.server);
        run_for(rig.poller, 20 * MS);
        memset(&tally, 0, sizeof tally);
        trickle(&tally, 5 * MS, 300 * MS);
        assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.called);
        assert_true(tally.slowest < TIMEOUT + tally.taken_away); /* well before the deadline */
        assert_non_null(strstr(last_error_of(rig.store), "refused"));
        server_restart(&rig.server, true);
        assert_used_again();
        if (rig.log.lines != 2 * (unsigned)round || rig.log.warnings != (unsigned)round)
            fail_msg("%u lines:\n%s", rig.log.lines, rig.log.all);
    }
    assert_int_equal(stats().reconnects, 2);
}

static void server_killed_under_load_ends_each_decision_in_time(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    for (int i = 0; i < 500; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    steady_poller_run(rig.poller, 0);
    server_kill(&rig.server);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts + tally.errors[-STEADY_UNKNOWN] + tally.errors[-STEADY_UNAVAILABLE], 500);
    assert_in_time(&tally);
}

static void server_started_late_is_used_within_a_second(void **state) {
    steady_result r;
    (void)state;
    server_kill(&rig.server);
    rig_open(TIMEOUT);
    const steady_us begin = now_us();
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_true(now_us() - begin < TIMEOUT);
    assert_int_equal(steady_consume_sync(rig.throttler, "k", 1, 1, &r), STEADY_UNAVAILABLE);
    run_for(rig.poller, 300 * MS);
    assert_int_equal(rig.log.lines, 1);
    server_restart(&rig.server, true);
    assert_used_again();
    const steady_us back = now_us();
    while (steady_consume_sync(rig.throttler, "k", 1, 1, &r) != 0)
        assert_true(now_us() - back < STEADY_SECOND);
    assert_int_equal(rig.log.lines, 2);
}

static steady_throttler *throttler_with(enum steady_policy policy) {
    const steady_limit limit = {.max_capacity = 100, .drop_recharge = HOUR};
    const steady_throttler_options options = {.on_error = policy, .local_share = 4};
    steady_throttler *throttler = NULL;
    assert_int_equal(steady_throttler_new(&throttler, rig.store, &limit, &options, NULL), 0);
    return throttler;
}

/* Makes decisions with a policy and returns how many were allowed. Checks the source of each. */
static unsigned let_in(enum steady_policy policy, enum steady_source source, unsigned decisions) {
    steady_throttler *throttler = throttler_with(policy);
    unsigned allowed = 0;
    for (unsigned i = 0; i < decisions; i++) {
        struct tally tally = {0};
        assert_int_equal(steady_consume(throttler, "p", 1, 1, count_result, expect_result(&tally)), 0);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
        assert_int_equal(tally.last.source, source);
        assert_int_equal(tally.last.error, source == STEADY_FROM_STORE ? 0 : STEADY_UNAVAILABLE);
        allowed += tally.last.success;
    }
    steady_throttler_free(&throttler);
    return allowed;
}

static void each_policy_answers_in_an_outage(void **state) {
    (void)state;
    rig_open(TIMEOUT);
    for (int round = 1; round <= 3; round++) {
        assert_used_again();
        assert_int_equal(let_in(STEADY_LOCAL, STEADY_FROM_STORE, 10), 10);
        server_kill(&rig.server);
        run_for(rig.poller, 50 * MS);
        assert_int_equal(let_in(STEADY_REPORT, STEADY_FROM_NOWHERE, 200), 0);
        assert_int_equal(let_in(STEADY_DENY, STEADY_FROM_POLICY, 200), 0);
        assert_int_equal(let_in(STEADY_ALLOW, STEADY_FROM_POLICY, 200), 200);
        assert_int_equal(let_in(STEADY_LOCAL, STEADY_FROM_LOCAL, 200), round == 1 ? 25 : 0); /* its share, once */
        server_restart(&rig.server, true);
        assert_used_again();
        assert_int_equal(let_in(STEADY_LOCAL, STEADY_FROM_STORE, 10), 10);
        assert_int_equal(rig.log.lines, 2 * round);
    }
}

static void kill_clients(void) {
    server_ask(&rig.server, "CLIENT KILL TYPE normal");
    sleep_us(20 * MS);
}

static void killed_connections_are_replaced_and_charges_add_up(void **state) {
    struct tally tally = {0};
    struct sigaction action;
    (void)state;
    sigaction(SIGPIPE, NULL, &action);
    assert_true(action.sa_handler == SIG_DFL); /* so a SIGPIPE would end this program */
    rig_open(TIMEOUT);
    const pid_t pid = start_child(kill_clients);
    load(&tally, 100, how_long(STEADY_SECOND, 10 * STEADY_SECOND));
    end_child(pid);
    assert_true(tally.verdicts > 0 && stats().reconnects > 5);
    const unsigned long overloaded = tally.errors[-STEADY_OVERLOADED];
    assert_int_equal(tally.verdicts + tally.errors[-STEADY_UNKNOWN] + tally.errors[-STEADY_UNAVAILABLE] + overloaded,
                     tally.called);
    if (overloaded > 0 && tally.taken_away < TIMEOUT / 2) /* a held loop is overloaded, rightly */
        fail_msg("%lu overloaded, and the machine took %lld us away", overloaded, (long long)tally.taken_away);
    assert_used_again();
    account(&tally, level("k"));
}

/* The server keeps the connection and is silent for 200 ms, and up to 100 ms more until it looks at the clock. */
static void short_pause_keeps_the_connection(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    for (int i = 0; i < 3; i++) {
        server_ask(&rig.server, "CLIENT PAUSE 200");
        trickle(&tally, 2 * MS, 280 * MS);
        run_for(rig.poller, 100 * MS);
        assert_used_again();
    }
    assert_true(tally.errors[-STEADY_UNKNOWN] > 0);
    assert_in_time(&tally);
    assert_int_equal(stats().reconnects, 0);
    account(&tally, level("k"));
}

/* The pause is longer than four timeouts: this connection is dropped, and each that is made meanwhile. */
static void long_pause_replaces_the_connection(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    for (unsigned i = 1; i <= 3; i++) {
        const size_t told = strlen(rig.log.all);
        server_ask(&rig.server, "CLIENT PAUSE 500");
        trickle(&tally, 2 * MS, 500 * MS);
        run_for(rig.poller, 100 * MS);
        assert_used_again();
        assert_non_null(strstr(rig.log.all + told, "does not answer"));
        assert_int_equal(rig.log.lines, 2 * i);
        assert_true(stats().reconnects >= i);
    }
    assert_true(tally.errors[-STEADY_UNKNOWN] > 0);
    assert_in_time(&tally);
    account(&tally, level("k"));
}

/* ---- The process ---- */

static void on_alarm(int number) { (void)number; }

static void signal_each_millisecond_fails_no_decision(void **state) {
    const struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART: EINTR everywhere */
    const struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    struct tally tally = {0};
    steady_result r;
    (void)state;
    rig_open(5 * STEADY_SECOND);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    load(&tally, 50, 300 * MS);
    for (int i = 0; i < 500; i++)
        assert_int_equal(steady_consume_sync(rig.throttler, "sync", 4, 1, &r), 0);
    setitimer(ITIMER_REAL, &never, NULL);
    assert_int_equal(tally.allowed, tally.submitted);
    account(&tally, level("k"));
    assert_int_equal(level("sync"), 500);
}

static void signal_mask_and_handlers_stay_unchanged(void **state) {
    sigset_t before, after;
    struct sigaction actions[32] = {0}, action = {0};
    struct tally tally = {0};
    steady_result r;
    (void)state;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    for (int number = 1; number < 32; number++)
        sigaction(number, NULL, &actions[number]);
    rig_open(TIMEOUT);
    load(&tally, 10, 20 * MS);
    assert_int_equal(steady_consume_sync(rig.throttler, "sync", 4, 1, &r), 0);
    rig_close();
    rig_open_at("redis://localhost:1", TIMEOUT); /* a thread looks the name up */
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    for (int number = 1; number < 32; number++) {
        assert_int_equal(sigismember(&before, number), sigismember(&after, number));
        sigaction(number, NULL, &action);
        assert_true(action.sa_handler == actions[number].sa_handler);
    }
}

/* A callback holds the loop for longer than a timeout. No other decision that was answered is late. */
static void hold_the_loop(const steady_result *result, void *data) {
    sleep_us(3 * TIMEOUT);
    count_result(result, data);
}

static void blocking_callback_makes_no_answered_decision_late(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    server_freeze(&rig.server); /* all requests are written before the first reply */
    assert_int_equal(steady_consume(rig.throttler, "k", 1, 1, hold_the_loop, expect_result(&tally)), 0);
    for (int i = 0; i < 100; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    run_for(rig.poller, 10 * MS);
    server_thaw(&rig.server);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.allowed, 101);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(stats().reconnects, 0);
    assert_int_equal(level("k"), 102);
}

/* A request that was not written by its deadline is never written. The error is overloaded, because the loop was
 * held and the server is healthy. */
static void held_loop_sends_no_expired_request(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    for (int round = 1; round <= 10; round++) {
        for (int i = 0; i < 100; i++)
            consume_counted(rig.throttler, "k", 1, &tally);
        sleep_us(TIMEOUT + 10 * MS);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
        assert_int_equal(tally.allowed, round); /* the first request is written at once */
        assert_int_equal(tally.errors[-STEADY_OVERLOADED], 99 * round);
    }
    account(&tally, level("k"));
    assert_used_again();
}

/* Errors in a child are counted and have a text. Returns how many were counted as unavailable. */
static int unavailable_in_child(int before) {
    const steady_stats s = stats();
    if (strstr(last_error_of(rig.store), "forked") == NULL) return -1;
    return s.decisions == s.allowed + s.unavailable + s.in_flight ? (int)s.unavailable - before : -2;
}

/* A held loop makes no decision unavailable: before, during or after the deadline, connected or not. */
static void held_loop_is_overloaded_and_not_unavailable(void **state) {
    (void)state;
    for (int warm = 0; warm < 2; warm++)
        for (steady_us hold = TIMEOUT / 2; hold <= 2 * TIMEOUT; hold += TIMEOUT / 4) {
            struct tally tally = {0};
            rig_open(TIMEOUT);
            if (warm == 1) warm_up();
            for (int i = 0; i < 20; i++)
                consume_counted(rig.throttler, "k", 1, &tally);
            for (int turn = 0; turn < 3; turn++) {
                sleep_us(hold);
                steady_poller_run(rig.poller, 0);
            }
            run_until_done(rig.poller, &tally, STEADY_SECOND);
            if (tally.allowed + tally.errors[-STEADY_OVERLOADED] != 20)
                fail_msg("held for %lld us, warm %d: %lu unavailable, %lu unknown", (long long)hold, warm,
                         tally.errors[-STEADY_UNAVAILABLE], tally.errors[-STEADY_UNKNOWN]);
            rig_close();
        }
}

/* False: the outcome may be that of a slow machine. */
static bool is_silent_while_held(void) {
    struct tally tally = {0};
    rig_open(TIMEOUT);
    warm_up();
    server_freeze(&rig.server);
    const steady_us taken = taken_away();
    steady_us turned = 0;
    for (int i = 0; i < 5000; i++) { /* the loop turns each ms: requests that wait for it would be overloaded */
        consume_counted(rig.throttler, "k", 1, &tally);
        if (now_us() - turned < MS) continue;
        steady_poller_run(rig.poller, 0);
        turned = now_us();
    }
    run_for(rig.poller, MS);
    const steady_us away = taken_away() - taken; /* later, the loop is held on purpose */
    sleep_us(2 * TIMEOUT);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    server_thaw(&rig.server);
    const unsigned long overloaded = tally.errors[-STEADY_OVERLOADED];
    if (overloaded > 0 && away < TIMEOUT / 2) fail_msg("%lu overloaded, %lld us away", overloaded, (long long)away);
    if (overloaded == 0) assert_true(tally.errors[-STEADY_UNKNOWN] > 0 && tally.errors[-STEADY_UNAVAILABLE] > 0);
    rig_close();
    return overloaded == 0;
}

/* A silent server is unavailable, also if the loop is held at the same time. */
static void silent_server_is_unavailable_though_the_loop_is_held(void **state) {
    (void)state;
    for (int tries = 1; !is_silent_while_held(); tries++)
        if (tries == 20) fail_msg("in %d tries the machine took too much away", tries);
}

static int use_in_child(void) {
    steady_result r;
    const int before = (int)stats().unavailable;
    steady_store *own = NULL;
    steady_throttler *owned = NULL;
    const steady_limit limit = {.max_capacity = LARGE, .drop_recharge = RECHARGE};
    if (steady_consume(rig.throttler, "k", 1, 1, count_result, NULL) != STEADY_UNAVAILABLE) return 1;
    if (unavailable_in_child(before) != 1) return 8;
    if (steady_consume_sync(rig.throttler, "k", 1, 1, &r) != STEADY_UNAVAILABLE) return 2;
    if (r.error != STEADY_UNAVAILABLE) return 3;
    if (unavailable_in_child(before) != 2) return 9;
    if (steady_peek_sync(rig.throttler, "k", 1, &r) != STEADY_UNAVAILABLE) return 10;
    if (steady_reset_sync(rig.throttler, "k", 1, &r) != STEADY_UNAVAILABLE) return 11; /* a reset is not counted */
    if (unavailable_in_child(before) != 3) return 12;
    if (steady_store_open(&own, rig.server.url, NULL, NULL) != 0) return 4;
    if (steady_throttler_new(&owned, own, &limit, NULL, NULL) != 0) return 5;
    if (steady_consume_sync(owned, "child", 5, 1, &r) != 0) return 6;
    steady_throttler_free(&owned);
    steady_store_close(&own);
    if (steady_poller_run(rig.poller, 10 * MS) < 0)
        return 7; /* the child may run the parent's loop; this does nothing to the parent */
    steady_store_close(&rig.store);
    steady_throttler_free(&rig.throttler);
    return 0;
}

static void forked_child_is_unavailable_and_the_parent_goes_on(void **state) {
    struct tally tally = {0};
    steady_result r;
    int status = -1;
    (void)state;
    rig_open(5 * STEADY_SECOND);
    warm_up();
    assert_int_equal(steady_consume_sync(rig.throttler, "sync", 4, 1, &r), 0);
    for (int i = 0; i < 100; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    steady_poller_run(rig.poller, 0);
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) _exit(use_in_child());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    run_until_done(rig.poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 100);
    assert_int_equal(tally.last.level, 100);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(steady_consume_sync(rig.throttler, "sync", 4, 1, &r), 0);
    assert_int_equal(r.level, 2);
    assert_int_equal(stats().reconnects, 0);
    assert_int_equal(level("child"), 1);
}

/* There is no descriptor for a connection, and later there is one. */
static void missing_descriptor_is_overloaded_then_recovers(void **state) {
    struct rlimit limit, none;
    (void)state;
    rig_open(TIMEOUT);
    assert_return_code(getrlimit(RLIMIT_NOFILE, &limit), errno);
    none = limit;
    const int next = dup(0);
    close(next);
    none.rlim_cur = (rlim_t)next;
    assert_return_code(setrlimit(RLIMIT_NOFILE, &none), errno);
    const int error = ask_one();
    assert_return_code(setrlimit(RLIMIT_NOFILE, &limit), errno);
    assert_int_equal(error, STEADY_OVERLOADED);
    assert_used_again();
}

/* With each number of spare descriptors from 0 to 11, decisions fail or succeed. */
static void any_shortage_of_descriptors_leaves_none_open(void **state) {
    struct rlimit limit, few;
    int worked = 0;
    (void)state;
    assert_return_code(getrlimit(RLIMIT_NOFILE, &limit), errno);
    const int next = dup(0);
    close(next);
    for (rlim_t spare = 0; spare < 12; spare++) {
        steady_result r = {.error = STEADY_SYSTEM};
        few = limit;
        few.rlim_cur = (rlim_t)next + spare;
        assert_return_code(setrlimit(RLIMIT_NOFILE, &few), errno);
        rig_open(TIMEOUT);
        const int error = ask_one();
        (void)steady_consume_sync(rig.throttler, "sync", 4, 1, &r);
        rig_close();
        assert_return_code(setrlimit(RLIMIT_NOFILE, &limit), errno);
        assert_true(error == 0 || error == STEADY_OVERLOADED);
        worked += error == 0 && r.error == 0;
        const int lowest = dup(0);
        close(lowest);
        assert_int_equal(lowest, next); /* each descriptor is closed */
    }
    assert_between(worked, 1, 11);
}

/* A blocking call ends at once if poll(2) fails. It must not wait for ever. */
static void failed_poll_ends_the_blocking_call_at_once(void **state) {
    struct rlimit limit, none;
    steady_result r;
    (void)state;
    rig_open(TIMEOUT);
    assert_int_equal(steady_consume_sync(rig.throttler, "k", 1, 1, &r), 0);
    assert_return_code(getrlimit(RLIMIT_NOFILE, &limit), errno);
    none = limit;
    none.rlim_cur = 0;
    assert_return_code(setrlimit(RLIMIT_NOFILE, &none), errno);
    const int error = steady_consume_sync(rig.throttler, "k", 1, 1, &r);
    assert_return_code(setrlimit(RLIMIT_NOFILE, &limit), errno);
    assert_int_equal(error, STEADY_UNKNOWN);
    assert_string_equal(last_error_of(rig.store), "poll: Invalid argument");
    assert_int_equal(steady_consume_sync(rig.throttler, "k", 1, 1, &r), 0);
    assert_int_equal(r.level, 3); /* the unknown decision was charged as well */
}

static unsigned long clock_reads;

static steady_us counted_now(void *loop) {
    (void)loop;
    clock_reads++;
    return now_us();
}

static unsigned long most_clock_reads; /* in a turn */

static void turn(steady_us timeout) {
    clock_reads = 0;
    assert_true(steady_poller_run(rig.poller, timeout) >= 0);
    if (clock_reads > most_clock_reads) most_clock_reads = clock_reads;
}

/* Requests that are too late to send end in several turns of the loop. The clock is read for each, so its reads are
 * counted. On a slow machine the server is silent for longer than the timeout, and some of them end as unavailable. */
static void queue_of_late_requests_is_ended_in_parts(void **state) {
    struct tally tally = {0};
    steady_loop_ops ops = *rig.loop.ops;
    (void)state;
    ops.now = counted_now;
    most_clock_reads = 0;
    const steady_loop loop = {.ops = &ops, .loop = rig.loop.loop};
    const steady_store_options options = {.loop = &loop, .timeout = TIMEOUT, .engine = STEADY_ENGINE_SCRIPT};
    rig.store = open_store(rig.server.url, &options);
    rig.throttler = new_throttler(rig.store, LARGE, RECHARGE);
    warm_up();
    server_freeze(&rig.server);
    for (int i = 0; i < 20000; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    for (const steady_us until = now_us() + TIMEOUT / 2; now_us() < until;)
        turn(MS);
    server_thaw(&rig.server);
    while (tally.called < tally.submitted)
        turn(STEADY_SECOND);
    const unsigned long late = tally.errors[-STEADY_OVERLOADED] + tally.errors[-STEADY_UNAVAILABLE];
    print_message("# %lu not sent of %lu, at most %lu at once\n", late, tally.submitted, most_clock_reads);
    assert_true(most_clock_reads < 8000 && late > 8000); /* so there were several parts */
    rig_close();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_RIG(frozen_server_is_dropped_and_each_decision_ends_in_time),
        WITH_RIG(queue_of_late_requests_is_ended_in_parts),
        WITH_RIG(blocking_call_to_a_frozen_server_ends_in_time),
        WITH_RIG(late_replies_reach_no_other_decision),
        WITH_RIG(request_that_was_never_written_is_not_charged),
        WITH_RIG(restarted_server_is_used_within_a_second),
        WITH_RIG(server_killed_under_load_ends_each_decision_in_time),
        WITH_RIG(server_started_late_is_used_within_a_second),
        WITH_RIG(each_policy_answers_in_an_outage),
        WITH_RIG(killed_connections_are_replaced_and_charges_add_up),
        WITH_RIG(short_pause_keeps_the_connection),
        WITH_RIG(long_pause_replaces_the_connection),
        WITH_RIG(signal_each_millisecond_fails_no_decision),
        WITH_RIG(signal_mask_and_handlers_stay_unchanged),
        WITH_RIG(blocking_callback_makes_no_answered_decision_late),
        WITH_RIG(held_loop_sends_no_expired_request),
        WITH_RIG(held_loop_is_overloaded_and_not_unavailable),
        WITH_RIG(silent_server_is_unavailable_though_the_loop_is_held),
        WITH_RIG(forked_child_is_unavailable_and_the_parent_goes_on),
        WITH_RIG(missing_descriptor_is_overloaded_then_recovers),
        WITH_RIG(any_shortage_of_descriptors_leaves_none_open),
        WITH_RIG(failed_poll_ends_the_blocking_call_at_once),
    };
    return cmocka_run_group_tests_name("connection", tests, NULL, NULL);
}
