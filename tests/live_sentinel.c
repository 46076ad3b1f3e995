/* SPDX-License-Identifier: MIT
 * The primary is found through its sentinels: some are down, silent or send nonsense; sentinels with credentials;
 * the error if no sentinel can help. */
#include "support.h"

#include <stdlib.h>

#include "fake_server.h"
#include "sentinels.h"

#define MS STEADY_MILLISECOND
#define TIMEOUT (200 * MS)

static struct server server, sentinel;
static steady_poller *poller;
static steady_loop loop;
static struct log_lines log_lines;
static steady_store *store;
static steady_throttler *throttler;

static int start_servers(void **state) {
    char conf[256];
    (void)state;
    server_start(&server, NULL);
    snprintf(conf, sizeof conf, "user probe on >speak -@all +sentinel|get-master-addr-by-name\n");
    sentinel_start(&sentinel, server.port, conf);
    return 0;
}

static int stop_servers(void **state) {
    (void)state;
    server_stop(&sentinel);
    server_stop(&server);
    return 0;
}

static int set_up(void **state) {
    (void)state;
    memset(&log_lines, 0, sizeof log_lines);
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    return 0;
}

static void close_all(void) {
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static int tear_down(void **state) {
    (void)state;
    close_all();
    steady_poller_free(&poller);
    return 0;
}

static void open_at(const char *url) {
    const steady_store_options options = {
        .loop = &loop, .timeout = TIMEOUT, .log = remember_line, .log_data = &log_lines};
    store = open_store(url, &options);
    throttler = new_throttler(store, 1000, HOUR);
}

static int ask_one(void) {
    struct tally tally = {0};
    consume_counted(throttler, "k", 1, &tally);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    return tally.last.error;
}

/* The first sentinel is chosen at random, so the test runs often enough to begin at each. */
static void useless_sentinels_are_passed_over(void **state) {
    static const struct fake_step nonsense[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, "HTTP/1.1 400 Bad Request\r\n\r\n", 0},
        {FAKE_CLOSE, 0, NULL, 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    char url[256];
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct fake_server *garbage = fake_start(nonsense, COUNT(nonsense)), *mute = fake_start(NULL, 0);
        snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d/main",
                 free_port(), fake_port(garbage), fake_port(mute), sentinel.port);
        open_at(url);
        const steady_us begin = now_us();
        int error;
        while ((error = ask_one()) != 0)
            if (now_us() - begin > 3 * STEADY_SECOND) fail_msg("%d: %s", error, last_error_of(store));
        close_all();
        fake_stop(garbage);
        fake_stop(mute);
    }
}

static void blocking_call_finds_the_primary(void **state) {
    char url[256];
    steady_result r;
    (void)state;
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d,127.0.0.1:%d/main/3", free_port(), sentinel.port);
    for (int i = 0; i < 4; i++) {
        store = open_store(url, NULL);
        throttler = new_throttler(store, 1000, HOUR);
        const steady_us begin = now_us();
        while (steady_consume_sync(throttler, "sync", 4, 1, &r) != 0)
            if (now_us() - begin > STEADY_SECOND) fail_msg("%s", last_error_of(store));
        close_all();
    }
    assert_string_equal(server_ask(&server, "GET sync"), "(nil)"); /* the key is in database 3 */
}

/* A sentinel may be given by name, and a service may have any name. */
static void sentinel_is_found_by_name_and_credentials_are_sent(void **state) {
    char url[256];
    (void)state;
    server_ask(&server, "ACL SETUSER app on >sesame ~* -@all +evalsha +script|load +get +set +del +time +role");
    snprintf(url, sizeof url, "redis+sentinel://app:sesame@localhost:%d/ma%%69n?" SENTINEL_USER, sentinel.port);
    open_at(url);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(log_lines.lines, 0);
}

