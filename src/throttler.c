/* SPDX-License-Identifier: MIT
 * The public entry points of a throttler: what is checked, who is asked, and the policy for when nobody answers. */
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "limit.h"
#include "store.h"

struct steady_throttler {
    steady_store *store;
    struct steady__terms terms;
    struct steady__terms local_terms;
    enum steady_policy on_error;
    atomic_uint holders; /* the user, and each decision in flight */
    size_t prefix_len;
    char prefix[];
};

/* ---- Making one ---- */

static int check_options(const steady_throttler_options *options, steady_message *why) {
    if ((int)options->on_error < STEADY_REPORT || options->on_error > STEADY_LOCAL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "on_error is %d; it must be an enum steady_policy",
                            (int)options->on_error);
    if (options->prefix != NULL && strlen(options->prefix) >= STEADY__KEY_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "prefix is %zu bytes long; it must be at most %d",
                            strlen(options->prefix), STEADY__KEY_MAX - 1);
    for (size_t i = 0; i < sizeof options->reserved / sizeof options->reserved[0]; i++)
        if (options->reserved[i] != 0)
            return steady__fail(why, STEADY_BAD_ARGUMENT, "reserved fields of steady_throttler_options must be zero");
    return 0;
}

/* One share of a rate: a share of the capacity, but at least a drop, leaking so many times slower. */
static struct steady__rate share_of(struct steady__rate rate, int64_t shares) {
    rate.capacity = rate.capacity / shares > 0 ? rate.capacity / shares : 1;
    const int64_t slowest = (STEADY__EXACT - 1) / rate.capacity;
    rate.recharge = rate.recharge <= slowest / shares ? rate.recharge * shares : slowest;
    return rate;
}

static int open_local(steady_store *store, steady_message *why) {
    if (store->local != NULL) return 0;
    const steady_store_options options = {.buckets = store->buckets != 0 ? store->buckets : 1 << 16};
    return steady__local_open(&store->local, NULL, &options, why);
}

static void prepare(const steady_store *store, struct steady__terms *terms) {
    if (store->class_->prepare != NULL) store->class_->prepare(terms);
}

int steady_throttler_new(steady_throttler **throttler, steady_store *store, const steady_limit *limit,
                         const steady_throttler_options *options, steady_message *why) {
    static const steady_throttler_options defaults;
    struct steady__rate rate;
    if (throttler == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "throttler is NULL");
    *throttler = NULL;
    if (options == NULL) options = &defaults;
    if (store == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "store is NULL");
    if (atomic_load(&store->closed)) return steady__fail(why, STEADY_CLOSED, "the store is closed");
    int error = check_options(options, why);
    if (error == 0) error = steady__limit_rate(&rate, limit, why);
    if (error == 0 && options->on_error == STEADY_LOCAL) error = open_local(store, why);
    if (error != 0) return error;

    const size_t prefix_len = options->prefix != NULL ? strlen(options->prefix) : 0;
    steady_throttler *t = calloc(1, sizeof *t + prefix_len + 1);
    if (t == NULL) return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
    t->store = store;
    t->on_error = options->on_error;
    t->terms.rate = rate;
    prepare(store, &t->terms);
    t->local_terms.rate = share_of(rate, options->local_share > 0 ? options->local_share : 1);
    atomic_init(&t->holders, 1);
    t->prefix_len = prefix_len;
    if (prefix_len > 0) memcpy(t->prefix, options->prefix, prefix_len);
    steady__store_hold(store);
    *throttler = t;
    return 0;
}

static void release(steady_throttler *t) {
    if (atomic_fetch_sub(&t->holders, 1) != 1) return;
    steady__store_release(t->store);
    free(t);
}

void steady_throttler_free(steady_throttler **throttler) {
    if (throttler == NULL || *throttler == NULL) return;
    steady_throttler *t = *throttler;
    *throttler = NULL;
    release(t);
}

size_t steady__prefix_len(const steady_throttler *t) { return t != NULL ? t->prefix_len : 0; }

/* ---- The policy ---- */

static bool is_silence(int error) {
    return error == STEADY_UNAVAILABLE || error == STEADY_UNKNOWN || error == STEADY_OVERLOADED ||
           error == STEADY_REFUSED || error == STEADY_SERVER;
}

static bool fits(const steady_throttler *t, const struct steady__call *call) {
    return call->verb != STEADY__CONSUME || call->amount <= t->terms.rate.capacity;
}

void steady__policy(const steady_throttler *t, const struct steady__call *call, steady_result *result) {
    const int error = result->error;
    if (t->on_error == STEADY_REPORT || !is_silence(error)) return;
    if (call->verb == STEADY__RESET) return; /* nobody else can reset that bucket */
    if (t->on_error == STEADY_LOCAL && t->store->local != NULL) {
        struct steady__call local = *call;
        local.terms = &t->local_terms;
        t->store->local->class_->decide(t->store->local, &local, result);
        result->source = STEADY_FROM_LOCAL;
    } else {
        /* A client can cause an overload by asking much: it must not pass by that. */
        result->success = t->on_error == STEADY_ALLOW && error != STEADY_OVERLOADED;
        result->source = STEADY_FROM_POLICY;
        if (!result->success) result->retry_after = fits(t, call) ? STEADY_DENY_RETRY : -1;
    }
    result->error = error;
}

