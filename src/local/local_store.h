/* SPDX-License-Identifier: MIT
 * The embedded store: buckets in memory, or in a mapped file. */
#ifndef STEADY__LOCAL_STORE_H
#define STEADY__LOCAL_STORE_H

#include "store.h"

/* path NULL: private to this process. On failure *store is NULL and *why says why. */
int steady__local_open(steady_store **store, const char *path, const steady_store_options *options,
                       steady_message *why);

/* Whether an embedded store is private to this process. */
bool steady__local_is_private(const steady_store *store);

/* Deletes all buckets of a private store. No other thread may be in a call. 0, or STEADY_NO_MEMORY: nothing happened.
 */
int steady__local_clear(steady_store *store);

#endif
