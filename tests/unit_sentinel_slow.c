/* SPDX-License-Identifier: MIT
 * Sentinels that are slow to reach: names that are resolved slowly or never, addresses that drop packets, long round
 * trips; and what is known of the sentinels meanwhile. */
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_node.h"
#include "names.h"
#include "proxy.h"
#include "stages.h"

#define MASTER "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
#define SLAVE "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:0\r\n"
#define MOST 16 /* sentinels in a URL */
#define FILLERS 4

static struct fake_node *sentinel, *primary;
static char answer[64];

static struct fake_node *server_of_role(const char *role) {
    struct fake_node *node = fake_node_start(false);
    fake_node_says(node, "ROLE", role, 0, 0);
    fake_node_says(node, "EVALSHA", ":0\r\n", 0, 0);
    return node;
}

static int set_up(void **state) {
    sentinel = fake_node_start(false);
    primary = server_of_role(MASTER);
    snprintf(answer, sizeof answer, "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%05d\r\n", fake_node_port(primary));
    fake_node_says(sentinel, "SENTINEL", answer, 0, 0);
    names_say("127.0.0.1", 0, 0);
    return client_set_up(state);
}

static int tear_down(void **state) {
    client_close();
    fake_node_stop(sentinel);
    fake_node_stop(primary);
    return client_tear_down(state);
}

/* Opens a store with the sentinel at each of these hosts. */
static void open_at_hosts(const char *const hosts[], size_t count, steady_us timeout) {
    char url[512] = "redis+sentinel://";
    for (size_t i = 0; i < count; i++) {
        const size_t n = strlen(url);
        snprintf(url + n, sizeof url - n, "%s%s:%d", i > 0 ? "," : "", hosts[i], fake_node_port(sentinel));
    }
    strcat(url, "/main");
    client_open(url, timeout);
}

/* Returns the time until the next verdict. */
static steady_us until_used(void) {
    const steady_us begin = now_us();
    while (client_ask() != 0) {
        if (now_us() - begin > 5 * STEADY_SECOND) fail_msg("%s", last_error_of(store));
        run_for(poller, MS);
    }
    return now_us() - begin;
}

static void assert_used_within(steady_us least, steady_us most) {
    const steady_us before = taken_away();
    assert_between(until_used(), least, most + slack_since(before));
}

/* ---- Names ---- */

static void slowly_resolved_sentinel_is_used(void **state) {
    static const char *const hosts[] = {"one.test", "two.test", "three.test"};
    (void)state;
    names_say("127.0.0.1", 0, 250 * MS);
    for (size_t count = 1; count <= 3; count += 2) {
        const unsigned asked = names_asked();
        open_at_hosts(hosts, count, 100 * MS);
        assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
        assert_used_within(0, 500 * MS);
        run_for(poller, 300 * MS);
        assert_true(names_asked() - asked <= count);
        client_close();
    }
}

/* Each name is looked up once, however often a connection is tried. The log names the cause. */
static void stuck_resolver_gets_one_lookup_a_name_and_is_logged(void **state) {
    static const char *const hosts[] = {"one.test", "two.test", "three.test"};
    (void)state;
    names_say("", EAI_AGAIN, 2500 * MS);
    const unsigned asked = names_asked();
    open_at_hosts(hosts, 3, 100 * MS);
    for (const steady_us until = now_us() + 2 * STEADY_SECOND; now_us() < until;) {
        assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
        run_for(poller, 10 * MS);
    }
    assert_int_equal(names_asked() - asked, 3);
    assert_int_equal(log_lines.lines, 1);
    assert_non_null(strstr(log_lines.all, ".test:"));
    assert_non_null(strstr(log_lines.all, "still looking up the host name"));
    names_say("127.0.0.1", 0, 0);
    until_used();
    assert_between(names_asked() - asked, 4, 6);
}

