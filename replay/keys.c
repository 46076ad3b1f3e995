/* SPDX-License-Identifier: MIT
 * The buckets of all keys, in bounded memory.
 *
 *     slots      open addressing, linear probing; a slot has 32 bits of the hash and the number of an entry
 *     entries    in chunks, so that they never move
 *     texts      the keys, in blocks of 1 MiB; freed ones are kept in lists by size
 *     denials    in chunks */
#include "keys.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/siphash.h"

enum {
    KEYS_CHUNK = 4096,
    KEYS_BLOCK = 1024 * 1024,
    KEYS_STEP = 16, /* lengths of texts are rounded up to a multiple */
    KEYS_SIZES = RULES_KEY_MAX / KEYS_STEP + 1
};

struct keys {
    struct keys_options options;
    unsigned char secret[STEADY__SIPHASH_KEY];
    size_t memory;
    struct keys_entry **chunks;
    size_t n_chunks;
    uint32_t n, spare; /* spare: a list of free entries, linked by text_at */
    uint64_t *slots;   /* 0: free */
    size_t n_slots, used;
    char **blocks;
    size_t n_blocks, block_used;
    uint32_t spare_texts[KEYS_SIZES]; /* lists of freed texts; the first four bytes have the next one */
    struct keys_denial **denials;
    uint32_t n_denials;
    uint64_t until_sweep; /* so many keys may find no room until the next search for idle ones */
};

/* ---- Memory ---- */

static bool keys_has_room(const struct keys *keys, size_t size) { return keys->memory + size <= keys->options.memory; }

/* Adds a chunk to an array of chunks. */
static void *keys_grow(struct keys *keys, void *chunks, size_t n, size_t size) {
    void **more = NULL;
    void *chunk = malloc(size);
    if (chunk != NULL) more = realloc(*(void ***)chunks, (n + 1) * sizeof *more);
    if (more == NULL) {
        free(chunk);
        return NULL;
    }
    more[n] = chunk;
    *(void ***)chunks = more;
    keys->memory += size + sizeof *more;
    return chunk;
}

static char *keys_text_at(const struct keys *keys, uint32_t at) {
    return keys->blocks[at / (KEYS_BLOCK / KEYS_STEP)] + (size_t)(at % (KEYS_BLOCK / KEYS_STEP)) * KEYS_STEP;
}

/* Where a text begins, in steps. KEYS_NONE: there is no room. */
static uint32_t keys_take_text(struct keys *keys, size_t len) {
    const size_t size = (len + KEYS_STEP - 1) / KEYS_STEP;
    uint32_t at = keys->spare_texts[size];
    if (size == 0) return 0;
    if (at != KEYS_NONE) {
        memcpy(&keys->spare_texts[size], keys_text_at(keys, at), sizeof at);
        return at;
    }
    if (keys->n_blocks == 0 || KEYS_BLOCK / KEYS_STEP - keys->block_used < size) {
        if (!keys_has_room(keys, KEYS_BLOCK) || keys->n_blocks >= UINT32_MAX / (KEYS_BLOCK / KEYS_STEP) - 1)
            return KEYS_NONE;
        if (keys_grow(keys, &keys->blocks, keys->n_blocks, KEYS_BLOCK) == NULL) return KEYS_NONE;
        keys->n_blocks++;
        keys->block_used = 0;
    }
    at = (uint32_t)((keys->n_blocks - 1) * (KEYS_BLOCK / KEYS_STEP) + keys->block_used);
    keys->block_used += size;
    return at;
}

static void keys_give_text(struct keys *keys, uint32_t at, size_t len) {
    const size_t size = (len + KEYS_STEP - 1) / KEYS_STEP;
    if (size == 0) return;
    memcpy(keys_text_at(keys, at), &keys->spare_texts[size], sizeof at);
    keys->spare_texts[size] = at;
}

