/* SPDX-License-Identifier: MIT
 * A connection against a fake server: the bytes on the wire, and replies that no real server sends. */
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_server.h"

#define TIMEOUT (100 * MS)

static struct fake_server *fake;

static void close_all(void) {
    client_close();
    if (fake != NULL) fake_stop(fake);
    fake = NULL;
}

static int tear_down(void **state) {
    close_all();
    return client_tear_down(state);
}

static void open_at(int port, const char *credentials, const char *path, steady_us timeout) {
    char url[128];
    snprintf(url, sizeof url, "redis://%s127.0.0.1:%d%s", credentials, port, path);
    client_open(url, timeout);
}

static void open_on(const struct fake_step *steps, size_t count, const char *credentials, const char *path) {
    fake = fake_start(steps, count);
    open_at(fake_port(fake), credentials, path, TIMEOUT);
}

/* ---- The wire ---- */

static void new_connection_sends_only_auth_select_and_the_decision(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 2, NULL, 0},   {FAKE_SEND, 0, "+OK\r\n+OK\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, ":1\r\n", 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    static const char head[] = "*3\r\n$4\r\nAUTH\r\n$3\r\na b\r\n$4\r\np@:/\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n"
                               "*5\r\n$7\r\nEVALSHA\r\n$40\r\n";
    static const char tail[] =
        "\r\n$1\r\n1\r\n$7\r\nsomekey\r\n$16\r\n\x0A\0\0\0\0\0\0\x80\x74\xD2\xEA\x41\x01\0\0\0\r\n";
    size_t len;
    (void)state;
    open_on(steps, COUNT(steps), "a%20b:p%40%3A%2F@", "/7");
    assert_int_equal(client_ask(), 0);
    steady_store_close(&store);
    const char *bytes = fake_finish(fake, &len);
    assert_int_equal(len, sizeof head - 1 + 40 + sizeof tail - 1);
    assert_memory_equal(bytes, head, sizeof head - 1);
    assert_memory_equal(bytes + sizeof head - 1 + 40, tail, sizeof tail - 1);
}

static void replies_that_arrive_byte_by_byte_are_read(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 3, NULL, 0},
        {FAKE_DRIP, 0, ":3600000000\r\n*4\r\n:1\r\n:2\r\n:0\r\n:0\r\n-WRONGTYPE no\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally first = {0}, second = {0}, third = {0};
    (void)state;
    fake = fake_start(steps, COUNT(steps));
    open_at(fake_port(fake), "", "", 5 * STEADY_SECOND);
    consume_counted(throttler, "a", 1, &first);
    consume_counted(throttler, "b", 1, &second);
    consume_counted(throttler, "c", 1, &third);
    run_until_done(poller, &third, 5 * STEADY_SECOND);
    assert_int_equal(first.last.level, 1);
    assert_int_equal(second.last.level, 2);
    assert_int_equal(third.last.error, STEADY_NOT_A_BUCKET);
}

/* ---- Scripts ---- */

