/* SPDX-License-Identifier: MIT
 * Hash slots of a cluster: the slot of a key, redirects, and the map from slots to nodes. No I/O. */
#ifndef STEADY__SLOT_MAP_H
#define STEADY__SLOT_MAP_H

#include "conn/reply.h"

#define STEADY__SLOTS 16384
#define STEADY__HOST_MAX 255

/* Why a call on several keys is STEADY_UNSUPPORTED on a client of the caller. */
#define STEADY__CROSS_SLOT_TEXT                                                                                        \
    "the keys of a call lie in several slots; put what they have in common into braces, as in {user:42}"

/* CRC16 of the key, or of the text in its first {} if that is not empty. */
uint16_t steady__slot_of(const char *key, size_t len);

struct steady__redirect {
    bool ask; /* ASK: this request only, after ASKING. Otherwise MOVED: from now on */
    uint16_t slot;
    uint16_t port;
    /* An IPv6 address has no brackets. "": the host of the server that sent this; "?": that server does not know it. */
    char host[STEADY__HOST_MAX + 1];
};

/* False unless the error is exactly "MOVED slot host:port" or "ASK slot host:port". */
bool steady__redirect_read(struct steady__redirect *redirect, const char *error, size_t len);

/* The number of the node of each slot. */
#define STEADY__SLOT_UNKNOWN UINT16_MAX
struct steady__slot_map {
    uint16_t node[STEADY__SLOTS];
};

/* Reads a reply to CLUSTER SLOTS. `number` returns the number of a primary by its host (as in a redirect) and port, or
 * STEADY__SLOT_UNKNOWN. False if the reply has another shape, gives a slot to two nodes, has a range that ends before
 * it begins, or leaves every slot unknown; then the map is unusable. */
bool steady__slot_map_draw(struct steady__slot_map *map, const struct steady__reply *reply,
                           uint16_t (*number)(void *arg, const char *host, uint16_t port), void *arg);

/* Fills the unknown slots of the map from the one before it. */
void steady__slot_map_complete(struct steady__slot_map *map, const struct steady__slot_map *before);

#endif
