/* SPDX-License-Identifier: MIT
 * Writes requests in RESP, the protocol of Redis. Inline, because each decision is written with it. */
#ifndef STEADY__RESP_H
#define STEADY__RESP_H

#include <stdint.h>
#include <string.h>

/* Each function writes to `out`, and returns the end of the written bytes. */

/* Decimal digits, in any locale; much faster than printf. */
static inline char *steady__resp_put_number(char *out, int64_t number) {
    char digits[20];
    size_t n = 0;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    if (number < 0) *out++ = '-';
    do
        digits[n++] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    while (n > 0)
        *out++ = digits[--n];
    return out;
}

static inline char *steady__resp_put(char *out, const char *bytes, size_t len) {
    /* cppcheck-suppress uninitvar ; the callers fill it */
    memcpy(out, bytes, len);
    return out + len;
}

static inline char *steady__resp_put_bulk(char *out, const char *bytes, size_t len) {
    *out++ = '$';
    out = steady__resp_put_number(out, (int64_t)len);
    out = steady__resp_put(out, "\r\n", 2);
    out = steady__resp_put(out, bytes, len);
    return steady__resp_put(out, "\r\n", 2);
}

static inline char *steady__resp_put_integer(char *out, int64_t number) {
    char digits[24];
    return steady__resp_put_bulk(out, digits, (size_t)(steady__resp_put_number(digits, number) - digits));
}

/* A whole command of `argc` texts. Returns its length. */
static inline size_t steady__resp_command(char *out, int argc, const char *const *argv) {
    char *end = out;
    *end++ = '*';
    end = steady__resp_put_number(end, argc);
    end = steady__resp_put(end, "\r\n", 2);
    for (int i = 0; i < argc; i++)
        end = steady__resp_put_bulk(end, argv[i], strlen(argv[i]));
    return (size_t)(end - out);
}

/* Makes a node of a cluster answer the next command for a slot that it is about to get. The reply to ASKING itself is
 * ignored. */
#define STEADY__ASKING "*1\r\n$6\r\nASKING\r\n"

#endif
