/* SPDX-License-Identifier: MIT
 * Calls on several keys by threads, then processes, on one embedded store at once; some processes are killed at random.
 * The lasting limit leaks nothing during a test, so it shows a drop too many or too few. */
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>

#include "share_rig.h"
#include "steady.h"

#define WORKERS 4
#define KEYS 5
#define MOST 3 /* drops of a call in a bucket */
#define CAPACITY 2000
#define HOT_CAPACITY 5
#define HOT_RECHARGE 200 /* us */
#define KILLS 300

/* Shared by all workers, threads or processes. The last key is hot: it has the leaking limit. */
static struct board {
    atomic_llong granted[KEYS + 1]; /* without what was given back */
    atomic_llong calls;
} * board;

static steady_store *store;
static steady_throttler *lasting, *hot;

static void open_shared(const char *where, int64_t capacity) {
    const steady_store_options options = {.buckets = 64};
    const steady_limit slow = {.max_capacity = capacity, .drop_recharge = 1000 * STEADY_SECOND};
    const steady_limit fast = {.max_capacity = HOT_CAPACITY, .drop_recharge = HOT_RECHARGE};
    steady_message why = {.text = ""};
    memset(board, 0, sizeof *board);
    if (steady_store_open(&store, where, &options, &why) != 0) fail_msg("%s", why.text);
    assert_int_equal(steady_throttler_new(&lasting, store, &slow, NULL, NULL), 0);
    assert_int_equal(steady_throttler_new(&hot, store, &fast, NULL, NULL), 0);
}

static void close_shared(void) {
    steady_throttler_free(&lasting);
    steady_throttler_free(&hot);
    steady_store_close(&store);
}

static int64_t now_us(void) { return clock_us(CLOCK_BOOTTIME); }

static uint32_t random_below(uint64_t *state, uint32_t count) {
    *state = *state * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)((*state >> 32) * count >> 32);
}

static int64_t level_of(int key) {
    steady_result r;
    const char name = (char)('a' + key);
    assert_int_equal(steady_peek_sync(key == KEYS ? hot : lasting, &name, 1, &r), 0);
    return r.level;
}

/* ---- Workers ---- */

/* Takes from some keys at once, and now and then settles. False: denied. */
static bool take_some(uint64_t *random, bool with_hot, bool settles) {
    static const char names[] = "abcdef";
    steady_part parts[KEYS + 1];
    steady_part_result results[KEYS + 1];
    steady_how how = {.parts = results, .parts_room = KEYS + 1, .reserve = settles && random_below(random, 3) == 0};
    steady_result r;
    const uint32_t first = random_below(random, KEYS), n = 1 + random_below(random, KEYS);
    const bool partial = random_below(random, 4) == 0;
    const int64_t amount = 1 + random_below(random, MOST);
    memset(parts, 0, sizeof parts);
    for (uint32_t i = 0; i < n + with_hot; i++) {
        const uint32_t key = i == n ? KEYS : (first + i) % KEYS;
        parts[i].throttler = key == KEYS ? hot : lasting;
        parts[i].key = &names[key];
        parts[i].key_len = 1;
        parts[i].amount = partial ? amount : 1 + random_below(random, MOST);
    }
    how.at_least = partial ? 1 : 0;
    if (steady_consume_all_sync(parts, n + with_hot, &how, &r) != 0) abort();
    for (uint32_t i = 0; i < n + with_hot && r.success; i++)
        atomic_fetch_add(&board->granted[i == n ? KEYS : (first + i) % KEYS], results[i].granted);
    if (r.reservation != NULL) {
        static const int64_t none[KEYS + 1];
        const steady_settlement nothing = {.reservation = r.reservation, .actuals = none, .store = store};
        steady_result settled;
        if (steady_settle_sync(&nothing, &settled) != 0) abort();
        for (uint32_t i = 0; i < n; i++)
            atomic_fetch_sub(&board->granted[(first + i) % KEYS], results[i].granted);
        steady_reservation_free(&r.reservation);
    }
    atomic_fetch_add(&board->calls, 1);
    return r.success;
}

/* Until it is denied over and over. */
static void fill_up(void) {
    uint64_t random = (uint64_t)(uintptr_t)pthread_self() * 31 + (uint64_t)getpid() * 17;
    for (int denied = 0; denied < 2000;)
        denied += !take_some(&random, false, true);
}

