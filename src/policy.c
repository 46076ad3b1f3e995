/* SPDX-License-Identifier: MIT
 * Applies the policy of a throttler to an error, and ends each asynchronous call. */
#include "policy.h"

#include <stdlib.h>

size_t steady__prefix_len(const steady_throttler *t) { return t != NULL ? t->prefix_len : 0; }

void steady__throttler_hold(steady_throttler *t) { atomic_fetch_add_explicit(&t->holders, 1, memory_order_relaxed); }

void steady__throttler_release(steady_throttler *t) {
    if (atomic_fetch_sub(&t->holders, 1) != 1) return;
    steady__store_release(t->store);
    free(t);
}

void steady__call_release(const struct steady__call *call) {
    if (call->group == NULL) {
        steady__throttler_release(call->throttler);
        return;
    }
    for (size_t i = 0; i < call->group->n; i++)
        steady__throttler_release(call->group->members[i].throttler);
    free(call->group);
}

static bool policy_has_answer_for(int error) {
    return error == STEADY_UNAVAILABLE || error == STEADY_UNKNOWN || error == STEADY_OVERLOADED ||
           error == STEADY_REFUSED || error == STEADY_SERVER;
}

static bool policy_fits(const steady_throttler *t, const struct steady__call *call) {
    return call->verb != STEADY__CONSUME || call->amount <= t->terms.rate.capacity;
}

void steady__policy_apply(const steady_throttler *t, const struct steady__call *call, steady_result *result) {
    const int error = result->error;
    if (t->on_error == STEADY_REPORT || !policy_has_answer_for(error)) return;
    if (call->verb == STEADY__RESET) return; /* only the store can reset that bucket */
    if (t->on_error == STEADY_LOCAL && t->store->local != NULL) {
        struct steady__call local = *call;
        local.terms = &t->local_terms;
        t->store->local->class_->decide(t->store->local, &local, result);
        result->source = STEADY_FROM_LOCAL;
    } else {
        /* A client can cause an overload by asking much. It must not pass because of that. */
        result->success = t->on_error == STEADY_ALLOW && error != STEADY_OVERLOADED;
        result->source = STEADY_FROM_POLICY;
        if (!result->success) result->retry_after = policy_fits(t, call) ? STEADY_DENY_RETRY : -1;
    }
    result->error = error;
}

void steady__finish(const struct steady__call *call, const steady_result *result) {
    const struct steady__call ended = *call;
    steady_result answer = *result;
    steady__policy_apply(ended.throttler, &ended, &answer);
    if (ended.group == NULL) steady__throttler_release(ended.throttler);
    ended.callback(&answer, ended.data);
    if (ended.group != NULL) steady__call_release(&ended); /* answer.parts points into the group */
}
