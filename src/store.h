/* SPDX-License-Identifier: MIT
 * The interface of all stores: a call, the functions of a store class, and the head of each store. */
#ifndef STEADY__STORE_H
#define STEADY__STORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "core/parts.h"
#include "core/redact.h"
#include "steady.h"

#define STEADY__KEY_MAX 1024
#define STEADY__AMOUNT_MAX INT32_MAX

/* A checked limit, with its arguments encoded once for each throttler. */
struct steady__terms {
    struct steady__rate rate;
    char encoded[32]; /* filled by `prepare` */
    size_t encoded_len;
};

/* One bucket of a group. Throttler and key stay valid until the group is freed. */
struct steady__member {
    struct steady__part part; /* part.rate is that of `terms` */
    int64_t asked;            /* the amount before it was clamped */
    const struct steady__terms *terms;
    const struct steady__rate *local_rate; /* for STEADY_LOCAL */
    steady_throttler *throttler;           /* held */
    const char *key;                       /* whole: with its prefix */
    size_t key_len;
    size_t prefix_len;
    bool key_has_name;                    /* the key ends with the name of its limit: its throttler has several */
    steady_us moment;                     /* of the clock of its server, by the store: when the drops were put in */
    struct steady__settlement settlement; /* STEADY__SETTLE only. settlement.rate is that of `terms` */
};

/* A call on several buckets, or on one with options. It is made by throttler.c, and freed after the callback. */
struct steady__group {
    size_t n;
    struct steady__how how;
    struct steady__member *members;
    struct steady__key *keys;        /* those of the members: texts must not show them */
    steady_part_result *results;     /* one for each member. A store fills them before it ends the call */
    steady_reservation *reservation; /* to be made by an allowed call, or settled; NULL: none */
    char *keys_end;                  /* for steady__group_add */
    bool borrows;                    /* its memory and the throttlers belong to the caller of a blocking call */
};

/* One decision. `terms` and `throttler` stay valid until steady__finish. `key` is valid only until submit or decide
 * returns: a store that needs it later copies it. */
struct steady__call {
    enum steady__verb verb;
    int64_t amount;
    const char *key;
    size_t key_len;
    const struct steady__terms *terms;
    steady_throttler *throttler;
    steady_callback callback;
    void *data;
    struct steady__group *group; /* NULL: one bucket without options. Otherwise key and terms are those of its first
                                    member */
};

struct steady__store_class {
    const char *name;
    bool any_thread; /* decide may be called from any thread at once */
    bool quiet;      /* decide runs no callback of the user, so its caller need not hold the throttler */
    /* Fills terms->encoded from terms->rate; NULL: nothing to prepare. */
    void (*prepare)(struct steady__terms *terms);
    /* Starts a decision. 0, and its id, which is never 0; or an error, and nothing happened. */
    int (*submit)(steady_store *store, const struct steady__call *call, uint64_t *id);
    /* Ends a decision without its callback. False: no decision with this id is in flight. */
    bool (*cancel)(steady_store *store, uint64_t id);
    /* Moves the deadline of a decision up to now. False: no decision with this id is in flight. NULL: each decision
     * that is in flight has its verdict already. */
    bool (*expire)(steady_store *store, uint64_t id);
    /* Answers a call on one bucket by what the store knows: without a request, and without a callback of the user. So
     * the caller need not hold the throttler. *result is cleared. False: decide must answer. NULL: it knows nothing. */
    bool (*recall)(steady_store *store, const struct steady__call *call, steady_result *result);
    /* Makes a decision before it returns, and fills the cleared result in any case. Ignores throttler and callback. */
    void (*decide)(steady_store *store, const struct steady__call *call, steady_result *result);
    /* These three may be called from any thread. */
    void (*stats)(const steady_store *store, steady_stats *stats);
    void (*last_error)(const steady_store *store, steady_message *message);
    enum steady_state (*state)(const steady_store *store); /* NULL: always ready */
    /* Ends decisions in flight as cancelled. Releases loop and descriptors, and memory that no caller on the stack
     * needs. Called once; after it only free and stats are called. */
    void (*close)(steady_store *store);
    /* Frees the store. Called after close, when the last holder has released it. */
    void (*free)(steady_store *store);
};

/* The head of every store: its first member. */
struct steady_store {
    const struct steady__store_class *class_;
    pthread_t thread;
    atomic_uint holders; /* the user until close, each throttler, and each call on the stack */
    atomic_bool closed;
    bool has_loop;
    int64_t tag;                   /* of an embedded store: a number of its own, below 2^53; 0: a server */
    uint32_t buckets;              /* the option, for `local` */
    _Atomic(steady_store *) local; /* for STEADY_LOCAL; made with the first throttler that has this policy */
};

/* In halves: for the whole struct gcc emits `rep stos`, which takes as long as a compare-and-swap. */
static inline void steady__result_clear(steady_result *result) {
    const size_t half = sizeof *result / 2;
    memset(result, 0, half);
    memset((char *)result + half, 0, sizeof *result - half);
}

/* Fills the head of a store, with one holder. */
void steady__store_init(steady_store *store, const struct steady__store_class *class_,
                        const steady_store_options *options);
/* 0, or STEADY_BAD_ARGUMENT, and *why names the option. */
int steady__options_check(const steady_store_options *options, steady_message *why);
void steady__store_hold(steady_store *store);
void steady__store_release(steady_store *store);

#endif
