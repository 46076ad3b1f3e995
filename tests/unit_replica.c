/* SPDX-License-Identifier: MIT
 * Peeks at fake replicas: lists without usable replicas, and replicas that refuse, hang up, are slow, or are not
 * replicas. */
#include "client.h"

#include <stdlib.h>

#include "fake_node.h"
#include "proxy.h"

#define TIMEOUT (200 * MS)
#define AT_SERVER ":3600000000\r\n"  /* level 1 */
#define AT_REPLICA ":7200000000\r\n" /* level 2 */
#define MASTER "*3\r\n$6\r\nmaster\r\n:0\r\n"
#define ENTRY "*3\r\n$9\r\n127.0.0.1\r\n$5\r\n%05d\r\n$1\r\n0\r\n"
#define REPLICA(state) "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n" state "\r\n:0\r\n"

static struct fake_node *server, *replica;
static char role[128]; /* the reply of the primary, which names the replica */

static void says(struct fake_node *node, const char *word, const char *reply) {
    fake_node_says(node, word, reply, strlen(reply), 0);
}

static void name_one(char out[128], int port) { snprintf(out, 128, MASTER "*1\r\n" ENTRY, port); }

static void name_two(char out[192], int port, int other) {
    snprintf(out, 192, MASTER "*2\r\n" ENTRY ENTRY, port, other);
}

static void name(char out[128], const struct fake_node *node) { name_one(out, fake_node_port(node)); }

static int set_up(void **state) {
    server = fake_node_start(false);
    replica = fake_node_start(false);
    name(role, replica);
    says(server, "ROLE", role);
    says(server, "EVALSHA", AT_SERVER);
    says(replica, "ROLE", REPLICA("$9\r\nconnected"));
    says(replica, "EVALSHA", AT_REPLICA);
    return client_set_up(state);
}

static int tear_down(void **state) {
    client_close();
    fake_node_stop(replica);
    fake_node_stop(server);
    return client_tear_down(state);
}

static void open_for(enum steady_engine engine) {
    char url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d?peek=replica", fake_node_port(server));
    client_open_with(url, (steady_store_options){.timeout = TIMEOUT, .engine = engine});
}

static void open_it(void) { open_for(STEADY_ENGINE_SCRIPT); }

/* The level that a peek reports: 1 from the primary, 2 from the replica; or its error. */
static int peek(void) {
    struct tally tally = {0};
    assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, STEADY_SECOND);
    return tally.last.error != 0 ? tally.last.error : (int)tally.last.level;
}

static void await(int who) {
    const steady_us until = now_us() + 2 * STEADY_SECOND;
    while (peek() != who) {
        assert_true(now_us() < until);
        run_for(poller, 2 * MS);
    }
}

/* Waits for the end of the handshake with the replica. */
static void await_replica(void) {
    const steady_us until = now_us() + 2 * STEADY_SECOND;
    while (fake_node_heard(replica, "ROLE") == 0) {
        assert_true(now_us() < until);
        run_for(poller, 2 * MS);
    }
    run_for(poller, 20 * MS);
}

/* For this time, the primary answers all peeks. */
static void assert_by_server(steady_us time) {
    for (const steady_us until = now_us() + time; now_us() < until; run_for(poller, 2 * MS))
        assert_int_equal(peek(), 1);
}

static void role_reply_without_a_usable_replica_leaves_peeks_to_the_primary(void **state) {
    static const char *const answers[] = {
        "+OK\r\n",
        "-NOPERM no permissions to run the 'role' command\r\n",
        ":1\r\n",
        "*-1\r\n",
        "*0\r\n",
        MASTER "*0\r\n",
        MASTER "*-1\r\n",
        MASTER ":7\r\n",
        MASTER "*1\r\n*0\r\n",
        MASTER "*1\r\n$9\r\n127.0.0.1\r\n",
        MASTER "*1\r\n*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n",
        MASTER "*1\r\n*3\r\n$9\r\n127.0.0.1\r\n:6379\r\n$1\r\n0\r\n",
        MASTER "*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$1\r\n0\r\n$1\r\n0\r\n",
        MASTER "*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$5\r\n65536\r\n$1\r\n0\r\n",
        MASTER "*1\r\n*3\r\n$0\r\n\r\n$4\r\n6379\r\n$1\r\n0\r\n",
        REPLICA("$9\r\nconnected"),
    };
    (void)state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        says(server, "ROLE", answers[i]);
        open_it();
        const unsigned before = fake_node_heard(server, "ROLE");
        assert_by_server(80 * MS);
        const unsigned asked = fake_node_heard(server, "ROLE") - before;
        if (asked < 1 || asked > 10) fail_msg("%s: asked %u times", answers[i], asked);
        assert_int_equal(fake_node_accepted(replica), 0);
        assert_int_equal(log_lines.lines, 0);
        client_close();
    }
}

