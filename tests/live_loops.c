/* SPDX-License-Identifier: MIT
 * The same tests on each loop: the built-in one, libuv, libevent and libev. */
#include "support.h"

#include <errno.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fake_server.h"
#include "stages.h"

#define MS STEADY_MILLISECOND
#define TIMEOUT (100 * MS)
#define PATIENT                                                                                                        \
    (60 * STEADY_SECOND) /* the timeout if each decision must have a verdict: only a lost one takes as long */
#define TRIES 20

static struct server server;

struct act {
    const struct stage *stage;
    steady_loop loop;
    steady_store *store;
    steady_throttler *throttler;
};

static void run_act(const struct act *act, const struct tally *tally) {
    const steady_us until = now_us() + 2 * PATIENT;
    while (tally->called < tally->submitted) {
        if (now_us() > until) fail_msg("%s: %lu of %lu in time", act->stage->name, tally->called, tally->submitted);
        act->stage->turn(act->loop.loop);
    }
}

static struct act open_act(const struct stage *stage, const char *url, steady_us timeout) {
    struct act act = {.stage = stage, .loop = stage->make()};
    const steady_store_options options = {.loop = &act.loop, .timeout = timeout};
    assert_string_equal(act.loop.ops->name, stage->name);
    act.store = open_store(url, &options);
    act.throttler = new_throttler(act.store, 1000000, HOUR);
    return act;
}

static void await_verdict(const struct act *act) {
    const steady_us until = now_us() + PATIENT;
    struct tally tally = {0};
    while (tally.verdicts == 0) {
        assert_true(now_us() < until);
        consume_counted(act->throttler, "k", 1, &tally);
        run_act(act, &tally);
    }
}

static void close_act(struct act *act) {
    steady_throttler_free(&act->throttler);
    steady_store_close(&act->store);
    if (!act->stage->leave(act->loop.loop)) fail_msg("%s: something is left in the loop", act->stage->name);
}

/* ---- The plays ---- */

static void play_pipelined(const struct stage *stage, const char *url) {
    struct act act = open_act(stage, url, PATIENT);
    struct tally tally = {0};
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < 1000; i++)
            consume_counted(act.throttler, "k", 1, &tally);
        assert_int_equal(tally.called, 1000 * (round - 1));
        run_act(&act, &tally);
        assert_int_equal(tally.allowed, 1000 * round);
    }
    assert_int_equal(tally.last.level, 3000);
    close_act(&act);
    server_ask(&server, "FLUSHALL");
}

static void pipelined_decisions_are_answered_on_each_loop(void **state) {
    char by_name[64];
    (void)state;
    snprintf(by_name, sizeof by_name, "redis://localhost:%d", server.port);
    for (size_t i = 0; i < STAGES; i++) {
        play_pipelined(stages[i], server.url);
        play_pipelined(stages[i], server.unix_url);
        play_pipelined(stages[i], by_name);
    }
}

/* False: the outcome may be that of a slow machine, which took the loop away for half of the timeout or longer. */
static bool connects_while_held(const struct stage *stage, const char *url, int turns) {
    struct act act = open_act(stage, url, TIMEOUT);
    struct tally tally = {0};
    for (int n = 0; n < turns; n++)
        act.stage->turn(act.loop.loop);
    sleep_us(450 * MS);
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&act, &tally);
    const bool used = tally.verdicts == 1;
    if (!used && tally.taken_away < TIMEOUT / 2)
        fail_msg("%s, after %d turns: %s", act.stage->name, turns, last_error_of(act.store));
    close_act(&act);
    return used;
}

/* The program was busy for longer than a connection attempt may take. Events that arrived meanwhile count. */
static void connection_made_while_the_loop_was_held_is_used(void **state) {
    char url[64];
    (void)state;
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/1", server.port); /* the handshake has a reply */
    for (size_t i = 0; i < STAGES; i++)
        for (int turns = 1; turns <= 2; turns++)
            for (int tries = 1; !connects_while_held(stages[i], url, turns); tries++)
                if (tries == TRIES) fail_msg("in %d tries the machine took too much away", tries);
    server_ask(&server, "FLUSHALL");
}

