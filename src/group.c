/* SPDX-License-Identifier: MIT
 * A call on several buckets, or on one with options. */
#include "group.h"

#include <stdlib.h>
#include <string.h>

#include "policy.h"

/* One block of memory: the group, its members, their results, and their keys. */
static size_t group_size(size_t n, size_t key_bytes) {
    return sizeof(struct steady__group) +
           n * (sizeof(struct steady__member) + sizeof(steady_part_result) + sizeof(struct steady__key)) + key_bytes;
}

static struct steady__group *group_lay_out(struct steady__group *group, size_t n) {
    group->members = (struct steady__member *)(group + 1);
    group->results = (steady_part_result *)(group->members + n);
    group->keys = (struct steady__key *)(group->results + n);
    group->keys_end = (char *)(group->keys + n);
    return group;
}

struct steady__group *steady__group_new(size_t n, size_t key_bytes) {
    struct steady__group *group = calloc(1, group_size(n, key_bytes));
    return group != NULL ? group_lay_out(group, n) : NULL;
}

struct steady__group *steady__group_borrow(struct steady__group_room *room, size_t n, size_t key_bytes) {
    if (group_size(n, key_bytes) > sizeof room->bytes) return NULL;
    room->group = (struct steady__group){.borrows = true};
    return group_lay_out(&room->group, n);
}

struct steady__member *steady__group_add(struct steady__group *group, steady_throttler *throttler,
                                         const struct steady__terms *terms, const char *key, size_t key_len) {
    group->keys[group->n] = (struct steady__key){group->keys_end, key_len, steady__prefix_len(throttler)};
    struct steady__member *member = &group->members[group->n++];
    *member = (struct steady__member){
        .part.rate = &terms->rate, .terms = terms, .throttler = throttler, .key = group->keys_end, .key_len = key_len};
    if (key != group->keys_end) memcpy(group->keys_end, key, key_len);
    group->keys_end += key_len;
    return member;
}

void steady__group_name(const struct steady__call *call, size_t part, steady_result *result) {
    const struct steady__group *group = call->group;
    const steady_part_result *named = &group->results[part];
    result->part = part;
    result->n_parts = group->n;
    result->parts = group->results;
    result->granted = named->granted;
    result->level = named->level;
    result->until_next_drop = named->until_next_drop;
    result->blocked_for = named->blocked_for;
}

bool steady__group_votes(const struct steady__part *part) {
    return part->kind == STEADY__TAKE || part->kind == STEADY__LOOK;
}

void steady__group_conclude(const struct steady__call *call, bool success, int64_t wait, int64_t grant,
                            steady_result *result) {
    struct steady__part parts[STEADY__PARTS_MAX];
    struct steady__part_decision each[STEADY__PARTS_MAX];
    const struct steady__group *group = call->group;
    for (size_t i = 0; i < group->n; i++) {
        const steady_part_result *r = &group->results[i];
        parts[i] = group->members[i].part;
        each[i].bucket.success = r->success;
        each[i].bucket.level = r->level;
        each[i].bucket.retry_after = r->retry_after;
    }
    const size_t named = steady__parts_name(parts, group->n, success, each, grant);
    *result = (steady_result){.source = STEADY_FROM_STORE,
                              .success = success,
                              .must_wait = success ? wait : 0,
                              .retry_after = success ? 0 : group->results[named].retry_after};
    steady__group_name(call, named, result);
}

void steady__group_fill(steady_part_result *result, const struct steady__decision *d) {
    result->success = d->success;
    result->answered = true;
    result->level = d->level;
    result->until_next_drop = d->until_next_drop;
    result->blocked_for = d->blocked_for;
    result->retry_after = d->retry_after;
}

void steady__group_answer(const struct steady__call *call, size_t part, enum steady_source source,
                          const struct steady__decision *decision, steady_result *result) {
    result->source = source;
    result->success = decision->success;
    result->atomic = true;
    result->level = decision->level;
    result->until_next_drop = decision->until_next_drop;
    result->blocked_for = decision->blocked_for;
    result->retry_after = decision->retry_after;
    if (call->group == NULL) return;
    call->group->results[part].granted = decision->success ? call->group->members[part].part.amount : 0;
    steady__group_fill(&call->group->results[part], decision);
    steady__group_name(call, part, result);
}

static unsigned group_settle(struct steady__group *group, struct steady__bucket *buckets, int64_t now, bool *changed) {
    unsigned stepped = 0;
    for (size_t i = 0; i < group->n; i++) {
        struct steady__settled settled;
        steady__settle(&group->members[i].settlement, now, &buckets[i], &settled);
        steady__group_fill(&group->results[i], &settled.bucket);
        group->members[i].moment = now;
        group->results[i].charged = settled.charged;
        group->results[i].given_back = settled.given_back;
        stepped += settled.bucket.stepped;
        if (changed != NULL) changed[i] = settled.bucket.changed;
    }
    return stepped;
}

static unsigned group_consume(struct steady__group *group, struct steady__bucket *buckets, int64_t now, bool *changed,
                              struct steady__verdict *verdict) {
    struct steady__part parts[STEADY__PARTS_MAX];
    struct steady__part_decision each[STEADY__PARTS_MAX];
    unsigned stepped = 0;
    for (size_t i = 0; i < group->n; i++)
        parts[i] = group->members[i].part;
    steady__parts_decide(parts, group->n, &group->how, now, buckets, each, verdict);
    for (size_t i = 0; i < group->n; i++) {
        steady__group_fill(&group->results[i], &each[i].bucket);
        group->members[i].moment = now;
        group->results[i].granted = each[i].granted;
        stepped += each[i].bucket.stepped;
        if (changed != NULL) changed[i] = each[i].bucket.changed;
    }
    return stepped;
}

unsigned steady__group_decide(const struct steady__call *call, struct steady__bucket *buckets, int64_t now,
                              bool *changed, steady_result *result) {
    struct steady__verdict verdict = {.success = true};
    const unsigned stepped = call->verb == STEADY__SETTLE ? group_settle(call->group, buckets, now, changed)
                                                          : group_consume(call->group, buckets, now, changed, &verdict);
    *result = (steady_result){.source = STEADY_FROM_STORE,
                              .success = verdict.success,
                              .atomic = true,
                              .must_wait = verdict.wait,
                              .retry_after = verdict.retry_after};
    steady__group_name(call, verdict.part, result);
    return stepped;
}

void steady__group_reset(const struct steady__call *call, steady_result *result) {
    static const struct steady__bucket empty;
    for (size_t i = 0; i < call->group->n; i++) {
        struct steady__decision d;
        steady__bucket_peek(&empty, call->group->members[i].part.rate, 0, &d);
        steady__group_fill(&call->group->results[i], &d);
    }
    *result = (steady_result){.source = STEADY_FROM_STORE, .success = true, .atomic = true};
    steady__group_name(call, 0, result);
}

bool steady__gives_back(const struct steady__call *call) {
    if (call->verb == STEADY__RESET || call->verb == STEADY__RESET_ALL || call->verb == STEADY__SETTLE) return true;
    if (call->group == NULL) return call->amount < 0;
    for (size_t i = 0; i < call->group->n; i++)
        if (call->group->members[i].part.amount < 0) return true;
    return false;
}