/* redis-cli --replica, for example, is listed with port 0. */
static void usable_replica_among_unusable_ones_is_found(void **state) {
    static const char *const others[] = {
        "*3\r\n$9\r\n127.0.0.1\r\n$1\r\n0\r\n$1\r\n0\r\n",
        "*3\r\n$0\r\n\r\n$4\r\n6379\r\n$1\r\n0\r\n",
        "*3\r\n*2\r\n:1\r\n:2\r\n*1\r\n*0\r\n$1\r\n0\r\n",
        "*0\r\n",
        "$9\r\n127.0.0.1\r\n",
    };
    static char mixed[COUNT(others)][256]; /* static, because a reply may still be in use when the next is set */
    (void)state;
    for (size_t i = 0; i < COUNT(others); i++) {
        snprintf(mixed[i], sizeof mixed[i], MASTER "*3\r\n%s%s%s", others[i], strstr(role, "*1\r\n") + 4, others[i]);
        says(server, "ROLE", mixed[i]);
        open_it();
        await(2);
        client_close();
    }
}

/* Without a replica, or if the replica fails again and again, the list is asked for once a second at most. */
static void replica_list_is_asked_for_once_a_second(void **state) {
    (void)state;
    says(server, "ROLE", MASTER "*0\r\n");
    open_it();
    run_for(poller, STEADY_SECOND);
    assert_between(fake_node_heard(server, "ROLE"), 1, 2);
    says(server, "ROLE", role);
    await(2);
    const unsigned before = fake_node_heard(server, "ROLE");
    run_for(poller, 1500 * MS);
    assert_between(fake_node_heard(server, "ROLE") - before, 1, 3);
    says(replica, "ROLE", FAKE_HANG_UP);
    fake_node_says(replica, "EVALSHA", FAKE_HANG_UP, 0, 1);
    const unsigned before_it_went = fake_node_heard(server, "ROLE");
    peek();
    run_for(poller, 1500 * MS);
    assert_between(fake_node_heard(server, "ROLE") - before_it_went, 1, 2);
}

/* Peeks that wait for a lost connection do not ask for the list earlier: the primary answers them. */
static void waiting_peeks_do_not_ask_for_the_replica_list_earlier(void **state) {
    (void)state;
    open_it();
    await(2);
    const unsigned before = fake_node_heard(server, "ROLE");
    for (int round = 0; round < 4; round++) {
        struct tally tally = {0};
        fake_node_says(replica, "EVALSHA", FAKE_HANG_UP, 0, 1);
        for (int i = 0; i < 6; i++) {
            assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
            if (i == 0) sleep_us(30 * MS); /* it is written and lost; the others wait behind it */
        }
        run_until_done(poller, &tally, STEADY_SECOND);
        assert_int_equal(tally.verdicts, 6);
        assert_int_equal(tally.last.level, 1);
        run_for(poller, 50 * MS);
    }
    assert_between(fake_node_heard(server, "ROLE") - before, 0, 1);
}

/* A replica that the primary does not list any more is replaced, although it still answers. */
static void replica_missing_from_the_list_is_replaced(void **state) {
    struct fake_node *other = fake_node_start(false);
    char list[128];
    (void)state;
    says(other, "ROLE", REPLICA("$9\r\nconnected"));
    says(other, "EVALSHA", ":10800000000\r\n");
    name(list, other);
    open_it();
    await(2);
    says(server, "ROLE", list);
    run_for(poller, STEADY_SECOND); /* the first list shows it, the next names the other replica */
    await(3);
    run_for(poller, 50 * MS);
    assert_int_equal(fake_node_open(replica), 0);
    client_close();
    fake_node_stop(other);
}

