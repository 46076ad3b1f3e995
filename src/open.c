/* SPDX-License-Identifier: MIT
 * Opens the store that a URL names. */
#include "core/error.h"
#include "core/url.h"
#include "local/local_store.h"
#include "redis/redis_store.h"
#include "store.h"

int steady_store_open(steady_store **store, const char *text, const steady_store_options *options,
                      steady_message *why) {
    static const steady_store_options defaults;
    struct steady__url url;
    if (store == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "store is NULL");
    *store = NULL;
    if (options == NULL) options = &defaults;
    int error = steady__options_check(options, why);
    if (error == 0) error = steady__url_parse(&url, text != NULL ? text : "memory:", why);
    if (error != 0) return error;
    if (options->tls != NULL && !steady__url_has_tls(url.scheme)) {
        steady__url_clear(&url);
        return steady__fail(why, STEADY_BAD_ARGUMENT, "TLS options are set, but the store URL is not rediss:");
    }
    switch (url.scheme) {
    case STEADY__URL_MEMORY: error = steady__local_open(store, NULL, options, why); break;
    case STEADY__URL_FILE: error = steady__local_open(store, url.path, options, why); break;
    default: error = steady__redis_open(store, &url, options, why); break;
    }
    steady__url_clear(&url);
    return error;
}
