/* SPDX-License-Identifier: MIT
 * The Redis store on nodes of a cluster that do as they are told: redirects of every kind, to nodes of every kind. */
#include "fake_cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "redis/slot_map.h"

/* ---- MOVED ---- */

static void test_moved(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 1); /* learned from the redirect, as the map was of no use */
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 2);
    assert_int_equal(heard(""), 4);
}

/* Each node has the databases that the first one has. */
static void test_database(void **state) {
    char url[64];
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/3", fake_node_port(a));
    client_open(url, timeout);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(strncmp(fake_node_words(b), "SELECT EVALSHA ", 15), 0);
}

/* Each says that it is the other. */
static void test_redirects_without_end(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(b, "EVALSHA", redirect(1, "MOVED", "127.0.0.1", fake_node_port(a)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(heard("EVALSHA"), 6);
    assert_int_equal(strncmp(steady_store_trouble(store), "MOVED ", 6), 0);
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(heard("EVALSHA"), 12);
}

/* Not to be followed: the decision ends, the map is asked for, and all is as before. */
static void test_redirects_that_make_no_sense(void **state) {
    const unsigned slot = steady__slot_of(KEY, strlen(KEY));
    static char text[3][80], long_host[4400];
    static const char with_nul[] = "-MOVED 1 127.0\0.0.1:7000\r\n";
    (void)state;
    snprintf(text[0], sizeof text[0], "-MOVED %u 127.0.0.1:%d\r\n", slot ^ 1, fake_node_port(b)); /* another slot */
    snprintf(text[1], sizeof text[1], "-MOVED %u 127.0.0.1:0\r\n", slot);
    snprintf(text[2], sizeof text[2], "-MOVED %u ?:%d\r\n", slot, fake_node_port(b));
    snprintf(long_host, sizeof long_host, "-MOVED %u %0*d:7000\r\n", slot, 4096, 1);
    const char *const bad[] = {text[0],
                               text[1],
                               text[2],
                               long_host,
                               "-MOVED\r\n",
                               "-MOVED x\r\n",
                               "-MOVED 16384 127.0.0.1:7000\r\n",
                               "-MOVED -1 127.0.0.1:7000\r\n",
                               "-ASK \r\n",
                               "-ASK 1\r\n"};
    open_with("");
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask(KEY), 0);
    for (size_t i = 0; i < COUNT(bad); i++) {
        fake_node_says(a, "EVALSHA", bad[i], 0, 1);
        assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
        assert_int_equal(ask(KEY), 0);
    }
    fake_node_says(a, "EVALSHA", with_nul, sizeof with_nul - 1, 1);
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(ask(KEY), 0);
    for (int i = 0; i < 100 && heard("CLUSTER") == 0; i++)
        run_for(poller, 5 * MS);
    assert_true(heard("CLUSTER") > 0);
    assert_int_equal(fake_node_heard(b, ""), 0);
    assert_int_equal(fake_node_accepted(a), 1);
}

/* Said where a command has two keys and one of them is elsewhere. Ours have one; whoever says it is not asked again. */
static void test_try_again(void **state) {
    static const char reply[] = "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
    (void)state;
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    fake_node_says(a, "EVALSHA", reply, 0, 1);
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(steady_store_trouble(store), "TRYAGAIN", 8), 0);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 2);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 3);
    assert_int_equal(fake_node_accepted(a), 1);
}

/* ---- ASK ---- */

static void test_ask(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "127.0.0.1", fake_node_port(b)), 0, 2);
    fake_node_says(a, "CLUSTER", map_of(1, a, a), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    assert_int_equal(ask(KEY), 0); /* not remembered */
    assert_string_equal(fake_node_words(b), "ASKING EVALSHA ASKING EVALSHA ");
    assert_int_equal(heard("CLUSTER"), 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 3);
    assert_int_equal(heard("CLUSTER"), 1);
}

