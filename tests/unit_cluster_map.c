/* SPDX-License-Identifier: MIT
 * The map that the Redis store has of a cluster: maps that are late, partial, refused, invalid or large, and nodes that
 * misbehave. */
#include "fake_cluster.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <strings.h>

#include "random.h"
#include "redis/slot_map.h"

/* ---- The map ---- */

static void map_routes_each_key_to_its_node(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    fake_node_says(a, "CLUSTER", map_of(1, a, b), 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, a, b), 0, 0);
    open_with("");
    ask(KEY);
    await_heard("CLUSTER", 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    const unsigned at_a = fake_node_heard(a, "EVALSHA"), at_b = fake_node_heard(b, "EVALSHA");
    unsigned low = 0;
    for (int i = 0; i < 100; i++) {
        char key[16];
        const int len = snprintf(key, sizeof key, "k%d", i);
        if (steady__slot_of(key, (size_t)len) < 8192) low++;
        assert_int_equal(ask(key), 0);
    }
    assert_int_equal(fake_node_heard(a, "EVALSHA") - at_a, low);
    assert_int_equal(fake_node_heard(b, "EVALSHA") - at_b, 100 - low);
    assert_int_equal(heard("CLUSTER"), 1);
    steady_stats stats;
    steady_store_stats(store, &stats);
    assert_int_equal(stats.reconnects, 0);
}

/* Many redirects at once ask for the map once. */
static void many_redirects_ask_for_the_map_once(void **state) {
    struct tally tally = {0};
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(a, "CLUSTER", map_of(1, b, b), 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, b, b), 0, 0);
    open_with("");
    for (int i = 0; i < 1000; i++)
        consume_counted(throttler, KEY, 1, &tally);
    run_until_done(poller, &tally, 10 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 1000);
    await_heard("CLUSTER", 1);
    for (int i = 0; i < 200 && fake_node_open(a) > 0; i++) /* a has no slot, so its connection is closed */
        run_for(poller, 10 * MS);
    assert_int_equal(fake_node_open(a), 0);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(heard("CLUSTER"), 1);
}

static void refused_map_is_not_asked_for_again_soon(void **state) {
    char key[16];
    (void)state;
    fake_node_says(a, "CLUSTER", "-NOPERM no\r\n", 0, 0);
    fake_node_says(b, "CLUSTER", "-NOPERM no\r\n", 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("");
    for (int i = 0; i < 100; i++)
        assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(key), 0);
    }
    assert_int_equal(heard("CLUSTER"), 1); /* and not again soon */
}

/* Permissions may differ between nodes: if a node refuses the map, the next node is asked. */
static void map_refused_by_a_node_is_asked_of_the_next(void **state) {
    char key[16];
    (void)state;
    fake_node_says(a, "CLUSTER", "-NOPERM no\r\n", 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, b, b), 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    fake_node_says(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n", 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    for (int i = 0; i < 60; i++) {
        snprintf(key, sizeof key, "k%d", i);
        ask(key);
        run_for(poller, 10 * MS);
    }
    const unsigned refused = fake_node_heard(a, "CLUSTER");
    assert_between(refused, 0, 1);
    assert_true(fake_node_heard(b, "CLUSTER") > 0);
    for (int i = 0; i < 60; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(key), 0);
    }
}

/* The error does not answer the map request, so the next node is asked soon. */
static void map_request_rejected_by_a_full_server_is_repeated_soon(void **state) {
    (void)state;
    fake_node_says(a, "CLUSTER", "-ERR max number of clients reached\r\n", 0, 0);
    fake_node_says(b, "CLUSTER", "-ERR max number of clients reached\r\n", 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    fake_node_says(a, "CLUSTER", map_of(1, a, b), 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, a, b), 0, 0);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(b, "EVALSHA", redirect(2, "MOVED", "127.0.0.1", fake_node_port(a)), 0, 1);
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 2);
}

