/* SPDX-License-Identifier: MIT
 * The keys with the most decisions, in bounded memory (Misra and Gries, 1982).
 *
 * A table has TOP_ENTRIES keys. A key with more than 1/(TOP_ENTRIES + 1) of all that was counted is in it. `count` is
 * too low by at most that share, and never too high. */
#ifndef STEADY_SERVER_TOP_H
#define STEADY_SERVER_TOP_H

#include "rules/rules.h"

enum { TOP_ENTRIES = 128, TOP_KEY_MOST = 80 };

struct top_entry {
    uint64_t count;
    char limit[65];
    char key[TOP_KEY_MOST]; /* cut off if it is longer */
    size_t key_len;
    int64_t level; /* after the last decision */
    int64_t capacity;
    steady_us retry_after;
};

struct top {
    uint64_t hashes[TOP_ENTRIES]; /* of the keys; apart, because all are looked at */
    struct top_entry entries[TOP_ENTRIES];
    uint64_t total; /* that was counted */
};

void top_count(struct top *top, const char *limit, struct rules_text key, int64_t level, int64_t capacity,
               steady_us retry_after);

/* Adds the keys of `from` to `to`; the error of the sum is that of both. */
void top_merge(struct top *to, const struct top *from);

/* The entries by their counts, the largest first. Returns how many there are. */
size_t top_sorted(const struct top *top, const struct top_entry *sorted[TOP_ENTRIES]);

#endif
