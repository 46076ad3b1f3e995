/* SPDX-License-Identifier: MIT
 * What a server's settings do to buckets: asked once, where anybody listens, and nobody minds the question. Bytes
 * only. */
#ifndef STEADY__EVICTION_H
#define STEADY__EVICTION_H

#include "reply.h"

/* Writes the question; `out` has room for 64 bytes. */
size_t steady__eviction_query(char *out);

/* Whether the answer says that the server may evict buckets, and by which policy. */
bool steady__eviction_possible(const struct steady__reply *reply, char *policy, size_t policy_size);

#endif