static void script_lost_twice_is_sent_whole(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, "-NOSCRIPT No matching script.\r\n", 0},
        {FAKE_EXPECT, 2, NULL, 0}, /* SCRIPT LOAD, EVALSHA */
        {FAKE_SEND, 0, "$40\r\n0123456789012345678901234567890123456789\r\n-NOSCRIPT gone\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0}, /* EVAL */
        {FAKE_SEND, 0, ":3600000000\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    open_on(steps, COUNT(steps), "", "");
    assert_int_equal(client_ask(), 0);
    steady_store_close(&store);
    assert_int_equal(fake_count(fake, "EVALSHA"), 2);
    assert_int_equal(fake_count(fake, "SCRIPT\r\n$4\r\nLOAD"), 1);
    assert_int_equal(fake_count(fake, "\r\n$4\r\nEVAL\r\n"), 1);
    assert_int_equal(fake_count(fake, "#!lua"), 2);
}

/* A server that never finds the script is asked three times at most. */
static void script_never_found_is_unavailable_after_three_requests(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, "-NOSCRIPT\r\n", 0},
        {FAKE_EXPECT, 2, NULL, 0},
        {FAKE_SEND, 0, "-ERR no\r\n-NOSCRIPT\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, "-NOSCRIPT\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    open_on(steps, COUNT(steps), "", "");
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
    steady_store_close(&store);
    assert_int_equal(fake_count(fake, "*5\r\n"), 3);
}

/* ---- Invalid replies ---- */

static void invalid_reply_closes_the_connection_and_is_unknown(void **state) {
    static const char *const replies[] = {
        "*4294967295\r\n",
        "*390\r\n",
        "$9223372036854775807\r\n",
        "%1\r\n",
        ">2\r\n",
        "|1\r\n",
        "_\r\n",
        "+OK\r\n",
        "$2\r\nok\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*1\r\n*1\r\n*1\r\n",
        ":+1\r\n",
        ":-0\r\n",
        ":9223372036854775808\r\n",
        ":9007199254740992\r\n",
        "*2\r\n:1\r\n:2\r\n",
        "*4\r\n:9\r\n:1\r\n:0\r\n:0\r\n",
        "HTTP/1.1 200 OK\r\n",
        "-ERR split\n:1\r\n",
        "\x16\x03\x01",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(replies); i++) {
        const struct fake_step steps[] = {
            {FAKE_ACCEPT, 0, NULL, 0},
            {FAKE_EXPECT, 3, NULL, 0},
            {FAKE_SEND, 0, ":3600000000\r\n", 0},
            {FAKE_SEND, 0, replies[i], 0},
            {FAKE_SEND, 0, ":3600000000\r\n", 0},
            {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        };
        struct tally tally = {0};
        memset(&log_lines, 0, sizeof log_lines);
        open_on(steps, COUNT(steps), "", "");
        for (int n = 0; n < 3; n++)
            consume_counted(throttler, "k", 1, &tally);
        run_until_done(poller, &tally, 5 * STEADY_SECOND);
        if (tally.verdicts != 1 || tally.errors[-STEADY_UNKNOWN] != 2)
            fail_msg("%s: %lu verdicts, %lu unknown", replies[i], tally.verdicts, tally.errors[-STEADY_UNKNOWN]);
        assert_true(tally.slowest < TIMEOUT + tally.taken_away);
        assert_non_null(strstr(log_lines.all, "unexpected reply"));
        close_all();
    }
}

static void endless_error_line_closes_the_connection(void **state) {
    static char line[1 << 20];
    memset(line, 'x', sizeof line);
    line[0] = '-';
    const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, line, sizeof line},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    open_on(steps, COUNT(steps), "", "");
    assert_int_equal(client_ask(), STEADY_UNKNOWN);
    assert_true(strlen(last_error_of(store)) < 100);
}

static void unsolicited_reply_closes_the_connection(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":3600000000\r\n:7200000000\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":10800000000\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally tally = {0};
    (void)state;
    open_on(steps, COUNT(steps), "", "");
    assert_int_equal(client_ask(), 0);
    run_for(poller, 100 * MS); /* closed, and connected again */
    consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.last.level, 3); /* not 2 */
}

static void other_error_is_a_server_error_and_shown_without_the_key(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, "-ERR unknown command 'EVALSHA', with args beginning with: 'abc' '1' 'some", 0},
        {FAKE_SEND, 0, "\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, "-ERR \x07 I do not like somekey\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":3600000000\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    open_on(steps, COUNT(steps), "", "");
    assert_int_equal(client_ask(), STEADY_SERVER);
    assert_string_equal(last_error_of(store), "ERR unknown command 'EVALSHA'");
    assert_int_equal(client_ask(), STEADY_SERVER);
    assert_string_equal(last_error_of(store), "ERR *** do not ***");
    assert_int_equal(client_ask(), 0);
}

/* ---- Lost connections ---- */