static uint32_t keys_take_entry(struct keys *keys) {
    const uint32_t id = keys->spare;
    if (id != KEYS_NONE) {
        keys->spare = keys_at(keys, id)->text_at;
        return id;
    }
    if (keys->n % KEYS_CHUNK == 0) {
        const size_t size = KEYS_CHUNK * sizeof(struct keys_entry);
        if (keys->n >= keys->options.n_limits && !keys_has_room(keys, size)) return KEYS_NONE;
        if (keys->n > KEYS_NONE - 2 * KEYS_CHUNK || keys_grow(keys, &keys->chunks, keys->n_chunks, size) == NULL)
            return KEYS_NONE;
        keys->n_chunks++;
    }
    return keys->n++;
}

static void keys_give_entry(struct keys *keys, uint32_t id) {
    struct keys_entry *entry = keys_at(keys, id);
    entry->limit = UINT16_MAX;
    entry->text_at = keys->spare;
    keys->spare = id;
}

/* ---- The table ---- */

static void keys_insert(struct keys *keys, uint64_t hash, uint32_t id) {
    size_t slot = (size_t)hash & (keys->n_slots - 1);
    while (keys->slots[slot] != 0)
        slot = (slot + 1) & (keys->n_slots - 1);
    keys->slots[slot] = (hash & ~(uint64_t)UINT32_MAX) | ((uint64_t)id + 1);
    keys->used++;
}

static void keys_fill(struct keys *keys) {
    memset(keys->slots, 0, keys->n_slots * sizeof *keys->slots);
    keys->used = 0;
    for (uint32_t id = 0; id < keys->n; id++) {
        const struct keys_entry *entry = keys_at(keys, id);
        if (entry->limit != UINT16_MAX && !entry->shared) keys_insert(keys, entry->hash, id);
    }
}

/* False: there is no room for one entry more. */
static bool keys_make_slot(struct keys *keys) {
    if (keys->used < keys->n_slots - keys->n_slots / 4) return true;
    const size_t n = 2 * keys->n_slots, more = n * sizeof *keys->slots;
    if (!keys_has_room(keys, more)) return false; /* for a moment there are both */
    uint64_t *slots = malloc(more);
    if (slots == NULL) return false;
    free(keys->slots);
    keys->slots = slots;
    keys->memory += more / 2;
    keys->n_slots = n;
    keys_fill(keys);
    return true;
}

/* ---- Entries ---- */

struct keys_entry *keys_at(const struct keys *keys, uint32_t id) {
    return &keys->chunks[id / KEYS_CHUNK][id % KEYS_CHUNK];
}

struct rules_text keys_text(const struct keys *keys, const struct keys_entry *entry) {
    if (entry->text_len == 0) return (struct rules_text){"", 0};
    return (struct rules_text){keys_text_at(keys, entry->text_at), entry->text_len};
}

uint32_t keys_end(const struct keys *keys) { return keys->n; }

size_t keys_memory(const struct keys *keys) { return keys->memory; }

static uint64_t keys_hash(const struct keys *keys, size_t limit, struct rules_text key) {
    char bytes[RULES_KEY_MAX + 2];
    bytes[0] = (char)(limit & 0xff);
    bytes[1] = (char)(limit >> 8);
    if (key.len > 0) memcpy(bytes + 2, key.bytes, key.len);
    return steady__siphash(keys->secret, bytes, key.len + 2).word[0];
}

struct keys *keys_new(const struct keys_options *options) {
    struct keys *keys = calloc(1, sizeof *keys);
    if (keys == NULL) return NULL;
    keys->options = *options;
    keys->spare = KEYS_NONE;
    for (size_t i = 0; i < KEYS_SIZES; i++)
        keys->spare_texts[i] = KEYS_NONE;
    if (getrandom(keys->secret, sizeof keys->secret, 0) < 0) keys->secret[0] = 1;
    keys->n_slots = KEYS_CHUNK;
    keys->slots = calloc(keys->n_slots, sizeof *keys->slots);
    keys->memory = keys->n_slots * sizeof *keys->slots;
    bool made = keys->slots != NULL;
    for (size_t i = 0; i < options->n_limits && made; i++) {
        const uint32_t id = keys_take_entry(keys);
        made = id != KEYS_NONE;
        if (made) *keys_at(keys, id) = (struct keys_entry){.limit = (uint16_t)i, .denial = KEYS_NONE, .shared = true};
    }
    if (made) return keys;
    keys_free(keys);
    return NULL;
}

