/* SPDX-License-Identifier: MIT
 * A store on a client of the caller, through <steady/client.h> alone: a socket, a queue of requests, and a small parser
 * of replies. The client hands replies back at once, later, in another order, or not at all. */
#include "steady/client.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support.h"

#define TIMEOUT (200 * STEADY_MILLISECOND)
#define QUEUE 64

static struct server server;

static struct act {
    int fd;
    void *io;
    steady_client_request *queue[QUEUE]; /* in the order of send */
    int queued;
    bool refuses; /* send fails */
    unsigned detached;
    char bytes[8192];
    size_t len;
    steady_poller *poller;
    steady_loop loop;
    steady_store *store;
    steady_throttler *throttler;
    struct log_lines log;
} act;

/* ---- The client ---- */

static steady_client_request *shift(void) {
    steady_client_request *request = act.queue[0];
    assert_true(act.queued > 0);
    memmove(act.queue, act.queue + 1, (size_t)--act.queued * sizeof *act.queue);
    return request;
}

/* The length of one line with its end, 0 if it is not complete. */
static size_t line_len(const char *at, size_t len) {
    const char *end = memchr(at, '\n', len);
    return end != NULL ? (size_t)(end - at) + 1 : 0;
}

/* Hands back the first reply in act.bytes, and returns its length; 0: not complete. */
static size_t hand_back(void) {
    int64_t values[8];
    size_t at = line_len(act.bytes, act.len);
    if (at == 0) return 0;
    const long long number = strtoll(act.bytes + 1, NULL, 10);
    switch (act.bytes[0]) {
    case ':': steady_client_reply_integers(shift(), &(int64_t){number}, 1); return at;
    case '-': steady_client_reply_error(shift(), act.bytes + 1, at - 3); return at;
    case '+': steady_client_reply_text(shift(), act.bytes + 1, at - 3); return at;
    case '$':
        if (act.len < at + (size_t)number + 2) return 0;
        steady_client_reply_text(shift(), act.bytes + at, (size_t)number);
        return at + (size_t)number + 2;
    default: assert_int_equal(act.bytes[0], '*');
    }
    for (long long i = 0; i < number; i++) {
        const size_t line = line_len(act.bytes + at, act.len - at);
        if (line == 0) return 0;
        assert_int_equal(act.bytes[at], ':');
        values[i] = strtoll(act.bytes + at + 1, NULL, 10);
        at += line;
    }
    steady_client_reply_integers(shift(), values, (size_t)number);
    return at;
}

static void readable(void *arg, int events) {
    (void)arg;
    (void)events;
    const ssize_t n = recv(act.fd, act.bytes + act.len, sizeof act.bytes - act.len, MSG_DONTWAIT);
    assert_true(n > 0);
    act.len += (size_t)n;
    for (size_t done; act.len > 0 && (done = hand_back()) > 0; act.len -= done)
        memmove(act.bytes, act.bytes + done, act.len - done);
}

static int send_command(void *client, const char *command, size_t len, steady_client_request *request,
                        steady_message *why) {
    assert_ptr_equal(client, &act);
    assert_int_equal(act.detached, 0);
    if (act.refuses || act.queued == QUEUE) {
        snprintf(why->text, sizeof why->text, "the queue is full");
        return STEADY_UNAVAILABLE;
    }
    assert_int_equal(send(act.fd, command, len, MSG_NOSIGNAL), (ssize_t)len);
    act.queue[act.queued++] = request;
    return 0;
}

static void detach(void *client) {
    assert_ptr_equal(client, &act);
    act.detached++;
}

static const steady_client_ops ops = {.name = "a client of this test", .send = send_command, .detach = detach};

/* ---- Set up ---- */

