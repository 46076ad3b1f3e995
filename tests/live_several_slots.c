/* SPDX-License-Identifier: MIT
 * Calls on keys of several slots on a real cluster: the same decisions as on one server, round trips, a caller that
 * floods a shared limit, slots that move, failovers, and processes that die between two rounds. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proxy.h"
#include "random.h"
#include "redis/slot_map.h"
#include "redis_cluster.h"
#include "rig.h"

#define PATIENT (5 * STEADY_SECOND)

static struct cluster cluster;

/* Tests with the same options share one cluster. */
static int plain(void **state) {
    cluster_ensure(&cluster, PRIMARIES, PLAIN);
    return rig_set_up(state);
}

static int failing_over(void **state) {
    cluster_ensure(&cluster, NODES, FAILS_OVER);
    return rig_set_up(state);
}

static int group_tear_down(void **state) {
    (void)state;
    cluster_stop(&cluster);
    return 0;
}

/* ---- Calls ---- */

static char tags[PRIMARIES][16]; /* a tag of each primary */

static steady_throttler *throttler_on(steady_store *store, steady_limit limit) {
    steady_throttler *t = NULL;
    assert_int_equal(steady_throttler_new(&t, store, &limit, NULL, NULL), 0);
    return t;
}

static steady_part part_of(steady_throttler *t, const char *key, int64_t amount) {
    return (steady_part){.throttler = t, .key = key, .key_len = strlen(key), .amount = amount};
}

static const char *key_of(unsigned owner, const char *name) {
    static char keys[16][64];
    static unsigned next;
    char *key = keys[next++ % COUNT(keys)];
    snprintf(key, sizeof keys[0], "{%.15s}%.40s", tags[owner], name);
    return key;
}

static void open_tags(void) {
    for (unsigned i = 0; i < PRIMARIES; i++)
        cluster_tag(tags[i], i, 0);
}

/* What is in a bucket, asked on a connection of its own. */
static long long level_in(const char *key) {
    steady_result r = {0};
    const steady_store_options options = {.timeout = PATIENT};
    steady_store *reader = open_store(cluster.nodes[cluster.nodes[2].pid != 0 ? 2 : 1].url, &options);
    steady_throttler *t = new_throttler(reader, LARGE, RECHARGE);
    const steady_us until = now_us() + 10 * STEADY_SECOND;
    while (steady_peek_sync(t, key, strlen(key), &r) != 0 && now_us() < until)
        sleep_us(20 * MS);
    assert_int_equal(r.error, 0);
    steady_throttler_free(&t);
    steady_store_close(&reader);
    return r.level;
}

static void count_part(const steady_result *result, void *data) { count_result(result, data); }

static void submit(struct tally *tally, const steady_part *parts, size_t n, const steady_how *how) {
    assert_int_equal(steady_consume_all(parts, n, how, count_part, expect_result(tally), NULL), 0);
}

/* ---- As on one server ---- */

static steady_part random_part(uint64_t *seed, steady_throttler *const *t, bool equal) {
    static const enum steady_kind kinds[] = {STEADY_TAKE, STEADY_TAKE,   STEADY_TAKE,
                                             STEADY_LOOK, STEADY_CHARGE, STEADY_SHADOW};
    const enum steady_kind kind = equal ? STEADY_TAKE : kinds[random_in(seed, 0, COUNT(kinds) - 1)];
    const int64_t amount = equal ? 4 : random_in(seed, kind == STEADY_TAKE ? -3 : 0, 5);
    return (steady_part){.throttler = t[random_in(seed, 0, 1)], .amount = amount, .kind = kind};
}