/* Without a map, a redirect of another node names the new owner of the slots. */
static void assert_found_without_a_map(const char *about_slots) {
    struct fake_node *gone = fake_node_start(false);
    fake_node_says(gone, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(a, "CLUSTER", about_slots, 0, 0);
    fake_node_says(b, "CLUSTER", about_slots, 0, 0);
    fake_node_says(gone, "CLUSTER", about_slots, 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(gone)), 0, 0);
    open_with("");
    for (int i = 0; i < 100; i++) {
        ask(KEY);
        run_for(poller, MS);
    }
    assert_int_equal(ask(KEY), 0);
    fake_node_stop(gone);
    run_for(poller, 50 * MS);
    ask(KEY);
    fake_node_says(a, "EVALSHA", redirect(1, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    for (int i = 0; i < 100 && ask(KEY) != 0; i++)
        run_for(poller, 10 * MS);
    assert_int_equal(ask(KEY), 0);
    assert_true(fake_node_heard(b, "EVALSHA") > 0);
}

static void new_owner_is_found_when_the_map_is_refused(void **state) {
    (void)state;
    assert_found_without_a_map("-NOPERM no\r\n");
}

static void new_owner_is_found_when_map_requests_lose_the_connection(void **state) {
    (void)state;
    assert_found_without_a_map(FAKE_HANG_UP);
}

/* The store closed its connection to the server in the URL. When no other node is left, it resolves that name again. */
static void host_of_the_url_is_resolved_again_when_all_nodes_are_gone(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(a, "CLUSTER", map_of(1, b, b), 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, b, b), 0, 0);
    open_at("localhost");
    assert_int_equal(ask(KEY), 0);
    for (int i = 0; i < 200 && fake_node_open(a) > 0; i++)
        run_for(poller, 10 * MS);
    assert_int_equal(fake_node_open(a), 0);
    fake_node_stop(b);
    b = fake_node_start(false);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(a, "CLUSTER", map_of(2, a, a), 0, 0);
    const steady_us until = now_us() + 3 * STEADY_SECOND;
    while (ask(KEY) != 0 && now_us() < until)
        run_for(poller, 10 * MS);
    assert_int_equal(ask(KEY), 0);
    assert_true(fake_node_accepted(a) >= 3); /* by name, by name again, and by the address in the map */
    assert_int_equal(fake_node_heard(b, ""), 0);
}

/* The first key in this half of the slots. */
static const char *key_of_half(char key[16], bool high) {
    for (int i = 0; i < 100; i++) {
        const int len = snprintf(key, 16, "k%d", i);
        if ((steady__slot_of(key, (size_t)len) >= 8192) == high) return key;
    }
    return NULL;
}

static const char *lower_half_of(const struct fake_node *node) {
    static char map[128];
    snprintf(map, sizeof map, "*1\r\n*3\r\n:0\r\n:8191\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$2\r\nid\r\n",
             fake_node_port(node));
    return map;
}

/* A node that has forgotten all others reports only its own slots. The other slots stay with their nodes. */
static void partial_map_keeps_the_nodes_of_the_other_slots(void **state) {
    char low[16], high[16];
    (void)state;
    struct fake_node *c = fake_node_start(false);
    const char *map = map_of(1, b, c);
    fake_node_says(c, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(a, "CLUSTER", map, 0, 0);
    fake_node_says(b, "CLUSTER", map, 0, 0);
    fake_node_says(c, "CLUSTER", map, 0, 0);
    open_at("localhost");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    assert_int_equal(ask(key_of_half(high, true)), 0);
    assert_int_equal(ask(key_of_half(low, false)), 0);
    for (int i = 0; i < 200 && fake_node_open(a) > 0; i++)
        run_for(poller, 10 * MS);
    fake_node_says(b, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n", 0, 0);
    fake_node_says(b, "CLUSTER", lower_half_of(b), 0, 0);
    fake_node_says(c, "CLUSTER", lower_half_of(b), 0, 0); /* or a map that c has from b */
    const unsigned before = fake_node_heard(b, "CLUSTER"), asked_a = fake_node_heard(a, "CLUSTER");
    const unsigned accepted_a = fake_node_accepted(a);
    for (int i = 0; i < 50; i++) {
        assert_true(ask(low) != 0);
        run_for(poller, 20 * MS);
    }
    assert_true(fake_node_heard(b, "CLUSTER") > before);
    const unsigned at_c = fake_node_heard(c, "EVALSHA");
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(high), 0);
    assert_int_equal(fake_node_heard(c, "EVALSHA"), at_c + 10);
    assert_true(fake_node_heard(a, "CLUSTER") > asked_a + 1); /* a is asked as well, because nodes say CLUSTERDOWN */
    assert_int_equal(fake_node_accepted(a), accepted_a + 1);
    client_close();
    fake_node_stop(c);
}

/* The same with the first map: the server in the URL knows the other slots. */
static void partial_first_map_is_completed_by_the_server_in_the_url(void **state) {
    char high[16];
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    fake_node_says(a, "CLUSTER", lower_half_of(b), 0, 0);
    fake_node_says(b, "CLUSTER", lower_half_of(b), 0, 0);
    open_at("localhost");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    run_for(poller, 1500 * MS);
    fake_node_says(b, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n", 0, 0);
    unsigned made = 0;
    for (int i = 0; i < 10; i++)
        made += ask(key_of_half(high, true)) == 0;
    assert_between(made, 4, 6);
    fake_node_says(a, "CLUSTER", map_of(1, b, a), 0, 0);
    for (int i = 0; i < 50; i++) {
        ask(high);
        run_for(poller, 20 * MS);
    }
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(high), 0);
}

/* A node that does not answer the map request is passed over. */
static void silent_node_is_passed_over_for_the_map(void **state) {
    char key[16];
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    fake_node_says(a, "CLUSTER", FAKE_SILENCE, 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, b, b), 0, 0);
    timeout = TIMEOUT;
    open_with("");
    assert_int_equal(ask(KEY), 0);
    for (int i = 0; i < 300 && fake_node_heard(b, "CLUSTER") == 0; i++)
        run_for(poller, 10 * MS);
    assert_true(fake_node_heard(b, "CLUSTER") >= 1);
    run_for(poller, 20 * MS);
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(key), 0);
    }
}