/* The hot key denies all the time. */
static void fight_for_the_hot_key(void) {
    uint64_t random = (uint64_t)(uintptr_t)pthread_self() * 31 + (uint64_t)getpid() * 17;
    for (int64_t end = now_us() + 300000; now_us() < end;)
        take_some(&random, true, false);
}

/* A settlement leaves the part of its drops that has leaked, at most some ms in all: in the level, one drop. */
static void check_lasting(long long slack) {
    for (int key = 0; key < KEYS; key++) {
        assert_between(level_of(key), board->granted[key], board->granted[key] + slack + 1);
        assert_true(level_of(key) > 0);
    }
}

static void check_full(void) {
    long long fullest = 0;
    check_lasting(0);
    for (int key = 0; key < KEYS; key++) {
        assert_true(board->granted[key] <= CAPACITY);
        if (board->granted[key] > fullest) fullest = board->granted[key];
    }
    assert_true(fullest > CAPACITY - MOST);
}

static void check_hot(int64_t took) {
    check_lasting(0);
    assert_between(board->granted[KEYS], HOT_CAPACITY + 1, HOT_CAPACITY + took / HOT_RECHARGE + 1);
}

static void threads_fill_all_keys_and_no_key_over_its_capacity(void **state) {
    (void)state;
    open_shared("memory:", CAPACITY);
    run_threads(WORKERS, fill_up);
    check_full();
    close_shared();
}

static void threads_are_allowed_the_capacity_and_what_has_leaked(void **state) {
    (void)state;
    open_shared("memory:", 9000000);
    const int64_t start = now_us();
    run_threads(WORKERS, fight_for_the_hot_key);
    check_hot(now_us() - start);
    close_shared();
}

static void processes_fill_all_keys_and_no_key_over_its_capacity(void **state) {
    (void)state;
    if (!TRUE_SWAPS) skip_because("ThreadSanitizer makes the compare-and-swap private to the process");
    open_shared(url, CAPACITY);
    run_processes(WORKERS, fill_up);
    check_full();
    close_shared();
}

static void processes_are_allowed_the_capacity_and_what_has_leaked(void **state) {
    (void)state;
    if (!TRUE_SWAPS) skip_because("ThreadSanitizer makes the compare-and-swap private to the process");
    open_shared(url, 9000000);
    const int64_t start = now_us();
    run_processes(WORKERS, fight_for_the_hot_key);
    check_hot(now_us() - start);
    close_shared();
}

/* ---- Killed ---- */

static pid_t start_victim(void) {
    const pid_t child = fork();
    if (child != 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    uint64_t random = (uint64_t)getpid();
    for (;;)
        take_some(&random, true, false);
}

static void killed_process_leaves_at_most_the_drops_of_one_call(void **state) {
    (void)state;
    pid_t victims[WORKERS];
    if (!TRUE_SWAPS) skip_because("ThreadSanitizer makes the compare-and-swap private to the process");
    open_shared(url, 9000000);
    for (int i = 0; i < WORKERS; i++)
        victims[i] = start_victim();
    for (int kills = 0; kills < KILLS; kills++) {
        pause_us(rand() % 1000);
        kill(victims[kills % WORKERS], SIGKILL);
        wait_for(victims[kills % WORKERS]);
        victims[kills % WORKERS] = start_victim();
    }
    const long long before = board->calls;
    for (int64_t start = now_us(); board->calls == before;)
        if (now_us() - start > 10000000) fail_msg("no process goes on");
    for (int i = 0; i < WORKERS; i++) {
        kill(victims[i], SIGKILL);
        wait_for(victims[i]);
    }
    check_lasting((KILLS + WORKERS) * MOST);
    close_shared();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_fill_all_keys_and_no_key_over_its_capacity),
        cmocka_unit_test(threads_are_allowed_the_capacity_and_what_has_leaked),
        cmocka_unit_test_setup_teardown(processes_fill_all_keys_and_no_key_over_its_capacity, share_set_up,
                                        share_tear_down),
        cmocka_unit_test_setup_teardown(processes_are_allowed_the_capacity_and_what_has_leaked, share_set_up,
                                        share_tear_down),
        cmocka_unit_test_setup_teardown(killed_process_leaves_at_most_the_drops_of_one_call, share_set_up,
                                        share_tear_down),
    };
    board = shared_memory(sizeof *board);
    if (board == NULL) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