static void assert_same(const steady_result *one, const steady_part_result *each, const steady_result *other,
                        const steady_part_result *other_each) {
    assert_int_equal(other->error, one->error);
    assert_int_equal(other->success, one->success);
    if (one->success) assert_int_equal(other->part, one->part);
    /* Waits are equal to the us on one server only. */
    if (!one->success && one->retry_after > 0)
        assert_between(each[other->part].retry_after, one->retry_after - STEADY_SECOND, one->retry_after);
    assert_int_equal(other->granted, one->granted);
    assert_int_equal(other->retry_after < 0, one->retry_after < 0);
    assert_int_equal(other->retry_after == 0, one->retry_after == 0);
    assert_int_equal(other->must_wait == 0, one->must_wait == 0);
    for (size_t i = 0; i < one->n_parts; i++) {
        assert_int_equal(other_each[i].success, each[i].success);
        assert_int_equal(other_each[i].granted, each[i].granted);
        assert_int_equal(other_each[i].level, each[i].level);
        assert_int_equal(other_each[i].blocked_for > 0, each[i].blocked_for > 0);
    }
}

/* The limits leak so slowly that time makes no difference. */
static void calls_decide_as_on_one_server(void **state) {
    uint64_t seed = 11;
    unsigned atomic = 0, allowed = 0, settles = 0;
    const steady_store_options options = {.timeout = PATIENT, .deny_memory_off = true}; /* it tells of one part only */
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = RECHARGE},
                       blocks = {.max_capacity = 7, .drop_recharge = RECHARGE, .block_duration = HOUR};
    (void)state;
    steady_store *stores[2] = {open_store(rig.server.url, &options), open_store(cluster.nodes[1].url, &options)};
    steady_throttler *t[2][2];
    for (int i = 0; i < 2; i++) {
        t[i][0] = throttler_on(stores[i], limit);
        t[i][1] = throttler_on(stores[i], blocks);
    }
    for (int i = 0; i < 3000; i++) {
        char keys[4][24];
        steady_part parts[4], others[4];
        steady_part_result each[2][4];
        steady_result r[2];
        const size_t n = (size_t)random_in(&seed, 1, 4);
        const bool equal = random_in(&seed, 0, 5) == 0, peek = random_in(&seed, 0, 9) == 0;
        const int from = (int)random_in(&seed, 0, 300);
        steady_how how = {.max_wait = random_in(&seed, 0, 3) == 0 ? 3 * RECHARGE : 0, .at_least = equal ? 2 : 0};
        how.reserve = !peek && random_in(&seed, 0, 2) == 0;
        how.parts_room = 4;
        for (size_t k = 0; k < n; k++) {
            snprintf(keys[k], sizeof keys[k], random_in(&seed, 0, 1) == 0 ? "same:%d" : "{same}%d", from + (int)k);
            parts[k] = random_part(&seed, t[0], equal);
            parts[k].key = keys[k];
            parts[k].key_len = strlen(keys[k]);
            others[k] = parts[k];
            others[k].throttler = t[1][parts[k].throttler == t[0][1]];
        }
        for (int s = 0; s < 2; s++) {
            how.parts = each[s];
            (peek ? steady_peek_all_sync : steady_consume_all_sync)(s == 0 ? parts : others, n, &how, &r[s]);
        }
        assert_same(&r[0], each[0], &r[1], each[1]);
        atomic += r[1].atomic;
        allowed += r[1].success;
        if (r[0].reservation == NULL) continue;
        int64_t actuals[4];
        for (size_t k = 0; k < n; k++)
            actuals[k] = parts[k].amount < 0 ? -1 : random_in(&seed, -1, 5);
        actuals[0] = parts[0].amount < 0 ? -1 : 1;
        for (int s = 0; s < 2; s++) {
            const steady_settlement settlement = {.reservation = r[s].reservation,
                                                  .actuals = actuals,
                                                  .store = stores[s],
                                                  .throttlers = t[s],
                                                  .n_throttlers = 0,
                                                  .parts = each[s],
                                                  .parts_room = 4};
            steady_reservation *reservation = r[s].reservation;
            steady_settle_sync(&settlement, &r[s]);
            steady_reservation_free(&reservation);
        }
        assert_int_equal(r[1].error, r[0].error);
        for (size_t k = 0; k < r[0].n_parts && r[0].error == 0; k++) {
            assert_int_equal(each[1][k].level, each[0][k].level);
            assert_int_equal(each[1][k].charged, each[0][k].charged);
            assert_int_equal(each[1][k].given_back > 0, each[0][k].given_back > 0);
        }
        settles += r[0].error == 0;
    }
    assert_between(atomic, 300, 2500);
    assert_between(allowed, 500, 2900);
    assert_true(settles > 200);
    for (int i = 0; i < 2; i++) {
        steady_throttler_free(&t[i][0]);
        steady_throttler_free(&t[i][1]);
        steady_store_close(&stores[i]);
    }
}

