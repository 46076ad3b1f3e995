/* SPDX-License-Identifier: MIT
 * With a million decisions in flight, each turn of the loop is short: when they are sent, when the server is lost, when
 * they expire, and on the embedded store. */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MANY 50000
#define MOST (100 * STEADY_MILLISECOND)
#else
#define MANY 1000000
#define MOST (5 * STEADY_MILLISECOND)
#endif
#define VERDICT ":3600000000\r\n"

static steady_poller *poller;
static steady_store *store;
static steady_throttler *throttler;
static pid_t server;
static unsigned long called, errors;
static steady_us longest; /* turn, in CPU time of this thread, so that other processes do not count */

static steady_us worked(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

static void note(steady_us took) {
    if (took > longest) longest = took;
}

static bool turn(steady_us wait) {
    const steady_us begin = worked();
    const int ran = steady_poller_run(poller, wait);
    note(worked() - begin);
    assert_true(ran >= 0);
    return ran > 0;
}

static void answered(const steady_result *result, void *data) {
    (void)data;
    called++;
    errors += result->error != 0;
}

/* ---- A server that answers once, and then reads or does not read ---- */

static void serve(int listener, bool reads) {
    static char bytes[1 << 20];
    const int fd = accept(listener, NULL, NULL);
    if (read(fd, bytes, sizeof bytes) <= 0 || write(fd, VERDICT, strlen(VERDICT)) < 0) _exit(1);
    while (!reads)
        pause();
    while (read(fd, bytes, sizeof bytes) > 0)
        ;
    pause();
}

/* Returns its port. */
static int start_server(bool reads) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(bind(listener, (struct sockaddr *)&at, sizeof at), errno);
    assert_return_code(listen(listener, 16), errno);
    assert_return_code(getsockname(listener, (struct sockaddr *)&at, &len), errno);
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(listener, reads);
        _exit(0);
    }
    close(listener);
    return ntohs(at.sin_port);
}

static void kill_server(void) {
    if (server == 0) return;
    kill(server, SIGKILL);
    assert_int_equal(waitpid(server, NULL, 0), server);
    server = 0;
}

/* ---- Scenes ---- */

static void end_scene(void) {
    kill_server();
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    steady_poller_free(&poller);
}

static int tear_down(void **state) {
    (void)state;
    end_scene();
    return 0;
}

/* The machine may stall now and then, so all turns must be short in one of three runs. */
static void assert_short_turns(void (*scene)(void)) {
    for (int i = 0; i < 3; i++) {
        called = errors = 0;
        longest = 0;
        assert_int_equal(steady_poller_new(&poller), 0);
        scene();
        end_scene();
        print_message("# the longest turn took %lld us\n", (long long)longest);
        if (longest <= MOST) return;
    }
    fail_msg("each time a turn took over %lld us", (long long)MOST);
}

static void open_at(const char *url, steady_us timeout) {
    const steady_loop loop = steady_poller_loop(poller);
    const steady_store_options options = {
        .loop = &loop, .timeout = timeout, .max_in_flight = MANY, .engine = STEADY_ENGINE_SCRIPT};
    store = open_store(url, &options);
    throttler = new_throttler(store, 1000000, HOUR);
}

static void open_at_port(int port, steady_us timeout) {
    char url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", port);
    open_at(url, timeout);
}

static void ask(unsigned long count) {
    for (unsigned long i = 0; i < count; i++)
        assert_int_equal(steady_consume(throttler, "key", 3, 1, answered, NULL), 0);
}

static void ask_first(void) {
    ask(1);
    while (called < 1)
        assert_true(steady_poller_run(poller, STEADY_SECOND) >= 0);
    assert_int_equal(errors, 0);
    called = 0;
}

static void turn_until_done(unsigned long all) {
    const steady_us until = now_us() + 60 * STEADY_SECOND;
    while (called < all && now_us() < until)
        turn(STEADY_SECOND);
    assert_int_equal(called, all);
}

/* The server answers nothing but the first decision. It has read the others, or not. */
static void lose_many(bool reads) {
    open_at_port(start_server(reads), 1000 * STEADY_SECOND);
    ask_first();
    ask(MANY);
    while (turn(100 * STEADY_MILLISECOND))
        ;
    assert_int_equal(called, 0);
    kill_server();
    turn_until_done(MANY);
    assert_int_equal(errors, MANY);
}

static void lose_many_sent(void) { lose_many(true); }
static void lose_many_waiting(void) { lose_many(false); }

static void many_sent_decisions_lost_at_once_keep_turns_short(void **state) {
    (void)state;
    assert_short_turns(lose_many_sent);
}

static void many_waiting_decisions_lost_at_once_keep_turns_short(void **state) {
    (void)state;
    assert_short_turns(lose_many_waiting);
}

static void ask_no_server(void) {
    open_at_port(free_port(), 1000 * STEADY_SECOND);
    ask(MANY);
    turn_until_done(MANY);
    assert_int_equal(errors, MANY);
}

static void many_decisions_without_a_server_keep_turns_short(void **state) {
    (void)state;
    assert_short_turns(ask_no_server);
}

static void let_many_be_late(void) {
    open_at_port(start_server(false), 2 * STEADY_SECOND);
    ask_first();
    ask(MANY);
    turn_until_done(MANY);
    assert_int_equal(errors, MANY);
}

static void many_expired_decisions_keep_turns_short(void **state) {
    (void)state;
    assert_short_turns(let_many_be_late);
}

static void ask_the_embedded_store(void) {
    open_at("memory:", 0);
    for (int i = 0; i < MANY; i++) {
        const steady_us begin = worked();
        ask(1);
        note(worked() - begin);
    }
    turn_until_done(MANY);
    assert_int_equal(errors, 0);
}

static void many_decisions_of_the_embedded_store_keep_turns_short(void **state) {
    (void)state;
    assert_short_turns(ask_the_embedded_store);
}

#define TEST(function) cmocka_unit_test_teardown(function, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(many_sent_decisions_lost_at_once_keep_turns_short),
        TEST(many_waiting_decisions_lost_at_once_keep_turns_short),
        TEST(many_decisions_without_a_server_keep_turns_short),
        TEST(many_expired_decisions_keep_turns_short),
        TEST(many_decisions_of_the_embedded_store_keep_turns_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
