/* SPDX-License-Identifier: MIT
 * Calls on several keys: the commands to the byte, the longest ones, and which replies are believed. */
#include <stdlib.h>

#include "conn/connection.h"
#include "conn/resp.h"
#include "group.h"
#include "packed.h"
#include "random.h"
#include "redis/command.h"
#include "support.h"

#define NOW INT64_C(1764000000250000)
#define LAST (STEADY__EXACT - 1)

static struct steady__terms plain = {.rate = {10, 5000000, 1, 0}}, per_hour = {.rate = {1000, 3600000000, 1000, 7}};

/* ---- Groups ---- */

static struct steady__group *group; /* of the test that runs */

static void begin_group(size_t n) {
    free(group);
    group = steady__group_new(n, n * STEADY__KEY_MAX);
    assert_non_null(group);
}

static struct steady__member *add(const struct steady__terms *terms, const char *key, int64_t amount,
                                  enum steady__kind kind) {
    struct steady__member *member = steady__group_add(group, NULL, terms, key, strlen(key));
    member->part.amount = amount;
    member->part.kind = kind;
    return member;
}

static void add_settled(const struct steady__terms *terms, const char *key, int64_t reserved, int64_t actual,
                        bool same_rate) {
    add(terms, key, 0, STEADY__TAKE)->settlement = (struct steady__settlement){
        .rate = &terms->rate, .same_rate = same_rate, .reserved = reserved, .moment = NOW, .actual = actual};
}

static struct steady__call call_of(enum steady__verb verb) {
    group->how.peek = verb == STEADY__PEEK_ALL;
    return (struct steady__call){.verb = verb,
                                 .key = group->members[0].key,
                                 .key_len = group->members[0].key_len,
                                 .terms = group->members[0].terms,
                                 .group = group};
}

static int tear_down(void **state) {
    (void)state;
    free(group);
    group = NULL;
    return 0;
}

/* ---- Commands ---- */

/* Writes the words of a command with a space between them, and checks their lengths. The last `packed` words are the
 * arguments of parts. */
static const char *words_of(const char *command, size_t len, long packed) {
    static char words[1024];
    char *out = words, *end;
    const long argc = strtol(command + 1, &end, 10);
    const char *at = end + 2;
    assert_int_equal(*command, '*');
    for (long i = 0; i < argc; i++) {
        assert_int_equal(*at, '$');
        const long word_len = strtol(at + 1, &end, 10);
        if (i > 0) *out++ = ' ';
        if (i >= argc - packed) {
            out += packed_to_text(out, end + 2, (size_t)word_len);
        } else {
            memcpy(out, end + 2, (size_t)word_len);
            out += word_len;
        }
        assert_memory_equal(end + 2 + word_len, "\r\n", 2);
        at = end + 4 + word_len;
    }
    assert_ptr_equal(at, command + len);
    *out = '\0';
    return words;
}

static void assert_evalsha(enum steady__verb verb, const char *behind) {
    char out[2048], expected[1024];
    const struct steady__call call = call_of(verb);
    assert_true(steady__command_group_room(&call, false) <= sizeof out);
    snprintf(expected, sizeof expected, "EVALSHA %s %s", steady__scripts[verb].sha1, behind);
    const bool packed = verb == STEADY__CONSUME_ALL || verb == STEADY__PEEK_ALL;
    assert_string_equal(words_of(out, steady__command_evalsha(out, &call), packed ? (long)group->n : 0), expected);
}

static void assert_module(enum steady__verb verb, const char *expected) {
    char out[2048];
    const struct steady__call call = call_of(verb);
    assert_string_equal(words_of(out, steady__command_module(out, &call), 0), expected);
}