static void module_calls_decide_as_on_one_server(void **state) {
    cluster_stop(&cluster);
    cluster_start(&cluster, PRIMARIES, module_options());
    calls_decide_as_on_one_server(state);
    cluster_stop(&cluster);
}

/* ---- Round trips ---- */

static struct proxy *proxies[PRIMARIES];

static bool names_all_proxies(const struct server *node) {
    char port[16];
    const char *slots = server_ask(node, "CLUSTER SLOTS");
    for (unsigned i = 0; i < PRIMARIES; i++) {
        snprintf(port, sizeof port, " %d ", proxy_port(proxies[i]));
        if (strstr(slots, port) == NULL) return false;
    }
    return true;
}

/* Each node announces a proxy in front of it. */
static int behind_proxies(void **state) {
    cluster_ensure(&cluster, PRIMARIES, FAILS_OVER " --repl-backlog-size 1mb");
    const steady_us until = now_us() + 20 * STEADY_SECOND;
    for (unsigned i = 0; i < PRIMARIES; i++) {
        proxies[i] = proxy_start(cluster.nodes[i].port);
        assert_string_equal(
            server_ask(&cluster.nodes[i], "CONFIG SET cluster-announce-port %d", proxy_port(proxies[i])), "OK");
    }
    for (unsigned i = 0; i < PRIMARIES; i++)
        while (!names_all_proxies(&cluster.nodes[i])) {
            if (now_us() > until) fail_msg("%s", server_ask(&cluster.nodes[i], "CLUSTER SLOTS"));
            sleep_us(20 * MS);
        }
    return rig_set_up(state);
}

static int without_proxies(void **state) {
    const int error = rig_tear_down(state);
    for (unsigned i = 0; i < PRIMARIES; i++)
        proxy_stop(proxies[i]);
    cluster_stop(&cluster);
    return error;
}

static void open_through_proxies(steady_us round_trip) {
    char url[64];
    for (unsigned i = 0; i < PRIMARIES; i++)
        proxy_set(proxies[i], &(struct proxy_rules){.delay_up = round_trip / 2, .delay_down = round_trip / 2});
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", proxy_port(proxies[0]));
    rig_open_at(url, PATIENT);
    open_tags();
    for (unsigned i = 0; i < PRIMARIES; i++) { /* connections and scripts */
        struct tally tally = {0};
        const steady_part parts[] = {part_of(rig.throttler, key_of(i, "a"), 1),
                                     part_of(rig.throttler, key_of((i + 1) % PRIMARIES, "b"), 1)};
        submit(&tally, parts, 2, NULL);
        run_until_done(rig.poller, &tally, PATIENT);
        assert_int_equal(tally.last.error, 0);
    }
}

static steady_us shortest(const steady_part *parts, size_t n) {
    steady_us best = PATIENT;
    for (int i = 0; i < 10; i++) {
        struct tally tally = {0};
        const steady_us begin = now_us();
        submit(&tally, parts, n, NULL);
        run_until_done(rig.poller, &tally, PATIENT);
        assert_true(tally.last.success);
        if (now_us() - begin < best) best = now_us() - begin;
    }
    return best;
}

static void call_in_several_slots_takes_two_round_trips_more(void **state) {
    const steady_us trip = 20 * MS;
    (void)state;
    open_through_proxies(trip);
    const steady_part one[] = {part_of(rig.throttler, key_of(0, "x"), 1), part_of(rig.throttler, key_of(0, "y"), 1),
                               part_of(rig.throttler, key_of(0, "z"), 1)};
    const steady_part several[] = {part_of(rig.throttler, key_of(0, "u"), 1), part_of(rig.throttler, key_of(1, "v"), 1),
                                   part_of(rig.throttler, key_of(2, "w"), 1)};
    assert_between(shortest(one, 1), trip, 2 * trip - 1);
    assert_between(shortest(one, 3), trip, 2 * trip - 1);
    assert_between(shortest(several, 3), 3 * trip, 4 * trip - 1);
}

