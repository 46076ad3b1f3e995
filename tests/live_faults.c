/* SPDX-License-Identifier: MIT
 * The Redis store when things go wrong with a real server: scripts lost, frozen, killed, restarted, full, busy,
 * loading.
 *
 * The limits are so large and leak so slowly that a bucket's level is exactly what was charged. */
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS STEADY_MILLISECOND
#define TIMEOUT (100 * MS)
#define LARGE 1000000

static struct server server;
static steady_poller *poller;
static steady_loop loop;
static struct log_lines log_lines;
static steady_store *store;
static steady_throttler *throttler;

static void open_with(steady_us timeout) {
    const steady_store_options options = {
        .loop = &loop, .timeout = timeout, .log = remember_line, .log_data = &log_lines};
    store = open_store(server.url, &options);
    throttler = new_throttler(store, LARGE, HOUR);
}

static int set_up(void **state) {
    (void)state;
    server_start(&server, NULL);
    memset(&log_lines, 0, sizeof log_lines);
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    steady_poller_free(&poller);
    server_stop(&server);
    return 0;
}

static long long level(const char *key) { return atoll(server_ask(&server, "GET %s", key)); }

/* Submits until one succeeds; fails the test if none does within a second. */
static void assert_used_again(void) {
    const steady_us since = now_us();
    struct tally tally = {0};
    while (tally.verdicts == 0) {
        if (now_us() - since > STEADY_SECOND)
            fail_msg("not used again within a second: %s", steady_store_trouble(store));
        consume_counted(throttler, "again", 1, &tally);
        run_for(poller, 10 * MS);
    }
    run_until_done(poller, &tally, 2 * STEADY_SECOND);
}

static void warm_up(void) {
    struct tally tally = {0};
    consume_counted(throttler, "warm", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 1);
}

/* What a single decision ends as. */
static int ask_one(void) {
    struct tally tally = {0};
    consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, TIMEOUT + 10 * STEADY_SECOND);
    return tally.last.error;
}

static steady_stats stats(void) {
    steady_stats s;
    steady_store_stats(store, &s);
    return s;
}

/* ---- The script is lost ---- */

static void test_flush_under_load(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(5 * STEADY_SECOND);
    warm_up();
    for (int round = 1; round <= 10; round++) {
        const uint64_t loads = stats().script_loads;
        for (int i = 0; i < 500; i++)
            consume_counted(throttler, "k", 1, &tally);
        steady_poller_run(poller, 0);
        server_ask(&server, round % 2 ? "SCRIPT FLUSH SYNC" : "SCRIPT FLUSH ASYNC");
        for (int i = 0; i < 500; i++)
            consume_counted(throttler, "k", 1, &tally);
        run_until_done(poller, &tally, 5 * STEADY_SECOND);
        assert_int_equal(tally.allowed, 1000 * round);
        assert_int_equal(stats().script_loads, loads + 1);
    }
    assert_int_equal(level("k"), tally.allowed);
    assert_int_equal(log_lines.lines, 0);
}

static pid_t start_child(void (*work)(void)) {
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) {
        for (;;)
            work();
    }
    return pid;
}

