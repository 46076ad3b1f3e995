/* SPDX-License-Identifier: MIT
 * Peeks and replicas that do as they are told: lists of replicas that are none, replicas that refuse, hang up or are
 * something else. */
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
static char role[128]; /* the server's, which names the replica */

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

/* Who answers a peek: 1 the server, 2 the replica, or an error. */
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

/* Until it has been greeted. */
static void await_replica(void) {
    const steady_us until = now_us() + 2 * STEADY_SECOND;
    while (fake_node_heard(replica, "ROLE") == 0) {
        assert_true(now_us() < until);
        run_for(poller, 2 * MS);
    }
    run_for(poller, 20 * MS);
}

/* For so long, all by the server. */
static void assert_by_server(steady_us time) {
    for (const steady_us until = now_us() + time; now_us() < until; run_for(poller, 2 * MS))
        assert_int_equal(peek(), 1);
}

static void test_lists_that_name_nobody(void **state) {
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

/* redis-cli --replica, for one, is listed with the port 0. */
static void test_lists_that_name_somebody_too(void **state) {
    static const char *const others[] = {
        "*3\r\n$9\r\n127.0.0.1\r\n$1\r\n0\r\n$1\r\n0\r\n",
        "*3\r\n$0\r\n\r\n$4\r\n6379\r\n$1\r\n0\r\n",
        "*3\r\n*2\r\n:1\r\n:2\r\n*1\r\n*0\r\n$1\r\n0\r\n",
        "*0\r\n",
        "$9\r\n127.0.0.1\r\n",
    };
    static char mixed[COUNT(others)][256]; /* each may be being sent yet when the next is said */
    (void)state;
    for (size_t i = 0; i < COUNT(others); i++) {
        snprintf(mixed[i], sizeof mixed[i], MASTER "*3\r\n%s%s%s", others[i], strstr(role, "*1\r\n") + 4, others[i]);
        says(server, "ROLE", mixed[i]);
        open_it();
        await(2);
        client_close();
    }
}

/* Who has no replica, or loses it again and again, asks for one once a second, no more. */
static void test_asked_in_moderation(void **state) {
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

/* Peeks that wait for a connection which is lost are no reason to ask earlier: the server answers them. */
static void test_asked_in_moderation_while_peeks_wait(void **state) {
    (void)state;
    open_it();
    await(2);
    const unsigned before = fake_node_heard(server, "ROLE");
    for (int round = 0; round < 4; round++) {
        struct tally tally = {0};
        fake_node_says(replica, "EVALSHA", FAKE_HANG_UP, 0, 1);
        for (int i = 0; i < 6; i++) {
            assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
            if (i == 0) sleep_us(30 * MS); /* it is written, and lost; the rest waits behind it */
        }
        run_until_done(poller, &tally, STEADY_SECOND);
        assert_int_equal(tally.verdicts, 6);
        assert_int_equal(tally.last.level, 1);
        run_for(poller, 50 * MS);
    }
    assert_between(fake_node_heard(server, "ROLE") - before, 0, 1);
}

/* A replica that the server has lost is left for one that it has, though it goes on answering. */
static void test_lost_by_the_server(void **state) {
    struct fake_node *other = fake_node_start(false);
    char list[128];
    (void)state;
    says(other, "ROLE", REPLICA("$9\r\nconnected"));
    says(other, "EVALSHA", ":10800000000\r\n");
    name(list, other);
    open_it();
    await(2);
    says(server, "ROLE", list);
    run_for(poller, STEADY_SECOND); /* one look shows it, the next one names the other */
    await(3);
    run_for(poller, 50 * MS);
    assert_int_equal(fake_node_open(replica), 0);
    client_close();
    fake_node_stop(other);
}

static void test_not_a_connected_replica(void **state) {
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

/* What the replica does not answer, the server does; and where it was refused in a way that passes, it comes back. */
static void test_refused_and_put_to_the_server(void **state) {
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

/* Rights are not replicated. One that refuses for good is asked again about once a second. */
static void test_refused_for_good(void **state) {
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

/* Many at once that cannot be answered there are put to the server one and all, and it is left over all of them once.
 */
static void test_refused_by_the_dozen(void **state) {
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

/* A replica without the module is asked its scripts, after the one peek that showed it. */
static void test_without_the_module(void **state) {
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

/* The module alone is allowed: what went to the script before it was known turns to it, on the same connection. */
static void test_without_the_scripts(void **state) {
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

/* One where the module's command is refused for another reason is asked for it again, on the next connection. */
static void test_with_the_module(void **state) {
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

static void test_answers_that_are_none(void **state) {
    (void)state;
    open_it();
    await(2);
    fake_node_says(replica, "EVALSHA", "*1\r\n*1\r\n", 8, 1);
    assert_int_equal(peek(), 1); /* the connection is closed, and then a peek is as good as never sent */
    await(2);
    fake_node_says(replica, "EVALSHA", "+OK\r\n", 5, 1);
    assert_int_equal(peek(), 1);
    await(2);
}

/* A silent one: the first peek is lost, and then the server is asked. */
static void test_silent(void **state) {
    (void)state;
    open_it();
    await(2);
    fake_node_says(replica, "EVALSHA", FAKE_SILENCE, 0, 1);
    assert_int_equal(peek(), STEADY_UNKNOWN);
    assert_by_server(100 * MS);
}

static unsigned long lost(const struct tally *tally) { return tally->called - tally->verdicts; }

/* Each 5 ms for so long; how many were lost. */
static unsigned long peek_for(steady_us time) {
    struct tally tally = {0};
    for (const steady_us until = now_us() + time; now_us() < until; run_for(poller, 5 * MS))
        assert_int_equal(steady_peek(throttler, "k", 1, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, STEADY_SECOND);
    return lost(&tally);
}

/* From now on it takes a timeout and a half, for all but a connection. */
static void slow_down(struct proxy *way) {
    const struct proxy_rules late = {.delay_down = TIMEOUT / 2 * 3};
    proxy_set(way, &late);
}

/* One that is slow costs the peeks of one timeout, and then one for each pause, until it has answered that in time. One
 * that is slow again before long, as where it answers a single peek in time and many late, has the next pause. */
static void test_slow(void **state) {
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

/* It is left for another one, though it is there. */
static void test_slow_beside_another(void **state) {
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

/* Nor is anything gained by leaving one slow replica for another, again and again. */
static void test_slow_all_of_them(void **state) {
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

/* That a peek was never sent says nothing about the replica. */
static void test_too_late_to_be_sent(void **state) {
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

/* Its replica answers for its own slots only, and not unasked. So it is not asked again. */
static void test_a_cluster_after_all(void **state) {
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

/* Nor is the server, once it has sent anybody to another. */
static void test_a_cluster_from_the_beginning(void **state) {
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

/* A script that the server lacks is loaded into the server, whatever went to the replica just before. */
static void test_scripts_go_where_they_are_missing(void **state) {
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
        WITH_NODES(test_lists_that_name_somebody_too),
        WITH_NODES(test_lists_that_name_nobody),
        WITH_NODES(test_asked_in_moderation),
        WITH_NODES(test_asked_in_moderation_while_peeks_wait),
        WITH_NODES(test_lost_by_the_server),
        WITH_NODES(test_not_a_connected_replica),
        WITH_NODES(test_refused_and_put_to_the_server),
        WITH_NODES(test_answers_that_are_none),
        WITH_NODES(test_silent),
        WITH_NODES(test_slow),
        WITH_NODES(test_slow_beside_another),
        WITH_NODES(test_slow_all_of_them),
        WITH_NODES(test_too_late_to_be_sent),
        WITH_NODES(test_a_cluster_after_all),
        WITH_NODES(test_a_cluster_from_the_beginning),
        WITH_NODES(test_scripts_go_where_they_are_missing),
        WITH_NODES(test_refused_for_good),
        WITH_NODES(test_refused_by_the_dozen),
        WITH_NODES(test_without_the_scripts),
        WITH_NODES(test_without_the_module),
        WITH_NODES(test_with_the_module),
    };
    return cmocka_run_group_tests_name("replica", tests, NULL, NULL);
}