/* ---- A shared limit ---- */

#define USERS 8
#define TASKS 64

struct flood {
    steady_part parts[2];
    unsigned long allowed, denied, failed;
    unsigned running;
    bool over;
};

static void flood_again(const steady_result *result, void *data) {
    struct flood *flood = data;
    if (result != NULL) {
        flood->running--;
        *(result->error != 0 ? &flood->failed : result->success ? &flood->allowed : &flood->denied) += 1;
    }
    if (flood->over || steady_consume_all(flood->parts, 2, NULL, flood_again, data, NULL) != 0) return;
    flood->running++;
}

/* The ninth user's bucket leaks ten drops a second, so its tasks see room again and again. The shared limit has room
 * for what is allowed, and for a few more: less than the tasks would hold if they took from it first. */
static void flood_of_one_user_denies_no_other(void **state) {
    (void)state;
    open_through_proxies(2 * MS);
    for (int round = 0; round < 2; round++) {
        const steady_us block = round == 0 ? 0 : 300 * MS;
        steady_throttler *user = throttler_on(
            rig.store,
            (steady_limit){.max_capacity = 10, .drop_recharge = STEADY_SECOND, .drops = 10, .block_duration = block});
        steady_throttler *shared =
            throttler_on(rig.store, (steady_limit){.max_capacity = 60, .drop_recharge = HOUR, .block_duration = block});
        char all[64], ninth[64];
        struct tally tally = {0};
        snprintf(all, sizeof all, "%s", key_of(0, round == 0 ? "all" : "all of them"));
        snprintf(ninth, sizeof ninth, "%s", key_of(1, round == 0 ? "ninth" : "ninth of them"));
        struct flood flood = {.parts = {part_of(shared, all, 1), part_of(user, ninth, 1)}};
        const steady_us begin = now_us();
        for (int i = 0; i < TASKS; i++)
            flood_again(NULL, &flood);
        for (int i = 0; i < USERS; i++) {
            char key[80];
            run_for(rig.poller, 150 * MS);
            snprintf(key, sizeof key, "%s%d", key_of((unsigned)i % PRIMARIES, round == 0 ? "user" : "this user"), i);
            const steady_part parts[] = {part_of(shared, all, 1), part_of(user, key, 1)};
            submit(&tally, parts, 2, NULL);
        }
        run_until_done(rig.poller, &tally, PATIENT);
        flood.over = true;
        const steady_us time = now_us() - begin;
        while (flood.running > 0 && now_us() - begin < 3 * PATIENT)
            run_for(rig.poller, 5 * MS);
        assert_int_equal(tally.allowed, USERS);
        assert_int_equal(flood.failed, 0);
        assert_true(flood.denied > 1000 || round == 1);
        assert_between((long long)flood.allowed, round == 0 ? 15 : 10, 10 + 10 * time / STEADY_SECOND + 1);
        run_for(rig.poller, 20 * MS);
        assert_int_equal(level_in(all), USERS + (long long)flood.allowed); /* the drops of the others are given back */
        steady_throttler_free(&user);
        steady_throttler_free(&shared);
    }
}

/* ---- Contention ---- */

struct load {
    steady_throttler *t;
    uint64_t seed;
    unsigned in_flight, keys;
    struct tally tally;
    long long taken[32]; /* by key, of allowed calls */
    long long unknown;   /* calls */
    bool wait;
};

#define CALL_KEYS 4 /* in three slots */

struct one {
    struct load *load;
    unsigned keys[CALL_KEYS];
    void *counted;
};

static void load_key(char out[32], unsigned i) { snprintf(out, 32, "{%.15s}k%u", tags[i % PRIMARIES], i); }

static void load_ended(const steady_result *result, void *data) {
    struct one *one = data;
    for (int i = 0; i < CALL_KEYS && result->error == 0 && result->success; i++)
        one->load->taken[one->keys[i]] += result->granted;
    one->load->unknown += result->error == STEADY_UNKNOWN;
    count_result(result, one->counted);
    free(one);
}

