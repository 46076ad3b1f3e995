/* SPDX-License-Identifier: MIT
 * The cost that a hostile server can cause: connections, lookups, memory, a held loop, log lines. Each test has one
 * fault; tests/hostile/ mixes them. */
#include <netdb.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "hostile_server.h"
#include "redis/denials.h"
#include "rig.h"

#define IN_FLIGHT 64
#define STRANGERS 16 /* nodes that no map confirms */
#define LOOKUPS 16
#define LINKS 64 /* a quarter of the descriptors that a test may have */

/* A lookup takes nearly for ever. */
static atomic_uint lookups, most_lookups;
static atomic_bool resolves;

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list) {
    if ((hints->ai_flags & AI_NUMERICHOST) != 0) return __real_getaddrinfo(host, port, hints, list);
    const unsigned now = atomic_fetch_add(&lookups, 1) + 1;
    if (now > most_lookups) most_lookups = now;
    for (int i = 0; i < 400 && !resolves; i++)
        sleep_us(10 * MS);
    lookups--;
    return EAI_AGAIN;
}

/* ---- The test ---- */

static struct hostile *server;
static struct tally tally;
static struct rlimit descriptors;
static size_t memory_before, most_memory;
static unsigned sockets_before, most_sockets;
static struct steady__denials *denials;
static steady_us away; /* how long the machine kept this thread from running */

