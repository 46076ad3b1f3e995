/* SPDX-License-Identifier: MIT
 * A primary, two replicas and three sentinels that watch over them as the service "main". */
#ifndef SENTINELS_H
#define SENTINELS_H

#include "support.h"

#define SENTINELS 3
#define FLEET_NODES 3

/* What a client needs: buckets and ROLE at the servers, one question at the sentinels. */
#define NODE_USER "app:sesame"
#define SENTINEL_USER "sentinel_username=probe&sentinel_password=speak"

struct fleet {
    struct server nodes[FLEET_NODES];
    struct server sentinels[SENTINELS];
    char url[256];
};

/* All of it, agreed upon; sentinels and replicas can be asked and reached without a password, too. */
void fleet_start(struct fleet *fleet);
void fleet_stop(struct fleet *fleet);

/* A sentinel alone, watching over a server; `conf`: lines of its file. */
void sentinel_start(struct server *sentinel, int port, const char *conf);
void sentinel_restart(struct server *sentinel);

/* The port that a sentinel gives for the service, 0 where it gives none. */
int sentinel_port(const struct server *sentinel);

/* The node with that port. */
struct server *fleet_node(struct fleet *fleet, int port);

/* Waits until the sentinels agree on a primary that is up and has a replica, so that a failover may take place. */
void fleet_settle(struct fleet *fleet);

#endif