/* Keeps calls on random keys in flight. */
static void load_fill(struct load *load) {
    while (load->tally.submitted - load->tally.called < load->in_flight) {
        struct one *one = malloc(sizeof *one);
        char keys[CALL_KEYS][32];
        steady_part parts[CALL_KEYS];
        assert_non_null(one);
        const unsigned from = (unsigned)random_in(&load->seed, 0, load->keys - 1);
        const bool partial = random_in(&load->seed, 0, 3) == 0;
        for (unsigned i = 0; i < CALL_KEYS; i++) {
            one->keys[i] = (from + i) % load->keys;
            load_key(keys[i], one->keys[i]);
            parts[i] = part_of(load->t, keys[i], partial ? 3 : 1);
        }
        const steady_how how = {.at_least = partial ? 1 : 0};
        one->load = load;
        one->counted = expect_result(&load->tally);
        assert_int_equal(steady_consume_all(parts, CALL_KEYS, &how, load_ended, one, NULL), 0);
    }
}

static void load_go_on(struct load *load, steady_us time) {
    const steady_us until = now_us() + time;
    while (now_us() < until) {
        load_fill(load);
        assert_true(steady_poller_run(rig.poller, 5 * MS) >= 0);
    }
}

static void load_run(struct load *load, steady_us time) {
    load_go_on(load, time);
    run_until_done(rig.poller, &load->tally, 20 * STEADY_SECOND);
}

/* Keys that many calls want at once, with room for few. No fault: what is not allowed is given back to the last drop.
 */
static void contended_buckets_hold_exactly_what_was_allowed(void **state) {
    (void)state;
    rig_open_at(cluster.nodes[0].url, PATIENT);
    open_tags();
    for (int round = 0; round < 5; round++) {
        struct load load = {.seed = (uint64_t)round + 1, .in_flight = 30, .keys = 6};
        for (unsigned i = 0; i < PRIMARIES; i++)
            server_ask(&cluster.nodes[i], "FLUSHALL");
        load.t = throttler_on(rig.store, (steady_limit){.max_capacity = 40, .drop_recharge = RECHARGE});
        load_run(&load, 200 * MS);
        run_for(rig.poller, 50 * MS); /* what leaked of the drops that were given back */
        assert_int_equal(load.tally.verdicts, load.tally.submitted);
        for (unsigned i = 0; i < load.keys; i++) {
            char key[32];
            load_key(key, i);
            assert_int_equal(level_in(key), load.taken[i]);
            assert_between(load.taken[i], 20, 40);
        }
        steady_throttler_free(&load.t);
    }
}

/* ---- Slots that move ---- */

/* Moves the slot of tags[0] to another node and back. Its keys go one by one, so each call meets it half moved. */
static void move_slot(void) {
    const unsigned slot = steady__slot_of(tags[0], strlen(tags[0]));
    for (unsigned from = 0; from < 2; from++) {
        cluster_migrate_begin(&cluster, slot, from, 1 - from);
        for (unsigned i = 0; i < 12; i += PRIMARIES) {
            char key[32];
            load_key(key, i);
            server_ask(&cluster.nodes[from], "MIGRATE 127.0.0.1 %d %s 0 5000", cluster.nodes[1 - from].port, key);
            sleep_us(15 * MS);
        }
        cluster_migrate_keys(&cluster, slot, from, 1 - from);
        cluster_migrate_end(&cluster, slot, 1 - from);
        sleep_us(20 * MS);
    }
}

