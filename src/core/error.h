/* SPDX-License-Identifier: MIT
 * Error messages. */
#ifndef STEADY__ERROR_H
#define STEADY__ERROR_H

#include <stdatomic.h>

#include "steady.h"

/* Writes the reason into *why, cut to its size. why may be NULL. Returns `error`, so that a check takes one line. The
 * arguments must not contain a secret. */
__attribute__((format(printf, 3, 4))) int steady__fail(steady_message *why, int error, const char *format, ...);

/* The text of the last error of a store. One thread writes it; any thread may copy it. */
struct steady__last_error {
    atomic_uint edition; /* texts written so far; the last one is in texts[edition % 2] */
    _Atomic(uint64_t) texts[2][sizeof((steady_message *)NULL)->text / sizeof(uint64_t)];
};

/* Writes the text, cut to the size of a message, and returns `error`. */
__attribute__((format(printf, 3, 4))) int steady__note_error(struct steady__last_error *last, int error,
                                                             const char *format, ...);
void steady__last_error_set(struct steady__last_error *last, const steady_message *message);
void steady__last_error_get(const struct steady__last_error *last, steady_message *message);

/* Copies bytes from outside into a message. Bytes other than printable ASCII become '?'. The text is cut to `size`. */
void steady__printable(char *out, size_t size, const char *bytes, size_t len);

#endif