static void end_child(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void flush_scripts(void) {
    server_ask(&server, "SCRIPT FLUSH");
    sleep_us(2 * MS);
}

/* Keeps so many in flight for so long. */
static void load(struct tally *tally, unsigned long in_flight, steady_us time) {
    const steady_us until = now_us() + time;
    while (now_us() < until) {
        while (tally->submitted - tally->called < in_flight)
            consume_counted(throttler, "k", 1, tally);
        assert_true(steady_poller_run(poller, 10 * MS) >= 0);
    }
    run_until_done(poller, tally, 10 * STEADY_SECOND);
}

static void test_flush_storm(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(5 * STEADY_SECOND);
    const pid_t pid = start_child(flush_scripts);
    load(&tally, 200, 2 * STEADY_SECOND);
    end_child(pid);
    assert_int_equal(tally.allowed, tally.submitted);
    assert_int_equal(level("k"), tally.allowed);
    assert_true(stats().script_loads > 10);
    assert_true((long long)stats().script_loads <= server_stat(&server, "cmdstat_script|flush:calls") + 1);
}

/* ---- Frozen ---- */

/* Submits one each `pause` for as long; then waits for the rest. */
static void trickle(struct tally *tally, steady_us pause, steady_us time) {
    const steady_us until = now_us() + time;
    while (now_us() < until) {
        consume_counted(throttler, "k", 1, tally);
        run_for(poller, pause);
    }
    run_until_done(poller, tally, STEADY_SECOND);
}

static void test_frozen_under_traffic(void **state) {
    static const steady_us pauses[] = {1 * MS, 10 * MS, 50 * MS};
    (void)state;
    open_with(TIMEOUT);
    warm_up();
    for (size_t i = 0; i < COUNT(pauses); i++) {
        struct tally tally = {0};
        const uint64_t timeouts = stats().timeouts;
        server_freeze(&server);
        trickle(&tally, pauses[i], 700 * MS);
        assert_int_equal(tally.verdicts, 0);
        assert_int_equal(tally.errors[-STEADY_UNKNOWN] + tally.errors[-STEADY_UNAVAILABLE], tally.called);
        assert_true(tally.errors[-STEADY_UNKNOWN] > 0);
        if (tally.slowest > TIMEOUT + SLACK) fail_msg("one took %lld us", (long long)tally.slowest);
        assert_true(stats().timeouts > timeouts);
        assert_non_null(strstr(log_lines.last, "does not answer")); /* dropped after four timeouts */
        server_thaw(&server);
        assert_used_again();
        const unsigned long called = tally.called;
        run_for(poller, 50 * MS);
        assert_int_equal(tally.called, called);
    }
}

static void test_frozen_for_blocking_calls(void **state) {
    steady_result r;
    (void)state;
    open_with(TIMEOUT);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), 0);
    server_freeze(&server);
    for (int i = 0; i < 6; i++) {
        const steady_us begin = now_us();
        const int error = steady_consume_sync(throttler, "k", 1, 1, &r);
        assert_true(error == STEADY_UNKNOWN || error == STEADY_UNAVAILABLE);
        assert_true(now_us() - begin < TIMEOUT + SLACK);
    }
    server_thaw(&server);
    const steady_us begin = now_us();
    while (steady_consume_sync(throttler, "k", 1, 1, &r) != 0)
        assert_true(now_us() - begin < STEADY_SECOND);
}

/* The replies come after the deadline, on a connection that is kept, and each to nobody. */
static void test_late_replies_reach_nobody(void **state) {
    struct tally early = {0}, late = {0};
    (void)state;
    open_with(TIMEOUT);
    warm_up();
    server_freeze(&server);
    for (int i = 0; i < 50; i++)
        consume_counted(throttler, "early", 1, &early);
    run_until_done(poller, &early, STEADY_SECOND);
    assert_int_equal(early.errors[-STEADY_UNKNOWN], 50);
    server_thaw(&server);
    for (int i = 0; i < 50; i++)
        consume_counted(throttler, "late", 1, &late);
    run_until_done(poller, &late, STEADY_SECOND);
    assert_int_equal(late.allowed, 50);
    assert_int_equal(late.last.level, 50); /* its own reply, not one 50 places earlier */
    assert_int_equal(early.called, 50);
    assert_int_equal(level("early"), 50);
    assert_int_equal(stats().reconnects, 0);
}

/* Nothing that was never written is charged, whatever the socket takes. */
static void test_frozen_with_more_than_the_socket_takes(void **state) {
    struct tally tally = {0};
    char *key = malloc(1001);
    (void)state;
    memset(key, 'k', 1000);
    key[1000] = '\0';
    open_with(TIMEOUT);
    warm_up();
    server_freeze(&server);
    for (int i = 0; i < 20000; i++)
        consume_counted(throttler, key, 1, &tally);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_true(tally.errors[-STEADY_UNKNOWN] > 0);
    assert_true(tally.errors[-STEADY_UNAVAILABLE] > 0);
    server_thaw(&server);
    assert_used_again();
    assert_true(level(key) <= (long long)tally.errors[-STEADY_UNKNOWN]);
    free(key);
}

/* ---- Dead ---- */

static void test_killed_and_restarted(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(TIMEOUT);
    warm_up();
    for (int round = 1; round <= 2; round++) {
        server_kill(&server);
        run_for(poller, 20 * MS);
        memset(&tally, 0, sizeof tally);
        trickle(&tally, 5 * MS, 300 * MS);
        assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.called);
        assert_true(tally.slowest < TIMEOUT); /* at once, more or less */
        assert_non_null(strstr(steady_store_trouble(store), "refused"));
        server_restart(&server, true);
        assert_used_again();
        if (log_lines.lines != 2 * (unsigned)round || log_lines.warnings != (unsigned)round)
            fail_msg("%u lines:\n%s", log_lines.lines, log_lines.all);
    }
    assert_int_equal(stats().reconnects, 2);
}

