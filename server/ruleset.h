/* SPDX-License-Identifier: MIT
 * The rules of one thread: a throttler for each limit, and its counters.
 *
 * The rules themselves are shared by all threads. A ruleset belongs to one thread, and lives as long as a decision uses
 * it. So a reload changes no decision that is under way. */
#ifndef STEADY_SERVER_RULESET_H
#define STEADY_SERVER_RULESET_H

#include <stdatomic.h>

#include "rules/rules.h"

struct limit_counters;
struct metrics;

/* Rules that threads share. */
struct shared_rules {
    struct rules *rules;
    atomic_uint users;
};

struct shared_rules *shared_rules_new(struct rules *rules); /* takes the rules; NULL: out of memory, and frees them */
struct shared_rules *shared_rules_use(struct shared_rules *shared);
void shared_rules_leave(struct shared_rules *shared);

struct ruleset {
    const struct rules *rules;
    struct shared_rules *shared;
    steady_throttler ***throttlers;   /* of limit i and rate k: throttlers[i][k] */
    struct limit_counters **counters; /* of limit i */
    unsigned users;
};

/* Takes a use of `shared`. NULL: *why says the reason. */
struct ruleset *ruleset_new(struct shared_rules *shared, steady_store *store, struct metrics *metrics,
                            steady_message *why);
struct ruleset *ruleset_use(struct ruleset *set);
void ruleset_leave(struct ruleset *set);

/* Throttlers for limits that come with a request, such as CL.THROTTLE. At most THROTTLERS_MOST; then the one that was
 * used longest ago is freed. */
enum { THROTTLERS_MOST = 1024 };
struct throttlers;

struct throttlers *throttlers_new(steady_store *store, enum steady_policy on_error, uint32_t local_share);
void throttlers_free(struct throttlers *throttlers);

/* The throttler belongs to `throttlers`; use it before the next call. NULL: *why says what is wrong with the limit. */
steady_throttler *throttlers_find(struct throttlers *throttlers, const steady_limit *limit, steady_message *why);

/* The limit of the throttler that was found last. It is valid as long as that. */
const steady_limit *throttlers_limit(const struct throttlers *throttlers);

#endif