static void consume_and_peek_of_a_group_are_written_in_full(void **state) {
    (void)state;
    begin_group(4);
    add(&plain, "a", 1, STEADY__TAKE);
    assert_evalsha(STEADY__CONSUME_ALL, "1 a 0 0 10 5000000 1 0 1 0");
    assert_module(STEADY__CONSUME_ALL, "STEADY.CONSUMEALL 1 a PART 10 5000000");
    add(&per_hour, "bb", -3, STEADY__TAKE);
    add(&plain, "c", 4, STEADY__LOOK);
    add(&per_hour, "d", 5, STEADY__CHARGE);
    group->how.max_wait = 9;
    assert_evalsha(STEADY__CONSUME_ALL, "4 a bb c d 9 0 10 5000000 1 0 1 0 1000 3600000000 1000 7 -3 0 "
                                        "10 5000000 1 0 4 1 1000 3600000000 1000 7 5 2");
    assert_module(STEADY__CONSUME_ALL, "STEADY.CONSUMEALL 4 a bb c d WAIT 9 PART 10 5000000 "
                                       "PART 1000 3600000000 DROPS 1000 BLOCK 7 AMOUNT -3 "
                                       "PART 10 5000000 AMOUNT 4 KIND look "
                                       "PART 1000 3600000000 DROPS 1000 BLOCK 7 AMOUNT 5 KIND charge");
    begin_group(2);
    add(&per_hour, "a", 7, STEADY__TAKE);
    add(&plain, "b", 7, STEADY__SHADOW);
    group->how.at_least = 2;
    assert_evalsha(STEADY__PEEK_ALL, "2 a b 0 2 1000 3600000000 1000 7 7 0 10 5000000 1 0 7 3");
    assert_module(STEADY__PEEK_ALL, "STEADY.PEEKALL 2 a b ATLEAST 2 PART 1000 3600000000 DROPS 1000 AMOUNT 7 "
                                    "PART 10 5000000 AMOUNT 7 KIND shadow");
}

static void settle_and_reset_of_a_group_are_written_in_full(void **state) {
    (void)state;
    begin_group(2);
    add_settled(&per_hour, "a", 5, 3, true);
    add_settled(&plain, "b", 0, 2, false);
    assert_evalsha(STEADY__SETTLE,
                   "2 a b 1000 3600000000 1000 5 1764000000250000 3 1 10 5000000 1 0 1764000000250000 2 0");
    assert_module(STEADY__SETTLE, "STEADY.SETTLE 2 a b PART 1000 3600000000 DROPS 1000 RESERVED 5 "
                                  "MOMENT 1764000000250000 ACTUAL 3 PART 10 5000000 RESERVED 0 "
                                  "MOMENT 1764000000250000 ACTUAL 2 OTHERRATE");
    assert_evalsha(STEADY__RESET_ALL, "2 a b");
    assert_module(STEADY__RESET_ALL, "STEADY.RESET a b");
}

