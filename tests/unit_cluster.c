/* SPDX-License-Identifier: MIT
 * The Redis store on nodes that do as they are told: redirects of every kind, maps of every kind, and nodes that are
 * silent, gone or out of their minds. */
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_node.h"
#include "slots.h"

#define MS STEADY_MILLISECOND
#define TIMEOUT (200 * MS)
#define KEY "somekey"
#define VERDICT ":1\r\n"

static steady_poller *poller;
static steady_loop loop;
static struct fake_node *a, *b;
static steady_us timeout; /* long, but where a deadline matters */
static steady_store *store;
static steady_throttler *throttler;
static char text[8][512]; /* what nodes say has to stay */
static const char nobody[] = "*0\r\n";

static int set_up(void **state) {
    (void)state;
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    timeout = 5 * STEADY_SECOND;
    a = fake_node_start(false);
    b = fake_node_start(false);
    fake_node_says(a, "CLUSTER", nobody, 0, 0);
    fake_node_says(b, "CLUSTER", nobody, 0, 0);
    fake_node_says(b, "EVALSHA", VERDICT, 0, 0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    steady_poller_free(&poller);
    fake_node_stop(a);
    fake_node_stop(b);
    return 0;
}

static void open_with(const char *credentials) {
    char url[128];
    const steady_store_options options = {.loop = &loop, .timeout = timeout, .engine = STEADY_ENGINE_SCRIPT};
    snprintf(url, sizeof url, "redis://%s127.0.0.1:%d", credentials, fake_node_port(a));
    store = open_store(url, &options);
    throttler = new_throttler(store, 10, HOUR);
}

static int ask(const char *key) {
    struct tally tally = {0};
    consume_counted(throttler, key, 1, &tally);
    run_until_done(poller, &tally, 10 * STEADY_SECOND);
    return tally.last.error;
}

static const char *redirect(int number, const char *word, const char *host, int port) {
    snprintf(text[number], sizeof text[number], "-%s %u %s:%d\r\n", word, steady__slot_of(KEY, strlen(KEY)), host,
             port);
    return text[number];
}

/* All slots, or one half each. */
static const char *map_of(int number, const struct fake_node *low, const struct fake_node *high) {
    snprintf(text[number], sizeof text[number],
             "*2\r\n*3\r\n:0\r\n:8191\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$2\r\nid\r\n"
             "*3\r\n:8192\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$2\r\nid\r\n",
             fake_node_port(low), fake_node_port(high));
    return text[number];
}

static unsigned heard(const char *word) { return fake_node_heard(a, word) + fake_node_heard(b, word); }

static void await_heard(const char *word, unsigned times) {
    const steady_us until = now_us() + 2 * STEADY_SECOND;
    while (heard(word) < times && now_us() < until)
        run_for(poller, 5 * MS);
    assert_int_equal(heard(word), times);
    run_for(poller, 20 * MS); /* the reply */
}

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

static void test_map_is_used(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    fake_node_says(a, "CLUSTER", map_of(1, a, b), 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, a, b), 0, 0);
    open_with("");
    ask(KEY);
    await_heard("CLUSTER", 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    const unsigned at_a = fake_node_heard(a, "EVALSHA"), at_b = fake_node_heard(b, "EVALSHA");
    unsigned low = 0;
    for (int i = 0; i < 100; i++) {
        char key[16];
        const int len = snprintf(key, sizeof key, "k%d", i);
        if (steady__slot_of(key, (size_t)len) < 8192) low++;
        assert_int_equal(ask(key), 0);
    }
    assert_int_equal(fake_node_heard(a, "EVALSHA") - at_a, low);
    assert_int_equal(fake_node_heard(b, "EVALSHA") - at_b, 100 - low);
    assert_int_equal(heard("CLUSTER"), 1);
    steady_stats stats;
    steady_store_stats(store, &stats);
    assert_int_equal(stats.reconnects, 0);
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

/* However many are told at once, the map is asked for once. */
static void test_one_inquiry_at_a_time(void **state) {
    struct tally tally = {0};
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    fake_node_says(a, "CLUSTER", map_of(1, b, b), 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, b, b), 0, 0);
    open_with("");
    for (int i = 0; i < 1000; i++)
        consume_counted(throttler, KEY, 1, &tally);
    run_until_done(poller, &tally, 10 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 1000);
    await_heard("CLUSTER", 1);
    for (int i = 0; i < 200 && fake_node_open(a) > 0; i++) /* which has no slot, and no connection any more */
        run_for(poller, 10 * MS);
    assert_int_equal(fake_node_open(a), 0);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(heard("CLUSTER"), 1);
}

/* Not to be followed: the decision ends, the map is asked for, and all is as before. */
static void test_redirects_that_make_no_sense(void **state) {
    const unsigned slot = steady__slot_of(KEY, strlen(KEY));
    static char long_host[4400];
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

/* Many at once: each ASKING directly before its command, and its reply nobody else's. */
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
    assert_in_range(tally.slowest, TIMEOUT, TIMEOUT + SLACK);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask("otherkey"), 0);
    for (size_t i = 0; i < COUNT(fillers); i++)
        close(fillers[i]);
    close(listener);
}

