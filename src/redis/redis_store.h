/* SPDX-License-Identifier: MIT
 * The store in Redis or Valkey. */
#ifndef STEADY__REDIS_STORE_H
#define STEADY__REDIS_STORE_H

#include "store.h"

struct steady__net;
struct steady__url;

/* On failure *store is NULL and *why says why. */
int steady__redis_open(steady_store **store, const struct steady__url *url, const steady_store_options *options,
                       steady_message *why);

/* The same over `net`, which outlives the store, instead of the network of the system. The blocking calls do not work
 * on such a store, because their loop is the system's. */
int steady__redis_open_over(steady_store **store, const struct steady__net *net, const struct steady__url *url,
                            const steady_store_options *options, steady_message *why);

#endif
