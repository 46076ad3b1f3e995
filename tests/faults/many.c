/* SPDX-License-Identifier: MIT
 * Two hundred clients of a server that restarts, and a server that stops and starts for a minute. */
#include "rig.h"

#include "proxy.h"

#define CLIENTS 200
#define DOWN (2 * STEADY_SECOND)

static struct proxy *proxy;

static int tear_down(void **state) {
    forget_tallies(true);
    rig_close();
    proxy_stop(proxy);
    proxy = NULL;
    return rig_tear_down(state);
}

/* ---- The herd ---- */

static struct client {
    steady_store *store;
    steady_throttler *throttler;
    struct tally tally;
} clients[CLIENTS];

static void open_clients(void) {
    char url[64];
    const steady_store_options options = {.loop = &rig.loop, .timeout = TIMEOUT};
    proxy = proxy_start(rig.server.port);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", proxy_port(proxy));
    for (int i = 0; i < CLIENTS; i++) {
        clients[i].store = open_store(url, &options);
        clients[i].throttler = new_throttler(clients[i].store, LARGE, RECHARGE);
    }
}

/* Makes one decision of each client each 20 ms, until `until` or until each had a verdict. Returns the most
 * connection attempts in 20 ms. */
static unsigned ask_all(steady_us until, bool wait_for_verdicts) {
    unsigned peak = 0, served = 0, before = proxy_accepted(proxy);
    while (now_us() < until && !(wait_for_verdicts && served == CLIENTS)) {
        served = 0;
        for (int i = 0; i < CLIENTS; i++) {
            consume_counted(clients[i].throttler, "k", 1, &clients[i].tally);
            served += clients[i].tally.verdicts > 0;
        }
        run_for(rig.poller, 20 * MS);
        const unsigned now = proxy_accepted(proxy);
        if (now - before > peak) peak = now - before;
        before = now;
    }
    if (wait_for_verdicts) assert_int_equal(served, CLIENTS);
    return peak;
}

static void start_tallies_anew(void) {
    for (int i = 0; i < CLIENTS; i++) {
        run_until_done(rig.poller, &clients[i].tally, STEADY_SECOND);
        memset(&clients[i].tally, 0, sizeof clients[i].tally);
    }
}

static void two_hundred_clients_return_within_a_second_without_a_storm(void **state) {
    (void)state;
    open_clients();
    ask_all(now_us() + 2 * STEADY_SECOND, true);
    start_tallies_anew();
    server_kill(&rig.server);
    const unsigned at_first = proxy_accepted(proxy);
    ask_all(now_us() + DOWN / 2, false); /* back-off spreads the attempts meanwhile */
    const unsigned peak = ask_all(now_us() + DOWN / 2, false);
    const unsigned attempts = proxy_accepted(proxy) - at_first;
    start_tallies_anew();
    server_restart(&rig.server, true);
    ask_all(now_us() + STEADY_SECOND, true); /* each within a second */
    start_tallies_anew();
    print_message("# %u attempts to connect in %d s, at most %u in 20 ms\n", attempts, (int)(DOWN / STEADY_SECOND),
                  peak);
    assert_true(attempts <= CLIENTS * 12); /* 20, 40, 80 .. 500 ms */
    assert_true(peak < CLIENTS / 2);
    for (int i = 0; i < CLIENTS; i++) {
        steady_throttler_free(&clients[i].throttler);
        steady_store_close(&clients[i].store);
    }
}

/* ---- Up and down ---- */

/* Keeps 64 decisions in flight for `time`. Returns the number of verdicts. */
static unsigned long pace(struct tally *tally, steady_us time) {
    const steady_us until = now_us() + time;
    const unsigned long verdicts = tally->verdicts;
    while (now_us() < until) {
        for (unsigned long i = tally->submitted - tally->called; i < 64; i++)
            consume_counted(rig.throttler, "k", 1, tally);
        run_for(rig.poller, MS);
    }
    return tally->verdicts - verdicts;
}

/* With its append-only file the server loses nothing when it is killed, so each drop can be counted. */
static void flapping_server_loses_and_doubles_no_drop(void **state) {
    struct tally tally = {0};
    unsigned kills = 0, served = 0;
    (void)state;
    server_kill(&rig.server);
    snprintf(rig.server.options, sizeof rig.server.options, "--appendonly yes --appendfsync no");
    server_restart(&rig.server, true);
    rig_open(TIMEOUT);
    warm_up();
    const steady_us until = now_us() + how_long(5 * STEADY_SECOND, 60 * STEADY_SECOND);
    while (now_us() < until) {
        served += pace(&tally, 300 * MS) > 0;
        server_kill(&rig.server);
        kills++;
        pace(&tally, 300 * MS);
        server_restart(&rig.server, false);
    }
    assert_used_again();
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    print_message("# served in %u of %u times up\n", served, kills);
    assert_int_equal(tally.verdicts + tally.errors[-STEADY_UNKNOWN] + tally.errors[-STEADY_UNAVAILABLE], tally.called);
    assert_in_time(&tally);
    assert_true(served > kills / 4); /* a server needs time to start */
    assert_true(rig.log.lines <= 2 * kills);
    account(&tally, level("k"));
    assert_loop_never_held();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(two_hundred_clients_return_within_a_second_without_a_storm, rig_set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(flapping_server_loses_and_doubles_no_drop, rig_set_up, tear_down),
    };
    return cmocka_run_group_tests_name("many", tests, NULL, NULL);
}