static void server_that_is_no_connected_replica_gets_no_peeks(void **state) {
    static const char *const answers[] = {role,
                                          REPLICA("$7\r\nconnect"),
                                          REPLICA("$4\r\nsync"),
                                          "+OK\r\n",
                                          "*0\r\n",
                                          "-LOADING Redis is loading the dataset in memory\r\n"};
    (void)state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        says(replica, "ROLE", answers[i]);
        open_it();
        assert_by_server(150 * MS);
        assert_between(fake_node_accepted(replica), 1, 50);
        client_close();
    }
    assert_int_equal(fake_node_heard(replica, "EVALSHA"), 0);
    assert_int_equal(log_lines.lines, 0);
}

/* The primary answers peeks that the replica does not. After a temporary error the replica is used again. */
static void temporarily_refused_peek_goes_to_the_primary(void **state) {
    static const char *const answers[] = {
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        "-BUSY Redis is busy running a script.\r\n",
        "-ERR max number of clients reached\r\n",
        FAKE_HANG_UP,
    };
    (void)state;
    open_it();
    for (size_t i = 0; i < COUNT(answers); i++) {
        await(2);
        fake_node_says(replica, "EVALSHA", answers[i], strlen(answers[i]), 1);
        assert_int_equal(peek(), 1);
    }
    await(2);
    assert_int_equal(log_lines.lines, 0);
}

/* Permissions are not replicated. A replica that refuses permanently is probed about once a second. */
static void permanently_refusing_replica_is_probed_once_a_second(void **state) {
    static const char *const answers[] = {
        "-NOPERM User app has no permissions to run the 'evalsha' command\r\n",
        "-NOAUTH Authentication required.\r\n",
        "-ERR ACL failure in script: User app has no permissions to run the 'get' command\r\n",
        "-ERR of another kind\r\n",
        "-NOSCRIPT No matching script.\r\n",
    };
    (void)state;
    says(replica, "SCRIPT", "-NOPERM User app has no permissions to run the 'script|load' command\r\n");
    says(replica, "EVAL", "-NOPERM User app has no permissions to run the 'eval' command\r\n");
    says(server, "EVAL", "-NOPERM User app has no permissions to run the 'eval' command\r\n");
    open_it();
    for (size_t i = 0; i < COUNT(answers); i++) {
        await(2);
        says(replica, "EVALSHA", answers[i]);
        const unsigned before = fake_node_heard(replica, "EVALSHA"), connections = fake_node_accepted(replica);
        assert_by_server(700 * MS);
        const unsigned asked = fake_node_heard(replica, "EVALSHA") - before;
        if (asked < 1 || asked > 4) fail_msg("%s: asked %u times", answers[i], asked);
        assert_between(fake_node_accepted(replica) - connections, 0, 1);
        says(replica, "EVALSHA", AT_REPLICA);
    }
    await(2);
    assert_int_equal(log_lines.lines, 0);
}

/* Many peeks that the replica refuses all go to the primary, with one reconnection for all of them. */
static void many_refused_peeks_go_to_the_primary_with_one_reconnection(void **state) {
    struct tally tally = {0};
    (void)state;
    says(replica, "SCRIPT", "-NOPERM User app has no permissions to run the 'script|load' command\r\n");
    says(replica, "EVAL", "-NOPERM User app has no permissions to run the 'eval' command\r\n");
    open_it();
    await(2);
    says(replica, "EVALSHA", "-NOSCRIPT No matching script.\r\n");
    const unsigned connections = fake_node_accepted(replica);
    for (int i = 0; i < 12; i++)
        assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 12);
    run_for(poller, 100 * MS);
    assert_between(fake_node_accepted(replica) - connections, 0, 1);
}

