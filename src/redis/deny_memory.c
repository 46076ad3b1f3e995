/* SPDX-License-Identifier: MIT
 * The memory of denials as a store uses it.
 *
 * SEVERAL BUCKETS. One bucket that is certain to deny is enough to deny a call. It must have a vote. If the server
 * would start the block of another bucket of the call, the server is asked: each bucket that could start a block must
 * be known to be blocked. */
#include "redis/deny_memory.h"

#include <stdio.h>

#include "core/parts.h"
#include "group.h"

#define VALID STEADY_SECOND /* by default */

/* ---- Opening ---- */

/* For how long a store believes a reply; 0: it has no memory. */
static steady_us deny_memory_valid(const struct steady__url *url, const steady_store_options *options) {
    if (url->deny_memory != 0) return url->deny_memory > 0 ? url->deny_memory : 0;
    if (options->deny_memory_off) return 0;
    return options->deny_memory > 0 ? options->deny_memory : VALID;
}

/* The scope names the server, however its URL is written: with or without TLS, user and options. */
int steady__deny_memory_open(struct steady__deny_memory *memory, struct steady__denials *denials,
                             const struct steady__url *url, const steady_store_options *options) {
    char server[STEADY__URL_MAX + STEADY__SENTINELS_MAX * 8];
    *memory = (struct steady__deny_memory){.valid = deny_memory_valid(url, options)};
    if (memory->valid == 0) return 0;
    int len = snprintf(server, sizeof server, "%s:%u %s %s %lu", url->host, url->port, url->path, url->service,
                       (unsigned long)url->db);
    for (unsigned i = 0; i < url->n_sentinels && len < (int)sizeof server; i++)
        len += snprintf(server + len, sizeof server - (size_t)len, " %s:%u", url->sentinels[i].host,
                        url->sentinels[i].port);
    if (len > (int)sizeof server - 1) len = (int)sizeof server - 1;
    memory->denials = denials != NULL ? steady__denials_hold_again(denials) : steady__denials_hold();
    if (memory->denials == NULL) return STEADY_NO_MEMORY;
    memory->scope = steady__denials_scope(memory->denials, server, (size_t)len);
    return 0;
}

void steady__deny_memory_close(struct steady__deny_memory *memory) {
    steady__denials_release(memory->denials);
    memory->denials = NULL;
}

struct steady__hash steady__deny_memory_name(const struct steady__deny_memory *memory, const char *key,
                                             size_t key_len) {
    return steady__denials_name(memory->denials, memory->scope, key, key_len);
}

/* ---- The buckets of a call ---- */

struct deny_bucket {
    const char *key;
    size_t key_len;
    struct steady__part part;
};

/* The buckets of a call that may be denied from memory; 0: it may not. */
static size_t deny_memory_count(const struct steady__deny_memory *memory, const struct steady__call *call) {
    const struct steady__group *group = call->group;
    if (memory->denials == NULL || !steady__denials_in_use(memory->denials)) return 0;
    if (group == NULL) return call->verb == STEADY__CONSUME ? 1 : 0;
    const bool plain = call->verb == STEADY__CONSUME_ALL && group->how.max_wait == 0 && group->how.at_least == 0;
    return plain ? group->n : 0;
}

static struct deny_bucket deny_memory_bucket(const struct steady__call *call, size_t i) {
    if (call->group != NULL) {
        const struct steady__member *member = &call->group->members[i];
        return (struct deny_bucket){member->key, member->key_len, member->part};
    }
    return (struct deny_bucket){call->key, call->key_len, {&call->terms->rate, call->amount, STEADY__TAKE}};
}

static struct steady__hash deny_memory_name_of(const struct steady__deny_memory *memory,
                                               const struct deny_bucket *bucket) {
    return steady__deny_memory_name(memory, bucket->key, bucket->key_len);
}

int64_t steady__deny_memory_amount(const struct steady__call *call, size_t part) {
    return deny_memory_bucket(call, part).part.amount;
}

/* ---- Denying ---- */

/* A look starts no block. */
static enum steady__denial deny_memory_look_at(const struct steady__deny_memory *memory,
                                               const struct steady__part *part, struct steady__hash name,
                                               struct steady__look *look) {
    struct steady__rate rate = *part->rate;
    if (part->kind == STEADY__LOOK) rate.block = 0;
    return steady__denials_look(memory->denials, name, &rate, part->amount, memory->valid,
                                steady__denials_now(memory->denials), look);
}

enum steady__denial steady__deny_memory_look(const struct steady__deny_memory *memory, const struct steady__call *call,
                                             size_t part, struct steady__hash name, struct steady__look *look) {
    const struct deny_bucket bucket = deny_memory_bucket(call, part);
    return deny_memory_look_at(memory, &bucket.part, name, look);
}

/* Whether look a is worse for the call than look b: a certain denial with the longer wait, or the lesser room. */
static bool deny_memory_is_worse(enum steady__denial a, const struct steady__look *a_look, int64_t a_amount,
                                 enum steady__denial b, const struct steady__look *b_look, int64_t b_amount) {
    if (a != b) return a > b;
    if (a == STEADY__FULL)
        return b_look->decision.retry_after != -1 &&
               (a_look->decision.retry_after == -1 || a_look->decision.retry_after > b_look->decision.retry_after);
    if (a == STEADY__TOO_EARLY) return a_look->wait > b_look->wait;
    return a == STEADY__HAS_ROOM && a_look->room - a_amount < b_look->room - b_amount;
}