static void half_moved_slot_is_asked_key_by_key(void **state) {
    const unsigned slot = steady__slot_of("moved", 5), from = cluster_owner(slot), to = (from + 1) % PRIMARIES;
    (void)state;
    rig_open_at(cluster.nodes[0].url, PATIENT);
    const steady_part parts[] = {part_of(rig.throttler, "{moved}a", 1), part_of(rig.throttler, "{moved}b", 1)};
    const steady_how how = {.reserve = true};
    for (unsigned i = 0; i < PRIMARIES; i++)
        server_ask(&cluster.nodes[i], "FLUSHALL");
    for (int step = 0; step < 4; step++) {
        struct tally tally = {0};
        if (step == 1) cluster_migrate_begin(&cluster, slot, from, to);
        if (step == 1) server_ask(&cluster.nodes[from], "MIGRATE 127.0.0.1 %d {moved}a 0 5000", cluster.nodes[to].port);
        if (step == 2) cluster_migrate_keys(&cluster, slot, from, to);
        if (step == 3) cluster_migrate_end(&cluster, slot, to);
        submit(&tally, parts, 2, &how);
        run_until_done(rig.poller, &tally, PATIENT);
        assert_int_equal(tally.last.error, 0);
        assert_int_equal(tally.last.atomic, step != 1);
        assert_int_equal(tally.last.level, step + 1);
        steady_reservation *reservation = tally.last.reservation;
        const steady_settlement settlement = {.reservation = reservation, .actual = step, .store = rig.store};
        struct tally settled = {0};
        assert_int_equal(steady_settle(&settlement, count_result, expect_result(&settled), NULL), 0);
        run_until_done(rig.poller, &settled, PATIENT);
        assert_int_equal(settled.last.error, 0);
        steady_reservation_free(&reservation);
        struct tally back = {0}; /* level step + 1 again */
        const steady_part more[] = {part_of(rig.throttler, "{moved}a", 1 - step),
                                    part_of(rig.throttler, "{moved}b", 1 - step)};
        submit(&back, more, 2, NULL);
        run_until_done(rig.poller, &back, PATIENT);
        assert_int_equal(back.last.error, 0);
    }
    assert_true(cluster_stat(&cluster, "errorstat_TRYAGAIN:count") >= 1);
    cluster_migrate_begin(&cluster, slot, to, from);
    cluster_migrate_keys(&cluster, slot, to, from);
    cluster_migrate_end(&cluster, slot, from);
}

/* Nothing is lost when a slot moves. A settle that follows a key to its new node is sent there, too. */
static void slot_moved_under_load_allows_no_more_than_the_limits(void **state) {
    struct load load = {.seed = 5, .in_flight = 20, .keys = 12};
    (void)state;
    open_tags();
    for (unsigned i = 0; i < PRIMARIES; i++)
        server_ask(&cluster.nodes[i], "FLUSHALL");
    rig_open_at(cluster.nodes[2].url, PATIENT);
    load.t = throttler_on(rig.store, (steady_limit){.max_capacity = 3000, .drop_recharge = RECHARGE});
    for (unsigned i = 0; i < PRIMARIES; i++)
        server_ask(&cluster.nodes[i], "CONFIG RESETSTAT");
    const pid_t pid = start_child(move_slot);
    load_run(&load, how_long(1500 * MS, 10 * STEADY_SECOND));
    end_child(pid);
    cluster_await(&cluster);
    run_for(rig.poller, 50 * MS);
    assert_int_equal(load.tally.verdicts + load.tally.errors[-STEADY_UNAVAILABLE], load.tally.submitted);
    assert_true(cluster_stat(&cluster, "errorstat_TRYAGAIN:count") > 0);
    for (unsigned i = 0; i < load.keys; i++) {
        char key[32];
        load_key(key, i);
        assert_true(load.taken[i] <= 3000);
        assert_true(level_in(key) >= load.taken[i]);
    }
    steady_throttler_free(&load.t);
    cluster_stop(&cluster); /* the slot may be anywhere */
}

/* ---- Servers and processes that die ---- */

