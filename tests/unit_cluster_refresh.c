/* SPDX-License-Identifier: MIT
 * When the Redis store asks for the map of a cluster: in time, and not more often than needed. The clock of the loop is
 * set forward. */
#include "fake_cluster.h"

#include <stdlib.h>

#include "redis/slot_map.h"

#define NO_CLUSTER "-ERR This instance has cluster support disabled\r\n"
#define OLD (31 * STEADY_SECOND) /* longer than a map is used without a refresh */

static steady_loop_ops ops; /* the poller's, except for the clock */
static steady_us shift;

static steady_us shifted_clock(void *poller_itself) {
    (void)poller_itself;
    return now_us() + shift;
}

static int set_up(void **state) {
    const int result = nodes_set_up(state);
    shift = 0;
    ops = *loop.ops;
    ops.now = shifted_clock;
    loop.ops = &ops;
    return result;
}

static void say(struct fake_node *node, const char *word, const char *reply) {
    fake_node_says(node, word, reply, 0, 0);
}

/* Each node has half of the slots; `node` has KEY's. */
static const char *map_with_key_at(int number, const struct fake_node *node) {
    const bool low = steady__slot_of(KEY, strlen(KEY)) < STEADY__SLOTS / 2;
    const struct fake_node *other = node == a ? b : a;
    return map_of(number, low ? node : other, low ? other : node);
}

static char *put_range(char *end, unsigned first, unsigned last, const char *host, unsigned port) {
    return end + sprintf(end, "*3\r\n:%u\r\n:%u\r\n*3\r\n$%zu\r\n%s\r\n:%u\r\n$2\r\nid\r\n", first, last, strlen(host),
                         host, port);
}

/* ---- Age ---- */

/* `gone` is not a member of the cluster any more, and still answers decisions. Another node has its slots. */
static void assert_left(struct fake_node *gone, bool others_are_known) {
    struct fake_node *rest = gone == a ? b : a;
    say(a, "CLUSTER", map_with_key_at(1, gone));
    say(b, "CLUSTER", map_with_key_at(1, gone));
    say(a, "EVALSHA", VERDICT);
    fake_node_says(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n", 0, 1);
    open_with("");
    ask(KEY); /* shows that this is a cluster */
    await_heard("CLUSTER", 1);
    for (int i = 0; i < 20 && others_are_known; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(key), 0);
    }
    assert_int_equal(ask(KEY), 0);
    say(gone, "CLUSTER", NO_CLUSTER);
    say(rest, "CLUSTER", map_of(2, rest, rest));
    shift += 14 * STEADY_SECOND;
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(KEY), 0);
    run_for(poller, 50 * MS);
    assert_int_equal(heard("CLUSTER"), 1);
    const unsigned before = fake_node_heard(rest, "EVALSHA");
    shift += OLD - 14 * STEADY_SECOND;
    assert_int_equal(ask(KEY), 0);
    run_for(poller, 150 * MS);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(rest, "EVALSHA"), before + 1);
    assert_true(heard("CLUSTER") <= 3);
    assert_int_equal(log_lines.lines, 2); /* the CLUSTERDOWN, and the recovery */
}

static void node_that_left_is_replaced_when_the_map_is_old(void **state) {
    (void)state;
    assert_left(b, true);
}

static void server_in_the_url_that_left_is_replaced_when_the_map_is_old(void **state) {
    (void)state;
    assert_left(a, true);
}

/* Without a connection to another node, the store makes one to ask for the map. */
static void only_connected_node_that_left_is_replaced_when_the_map_is_old(void **state) {
    (void)state;
    assert_left(a, false);
}

/* The only node with a connection has left the cluster. When a member is up again, it is asked for the map at once,
 * whatever the node that left says about maps. */