static void longest_group_fits_into_its_room(void **state) {
    static struct steady__terms longest = {.rate = {INT32_MAX, 4194303, STEADY__DROPS_MAX, STEADY__BLOCK_LIMIT - 1}};
    static struct steady__terms slowest = {.rate = {1, LAST, STEADY__DROPS_MAX - 1, STEADY__BLOCK_LIMIT - 1}};
    char key[STEADY__KEY_MAX + 1] = "", *out = malloc(STEADY__GROUP_COMMAND_MAX);
    size_t most = 0;
    (void)state;
    memset(key, '{', STEADY__KEY_MAX);
    begin_group(STEADY__PARTS_MAX);
    for (int i = 0; i < STEADY__PARTS_MAX; i++) {
        struct steady__member *member =
            add(i % 2 ? &longest : &slowest, key, INT32_MAX, i % 3 ? STEADY__SHADOW : STEADY__CHARGE);
        member->settlement = (struct steady__settlement){
            .rate = &member->terms->rate, .reserved = INT32_MAX, .moment = LAST, .actual = INT32_MAX};
    }
    group->how.max_wait = STEADY__MAX_WAIT;
    group->how.at_least = INT32_MAX;
    for (int verb = STEADY__CONSUME_ALL; verb < STEADY__VERBS; verb++) {
        const struct steady__call call = call_of((enum steady__verb)verb);
        const size_t room = steady__command_group_room(&call, true), less = steady__command_group_room(&call, false);
        assert_true(room <= STEADY__GROUP_COMMAND_MAX);
        const size_t lens[] = {steady__command_evalsha(out, &call), steady__command_eval(out, &call),
                               steady__command_module(out, &call)};
        for (size_t i = 0; i < COUNT(lens); i++) {
            assert_true(lens[i] <= (i == 1 ? room : less));
            if (lens[i] > most) most = lens[i];
        }
    }
    assert_true(most > 64 * STEADY__KEY_MAX + STEADY__REQUEST_MAX / 2);
    assert_true(STEADY__GROUP_COMMAND_MAX + sizeof STEADY__ASKING <= 98304); /* steady/client.h */
    for (int verb = 0; verb < STEADY__CONSUME_ALL; verb++)
        assert_true(steady__scripts[verb].text_len + STEADY__COMMAND_MAX <= STEADY__REQUEST_MAX);
    free(out);
}

/* ---- Replies of the scripts ---- */

struct reply {
    int64_t values[16];
    size_t count;
};
#define REPLY(...)                                                                                                     \
    { {__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t) }

static void begin_two(void) {
    begin_group(2);
    add(&plain, "a", 1, STEADY__TAKE);
    add(&per_hour, "b", 30, STEADY__TAKE);
}

static bool read_script(enum steady__verb verb, const struct reply *reply, steady_result *r, unsigned *stepped) {
    const struct steady__call call = call_of(verb);
    return steady__command_group_script_reply(&call, reply->values, reply->count, r, stepped);
}

static void reply_of_a_script_gives_the_result_of_the_kernel(void **state) {
    static const struct reply allowed = REPLY(1, NOW, 3 * 5000000 - 2000000, 0),
                              denied = REPLY(0, NOW, 0, 990 * INT64_C(3600000000)),
                              blocked = REPLY(0 + 2 * 1, NOW, 3, -0, 0, 5, 999, 7000000);
    steady_result r;
    unsigned stepped = 9;
    (void)state;
    begin_two();
    assert_true(read_script(STEADY__CONSUME_ALL, &allowed, &r, &stepped));
    assert_true(r.success && r.atomic && r.source == STEADY_FROM_STORE && r.n_parts == 2 && r.part == 0);
    assert_true(r.parts == group->results && r.level == 4 && r.until_next_drop == 3000000 && r.granted == 1);
    assert_true(r.parts[1].level == 30 && r.parts[1].until_next_drop == 3600000 && r.parts[1].granted == 30);
    assert_true(stepped == 0 && group->members[0].moment == NOW && group->members[1].moment == NOW);
    assert_true(read_script(STEADY__CONSUME_ALL, &denied, &r, &stepped));
    assert_true(!r.success && r.part == 1 && r.level == 990 && r.retry_after == 20 * INT64_C(3600000));
    assert_true(r.parts[0].success && r.parts[0].granted == 0 && r.parts[0].level == 0);
    assert_true(read_script(STEADY__CONSUME_ALL, &blocked, &r, &stepped));
    assert_true(!r.success && stepped == 1 && r.part == 1 && r.blocked_for == 7000000 && r.retry_after == 7000000);
    assert_true(r.parts[0].level == 3 && r.parts[1].level == 5);
    assert_true(read_script(STEADY__PEEK_ALL, &allowed, &r, &stepped));
    assert_true(r.success && r.level == 3);
    assert_true(read_script(STEADY__RESET_ALL, &(struct reply)REPLY(2), &r, &stepped));
    assert_true(r.success && r.n_parts == 2 && r.parts[1].level == 0 && r.parts[1].until_next_drop == 3600000);
    begin_group(2);
    add_settled(&plain, "a", 5, 3, true);
    add_settled(&per_hour, "b", 1, 4, true);
    assert_true(read_script(STEADY__SETTLE, &allowed, &r, &stepped));
    assert_true(r.success && r.parts[0].given_back == 10000000 && r.parts[0].level == 1 && r.parts[1].charged == 3);
}

