/* SPDX-License-Identifier: MIT
 * When the Redis store asks for the map of a cluster: in time, and not more often than that; by a clock that is set
 * forward. */
#include "fake_cluster.h"

#include <stdlib.h>

#include "redis/slot_map.h"

#define NO_CLUSTER "-ERR This instance has cluster support disabled\r\n"
#define OLD (31 * STEADY_SECOND) /* that is what no map becomes */

static steady_loop_ops ops; /* the poller's, but for the clock */
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

/* Both have half of the slots, and KEY's is this one's. */
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

/* A primary is not of the cluster any more, and decides as ever. Another one has its slots. */
static void assert_left(struct fake_node *stranger, bool others_are_known) {
    struct fake_node *rest = stranger == a ? b : a;
    say(a, "CLUSTER", map_with_key_at(1, stranger));
    say(b, "CLUSTER", map_with_key_at(1, stranger));
    say(a, "EVALSHA", VERDICT);
    fake_node_says(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n", 0, 1);
    open_with("");
    ask(KEY); /* it is a cluster */
    await_heard("CLUSTER", 1);
    for (int i = 0; i < 20 && others_are_known; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(key), 0);
    }
    assert_int_equal(ask(KEY), 0);
    say(stranger, "CLUSTER", NO_CLUSTER);
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
    assert_int_equal(log_lines.lines, 2); /* of the CLUSTERDOWN */
}

static void test_a_node_has_left(void **state) {
    (void)state;
    assert_left(b, true);
}

static void test_the_seed_has_left(void **state) {
    (void)state;
    assert_left(a, true);
}

/* There is no connection to anyone else: one is made to ask. */
static void test_the_only_one_that_is_known_has_left(void **state) {
    (void)state;
    assert_left(a, false);
}

/* One is outside the cluster when the connections to all others are lost. Once there is another that can be asked, it
 * is: what a stranger says of maps is no reason to wait. */
static void test_a_stranger_is_left_alone(void **state) {
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

/* Whose slot nobody knows is asked of one that is of the cluster. */
static void test_a_stranger_is_not_asked(void **state) {
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
        assert_int_equal(ask(key), 0); /* so that both are up */
    }
    for (int i = 0; i < 4 && fake_node_heard(a, "CLUSTER") < 2; i++) { /* they take turns */
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

/* Nobody has a map for us. That is asked after now and then, and costs nothing else. */
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
        assert_int_equal(heard("CLUSTER"), before); /* nobody wants to know */
        for (int i = 0; i < 100; i++) {
            assert_int_equal(ask(KEY), 0);
            run_for(poller, 5 * MS);
        }
        assert_between(heard("CLUSTER") - before, 1, most);
    }
    assert_int_equal(log_lines.lines, 0);
    assert_int_equal(fake_node_accepted(a) + fake_node_accepted(b), 2);
}

static void test_old_without_a_right(void **state) {
    (void)state;
    assert_asked_seldom("-NOPERM no\r\n", 1);
}

static void test_old_without_a_map(void **state) {
    (void)state;
    assert_asked_seldom(NO_CLUSTER, 2);
}

static void test_old_and_empty(void **state) {
    (void)state;
    assert_asked_seldom(NO_MAP, 1);
}