/* An invalid map changes nothing. Bytes that are not RESP close the connection. */
static void invalid_map_is_ignored_or_closes_the_connection(void **state) {
    static const char *const hostile[] = {
        "*1\r\n*3\r\n:9\r\n:3\r\n*3\r\n$1\r\na\r\n:1\r\n$1\r\nx\r\n",
        "*2\r\n*3\r\n:0\r\n:9\r\n*2\r\n$1\r\na\r\n:1\r\n*3\r\n:5\r\n:12\r\n*2\r\n$1\r\nb\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$-1\r\n:0\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n",
        "$-1\r\n",
        ":1\r\n",
        "+OK\r\n",
        "*16385\r\n",
        "*9999999999\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$99999\r\n",
        "%1\r\n",
        "-ERR This instance has cluster support disabled\r\n",
        "-LOADING\r\n",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(hostile); i++) {
        nodes_tear_down(NULL);
        nodes_set_up(NULL);
        fake_node_says(a, "CLUSTER", hostile[i], 0, 0);
        fake_node_says(b, "CLUSTER", hostile[i], 0, 0);
        fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
        timeout = TIMEOUT;
        open_with("");
        ask(KEY); /* unknown, if the map closes the connection */
        for (int n = 0; n < 100 && heard("CLUSTER") == 0; n++)
            run_for(poller, 5 * MS);
        assert_true(heard("CLUSTER") > 0);
        for (int n = 0, good = 0; good < 20; n++) {
            const int error = ask(KEY);
            if (error == 0) good++;
            if (n == 100 || error < STEADY_UNKNOWN) fail_msg("%d after the map %s", error, hostile[i]);
            run_for(poller, 10 * MS);
        }
    }
}

