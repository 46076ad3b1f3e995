/* SPDX-License-Identifier: MIT
 * Calls on keys of several slots, against two fake nodes: the requests of each round, and a fault in each of them. The
 * nodes have the module, so that each round has a command of its own. LOW is a key of node a, HIGH of node b. */
#include <stdlib.h>

#include "fake_cluster.h"
#include "redis/slot_map.h"

#define LOOK "STEADY.PEEKALL"
#define TAKE "STEADY.CONSUMEALL"
#define SETTLE "STEADY.SETTLE"
#define LOW "{b}"
#define HIGH "{a}"
#define NOW "1764000000000000"
#define SHORT (100 * MS)

static steady_throttler *blocks; /* ten drops an hour; blocks for a minute */

/* ---- Replies, of a node with one key of the call ---- */

static char texts[32][512];
static unsigned n_texts;

static const char *keep(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *keep(const char *format, ...) {
    va_list arguments;
    char *text_ = texts[n_texts++ % COUNT(texts)];
    va_start(arguments, format);
    vsnprintf(text_, sizeof texts[0], format, arguments);
    va_end(arguments);
    return text_;
}

/* The bucket has this level and the call gets `granted`. */
static const char *allows(int level, int granted) {
    return keep("*11\r\n:1\r\n:0\r\n:0\r\n:0\r\n:" NOW "\r\n:1\r\n:%d\r\n:%d\r\n:1000\r\n:0\r\n:0\r\n", granted, level);
}

static const char *denies(int level, int blocked_for, int retry_after) {
    return keep("*11\r\n:0\r\n:0\r\n:0\r\n:%d\r\n:" NOW "\r\n:0\r\n:0\r\n:%d\r\n:1000\r\n:%d\r\n:%d\r\n", retry_after,
                level, blocked_for, retry_after);
}

static const char *settled(int level) { return keep("*6\r\n:" NOW "\r\n:%d\r\n:1000\r\n:0\r\n:5\r\n:0\r\n", level); }

/* ---- The rig ---- */

static struct fake_node *low_node, *high_node; /* a and b */
static unsigned called;
static steady_result answer;
static steady_part_result each[8];
#define LONGEST (60 * STEADY_SECOND) /* deny_memory */
static steady_us deny_memory;        /* of the next cluster */

static void remember(const steady_result *result, void *data) {
    (void)data;
    called++;
    answer = *result;
    if (result->parts != NULL) memcpy(each, result->parts, result->n_parts * sizeof each[0]);
}

static void remember_and_close(const steady_result *result, void *data) {
    remember(result, data);
    steady_store_close(&store);
}

/* Both nodes allow one drop of each key, and the store knows the map. */
static void open_cluster(steady_us deadline) {
    char url[64];
    timeout = deadline;
    low_node = a;
    high_node = b;
    called = 0;
    assert_true(steady__slot_of(LOW, 3) < 8192 && steady__slot_of(HIGH, 3) >= 8192);
    const char *map = map_of(0, a, b);
    for (int i = 0; i < 2; i++) {
        struct fake_node *node = i == 0 ? a : b;
        fake_node_says(node, "CLUSTER", map, 0, 0);
        fake_node_says(node, "CONFIG", "*0\r\n", 0, 0);
        fake_node_says(node, LOOK, allows(0, 1), 0, 0);
        fake_node_says(node, TAKE, allows(1, 1), 0, 0);
        fake_node_says(node, SETTLE, settled(0), 0, 0);
    }
    fake_node_says(a, "STEADY.PEEK", keep("-MOVED %d 127.0.0.1:%d\r\n", steady__slot_of(HIGH, 3), fake_node_port(b)), 0,
                   0);
    fake_node_says(b, "STEADY.PEEK", "*5\r\n:1\r\n:0\r\n:1000\r\n:0\r\n:0\r\n", 0, 0);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_node_port(a));
    client_open_with(url, (steady_store_options){.timeout = timeout,
                                                 .engine = STEADY_ENGINE_MODULE,
                                                 .deny_memory = deny_memory,
                                                 .deny_memory_off = deny_memory == 0});
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = HOUR, .block_duration = 60 * STEADY_SECOND};
    assert_int_equal(steady_throttler_new(&blocks, store, &limit, NULL, NULL), 0);
    struct tally tally = {0};
    assert_int_equal(steady_peek(throttler, HIGH, 3, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.last.error, 0);
    await_heard("CLUSTER", 1);
}

static int close_cluster(void **state) {
    deny_memory = 0;
    steady_throttler_free(&blocks);
    return nodes_tear_down(state);
}

static steady_part part_of(steady_throttler *t, const char *key, int64_t amount) {
    return (steady_part){.throttler = t, .key = key, .key_len = strlen(key), .amount = amount};
}

static void await_called(unsigned times) {
    const steady_us until = now_us() + 5 * STEADY_SECOND;
    while (called < times && now_us() < until)
        run_for(poller, 2 * MS);
    run_for(poller, 10 * MS);
    assert_int_equal(called, times);
}

static const steady_result *ask_parts(const steady_part *parts, size_t n, const steady_how *how) {
    called = 0;
    memset(each, 0, sizeof each);
    assert_int_equal(steady_consume_all(parts, n, how, remember, NULL, NULL), 0);
    assert_int_equal(called, 0); /* never inside the call */
    await_called(1);
    return &answer;
}

/* Whether the last call has a verdict, and this one. */
static bool is_verdict(bool success) {
    if (answer.error != 0) fail_msg("%s: %s", steady_error_text(answer.error), last_error_of(store));
    return answer.success == success;
}

/* One drop of each key. */
static const steady_result *ask_both(steady_throttler *t) {
    const steady_part parts[] = {part_of(t, LOW, 1), part_of(t, HIGH, 1)};
    return ask_parts(parts, 2, NULL);
}

static void assert_heard(struct fake_node *node, unsigned looks, unsigned takes, unsigned settles) {
    for (int i = 0; i < 100 && fake_node_heard(node, SETTLE) < settles; i++)
        run_for(poller, 5 * MS);
    assert_int_equal(fake_node_heard(node, LOOK), looks);
    assert_int_equal(fake_node_heard(node, TAKE), takes);
    assert_int_equal(fake_node_heard(node, SETTLE), settles);
}

static void assert_failed(const steady_result *r, int error) {
    if (r->error != error) fail_msg("%s: %s", steady_error_text(r->error), last_error_of(store));
    assert_true(!r->success && r->parts == NULL && r->source == STEADY_FROM_NOWHERE);
}

