/* SPDX-License-Identifier: MIT
 * The Redis store by name: the name changes its address, a primary is demoted or lost, two primaries take writes,
 * the resolver is slow or fails. The other server has the same port at 127.0.0.2. */
#include "rig.h"

#include <netdb.h>
#include <stdlib.h>

#include "names.h"
#include "proxy.h"

static struct server other;
static struct proxy *proxy; /* between the other server and the first */

static int set_up(void **state) {
    rig_set_up(state);
    server_start(&other, "--bind 127.0.0.2 --protected-mode no --repl-diskless-sync-delay 0");
    server_kill(&rig.server);
    rig.server.port = other.port;
    snprintf(rig.server.options, sizeof rig.server.options, "--protected-mode no --repl-diskless-sync-delay 0");
    server_restart(&rig.server, true);
    names_say("127.0.0.1", 0, 0);
    return 0;
}

static int tear_down(void **state) {
    forget_tallies(true);
    rig_close();
    server_stop(&other);
    proxy_stop(proxy);
    proxy = NULL;
    return rig_tear_down(state);
}

static void open_by_name(steady_us timeout) {
    char url[64];
    snprintf(url, sizeof url, "redis://primary.test:%d", rig.server.port);
    rig_open_at(url, timeout);
}

static long long level_at_other(const char *key) { return atoll(server_ask(&other, "GET %s", key)); }

/* Makes the other server a replica of the first, at this port. Returns when it has caught up. */
static void make_replica(int port) {
    server_ask(&other, "REPLICAOF 127.0.0.1 %d", port);
    const steady_us until = now_us() + 10 * STEADY_SECOND;
    while (server_stat(&other, "master_sync_in_progress") != 0 ||
           strstr(server_ask(&other, "INFO replication"), "master_link_status:up") == NULL) {
        if (now_us() > until) fail_msg("the replica does not sync: %s", server_ask(&other, "INFO replication"));
        sleep_us(10 * MS);
    }
}

static void assert_caught_up(const char *key, long long wanted) {
    const steady_us until = now_us() + 2 * STEADY_SECOND;
    while (level_at_other(key) != wanted) {
        if (now_us() > until) fail_msg("the replica has %lld of %lld", level_at_other(key), wanted);
        sleep_us(MS);
    }
}

/* ---- Another primary ---- */

/* The old primary becomes a replica with its connections open. The name leads to the new primary. */
static void demoted_primary_is_left_for_the_new_one(void **state) {
    struct tally before = {0}, during = {0};
    (void)state;
    open_by_name(TIMEOUT);
    warm_up();
    steady_throttler *narrow = new_throttler(rig.store, 1, HOUR);
    for (int i = 0; i < 2; i++)
        consume_counted(narrow, "denied", 1, &before);
    trickle(&before, MS, 100 * MS);
    make_replica(rig.server.port);
    assert_caught_up("k", (long long)before.allowed - 1);
    server_ask(&other, "REPLICAOF NO ONE");
    server_ask(&rig.server, "REPLICAOF 127.0.0.2 %d", other.port);
    names_say("127.0.0.2", 0, 0);
    const steady_us since = now_us();
    while (during.denied == 0) { /* decisions on the denied key alone must find the new primary, which denies it too */
        assert_true(now_us() - since < STEADY_SECOND);
        consume_counted(narrow, "denied", 1, &during);
        run_for(rig.poller, MS);
    }
    run_until_done(rig.poller, &during, STEADY_SECOND);
    assert_int_equal(during.verdicts + during.errors[-STEADY_UNAVAILABLE] + during.errors[-STEADY_UNKNOWN],
                     during.called);
    assert_int_equal(during.allowed, 0);
    trickle(&before, MS, 50 * MS);
    before.allowed--; /* the decision on the narrow key */
    account(&before, level_at_other("k"));
    assert_true(server_stat(&other, "cmdstat_evalsha:calls") > 0);
    steady_throttler_free(&narrow);
}

static void new_address_is_used_after_a_reconnect(void **state) {
    struct tally tally = {0};
    (void)state;
    open_by_name(TIMEOUT);
    warm_up();
    names_say("127.0.0.2", 0, 0);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(level("k"), 1); /* a working connection is kept */
    server_ask(&rig.server, "CLIENT KILL TYPE normal");
    run_for(rig.poller, 50 * MS);
    trickle(&tally, MS, 50 * MS);
    account(&tally, level_at_other("k"));
    assert_true(tally.allowed > 0);
    assert_int_equal(level("k"), 1);
}

/* The primary dies with writes that were not replicated. Exactly these are lost. */
static void failover_loses_exactly_the_writes_not_replicated(void **state) {
    struct tally kept = {0}, cut = {0}, after = {0};
    (void)state;
    proxy = proxy_start(rig.server.port);
    open_by_name(TIMEOUT);
    warm_up();
    make_replica(proxy_port(proxy));
    trickle(&kept, MS, 100 * MS);
    assert_caught_up("k", (long long)kept.allowed);
    const struct proxy_rules frozen = {.frozen = true};
    proxy_set(proxy, &frozen);
    sleep_us(20 * MS);
    for (int i = 0; i < 100; i++)
        consume_counted(rig.throttler, "k", 1, &cut);
    run_until_done(rig.poller, &cut, STEADY_SECOND);
    assert_int_equal(cut.allowed, 100);
    server_kill(&rig.server);
    server_ask(&other, "REPLICAOF NO ONE");
    names_say("127.0.0.2", 0, 0);
    assert_used_again();
    trickle(&after, MS, 50 * MS);
    assert_int_equal(level_at_other("k"), kept.allowed + after.allowed);
    kept.allowed += cut.allowed + after.allowed;
    account_lost(&kept, level_at_other("k"), 100);
}

