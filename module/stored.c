/* SPDX-License-Identifier: MIT
 * A bucket as text, the way the scripts read and write it.
 *
 * What counts as a bucket is what lua/bucket.lua takes for one, to the byte: numbers may have leading zeros and any
 * length, seconds have exactly six decimals, "0" alone and "0.000000" both say that nothing is blocked. A level or a
 * time of 2^53 or more is none; a remainder of any size is one. */
#include "stored.h"

#include <string.h>

#define SECOND 1000000

struct reader {
    const char *at, *end;
};

/* Digits, at least one; a number of 2^53 or more is read as 2^53. */
static bool read_number(struct reader *r, int64_t *number) {
    const char *start = r->at;
    int64_t n = 0;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++)
        if (n < STEADY__EXACT) n = n * 10 + (*r->at - '0');
    *number = n < STEADY__EXACT ? n : STEADY__EXACT;
    return r->at > start;
}

static bool read_char(struct reader *r, char c) {
    if (r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

/* The six decimals of a second, after their point. */
static bool read_decimals(struct reader *r, int64_t seconds, int64_t *us) {
    const char *start = r->at;
    int64_t decimals = 0;
    if (!read_number(r, &decimals) || r->at - start != 6) return false;
    *us = seconds < STEADY__EXACT / SECOND + 1 ? seconds * SECOND + decimals : STEADY__EXACT;
    return *us < STEADY__EXACT;
}

static bool read_time(struct reader *r, int64_t *us) {
    int64_t seconds = 0;
    return read_number(r, &seconds) && read_char(r, '.') && read_decimals(r, seconds, us);
}

static bool read_block(struct reader *r, int64_t *us) {
    const char *start = r->at;
    int64_t seconds = 0;
    if (!read_number(r, &seconds)) return false;
    if (read_char(r, '.')) return read_decimals(r, seconds, us);
    *us = 0;
    return r->at - start == 1 && *start == '0';
}

bool steady__stored_parse(struct steady__bucket *bucket, const char *text, size_t len) {
    struct reader r = {text, text + len};
    struct steady__bucket b = {0};
    if (!read_number(&r, &b.level) || b.level >= STEADY__EXACT || !read_char(&r, ' ')) return false;
    if (!read_time(&r, &b.last) || !read_char(&r, ' ') || !read_block(&r, &b.blocked_until)) return false;
    if (r.at < r.end && (!read_char(&r, ' ') || !read_number(&r, &b.rem) || r.at < r.end)) return false;
    *bucket = b;
    return true;
}

/* Decimal digits, at least `width`. Returns the end. */
static char *put_number(char *out, int64_t number, int width) {
    char digits[20];
    int n = 0;
    for (; number > 0 || n < width; number /= 10)
        digits[n++] = (char)('0' + number % 10);
    while (n > 0)
        *out++ = digits[--n];
    return out;
}

static char *put_time(char *out, int64_t us) {
    out = put_number(out, us / SECOND, 1);
    *out++ = '.';
    return put_number(out, us % SECOND, 6);
}

size_t steady__stored_format(char text[STEADY__STORED_MAX], const struct steady__bucket *bucket) {
    char *end = put_number(text, bucket->level, 1);
    *end++ = ' ';
    end = put_time(end, bucket->last);
    *end++ = ' ';
    if (bucket->blocked_until != 0)
        end = put_time(end, bucket->blocked_until);
    else
        *end++ = '0';
    if (bucket->rem != 0) {
        *end++ = ' ';
        end = put_number(end, bucket->rem, 1);
    }
    return (size_t)(end - text);
}
