/* SPDX-License-Identifier: MIT
 * The keys with the most decisions. */
#include "top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* FNV-1a; a collision only counts two keys as one, so it needs no secret. */
static uint64_t top_hash(const char *limit, struct rules_text key) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *limit != '\0'; limit++)
        hash = (hash ^ (unsigned char)*limit) * UINT64_C(0x100000001b3);
    for (size_t i = 0; i < key.len; i++)
        hash = (hash ^ (unsigned char)key.bytes[i]) * UINT64_C(0x100000001b3);
    return hash != 0 ? hash : 1; /* 0: a free entry */
}

static size_t top_find(const struct top *top, uint64_t hash) {
    size_t i = 0;
    while (i < TOP_ENTRIES && top->hashes[i] != hash)
        i++;
    return i;
}

/* A key that finds no place takes one from the count of each other key. */
static void top_take_from_all(struct top *top, uint64_t n) {
    for (size_t i = 0; i < TOP_ENTRIES; i++) {
        top->entries[i].count = top->entries[i].count > n ? top->entries[i].count - n : 0;
        if (top->entries[i].count == 0) top->hashes[i] = 0;
    }
}

void top_count(struct top *top, const char *limit, struct rules_text key, int64_t level, int64_t capacity,
               steady_us retry_after) {
    const uint64_t hash = top_hash(limit, key);
    size_t at = top_find(top, hash);
    top->total++;
    if (at == TOP_ENTRIES) {
        at = top_find(top, 0);
        if (at == TOP_ENTRIES) {
            top_take_from_all(top, 1);
            return;
        }
        struct top_entry *entry = &top->entries[at];
        top->hashes[at] = hash;
        entry->count = 0;
        snprintf(entry->limit, sizeof entry->limit, "%s", limit);
        entry->key_len = key.len < TOP_KEY_MOST ? key.len : TOP_KEY_MOST;
        memcpy(entry->key, key.bytes, entry->key_len);
    }
    struct top_entry *entry = &top->entries[at];
    entry->count++;
    entry->level = level;
    entry->capacity = capacity;
    entry->retry_after = retry_after;
}

static uint64_t top_least(const struct top *top) {
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < TOP_ENTRIES; i++)
        if (top->entries[i].count < least) least = top->entries[i].count;
    return least;
}

void top_merge(struct top *to, const struct top *from) {
    to->total += from->total;
    for (size_t i = 0; i < TOP_ENTRIES; i++) {
        uint64_t count = from->entries[i].count;
        if (from->hashes[i] == 0) continue;
        size_t at = top_find(to, from->hashes[i]);
        if (at < TOP_ENTRIES) {
            to->entries[at].count += count;
            continue;
        }
        at = top_find(to, 0);
        if (at == TOP_ENTRIES) {
            const uint64_t least = top_least(to), n = least < count ? least : count;
            top_take_from_all(to, n);
            count -= n;
            at = top_find(to, 0);
            if (count == 0 || at == TOP_ENTRIES) continue;
        }
        to->hashes[at] = from->hashes[i];
        to->entries[at] = from->entries[i];
        to->entries[at].count = count;
    }
}

static int top_compare(const void *a, const void *b) {
    const struct top_entry *x = *(const struct top_entry *const *)a, *y = *(const struct top_entry *const *)b;
    return x->count < y->count ? 1 : x->count > y->count ? -1 : strcmp(x->limit, y->limit);
}

size_t top_sorted(const struct top *top, const struct top_entry *sorted[TOP_ENTRIES]) {
    size_t n = 0;
    for (size_t i = 0; i < TOP_ENTRIES; i++)
        if (top->hashes[i] != 0) sorted[n++] = &top->entries[i];
    qsort(sorted, n, sizeof(const struct top_entry *), top_compare);
    return n;
}
