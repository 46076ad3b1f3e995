/* SPDX-License-Identifier: MIT
 * The Redis store against fake nodes of a cluster: redirects of every kind, to nodes of every kind. */
#include "fake_cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "redis/slot_map.h"

/* ---- MOVED ---- */

static void moved_slot_is_remembered_without_a_map(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 1); /* known from the redirect; the map was empty */
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 2);
    assert_int_equal(heard(""), 4);
}

/* Each node gets the database number of the URL. */
static void each_node_gets_the_database_of_the_url(void **state) {
    char url[64];
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/3", fake_node_port(a));
    client_open(url, timeout);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(strncmp(fake_node_words(b), "SELECT EVALSHA ", 15), 0);
}

/* Each node redirects to the other. */
static void redirect_loop_is_unavailable_after_six_requests(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(b, "EVALSHA", redirect(1, "MOVED", "127.0.0.1", fake_node_port(a)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(heard("EVALSHA"), 6);
    assert_int_equal(strncmp(last_error_of(store), "MOVED ", 6), 0);
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(heard("EVALSHA"), 12);
}

/* A malformed redirect is not followed: the decision ends, the map is asked for, and the connection stays. */
static void malformed_redirect_is_unavailable_and_asks_for_the_map(void **state) {
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

/* TRYAGAIN is for commands with several keys: see unit_several_slots.c. If a server says it of one key, it is not asked
 * again. */
static void tryagain_is_unavailable_and_not_retried(void **state) {
    static const char reply[] = "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
    (void)state;
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    fake_node_says(a, "EVALSHA", reply, 0, 1);
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(last_error_of(store), "TRYAGAIN", 8), 0);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 2);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 3);
    assert_int_equal(fake_node_accepted(a), 1);
}

/* ---- ASK ---- */

static void ask_is_followed_and_not_remembered(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "127.0.0.1", fake_node_port(b)), 0, 2);
    fake_node_says(a, "CLUSTER", map_of(1, a, a), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    assert_int_equal(ask(KEY), 0); /* the redirect is not remembered */
    assert_string_equal(fake_node_words(b), "ASKING EVALSHA ASKING EVALSHA ");
    assert_int_equal(heard("CLUSTER"), 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 3);
    assert_int_equal(heard("CLUSTER"), 1);
}

/* ASKING stands directly before each command, and its reply is not taken for the reply of a decision. */
static void asking_precedes_each_command_in_a_pipeline(void **state) {
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

/* The loop is late: the deadline passes while a request waits to be sent behind its ASKING. Neither is sent, because
 * the server would apply a lone ASKING to the next command. */
static void expired_request_sends_neither_asking_nor_command(void **state) {
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
    consume_counted(throttler, KEY, 1, &warm); /* so that the next requests wait for the socket */
    for (int i = 0; i < 100 && fake_node_heard(b, "EVALSHA") < 2; i++)
        run_for(poller, MS);
    fake_node_says(a, "EVALSHA", ask_b, 0, 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 1);
    for (int i = 0; i < 2; i++)
        consume_counted(throttler, KEY, 1, &tally);
    assert_int_equal(steady_consume(throttler, KEY, strlen(KEY), 1, sleep_long, expect_result(&tally)), 0);
    steady_poller_run(poller, 0); /* sends the last two */
    for (int i = 0; i < 1000 && fake_node_heard(a, "EVALSHA") < 5; i++)
        sleep_us(MS);
    sleep_us(10 * MS); /* all replies are read at once: verdict, ASK, verdict */
    run_until_done(poller, &tally, STEADY_SECOND);
    run_until_done(poller, &warm, STEADY_SECOND);
    run_for(poller, 20 * MS);
    assert_int_equal(tally.verdicts, 2);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 1);
    assert_int_equal(fake_node_heard(b, "ASKING"), 2);
}

