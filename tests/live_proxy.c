/* SPDX-License-Identifier: MIT
 * The Redis store behind a network that cuts, drops, delays, splits or slows the traffic. */
#include "rig.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include <linux/sockios.h>

#include "proxy.h"

#define N 64

static struct proxy *proxy;

static void open_behind_proxy(steady_us timeout) {
    char url[64];
    proxy = proxy_start(rig.server.port);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", proxy_port(proxy));
    rig_open_at(url, timeout);
    warm_up();
}

static int tear_down(void **state) {
    forget_tallies(true);
    rig_close();
    proxy_stop(proxy);
    proxy = NULL;
    return rig_tear_down(state);
}

static void set(struct proxy_rules rules) { proxy_set(proxy, &rules); }

/* ---- Cut ---- */

/* N requests are written at once. The server gets k of them, and the client r replies. */
static void cut_at(unsigned k, unsigned r, bool softly) {
    struct tally tally = {0};
    char key[32];
    snprintf(key, sizeof key, "cut:%u:%u:%d", k, r, softly);
    set((struct proxy_rules){.cut = true, .cut_sent = N, .cut_requests = k, .cut_replies = r, .cut_softly = softly});
    for (int i = 0; i < N; i++)
        consume_counted(rig.throttler, key, 1, &tally);
    run_until_done(rig.poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.allowed, r);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], N - r);
    set((struct proxy_rules){.cut = false});
    assert_used_again();
    account(&tally, level(key));
    assert_int_equal(level(key), k); /* a request that was written is never sent again */
}

static void connection_cut_after_k_requests_charges_exactly_k(void **state) {
    const unsigned step = how_long(0, 1) != 0 ? 1 : 7; /* each k, or each seventh */
    (void)state;
    open_behind_proxy(TIMEOUT);
    for (unsigned k = 0; k <= N; k += k + step > N && k < N ? 1 : step) {
        cut_at(k, k, false);
        cut_at(k, k / 2, false);
        cut_at(k, 0, true);
    }
    assert_int_equal(stats().timeouts, 0);
}

