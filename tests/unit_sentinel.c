/* SPDX-License-Identifier: MIT
 * Sentinels that send what no real one would, late, in slices or never, and stores that are closed meanwhile. */
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_node.h"
#include "fake_server.h"

#define TIMEOUT (100 * MS)
#define MASTER "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
#define SLAVE "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:0\r\n"

static struct fake_server *sentinels[2], *servers[2];

static void stop_fakes(struct fake_server *fakes[2]) {
    for (int i = 0; i < 2; i++) {
        if (fakes[i] != NULL) fake_stop(fakes[i]);
        fakes[i] = NULL;
    }
}

static void close_all(void) {
    client_close();
    stop_fakes(sentinels);
    stop_fakes(servers);
}

static int tear_down(void **state) {
    close_all();
    return client_tear_down(state);
}

static void open_it(void) {
    char url[128];
    const int n = snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d", fake_port(sentinels[0]));
    snprintf(url + n, sizeof url - (size_t)n, sentinels[1] != NULL ? ",127.0.0.1:%d/main" : "/main",
             sentinels[1] != NULL ? fake_port(sentinels[1]) : 0);
    client_open(url, TIMEOUT);
}

/* A sentinel that sends this reply to each request of its first connection, and to the first of them in this way. */
static struct fake_server *sentinel_saying(const char *answer, enum fake_verb how) {
    struct fake_step steps[64] = {{FAKE_ACCEPT, 0, NULL, 0}};
    for (size_t i = 1; i + 2 < COUNT(steps); i += 2) {
        steps[i] = (struct fake_step){FAKE_EXPECT, 1, NULL, 0};
        steps[i + 1] = (struct fake_step){i == 1 ? how : FAKE_SEND, 0, answer, 0};
    }
    steps[COUNT(steps) - 1] = (struct fake_step){FAKE_AWAIT_CLOSE, 0, NULL, 0};
    return fake_start(steps, COUNT(steps));
}

static const char *naming(const struct fake_server *server) {
    static char answer[2][64];
    static int turn;
    char port[8];
    char *text = answer[turn++ % 2];
    const int len = snprintf(port, sizeof port, "%d", fake_port(server));
    snprintf(text, sizeof answer[0], "*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n", len, port);
    return text;
}

/* ---- Answers ---- */

static void invalid_sentinel_reply_is_unavailable_and_logged_once(void **state) {
    static const char *const answers[] = {
        "+OK\r\n",
        ":1\r\n",
        "$9\r\n127.0.0.1\r\n",
        "*0\r\n",
        "*1\r\n$9\r\n127.0.0.1\r\n",
        "*3\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n$1\r\n1\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n:6379\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n$-1\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n$0\r\n\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n$1\r\n0\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n65536\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n$7\r\n6379abc\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n$20\r\n18446744073709551617\r\n",
        "*2\r\n$0\r\n\r\n$4\r\n6379\r\n",
        "*2\r\n*1\r\n*1\r\n*0\r\n$4\r\n6379\r\n",
        "*2\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r\n",
        "*16385\r\n",
        "*4294967295\r\n",
        "$4097\r\n",
        "%1\r\n",
        "_\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\x16\x03\x01",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        memset(&log_lines, 0, sizeof log_lines);
        sentinels[0] = sentinel_saying(answers[i], FAKE_SEND);
        open_it();
        const int error = client_ask();
        for (const steady_us until = now_us() + 2 * STEADY_SECOND; log_lines.lines == 0 && now_us() < until;)
            run_for(poller, 5 * MS);
        if (error != STEADY_UNAVAILABLE || strstr(log_lines.all, "unexpected reply") == NULL)
            fail_msg("%s: %d, %s", answers[i], error, log_lines.all);
        assert_int_equal(log_lines.lines, 1);
        close_all();
    }
}

/* A host that is neither an address nor a name costs an attempt. Only its printable characters are shown. */
static void invalid_host_from_a_sentinel_is_unavailable_and_shown_printable(void **state) {
    static const char *const answers[] = {
        "*2\r\n$4\r\n\x1b[2J\r\n$4\r\n6379\r\n",
        "*2\r\n$11\r\nno such.one\r\n$4\r\n6379\r\n",
        "*2\r\n$3\r\n%s%\r\n$4\r\n6379\r\n",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        sentinels[0] = sentinel_saying(answers[i], FAKE_SEND);
        open_it();
        assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
        for (const char *c = last_error_of(store); *c != '\0'; c++)
            assert_true(*c >= ' ' && *c <= '~');
        close_all();
    }
}

