/* SPDX-License-Identifier: MIT
 * Calls on several keys on a real cluster: of one slot, which may move, and of several. */
#include <stdlib.h>

#include "redis/slot_map.h"
#include "redis_cluster.h"

#define PATIENT (5 * STEADY_SECOND)

static struct cluster cluster;
static steady_poller *poller;
static steady_loop loop;
static steady_store *store;
static steady_throttler *throttler; /* ten drops, of which one leaks each hour */

static int group_set_up(void **state) {
    (void)state;
    cluster_start(&cluster, PRIMARIES, NULL);
    return 0;
}

static int group_tear_down(void **state) {
    (void)state;
    cluster_stop(&cluster);
    return 0;
}

static int set_up(void **state) {
    (void)state;
    for (unsigned i = 0; i < PRIMARIES; i++)
        server_ask(&cluster.nodes[i], "FLUSHALL");
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    store = open_store(cluster.nodes[0].url,
                       &(steady_store_options){.loop = &loop, .timeout = PATIENT, .deny_memory_off = true});
    throttler = new_throttler(store, 10, HOUR);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    steady_poller_free(&poller);
    return 0;
}

static steady_result answer;
static steady_part_result each[4];
static bool called;

static void remember(const steady_result *result, void *data) {
    (void)data;
    called = true;
    answer = *result;
    if (result->parts != NULL) memcpy(each, result->parts, result->n_parts * sizeof each[0]);
}

static const steady_result *consume(const char *first, const char *second) {
    const steady_part parts[] = {{.throttler = throttler, .key = first, .key_len = strlen(first), .amount = 1},
                                 {.throttler = throttler, .key = second, .key_len = strlen(second), .amount = 2}};
    memset(&answer, 0, sizeof answer);
    called = false;
    assert_int_equal(steady_consume_all(parts, 2, NULL, remember, NULL, NULL), 0);
    assert_false(called); /* never inside submit */
    for (const steady_us until = now_us() + 2 * PATIENT; !called && now_us() < until;)
        steady_poller_run(poller, 10 * STEADY_MILLISECOND);
    assert_true(called);
    return &answer;
}

/* The keys "{tag}x" and "{tag}y". */
struct pair {
    unsigned slot;
    char x[24], y[24];
};

static struct pair pair_of(unsigned owner, unsigned number) {
    struct pair pair;
    char tag[16];
    cluster_tag(tag, owner, number);
    snprintf(pair.x, sizeof pair.x, "{%s}x", tag);
    snprintf(pair.y, sizeof pair.y, "{%s}y", tag);
    pair.slot = steady__slot_of(pair.x, strlen(pair.x));
    assert_int_equal(steady__slot_of(pair.y, strlen(pair.y)), pair.slot);
    return pair;
}

static void keys_of_one_slot_are_decided_together(void **state) {
    (void)state;
    for (unsigned owner = 0; owner < PRIMARIES; owner++) {
        const struct pair pair = pair_of(owner, 1);
        for (int i = 1; i <= 5; i++) {
            assert_true(consume(pair.x, pair.y)->success && answer.atomic);
            assert_true(each[0].level == i && each[1].level == 2 * i);
        }
        assert_true(!consume(pair.x, pair.y)->success && answer.error == 0 && answer.part == 1);
        const steady_part part = {.throttler = throttler, .key = pair.x, .key_len = strlen(pair.x), .amount = 1};
        assert_int_equal(steady_peek_all_sync(&part, 1, NULL, &answer), 0);
        assert_int_equal(answer.level, 5);
    }
}

static void assert_apart(const char *first, const char *second) {
    assert_true(consume(first, second)->error == 0 && answer.success && !answer.atomic && answer.n_parts == 2);
}

