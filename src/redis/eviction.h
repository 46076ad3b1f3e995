/* SPDX-License-Identifier: MIT
 * Whether the settings of a server may evict buckets. This file encodes the query and reads the reply. It does no I/O.
 */
#ifndef STEADY__EVICTION_H
#define STEADY__EVICTION_H

#include "conn/reply.h"

/* Writes the query; `out` has room for 64 bytes. */
size_t steady__eviction_query(char *out);

/* Whether the reply says that the server may evict buckets. `policy` gets the name of the maxmemory-policy. */
bool steady__eviction_possible(const struct steady__reply *reply, char *policy, size_t policy_size);

#endif
