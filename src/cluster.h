/* SPDX-License-Identifier: MIT
 * A server that may turn out to be a cluster: a link to it, and once it has said so, one to each node that is needed.
 */
#ifndef STEADY__CLUSTER_H
#define STEADY__CLUSTER_H

#include "connection.h"
#include "inflight.h"

struct steady__cluster;

/* Takes what a link takes; the URL is that of the server to begin with. NULL: out of memory. */
struct steady__cluster *steady__cluster_open(const struct steady__connection_options *options);

extern const struct steady__transport steady__cluster_class;

#endif
