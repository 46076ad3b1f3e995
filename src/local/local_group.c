/* SPDX-License-Identifier: MIT
 * A call with a group, on a table of buckets that threads and processes share.
 *
 * ONE MEMBER. The kernel decides, options and all, and one compare-and-swap writes the bucket: the call is atomic.
 *
 * SEVERAL MEMBERS. There is no lock, so the buckets change one by one.
 *
 *     look     Read all buckets, and decide with the kernel. This is the answer of a peek.
 *     denied   Nothing is taken. The members whose bucket the decision would change are asked again, as members of a
 *              denied call: this starts their blocks.
 *     allowed  Take the members that vote, first the one that the look names: it has the least room. Then charge the
 *              members without a vote. Then drain. So all that can deny comes first.
 *     raced    If a member denies now, settle what was taken with 0, and start again with a look. From now on, a denial
 *              starts no block: the call was denied by a race.
 *
 * No call takes from a bucket more than it has room for at that moment. A process that dies in between leaves drops of
 * a call that was never answered; they leak away. So never more is allowed than the limits allow.
 *
 * NO LIVELOCK. Two calls that hold each other's last room would both be denied. So from the second time on, all calls
 * take in one order, that of the hashes of their keys. Let X be the last bucket in this order at which calls are denied
 * for ever. A call that got the room of X has only buckets behind it to take, and is not denied there: it succeeds.
 * Buckets whose look denies end a call, so each repeat needs another call to take room between look and take. To bound
 * the time of a call in any case, the take of the last repeat decides: it has found a bucket without room, too.
 *
 * MOMENTS. What a settlement gives back is what has not leaked since the moment of the take. Each member has its own.
 */
#include "local/local_group.h"

#include "group.h"

/* What has been taken from the bucket of a member. */
struct taken {
    int64_t drops;
    bool overflowed;
};

struct work {
    struct steady__local_site *site;
    const struct steady__call *call;
    struct steady__group *group;
    int64_t now;
    int64_t wait; /* the longest of the takes */
    size_t count; /* of `order` */
    struct steady__place places[STEADY__PARTS_MAX];
    int64_t refused_for[STEADY__PARTS_MAX];
    bool changed[STEADY__PARTS_MAX]; /* by the decision of the look */
    unsigned char order[STEADY__PARTS_MAX];
    struct taken taken[STEADY__PARTS_MAX];
};

static const struct steady__part *local_group_part(const struct work *w, size_t i) {
    return &w->group->members[i].part;
}

static int64_t local_group_now(const struct work *w) { return w->site->clock(w->site->clock_data); }

static void local_group_fill(steady_part_result *result, const struct steady__decision *d, int64_t granted) {
    steady__group_fill(result, d);
    result->granted = granted;
}

static void local_group_ask(struct work *w, size_t i, struct steady__errand *errand, struct steady__answer *answer) {
    struct steady__local_site *site = w->site;
    struct steady__ask ask = {
        .place = w->places[i], .rate = local_group_part(w, i)->rate, .errand = errand, .now = w->now};
    while (!steady__table_decide(&ask, answer)) {
        ask.now = local_group_now(w);
        ask.stepped = ask.now < answer->ahead;
    }
    w->now = ask.now;
    site->grew += answer->grew;
    site->overflowed |= answer->overflowed;
}

/* grant: see steady__group_conclude. */
static void local_group_answer(struct work *w, bool success, int64_t grant, steady_result *result) {
    steady__group_conclude(w->call, success, w->wait, grant, result);
    result->atomic = w->group->n == 1;
}

/* What each member is granted if the call has an at_least; otherwise 0. */
static int64_t local_group_grant(const struct work *w) {
    return w->group->how.at_least > 0 ? w->group->results[0].granted : 0;
}

/* ---- Look ---- */

/* A key that gets no bucket was looked at as if it were blocked. Its numbers are those of a full bucket. */
static void local_group_correct_refused(struct work *w, steady_result *result) {
    bool any = false;
    for (size_t i = 0; i < w->group->n; i++) {
        steady_part_result *r = &w->group->results[i];
        if (w->refused_for[i] == 0) continue;
        any = true;
        r->granted = r->blocked_for = 0;
        r->level = local_group_part(w, i)->rate->capacity;
        r->until_next_drop = w->refused_for[i];
        if (r->retry_after > 0) r->retry_after = w->refused_for[i];
    }
    w->wait = result->must_wait;
    if (any) local_group_answer(w, result->success, result->success ? local_group_grant(w) : 0, result);
}