/* What was written and not answered is not sent again, to nobody. */
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

/* ---- The map ---- */

static void test_map_refused(void **state) {
    char key[16];
    (void)state;
    fake_node_says(a, "CLUSTER", "-NOPERM no\r\n", 0, 0);
    fake_node_says(b, "CLUSTER", "-NOPERM no\r\n", 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("");
    for (int i = 0; i < 100; i++)
        assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(a, "EVALSHA"), 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(key), 0);
    }
    assert_int_equal(heard("CLUSTER"), 1); /* not before long */
}

/* That is no answer to what was asked, and the next one is asked soon. */
static void test_map_of_a_full_server(void **state) {
    (void)state;
    fake_node_says(a, "CLUSTER", "-ERR max number of clients reached\r\n", 0, 0);
    fake_node_says(b, "CLUSTER", "-ERR max number of clients reached\r\n", 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    fake_node_says(a, "CLUSTER", map_of(1, a, b), 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, a, b), 0, 0);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(b, "EVALSHA", redirect(2, "MOVED", "127.0.0.1", fake_node_port(a)), 0, 1);
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 2);
}

/* Without a map, someone else says who took over from a node that is gone. */
static void test_map_refused_and_a_node_gone(void **state) {
    struct fake_node *gone = fake_node_start(false);
    (void)state;
    fake_node_says(gone, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(a, "CLUSTER", "-NOPERM no\r\n", 0, 0);
    fake_node_says(gone, "CLUSTER", "-NOPERM no\r\n", 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(gone)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", heard("CLUSTER"));
    fake_node_stop(gone);
    run_for(poller, 50 * MS);
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    fake_node_says(a, "EVALSHA", redirect(1, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_heard(b, "EVALSHA"), 1);
}

/* Whoever does not say is passed over. */
static void test_map_kept_back(void **state) {
    char key[16];
    (void)state;
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 1);
    fake_node_says(a, "CLUSTER", FAKE_SILENCE, 0, 0);
    fake_node_says(b, "CLUSTER", map_of(1, b, b), 0, 0);
    timeout = TIMEOUT;
    open_with("");
    assert_int_equal(ask(KEY), 0);
    for (int i = 0; i < 300 && fake_node_heard(b, "CLUSTER") == 0; i++)
        run_for(poller, 10 * MS);
    assert_true(fake_node_heard(b, "CLUSTER") >= 1);
    run_for(poller, 20 * MS);
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(key), 0);
    }
}

/* Maps out of their minds leave things as they are; what is no RESP of a map closes the connection. */
static void test_hostile_maps(void **state) {
    static const char *const hostile[] = {
        "*1\r\n*3\r\n:9\r\n:3\r\n*3\r\n$1\r\na\r\n:1\r\n$1\r\nx\r\n",
        "*2\r\n*3\r\n:0\r\n:9\r\n*2\r\n$1\r\na\r\n:1\r\n*3\r\n:5\r\n:12\r\n*2\r\n$1\r\nb\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$-1\r\n:0\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n",
        "$-1\r\n",
        ":1\r\n",
        "+OK\r\n",
        "*16385\r\n",
        "*9999999999\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$99999\r\n",
        "%1\r\n",
        "-ERR This instance has cluster support disabled\r\n",
        "-LOADING\r\n",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(hostile); i++) {
        tear_down(NULL);
        set_up(NULL);
        fake_node_says(a, "CLUSTER", hostile[i], 0, 0);
        fake_node_says(b, "CLUSTER", hostile[i], 0, 0);
        fake_node_says(a, "EVALSHA", redirect(0, "MOVED", "127.0.0.1", fake_node_port(b)), 0, 0);
        timeout = TIMEOUT;
        open_with("");
        ask(KEY); /* unknown, where the map closes its connection */
        for (int n = 0; n < 100 && heard("CLUSTER") == 0; n++)
            run_for(poller, 5 * MS);
        assert_true(heard("CLUSTER") > 0);
        for (int n = 0, good = 0; good < 20; n++) {
            const int error = ask(KEY);
            if (error == 0) good++;
            if (n == 100 || error < STEADY_UNKNOWN) fail_msg("%d after the map %s", error, hostile[i]);
            run_for(poller, 10 * MS);
        }
    }
}