/* The burst is larger than the socket buffer, so the store must wait for writability. */
static void burst_larger_than_the_socket_buffer_is_answered(void **state) {
    char key[1001];
    (void)state;
    memset(key, 'k', 1000);
    key[1000] = '\0';
    for (size_t i = 0; i < STAGES; i++) {
        struct act act = open_act(stages[i], server.url, PATIENT);
        struct tally tally = {0};
        for (int n = 0; n < 20000; n++)
            consume_counted(act.throttler, key, 1, &tally);
        run_act(&act, &tally);
        assert_int_equal(tally.allowed, 20000);
        assert_int_equal(tally.last.level, 20000);
        close_act(&act);
        server_ask(&server, "FLUSHALL");
    }
}

/* False: the outcome may be that of a slow machine. */
static bool freezes(const struct stage *stage) {
    struct act act = open_act(stage, server.url, TIMEOUT);
    struct tally tally = {0}, frozen = {0};
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&act, &tally);
    server_freeze(&server);
    for (int n = 0; n < 20; n++)
        consume_counted(act.throttler, "k", 1, &frozen);
    run_act(&act, &frozen);
    server_thaw(&server);
    const bool ended = tally.verdicts == 1 && frozen.errors[-STEADY_UNKNOWN] == 20;
    if (ended)
        assert_between(frozen.slowest, TIMEOUT, TIMEOUT + 50 * MS + frozen.taken_away);
    else if (tally.taken_away < TIMEOUT / 2 && frozen.taken_away < TIMEOUT / 2)
        fail_msg("%s: %lu verdicts, %lu unknown", stage->name, tally.verdicts, frozen.errors[-STEADY_UNKNOWN]);
    close_act(&act);
    return ended;
}

static void frozen_server_ends_decisions_at_their_deadline(void **state) {
    (void)state;
    for (size_t i = 0; i < STAGES; i++)
        for (int tries = 1; !freezes(stages[i]); tries++)
            if (tries == TRIES) fail_msg("in %d tries the machine took too much away", tries);
}

static void restarted_server_is_used_within_a_second(void **state) {
    (void)state;
    for (size_t i = 0; i < STAGES; i++) {
        struct act act = open_act(stages[i], server.url, TIMEOUT);
        struct tally tally = {0};
        await_verdict(&act);
        server_kill(&server);
        for (int n = 0; n < 20; n++) {
            consume_counted(act.throttler, "k", 1, &tally);
            run_act(&act, &tally);
        }
        assert_int_equal(tally.errors[-STEADY_UNAVAILABLE] + tally.errors[-STEADY_UNKNOWN], 20);
        server_restart(&server, true);
        const steady_us back = now_us(), taken = taken_away();
        while (tally.verdicts == 0) {
            assert_true(now_us() - back < STEADY_SECOND + slack_since(taken));
            consume_counted(act.throttler, "k", 1, &tally);
            run_act(&act, &tally);
        }
        close_act(&act);
    }
}

static void close_all(const steady_result *result, void *data) {
    struct act *act = data;
    if (result->error == STEADY_CANCELLED) return;
    steady_throttler_free(&act->throttler);
    steady_store_close(&act->store);
}

static void callback_may_close_the_store(void **state) {
    (void)state;
    for (size_t i = 0; i < STAGES; i++) {
        struct act act = open_act(stages[i], server.url, PATIENT);
        for (int n = 0; n < 10; n++)
            assert_int_equal(steady_consume(act.throttler, "k", 1, 1, close_all, &act), 0);
        while (act.store != NULL)
            stages[i]->turn(act.loop.loop);
        close_act(&act);
    }
}

/* The store closes before it has connected, during a lookup or an attempt to connect. */
static void store_closed_while_connecting_ends_its_decision(void **state) {
    static const char *const urls[] = {"redis://localhost:1", "redis://127.0.0.1:1", "unix:/nonexistent/socket",
                                       "redis://no-such-host.invalid"};
    (void)state;
    for (size_t i = 0; i < STAGES; i++) {
        for (size_t u = 0; u < COUNT(urls); u++) {
            for (int turns = 0; turns < 3; turns++) {
                struct act act = open_act(stages[i], urls[u], TIMEOUT);
                struct tally tally = {0};
                consume_counted(act.throttler, "k", 1, &tally);
                for (int n = 0; n < turns; n++)
                    stages[i]->turn(act.loop.loop);
                steady_store_close(&act.store);
                assert_int_equal(tally.called, 1);
                close_act(&act);
            }
        }
    }
}