static void node_that_left_does_not_delay_the_refresh_by_a_member(void **state) {
    struct fake_node *c = fake_node_start(false);
    (void)state;
    say(c, "EVALSHA", VERDICT);
    say(a, "CLUSTER", map_with_key_at(1, b));
    say(b, "CLUSTER", map_with_key_at(1, b));
    say(a, "EVALSHA", VERDICT);
    fake_node_says(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n", 0, 1);
    open_with("app:secret@");
    ask(KEY);
    await_heard("CLUSTER", 1);
    assert_int_equal(ask(KEY), 0);
    say(a, "CLUSTER", NO_CLUSTER);
    say(b, "AUTH", FAKE_HANG_UP);
    fake_node_says(b, "EVALSHA", FAKE_HANG_UP, 0, 1);
    assert_int_equal(ask(KEY), STEADY_UNKNOWN);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
        run_for(poller, 10 * MS);
    }
    say(b, "CLUSTER", map_of(2, c, c));
    say(b, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n");
    say(b, "AUTH", "+OK\r\n");
    const steady_us until = now_us() + 3 * STEADY_SECOND;
    while (ask(KEY) != 0 && now_us() < until)
        run_for(poller, 10 * MS);
    assert_int_equal(ask(KEY), 0);
    client_close();
    fake_node_stop(c);
}

/* A key whose slot is unassigned goes to a member of the cluster, not to a node that has left. */
static void unassigned_slot_is_not_asked_of_a_node_that_left(void **state) {
    static char half[128];
    const unsigned first = steady__slot_of(KEY, strlen(KEY)) < STEADY__SLOTS / 2 ? STEADY__SLOTS / 2 : 0;
    char *end = half + sprintf(half, "*1\r\n");
    (void)state;
    put_range(end, first, first + STEADY__SLOTS / 2 - 1, "127.0.0.1", (unsigned)fake_node_port(b));
    say(a, "CLUSTER", NO_CLUSTER);
    fake_node_says(a, "CLUSTER", half, 0, 1);
    say(b, "CLUSTER", half);
    say(a, "EVALSHA", VERDICT);
    fake_node_says(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n", 0, 1);
    open_with("");
    ask(KEY);
    await_heard("CLUSTER", 1);
    for (int i = 0; i < 20; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(key), 0); /* so that both have a connection */
    }
    for (int i = 0; i < 4 && fake_node_heard(a, "CLUSTER") < 2; i++) { /* the nodes take turns */
        shift += OLD;
        assert_int_equal(ask(KEY), 0);
        run_for(poller, 100 * MS);
    }
    assert_int_equal(fake_node_heard(a, "CLUSTER"), 2);
    const unsigned at_a = fake_node_heard(a, "EVALSHA");
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), at_a);
}

/* No node gives us a map. It is asked for seldom, and nothing is logged or reconnected. */
static void assert_asked_seldom(const char *about_slots, unsigned most) {
    say(a, "CLUSTER", about_slots);
    say(b, "CLUSTER", about_slots);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    say(a, "EVALSHA", VERDICT);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    run_for(poller, 300 * MS);
    for (int round = 0; round < 3; round++) {
        const unsigned before = heard("CLUSTER");
        shift += OLD + 6 * STEADY_SECOND; /* so that pauses are short */
        run_for(poller, 50 * MS);
        assert_int_equal(heard("CLUSTER"), before); /* no refresh without a decision */
        for (int i = 0; i < 100; i++) {
            assert_int_equal(ask(KEY), 0);
            run_for(poller, 5 * MS);
        }
        assert_between(heard("CLUSTER") - before, 1, most);
    }
    assert_int_equal(log_lines.lines, 0);
    assert_int_equal(fake_node_accepted(a) + fake_node_accepted(b), 2);
}

static void map_without_permission_is_asked_for_seldom(void **state) {
    (void)state;
    assert_asked_seldom("-NOPERM no\r\n", 1);
}

static void map_of_disabled_clusters_is_asked_for_seldom(void **state) {
    (void)state;
    assert_asked_seldom(NO_CLUSTER, 2);
}

static void empty_map_is_asked_for_seldom(void **state) {
    (void)state;
    assert_asked_seldom(NO_MAP, 1);
}

/* A server without cluster mode receives only decisions, however long. */
static void server_without_cluster_is_never_asked_for_the_map(void **state) {
    (void)state;
    say(a, "EVALSHA", VERDICT);
    open_with("");
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ask(KEY), 0);
        shift += OLD;
        run_for(poller, 20 * MS);
    }
    assert_int_equal(heard(""), 5);
}