/* A replica without the module gets scripts, after one peek that showed it. */
static void replica_without_the_module_gets_scripts(void **state) {
    static const char unknown[] = "-ERR unknown command 'STEADY.PEEK', with args beginning with: 'k'\r\n";
    (void)state;
    says(server, "STEADY.PEEK", unknown);
    says(server, "CONFIG", "*0\r\n");
    says(replica, "CONFIG", "*0\r\n");
    says(replica, "STEADY.PEEK", unknown);
    open_for(STEADY_ENGINE_AUTO);
    await(2);
    for (int i = 0; i < 20; i++)
        assert_int_equal(peek(), 2);
    assert_int_equal(fake_node_heard(replica, "STEADY.PEEK"), 1);
    says(replica, "EVALSHA", "-NOPERM User app has no permissions to run the 'evalsha' command\r\n");
    assert_by_server(100 * MS);
}

/* Only the module is permitted: peeks sent as scripts before this was known use the module, on the same connection. */
static void replica_without_script_permission_uses_the_module(void **state) {
    static const char verdict[] = "*5\r\n:1\r\n:2\r\n:9\r\n:0\r\n:0\r\n";
    struct tally tally = {0};
    (void)state;
    says(server, "STEADY.PEEK", "-ERR unknown command 'STEADY.PEEK', with args beginning with: 'k'\r\n");
    says(server, "CONFIG", "*0\r\n");
    says(replica, "CONFIG", "*0\r\n");
    says(replica, "STEADY.PEEK", verdict);
    says(replica, "EVALSHA", "-NOPERM User app has no permissions to run the 'evalsha' command\r\n");
    open_for(STEADY_ENGINE_AUTO);
    await_replica();
    for (int i = 0; i < 12; i++)
        assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 12);
    assert_int_equal(tally.last.level, 2);
    assert_int_equal(fake_node_heard(replica, "STEADY.PEEK"), 12);
    assert_int_equal(fake_node_accepted(replica), 1);
}

/* A replica that refuses the module's command for another reason is tried again, on the next connection. */
static void replica_that_refused_the_module_is_tried_again(void **state) {
    static const char level_1[] = "*5\r\n:1\r\n:1\r\n:9\r\n:0\r\n:0\r\n";
    static const char level_2[] = "*5\r\n:1\r\n:2\r\n:9\r\n:0\r\n:0\r\n";
    (void)state;
    says(server, "STEADY.PEEK", level_1);
    says(server, "CONFIG", "*0\r\n");
    says(replica, "CONFIG", "*0\r\n");
    says(replica, "STEADY.PEEK", "-NOPERM No permissions to access a key\r\n");
    says(replica, "EVALSHA", "-NOPERM No permissions to access a key\r\n");
    open_for(STEADY_ENGINE_AUTO);
    assert_by_server(300 * MS);
    says(replica, "STEADY.PEEK", level_2);
    await(2);
    assert_int_equal(fake_node_heard(replica, "EVALSHA"), 0);
}

static void invalid_reply_of_a_replica_sends_the_peek_to_the_primary(void **state) {
    (void)state;
    open_it();
    await(2);
    fake_node_says(replica, "EVALSHA", "*1\r\n*1\r\n", 8, 1);
    assert_int_equal(peek(), 1); /* the connection is closed, and a peek can be repeated safely */
    await(2);
    fake_node_says(replica, "EVALSHA", "+OK\r\n", 5, 1);
    assert_int_equal(peek(), 1);
    await(2);
}

/* A silent replica: the first peek is lost, and the next go to the primary. */
static void silent_replica_loses_one_peek(void **state) {
    (void)state;
    open_it();
    await(2);
    fake_node_says(replica, "EVALSHA", FAKE_SILENCE, 0, 1);
    assert_int_equal(peek(), STEADY_UNKNOWN);
    assert_by_server(100 * MS);
}

static unsigned long lost(const struct tally *tally) { return tally->called - tally->verdicts; }

/* Peeks every 5 ms for `time`. Returns how many were lost. */
static unsigned long peek_for(steady_us time) {
    struct tally tally = {0};
    for (const steady_us until = now_us() + time; now_us() < until; run_for(poller, 5 * MS))
        assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, STEADY_SECOND);
    return lost(&tally);
}

