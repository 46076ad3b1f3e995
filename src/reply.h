/* SPDX-License-Identifier: MIT
 * Replies of a server, in the few shapes that our commands can be answered in. */
#ifndef STEADY__REPLY_H
#define STEADY__REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "script.h"

#define STEADY__REPLY_TEXT_MAX 64 /* a bulk string is a SHA-1 */

struct steady__reply {
    enum { STEADY__REPLY_INTEGERS, STEADY__REPLY_TEXT, STEADY__REPLY_ERROR } kind;
    size_t count;
    int64_t values[STEADY__REPLY_MAX];
    const char *text; /* of a text or an error; points into the bytes it was read from */
    size_t text_len;
};

/* Reads the reply that `bytes` begin with: how many bytes it took, 0 where it is not complete yet, -1 where it is
 * nothing that one of our commands is answered with, whatever may follow. */
ptrdiff_t steady__reply_read(struct steady__reply *reply, const char *bytes, size_t len);

/* The text of an error, fit for a message. A server may quote what it was sent: what is `secret` is left out, and
 * everything with it but the error's first word. */
void steady__reply_excuse(char *out, size_t size, const struct steady__reply *reply, const char *secret,
                          size_t secret_len);

#endif
