/* SPDX-License-Identifier: MIT
 * Envoy's rate limit service.
 *
 * All limits of all descriptors are one decision: a request that one limit denies costs nothing of the others. Two
 * descriptors with the same bucket ask it once, for the sum. */
#include "rls.h"

#include <stdlib.h>
#include <string.h>

#include "answer.h"

static const int64_t unit_us[8] = {0,
                                   1000000,
                                   INT64_C(60000000),
                                   INT64_C(3600000000),
                                   INT64_C(86400000000),
                                   30 * INT64_C(86400000000),
                                   365 * INT64_C(86400000000),
                                   7 * INT64_C(86400000000)};

/* Limits of Envoy's own: one descriptor may have one for each unit, and each has a bucket. */
static const char *const own_names[8] = {"",          "envoy-second", "envoy-minute", "envoy-hour",
                                         "envoy-day", "envoy-month",  "envoy-year",   "envoy-week"};

/* What is remembered of a descriptor until the answer is there. */
struct remembered {
    int64_t requests_per_unit;
    int unit;
    const char *name;
    bool has_limit, unlimited, never, shadow;
    uint8_t part_of[RULES_PARTS_MAX]; /* the parts of the question that are its limits */
    uint8_t n_parts;
};

struct rls_call {
    struct exchange *exchange; /* NULL: the client has gone */
    rls_answered answered;
    size_t n;
    struct remembered each[];
};

/* ---- The question ---- */

/* Two parts of one bucket become one. Beside another part, a look asks nothing more. */
static void rls_join(struct question_part *to, const struct question_part *part) {
    if (part->kind == STEADY_LOOK) return;
    if (to->kind == STEADY_LOOK) {
        to->kind = part->kind;
        to->amount = part->amount;
        return;
    }
    to->amount += part->amount;
    if (to->amount > INT32_MAX) to->amount = INT32_MAX;
    if (to->kind != part->kind)
        to->kind = to->amount > 0 ? STEADY_CHARGE : STEADY_TAKE; /* a cost, and what is given back */
}

/* A part that asks the same bucket as an earlier one is added to that. Its index. -1: there is no room. */
static int rls_add_part(struct question *question, struct worker *worker, const struct question_part *part,
                        struct rules_text key) {
    if (question->n_parts == RULES_PARTS_MAX || !answer_add_part(question, worker, part, key)) return -1;
    const size_t last = question->n_parts - 1;
    for (size_t i = 0; i < last; i++) {
        struct question_part *other = &question->parts[i];
        if (other->key_len != question->parts[last].key_len ||
            memcmp(other->key, question->parts[last].key, other->key_len) != 0)
            continue;
        question->n_parts--;
        rls_join(other, part);
        return (int)i;
    }
    return (int)last;
}

static void rls_remember_part(struct remembered *r, int part) {
    if (r->n_parts < RULES_PARTS_MAX) r->part_of[r->n_parts++] = (uint8_t)part;
}

/* How much a descriptor costs, and as what. Of a limit with cost: after, a request of 0 is a look, any other a charge.
 */
static void rls_set_amount(struct question_part *part, const struct rls_request *request,
                           const struct rls_descriptor *d, bool after) {
    const uint64_t hits = d->has_hits ? d->hits : request->hits > 0 ? request->hits : 1;
    part->amount = hits > INT32_MAX ? INT32_MAX : (int64_t)hits;
    if (d->gives_back) {
        part->amount = -part->amount;
        part->kind = STEADY_TAKE;
    } else if (hits == 0 && part->kind != STEADY_SHADOW) {
        part->amount = 1;
        part->kind = STEADY_LOOK;
    } else if (after) {
        part->kind = STEADY_CHARGE;
    }
}

