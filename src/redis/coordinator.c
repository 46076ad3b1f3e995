/* SPDX-License-Identifier: MIT
 * The coordinator of a call whose keys lie in several slots of a cluster.
 *
 * No script can reach several slots, so the call is made in rounds. A round has one branch for each slot, and its
 * branches are in flight at once. The next round starts when all of them are answered.
 *
 *     LOOK       a peek of all members. It is the answer of a peek
 *     BLOCK      the look denied: the members that deny, and whose limit has a block, start it
 *     FIRST      the look allowed: the member with the least room is taken, with the others of its slot
 *     TAKE       the rest is taken: takes, charges and shadows
 *     EQUALIZE   of a call with an at_least: what exceeds the smallest grant is settled
 *     DRAIN      drops are taken out, now that nothing can deny
 *     ALONE      the only round of a settle and of a reset
 *
 * In FIRST and TAKE another call may have taken the room meanwhile. Then the call is denied, or it fails. What is known
 * to be taken is then given back, beside the round that is in flight:
 *
 *     GIVE_BACK  a settle with the cost 0
 *
 * FIRST is what keeps the others served. A caller over its own limit that asks 64 times at once sees room for one drop
 * 64 times. It takes from its own bucket first, so 63 calls end there, and take nothing from a bucket that is shared.
 *
 * BLOCKS. A member that denies in FIRST or TAKE has lost a race. So takes are sent without a block duration.
 *
 * NEVER MORE. No branch takes more than its bucket has room for. A branch without an answer may have taken its drops:
 * they are not given back. A settle is sent once. It is sent only on the session that took the drops, or where that
 * session redirects it: after a failover the bucket may lack them, and a settle would take out the drops of others.
 *
 * DEADLINE. All rounds have the deadline of the call. A settle has a deadline of its own, and outlives the call: then
 * its `coordinator` is NULL.
 *
 * TRYAGAIN. While a slot is moved, its keys may be on two nodes. Then each key of the branch is asked alone, in this
 * round and in all later ones.
 *
 * A coordinator acts inside steady__coordinator_branch_ended, from the loop. Sending runs no callback. */
#include "redis/coordinator.h"

#include <stdlib.h>
#include <string.h>

#include "group.h"
#include "redis/slot_map.h"

enum round { LOOK, BLOCK, FIRST, TAKE, EQUALIZE, DRAIN, ALONE, GIVE_BACK, END };

struct state {
    unsigned char bundle; /* members with one number are asked together */
    bool asked;           /* in this round */
    bool taken;           /* in FIRST or TAKE */
    int64_t drops;        /* that were taken; 0 once they are given back */
    int64_t wait;         /* the wait of its last branch */
    uint64_t session;     /* which took the drops */
};

struct steady__coordinator {
    const struct steady__coordinator_owner *owner_class;
    void *owner;
    struct steady__request *parent;
    const struct steady__call *call;
    struct steady__group *group;  /* of the call */
    struct steady__list branches; /* in flight */
    enum round round;
    bool idle; /* all amounts are 0 */
    bool denied;
    bool answered; /* a branch of ALONE has an answer */
    bool unsure;   /* drops that were taken are not known to be given back */
    int error;     /* the gravest */
    size_t first;  /* the member that is taken first */
    int64_t grant; /* with at_least: the smallest so far */
    struct state states[];
};

#define BRANCH(list) STEADY__OWNER(struct steady__branch, place, list)

static bool coordinator_decides(const struct steady__coordinator *c) { return steady__verb_decides(c->call->verb); }

static bool coordinator_failed(const struct steady__coordinator *c) { return c->denied || c->error != 0; }

static const struct steady__part *coordinator_part(const struct steady__coordinator *c, size_t i) {
    return &c->group->members[i].part;
}

/* All of these mean that nothing was charged, but the first. */
static void coordinator_note_error(struct steady__coordinator *c, int error) {
    static const int gravest_first[] = {STEADY_UNKNOWN,     STEADY_NOT_A_BUCKET, STEADY_SERVER,     STEADY_REFUSED,
                                        STEADY_UNSUPPORTED, STEADY_NO_MEMORY,    STEADY_OVERLOADED, STEADY_UNAVAILABLE};
    for (size_t i = 0; i < sizeof gravest_first / sizeof gravest_first[0] && c->error != gravest_first[i]; i++)
        if (error == gravest_first[i]) c->error = error;
    if (c->error == 0) c->error = error;
}

/* ---- Branches ---- */

static bool coordinator_settles(enum round round) { return round == GIVE_BACK || round == EQUALIZE; }