/* A primary dies with calls in all rounds in flight, and its replica takes over. It may have missed the last drops. */
static void failover_in_any_round_allows_no_more_than_the_limits(void **state) {
    struct load load = {.seed = 9, .in_flight = 200, .keys = 12};
    long long sum = 0, allowed = 0;
    (void)state;
    open_tags();
    rig_open_at(cluster.nodes[2].url, STEADY_SECOND);
    load.t = throttler_on(rig.store, (steady_limit){.max_capacity = LARGE, .drop_recharge = RECHARGE});
    load_go_on(&load, 300 * MS);
    server_freeze(&cluster.nodes[0]); /* so that calls wait for its answer */
    load_go_on(&load, 50 * MS);
    server_kill(&cluster.nodes[0]);
    load_run(&load, how_long(1500 * MS, 4 * STEADY_SECOND));
    const steady_us until = now_us() + 15 * STEADY_SECOND;
    unsigned long verdicts = load.tally.verdicts;
    while (load.tally.verdicts < verdicts + 2000 && now_us() < until)
        load_run(&load, 200 * MS);
    assert_true(load.tally.verdicts >= verdicts + 2000);
    run_for(rig.poller, STEADY_SECOND);
    assert_int_equal(load.tally.called, load.tally.submitted);
    assert_true(load.unknown > 0);
    for (unsigned i = 0; i < load.keys; i++) {
        char key[32];
        load_key(key, i);
        sum += level_in(key);
        allowed += load.taken[i];
    }
    assert_true(sum <= allowed + 12 * load.unknown);
    assert_true(sum + 12 * 500 >= allowed);
    steady_throttler_free(&load.t);
    server_restart(&cluster.nodes[0], true);
    cluster_await(&cluster);
    cluster_stop(&cluster);
}

#define CHILDREN 8

/* Calls of a child, which is killed while they are in flight. It writes down each call that it was told is allowed. */
static void child_calls(int to, uint64_t seed) {
    steady_poller *poller;
    assert_int_equal(steady_poller_new(&poller), 0);
    rig.poller = poller;
    steady_loop loop = steady_poller_loop(poller);
    const steady_store_options options = {.loop = &loop, .timeout = PATIENT};
    rig.store = open_store(cluster.nodes[1].url, &options);
    struct load load = {.seed = seed, .in_flight = 10, .keys = 6};
    load.t = throttler_on(rig.store, (steady_limit){.max_capacity = 500, .drop_recharge = RECHARGE});
    for (;;) {
        load_fill(&load);
        steady_poller_run(poller, MS);
        long long sum = 0;
        for (unsigned i = 0; i < load.keys; i++)
            sum += load.taken[i];
        if (write(to, &sum, sizeof sum) != sizeof sum) _exit(1);
    }
}

static void killed_callers_leave_at_most_what_was_in_flight(void **state) {
    long long allowed = 0, sum = 0;
    (void)state;
    open_tags();
    rig_open_at(cluster.nodes[0].url, PATIENT);
    for (unsigned i = 0; i < PRIMARIES; i++)
        server_ask(&cluster.nodes[i], "FLUSHALL");
    for (int round = 0; round < 3; round++) {
        pid_t pids[CHILDREN];
        int pipes[CHILDREN][2];
        for (int i = 0; i < CHILDREN; i++) {
            assert_int_equal(pipe(pipes[i]), 0);
            pids[i] = fork();
            if (pids[i] == 0) {
                close(pipes[i][0]);
                child_calls(pipes[i][1], 1 + (uint64_t)round * CHILDREN + (uint64_t)i);
            }
            close(pipes[i][1]);
        }
        for (int i = 0; i < CHILDREN; i++) {
            long long last = 0, next;
            sleep_us(60 * MS);
            kill(pids[i], SIGKILL);
            waitpid(pids[i], NULL, 0);
            while (read(pipes[i][0], &next, sizeof next) == sizeof next)
                last = next;
            allowed += last;
            close(pipes[i][0]);
        }
    }
    sleep_us(50 * MS);
    for (unsigned i = 0; i < 6; i++) {
        char key[32];
        load_key(key, i);
        const long long level = level_in(key);
        assert_between(level, 1, 500);
        sum += level;
    }
    assert_true(allowed > 100 && allowed <= sum);
}

/* ---- Waiting ---- */

static const steady_result *wait_in_line(const steady_part *parts, struct tally *tally) {
    const steady_how how = {.max_wait = HOUR, .reserve = true};
    *tally = (struct tally){0};
    submit(tally, parts, 2, &how);
    run_until_done(rig.poller, tally, PATIENT);
    assert_true(tally->last.error == 0 && tally->last.success);
    return &tally->last;
}