/* again: a denial starts no block. */
static void local_group_look(struct work *w, bool again, steady_result *result) {
    struct steady__bucket buckets[STEADY__PARTS_MAX];
    struct steady__how *how = &w->group->how;
    const bool peek = how->peek;
    w->now = local_group_now(w);
    for (size_t i = 0; i < w->group->n; i++) {
        struct steady__errand read = {.task = STEADY__READ, .part = local_group_part(w, i)};
        struct steady__answer answer;
        local_group_ask(w, i, &read, &answer);
        buckets[i] = read.bucket;
        w->refused_for[i] = read.refused_for;
    }
    how->peek = peek || again;
    w->site->stepped = steady__group_decide(w->call, buckets, w->now, w->changed, result);
    how->peek = peek;
    result->atomic = false;
    local_group_correct_refused(w, result);
}

/* ---- Denied ---- */

/* The answer of member i, as one of a denied call. */
static bool local_group_deny(struct work *w, size_t i, bool peek) {
    struct steady__how how = w->group->how;
    struct steady__errand deny = {.task = STEADY__DENY, .part = local_group_part(w, i), .how = &how};
    struct steady__answer answer;
    how.peek = peek;
    local_group_ask(w, i, &deny, &answer);
    if (answer.decision.success && !peek) return false;
    local_group_fill(&w->group->results[i], &answer.decision, 0);
    return true;
}

/* A bucket that has got room since the look keeps the numbers of the look, which denied the call. */
static void local_group_start_blocks(struct work *w, steady_result *result) {
    bool any = false;
    for (size_t i = 0; i < w->group->n; i++)
        if (w->changed[i] && w->refused_for[i] == 0) any |= local_group_deny(w, i, false);
    if (any) local_group_answer(w, false, 0, result);
}

/* ---- Allowed ---- */

enum rank { LOOKS, NAMED, TAKES, CHARGES, DRAINS };

static enum rank local_group_rank(const struct work *w, size_t i, size_t named) {
    const struct steady__part *part = local_group_part(w, i);
    if (part->amount < 0) return DRAINS;
    if (part->kind == STEADY__LOOK) return LOOKS;
    if (part->kind != STEADY__TAKE) return CHARGES;
    return i == named ? NAMED : TAKES;
}

static bool local_group_comes_before(const struct work *w, size_t a, size_t b, size_t named) {
    const enum rank rank_a = local_group_rank(w, a, named), rank_b = local_group_rank(w, b, named);
    if (rank_a != rank_b) return rank_a < rank_b;
    return w->places[a].tag < w->places[b].tag;
}

/* The members that are asked, in their order. named: the first to be taken; STEADY__PARTS_MAX: none. */
static void local_group_sort(struct work *w, size_t named) {
    w->count = 0;
    for (size_t i = 0; i < w->group->n; i++) {
        if (local_group_part(w, i)->amount == 0) continue;
        size_t at = w->count++;
        for (; at > 0 && local_group_comes_before(w, i, w->order[at - 1], named); at--)
            w->order[at] = w->order[at - 1];
        w->order[at] = (unsigned char)i;
    }
}

/* Only a shadow may start a block: a member that denies now has lost a race. */
static bool local_group_take(struct work *w, size_t i, int64_t grant) {
    struct steady__part part = *local_group_part(w, i);
    struct steady__rate rate = *part.rate;
    struct steady__errand take = {.task = STEADY__DECIDE, .part = &part, .how = &w->group->how};
    struct steady__answer answer;
    if (part.kind != STEADY__SHADOW) rate.block = 0;
    part.rate = &rate;
    if (grant > 0) part.amount = grant;
    local_group_ask(w, i, &take, &answer);
    local_group_fill(&w->group->results[i], &answer.decision, take.granted);
    w->taken[i] = (struct taken){take.granted, answer.overflowed};
    w->group->members[i].moment = w->now;
    if (take.wait > w->wait) w->wait = take.wait;
    return answer.decision.success;
}

/* Settles what was taken from a member. */
static void local_group_settle(struct work *w, size_t i, int64_t actual) {
    const struct taken *taken = &w->taken[i];
    const struct steady__settlement settlement = {.rate = local_group_part(w, i)->rate,
                                                  .same_rate = true,
                                                  .reserved = taken->drops,
                                                  .moment = w->group->members[i].moment,
                                                  .actual = actual};
    struct steady__errand correct = {
        .task = STEADY__CORRECT, .settlement = &settlement, .own_drops = taken->overflowed};
    struct steady__answer answer;
    if (taken->drops <= actual) return;
    local_group_ask(w, i, &correct, &answer);
    local_group_fill(&w->group->results[i], &answer.decision, actual);
}