static void open_act(steady_store_options options) {
    const struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)server.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    steady_message why = {.text = ""};
    act = (struct act){.fd = socket(AF_INET, SOCK_STREAM, 0)};
    assert_int_equal(connect(act.fd, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(steady_poller_new(&act.poller), 0);
    act.loop = steady_poller_loop(act.poller);
    act.io = act.loop.ops->io_new(act.loop.loop, act.fd, readable, NULL);
    assert_int_equal(act.loop.ops->io_want(act.io, STEADY_READABLE), 0);
    options.loop = &act.loop;
    options.timeout = TIMEOUT;
    options.log = remember_line;
    options.log_data = &act.log;
    if (steady_store_open_client(&act.store, &ops, &act, &options, &why) != 0) fail_msg("%s", why.text);
    act.throttler = new_throttler(act.store, 1000, HOUR);
}

/* While it is kept from reading, the test hands back what is in the queue. */
static void keep(bool keeps) { act.loop.ops->io_want(act.io, keeps ? 0 : STEADY_READABLE); }

static void close_act(void) {
    steady_store_close(&act.store);
    steady_throttler_free(&act.throttler);
    assert_int_equal(act.detached, 1);
    while (act.queued > 0)
        steady_client_lost(shift(), true);
    act.loop.ops->io_free(act.io);
    steady_poller_free(&act.poller);
    close(act.fd);
}

static void consume_many(int count, struct tally *tally) {
    for (int i = 0; i < count; i++)
        consume_counted(act.throttler, "k", 1, tally);
}

static void consume_and_wait(int count, struct tally *tally) {
    consume_many(count, tally);
    run_until_done(act.poller, tally, 5 * STEADY_SECOND);
}

static int flush(void **state) {
    (void)state;
    server_ask(&server, "FLUSHALL");
    server_ask(&server, "SCRIPT FLUSH");
    return 0;
}

/* ---- Tests ---- */

/* SCRIPT LOAD is a text, NOSCRIPT an error, a decision an integer, a blocked key four of them. */
static void decisions_are_made_with_each_shape_of_reply(void **state) {
    (void)state;
    struct tally tally = {0};
    open_act((steady_store_options){0});
    consume_and_wait(20, &tally);
    assert_int_equal(tally.allowed, 20);
    assert_int_equal(tally.last.level, 20);
    const steady_limit blocking = {.max_capacity = 1, .drop_recharge = HOUR, .block_duration = HOUR};
    steady_throttler_free(&act.throttler);
    assert_int_equal(steady_throttler_new(&act.throttler, act.store, &blocking, NULL, NULL), 0);
    consume_and_wait(1, &tally);
    assert_int_equal(tally.denied, 1);
    assert_true(tally.last.blocked_for > 0);
    close_act();
}

static void reply_after_the_timeout_is_taken_and_changes_nothing(void **state) {
    (void)state;
    struct tally tally = {0};
    open_act((steady_store_options){0});
    consume_and_wait(1, &tally);
    keep(true);
    consume_and_wait(3, &tally);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 3);
    assert_int_equal(act.queued, 3);
    keep(false);
    consume_and_wait(1, &tally);
    assert_int_equal(tally.allowed, 2);
    assert_int_equal(tally.last.level, 5);
    assert_int_equal(act.queued, 0);
    close_act();
}

static void requests_that_the_client_keeps_are_limited(void **state) {
    (void)state;
    struct tally tally = {0};
    open_act((steady_store_options){.max_in_flight = 5});
    keep(true);
    consume_and_wait(5, &tally);
    consume_and_wait(1, &tally);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 5);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 1);
    assert_non_null(strstr(last_error_of(act.store), "owes 5 replies"));
    close_act();
}

static void request_is_valid_after_the_store_is_closed(void **state) {
    (void)state;
    struct tally tally = {0};
    open_act((steady_store_options){0});
    consume_many(3, &tally);
    steady_store_close(&act.store);
    assert_int_equal(tally.errors[-STEADY_CANCELLED], 3);
    assert_int_equal(act.detached, 1);
    steady_client_reply_integers(shift(), &(int64_t){1}, 1);
    steady_client_reply_error(shift(), "ERR no", 6);
    close_act();
}