enum steady__denial steady__deny_memory_ask(const struct steady__deny_memory *memory, const struct steady__call *call,
                                            struct steady__denied *denied) {
    const size_t n = deny_memory_count(memory, call);
    enum steady__denial worst = STEADY__UNKNOWN_BUCKET;
    bool may_start_block = false, never = false; /* the server would name another bucket, which denies for ever */
    for (size_t i = 0; i < n; i++) {
        const struct deny_bucket bucket = deny_memory_bucket(call, i);
        const struct steady__part *part = &bucket.part;
        struct steady__look look;
        if (part->amount <= 0 || part->kind == STEADY__CHARGE) continue;
        const bool has_block = part->rate->block != 0 && part->kind != STEADY__LOOK;
        if (part->kind == STEADY__SHADOW && !has_block) continue;
        const struct steady__hash name = deny_memory_name_of(memory, &bucket);
        const enum steady__denial denial = deny_memory_look_at(memory, part, name, &look);
        if (has_block && denial != STEADY__FULL) may_start_block = true;
        if (steady__group_votes(part) && part->amount > part->rate->capacity && denial != STEADY__FULL) never = true;
        if (!steady__group_votes(part) || denial == STEADY__UNKNOWN_BUCKET || (has_block && denial == STEADY__HAS_ROOM))
            continue;
        if (worst != STEADY__UNKNOWN_BUCKET && !deny_memory_is_worse(denial, &look, part->amount, worst, &denied->look,
                                                                     steady__deny_memory_amount(call, denied->part)))
            continue;
        worst = denial;
        *denied = (struct steady__denied){i, name, look};
    }
    const bool tells_less = never && worst == STEADY__FULL && denied->look.decision.retry_after != -1;
    return worst == STEADY__FULL && (may_start_block || tells_less) ? STEADY__UNKNOWN_BUCKET : worst;
}

/* The same for a call on one bucket, which is the usual one: it has no other bucket to compare with. */
static bool deny_memory_denies_plain(const struct steady__deny_memory *memory, const struct steady__call *call,
                                     steady_result *result) {
    struct steady__look look;
    steady_us now;
    if (memory->denials == NULL || call->verb != STEADY__CONSUME || call->amount <= 0) return false;
    if (!steady__denials_in_use_at(memory->denials, &now)) return false;
    const struct steady__hash name = steady__deny_memory_name(memory, call->key, call->key_len);
    if (steady__denials_look(memory->denials, name, &call->terms->rate, call->amount, memory->valid, now, &look) !=
        STEADY__FULL)
        return false;
    steady__group_answer(call, 0, STEADY_FROM_MEMORY, &look.decision, result);
    return true;
}

bool steady__deny_memory_denies(const struct steady__deny_memory *memory, const struct steady__call *call,
                                steady_result *result) {
    struct steady__denied denied;
    if (call->group == NULL) return deny_memory_denies_plain(memory, call, result);
    if (steady__deny_memory_ask(memory, call, &denied) != STEADY__FULL) return false;
    steady__group_answer(call, denied.part, STEADY_FROM_MEMORY, &denied.look.decision, result);
    return true;
}

/* ---- Learning ---- */

static void deny_memory_learn_bucket(const struct steady__deny_memory *memory, const struct deny_bucket *bucket,
                                     struct steady__observed *observed) {
    const struct steady__part *part = &bucket->part;
    if (!steady__denials_is_full(part->rate, observed->level, part->amount, observed->blocked_for) &&
        !steady__denials_in_use(memory->denials))
        return;
    observed->rate = part->rate;
    observed->amount = part->amount;
    observed->came = steady__denials_now(memory->denials);
    steady__denials_learn(memory->denials, deny_memory_name_of(memory, bucket), observed);
}

/* The reply of a peek may come from a replica, or from a primary that has become one: such a node answers it, and the
 * calls that would find out are denied from memory. So only the look of a call on several slots is remembered: in a
 * cluster each node answers for its own slots. */
void steady__deny_memory_learn(const struct steady__deny_memory *memory, const struct steady__call *call,
                               const steady_result *result, steady_us sent) {
    const bool all = call->verb == STEADY__CONSUME_ALL || call->verb == STEADY__PEEK_ALL;
    const size_t n = call->verb == STEADY__CONSUME ? 1 : all ? call->group->n : 0;
    struct steady__observed observed = {.sent = sent, .valid = memory->valid};
    for (size_t i = 0; i < n; i++) {
        const steady_part_result *part = call->group != NULL ? &call->group->results[i] : NULL;
        const struct deny_bucket bucket = deny_memory_bucket(call, i);
        if (part != NULL && !part->answered) continue;
        observed.denied = !(part != NULL ? part->success : result->success);
        observed.level = part != NULL ? part->level : result->level;
        observed.until_next_drop = part != NULL ? part->until_next_drop : result->until_next_drop;
        observed.blocked_for = part != NULL ? part->blocked_for : result->blocked_for;
        deny_memory_learn_bucket(memory, &bucket, &observed);
    }
}

void steady__deny_memory_ended(const struct steady__deny_memory *memory, const struct steady__call *call) {
    if (!steady__gives_back(call)) return;
    const steady_us now = steady__denials_now(memory->denials);
    for (size_t i = 0; i < (call->group != NULL ? call->group->n : 1); i++) {
        const struct deny_bucket bucket = deny_memory_bucket(call, i);
        steady__denials_forget(memory->denials, deny_memory_name_of(memory, &bucket), now);
    }
}