static enum steady__verb coordinator_verb(const struct steady__coordinator *c, enum round round) {
    if (round == LOOK) return STEADY__PEEK_ALL;
    if (coordinator_settles(round)) return STEADY__SETTLE;
    return round == ALONE ? c->call->verb : STEADY__CONSUME_ALL;
}

/* Fills in what the branch asks of its member k. */
static void coordinator_fill_member(struct steady__coordinator *c, struct steady__branch *branch, size_t k) {
    const enum round round = (enum round)branch->round;
    const size_t i = branch->at[k];
    const struct steady__member *from = &c->group->members[i];
    struct steady__member *to =
        steady__group_add(branch->call.group, from->throttler, from->terms, from->key, from->key_len);
    branch->rates[k] = *from->part.rate;
    to->part = from->part;
    to->part.rate = &branch->rates[k];
    to->settlement = from->settlement;
    to->settlement.rate = &branch->rates[k];
    if (round == FIRST || round == TAKE) {
        if (from->part.kind == STEADY__TAKE) branch->rates[k].block = 0;
        if (c->group->how.at_least > 0) to->part.amount = c->grant;
    } else if (coordinator_settles(round)) {
        to->settlement = (struct steady__settlement){.rate = &branch->rates[k],
                                                     .same_rate = true,
                                                     .reserved = c->states[i].drops,
                                                     .moment = from->moment,
                                                     .actual = round == EQUALIZE ? c->grant : 0};
        branch->session = c->states[i].session;
        c->states[i].drops = 0;
    }
    c->states[i].asked = true;
}

static struct steady__branch *coordinator_new_branch(struct steady__coordinator *c, enum round round, size_t n) {
    struct steady__branch *branch = calloc(1, sizeof *branch + n * sizeof branch->rates[0]);
    if (branch == NULL) return NULL;
    steady__list_init(&branch->place);
    branch->coordinator = c;
    branch->round = (unsigned char)round;
    return branch;
}

void steady__coordinator_drop_branch(struct steady__branch *branch) {
    steady__list_remove(&branch->place);
    free(branch->call.group);
    free(branch);
}

/* False: out of memory. */
static bool coordinator_send_branch(struct steady__coordinator *c, enum round round, const unsigned char *at,
                                    size_t n) {
    size_t key_bytes = 0;
    struct steady__branch *branch = coordinator_new_branch(c, round, n);
    for (size_t k = 0; k < n; k++)
        key_bytes += c->group->members[at[k]].key_len;
    struct steady__group *group = branch != NULL ? steady__group_new(n, key_bytes) : NULL;
    if (group == NULL) {
        free(branch);
        return false;
    }
    memcpy(branch->at, at, n);
    branch->call.group = group;
    for (size_t k = 0; k < n; k++)
        coordinator_fill_member(c, branch, k);
    group->how = c->group->how;
    group->how.peek = round == LOOK;
    branch->call.verb = coordinator_verb(c, round);
    branch->call.key = group->members[0].key;
    branch->call.key_len = group->members[0].key_len;
    branch->call.terms = group->members[0].terms;
    branch->call.throttler = group->members[0].throttler;
    steady__list_append(&c->branches, &branch->place);
    if (c->owner_class->send(c->owner, coordinator_settles(round) ? NULL : c->parent, branch)) return true;
    steady__coordinator_drop_branch(branch);
    return false;
}

/* ---- Rounds ---- */

/* Whether asking a member that denies starts its block. */
static bool coordinator_starts_block(const struct steady__coordinator *c, size_t i) {
    const struct steady__part *part = coordinator_part(c, i);
    const steady_part_result *r = &c->group->results[i];
    const int64_t asked = c->group->how.at_least > 0 ? c->group->how.at_least : part->amount;
    if (part->kind != STEADY__TAKE && part->kind != STEADY__SHADOW) return false;
    return c->group->how.max_wait == 0 && part->rate->block != 0 && asked <= part->rate->capacity &&
           r->retry_after != 0 && r->blocked_for == 0;
}

static bool coordinator_wants(const struct steady__coordinator *c, enum round round, size_t i) {
    const struct state *state = &c->states[i];
    const int64_t amount = coordinator_part(c, i)->amount;
    switch (round) {
    case BLOCK: return !state->asked && amount > 0 && coordinator_starts_block(c, i);
    case FIRST: return !state->asked && amount > 0 && state->bundle == c->states[c->first].bundle;
    case TAKE: return !state->asked && amount > 0 && !state->taken;
    case EQUALIZE: return state->drops > c->grant;
    case DRAIN: return !state->asked && amount < 0;
    case GIVE_BACK: return state->drops > 0;
    default: return !state->asked;
    }
}

