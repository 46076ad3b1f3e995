/* SPDX-License-Identifier: MIT
 * Failing with a reason. */
#ifndef STEADY__ERROR_H
#define STEADY__ERROR_H

#include "steady.h"

/* Writes the reason into *why where there is one (cut to its size) and returns `error`, so that a check is one line.
 * Never hand it a password. */
__attribute__((format(printf, 3, 4))) int steady__fail(steady_message *why, int error, const char *format, ...);

/* Bytes from outside, made fit for a message: printable ASCII, the rest as '?', cut to `size` with its NUL. */
void steady__printable(char *out, size_t size, const char *bytes, size_t len);

#endif
