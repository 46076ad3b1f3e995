/* SPDX-License-Identifier: MIT
 * The Redis store with faults of a real server: lost scripts, full memory, disk errors, missing replicas, read-only,
 * busy, loading. */
#include "rig.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- The script is lost ---- */

static void script_flush_under_load_causes_one_load_and_no_error(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(5 * STEADY_SECOND);
    warm_up();
    for (int round = 1; round <= 10; round++) {
        const uint64_t loads = stats().script_loads;
        for (int i = 0; i < 500; i++)
            consume_counted(rig.throttler, "k", 1, &tally);
        steady_poller_run(rig.poller, 0);
        server_ask(&rig.server, round % 2 ? "SCRIPT FLUSH SYNC" : "SCRIPT FLUSH ASYNC");
        for (int i = 0; i < 500; i++)
            consume_counted(rig.throttler, "k", 1, &tally);
        run_until_done(rig.poller, &tally, 5 * STEADY_SECOND);
        assert_int_equal(tally.allowed, 1000 * round);
        assert_int_equal(stats().script_loads, loads + 1);
    }
    account(&tally, level("k"));
    assert_int_equal(rig.log.lines, 0);
}

static void flush_scripts(void) {
    server_ask(&rig.server, "SCRIPT FLUSH");
    sleep_us(2 * MS);
}

static void script_flush_every_2_ms_starves_no_decision(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(5 * STEADY_SECOND);
    const pid_t pid = start_child(flush_scripts);
    load(&tally, 200, how_long(2 * STEADY_SECOND, 10 * STEADY_SECOND));
    end_child(pid);
    assert_int_equal(tally.allowed, tally.submitted);
    account(&tally, level("k"));
    assert_true(stats().script_loads > 10);
    assert_true((long long)stats().script_loads <= server_stat(&rig.server, "cmdstat_script|flush:calls") + 1);
}

/* ---- Refusals that pass ---- */

static void full_memory_is_unavailable_and_charges_nothing(void **state) {
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    server_ask(&rig.server, "CONFIG SET maxmemory-policy noeviction");
    server_ask(&rig.server, "CONFIG SET maxmemory 1");
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(last_error_of(rig.store), "OOM", 3), 0);
    server_ask(&rig.server, "CONFIG SET maxmemory 0");
    assert_int_equal(level("k"), 0);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(stats().reconnects, 0);
}

static void too_few_replicas_is_unavailable_and_charges_nothing(void **state) {
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    server_ask(&rig.server, "CONFIG SET min-replicas-to-write 3");
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(last_error_of(rig.store), "NOREPLICAS", 10), 0);
    server_ask(&rig.server, "CONFIG SET min-replicas-to-write 0");
    assert_int_equal(ask_one(), 0);
    assert_int_equal(level("k"), 1);
    assert_int_equal(stats().reconnects, 0);
}

static void disk_error_is_unavailable_and_charges_nothing(void **state) {
    char dir[80];
    (void)state;
    server_kill(&rig.server);
    snprintf(rig.server.options, sizeof rig.server.options, "--enable-protected-configs yes");
    server_restart(&rig.server, true);
    rig_open(TIMEOUT);
    warm_up();
    snprintf(dir, sizeof dir, "%s/gone", rig.server.dir);
    assert_string_equal(server_ask(&rig.server, "CONFIG SET save %s", "3600 1"), "OK");
    assert_return_code(mkdtemp(strcat(dir, "XXXXXX")) == NULL ? -1 : 0, errno);
    assert_string_equal(server_ask(&rig.server, "CONFIG SET dir %s", dir), "OK");
    assert_return_code(rmdir(dir), errno);
    server_ask(&rig.server, "BGSAVE");
    for (int i = 0; i < 200 && server_stat(&rig.server, "rdb_bgsave_in_progress") != 0; i++)
        sleep_us(10 * MS);
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(last_error_of(rig.store), "MISCONF", 7), 0);
    server_ask(&rig.server, "CONFIG SET stop-writes-on-bgsave-error no");
    assert_int_equal(ask_one(), 0);
    assert_int_equal(level("k"), 1);
}

