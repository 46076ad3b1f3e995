/* SPDX-License-Identifier: MIT
 * The Redis store on a real cluster of six servers: discovery, load, resharding, failover, lost nodes. The server of
 * the rig is a single server to compare with. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random.h"
#include "redis/slot_map.h"
#include "redis_cluster.h"
#include "rig.h"

#define DEADLINE (3 * TIMEOUT)      /* long enough for a healthy node to answer, also on a busy machine */
#define PATIENT (5 * STEADY_SECOND) /* long enough that no deadline passes without a fault */

static struct cluster cluster;

/* Tests with the same options share one cluster. */
static int plain(void **state) {
    cluster_ensure(&cluster, NODES, PLAIN);
    return rig_set_up(state);
}

static int failing_over(void **state) {
    cluster_ensure(&cluster, NODES, FAILS_OVER);
    return rig_set_up(state);
}

static int without_replicas(void **state) {
    cluster_ensure(&cluster, PRIMARIES, FAILS_OVER);
    return rig_set_up(state);
}

static int with_module(void **state) {
    cluster_ensure(&cluster, PRIMARIES, module_options());
    return rig_set_up(state);
}

static int group_tear_down(void **state) {
    (void)state;
    cluster_stop(&cluster);
    return 0;
}

static long long level_in_cluster(const char *key) {
    struct tally tally = {0};
    assert_int_equal(steady_peek(rig.throttler, key, strlen(key), count_result, expect_result(&tally)), 0);
    run_until_done(rig.poller, &tally, 10 * STEADY_SECOND);
    if (tally.last.error != 0) fail_msg("peek: %s", last_error_of(rig.store));
    return tally.last.level;
}

/* The drops in the buckets "{tag}0" to "{tag}<count - 1>". */
static long long charged(const char *tag, int count) {
    long long sum = 0;
    char key[32];
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof key, "{%s}%d", tag, i);
        sum += level_in_cluster(key);
    }
    return sum;
}

/* Decisions on buckets of one tag, kept in flight. */
struct stream {
    char tag[16];
    int keys, next;
    struct tally tally;
};

static void fill(struct stream *stream, unsigned long in_flight) {
    char key[32];
    while (stream->tally.submitted - stream->tally.called < in_flight) {
        snprintf(key, sizeof key, "{%s}%d", stream->tag, stream->next++ % stream->keys);
        consume_counted(rig.throttler, key, 1, &stream->tally);
    }
}

/* Runs the store until the servers' counters add up to at least `least`. */
static void await_stat(const char *field, long long least) {
    const steady_us until = now_us() + PATIENT;
    while (cluster_stat(&cluster, field) < least && now_us() < until)
        run_for(rig.poller, 10 * MS);
    run_for(rig.poller, 50 * MS); /* until the replies have arrived */
}

/* ---- Nothing wrong ---- */

static void cluster_decides_like_a_single_server(void **state) {
    uint64_t seed = 7;
    const steady_store_options options = {.timeout = PATIENT};
    steady_store *single = open_store(rig.server.url, &options), *many = open_store(cluster.nodes[4].url, &options);
    steady_throttler *one = new_throttler(single, 10, RECHARGE), *other = new_throttler(many, 10, RECHARGE);
    (void)state;
    for (int i = 0; i < 3000; i++) {
        char key[16];
        steady_result expected, found;
        const int len = snprintf(key, sizeof key, "agree:%d", (int)random_in(&seed, 0, 60));
        const int64_t amount = random_in(&seed, -3, 5);
        assert_int_equal(steady_consume_sync(one, key, (size_t)len, amount, &expected), 0);
        assert_int_equal(steady_consume_sync(other, key, (size_t)len, amount, &found), 0);
        assert_int_equal(found.success, expected.success);
        assert_int_equal(found.level, expected.level);
        assert_int_equal(found.retry_after < 0, expected.retry_after < 0);
    }
    steady_throttler_free(&one);
    steady_throttler_free(&other);
    steady_store_close(&single);
    steady_store_close(&many);
}

/* The store makes one connection to each primary, loads one script on each, asks for one map, and follows next to no
 * redirects. */