/* Many at once: each ASKING directly before its command, and its reply NO_MAP else's. */
static void test_ask_in_a_pipeline(void **state) {
    struct tally tally = {0};
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("");
    for (int i = 0; i < 500; i++)
        consume_counted(throttler, KEY, 1, &tally);
    run_until_done(poller, &tally, 10 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 500);
    const char *words = fake_node_words(b);
    for (int i = 0; i < 500; i++, words += strlen("ASKING EVALSHA "))
        assert_int_equal(strncmp(words, "ASKING EVALSHA ", strlen("ASKING EVALSHA ")), 0);
    assert_string_equal(words, "");
}

static void sleep_long(const steady_result *result, void *data) {
    count_result(result, data);
    sleep_us(150 * MS);
}

/* The loop is late, and the deadline over, when it is the turn of what waits to be sent behind an ASKING: neither goes
 * out, for the next command would be taken for it. */
static void test_ask_too_late(void **state) {
    struct tally warm = {0}, tally = {0};
    (void)state;
    timeout = 100 * MS;
    const char *ask_b = redirect(0, "ASK", "127.0.0.1", fake_node_port(b));
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(a, "EVALSHA", ask_b, 0, 1);
    fake_node_says(a, "CLUSTER", map_of(1, a, a), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    fake_node_says(b, "EVALSHA", FAKE_SILENCE, 0, 0);
    fake_node_says(a, "EVALSHA", ask_b, 0, 1);
    consume_counted(throttler, KEY, 1, &warm); /* so that what follows has to wait for the socket */
    for (int i = 0; i < 100 && fake_node_heard(b, "EVALSHA") < 2; i++)
        run_for(poller, MS);
    fake_node_says(a, "EVALSHA", ask_b, 0, 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 1);
    for (int i = 0; i < 2; i++)
        consume_counted(throttler, KEY, 1, &tally);
    assert_int_equal(steady_consume(throttler, KEY, strlen(KEY), 1, sleep_long, expect_result(&tally)), 0);
    steady_poller_run(poller, 0); /* the last two are sent */
    for (int i = 0; i < 1000 && fake_node_heard(a, "EVALSHA") < 5; i++)
        sleep_us(MS);
    sleep_us(10 * MS); /* and all answers read at once: yes, ask b, yes */
    run_until_done(poller, &tally, STEADY_SECOND);
    run_until_done(poller, &warm, STEADY_SECOND);
    run_for(poller, 20 * MS);
    assert_int_equal(tally.verdicts, 2);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 1);
    assert_int_equal(fake_node_heard(b, "ASKING"), 2);
}

/* A user who may not say ASKING is sent back, and back again, but not for ever. */
static void test_asking_not_allowed(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(b, "ASKING", "-NOPERM no\r\n", 0, 0);
    fake_node_says(b, "EVALSHA", redirect(1, "MOVED", "127.0.0.1", fake_node_port(a)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(heard("EVALSHA"), 6);
}

/* It has read nothing, and says so to the first thing that it did not read. */
static void test_asking_a_full_server(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(b, "ASKING", "-ERR max number of clients reached\r\n", 0, 0);
    fake_node_says(b, "EVALSHA", FAKE_HANG_UP, 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
}

/* ---- Where a redirect leads ---- */

static void test_host_of_the_speaker(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "", fake_node_port(b)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 1);
}

static void test_host_by_name(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "localhost", fake_node_port(b)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 1);
}

static const char *nameless_map(const struct fake_node *low, const struct fake_node *high) {
    static char map[512];
    char *end = map + sprintf(map, "*2\r\n");
    for (int i = 0; i < 2; i++)
        end += sprintf(end,
                       "*3\r\n:%d\r\n:%d\r\n*4\r\n$1\r\n?\r\n:%d\r\n$2\r\nid\r\n*2\r\n$2\r\nip\r\n$9\r\n"
                       "127.0.0.1\r\n",
                       i * 8192, i * 8192 + 8191, fake_node_port(i == 0 ? low : high));
    return map;
}

/* A redirect to one leads to the only other one that the map has at its port, and nowhere else. */
static void test_redirected_to_who_has_no_name(void **state) {
    const bool low = steady__slot_of(KEY, strlen(KEY)) < 8192;
    const char *map = low ? nameless_map(a, b) : nameless_map(b, a);
    (void)state;
    fake_node_says(a, "CLUSTER", map, 0, 0);
    fake_node_says(b, "CLUSTER", map, 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "?", fake_node_port(b)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE); /* there is no map yet */
    await_heard("CLUSTER", 1);
    assert_int_equal(ask(KEY), 0);
    assert_string_equal(fake_node_words(b), "ASKING EVALSHA ");
    fake_node_says(a, "EVALSHA", redirect(1, "ASK", "?", free_port()), 0, 0);
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    fake_node_says(a, "EVALSHA", redirect(2, "ASK", "?", fake_node_port(a)), 0, 0); /* itself */
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    fake_node_says(a, "EVALSHA", redirect(3, "MOVED", "?", fake_node_port(b)), 0, 0);
    assert_int_equal(ask(KEY), 0);
}

static void test_host_of_ipv6(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct fake_node *six = fake_node_start(true);
        fake_node_says(six, "EVALSHA", VERDICT, 0, 0);
        fake_node_says(a, "EVALSHA", redirect(i, "MOVED", i == 0 ? "::1" : "[::1]", fake_node_port(six)), 0, 0);
        open_with("");
        assert_int_equal(ask(KEY), 0);
        assert_int_equal(fake_node_heard(six, "EVALSHA"), 1);
        steady_throttler_free(&throttler);
        steady_store_close(&store);
        fake_node_stop(six);
    }
}

