/* SPDX-License-Identifier: MIT
 * The public calls of a throttler: they check the arguments and give the call to the store. */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/limit.h"
#include "local/local_store.h"
#include "policy.h"

/* ---- Creating a throttler ---- */

static int throttler_check_options(const steady_throttler_options *options, steady_message *why) {
    if ((int)options->on_error < STEADY_REPORT || options->on_error > STEADY_LOCAL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "on_error is %d; it must be a value of enum steady_policy",
                            (int)options->on_error);
    if (options->prefix != NULL && strlen(options->prefix) >= STEADY__KEY_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "prefix is %zu bytes long; it must be at most %d",
                            strlen(options->prefix), STEADY__KEY_MAX - 1);
    for (size_t i = 0; i < sizeof options->reserved / sizeof options->reserved[0]; i++)
        if (options->reserved[i] != 0)
            return steady__fail(why, STEADY_BAD_ARGUMENT, "reserved fields of steady_throttler_options must be zero");
    return 0;
}

/* One of `shares` shares of a rate: a share of the capacity, at least one drop, and of the leak rate. */
static struct steady__rate throttler_share_of(struct steady__rate rate, int64_t shares) {
    rate.capacity = rate.capacity / shares > 0 ? rate.capacity / shares : 1;
    const int64_t slowest = (STEADY__EXACT - 1) / rate.capacity;
    rate.recharge = rate.recharge <= slowest / shares ? rate.recharge * shares : slowest;
    return rate;
}

static int throttler_open_local(steady_store *store, steady_message *why) {
    if (store->local != NULL) return 0;
    const steady_store_options options = {.buckets = store->buckets != 0 ? store->buckets : 1 << 16};
    return steady__local_open(&store->local, NULL, &options, why);
}

static void throttler_prepare(const steady_store *store, struct steady__terms *terms) {
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
    int error = throttler_check_options(options, why);
    if (error == 0) error = steady__limit_rate(&rate, limit, why);
    if (error == 0 && options->on_error == STEADY_LOCAL) error = throttler_open_local(store, why);
    if (error != 0) return error;

    const size_t prefix_len = options->prefix != NULL ? strlen(options->prefix) : 0;
    steady_throttler *t = calloc(1, sizeof *t + prefix_len + 1);
    if (t == NULL) return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
    t->store = store;
    t->on_error = options->on_error;
    t->terms.rate = rate;
    throttler_prepare(store, &t->terms);
    t->local_terms.rate = throttler_share_of(rate, options->local_share > 0 ? options->local_share : 1);
    atomic_init(&t->holders, 1);
    t->prefix_len = prefix_len;
    if (prefix_len > 0) memcpy(t->prefix, options->prefix, prefix_len);
    steady__store_hold(store);
    *throttler = t;
    return 0;
}

void steady_throttler_free(steady_throttler **throttler) {
    if (throttler == NULL || *throttler == NULL) return;
    steady_throttler *t = *throttler;
    *throttler = NULL;
    steady__throttler_release(t);
}

/* ---- Calls ---- */

static int throttler_check_call(const steady_throttler *t, const void *key, size_t key_len, int64_t amount) {
    if (t == NULL || key == NULL || key_len == 0) return STEADY_BAD_ARGUMENT;
    if (key_len > STEADY__KEY_MAX - t->prefix_len) return STEADY_BAD_ARGUMENT;
    if (amount > STEADY__AMOUNT_MAX || amount < -STEADY__AMOUNT_MAX) return STEADY_BAD_ARGUMENT;
    return atomic_load_explicit(&t->store->closed, memory_order_acquire) ? STEADY_CLOSED : 0;
}

/* The key with the prefix before it. It is in `room` if there is a prefix. */
static const char *throttler_whole_key(const steady_throttler *t, const void *key, size_t key_len, char *room) {
    if (t->prefix_len == 0) return key;
    memcpy(room, t->prefix, t->prefix_len);
    memcpy(room + t->prefix_len, key, key_len);
    return room;
}

static bool throttler_on_its_thread(const steady_throttler *t) {
    return pthread_equal(t->store->thread, pthread_self()) != 0;
}

static int throttler_ask(steady_throttler *t, enum steady__verb verb, const void *key, size_t key_len, int64_t amount,
                         steady_callback callback, void *data, uint64_t *id) {
    char room[STEADY__KEY_MAX];
    int error = throttler_check_call(t, key, key_len, amount);
    if (error != 0) return error;
    if (callback == NULL) return STEADY_BAD_ARGUMENT;
    if (!t->store->has_loop) return STEADY_NO_LOOP;
    if (!throttler_on_its_thread(t)) return STEADY_WRONG_THREAD;
    const struct steady__call call = {.verb = verb,
                                      .amount = amount,
                                      .key = throttler_whole_key(t, key, key_len, room),
                                      .key_len = t->prefix_len + key_len,
                                      .terms = &t->terms,
                                      .throttler = t,
                                      .callback = callback,
                                      .data = data};
    steady__throttler_hold(t);
    uint64_t call_id = 0;
    error = t->store->class_->submit(t->store, &call, &call_id);
    if (error != 0) steady__throttler_release(t);
    if (error == 0 && id != NULL) *id = call_id;
    return error;
}

