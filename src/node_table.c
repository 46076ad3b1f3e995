/* SPDX-License-Identifier: MIT
 * A table of nodes, and chains of those whose addresses share a hash. */
#include "node_table.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NODES_MAX 1024
#define CHAINS (sizeof((struct steady__roll *)0)->chains / sizeof(struct steady__entry *))

void steady__roll_key(struct steady__roll *roll, const uint64_t words[2]) {
    memcpy(roll->key, words, sizeof roll->key);
}

static uint64_t hash_of(const struct steady__roll *roll, const char *host, uint16_t port) {
    uint64_t words[1 + (STEADY__HOST_MAX + 7) / 8] = {port};
    const size_t len = strlen(host);
    memcpy(words + 1, host, len);
    for (size_t i = 1; i <= (len + 7) / 8; i++)
        words[i] |= 0x2020202020202020;
    return steady__siphash(roll->key, words, sizeof *words + len).word[0];
}

struct steady__entry *steady__roll_find(const struct steady__roll *roll, const char *host, uint16_t port) {
    const uint64_t hash = hash_of(roll, host, port);
    struct steady__entry *one = roll->chains[hash % CHAINS];
    while (one != NULL && (one->hash != hash || one->port != port || strcasecmp(one->host, host) != 0))
        one = one->next;
    return one;
}

uint16_t steady__roll_other_at(const struct steady__roll *roll, const struct steady__entry *but, uint16_t port) {
    uint16_t number = STEADY__SLOT_UNKNOWN;
    for (uint16_t i = 0; i < roll->count; i++) {
        const struct steady__entry *one = roll->by_number[i];
        if (one == NULL || one == but || one->port != port || one->slots == 0) continue;
        if (number != STEADY__SLOT_UNKNOWN) return STEADY__SLOT_UNKNOWN;
        number = i;
    }
    return number;
}

uint16_t *steady__roll_others_at(const struct steady__roll *roll, const struct steady__entry *but) {
    enum { PORTS = UINT16_MAX + 1, SEVERAL = STEADY__SLOT_UNKNOWN - 1 };
    uint16_t *at = malloc(PORTS * sizeof *at);
    if (at == NULL) return NULL;
    memset(at, 0xff, PORTS * sizeof *at);
    for (uint16_t i = 0; i < roll->count; i++) {
        const struct steady__entry *one = roll->by_number[i];
        if (one == NULL || one == but || one->slots == 0) continue;
        at[one->port] = at[one->port] == STEADY__SLOT_UNKNOWN ? i : SEVERAL;
    }
    for (uint16_t i = 0; i < roll->count; i++)
        if (roll->by_number[i] != NULL && at[roll->by_number[i]->port] == SEVERAL)
            at[roll->by_number[i]->port] = STEADY__SLOT_UNKNOWN;
    return at;
}

static bool free_number(struct steady__roll *roll, uint16_t *number) {
    while (roll->vacant < roll->count && roll->by_number[roll->vacant] != NULL)
        roll->vacant++;
    *number = roll->vacant;
    if (*number < roll->count) return true;
    if (roll->count == NODES_MAX) return false;
    struct steady__entry **longer = realloc(roll->by_number, (roll->count + 1U) * sizeof(struct steady__entry *));
    if (longer == NULL) return false;
    roll->by_number = longer;
    roll->by_number[roll->count++] = NULL;
    return true;
}

bool steady__roll_add(struct steady__roll *roll, struct steady__entry *entry, const char *host, uint16_t port) {
    uint16_t number;
    if (!free_number(roll, &number)) return false;
    const uint64_t hash = hash_of(roll, host, port);
    entry->number = number;
    entry->port = port;
    entry->hash = hash;
    entry->next = roll->chains[hash % CHAINS];
    memcpy(entry->host, host, strlen(host) + 1);
    roll->by_number[number] = roll->chains[hash % CHAINS] = entry;
    return true;
}

unsigned steady__roll_count(struct steady__roll *roll, const struct steady__slot_map *map) {
    unsigned unknown = 0;
    for (uint16_t i = 0; i < roll->count; i++)
        if (roll->by_number[i] != NULL) roll->by_number[i]->slots = 0;
    for (unsigned slot = 0; slot < STEADY__SLOTS; slot++)
        if (map->node[slot] != STEADY__SLOT_UNKNOWN)
            roll->by_number[map->node[slot]]->slots++;
        else
            unknown++;
    return unknown;
}

void steady__roll_strike(struct steady__roll *roll, struct steady__entry *entry) {
    struct steady__entry **place = &roll->chains[entry->hash % CHAINS];
    while (*place != entry)
        place = &(*place)->next;
    *place = entry->next;
    roll->by_number[entry->number] = NULL;
    if (entry->number < roll->vacant) roll->vacant = entry->number;
}
