/* SPDX-License-Identifier: MIT
 * Peeks put to a replica of the server, while there is one, and all else to the server. */
#ifndef STEADY__REPLICA_H
#define STEADY__REPLICA_H

#include "cluster.h"

struct steady__replica;

/* Takes what steady__cluster_open takes, which it calls for all that is no peek. NULL: out of memory. */
struct steady__replica *steady__replica_open(const struct steady__connection_options *options);

extern const struct steady__transport steady__replica_class;

#endif