static const char *rls_add_limit(struct question *question, struct worker *worker, const struct rls_request *request,
                                 const struct rls_descriptor *d, const struct rules_request *matched,
                                 struct remembered *r) {
    char key[RULES_KEY_MAX];
    struct ruleset *set = worker->set;
    const struct rules_descriptor *found = rules_find_descriptor(set->rules, matched);
    struct question_part part = {.kind = STEADY_TAKE, .counters = worker->unnamed};
    steady_message why;
    /* As in envoyproxy/ratelimit, an unknown domain has no limit. Without such files, each domain is fine. */
    if (set->rules->n_domains > 0 && !rules_has_domain(set->rules, request->domain)) return NULL;
    if (d->has_limit) { /* of Envoy, instead of that of the file */
        bool exact;
        steady_limit limit = {0};
        r->requests_per_unit = d->requests_per_unit;
        r->unit = d->unit;
        r->has_limit = true;
        r->never = d->requests_per_unit == 0;
        if (r->never) return NULL;
        if (d->unit < 1 || d->unit > 7) return "the unit of a limit is not one of Envoy's";
        rules_requests_per_unit(&limit, d->requests_per_unit, d->unit, &exact);
        part.throttler = throttlers_find(worker->throttlers, &limit, &why);
        if (part.throttler == NULL) return "out of memory";
        part.limit = throttlers_limit(worker->throttlers);
        part.name = own_names[d->unit];
    } else if (found != NULL) {
        r->requests_per_unit = found->requests_per_unit;
        r->unit = found->unit;
        r->name = found->limit_name;
        r->has_limit = !found->unlimited;
        r->unlimited = found->unlimited;
        r->never = found->never;
        r->shadow = found->limit != NULL && found->limit->shadow;
        if (found->limit == NULL || found->never) return NULL; /* unlimited, or always denied */
        part.throttler = set->throttlers[found->limit->index][0];
        part.limit = &found->limit->rates[0];
        part.counters = set->counters[found->limit->index];
        part.name = found->limit->name;
        part.rule = found->limit;
        part.kind = r->shadow ? STEADY_SHADOW : STEADY_TAKE;
    } else {
        return NULL;
    }
    rls_set_amount(&part, request, d, found != NULL && found->limit != NULL && found->limit->cost == RULES_COST_AFTER);
    const size_t len = rules_descriptor_key(key, set->rules, matched);
    const int at = rls_add_part(question, worker, &part, (struct rules_text){key, len});
    if (at < 0) return "more than 64 limits";
    rls_remember_part(r, at);
    return NULL;
}

/* The limits of our own rules that count for a descriptor. */
static const char *rls_add_rules(struct question *question, struct worker *worker, const struct rls_request *request,
                                 const struct rls_descriptor *d, const struct rules_request *matched,
                                 struct remembered *r) {
    struct ruleset *set = worker->set;
    if (rules_match(&worker->match, set->rules, matched) == RULES_REFUSED) return worker->match.reason.text;
    for (size_t i = 0; i < worker->match.n_parts; i++) {
        const struct rules_part *from = &worker->match.parts[i];
        struct question_part part = {.throttler = set->throttlers[from->limit->index][from->rate],
                                     .limit = &from->limit->rates[from->rate],
                                     .rule = from->limit,
                                     .counters = set->counters[from->limit->index],
                                     .name = from->limit->name,
                                     .kind = from->kind};
        rls_set_amount(&part, request, d, from->limit->cost == RULES_COST_AFTER);
        const int at = rls_add_part(question, worker, &part,
                                    (struct rules_text){worker->match.keys + from->key_at, from->key_len});
        if (at < 0) return "more than 64 limits";
        rls_remember_part(r, at);
    }
    return NULL;
}

/* A limit with `replaces` takes the named limits out of the request. */
static bool rls_is_replaced(const struct rules *rules, const struct rls_request *request, const char *name) {
    for (size_t i = 0; name != NULL && i < request->n_descriptors; i++) {
        const struct rls_descriptor *d = &request->descriptors[i];
        const struct rules_request matched = {
            .domain = request->domain, .entries = d->entries, .n_entries = d->n_entries};
        const struct rules_descriptor *found = d->has_limit ? NULL : rules_find_descriptor(rules, &matched);
        for (size_t k = 0; found != NULL && k < found->n_replaces; k++)
            if (strcmp(found->replaces[k], name) == 0) return true;
    }
    return false;
}

static const char *rls_add_descriptor(struct question *question, struct worker *worker,
                                      const struct rls_request *request, const struct rls_descriptor *d,
                                      struct remembered *r) {
    const struct rules_request matched = {.domain = request->domain, .entries = d->entries, .n_entries = d->n_entries};
    const struct rules_descriptor *found = rules_find_descriptor(worker->set->rules, &matched);
    const char *why = NULL;
    if (d->n_entries == 0) return "a descriptor has no entries";
    if (d->has_limit || found == NULL || !rls_is_replaced(worker->set->rules, request, found->limit_name))
        why = rls_add_limit(question, worker, request, d, &matched, r);
    return why != NULL ? why : rls_add_rules(question, worker, request, d, &matched, r);
}

/* ---- The answer ---- */

/* The time until the bucket is empty. */
static steady_us rls_until_empty(const steady_limit *limit, int64_t level) {
    const int64_t drops = limit->drops > 0 ? limit->drops : 1;
    return level > 0 ? (level * limit->drop_recharge + drops - 1) / drops : 0;
}