static void load_is_spread_with_one_connection_and_one_script_load_a_primary(void **state) {
    struct tally tally = {0};
    char key[16];
    (void)state;
    for (unsigned i = 0; i < NODES; i++)
        server_ask(&cluster.nodes[i], "SCRIPT FLUSH");
    for (unsigned i = 0; i < NODES; i++)
        server_ask(&cluster.nodes[i], "CONFIG RESETSTAT");
    rig_open_at(cluster.nodes[0].url, PATIENT);
    cluster_tag(key, 1, 0); /* the first server only redirects it */
    consume_counted(rig.throttler, key, 1, &tally);
    run_until_done(rig.poller, &tally, PATIENT);
    await_stat("cmdstat_cluster|slots:calls", 1);
    for (int i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "s%d", i % 500);
        consume_counted(rig.throttler, key, 1, &tally);
        if (i % 100 == 0) steady_poller_run(rig.poller, 0);
    }
    run_until_done(rig.poller, &tally, 20 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 20001);
    assert_between(cluster_stat(&cluster, "cmdstat_cluster|slots:calls"), 1, 2);
    assert_between(cluster_stat(&cluster, "errorstat_MOVED:count"), 0, 3);
    for (unsigned i = 0; i < PRIMARIES; i++) {
        assert_true(server_stat(&cluster.nodes[i], "cmdstat_evalsha:calls") > 5000);
        assert_between(server_stat(&cluster.nodes[i], "cmdstat_script|load:calls"), 1, 1);
    }
    assert_int_equal(stats().reconnects, 0);
    assert_int_equal(rig.log.lines, 0);
    assert_loop_never_held();
}

/* The first server may be a replica, given by name. */
static void replica_as_first_node_finds_the_cluster(void **state) {
    char url[64];
    (void)state;
    snprintf(url, sizeof url, "redis://localhost:%d", cluster.nodes[5].port);
    rig_open_at(url, PATIENT);
    for (int i = 0; i < 20; i++)
        assert_int_equal(ask_one(), 0);
    rig_close();
    rig_open_at(cluster.nodes[5].unix_url, PATIENT);
    for (int i = 0; i < 20; i++)
        assert_int_equal(ask_one(), 0);
}

static int ask_about(const char *key) {
    struct tally tally = {0};
    consume_counted(rig.throttler, key, 1, &tally);
    run_until_done(rig.poller, &tally, 10 * STEADY_SECOND);
    return tally.last.error;
}

static void set_endpoints(const char *type) {
    for (unsigned i = 0; i < NODES; i++)
        assert_string_equal(server_ask(&cluster.nodes[i], "CONFIG SET cluster-preferred-endpoint-type %s", type), "OK");
}

/* The cluster announces host names and has none. A redirect has no address until the map comes, which holds
 * addresses. */
static void redirect_without_an_address_is_unavailable_until_the_map_comes(void **state) {
    char key[16];
    (void)state;
    set_endpoints("hostname");
    rig_open_at(cluster.nodes[0].url, PATIENT);
    cluster_tag(key, 1, 9);
    const int first = ask_about(key);
    run_for(rig.poller, 100 * MS);
    int errors = 0;
    for (unsigned owner = 0; owner < PRIMARIES; owner++) {
        cluster_tag(key, owner, 9);
        for (int i = 0; i < 10; i++)
            errors += ask_about(key) != 0;
    }
    set_endpoints("ip");
    assert_int_equal(first, STEADY_UNAVAILABLE);
    assert_int_equal(errors, 0);
}

/* The user has the rights of docs/reference/acl.md, first without those for clusters, then with them. */
static void user_without_cluster_slots_is_served_by_redirects(void **state) {
    static const char *const rights[] = {"", "+cluster|slots +asking +config|get"};
    static const char *const user[] = {"least", "more"};
    (void)state;
    for (int round = 0; round < 2; round++) {
        struct tally tally = {0};
        char url[128], key[16];
        for (unsigned i = 0; i < NODES; i++) {
            char line[256];
            snprintf(line, sizeof line,
                     "ACL SETUSER %s on >SECRET resetkeys ~* resetchannels -@all +evalsha +script|load +get +set +del "
                     "+time %s",
                     user[round], rights[round]);
            assert_string_equal(server_ask(&cluster.nodes[i], line), "OK");
            server_ask(&cluster.nodes[i], "CONFIG RESETSTAT");
        }
        snprintf(url, sizeof url, "redis://%s:SECRET@127.0.0.1:%d", user[round], cluster.nodes[0].port);
        rig_open_at(url, PATIENT);
        for (int i = 0; i < 2000; i++) {
            snprintf(key, sizeof key, "r%d", i % 100);
            consume_counted(rig.throttler, key, 1, &tally);
            steady_poller_run(rig.poller, 0);
        }
        run_until_done(rig.poller, &tally, 20 * STEADY_SECOND);
        assert_int_equal(tally.allowed, 2000);
        await_stat(round == 0 ? "errorstat_NOPERM:count" : "cmdstat_cluster|slots:calls", 1);
        assert_int_equal(cluster_stat(&cluster, "errorstat_NOPERM:count") > 0, round == 0);
        rig_close();
    }
}