/* From now on each reply takes one and a half timeouts. */
static void slow_down(struct proxy *way) {
    const struct proxy_rules late = {.delay_down = TIMEOUT / 2 * 3};
    proxy_set(way, &late);
}

/* A slow replica costs the peeks of one timeout, then one probe a pause, until it answers a probe in time. If it is
 * slow again soon, for example if it answers single peeks in time and many late, the next pause is longer. */
static void slow_replica_loses_the_peeks_of_one_timeout_and_one_a_pause(void **state) {
    const struct proxy_rules none = {0};
    struct proxy *way = proxy_start(fake_node_port(replica));
    static char list[128];
    (void)state;
    name_one(list, proxy_port(way));
    says(server, "ROLE", list);
    open_it();
    await(2);
    slow_down(way);
    assert_true(peek_for(2 * TIMEOUT) > 0);
    assert_int_equal(peek_for(2 * STEADY_SECOND), 1);
    proxy_set(way, &none);
    await(2);
    for (int i = 0; i < 20; i++)
        assert_int_equal(peek(), 2);
    slow_down(way);
    assert_true(peek_for(2 * TIMEOUT) > 0);
    assert_int_equal(peek_for(2 * STEADY_SECOND), 0);
    client_close();
    proxy_stop(way);
}

/* It is replaced by another replica, although it is connected. */
static void slow_replica_is_replaced_by_another(void **state) {
    struct proxy *way = proxy_start(fake_node_port(replica));
    struct fake_node *other = fake_node_start(false);
    static char alone[128], both[192];
    (void)state;
    says(other, "ROLE", REPLICA("$9\r\nconnected"));
    says(other, "EVALSHA", ":10800000000\r\n");
    name_one(alone, proxy_port(way));
    name_two(both, proxy_port(way), fake_node_port(other));
    says(server, "ROLE", alone);
    open_it();
    await(2);
    says(server, "ROLE", both);
    slow_down(way);
    assert_true(peek_for(2 * TIMEOUT) > 0);
    assert_between(peek_for(2 * STEADY_SECOND), 0, 1);
    await(3);
    for (int i = 0; i < 20; i++)
        assert_int_equal(peek(), 3);
    assert_int_equal(fake_node_heard(replica, "ROLE"), 1);
    client_close();
    fake_node_stop(other);
    proxy_stop(way);
}

/* If all replicas are slow, they are not exchanged again and again. */
static void slow_replicas_are_not_exchanged_again_and_again(void **state) {
    struct proxy *ways[] = {proxy_start(fake_node_port(replica)), proxy_start(fake_node_port(replica))};
    static char list[192];
    (void)state;
    name_two(list, proxy_port(ways[0]), proxy_port(ways[1]));
    says(server, "ROLE", list);
    open_it();
    await(2);
    slow_down(ways[0]);
    slow_down(ways[1]);
    assert_true(peek_for(2 * TIMEOUT) > 0);
    assert_between(peek_for(3 * STEADY_SECOND), 0, 2);
    assert_between(proxy_accepted(ways[0]), 1, 2);
    assert_between(proxy_accepted(ways[1]), 1, 2);
    client_close();
    proxy_stop(ways[0]);
    proxy_stop(ways[1]);
}

/* A peek that was never sent says nothing about the replica. */
static void peek_that_was_never_sent_does_not_count_against_the_replica(void **state) {
    struct tally tally = {0};
    (void)state;
    open_it();
    await(2);
    for (int i = 0; i < 6; i++)
        assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
    sleep_us(TIMEOUT + 20 * MS); /* the first is sent at once, the others when the loop runs */
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 1);
    assert_int_equal(tally.errors[-STEADY_OVERLOADED], 5);
    assert_int_equal(peek(), 2);
}