static void test_credentials_for_each_node(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("app:secret@");
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(strncmp(fake_node_words(a), "AUTH EVALSHA ", 13), 0);
    assert_int_equal(strncmp(fake_node_words(b), "AUTH EVALSHA ", 13), 0);
}

static void test_dead_target(void **state) {
    struct tally tally = {0};
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", free_port()), 0, 0);
    timeout = TIMEOUT;
    open_with("");
    for (int i = 0; i < 20; i++) {
        consume_counted(throttler, KEY, 1, &tally);
        run_until_done(poller, &tally, STEADY_SECOND);
        assert_int_equal(tally.last.error, STEADY_UNAVAILABLE);
    }
    assert_true(tally.slowest < TIMEOUT);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask("{" KEY "}x"), STEADY_UNAVAILABLE); /* the same slot */
    assert_int_equal(ask("otherkey"), 0);
}

/* A full backlog drops what would connect. */
static void test_black_hole(void **state) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fillers[8];
    struct tally tally = {0};
    (void)state;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_return_code(bind(listener, (struct sockaddr *)&address, sizeof address), errno);
    assert_return_code(listen(listener, 0), errno);
    assert_return_code(getsockname(listener, (struct sockaddr *)&address, &len), errno);
    for (size_t i = 0; i < COUNT(fillers); i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fillers[i], (struct sockaddr *)&address, sizeof address);
    }
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", ntohs(address.sin_port)), 0, 1);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", ntohs(address.sin_port)), 0, 0);
    timeout = TIMEOUT;
    open_with("");
    consume_counted(throttler, KEY, 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.last.error, STEADY_UNAVAILABLE);
    assert_between(tally.slowest, TIMEOUT, TIMEOUT + SLACK);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask("otherkey"), 0);
    for (size_t i = 0; i < COUNT(fillers); i++)
        close(fillers[i]);
    close(listener);
}

/* What was written and not answered is not sent again, to NO_MAP. */
static void test_lost_after_a_redirect(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(b, "EVALSHA", FAKE_HANG_UP, 0, 1);
    open_with("");
    assert_int_equal(ask(KEY), STEADY_UNKNOWN);
    run_for(poller, TIMEOUT);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 1);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 2);
}

/* ---- Scripts ---- */