/* k of n requests are answered, then the connection is reset. Requests that were written are never sent again. */
static void requests_unanswered_at_a_reset_are_unknown_and_not_sent_again(void **state) {
    (void)state;
    for (int k = 0; k <= 8; k++) {
        char replies[128] = "";
        struct tally tally = {0};
        for (int i = 0; i < k; i++)
            strcat(replies, ":3600000000\r\n");
        const struct fake_step steps[] = {
            {FAKE_ACCEPT, 0, NULL, 0},   {FAKE_EXPECT, 8, NULL, 0},      {FAKE_SEND, 0, replies, 0},
            {FAKE_SLEEP, 10, NULL, 0}, /* because a reset may overtake the data before it */
            {FAKE_RST, 0, NULL, 0},      {FAKE_ACCEPT, 0, NULL, 0},      {FAKE_EXPECT, 1, NULL, 0},
            {FAKE_SEND, 0, ":0\r\n", 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        };
        open_on(steps, COUNT(steps), "", "");
        for (int i = 0; i < 8; i++)
            consume_counted(throttler, "k", 1, &tally);
        run_until_done(poller, &tally, 5 * STEADY_SECOND);
        assert_int_equal(tally.verdicts, k);
        assert_int_equal(tally.errors[-STEADY_UNKNOWN], 8 - k);
        unsigned unknown = 0;
        for (int error; (error = client_ask()) != 0; sleep_us(MS)) /* until it is connected again */
            unknown += error == STEADY_UNKNOWN;                    /* written, so perhaps received, at most once */
        steady_store_close(&store);
        assert_between(fake_count(fake, "EVALSHA"), 9, 9 + unknown);
        close_all();
    }
}

static void silent_server_is_unknown_at_the_deadline(void **state) {
    static const struct fake_step steps[] = {{FAKE_ACCEPT, 0, NULL, 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0}};
    struct tally tally = {0};
    (void)state;
    open_on(steps, COUNT(steps), "", "");
    const steady_us begin = now_us();
    while (now_us() - begin < 6 * TIMEOUT) {
        consume_counted(throttler, "k", 1, &tally);
        run_for(poller, 10 * MS);
    }
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.verdicts, 0);
    assert_true(tally.errors[-STEADY_UNKNOWN] > 0);
    assert_true(tally.slowest < TIMEOUT + SLACK_OF(tally));
    assert_non_null(strstr(log_lines.all, "does not answer"));
}

/* The server has read none of the requests, and says so. */
static void full_server_is_unavailable_for_all_in_flight(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 5, NULL, 0},
        {FAKE_SEND, 0, "-ERR max number of clients reached\r\n", 0},
        {FAKE_CLOSE, 0, NULL, 0},
    };
    struct tally tally = {0};
    (void)state;
    open_on(steps, COUNT(steps), "", "");
    for (int i = 0; i < 5; i++)
        consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 5);
}

/* A server in protected mode reads nothing either. It sends DENIED as soon as a client connects. */
static void protected_mode_is_unavailable_and_retried_with_back_off(void **state) {
    struct fake_step steps[30];
    static const struct fake_step denied[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_SEND, 0, "-DENIED Redis is running in protected mode because it is.\r\n", 0},
        {FAKE_CLOSE, 0, NULL, 0},
    };
    struct tally tally = {0};
    steady_stats stats;
    (void)state;
    for (size_t i = 0; i < COUNT(steps); i += 3)
        memcpy(&steps[i], denied, sizeof denied);
    open_on(steps, COUNT(steps), "", "");
    for (const steady_us end = now_us() + STEADY_SECOND; now_us() < end;) {
        consume_counted(throttler, "k", 1, &tally);
        run_for(poller, MS);
    }
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.submitted);
    assert_int_equal(log_lines.lines, 1);
    assert_non_null(strstr(log_lines.last, "protected mode (DENIED)"));
    assert_non_null(strstr(last_error_of(store), "DENIED"));
    steady_store_stats(store, &stats);
    assert_between(stats.reconnects, 3, 8); /* with back-off */
}