/* A replica of a cluster answers only for its own slots, and only after READONLY. So it gets no more peeks. */
static void replica_that_redirects_gets_no_more_peeks(void **state) {
    (void)state;
    open_it();
    await(2);
    says(replica, "EVALSHA", "-MOVED 7629 127.0.0.1:1\r\n");
    assert_int_equal(peek(), 1);
    const unsigned before = fake_node_heard(replica, "EVALSHA");
    assert_by_server(200 * MS);
    run_for(poller, 1200 * MS);
    assert_by_server(50 * MS);
    assert_int_equal(fake_node_heard(replica, "EVALSHA"), before);
}

/* After a redirect, the primary is not asked for replicas either. */
static void primary_that_redirects_is_not_asked_for_replicas(void **state) {
    struct tally tally = {0};
    char moved[64];
    (void)state;
    snprintf(moved, sizeof moved, "-MOVED 7629 127.0.0.1:%d\r\n", fake_node_port(replica));
    says(server, "CLUSTER", "*0\r\n");
    says(replica, "CLUSTER", "*0\r\n");
    open_it();
    await(2);
    says(server, "EVALSHA", moved);
    consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 1);
    run_for(poller, 100 * MS);
    assert_int_equal(fake_node_open(replica), 1); /* for its slot */
    const unsigned before = fake_node_heard(server, "ROLE");
    run_for(poller, 2500 * MS);
    assert_int_equal(fake_node_heard(server, "ROLE"), before);
    assert_int_equal(fake_node_heard(replica, "ROLE"), 1);
    assert_int_equal(peek(), 2);
}

/* A script that the primary lacks is loaded into the primary, also just after peeks that went to the replica. */
static void missing_script_is_loaded_where_it_is_missing(void **state) {
    struct tally peeks = {0}, consumes = {0};
    (void)state;
    open_it();
    await(2);
    for (int i = 0; i < 8; i++)
        assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&peeks)), 0);
    run_until_done(poller, &peeks, STEADY_SECOND);
    const unsigned before = fake_node_heard(replica, "SCRIPT");
    fake_node_says(server, "EVALSHA", "-NOSCRIPT No matching script.\r\n", 31, 1);
    consume_counted(throttler, "k", 1, &consumes);
    run_until_done(poller, &consumes, STEADY_SECOND);
    assert_int_equal(consumes.verdicts, 1);
    assert_int_equal(fake_node_heard(server, "SCRIPT"), 1);
    assert_int_equal(fake_node_heard(replica, "SCRIPT"), before);
}

int main(void) {
#define WITH_NODES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_NODES(usable_replica_among_unusable_ones_is_found),
        WITH_NODES(role_reply_without_a_usable_replica_leaves_peeks_to_the_primary),
        WITH_NODES(replica_list_is_asked_for_once_a_second),
        WITH_NODES(waiting_peeks_do_not_ask_for_the_replica_list_earlier),
        WITH_NODES(replica_missing_from_the_list_is_replaced),
        WITH_NODES(server_that_is_no_connected_replica_gets_no_peeks),
        WITH_NODES(temporarily_refused_peek_goes_to_the_primary),
        WITH_NODES(invalid_reply_of_a_replica_sends_the_peek_to_the_primary),
        WITH_NODES(silent_replica_loses_one_peek),
        WITH_NODES(slow_replica_loses_the_peeks_of_one_timeout_and_one_a_pause),
        WITH_NODES(slow_replica_is_replaced_by_another),
        WITH_NODES(slow_replicas_are_not_exchanged_again_and_again),
        WITH_NODES(peek_that_was_never_sent_does_not_count_against_the_replica),
        WITH_NODES(replica_that_redirects_gets_no_more_peeks),
        WITH_NODES(primary_that_redirects_is_not_asked_for_replicas),
        WITH_NODES(missing_script_is_loaded_where_it_is_missing),
        WITH_NODES(permanently_refusing_replica_is_probed_once_a_second),
        WITH_NODES(many_refused_peeks_go_to_the_primary_with_one_reconnection),
        WITH_NODES(replica_without_script_permission_uses_the_module),
        WITH_NODES(replica_without_the_module_gets_scripts),
        WITH_NODES(replica_that_refused_the_module_is_tried_again),
    };
    return cmocka_run_group_tests_name("replica", tests, NULL, NULL);
}
