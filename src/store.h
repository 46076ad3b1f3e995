/* SPDX-License-Identifier: MIT
 * What a store must provide, and what the throttler provides to it. */
#ifndef STEADY__STORE_H
#define STEADY__STORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "bucket.h"
#include "steady.h"

#define STEADY__KEY_MAX 1024
#define STEADY__AMOUNT_MAX INT32_MAX

/* A limit as a store likes to have it, worked out once a throttler rather than once a decision. */
struct steady__terms {
    struct steady__rate rate;
    char encoded[160]; /* the store's own: see prepare */
    size_t encoded_len;
};

/* One decision, from the throttler's door to its callback. Terms and throttler stay valid until steady__finish; the key
 * only until submit or decide returns, so a store that needs it later copies it and points `key` at the copy. */
struct steady__call {
    enum steady__verb verb;
    int64_t amount;
    const char *key;
    size_t key_len;
    const struct steady__terms *terms;
    steady_throttler *throttler;
    steady_callback callback;
    void *data;
};

struct steady__store_class {
    const char *name;
    bool any_thread; /* decide and stats may be called from any thread at once */
    /* Fills terms->wire from terms->rate; NULL: nothing to prepare. */
    void (*prepare)(struct steady__terms *terms);
    /* Starts a decision; 0, or an error and nothing happened. */
    int (*submit)(steady_store *store, const struct steady__call *call);
    /* Makes a decision before it returns; the result is filled in any case. throttler and callback are not looked at.
     */
    void (*decide)(steady_store *store, const struct steady__call *call, steady_result *result);
    void (*stats)(const steady_store *store, steady_stats *stats);
    const char *(*last_error)(const steady_store *store);
    /* Ends what is in flight as cancelled, and lets go of loop, descriptors and memory as far as the stack of callers
     * permits. Called once; nothing else of the class but free and stats is called after. */
    void (*close)(steady_store *store);
    /* Frees the store itself; called once nobody holds it any more, after close. */
    void (*free)(steady_store *store);
};

/* The head of every store. A store of a class begins with it. */
struct steady_store {
    const struct steady__store_class *class_;
    pthread_t thread;
    atomic_uint holders; /* the user until close, each throttler, and whoever is on the stack inside it */
    atomic_bool closed;
    bool has_loop;
    uint32_t buckets;    /* the option, for `local` */
    steady_store *local; /* what STEADY_LOCAL falls back to; made with the first throttler that wants it */
};

/* For a class: fills the head of a store with one holder. */
void steady__store_init(steady_store *store, const struct steady__store_class *class_,
                        const steady_store_options *options);
/* 0, or STEADY_BAD_ARGUMENT and *why names the option. */
int steady__options_check(const steady_store_options *options, steady_message *why);
void steady__store_hold(steady_store *store);
void steady__store_release(steady_store *store);

#endif