static void assert_counted_once(uint64_t allowed, uint64_t denied, uint64_t unavailable, uint64_t unknown) {
    steady_stats stats;
    steady_store_stats(store, &stats);
    assert_int_equal(stats.decisions, 2); /* with the peek of open_cluster */
    assert_int_equal(stats.allowed, allowed + 1);
    assert_int_equal(stats.denied, denied);
    assert_int_equal(stats.unavailable, unavailable);
    assert_int_equal(stats.unknown, unknown);
    assert_int_equal(stats.in_flight, 0);
}

/* ---- No fault ---- */

static void allowed_call_looks_at_all_and_takes_all(void **state) {
    (void)state;
    open_cluster(timeout);
    const steady_result *r = ask_both(throttler);
    assert_true(r->error == 0 && r->success && !r->atomic && r->source == STEADY_FROM_STORE && r->n_parts == 2);
    assert_true(each[0].granted == 1 && each[0].level == 1 && each[1].granted == 1 && each[1].level == 1);
    assert_heard(low_node, 1, 1, 0);
    assert_heard(high_node, 1, 1, 0);
    assert_counted_once(1, 0, 0, 0);
}

/* The node of the other key is asked only after the answer. */
static void bucket_with_the_least_room_is_taken_first(void **state) {
    (void)state;
    for (int first = 0; first < 2; first++) {
        open_cluster(timeout);
        struct fake_node *full = first == 0 ? low_node : high_node, *other = first == 0 ? high_node : low_node;
        fake_node_says(full, LOOK, allows(9, 1), 0, 0);
        fake_node_is_slow(full, TAKE, 60000);
        const steady_part parts[] = {part_of(throttler, LOW, 1), part_of(throttler, HIGH, 1)};
        assert_int_equal(steady_consume_all(parts, 2, NULL, remember, NULL, NULL), 0);
        for (int i = 0; i < 100 && fake_node_heard(full, TAKE) == 0; i++)
            run_for(poller, 2 * MS);
        assert_int_equal(fake_node_heard(other, TAKE), 0);
        await_called(1);
        assert_true(answer.success);
        assert_int_equal(fake_node_heard(other, TAKE), 1);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

static void denied_look_takes_nothing(void **state) {
    (void)state;
    open_cluster(timeout);
    fake_node_says(high_node, LOOK, denies(10, 0, 700), 0, 0);
    const steady_result *r = ask_both(throttler);
    assert_true(r->error == 0 && !r->success && !r->atomic && r->part == 1 && r->retry_after == 700);
    assert_true(r->level == 10 && each[0].success && each[0].granted == 0);
    assert_heard(low_node, 1, 0, 0);
    assert_heard(high_node, 1, 0, 0);
    assert_counted_once(0, 1, 0, 0);
}

static void denied_look_starts_only_the_block_of_the_bucket_that_denies(void **state) {
    (void)state;
    open_cluster(timeout);
    fake_node_says(high_node, LOOK, denies(10, 0, 700), 0, 0);
    fake_node_says(high_node, TAKE, denies(10, 60000000, 60000000), 0, 0);
    const steady_result *r = ask_both(blocks);
    assert_true(!r->success && r->part == 1 && r->retry_after == 60000000 && r->blocked_for == 60000000);
    assert_heard(low_node, 1, 0, 0);
    assert_heard(high_node, 1, 1, 0);
    assert_string_equal(fake_node_last(high_node, TAKE), TAKE " 1 {a} PART 10 3600000000 BLOCK 60000000");
    fake_node_says(high_node, LOOK, denies(10, 500, 700), 0, 0); /* it is blocked */
    ask_both(blocks);
    assert_true(is_verdict(false));
    assert_heard(high_node, 2, 1, 0);
}

static void room_found_when_a_block_is_to_start_is_given_back(void **state) {
    (void)state;
    open_cluster(timeout);
    fake_node_says(high_node, LOOK, denies(10, 0, 700), 0, 0);
    const steady_result *r = ask_both(blocks);
    assert_true(r->error == 0 && !r->success && r->retry_after == 700 && each[1].granted == 0);
    assert_heard(low_node, 1, 0, 0);
    assert_heard(high_node, 1, 1, 1);
}

static void waiting_call_starts_no_block(void **state) {
    const steady_how how = {.max_wait = 1};
    (void)state;
    open_cluster(timeout);
    fake_node_says(high_node, LOOK, denies(10, 0, 700), 0, 0);
    const steady_part parts[] = {part_of(blocks, LOW, 1), part_of(blocks, HIGH, 1)};
    ask_parts(parts, 2, &how);
    assert_true(is_verdict(false));
    assert_heard(high_node, 1, 0, 0);
}

static void second_denial_gives_back_what_was_taken(void **state) {
    (void)state;
    open_cluster(timeout);
    fake_node_says(low_node, LOOK, allows(5, 1), 0, 0); /* taken first */
    fake_node_says(high_node, TAKE, denies(10, 0, 900), 0, 0);
    const steady_result *r = ask_both(blocks);
    assert_true(r->error == 0 && !r->success && r->part == 1 && r->retry_after == 900);
    assert_true(each[0].granted == 0 && each[0].level == 0 && each[1].level == 10);        /* after the settle */
    assert_string_equal(fake_node_last(low_node, TAKE), TAKE " 1 {b} PART 10 3600000000"); /* without its block */
    assert_string_equal(fake_node_last(high_node, TAKE), TAKE " 1 {a} PART 10 3600000000");
    assert_string_equal(fake_node_last(low_node, SETTLE),
                        SETTLE " 1 {b} PART 10 3600000000 RESERVED 1 MOMENT " NOW " ACTUAL 0");
    assert_heard(low_node, 1, 1, 1);
    assert_heard(high_node, 1, 1, 0);
    assert_counted_once(0, 1, 0, 0);
}

static void denial_of_the_first_bucket_takes_nothing_elsewhere(void **state) {
    (void)state;
    open_cluster(timeout);
    fake_node_says(low_node, LOOK, allows(9, 1), 0, 0);
    fake_node_says(low_node, TAKE, denies(10, 0, 900), 0, 0);
    ask_both(throttler);
    assert_true(is_verdict(false));
    assert_heard(low_node, 1, 1, 0);
    assert_heard(high_node, 1, 0, 0);
}

static void drain_waits_for_all_takes(void **state) {
    (void)state;
    open_cluster(timeout);
    fake_node_says(low_node, LOOK, allows(5, -2), 0, 0);
    fake_node_says(low_node, TAKE, allows(3, -2), 0, 0);
    fake_node_is_slow(high_node, TAKE, 60000);
    const steady_part parts[] = {part_of(throttler, LOW, -2), part_of(throttler, HIGH, 1)};
    assert_int_equal(steady_consume_all(parts, 2, NULL, remember, NULL, NULL), 0);
    for (int i = 0; i < 100 && fake_node_heard(high_node, TAKE) == 0; i++)
        run_for(poller, 2 * MS);
    assert_int_equal(fake_node_heard(low_node, TAKE), 0);
    await_called(1);
    assert_true(answer.success && each[0].granted == -2 && each[0].level == 3);
    fake_node_says(high_node, TAKE, denies(10, 0, 900), 0, 0);
    fake_node_is_slow(high_node, "", 0);
    ask_parts(parts, 2, NULL);
    assert_true(is_verdict(false));
    assert_heard(low_node, 2, 1, 0);
}

/* To ask again would take the drops out twice. */
static void lost_drain_beside_one_that_was_made_is_unknown(void **state) {
    (void)state;
    open_cluster(timeout);
    for (int i = 0; i < 2; i++) {
        struct fake_node *node = i == 0 ? low_node : high_node;
        fake_node_says(node, LOOK, allows(5, -2), 0, 0);
        fake_node_says(node, TAKE, i == 0 ? allows(3, -2) : "-OOM command not allowed\r\n", 0, 0);
    }
    const steady_part parts[] = {part_of(throttler, LOW, -2), part_of(throttler, HIGH, -2)};
    ask_parts(parts, 2, NULL);
    assert_int_equal(answer.error, STEADY_UNKNOWN);
    fake_node_says(low_node, TAKE, "-OOM command not allowed\r\n", 0, 0);
    ask_parts(parts, 2, NULL);
    assert_int_equal(answer.error, STEADY_UNAVAILABLE);
}

static void partial_grant_is_the_smallest_and_the_rest_is_settled(void **state) {
    const steady_how how = {.at_least = 2};
    (void)state;
    open_cluster(timeout);
    const steady_part parts[] = {part_of(throttler, LOW, 8), part_of(throttler, HIGH, 8)};
    fake_node_says(low_node, LOOK, allows(5, 5), 0, 0);
    fake_node_says(high_node, LOOK, allows(2, 8), 0, 0);
    fake_node_says(low_node, TAKE, allows(10, 5), 0, 0);
    fake_node_says(high_node, TAKE, allows(10, 3), 0, 0); /* another call was faster */
    fake_node_says(low_node, SETTLE, settled(8), 0, 0);
    const steady_result *r = ask_parts(parts, 2, &how);
    assert_true(r->success && r->granted == 3 && each[0].granted == 3 && each[1].granted == 3);
    assert_int_equal(each[0].level, 8);
    assert_string_equal(fake_node_last(high_node, LOOK), LOOK " 1 {a} ATLEAST 2 PART 10 3600000000 AMOUNT 8");
    assert_string_equal(fake_node_last(high_node, TAKE), TAKE " 1 {a} ATLEAST 2 PART 10 3600000000 AMOUNT 5");
    assert_string_equal(fake_node_last(low_node, SETTLE),
                        SETTLE " 1 {b} PART 10 3600000000 RESERVED 5 MOMENT " NOW " ACTUAL 3");
    assert_heard(low_node, 1, 1, 1);
    assert_heard(high_node, 1, 1, 0);
}

static void looks_are_asked_once(void **state) {
    (void)state;
    open_cluster(timeout);
    steady_part parts[] = {part_of(throttler, LOW, 1), part_of(throttler, HIGH, 1)};
    parts[0].kind = STEADY_LOOK;
    fake_node_says(low_node, LOOK, allows(4, 0), 0, 0);
    ask_parts(parts, 2, NULL);
    assert_true(is_verdict(true));
    assert_true(each[0].granted == 0 && each[0].level == 4);
    assert_heard(low_node, 1, 0, 0);
    assert_heard(high_node, 1, 1, 0);
    fake_node_says(high_node, LOOK, allows(0, 0), 0, 0);
    parts[1].amount = 0; /* nothing to take: the amount that counts is that of the look */
    ask_parts(parts, 2, NULL);
    assert_true(is_verdict(true));
    assert_heard(high_node, 2, 1, 0);
}

/* The branch of node b has only a 0, but the call has not. */
static void blocked_bucket_with_amount_0_has_no_vote(void **state) {
    (void)state;
    open_cluster(timeout);
    steady_part parts[] = {part_of(throttler, LOW, 1), part_of(throttler, HIGH, 0)};
    fake_node_says(high_node, LOOK, denies(0, 5000, 5000), 0, 0);
    ask_parts(parts, 2, NULL);
    assert_true(is_verdict(true));
    assert_true(each[1].success && each[1].retry_after == 0 && each[1].blocked_for == 5000);
    assert_heard(low_node, 1, 1, 0);
    fake_node_says(low_node, LOOK, allows(0, 0), 0, 0);
    parts[0].amount = 0;
    assert_true(!ask_parts(parts, 2, NULL)->success && answer.retry_after == 5000 && answer.part == 1);
    assert_heard(high_node, 2, 0, 0);
}

static void peek_has_one_round(void **state) {
    (void)state;
    open_cluster(timeout);
    const steady_part parts[] = {part_of(blocks, LOW, 1), part_of(blocks, HIGH, 1)};
    fake_node_says(high_node, LOOK, denies(10, 0, 700), 0, 1);
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(steady_peek_all(parts, 2, NULL, remember, NULL, NULL), 0);
        await_called(i);
        assert_true(answer.error == 0 && answer.success == (i == 2) && !answer.atomic);
    }
    assert_true(each[0].granted == 1 && each[0].level == 0);
    assert_heard(low_node, 2, 0, 0);
}

/* ---- Faults ---- */

static void unknown_take_is_not_given_back_and_the_known_one_is(void **state) {
    const char *const faults[] = {FAKE_HANG_UP, FAKE_SILENCE};
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        open_cluster(faults[i] == FAKE_SILENCE ? TIMEOUT : timeout);
        fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
        fake_node_says(high_node, TAKE, faults[i], 0, 0);
        assert_failed(ask_both(throttler), STEADY_UNKNOWN);
        assert_heard(low_node, 1, 1, 1);
        run_for(poller, 20 * MS);
        assert_heard(high_node, 1, 1, 0);
        assert_counted_once(0, 0, 0, 1);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

static void unknown_first_take_asks_no_other_node(void **state) {
    (void)state;
    open_cluster(timeout);
    fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
    fake_node_says(low_node, TAKE, FAKE_HANG_UP, 0, 0);
    assert_failed(ask_both(throttler), STEADY_UNKNOWN);
    assert_heard(low_node, 1, 1, 0);
    assert_heard(high_node, 1, 0, 0);
}

static void take_that_fails_without_a_charge_gives_the_other_back(void **state) {
    static const struct {
        const char *reply;
        int error;
    } faults[] = {{"-OOM command not allowed\r\n", STEADY_UNAVAILABLE},
                  {"-NOTABUCKET the key holds something else\r\n", STEADY_NOT_A_BUCKET},
                  {"-NOPERM no permissions to access a key\r\n", STEADY_REFUSED}};
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        open_cluster(timeout);
        fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
        fake_node_says(high_node, TAKE, faults[i].reply, 0, 0);
        assert_failed(ask_both(throttler), faults[i].error);
        assert_heard(low_node, 1, 1, 1);
        assert_heard(high_node, 1, 1, 0);
        assert_counted_once(0, 0, 1, 0);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

/* Unavailable would say that nothing was charged. */
static void take_whose_settle_is_lost_makes_a_failed_call_unknown(void **state) {
    const char *const faults[] = {FAKE_HANG_UP, FAKE_SILENCE, "-OOM command not allowed\r\n"};
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        open_cluster(TIMEOUT);
        fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
        fake_node_says(low_node, SETTLE, faults[i], 0, 0);
        fake_node_says(high_node, TAKE, "-OOM command not allowed\r\n", 0, 0);
        assert_failed(ask_both(throttler), STEADY_UNKNOWN);
        run_for(poller, 2 * TIMEOUT);
        assert_heard(low_node, 1, 1, 1); /* it is not repeated */
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

static void denied_call_is_denied_whatever_the_other_parts(void **state) {
    const char *const faults[] = {FAKE_HANG_UP, FAKE_SILENCE, "-OOM command not allowed\r\n"};
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++)
        for (int round = 0; round < 2; round++) {
            open_cluster(TIMEOUT);
            if (round == 0) { /* in the look */
                fake_node_says(low_node, LOOK, faults[i], 0, 0);
                fake_node_says(high_node, LOOK, denies(10, 0, 700), 0, 0);
            } else { /* in the settle of the first take */
                fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
                fake_node_says(low_node, SETTLE, faults[i], 0, 0);
                fake_node_says(high_node, TAKE, denies(10, 0, 700), 0, 0);
            }
            const steady_result *r = ask_both(throttler);
            assert_true(r->error == 0 && !r->success && r->part == 1 && r->retry_after == 700);
            assert_true(each[0].answered == (round == 1) && each[1].answered);
            assert_counted_once(0, 1, 0, 0);
            close_cluster(NULL);
            nodes_set_up(NULL);
        }
}

/* Three parts: the first is taken, the second denies, the third is unknown. */
static void denial_beats_an_unknown_part(void **state) {
    (void)state;
    open_cluster(TIMEOUT);
    const steady_part parts[] = {part_of(throttler, LOW "1", 1), part_of(throttler, HIGH, 1),
                                 part_of(throttler, "{c}", 1)};
    assert_true(steady__slot_of("{c}", 3) < 8192 && steady__slot_of("{c}", 3) != steady__slot_of(LOW, 3));
    fake_node_says(low_node, LOOK, allows(5, 1), 0, 1);
    fake_node_says(low_node, TAKE, FAKE_SILENCE, 0, 0);
    fake_node_says(low_node, TAKE, allows(6, 1), 0, 1);
    fake_node_says(high_node, TAKE, denies(10, 0, 700), 0, 0);
    const steady_result *r = ask_parts(parts, 3, NULL);
    assert_true(r->error == 0 && !r->success && r->part == 1 && r->retry_after == 700);
    assert_heard(low_node, 2, 2, 1);
}

static void call_that_is_lost_in_its_look_is_unavailable(void **state) {
    const char *const faults[] = {FAKE_HANG_UP, FAKE_SILENCE, "-OOM command not allowed\r\n"};
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        open_cluster(TIMEOUT);
        fake_node_says(high_node, LOOK, faults[i], 0, 0);
        assert_failed(ask_both(throttler), STEADY_UNAVAILABLE);
        assert_heard(low_node, 1, 0, 0);
        assert_counted_once(0, 0, 1, 0);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

/* Each round is fast enough alone. */
static void deadline_is_that_of_the_call(void **state) {
    (void)state;
    open_cluster(TIMEOUT);
    fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
    fake_node_is_slow(high_node, LOOK, 120000);
    fake_node_is_slow(low_node, TAKE, 120000);
    const steady_us begin = now_us(), before = taken_away();
    ask_both(throttler);
    assert_true(now_us() - begin < TIMEOUT + 20 * MS + slack_since(before));
    assert_true(answer.error != 0);
    run_for(poller, TIMEOUT);
    assert_heard(high_node, 1, 0, 0);
    steady_stats stats;
    steady_store_stats(store, &stats);
    assert_int_equal(stats.timeouts, 1);
}

/* After a failover the new primary may lack the drops, and a settle would take out those of others. */
static void settle_is_not_sent_on_another_connection_than_the_take(void **state) {
    (void)state;
    open_cluster(STEADY_SECOND);
    fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
    fake_node_is_slow(high_node, TAKE, 150000);
    fake_node_says(high_node, TAKE, denies(10, 0, 700), 0, 0);
    const steady_part parts[] = {part_of(throttler, LOW, 1), part_of(throttler, HIGH, 1)};
    assert_int_equal(steady_consume_all(parts, 2, NULL, remember, NULL, NULL), 0);
    for (int i = 0; i < 100 && fake_node_heard(high_node, TAKE) == 0; i++)
        run_for(poller, 2 * MS);
    fake_node_says(low_node, "STEADY.PEEK", FAKE_HANG_UP, 0, 1);
    struct tally tally = {0};
    assert_int_equal(steady_peek(throttler, LOW, 3, count_result, expect_result(&tally)), 0);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    await_called(1);
    assert_true(answer.error == 0 && !answer.success);
    run_for(poller, 100 * MS);
    assert_int_equal(fake_node_accepted(low_node), 2);
    assert_heard(low_node, 1, 1, 0);
}

/* Between two blocking calls nothing runs, so the settle goes out before the call returns. */
static void blocking_call_gives_back_before_it_returns(void **state) {
    const char *const faults[] = {FAKE_HANG_UP, FAKE_SILENCE};
    steady_result r;
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        open_cluster(TIMEOUT);
        assert_int_equal(steady_peek_sync(throttler, HIGH, 3, &r), 0); /* its own connections learn of the cluster */
        fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
        fake_node_says(high_node, TAKE, faults[i], 0, 0);
        const steady_part parts[] = {part_of(throttler, LOW, 1), part_of(throttler, HIGH, 1)};
        assert_int_equal(steady_consume_all_sync(parts, 2, NULL, &r), STEADY_UNKNOWN);
        const steady_us until = now_us() + STEADY_SECOND;
        while (fake_node_heard(low_node, SETTLE) == 0 && now_us() < until)
            sleep_us(MS);
        assert_int_equal(fake_node_heard(low_node, SETTLE), 1);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

/* ---- A cluster that changes ---- */

#define TRY_AGAIN "-TRYAGAIN Multiple keys request during rehashing of slot\r\n"

static void keys_on_two_nodes_are_asked_one_by_one(void **state) {
    (void)state;
    open_cluster(timeout);
    const steady_part parts[] = {part_of(throttler, LOW "1", 1), part_of(throttler, LOW "2", 1)};
    fake_node_says(low_node, TAKE, TRY_AGAIN, 0, 1);
    const steady_result *r = ask_parts(parts, 2, NULL);
    assert_true(r->error == 0 && r->success && !r->atomic && r->n_parts == 2 && each[1].granted == 1);
    assert_heard(low_node, 2, 3, 0);
    assert_counted_once(1, 0, 0, 0);
}

static void slot_that_moves_between_two_rounds_is_asked_key_by_key(void **state) {
    const char *const both_allow = "*17\r\n:1\r\n:0\r\n:0\r\n:0\r\n:" NOW "\r\n:1\r\n:1\r\n:5\r\n:1000\r\n:0\r\n:0\r\n"
                                   ":1\r\n:1\r\n:4\r\n:1000\r\n:0\r\n:0\r\n";
    (void)state;
    for (int round = 0; round < 3; round++) {
        open_cluster(timeout);
        const steady_part parts[] = {part_of(throttler, LOW "1", 1), part_of(throttler, LOW "2", 1),
                                     part_of(throttler, HIGH, 1)};
        if (round > 0) fake_node_says(low_node, LOOK, both_allow, 0, 1);
        if (round == 0) fake_node_says(low_node, LOOK, TRY_AGAIN, 0, 1);
        if (round == 1) fake_node_says(low_node, TAKE, TRY_AGAIN, 0, 1);
        if (round == 2) {
            fake_node_says(low_node, TAKE, both_allow, 0, 1);
            fake_node_says(low_node, SETTLE, TRY_AGAIN, 0, 1);
            fake_node_says(high_node, TAKE, denies(10, 0, 700), 0, 0);
        }
        const steady_result *r = ask_parts(parts, 3, NULL);
        assert_true(r->error == 0 && r->success == (round < 2) && r->n_parts == 3);
        if (round == 0) assert_heard(low_node, 3, 2, 0);
        if (round == 1) assert_heard(low_node, 1, 3, 0);
        if (round == 2) assert_heard(low_node, 1, 1, 3);
        assert_heard(high_node, 1, 1, 0);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

static void single_key_that_is_to_try_again_is_unavailable(void **state) {
    (void)state;
    open_cluster(timeout);
    fake_node_says(low_node, LOOK, TRY_AGAIN, 0, 0);
    assert_failed(ask_both(throttler), STEADY_UNAVAILABLE);
    assert_heard(low_node, 1, 0, 0);
}

static void cluster_is_found_by_its_crossslot(void **state) {
    char url[64];
    const steady_part parts[] = {part_of(NULL, LOW, 1), part_of(NULL, HIGH, 1)};
    (void)state;
    open_cluster(timeout);
    steady_throttler_free(&blocks);
    client_close();
    fake_node_says(low_node, TAKE, "-CROSSSLOT Keys in request don't hash to the same slot\r\n", 0, 1);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_node_port(a));
    client_open_with(url, (steady_store_options){.timeout = timeout, .engine = STEADY_ENGINE_MODULE});
    for (unsigned i = 1; i <= 2; i++) {
        steady_part mine[2] = {parts[0], parts[1]};
        mine[0].throttler = mine[1].throttler = throttler;
        assert_true(ask_parts(mine, 2, NULL)->success && !answer.atomic);
        await_heard("CLUSTER", 2);
    }
    assert_int_equal(heard(LOOK), 4);
    assert_int_equal(heard(TAKE), 5);
}

static void branches_follow_moved_and_ask(void **state) {
    (void)state;
    for (int ask_first = 0; ask_first < 2; ask_first++) {
        open_cluster(timeout);
        const char *to_high =
            keep("-%s %u 127.0.0.1:%d\r\n", ask_first ? "ASK" : "MOVED", steady__slot_of(LOW, 3), fake_node_port(b));
        fake_node_says(low_node, LOOK, to_high, 0, 0);
        fake_node_says(low_node, TAKE, to_high, 0, 0);
        const steady_part parts[] = {part_of(throttler, LOW, 1), part_of(throttler, HIGH, 1)};
        ask_parts(parts, 2, NULL);
        assert_true(is_verdict(true));
        assert_heard(low_node, 1, ask_first ? 1 : 0, 0);
        assert_heard(high_node, 2, 2, 0);
        assert_int_equal(fake_node_heard(high_node, "ASKING"), ask_first ? 2 : 0);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

/* The take was redirected, so the settle is, too. */
static void settle_of_a_key_that_has_moved_on_follows_it(void **state) {
    (void)state;
    open_cluster(timeout);
    const char *ask_high = keep("-ASK %u 127.0.0.1:%d\r\n", steady__slot_of(LOW, 3), fake_node_port(b));
    fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
    fake_node_says(low_node, TAKE, ask_high, 0, 0);
    fake_node_says(low_node, SETTLE, ask_high, 0, 0);
    fake_node_says(high_node, TAKE, denies(10, 0, 700), 0, 0);
    fake_node_says(high_node, TAKE, allows(6, 1), 0, 1);
    ask_both(throttler);
    assert_true(is_verdict(false));
    assert_heard(low_node, 1, 1, 1);
    assert_heard(high_node, 1, 2, 1);
}

/* The slot begins to move between the take and the settle: the node that took the drops redirects the settle. */
static void settle_follows_a_key_that_moves_after_the_take(void **state) {
    (void)state;
    open_cluster(timeout);
    fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
    fake_node_says(low_node, SETTLE, keep("-ASK %u 127.0.0.1:%d\r\n", steady__slot_of(LOW, 3), fake_node_port(b)), 0,
                   0);
    fake_node_says(high_node, TAKE, denies(10, 0, 700), 0, 0);
    ask_both(throttler);
    assert_true(is_verdict(false));
    assert_heard(low_node, 1, 1, 1);
    assert_heard(high_node, 1, 1, 1);
}

/* A bucket that is ahead of the clock, in its look and in its take. */
static void clock_that_stepped_back_is_counted_once(void **state) {
    steady_stats stats;
    (void)state;
    open_cluster(timeout);
    steady_throttler_free(&blocks);
    client_close();
    for (int i = 0; i < 2; i++)
        fake_node_says(i == 0 ? a : b, "EVALSHA", "*5\r\n:3\r\n:" NOW "\r\n:2\r\n:0\r\n:0\r\n", 0, 0);
    char url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_node_port(a));
    client_open(url, timeout);
    fake_node_says(a, "EVALSHA", "-CROSSSLOT Keys in request don't hash to the same slot\r\n", 0, 1);
    ask_both(throttler);
    assert_true(is_verdict(true) && each[0].level == 3 && each[1].level == 3);
    steady_store_stats(store, &stats);
    assert_int_equal(stats.clock_steps, 2);
}

/* ---- Cancel and close ---- */

/* Stops the node of HIGH in a round: 0 look, 1 take, 2 settle; 3: the block of a denied call. */
static void hang_in_round(int round) {
    fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
    if (round == 0) fake_node_says(high_node, LOOK, FAKE_SILENCE, 0, 0);
    if (round == 1) fake_node_says(high_node, TAKE, FAKE_SILENCE, 0, 0);
    if (round == 2) {
        fake_node_says(high_node, TAKE, denies(10, 0, 700), 0, 0);
        fake_node_says(low_node, SETTLE, FAKE_SILENCE, 0, 0);
    }
    if (round == 3) {
        fake_node_says(high_node, LOOK, denies(10, 0, 700), 0, 0);
        fake_node_says(high_node, TAKE, FAKE_SILENCE, 0, 0);
    }
}

static uint64_t start_and_reach(int round) {
    const steady_part parts[] = {part_of(blocks, LOW, 1), part_of(blocks, HIGH, 1)};
    static const char *const words[] = {LOOK, TAKE, SETTLE, TAKE};
    uint64_t id = 0;
    called = 0;
    hang_in_round(round);
    assert_int_equal(steady_consume_all(parts, 2, NULL, remember, NULL, &id), 0);
    for (int i = 0; i < 200 && fake_node_heard(round == 2 ? low_node : high_node, words[round]) == 0; i++)
        run_for(poller, 2 * MS);
    run_for(poller, 10 * MS);
    assert_int_equal(called, 0);
    return id;
}

static void cancelled_call_gives_back_what_is_known(void **state) {
    (void)state;
    for (int round = 0; round < 4; round++) {
        open_cluster(timeout);
        const uint64_t id = start_and_reach(round);
        assert_int_equal(steady_cancel(throttler, id), 0);
        assert_int_equal(steady_cancel(throttler, id), STEADY_NOT_IN_FLIGHT);
        run_for(poller, 50 * MS);
        assert_int_equal(called, 0);
        assert_heard(low_node, 1, round == 1 || round == 2, round == 1 || round == 2);
        assert_heard(high_node, 1, round > 0, 0);
        assert_counted_once(0, 0, round == 0, round > 0);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

/* In rounds 2 and 3 the verdict is known: denied. */
static void expired_call_gives_back_what_is_known(void **state) {
    static const int errors[] = {STEADY_UNAVAILABLE, STEADY_UNKNOWN, 0, 0};
    (void)state;
    for (int round = 0; round < 4; round++) {
        open_cluster(timeout);
        const uint64_t id = start_and_reach(round);
        assert_int_equal(steady_expire(throttler, id), 0);
        assert_int_equal(steady_expire(throttler, id), 0);
        assert_int_equal(called, 0);
        run_for(poller, 50 * MS);
        assert_int_equal(steady_expire(throttler, id), STEADY_NOT_IN_FLIGHT);
        assert_int_equal(called, 1);
        assert_int_equal(answer.error, errors[round]);
        assert_heard(low_node, 1, round == 1 || round == 2, round == 1 || round == 2);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

static void close_ends_the_call_once_in_each_round(void **state) {
    (void)state;
    for (int round = 0; round < 4; round++) {
        open_cluster(timeout);
        start_and_reach(round);
        steady_store_close(&store);
        assert_int_equal(called, 1);
        assert_int_equal(answer.error, STEADY_CANCELLED);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

static uint64_t other_id;

static void remember_and_cancel(const steady_result *result, void *data) {
    remember(result, data);
    assert_int_equal(steady_cancel(throttler, other_id), 0);
}

/* The second call is cancelled in the callback of the first, which the close ends. */
static void call_may_be_cancelled_while_the_store_is_closed(void **state) {
    (void)state;
    for (int round = 0; round < 4; round++) {
        open_cluster(timeout);
        const steady_part parts[] = {part_of(blocks, LOW, 1), part_of(blocks, HIGH, 1)};
        called = 0;
        hang_in_round(round);
        assert_int_equal(steady_consume_all(parts, 2, NULL, remember_and_cancel, NULL, NULL), 0);
        assert_int_equal(steady_consume_all(parts, 2, NULL, remember, NULL, &other_id), 0);
        run_for(poller, 50 * MS);
        steady_store_close(&store);
        assert_int_equal(called, 1);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

static void callback_may_close_the_store(void **state) {
    (void)state;
    for (int round = 0; round < 5; round++) {
        open_cluster(SHORT);
        const steady_part parts[] = {part_of(blocks, LOW, 1), part_of(blocks, HIGH, 1)};
        called = 0;
        if (round < 4) hang_in_round(round);
        for (int i = 0; i < 5; i++)
            assert_int_equal(steady_consume_all(parts, 2, NULL, remember_and_close, NULL, NULL), 0);
        const steady_us until = now_us() + 5 * STEADY_SECOND;
        while (called < 5 && now_us() < until)
            run_for(poller, 10 * MS);
        assert_int_equal(called, 5);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

/* A throttler that is freed, and a store that is closed, while drops are given back after the deadline. */
static void settle_outlives_its_call(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        open_cluster(SHORT);
        fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
        fake_node_says(low_node, SETTLE, FAKE_SILENCE, 0, 0);
        fake_node_says(high_node, TAKE, FAKE_SILENCE, 0, 0);
        ask_both(blocks);
        assert_int_equal(answer.error, STEADY_UNKNOWN);
        steady_throttler_free(&blocks);
        assert_heard(low_node, 1, 1, 1);
        if (i == 0) run_for(poller, 3 * SHORT);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

#define FULL ":10\r\n:3000000000\r\n:0\r\n"

/* The bucket was full when it was taken. A server may have made the settle, or may make it later. */
static void bucket_of_a_lost_settle_is_not_denied_from_memory(void **state) {
    struct tally tally = {0};
    (void)state;
    deny_memory = LONGEST;
    open_cluster(SHORT);
    fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
    fake_node_says(low_node, TAKE, "*11\r\n:1\r\n:0\r\n:0\r\n:0\r\n:" NOW "\r\n:1\r\n:1\r\n" FULL ":0\r\n", 0, 0);
    fake_node_says(low_node, SETTLE, FAKE_SILENCE, 0, 0);
    fake_node_says(high_node, TAKE, "*11\r\n:0\r\n:0\r\n:0\r\n:900\r\n:" NOW "\r\n:0\r\n:0\r\n" FULL ":900\r\n", 0, 0);
    ask_both(throttler);
    assert_heard(low_node, 1, 1, 1);
    run_for(poller, 2 * SHORT);
    consume_counted(throttler, HIGH, 1, &tally); /* its denial is remembered */
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.last.source, STEADY_FROM_MEMORY);
    consume_counted(throttler, LOW, 1, &tally);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_not_equal(tally.last.source, STEADY_FROM_MEMORY);
}

#define DENIED_LOOK "*11\r\n:0\r\n:0\r\n:0\r\n:3000000000\r\n:" NOW "\r\n:0\r\n:0\r\n" FULL ":3000000000\r\n"

/* The next call on that bucket sends nothing, whatever its other buckets are. */
static void call_that_its_look_denies_is_remembered(void **state) {
    (void)state;
    deny_memory = LONGEST;
    open_cluster(timeout);
    fake_node_says(high_node, LOOK, DENIED_LOOK, 0, 0);
    ask_both(throttler);
    assert_true(is_verdict(false) && answer.source == STEADY_FROM_STORE && each[0].answered && each[1].answered);
    assert_heard(low_node, 1, 0, 0);
    assert_heard(high_node, 1, 0, 0);
    ask_both(throttler);
    assert_true(is_verdict(false) && answer.source == STEADY_FROM_MEMORY && answer.part == 1);
    assert_true(!each[0].answered && each[1].answered && each[1].level == 10);
    assert_heard(low_node, 1, 0, 0);
    assert_heard(high_node, 1, 0, 0);
}

/* A call that waits for the reply to another one was not sent. The transport would take it for one that has no node,
 * and would ask for the map. */
static void waiting_call_that_is_cancelled_asks_for_no_map(void **state) {
    const steady_call call = {.key = HIGH, .key_len = 3, .amount = 1};
    struct tally tally = {0}, first = {0}, waiting = {0};
    uint64_t id = 0;
    (void)state;
    deny_memory = LONGEST;
    open_cluster(timeout);
    fake_node_says(high_node, "STEADY.CONSUME", "*5\r\n:0\r\n:10\r\n:3000000000\r\n:0\r\n:3000000000\r\n", 0, 0);
    fake_node_says(high_node, TAKE, allows(9, 1), 0, 0);
    consume_counted(throttler, HIGH, 1, &tally);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    assert_int_equal(tally.denied, 1);
    const steady_part part = part_of(throttler, HIGH, 1);
    const steady_how how = {.at_least = 1}; /* the memory does not answer it, and learns from its reply */
    assert_int_equal(steady_consume_all(&part, 1, &how, count_result, expect_result(&tally), NULL), 0);
    run_until_done(poller, &tally, 5 * STEADY_SECOND); /* one drop has leaked */
    fake_node_says(high_node, "STEADY.CONSUME", FAKE_SILENCE, 0, 0);
    consume_counted(throttler, HIGH, 1, &first);
    void *data = expect_result(&waiting);
    assert_int_equal(steady_decide(throttler, &call, count_result, data, &id), 0);
    run_for(poller, 50 * MS);
    const unsigned maps = fake_node_heard(a, "CLUSTER") + fake_node_heard(b, "CLUSTER");
    assert_int_equal(fake_node_heard(high_node, "STEADY.CONSUME"), 2);
    assert_int_equal(steady_cancel(throttler, id), 0);
    free(data);
    run_for(poller, 100 * MS);
    assert_int_equal(fake_node_heard(a, "CLUSTER") + fake_node_heard(b, "CLUSTER"), maps);
}

/* ---- Settle and reset ---- */

static steady_reservation *reserve_both(void) {
    const steady_how how = {.reserve = true};
    const steady_part parts[] = {part_of(throttler, LOW, 4), part_of(throttler, HIGH, 4)};
    fake_node_says(low_node, LOOK, allows(0, 4), 0, 1);
    fake_node_says(high_node, LOOK, allows(0, 4), 0, 1);
    fake_node_says(low_node, TAKE, allows(4, 4), 0, 1);
    fake_node_says(high_node, TAKE, "*11\r\n:1\r\n:0\r\n:0\r\n:0\r\n:1000\r\n:1\r\n:4\r\n:4\r\n:1000\r\n:0\r\n:0\r\n",
                   0, 1);
    ask_parts(parts, 2, &how);
    assert_true(is_verdict(true));
    assert_non_null(answer.reservation);
    return answer.reservation;
}

static int settle_both(steady_reservation *reservation, int64_t actual) {
    const steady_settlement settlement = {
        .reservation = reservation, .actual = actual, .throttlers = &throttler, .n_throttlers = 1};
    called = 0;
    const int error = steady_settle(&settlement, remember, NULL, NULL);
    if (error != 0) return error;
    await_called(1);
    return answer.error;
}

static void each_bucket_is_reserved_at_the_moment_of_its_server(void **state) {
    size_t n;
    (void)state;
    open_cluster(timeout);
    steady_reservation *reservation = reserve_both();
    const steady_reserved *parts = steady_reservation_parts(reservation, &n);
    assert_int_equal(n, 2);
    assert_int_equal(parts[0].moment, 1764000000000000);
    assert_int_equal(parts[1].moment, 1000);
    assert_true(parts[0].granted == 4 && parts[1].granted == 4);
    assert_int_equal(settle_both(reservation, 1), 0);
    assert_true(answer.success && !answer.atomic && answer.n_parts == 2 && each[1].given_back == 5);
    assert_heard(low_node, 1, 1, 1);
    assert_heard(high_node, 1, 1, 1);
    assert_int_equal(settle_both(reservation, 1), STEADY_BAD_ARGUMENT);
    steady_reservation_free(&reservation);
}

static void settle_that_changed_one_bucket_is_unknown(void **state) {
    const char *const faults[] = {FAKE_HANG_UP, FAKE_SILENCE, "-OOM command not allowed\r\n"};
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        open_cluster(TIMEOUT);
        steady_reservation *reservation = reserve_both();
        fake_node_says(high_node, SETTLE, faults[i], 0, 0);
        assert_int_equal(settle_both(reservation, 1), STEADY_UNKNOWN);
        assert_int_equal(settle_both(reservation, 1), STEADY_BAD_ARGUMENT); /* it was settled */
        steady_reservation_free(&reservation);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

static void settle_that_changed_no_bucket_may_be_made_again(void **state) {
    (void)state;
    open_cluster(timeout);
    steady_reservation *reservation = reserve_both();
    fake_node_says(low_node, SETTLE, "-OOM command not allowed\r\n", 0, 1);
    fake_node_says(high_node, SETTLE, "-OOM command not allowed\r\n", 0, 1);
    assert_int_equal(settle_both(reservation, 1), STEADY_UNAVAILABLE);
    assert_int_equal(settle_both(reservation, 1), 0);
    steady_reservation_free(&reservation);
}

/* ---- Policies ---- */

static void strictest_policy_answers(void **state) {
    static const enum steady_policy policies[] = {STEADY_REPORT, STEADY_DENY, STEADY_ALLOW, STEADY_LOCAL};
    static const int strictness[] = {2, 3, 0, 1};
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = HOUR};
    (void)state;
    for (int i = 0; i < 16; i++) {
        const int one = i / 4, other = i % 4, strictest = strictness[one] > strictness[other] ? one : other;
        steady_throttler *t[2];
        open_cluster(timeout);
        for (int k = 0; k < 2; k++) {
            const steady_throttler_options options = {.on_error = policies[k == 0 ? one : other], .local_share = 1};
            assert_int_equal(steady_throttler_new(&t[k], store, &limit, &options, NULL), 0);
        }
        fake_node_says(low_node, LOOK, allows(5, 1), 0, 0);
        fake_node_says(high_node, TAKE, FAKE_HANG_UP, 0, 0);
        const steady_part parts[] = {part_of(t[0], LOW, 1), part_of(t[1], HIGH, 1)};
        const steady_result *r = ask_parts(parts, 2, NULL);
        assert_int_equal(r->error, STEADY_UNKNOWN);
        assert_int_equal(r->success, policies[strictest] == STEADY_ALLOW || policies[strictest] == STEADY_LOCAL);
        assert_int_equal(r->source, policies[strictest] == STEADY_REPORT  ? STEADY_FROM_NOWHERE
                                    : policies[strictest] == STEADY_LOCAL ? STEADY_FROM_LOCAL
                                                                          : STEADY_FROM_POLICY);
        assert_heard(low_node, 1, 1, 1); /* whatever the policy, the known drops are given back */
        steady_throttler_free(&t[0]);
        steady_throttler_free(&t[1]);
        close_cluster(NULL);
        nodes_set_up(NULL);
    }
}

#define WITH_CLUSTER(test) cmocka_unit_test_setup_teardown(test, nodes_set_up, close_cluster)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_CLUSTER(allowed_call_looks_at_all_and_takes_all),
        WITH_CLUSTER(bucket_with_the_least_room_is_taken_first),
        WITH_CLUSTER(denied_look_takes_nothing),
        WITH_CLUSTER(denied_look_starts_only_the_block_of_the_bucket_that_denies),
        WITH_CLUSTER(room_found_when_a_block_is_to_start_is_given_back),
        WITH_CLUSTER(waiting_call_starts_no_block),
        WITH_CLUSTER(second_denial_gives_back_what_was_taken),
        WITH_CLUSTER(denial_of_the_first_bucket_takes_nothing_elsewhere),
        WITH_CLUSTER(drain_waits_for_all_takes),
        WITH_CLUSTER(lost_drain_beside_one_that_was_made_is_unknown),
        WITH_CLUSTER(partial_grant_is_the_smallest_and_the_rest_is_settled),
        WITH_CLUSTER(looks_are_asked_once),
        WITH_CLUSTER(blocked_bucket_with_amount_0_has_no_vote),
        WITH_CLUSTER(peek_has_one_round),
        WITH_CLUSTER(unknown_take_is_not_given_back_and_the_known_one_is),
        WITH_CLUSTER(unknown_first_take_asks_no_other_node),
        WITH_CLUSTER(take_that_fails_without_a_charge_gives_the_other_back),
        WITH_CLUSTER(take_whose_settle_is_lost_makes_a_failed_call_unknown),
        WITH_CLUSTER(denied_call_is_denied_whatever_the_other_parts),
        WITH_CLUSTER(denial_beats_an_unknown_part),
        WITH_CLUSTER(call_that_is_lost_in_its_look_is_unavailable),
        WITH_CLUSTER(deadline_is_that_of_the_call),
        WITH_CLUSTER(settle_is_not_sent_on_another_connection_than_the_take),
        WITH_CLUSTER(blocking_call_gives_back_before_it_returns),
        WITH_CLUSTER(keys_on_two_nodes_are_asked_one_by_one),
        WITH_CLUSTER(slot_that_moves_between_two_rounds_is_asked_key_by_key),
        WITH_CLUSTER(single_key_that_is_to_try_again_is_unavailable),
        WITH_CLUSTER(cluster_is_found_by_its_crossslot),
        WITH_CLUSTER(branches_follow_moved_and_ask),
        WITH_CLUSTER(settle_of_a_key_that_has_moved_on_follows_it),
        WITH_CLUSTER(settle_follows_a_key_that_moves_after_the_take),
        WITH_CLUSTER(clock_that_stepped_back_is_counted_once),
        WITH_CLUSTER(cancelled_call_gives_back_what_is_known),
        WITH_CLUSTER(expired_call_gives_back_what_is_known),
        WITH_CLUSTER(close_ends_the_call_once_in_each_round),
        WITH_CLUSTER(call_may_be_cancelled_while_the_store_is_closed),
        WITH_CLUSTER(callback_may_close_the_store),
        WITH_CLUSTER(settle_outlives_its_call),
        WITH_CLUSTER(bucket_of_a_lost_settle_is_not_denied_from_memory),
        WITH_CLUSTER(call_that_its_look_denies_is_remembered),
        WITH_CLUSTER(waiting_call_that_is_cancelled_asks_for_no_map),
        WITH_CLUSTER(each_bucket_is_reserved_at_the_moment_of_its_server),
        WITH_CLUSTER(settle_that_changed_one_bucket_is_unknown),
        WITH_CLUSTER(settle_that_changed_no_bucket_may_be_made_again),
        WITH_CLUSTER(strictest_policy_answers),
    };
    return cmocka_run_group_tests_name("several slots", tests, NULL, NULL);
}
