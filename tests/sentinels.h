/* SPDX-License-Identifier: MIT
 * A primary, two replicas and three sentinels that watch over them as the service "main". */
#ifndef SENTINELS_H
#define SENTINELS_H

#include "support.h"

#define SENTINELS 3
#define FLEET_NODES 3

/* The permissions that a client needs: buckets and ROLE on the servers, one command on the sentinels. */
#define NODE_USER "app:sesame"
#define SENTINEL_USER "sentinel_username=probe&sentinel_password=speak"

struct fleet {
    struct server nodes[FLEET_NODES];
    struct server sentinels[SENTINELS];
    char url[256];
};

/* Starts all servers and sentinels, and waits until they agree. They accept clients without a password, too. */
void fleet_start(struct fleet *fleet);
void fleet_stop(struct fleet *fleet);

/* Starts one sentinel, which watches a server. conf: lines of its file. */
void sentinel_start(struct server *sentinel, int port, const char *conf);
void sentinel_restart(struct server *sentinel);

/* The port that a sentinel names for the service; 0: none. */
int sentinel_port(const struct server *sentinel);

/* The node with this port. */
struct server *fleet_node(struct fleet *fleet, int port);

/* Waits until the sentinels agree on a primary that is up and has a replica, so that a failover is possible. */
void fleet_settle(struct fleet *fleet);

#endif
