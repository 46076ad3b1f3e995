/* SPDX-License-Identifier: MIT
 * The nodes of a cluster. Each has a number, and is found by it or by its host and port. */
#ifndef STEADY__NODE_TABLE_H
#define STEADY__NODE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/siphash.h"
#include "redis/slot_map.h"

/* The first member of a node. */
struct steady__node_entry {
    uint16_t number;
    uint16_t port;
    unsigned slots;                  /* how many slots the node serves */
    uint64_t hash;                   /* of host and port */
    struct steady__node_entry *next; /* in the chain of this hash */
    char host[STEADY__HOST_MAX + 1];
};

struct steady__node_table {
    struct steady__node_entry **by_number; /* NULL: removed */
    uint16_t count;
    uint16_t vacant;                        /* no number below it is free */
    struct steady__node_entry *chains[256]; /* by hash, because a map may name a node for each slot */
    unsigned char key[STEADY__SIPHASH_KEY];
};

/* Sets a secret key, so that an attacker cannot name nodes that share a chain. All else is zero at first. */
void steady__node_table_set_key(struct steady__node_table *nodes, const uint64_t words[2]);

/* NULL: none. Hosts that differ in case only are the same. */
struct steady__node_entry *steady__node_table_find(const struct steady__node_table *nodes, const char *host,
                                                   uint16_t port);

/* The number of the only node other than `but` with this port and with slots. STEADY__SLOT_UNKNOWN: none or several. */
uint16_t steady__node_table_other_with_port(const struct steady__node_table *nodes,
                                            const struct steady__node_entry *but, uint16_t port);

/* The same for all ports: an array of 65536 numbers, valid until a slot changes its node. The caller frees it. NULL:
 * out of memory. */
uint16_t *steady__node_table_others_by_port(const struct steady__node_table *nodes,
                                            const struct steady__node_entry *but);

/* Gives the entry the lowest free number. False: out of memory, or of numbers. */
bool steady__node_table_add(struct steady__node_table *nodes, struct steady__node_entry *entry, const char *host,
                            uint16_t port);

/* Counts the slots of each node in the map. Returns how many slots have no node. */
unsigned steady__node_table_count_slots(struct steady__node_table *nodes, const struct steady__slot_map *map);

/* Frees the number. */
void steady__node_table_remove(struct steady__node_table *nodes, struct steady__node_entry *entry);

#endif
