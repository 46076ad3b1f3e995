/* SPDX-License-Identifier: MIT
 * Sends peeks to a replica of the server, and everything else to the server. */
#ifndef STEADY__REPLICA_H
#define STEADY__REPLICA_H

#include "redis/cluster.h"

struct steady__replica;

/* The options are those of steady__cluster_open, which serves everything but peeks. NULL: out of memory. */
struct steady__replica *steady__replica_open(const struct steady__connection_options *options);

extern const struct steady__transport steady__replica_class;

#endif
