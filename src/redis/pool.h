/* SPDX-License-Identifier: MIT
 * A Redis store for blocking calls from any thread. */
#ifndef STEADY__POOL_H
#define STEADY__POOL_H

#include "store.h"

struct steady__url;

#define STEADY__POOL_MAX 64

/* connections: 1 to STEADY__POOL_MAX. On failure *store is NULL and *why says why. */
int steady__pool_open(steady_store **store, const struct steady__url *url, uint32_t connections,
                      const steady_store_options *options, steady_message *why);

#endif
