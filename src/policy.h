/* SPDX-License-Identifier: MIT
 * Applies the policy of a throttler (on_error) to an error, and ends each asynchronous call. */
#ifndef STEADY__POLICY_H
#define STEADY__POLICY_H

#include "store.h"

struct steady_throttler {
    steady_store *store;
    struct steady__terms terms;
    struct steady__terms local_terms;
    enum steady_policy on_error;
    atomic_uint holders; /* the user, and each decision in flight */
    size_t prefix_len;
    char prefix[];
};

/* The length of the prefix of its keys, in bytes; 0 if NULL. */
size_t steady__prefix_len(const steady_throttler *throttler);

void steady__throttler_hold(steady_throttler *throttler);
void steady__throttler_release(steady_throttler *throttler);

/* Releases the throttlers of a call, and frees its group. */
void steady__call_release(const struct steady__call *call);

/* Replaces an error in *result by the answer of the policy, if the policy has an answer for this error. */
void steady__policy_apply(const steady_throttler *throttler, const struct steady__call *call, steady_result *result);

/* Ends an asynchronous call: applies the policy, then runs the callback. Call it once for each submit that returned 0,
 * and never inside that submit. The callback may close the store and free the throttler; *call need not outlive it. */
void steady__finish(const struct steady__call *call, const steady_result *result);

#endif
