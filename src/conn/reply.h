/* SPDX-License-Identifier: MIT
 * Replies of a server, in the few shapes that our commands have. */
#ifndef STEADY__REPLY_H
#define STEADY__REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conn/server_error.h"

/* The integers of a reply, at most. A call on one bucket is answered with 1 to 5, a call on 64 with up to 5 + 6 * 64.
 */
#define STEADY__REPLY_MAX 389
#define STEADY__REPLY_TEXT_MAX 64 /* a bulk string is a SHA-1 */

enum steady__reply_kind { STEADY__REPLY_INTEGERS, STEADY__REPLY_TEXT, STEADY__REPLY_ERROR, STEADY__REPLY_NESTED };

struct steady__reply {
    enum steady__reply_kind kind;
    enum steady__error_class error_class; /* NONE unless kind is STEADY__REPLY_ERROR */
    size_t count;
    int64_t values[STEADY__REPLY_MAX]; /* the first `count` are filled */
    const char *text; /* the text of a TEXT or ERROR, all bytes of a NESTED; points into the bytes that were read */
    size_t text_len;
};

/* Reads the reply at the start of `bytes`. Returns its length; 0 if it is not complete; -1 if none of our commands has
 * such a reply. */
ptrdiff_t steady__reply_read(struct steady__reply *reply, const char *bytes, size_t len);

/* The values that a reply may hold, so that walking over all of them takes 5 ms at most. A map in which each slot is a
 * range of its own, with two replicas, has 16384 x 19. */
#define STEADY__VALUES_MAX 393216

/* How far a partial reply has been read. All zero: not at all. */
struct steady__progress {
    size_t at;
    int64_t due, read; /* values */
};

/* Reads a reply with texts and nested arrays. An array, a bulk string or nil becomes STEADY__REPLY_NESTED; read it with
 * steady__walk_next. After 0, call this again with more bytes: it continues. Otherwise *progress is zero again. */
ptrdiff_t steady__reply_read_nested(struct steady__reply *reply, struct steady__progress *progress, const char *bytes,
                                    size_t len);

#define STEADY__VALUE_TEXT_MAX 4096
#define STEADY__VALUE_COUNT_MAX 16384

struct steady__value {
    enum { STEADY__VALUE_NIL, STEADY__VALUE_INTEGER, STEADY__VALUE_TEXT, STEADY__VALUE_ARRAY } kind;
    int64_t number; /* the integer; or how many values the array holds, which come next */
    const char *text;
    size_t text_len;
};

bool steady__value_is(const struct steady__value *value, const char *text);

struct steady__walk {
    const char *at, *end;
};

static inline struct steady__walk steady__walk_over(const struct steady__reply *reply) {
    if (reply->kind != STEADY__REPLY_NESTED) return (struct steady__walk){"", ""};
    return (struct steady__walk){reply->text, reply->text + reply->text_len};
}

/* The next value; an array comes before its values. False at the end. */
bool steady__walk_next(struct steady__walk *walk, struct steady__value *value);

/* Skips the next value, with all values inside. */
void steady__walk_skip(struct steady__walk *walk);

#endif