/* ---- Turns ---- */

/* A program that makes a decision inside each callback, and other work in its loop. */
struct chain {
    steady_throttler *throttler;
    bool pipe_ran, timer_ran, starved, over;
    steady_us until;
    unsigned long links;
};

static void pipe_ran(void *arg, int events) {
    struct chain *chain = arg;
    (void)events;
    chain->pipe_ran = true;
}

static void timer_ran(void *arg) { ((struct chain *)arg)->timer_ran = true; }

static void ask_again(const steady_result *result, void *data) {
    struct chain *chain = data;
    (void)result;
    chain->links++;
    chain->starved = now_us() > chain->until;
    chain->over = chain->starved || (chain->pipe_ran && chain->timer_ran);
    if (!chain->over) assert_int_equal(steady_consume(chain->throttler, "k", 1, 1, ask_again, chain), 0);
}

static void play_chain(const struct stage *stage, const char *url) {
    struct act act = open_act(stage, url, TIMEOUT);
    struct chain chain = {.throttler = act.throttler};
    struct tally tally = {0};
    int fds[2];
    consume_counted(act.throttler, "k", 1, &tally);
    run_act(&act, &tally); /* the store knows now that the server is down */
    assert_return_code(pipe(fds), errno);
    assert_int_equal(write(fds[1], "x", 1), 1);
    void *io = act.loop.ops->io_new(act.loop.loop, fds[0], pipe_ran, &chain);
    void *timer = act.loop.ops->timer_new(act.loop.loop, timer_ran, &chain);
    assert_int_equal(act.loop.ops->io_want(io, STEADY_READABLE), 0);
    assert_int_equal(act.loop.ops->timer_start(timer, 20 * MS), 0);
    chain.until = now_us() + PATIENT;
    assert_int_equal(steady_consume(act.throttler, "k", 1, 1, ask_again, &chain), 0);
    while (!chain.over)
        act.stage->turn(act.loop.loop);
    if (chain.starved) fail_msg("%s, %s: %lu decisions, and nothing else", stage->name, url, chain.links);
    act.loop.ops->io_free(io);
    act.loop.ops->timer_free(timer);
    close(fds[0]);
    close(fds[1]);
    close_act(&act);
}

static void chain_of_decisions_leaves_the_loop_its_turns(void **state) {
    char down[64];
    (void)state;
    snprintf(down, sizeof down, "redis://127.0.0.1:%d", free_port());
    for (size_t i = 0; i < STAGES; i++) {
        play_chain(stages[i], "memory:");
        play_chain(stages[i], down);
    }
}

/* A reply and a reset are there at once. The reply must be read although the descriptor has an error. */
static void reply_before_a_reset_is_read(void **state) {
    static const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, ":3600000000\r\n", 0},
        {FAKE_EXPECT, 2, NULL, 0},
        {FAKE_SEND, 0, ":3600000000\r\n", 0},
        {FAKE_RST, 0, NULL, 0},
    };
    (void)state;
    for (size_t i = 0; i < STAGES; i++) {
        struct fake_server *fake = fake_start(steps, COUNT(steps));
        struct act act = {.stage = stages[i], .loop = stages[i]->make()};
        const steady_store_options options = {.loop = &act.loop, .engine = STEADY_ENGINE_SCRIPT, .timeout = PATIENT};
        struct tally tally = {0};
        char url[64];
        snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_port(fake));
        act.store = open_store(url, &options);
        act.throttler = new_throttler(act.store, 10, HOUR);
        consume_counted(act.throttler, "a", 1, &tally);
        run_act(&act, &tally);
        consume_counted(act.throttler, "a", 1, &tally);
        consume_counted(act.throttler, "b", 1, &tally);
        act.stage->turn(act.loop.loop); /* the second request is written */
        sleep_us(50 * MS);
        run_act(&act, &tally);
        assert_int_equal(tally.verdicts, 2);
        assert_int_equal(tally.errors[-STEADY_UNKNOWN], 1);
        close_act(&act);
        fake_stop(fake);
    }
}

