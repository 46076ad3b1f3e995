/* SPDX-License-Identifier: MIT
 * The roll of a cluster's nodes: each has a number, and is found by it, or by its host and port. */
#ifndef STEADY__NODE_TABLE_H
#define STEADY__NODE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "siphash.h"
#include "slot_map.h"

/* The first thing in what goes by it. */
struct steady__node_entry {
    uint16_t number;
    uint16_t port;
    unsigned slots;                  /* that it has */
    uint64_t hash;                   /* of host and port */
    struct steady__node_entry *next; /* in the chain of this hash */
    char host[STEADY__HOST_MAX + 1];
};

struct steady__node_table {
    struct steady__node_entry **by_number; /* NULL where one was struck off */
    uint16_t count;
    uint16_t vacant;                        /* no lower number is free */
    struct steady__node_entry *chains[256]; /* by hash: a map may name a node for each slot */
    unsigned char key[STEADY__SIPHASH_KEY];
};

/* Secret words, so that nobody can name nodes that share a chain. All else is zero to begin with. */
void steady__node_table_set_key(struct steady__node_table *nodes, const uint64_t words[2]);

/* Hosts that differ in case alone are one. NULL: there is none. */
struct steady__node_entry *steady__node_table_find(const struct steady__node_table *nodes, const char *host,
                                                   uint16_t port);

/* The number of the only one at this port that has slots, beside this one. STEADY__SLOT_UNKNOWN: there is none, or
 * more. */
uint16_t steady__node_table_other_at(const struct steady__node_table *nodes, const struct steady__node_entry *but,
                                     uint16_t port);

/* The same by port, for as long as nobody's slots change: an array of 65536, to be freed. NULL: out of memory. */
uint16_t *steady__node_table_others_at(const struct steady__node_table *nodes, const struct steady__node_entry *but);

/* Under the lowest number that nobody has. False: out of memory, or of numbers. */
bool steady__node_table_add(struct steady__node_table *nodes, struct steady__node_entry *entry, const char *host,
                            uint16_t port);

/* Counts the slots of each by this map. How many nobody has. */
unsigned steady__node_table_count_slots(struct steady__node_table *nodes, const struct steady__slot_map *map);

/* Its number is free again. */
void steady__node_table_remove(struct steady__node_table *nodes, struct steady__node_entry *entry);

#endif