/* The connection to a demoted primary is replaced, because its name may have another address by now. */
static void demoted_primary_is_left_and_connected_anew(void **state) {
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    server_ask(&rig.server, "REPLICAOF 127.0.0.1 %d", free_port());
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    assert_non_null(strstr(rig.log.last, "not a primary"));
    server_ask(&rig.server, "REPLICAOF NO ONE");
    assert_used_again();
    assert_true(stats().reconnects >= 1);
    assert_int_equal(level("k"), 0);
}

/* The server got at most twenty probes a second, and those in flight, however many decisions were made. */
static void assert_left_alone(const char *error, steady_us since) {
    char field[64];
    snprintf(field, sizeof field, "errorstat_%s:count", error);
    assert_between(server_stat(&rig.server, field), 1, 3 + 20 * (now_us() - since) / STEADY_SECOND);
}

static void spin(void) { server_ask(&rig.server, "EVAL %s 0", "while true do end"); }

static void busy_server_is_unavailable_until_it_answers(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(LONG_TIMEOUT);
    warm_up();
    server_ask(&rig.server, "CONFIG SET busy-reply-threshold 50");
    const pid_t pid = start_child(spin);
    sleep_us(200 * MS);
    const steady_us begin = now_us();
    trickle(&tally, MS, 300 * MS);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.called);
    assert_at_once(&tally);
    assert_int_equal(strncmp(last_error_of(rig.store), "BUSY", 4), 0);
    assert_int_equal(rig.log.lines, 1);
    end_child(pid);
    server_ask(&rig.server, "SCRIPT KILL");
    assert_used_again();
    assert_int_equal(rig.log.lines, 2);
    assert_left_alone("BUSY", begin);
    assert_int_equal(level("k"), 0);
    assert_int_equal(stats().reconnects, 0);
    assert_int_equal(server_stat(&rig.server, "cmdstat_script|kill:calls"), 1); /* the test sent it */
}

static void spin_after_writing(void) {
    server_ask(&rig.server, "EVAL %s 1 written", "redis.call('SET', KEYS[1], '1') while true do end");
}

/* Such a script cannot be ended; only the server can be killed. */
static void unkillable_script_is_unavailable_until_a_restart(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(LONG_TIMEOUT);
    warm_up();
    server_ask(&rig.server, "CONFIG SET busy-reply-threshold 50");
    const pid_t pid = start_child(spin_after_writing);
    sleep_us(200 * MS);
    trickle(&tally, MS, 100 * MS);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.called);
    assert_at_once(&tally);
    assert_int_equal(strncmp(last_error_of(rig.store), "BUSY", 4), 0);
    end_child(pid);
    server_kill(&rig.server);
    server_restart(&rig.server, true);
    assert_used_again();
    assert_int_equal(level("k"), 0);
}

static void loading_server_gets_few_probes_and_is_used_again(void **state) {
    (void)state;
    rig_open(LONG_TIMEOUT);
    warm_up();
    server_ask(&rig.server, "DEBUG POPULATE 20000");
    for (int i = 0; i < 20000; i += 5000)
        server_ask(&rig.server, "EVAL %s 0 %d",
                   "for i = 1, 5000 do redis.call('SET', 'fill:' .. ARGV[1] .. i, 'x') end", i);
    assert_string_equal(server_ask(&rig.server, "SAVE"), "OK");
    server_kill(&rig.server);
    snprintf(rig.server.options, sizeof rig.server.options,
             "--key-load-delay 50 --loading-process-events-interval-bytes 1024");
    server_restart(&rig.server, false);
    const steady_us begin = now_us();
    struct tally tally = {0};
    bool seen = false;
    while (tally.verdicts == 0 && now_us() - begin < 10 * STEADY_SECOND) {
        consume_counted(rig.throttler, "k", 1, &tally);
        run_for(rig.poller, MS);
        if (strncmp(last_error_of(rig.store), "LOADING", 7) == 0) seen = true;
    }
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_true(seen && tally.verdicts > 0);
    assert_at_once(&tally);
    assert_left_alone("LOADING", begin);
    const unsigned long unknown = tally.errors[-STEADY_UNKNOWN]; /* the server accepts before it answers */
    assert_int_equal(tally.called, tally.verdicts + tally.errors[-STEADY_UNAVAILABLE] + unknown);
    account(&tally, level("k"));
    assert_true(stats().reconnects <= 2); /* one more if the server did not listen yet */
}