struct timers {
    const steady_loop *loop;
    void *first, *second;
    int fired;
};

static void stop_the_other(void *arg) {
    struct timers *timers = arg;
    timers->fired++;
    timers->loop->ops->timer_stop(timers->second);
    timers->loop->ops->timer_start(timers->first, 20 * MS);
    timers->loop->ops->timer_start(timers->first, 0);
    if (timers->fired == 3) timers->loop->ops->timer_free(timers->first);
}

/* Timers are started, restarted, stopped and freed. Only the last setting counts. */
static void last_timer_setting_wins(void **state) {
    (void)state;
    for (size_t i = 0; i < STAGES; i++) {
        const steady_loop loop = stages[i]->make();
        struct timers timers = {.loop = &loop};
        timers.first = loop.ops->timer_new(loop.loop, stop_the_other, &timers);
        timers.second = loop.ops->timer_new(loop.loop, stop_the_other, &timers);
        assert_int_equal(loop.ops->timer_start(timers.second, 0), 0);
        assert_int_equal(loop.ops->timer_start(timers.second, HOUR), 0);
        assert_int_equal(loop.ops->timer_start(timers.first, HOUR), 0);
        assert_int_equal(loop.ops->timer_start(timers.first, 0), 0);
        for (const steady_us until = now_us() + PATIENT; timers.fired < 3 && now_us() < until;)
            stages[i]->turn(loop.loop);
        if (timers.fired != 3) fail_msg("%s: %d", stages[i]->name, timers.fired);
        loop.ops->timer_start(timers.second, 0);
        loop.ops->timer_stop(timers.second);
        loop.ops->timer_start(timers.second, 0);
        loop.ops->timer_free(timers.second);
        if (!stages[i]->leave(loop.loop)) fail_msg("%s: something is left in the loop", stages[i]->name);
        assert_int_equal(timers.fired, 3);
    }
}

/* ---- Forked ---- */

static steady_us processor_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

/* A server forks a worker in this way. The loop may still call handlers of the store, and they do nothing. */
static int close_and_go_on(struct act *act) {
    const steady_us before = processor_time();
    steady_throttler_free(&act->throttler);
    steady_store_close(&act->store);
    act->stage->go_on(act->loop.loop, 4 * TIMEOUT);
    return processor_time() - before < 2 * TIMEOUT ? 0 : 1;
}

static void forked_child_closes_and_the_parent_goes_on(void **state) {
    (void)state;
    for (size_t i = 0; i < STAGES; i++) {
        struct act act = open_act(stages[i], server.url, PATIENT);
        struct tally tally = {0};
        int status = -1;
        consume_counted(act.throttler, "k", 1, &tally);
        run_act(&act, &tally);
        const pid_t pid = fork();
        assert_return_code(pid, errno);
        if (pid == 0) _exit(close_and_go_on(&act));
        for (const steady_us until = now_us() + TIMEOUT; now_us() < until;) {
            consume_counted(act.throttler, "k", 1, &tally);
            run_act(&act, &tally);
        }
        assert_int_equal(tally.allowed, tally.submitted); /* the parent is not affected */
        server_kill(&server);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (status != 0) fail_msg("%s: status %x", stages[i]->name, (unsigned)status);
        close_act(&act);
        server_restart(&server, true);
    }
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
        cmocka_unit_test(pipelined_decisions_are_answered_on_each_loop),
        cmocka_unit_test(burst_larger_than_the_socket_buffer_is_answered),
        cmocka_unit_test(connection_made_while_the_loop_was_held_is_used),
        cmocka_unit_test(frozen_server_ends_decisions_at_their_deadline),
        cmocka_unit_test(restarted_server_is_used_within_a_second),
        cmocka_unit_test(callback_may_close_the_store),
        cmocka_unit_test(store_closed_while_connecting_ends_its_decision),
        cmocka_unit_test(chain_of_decisions_leaves_the_loop_its_turns),
        cmocka_unit_test(reply_before_a_reset_is_read),
        cmocka_unit_test(last_timer_setting_wins),
        cmocka_unit_test(forked_child_closes_and_the_parent_goes_on),
    };
    return cmocka_run_group_tests_name("loops", tests, group_set_up, group_tear_down);
}