/* An outdated sentinel is reached again and again. This does not cause more lookups of the other one. */
static void outdated_sentinel_causes_no_more_lookups_of_another(void **state) {
    static const char *const hosts[] = {"one.test", "127.0.0.1"};
    struct fake_node *replica = server_of_role(SLAVE);
    char old[64];
    (void)state;
    snprintf(old, sizeof old, "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%05d\r\n", fake_node_port(replica));
    fake_node_says(sentinel, "SENTINEL", old, 0, 0);
    names_say("", EAI_AGAIN, 2500 * MS);
    const unsigned asked = names_asked();
    open_at_hosts(hosts, 2, 100 * MS);
    for (const steady_us until = now_us() + 2 * STEADY_SECOND; now_us() < until;) {
        assert_int_equal(client_ask(), STEADY_UNAVAILABLE);
        run_for(poller, 10 * MS);
    }
    assert_int_equal(names_asked() - asked, 1);
    assert_true(fake_node_accepted(replica) >= 3);
    run_for(poller, 600 * MS); /* the lookup has ended */
    client_close();
    fake_node_stop(replica);
}

/* ---- Round trips ---- */

struct hole {
    int listener, fillers[FILLERS];
};

/* A port that neither accepts nor refuses connections. port: 0 for any. */
static int open_hole(struct hole *hole, const char *address, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t len = sizeof a;
    inet_pton(AF_INET, address, &a.sin_addr);
    hole->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_return_code(bind(hole->listener, (struct sockaddr *)&a, sizeof a), errno);
    assert_return_code(listen(hole->listener, 0), errno);
    assert_return_code(getsockname(hole->listener, (struct sockaddr *)&a, &len), errno);
    for (int i = 0; i < FILLERS; i++) {
        hole->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(hole->fillers[i], (struct sockaddr *)&a, sizeof a);
    }
    return ntohs(a.sin_port);
}

static void close_hole(const struct hole *hole) {
    close(hole->listener);
    for (int i = 0; i < FILLERS; i++)
        close(hole->fillers[i]);
}

/* The first address of the name drops packets. */
static void second_address_of_a_sentinel_is_used(void **state) {
    static const char *const hosts[] = {"one.test"};
    struct hole hole;
    (void)state;
    open_hole(&hole, "127.0.0.2", fake_node_port(sentinel));
    names_say("127.0.0.2 127.0.0.1", 0, 0);
    open_at_hosts(hosts, 1, 100 * MS);
    assert_used_within(400 * MS, STEADY_SECOND);
    close_hole(&hole);
}

/* The round trips take longer in all than the time that a sentinel has. */
static void distant_sentinel_is_used(void **state) {
    const struct proxy_rules far = {.delay_up = 60 * MS, .delay_down = 60 * MS};
    struct proxy *proxy = proxy_start(fake_node_port(sentinel));
    char url[128];
    (void)state;
    proxy_set(proxy, &far);
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/main?sentinel_password=x", proxy_port(proxy));
    client_open(url, 50 * MS);
    assert_used_within(240 * MS, 500 * MS);
    assert_int_equal(proxy_accepted(proxy), 1);
    client_close();
    proxy_stop(proxy);
}

/* The other sentinel has answered meanwhile, and was right. The late, outdated reply of this one changes nothing. */
static void late_reply_of_an_outdated_sentinel_changes_nothing(void **state) {
    const struct proxy_rules far = {.delay_up = 60 * MS, .delay_down = 60 * MS};
    struct fake_node *behind = fake_node_start(false), *replica = server_of_role(SLAVE);
    struct proxy *proxy = proxy_start(fake_node_port(behind));
    char old[64], url[128];
    unsigned late = 0;
    (void)state;
    proxy_set(proxy, &far);
    snprintf(old, sizeof old, "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%05d\r\n", fake_node_port(replica));
    fake_node_says(behind, "SENTINEL", old, 0, 0);
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d,127.0.0.1:%d/main", proxy_port(proxy),
             fake_node_port(sentinel));
    for (int i = 0; i < 8 || (late == 0 && i < 50); i++) { /* the sentinel that is asked first is random */
        client_open(url, 50 * MS);
        assert_used_within(0, 50 * MS);
        run_for(poller, 300 * MS);
        assert_int_equal(client_ask(), 0);
        assert_int_equal(client_reconnects(), 0);
        assert_int_equal(fake_node_open(behind), 0);
        assert_int_equal(fake_node_open(sentinel), 1);
        client_close();
        late += fake_node_heard(behind, "SENTINEL");
        run_for(poller, 20 * MS); /* both connections are closed */
    }
    assert_true(late > 0);
    assert_int_equal(fake_node_accepted(replica), 0);
    proxy_stop(proxy);
    fake_node_stop(behind);
    fake_node_stop(replica);
}