/* More nodes than the table holds, none of which can be connected to. Decisions for a reachable node still work. */
static void redirects_to_ever_new_nodes_leave_other_decisions_working(void **state) {
    static char names[1300][80];
    (void)state;
    fake_node_says(a, "CLUSTER", "-NOPERM no\r\n", 0, 0);
    open_with("");
    for (int i = 0; i < 1300; i++) {
        char key[16];
        const int len = snprintf(key, sizeof key, "k%d", i);
        snprintf(names[i], sizeof names[i], "-ASK %u 255.255.255.255:%d\r\n", steady__slot_of(key, (size_t)len), i + 1);
        fake_node_says(a, "EVALSHA", names[i], 0, 1);
        assert_int_equal(ask(key), STEADY_UNAVAILABLE);
    }
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask(KEY), 0);
}

/* ---- A large map ---- */

#define NODES 1000
#define RANGES 16384 /* one slot each */

static atomic_uint compared; /* host names compared by the library; the Makefile wraps strcasecmp */

int __real_strcasecmp(const char *one, const char *other);
int __wrap_strcasecmp(const char *one, const char *other);
int __wrap_strcasecmp(const char *one, const char *other) {
    compared++;
    return __real_strcasecmp(one, other);
}

/* Host names that differ only in their last letters, in both cases. The last range of the reply has KEY's slot. */
static size_t put_large_map(char *out) {
    const unsigned key = steady__slot_of(KEY, strlen(KEY));
    size_t len = (size_t)sprintf(out, "*%d\r\n", RANGES);
    for (unsigned i = 1; i <= RANGES; i++) {
        const unsigned slot = (key + i) % RANGES;
        char host[64];
        int port = 6379;
        snprintf(host, sizeof host, "%s.example.%03u", i % 2 == 0 ? "primary" : "PRIMARY", i / 2 % NODES);
        if (i == RANGES) {
            strcpy(host, "localhost");
            port = fake_node_port(b);
        }
        len += (size_t)sprintf(out + len, "*3\r\n:%u\r\n:%u\r\n*3\r\n$%zu\r\n%s\r\n:%d\r\n$2\r\nid\r\n", slot, slot,
                               strlen(host), host, port);
    }
    return len;
}

/* The store takes up another map, which names the node of KEY. */
static void assert_drawn_anew(const char *map, size_t len, unsigned time) {
    fake_node_says(a, "CLUSTER", map, len, 0);
    fake_node_says(b, "CLUSTER", map, len, 0);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(b, "EVALSHA", redirect(1, "MOVED", "127.0.0.1", fake_node_port(a)), 0, 1);
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", time);
    for (int i = 0; i < 10; i++) /* the reply is long */
        run_for(poller, 20 * MS);
    const unsigned at_b = fake_node_heard(b, "EVALSHA");
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), at_b + 1);
}

/* Each range costs about one comparison, however many nodes there are. Nodes that a new map does not name are
 * forgotten, which frees their numbers. */
static void large_map_costs_about_a_comparison_a_range(void **state) {
    char *map = malloc(RANGES * 96);
    (void)state;
    assert_non_null(map);
    const size_t len = put_large_map(map);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    fake_node_says(b, "EVALSHA", VERDICT, 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    for (unsigned time = 2; time < 6; time += 2) {
        const unsigned accepted = fake_node_accepted(b);
        compared = 0;
        assert_drawn_anew(map, len, time);
        assert_between(compared, RANGES / 2, 2 * RANGES);
        assert_int_equal(fake_node_accepted(b), accepted + 1); /* under its other name */
        assert_drawn_anew(map_of(2, b, b), 0, time + 1);
        for (int i = 0; i < 200 && fake_node_open(b) > 1; i++)
            run_for(poller, 10 * MS);
        assert_int_equal(fake_node_open(b), 1);
    }
    steady_store_close(&store);
    free(map);
}

/* A node without slots keeps its connection while redirects lead to it, and loses it soon after. */
static void idle_node_without_slots_loses_its_connection(void **state) {
    (void)state;
    fake_node_says(a, "CLUSTER", map_of(1, a, a), 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(KEY), 0);
        const steady_us until = now_us() + 5 * STEADY_SECOND;
        while (fake_node_open(b) > 0 && now_us() < until)
            run_for(poller, 20 * MS);
        assert_int_equal(fake_node_open(b), 0);
    }
    assert_true(fake_node_accepted(b) >= 3);
    assert_int_equal(fake_node_accepted(a), 1);
}