/* A user without permission for ASKING is redirected back and forth, at most six times. */
static void forbidden_asking_is_unavailable_after_six_requests(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(b, "ASKING", "-NOPERM no\r\n", 0, 0);
    fake_node_says(b, "EVALSHA", redirect(1, "MOVED", "127.0.0.1", fake_node_port(a)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(heard("EVALSHA"), 6);
}

/* The server has read nothing. It says so in reply to the first request, which is ASKING. */
static void asking_rejected_by_a_full_server_is_unavailable(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(b, "ASKING", "-ERR max number of clients reached\r\n", 0, 0);
    fake_node_says(b, "EVALSHA", FAKE_HANG_UP, 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
}

/* ---- The target of a redirect ---- */

static void redirect_without_a_host_leads_to_the_host_of_the_sender(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "", fake_node_port(b)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 1);
}

static void redirect_to_a_host_name_is_resolved(void **state) {
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

/* A redirect to a node without a host leads to the only other node that the map has at this port. Without such a node
 * the decision is unavailable. */
static void redirect_to_a_nameless_node_follows_its_port_in_the_map(void **state) {
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
    fake_node_says(a, "EVALSHA", redirect(2, "ASK", "?", fake_node_port(a)), 0, 0); /* the sender itself */
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    fake_node_says(a, "EVALSHA", redirect(3, "MOVED", "?", fake_node_port(b)), 0, 0);
    assert_int_equal(ask(KEY), 0);
}

static void redirect_to_ipv6_is_followed_with_or_without_brackets(void **state) {
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

static void each_node_gets_the_credentials(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("app:secret@");
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(strncmp(fake_node_words(a), "AUTH EVALSHA ", 13), 0);
    assert_int_equal(strncmp(fake_node_words(b), "AUTH EVALSHA ", 13), 0);
}

static void redirect_to_a_dead_node_is_unavailable_before_the_deadline(void **state) {
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
    assert_true(tally.slowest < TIMEOUT + tally.taken_away);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask("{" KEY "}x"), STEADY_UNAVAILABLE); /* the same slot */
    assert_int_equal(ask("otherkey"), 0);
}

/* With a full backlog, the system drops connection attempts. */
static void redirect_to_an_unreachable_node_is_unavailable_at_the_deadline(void **state) {
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
    assert_between(tally.slowest, TIMEOUT, TIMEOUT + SLACK_OF(tally));
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask("otherkey"), 0);
    for (size_t i = 0; i < COUNT(fillers); i++)
        close(fillers[i]);
    close(listener);
}

/* A request that was written and not answered is not sent again to any node. */
static void request_lost_after_a_redirect_is_not_sent_again(void **state) {
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

static void script_lost_on_a_node_is_loaded_there_once(void **state) {
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

static void blocking_calls_follow_the_redirect_and_use_the_map(void **state) {
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

/* The first callback closes the store, at different moments. */
static void close_in_a_callback_ends_each_decision_once(void **state) {
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

/* A server without cluster mode receives only decisions. */
static void server_without_cluster_hears_only_decisions(void **state) {
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
        WITH_NODES(moved_slot_is_remembered_without_a_map),
        WITH_NODES(each_node_gets_the_database_of_the_url),
        WITH_NODES(redirect_loop_is_unavailable_after_six_requests),
        WITH_NODES(malformed_redirect_is_unavailable_and_asks_for_the_map),
        WITH_NODES(tryagain_is_unavailable_and_not_retried),
        WITH_NODES(ask_is_followed_and_not_remembered),
        WITH_NODES(asking_precedes_each_command_in_a_pipeline),
        WITH_NODES(expired_request_sends_neither_asking_nor_command),
        WITH_NODES(forbidden_asking_is_unavailable_after_six_requests),
        WITH_NODES(asking_rejected_by_a_full_server_is_unavailable),
        WITH_NODES(redirect_without_a_host_leads_to_the_host_of_the_sender),
        WITH_NODES(redirect_to_a_host_name_is_resolved),
        WITH_NODES(redirect_to_a_nameless_node_follows_its_port_in_the_map),
        WITH_NODES(redirect_to_ipv6_is_followed_with_or_without_brackets),
        WITH_NODES(each_node_gets_the_credentials),
        WITH_NODES(redirect_to_a_dead_node_is_unavailable_before_the_deadline),
        WITH_NODES(redirect_to_an_unreachable_node_is_unavailable_at_the_deadline),
        WITH_NODES(request_lost_after_a_redirect_is_not_sent_again),
        WITH_NODES(script_lost_on_a_node_is_loaded_there_once),
        WITH_NODES(blocking_calls_follow_the_redirect_and_use_the_map),
        WITH_NODES(close_in_a_callback_ends_each_decision_once),
        WITH_NODES(server_without_cluster_hears_only_decisions),
    };
    return cmocka_run_group_tests_name("cluster", tests, NULL, NULL);
}
