/* SPDX-License-Identifier: MIT
 * Shared by tests of calls with a group on a table: calls made by hand, at the time that the test sets. */
#ifndef GROUP_RIG_H
#define GROUP_RIG_H

#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "group.h"
#include "local/local_group.h"

#define MEMBERS 8

/* A call, its group, and the limits of its members. */
struct group_call {
    struct steady__call call;
    struct steady__terms terms[MEMBERS];
    steady_result result;
    struct steady__local_site site;
};

static int64_t group_now;
static inline int64_t group_clock(const void *data) {
    (void)data;
    return group_now;
}

static inline void group_begin(struct group_call *c, enum steady__verb verb, const struct steady__how *how) {
    memset(c, 0, sizeof *c);
    c->call.verb = verb;
    c->call.group = steady__group_new(MEMBERS, MEMBERS * 16);
    assert_non_null(c->call.group);
    if (how != NULL) c->call.group->how = *how;
    c->call.group->how.peek = verb == STEADY__PEEK_ALL;
}

static inline struct steady__member *group_add(struct group_call *c, const char *key, struct steady__rate rate) {
    struct steady__terms *terms = &c->terms[c->call.group->n];
    terms->rate = rate;
    struct steady__member *member = steady__group_add(c->call.group, NULL, terms, key, strlen(key));
    member->settlement.rate = &terms->rate;
    return member;
}

static inline void group_take(struct group_call *c, const char *key, struct steady__rate rate, int64_t amount,
                              enum steady__kind kind) {
    struct steady__member *member = group_add(c, key, rate);
    member->part.amount = amount;
    member->part.kind = kind;
}

static inline void group_run(struct group_call *c, const struct steady__table *table) {
    static const unsigned char key[STEADY__SIPHASH_KEY];
    c->site = (struct steady__local_site){.table = table, .key = key, .clock = group_clock};
    steady__local_group(&c->site, &c->call, &c->result);
}

static inline void group_end(struct group_call *c) { free(c->call.group); }

#endif