static void lost_request_is_unknown_only_if_it_was_sent(void **state) {
    (void)state;
    struct tally tally = {0};
    open_act((steady_store_options){0});
    keep(true);
    consume_many(2, &tally);
    steady_client_lost(shift(), true);
    steady_client_lost(shift(), false);
    run_until_done(act.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 1);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 1);
    close_act();
}

static void send_that_fails_is_unavailable_with_its_reason(void **state) {
    (void)state;
    struct tally tally = {0};
    open_act((steady_store_options){0});
    act.refuses = true;
    consume_and_wait(2, &tally);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 2);
    assert_string_equal(last_error_of(act.store), "the queue is full");
    act.refuses = false;
    consume_and_wait(1, &tally);
    assert_int_equal(tally.allowed, 1);
    close_act();
}

static void client_that_is_gone_is_sent_nothing(void **state) {
    (void)state;
    struct tally tally = {0};
    open_act((steady_store_options){0});
    steady_client_gone(act.store, "the radio is off");
    act.refuses = true;
    consume_and_wait(2, &tally);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 2);
    assert_string_equal(last_error_of(act.store), "the radio is off");
    assert_string_equal(act.log.all, "the radio is off\n");
    assert_int_equal(act.detached, 0);
    close_act();
}

static void reply_that_fits_no_command_detaches_the_client(void **state) {
    (void)state;
    struct tally tally = {0};
    open_act((steady_store_options){.engine = STEADY_ENGINE_SCRIPT});
    keep(true);
    consume_many(3, &tally);
    steady_client_reply_integers(shift(), (const int64_t[6]){0}, 6);
    assert_int_equal(act.detached, 1);
    steady_client_reply_integers(shift(), &(int64_t){1}, 1); /* it may belong to another request */
    consume_and_wait(1, &tally);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 3);
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], 1);
    assert_int_equal(act.log.warnings, 1);
    close_act();
}

static void close_in_log(void *data, enum steady_log_level level, const char *text) {
    remember_line(data, level, text);
    steady_store_close(&act.store);
}

static void log_may_close_the_store(void **state) {
    (void)state;
    struct tally tally = {0};
    for (int gone = 0; gone < 2; gone++) {
        struct log_lines lines = {0};
        open_act((steady_store_options){0});
        steady_throttler_free(&act.throttler);
        steady_store_close(&act.store);
        act.detached = 0;
        const steady_store_options options = {.loop = &act.loop, .log = close_in_log, .log_data = &lines};
        assert_int_equal(steady_store_open_client(&act.store, &ops, &act, &options, NULL), 0);
        act.throttler = new_throttler(act.store, 1000, HOUR);
        consume_many(2, &tally);
        if (gone)
            steady_client_gone(act.store, "gone");
        else
            steady_client_reply_text(shift(), "what?", 5);
        assert_null(act.store);
        assert_int_equal(lines.lines, 1);
        close_act();
    }
    assert_int_equal(tally.called, tally.submitted);
}

static void state_is_down_once_the_client_is_gone(void **state) {
    (void)state;
    struct tally tally = {0};
    open_act((steady_store_options){0});
    assert_int_equal(steady_store_state(act.store), STEADY_CONNECTING);
    consume_and_wait(1, &tally);
    assert_int_equal(steady_store_state(act.store), STEADY_READY);
    keep(true);
    consume_many(1, &tally);
    run_for(act.poller, 20 * STEADY_MILLISECOND);
    assert_int_equal(act.queued, 1);
    steady_client_gone(act.store, "the radio is off");
    assert_int_equal(steady_store_state(act.store), STEADY_DOWN);
    keep(false); /* a reply that was on its way */
    run_until_done(act.poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 2);
    assert_int_equal(steady_store_state(act.store), STEADY_DOWN);
    close_act();
}

static void never(const steady_result *result, void *data) {
    (void)result;
    (void)data;
    fail_msg("a cancelled decision called back");
}

