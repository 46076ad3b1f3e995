/* SPDX-License-Identifier: MIT
 * The embedded store in the public API: results that come in a later turn of the loop, memory, and counters. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "assertions.h"
#include "last_error.h"
#include "local/local_store.h"
#include "steady.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const steady_limit ten = {.max_capacity = 10, .drop_recharge = 3600 * STEADY_SECOND};

/* ---- A loop whose turns the test runs ---- */

static struct hand {
    void (*fired)(void *arg);
    void *arg;
    int timers;
    bool running;
    bool no_timer;
    bool no_start;
} hand;

static void *hand_timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    (void)loop;
    if (hand.no_timer) return NULL;
    hand.fired = fired;
    hand.arg = arg;
    hand.timers++;
    return &hand;
}

static int hand_timer_start(void *timer, steady_us delay) {
    (void)timer;
    assert_int_equal(delay, 0);
    if (hand.no_start) return -1;
    hand.running = true;
    return 0;
}

static void hand_timer_stop(void *timer) {
    (void)timer;
    hand.running = false;
}

static void hand_timer_free(void *timer) {
    hand_timer_stop(timer);
    hand.timers--;
}

static const steady_loop_ops hand_ops = {.name = "hand",
                                         .timer_new = hand_timer_new,
                                         .timer_start = hand_timer_start,
                                         .timer_stop = hand_timer_stop,
                                         .timer_free = hand_timer_free};
static const steady_loop hand_loop = {.ops = &hand_ops};

static bool turn(void) {
    if (!hand.running) return false;
    hand.running = false;
    hand.fired(hand.arg);
    return true;
}

/* ---- Fixture ---- */

static struct scene {
    steady_store *store;
    steady_throttler *throttler;
    steady_result seen[300];
    size_t count;
    bool asking;   /* inside a call */
    int ask_again; /* the number of next callbacks that call again */
    bool close_in; /* the next callback closes the store */
} scene;

static void set_up_with(steady_store_options options, const steady_limit *limit) {
    steady_message why = {.text = ""};
    memset(&scene, 0, sizeof scene);
    memset(&hand, 0, sizeof hand);
    if (options.loop == NULL) options.loop = &hand_loop;
    if (options.buckets == 0) options.buckets = 64;
    if (steady_store_open(&scene.store, "memory:", &options, &why) != 0) fail_msg("%s", why.text);
    assert_int_equal(steady_throttler_new(&scene.throttler, scene.store, limit, NULL, NULL), 0);
}

static void set_up(void) { set_up_with((steady_store_options){0}, &ten); }

static void tear_down(void) {
    steady_throttler_free(&scene.throttler);
    steady_store_close(&scene.store);
    assert_int_equal(hand.timers, 0);
}

static int ask(const char *key, int64_t amount);

static void answered(const steady_result *result, void *data) {
    assert_ptr_equal(data, &scene);
    assert_false(scene.asking);
    assert_true(scene.count < COUNT(scene.seen));
    scene.seen[scene.count++] = *result;
    if (scene.ask_again > 0) {
        scene.ask_again--;
        assert_int_equal(ask("key", 1), 0);
        assert_int_equal(ask("key", 0), 0);
    }
    if (scene.close_in) {
        scene.close_in = false;
        steady_throttler_free(&scene.throttler);
        steady_store_close(&scene.store);
    }
}

static int ask(const char *key, int64_t amount) {
    scene.asking = true;
    const int error = steady_consume(scene.throttler, key, strlen(key), amount, answered, &scene);
    scene.asking = false;
    return error;
}

static int64_t level_of(const char *key) {
    steady_result r;
    assert_int_equal(steady_peek_sync(scene.throttler, key, strlen(key), &r), 0);
    return r.level;
}

static steady_stats stats(void) {
    steady_stats s;
    steady_store_stats(scene.store, &s);
    return s;
}

/* ---- Answers ---- */