static void database_1_in_a_cluster_is_refused(void **state) {
    char url[64];
    (void)state;
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/1", cluster.nodes[0].port);
    rig_open_at(url, STEADY_SECOND);
    assert_int_equal(ask_one(), STEADY_REFUSED);
    const char *trouble = last_error_of(rig.store);
    assert_true(strstr(trouble, "SELECT is not allowed in cluster mode") != NULL ||
                strstr(trouble, "DB index is out of range") != NULL);
}

/* Clusters of Valkey 9 may have more than one database. */
static void numbered_database_is_used_on_each_primary(void **state) {
    struct tally tally = {0};
    char url[64], key[16];
    (void)state;
    if (strlen(server_ask(&rig.server, "CONFIG GET cluster-databases")) == 0)
        skip_because("clusters of this server have one database");
    cluster_ensure(&cluster, PRIMARIES, PLAIN " --cluster-databases 3");
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/2", cluster.nodes[0].port);
    rig_open_at(url, PATIENT);
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "d%d", i);
        consume_counted(rig.throttler, key, 1, &tally);
    }
    run_until_done(rig.poller, &tally, PATIENT);
    assert_int_equal(tally.allowed, 300);
    for (unsigned i = 0; i < PRIMARIES; i++) {
        assert_non_null(strstr(server_ask(&cluster.nodes[i], "INFO keyspace"), "db2:"));
        assert_null(strstr(server_ask(&cluster.nodes[i], "INFO keyspace"), "db0:"));
    }
}

/* Each connection detects the module by itself. A redirect does not tell whether its target has it. */
static void module_is_found_on_each_connection(void **state) {
    struct tally tally = {0};
    char key[16];
    (void)state;
    rig_open_at(cluster.nodes[0].url, PATIENT);
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "m%d", i);
        consume_counted(rig.throttler, key, 1, &tally);
        run_until_done(rig.poller, &tally, PATIENT);
    }
    assert_int_equal(tally.allowed, 300);
    assert_int_equal(cluster_stat(&cluster, "cmdstat_evalsha:calls"), 0);
    for (unsigned i = 0; i < PRIMARIES; i++)
        assert_true(server_stat(&cluster.nodes[i], "cmdstat_steady.consume:calls") > 50);
}

/* ---- Slots that move ---- */

static char moving[16]; /* the tag of the slot that moves */

/* The slot moves to another node and back, with a pause in each state that a slot can have. */
static void move_slot(void) {
    const unsigned slot = steady__slot_of(moving, strlen(moving));
    for (unsigned from = 0; from < 2; from++) {
        cluster_migrate_begin(&cluster, slot, from, 1 - from);
        sleep_us(20 * MS);
        cluster_migrate_keys(&cluster, slot, from, 1 - from);
        sleep_us(20 * MS);
        cluster_migrate_end(&cluster, slot, 1 - from);
        sleep_us(20 * MS);
    }
}

