/* SPDX-License-Identifier: MIT
 * A call on several buckets, or on one with options: its members, and its result. throttler.c makes groups; the stores
 * read the members and fill the result. */
#ifndef STEADY__GROUP_H
#define STEADY__GROUP_H

#include "store.h"

/* Makes a group with room for n members with keys of `key_bytes` together. Add its members with
 * steady__group_add. NULL: out of memory. Free it with free, or with its call: see steady__call_release. */
struct steady__group *steady__group_new(size_t n, size_t key_bytes);

/* Memory for a small group of a call that ends before its caller does. */
struct steady__group_room {
    union {
        struct steady__group group;
        char bytes[4096];
    };
};

/* A group in the room, which holds neither memory nor throttlers. The results of its members are not cleared. NULL: it
 * does not fit. */
struct steady__group *steady__group_borrow(struct steady__group_room *room, size_t n, size_t key_bytes);

/* The next member. Copies the whole key, unless it is at group->keys_end. The caller holds the throttler. */
struct steady__member *steady__group_add(struct steady__group *group, steady_throttler *throttler,
                                         const struct steady__terms *terms, const char *key, size_t key_len);

/* Makes the decision of the call on the buckets of its members, in their order, at `now` of the store's clock. Fills
 * the result of the call and of each member. buckets[i] gets its new state if changed[i]; all zero: delete it.
 * `changed` may be NULL. Not for a reset. Returns how many buckets were ahead of the clock. */
unsigned steady__group_decide(const struct steady__call *call, struct steady__bucket *buckets, int64_t now,
                              bool *changed, steady_result *result);

/* Fills the fields of a result that a decision has, too. */
void steady__group_fill(steady_part_result *result, const struct steady__decision *decision);

/* Fills the result of a reset: empty buckets. */
void steady__group_reset(const struct steady__call *call, steady_result *result);

/* Whether the denial of a part denies the call. */
bool steady__group_votes(const struct steady__part *part);

/* Fills *result from the results of the members, which have decided one by one. Names a member. grant: what each member
 * got if the call has an at_least, otherwise 0. */
void steady__group_conclude(const struct steady__call *call, bool success, int64_t wait, int64_t grant,
                            steady_result *result);

/* Fills the result of a consume that was decided without a request, on one bucket of the call: its only one, or the one
 * that denies it. *result is cleared. */
void steady__group_answer(const struct steady__call *call, size_t part, enum steady_source source,
                          const struct steady__decision *decision, steady_result *result);

/* Fills the fields of *result that repeat those of group->results[part]. The results of the members are there. */
void steady__group_name(const struct steady__call *call, size_t part, steady_result *result);

/* Whether the call may take drops out of its buckets, whatever its outcome is. Also for a call without a group. */
bool steady__gives_back(const struct steady__call *call);

#endif
