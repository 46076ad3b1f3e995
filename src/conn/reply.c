/* SPDX-License-Identifier: MIT
 * Reads replies: the part of RESP2 in which our commands are answered.
 *
 * A reply is an integer, an array of at most 389 integers, a short text, or an error. Anything else is rejected at its
 * first line, before more of it is read or stored: nil, a nested array, a push, an array of a billion. After such a
 * reply the order of replies on the connection cannot be trusted. So the parser has no state and allocates nothing: a
 * partial reply is read again from its start when more bytes have come.
 *
 * The requests marked `nested` are the exception. Their replies may be arrays of arrays. They are read without
 * recursion, by counting the values that the arrays so far have announced. */
#include "conn/reply.h"

#include <string.h>

#define BAD (-1)
#define LINE_MAX_LEN 8192 /* the longest error; all other lines are numbers */

/* The length of the line at `at`, without its CR LF; -1 if the line is not complete. */
static ptrdiff_t reply_line_length(const char *bytes, size_t len, size_t at) {
    const char *end = memchr(bytes + at, '\r', len - at);
    if (end == NULL || end + 1 == bytes + len) return -1;
    return end - (bytes + at);
}

/* Reads a decimal integer as a server writes it: no '+', no leading zero, no "-0". Returns its bytes, or 0. */
static size_t reply_read_integer(const char *digits, size_t len, int64_t *value) {
    const size_t first = len > 0 && digits[0] == '-' ? 1 : 0;
    const size_t most = len < first + 19 ? len : first + 19;
    uint64_t n = 0;
    size_t at = first;
    for (unsigned digit; at < most && (digit = (unsigned)digits[at] - '0') < 10; at++)
        n = n * 10 + digit;
    if (at == first || (digits[first] == '0' && at > 1) || n > (uint64_t)INT64_MAX + first) return 0;
    *value = first == 1 ? (int64_t)(0 - n) : (int64_t)n;
    return at;
}

/* Reads a line of `type` and an integer at `at`. Returns its bytes; 0: not complete; BAD: something else. */
static ptrdiff_t reply_read_number_line(const char *bytes, size_t len, size_t at, char type, int64_t *value) {
    if (at == len) return 0;
    if (bytes[at] != type) return BAD;
    const char *line = bytes + at + 1;
    const size_t left = len - at - 1, n = reply_read_integer(line, left, value);
    if (n > 0 && left >= n + 2 && line[n] == '\r' && line[n + 1] == '\n') return (ptrdiff_t)n + 3;
    return left >= 24 || reply_line_length(bytes, len, at + 1) >= 0 ? BAD : 0;
}

static ptrdiff_t reply_read_one(struct steady__reply *reply, const char *bytes, size_t len) {
    reply->kind = STEADY__REPLY_INTEGERS;
    reply->count = 1;
    return reply_read_number_line(bytes, len, 0, ':', &reply->values[0]);
}

static ptrdiff_t reply_read_array(struct steady__reply *reply, const char *bytes, size_t len) {
    int64_t count = 0;
    ptrdiff_t took = reply_read_number_line(bytes, len, 0, '*', &count);
    if (took <= 0) return took;
    if (count < 2 || count > STEADY__REPLY_MAX) return BAD;
    size_t at = (size_t)took;
    for (int64_t i = 0; i < count; i++) {
        took = reply_read_number_line(bytes, len, at, ':', &reply->values[i]);
        if (took <= 0) return took;
        at += (size_t)took;
    }
    reply->kind = STEADY__REPLY_INTEGERS;
    reply->count = (size_t)count;
    return (ptrdiff_t)at;
}

static ptrdiff_t reply_read_bulk(struct steady__reply *reply, const char *bytes, size_t len) {
    int64_t text_len = 0;
    const ptrdiff_t head = reply_read_number_line(bytes, len, 0, '$', &text_len);
    if (head <= 0) return head;
    if (text_len < 0 || text_len > STEADY__REPLY_TEXT_MAX) return BAD;
    const size_t end = (size_t)head + (size_t)text_len;
    if (len < end + 2) return 0;
    if (bytes[end] != '\r' || bytes[end + 1] != '\n') return BAD;
    reply->kind = STEADY__REPLY_TEXT;
    reply->text = bytes + head;
    reply->text_len = (size_t)text_len;
    return (ptrdiff_t)end + 2;
}

static ptrdiff_t reply_read_line(struct steady__reply *reply, const char *bytes, size_t len) {
    const ptrdiff_t n = reply_line_length(bytes, len, 1);
    if (n < 0) return len > LINE_MAX_LEN ? BAD : 0;
    if (bytes[1 + (size_t)n + 1] != '\n' || memchr(bytes + 1, '\n', (size_t)n) != NULL) return BAD;
    reply->kind = bytes[0] == '-' ? STEADY__REPLY_ERROR : STEADY__REPLY_TEXT;
    reply->text = bytes + 1;
    reply->text_len = (size_t)n;
    if (bytes[0] == '-') reply->error_class = steady__error_class_of(reply->text, reply->text_len);
    return n + 3;
}

