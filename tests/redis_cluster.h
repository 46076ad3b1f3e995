/* SPDX-License-Identifier: MIT
 * A cluster of six servers: three primaries with a third of the slots each, and a replica of each. */
#ifndef REDIS_CLUSTER_H
#define REDIS_CLUSTER_H

#include "support.h"

#define PRIMARIES 3
#define NODES 6
#define NODE_TIMEOUT_MS 600

struct cluster {
    struct server nodes[NODES]; /* the primaries first; that of nodes[3 + i] is nodes[i] */
    char ids[NODES][41];
    unsigned count;
};

/* Starts the first `count` of them and waits until they agree; options may be NULL. */
void cluster_start(struct cluster *cluster, unsigned count, const char *options);
void cluster_stop(struct cluster *cluster);

/* Waits until each server that runs says that the cluster is well, and has heard of every one's slots. */
void cluster_await(const struct cluster *cluster);

/* Which slot this key is in, as the servers have it, and which primary that is with. */
unsigned cluster_slot(const struct cluster *cluster, const char *key);
unsigned cluster_owner(const struct cluster *cluster, unsigned slot);

/* Begins to move a slot, moves its keys, ends it. */
void cluster_migrate_begin(const struct cluster *cluster, unsigned slot, unsigned from, unsigned to);
void cluster_migrate_keys(const struct cluster *cluster, unsigned slot, unsigned from, unsigned to);
void cluster_migrate_end(const struct cluster *cluster, unsigned slot, unsigned to);

#endif
