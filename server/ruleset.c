/* SPDX-License-Identifier: MIT
 * The rules of one thread. */
#include "ruleset.h"

#include <stdlib.h>

#include "metrics.h"

/* ---- Rules that threads share ---- */

struct shared_rules *shared_rules_new(struct rules *rules) {
    struct shared_rules *shared = rules != NULL ? malloc(sizeof *shared) : NULL;
    if (shared == NULL) {
        rules_free(rules);
        return NULL;
    }
    shared->rules = rules;
    atomic_init(&shared->users, 1);
    return shared;
}

struct shared_rules *shared_rules_use(struct shared_rules *shared) {
    atomic_fetch_add_explicit(&shared->users, 1, memory_order_relaxed);
    return shared;
}

void shared_rules_leave(struct shared_rules *shared) {
    if (shared == NULL || atomic_fetch_sub_explicit(&shared->users, 1, memory_order_acq_rel) > 1) return;
    rules_free(shared->rules);
    free(shared);
}

/* ---- The rules of one thread ---- */

static int ruleset_add(struct ruleset *set, size_t i, steady_store *store, steady_message *why) {
    const struct rules_limit *limit = &set->rules->limits[i];
    const steady_throttler_options options = {.on_error = set->rules->on_error, .local_share = set->rules->local_share};
    set->throttlers[i] = calloc(limit->n_rates, sizeof(steady_throttler *));
    if (set->throttlers[i] == NULL) return STEADY_NO_MEMORY;
    for (size_t k = 0; k < limit->n_rates; k++) {
        const int error = steady_throttler_new(&set->throttlers[i][k], store, &limit->rates[k], &options, why);
        if (error != 0) return error;
    }
    return 0;
}

struct ruleset *ruleset_new(struct shared_rules *shared, steady_store *store, struct metrics *metrics,
                            steady_message *why) {
    const struct rules *rules = shared->rules;
    struct ruleset *set = calloc(1, sizeof *set);
    if (set == NULL) return NULL;
    set->rules = rules;
    set->shared = shared_rules_use(shared);
    set->users = 1;
    set->throttlers = calloc(rules->n_limits + 1, sizeof *set->throttlers);
    set->counters = calloc(rules->n_limits + 1, sizeof(struct limit_counters *));
    for (size_t i = 0; i < rules->n_limits; i++) {
        const bool room = set->throttlers != NULL && set->counters != NULL &&
                          (set->counters[i] = metrics_of(metrics, rules->limits[i].name)) != NULL;
        const int error = room ? ruleset_add(set, i, store, why) : STEADY_NO_MEMORY;
        if (error == 0) continue;
        if (error == STEADY_NO_MEMORY) *why = (steady_message){.text = "out of memory"};
        ruleset_leave(set);
        return NULL;
    }
    return set;
}

struct ruleset *ruleset_use(struct ruleset *set) {
    set->users++;
    return set;
}

void ruleset_leave(struct ruleset *set) {
    if (set == NULL || --set->users > 0) return;
    for (size_t i = 0; set->throttlers != NULL && i < set->rules->n_limits; i++) {
        for (size_t k = 0; set->throttlers[i] != NULL && k < set->rules->limits[i].n_rates; k++)
            steady_throttler_free(&set->throttlers[i][k]);
        free(set->throttlers[i]);
    }
    free(set->throttlers);
    free(set->counters);
    shared_rules_leave(set->shared);
    free(set);
}

/* ---- Limits that come with a request ---- */

enum { BUCKETS = 4 * THROTTLERS_MOST };

struct entry {
    steady_limit limit;
    steady_throttler *throttler;
    struct entry *next_of_hash;
    struct entry *newer, *older; /* by their last use */
};

struct throttlers {
    steady_store *store;
    steady_throttler_options options;
    struct entry *by_hash[BUCKETS];
    struct entry *newest, *oldest;
    size_t n;
};

struct throttlers *throttlers_new(steady_store *store, enum steady_policy on_error, uint32_t local_share) {
    struct throttlers *throttlers = calloc(1, sizeof *throttlers);
    if (throttlers == NULL) return NULL;
    throttlers->store = store;
    throttlers->options = (steady_throttler_options){.on_error = on_error, .local_share = local_share};
    return throttlers;
}

static struct entry **ruleset_throttlers_place(struct throttlers *throttlers, const steady_limit *limit) {
    uint64_t hash = (uint64_t)limit->max_capacity * UINT64_C(0x9e3779b97f4a7c15);
    hash = (hash ^ (uint64_t)limit->drop_recharge) * UINT64_C(0xff51afd7ed558ccd);
    hash = (hash ^ (hash >> 32) ^ (uint64_t)limit->drops) * UINT64_C(0xc4ceb9fe1a85ec53);
    hash ^= (hash >> 29) ^ (uint64_t)limit->block_duration;
    struct entry **place = &throttlers->by_hash[(hash ^ hash >> 32) % BUCKETS];
    for (; *place != NULL; place = &(*place)->next_of_hash) {
        const steady_limit *other = &(*place)->limit;
        if (other->max_capacity == limit->max_capacity && other->drop_recharge == limit->drop_recharge &&
            other->drops == limit->drops && other->block_duration == limit->block_duration)
            break;
    }
    return place;
}

static void ruleset_throttlers_unlink(struct throttlers *throttlers, struct entry *entry) {
    *(entry->newer != NULL ? &entry->newer->older : &throttlers->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &throttlers->oldest) = entry->newer;
}

static void ruleset_throttlers_link_newest(struct throttlers *throttlers, struct entry *entry) {
    entry->newer = NULL;
    entry->older = throttlers->newest;
    *(entry->older != NULL ? &entry->older->newer : &throttlers->oldest) = entry;
    throttlers->newest = entry;
}

static void ruleset_throttlers_drop(struct throttlers *throttlers, struct entry *entry) {
    *ruleset_throttlers_place(throttlers, &entry->limit) = entry->next_of_hash;
    ruleset_throttlers_unlink(throttlers, entry);
    throttlers->n--;
    steady_throttler_free(&entry->throttler);
    free(entry);
}

steady_throttler *throttlers_find(struct throttlers *throttlers, const steady_limit *limit, steady_message *why) {
    struct entry *entry = *ruleset_throttlers_place(throttlers, limit);
    if (entry != NULL) {
        ruleset_throttlers_unlink(throttlers, entry);
        ruleset_throttlers_link_newest(throttlers, entry);
        return entry->throttler;
    }
    entry = calloc(1, sizeof *entry);
    if (entry == NULL) {
        *why = (steady_message){.text = "out of memory"};
        return NULL;
    }
    entry->limit = *limit;
    entry->limit.name = NULL;
    if (steady_throttler_new(&entry->throttler, throttlers->store, &entry->limit, &throttlers->options, why) != 0) {
        free(entry);
        return NULL;
    }
    if (throttlers->n == THROTTLERS_MOST) ruleset_throttlers_drop(throttlers, throttlers->oldest);
    *ruleset_throttlers_place(throttlers, &entry->limit) = entry;
    ruleset_throttlers_link_newest(throttlers, entry);
    throttlers->n++;
    return entry->throttler;
}

void throttlers_free(struct throttlers *throttlers) {
    if (throttlers == NULL) return;
    for (struct entry *entry = throttlers->oldest, *newer; entry != NULL; entry = newer) {
        newer = entry->newer;
        steady_throttler_free(&entry->throttler);
        free(entry);
    }
    free(throttlers);
}

const steady_limit *throttlers_limit(const struct throttlers *throttlers) { return &throttlers->newest->limit; }
