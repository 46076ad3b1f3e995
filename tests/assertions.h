/* SPDX-License-Identifier: MIT
 * cmocka, and the headers that it requires before it. */
#ifndef ASSERTIONS_H
#define ASSERTIONS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Both ends are included. The name of cmocka's own macro differs between its versions. */
#define assert_between(value, low, high)                                                                               \
    check_between((int64_t)(value), (int64_t)(low), (int64_t)(high), #value, __FILE__, __LINE__)

static inline void check_between(int64_t value, int64_t low, int64_t high, const char *what, const char *file,
                                 int line) {
    if (value >= low && value <= high) return;
    print_error("%s is %lld, not %lld to %lld\n", what, (long long)value, (long long)low, (long long)high);
    _fail(file, line);
}

/* Ends the test as skipped: this machine cannot run it. */
#define skip_because(reason) (print_message("# skipped: %s\n", reason), skip())

#endif