/* Two servers take writes for the same keys. Each admits one capacity, and no more. */
static void split_brain_admits_one_capacity_a_primary(void **state) {
    struct tally here = {0}, there = {0}, healed = {0};
    char url[64];
    const steady_store_options options = {.loop = &rig.loop, .timeout = 5 * STEADY_SECOND};
    (void)state;
    open_by_name(5 * STEADY_SECOND);
    warm_up();
    steady_throttler_free(&rig.throttler);
    rig.throttler = new_throttler(rig.store, 100, HOUR);
    make_replica(rig.server.port);
    server_ask(&other, "REPLICAOF NO ONE");
    snprintf(url, sizeof url, "redis://127.0.0.2:%d", other.port);
    steady_store *store = open_store(url, &options);
    steady_throttler *throttler = new_throttler(store, 100, HOUR);
    for (int i = 0; i < 300; i++) {
        consume_counted(rig.throttler, "k", 1, &here);
        consume_counted(throttler, "k", 1, &there);
    }
    run_until_done(rig.poller, &here, 5 * STEADY_SECOND);
    run_until_done(rig.poller, &there, 5 * STEADY_SECOND);
    assert_int_equal(here.allowed, 100);
    assert_int_equal(there.allowed, 100);
    names_say("127.0.0.2", 0, 0);
    server_ask(&rig.server, "REPLICAOF 127.0.0.2 %d", other.port);
    const steady_us since = now_us();
    while (healed.verdicts == 0) {
        assert_true(now_us() - since < STEADY_SECOND);
        consume_counted(rig.throttler, "k", 1, &healed);
        run_for(rig.poller, 10 * MS);
    }
    assert_int_equal(healed.allowed, 0); /* there is one bucket again, and it is full */
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* ---- The resolver ---- */

/* Unavailable and overloaded decisions. On a busy machine the loop may be held; then a decision that waits for a
 * connection is overloaded. */
static unsigned long not_sent(const struct tally *tally) {
    return tally->errors[-STEADY_UNAVAILABLE] + tally->errors[-STEADY_OVERLOADED];
}

static void slow_resolver_delays_no_deadline(void **state) {
    struct tally tally = {0};
    (void)state;
    const unsigned asked = names_asked();
    names_say("127.0.0.1", 0, 800 * MS);
    open_by_name(TIMEOUT);
    trickle(&tally, MS, 700 * MS);
    assert_int_equal(not_sent(&tally), tally.called);
    assert_in_time(&tally);
    assert_used_again();
    assert_int_equal(names_asked() - asked, 1);
    assert_loop_never_held();
}

static void dead_resolver_delays_no_deadline(void **state) {
    struct tally tally = {0};
    (void)state;
    names_say("", EAI_AGAIN, 1500 * MS);
    const unsigned asked = names_asked();
    open_by_name(TIMEOUT);
    trickle(&tally, 5 * MS, how_long(500 * MS, 3 * STEADY_SECOND));
    assert_int_equal(not_sent(&tally), tally.called);
    assert_in_time(&tally);
    assert_true(names_asked() - asked <= 3); /* lookups are made one at a time */
    rig_close();                             /* a lookup is in progress; its thread ends by itself */
    names_say("127.0.0.1", 0, 0);
    open_by_name(TIMEOUT);
    warm_up();
    assert_loop_never_held();
}

static void unknown_name_is_unavailable_until_it_resolves(void **state) {
    static const int errors[] = {EAI_NONAME, EAI_AGAIN, EAI_FAIL, EAI_MEMORY};
    (void)state;
    for (size_t i = 0; i < COUNT(errors); i++) {
        names_say("", errors[i], 0);
        open_by_name(TIMEOUT);
        const steady_us until = now_us() + STEADY_SECOND;
        do {
            assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
            assert_true(now_us() < until);
        } while (strstr(last_error_of(rig.store), gai_strerror(errors[i])) == NULL);
        names_say("127.0.0.1", 0, 0);
        assert_used_again();
        rig_close();
    }
}

/* The store tries at most sixteen of a thousand addresses. First the sixteenth answers, then the seventh. */
static void at_most_sixteen_addresses_are_tried(void **state) {
    static char list[32 * 1000];
    size_t n = 0;
    (void)state;
    for (int i = 0; i < 15; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "127.0.1.%d ", i + 1);
    n += (size_t)snprintf(list + n, sizeof list - n, "127.0.0.1 ");
    for (int i = 16; i < 1000; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "127.0.2.1 ");
    names_say(list, 0, 0);
    open_by_name(TIMEOUT);
    assert_used_again();
    rig_close();
    names_say(list + strlen("127.0.1.1 ") * 9, 0, 0);
    open_by_name(TIMEOUT);
    assert_used_again();
    assert_loop_never_held();
}

int main(void) {
#define WITH_NAMES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_NAMES(demoted_primary_is_left_for_the_new_one),
        WITH_NAMES(new_address_is_used_after_a_reconnect),
        WITH_NAMES(failover_loses_exactly_the_writes_not_replicated),
        WITH_NAMES(split_brain_admits_one_capacity_a_primary),
        WITH_NAMES(slow_resolver_delays_no_deadline),
        WITH_NAMES(dead_resolver_delays_no_deadline),
        WITH_NAMES(unknown_name_is_unavailable_until_it_resolves),
        WITH_NAMES(at_most_sixteen_addresses_are_tried),
    };
    return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