static void sentinel_reply_that_arrives_byte_by_byte_is_read(void **state) {
    static const struct fake_step primary[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 1, NULL, 0},   {FAKE_DRIP, 0, MASTER, 0},
        {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, ":0\r\n", 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    servers[0] = fake_start(primary, COUNT(primary));
    sentinels[0] = sentinel_saying(naming(servers[0]), FAKE_DRIP);
    open_it();
    while (client_ask() != 0)
        run_for(poller, 10 * MS);
}

/* ---- Sentinels that accept any number of connections ---- */

static struct fake_node *node_saying(const char *word, const char *reply) {
    struct fake_node *node = fake_node_start(false);
    fake_node_says(node, word, reply, strlen(reply), 0);
    return node;
}

static struct fake_node *server_of_role(const char *role) {
    struct fake_node *node = node_saying("ROLE", role);
    fake_node_says(node, "EVALSHA", ":0\r\n", 4, 0);
    return node;
}

static void name_port(char answer[64], int port) {
    snprintf(answer, 64, "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%05d\r\n", port);
}

/* A useless sentinel is asked with back-off, like a server, and is used again once it is useful. */
static void useless_sentinel_is_asked_with_back_off(void **state) {
    static const struct {
        const char *word, *reply;
        unsigned least, most; /* connections in two seconds */
    } cases[] = {
        {"AUTH", "-WRONGPASS no\r\n", 1, 3},
        {"SENTINEL", "-NOAUTH no\r\n", 1, 3},
        {"SENTINEL", "*-1\r\n", 3, 8},
        {"SENTINEL", FAKE_HANG_UP, 3, 8},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char url[128], answer[64];
        struct fake_node *sentinel = fake_node_start(false), *primary = server_of_role(MASTER);
        name_port(answer, fake_node_port(primary));
        fake_node_says(sentinel, "SENTINEL", answer, 0, 0);
        fake_node_says(sentinel, cases[i].word, cases[i].reply, 0, 0);
        snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/main?sentinel_password=x", fake_node_port(sentinel));
        client_open(url, TIMEOUT);
        run_for(poller, 1500 * MS);
        const unsigned before = fake_node_accepted(sentinel);
        assert_int_equal(client_ask(), cases[i].most == 3 ? STEADY_REFUSED : STEADY_UNAVAILABLE);
        run_for(poller, 2 * STEADY_SECOND);
        assert_between(fake_node_accepted(sentinel) - before, cases[i].least, cases[i].most);
        fake_node_says_nothing_more(sentinel);
        fake_node_says(sentinel, "SENTINEL", answer, 0, 0);
        const steady_us since = now_us(), before_use = taken_away();
        while (client_ask() != 0 && now_us() - since < 3 * STEADY_SECOND)
            run_for(poller, 5 * MS);
        assert_true(now_us() - since < (cases[i].most == 3 ? 1500 * MS : 550 * MS) + slack_since(before_use));
        close_all();
        fake_node_stop(sentinel);
        fake_node_stop(primary);
    }
}

/* Returns the time until the first verdict. */
static steady_us open_by_two(const struct fake_node *first, const struct fake_node *second) {
    char url[128];
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d,127.0.0.1:%d/main", fake_node_port(first),
             fake_node_port(second));
    const steady_us begin = now_us();
    client_open(url, TIMEOUT);
    while (client_ask() != 0) {
        if (now_us() - begin > 5 * STEADY_SECOND) fail_msg("%s", last_error_of(store));
        run_for(poller, MS);
    }
    return now_us() - begin;
}

/* A sentinel lags behind: the server that it names is a replica. Then the other sentinel is asked. */
static void outdated_sentinel_is_passed_over_within_a_second(void **state) {
    steady_us best = INT64_MAX;
    (void)state;
    for (int i = 0; i < 6; i++) { /* the sentinel that is asked first is random */
        char old[64], new[64];
        struct fake_node *replica = server_of_role(SLAVE), *primary = server_of_role(MASTER);
        name_port(old, fake_node_port(replica));
        name_port(new, fake_node_port(primary));
        struct fake_node *behind = node_saying("SENTINEL", old), *informed = node_saying("SENTINEL", new);
        const steady_us took = open_by_two(behind, informed);
        if (took < best) best = took;
        run_for(poller, 50 * MS);
        assert_int_equal(fake_node_open(behind), 0); /* one connection is kept, to the useful sentinel */
        assert_int_equal(fake_node_open(informed), 1);
        close_all();
        assert_int_equal(fake_node_heard(replica, "EVALSHA"), 0);
        fake_node_stop(behind);
        fake_node_stop(informed);
        fake_node_stop(replica);
        fake_node_stop(primary);
    }
    assert_true(best < STEADY_SECOND);
}