/* A server that is no cluster hears nothing but decisions, however long. */
static void test_no_cluster(void **state) {
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

/* While one does not answer, no other is asked, whatever the reason. */
static void test_nobody_is_asked_beside_another(void **state) {
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

static unsigned inquiries(steady_us time) {
    const unsigned before = heard("CLUSTER");
    for (const steady_us until = now_us() + time; now_us() < until;) {
        ask(KEY);
        run_for(poller, 2 * MS);
    }
    return heard("CLUSTER") - before;
}

/* ---- Late ---- */

/* All that are asked take longer over the map than a decision may. */
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

/* The map is taken all the same, and nobody goes on asking for it; what waited behind it is no reason to. */
static void test_late_map(void **state) {
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
    assert_between(inquiries(STEADY_SECOND), 1, 3);
    run_for(poller, 300 * MS);
    assert_int_equal(ask(KEY), 0);
    assert_between(heard("CLUSTER") - before, 1, 3);
}

/* Nor is one taken for the newest that was asked for before it. */
static void test_late_and_old(void **state) {
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

/* A connection to each of them, which have a share of the slots each. */
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

/* Where nobody answers, three are asked at the most before one of them is given up. */
static void test_few_are_asked_beside_each_other(void **state) {
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

/* ---- Calm ---- */

/* Pauses that have grown are short again after a while in which nothing was wrong. */
static void test_calm(void **state) {
    (void)state;
    say(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n");
    open_with("");
    inquiries(1500 * MS);
    assert_between(inquiries(140 * MS), 0, 1);
    say(a, "EVALSHA", VERDICT);
    run_for(poller, 400 * MS); /* the last one */
    assert_int_equal(ask(KEY), 0);
    shift += 6 * STEADY_SECOND;
    say(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n");
    assert_between(inquiries(140 * MS), 3, 6);
}

/* A node stands still, and nobody will tell us the map for a while. Who took over is learned from another one, not by
 * one decision after the other that comes to nothing. */
static void test_silence_without_a_right(void **state) {
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
    run_for(poller, TIMEOUT + 100 * MS); /* nor does it answer about slots */
    const unsigned before = fake_node_heard(a, "EVALSHA");
    assert_int_equal(ask(KEY), STEADY_UNKNOWN); /* the others do not know any better yet */
    assert_int_equal(fake_node_heard(a, "EVALSHA"), before + 1);
    say(a, "EVALSHA", redirect(1, "MOVED", "127.0.0.1", fake_node_port(b)));
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 1);
    client_close();
    fake_node_stop(frozen);
}

/* All but one say that this one has the key. */
static void say_who_has(struct fake_node *nodes[SOME], int i, const char *key, const char *text) {
    for (int j = 0; j < SOME; j++)
        say(nodes[j], "EVALSHA", j == i ? VERDICT : text);
    assert_int_equal(ask(key), 0);
}

/* Many nodes, none of which may tell us the map. One goes, and who took over is known at once: it is not that each of
 * the others has to say first that it may not. */
static void test_many_without_a_right(void **state) {
    struct fake_node *nodes[SOME] = {a, b}, *heir = fake_node_start(false);
    static char moved[SOME + 1][80];
    char key[16];
    (void)state;
    for (int i = 2; i < SOME; i++)
        nodes[i] = fake_node_start(false);
    for (int i = 0; i < SOME; i++)
        say(nodes[i], "CLUSTER", "-NOPERM no\r\n");
    say(heir, "EVALSHA", VERDICT);
    open_with("");
    for (int i = 0; i <= SOME; i++) {
        const int len = snprintf(key, sizeof key, "k%d", i < SOME ? i : SOME - 1);
        snprintf(moved[i], sizeof moved[i], "-MOVED %u 127.0.0.1:%d\r\n", steady__slot_of(key, (size_t)len),
                 fake_node_port(i < SOME ? nodes[i] : heir));
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
    fake_node_stop(heir);
}

/* One deadline that passes is no reason to leave a node that is the only one there is, or the only one that answers. */
static void test_silent_once(void **state) {
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
    assert_int_equal(heard("CLUSTER"), 1); /* of b; nobody is left to ask */
    fake_node_says(b, "EVALSHA", FAKE_SILENCE, 0, 1);
    assert_int_equal(ask(KEY), STEADY_UNKNOWN);
    say(b, "EVALSHA", VERDICT);
    const steady_us until = now_us() + 2 * STEADY_SECOND;
    while (ask(KEY) != 0 && now_us() < until)
        run_for(poller, 10 * MS);
    assert_int_equal(ask(KEY), 0);
}

/* ---- More nodes than numbers ---- */

#define NODES 1000

/* Nodes that cannot be reached, one for each of so many ranges. KEY's slot, the last in the reply, is this one's. */
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

/* In one of the first ranges, which get a number. */
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

/* The nodes of the map before this one go, and only then there are numbers for all that it names. The server in the
 * URL, which has long been left, is asked as well while there are not. */
static void test_crowded(void **state) {
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
    shift += 6 * STEADY_SECOND; /* that was said long ago */
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
        WITH_CLOCK(test_a_node_has_left),
        WITH_CLOCK(test_the_seed_has_left),
        WITH_CLOCK(test_the_only_one_that_is_known_has_left),
        WITH_CLOCK(test_a_stranger_is_left_alone),
        WITH_CLOCK(test_a_stranger_is_not_asked),
        WITH_CLOCK(test_old_without_a_right),
        WITH_CLOCK(test_old_without_a_map),
        WITH_CLOCK(test_old_and_empty),
        WITH_CLOCK(test_no_cluster),
        WITH_CLOCK(test_nobody_is_asked_beside_another),
        WITH_CLOCK(test_late_map),
        WITH_CLOCK(test_late_and_old),
        WITH_CLOCK(test_few_are_asked_beside_each_other),
        WITH_CLOCK(test_calm),
        WITH_CLOCK(test_silence_without_a_right),
        WITH_CLOCK(test_many_without_a_right),
        WITH_CLOCK(test_silent_once),
        WITH_CLOCK(test_crowded),
    };
    return cmocka_run_group_tests_name("cluster wishes", tests, NULL, NULL);
}
