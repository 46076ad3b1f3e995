/* SPDX-License-Identifier: MIT
 * Opens the store or the pool that a URL names. */
#include "core/error.h"
#include "core/url.h"
#include "local/local_store.h"
#include "redis/pool.h"
#include "redis/redis_store.h"
#include "store.h"

#define CONNECTIONS 1 /* of a pool, by default */

static int open_check_clock(enum steady__scheme scheme, const steady_store_options *options, steady_message *why) {
    if (options->clock == NULL || scheme == STEADY__URL_MEMORY) return 0;
    return steady__fail(
        why, STEADY_BAD_ARGUMENT,
        scheme == STEADY__URL_FILE
            ? "clock is set, but other processes use the buckets of file:, too; only memory: takes a clock"
            : "clock is set, but a server uses a clock of its own; only memory: takes a clock");
}

static int open_check(struct steady__url *url, const char *text, const steady_store_options *options,
                      steady_message *why) {
    int error = steady__options_check(options, why);
    if (error == 0) error = steady__url_parse(url, text != NULL ? text : "memory:", why);
    if (error != 0) return error;
    if (options->tls != NULL && !steady__url_has_tls(url->scheme))
        error = steady__fail(why, STEADY_BAD_ARGUMENT, "TLS options are set, but the store URL is not rediss:");
    if (error == 0 && options->deny_memory > 0 &&
        (url->scheme == STEADY__URL_MEMORY || url->scheme == STEADY__URL_FILE))
        error = steady__fail(why, STEADY_BAD_ARGUMENT,
                             "deny_memory is set, but an embedded store answers each call in the process");
    if (error == 0 && options->lease_age > 0 && (url->scheme == STEADY__URL_MEMORY || url->scheme == STEADY__URL_FILE))
        error = steady__fail(why, STEADY_BAD_ARGUMENT,
                             "lease_age is set, but an embedded store answers each call in the process");
    if (error == 0) error = open_check_clock(url->scheme, options, why);
    if (error != 0) steady__url_clear(url);
    return error;
}

/* connections: of a pool; 0: not a pool. */
static int open_url(steady_store **store, struct steady__url *url, uint32_t connections,
                    const steady_store_options *options, steady_message *why) {
    int error;
    switch (url->scheme) {
    case STEADY__URL_MEMORY: error = steady__local_open(store, NULL, options, why); break;
    case STEADY__URL_FILE: error = steady__local_open(store, url->path, options, why); break;
    default:
        error = connections > 0 ? steady__pool_open(store, url, connections, options, why)
                                : steady__redis_open(store, url, options, why);
    }
    steady__url_clear(url);
    return error;
}

static const steady_store_options open_defaults;

int steady_store_open(steady_store **store, const char *text, const steady_store_options *options,
                      steady_message *why) {
    struct steady__url url;
    if (store == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "store is NULL");
    *store = NULL;
    if (options == NULL) options = &open_defaults;
    const int error = open_check(&url, text, options, why);
    return error != 0 ? error : open_url(store, &url, 0, options, why);
}

int steady_pool_open(steady_store **store, const char *text, uint32_t connections, const steady_store_options *options,
                     steady_message *why) {
    struct steady__url url;
    if (store == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "store is NULL");
    *store = NULL;
    if (options == NULL) options = &open_defaults;
    if (options->loop != NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "loop is set; it must be NULL: a pool has only ..._sync calls");
    if (connections > STEADY__POOL_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "connections is %lu; it must be 1 .. %d, or 0 for the default",
                            (unsigned long)connections, STEADY__POOL_MAX);
    const int error = open_check(&url, text, options, why);
    return error != 0 ? error : open_url(store, &url, connections > 0 ? connections : CONNECTIONS, options, why);
}