/* Hold a reference: the log callback may free this throttler. A store for any thread has no log, and needs no hold. */
static void throttler_decide(steady_throttler *t, const struct steady__call *call, steady_result *result) {
    const bool any_thread = t->store->class_->any_thread;
    if (!any_thread) steady__throttler_hold(t);
    t->store->class_->decide(t->store, call, result);
    if (result->error != 0) steady__policy_apply(t, call, result);
    if (!any_thread) steady__throttler_release(t);
}

static int throttler_ask_sync(steady_throttler *t, enum steady__verb verb, const void *key, size_t key_len,
                              int64_t amount, steady_result *result) {
    char room[STEADY__KEY_MAX];
    if (result == NULL) return STEADY_BAD_ARGUMENT;
    memset(result, 0, sizeof *result);
    result->error = throttler_check_call(t, key, key_len, amount);
    if (result->error == 0 && !t->store->class_->any_thread && !throttler_on_its_thread(t))
        result->error = STEADY_WRONG_THREAD;
    if (result->error != 0) return result->error;
    const struct steady__call call = {.verb = verb,
                                      .amount = amount,
                                      .key = throttler_whole_key(t, key, key_len, room),
                                      .key_len = t->prefix_len + key_len,
                                      .terms = &t->terms,
                                      .throttler = t};
    throttler_decide(t, &call, result);
    return result->source == STEADY_FROM_NOWHERE ? result->error : 0;
}

int steady_consume(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                   steady_callback callback, void *data) {
    return throttler_ask(throttler, STEADY__CONSUME, key, key_len, amount, callback, data, NULL);
}

int steady_consume_sync(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                        steady_result *result) {
    return throttler_ask_sync(throttler, STEADY__CONSUME, key, key_len, amount, result);
}

int steady_peek(steady_throttler *throttler, const void *key, size_t key_len, steady_callback callback, void *data) {
    return throttler_ask(throttler, STEADY__PEEK, key, key_len, 1, callback, data, NULL);
}

int steady_peek_sync(steady_throttler *throttler, const void *key, size_t key_len, steady_result *result) {
    return throttler_ask_sync(throttler, STEADY__PEEK, key, key_len, 1, result);
}

int steady_reset(steady_throttler *throttler, const void *key, size_t key_len, steady_callback callback, void *data) {
    return throttler_ask(throttler, STEADY__RESET, key, key_len, 0, callback, data, NULL);
}

int steady_reset_sync(steady_throttler *throttler, const void *key, size_t key_len, steady_result *result) {
    return throttler_ask_sync(throttler, STEADY__RESET, key, key_len, 0, result);
}

/* ---- The long form ---- */

static int throttler_long_form(const steady_call *call, enum steady__verb *verb, int64_t *amount) {
    static const enum steady__verb verbs[] = {STEADY__CONSUME, STEADY__PEEK, STEADY__RESET};
    if (call == NULL || (int)call->verb < STEADY_CONSUME || call->verb > STEADY_RESET) return STEADY_BAD_ARGUMENT;
    for (size_t i = 0; i < sizeof call->reserved / sizeof call->reserved[0]; i++)
        if (call->reserved[i] != 0) return STEADY_BAD_ARGUMENT;
    *verb = verbs[call->verb];
    *amount = call->verb == STEADY_CONSUME ? call->amount : call->verb == STEADY_PEEK ? 1 : 0;
    return 0;
}

int steady_decide(steady_throttler *throttler, const steady_call *call, steady_callback callback, void *data,
                  uint64_t *id) {
    enum steady__verb verb;
    int64_t amount;
    const int error = throttler_long_form(call, &verb, &amount);
    if (error != 0) return error;
    return throttler_ask(throttler, verb, call->key, call->key_len, amount, callback, data, id);
}

int steady_decide_sync(steady_throttler *throttler, const steady_call *call, steady_result *result) {
    enum steady__verb verb;
    int64_t amount;
    const int error = throttler_long_form(call, &verb, &amount);
    if (error == 0) return throttler_ask_sync(throttler, verb, call->key, call->key_len, amount, result);
    if (result != NULL) *result = (steady_result){.error = error};
    return error;
}

int steady_cancel(steady_throttler *throttler, uint64_t id) {
    if (throttler == NULL) return STEADY_BAD_ARGUMENT;
    if (!throttler_on_its_thread(throttler)) return STEADY_WRONG_THREAD;
    return throttler->store->class_->cancel(throttler->store, id) ? 0 : STEADY_NOT_IN_FLIGHT;
}