/* If a slot has only looks, the LOOK round was their vote. */
static bool coordinator_takes_any(const struct steady__coordinator *c, const unsigned char *at, size_t n) {
    for (size_t k = 0; k < n; k++)
        if (coordinator_part(c, at[k])->kind != STEADY__LOOK) return true;
    return false;
}

static bool coordinator_may_give_back_together(const struct steady__coordinator *c, size_t a, size_t b) {
    return c->states[a].session == c->states[b].session;
}

/* The members that are asked together with member `from`. */
static size_t coordinator_collect(const struct steady__coordinator *c, enum round round, size_t from,
                                  unsigned char at[STEADY__PARTS_MAX]) {
    size_t n = 0;
    for (size_t i = from; i < c->group->n; i++) {
        if (c->states[i].bundle != c->states[from].bundle || !coordinator_wants(c, round, i)) continue;
        if (coordinator_settles(round) && !coordinator_may_give_back_together(c, from, i)) continue;
        at[n++] = (unsigned char)i;
    }
    return n;
}

static void coordinator_not_sent(struct steady__coordinator *c, enum round round, const unsigned char *at, size_t n) {
    c->owner_class->no_memory(c->owner);
    for (size_t k = 0; k < n; k++) {
        c->states[at[k]].asked = true;
        if (coordinator_settles(round)) c->states[at[k]].drops = 0;
    }
    if (round == GIVE_BACK)
        c->unsure = true;
    else if (round != BLOCK && round != EQUALIZE)
        coordinator_note_error(c, STEADY_NO_MEMORY);
}

static void coordinator_send(struct steady__coordinator *c, enum round round) {
    for (size_t i = 0; i < c->group->n; i++) {
        unsigned char at[STEADY__PARTS_MAX];
        if (!coordinator_wants(c, round, i)) continue;
        const size_t n = coordinator_collect(c, round, i, at);
        if ((round == FIRST || round == TAKE) && !coordinator_takes_any(c, at, n)) continue;
        if (!coordinator_send_branch(c, round, at, n)) coordinator_not_sent(c, round, at, n);
    }
}

static void coordinator_give_back_if_failed(struct steady__coordinator *c) {
    if (coordinator_failed(c)) coordinator_send(c, GIVE_BACK);
}

/* Of the members that can deny and are taken, the one with the least room. group->n: there is none. */
static size_t coordinator_choose_first(const struct steady__coordinator *c) {
    struct steady__part parts[STEADY__PARTS_MAX];
    struct steady__part_decision each[STEADY__PARTS_MAX];
    bool any = false;
    for (size_t i = 0; i < c->group->n; i++) {
        parts[i] = *coordinator_part(c, i);
        if (parts[i].kind != STEADY__TAKE) parts[i].amount = 0; /* it does not count */
        any = any || parts[i].amount > 0;
        each[i].bucket.level = c->group->results[i].level;
    }
    return any ? steady__parts_name(parts, c->group->n, true, each, c->group->how.at_least > 0 ? c->grant : 0)
               : c->group->n;
}

static enum round coordinator_round_after_take(struct steady__coordinator *c) {
    if (c->group->how.at_least == 0) return DRAIN;
    for (size_t i = 0; i < c->group->n; i++)
        if (c->states[i].drops < c->grant) c->grant = c->states[i].drops;
    return EQUALIZE;
}

static enum round coordinator_next_round(struct steady__coordinator *c) {
    switch (c->round) {
    case LOOK:
        if (c->call->verb == STEADY__PEEK_ALL) return END;
        if (c->denied) return BLOCK;
        if (c->error != 0) return END;
        c->first = coordinator_choose_first(c);
        return c->first < c->group->n ? FIRST : TAKE;
    case FIRST: return coordinator_failed(c) ? END : TAKE;
    case TAKE: return coordinator_failed(c) ? END : coordinator_round_after_take(c);
    default: return END;
    }
}

/* ---- The result ---- */