/* A replica without its primary that serves no stale data. */
static void stale_replica_is_unavailable_until_promoted(void **state) {
    struct tally tally = {0};
    steady_result r;
    (void)state;
    server_ask(&rig.server, "CONFIG SET replica-serve-stale-data no");
    server_ask(&rig.server, "REPLICAOF 127.0.0.1 %d", free_port());
    rig_open(LONG_TIMEOUT);
    trickle(&tally, MS, 300 * MS);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.called);
    assert_at_once(&tally);
    assert_int_equal(steady_peek_sync(rig.throttler, "k", 1, &r), STEADY_UNAVAILABLE);
    assert_non_null(strstr(last_error_of(rig.store), "MASTERDOWN"));
    server_ask(&rig.server, "REPLICAOF NO ONE");
    assert_used_again();
    assert_int_equal(level("k"), 0);
}

/* ---- Data lost ---- */

static void wipe(void) {
    server_ask(&rig.server, "FLUSHALL");
    sleep_us(20 * MS);
}

/* Each flush gives a key at most one more capacity. No decision has an error. */
static void flushall_under_load_gives_each_key_one_more_capacity(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open_without_memory(5 * STEADY_SECOND);
    steady_throttler_free(&rig.throttler);
    rig.throttler = new_throttler(rig.store, 100, HOUR);
    const pid_t pid = start_child(wipe);
    load(&tally, 100, how_long(STEADY_SECOND, 5 * STEADY_SECOND));
    end_child(pid);
    assert_int_equal(tally.verdicts, tally.called);
    const long long wipes = server_stat(&rig.server, "cmdstat_flushall:calls");
    assert_true(wipes > 10);
    assert_between(tally.allowed, 100, 100 * (wipes + 1));
}

/* Counts CONFIG GET; some servers count one at their start. */
static long long questions(void) { return server_stat(&rig.server, "cmdstat_config|get:calls"); }

#define EVICTABLE 50 /* buckets, of ten drops each */

/* The number of these buckets that are missing at the server. */
static long long missing_buckets(void) {
    char command[256] = "EXISTS";
    for (int i = 0; i < EVICTABLE; i++)
        snprintf(command + strlen(command), sizeof command - strlen(command), " %d", i);
    return EVICTABLE - atoll(server_ask(&rig.server, command));
}

/* Waits for the eviction: a server over its limit evicts at the next command. */
static void await_eviction(void) {
    long long evicted = -1;
    while (evicted != server_stat(&rig.server, "evicted_keys"))
        evicted = server_stat(&rig.server, "evicted_keys");
}

static void fill_evictable(struct tally *tally) {
    for (int i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i % EVICTABLE);
        consume_counted(rig.throttler, key, 1, tally);
    }
    run_until_done(rig.poller, tally, 10 * STEADY_SECOND);
}

/* A bucket that is missing before a round fills once more in it. During a round no bucket is evicted. */
static void evicted_bucket_admits_once_more_and_is_warned_of(void **state) {
    struct tally tally = {0};
    long long missing = 0;
    (void)state;
    const long long before = questions();
    server_ask(&rig.server, "CONFIG SET maxmemory-policy allkeys-lru");
    server_ask(&rig.server, "CONFIG SET maxmemory 3mb maxmemory-eviction-tenacity 100");
    rig_open_without_memory(5 * STEADY_SECOND);
    steady_throttler_free(&rig.throttler);
    rig.throttler = new_throttler(rig.store, 10, HOUR);
    for (int round = 0; round < 20; round++) {
        await_eviction();
        server_ask(&rig.server, "CONFIG SET maxmemory 100mb");
        if (round > 0) missing += missing_buckets();
        fill_evictable(&tally);
        server_ask(&rig.server, "CONFIG SET maxmemory 3mb");
        server_ask(&rig.server, "EVAL %s 0 %d",
                   "local x = ('x'):rep(1000) "
                   "for i = 1, 3000 do redis.call('SET', 'junk:' .. ARGV[1] .. ':' .. i, x) end",
                   round);
    }
    assert_int_equal(tally.verdicts, tally.called);
    assert_true(missing > EVICTABLE);
    assert_int_equal(tally.allowed, 10 * (EVICTABLE + missing));
    assert_int_equal(rig.log.warnings, 1);
    assert_non_null(strstr(rig.log.last, "allkeys-lru"));
    assert_int_equal(questions() - before, 1);
}