/* On the slot that moves, each decision on an old or a new key is made exactly once. */
static void slot_moved_under_load_charges_each_decision_once(void **state) {
    struct stream old = {.keys = 20}, fresh = {.keys = 1000000};
    (void)state;
    cluster_tag(moving, 0, 0);
    strcpy(old.tag, moving);
    strcpy(fresh.tag, moving);
    fresh.next = 1000;
    for (unsigned i = 0; i < NODES; i++)
        server_ask(&cluster.nodes[i], "CONFIG RESETSTAT");
    rig_open_at(cluster.nodes[2].url, PATIENT);
    const pid_t pid = start_child(move_slot);
    const steady_us until = now_us() + how_long(1500 * MS, 20 * STEADY_SECOND);
    while (now_us() < until) {
        fill(&old, 100);
        if (fresh.next < 5000) fill(&fresh, 20);
        assert_true(steady_poller_run(rig.poller, 10 * MS) >= 0);
    }
    run_until_done(rig.poller, &old.tally, 20 * STEADY_SECOND);
    run_until_done(rig.poller, &fresh.tally, 20 * STEADY_SECOND);
    end_child(pid);
    assert_int_equal(old.tally.allowed, old.tally.submitted);
    assert_int_equal(fresh.tally.allowed, fresh.tally.submitted);
    account(&old.tally, charged(moving, old.keys));
    assert_true(cluster_stat(&cluster, "errorstat_ASK:count") > 10);
    assert_true(cluster_stat(&cluster, "errorstat_MOVED:count") > 10);
    assert_int_equal(rig.log.lines, 0);
    assert_loop_never_held();
    /* the child may have been killed with the slot half moved */
    const unsigned slot = steady__slot_of(moving, strlen(moving));
    for (unsigned i = 0; i < 2; i++)
        server_ask(&cluster.nodes[i], "CLUSTER SETSLOT %u STABLE", slot);
}

static void reshard(void) {
    char command[512];
    snprintf(command, sizeof command,
             "redis-cli --cluster reshard 127.0.0.1:%d --cluster-from %s --cluster-to %s --cluster-slots 100 "
             "--cluster-yes >%s/reshard 2>&1",
             cluster.nodes[0].port, cluster.ids[1], cluster.ids[2], cluster.nodes[0].dir);
    _exit(system(command) == 0 ? 0 : 1);
}

/* redis-cli refuses to reshard while the nodes disagree, for example about a slot that was just moved. */
static void await_agreement(void) {
    const steady_us until = now_us() + 15 * STEADY_SECOND;
    char command[128];
    snprintf(command, sizeof command, "redis-cli --cluster check 127.0.0.1:%d >/dev/null 2>&1", cluster.nodes[0].port);
    while (system(command) != 0) {
        if (now_us() > until) fail_msg("the nodes do not agree: %s", server_ask(&cluster.nodes[0], "CLUSTER NODES"));
        sleep_us(100 * MS);
    }
}

/* redis-cli moves slots full of keys from one primary to another. */
static void resharding_under_load_charges_each_decision_once(void **state) {
    struct tally tally = {0};
    char key[16];
    int status = 0, next = 0;
    long long sum = 0;
    (void)state;
    if (system("command -v redis-cli >/dev/null") != 0) skip_because("there is no redis-cli");
    cluster_await(&cluster);
    await_agreement();
    rig_open_at(cluster.nodes[0].url, PATIENT);
    const pid_t pid = fork();
    if (pid == 0) reshard();
    while (waitpid(pid, &status, WNOHANG) == 0) {
        for (; tally.submitted - tally.called < 200; next++) {
            snprintf(key, sizeof key, "r:%d", next % 3000);
            consume_counted(rig.throttler, key, 1, &tally);
        }
        assert_true(steady_poller_run(rig.poller, 10 * MS) >= 0);
    }
    run_until_done(rig.poller, &tally, 20 * STEADY_SECOND);
    assert_int_equal(status, 0);
    assert_int_equal(tally.allowed, tally.submitted);
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "r:%d", i);
        sum += level_in_cluster(key);
    }
    account(&tally, sum);
    assert_loop_never_held();
}

/* ---- Nodes that go ---- */

/* Nearly all decisions were allowed. On a busy machine, servers and test may wait a third of a second for a
 * processor. A node that refuses would refuse thousands of decisions in that time. */
static void assert_spared(const struct stream *stream) {
    const struct tally *t = &stream->tally;
    if (t->submitted - t->allowed > t->submitted / 100)
        fail_msg("%lu of %lu, %lu unavailable, %lu unknown: %s", t->allowed, t->submitted,
                 t->errors[-STEADY_UNAVAILABLE], t->errors[-STEADY_UNKNOWN], last_error_of(rig.store));
}

static bool is_primary(const struct server *node) { return strncmp(server_ask(node, "ROLE"), "master", 6) == 0; }

/* Runs both streams until the first, whose node has failed, gets verdicts after `since`. Returns the time from the
 * promotion of nodes[replica] to these verdicts. */