static void reply_that_no_script_sends_is_rejected(void **state) {
    static const struct reply bad[] = {
        {{0}, 0},
        REPLY(1),
        REPLY(1, NOW, 0),
        REPLY(1, NOW, 0, 0, 0),
        REPLY(1, NOW, 0, 0, 0, 0, 0),
        REPLY(1, NOW, 0, 0, 0, 0, 0, 0, 0),
        REPLY(-1, NOW, 0, 0),
        REPLY(2, NOW, 0, 0), /* a bucket was ahead of the clock: the reply would be in full */
        REPLY(3, NOW, 0, 0),
        REPLY(INT64_MAX, NOW, 0, 0),
        REPLY(INT64_MIN, NOW, 0, 0),
        REPLY(0, NOW, 0, 0), /* all fit */
        REPLY(1, NOW, 10 * 5000000, 0),
        REPLY(1, -1, 0, 0),
        REPLY(1, STEADY__EXACT, 0, 0),
        REPLY(1, INT64_MIN, 0, 0),
        REPLY(1, NOW, -1, 0),
        REPLY(1, NOW, 0, INT64_MIN),
        REPLY(0, NOW, STEADY__EXACT, 0),
        REPLY(0, NOW, 0, INT64_MAX),
        REPLY(0, NOW, LAST, 0), /* no such level: level * recharge would be over 2^53 */
        REPLY(1, 5, 1, 0),      /* its last leak would be before the beginning of time */
        REPLY(6, NOW, 0, 0, 0, 1000, 0, 0),
        REPLY(-1, NOW, 0, 0, 0, 0, 0, 0),
        REPLY(1, NOW, 0, 0, 0, 0, 0, 1), /* blocked, and yet allowed */
        REPLY(0, NOW, -1, 0, 0, 0, 0, 1),
        REPLY(0, NOW, INT64_MIN, 0, 0, 0, 0, 1),
        REPLY(0, NOW, INT64_MAX, 0, 0, 0, 0, 1),
        REPLY(0, NOW, LAST / 5000000 + 1, 0, 0, 0, 0, 1),
        REPLY(0, NOW, 0, 0, 0, 0, 0, -1),
        REPLY(0, NOW, 0, 0, 0, 0, 0, INT64_MAX),
        REPLY(0, NOW, 0, 0, 0, 0, 0, STEADY__EXACT - NOW),
        REPLY(0, NOW, 1, 5000000, 0, 0, 0, 1),
        REPLY(0, NOW, 1, -1, 0, 0, 0, 1),
        REPLY(0, NOW, 0, 0, 0, 1, -1000, 1),
        REPLY(0, NOW, 0, 0, 0, 1, INT64_MIN, 1),
        REPLY(0, NOW, 0, 0, 0, 1, INT64_MAX, 1),
    };
    static const struct reply bad_resets[] = {{{0}, 0}, REPLY(-1), REPLY(3), REPLY(INT64_MIN), REPLY(0, 0)};
    steady_result r;
    unsigned stepped;
    (void)state;
    begin_two();
    for (size_t i = 0; i < COUNT(bad); i++)
        if (read_script(STEADY__CONSUME_ALL, &bad[i], &r, &stepped)) fail_msg("reply %zu was believed", i);
    for (size_t i = 0; i < COUNT(bad_resets); i++)
        assert_false(read_script(STEADY__RESET_ALL, &bad_resets[i], &r, &stepped));
    assert_true(read_script(STEADY__CONSUME_ALL, &(struct reply)REPLY(0, NOW, 1, -0, 0, 1, -999, 1), &r, &stepped));
    begin_group(1);
    add_settled(&plain, "a", 5, 3, true);
    assert_false(read_script(STEADY__SETTLE, &(struct reply)REPLY(0, NOW, 0), &r, &stepped));
    assert_true(read_script(STEADY__SETTLE, &(struct reply)REPLY(1, NOW, 0), &r, &stepped));
}

