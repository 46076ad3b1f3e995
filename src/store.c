/* SPDX-License-Identifier: MIT
 * The common part of all stores: checks the options, counts references, and forwards calls to the class of the store.
 */
#include "store.h"

#include <string.h>

#include "core/error.h"
#include "core/url.h"

#define TIMEOUT_MAX (24 * 3600 * STEADY_SECOND)
#define IN_FLIGHT_MAX (1u << 24)
#define BUCKETS_MAX (1u << 30)

static bool store_is_zero(const void *bytes, size_t len) {
    const unsigned char *at = bytes;
    while (len > 0 && at[len - 1] == 0)
        len--;
    return len == 0;
}

static int store_check_reserved(const steady_store_options *options, steady_message *why) {
    const steady_tls_options *tls = options->tls;
    const steady_loop *loop = options->loop;
    const char *name = NULL;
    if (!store_is_zero(options->reserved, sizeof options->reserved)) name = "steady_store_options";
    if (tls != NULL && !store_is_zero(tls->reserved, sizeof tls->reserved)) name = "steady_tls_options";
    if (loop != NULL && !store_is_zero(loop->reserved, sizeof loop->reserved)) name = "steady_loop";
    if (loop != NULL && !store_is_zero(loop->ops->reserved, sizeof loop->ops->reserved)) name = "steady_loop_ops";
    if (name == NULL) return 0;
    return steady__fail(why, STEADY_BAD_ARGUMENT, "reserved fields of %s must be zero", name);
}

int steady__options_check(const steady_store_options *options, steady_message *why) {
    if (options->timeout < 0 || options->timeout > TIMEOUT_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "timeout is %lld us; it must be 1 .. %lld, or 0 for the default",
                            (long long)options->timeout, (long long)TIMEOUT_MAX);
    if (options->connect_timeout < 0 || options->connect_timeout > TIMEOUT_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT,
                            "connect_timeout is %lld us; it must be 1 .. %lld, or 0 for the default",
                            (long long)options->connect_timeout, (long long)TIMEOUT_MAX);
    if (options->deny_memory < 0 || options->deny_memory > STEADY__DENY_MEMORY_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT,
                            "deny_memory is %lld us; it must be 1 .. %lld, or 0 for the default",
                            (long long)options->deny_memory, (long long)STEADY__DENY_MEMORY_MAX);
    if (options->deny_memory > 0 && options->deny_memory_off)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "deny_memory is set, and deny_memory_off, too; set one of them");
    if (options->lease_age != 0 &&
        (options->lease_age < STEADY__LEASE_AGE_MIN || options->lease_age > STEADY__LEASE_AGE_MAX))
        return steady__fail(why, STEADY_BAD_ARGUMENT, "lease_age is %lld us; it must be %lld .. %lld, or 0: no leases",
                            (long long)options->lease_age, (long long)STEADY__LEASE_AGE_MIN,
                            (long long)STEADY__LEASE_AGE_MAX);
    if (options->client_name != NULL && !steady__client_name_is_valid(options->client_name))
        return steady__fail(why, STEADY_BAD_ARGUMENT,
                            "client_name must be 1 to %d printable ASCII bytes without spaces",
                            STEADY__CLIENT_NAME_MAX);
    if (options->max_in_flight > IN_FLIGHT_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "max_in_flight is %lu; it must be 1 .. %lu, or 0 for the default",
                            (unsigned long)options->max_in_flight, (unsigned long)IN_FLIGHT_MAX);
    if (options->buckets > BUCKETS_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "buckets is %lu; it must be 1 .. %lu, or 0 for the default",
                            (unsigned long)options->buckets, (unsigned long)BUCKETS_MAX);
    if (options->engine > STEADY_ENGINE_MODULE)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "engine is %d; it must be a value of enum steady_engine",
                            (int)options->engine);
    return store_check_reserved(options, why);
}

void steady__store_init(steady_store *store, const struct steady__store_class *class_,
                        const steady_store_options *options) {
    store->class_ = class_;
    store->thread = pthread_self();
    atomic_init(&store->holders, 1);
    atomic_init(&store->closed, false);
    store->has_loop = options->loop != NULL;
    store->tag = 0;
    store->buckets = options->buckets;
    atomic_init(&store->local, NULL);
}

void steady__store_hold(steady_store *store) { atomic_fetch_add(&store->holders, 1); }

static void store_close_local(steady_store *store) {
    steady_store *local = atomic_exchange(&store->local, NULL);
    steady_store_close(&local);
}

void steady__store_release(steady_store *store) {
    if (atomic_fetch_sub(&store->holders, 1) != 1) return;
    store_close_local(store);
    store->class_->free(store);
}

void steady_store_close(steady_store **store) {
    if (store == NULL || *store == NULL) return;
    steady_store *s = *store;
    *store = NULL;
    atomic_store(&s->closed, true);
    s->class_->close(s);
    if (!s->class_->any_thread) store_close_local(s); /* otherwise a call of another thread may use it */
    steady__store_release(s);
}

void steady_store_stats(const steady_store *store, steady_stats *stats) {
    if (stats == NULL) return;
    memset(stats, 0, sizeof *stats);
    if (store != NULL) store->class_->stats(store, stats);
}

void steady_store_last_error(const steady_store *store, steady_message *last) {
    if (last == NULL) return;
    memset(last, 0, sizeof *last);
    if (store != NULL) store->class_->last_error(store, last);
}

enum steady_state steady_store_state(const steady_store *store) {
    if (store == NULL || atomic_load_explicit(&store->closed, memory_order_relaxed)) return STEADY_DOWN;
    return store->class_->state != NULL ? store->class_->state(store) : STEADY_READY;
}