/* A full backlog drops SYNs: the connection attempt hangs, the loop goes on, and the decision ends at its deadline. */
static void unreachable_server_is_unavailable_at_the_deadline(void **state) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fillers[8];
    struct tally tally = {0};
    (void)state;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_return_code(bind(listener, (struct sockaddr *)&a, sizeof a), errno);
    assert_return_code(listen(listener, 0), errno);
    assert_return_code(getsockname(listener, (struct sockaddr *)&a, &len), errno);
    for (size_t i = 0; i < COUNT(fillers); i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fillers[i], (struct sockaddr *)&a, sizeof a);
    }
    open_at(ntohs(a.sin_port), "", "", TIMEOUT);
    consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.last.error, STEADY_UNAVAILABLE);
    assert_between(tally.slowest, TIMEOUT, TIMEOUT + SLACK_OF(tally));
    run_for(poller, 4 * TIMEOUT); /* the attempt times out, and the server is known to be down */
    assert_int_equal(log_lines.lines, 1);
    const steady_us begin = now_us();
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
    assert_true(now_us() - begin < TIMEOUT / 2);
    for (size_t i = 0; i < COUNT(fillers); i++)
        close(fillers[i]);
    close(listener);
}

static steady_us last_ended_at;

static void ends_last(const steady_result *result, void *data) {
    last_ended_at = now_us();
    count_result(result, data);
}

static void blocks(const steady_result *result, void *data) {
    sleep_us(2 * TIMEOUT);
    count_result(result, data);
}

static void runs_the_loop(const steady_result *result, void *data) {
    count_result(result, data);
    for (const steady_us end = now_us() + 4 * TIMEOUT; last_ended_at == 0 && now_us() < end;)
        steady_poller_run(poller, TIMEOUT);
}

/* The loop was blocked, so replies are read before deadlines are applied. The callback of such a reply runs the loop,
 * and deadlines are kept there too. */
static void deadline_is_kept_in_a_callback_that_runs_the_loop(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 3, NULL, 0},   {FAKE_SEND, 0, ":1\r\n", 0},
        {FAKE_SLEEP, 50, NULL, 0}, {FAKE_SEND, 0, ":2\r\n", 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally tally = {0};
    (void)state;
    last_ended_at = 0;
    open_on(steps, COUNT(steps), "", "");
    const steady_us begin = now_us(), before = taken_away();
    assert_int_equal(steady_consume(throttler, "a", 1, 1, blocks, expect_result(&tally)), 0);
    assert_int_equal(steady_consume(throttler, "b", 1, 1, runs_the_loop, expect_result(&tally)), 0);
    assert_int_equal(steady_consume(throttler, "c", 1, 1, ends_last, expect_result(&tally)), 0);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_true(tally.verdicts == 2 && tally.errors[-STEADY_UNKNOWN] == 1);
    assert_between(last_ended_at - begin, 2 * TIMEOUT, 2 * TIMEOUT + slack_since(before));
}

/* ---- Sending while replies are processed ---- */

#define AT_ONCE 64

struct relay {
    int server; /* the server's end of the connection */
    struct tally tally;
    struct tally late;
    bool sent_early; /* a request came before the last reply was processed */
};

/* Reads until `count` requests have come. */
static void await_requests(int fd, size_t count) {
    char bytes[AT_ONCE * 256];
    size_t len = 0, found = 0;
    for (const steady_us end = now_us() + 5 * STEADY_SECOND; found < count;) {
        assert_true(now_us() < end);
        steady_poller_run(poller, MS);
        const ssize_t n = recv(fd, bytes + len, sizeof bytes - len, MSG_DONTWAIT);
        if (n > 0) len += (size_t)n;
        found = 0;
        for (const char *at = bytes; (at = memmem(at, len - (size_t)(at - bytes), "EVALSHA", 7)) != NULL; at++)
            found++;
    }
}

static void asks_once_more(const steady_result *result, void *data) {
    struct relay *relay = data;
    struct pollfd fd = {.fd = relay->server, .events = POLLIN};
    relay->tally.called++;
    relay->tally.allowed += result->error == 0 && result->success;
    if (relay->tally.called == AT_ONCE) relay->sent_early = poll(&fd, 1, 5000) == 1;
    if (result->error == 0 && relay->tally.called <= AT_ONCE)
        assert_int_equal(steady_consume(throttler, "k", 1, 1, asks_once_more, relay), 0);
}