/* ---- Replies of the module ---- */

#define PART(level) 1, 1, level, 5000000, 0, 0

static bool read_module(enum steady__verb verb, const int64_t *values, size_t count, steady_result *r) {
    const struct steady__call call = call_of(verb);
    return steady__command_group_module_reply(&call, values, count, r);
}

static void reply_of_the_module_is_the_result(void **state) {
    static const int64_t allowed[] = {1, 1, 4, 0, NOW, 1, 1, 10, 5000000, 0, 0, 1, 30, 70, 60, 0, 0},
                         denied[] = {0, 1, 0, 90, NOW, 1, 0, 10, 5000000, 0, 0, 0, 0, 1000, 60, 70, 90},
                         settled[] = {NOW, 1, 5000000, 0, 400, 0, 2, 60, 9, 0, 3};
    steady_result r;
    (void)state;
    begin_two();
    group->how.max_wait = 5;
    assert_true(read_module(STEADY__CONSUME_ALL, allowed, COUNT(allowed), &r));
    assert_true(r.success && r.atomic && r.part == 1 && r.must_wait == 4 && r.level == 70 && r.granted == 30);
    assert_true(r.n_parts == 2 && r.parts[0].level == 10 && r.parts[0].granted == 1);
    assert_true(group->members[0].moment == NOW && group->members[1].moment == NOW);
    assert_true(read_module(STEADY__PEEK_ALL, denied, COUNT(denied), &r));
    assert_true(!r.success && r.part == 1 && r.retry_after == 90 && r.blocked_for == 70 && r.parts[0].success);
    assert_true(read_module(STEADY__RESET_ALL, (const int64_t[]){1}, 1, &r));
    assert_true(r.success && r.parts[0].level == 0);
    begin_group(2);
    add_settled(&plain, "a", 5, 3, true);
    add_settled(&per_hour, "b", 1, 4, true);
    assert_true(read_module(STEADY__SETTLE, settled, COUNT(settled), &r));
    assert_true(r.success && r.parts[0].given_back == 400 && r.parts[1].charged == 3 && r.parts[1].blocked_for == 9);
    assert_true(r.parts[1].level == 2 && group->members[0].moment == NOW && group->members[1].moment == NOW);
}

/* Each number of a valid reply, replaced by others. */
static void reply_of_the_module_out_of_range_is_rejected(void **state) {
    static const int64_t allowed[] = {1, 0, 0, 0, NOW, PART(10), 1, 30, 70, 60, 0, 0};
    static const struct {
        size_t at;
        int64_t value;
    } bad[] = {{0, 0},         {0, 2},
               {0, -1},        {1, -1},
               {1, 2},         {1, INT64_MAX},
               {2, -1},        {2, 6},
               {2, INT64_MAX}, {3, 1},
               {3, -1},        {3, -2},
               {4, -1},        {4, INT64_MAX},
               {5, 0},         {5, 2},
               {6, -1},        {6, 2},
               {7, -1},        {8, 0},
               {8, -1},        {9, -1},
               {10, 1},        {10, -1},
               {7, INT64_MAX}, {8, STEADY__EXACT},
               {9, INT64_MAX}, {10, INT64_MIN},
               {12, 31}};
    int64_t values[COUNT(allowed)];
    steady_result r;
    (void)state;
    begin_two();
    group->how.max_wait = 5;
    assert_true(read_module(STEADY__CONSUME_ALL, allowed, COUNT(allowed), &r));
    for (size_t count = 0; count < COUNT(allowed); count++)
        assert_false(read_module(STEADY__CONSUME_ALL, allowed, count, &r));
    for (size_t i = 0; i < COUNT(bad); i++) {
        memcpy(values, allowed, sizeof values);
        values[bad[i].at] = bad[i].value;
        if (read_module(STEADY__CONSUME_ALL, values, COUNT(values), &r))
            fail_msg("value %zu: %lld was believed", bad[i].at, (long long)bad[i].value);
    }
}