/* Forgets idle keys, so that others find room. It looks at all entries, so it is not done for each key. */
static void keys_sweep(struct keys *keys) {
    uint32_t forgotten = 0;
    for (uint32_t id = 0; id < keys->n; id++) {
        const struct keys_entry *entry = keys_at(keys, id);
        if (entry->limit == UINT16_MAX || entry->shared || entry->pending > 0 || entry->denial != KEYS_NONE) continue;
        if (!keys->options.forget(keys->options.data, entry)) continue;
        keys_give_text(keys, entry->text_at, entry->text_len);
        keys_give_entry(keys, id);
        forgotten++;
    }
    keys_fill(keys);
    keys->until_sweep = forgotten < keys->n / 8 ? keys->n / 8 : 0;
}

static uint32_t keys_make(struct keys *keys, size_t limit, struct rules_text key, uint64_t hash) {
    if (!keys_make_slot(keys)) return KEYS_NONE;
    const uint32_t id = keys_take_entry(keys);
    if (id == KEYS_NONE) return KEYS_NONE;
    struct keys_entry *entry = keys_at(keys, id);
    const uint32_t text = keys_take_text(keys, key.len);
    if (text == KEYS_NONE) {
        keys_give_entry(keys, id);
        return KEYS_NONE;
    }
    *entry = (struct keys_entry){
        .hash = hash, .text_at = text, .text_len = (uint16_t)key.len, .limit = (uint16_t)limit, .denial = KEYS_NONE};
    if (key.len > 0) memcpy(keys_text_at(keys, text), key.bytes, key.len);
    keys_insert(keys, hash, id);
    return id;
}

uint32_t keys_find(struct keys *keys, size_t limit, struct rules_text key, uint64_t *hash) {
    *hash = keys_hash(keys, limit, key);
    for (size_t slot = (size_t)*hash & (keys->n_slots - 1); keys->slots[slot] != 0;
         slot = (slot + 1) & (keys->n_slots - 1)) {
        if ((keys->slots[slot] ^ *hash) >> 32 != 0) continue;
        const uint32_t id = (uint32_t)keys->slots[slot] - 1;
        const struct keys_entry *entry = keys_at(keys, id);
        if (entry->hash == *hash && entry->limit == limit && entry->text_len == key.len &&
            (key.len == 0 || memcmp(keys_text_at(keys, entry->text_at), key.bytes, key.len) == 0))
            return id;
    }
    uint32_t id = keys_make(keys, limit, key, *hash);
    if (id == KEYS_NONE && keys->until_sweep == 0) {
        keys_sweep(keys);
        id = keys_make(keys, limit, key, *hash);
    }
    if (id != KEYS_NONE) return id;
    if (keys->until_sweep > 0) keys->until_sweep--;
    return (uint32_t)limit;
}

struct keys_denial *keys_denial(struct keys *keys, struct keys_entry *entry) {
    if (entry->denial == KEYS_NONE) {
        const uint32_t id = keys->n_denials;
        if (id % KEYS_CHUNK == 0 &&
            keys_grow(keys, &keys->denials, id / KEYS_CHUNK, KEYS_CHUNK * sizeof(struct keys_denial)) == NULL)
            return NULL;
        keys->n_denials++;
        keys->denials[id / KEYS_CHUNK][id % KEYS_CHUNK] =
            (struct keys_denial){.first = INT64_MAX, .last = INT64_MIN, .first_changed = INT64_MAX};
        entry->denial = id;
    }
    return &keys->denials[entry->denial / KEYS_CHUNK][entry->denial % KEYS_CHUNK];
}

void keys_free(struct keys *keys) {
    if (keys == NULL) return;
    for (size_t i = 0; i < keys->n_chunks; i++)
        free(keys->chunks[i]);
    for (size_t i = 0; i < keys->n_blocks; i++)
        free(keys->blocks[i]);
    for (uint32_t i = 0; i < keys->n_denials; i += KEYS_CHUNK)
        free(keys->denials[i / KEYS_CHUNK]);
    free(keys->chunks);
    free(keys->blocks);
    free(keys->denials);
    free(keys->slots);
    free(keys);
}