static steady_us ride_out(struct stream *hit, struct stream *spared, unsigned replica) {
    const steady_us give_up = now_us() + 20 * STEADY_SECOND;
    steady_us taken_over = 0;
    for (unsigned long verdicts = 0; taken_over == 0 || hit->tally.verdicts == verdicts;) {
        fill(hit, 50);
        fill(spared, 50);
        assert_true(steady_poller_run(rig.poller, 2 * MS) >= 0);
        if (now_us() > give_up) fail_msg("not taken over: %s", last_error_of(rig.store));
        if (taken_over != 0 || !is_primary(&cluster.nodes[replica])) continue;
        taken_over = now_us();
        verdicts = hit->tally.verdicts;
    }
    return now_us() - taken_over;
}

static void finish(struct stream *stream) { run_until_done(rig.poller, &stream->tally, 10 * STEADY_SECOND); }

static void settle(struct stream *hit, struct stream *spared) {
    const steady_us until = now_us() + 300 * MS;
    while (now_us() < until) {
        fill(hit, 50);
        fill(spared, 50);
        assert_true(steady_poller_run(rig.poller, 10 * MS) >= 0);
    }
}

/* The replica takes over. Its slots are used within a second, and the other slots never stop. Writes that the
 * primary acknowledged and did not replicate are lost: at most those in flight. */
static void promoted_replica_is_used_within_a_second(void **state) {
    struct stream hit = {.keys = 5}, spared = {.keys = 5};
    (void)state;
    cluster_tag(hit.tag, 0, 1);
    cluster_tag(spared.tag, 1, 1);
    rig_open_at(cluster.nodes[0].url, DEADLINE);
    settle(&hit, &spared);
    assert_int_equal(hit.tally.errors[-STEADY_UNKNOWN], 0);
    server_kill(&cluster.nodes[0]);
    const steady_us took = ride_out(&hit, &spared, 3);
    finish(&hit);
    finish(&spared);
    print_message("used %lld ms after the replica had taken over\n", (long long)(took / 1000));
    assert_true(took < STEADY_SECOND);
    assert_between(hit.tally.errors[-STEADY_UNKNOWN], 0, 50);
    assert_spared(&spared);
    account(&spared.tally, charged(spared.tag, spared.keys));
    account_lost(&hit.tally, charged(hit.tag, hit.keys), 50);
    assert_loop_never_held();

    server_restart(&cluster.nodes[0], true); /* it comes back as a replica and gets no requests */
    cluster_await(&cluster);
    const unsigned long before = hit.tally.submitted - hit.tally.allowed;
    settle(&hit, &spared);
    finish(&hit);
    finish(&spared);
    assert_int_equal(hit.tally.submitted - hit.tally.allowed, before);
}

/* A frozen primary stops its own slots only. */
static void frozen_primary_stops_only_its_own_slots(void **state) {
    struct stream hit = {.keys = 5}, spared = {.keys = 5};
    (void)state;
    cluster_await(&cluster);
    cluster_tag(hit.tag, 1, 2);
    cluster_tag(spared.tag, 2, 2);
    rig_open_at(cluster.nodes[1].url, DEADLINE);
    settle(&hit, &spared);
    server_freeze(&cluster.nodes[1]);
    const steady_us took = ride_out(&hit, &spared, 4);
    finish(&hit);
    finish(&spared);
    print_message("used %lld ms after the replica had taken over\n", (long long)(took / 1000));
    assert_true(took < STEADY_SECOND);
    assert_between(hit.tally.slowest, DEADLINE, DEADLINE + SLACK_OF(hit.tally));
    assert_between(hit.tally.errors[-STEADY_UNKNOWN], 1, hit.tally.submitted);
    assert_spared(&spared);
    account(&spared.tally, charged(spared.tag, spared.keys));
    const long long kept = charged(hit.tag, hit.keys);
    server_thaw(&cluster.nodes[1]); /* it answers old requests on closed connections, and learns that it is a replica */
    cluster_await(&cluster);
    assert_between(charged(hit.tag, hit.keys), kept, kept);
    account_lost(&hit.tally, kept, 50);
    assert_loop_never_held();
}

/* All nodes stop at once and start again with the same data. The store looks the name up again and asks for a new
 * map. */