/* The map names the server in the URL differently, and no node accepts our password. Without decisions the map is not
 * asked for, and connections keep to their back-off. Each server is logged once. */
static void refusing_nodes_are_retried_once_a_second_and_logged_once(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(a, "CLUSTER", map_of(1, b, b), 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, b, b), 0, 0);
    fake_node_says(b, "AUTH", "+OK\r\n", 0, 0);
    open_at("app:secret@localhost");
    assert_int_equal(ask(KEY), 0);
    for (int i = 0; i < 200 && fake_node_open(a) > 0; i++)
        run_for(poller, 10 * MS);
    assert_int_equal(fake_node_open(a), 0);
    fake_node_says(a, "AUTH", "-WRONGPASS no\r\n", 0, 0);
    fake_node_says(b, "AUTH", "-WRONGPASS no\r\n", 0, 0);
    fake_node_says(b, "EVALSHA", FAKE_HANG_UP, 0, 1);
    ask(KEY);
    run_for(poller, 300 * MS);
    ask(KEY);
    const unsigned before = fake_node_heard(a, "AUTH"), lines = log_lines.lines;
    run_for(poller, 3 * STEADY_SECOND);
    assert_between(fake_node_heard(a, "AUTH") - before, 0, 4); /* once a second, with or without decisions */
    for (int i = 0; i < 100; i++) {
        assert_true(ask(KEY) != 0);
        run_for(poller, 20 * MS);
    }
    assert_between(fake_node_heard(a, "AUTH") - before, 1, 7);
    assert_between(log_lines.lines, 1, 2);
    assert_between(log_lines.lines - lines, 0, 1);
    fake_node_says(a, "AUTH", "+OK\r\n", 0, 0);
    fake_node_says(b, "AUTH", "+OK\r\n", 0, 0);
    for (int i = 0; i < 300 && ask(KEY) != 0; i++)
        run_for(poller, 10 * MS);
    assert_int_equal(ask(KEY), 0);
    for (int i = 0; i < 300 && fake_node_open(a) > 0; i++)
        run_for(poller, 10 * MS);
    assert_int_equal(fake_node_open(a), 0);
}

/* Redirects lead to a node that is down. It is logged once, however many decisions it fails. */
static void dead_target_of_redirects_is_logged_once(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "127.0.0.1", free_port()), 0, 0);
    fake_node_says(a, "CLUSTER", map_of(1, a, a), 0, 0);
    open_with("");
    for (int i = 0; i < 30; i++) {
        assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
        run_for(poller, 100 * MS);
    }
    assert_int_equal(log_lines.lines, 1);
}

/* Three nodes answer everything at random. Each decision ends once. When the nodes answer correctly again, decisions
 * are made again. */