static void results_come_in_order_in_the_next_turn(void **state) {
    (void)state;
    set_up();
    assert_int_equal(ask("a", 7), 0);
    assert_int_equal(ask("a", 7), 0);
    assert_int_equal(steady_peek(scene.throttler, "a", 1, answered, &scene), 0);
    assert_int_equal(steady_reset(scene.throttler, "a", 1, answered, &scene), 0);
    assert_int_equal(scene.count, 0);
    assert_int_equal(stats().in_flight, 4);
    assert_true(turn());
    assert_false(turn());
    assert_int_equal(scene.count, 4);
    assert_int_equal(stats().in_flight, 0);
    assert_true(scene.seen[0].success);
    assert_false(scene.seen[1].success);
    assert_true(scene.seen[2].success);
    assert_true(scene.seen[3].success);
    const int64_t levels[] = {7, 7, 7, 0};
    for (size_t i = 0; i < COUNT(levels); i++) {
        assert_int_equal(scene.seen[i].error, 0);
        assert_int_equal(scene.seen[i].source, STEADY_FROM_STORE);
        assert_int_equal(scene.seen[i].level, levels[i]);
    }
    assert_int_equal(scene.seen[3].until_next_drop, ten.drop_recharge);
    tear_down();
}

static void built_in_loop_delivers_each_result(void **state) {
    (void)state;
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    set_up_with((steady_store_options){.loop = &loop}, &ten);
    scene.ask_again = 3;
    assert_int_equal(ask("key", 1), 0);
    while (scene.count < 7)
        assert_true(steady_poller_run(poller, STEADY_SECOND) > 0);
    assert_int_equal(steady_poller_run(poller, 0), 0);
    assert_int_equal(level_of("key"), 4);
    tear_down();
    steady_poller_free(&poller);
}

/* The loop goes on, however many calls the callbacks make. */
static void call_in_a_callback_is_answered_in_the_next_turn(void **state) {
    (void)state;
    set_up();
    scene.ask_again = 3;
    assert_int_equal(ask("key", 1), 0);
    assert_true(turn());
    assert_int_equal(scene.count, 1);
    assert_true(turn());
    assert_int_equal(scene.count, 3);
    assert_true(turn());
    assert_int_equal(scene.count, 7);
    assert_false(turn());
    tear_down();
}

static void turns(const steady_result *result, void *data) {
    (void)result;
    (void)data;
    assert_true(turn());
    assert_int_equal(scene.count, 2);
    assert_false(turn());
}

/* A callback that runs the loop gets the results that it waits for. */
static void callback_that_runs_the_loop_gets_the_other_results(void **state) {
    (void)state;
    set_up();
    assert_int_equal(steady_consume(scene.throttler, "key", 3, 1, turns, NULL), 0);
    assert_int_equal(ask("key", 1), 0);
    assert_int_equal(ask("key", 1), 0);
    assert_true(turn());
    assert_int_equal(scene.count, 2);
    assert_false(turn());
    tear_down();
}

/* The ring buffer grows while its first entry is not at its start. */
static void queue_grows_and_keeps_its_order(void **state) {
    (void)state;
    const steady_limit wide = {.max_capacity = 1000, .drop_recharge = 3600 * STEADY_SECOND};
    set_up_with((steady_store_options){0}, &wide);
    for (int i = 0; i < 50; i++)
        assert_int_equal(ask("key", 1), 0);
    assert_true(turn());
    for (int i = 0; i < 200; i++)
        assert_int_equal(ask("key", 1), 0);
    assert_true(turn());
    assert_int_equal(scene.count, 250);
    for (size_t i = 0; i < 250; i++)
        assert_int_equal(scene.seen[i].level, i + 1);
    tear_down();
}

static void full_queue_is_overloaded_and_charges_nothing(void **state) {
    (void)state;
    set_up_with((steady_store_options){.max_in_flight = 3}, &ten);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask("key", 1), 0);
    assert_string_equal(last_error_of(scene.store), "");
    assert_int_equal(ask("key", 1), STEADY_OVERLOADED);
    assert_string_equal(last_error_of(scene.store), "max_in_flight decisions already wait for the event loop");
    assert_int_equal(level_of("key"), 3);
    assert_int_equal(stats().unavailable, 1);
    assert_true(turn());
    assert_int_equal(scene.count, 3);
    assert_int_equal(ask("key", 1), 0);
    assert_true(turn());
    assert_int_equal(scene.count, 4);
    tear_down();
}

static void loop_without_timers_is_refused(void **state) {
    (void)state;
    steady_store *store = NULL;
    steady_message why = {.text = ""};
    const steady_store_options options = {.loop = &hand_loop};
    memset(&hand, 0, sizeof hand);
    hand.no_timer = true;
    assert_int_equal(steady_store_open(&store, NULL, &options, &why), STEADY_SYSTEM);
    assert_null(store);
    assert_non_null(strstr(why.text, "the event loop hand cannot create a timer"));
}

