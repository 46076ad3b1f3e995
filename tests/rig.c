/* SPDX-License-Identifier: MIT
 * Shared by tests of faults: a server, a store on it, a load of decisions, and a watch on the loop. */
#include "rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define HELD_MOST (150 * MS) /* the largest map takes 25 to 70 ms */
#define LATE (150 * MS)
#elif defined(__SANITIZE_ADDRESS__)
#define HELD_MOST (50 * MS)
#define LATE (150 * MS)
#else
#define HELD_MOST (10 * MS) /* the largest map takes 3 to 6 ms, by the processor */
#define LATE (50 * MS)
#endif

struct rig rig;

/* ---- The watched loop: the poller's, with a clock around each handler ---- */

struct handler {
    void *inner; /* the poller's io or timer */
    void (*ready)(void *arg, int events);
    void (*fired)(void *arg);
    void *arg;
};

steady_us longest_held;
static unsigned too_long; /* turns that held the loop too long */
static int schedule = -1; /* /proc/thread-self/schedstat */
static steady_us unseen;  /* waits that the kernel has not counted */

/* What this thread has done so far. */
struct account {
    steady_us time, ran, waited;
    long slept; /* voluntary context switches */
};

/* The time for which the thread has waited for a processor, as counted by the kernel. */
static steady_us wait_so_far(void) {
    char text[96] = "";
    char *end = NULL;
    if (schedule < 0 || pread(schedule, text, sizeof text - 1, 0) <= 0) return 0;
    strtoull(text, &end, 10);
    return (steady_us)(strtoull(end, NULL, 10) / 1000);
}

static steady_us us_of(struct timeval time) { return time.tv_sec * STEADY_SECOND + time.tv_usec; }

static struct account account_so_far(void) {
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
    return (struct account){now_us(), us_of(usage.ru_utime) + us_of(usage.ru_stime), wait_so_far(), usage.ru_nvcsw};
}

/* Called before a turn, and before decisions are submitted. */
static struct account begin_turn(void) {
    const struct account begin = account_so_far();
    waited_for_processor = begin.waited + unseen;
    return begin;
}

/* A thread that has not slept was running or waiting. The kernel does not count some waits, for example when a thread
 * moves to another processor (Linux 6.18). */
static void end_turn(const struct account *begin) {
    const steady_us time = now_us() - begin->time;
    if (time <= HELD_MOST && time <= longest_held) return;
    const struct account end = account_so_far();
    const steady_us counted = end.waited - begin->waited;
    steady_us held = end.time - begin->time - counted;
    if (end.slept == begin->slept && end.ran - begin->ran < held) {
        unseen += held - (end.ran - begin->ran);
        held = end.ran - begin->ran;
    }
    if (held > longest_held) longest_held = held;
    too_long += held > HELD_MOST;
}

static void ready(void *arg, int events) {
    const struct handler handler = *(struct handler *)arg; /* the handler may free it */
    const struct account begin = begin_turn();
    handler.ready(handler.arg, events);
    end_turn(&begin);
}

static void fired(void *arg) {
    const struct handler handler = *(struct handler *)arg;
    const struct account begin = begin_turn();
    handler.fired(handler.arg);
    end_turn(&begin);
}

static const steady_loop_ops *inner_ops;

static void *handler_of(struct handler *handler) {
    if (handler->inner != NULL) return handler;
    free(handler);
    return NULL;
}

static void *io_new(void *loop, int fd, void (*on_ready)(void *arg, int events), void *arg) {
    struct handler *handler = calloc(1, sizeof *handler);
    assert_non_null(handler);
    *handler = (struct handler){.ready = on_ready, .arg = arg};
    handler->inner = inner_ops->io_new(loop, fd, ready, handler);
    return handler_of(handler);
}

static void *timer_new(void *loop, void (*on_fired)(void *arg), void *arg) {
    struct handler *handler = calloc(1, sizeof *handler);
    assert_non_null(handler);
    *handler = (struct handler){.fired = on_fired, .arg = arg};
    handler->inner = inner_ops->timer_new(loop, fired, handler);
    return handler_of(handler);
}

static int io_want(void *io, int events) { return inner_ops->io_want(((struct handler *)io)->inner, events); }
static int timer_start(void *timer, steady_us delay) {
    return inner_ops->timer_start(((struct handler *)timer)->inner, delay);
}
static void timer_stop(void *timer) { inner_ops->timer_stop(((struct handler *)timer)->inner); }

static void io_free(void *io) {
    inner_ops->io_free(((struct handler *)io)->inner);
    free(io);
}

static void timer_free(void *timer) {
    inner_ops->timer_free(((struct handler *)timer)->inner);
    free(timer);
}

static steady_loop watched(steady_loop loop) {
    static const steady_loop_ops ops = {.name = "watched",
                                        .io_new = io_new,
                                        .io_want = io_want,
                                        .io_free = io_free,
                                        .timer_new = timer_new,
                                        .timer_start = timer_start,
                                        .timer_stop = timer_stop,
                                        .timer_free = timer_free};
    inner_ops = loop.ops;
    assert_true(loop.ops->now == NULL); /* CLOCK_MONOTONIC, like now_us */
    return (steady_loop){.ops = &ops, .loop = loop.loop};
}