/* More nodes than are kept in mind, none of which can be connected to: what makes sense still works. */
static void test_ever_new_nodes(void **state) {
    static char names[1300][80];
    (void)state;
    fake_node_says(a, "CLUSTER", "-NOPERM no\r\n", 0, 0);
    open_with("");
    for (int i = 0; i < 1300; i++) {
        char key[16];
        const int len = snprintf(key, sizeof key, "k%d", i);
        snprintf(names[i], sizeof names[i], "-ASK %u 255.255.255.255:%d\r\n", steady__slot_of(key, (size_t)len), i + 1);
        fake_node_says(a, "EVALSHA", names[i], 0, 1);
        assert_int_equal(ask(key), STEADY_UNAVAILABLE);
    }
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask(KEY), 0);
}

/* A node that is redirected to now and then, and has no slot, keeps its connection while it is busy, and not for long
 * after. */
static void test_idle_node_is_left(void **state) {
    (void)state;
    fake_node_says(a, "CLUSTER", map_of(1, a, a), 0, 0);
    fake_node_says(a, "EVALSHA", redirect(0, "ASK", "127.0.0.1", fake_node_port(b)), 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), 0);
    await_heard("CLUSTER", 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(KEY), 0);
        const steady_us until = now_us() + 5 * STEADY_SECOND;
        while (fake_node_open(b) > 0 && now_us() < until)
            run_for(poller, 20 * MS);
        assert_int_equal(fake_node_open(b), 0);
    }
    assert_true(fake_node_accepted(b) >= 3);
    assert_int_equal(fake_node_accepted(a), 1);
}

/* ---- CLUSTERDOWN ---- */

static void test_cluster_down(void **state) {
    (void)state;
    fake_node_says(a, "EVALSHA", "-CLUSTERDOWN Hash slot not served\r\n", 0, 0);
    open_with("");
    assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
    assert_int_equal(strncmp(steady_store_trouble(store), "CLUSTERDOWN", 11), 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ask(KEY), STEADY_UNAVAILABLE);
        run_for(poller, 5 * MS);
    }
    assert_in_range(heard("CLUSTER"), 2, 20); /* it is asked again, ever more seldom */
    fake_node_says(a, "EVALSHA", VERDICT, 0, 0);
    assert_int_equal(ask(KEY), 0);
    assert_int_equal(fake_node_accepted(a), 1);
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
            tear_down(NULL);
            set_up(NULL);
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

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_moved),
        TEST(test_map_is_used),
        TEST(test_redirects_without_end),
        TEST(test_one_inquiry_at_a_time),
        TEST(test_redirects_that_make_no_sense),
        TEST(test_ask),
        TEST(test_ask_in_a_pipeline),
        TEST(test_asking_not_allowed),
        TEST(test_asking_a_full_server),
        TEST(test_host_of_the_speaker),
        TEST(test_host_by_name),
        TEST(test_host_of_ipv6),
        TEST(test_credentials_for_each_node),
        TEST(test_dead_target),
        TEST(test_black_hole),
        TEST(test_lost_after_a_redirect),
        TEST(test_script_lost_on_one_node),
        TEST(test_map_refused),
        TEST(test_map_of_a_full_server),
        TEST(test_map_refused_and_a_node_gone),
        TEST(test_map_kept_back),
        TEST(test_hostile_maps),
        TEST(test_ever_new_nodes),
        TEST(test_idle_node_is_left),
        TEST(test_cluster_down),
        TEST(test_blocking_calls),
        TEST(test_close_in_callbacks),
        TEST(test_no_cluster),
    };
    return cmocka_run_group_tests_name("cluster", tests, NULL, NULL);
}
