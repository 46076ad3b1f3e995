/* SPDX-License-Identifier: MIT
 * A cluster of six servers: three primaries with a third of the slots each, and a replica of each. */
#ifndef REDIS_CLUSTER_H
#define REDIS_CLUSTER_H

#include "support.h"

#define PRIMARIES 3
#define NODES 6

struct cluster {
    struct server nodes[NODES]; /* the primaries first; that of nodes[3 + i] is nodes[i] */
    char ids[NODES][41];
    int tls_ports[NODES];
    unsigned count;
};

/* Starts the first `count` of them and waits until they agree; options may be NULL. Each gets a TLS port where they
 * hold certificates. */
void cluster_start(struct cluster *cluster, unsigned count, const char *options);
void cluster_stop(struct cluster *cluster);

/* Waits until each server that runs says that the cluster is well. */
void cluster_await(const struct cluster *cluster);

/* The sum of a number out of the INFO of all servers that run. */
long long cluster_stat(const struct cluster *cluster, const char *field);

/* Which of the primaries this slot was given to at the start. */
unsigned cluster_owner(unsigned slot);

/* A tag, as in "{tag}", whose slot that was: a short one that no other call returns, by `number`. */
void cluster_tag(char out[16], unsigned owner, unsigned number);

/* Begins to move a slot, moves its keys, ends it. */
void cluster_migrate_begin(const struct cluster *cluster, unsigned slot, unsigned from, unsigned to);
void cluster_migrate_keys(const struct cluster *cluster, unsigned slot, unsigned from, unsigned to);
void cluster_migrate_end(const struct cluster *cluster, unsigned slot, unsigned to);

#endif
