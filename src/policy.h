/* SPDX-License-Identifier: MIT
 * Applies the policy of a throttler (on_error) to an error, and ends each asynchronous call. */
#ifndef STEADY__POLICY_H
#define STEADY__POLICY_H

#include "core/limit.h"
#include "store.h"

struct steady__throttler_limit {
    struct steady__terms terms;
    struct steady__terms local_terms; /* a share of the limit, for STEADY_LOCAL */
    char name[STEADY__NAME_MAX + 1];
};

struct steady_throttler {
    steady_store *store;
    enum steady_policy on_error;
    bool clamp;
    steady_us max_ahead; /* 0: no bound */
    atomic_uint holders; /* the user, and each decision in flight */
    size_t prefix_len;
    char *prefix; /* behind the limits */
    size_t n_limits;
    struct steady__throttler_limit limits[];
};

/* The length of the prefix of its keys, in bytes; 0 if NULL. */
size_t steady__prefix_len(const steady_throttler *throttler);

static inline void steady__throttler_hold(steady_throttler *throttler) {
    atomic_fetch_add_explicit(&throttler->holders, 1, memory_order_relaxed);
}
void steady__throttler_release(steady_throttler *throttler);

/* Releases the throttlers of a call, and frees its group. */
void steady__call_release(const struct steady__call *call);

/* Replaces an error in *result by the answer of the policy, if the policy has an answer for this error. */
void steady__policy_apply(const struct steady__call *call, steady_result *result);

/* Completes the result of a store: the policy, the fields that every store fills alike, and the reservation. */
void steady__complete(const struct steady__call *call, steady_result *result);

/* The same for a call on one bucket without options. */
static inline void steady__complete_plain(const struct steady__call *call, steady_result *result) {
    if (result->error != 0) steady__policy_apply(call, result);
    if (result->source == STEADY_FROM_POLICY || result->source == STEADY_FROM_NOWHERE) return;
    result->atomic = true;
    result->n_parts = 1;
    result->granted = call->verb == STEADY__CONSUME && result->success ? call->amount : 0;
}

/* Ends an asynchronous call: completes *result, then runs the callback with it. Call it once for each submit that
 * returned 0, and never inside that submit. The callback may close the store and free the throttler; *call need not
 * outlive it. */
void steady__finish(const struct steady__call *call, steady_result *result);

#endif