/* The client hands back the reply of a cancelled request as it does others. The server has charged the drop. */
static void cancelled_decision_runs_no_callback_and_its_reply_is_taken(void **state) {
    (void)state;
    const steady_call call = {.verb = STEADY_CONSUME, .key = "k", .key_len = 1, .amount = 1};
    struct tally tally = {0};
    uint64_t id = 0;
    open_act((steady_store_options){0});
    consume_and_wait(1, &tally); /* the script is there */
    assert_int_equal(steady_decide(act.throttler, &call, never, NULL, &id), 0);
    consume_many(1, &tally); /* both are with the client once the loop has run */
    keep(true);
    run_for(act.poller, 20 * STEADY_MILLISECOND);
    assert_int_equal(act.queued, 2);
    assert_int_equal(steady_cancel(act.throttler, id), 0);
    assert_int_equal(steady_cancel(act.throttler, id), STEADY_NOT_IN_FLIGHT);
    keep(false);
    run_until_done(act.poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 2);
    assert_int_equal(tally.last.level, 3);
    assert_int_equal(act.queued, 0);
    close_act();
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    steady_poller *poller = NULL;
    steady_store *store = (steady_store *)(uintptr_t)1;
    steady_message why = {.text = ""};
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    const steady_tls_options tls = {0};
    const steady_store_options options = {.loop = &loop}, without_loop = {.timeout = 0},
                               with_tls = {.loop = &loop, .tls = &tls}, bad_timeout = {.loop = &loop, .timeout = -1};
    const steady_client_ops bad[] = {
        {.name = "x", .send = send_command},
        {.name = "x", .detach = detach},
        {.send = send_command, .detach = detach},
        {.name = "x", .send = send_command, .detach = detach, .reserved = {NULL, NULL, NULL, abort}}};
    assert_int_equal(steady_store_open_client(NULL, &ops, &act, &options, &why), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_store_open_client(&store, NULL, &act, &options, &why), STEADY_BAD_ARGUMENT);
    assert_null(store);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(steady_store_open_client(&store, &bad[i], &act, &options, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "reserved"));
    assert_int_equal(steady_store_open_client(&store, &ops, &act, NULL, &why), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_store_open_client(&store, &ops, &act, &without_loop, &why), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "loop is NULL; set it to the loop of a client of this test");
    assert_int_equal(steady_store_open_client(&store, &ops, &act, &with_tls, &why), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "TLS options are set; set TLS in a client of this test instead");
    assert_int_equal(steady_store_open_client(&store, &ops, &act, &bad_timeout, &why), STEADY_BAD_ARGUMENT);
    steady_poller_free(&poller);
}

static int group_set_up(void **state) {
    (void)state;
    server_start(&server, NULL);
    return 0;
}

static int group_tear_down(void **state) {
    (void)state;
    server_stop(&server);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(decisions_are_made_with_each_shape_of_reply, flush),
        cmocka_unit_test_setup(reply_after_the_timeout_is_taken_and_changes_nothing, flush),
        cmocka_unit_test_setup(requests_that_the_client_keeps_are_limited, flush),
        cmocka_unit_test_setup(request_is_valid_after_the_store_is_closed, flush),
        cmocka_unit_test_setup(lost_request_is_unknown_only_if_it_was_sent, flush),
        cmocka_unit_test_setup(send_that_fails_is_unavailable_with_its_reason, flush),
        cmocka_unit_test_setup(client_that_is_gone_is_sent_nothing, flush),
        cmocka_unit_test_setup(reply_that_fits_no_command_detaches_the_client, flush),
        cmocka_unit_test_setup(log_may_close_the_store, flush),
        cmocka_unit_test_setup(state_is_down_once_the_client_is_gone, flush),
        cmocka_unit_test_setup(cancelled_decision_runs_no_callback_and_its_reply_is_taken, flush),
        cmocka_unit_test(bad_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, group_set_up, group_tear_down);
}