static void test_script_lost_on_one_node(void **state) {
    struct tally tally = {0};
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    for (int round = 0; round < 3; round++) {
        const unsigned loads = fake_node_heard(b, "SCRIPT");
        fake_node_says(b, "SCRIPT", "$2\r\nid\r\n", 0, 0);
        fake_node_says(b, "EVALSHA", "-NOSCRIPT No matching script.\r\n", 0, 10);
        for (int i = 0; i < 10; i++)
            consume_counted(throttler, KEY, 1, &tally);
        run_until_done(poller, &tally, 10 * STEADY_SECOND);
        assert_int_equal(fake_node_heard(b, "SCRIPT"), loads + 1);
    }
    assert_int_equal(tally.allowed, 30);
    assert_int_equal(fake_node_heard(a, "SCRIPT"), 0);
    assert_int_equal(heard("EVAL"), 0);
    steady_stats stats;
    steady_store_stats(store, &stats);
    assert_int_equal(stats.script_loads, 3);
}

/* ---- The rest of the store ---- */

static void test_blocking_calls(void **state) {
    steady_result r;
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(a, "CLUSTER", map_of(1, b, b), 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, b, b), 0, 0);
    open_with("");
    for (int i = 0; i < 20; i++) {
        assert_int_equal(steady_consume_sync(throttler, KEY, strlen(KEY), 1, &r), 0);
        sleep_us(2 * MS);
    }
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 1);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 20);
    assert_int_equal(heard("CLUSTER"), 1);
}

static void close_in_callback(const steady_result *result, void *data) {
    int *called = data;
    ++*called;
    assert_true(result->error == STEADY_UNAVAILABLE || result->error == STEADY_CANCELLED ||
                result->error == STEADY_UNKNOWN);
    steady_store_close(&store);
}

/* The first callback closes the store, in whatever the store is in the middle of. */
static void test_close_in_callbacks(void **state) {
    const char *const replies[] = {redirect(0, "MOVED", "127.0.0.1", free_port()), redirect(1, "MOVED", "", 0),
                                   "-CLUSTERDOWN\r\n", FAKE_HANG_UP, FAKE_SILENCE};
    (void)state;
    for (size_t i = 0; i < COUNT(replies); i++)
        for (size_t j = 0; j < 2; j++) {
            int called = 0;
            nodes_tear_down(NULL);
            nodes_set_up(NULL);
            const char *moved = redirect(2, "MOVED", "127.0.0.1", fake_node_port(b));
            fake_node_says(a, "EVALSHA", j == 0 ? replies[i] : moved, 0, 0);
            fake_node_says(b, "EVALSHA", replies[i], 0, 0);
            timeout = TIMEOUT;
            open_with("");
            for (int n = 0; n < 10; n++)
                assert_int_equal(steady_consume(throttler, KEY, strlen(KEY), 1, close_in_callback, &called), 0);
            for (int n = 0; n < 100 && called < 10; n++)
                run_for(poller, 10 * MS);
            assert_int_equal(called, 10);
        }
}

/* A server that is no cluster hears nothing but decisions. */
static void test_no_cluster(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    open_with("");
    for (int i = 0; i < 50; i++)
        assert_int_equal(ask(KEY), 0);
    assert_int_equal(heard(""), 50);
    assert_int_equal(fake_node_accepted(a), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_NODES(test_moved),
        WITH_NODES(test_database),
        WITH_NODES(test_redirects_without_end),
        WITH_NODES(test_redirects_that_make_no_sense),
        WITH_NODES(test_try_again),
        WITH_NODES(test_ask),
        WITH_NODES(test_ask_in_a_pipeline),
        WITH_NODES(test_ask_too_late),
        WITH_NODES(test_asking_not_allowed),
        WITH_NODES(test_asking_a_full_server),
        WITH_NODES(test_host_of_the_speaker),
        WITH_NODES(test_host_by_name),
        WITH_NODES(test_redirected_to_who_has_no_name),
        WITH_NODES(test_host_of_ipv6),
        WITH_NODES(test_credentials_for_each_node),
        WITH_NODES(test_dead_target),
        WITH_NODES(test_black_hole),
        WITH_NODES(test_lost_after_a_redirect),
        WITH_NODES(test_script_lost_on_one_node),
        WITH_NODES(test_blocking_calls),
        WITH_NODES(test_close_in_callbacks),
        WITH_NODES(test_no_cluster),
    };
    return cmocka_run_group_tests_name("cluster", tests, NULL, NULL);
}