/* A limit as requests per unit, if it is one of Envoy's units. */
static void rls_name_rate(struct rls_status *status, const struct question_part *part) {
    const int64_t drops = part->limit->drops > 0 ? part->limit->drops : 1;
    for (int unit = 1; unit <= 7; unit++) {
        if (unit_us[unit] % part->limit->drop_recharge != 0) continue;
        status->unit = unit;
        status->requests_per_unit = drops * (unit_us[unit] / part->limit->drop_recharge);
        return;
    }
}

static void rls_add_state(struct rls_status *status, const struct question_part *part, const steady_part_result *r,
                          bool denied) {
    const int64_t room = part->limit->max_capacity - r->level;
    const int64_t remaining = room > 0 && r->blocked_for == 0 ? room : 0;
    const bool over = denied && !r->success && (part->kind == STEADY_TAKE || part->kind == STEADY_LOOK);
    const steady_us until = over ? r->retry_after : rls_until_empty(part->limit, r->level);
    if (!status->has_limit) {
        status->has_limit = true;
        status->name = part->name;
        rls_name_rate(status, part);
        status->remaining = remaining;
        status->until_reset = until;
    } else if (remaining < status->remaining || over) {
        status->remaining = remaining;
        if (until > status->until_reset) status->until_reset = until;
    }
    if (over) status->code = RLS_OVER_LIMIT;
}

static void rls_fill_status(struct rls_status *status, const struct remembered *r, const struct question *question,
                            const steady_result *result) {
    size_t unanswered = 0;
    *status = (struct rls_status){.code = RLS_OK, .remaining = 0};
    for (size_t i = 0; i < r->n_parts && result->parts != NULL; i++) {
        const size_t at = r->part_of[i];
        if (result->parts[at].answered)
            rls_add_state(status, &question->parts[at], &result->parts[at], !result->success);
        else
            unanswered++;
    }
    if (r->n_parts > 0 && unanswered == r->n_parts)
        return; /* another descriptor denies, and nothing is known of this */
    if (r->unlimited) status->remaining = UINT32_MAX;
    if (!r->has_limit) return;
    status->has_limit = true;
    status->name = r->name;
    status->unit = r->unit;
    status->requests_per_unit = r->requests_per_unit;
    if (r->never && !r->shadow) {
        status->code = RLS_OVER_LIMIT;
        status->until_reset = unit_us[r->unit >= 1 && r->unit <= 7 ? r->unit : 1];
    }
}

static void rls_on_answer(void *to, const struct question *question, const steady_result *result) {
    struct rls_call *call = to;
    struct rls_answer answer;
    if (call->exchange != NULL) {
        answer.code = RLS_OK;
        answer.n_statuses = call->n;
        answer.error = result->source == STEADY_FROM_LOCAL ? 0 : result->error;
        for (size_t i = 0; i < call->n; i++) {
            rls_fill_status(&answer.statuses[i], &call->each[i], question, result);
            if (answer.statuses[i].code == RLS_OVER_LIMIT) answer.code = RLS_OVER_LIMIT;
        }
        if (!result->success) answer.code = RLS_OVER_LIMIT;
        call->exchange->call = NULL;
        answer.http = answer_make(call->exchange->client->worker, question, result);
        call->answered(call->exchange, &answer);
    }
    free(call);
}

void rls_forget(struct rls_call *call) { call->exchange = NULL; }

static bool rls_never(const struct rls_call *call) {
    for (size_t i = 0; i < call->n; i++)
        if (call->each[i].never && !call->each[i].shadow) return true;
    return false;
}

const char *rls_ask(struct exchange *exchange, const struct rls_request *request, steady_us deadline,
                    rls_answered answered) {
    struct worker *worker = exchange->client->worker;
    struct question question = {.set = worker->set, .parts = worker->parts};
    const char *why = NULL;
    if (request->domain.len == 0) return "the request has no domain";
    if (request->n_descriptors == 0) return "the request has no descriptors";
    struct rls_call *call = calloc(1, sizeof *call + request->n_descriptors * sizeof call->each[0]);
    if (call == NULL) return "out of memory";
    call->exchange = exchange;
    call->answered = answered;
    call->n = request->n_descriptors;
    for (size_t i = 0; i < call->n && why == NULL; i++)
        why = rls_add_descriptor(&question, worker, request, &request->descriptors[i], &call->each[i]);
    if (why != NULL) {
        free(call);
        return why;
    }
    exchange->call = call;
    /* A limit of 0 denies without a question: so it costs nothing of the others. */
    if (rls_never(call) || question.n_parts == 0) {
        question.n_parts = 0;
        rls_on_answer(call, &question, &(steady_result){.success = !rls_never(call), .source = STEADY_FROM_STORE});
        return NULL;
    }
    question_ask(worker, &question, deadline, rls_on_answer, call, &exchange->waiting);
    return NULL;
}
