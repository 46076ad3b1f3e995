/* SPDX-License-Identifier: MIT
 * Makes throttlers: checks their limits and options. call.c has the calls on them. */
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
    if (options->max_ahead < 0 || options->max_ahead > STEADY__MAX_WAIT)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "max_ahead is %lld us; it must be 0 .. %lld us (2^52)",
                            (long long)options->max_ahead, (long long)STEADY__MAX_WAIT);
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

/* Several threads may make throttlers of a pool at once. The first one that has opened a store keeps it. */
static int throttler_open_local(steady_store *store, steady_message *why) {
    steady_store *none = NULL, *local = NULL;
    if (atomic_load(&store->local) != NULL) return 0;
    const steady_store_options options = {.buckets = store->buckets != 0 ? store->buckets : 1 << 16};
    const int error = steady__local_open(&local, NULL, &options, why);
    if (error == 0 && !atomic_compare_exchange_strong(&store->local, &none, local)) steady_store_close(&local);
    return error;
}

static void throttler_name_limit(struct steady__throttler_limit *to, const steady_limit *limit) {
    if (limit->name != NULL)
        memcpy(to->name, limit->name, strlen(limit->name) + 1);
    else
        steady__duration_text(to->name, sizeof to->name, limit->drop_recharge);
}

static int throttler_fill_limit(steady_throttler *t, size_t at, const steady_limit *limit, uint32_t shares,
                                steady_message *why) {
    struct steady__throttler_limit *to = &t->limits[at];
    steady_message flaw = {.text = ""};
    const int error = steady__limit_rate(&to->terms.rate, limit, &flaw);
    if (error != 0 && t->n_limits == 1) return steady__fail(why, error, "%s", flaw.text);
    if (error != 0) return steady__fail(why, error, "limits[%zu]: %s", at, flaw.text);
    if (t->store->class_->prepare != NULL) t->store->class_->prepare(&to->terms);
    to->local_terms.rate = throttler_share_of(to->terms.rate, shares > 0 ? shares : 1);
    throttler_name_limit(to, limit);
    for (size_t i = 0; i < at; i++)
        if (strcmp(t->limits[i].name, to->name) == 0)
            return steady__fail(
                why, STEADY_BAD_ARGUMENT,
                "limits[%zu]: the name \"%s\" is that of limits[%zu]; two limits of one period need names", at,
                to->name, i);
    return 0;
}

/* With several limits the key is written in braces, so that a cluster keeps its buckets together. If the prefix has {}
 * as its first braces, the cluster hashes the whole key, and they are in different slots. */
static bool throttler_prefix_breaks_hash_tag(const char *prefix) {
    const char *brace = prefix != NULL ? strchr(prefix, '{') : NULL;
    return brace != NULL && brace[1] == '}';
}

int steady_throttler_new_limits(steady_throttler **throttler, steady_store *store, const steady_limit *limits,
                                size_t n_limits, const steady_throttler_options *options, steady_message *why) {
    static const steady_throttler_options defaults;
    if (throttler == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "throttler is NULL");
    *throttler = NULL;
    if (options == NULL) options = &defaults;
    if (store == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "store is NULL");
    if (atomic_load(&store->closed)) return steady__fail(why, STEADY_CLOSED, "the store is closed");
    if (limits == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "limit is NULL");
    if (n_limits < 1 || n_limits > STEADY__PARTS_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "n_limits is %zu; it must be 1 .. %d", n_limits,
                            STEADY__PARTS_MAX);
    int error = throttler_check_options(options, why);
    if (error == 0 && n_limits > 1 && throttler_prefix_breaks_hash_tag(options->prefix))
        error = steady__fail(why, STEADY_BAD_ARGUMENT,
                             "prefix has \"{}\" as its first brace; with several limits it must not, because a cluster "
                             "would keep the buckets of a key apart");
    if (error != 0) return error;

    const size_t prefix_len = options->prefix != NULL ? strlen(options->prefix) : 0;
    steady_throttler *t = calloc(1, sizeof *t + n_limits * sizeof t->limits[0] + prefix_len + 1);
    if (t == NULL) return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
    t->store = store;
    t->on_error = options->on_error;
    t->clamp = options->clamp;
    t->max_ahead = options->max_ahead;
    atomic_init(&t->holders, 1);
    t->n_limits = n_limits;
    t->prefix = (char *)&t->limits[n_limits];
    t->prefix_len = prefix_len;
    if (prefix_len > 0) memcpy(t->prefix, options->prefix, prefix_len);
    for (size_t i = 0; i < n_limits && error == 0; i++)
        error = throttler_fill_limit(t, i, &limits[i], options->local_share, why);
    if (error == 0 && options->on_error == STEADY_LOCAL) error = throttler_open_local(store, why);
    if (error != 0) {
        free(t);
        return error;
    }
    steady__store_hold(store);
    *throttler = t;
    return 0;
}

int steady_throttler_new(steady_throttler **throttler, steady_store *store, const steady_limit *limit,
                         const steady_throttler_options *options, steady_message *why) {
    return steady_throttler_new_limits(throttler, store, limit, 1, options, why);
}

void steady_throttler_free(steady_throttler **throttler) {
    if (throttler == NULL || *throttler == NULL) return;
    steady_throttler *t = *throttler;
    *throttler = NULL;
    steady__throttler_release(t);
}