static void whole_cluster_restarted_is_used_again(void **state) {
    struct tally tally = {0};
    char url[64];
    (void)state;
    snprintf(url, sizeof url, "redis://localhost:%d", cluster.nodes[2].port);
    rig_open_at(url, DEADLINE);
    warm_up();
    assert_int_equal(ask_one(), 0);
    for (unsigned i = 0; i < NODES; i++)
        server_kill(&cluster.nodes[i]);
    trickle(&tally, 20 * MS, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 0);
    assert_at_once(&tally); /* connections are refused */
    for (unsigned i = 0; i < NODES; i++)
        server_restart(&cluster.nodes[i], true);
    cluster_await(&cluster);
    assert_used_again();
    assert_loop_never_held();
}

/* ---- A node without a replica ---- */

static void lost_node_makes_only_its_own_slots_unavailable(void **state) {
    struct stream hit = {.keys = 5}, spared = {.keys = 5};
    (void)state;
    cluster_tag(hit.tag, 0, 3);
    cluster_tag(spared.tag, 2, 3);
    rig_open_at(cluster.nodes[0].url, DEADLINE);
    settle(&hit, &spared);
    finish(&hit);
    server_kill(&cluster.nodes[0]);
    const unsigned long verdicts = hit.tally.verdicts;
    for (int i = 0; i < 5; i++) {
        settle(&hit, &spared);
        finish(&hit);
        finish(&spared);
    }
    assert_int_equal(hit.tally.verdicts, verdicts);
    assert_true(hit.tally.errors[-STEADY_UNAVAILABLE] > 100);
    assert_between(hit.tally.slowest, 0, DEADLINE + SLACK_OF(hit.tally));
    assert_at_once(&hit.tally);
    assert_spared(&spared);
    account(&spared.tally, charged(spared.tag, spared.keys));
    assert_loop_never_held();
    server_restart(&cluster.nodes[0], true);
    cluster_await(&cluster);
    consume_counted(rig.throttler, "x", 1, &hit.tally);
    finish(&hit);
    assert_int_equal(hit.tally.last.error, 0);
}

/* By default a cluster stops as a whole if one slot is not served. */
static void clusterdown_is_unavailable_until_the_node_is_back(void **state) {
    (void)state;
    for (unsigned i = 0; i < PRIMARIES; i++)
        server_ask(&cluster.nodes[i], "CONFIG SET cluster-require-full-coverage yes");
    rig_open_at(cluster.nodes[1].url, DEADLINE);
    warm_up();
    server_kill(&cluster.nodes[2]);
    const steady_us until = now_us() + 10 * STEADY_SECOND;
    while (strncmp(last_error_of(rig.store), "CLUSTERDOWN", 11) != 0) {
        char key[16];
        struct tally tally = {0};
        cluster_tag(key, 0, 5);
        if (now_us() > until) fail_msg("not down: %s", last_error_of(rig.store));
        consume_counted(rig.throttler, key, 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
        assert_true(tally.last.error == 0 || tally.last.error == STEADY_UNAVAILABLE);
        run_for(rig.poller, 5 * MS);
    }
    server_restart(&cluster.nodes[2], true);
    cluster_await(&cluster);
    assert_used_again();
}

#define WITH(kind, test) cmocka_unit_test_setup_teardown(test, kind, rig_tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH(plain, cluster_decides_like_a_single_server),
        WITH(plain, load_is_spread_with_one_connection_and_one_script_load_a_primary),
        WITH(plain, replica_as_first_node_finds_the_cluster),
        WITH(plain, redirect_without_an_address_is_unavailable_until_the_map_comes),
        WITH(plain, user_without_cluster_slots_is_served_by_redirects),
        WITH(plain, database_1_in_a_cluster_is_refused),
        WITH(rig_set_up, numbered_database_is_used_on_each_primary),
        WITH(plain, slot_moved_under_load_charges_each_decision_once),
        WITH(plain, resharding_under_load_charges_each_decision_once),
        WITH(failing_over, promoted_replica_is_used_within_a_second),
        WITH(failing_over, frozen_primary_stops_only_its_own_slots),
        WITH(failing_over, whole_cluster_restarted_is_used_again),
        WITH(without_replicas, lost_node_makes_only_its_own_slots_unavailable),
        WITH(without_replicas, clusterdown_is_unavailable_until_the_node_is_back),
        WITH(with_module, module_is_found_on_each_connection),
    };
    return cmocka_run_group_tests_name("cluster", tests, NULL, group_tear_down);
}