/* A port that neither accepts nor refuses connections. */
static int black_hole(int fds[9]) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_return_code(bind(fds[0], (struct sockaddr *)&a, sizeof a), errno);
    assert_return_code(listen(fds[0], 0), errno);
    assert_return_code(getsockname(fds[0], (struct sockaddr *)&a, &len), errno);
    for (int i = 1; i < 9; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fds[i], (struct sockaddr *)&a, sizeof a);
    }
    return ntohs(a.sin_port);
}

/* The primary is gone, and the store is still connecting to it when a sentinel learns of the new one. The store then
 * connects to the new one, whatever an outdated sentinel says. */
static void new_primary_is_used_while_still_connecting_to_the_old(void **state) {
    steady_us best = INT64_MAX;
    (void)state;
    for (int i = 0; i < 8; i++) { /* the sentinel that is asked first is random */
        char old[64], new[64];
        int fds[9];
        struct fake_node *primary = server_of_role(MASTER);
        name_port(old, black_hole(fds));
        name_port(new, fake_node_port(primary));
        struct fake_node *behind = node_saying("SENTINEL", old), *informed = node_saying("SENTINEL", new);
        fake_node_says(informed, "SENTINEL", old, strlen(old), 1);
        const steady_us took = open_by_two(behind, informed);
        if (took < best) best = took;
        close_all();
        fake_node_stop(behind);
        fake_node_stop(informed);
        fake_node_stop(primary);
        for (int f = 0; f < 9; f++)
            close(fds[f]);
    }
    print_message("a switch while connecting: %.0f ms at best\n", (double)best / 1e3);
    assert_true(best < 550 * MS);
}

/* ---- Closing ---- */

static void close_store(const steady_result *result, void *data) {
    count_result(result, data);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* At each stage, from outside and by a callback. */
static void store_closed_at_any_time_ends_its_decision_once(void **state) {
    static const struct fake_step primary[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 1, NULL, 0},   {FAKE_SEND, 0, MASTER, 0},
        {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, ":0\r\n", 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    for (int i = 0; i < 45; i++) {
        struct tally tally = {0};
        servers[0] = fake_start(primary, COUNT(primary));
        sentinels[0] =
            i % 3 == 2 ? sentinel_saying("*-1\r\n", FAKE_SEND) : sentinel_saying(naming(servers[0]), FAKE_DRIP);
        open_it();
        if (i % 3 != 0) {
            assert_int_equal(steady_consume(throttler, "k", 1, 1, close_store, expect_result(&tally)), 0);
            run_until_done(poller, &tally, STEADY_SECOND);
            assert_null(store);
        } else {
            consume_counted(throttler, "k", 1, &tally);
            run_for(poller, i * MS);
        }
        close_all();
        assert_int_equal(tally.called, 1);
    }
}

/* The child leaves everything to its parent, in the middle of a search. */
static void child_forked_during_a_search_leaves_it_to_its_parent(void **state) {
    static const struct fake_step primary[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 1, NULL, 0},   {FAKE_SEND, 0, MASTER, 0},
        {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, ":0\r\n", 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    int status = -1;
    steady_result r;
    (void)state;
    servers[0] = fake_start(primary, COUNT(primary));
    sentinels[0] = sentinel_saying(naming(servers[0]), FAKE_DRIP);
    open_it();
    run_for(poller, 5 * MS);
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) {
        const bool refused = steady_consume_sync(throttler, "k", 1, 1, &r) == STEADY_UNAVAILABLE;
        steady_store_close(&store);
        _exit(refused ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    const steady_us begin = now_us();
    while (client_ask() != 0) {
        assert_true(now_us() - begin < STEADY_SECOND);
        run_for(poller, MS);
    }
}

int main(void) {
#define WITH_POLLER(test) cmocka_unit_test_setup_teardown(test, client_set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_POLLER(invalid_sentinel_reply_is_unavailable_and_logged_once),
        WITH_POLLER(invalid_host_from_a_sentinel_is_unavailable_and_shown_printable),
        WITH_POLLER(new_primary_is_used_while_still_connecting_to_the_old),
        WITH_POLLER(sentinel_reply_that_arrives_byte_by_byte_is_read),
        WITH_POLLER(outdated_sentinel_is_passed_over_within_a_second),
        WITH_POLLER(store_closed_at_any_time_ends_its_decision_once),
        WITH_POLLER(child_forked_during_a_search_leaves_it_to_its_parent),
        WITH_POLLER(useless_sentinel_is_asked_with_back_off),
    };
    return cmocka_run_group_tests_name("sentinel", tests, NULL, NULL);
}
