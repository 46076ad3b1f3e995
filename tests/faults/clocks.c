/* SPDX-License-Identifier: MIT
 * Clocks that step: the server's, which buckets use, and the client's, which deadlines use. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CAPACITY 5
#define RECHARGE_TIME (100 * MS)

static volatile int64_t *offset_us; /* of the server's clock */
static char offset_path[] = "/tmp/steady-clock-XXXXXX";
static unsigned wall_clock_reads; /* counts reads by this program and the library */

int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t) {
    wall_clock_reads += id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
    return __real_clock_gettime(id, t);
}

/* ---- The server's clock ---- */

static int map_offset(void **state) {
    char program[512];
    const char *build = getenv("BUILD");
    (void)state;
    const int fd = mkstemp(offset_path);
    assert_return_code(fd, errno);
    assert_return_code(ftruncate(fd, sizeof *offset_us), errno);
    void *page = mmap(NULL, sizeof *offset_us, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(page != MAP_FAILED);
    close(fd);
    offset_us = page;
    snprintf(program, sizeof program, "env LD_PRELOAD=%s/faults/clock_shim.so CLOCK_OFFSET=%s redis-server",
             build != NULL ? build : "build", offset_path);
    return setenv("REDIS_SERVER", program, 1);
}

static int remove_offset(void **state) {
    (void)state;
    return unlink(offset_path);
}

static int set_up(void **state) {
    *offset_us = 0;
    rig_set_up(state);
    return 0;
}

static void open_narrow(steady_us block) {
    const steady_limit limit = {.max_capacity = CAPACITY, .drop_recharge = RECHARGE_TIME, .block_duration = block};
    rig_open(STEADY_SECOND);
    steady_throttler_free(&rig.throttler);
    assert_int_equal(steady_throttler_new(&rig.throttler, rig.store, &limit, NULL, NULL), 0);
}

/* Consumes one drop each millisecond for `time`. Returns how many were allowed. */
static unsigned long admitted_in(steady_us time) {
    struct tally tally = {0};
    trickle(&tally, MS, time);
    assert_int_equal(tally.verdicts, tally.called);
    assert_true(tally.last.retry_after <= CAPACITY * RECHARGE_TIME);
    assert_true(tally.last.level <= CAPACITY);
    return tally.allowed;
}

/* The drops that leak in `time`, and one more for rounding. */
static unsigned long leaked_in(steady_us time) { return (unsigned long)(time / RECHARGE_TIME) + 1; }

/* The step gives room for one capacity more, beside the drops that leak. */
static void server_clock_stepped_forward_admits_one_more_capacity(void **state) {
    struct tally whole = {0};
    (void)state;
    open_narrow(0);
    const steady_us begin = now_us();
    const unsigned long before = admitted_in(500 * MS);
    assert_between(before, CAPACITY, CAPACITY + leaked_in(now_us() - begin));
    consume_counted(rig.throttler, "k", CAPACITY, &whole);
    run_until_done(rig.poller, &whole, STEADY_SECOND);
    assert_int_equal(whole.denied, 1);
    *offset_us = HOUR;
    consume_counted(rig.throttler, "k", CAPACITY, &whole);
    run_until_done(rig.poller, &whole, STEADY_SECOND);
    assert_int_equal(whole.allowed, 1);
    const unsigned long after = admitted_in(500 * MS);
    assert_true(before + after <= CAPACITY + leaked_in(now_us() - begin));
}

static void server_clock_stepped_back_admits_no_more(void **state) {
    (void)state;
    open_narrow(0);
    const steady_us begin = now_us();
    const unsigned long before = admitted_in(500 * MS);
    *offset_us = -HOUR;
    const unsigned long after = admitted_in(STEADY_SECOND);
    assert_between(after, 5, CAPACITY + leaked_in(now_us() - begin) - before); /* no more, and the key is not locked */
    assert_true(stats().clock_steps >= 1);
}

/* A block moves with the clock. At worst it begins again, and so does the drop that was about to leak. */
static void block_begins_again_at_worst_if_the_clock_steps_back(void **state) {
    struct tally tally = {0};
    (void)state;
    open_narrow(500 * MS);
    trickle(&tally, MS, 50 * MS);
    assert_true(tally.denied > 0 && tally.last.blocked_for > 0);
    *offset_us = -HOUR;
    const steady_us begin = now_us();
    do {
        consume_counted(rig.throttler, "k", 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
        assert_true(tally.last.blocked_for <= 500 * MS + RECHARGE_TIME);
        assert_true(now_us() - begin < STEADY_SECOND);
    } while (!tally.last.success);
    assert_true(now_us() - begin > 300 * MS);
}

static void swaying_server_clock_admits_one_capacity_for_each_step_forward(void **state) {
    const steady_us begin = now_us(), time = how_long(5 * STEADY_SECOND, 60 * STEADY_SECOND);
    unsigned long admitted = 0, ahead = 0;
    (void)state;
    open_narrow(0);
    while (now_us() - begin < time) {
        *offset_us = *offset_us == 0 ? 10 * STEADY_SECOND : 0;
        ahead += *offset_us != 0;
        admitted += admitted_in(100 * MS);
    }
    const unsigned long most = CAPACITY + leaked_in(now_us() - begin) + ahead * CAPACITY;
    print_message("# %lu admitted, of %lu at most\n", admitted, most);
    assert_between(admitted, leaked_in(time) / 2, most);
    assert_true(stats().clock_steps > 0);
}

/* ---- The client's clock ---- */

/* Deadlines use the monotonic clock only. */
static void wall_clock_is_never_read(void **state) {
    struct tally tally = {0};
    steady_result r;
    (void)state;
    rig_open(TIMEOUT);
    wall_clock_reads = 0;
    trickle(&tally, MS, 100 * MS);
    assert_int_equal(steady_consume_sync(rig.throttler, "k", 1, 1, &r), 0);
    server_freeze(&rig.server);
    trickle(&tally, 10 * MS, 500 * MS);
    server_thaw(&rig.server);
    assert_used_again();
    rig_close();
    rig_open_at("memory:", TIMEOUT);
    assert_int_equal(steady_consume_sync(rig.throttler, "k", 1, 1, &r), 0);
    assert_int_equal(wall_clock_reads, 0);
}

/* The process is stopped for longer than a timeout. Replies that arrived meanwhile count. */
static void process_stopped_and_continued_takes_its_answers(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open(TIMEOUT);
    warm_up();
    for (int i = 0; i < 100; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    steady_poller_run(rig.poller, 0); /* all requests are written */
    const pid_t self = getpid(), pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) {
        kill(self, SIGSTOP);
        sleep_us(how_long(500 * MS, 10 * STEADY_SECOND));
        kill(self, SIGCONT);
        _exit(0);
    }
    waitpid(pid, NULL, 0); /* this process was stopped meanwhile */
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_int_equal(tally.allowed, 100);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(stats().reconnects, 0);
    tally.allowed++;
    account(&tally, level("k"));
}

static void old_monotonic_clock_changes_nothing(void **state) {
    char line[512];
    const char *build = getenv("BUILD");
    (void)state;
    if (system("unshare --time --monotonic 1 true 2>/dev/null") != 0) skip_because("no time namespaces here");
    snprintf(line, sizeof line,
             "env -u REDIS_SERVER STEADY_TEST=pipelined_decisions_admit_exactly_the_capacity unshare --time "
             "--monotonic 1000000000 --boottime 1000000000 "
             "%s/test/live_redis 2>&1 | grep -q 'OK.*pipelined_decisions_admit_exactly_the_capacity'",
             build != NULL ? build : "build");
    assert_int_equal(system(line), 0);
}

int main(void) {
#define WITH_CLOCK(test) cmocka_unit_test_setup_teardown(test, set_up, rig_tear_down)
    const struct CMUnitTest tests[] = {
        WITH_CLOCK(server_clock_stepped_forward_admits_one_more_capacity),
        WITH_CLOCK(server_clock_stepped_back_admits_no_more),
        WITH_CLOCK(block_begins_again_at_worst_if_the_clock_steps_back),
        WITH_CLOCK(swaying_server_clock_admits_one_capacity_for_each_step_forward),
        WITH_CLOCK(wall_clock_is_never_read),
        WITH_CLOCK(process_stopped_and_continued_takes_its_answers),
        WITH_CLOCK(old_monotonic_clock_changes_nothing),
    };
    return cmocka_run_group_tests_name("clocks", tests, map_offset, remove_offset);
}