static void verdict_of_the_module_must_fit_its_buckets(void **state) {
    static const int64_t bad[][17] = {
        {1, 0, 0, 0, NOW, 0, 0, 10, 5000000, 0, 7, 1, 30, 70, 60, 0, 0}, /* allowed, and a bucket denies */
        {0, 0, 0, 7, NOW, 1, 0, 10, 5000000, 0, 0, 0, 0, 70, 60, 0, 7},  /* names a bucket that allows */
        {0, 1, 0, 8, NOW, 1, 0, 10, 5000000, 0, 0, 0, 0, 70, 60, 0, 7},  /* another wait */
        {0, 1, 0, 7, NOW, 1, 1, 10, 5000000, 0, 0, 0, 0, 70, 60, 0, 7},  /* denied, and put in a drop */
        {0, 1, 3, 7, NOW, 1, 0, 10, 5000000, 0, 0, 0, 0, 70, 60, 0, 7},  /* denied, and must wait */
    };
    static const int64_t good[] = {0, 1, 0, 7, NOW, 1, 0, 10, 5000000, 0, 0, 0, 0, 70, 60, 0, 7};
    steady_result r;
    (void)state;
    begin_two();
    group->how.max_wait = 5;
    assert_true(read_module(STEADY__CONSUME_ALL, good, COUNT(good), &r));
    for (size_t i = 0; i < COUNT(bad); i++)
        if (read_module(STEADY__CONSUME_ALL, bad[i], 17, &r)) fail_msg("reply %zu was believed", i);
}

static void settlement_of_the_module_out_of_range_is_rejected(void **state) {
    static const int64_t good[] = {NOW, 1, 5000000, 0, 400, 0, 2, 60, 9, 0, 3};
    static const struct {
        size_t at;
        int64_t value;
    } bad[] = {{0, -1}, {0, STEADY__EXACT}, {1, -1}, {2, 0}, {3, -1}, {3, INT64_MAX},
               {4, -1}, {4, INT64_MIN},     {5, 1},  {9, 1}, {10, 4}, {10, -1}};
    int64_t values[COUNT(good)];
    steady_result r;
    (void)state;
    begin_group(2);
    add_settled(&plain, "a", 5, 3, true);
    add_settled(&per_hour, "b", 1, 4, true);
    assert_true(read_module(STEADY__SETTLE, good, COUNT(good), &r));
    assert_false(read_module(STEADY__SETTLE, good, COUNT(good) - 1, &r));
    assert_false(read_module(STEADY__RESET_ALL, (const int64_t[]){3}, 1, &r));
    for (size_t i = 0; i < COUNT(bad); i++) {
        memcpy(values, good, sizeof values);
        values[bad[i].at] = bad[i].value;
        if (read_module(STEADY__SETTLE, values, COUNT(values), &r)) fail_msg("value %zu was believed", bad[i].at);
    }
}

static uint64_t seed;

static size_t random_below(size_t n) { return (size_t)(random_next(&seed) % n); }

