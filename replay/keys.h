/* SPDX-License-Identifier: MIT
 * The buckets of all keys, in bounded memory.
 *
 * An entry is found by limit and key, through a keyed hash. If there is no room for another one, entries of idle keys
 * are forgotten. If there is none to forget, all new keys of a limit share one entry. */
#ifndef STEADY_REPLAY_KEYS_H
#define STEADY_REPLAY_KEYS_H

#include "needed.h"
#include "rules/rules.h"

#define KEYS_NONE UINT32_MAX
#define KEYS_OVER UINT32_MAX /* `highest`: no capacity is enough */

struct keys_entry {
    uint64_t hash;               /* of limit and key */
    int64_t last, blocked_until; /* of the bucket, with level and rem */
    struct needed needed;        /* of the bucket without a capacity */
    uint32_t level, rem;
    uint32_t highest; /* drops: the highest level without a capacity */
    uint32_t requests;
    uint32_t pending; /* events that wait for their turn; such an entry is not forgotten */
    uint32_t denial;  /* KEYS_NONE: never denied */
    uint32_t text_at;
    uint16_t text_len;
    uint16_t limit; /* UINT16_MAX: the entry is free */
    uint8_t rate;   /* of the last request, for a limit with tiers */
    uint8_t wrote;  /* the rate that wrote the bucket */
    bool shared;    /* by keys that found no room */
};

/* What only keys have that were denied, or whose verdicts changed. */
struct keys_denial {
    int64_t first, last, first_changed; /* us since 1970 */
    uint32_t denied, against, changed;
};

struct keys_options {
    size_t memory;   /* bytes */
    size_t n_limits; /* below UINT16_MAX */
    /* Whether an entry without a denial may be forgotten. If so, it is forgotten then. */
    bool (*forget)(void *data, const struct keys_entry *entry);
    void *data;
};

struct keys;

/* NULL: out of memory. */
struct keys *keys_new(const struct keys_options *options);

/* The entry of a key, perhaps a new one. key.len is at most RULES_KEY_MAX. *hash: of limit and key, also if the entry
 * is shared. */
uint32_t keys_find(struct keys *keys, size_t limit, struct rules_text key, uint64_t *hash);

struct keys_entry *keys_at(const struct keys *keys, uint32_t id);
struct rules_text keys_text(const struct keys *keys, const struct keys_entry *entry);

/* All entries have numbers below this. */
uint32_t keys_end(const struct keys *keys);

/* The denial of an entry. It is made if there is none: NULL if there is no memory. */
struct keys_denial *keys_denial(struct keys *keys, struct keys_entry *entry);

size_t keys_memory(const struct keys *keys);

void keys_free(struct keys *keys);

#endif