/* A user without the right to ROLE is served all the same. */
static void user_without_role_is_served(void **state) {
    char url[256];
    (void)state;
    server_ask(&server, "ACL SETUSER least on >sesame ~* -@all +evalsha +script|load +get +set +del +time");
    snprintf(url, sizeof url, "redis+sentinel://least:sesame@127.0.0.1:%d/main", sentinel.port);
    open_at(url);
    assert_int_equal(ask_one(), 0);
}

static void assert_trouble(const char *url, int error, const char *says) {
    memset(&log_lines, 0, sizeof log_lines);
    open_at(url);
    assert_int_equal(ask_one(), error);
    const char *trouble = last_error_of(store);
    if (strstr(trouble, says) == NULL) fail_msg("%s: \"%s\" does not say \"%s\"", url, trouble, says);
    assert_null(strstr(trouble, "hunter2"));
    const steady_us begin = now_us();
    assert_int_equal(ask_one(), error); /* at once: the store knows the error */
    assert_true(now_us() - begin < TIMEOUT / 2);
    run_for(poller, 700 * MS);
    assert_int_equal(log_lines.lines, 1);
    assert_null(strstr(log_lines.all, "hunter2"));
    print_message("  %s", log_lines.all);
    close_all();
}

static void error_says_what_is_wrong(void **state) {
    char url[256];
    (void)state;
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d,127.0.0.1:%d/main", free_port(), free_port());
    assert_trouble(url, STEADY_UNAVAILABLE, "Connection refused");
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d,127.0.0.1:%d/other", sentinel.port, free_port());
    assert_trouble(url, STEADY_UNAVAILABLE, "does not know this service");
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/main", server.port);
    assert_trouble(url, STEADY_UNAVAILABLE, "unknown command 'SENTINEL'");
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/main?sentinel_username=probe&sentinel_password=hunter2",
             sentinel.port);
    assert_trouble(url, STEADY_REFUSED, "WRONGPASS");
    snprintf(url, sizeof url, "redis+sentinel://app:hunter2@127.0.0.1:%d/main", sentinel.port);
    assert_trouble(url, STEADY_REFUSED, "WRONGPASS");
}

static void sentinel_password_is_sent(void **state) {
    struct server closed;
    char url[256];
    (void)state;
    sentinel_start(&closed, server.port, "user default on >speak +@all\n");
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/main", closed.port);
    assert_trouble(url, STEADY_REFUSED, "NOAUTH");
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/main?sentinel_password=speak", closed.port);
    open_at(url);
    assert_int_equal(ask_one(), 0);
    server_stop(&closed);
}

/* The sentinels come back and are asked again. */
static void sentinels_are_asked_again_after_an_outage(void **state) {
    char url[256];
    (void)state;
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/main", sentinel.port);
    open_at(url);
    assert_int_equal(ask_one(), 0);
    server_kill(&sentinel);
    run_for(poller, 600 * MS);
    assert_int_equal(ask_one(), 0); /* sentinels are not needed while the primary is connected */
    assert_int_equal(log_lines.lines, 0);
    server_ask(&server, "CLIENT KILL TYPE normal SKIPME yes");
    run_for(poller, 100 * MS);
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
    sentinel_restart(&sentinel);
    const steady_us back = now_us();
    while (ask_one() != 0)
        if (now_us() - back > STEADY_SECOND) fail_msg("%s", last_error_of(store));
    assert_int_equal(log_lines.lines, 2);
}

int main(void) {
#define WITH_POLLER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_POLLER(useless_sentinels_are_passed_over),
        WITH_POLLER(blocking_call_finds_the_primary),
        WITH_POLLER(sentinel_is_found_by_name_and_credentials_are_sent),
        WITH_POLLER(user_without_role_is_served),
        WITH_POLLER(error_says_what_is_wrong),
        WITH_POLLER(sentinel_password_is_sent),
        WITH_POLLER(sentinels_are_asked_again_after_an_outage),
    };
    return cmocka_run_group_tests_name("sentinel", tests, start_servers, stop_servers);
}
