/* SPDX-License-Identifier: MIT
 * The embedded store: buckets in memory, or in a mapped file. */
#ifndef STEADY__LOCAL_STORE_H
#define STEADY__LOCAL_STORE_H

#include "store.h"

/* path NULL: private to this process. On failure *store is NULL and *why says why. */
int steady__local_open(steady_store **store, const char *path, const steady_store_options *options,
                       steady_message *why);

#endif