static void place_that_is_given_up_shortens_the_next_wait(void **state) {
    struct tally tally;
    (void)state;
    open_tags();
    rig_open_at(cluster.nodes[0].url, PATIENT);
    steady_throttler *t =
        throttler_on(rig.store, (steady_limit){.max_capacity = 1, .drop_recharge = 100 * STEADY_SECOND});
    const steady_part parts[] = {part_of(t, key_of(0, "line"), 1), part_of(t, key_of(1, "line"), 1)};
    for (int i = 0; i < 4; i++) { /* the fourth has the place of the third */
        const steady_us places = (i == 3 ? 2 : i) * 100 * STEADY_SECOND;
        const steady_result *r = wait_in_line(parts, &tally);
        assert_between(r->must_wait, places > 0 ? places - 5 * STEADY_SECOND : 0, places);
        steady_reservation *reservation = r->reservation;
        if (i == 2) {
            const steady_settlement settlement = {.reservation = reservation, .store = rig.store};
            struct tally settled = {0};
            assert_int_equal(steady_settle(&settlement, count_result, expect_result(&settled), NULL), 0);
            run_until_done(rig.poller, &settled, PATIENT);
            assert_int_equal(settled.last.error, 0);
        }
        steady_reservation_free(&reservation);
    }
    steady_throttler_free(&t);
}

/* ---- Blocking calls ---- */

static void blocking_calls_and_pools_use_several_slots(void **state) {
    (void)state;
    open_tags();
    for (unsigned i = 0; i < PRIMARIES; i++)
        server_ask(&cluster.nodes[i], "FLUSHALL");
    for (int pool = 0; pool < 2; pool++) {
        const steady_store_options options = {.timeout = PATIENT, .deny_memory_off = true};
        steady_store *store = NULL;
        if (pool == 0)
            store = open_store(cluster.nodes[0].url, &options);
        else
            assert_int_equal(steady_pool_open(&store, cluster.nodes[0].url, 2, &options, NULL), 0);
        steady_throttler *t = throttler_on(store, (steady_limit){.max_capacity = 5, .drop_recharge = RECHARGE});
        const steady_part parts[] = {part_of(t, key_of(0, pool == 0 ? "s" : "p"), 1),
                                     part_of(t, key_of(1, pool == 0 ? "s" : "p"), 1)};
        for (int i = 0; i < 6; i++) {
            steady_result r;
            steady_part_result each[2];
            const steady_how how = {.parts = each, .parts_room = 2};
            assert_int_equal(steady_consume_all_sync(parts, 2, &how, &r), 0);
            assert_int_equal(r.success, i < 5);
            assert_true(!r.atomic && r.parts == each && each[0].level == (i < 5 ? i + 1 : 5));
        }
        steady_stats s;
        steady_store_stats(store, &s);
        assert_int_equal(s.decisions, 6);
        assert_int_equal(s.allowed, 5);
        assert_int_equal(s.in_flight, 0);
        steady_throttler_free(&t);
        steady_store_close(&store);
    }
}

#define WITH(set_up, test) cmocka_unit_test_setup_teardown(test, set_up, rig_tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH(plain, calls_decide_as_on_one_server),
        WITH(plain, contended_buckets_hold_exactly_what_was_allowed),
        WITH(plain, blocking_calls_and_pools_use_several_slots),
        WITH(plain, place_that_is_given_up_shortens_the_next_wait),
        WITH(plain, killed_callers_leave_at_most_what_was_in_flight),
        WITH(plain, half_moved_slot_is_asked_key_by_key),
        WITH(plain, slot_moved_under_load_allows_no_more_than_the_limits),
        WITH(failing_over, failover_in_any_round_allows_no_more_than_the_limits),
        WITH(rig_set_up, module_calls_decide_as_on_one_server),
        cmocka_unit_test_setup_teardown(call_in_several_slots_takes_two_round_trips_more, behind_proxies,
                                        without_proxies),
        cmocka_unit_test_setup_teardown(flood_of_one_user_denies_no_other, behind_proxies, without_proxies),
    };
    return cmocka_run_group_tests_name("several slots, live", tests, NULL, group_tear_down);
}
