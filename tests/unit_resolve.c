/* SPDX-License-Identifier: MIT
 * Lookups that are late or never end: how many there may be, which attempt gets the result, and how signals and forked
 * children behave. */
#include "support.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conn/connect.h"
#include "fake_server.h"
#include "names.h"

#define MS STEADY_MILLISECOND

static steady_poller *poller;
static steady_loop loop;
static struct fake_server *fake;
static struct steady__fork_guard fork_guard;
static struct steady__url url;

/* The results of the attempts. */
static struct outcome {
    unsigned connected, failed;
    char why[160];
} outcome;

static void done(void *arg, const struct steady__connect_result *result) {
    (void)arg;
    if (result->fd >= 0) {
        outcome.connected++;
        close(result->fd);
        return;
    }
    outcome.failed++;
    snprintf(outcome.why, sizeof outcome.why, "%s", result->why);
}

static struct steady__connect connecting;

static int set_up(void **state) {
    char text[64];
    (void)state;
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    fake = fake_start(NULL, 0);
    snprintf(text, sizeof text, "redis://late.test:%d", fake_port(fake));
    assert_int_equal(steady__url_parse(&url, text, NULL), 0);
    steady__fork_guard_set(&fork_guard, false);
    memset(&outcome, 0, sizeof outcome);
    connecting = (struct steady__connect){.net = &steady__net_system,
                                          .loop = &loop,
                                          .url = &url,
                                          .fork_guard = &fork_guard,
                                          .address_timeout = STEADY_SECOND,
                                          .lookup_timeout = 100 * MS,
                                          .unanswered = STEADY_SECOND,
                                          .done = done};
    assert_int_equal(steady__connect_init(&connecting), 0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady__connect_free(&connecting);
    fake_stop(fake);
    steady_poller_free(&poller);
    return 0;
}

/* Makes one attempt. Returns how long it took. */
static steady_us attempt(void) {
    const unsigned before = outcome.connected + outcome.failed;
    const steady_us since = now_us();
    steady__connect_start(&connecting);
    while (outcome.connected + outcome.failed == before)
        assert_true(steady_poller_run(poller, STEADY_SECOND) >= 0);
    return now_us() - since;
}

/* Waits until so many lookups have called the resolver, and checks that there are no more. */
static void await_asked(unsigned since, unsigned wanted) {
    const steady_us until = now_us() + 5 * STEADY_SECOND;
    while (names_asked() - since < wanted && now_us() < until)
        sleep_us(MS);
    assert_int_equal(names_asked() - since, wanted);
}

/* The second attempt gets the result of the first attempt's lookup, which was still in progress. */
static void late_lookup_serves_the_next_attempt(void **state) {
    (void)state;
    names_say("127.0.0.1", 0, 150 * MS);
    const unsigned asked = names_asked();
    const steady_us before = taken_away(), took = attempt();
    assert_between(took, 100 * MS, 100 * MS + slack_since(before));
    assert_string_equal(outcome.why, "the name lookup timed out");
    await_asked(asked, 1);
    names_say("", EAI_AGAIN, 600 * MS);
    attempt();
    assert_int_equal(outcome.connected, 1);
    await_asked(asked, 2);
}

/* At most three lookups are started, and a fourth attempt fails at once. When they end, lookups are started again. */
static void at_most_three_lookups_are_stuck(void **state) {
    (void)state;
    names_say("127.0.0.1", 0, STEADY_SECOND);
    const unsigned asked = names_asked();
    const steady_us since = now_us();
    for (int i = 0; i < 3; i++)
        attempt();
    steady_us took = 0;
    for (int i = 0; i < 10; i++)
        took += attempt();
    assert_true(took < 500 * MS); /* instead of 10 times its patience */
    assert_string_equal(outcome.why, "the resolver does not answer");
    assert_int_equal(outcome.failed, 13);
    await_asked(asked, 3);
    names_say("127.0.0.1", 0, 0);
    run_for(poller, since + 1500 * MS - now_us());
    attempt();
    assert_int_equal(outcome.connected, 1);
    await_asked(asked, 4);
}

/* An attempt that was stopped and started again uses the same lookup. Another name gets a lookup of its own. */
static void attempt_begun_again_uses_the_lookup_in_progress(void **state) {
    static struct steady__url other;
    (void)state;
    names_say("127.0.0.1", 0, 50 * MS);
    const unsigned asked = names_asked();
    for (int i = 0; i < 10; i++) {
        steady__connect_start(&connecting);
        steady__connect_stop(&connecting);
    }
    attempt();
    assert_int_equal(outcome.connected, 1);
    await_asked(asked, 1);
    steady__connect_start(&connecting);
    steady__connect_stop(&connecting);
    steady__url_copy(&other, &url);
    other.host = "other.test";
    connecting.url = &other;
    run_for(poller, 10 * MS);
    attempt();
    assert_int_equal(outcome.connected, 2);
    await_asked(asked, 3);
}

/* For the sanitizers: the threads go on for a while after all else was freed. */
static void connect_freed_during_lookups_runs_no_callback(void **state) {
    (void)state;
    names_say("127.0.0.1", 0, 250 * MS);
    const unsigned asked = names_asked();
    attempt();
    attempt();
    await_asked(asked, 2);
    steady__connect_free(&connecting);
    sleep_us(300 * MS);
    run_for(poller, 10 * MS);
    assert_int_equal(outcome.connected, 0);
    assert_int_equal(steady__connect_init(&connecting), 0);
}

/* The child runs the loop that it inherited and reads the wake-up. The parent still gets it. */
static void child_forked_during_a_lookup_takes_nothing_from_its_parent(void **state) {
    int status = -1;
    (void)state;
    names_say("127.0.0.1", 0, 100 * MS);
    connecting.lookup_timeout = 5 * STEADY_SECOND;
    steady__connect_start(&connecting);
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) {
        int turns = 0;
        for (const steady_us until = now_us() + 300 * MS; now_us() < until; turns++)
            steady_poller_run(poller, 50 * MS);
        _exit(turns < 100 ? (int)(outcome.connected + outcome.failed) : 2); /* and it does not spin */
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (const steady_us until = now_us() + STEADY_SECOND; outcome.connected == 0;) {
        assert_true(now_us() < until);
        steady_poller_run(poller, 100 * MS);
    }
}

/* ---- Signals ---- */

static pthread_t loop_thread;
static atomic_uint handled, astray;
static atomic_bool over;

static void on_signal(int number) {
    (void)number;
    atomic_fetch_add(&handled, 1);
    if (!pthread_equal(pthread_self(), loop_thread)) atomic_fetch_add(&astray, 1);
}

static void note_lookup(void *arg, const struct steady__addresses *found, const char *why) {
    (void)found;
    (void)why;
    ++*(unsigned *)arg;
}

static void *look_up_often(void *arg) {
    const struct steady__net *net = &steady__net_system;
    unsigned found = 0;
    sigset_t mask;
    loop_thread = pthread_self();
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
    for (unsigned i = 1; i <= 2000; i++) {
        if (net->lookup(net, &loop, "busy.test", 1, note_lookup, &found) == NULL) break;
        while (found < i)
            steady_poller_run(poller, STEADY_SECOND);
    }
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    atomic_store(&over, true);
    return found == 2000 && sigismember(&mask, SIGUSR1) == 0 ? arg : NULL;
}

/* Only the loop's thread takes the signal. A lookup's thread blocks it from its start; otherwise it would be counted
 * here. */
static void lookup_threads_take_no_signals(void **state) {
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    pthread_t thread;
    void *fine = NULL;
    (void)state;
    names_say("127.0.0.1", 0, 0);
    sigaction(SIGUSR1, &action, NULL);
    assert_int_equal(pthread_create(&thread, NULL, look_up_often, &poller), 0);
    while (!atomic_load(&over)) {
        kill(getpid(), SIGUSR1);
        sleep_us(20);
    }
    pthread_join(thread, &fine);
    assert_non_null(fine);
    assert_true(atomic_load(&handled) > 100);
    assert_int_equal(atomic_load(&astray), 0);
}

int main(void) {
#define WITH_CONNECT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_CONNECT(late_lookup_serves_the_next_attempt),
        WITH_CONNECT(at_most_three_lookups_are_stuck),
        WITH_CONNECT(attempt_begun_again_uses_the_lookup_in_progress),
        WITH_CONNECT(connect_freed_during_lookups_runs_no_callback),
        WITH_CONNECT(child_forked_during_a_lookup_takes_nothing_from_its_parent),
        WITH_CONNECT(lookup_threads_take_no_signals),
    };
    sigset_t usr1; /* so that only the loop's thread takes it */
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    return cmocka_run_group_tests_name("resolve", tests, NULL, NULL);
}
