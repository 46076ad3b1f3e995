/* SPDX-License-Identifier: MIT
 * Stands in for the embedded store if the processor has no 16-byte compare-and-swap: see table.c. */
#include "core/error.h"
#include "local/local_store.h"

int steady__local_open(steady_store **store, const char *path, const steady_store_options *options,
                       steady_message *why) {
    (void)path;
    (void)options;
    *store = NULL;
    return steady__fail(why, STEADY_UNSUPPORTED,
                        "this build has no embedded store (memory:, file:, on_error local): the processor has no "
                        "16-byte compare-and-swap");
}

bool steady__local_is_private(const steady_store *store) {
    (void)store;
    return false;
}

int steady__local_clear(steady_store *store) {
    (void)store;
    return STEADY_UNSUPPORTED;
}
