/* SPDX-License-Identifier: MIT
 * The nodes of a cluster: an array by number, and a hash table by host and port. */
#include "redis/node_table.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NODES_MAX 1024
#define CHAINS (sizeof((struct steady__node_table *)0)->chains / sizeof(struct steady__node_entry *))

void steady__node_table_set_key(struct steady__node_table *nodes, const uint64_t words[2]) {
    memcpy(nodes->key, words, sizeof nodes->key);
}

static uint64_t node_table_hash_of(const struct steady__node_table *nodes, const char *host, uint16_t port) {
    uint64_t words[1 + (STEADY__HOST_MAX + 7) / 8] = {port};
    const size_t len = strlen(host);
    memcpy(words + 1, host, len);
    for (size_t i = 1; i <= (len + 7) / 8; i++)
        words[i] |= 0x2020202020202020;
    return steady__siphash(nodes->key, words, sizeof *words + len).word[0];
}

struct steady__node_entry *steady__node_table_find(const struct steady__node_table *nodes, const char *host,
                                                   uint16_t port) {
    const uint64_t hash = node_table_hash_of(nodes, host, port);
    struct steady__node_entry *one = nodes->chains[hash % CHAINS];
    while (one != NULL && (one->hash != hash || one->port != port || strcasecmp(one->host, host) != 0))
        one = one->next;
    return one;
}

uint16_t steady__node_table_other_with_port(const struct steady__node_table *nodes,
                                            const struct steady__node_entry *but, uint16_t port) {
    uint16_t number = STEADY__SLOT_UNKNOWN;
    for (uint16_t i = 0; i < nodes->count; i++) {
        const struct steady__node_entry *one = nodes->by_number[i];
        if (one == NULL || one == but || one->port != port || one->slots == 0) continue;
        if (number != STEADY__SLOT_UNKNOWN) return STEADY__SLOT_UNKNOWN;
        number = i;
    }
    return number;
}

uint16_t *steady__node_table_others_by_port(const struct steady__node_table *nodes,
                                            const struct steady__node_entry *but) {
    enum { PORTS = UINT16_MAX + 1, SEVERAL = STEADY__SLOT_UNKNOWN - 1 };
    uint16_t *at = malloc(PORTS * sizeof *at);
    if (at == NULL) return NULL;
    memset(at, 0xff, PORTS * sizeof *at);
    for (uint16_t i = 0; i < nodes->count; i++) {
        const struct steady__node_entry *one = nodes->by_number[i];
        if (one == NULL || one == but || one->slots == 0) continue;
        at[one->port] = at[one->port] == STEADY__SLOT_UNKNOWN ? i : SEVERAL;
    }
    for (uint16_t i = 0; i < nodes->count; i++)
        if (nodes->by_number[i] != NULL && at[nodes->by_number[i]->port] == SEVERAL)
            at[nodes->by_number[i]->port] = STEADY__SLOT_UNKNOWN;
    return at;
}

static bool node_table_free_number(struct steady__node_table *nodes, uint16_t *number) {
    while (nodes->vacant < nodes->count && nodes->by_number[nodes->vacant] != NULL)
        nodes->vacant++;
    *number = nodes->vacant;
    if (*number < nodes->count) return true;
    if (nodes->count == NODES_MAX) return false;
    struct steady__node_entry **longer =
        realloc(nodes->by_number, (nodes->count + 1U) * sizeof(struct steady__node_entry *));
    if (longer == NULL) return false;
    nodes->by_number = longer;
    nodes->by_number[nodes->count++] = NULL;
    return true;
}

bool steady__node_table_add(struct steady__node_table *nodes, struct steady__node_entry *entry, const char *host,
                            uint16_t port) {
    uint16_t number;
    if (!node_table_free_number(nodes, &number)) return false;
    const uint64_t hash = node_table_hash_of(nodes, host, port);
    entry->number = number;
    entry->port = port;
    entry->hash = hash;
    entry->next = nodes->chains[hash % CHAINS];
    memcpy(entry->host, host, strlen(host) + 1);
    nodes->by_number[number] = nodes->chains[hash % CHAINS] = entry;
    return true;
}

unsigned steady__node_table_count_slots(struct steady__node_table *nodes, const struct steady__slot_map *map) {
    unsigned unknown = 0;
    for (uint16_t i = 0; i < nodes->count; i++)
        if (nodes->by_number[i] != NULL) nodes->by_number[i]->slots = 0;
    for (unsigned slot = 0; slot < STEADY__SLOTS; slot++)
        if (map->node[slot] != STEADY__SLOT_UNKNOWN)
            nodes->by_number[map->node[slot]]->slots++;
        else
            unknown++;
    return unknown;
}

void steady__node_table_remove(struct steady__node_table *nodes, struct steady__node_entry *entry) {
    struct steady__node_entry **place = &nodes->chains[entry->hash % CHAINS];
    while (*place != entry)
        place = &(*place)->next;
    *place = entry->next;
    nodes->by_number[entry->number] = NULL;
    if (entry->number < nodes->vacant) nodes->vacant = entry->number;
}