/* No warning is logged for a server that evicts nothing or does not tell its settings. */
static void server_without_eviction_causes_no_warning(void **state) {
    static const char *const settings[][2] = {{"noeviction", "3mb"}, {"allkeys-lru", "0"}};
    (void)state;
    const long long before = questions();
    for (size_t i = 0; i < COUNT(settings); i++) {
        server_ask(&rig.server, "CONFIG SET maxmemory-policy %s maxmemory %s", settings[i][0], settings[i][1]);
        rig_open(TIMEOUT);
        assert_int_equal(ask_one(), 0);
        assert_int_equal(ask_one(), 0);
        assert_int_equal(questions() - before, i + 1);
        assert_int_equal(rig.log.lines, 0);
        rig_close();
    }
}

/* ---- Not let in ---- */

static void full_server_is_unavailable_and_used_again(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(LONG_TIMEOUT); /* not connected yet */
    server_ask(&rig.server, "CONFIG SET maxclients 1");
    steady_store *only = open_store(rig.server.url, NULL);
    steady_throttler *holder = new_throttler(only, LARGE, RECHARGE);
    steady_result r;
    assert_int_equal(steady_consume_sync(holder, "holder", 6, 1, &r), 0); /* takes the only place */
    trickle(&tally, MS, 300 * MS);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.called);
    assert_at_once(&tally);
    assert_non_null(strstr(last_error_of(rig.store), "max number of clients reached"));
    assert_int_equal(rig.log.lines, 1);
    assert_non_null(strstr(rig.log.last, "max number of clients reached"));
    steady_throttler_free(&holder);
    steady_store_close(&only);
    assert_used_again();
    assert_int_equal(rig.log.lines, 2);
    steady_throttler_free(&rig.throttler);
    steady_store_close(&rig.store); /* frees its place for the checks below */
    const steady_us until = now_us() + 5 * STEADY_SECOND;
    while (strcmp(server_ask(&rig.server, "CONFIG SET maxclients 100"), "OK") != 0 && now_us() < until)
        sleep_us(5 * MS);
    assert_int_equal(level("k"), 0);
    assert_int_equal(level("holder"), 1);
}

static void wrong_password_connects_once_a_second(void **state) {
    char url[96];
    struct tally tally = {0};
    (void)state;
    snprintf(url, sizeof url, "redis://u:hunter2@127.0.0.1:%d", rig.server.port);
    rig_open_at(url, LONG_TIMEOUT);
    const long long before = server_stat(&rig.server, "total_connections_received");
    trickle(&tally, 5 * MS, 1500 * MS);
    const long long after = server_stat(&rig.server, "total_connections_received") - 1;
    assert_int_equal(tally.errors[-STEADY_REFUSED], tally.called);
    assert_at_once(&tally);
    assert_between(after - before, 1, 2);
    assert_int_equal(rig.log.lines, 1);
    assert_null(strstr(rig.log.all, "hunter2"));
    assert_null(strstr(last_error_of(rig.store), "hunter2"));
}

/* The script reports a denial only if the server can write. */
static void denied_key_notices_a_server_that_cannot_write(void **state) {
    static const char *const faults[][2] = {
        {"CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"},
        {"CONFIG SET min-replicas-to-write 3", "CONFIG SET min-replicas-to-write 0"},
        {"REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"},
    };
    struct tally tally = {0};
    (void)state;
    rig_open_without_memory(TIMEOUT);
    steady_throttler_free(&rig.throttler);
    rig.throttler = new_throttler(rig.store, 1, HOUR);
    for (int i = 0; i < 2; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.denied, 1);
    for (size_t i = 0; i < COUNT(faults); i++) {
        server_ask(&rig.server, faults[i][0]);
        if (ask_one() != STEADY_UNAVAILABLE) fail_msg("%s", faults[i][0]);
        server_ask(&rig.server, faults[i][1]);
        assert_used_again();
        assert_int_equal(ask_one(), 0);
    }
}

