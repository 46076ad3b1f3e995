/* SPDX-License-Identifier: MIT
 * Error messages. */
#ifndef STEADY__ERROR_H
#define STEADY__ERROR_H

#include <stdatomic.h>

#include "steady.h"

/* Writes the reason into *why, cut to its size. why may be NULL. Returns `error`, so that a check takes one line. The
 * arguments must not contain a secret. */
__attribute__((format(printf, 3, 4))) int steady__fail(steady_message *why, int error, const char *format, ...);

/* Copies bytes from outside into a message. Bytes other than printable ASCII become '?'. The text is cut to `size`. */
void steady__printable(char *out, size_t size, const char *bytes, size_t len);

#endif