/* AT_ONCE requests are in flight to a server of the test. Returns its listener. */
static int relay_start(struct relay *relay, steady_us timeout, steady_callback callback) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    open_at(ntohs(a.sin_port), "", "", timeout);
    for (int i = 0; i < AT_ONCE; i++)
        assert_int_equal(steady_consume(throttler, "k", 1, 1, callback, relay), 0);
    struct pollfd client = {.fd = listener, .events = POLLIN};
    for (const steady_us end = now_us() + 5 * STEADY_SECOND; poll(&client, 1, 0) == 0 && now_us() < end;)
        steady_poller_run(poller, MS);
    relay->server = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    await_requests(relay->server, AT_ONCE);
    return listener;
}

static void relay_reply(const struct relay *relay) {
    char replies[AT_ONCE * 4];
    for (size_t i = 0; i < AT_ONCE; i++)
        memcpy(replies + 4 * i, ":1\r\n", 4);
    assert_int_equal(send(relay->server, replies, sizeof replies, MSG_NOSIGNAL), sizeof replies);
}

/* The server has nothing to do after all replies. So it gets requests before all of them are processed. */
static void requests_are_sent_while_many_replies_are_processed(void **state) {
    struct relay relay = {.server = -1};
    (void)state;
    const int listener = relay_start(&relay, 20 * STEADY_SECOND, asks_once_more);
    relay_reply(&relay);
    await_requests(relay.server, AT_ONCE);
    relay_reply(&relay);
    for (const steady_us end = now_us() + 5 * STEADY_SECOND; relay.tally.called < 2 * AT_ONCE && now_us() < end;)
        steady_poller_run(poller, MS);
    assert_int_equal(relay.tally.allowed, 2 * AT_ONCE);
    assert_true(relay.sent_early);
    close(relay.server);
    close(listener);
}

#define HELD_TIMEOUT STEADY_SECOND

static void asks_and_holds_the_loop(const steady_result *result, void *data) {
    struct relay *relay = data;
    relay->tally.allowed += result->error == 0 && result->success;
    if (++relay->tally.called > 1) return;
    consume_counted(throttler, "k", 1, &relay->late);
    sleep_us(HELD_TIMEOUT + 100 * MS);
}

/* The server has answered, and the loop was held while the answers were processed: that is no silence of the server. */
static void request_that_a_held_loop_made_late_is_overloaded(void **state) {
    struct relay relay = {.server = -1};
    (void)state;
    const int listener = relay_start(&relay, HELD_TIMEOUT, asks_and_holds_the_loop);
    relay_reply(&relay);
    for (const steady_us end = now_us() + 5 * STEADY_SECOND; relay.tally.called == 0 && now_us() < end;)
        steady_poller_run(poller, MS);
    run_until_done(poller, &relay.late, 5 * STEADY_SECOND);
    assert_int_equal(relay.tally.allowed, AT_ONCE);
    assert_int_equal(relay.late.errors[-STEADY_OVERLOADED], 1);
    close(relay.server);
    close(listener);
}

/* Half of an unsolicited reply is not taken for the beginning of the next reply. */
static void half_an_unsolicited_reply_closes_the_connection(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},      {FAKE_EXPECT, 1, NULL, 0},      {FAKE_SEND, 0, ":1\r\n:7200", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0}, {FAKE_ACCEPT, 0, NULL, 0},      {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":2\r\n", 0},    {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    open_on(steps, COUNT(steps), "", "");
    assert_int_equal(client_ask(), 0);
    run_for(poller, 20 * MS);
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
    run_for(poller, 5 * TIMEOUT);
    assert_int_equal(client_ask(), 0);
    assert_non_null(strstr(log_lines.all, "does not answer"));
    client_close();
    assert_int_equal(fake_count(fake, "EVALSHA"), 2);
}

