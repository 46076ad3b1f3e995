/* SPDX-License-Identifier: MIT
 * The keys with the most decisions. */
#include "top.h"

#include <string.h>

static uint64_t top_mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

static uint64_t top_hash_bytes(uint64_t hash, const char *bytes, size_t len) {
    uint64_t word;
    hash = top_mix(hash, len);
    for (; len >= sizeof word; bytes += sizeof word, len -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = top_mix(hash, word);
    }
    word = 0;
    memcpy(&word, bytes, len);
    return top_mix(hash, word);
}

/* A collision only counts two keys as one, so the hash needs no secret. */
static uint64_t top_hash(const char *limit, struct rules_text key) {
    const uint64_t hash = top_hash_bytes(top_hash_bytes(0, limit, strlen(limit)), key.bytes, key.len);
    return hash != 0 ? hash : 1;
}

/* The index of the entry, or TOP_ENTRIES. */
static size_t top_find(const struct top *top, uint64_t hash) {
    size_t at = hash % TOP_SLOTS;
    while (top->slots[at] != 0 && top->hashes[top->slots[at] - 1] != hash)
        at = (at + 1) % TOP_SLOTS;
    return top->slots[at] != 0 ? top->slots[at] - 1U : TOP_ENTRIES;
}

static void top_index(struct top *top, size_t entry) {
    size_t at = top->hashes[entry] % TOP_SLOTS;
    while (top->slots[at] != 0)
        at = (at + 1) % TOP_SLOTS;
    top->slots[at] = (uint8_t)(entry + 1);
}

/* A new entry, or TOP_ENTRIES if there is no room. */
static size_t top_add(struct top *top, uint64_t hash) {
    while (top->full < TOP_ENTRIES && top->hashes[top->full] != 0)
        top->full++;
    if (top->full == TOP_ENTRIES) return TOP_ENTRIES;
    const size_t at = top->full++;
    top->hashes[at] = hash;
    top->counts[at] = 0;
    top_index(top, at);
    return at;
}

/* A key that finds no place takes n from the count of each other key. `n` is at most the least of them. */
static void top_take_from_all(struct top *top, uint64_t n) {
    top->error += n;
    memset(top->slots, 0, sizeof top->slots);
    top->full = 0;
    for (size_t i = 0; i < TOP_ENTRIES; i++) {
        top->counts[i] -= n;
        if (top->counts[i] == 0)
            top->hashes[i] = 0;
        else
            top_index(top, i);
    }
}

void top_count(struct top *top, const char *limit, struct rules_text key, const struct top_bucket *bucket) {
    const uint64_t hash = top_hash(limit, key);
    size_t at = top_find(top, hash);
    top->total++;
    if (at == TOP_ENTRIES) {
        at = top_add(top, hash);
        if (at == TOP_ENTRIES) {
            top_take_from_all(top, 1);
            return;
        }
        struct top_entry *entry = &top->entries[at];
        const size_t name = strnlen(limit, sizeof entry->limit - 1);
        memcpy(entry->limit, limit, name);
        entry->limit[name] = '\0';
        entry->key_len = key.len;
        memcpy(entry->key, key.bytes, key.len < TOP_KEY_MOST ? key.len : TOP_KEY_MOST);
    }
    top->counts[at]++;
    top->entries[at].bucket = *bucket;
}

static uint64_t top_least(const struct top *top) {
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < TOP_ENTRIES; i++)
        if (top->counts[i] < least) least = top->counts[i];
    return least;
}

void top_merge(struct top *to, const struct top *from) {
    to->total += from->total;
    to->error += from->error;
    for (size_t i = 0; i < TOP_ENTRIES; i++) {
        uint64_t count = from->counts[i];
        if (from->hashes[i] == 0) continue;
        size_t at = top_find(to, from->hashes[i]);
        if (at < TOP_ENTRIES) {
            to->counts[at] += count;
            if (from->entries[i].bucket.at_ms > to->entries[at].bucket.at_ms) to->entries[at] = from->entries[i];
            continue;
        }
        at = top_add(to, from->hashes[i]);
        if (at == TOP_ENTRIES) {
            const uint64_t least = top_least(to), n = least < count ? least : count;
            top_take_from_all(to, n);
            count -= n;
            at = count > 0 ? top_add(to, from->hashes[i]) : TOP_ENTRIES;
            if (at == TOP_ENTRIES) continue;
        }
        to->counts[at] = count;
        to->entries[at] = from->entries[i];
    }
}

/* Entries with equal counts keep one order: that of their hashes. */
static bool top_is_before(const struct top *top, size_t a, size_t b) {
    return top->counts[a] != top->counts[b] ? top->counts[a] > top->counts[b] : top->hashes[a] < top->hashes[b];
}

size_t top_sorted(const struct top *top, size_t sorted[TOP_ENTRIES]) {
    size_t n = 0;
    for (size_t i = 0; i < TOP_ENTRIES; i++) {
        if (top->hashes[i] == 0) continue;
        size_t at = n++;
        for (; at > 0 && top_is_before(top, i, sorted[at - 1]); at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = i;
    }
    return n;
}