static void random_replies_of_nodes_end_each_decision_once(void **state) {
    struct fake_node *c = fake_node_start(false), *const nodes[3] = {a, b, c};
    struct tally tally = {0};
    uint64_t seed = 11;
    static const char primary[] = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    static char maps[3][512];
    (void)state;
    timeout = 50 * MS;
    for (int i = 0; i < 3; i++)
        strcpy(maps[i], map_of(0, nodes[i], nodes[(i + 1) % 3]));
    const char *const answers[] = {VERDICT,
                                   VERDICT,
                                   redirect(1, "MOVED", "127.0.0.1", fake_node_port(a)),
                                   redirect(2, "MOVED", "127.0.0.1", fake_node_port(b)),
                                   redirect(3, "MOVED", "127.0.0.1", fake_node_port(c)),
                                   redirect(4, "ASK", "127.0.0.1", fake_node_port(b)),
                                   redirect(5, "ASK", "", fake_node_port(c)),
                                   redirect(6, "MOVED", "127.0.0.1", free_port()),
                                   "-NOSCRIPT\r\n",
                                   "-CLUSTERDOWN\r\n",
                                   "-LOADING\r\n",
                                   "-READONLY\r\n",
                                   "-ERR max number of clients reached\r\n",
                                   "*1\r\n",
                                   FAKE_SILENCE,
                                   FAKE_HANG_UP};
    const char *const about_slots[] = {maps[0],        maps[1],      maps[2],  NO_MAP,       "-NOPERM\r\n",
                                       "-LOADING\r\n", FAKE_SILENCE, "*1\r\n", FAKE_HANG_UP, "%1\r\n"};
    open_with("");
    for (int64_t round = 0; round < how_long(100, 1000); round++) {
        struct fake_node *node = nodes[random_in(&seed, 0, 2)];
        fake_node_says_nothing_more(node);
        fake_node_says(node, "EVALSHA", answers[random_in(&seed, 0, COUNT(answers) - 1)], 0, 0);
        fake_node_says(node, "CLUSTER", about_slots[random_in(&seed, 0, COUNT(about_slots) - 1)], 0, 0);
        fake_node_says(node, "ROLE", primary, 0, 0); /* asked for after a READONLY */
        for (int i = 0; i < 20; i++)
            consume_counted(throttler, KEY, 1, &tally);
        run_for(poller, 5 * MS);
    }
    for (int i = 0; i < 3; i++) {
        fake_node_says_nothing_more(nodes[i]);
        fake_node_says(nodes[i], "EVALSHA", VERDICT, 0, 0);
        fake_node_says(nodes[i], "CLUSTER", maps[0], 0, 0);
        fake_node_says(nodes[i], "ROLE", primary, 0, 0);
    }
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.called, tally.submitted);
    /* A lost or silent connection may be found only when the map leads to it. */
    int in_a_row = 0;
    for (const steady_us until = now_us() + 3 * STEADY_SECOND; in_a_row < 20 && now_us() < until;) {
        in_a_row = ask(KEY) == 0 ? in_a_row + 1 : 0;
        run_for(poller, 10 * MS);
    }
    assert_int_equal(in_a_row, 20);
    steady_store_close(&store);
    fake_node_stop(c);
}

/* ---- CLUSTERDOWN ---- */

static void clusterdown_is_unavailable_and_asks_for_the_map_ever_more_seldom(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n", 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(last_error_of(store), "CLUSTERDOWN", 11), 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
        run_for(poller, 5 * MS);
    }
    assert_between(heard("CLUSTER"), 2, 20); /* the map is asked for again, ever more seldom */
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_accepted(a), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_NODES(map_routes_each_key_to_its_node),
        WITH_NODES(many_redirects_ask_for_the_map_once),
        WITH_NODES(refused_map_is_not_asked_for_again_soon),
        WITH_NODES(map_refused_by_a_node_is_asked_of_the_next),
        WITH_NODES(map_request_rejected_by_a_full_server_is_repeated_soon),
        WITH_NODES(new_owner_is_found_when_the_map_is_refused),
        WITH_NODES(new_owner_is_found_when_map_requests_lose_the_connection),
        WITH_NODES(host_of_the_url_is_resolved_again_when_all_nodes_are_gone),
        WITH_NODES(partial_map_keeps_the_nodes_of_the_other_slots),
        WITH_NODES(partial_first_map_is_completed_by_the_server_in_the_url),
        WITH_NODES(silent_node_is_passed_over_for_the_map),
        WITH_NODES(invalid_map_is_ignored_or_closes_the_connection),
        WITH_NODES(redirects_to_ever_new_nodes_leave_other_decisions_working),
        WITH_NODES(large_map_costs_about_a_comparison_a_range),
        WITH_NODES(idle_node_without_slots_loses_its_connection),
        WITH_NODES(refusing_nodes_are_retried_once_a_second_and_logged_once),
        WITH_NODES(dead_target_of_redirects_is_logged_once),
        WITH_NODES(random_replies_of_nodes_end_each_decision_once),
        WITH_NODES(clusterdown_is_unavailable_and_asks_for_the_map_ever_more_seldom),
    };
    return cmocka_run_group_tests_name("cluster map", tests, NULL, NULL);
}
