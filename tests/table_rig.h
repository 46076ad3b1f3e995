/* SPDX-License-Identifier: MIT
 * Shared by tests of the table in one thread: a table in virtual time, and keys with the same two groups of slots. */
#ifndef TABLE_RIG_H
#define TABLE_RIG_H

#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "local/table.h"

#define START ((int64_t)1000000000)
#define SECOND ((int64_t)1000000)
#define NEIGHBOURS (2 * STEADY__GROUP_SLOTS)

struct fixture {
    struct steady__table table;
    uint32_t buckets;
    void *bytes;
    int64_t now;
};

static uint64_t random_state; /* better mixed than by random.h, because keys must spread */

static inline uint64_t random64(void) {
    random_state += 0x9e3779b97f4a7c15;
    uint64_t x = random_state;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static inline void set_up(struct fixture *f, uint32_t buckets) {
    const size_t size = steady__table_bytes(buckets);
    f->bytes = aligned_alloc(STEADY__TABLE_ALIGN, (size + 255) / 256 * 256);
    assert_non_null(f->bytes);
    memset(f->bytes, 0, size);
    f->buckets = buckets;
    f->now = START;
    steady__table_init(&f->table, f->bytes, buckets);
    random_state = 1;
}

static inline void tear_down(struct fixture *f) { free(f->bytes); }

/* Keys with the same two groups of slots. */
static inline struct steady__hash neighbour(uint64_t tag) {
    return (struct steady__hash){{(uint64_t)1 << 63 | (tag & 7), tag}};
}

static inline struct steady__answer ask(struct fixture *f, struct steady__hash hash, const struct steady__rate *rate,
                                        int64_t amount) {
    struct steady__answer answer = {.ahead = -1};
    struct steady__ask a = {
        .place = steady__table_place(&f->table, hash), .rate = rate, .amount = amount, .now = f->now};
    assert_true(steady__table_decide(&a, &answer));
    return answer;
}

static inline struct steady__answer peek(struct fixture *f, struct steady__hash hash, const struct steady__rate *rate) {
    struct steady__answer answer = {.ahead = -1};
    struct steady__ask a = {.place = steady__table_place(&f->table, hash), .rate = rate, .peek = true, .now = f->now};
    assert_true(steady__table_decide(&a, &answer));
    return answer;
}

static inline void reset(struct fixture *f, struct steady__hash hash) {
    const struct steady__place place = steady__table_place(&f->table, hash);
    steady__table_reset(&place, f->now);
}

/* Takes all slots of the neighbours. */
static inline void fill(struct fixture *f, const struct steady__rate *rate) {
    for (uint64_t tag = 1; tag <= NEIGHBOURS; tag++)
        assert_false(ask(f, neighbour(tag), rate, 1).overflowed);
}

static inline void assert_answers(const struct steady__decision *a, const struct steady__decision *b) {
    assert_int_equal(a->success, b->success);
    assert_int_equal(a->level, b->level);
    assert_int_equal(a->until_next_drop, b->until_next_drop);
    assert_int_equal(a->blocked_for, b->blocked_for);
    assert_int_equal(a->retry_after, b->retry_after);
}

#endif
