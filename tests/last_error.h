/* SPDX-License-Identifier: MIT
 * The last error of a store as an expression. Valid until the next call in this file. */
#ifndef LAST_ERROR_H
#define LAST_ERROR_H

#include "steady.h"

static inline const char *last_error_of(const steady_store *store) {
    static steady_message last;
    steady_store_last_error(store, &last);
    return last.text;
}

#endif
