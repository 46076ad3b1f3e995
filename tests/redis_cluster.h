/* SPDX-License-Identifier: MIT
 * A cluster of six servers: three primaries with a third of the slots each, and a replica of each primary. */
#ifndef REDIS_CLUSTER_H
#define REDIS_CLUSTER_H

#include "support.h"

#define PRIMARIES 3
#define NODES 6

struct cluster {
    struct server nodes[NODES]; /* the primaries first; nodes[3 + i] is the replica of nodes[i] */
    char ids[NODES][41];
    int tls_ports[NODES];
    unsigned count; /* of running nodes; 0: the cluster is stopped */
    char options[512];
};

/* The options of the clusters that tests share: nodes that never fail over, and nodes that do so quickly. */
#define PLAIN "--cluster-node-timeout 15000"
#define FAILS_OVER "--cluster-node-timeout 600 --cluster-require-full-coverage no"

/* Starts the first `count` nodes and waits until they agree. options may be NULL. With certificates, each node has a
 * TLS port. */
void cluster_start(struct cluster *cluster, unsigned count, const char *options);
void cluster_stop(struct cluster *cluster);

/* Starts it, unless it runs with this count and these options. */
void cluster_ensure(struct cluster *cluster, unsigned count, const char *options);

/* Waits until each running server reports that the cluster is ok. */
void cluster_await(const struct cluster *cluster);

/* The sum of a number in the INFO of all running servers. */
long long cluster_stat(const struct cluster *cluster, const char *field);

/* The index of the primary that got this slot at the start. */
unsigned cluster_owner(unsigned slot);

/* Makes a hash tag, as in "{tag}", with a slot that this primary had at the start. Each `number` gives another short
 * tag. */
void cluster_tag(char out[16], unsigned owner, unsigned number);

/* Begins to move a slot; moves its keys; ends the move. */
void cluster_migrate_begin(const struct cluster *cluster, unsigned slot, unsigned from, unsigned to);
void cluster_migrate_keys(const struct cluster *cluster, unsigned slot, unsigned from, unsigned to);
void cluster_migrate_end(const struct cluster *cluster, unsigned slot, unsigned to);

#endif