static int set_up(void **state) {
    server = hostile_start();
    memset(&tally, 0, sizeof tally);
    most_memory = most_sockets = 0;
    away = 0;
    most_lookups = 0;
    resolves = false;
    getrlimit(RLIMIT_NOFILE, &descriptors);
    const struct rlimit few = {HOSTILE_DESCRIPTORS, descriptors.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    return rig_set_up(state);
}

static int tear_down(void **state) {
    resolves = true;
    steady__denials_release(denials);
    denials = NULL;
    const int error = rig_tear_down(state);
    setrlimit(RLIMIT_NOFILE, &descriptors);
    hostile_stop(server);
    return error;
}

static void open_hostile(void) {
    char url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", hostile_port(server, 0));
    sockets_before = process_sockets();
    denials = steady__denials_hold(); /* it has a fixed size, whatever the server does */
    memory_before = process_memory();
    rig_open_at(url, TIMEOUT);
}

static void count_now(void) {
    const size_t m = process_memory() - memory_before;
    const unsigned s = process_sockets() - sockets_before;
    if (m > most_memory) most_memory = m;
    if (s > most_sockets) most_sockets = s;
}

#define WAIT (10 * MS)

static steady_us processor_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

/* Makes decisions, each on a new key. */
static void ask_for(steady_us time) {
    static unsigned number;
    char key[16];
    steady_us began = now_us(), ran = processor_time();
    for (const steady_us until = began + time; now_us() < until;) {
        while (tally.submitted - tally.called < IN_FLIGHT) {
            snprintf(key, sizeof key, "k%u", number++);
            consume_counted(rig.throttler, key, 1, &tally);
        }
        assert_true(steady_poller_run(rig.poller, WAIT) >= 0);
        count_now();
        const steady_us rest = now_us() - began - (processor_time() - ran) - WAIT;
        if (rest > 0) away += rest;
        began = now_us();
        ran = processor_time();
    }
}

static void end_all(void) {
    run_until_done(rig.poller, &tally, 10 * STEADY_SECOND);
    assert_int_equal(tally.called, tally.submitted);
    print_message("# %lu decisions, %lu verdicts; at most %u sockets, %zu KiB, %u lookups; %u lines; a handler of %lld "
                  "us\n",
                  tally.called, tally.verdicts, most_sockets, most_memory >> 10, (unsigned)most_lookups, rig.log.lines,
                  (long long)longest_held);
}

static void assert_bounded(unsigned most, size_t kib) {
    if (most_sockets > most) fail_msg("%u sockets", most_sockets);
    if (most_memory > kib << 10) fail_msg("%zu KiB", most_memory >> 10);
    assert_loop_never_held();
    if (tally.slowest > TIMEOUT + SLACK_OF(tally) + away)
        fail_msg("one took %lld us, and the machine was away for %lld", (long long)tally.slowest, (long long)away);
}

static void assert_recovers(void) {
    hostile_is_honest(server);
    assert_used_again();
}

/* ---- Redirects ---- */

static void redirects_to(enum hostile_act act) {
    hostile_does(server, act, HOSTILE_MAP_ERROR);
    open_hostile();
    ask_for(how_long(1200 * MS, 5 * STEADY_SECOND));
    end_all();
    assert_bounded(1 + STRANGERS, 4096);
    assert_between(rig.log.lines, 0, 100);
}

static void redirects_to_new_nodes_open_few_connections(void **state) {
    (void)state;
    redirects_to(HOSTILE_MOVED_UP);
    assert_recovers();
}

static void ask_redirects_to_new_nodes_open_few_connections(void **state) {
    (void)state;
    redirects_to(HOSTILE_ASK_UP);
    assert_recovers();
}

static void redirects_to_dead_nodes_open_few_connections(void **state) {
    (void)state;
    redirects_to(HOSTILE_MOVED_DEAD);
    assert_between(hostile_accepted(server), 1, 40);
    assert_recovers();
}

static void redirects_into_a_black_hole_open_few_connections(void **state) {
    (void)state;
    redirects_to(HOSTILE_MOVED_HOLE);
    assert_recovers();
}

/* One attempt is made at a time, each some milliseconds after the last connection was lost. */
static void server_that_hangs_up_gets_few_connections(void **state) {
    (void)state;
    hostile_does(server, HOSTILE_HANG_UP, HOSTILE_MAP_ERROR);
    open_hostile();
    ask_for(STEADY_SECOND);
    end_all();
    print_message("# %u connections\n", hostile_accepted(server));
    assert_bounded(2, 4096);
    assert_between(hostile_accepted(server), 2, 400);
    assert_recovers();
}

static void redirects_to_names_begin_few_lookups(void **state) {
    (void)state;
    redirects_to(HOSTILE_MOVED_NAME);
    assert_between(most_lookups, 1, LOOKUPS);
    assert_recovers();
}

/* ---- Maps ---- */

static void maps_of(enum hostile_map map) {
    hostile_does(server, HOSTILE_CLUSTERDOWN, map);
    open_hostile();
    ask_for(how_long(1200 * MS, 5 * STEADY_SECOND));
    end_all();
}

static void map_of_many_nodes_leaves_descriptors(void **state) {
    (void)state;
    maps_of(HOSTILE_MAP_UP);
    assert_bounded(LINKS, 16384);
    assert_recovers();
}

static void map_of_many_dead_nodes_leaves_descriptors(void **state) {
    (void)state;
    maps_of(HOSTILE_MAP_DEAD);
    assert_bounded(LINKS, 16384);
    assert_between(rig.log.lines, 0, 100);
    assert_recovers();
}

static void map_of_many_names_begins_few_lookups(void **state) {
    (void)state;
    maps_of(HOSTILE_MAP_NAMES);
    assert_bounded(LINKS, 16384);
    assert_between(most_lookups, 1, LOOKUPS);
    assert_recovers();
}

static void map_of_nodes_without_hosts_does_not_hold_the_loop(void **state) {
    (void)state;
    hostile_does(server, HOSTILE_CLUSTERDOWN, HOSTILE_MAP_UP);
    open_hostile();
    ask_for(300 * MS);
    hostile_does(server, HOSTILE_CLUSTERDOWN, HOSTILE_MAP_ANY);
    ask_for(STEADY_SECOND);
    end_all();
    assert_bounded(LINKS, 16384);
    assert_recovers();
}

static void rejected_map_leaves_no_nodes_behind(void **state) {
    (void)state;
    maps_of(HOSTILE_MAP_OVERLAP);
    assert_bounded(1 + STRANGERS, 400); /* a node takes 0.5 KiB */
    assert_recovers();
}

/* A map is read as a whole. Its memory is freed at once, also if nothing follows on the connection. */
static void large_map(enum hostile_map map) {
    maps_of(map);
    assert_bounded(1 + STRANGERS, 3 * 8192 + 4096);
    const steady_us end = now_us() + 5 * STEADY_SECOND; /* under ThreadSanitizer a map of 8 MiB takes over a second */
    do
        run_for(rig.poller, STEADY_SECOND);
    while (process_memory() - memory_before > 1 << 20 && now_us() < end);
    assert_between(process_memory() - memory_before, 0, 1 << 20);
    assert_recovers();
}

static void map_of_many_values_does_not_hold_the_loop(void **state) {
    (void)state;
#ifdef __SANITIZE_THREAD__
    print_message("# skipped: under ThreadSanitizer each of 377,000 values takes twenty times as long\n");
    skip();
#endif
    large_map(HOSTILE_MAP_DENSE);
}

static void map_of_too_many_values_does_not_hold_the_loop(void **state) {
    (void)state;
    large_map(HOSTILE_MAP_TOO_DENSE);
}

static void map_of_many_bytes_is_not_kept(void **state) {
    (void)state;
    large_map(HOSTILE_MAP_THICK);
}

static void map_of_too_many_bytes_is_not_kept(void **state) {
    (void)state;
    large_map(HOSTILE_MAP_TOO_THICK);
}

static void map_without_end_is_kept_for_a_while(void **state) {
    (void)state;
    maps_of(HOSTILE_MAP_HALF);
    assert_bounded(1 + STRANGERS, 3 * 8192 + 4096);
    hostile_is_honest(server);
    run_for(rig.poller, STEADY_SECOND);
    assert_used_again();
    assert_between(process_memory() - memory_before, 0, 1 << 20);
}

int main(void) {
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_SERVER(redirects_to_new_nodes_open_few_connections),
        WITH_SERVER(ask_redirects_to_new_nodes_open_few_connections),
        WITH_SERVER(redirects_to_dead_nodes_open_few_connections),
        WITH_SERVER(redirects_into_a_black_hole_open_few_connections),
        WITH_SERVER(server_that_hangs_up_gets_few_connections),
        WITH_SERVER(redirects_to_names_begin_few_lookups),
        WITH_SERVER(map_of_many_nodes_leaves_descriptors),
        WITH_SERVER(map_of_many_dead_nodes_leaves_descriptors),
        WITH_SERVER(map_of_many_names_begins_few_lookups),
        WITH_SERVER(map_of_nodes_without_hosts_does_not_hold_the_loop),
        WITH_SERVER(rejected_map_leaves_no_nodes_behind),
        WITH_SERVER(map_of_many_values_does_not_hold_the_loop),
        WITH_SERVER(map_of_too_many_values_does_not_hold_the_loop),
        WITH_SERVER(map_of_many_bytes_is_not_kept),
        WITH_SERVER(map_of_too_many_bytes_is_not_kept),
        WITH_SERVER(map_without_end_is_kept_for_a_while),
    };
    return cmocka_run_group_tests_name("hostile servers", tests, NULL, NULL);
}