void steady__finish(const struct steady__call *call, const steady_result *result) {
    steady_throttler *t = call->throttler;
    const steady_callback callback = call->callback;
    void *data = call->data;
    steady_result answer = *result;
    steady__policy(t, call, &answer);
    release(t);
    callback(&answer, data);
}

/* ---- Asking ---- */

static int check_call(const steady_throttler *t, const void *key, size_t key_len, int64_t amount) {
    if (t == NULL || key == NULL || key_len == 0) return STEADY_BAD_ARGUMENT;
    if (key_len > STEADY__KEY_MAX - t->prefix_len) return STEADY_BAD_ARGUMENT;
    if (amount > STEADY__AMOUNT_MAX || amount < -STEADY__AMOUNT_MAX) return STEADY_BAD_ARGUMENT;
    return atomic_load_explicit(&t->store->closed, memory_order_acquire) ? STEADY_CLOSED : 0;
}

/* The key with the prefix before it; in `room` where there is one. */
static const char *whole_key(const steady_throttler *t, const void *key, size_t key_len, char *room) {
    if (t->prefix_len == 0) return key;
    memcpy(room, t->prefix, t->prefix_len);
    memcpy(room + t->prefix_len, key, key_len);
    return room;
}

static bool on_its_thread(const steady_throttler *t) { return pthread_equal(t->store->thread, pthread_self()) != 0; }

static int ask(steady_throttler *t, enum steady__verb verb, const void *key, size_t key_len, int64_t amount,
               steady_callback callback, void *data) {
    char room[STEADY__KEY_MAX];
    int error = check_call(t, key, key_len, amount);
    if (error != 0) return error;
    if (callback == NULL || !t->store->has_loop || !on_its_thread(t)) return STEADY_BAD_ARGUMENT;
    const struct steady__call call = {
        verb, amount, whole_key(t, key, key_len, room), t->prefix_len + key_len, &t->terms, t, callback, data};
    atomic_fetch_add_explicit(&t->holders, 1, memory_order_relaxed);
    error = t->store->class_->submit(t->store, &call);
    if (error != 0) release(t);
    return error;
}

/* Who waits may be freed by the log meanwhile. A store for any thread has no log, and is asked without an atomic. */
static void decide(steady_throttler *t, const struct steady__call *call, steady_result *result) {
    const bool any_thread = t->store->class_->any_thread;
    if (!any_thread) atomic_fetch_add_explicit(&t->holders, 1, memory_order_relaxed);
    t->store->class_->decide(t->store, call, result);
    if (result->error != 0) steady__policy(t, call, result);
    if (!any_thread) release(t);
}

static int ask_sync(steady_throttler *t, enum steady__verb verb, const void *key, size_t key_len, int64_t amount,
                    steady_result *result) {
    char room[STEADY__KEY_MAX];
    if (result == NULL) return STEADY_BAD_ARGUMENT;
    memset(result, 0, sizeof *result);
    result->error = check_call(t, key, key_len, amount);
    if (result->error == 0 && !t->store->class_->any_thread && !on_its_thread(t)) result->error = STEADY_BAD_ARGUMENT;
    if (result->error != 0) return result->error;
    const struct steady__call call = {.verb = verb,
                                      .amount = amount,
                                      .key = whole_key(t, key, key_len, room),
                                      .key_len = t->prefix_len + key_len,
                                      .terms = &t->terms,
                                      .throttler = t};
    decide(t, &call, result);
    return result->source == STEADY_FROM_NOWHERE ? result->error : 0;
}

int steady_consume(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                   steady_callback callback, void *data) {
    return ask(throttler, STEADY__CONSUME, key, key_len, amount, callback, data);
}

int steady_consume_sync(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                        steady_result *result) {
    return ask_sync(throttler, STEADY__CONSUME, key, key_len, amount, result);
}

int steady_peek(steady_throttler *throttler, const void *key, size_t key_len, steady_callback callback, void *data) {
    return ask(throttler, STEADY__PEEK, key, key_len, 1, callback, data);
}

int steady_peek_sync(steady_throttler *throttler, const void *key, size_t key_len, steady_result *result) {
    return ask_sync(throttler, STEADY__PEEK, key, key_len, 1, result);
}

int steady_reset(steady_throttler *throttler, const void *key, size_t key_len, steady_callback callback, void *data) {
    return ask(throttler, STEADY__RESET, key, key_len, 0, callback, data);
}

int steady_reset_sync(steady_throttler *throttler, const void *key, size_t key_len, steady_result *result) {
    return ask_sync(throttler, STEADY__RESET, key, key_len, 0, result);
}