static void test_killed_under_load(void **state) {
    struct tally tally = {0};
    (void)state;
    open_with(TIMEOUT);
    warm_up();
    for (int i = 0; i < 500; i++)
        consume_counted(throttler, "k", 1, &tally);
    steady_poller_run(poller, 0);
    server_kill(&server);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts + tally.errors[-STEADY_UNKNOWN] + tally.errors[-STEADY_UNAVAILABLE], 500);
    assert_true(tally.slowest < TIMEOUT + SLACK);
}

static void test_never_started_then_started(void **state) {
    steady_result r;
    (void)state;
    server_kill(&server);
    open_with(TIMEOUT);
    const steady_us begin = now_us();
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_true(now_us() - begin < TIMEOUT);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), STEADY_UNAVAILABLE);
    run_for(poller, 300 * MS);
    assert_int_equal(log_lines.lines, 1);
    server_restart(&server, true);
    assert_used_again();
    const steady_us back = now_us();
    while (steady_consume_sync(throttler, "k", 1, 1, &r) != 0)
        assert_true(now_us() - back < STEADY_SECOND);
    assert_int_equal(log_lines.lines, 2);
}

static void kill_clients(void) {
    server_ask(&server, "CLIENT KILL TYPE normal");
    sleep_us(20 * MS);
}

static void test_clients_killed(void **state) {
    struct tally tally = {0};
    struct sigaction action;
    (void)state;
    sigaction(SIGPIPE, NULL, &action);
    assert_true(action.sa_handler == SIG_DFL); /* so a SIGPIPE would end this program */
    open_with(TIMEOUT);
    const pid_t pid = start_child(kill_clients);
    load(&tally, 100, STEADY_SECOND);
    end_child(pid);
    assert_true(tally.verdicts > 0 && stats().reconnects > 5);
    assert_int_equal(tally.verdicts + tally.errors[-STEADY_UNKNOWN] + tally.errors[-STEADY_UNAVAILABLE], tally.called);
    assert_used_again();
    const long long charged = level("k");
    assert_true(charged >= (long long)tally.allowed);
    assert_true(charged <= (long long)(tally.allowed + tally.errors[-STEADY_UNKNOWN]));
}

/* ---- Refusals that pass ---- */

static void test_memory_full(void **state) {
    (void)state;
    open_with(TIMEOUT);
    warm_up();
    server_ask(&server, "CONFIG SET maxmemory-policy noeviction");
    server_ask(&server, "CONFIG SET maxmemory 1");
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(steady_store_trouble(store), "OOM", 3), 0);
    server_ask(&server, "CONFIG SET maxmemory 0");
    assert_int_equal(level("k"), 0);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(stats().reconnects, 0);
}

static void test_too_few_replicas(void **state) {
    (void)state;
    open_with(TIMEOUT);
    warm_up();
    server_ask(&server, "CONFIG SET min-replicas-to-write 3");
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(steady_store_trouble(store), "NOREPLICAS", 10), 0);
    server_ask(&server, "CONFIG SET min-replicas-to-write 0");
    assert_int_equal(ask_one(), 0);
    assert_int_equal(level("k"), 1);
    assert_int_equal(stats().reconnects, 0);
}

static void test_disk_error(void **state) {
    char dir[80];
    (void)state;
    server_kill(&server);
    snprintf(server.options, sizeof server.options, "--enable-protected-configs yes");
    server_restart(&server, true);
    open_with(TIMEOUT);
    warm_up();
    snprintf(dir, sizeof dir, "%s/gone", server.dir);
    assert_string_equal(server_ask(&server, "CONFIG SET save %s", "3600 1"), "OK");
    assert_return_code(mkdtemp(strcat(dir, "XXXXXX")) == NULL ? -1 : 0, errno);
    assert_string_equal(server_ask(&server, "CONFIG SET dir %s", dir), "OK");
    assert_return_code(rmdir(dir), errno);
    server_ask(&server, "BGSAVE");
    for (int i = 0; i < 200 && server_stat(&server, "rdb_bgsave_in_progress") != 0; i++)
        sleep_us(10 * MS);
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(steady_store_trouble(store), "MISCONF", 7), 0);
    server_ask(&server, "CONFIG SET stop-writes-on-bgsave-error no");
    assert_int_equal(ask_one(), 0);
    assert_int_equal(level("k"), 1);
}

/* A demoted primary is left: the connection is made anew, since its name may lead elsewhere by now. */
static void test_read_only(void **state) {
    (void)state;
    open_with(TIMEOUT);
    warm_up();
    server_ask(&server, "REPLICAOF 127.0.0.1 %d", free_port());
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_non_null(strstr(log_lines.last, "no primary"));
    server_ask(&server, "REPLICAOF NO ONE");
    assert_used_again();
    assert_true(stats().reconnects >= 1);
    assert_int_equal(level("k"), 0);
}