static void timer_that_does_not_start_charges_nothing(void **state) {
    (void)state;
    set_up();
    hand.no_start = true;
    assert_int_equal(ask("key", 1), STEADY_SYSTEM);
    assert_int_equal(level_of("key"), 0);
    hand.no_start = false;
    assert_int_equal(ask("key", 1), 0);
    assert_true(turn());
    assert_int_equal(scene.count, 1);
    tear_down();
}

/* ---- Closing ---- */

static void close_cancels_waiting_calls(void **state) {
    (void)state;
    set_up();
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask("key", 1), 0);
    steady_store_close(&scene.store);
    assert_int_equal(scene.count, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(scene.seen[i].error, STEADY_CANCELLED);
        assert_int_equal(scene.seen[i].source, STEADY_FROM_NOWHERE);
        assert_int_equal(scene.seen[i].level, 0);
    }
    assert_false(turn());
    assert_int_equal(ask("key", 1), STEADY_CLOSED);
    tear_down();
}

static void close_in_a_callback_cancels_the_other_calls(void **state) {
    (void)state;
    set_up();
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask("key", 1), 0);
    scene.close_in = true;
    assert_true(turn());
    assert_int_equal(scene.count, 5);
    assert_int_equal(scene.seen[0].error, 0);
    for (size_t i = 1; i < 5; i++)
        assert_int_equal(scene.seen[i].error, STEADY_CANCELLED);
    assert_false(turn());
    tear_down();
}

static void call_of_a_freed_throttler_is_still_answered(void **state) {
    (void)state;
    set_up();
    assert_int_equal(ask("key", 1), 0);
    steady_throttler_free(&scene.throttler);
    assert_true(turn());
    assert_int_equal(scene.count, 1);
    assert_int_equal(scene.seen[0].level, 1);
    tear_down();
}

static void count_answer(const steady_result *result, void *data) {
    int *answered = data;
    assert_int_equal(result->error, 0);
    ++*answered;
}

/* Other handlers of the loop get their turn. */
static void turn_of_the_loop_answers_at_most_1024_calls(void **state) {
    (void)state;
    enum { ALL = 5000 };
    int answered = 0, turns = 0;
    set_up_with((steady_store_options){0}, &ten);
    for (int i = 0; i < ALL; i++)
        assert_int_equal(steady_peek(scene.throttler, "key", 3, count_answer, &answered), 0);
    while (turn()) {
        turns++;
        assert_int_equal(answered, turns < 5 ? turns * 1024 : ALL);
    }
    assert_int_equal(turns, 5);
    tear_down();
}

/* ---- Several keys ---- */

/* What the callback has seen of a call on two keys. */
struct pair_seen {
    int calls, error;
    bool success;
    size_t n_parts;
    int64_t levels[2];
    steady_reservation *reservation;
};

static void pair_answered(const steady_result *result, void *data) {
    struct pair_seen *seen = data;
    seen->calls++;
    seen->error = result->error;
    seen->success = result->success;
    seen->n_parts = result->n_parts;
    seen->reservation = result->reservation;
    for (size_t i = 0; i < 2 && result->parts != NULL; i++)
        seen->levels[i] = result->parts[i].level;
}

/* Keys "a" and "b". */
static int ask_pair(bool peek, int64_t amount, const steady_how *how, struct pair_seen *seen, uint64_t *id) {
    const steady_part parts[2] = {
        {.throttler = scene.throttler, .key = "a", .key_len = 1, .amount = amount},
        {.throttler = scene.throttler, .key = "b", .key_len = 1, .amount = amount},
    };
    memset(seen, 0, sizeof *seen);
    return peek ? steady_peek_all(parts, 2, how, pair_answered, seen, id)
                : steady_consume_all(parts, 2, how, pair_answered, seen, id);
}

