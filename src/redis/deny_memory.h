/* SPDX-License-Identifier: MIT
 * The memory of denials as a store uses it: which calls it may deny, by which of their buckets, and what it learns from
 * their replies. denials.h is the memory itself. */
#ifndef STEADY__DENY_MEMORY_H
#define STEADY__DENY_MEMORY_H

#include "core/url.h"
#include "redis/denials.h"
#include "store.h"

struct steady__deny_memory {
    struct steady__denials *denials; /* NULL: the store has no memory */
    uint64_t scope;                  /* of its server */
    steady_us valid;                 /* for how long it believes a reply */
};

/* denials: NULL: the memory of this process. 0 or STEADY_NO_MEMORY. */
int steady__deny_memory_open(struct steady__deny_memory *memory, struct steady__denials *denials,
                             const struct steady__url *url, const steady_store_options *options);
void steady__deny_memory_close(struct steady__deny_memory *memory);

struct steady__hash steady__deny_memory_name(const struct steady__deny_memory *memory, const char *key, size_t key_len);

/* What the memory knows of a call. */
struct steady__denied {
    size_t part; /* the bucket that denies the call, or that decides whether it may be sent: an index into its group */
    struct steady__hash name;
    struct steady__look look;
};

/* STEADY__FULL: the call is certain to be denied. STEADY__UNKNOWN_BUCKET: send it. Otherwise its bucket with the least
 * room was full lately: see struct steady__denied. */
enum steady__denial steady__deny_memory_ask(const struct steady__deny_memory *memory, const struct steady__call *call,
                                            struct steady__denied *denied);

/* The same for one bucket of the call, whose name is known. */
enum steady__denial steady__deny_memory_look(const struct steady__deny_memory *memory, const struct steady__call *call,
                                             size_t part, struct steady__hash name, struct steady__look *look);

/* The drops that the call would put into this bucket. */
int64_t steady__deny_memory_amount(const struct steady__call *call, size_t part);

/* Whether the memory denies the call. Then *result is filled, about the bucket that denies it only: the others are not
 * answered. Any thread may ask. */
bool steady__deny_memory_denies(const struct steady__deny_memory *memory, const struct steady__call *call,
                                steady_result *result);

/* Learns from the reply to a call that was sent at `sent`, of the clock of the memory. */
void steady__deny_memory_learn(const struct steady__deny_memory *memory, const struct steady__call *call,
                               const steady_result *result, steady_us sent);

/* The call has ended, in whatever way. If it may have taken drops out of buckets, forgets them. */
void steady__deny_memory_ended(const struct steady__deny_memory *memory, const struct steady__call *call);

#endif