static void open_as_app(void) {
    char url[96];
    assert_string_equal(server_ask(&rig.server, "ACL SETUSER app on >hunter2 ~* -@all +evalsha +eval +script|load +get "
                                                "+set +del +time"),
                        "OK");
    snprintf(url, sizeof url, "redis://app:hunter2@127.0.0.1:%d", rig.server.port);
    rig_open_at(url, LONG_TIMEOUT);
    warm_up();
}

static void assert_no_password(void) {
    assert_null(strstr(rig.log.all, "hunter2"));
    assert_null(strstr(last_error_of(rig.store), "hunter2"));
}

static void take_rights(void) {
    server_ask(&rig.server, "ACL SETUSER app -evalsha");
    sleep_us(20 * MS);
    server_ask(&rig.server, "ACL SETUSER app +evalsha");
    sleep_us(20 * MS);
}

static void rights_taken_under_load_are_refused_and_charge_nothing(void **state) {
    struct tally tally = {0};
    (void)state;
    open_as_app();
    const pid_t pid = start_child(take_rights);
    load(&tally, 50, how_long(STEADY_SECOND, 3 * STEADY_SECOND));
    end_child(pid);
    server_ask(&rig.server, "ACL SETUSER app +evalsha");
    assert_true(tally.verdicts > 0 && tally.errors[-STEADY_REFUSED] > 0);
    assert_int_equal(tally.verdicts + tally.errors[-STEADY_REFUSED], tally.called);
    assert_used_again();
    account(&tally, level("k"));
    assert_int_equal(stats().reconnects, 0);
    assert_no_password();
}

/* The server closes the connection of a deleted user. Later attempts are refused, about once a second. */
static void deleted_user_is_refused_and_connects_once_a_second(void **state) {
    struct tally tally = {0};
    (void)state;
    open_as_app();
    server_ask(&rig.server, "ACL DELUSER app");
    const long long before = server_stat(&rig.server, "total_connections_received");
    trickle(&tally, 5 * MS, 1500 * MS);
    const long long after = server_stat(&rig.server, "total_connections_received") - 1;
    assert_int_equal(tally.verdicts, 0);
    assert_true(tally.errors[-STEADY_REFUSED] > tally.called / 2);
    assert_at_once(&tally);
    assert_between(after - before, 1, 3);
    server_ask(&rig.server, "ACL SETUSER app on >hunter2 ~* +@all");
    const steady_us since = now_us();
    while (ask_one() != 0) {
        assert_true(now_us() - since < 2 * STEADY_SECOND); /* a refused connection is retried about once a second */
        run_for(rig.poller, 10 * MS);
    }
    assert_no_password();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_RIG(script_flush_under_load_causes_one_load_and_no_error),
        WITH_RIG(script_flush_every_2_ms_starves_no_decision),
        WITH_RIG(full_memory_is_unavailable_and_charges_nothing),
        WITH_RIG(too_few_replicas_is_unavailable_and_charges_nothing),
        WITH_RIG(disk_error_is_unavailable_and_charges_nothing),
        WITH_RIG(demoted_primary_is_left_and_connected_anew),
        WITH_RIG(busy_server_is_unavailable_until_it_answers),
        WITH_RIG(unkillable_script_is_unavailable_until_a_restart),
        WITH_RIG(loading_server_gets_few_probes_and_is_used_again),
        WITH_RIG(stale_replica_is_unavailable_until_promoted),
        WITH_RIG(flushall_under_load_gives_each_key_one_more_capacity),
        WITH_RIG(evicted_bucket_admits_once_more_and_is_warned_of),
        WITH_RIG(server_without_eviction_causes_no_warning),
        WITH_RIG(full_server_is_unavailable_and_used_again),
        WITH_RIG(wrong_password_connects_once_a_second),
        WITH_RIG(denied_key_notices_a_server_that_cannot_write),
        WITH_RIG(rights_taken_under_load_are_refused_and_charge_nothing),
        WITH_RIG(deleted_user_is_refused_and_connects_once_a_second),
    };
    return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