/* The most callbacks that one turn of the loop runs, until all have run. */
static unsigned long most_in_a_turn(const struct tally *tally) {
    unsigned long most = 0, before;
    for (const steady_us end = now_us() + 2 * STEADY_SECOND; (before = tally->called) < tally->submitted;) {
        assert_true(now_us() < end);
        steady_poller_run(poller, 10 * MS);
        if (tally->called - before > most) most = tally->called - before;
    }
    return most;
}

#define MANY 5000

/* The loop goes on in between, however many decisions fail at once. */
static void many_failures_at_once_are_spread_over_turns_of_the_loop(void **state) {
    static const struct fake_step late[] = {{FAKE_ACCEPT, 0, NULL, 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0}};
    static const struct fake_step lost[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, MANY / 2, NULL, 0}, {FAKE_RST, 0, NULL, 0}};
    struct tally tally[2] = {{0}, {0}};
    (void)state;
    for (int i = 0; i < 2; i++) {
        fake = fake_start(i == 0 ? late : lost, i == 0 ? COUNT(late) : COUNT(lost));
        open_at(fake_port(fake), "", "", i == 0 ? TIMEOUT : 5 * STEADY_SECOND);
        for (int n = 0; n < MANY; n++)
            consume_counted(throttler, "k", 1, &tally[i]);
        if (i == 0) sleep_us(TIMEOUT);
        assert_between(most_in_a_turn(&tally[i]), 1, 1100);
        close_all();
    }
    assert_int_equal(tally[0].errors[-STEADY_OVERLOADED] + tally[0].errors[-STEADY_UNKNOWN], MANY);
    assert_true(tally[1].errors[-STEADY_UNKNOWN] >= MANY / 2);
}

static void ask_again(const steady_result *result, void *data) {
    unsigned *times = data;
    if (result->error == STEADY_UNAVAILABLE && ++*times < 1000)
        assert_int_equal(steady_consume(throttler, "k", 1, 1, ask_again, data), 0);
}

/* A callback that calls again after each STEADY_UNAVAILABLE does not stop the loop. */
static void calls_from_failing_callbacks_do_not_stop_the_loop(void **state) {
    unsigned times = 0;
    (void)state;
    open_at(free_port(), "", "", TIMEOUT);
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
    assert_int_equal(steady_consume(throttler, "k", 1, 1, ask_again, &times), 0);
    for (int turn = 0; turn < 20 && times == 0; turn++)
        steady_poller_run(poller, MS);
    assert_between(times, 1, 3);
}

int main(void) {
#define WITH_POLLER(test) cmocka_unit_test_setup_teardown(test, client_set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_POLLER(new_connection_sends_only_auth_select_and_the_decision),
        WITH_POLLER(replies_that_arrive_byte_by_byte_are_read),
        WITH_POLLER(script_lost_twice_is_sent_whole),
        WITH_POLLER(script_never_found_is_unavailable_after_three_requests),
        WITH_POLLER(invalid_reply_closes_the_connection_and_is_unknown),
        WITH_POLLER(endless_error_line_closes_the_connection),
        WITH_POLLER(unsolicited_reply_closes_the_connection),
        WITH_POLLER(other_error_is_a_server_error_and_shown_without_the_key),
        WITH_POLLER(requests_unanswered_at_a_reset_are_unknown_and_not_sent_again),
        WITH_POLLER(silent_server_is_unknown_at_the_deadline),
        WITH_POLLER(full_server_is_unavailable_for_all_in_flight),
        WITH_POLLER(protected_mode_is_unavailable_and_retried_with_back_off),
        WITH_POLLER(unreachable_server_is_unavailable_at_the_deadline),
        WITH_POLLER(deadline_is_kept_in_a_callback_that_runs_the_loop),
        WITH_POLLER(requests_are_sent_while_many_replies_are_processed),
        WITH_POLLER(request_that_a_held_loop_made_late_is_overloaded),
        WITH_POLLER(half_an_unsolicited_reply_closes_the_connection),
        WITH_POLLER(many_failures_at_once_are_spread_over_turns_of_the_loop),
        WITH_POLLER(calls_from_failing_callbacks_do_not_stop_the_loop),
    };
    return cmocka_run_group_tests_name("connection", tests, NULL, NULL);
}