ptrdiff_t steady__reply_read(struct steady__reply *reply, const char *bytes, size_t len) {
    if (len == 0) return 0;
    reply->error_class = STEADY__ERROR_CLASS_NONE;
    switch (bytes[0]) {
    case ':': return reply_read_one(reply, bytes, len);
    case '*': return reply_read_array(reply, bytes, len);
    case '$': return reply_read_bulk(reply, bytes, len);
    case '-':
    case '+': return reply_read_line(reply, bytes, len);
    default: return BAD;
    }
}

/* ---- Nested replies ---- */

/* Reads the first line of a value: a type and a number. Returns its bytes, 0 or BAD. */
static ptrdiff_t reply_read_head(struct steady__value *value, const char *bytes, size_t len) {
    value->text = NULL;
    value->text_len = 0;
    return reply_read_number_line(bytes, len, 0, bytes[0], &value->number);
}

static ptrdiff_t reply_read_text_value(struct steady__value *value, const char *bytes, size_t len) {
    const ptrdiff_t head = reply_read_head(value, bytes, len);
    value->kind = value->number == -1 ? STEADY__VALUE_NIL : STEADY__VALUE_TEXT;
    if (head <= 0 || value->kind == STEADY__VALUE_NIL) return head;
    if (value->number < 0 || value->number > STEADY__VALUE_TEXT_MAX) return BAD;
    const size_t end = (size_t)head + (size_t)value->number;
    if (len < end + 2) return 0;
    value->text = bytes + head;
    value->text_len = (size_t)value->number;
    return bytes[end] == '\r' && bytes[end + 1] == '\n' ? (ptrdiff_t)end + 2 : BAD;
}

static ptrdiff_t reply_read_array_value(struct steady__value *value, const char *bytes, size_t len) {
    const ptrdiff_t head = reply_read_head(value, bytes, len);
    value->kind = value->number == -1 ? STEADY__VALUE_NIL : STEADY__VALUE_ARRAY;
    return head > 0 && (value->number < -1 || value->number > STEADY__VALUE_COUNT_MAX) ? BAD : head;
}

/* Reads a value, or the first line of an array. Returns its bytes, 0 or BAD. */
static ptrdiff_t reply_read_value(struct steady__value *value, const char *bytes, size_t len) {
    if (len == 0) return 0;
    value->number = 0;
    switch (bytes[0]) {
    case '$': return reply_read_text_value(value, bytes, len);
    case '*': return reply_read_array_value(value, bytes, len);
    case ':': value->kind = STEADY__VALUE_INTEGER; return reply_read_head(value, bytes, len);
    default: return BAD;
    }
}

/* Reads the announced values as far as they have come. 1: all are read; 0: more bytes are needed; or BAD. */
static ptrdiff_t reply_read_values(struct steady__progress *progress, const char *bytes, size_t len) {
    struct steady__value value;
    while (progress->due > 0) {
        const ptrdiff_t took = reply_read_value(&value, bytes + progress->at, len - progress->at);
        if (took <= 0) return took;
        if (++progress->read > STEADY__VALUES_MAX) return BAD;
        progress->at += (size_t)took;
        progress->due += value.kind == STEADY__VALUE_ARRAY ? value.number - 1 : -1;
    }
    return 1;
}

ptrdiff_t steady__reply_read_nested(struct steady__reply *reply, struct steady__progress *progress, const char *bytes,
                                    size_t len) {
    if (len > 0 && bytes[0] != '*' && bytes[0] != '$') return steady__reply_read(reply, bytes, len);
    if (progress->at == 0) progress->due = 1;
    const ptrdiff_t read = reply_read_values(progress, bytes, len);
    if (read == 0) return 0;
    const size_t end = progress->at;
    *progress = (struct steady__progress){0};
    if (read < 0) return BAD;
    reply->kind = STEADY__REPLY_NESTED;
    reply->error_class = STEADY__ERROR_CLASS_NONE;
    reply->text = bytes;
    reply->text_len = end;
    return (ptrdiff_t)end;
}

bool steady__value_is(const struct steady__value *value, const char *text) {
    return value->kind == STEADY__VALUE_TEXT && value->text_len == strlen(text) &&
           memcmp(value->text, text, value->text_len) == 0;
}

bool steady__walk_next(struct steady__walk *walk, struct steady__value *value) {
    const ptrdiff_t took = reply_read_value(value, walk->at, (size_t)(walk->end - walk->at));
    if (took <= 0) return false;
    walk->at += took;
    return true;
}

void steady__walk_skip(struct steady__walk *walk) {
    struct steady__value value;
    for (int64_t due = 1; due > 0 && steady__walk_next(walk, &value); due--)
        if (value.kind == STEADY__VALUE_ARRAY) due += value.number;
}
