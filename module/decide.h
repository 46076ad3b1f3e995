/* SPDX-License-Identifier: MIT
 * A decision on a key of the server: reads the bucket, decides, writes, replicates and notifies. */
#ifndef STEADY__MODULE_DECIDE_H
#define STEADY__MODULE_DECIDE_H

#include "abi.h"
#include "core/bucket.h"

/* Call start once after loading, and stop before unloading. */
void steady__decide_start(void);
void steady__decide_stop(void);

/* Each returns false if the key holds something else than a bucket. Then nothing is decided and the key is unchanged.
 */
bool steady__decide_consume(server_context *context, server_string *name, const struct steady__rate *rate,
                            int64_t amount, struct steady__decision *decision);
bool steady__decide_peek(server_context *context, server_string *name, const struct steady__rate *rate,
                         struct steady__decision *decision);
bool steady__decide_reset(server_context *context, server_string *name, bool *existed);

/* Counters since the module was loaded, as in steady_stats of steady.h. */
struct steady__counters {
    uint64_t decisions, allowed, denied, blocked, not_a_bucket, clock_steps;
};
const struct steady__counters *steady__decide_counters(void);

#endif