/* All sentinels but one drop packets. The last one is asked within a second all the same, because unanswered attempts
 * are given up. */
static void reachable_sentinel_among_fifteen_unreachable_ones_is_found(void **state) {
    struct hole holes[MOST - 1];
    char url[1024] = "redis+sentinel://";
    (void)state;
    for (int i = 0; i < MOST; i++) {
        const int port = i < MOST - 1 ? open_hole(&holes[i], "127.0.0.1", 0) : fake_node_port(sentinel);
        const size_t n = strlen(url);
        snprintf(url + n, sizeof url - n, "%s127.0.0.1:%d", i > 0 ? "," : "", port);
    }
    strcat(url, "/main");
    for (int i = 0; i < 4; i++) { /* the sentinel that is asked first is random */
        client_open(url, 200 * MS);
        assert_used_within(0, 800 * MS);
        client_close();
    }
    for (int i = 0; i < MOST - 1; i++)
        close_hole(&holes[i]);
}

/* ---- Rounds without success ---- */

static void in_vain(steady_us time) {
    fake_node_says(sentinel, "SENTINEL", FAKE_HANG_UP, 0, 0);
    run_for(poller, time);
}

static void open_on_one(void) {
    static const char *const hosts[] = {"127.0.0.1"};
    open_at_hosts(hosts, 1, 100 * MS);
    until_used();
}

/* A sentinel that was useful starts with the shortest pause again. */
static void back_off_of_a_sentinel_restarts_after_it_was_useful(void **state) {
    (void)state;
    open_on_one();
    in_vain(2 * STEADY_SECOND);
    fake_node_says(sentinel, "SENTINEL", answer, 0, 0);
    run_for(poller, 800 * MS);
    in_vain(0);
    fake_node_says(primary, "EVALSHA", FAKE_HANG_UP, 0, 1);
    assert_int_equal(client_ask(), STEADY_UNKNOWN);
    const unsigned before = fake_node_heard(sentinel, "SENTINEL");
    run_for(poller, 150 * MS);
    assert_between(fake_node_heard(sentinel, "SENTINEL") - before, 3, 12);
}

/* The sentinels were asked without success while the connection was up. When it is lost, they are asked at once. */
static void lost_connection_asks_the_sentinels_at_once(void **state) {
    (void)state;
    open_on_one();
    in_vain(2 * STEADY_SECOND);
    const unsigned before = fake_node_heard(sentinel, "SENTINEL");
    for (int i = 0; i < 1000 && fake_node_heard(sentinel, "SENTINEL") == before; i++)
        run_for(poller, MS);
    run_for(poller, 5 * MS); /* a pause of at least 250 ms begins */
    fake_node_says(sentinel, "SENTINEL", answer, 0, 0);
    fake_node_says(primary, "EVALSHA", FAKE_HANG_UP, 0, 1);
    const steady_us begin = now_us();
    assert_int_equal(client_ask(), STEADY_UNKNOWN);
    until_used();
    assert_true(now_us() - begin < 200 * MS);
}

/* The reply of one sentinel says more than that another cannot be reached, whichever is asked first. */
static void reply_of_a_sentinel_is_logged_before_an_unreachable_one(void **state) {
    static const char *const hosts[] = {"127.0.0.1", "127.0.0.2"};
    (void)state;
    fake_node_says(sentinel, "SENTINEL", "*-1\r\n", 0, 0);
    for (int i = 0; i < 8; i++) {
        memset(&log_lines, 0, sizeof log_lines);
        open_at_hosts(hosts, 2, 100 * MS);
        for (const steady_us until = now_us() + 2 * STEADY_SECOND; log_lines.lines == 0 && now_us() < until;)
            run_for(poller, 5 * MS);
        if (strstr(log_lines.all, "does not know this service") == NULL) fail_msg("%s", log_lines.all);
        client_close();
    }
}