static void spin(void) { server_ask(&server, "EVAL %s 0", "while true do end"); }

static void test_busy(void **state) {
    (void)state;
    open_with(TIMEOUT);
    warm_up();
    server_ask(&server, "CONFIG SET busy-reply-threshold 50");
    const pid_t pid = start_child(spin);
    sleep_us(200 * MS);
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(steady_store_trouble(store), "BUSY", 4), 0);
    end_child(pid);
    server_ask(&server, "SCRIPT KILL");
    assert_used_again();
    assert_int_equal(level("k"), 0);
    assert_int_equal(stats().reconnects, 0);
}

static void test_loading(void **state) {
    (void)state;
    open_with(TIMEOUT);
    warm_up();
    server_ask(&server, "DEBUG POPULATE 20000");
    for (int i = 0; i < 20000; i += 5000)
        server_ask(&server, "EVAL %s 0 %d", "for i = 1, 5000 do redis.call('SET', 'fill:' .. ARGV[1] .. i, 'x') end",
                   i);
    assert_string_equal(server_ask(&server, "SAVE"), "OK");
    server_kill(&server);
    snprintf(server.options, sizeof server.options, "--key-load-delay 50 --loading-process-events-interval-bytes 1024");
    server_restart(&server, false);
    const steady_us begin = now_us();
    struct tally tally = {0};
    bool seen = false;
    while (tally.verdicts == 0 && now_us() - begin < 10 * STEADY_SECOND) {
        consume_counted(throttler, "k", 1, &tally);
        run_for(poller, 20 * MS);
        if (strncmp(steady_store_trouble(store), "LOADING", 7) == 0) seen = true;
    }
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_true(seen && tally.verdicts > 0);
    const unsigned long unknown = tally.errors[-STEADY_UNKNOWN]; /* it listens before it begins to answer */
    assert_int_equal(tally.called, tally.verdicts + tally.errors[-STEADY_UNAVAILABLE] + unknown);
    assert_true(level("k") <= (long long)(tally.verdicts + unknown));
    assert_true(stats().reconnects <= 2); /* one that met a server not listening yet may be among them */
}

static void test_no_more_clients(void **state) {
    (void)state;
    open_with(TIMEOUT); /* not connected yet */
    server_ask(&server, "CONFIG SET maxclients 1");
    steady_store *only = open_store(server.url, NULL);
    steady_throttler *holder = new_throttler(only, LARGE, HOUR);
    steady_result r;
    assert_int_equal(steady_consume_sync(holder, "holder", 6, 1, &r), 0); /* takes the place */
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    run_for(poller, 300 * MS);
    assert_int_equal(log_lines.lines, 1);
    steady_throttler_free(&holder);
    steady_store_close(&only);
    assert_used_again();
    assert_int_equal(log_lines.lines, 2);
    assert_int_equal(level("k"), 0);
}

static void test_wrong_password_is_no_storm(void **state) {
    char url[96];
    const steady_store_options options = {
        .loop = &loop, .timeout = TIMEOUT, .log = remember_line, .log_data = &log_lines};
    struct tally tally = {0};
    (void)state;
    snprintf(url, sizeof url, "redis://u:hunter2@127.0.0.1:%d", server.port);
    store = open_store(url, &options);
    throttler = new_throttler(store, LARGE, HOUR);
    const long long before = server_stat(&server, "total_connections_received");
    trickle(&tally, 5 * MS, 1500 * MS);
    const long long after = server_stat(&server, "total_connections_received") - 1;
    assert_int_equal(tally.errors[-STEADY_REFUSED], tally.called);
    assert_in_range(after - before, 1, 2);
    assert_int_equal(log_lines.lines, 1);
    assert_null(strstr(log_lines.all, "hunter2"));
    assert_null(strstr(steady_store_trouble(store), "hunter2"));
}

/* ---- The process ---- */

static void on_alarm(int number) { (void)number; }

static void test_signals_every_millisecond(void **state) {
    const struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART: EINTR everywhere */
    const struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    struct tally tally = {0};
    steady_result r;
    (void)state;
    open_with(5 * STEADY_SECOND);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    load(&tally, 50, 300 * MS);
    for (int i = 0; i < 500; i++)
        assert_int_equal(steady_consume_sync(throttler, "sync", 4, 1, &r), 0);
    setitimer(ITIMER_REAL, &never, NULL);
    assert_int_equal(tally.allowed, tally.submitted);
    assert_int_equal(level("k"), tally.allowed);
    assert_int_equal(level("sync"), 500);
}