/* With at_least, another call may have left less room in one bucket. All members get the smallest grant. */
static int64_t local_group_level_grants(struct work *w, int64_t grant) {
    for (size_t k = 0; k < w->count; k++)
        if (w->taken[w->order[k]].drops < grant) grant = w->taken[w->order[k]].drops;
    for (size_t k = 0; k < w->count; k++)
        local_group_settle(w, w->order[k], grant);
    return grant;
}

/* Returns the member that denies; STEADY__PARTS_MAX: all have allowed the call, and *result is filled. */
static size_t local_group_take_all(struct work *w, steady_result *result) {
    int64_t grant = local_group_grant(w);
    size_t k = 0;
    w->wait = 0;
    for (; k < w->count && local_group_rank(w, w->order[k], STEADY__PARTS_MAX) <= TAKES; k++) {
        if (local_group_take(w, w->order[k], grant)) continue;
        for (size_t back = k; back > 0; back--)
            local_group_settle(w, w->order[back - 1], 0);
        return w->order[k];
    }
    if (grant > 0) grant = local_group_level_grants(w, grant);
    for (; k < w->count; k++)
        local_group_take(w, w->order[k], 0);
    local_group_answer(w, true, grant, result);
    return STEADY__PARTS_MAX;
}

/* ---- Calls ---- */

static void local_group_decide_one(struct work *w, steady_result *result) {
    struct steady__errand decide = {.task = STEADY__DECIDE, .part = local_group_part(w, 0), .how = &w->group->how};
    struct steady__answer answer;
    w->now = local_group_now(w);
    local_group_ask(w, 0, &decide, &answer);
    local_group_fill(&w->group->results[0], &answer.decision, decide.granted);
    w->site->stepped = answer.decision.stepped;
    w->wait = decide.wait;
    w->group->members[0].moment = w->now;
    local_group_answer(w, answer.decision.success || !steady__group_votes(local_group_part(w, 0)), 0, result);
}

static void local_group_decide_several(struct work *w, steady_result *result) {
    for (unsigned times = 0;; times++) {
        local_group_look(w, times > 0, result);
        if (w->group->how.peek) return;
        if (!result->success) {
            local_group_start_blocks(w, result);
            return;
        }
        local_group_sort(w, times == 0 ? result->part : STEADY__PARTS_MAX);
        const size_t denying = local_group_take_all(w, result);
        if (denying == STEADY__PARTS_MAX) return;
        if (times < STEADY__LOCAL_REPEATS) continue;
        for (size_t i = 0; i < w->group->n; i++)
            if (i != denying) local_group_deny(w, i, true);
        local_group_answer(w, false, 0, result);
        return;
    }
}

static void local_group_settle_all(struct work *w, steady_result *result) {
    w->now = local_group_now(w);
    for (size_t i = 0; i < w->group->n; i++) {
        struct steady__errand correct = {.task = STEADY__CORRECT, .settlement = &w->group->members[i].settlement};
        struct steady__answer answer;
        steady_part_result *r = &w->group->results[i];
        local_group_ask(w, i, &correct, &answer);
        local_group_fill(r, &answer.decision, 0);
        r->charged = correct.charged;
        r->given_back = correct.given_back;
        w->group->members[i].moment = w->now;
        w->site->stepped += answer.decision.stepped;
    }
    *result = (steady_result){.source = STEADY_FROM_STORE, .success = true, .atomic = w->group->n == 1};
    steady__group_name(w->call, 0, result);
}

static void local_group_reset_all(struct work *w, steady_result *result) {
    /* cppcheck-suppress ctuuninitvar ; steady__local_group fills what is used */
    for (size_t i = 0; i < w->group->n; i++)
        steady__table_reset(&w->places[i], local_group_now(w));
    steady__group_reset(w->call, result);
    result->atomic = w->group->n == 1;
}

void steady__local_group(struct steady__local_site *site, const struct steady__call *call, steady_result *result) {
    struct work w; /* large: what a call needs of it is filled */
    w.site = site;
    w.call = call;
    w.group = call->group;
    site->stepped = site->grew = 0;
    site->overflowed = false;
    for (size_t i = 0; i < w.group->n; i++) {
        const struct steady__member *member = &w.group->members[i];
        w.places[i] = steady__table_place(site->table, steady__siphash(site->key, member->key, member->key_len));
    }
    if (call->verb == STEADY__RESET_ALL)
        local_group_reset_all(&w, result);
    else if (call->verb == STEADY__SETTLE)
        local_group_settle_all(&w, result);
    else if (w.group->n == 1)
        local_group_decide_one(&w, result);
    else
        local_group_decide_several(&w, result);
}
