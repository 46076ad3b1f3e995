/* SPDX-License-Identifier: MIT
 * Hash slots: which one a key is in, and what the servers of a cluster say about who has them. Bytes only. */
#ifndef STEADY__SLOT_MAP_H
#define STEADY__SLOT_MAP_H

#include "reply.h"

#define STEADY__SLOTS 16384
#define STEADY__HOST_MAX 255

/* CRC16 of the key, or of what is in its first {} where there is something. */
uint16_t steady__slot_of(const char *key, size_t len);

struct steady__redirect {
    bool ask; /* this once, after ASKING; otherwise MOVED, for good */
    uint16_t slot;
    uint16_t port;
    /* An IPv6 address without brackets; "": that of the server that says it; "?": a name that it has not been told. */
    char host[STEADY__HOST_MAX + 1];
};

/* False where the error is neither "MOVED slot host:port" nor "ASK slot host:port", down to the last byte. */
bool steady__redirect_read(struct steady__redirect *redirect, const char *error, size_t len);

/* Who has which slot, by number of the node. */
#define STEADY__SLOT_UNKNOWN UINT16_MAX
struct steady__slot_map {
    uint16_t node[STEADY__SLOTS];
};

/* Draws the map that a reply to CLUSTER SLOTS describes. `number` gives a primary its number, by its host (as in a
 * redirect) and port, or STEADY__SLOT_UNKNOWN. False, and the map is of no use: the reply is of another shape, gives a
 * slot to two nodes or a range that ends before it begins, or leaves every slot unknown. */
bool steady__slot_map_draw(struct steady__slot_map *map, const struct steady__reply *reply,
                           uint16_t (*number)(void *arg, const char *host, uint16_t port), void *arg);

/* What is unknown in the map becomes what it was. */
void steady__slot_map_complete(struct steady__slot_map *map, const struct steady__slot_map *before);

#endif
