/* SPDX-License-Identifier: MIT
 * A server that may belong to a cluster. Then each needed node has a connection. */
#ifndef STEADY__CLUSTER_H
#define STEADY__CLUSTER_H

#include "conn/connection.h"
#include "redis/inflight.h"

struct steady__cluster;

/* The URL in the options is that of the seed. NULL: out of memory. */
struct steady__cluster *steady__cluster_open(const struct steady__connection_options *options);

extern const struct steady__transport steady__cluster_class;

#endif
