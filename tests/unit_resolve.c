/* SPDX-License-Identifier: MIT
 * Lookups that come late or never: how many there may be, whose answer counts, what signals and forked children do. */
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

/* What the attempts came to. */
static struct outcome {
    unsigned connected, failed;
    char why[160];
} outcome;

static void done(void *arg, const struct steady__connect_result *dialed) {
    (void)arg;
    if (dialed->fd >= 0) {
        outcome.connected++;
        close(dialed->fd);
        return;
    }
    outcome.failed++;
    snprintf(outcome.why, sizeof outcome.why, "%s", dialed->why);
}

static struct steady__connect dial;

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
    dial = (struct steady__connect){.net = &steady__net_system,
                                    .loop = &loop,
                                    .url = &url,
                                    .fork_guard = &fork_guard,
                                    .patience = STEADY_SECOND,
                                    .name_patience = 100 * MS,
                                    .unanswered = STEADY_SECOND,
                                    .done = done};
    assert_int_equal(steady__connect_init(&dial), 0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady__connect_free(&dial);
    fake_stop(fake);
    steady_poller_free(&poller);
    return 0;
}

/* One attempt: how long it took. */
static steady_us attempt(void) {
    const unsigned before = outcome.connected + outcome.failed;
    const steady_us since = now_us();
    steady__connect_start(&dial);
    while (outcome.connected + outcome.failed == before)
        assert_true(steady_poller_run(poller, STEADY_SECOND) >= 0);
    return now_us() - since;
}

/* The threads of so many lookups have got that far, and no more of them. */
static void await_asked(unsigned since, unsigned wanted) {
    const steady_us until = now_us() + 5 * STEADY_SECOND;
    while (names_asked() - since < wanted && now_us() < until)
        sleep_us(MS);
    assert_int_equal(names_asked() - since, wanted);
}

/* The second attempt is served by the lookup of the first one, which was under way for longer. */
static void test_a_late_answer_counts(void **state) {
    (void)state;
    names_say("127.0.0.1", 0, 150 * MS);
    const unsigned asked = names_asked();
    assert_between(attempt(), 100 * MS, 100 * MS + SLACK);
    assert_string_equal(outcome.why, "looking the name up takes too long");
    await_asked(asked, 1);
    names_say("", EAI_AGAIN, 600 * MS);
    attempt();
    assert_int_equal(outcome.connected, 1);
    await_asked(asked, 2);
}

/* At most three are begun, and there is no waiting for a fourth. Once they have come back it goes on as before. */
static void test_no_more_than_three_are_stuck(void **state) {
    (void)state;
    names_say("127.0.0.1", 0, STEADY_SECOND);
    const unsigned asked = names_asked();
    const steady_us since = now_us();
    for (int i = 0; i < 3; i++)
        attempt();
    steady_us took = 0;
    for (int i = 0; i < 10; i++)
        took += attempt();
    assert_true(took < 500 * MS); /* and not 10 times its patience */
    assert_string_equal(outcome.why, "the resolver does not answer");
    assert_int_equal(outcome.failed, 13);
    await_asked(asked, 3);
    names_say("127.0.0.1", 0, 0);
    run_for(poller, since + 1500 * MS - now_us());
    attempt();
    assert_int_equal(outcome.connected, 1);
    await_asked(asked, 4);
}

/* An attempt that was given up does not begin a second lookup of the same name; another name is another lookup. */
static void test_given_up_and_begun_again(void **state) {
    static struct steady__url other;
    (void)state;
    names_say("127.0.0.1", 0, 50 * MS);
    const unsigned asked = names_asked();
    for (int i = 0; i < 10; i++) {
        steady__connect_start(&dial);
        steady__connect_stop(&dial);
    }
    attempt();
    assert_int_equal(outcome.connected, 1);
    await_asked(asked, 1);
    steady__connect_start(&dial);
    steady__connect_stop(&dial);
    steady__url_copy(&other, &url);
    other.host = "other.test";
    dial.url = &other;
    run_for(poller, 10 * MS);
    attempt();
    assert_int_equal(outcome.connected, 2);
    await_asked(asked, 3);
}

/* Under the sanitizers: the threads go on for a while, and nobody is there any more. */
static void test_freed_meanwhile(void **state) {
    (void)state;
    names_say("127.0.0.1", 0, 250 * MS);
    const unsigned asked = names_asked();
    attempt();
    attempt();
    await_asked(asked, 2);
    steady__connect_free(&dial);
    sleep_us(300 * MS);
    run_for(poller, 10 * MS);
    assert_int_equal(outcome.connected, 0);
    assert_int_equal(steady__connect_init(&dial), 0);
}

/* The child runs the loop that it has inherited, and hears the bell. The parent has to hear it all the same. */
static void test_forked_meanwhile(void **state) {
    int status = -1;
    (void)state;
    names_say("127.0.0.1", 0, 100 * MS);
    dial.name_patience = 5 * STEADY_SECOND;
    steady__connect_start(&dial);
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

/* Only the loop's thread takes the signal; a lookup's thread would be taken for it, had it not blocked it from birth.
 */
static void test_signals_stay_with_the_program(void **state) {
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
#define WITH_DIAL(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_DIAL(test_a_late_answer_counts),     WITH_DIAL(test_no_more_than_three_are_stuck),
        WITH_DIAL(test_given_up_and_begun_again), WITH_DIAL(test_freed_meanwhile),
        WITH_DIAL(test_forked_meanwhile),         WITH_DIAL(test_signals_stay_with_the_program),
    };
    sigset_t usr1; /* no thread of the test's own may take it, but the one with the loop */
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    return cmocka_run_group_tests_name("resolve", tests, NULL, NULL);
}
