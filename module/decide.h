/* SPDX-License-Identifier: MIT
 * A decision on a key of the server: the bucket read, decided, written back, replicated and announced. */
#ifndef STEADY__MODULE_DECIDE_H
#define STEADY__MODULE_DECIDE_H

#include "abi.h"
#include "core/bucket.h"

/* Once after loading, and before unloading. */
void steady__decide_start(void);
void steady__decide_stop(void);

/* Each returns false where the key holds something that is no bucket: it is left alone, and nothing was decided. */
bool steady__decide_consume(server_context *context, server_string *name, const struct steady__rate *rate,
                            int64_t amount, struct steady__decision *decision);
bool steady__decide_peek(server_context *context, server_string *name, const struct steady__rate *rate,
                         struct steady__decision *decision);
bool steady__decide_reset(server_context *context, server_string *name, bool *existed);

/* Since the module was loaded; steady_stats in steady.h says what they count. */
struct steady__counters {
    uint64_t decisions, allowed, denied, blocked, not_a_bucket, clock_steps;
};
const struct steady__counters *steady__decide_counters(void);

#endif
