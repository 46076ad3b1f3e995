/* SPDX-License-Identifier: MIT
 * The texts that come most often, in bounded memory.
 *
 * Misra-Gries: there are 1024 counters. If a new text finds none free, it and all counters lose one. So each count is
 * too low by at most the number of such losses, which is at most the number of all texts by 1025. */
#include "heavy.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/siphash.h"

enum { HEAVY_SLOTS = 2 * HEAVY_MOST };

struct counter {
    uint64_t hash, n;
    uint16_t len;
    char text[HEAVY_TEXT_MAX];
};

struct heavy {
    unsigned char secret[STEADY__SIPHASH_KEY];
    uint64_t lost;
    size_t n;
    uint16_t slots[HEAVY_SLOTS]; /* the index of a counter, and 1; 0: free */
    struct counter counters[HEAVY_MOST];
};

struct heavy *heavy_new(void) {
    struct heavy *heavy = calloc(1, sizeof *heavy);
    if (heavy != NULL && getrandom(heavy->secret, sizeof heavy->secret, 0) < 0) heavy->secret[0] = 1;
    return heavy;
}

/* The slot of a text, or the free one where it belongs. */
static size_t heavy_slot(const struct heavy *heavy, uint64_t hash, struct rules_text text) {
    size_t slot = (size_t)hash % HEAVY_SLOTS;
    for (; heavy->slots[slot] != 0; slot = (slot + 1) % HEAVY_SLOTS) {
        const struct counter *counter = &heavy->counters[heavy->slots[slot] - 1];
        if (counter->hash == hash && counter->len == text.len && memcmp(counter->text, text.bytes, text.len) == 0)
            break;
    }
    return slot;
}

static void heavy_lose_one(struct heavy *heavy) {
    size_t left = 0;
    heavy->lost++;
    for (size_t i = 0; i < heavy->n; i++)
        if (--heavy->counters[i].n > 0 && left++ != i) heavy->counters[left - 1] = heavy->counters[i];
    if (left == heavy->n) return;
    heavy->n = left;
    memset(heavy->slots, 0, sizeof heavy->slots);
    for (size_t i = 0; i < left; i++) {
        const struct counter *counter = &heavy->counters[i];
        const size_t slot = heavy_slot(heavy, counter->hash, (struct rules_text){counter->text, counter->len});
        heavy->slots[slot] = (uint16_t)(i + 1);
    }
}

void heavy_add(struct heavy *heavy, struct rules_text text) {
    if (text.len > HEAVY_TEXT_MAX) text.len = HEAVY_TEXT_MAX;
    const uint64_t hash = steady__siphash(heavy->secret, text.bytes, text.len).word[0];
    const size_t slot = heavy_slot(heavy, hash, text);
    if (heavy->slots[slot] != 0) {
        heavy->counters[heavy->slots[slot] - 1].n++;
    } else if (heavy->n == HEAVY_MOST) {
        heavy_lose_one(heavy);
    } else {
        struct counter *counter = &heavy->counters[heavy->n++];
        counter->hash = hash;
        counter->n = 1;
        counter->len = (uint16_t)text.len;
        if (text.len > 0) memcpy(counter->text, text.bytes, text.len);
        heavy->slots[slot] = (uint16_t)heavy->n;
    }
}

/* Equal counts are sorted by text. */
static bool heavy_is_before(const struct counter *a, const struct heavy_item *b) {
    if (a->n != b->n) return a->n > b->n;
    const int order = memcmp(a->text, b->text.bytes, a->len < b->text.len ? a->len : b->text.len);
    return order != 0 ? order < 0 : a->len < b->text.len;
}

size_t heavy_list(const struct heavy *heavy, struct heavy_item *items, size_t room, uint64_t *error) {
    size_t n = 0;
    *error = heavy->lost;
    for (size_t i = 0; i < heavy->n; i++) {
        const struct counter *counter = &heavy->counters[i];
        if (n == room && (room == 0 || !heavy_is_before(counter, &items[n - 1]))) continue;
        size_t at = n < room ? n++ : n - 1;
        for (; at > 0 && heavy_is_before(counter, &items[at - 1]); at--)
            items[at] = items[at - 1];
        items[at] = (struct heavy_item){{counter->text, counter->len}, counter->n};
    }
    return n;
}

void heavy_free(struct heavy *heavy) { free(heavy); }