static void calls_on_two_keys_are_answered_in_the_next_turn_and_counted_once(void **state) {
    (void)state;
    struct pair_seen first, second, look, settled;
    set_up();
    assert_int_equal(ask_pair(false, 7, &(steady_how){.reserve = true}, &first, NULL), 0);
    assert_int_equal(ask_pair(false, 7, NULL, &second, NULL), 0);
    assert_int_equal(ask_pair(true, 3, NULL, &look, NULL), 0);
    assert_int_equal(first.calls + second.calls + look.calls, 0);
    assert_int_equal(stats().in_flight, 3);
    assert_true(turn());
    assert_true(first.calls == 1 && first.success && first.n_parts == 2);
    assert_true(second.calls == 1 && !second.success && second.levels[1] == 7);
    assert_true(look.calls == 1 && look.success && look.levels[0] == 7);
    assert_int_equal(first.levels[0] + first.levels[1], 14);
    memset(&settled, 0, sizeof settled);
    const steady_settlement less = {
        .reservation = first.reservation, .actual = 2, .throttlers = &scene.throttler, .n_throttlers = 1};
    assert_int_equal(steady_settle(&less, pair_answered, &settled, NULL), 0);
    steady_reservation_free(&first.reservation);
    assert_true(turn());
    assert_true(settled.calls == 1 && settled.success && settled.n_parts == 2);
    assert_int_equal(settled.levels[0], 2);
    assert_int_equal(level_of("b"), 2);
    const steady_stats s = stats(); /* with the peek of level_of */
    assert_int_equal(s.decisions, 4);
    assert_int_equal(s.allowed, 3);
    assert_int_equal(s.denied, 1);
    assert_int_equal(s.blocked + s.overflowed + s.clock_steps + s.in_flight, 0);
    tear_down();
}

/* The group of a cancelled call is freed; ASan would find it. */
static void cancelled_call_on_two_keys_is_charged_and_not_answered(void **state) {
    (void)state;
    struct pair_seen first, second;
    uint64_t id;
    set_up();
    assert_int_equal(ask_pair(false, 4, &(steady_how){.reserve = true}, &first, &id), 0);
    assert_int_equal(ask_pair(false, 4, NULL, &second, NULL), 0);
    assert_int_equal(steady_cancel(scene.throttler, id), 0);
    assert_int_equal(steady_cancel(scene.throttler, id), STEADY_NOT_IN_FLIGHT);
    assert_int_equal(stats().in_flight, 1);
    assert_true(turn());
    assert_int_equal(first.calls, 0);
    assert_int_equal(second.calls, 1);
    assert_int_equal(level_of("a"), 8);
    tear_down();
}

static void close_cancels_a_call_on_two_keys(void **state) {
    (void)state;
    struct pair_seen seen;
    set_up();
    assert_int_equal(ask_pair(false, 4, &(steady_how){.reserve = true}, &seen, NULL), 0);
    steady_store_close(&scene.store);
    assert_int_equal(seen.calls, 1);
    assert_int_equal(seen.error, STEADY_CANCELLED);
    assert_int_equal(seen.n_parts, 0);
    assert_null(seen.reservation);
    tear_down();
}

/* A settlement or a reset that finds the queue full is no decision. */
static void full_queue_refuses_calls_on_two_keys(void **state) {
    (void)state;
    struct pair_seen seen, other;
    steady_reservation *reservation = NULL;
    set_up_with((steady_store_options){.max_in_flight = 1}, &ten);
    assert_int_equal(ask_pair(false, 4, &(steady_how){.reserve = true}, &seen, NULL), 0);
    assert_int_equal(ask_pair(false, 4, NULL, &other, NULL), STEADY_OVERLOADED);
    assert_true(turn());
    reservation = seen.reservation;
    assert_int_equal(ask("key", 1), 0);
    const steady_settlement none = {.reservation = reservation, .throttlers = &scene.throttler, .n_throttlers = 1};
    assert_int_equal(steady_settle(&none, pair_answered, &other, NULL), STEADY_OVERLOADED);
    assert_int_equal(level_of("a"), 4);
    assert_int_equal(stats().unavailable, 1);
    steady_reservation_free(&reservation);
    tear_down();
}

/* ---- Memory ---- */

#define MIB ((int64_t)1 << 20)

/* The value of a line of /proc/self/smaps_rollup, in bytes. */
static int64_t memory_of(const char *name) {
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[128];
    const size_t len = strlen(name);
    long long kib = -1;
    if (file == NULL) skip_because("no smaps_rollup here");
    while (kib < 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, len) == 0 && line[len] == ':') kib = atoll(line + len + 1);
    fclose(file);
    assert_true(kib >= 0);
    return kib * 1024;
}

static void open_usual(steady_store **store, steady_throttler **throttler) {
    assert_int_equal(steady_store_open(store, "memory:", NULL, NULL), 0);
    assert_int_equal(steady_throttler_new(throttler, *store, &ten, NULL, NULL), 0);
}