/* A sanitizer detects an overflow. A result that is believed is in range. */
static void random_reply_causes_no_overflow(void **state) {
    static const int64_t numbers[] = {0,
                                      1,
                                      2,
                                      3,
                                      -1,
                                      5,
                                      6,
                                      7,
                                      1000,
                                      5000000,
                                      NOW,
                                      NOW + 1,
                                      LAST,
                                      STEADY__EXACT,
                                      INT32_MAX,
                                      INT64_MAX,
                                      INT64_MIN,
                                      -999,
                                      LAST / 5000000,
                                      LAST / 2};
    static struct steady__terms terms[] = {{.rate = {1, LAST, 1000000, 0}},
                                           {.rate = {INT32_MAX, 1, 1, STEADY__BLOCK_LIMIT - 1}},
                                           {.rate = {INT32_MAX, 4194303, 999, 5}},
                                           {.rate = {10, 5000000, 1, 0}}};
    unsigned long believed = 0;
    (void)state;
    seed = 1;
    for (int round = 0; round < 200000; round++) {
        int64_t values[32];
        const size_t n = 1 + random_below(3);
        unsigned stepped;
        steady_result r;
        begin_group(n);
        for (size_t i = 0; i < n; i++) {
            struct steady__member *member =
                add(&terms[random_below(COUNT(terms))], "k", random_below(2) ? 1 : INT32_MAX,
                    (enum steady__kind)random_below(STEADY__KINDS));
            member->settlement = (struct steady__settlement){.rate = &member->terms->rate,
                                                             .same_rate = random_below(4) != 0,
                                                             .reserved = random_below(2) ? INT32_MAX : 3,
                                                             .moment = random_below(2) ? NOW : LAST,
                                                             .actual = random_below(2) ? 1 : INT32_MAX};
        }
        group->how.max_wait = random_below(3) == 0 ? STEADY__MAX_WAIT : 0;
        const struct steady__call call =
            call_of((enum steady__verb)(STEADY__CONSUME_ALL + random_below(STEADY__VERBS - STEADY__CONSUME_ALL)));
        const bool module = random_below(4) == 0;
        const size_t counts[] = {2 + n, 2 + 3 * n, 1, 5 + 6 * n, 1 + 5 * n};
        const size_t count = counts[module ? 2 + random_below(3) : random_below(3)];
        for (size_t i = 0; i < count; i++)
            values[i] = i == 1 && !module ? NOW
                        : i == 0          ? (int64_t)random_below(3)
                                          : numbers[random_below(COUNT(numbers))];
        if (module ? !steady__command_group_module_reply(&call, values, count, &r)
                   : !steady__command_group_script_reply(&call, values, count, &r, &stepped))
            continue;
        believed++;
        for (size_t i = 0; i < n; i++) {
            const steady_part_result *part = &group->results[i];
            assert_true(part->level >= 0 && part->level < STEADY__EXACT && part->until_next_drop > 0);
            assert_true(part->blocked_for >= 0 && part->retry_after >= -1 && part->retry_after < 2 * STEADY__EXACT);
        }
        assert_true(r.part < n && r.must_wait >= 0 && r.must_wait <= group->how.max_wait);
    }
    assert_true(believed > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(consume_and_peek_of_a_group_are_written_in_full, tear_down),
        cmocka_unit_test_teardown(settle_and_reset_of_a_group_are_written_in_full, tear_down),
        cmocka_unit_test_teardown(longest_group_fits_into_its_room, tear_down),
        cmocka_unit_test_teardown(reply_of_a_script_gives_the_result_of_the_kernel, tear_down),
        cmocka_unit_test_teardown(reply_that_no_script_sends_is_rejected, tear_down),
        cmocka_unit_test_teardown(reply_of_the_module_is_the_result, tear_down),
        cmocka_unit_test_teardown(reply_of_the_module_out_of_range_is_rejected, tear_down),
        cmocka_unit_test_teardown(verdict_of_the_module_must_fit_its_buckets, tear_down),
        cmocka_unit_test_teardown(settlement_of_the_module_out_of_range_is_rejected, tear_down),
        cmocka_unit_test_teardown(random_reply_causes_no_overflow, tear_down),
    };
    return cmocka_run_group_tests_name("command_group", tests, NULL, NULL);
}