/* The server has decided, and the reply is lost. */
static void lost_reply_is_unknown_and_charged_once(void **state) {
    struct tally tally = {0};
    (void)state;
    open_behind_proxy(TIMEOUT);
    for (int i = 0; i < 20; i++) {
        set((struct proxy_rules){.cut = true, .cut_sent = 1, .cut_requests = 1, .cut_replies = 0});
        consume_counted(rig.throttler, "k", 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
        assert_int_equal(tally.last.error, STEADY_UNKNOWN);
        set((struct proxy_rules){.cut = false});
        assert_used_again();
    }
    account(&tally, level("k"));
    assert_int_equal(level("k"), 20);
}

static void resets_under_load_charge_nothing_twice(void **state) {
    struct tally tally = {0};
    (void)state;
    open_behind_proxy(TIMEOUT);
    const steady_us until = now_us() + how_long(STEADY_SECOND, 20 * STEADY_SECOND);
    while (now_us() < until) {
        load(&tally, 200, 10 * MS);
        proxy_reset_all(proxy);
    }
    assert_used_again();
    assert_true(tally.allowed > 0 && tally.errors[-STEADY_UNKNOWN] > 0);
    account(&tally, level("k"));
    assert_loop_never_held();
}

/* ---- Late ---- */

static void late_reply_reaches_its_own_decision_or_none(void **state) {
    struct tally late = {0}, soon = {0};
    (void)state;
    open_behind_proxy(TIMEOUT);
    for (int round = 0; round < 3; round++) {
        set((struct proxy_rules){.delay_down = 3 * TIMEOUT});
        for (int i = 0; i < 10; i++) {
            consume_counted(rig.throttler, "k", 1, &late);
            run_for(rig.poller, 20 * MS);
        }
        run_until_done(rig.poller, &late, STEADY_SECOND);
        set((struct proxy_rules){.delay_down = 0});
        run_for(rig.poller, 4 * TIMEOUT);
        assert_used_again();
        for (int i = 0; i < 10; i++) {
            char key[32];
            snprintf(key, sizeof key, "soon:%d:%d", round, i);
            consume_counted(rig.throttler, key, i + 1, &soon);
            run_until_done(rig.poller, &soon, STEADY_SECOND);
            if (soon.last.error == 0) assert_int_equal(soon.last.level, i + 1); /* the reply to this request */
        }
    }
    assert_true(soon.verdicts > 20); /* of 30; some are late on a busy machine */
    assert_int_equal(late.errors[-STEADY_UNKNOWN], 30);
    assert_in_time(&late);
    account(&late, level("k"));
    assert_int_equal(level("k"), 30);
}

/* ---- Sliced and slowed ---- */

static double cpu_of_this_thread(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_of_a_thousand(struct tally *tally, unsigned long in_flight) {
    const double begin = cpu_of_this_thread();
    for (int i = 0; i < 1000; i++) {
        consume_counted(rig.throttler, "k", 1, tally);
        if (tally->submitted - tally->called >= in_flight) run_until_done(rig.poller, tally, 30 * STEADY_SECOND);
    }
    run_until_done(rig.poller, tally, 30 * STEADY_SECOND);
    return cpu_of_this_thread() - begin;
}

static void traffic_of_single_bytes_gives_the_same_verdicts(void **state) {
    struct tally tally = {0};
    (void)state;
    open_behind_proxy(10 * STEADY_SECOND);
    const double whole = cpu_of_a_thousand(&tally, 1);
    set((struct proxy_rules){.slice = 1});
    const double sliced = cpu_of_a_thousand(&tally, 1);
    assert_int_equal(tally.allowed, 2000);
    assert_int_equal(tally.last.level, 2000);
    account(&tally, level("k"));
    if (sliced > 20 * whole) fail_msg("%.0f us of CPU a decision, %.0f otherwise", 1e3 * sliced, 1e3 * whole);
}

/* At 64 kbit/s, decisions beyond max_in_flight are rejected, and no queue grows. */
static void slow_connection_is_overloaded_at_max_in_flight(void **state) {
    struct tally tally = {0};
    unsigned long turned_away = 0;
    (void)state;
    proxy = proxy_start(rig.server.port);
    char url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", proxy_port(proxy));
    const steady_store_options options = {.loop = &rig.loop, .timeout = TIMEOUT, .max_in_flight = 1000};
    rig.store = open_store(url, &options);
    rig.throttler = new_throttler(rig.store, LARGE, RECHARGE);
    warm_up();
    set((struct proxy_rules){.bytes_per_second = 8000});
    const steady_us until = now_us() + how_long(2 * STEADY_SECOND, 5 * STEADY_SECOND);
    while (now_us() < until) {
        for (int i = 0; i < 100; i++) {
            void *expected = expect_result(&tally);
            if (steady_consume(rig.throttler, "k", 1, 1, count_result, expected) != STEADY_OVERLOADED) continue;
            free(expected);
            tally.submitted--;
            turned_away++;
        }
        run_for(rig.poller, 5 * MS);
        assert_true(stats().in_flight <= 1000);
    }
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    set((struct proxy_rules){.bytes_per_second = 0});
    sleep_us(200 * MS);
    assert_used_again();
    assert_true(turned_away > 0 && tally.errors[-STEADY_UNKNOWN] > 0);
    assert_in_time(&tally);
    account(&tally, level("k"));
}

#define TRIES 6 /* on a slow machine */

/* Loads the connection with four times its bandwidth. */
static struct tally ask_too_much(steady_us time) {
    const unsigned bytes_per_second = 1000000, request = 100; /* at least */
    struct tally tally = {0};
    set((struct proxy_rules){.bytes_per_second = bytes_per_second});
    const steady_us since = now_us();
    for (steady_us at; (at = now_us()) < since + time; run_for(rig.poller, MS))
        while ((steady_us)tally.submitted * STEADY_SECOND < (at - since) * 4 * bytes_per_second / request)
            consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    set((struct proxy_rules){.bytes_per_second = 0});
    assert_used_again();
    assert_in_time(&tally);
    print_message("# %lu of %lu answered, %lu unknown; %lld us taken away\n", tally.verdicts, tally.submitted,
                  tally.errors[-STEADY_UNKNOWN], (long long)tally.taken_away);
    return tally;
}

/* The sockets accept the whole load, and the server is idle. Sent requests are answered in time, and nearly all others
 * are never written. The test tries again if the machine takes time away: then replies are late that the proxy sent in
 * time. */
static void overload_is_answered_in_time_at_full_rate(void **state) {
    const steady_us time = how_long(2 * STEADY_SECOND, 5 * STEADY_SECOND);
    struct tally all = {0};
    bool enough = false, slow_machine = true;
    (void)state;
    open_behind_proxy(TIMEOUT);
    for (int i = 0; i < TRIES && !enough && slow_machine; i++) {
        const struct tally tally = ask_too_much(time);
        const unsigned long fit = (unsigned long)(time * 1000000 / 100 / STEADY_SECOND);
        all.allowed += tally.allowed;
        all.errors[-STEADY_UNKNOWN] += tally.errors[-STEADY_UNKNOWN];
        /* The proxy may be slower than its setting. Without a window nearly all decisions would be unknown after
         * 100 ms. */
        enough = tally.verdicts > fit / 40 && tally.verdicts > tally.errors[-STEADY_UNKNOWN] / 2;
        slow_machine = tally.taken_away >= TIMEOUT / 2;
    }
    account(&all, level("k"));
    assert_true(enough);
}

/* 750 decisions a second, for 3 s. */
static struct tally ask_steadily(void) {
    struct tally tally = {0};
    const steady_us since = now_us(), time = 3 * STEADY_SECOND;
    for (steady_us at; (at = now_us()) < since + time; run_for(rig.poller, MS))
        while ((steady_us)tally.submitted < (at - since) * 750 / STEADY_SECOND)
            consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    print_message("# %lu of %lu answered, %lu unknown; %lld us taken away\n", tally.verdicts, tally.submitted,
                  tally.errors[-STEADY_UNKNOWN], (long long)tally.taken_away);
    return tally;
}

/* Replies take longer than connecting took, by less than half of the timeout. No request is held back for that:
 * 120 are in flight, which is more than the least window. The timeout is long, so that a machine that stands still for
 * less than 240 ms makes no reply late. The test tries again if the machine takes time away. An unknown decision may be
 * charged during the next try, so the charges of all tries are accounted together. */
static void longer_round_trip_is_no_overload(void **state) {
    struct tally all = {0};
    bool enough = false, slow_machine = true;
    (void)state;
    open_behind_proxy(4 * TIMEOUT);
    warm_up();
    set((struct proxy_rules){.delay_down = 160 * MS});
    for (int i = 0; i < TRIES && !enough && slow_machine; i++) {
        const struct tally tally = ask_steadily();
        all.allowed += tally.allowed;
        all.errors[-STEADY_UNKNOWN] += tally.errors[-STEADY_UNKNOWN];
        enough = tally.verdicts > tally.submitted / 100 * 97;
        slow_machine = tally.taken_away > 10 * MS;
    }
    account(&all, level("k"));
    assert_true(enough);
}

/* ---- Queues ---- */

static bool has_port(int fd, int (*name)(int, struct sockaddr *, socklen_t *), int port) {
    struct sockaddr_in a = {0};
    socklen_t len = sizeof a;
    return name(fd, (struct sockaddr *)&a, &len) == 0 && a.sin_family == AF_INET && ntohs(a.sin_port) == port;
}

/* Bytes between the library and the proxy: sent by the library and not acknowledged, or received and not read by the
 * proxy. */
static long long in_the_system(void) {
    long long bytes = 0;
    for (int fd = 0; fd < 256; fd++) {
        int n = 0;
        if (has_port(fd, getpeername, proxy_port(proxy)) && ioctl(fd, SIOCOUTQ, &n) == 0) bytes += n;
        if (has_port(fd, getsockname, proxy_port(proxy)) && ioctl(fd, SIOCINQ, &n) == 0) bytes += n;
    }
    return bytes;
}

static long long long_key_request(const char *key, struct tally *tally) {
    consume_counted(rig.throttler, key, 1, tally);
    run_for(rig.poller, 100 * MS); /* until it is acknowledged */
    return in_the_system();
}

/* The library has written the request of each unknown decision. Its bytes are in the system or in the buffer of the
 * library. */
static void at_most_64_kib_are_queued_for_a_socket(void **state) {
    struct tally tally = {0};
    char key[1001];
    (void)state;
    memset(key, 'k', sizeof key);
    key[1000] = '\0';
    open_behind_proxy(5 * TIMEOUT);
    set((struct proxy_rules){.frozen = true});
    sleep_us(50 * MS);
    const long long each = long_key_request(key, &tally);
    assert_between(each, 1000, 1300);
    for (int i = 0; i < 20000;
         i++) { /* until the system accepts no more; requests that wait too long are not written */
        consume_counted(rig.throttler, key, 1, &tally);
        if (i % 50 == 49) run_for(rig.poller, MS);
    }
    run_until_done(rig.poller, &tally, 5 * STEADY_SECOND);
    assert_true(tally.errors[-STEADY_UNAVAILABLE] > 0);
    const long long queued = (long long)tally.errors[-STEADY_UNKNOWN] * each - in_the_system();
    print_message("# %lld bytes queued, %lld in the system\n", queued, in_the_system());
    assert_between(queued, 1, 65536);
    set((struct proxy_rules){.frozen = false});
    const steady_us until = now_us() + 10 * STEADY_SECOND;
    while (level(key) < (long long)tally.errors[-STEADY_UNKNOWN] && now_us() < until)
        run_for(rig.poller, 10 * MS); /* until all bytes have arrived */
    assert_used_again();
    account(&tally, level(key));
}

static void frozen_network_delays_no_deadline(void **state) {
    struct tally tally = {0};
    (void)state;
    open_behind_proxy(TIMEOUT);
    set((struct proxy_rules){.frozen = true});
    trickle(&tally, MS, how_long(700 * MS, 2 * STEADY_SECOND));
    assert_int_equal(tally.verdicts, 0);
    assert_in_time(&tally);
    set((struct proxy_rules){.frozen = false});
    assert_used_again();
    sleep_us(50 * MS);
    account(&tally, level("k"));
    assert_loop_never_held();
}

int main(void) {
#define WITH_PROXY(test) cmocka_unit_test_setup_teardown(test, rig_set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_PROXY(connection_cut_after_k_requests_charges_exactly_k),
        WITH_PROXY(lost_reply_is_unknown_and_charged_once),
        WITH_PROXY(resets_under_load_charge_nothing_twice),
        WITH_PROXY(late_reply_reaches_its_own_decision_or_none),
        WITH_PROXY(traffic_of_single_bytes_gives_the_same_verdicts),
        WITH_PROXY(slow_connection_is_overloaded_at_max_in_flight),
        WITH_PROXY(overload_is_answered_in_time_at_full_rate),
        WITH_PROXY(at_most_64_kib_are_queued_for_a_socket),
        WITH_PROXY(frozen_network_delays_no_deadline),
        WITH_PROXY(longer_round_trip_is_no_overload),
    };
    return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