/* A virtual machine may stall now and then. */
#define STANDSTILLS 1

void assert_loop_never_held(void) {
    if (longest_held <= 10 * HELD_MOST && too_long <= STANDSTILLS) return;
    fail_msg("the loop was held %u times, for up to %lld us", too_long, (long long)longest_held);
}

void assert_in_time(const struct tally *tally) {
    const unsigned long ended = slower(tally, TIMEOUT - TOOK_STEP), late = slower(tally, TIMEOUT + LATE);
    if (slower(tally, TIMEOUT + SLACK) > 0) fail_msg("one took %lld us", (long long)tally->slowest);
    if (late > ended / 20 + STANDSTILLS) fail_msg("%lu of %lu were over %lld us late", late, ended, (long long)LATE);
}

void assert_at_once(const struct tally *tally) {
    const unsigned long late = slower(tally, AT_ONCE);
    if (late > tally->called / 10) fail_msg("%lu of %lu were not ended at once", late, tally->called);
}

/* ---- The rig ---- */

static int descriptors_before;

static int open_descriptors(void) {
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

/* The thread of a lookup in progress ends a little later. */
static void assert_nothing_left_open(void) {
    const steady_us until = now_us() + 5 * STEADY_SECOND;
    while (open_descriptors() != descriptors_before) {
        if (now_us() > until) fail_msg("%d descriptors, %d before", open_descriptors(), descriptors_before);
        sleep_us(10 * MS);
    }
}

int rig_set_up(void **state) {
    (void)state;
    memset(&rig, 0, sizeof rig);
    longest_held = 0;
    too_long = 0;
    if (schedule < 0) schedule = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    begin_turn();
    descriptors_before = open_descriptors();
    forget_tallies(false);
    server_start(&rig.server, NULL);
    assert_int_equal(steady_poller_new(&rig.poller), 0);
    rig.loop = watched(steady_poller_loop(rig.poller));
    return 0;
}

void rig_close(void) {
    steady_throttler_free(&rig.throttler);
    steady_store_close(&rig.store);
}

int rig_tear_down(void **state) {
    (void)state;
    forget_tallies(true);
    rig_close();
    steady_poller_free(&rig.poller);
    server_stop(&rig.server);
    assert_nothing_left_open();
    return 0;
}

void rig_open_at(const char *url, steady_us timeout) {
    const steady_store_options options = {
        .loop = &rig.loop, .timeout = timeout, .log = remember_line, .log_data = &rig.log};
    rig.store = open_store(url, &options);
    rig.throttler = new_throttler(rig.store, LARGE, RECHARGE);
}

void rig_open(steady_us timeout) { rig_open_at(rig.server.url, timeout); }

void rig_open_without_memory(steady_us timeout) {
    char url[sizeof rig.server.url + 16];
    snprintf(url, sizeof url, "%s?deny_memory=0", rig.server.url);
    rig_open_at(url, timeout);
}

long long level(const char *key) {
    const char *text = server_ask(&rig.server, "GET %s", key);
    if (text[0] == '-') fail_msg("GET %s: %s", key, text);
    return atoll(text);
}

steady_stats stats(void) {
    steady_stats s;
    steady_store_stats(rig.store, &s);
    return s;
}

int ask_one(void) {
    struct tally tally = {0};
    consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, 20 * STEADY_SECOND);
    return tally.last.error;
}

/* Waits for the replies to the requests that a store sends once, after its first decision. */
static void settle(void) { run_for(rig.poller, 5 * MS); }

void warm_up(void) {
    const steady_us until = now_us() + 20 * STEADY_SECOND;
    struct tally tally = {0};
    while (tally.verdicts == 0) {
        assert_true(now_us() < until);
        consume_counted(rig.throttler, "warm", 1, &tally);
        run_until_done(rig.poller, &tally, 2 * STEADY_SECOND);
    }
    settle();
}

void assert_used_again(void) {
    const steady_us since = now_us(), taken = taken_away();
    struct tally tally = {0};
    while (tally.verdicts == 0) {
        if (now_us() - since > STEADY_SECOND + slack_since(taken))
            fail_msg("not used again within a second: %s", last_error_of(rig.store));
        consume_counted(rig.throttler, "again", 1, &tally);
        run_for(rig.poller, 10 * MS);
    }
    run_until_done(rig.poller, &tally, 2 * STEADY_SECOND);
    settle();
}

void load(struct tally *tally, unsigned long in_flight, steady_us time) {
    const steady_us until = now_us() + time;
    while (now_us() < until) {
        begin_turn();
        while (tally->submitted - tally->called < in_flight)
            consume_counted(rig.throttler, "k", 1, tally);
        assert_true(steady_poller_run(rig.poller, 10 * MS) >= 0);
    }
    run_until_done(rig.poller, tally, 10 * STEADY_SECOND);
}

void trickle(struct tally *tally, steady_us pause, steady_us time) {
    const steady_us until = now_us() + time;
    while (now_us() < until) {
        begin_turn();
        consume_counted(rig.throttler, "k", 1, tally);
        run_for(rig.poller, pause);
    }
    run_until_done(rig.poller, tally, STEADY_SECOND);
}

pid_t start_child(void (*work)(void)) {
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) {
        for (;;)
            work();
    }
    return pid;
}

void end_child(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
