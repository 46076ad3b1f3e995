/* SPDX-License-Identifier: MIT
 * The keys with the most decisions, in bounded memory (Misra and Gries, 1982).
 *
 * A table has TOP_ENTRIES keys. A key with more than 1/(TOP_ENTRIES + 1) of all that was counted is in it. A count is
 * too low by at most that share, and never too high. */
#ifndef STEADY_SERVER_TOP_H
#define STEADY_SERVER_TOP_H

#include "rules/rules.h"

enum { TOP_ENTRIES = 128, TOP_SLOTS = 512, TOP_KEY_MOST = 128 };

/* The bucket of a key after its last decision. */
struct top_bucket {
    int64_t level, capacity;
    steady_us recharge; /* `drops` leak in this time */
    int64_t drops;
    steady_us retry_after; /* of a denied decision; negative: never */
    bool blocked;          /* retry_after is the rest of a block */
    uint64_t at_ms;        /* when: of uv_now */
};

struct top_entry {
    char limit[65];
    char key[TOP_KEY_MOST]; /* the first bytes of it */
    size_t key_len;         /* of the whole key */
    struct top_bucket bucket;
};

struct top {
    uint64_t hashes[TOP_ENTRIES]; /* of the keys; 0: a free entry */
    uint64_t counts[TOP_ENTRIES];
    struct top_entry entries[TOP_ENTRIES];
    uint64_t total;           /* that was counted */
    uint64_t error;           /* by so much a count may be too low; at most total / (TOP_ENTRIES + 1) */
    uint8_t slots[TOP_SLOTS]; /* finds an entry by its hash: its index + 1, or 0; with linear probing */
    size_t full;              /* the first entries that are all in use */
};

void top_count(struct top *top, const char *limit, struct rules_text key, const struct top_bucket *bucket);

/* Adds the keys of `from` to `to`. The bound of the error stays. */
void top_merge(struct top *to, const struct top *from);

/* The indices of the entries by their counts, the largest first. Returns how many there are. */
size_t top_sorted(const struct top *top, size_t sorted[TOP_ENTRIES]);

#endif
