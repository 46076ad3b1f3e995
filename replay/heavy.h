/* SPDX-License-Identifier: MIT
 * The texts that come most often, in bounded memory: Misra-Gries. */
#ifndef STEADY_REPLAY_HEAVY_H
#define STEADY_REPLAY_HEAVY_H

#include "rules/rules.h"

enum { HEAVY_MOST = 1024, HEAVY_TEXT_MAX = 192 };

struct heavy;

struct heavy_item {
    struct rules_text text; /* cut to HEAVY_TEXT_MAX bytes */
    uint64_t n;
};

/* NULL: out of memory. */
struct heavy *heavy_new(void);
void heavy_add(struct heavy *heavy, struct rules_text text);

/* The most frequent first. Returns how many. *error: each true count is at most so much higher; 0: they are exact. */
size_t heavy_list(const struct heavy *heavy, struct heavy_item *items, size_t room, uint64_t *error);

void heavy_free(struct heavy *heavy);

#endif