static void coordinator_conclude(struct steady__coordinator *c, steady_result *result) {
    struct steady__group *group = c->group;
    const int64_t grant = group->how.at_least > 0 ? c->grant : 0;
    int64_t wait = 0;
    if (!c->denied && c->error != 0) {
        const bool charged = c->unsure || (c->call->verb == STEADY__SETTLE && c->answered);
        *result = (steady_result){.error = charged ? STEADY_UNKNOWN : c->error};
        return;
    }
    for (size_t i = 0; i < group->n; i++) {
        if (c->denied)
            group->results[i].granted = 0;
        else if (grant > 0)
            group->results[i].granted = grant;
        if (c->states[i].wait > wait) wait = c->states[i].wait;
    }
    if (coordinator_decides(c)) {
        steady__group_conclude(c->call, !c->denied, wait, c->denied ? 0 : grant, result);
    } else {
        *result = (steady_result){.source = STEADY_FROM_STORE, .success = true};
        steady__group_name(c->call, 0, result);
    }
}

/* Starts rounds until one has a branch in flight, or the call has ended. */
static void coordinator_go_on(struct steady__coordinator *c) {
    while (steady__list_empty(&c->branches)) {
        steady_result result;
        const enum round next = coordinator_next_round(c);
        if (next == END) {
            coordinator_conclude(c, &result);
            c->owner_class->end(c->owner, c->parent, &result);
            return;
        }
        c->round = next;
        for (size_t i = 0; i < c->group->n; i++)
            c->states[i].asked = false;
        coordinator_send(c, next);
        coordinator_give_back_if_failed(c);
    }
}

/* ---- Answers ---- */

/* The numbers of a bucket, but not what it said of the call. */
static void coordinator_copy_numbers(steady_part_result *to, const steady_part_result *from) {
    to->answered = true;
    to->level = from->level;
    to->until_next_drop = from->until_next_drop;
    to->blocked_for = from->blocked_for;
}

static void coordinator_copy(struct steady__coordinator *c, const struct steady__branch *branch, size_t k) {
    steady_part_result *to = &c->group->results[branch->at[k]];
    const steady_part_result *from = &branch->call.group->results[k];
    coordinator_copy_numbers(to, from);
    to->success = from->success;
    to->retry_after = from->retry_after;
    to->granted = from->granted;
    to->given_back = from->given_back;
    to->charged = from->charged;
    c->group->members[branch->at[k]].moment = branch->call.group->members[k].moment;
}

static void coordinator_note_taken(struct steady__coordinator *c, const struct steady__branch *branch, size_t k) {
    struct state *state = &c->states[branch->at[k]];
    state->taken = true;
    state->drops = branch->call.group->results[k].granted;
    state->session = branch->session;
    c->group->members[branch->at[k]].moment = branch->call.group->members[k].moment;
}

/* In a branch whose amounts are all 0, a blocked bucket denies. In the call it has no vote if another amount is not 0.
 */
static void coordinator_looked(struct steady__coordinator *c, const struct steady__branch *branch, size_t k) {
    const size_t i = branch->at[k];
    steady_part_result *r = &c->group->results[i];
    coordinator_copy(c, branch, k);
    if (!c->idle && coordinator_part(c, i)->amount == 0) {
        r->success = true;
        r->retry_after = 0;
    }
    if (!r->success && steady__group_votes(coordinator_part(c, i)))
        c->denied = true;
    else if (c->group->how.at_least > 0 && r->granted > 0 && r->granted < c->grant)
        c->grant = r->granted;
}

/* A bucket that has got room since the look keeps the numbers of the look, which denied the call. */
static void coordinator_asked_for_block(struct steady__coordinator *c, const struct steady__branch *branch, size_t k) {
    if (branch->call.group->results[k].success)
        coordinator_note_taken(c, branch, k);
    else
        coordinator_copy(c, branch, k);
}

static void coordinator_answered(struct steady__coordinator *c, const struct steady__branch *branch,
                                 const steady_result *result) {
    const enum round round = (enum round)branch->round;
    if ((round == FIRST || round == TAKE) && !result->success) c->denied = true;
    for (size_t k = 0; k < branch->call.group->n; k++) {
        const size_t i = branch->at[k];
        if (coordinator_settles(round)) {
            coordinator_copy_numbers(&c->group->results[i], &branch->call.group->results[k]);
        } else if (round == BLOCK) {
            coordinator_asked_for_block(c, branch, k);
        } else if (round == LOOK) {
            coordinator_looked(c, branch, k);
            c->states[i].wait = result->must_wait;
        } else {
            coordinator_copy(c, branch, k);
            if ((round == FIRST || round == TAKE) && result->success) coordinator_note_taken(c, branch, k);
            if (round != DRAIN) c->states[i].wait = result->must_wait;
        }
    }
    c->answered = c->answered || round == ALONE;
    c->unsure = c->unsure || round == DRAIN; /* nothing puts these drops back in */
}