static bool closes;

static void close_all(void *data, enum steady_log_level level, const char *text) {
    (void)data, (void)level, (void)text;
    if (!closes) return;
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static const steady_loop *ticks_on;
static void *ticking;

static void tick(void *arg) {
    (void)arg;
    ticks_on->ops->timer_start(ticking, MS);
}

static void start_ticks(const steady_loop *on) {
    ticks_on = on;
    ticking = on->ops->timer_new(on->loop, tick, NULL);
    assert_non_null(ticking);
    tick(NULL);
}

/* On a loop that runs timers first, a reply that came while the loop was blocked is read by the alarm. It moves the
 * connection, which is logged, and the log callback closes the store. */
static void close_while_caught_up(const struct stage *stage) {
    const struct proxy_rules far = {.delay_down = 60 * MS};
    struct proxy *proxy = proxy_start(fake_node_port(sentinel));
    struct fake_node *other = server_of_role(MASTER);
    struct tally tally = {0};
    char moved[64], url[64];
    const steady_loop on = stage->make();
    const steady_store_options options = {
        .loop = &on, .timeout = 100 * MS, .engine = STEADY_ENGINE_SCRIPT, .log = close_all};
    proxy_set(proxy, &far);
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%d/main", proxy_port(proxy));
    snprintf(moved, sizeof moved, "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%05d\r\n", fake_node_port(other));
    closes = false;
    start_ticks(&on);
    store = open_store(url, &options);
    throttler = new_throttler(store, 10, HOUR);
    while (tally.verdicts == 0) {
        consume_counted(throttler, "k", 1, &tally);
        while (tally.called < tally.submitted)
            stage->turn(on.loop);
    }
    closes = true;
    for (int i = 0; i < 10 && store != NULL; i++) {
        fake_node_says(sentinel, "SENTINEL", i % 2 == 0 ? moved : answer, 0, 0);
        const unsigned heard = fake_node_heard(sentinel, "SENTINEL");
        while (store != NULL && fake_node_heard(sentinel, "SENTINEL") == heard)
            stage->turn(on.loop);
        sleep_us(600 * MS);
        if (store != NULL) stage->turn(on.loop);
    }
    assert_null(store);
    on.ops->timer_free(ticking);
    proxy_stop(proxy);
    assert_true(stage->leave(on.loop));
    fake_node_stop(other);
    fake_node_says(sentinel, "SENTINEL", answer, 0, 0);
}

static void log_may_close_the_store_while_a_late_reply_is_read(void **state) {
    (void)state;
    for (int i = 0; i < STAGES; i++)
        close_while_caught_up(stages[i]);
}

int main(void) {
#define WITH_SENTINEL(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_SENTINEL(slowly_resolved_sentinel_is_used),
        WITH_SENTINEL(stuck_resolver_gets_one_lookup_a_name_and_is_logged),
        WITH_SENTINEL(outdated_sentinel_causes_no_more_lookups_of_another),
        WITH_SENTINEL(second_address_of_a_sentinel_is_used),
        WITH_SENTINEL(distant_sentinel_is_used),
        WITH_SENTINEL(late_reply_of_an_outdated_sentinel_changes_nothing),
        WITH_SENTINEL(reachable_sentinel_among_fifteen_unreachable_ones_is_found),
        WITH_SENTINEL(back_off_of_a_sentinel_restarts_after_it_was_useful),
        WITH_SENTINEL(lost_connection_asks_the_sentinels_at_once),
        WITH_SENTINEL(reply_of_a_sentinel_is_logged_before_an_unreachable_one),
        WITH_SENTINEL(log_may_close_the_store_while_a_late_reply_is_read),
    };
    return cmocka_run_group_tests_name("slow sentinels", tests, NULL, NULL);
}