/* Until a redirect shows a cluster, the server is asked for all keys at once. */
static void keys_of_several_slots_are_asked_apart(void **state) {
    const struct pair one = pair_of(0, 1), other = pair_of(1, 1);
    (void)state;
    assert_apart(one.x, other.x);
    run_for(poller, 300 * STEADY_MILLISECOND); /* the map arrives */
    const long long before = cluster_stat(&cluster, "errorstat_CROSSSLOT:count");
    assert_true(before > 0);
    for (int i = 0; i < 4; i++)
        assert_apart(one.y, other.y);
    assert_apart(one.x, pair_of(0, 2).x); /* two slots of one node */
    assert_int_equal(cluster_stat(&cluster, "errorstat_CROSSSLOT:count"), before);
    assert_apart(other.y, one.y);
    assert_apart(other.y, one.y);
    assert_true(each[0].level == 10 && each[1].level == 8);
    assert_true(!consume(other.y, one.y)->success && answer.part == 0 && each[1].level == 8);
    assert_true(consume(one.x, one.y)->success && answer.atomic);
}

static void moved_slot_is_followed_and_the_keys_of_a_slot_on_the_move_are_asked_apart(void **state) {
    const struct pair pair = pair_of(0, 3);
    (void)state;
    assert_true(consume(pair.x, pair.y)->success);
    cluster_migrate_begin(&cluster, pair.slot, 0, 1);
    assert_string_equal(server_ask(&cluster.nodes[0], "MIGRATE 127.0.0.1 %d %s 0 1000", cluster.nodes[1].port, pair.y),
                        "OK");
    assert_apart(pair.x, pair.y); /* TRYAGAIN: one key is here, the other there */
    assert_int_equal(cluster_stat(&cluster, "errorstat_TRYAGAIN:count"), 1);
    cluster_migrate_keys(&cluster, pair.slot, 0, 1);
    assert_true(consume(pair.x, pair.y)->success); /* ASK */
    assert_true(each[0].level == 3 && each[1].level == 6);
    cluster_migrate_end(&cluster, pair.slot, 1);
    for (int i = 4; i <= 5; i++) { /* MOVED, then at once */
        assert_true(consume(pair.x, pair.y)->success);
        assert_true(each[0].level == i && each[1].level == 2 * i);
    }
}

#define ON_CLUSTER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

/* The settle of a lease goes where the drops were taken, and nowhere else. So it follows no redirect. */
static void lease_of_a_slot_that_moves_is_not_settled(void **state) {
    const struct pair pair = pair_of(0, 90);
    const steady_limit limit = {.max_capacity = 16000, .drop_recharge = HOUR};
    const steady_store_options options = {.loop = &loop, .timeout = PATIENT, .lease_age = 4 * STEADY_SECOND};
    steady_store *leasing = open_store(cluster.nodes[0].url, &options);
    steady_throttler *leases = NULL;
    steady_result r = {0};
    (void)state;
    assert_int_equal(steady_throttler_new(&leases, leasing, &limit, NULL, NULL), 0);
    for (int i = 0; i < 10; i++) {
        struct tally tally = {0};
        consume_counted(leases, pair.x, 1, &tally);
        run_until_done(poller, &tally, PATIENT);
        assert_int_equal(tally.allowed, 1);
    }
    assert_int_equal(steady_peek_sync(leases, pair.x, strlen(pair.x), &r), 0);
    const int64_t level = r.level;
    assert_true(level > 10);
    cluster_migrate_begin(&cluster, pair.slot, 0, 1);
    cluster_migrate_keys(&cluster, pair.slot, 0, 1);
    cluster_migrate_end(&cluster, pair.slot, 1);
    run_for(poller, 2 * STEADY_SECOND);
    assert_int_equal(steady_peek_sync(leases, pair.x, strlen(pair.x), &r), 0);
    assert_int_equal(r.level, level);
    steady_throttler_free(&leases);
    steady_store_close(&leasing);
    cluster_migrate_begin(&cluster, pair.slot, 1, 0);
    cluster_migrate_keys(&cluster, pair.slot, 1, 0);
    cluster_migrate_end(&cluster, pair.slot, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_CLUSTER(keys_of_one_slot_are_decided_together),
        ON_CLUSTER(keys_of_several_slots_are_asked_apart),
        ON_CLUSTER(moved_slot_is_followed_and_the_keys_of_a_slot_on_the_move_are_asked_apart),
        ON_CLUSTER(lease_of_a_slot_that_moves_is_not_settled),
    };
    return cmocka_run_group_tests_name("group_cluster", tests, group_set_up, group_tear_down);
}