/* ---- Pauses ---- */

/* While a map request has no reply, no other node is asked, whatever the reason. */
static void map_is_asked_of_one_node_at_a_time(void **state) {
    struct fake_node *c = fake_node_start(false);
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    say(a, "CLUSTER", FAKE_SILENCE);
    say(c, "EVALSHA", VERDICT);
    fake_node_says(c, "EVALSHA", redirect(1, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 3);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    assert_int_equal(fake_node_heard(a, "CLUSTER"), 1);
    for (int i = 0; i < 3; i++) { /* there and back */
        fake_node_says(b, "EVALSHA", redirect(2, "MOVED", "127.0.0.1", fake_node_port(c)), 0, 1);
        assert_int_equal(ask(KEY), 0);
        run_for(poller, 100 * MS);
    }
    assert_int_equal(heard("CLUSTER") + fake_node_heard(c, "CLUSTER"), 1);
    client_close();
    fake_node_stop(c);
}

static unsigned map_requests(steady_us time) {
    const unsigned before = heard("CLUSTER");
    for (const steady_us until = now_us() + time; now_us() < until;) {
        ask(KEY);
        run_for(poller, 2 * MS);
    }
    return heard("CLUSTER") - before;
}

/* ---- Late ---- */

/* Both nodes take longer to send the map than a decision may. */
static void slow_nodes(unsigned a_takes, unsigned b_takes) {
    timeout = 100 * MS;
    fake_node_is_slow(a, "CLUSTER", a_takes);
    fake_node_is_slow(b, "CLUSTER", b_takes);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    say(a, "EVALSHA", VERDICT);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    open_with("");
    assert_int_equal(ask(KEY), 0);
}

/* The map is used all the same, and the requests stop. */
static void map_later_than_the_timeout_is_used(void **state) {
    char key[16];
    (void)state;
    say(a, "CLUSTER", map_of(1, b, b));
    say(b, "CLUSTER", map_of(1, b, b));
    slow_nodes(150 * MS, 150 * MS);
    run_for(poller, 700 * MS);
    assert_between(heard("CLUSTER"), 1, 2);
    const unsigned at_a = fake_node_heard(a, "EVALSHA"), before = heard("CLUSTER");
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(key), 0);
    }
    assert_int_equal(fake_node_heard(a, "EVALSHA"), at_a);
    shift += OLD;
    assert_between(map_requests(STEADY_SECOND), 1, 3);
    run_for(poller, 300 * MS);
    assert_int_equal(ask(KEY), 0);
    assert_between(heard("CLUSTER") - before, 1, 3);
}

/* The reply to an earlier request does not replace the map of a later one. */
static void late_map_does_not_replace_a_newer_one(void **state) {
    (void)state;
    say(a, "CLUSTER", map_of(1, a, a));
    say(b, "CLUSTER", map_of(2, b, b));
    slow_nodes(300 * MS, 0);
    await_heard("CLUSTER", 2);
    run_for(poller, 400 * MS);
    const unsigned at_b = fake_node_heard(b, "EVALSHA");
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), at_b + 1);
    assert_int_equal(heard("CLUSTER"), 2);
}

#define SOME 6

/* Opens a connection to each of the nodes, which share the slots. */
static void open_on(struct fake_node *nodes[SOME]) {
    static char map[SOME * 128];
    char *end = map + sprintf(map, "*%d\r\n", SOME), key[16];
    const unsigned width = STEADY__SLOTS / SOME;
    for (unsigned i = 0; i < SOME; i++) {
        const unsigned last = i < SOME - 1 ? i * width + width - 1 : STEADY__SLOTS - 1;
        end = put_range(end, i * width, last, "127.0.0.1", (unsigned)fake_node_port(nodes[i]));
    }
    for (int i = 0; i < SOME; i++) {
        say(nodes[i], "CLUSTER", map);
        say(nodes[i], "EVALSHA", VERDICT);
    }
    fake_node_says(nodes[0], "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n", 0, 1);
    open_with("");
    ask(KEY);
    run_for(poller, 100 * MS);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(key), 0);
    }
}