/* A look charges nothing, so its loss is no doubt. */
static void coordinator_branch_failed(struct steady__coordinator *c, const struct steady__branch *branch, int error) {
    switch ((enum round)branch->round) {
    case BLOCK:
    case EQUALIZE: break;
    case GIVE_BACK: c->unsure = true; break;
    case LOOK:
        if (error == STEADY_UNKNOWN && c->call->verb != STEADY__PEEK_ALL) error = STEADY_UNAVAILABLE;
        coordinator_note_error(c, error);
        break;
    default: coordinator_note_error(c, error);
    }
}

/* From now on each key of this slot is asked alone. In FIRST the other keys wait for TAKE. */
static void coordinator_split(struct steady__coordinator *c, const struct steady__branch *branch) {
    const unsigned char bundle = c->states[branch->at[0]].bundle;
    for (size_t i = 0; i < c->group->n; i++)
        if (c->states[i].bundle == bundle) c->states[i].bundle = (unsigned char)i;
    for (size_t k = 0; k < branch->call.group->n; k++) {
        struct state *state = &c->states[branch->at[k]];
        state->asked = false;
        if (coordinator_settles((enum round)branch->round))
            state->drops = branch->call.group->members[k].settlement.reserved;
    }
    coordinator_send(c, (enum round)branch->round);
}

void steady__coordinator_branch_ended(struct steady__branch *branch, const steady_result *result) {
    struct steady__coordinator *c = branch->coordinator;
    steady__list_remove(&branch->place);
    if (c == NULL) {
        steady__coordinator_drop_branch(branch);
        return;
    }
    if (result->error == 0)
        coordinator_answered(c, branch, result);
    else if (result->error != STEADY__TRY_AGAIN)
        coordinator_branch_failed(c, branch, result->error);
    else if (branch->call.group->n > 1)
        coordinator_split(c, branch);
    else
        coordinator_branch_failed(c, branch, STEADY_UNAVAILABLE);
    steady__coordinator_drop_branch(branch);
    coordinator_give_back_if_failed(c);
    coordinator_go_on(c);
}

/* ---- Start and end ---- */

static unsigned char coordinator_bundle_of(const struct steady__group *group, size_t i) {
    const uint16_t slot = steady__slot_of(group->keys[i].text, group->keys[i].len);
    for (size_t k = 0; k < i; k++)
        if (steady__slot_of(group->keys[k].text, group->keys[k].len) == slot) return (unsigned char)k;
    return (unsigned char)i;
}

struct steady__coordinator *steady__coordinator_new(const struct steady__coordinator_owner *owner_class, void *owner,
                                                    struct steady__request *parent, const struct steady__call *call,
                                                    bool one_by_one) {
    const size_t n = call->group->n;
    struct steady__coordinator *c = calloc(1, sizeof *c + n * sizeof c->states[0]);
    if (c == NULL) return NULL;
    c->owner_class = owner_class;
    c->owner = owner;
    c->parent = parent;
    c->call = call;
    c->group = call->group;
    c->grant = INT64_MAX;
    c->idle = true;
    steady__list_init(&c->branches);
    for (size_t i = 0; i < n; i++) {
        c->idle = c->idle && coordinator_part(c, i)->amount == 0;
        c->states[i].bundle = one_by_one ? (unsigned char)i : coordinator_bundle_of(c->group, i);
    }
    return c;
}

bool steady__coordinator_start(struct steady__coordinator *c) {
    c->round = coordinator_decides(c) ? LOOK : ALONE;
    coordinator_send(c, c->round);
    return !steady__list_empty(&c->branches);
}

/* Branches that give drops back go on without the coordinator. */
static void coordinator_let_go(struct steady__coordinator *c, bool held) {
    struct steady__list *next;
    for (struct steady__list *place = c->branches.next; place != &c->branches; place = next) {
        struct steady__branch *branch = BRANCH(place);
        next = place->next;
        steady__list_remove(place);
        if (coordinator_settles((enum round)branch->round)) {
            branch->coordinator = NULL;
            if (branch->round == GIVE_BACK) c->unsure = true;
        } else {
            coordinator_branch_failed(c, branch, c->owner_class->take_back(c->owner, branch, held));
            steady__coordinator_drop_branch(branch);
        }
    }
}

void steady__coordinator_stop(struct steady__coordinator *c, bool held, steady_result *result) {
    coordinator_let_go(c, held);
    coordinator_give_back_if_failed(c);
    coordinator_let_go(c, held);
    coordinator_conclude(c, result);
}

void steady__coordinator_free(struct steady__coordinator *c) {
    if (c != NULL) coordinator_let_go(c, false);
    free(c);
}
