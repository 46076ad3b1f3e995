/* SPDX-License-Identifier: MIT
 * A link against a server that does as it is told: what goes over the wire, and what no real server would do. */
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
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

static void test_nothing_but_what_is_needed(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 2, NULL, 0},   {FAKE_SEND, 0, "+OK\r\n+OK\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, ":1\r\n", 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    static const char head[] = "*3\r\n$4\r\nAUTH\r\n$3\r\na b\r\n$4\r\np@:/\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n"
                               "*5\r\n$7\r\nEVALSHA\r\n$40\r\n";
    static const char tail[] = "\r\n$1\r\n1\r\n$7\r\nsomekey\r\n$15\r\n10 3600000000 1\r\n";
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

static void test_replies_in_slices(void **state) {
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

static void test_lost_twice_is_sent_whole(void **state) {
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

/* Even a server that never finds the script is asked three times and no more. */
static void test_lost_for_ever(void **state) {
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

/* ---- Replies that are none ---- */

static void test_hostile_replies(void **state) {
    static const char *const replies[] = {
        "*4294967295\r\n",
        "*6\r\n",
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
        assert_true(tally.slowest < TIMEOUT);
        assert_non_null(strstr(log_lines.all, "no answer"));
        close_all();
    }
}

static void test_endless_error(void **state) {
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
    assert_true(strlen(steady_store_trouble(store)) < 100);
}

static void test_reply_that_nobody_asked_for(void **state) {
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
    run_for(poller, 100 * MS); /* left, and connected anew */
    consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.last.level, 3); /* not 2 */
}

static void test_other_errors_are_the_servers(void **state) {
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
    assert_string_equal(steady_store_trouble(store), "ERR unknown command 'EVALSHA'");
    assert_int_equal(client_ask(), STEADY_SERVER);
    assert_string_equal(steady_store_trouble(store), "ERR *** do not ***");
    assert_int_equal(client_ask(), 0);
}

/* ---- Connections that end ---- */

/* k of n are answered, then the connection is reset: what was written is never sent again. */
static void test_reset_after_some(void **state) {
    (void)state;
    for (int k = 0; k <= 8; k++) {
        char replies[128] = "";
        struct tally tally = {0};
        for (int i = 0; i < k; i++)
            strcat(replies, ":3600000000\r\n");
        const struct fake_step steps[] = {
            {FAKE_ACCEPT, 0, NULL, 0},   {FAKE_EXPECT, 8, NULL, 0},      {FAKE_SEND, 0, replies, 0},
            {FAKE_SLEEP, 10, NULL, 0}, /* a reset may overtake what was sent */
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
            unknown += error == STEADY_UNKNOWN;                    /* written, so it may have been seen, once */
        steady_store_close(&store);
        assert_between(fake_count(fake, "EVALSHA"), 9, 9 + unknown);
        close_all();
    }
}

static void test_silence(void **state) {
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
    assert_true(tally.slowest < TIMEOUT + SLACK);
    assert_non_null(strstr(log_lines.all, "does not answer"));
}

static void test_silence_after_auth(void **state) {
    static const struct fake_step steps[] = {{FAKE_ACCEPT, 0, NULL, 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0}};
    struct tally tally = {0};
    (void)state;
    open_on(steps, COUNT(steps), ":hunter2@", "");
    consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.last.error, STEADY_UNAVAILABLE); /* never written */
    assert_true(tally.slowest < TIMEOUT + SLACK);
    run_for(poller, 5 * TIMEOUT);
    assert_non_null(strstr(log_lines.all, "does not answer"));
}

static void test_greeting_refused(void **state) {
    static const char *const answers[] = {
        "-ERR unknown command 'AUTH', with args beginning with: 'hunter2' \r\n",
        "-WRONGPASS hunter2 is not it\r\n",
        "-hunter2\r\n",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        const struct fake_step steps[] = {
            {FAKE_ACCEPT, 0, NULL, 0},
            {FAKE_EXPECT, 1, NULL, 0},
            {FAKE_SEND, 0, answers[i], 0},
            {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        };
        open_on(steps, COUNT(steps), ":hunter2@", "");
        assert_int_equal(client_ask(), STEADY_REFUSED);
        assert_int_equal(client_ask(), STEADY_REFUSED); /* at once: it is known */
        assert_null(strstr(log_lines.all, "hunter2"));
        assert_null(strstr(steady_store_trouble(store), "hunter2"));
        close_all();
    }
}

/* A greeting of two requests goes out where one decision at a time is allowed. */
static void test_greeting_with_one_in_flight(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 2, NULL, 0},   {FAKE_SEND, 0, "+OK\r\n+OK\r\n", 0},
        {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, ":1\r\n", 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    char url[64];
    (void)state;
    fake = fake_start(steps, COUNT(steps));
    snprintf(url, sizeof url, "redis://:hunter2@127.0.0.1:%d/7", fake_port(fake));
    client_open_with(url,
                     (steady_store_options){.timeout = TIMEOUT, .max_in_flight = 1, .engine = STEADY_ENGINE_SCRIPT});
    assert_int_equal(client_ask(), 0);
}

static void test_greeting_answered_with_nonsense(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":1\r\n", 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    (void)state;
    open_on(steps, COUNT(steps), ":hunter2@", "");
    assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
}

/* The server read none of it, and says so. */
static void test_not_let_in(void **state) {
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

/* A server in protected mode reads nothing either, and says so in the first breath, asked or not. */
static void test_denied(void **state) {
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
    assert_non_null(strstr(steady_store_trouble(store), "DENIED"));
    steady_store_stats(store, &stats);
    assert_between(stats.reconnects, 3, 8); /* with backoff */
}

/* A full backlog drops SYNs: connecting takes for ever, the loop goes on, the decision ends. */
static void test_black_hole(void **state) {
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
    assert_between(tally.slowest, TIMEOUT, TIMEOUT + SLACK);
    run_for(poller, 4 * TIMEOUT); /* the attempt is given up, and it is known to be down */
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

/* The loop was away, so the replies that came meanwhile are looked for; one of them has a callback that runs the loop,
 * and there, too, deadlines are kept. */
static void test_late_reply_and_a_deadline(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 3, NULL, 0},   {FAKE_SEND, 0, ":1\r\n", 0},
        {FAKE_SLEEP, 50, NULL, 0}, {FAKE_SEND, 0, ":2\r\n", 0}, {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct tally tally = {0};
    (void)state;
    last_ended_at = 0;
    open_on(steps, COUNT(steps), "", "");
    const steady_us begin = now_us();
    assert_int_equal(steady_consume(throttler, "a", 1, 1, blocks, expect_result(&tally)), 0);
    assert_int_equal(steady_consume(throttler, "b", 1, 1, runs_the_loop, expect_result(&tally)), 0);
    assert_int_equal(steady_consume(throttler, "c", 1, 1, ends_last, expect_result(&tally)), 0);
    run_until_done(poller, &tally, STEADY_SECOND);
    assert_true(tally.verdicts == 2 && tally.errors[-STEADY_UNKNOWN] == 1);
    assert_between(last_ended_at - begin, 2 * TIMEOUT, 2 * TIMEOUT + SLACK);
}

/* Half a reply that nobody asked for is not the beginning of the answer to what is asked next. */
static void test_half_a_reply_that_nobody_asked_for(void **state) {
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

/* How many are called back by one turn of the loop, at most, until all are. */
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

/* The loop goes on in between, however many fail at once. */
static void test_many_fail_at_once(void **state) {
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

/* One who asks again in the callback, as often as he is told that there is no server, does not stop the loop. */
static void test_asking_again_and_again(void **state) {
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
        WITH_POLLER(test_nothing_but_what_is_needed),
        WITH_POLLER(test_replies_in_slices),
        WITH_POLLER(test_lost_twice_is_sent_whole),
        WITH_POLLER(test_lost_for_ever),
        WITH_POLLER(test_hostile_replies),
        WITH_POLLER(test_endless_error),
        WITH_POLLER(test_reply_that_nobody_asked_for),
        WITH_POLLER(test_other_errors_are_the_servers),
        WITH_POLLER(test_reset_after_some),
        WITH_POLLER(test_silence),
        WITH_POLLER(test_silence_after_auth),
        WITH_POLLER(test_greeting_refused),
        WITH_POLLER(test_greeting_with_one_in_flight),
        WITH_POLLER(test_greeting_answered_with_nonsense),
        WITH_POLLER(test_not_let_in),
        WITH_POLLER(test_denied),
        WITH_POLLER(test_black_hole),
        WITH_POLLER(test_late_reply_and_a_deadline),
        WITH_POLLER(test_half_a_reply_that_nobody_asked_for),
        WITH_POLLER(test_many_fail_at_once),
        WITH_POLLER(test_asking_again_and_again),
    };
    return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
