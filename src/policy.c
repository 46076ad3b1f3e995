/* SPDX-License-Identifier: MIT
 * Applies the policy of a throttler to an error, and ends each asynchronous call. */
#include "policy.h"

#include <stdlib.h>

#include "reservation.h"

size_t steady__prefix_len(const steady_throttler *t) { return t != NULL ? t->prefix_len : 0; }

void steady__throttler_release(steady_throttler *t) {
    if (atomic_fetch_sub(&t->holders, 1) != 1) return;
    steady__store_release(t->store);
    free(t);
}

void steady__call_release(const struct steady__call *call) {
    struct steady__group *group = call->group;
    if (group == NULL) {
        steady__throttler_release(call->throttler);
        return;
    }
    for (size_t i = 0; i < group->n && !group->borrows; i++)
        steady__throttler_release(group->members[i].throttler);
    steady__reservation_release(group->reservation);
    if (group->borrows) return;
    free(group);
}

static bool policy_has_answer_for(int error) {
    return error == STEADY_UNAVAILABLE || error == STEADY_UNKNOWN || error == STEADY_OVERLOADED ||
           error == STEADY_REFUSED || error == STEADY_SERVER;
}

static bool policy_fits(const struct steady__call *call) {
    const struct steady__group *group = call->group;
    if (group == NULL) return call->verb != STEADY__CONSUME || call->amount <= call->terms->rate.capacity;
    for (size_t i = 0; i < group->n; i++) {
        const struct steady__part *part = &group->members[i].part;
        const int64_t asked = group->how.at_least > 0 ? group->how.at_least : part->amount;
        const bool votes = part->kind == STEADY__TAKE || part->kind == STEADY__LOOK;
        if (votes && asked > part->rate->capacity && group->how.max_wait == 0) return false;
    }
    return true;
}

/* The strictest policy of the throttlers of a call. */
static enum steady_policy policy_of(const struct steady__call *call) {
    static const int strictness[] = {[STEADY_ALLOW] = 0, [STEADY_LOCAL] = 1, [STEADY_REPORT] = 2, [STEADY_DENY] = 3};
    enum steady_policy strictest = call->throttler->on_error;
    for (size_t i = 0; call->group != NULL && i < call->group->n; i++) {
        const enum steady_policy its = call->group->members[i].throttler->on_error;
        if (strictness[its] > strictness[strictest]) strictest = its;
    }
    return strictest;
}

/* Decides in the embedded store, on a share of each limit. */
static void policy_decide_local(const struct steady__call *call, steady_result *result) {
    steady_store *store = atomic_load(&call->throttler->store->local);
    struct steady__call local = *call;
    local.terms = &call->throttler->limits[0].local_terms;
    for (size_t i = 0; call->group != NULL && i < call->group->n; i++)
        call->group->members[i].part.rate = call->group->members[i].local_rate;
    steady__result_clear(result);
    store->class_->decide(store, &local, result);
    result->source = STEADY_FROM_LOCAL;
}

void steady__policy_apply(const struct steady__call *call, steady_result *result) {
    const int error = result->error;
    const bool only_the_store =
        call->verb == STEADY__RESET || call->verb == STEADY__RESET_ALL || call->verb == STEADY__SETTLE;
    if (!policy_has_answer_for(error) || only_the_store) return;
    const enum steady_policy policy = policy_of(call);
    if (policy == STEADY_REPORT) return;
    if (policy == STEADY_LOCAL && atomic_load(&call->throttler->store->local) != NULL) {
        policy_decide_local(call, result);
    } else {
        /* A client can cause an overload by asking much. It must not pass because of that. */
        result->success = policy == STEADY_ALLOW && error != STEADY_OVERLOADED;
        result->source = STEADY_FROM_POLICY;
        if (!result->success) result->retry_after = policy_fits(call) ? STEADY_DENY_RETRY : -1;
    }
    result->error = error;
}

static void policy_complete_group(const struct steady__call *call, steady_result *result) {
    struct steady__group *group = call->group;
    if (result->error != 0) steady__policy_apply(call, result);
    if (call->verb == STEADY__SETTLE) {
        steady__reservation_settled(group->reservation, result->error);
    } else if (group->reservation != NULL && result->success && result->source == STEADY_FROM_STORE) {
        steady__reservation_fill(group->reservation, group);
        result->reservation = group->reservation; /* now the caller holds it */
        group->reservation = NULL;
    }
}

void steady__complete(const struct steady__call *call, steady_result *result) {
    if (call->group == NULL)
        steady__complete_plain(call, result);
    else
        policy_complete_group(call, result);
}

/* The callback may end the life of *call. */
void steady__finish(const struct steady__call *call, steady_result *result) {
    const steady_callback callback = call->callback;
    void *data = call->data;
    if (call->group == NULL) {
        steady_throttler *throttler = call->throttler;
        steady__complete_plain(call, result);
        steady__throttler_release(throttler);
        callback(result, data);
    } else {
        const struct steady__call ended = *call;
        policy_complete_group(&ended, result);
        callback(result, data);
        steady__call_release(&ended); /* result->parts points into the group */
    }
}
