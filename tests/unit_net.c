/* SPDX-License-Identifier: MIT
 * Names resolved in a thread, and sockets connected to themselves. */
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conn/net.h"

static steady_poller *poller;
static steady_loop loop;

static int set_up(void **state) {
    (void)state;
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady_poller_free(&poller);
    return 0;
}

struct found {
    int calls;
    bool failed;
    struct steady__addresses addresses;
};

static void note(void *arg, const struct steady__addresses *addresses, const char *why) {
    struct found *found = arg;
    found->calls++;
    found->failed = why != NULL;
    if (why == NULL) found->addresses = *addresses;
}

static struct found look_up(const char *host) {
    const struct steady__net *net = &steady__net_system;
    struct found found = {0};
    assert_non_null(net->lookup(net, &loop, host, 6379, note, &found));
    assert_int_equal(found.calls, 0); /* never inside the call */
    const steady_us until = now_us() + 20 * STEADY_SECOND;
    while (found.calls == 0 && now_us() < until)
        steady_poller_run(poller, STEADY_SECOND);
    assert_int_equal(found.calls, 1);
    return found;
}

static void addresses_and_names_are_resolved(void **state) {
    (void)state;
    struct found found = look_up("127.0.0.1");
    assert_int_equal(found.addresses.count, 1);
    assert_int_equal(((struct sockaddr_in *)&found.addresses.at[0].bytes)->sin_port, htons(6379));
    found = look_up("::1");
    assert_int_equal(found.addresses.at[0].bytes.ss_family, AF_INET6);
    found = look_up("localhost");
    assert_true(found.addresses.count >= 1);
    assert_true(look_up("no-such-host.invalid").failed);
}

/* The threads go on for a while after they were cancelled. */
static void cancelled_lookup_runs_no_callback(void **state) {
    const struct steady__net *net = &steady__net_system;
    struct found found = {0};
    (void)state;
    for (int i = 0; i < 50; i++) {
        struct steady__lookup *lookup = net->lookup(net, &loop, i % 2 ? "localhost" : "127.0.0.1", 6379, note, &found);
        assert_non_null(lookup);
        if (i % 3 == 0) sleep_us(STEADY_MILLISECOND);
        net->lookup_cancel(net, lookup);
    }
    steady_poller_run(poller, 50 * STEADY_MILLISECOND);
    assert_int_equal(found.calls, 0);
}

/* The store and the loop are closed while the name is being resolved. */
static void store_closed_during_a_lookup_ends_its_decision_once(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        const steady_store_options options = {.loop = &loop};
        struct tally tally = {0};
        steady_store *store = open_store("redis://localhost:1", &options);
        steady_throttler *throttler = new_throttler(store, 1, HOUR);
        consume_counted(throttler, "k", 1, &tally);
        steady_poller_run(poller, 0);
        steady_throttler_free(&throttler);
        steady_store_close(&store);
        assert_int_equal(tally.called, 1);
    }
}

static void socket_connected_to_itself_is_refused(void **state) {
    const struct steady__net *net = &steady__net_system;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    (void)state;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_return_code(bind(fd, (struct sockaddr *)&a, sizeof a), errno);
    assert_return_code(getsockname(fd, (struct sockaddr *)&a, &len), errno);
    assert_return_code(connect(fd, (struct sockaddr *)&a, sizeof a), errno); /* and this succeeds */
    assert_int_equal(net->connected(net, fd), ECONNREFUSED);
    net->close(net, fd);
}

static void *look_up_elsewhere(void *arg) {
    const struct steady__net *net = &steady__net_system;
    steady_poller *own = NULL;
    struct found found = {0};
    if (steady_poller_new(&own) != 0) return NULL;
    const steady_loop own_loop = steady_poller_loop(own);
    for (int i = 1; i <= 10; i++) {
        if (net->lookup(net, &own_loop, "localhost", 1, note, &found) == NULL) break;
        while (found.calls < i)
            steady_poller_run(own, STEADY_SECOND);
    }
    steady_poller_free(&own);
    return found.calls == 10 ? arg : NULL;
}

static void loops_of_two_threads_resolve_independently(void **state) {
    pthread_t threads[2];
    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look_up_elsewhere, &poller), 0);
    for (int i = 0; i < 2; i++) {
        void *done = NULL;
        pthread_join(threads[i], &done);
        assert_non_null(done);
    }
}

int main(void) {
#define WITH_POLLER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_POLLER(addresses_and_names_are_resolved),
        WITH_POLLER(cancelled_lookup_runs_no_callback),
        WITH_POLLER(store_closed_during_a_lookup_ends_its_decision_once),
        WITH_POLLER(socket_connected_to_itself_is_refused),
        WITH_POLLER(loops_of_two_threads_resolve_independently),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