static int use_in_child(void) {
    steady_result r;
    steady_store *own = NULL;
    steady_throttler *owned = NULL;
    const steady_limit limit = {.max_capacity = LARGE, .drop_recharge = HOUR};
    if (steady_consume(throttler, "k", 1, 1, count_result, NULL) != STEADY_UNAVAILABLE) return 1;
    if (steady_consume_sync(throttler, "k", 1, 1, &r) != STEADY_UNAVAILABLE) return 2;
    if (r.error != STEADY_UNAVAILABLE) return 3;
    if (steady_store_open(&own, server.url, NULL, NULL) != 0) return 4;
    if (steady_throttler_new(&owned, own, &limit, NULL, NULL) != 0) return 5;
    if (steady_consume_sync(owned, "child", 5, 1, &r) != 0) return 6;
    steady_throttler_free(&owned);
    steady_store_close(&own);
    if (steady_poller_run(poller, 10 * MS) < 0) return 7; /* of the parent's: may be run, does nothing to it */
    steady_store_close(&store);
    steady_throttler_free(&throttler);
    return 0;
}

static void test_fork(void **state) {
    struct tally tally = {0};
    steady_result r;
    int status = -1;
    (void)state;
    open_with(5 * STEADY_SECOND);
    warm_up();
    assert_int_equal(steady_consume_sync(throttler, "sync", 4, 1, &r), 0);
    for (int i = 0; i < 100; i++)
        consume_counted(throttler, "k", 1, &tally);
    steady_poller_run(poller, 0);
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) _exit(use_in_child());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 100);
    assert_int_equal(tally.last.level, 100);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(steady_consume_sync(throttler, "sync", 4, 1, &r), 0);
    assert_int_equal(r.level, 2);
    assert_int_equal(stats().reconnects, 0);
    assert_int_equal(level("child"), 1);
}

/* No descriptor to connect with, then some. */
static void test_no_descriptors(void **state) {
    struct rlimit limit, none;
    (void)state;
    open_with(TIMEOUT);
    assert_return_code(getrlimit(RLIMIT_NOFILE, &limit), errno);
    none = limit;
    const int next = dup(0);
    close(next);
    none.rlim_cur = (rlim_t)next;
    assert_return_code(setrlimit(RLIMIT_NOFILE, &none), errno);
    const int error = ask_one();
    assert_return_code(setrlimit(RLIMIT_NOFILE, &limit), errno);
    assert_int_equal(error, STEADY_UNAVAILABLE);
    assert_used_again();
}

/* A blocking call whose poll(2) fails ends at once, rather than never. */
static void test_no_poll(void **state) {
    struct rlimit limit, none;
    steady_result r;
    (void)state;
    open_with(TIMEOUT);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), 0);
    assert_return_code(getrlimit(RLIMIT_NOFILE, &limit), errno);
    none = limit;
    none.rlim_cur = 0;
    assert_return_code(setrlimit(RLIMIT_NOFILE, &none), errno);
    const int error = steady_consume_sync(throttler, "k", 1, 1, &r);
    assert_return_code(setrlimit(RLIMIT_NOFILE, &limit), errno);
    assert_int_equal(error, STEADY_UNKNOWN);
    assert_int_equal(steady_consume_sync(throttler, "k", 1, 1, &r), 0);
    assert_int_equal(r.level, 3); /* both answers are its own */
}

int main(void) {
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_SERVER(test_flush_under_load),
        WITH_SERVER(test_flush_storm),
        WITH_SERVER(test_frozen_under_traffic),
        WITH_SERVER(test_frozen_for_blocking_calls),
        WITH_SERVER(test_late_replies_reach_nobody),
        WITH_SERVER(test_frozen_with_more_than_the_socket_takes),
        WITH_SERVER(test_killed_and_restarted),
        WITH_SERVER(test_killed_under_load),
        WITH_SERVER(test_never_started_then_started),
        WITH_SERVER(test_clients_killed),
        WITH_SERVER(test_memory_full),
        WITH_SERVER(test_too_few_replicas),
        WITH_SERVER(test_disk_error),
        WITH_SERVER(test_read_only),
        WITH_SERVER(test_busy),
        WITH_SERVER(test_loading),
        WITH_SERVER(test_no_more_clients),
        WITH_SERVER(test_wrong_password_is_no_storm),
        WITH_SERVER(test_signals_every_millisecond),
        WITH_SERVER(test_fork),
        WITH_SERVER(test_no_descriptors),
        WITH_SERVER(test_no_poll),
    };
    return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