static unsigned asked_in_all(struct fake_node *nodes[SOME]) {
    unsigned sum = 0;
    for (int i = 0; i < SOME; i++)
        sum += fake_node_heard(nodes[i], "CLUSTER");
    return sum;
}

/* If no node answers, at most three are asked before the first is given up. */
static void at_most_three_silent_nodes_are_asked_at_once(void **state) {
    struct fake_node *nodes[SOME] = {a, b};
    (void)state;
    timeout = 2 * TIMEOUT;
    for (int i = 2; i < SOME; i++)
        nodes[i] = fake_node_start(false);
    open_on(nodes);
    for (int i = 0; i < SOME; i++)
        say(nodes[i], "CLUSTER", FAKE_SILENCE);
    const unsigned before = asked_in_all(nodes);
    shift += OLD;
    assert_int_equal(ask(KEY), 0);
    run_for(poller, 7 * timeout / 2);
    assert_between(asked_in_all(nodes) - before, 2, 3);
    client_close();
    for (int i = 2; i < SOME; i++)
        fake_node_stop(nodes[i]);
}

/* ---- Pauses that shrink, and nodes that are silent ---- */

/* Pauses that have grown are short again after a while without errors. */
static void pauses_between_refreshes_are_short_again_after_a_quiet_time(void **state) {
    (void)state;
    say(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n");
    open_with("");
    map_requests(1500 * MS);
    assert_between(map_requests(140 * MS), 0, 1);
    say(a, "EVALSHA", VERDICT);
    run_for(poller, 400 * MS); /* of the map requests */
    assert_int_equal(ask(KEY), 0);
    shift += 6 * STEADY_SECOND;
    say(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n");
    assert_between(map_requests(140 * MS), 3, 6);
}

/* Lets the clock go on until the map has been asked for once more. */
static void await_next_map_request(void) {
    const unsigned before = heard("CLUSTER");
    for (int i = 0; i < 200 && heard("CLUSTER") == before; i++) {
        shift += STEADY_SECOND / 2;
        ask(KEY);
        run_for(poller, 5 * MS);
    }
    assert_int_equal(heard("CLUSTER"), before + 1);
}

/* Pauses grow to 30 s while maps cannot be read, because each costs a connection. */
static void readable_map_ends_the_long_pauses_after_unreadable_ones(void **state) {
    (void)state;
    say(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n");
    say(a, "CLUSTER", "%1\r\n");
    open_with("");
    ask(KEY);
    for (int i = 0; i < 13; i++)
        await_next_map_request();
    say(a, "CLUSTER", map_of(1, a, a));
    await_next_map_request();
    run_for(poller, 20 * MS);
    assert_between(map_requests(STEADY_SECOND), 2, 10);
}

/* A node hangs, and no node may send us the map. The new owner is learned from a redirect, without a series of failed
 * decisions. */
static void new_owner_for_a_silent_node_is_learned_from_a_redirect(void **state) {
    struct fake_node *frozen = fake_node_start(false);
    (void)state;
    timeout = TIMEOUT;
    say(a, "CLUSTER", "-NOPERM no\r\n");
    say(b, "CLUSTER", "-NOPERM no\r\n");
    say(frozen, "CLUSTER", "-NOPERM no\r\n");
    say(frozen, "EVALSHA", VERDICT);
    say(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(frozen)));
    open_with("");
    assert_int_equal(ask(KEY), 0);
    run_for(poller, 100 * MS);
    say(frozen, "EVALSHA", FAKE_SILENCE);
    assert_int_equal(ask(KEY), STEADY_UNKNOWN);
    run_for(poller, TIMEOUT + 100 * MS); /* the map request is not answered either */
    const unsigned before = fake_node_heard(a, "EVALSHA");
    assert_int_equal(ask(KEY), STEADY_UNKNOWN); /* the other nodes do not know the new owner yet */
    assert_int_equal(fake_node_heard(a, "EVALSHA"), before + 1);
    say(a, "EVALSHA", redirect(1, "MOVED", "127.0.0.1", fake_node_port(b)));
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 1);
    client_close();
    fake_node_stop(frozen);
}

/* Node i has the key. All others answer with a redirect. */
static void say_who_has(struct fake_node *nodes[SOME], int i, const char *key, const char *text) {
    for (int j = 0; j < SOME; j++)
        say(nodes[j], "EVALSHA", j == i ? VERDICT : text);
    assert_int_equal(ask(key), 0);
}

/* Many nodes, and none may send us the map. When a node fails, the new owner is known at once: a redirect says it
 * before each of the other nodes has refused the map. */
static void new_owner_is_known_at_once_without_permission_for_maps(void **state) {
    struct fake_node *nodes[SOME] = {a, b}, *new_owner = fake_node_start(false);
    static char moved[SOME + 1][80];
    char key[16];
    (void)state;
    for (int i = 2; i < SOME; i++)
        nodes[i] = fake_node_start(false);
    for (int i = 0; i < SOME; i++)
        say(nodes[i], "CLUSTER", "-NOPERM no\r\n");
    say(new_owner, "EVALSHA", VERDICT);
    open_with("");
    for (int i = 0; i <= SOME; i++) {
        const int len = snprintf(key, sizeof key, "k%d", i < SOME ? i : SOME - 1);
        snprintf(moved[i], sizeof moved[i], "-MOVED %u 127.0.0.1:%d\r\n", steady__slot_of(key, (size_t)len),
                 fake_node_port(i < SOME ? nodes[i] : new_owner));
        if (i < SOME) say_who_has(nodes, i, key, moved[i]);
    }
    run_for(poller, 100 * MS);
    shift += OLD;
    fake_node_stop(nodes[SOME - 1]);
    for (int i = 0; i < SOME - 1; i++)
        say(nodes[i], "EVALSHA", moved[SOME]);
    for (int i = 0; i < 5 && ask(key) != 0; i++)
        run_for(poller, 10 * MS);
    assert_int_equal(ask(key), 0);
    client_close();
    for (int i = 2; i < SOME - 1; i++)
        fake_node_stop(nodes[i]);
    fake_node_stop(new_owner);
}

/* After one timeout, the store keeps the only node that it can reach. */
static void only_reachable_node_is_kept_after_a_timeout(void **state) {
    (void)state;
    timeout = TIMEOUT;
    say(a, "CLUSTER", "-NOPERM no\r\n");
    say(b, "CLUSTER", "-NOPERM no\r\n");
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    fake_node_stop(a);
    a = fake_node_start(false);
    run_for(poller, 300 * MS);
    shift += OLD;
    assert_int_equal(ask(KEY), 0);
    run_for(poller, 100 * MS);
    assert_int_equal(heard("CLUSTER"), 1); /* asked of b; no other node is up */
    fake_node_says(b, "EVALSHA", FAKE_SILENCE, 0, 1);
    assert_int_equal(ask(KEY), STEADY_UNKNOWN);
    say(b, "EVALSHA", VERDICT);
    const steady_us until = now_us() + 2 * STEADY_SECOND;
    while (ask(KEY) != 0 && now_us() < until)
        run_for(poller, 10 * MS);
    assert_int_equal(ask(KEY), 0);
}

/* ---- More nodes than the table holds ---- */

#define NODES 1000

/* A map of 1000 ranges, each at a node that cannot be reached. KEY's slot comes last, and is at `owner`. */
static char *crowd(unsigned port, const struct fake_node *owner) {
    const unsigned key = steady__slot_of(KEY, strlen(KEY)), width = STEADY__SLOTS / NODES;
    char *out = malloc(NODES * 128), *end = out;
    assert_non_null(out);
    end += sprintf(end, "*%d\r\n", NODES + 2);
    for (unsigned i = 0; i < NODES; i++) {
        const unsigned first = i * width, last = i < NODES - 1 ? first + width - 1 : STEADY__SLOTS - 1;
        if (key < first || key > last) {
            end = put_range(end, first, last, "255.255.255.255", port + i);
            continue;
        }
        assert_true(key > first && key < last);
        end = put_range(end, first, key - 1, "255.255.255.255", port + i);
        end = put_range(end, key + 1, last, "255.255.255.255", port + i);
    }
    put_range(end, key, key, "127.0.0.1", (unsigned)fake_node_port(owner));
    return out;
}

/* A key in one of the first ranges, whose nodes fit into the table. */
static const char *low_key(char key[16]) {
    for (int i = 0;; i++) {
        const int len = snprintf(key, 16, "k%d", i);
        if (steady__slot_of(key, (size_t)len) < 200) return key;
    }
}

static void both_say(const char *map) {
    say(a, "CLUSTER", map);
    say(b, "CLUSTER", map);
}

/* The nodes of the old map are dropped first, so that there is room for all of the new one. Until then the server in
 * the URL is asked as well, although its connection was closed. */
static void nodes_of_the_old_map_make_room_for_the_new(void **state) {
    struct fake_node *c = fake_node_start(false);
    char *one = crowd(1, b), *other = crowd(2001, c), key[16];
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    both_say(one);
    say(c, "EVALSHA", VERDICT);
    say(c, "CLUSTER", other);
    open_at("localhost");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    for (int i = 0; i < 200 && fake_node_open(a) > 0; i++)
        run_for(poller, 10 * MS);
    assert_int_equal(fake_node_open(a), 0);
    both_say(other);
    say(a, "EVALSHA", VERDICT);
    fake_node_says(b, "EVALSHA", "-CLUSTERDOWN\r\n", 0, 1);
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    await_heard("CLUSTER", 2);
    shift += 6 * STEADY_SECOND; /* so that the answer about the map is old */
    assert_int_equal(fake_node_heard(a, "CLUSTER") + fake_node_accepted(a), 2);
    assert_int_equal(ask(low_key(key)), STEADY_UNAVAILABLE);
    await_heard("CLUSTER", 3);
    assert_int_equal(fake_node_heard(a, "CLUSTER"), 2);
    const steady_us until = now_us() + STEADY_SECOND;
    while (fake_node_heard(c, "EVALSHA") == 0 && now_us() < until)
        ask(KEY);
    assert_true(fake_node_heard(c, "EVALSHA") > 0);
    client_close();
    fake_node_stop(c);
    free(one);
    free(other);
}

int main(void) {
#define WITH_CLOCK(test) cmocka_unit_test_setup_teardown(test, set_up, nodes_tear_down)
    const struct CMUnitTest tests[] = {
        WITH_CLOCK(node_that_left_is_replaced_when_the_map_is_old),
        WITH_CLOCK(server_in_the_url_that_left_is_replaced_when_the_map_is_old),
        WITH_CLOCK(only_connected_node_that_left_is_replaced_when_the_map_is_old),
        WITH_CLOCK(node_that_left_does_not_delay_the_refresh_by_a_member),
        WITH_CLOCK(unassigned_slot_is_not_asked_of_a_node_that_left),
        WITH_CLOCK(map_without_permission_is_asked_for_seldom),
        WITH_CLOCK(map_of_disabled_clusters_is_asked_for_seldom),
        WITH_CLOCK(empty_map_is_asked_for_seldom),
        WITH_CLOCK(server_without_cluster_is_never_asked_for_the_map),
        WITH_CLOCK(map_is_asked_of_one_node_at_a_time),
        WITH_CLOCK(map_later_than_the_timeout_is_used),
        WITH_CLOCK(late_map_does_not_replace_a_newer_one),
        WITH_CLOCK(at_most_three_silent_nodes_are_asked_at_once),
        WITH_CLOCK(pauses_between_refreshes_are_short_again_after_a_quiet_time),
        WITH_CLOCK(readable_map_ends_the_long_pauses_after_unreadable_ones),
        WITH_CLOCK(new_owner_for_a_silent_node_is_learned_from_a_redirect),
        WITH_CLOCK(new_owner_is_known_at_once_without_permission_for_maps),
        WITH_CLOCK(only_reachable_node_is_kept_after_a_timeout),
        WITH_CLOCK(nodes_of_the_old_map_make_room_for_the_new),
    };
    return cmocka_run_group_tests_name("cluster refresh", tests, NULL, NULL);
}