static void consume_keys(steady_throttler *throttler, uint32_t keys) {
    steady_result r;
    for (uint32_t key = 0; key < keys; key++)
        assert_int_equal(steady_consume_sync(throttler, &key, sizeof key, 1, &r), 0);
}

static void hundred_stores_of_thirty_keys_take_at_most_32_mib(void **state) {
    (void)state;
    enum { STORES = 100, KEYS = 30 };
    steady_store *stores[STORES];
    steady_throttler *throttlers[STORES];
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip_because("a sanitizer takes memory of its own");
#endif
    const int64_t before = memory_of("Rss");
    for (int i = 0; i < STORES; i++) {
        open_usual(&stores[i], &throttlers[i]);
        consume_keys(throttlers[i], KEYS);
    }
    assert_between(memory_of("Rss") - before, 0, 32 * MIB);
    for (int i = 0; i < STORES; i++) {
        steady_throttler_free(&throttlers[i]);
        steady_store_close(&stores[i]);
    }
}

/* A slot that is used again takes no new memory. */
static void keys_reset_again_and_again_take_no_more_memory(void **state) {
    (void)state;
    enum { KEYS = 30, ROUNDS = 2000 };
    steady_store *store;
    steady_throttler *throttler;
    steady_result r;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip_because("a sanitizer takes memory of its own");
#endif
    open_usual(&store, &throttler);
    const int64_t before = memory_of("Rss");
    for (int round = 0; round < ROUNDS; round++) {
        consume_keys(throttler, KEYS);
        for (uint32_t key = 0; key < KEYS; key++)
            assert_int_equal(steady_reset_sync(throttler, &key, sizeof key, &r), 0);
    }
    assert_between(memory_of("Rss") - before, 0, MIB);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* Tries to get a huge page in the way the store does. */
static bool gives_huge_pages(void) {
    const size_t size = 4 * (size_t)MIB, page = size / 2;
    char setting[64] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (file == NULL || fgets(setting, sizeof setting, file) == NULL || strstr(setting, "[never]") != NULL)
        return false;
    fclose(file);
    char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    char *at = map + (page - (uintptr_t)map % page) % page;
    *at = 1;
    const bool gives = madvise(at, page, MADV_HUGEPAGE) == 0 && madvise(at, page, 25 /* MADV_COLLAPSE */) == 0;
    munmap(map, size);
    return gives;
}

static void store_of_many_keys_uses_huge_pages(void **state) {
    (void)state;
    steady_store *store;
    steady_throttler *throttler;
    if (!gives_huge_pages()) skip_because("no huge pages here");
    const int64_t before = memory_of("AnonHugePages");
    open_usual(&store, &throttler);
    consume_keys(throttler, 16000);
    assert_int_equal(memory_of("AnonHugePages"), before);
    consume_keys(throttler, 40000);
    assert_true(memory_of("AnonHugePages") - before >= 24 * MIB); /* out of 50 MiB: the system may have too few */
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static void cleared_store_is_empty_and_gives_its_memory_back(void **state) {
    (void)state;
    enum { KEYS = 20000 };
    steady_store *store;
    steady_throttler *throttler;
    steady_result r;
    open_usual(&store, &throttler);
    assert_true(steady__local_is_private(store));
    const int64_t before = memory_of("Rss");
    for (int round = 0; round < 3; round++) {
        consume_keys(throttler, KEYS);
        assert_true(memory_of("Rss") - before > 8 * MIB); /* a page for a few keys */
        assert_int_equal(steady__local_clear(store), 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        assert_between(memory_of("Rss") - before, -MIB, MIB);
#endif
        for (uint32_t key = 0; key < KEYS; key += 100) {
            assert_int_equal(steady_peek_sync(throttler, &key, sizeof key, &r), 0);
            assert_int_equal(r.level, 0);
        }
    }
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* ---- Counters ---- */

static void stats_count_allowed_denied_and_blocked(void **state) {
    (void)state;
    const steady_limit blocking = {
        .max_capacity = 2, .drop_recharge = 3600 * STEADY_SECOND, .block_duration = 60 * STEADY_SECOND};
    steady_result r;
    set_up_with((steady_store_options){0}, &blocking);
    const int64_t amounts[] = {1, 1, 3, 1, 1, 0, -1};
    for (size_t i = 0; i < COUNT(amounts); i++)
        assert_int_equal(steady_consume_sync(scene.throttler, "key", 3, amounts[i], &r), 0);
    level_of("other");
    assert_int_equal(steady_reset_sync(scene.throttler, "key", 3, &r), 0);
    const steady_stats s = stats();
    assert_int_equal(s.decisions, 8);
    assert_int_equal(s.allowed, 4);
    assert_int_equal(s.denied, 4);
    assert_int_equal(s.blocked, 3);
    assert_int_equal(s.unavailable + s.unknown + s.overflowed + s.clock_steps + s.in_flight, 0);
    tear_down();
}

/* A call on two keys is counted once as blocked and overflowed. */
static void call_on_two_keys_is_one_decision_in_all_counters(void **state) {
    (void)state;
    const steady_limit blocking = {
        .max_capacity = 2, .drop_recharge = 3600 * STEADY_SECOND, .block_duration = 60 * STEADY_SECOND};
    struct pair_seen seen;
    set_up_with((steady_store_options){0}, &blocking);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask_pair(false, 2, NULL, &seen, NULL), 0);
    assert_int_equal(stats().denied, 2);
    assert_int_equal(stats().blocked, 2);
    steady_result r;
    for (uint32_t key = 0; key < 1000; key++)
        assert_int_equal(steady_consume_sync(scene.throttler, &key, sizeof key, 1, &r), 0);
    const uint64_t overflowed = stats().overflowed;
    const uint32_t late[2] = {5000, 5001};
    const steady_part parts[2] = {
        {.throttler = scene.throttler, .key = &late[0], .key_len = 4, .amount = 1},
        {.throttler = scene.throttler, .key = &late[1], .key_len = 4, .amount = 1},
    };
    assert_int_equal(steady_consume_all_sync(parts, 2, NULL, &r), 0);
    assert_int_equal(stats().overflowed, overflowed + 1);
    assert_true(turn());
    tear_down();
}

/* Far more keys than buckets: some keys share a bucket, and all keys together are allowed at most one drop a bucket. */
static void more_keys_than_buckets_are_counted_as_overflowed(void **state) {
    (void)state;
    const steady_limit one = {.max_capacity = 1, .drop_recharge = 3600 * STEADY_SECOND};
    steady_result r;
    set_up_with((steady_store_options){0}, &one);
    for (uint32_t key = 0; key < 1000; key++)
        assert_int_equal(steady_consume_sync(scene.throttler, &key, sizeof key, 1, &r), 0);
    assert_between(stats().overflowed, 1000 - 97, 1000 - 64);
    assert_between(stats().allowed, 64, 97);
    tear_down();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_come_in_order_in_the_next_turn),
        cmocka_unit_test(built_in_loop_delivers_each_result),
        cmocka_unit_test(call_in_a_callback_is_answered_in_the_next_turn),
        cmocka_unit_test(callback_that_runs_the_loop_gets_the_other_results),
        cmocka_unit_test(queue_grows_and_keeps_its_order),
        cmocka_unit_test(full_queue_is_overloaded_and_charges_nothing),
        cmocka_unit_test(loop_without_timers_is_refused),
        cmocka_unit_test(timer_that_does_not_start_charges_nothing),
        cmocka_unit_test(close_cancels_waiting_calls),
        cmocka_unit_test(close_in_a_callback_cancels_the_other_calls),
        cmocka_unit_test(call_of_a_freed_throttler_is_still_answered),
        cmocka_unit_test(turn_of_the_loop_answers_at_most_1024_calls),
        cmocka_unit_test(calls_on_two_keys_are_answered_in_the_next_turn_and_counted_once),
        cmocka_unit_test(cancelled_call_on_two_keys_is_charged_and_not_answered),
        cmocka_unit_test(close_cancels_a_call_on_two_keys),
        cmocka_unit_test(full_queue_refuses_calls_on_two_keys),
        cmocka_unit_test(hundred_stores_of_thirty_keys_take_at_most_32_mib),
        cmocka_unit_test(keys_reset_again_and_again_take_no_more_memory),
        cmocka_unit_test(store_of_many_keys_uses_huge_pages),
        cmocka_unit_test(cleared_store_is_empty_and_gives_its_memory_back),
        cmocka_unit_test(stats_count_allowed_denied_and_blocked),
        cmocka_unit_test(call_on_two_keys_is_one_decision_in_all_counters),
        cmocka_unit_test(more_keys_than_buckets_are_counted_as_overflowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
