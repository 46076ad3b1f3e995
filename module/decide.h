/* SPDX-License-Identifier: MIT
 * A decision on keys of the server: reads the bucket, decides, writes, replicates and notifies. */
#ifndef STEADY__MODULE_DECIDE_H
#define STEADY__MODULE_DECIDE_H

#include "abi.h"
#include "core/parts.h"

/* Call start once after loading, and stop before unloading. */
void steady__decide_start(void);
void steady__decide_stop(void);

/* Each returns false if a key holds something else than a bucket. Then nothing is decided and all keys are unchanged.
 */
bool steady__decide_consume(server_context *context, server_string *name, const struct steady__rate *rate,
                            int64_t amount, struct steady__decision *decision);
bool steady__decide_peek(server_context *context, server_string *name, const struct steady__rate *rate,
                         struct steady__decision *decision);

/* The key of parts[i] is names[i]. There are 1 to STEADY__PARTS_MAX keys, and all differ. *now gets the time of the
 * decision. */
bool steady__decide_parts(server_context *context, server_string **names, const struct steady__part *parts, size_t n,
                          const struct steady__how *how, struct steady__part_decision *each,
                          struct steady__verdict *verdict, int64_t *now);
bool steady__decide_settle(server_context *context, server_string **names, const struct steady__settlement *settlements,
                           size_t n, struct steady__settled *settled, int64_t *now);

/* Adds the number of keys that existed to *existed. */
bool steady__decide_reset(server_context *context, server_string **names, size_t n, size_t *existed);

/* Counters since the module was loaded, as in steady_stats of steady.h. A decision on several keys counts once. */
struct steady__counters {
    uint64_t decisions, allowed, denied, blocked, not_a_bucket, clock_steps;
};
const struct steady__counters *steady__decide_counters(void);

#endif
