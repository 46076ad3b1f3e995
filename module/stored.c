/* SPDX-License-Identifier: MIT
 * The text of a bucket, as in the scripts.
 *
 * It accepts exactly the texts that lua/bucket.lua accepts:
 *
 *   - numbers may have leading zeros and any length;
 *   - seconds have six decimals; "0" alone and "0.000000" mean that the key is not blocked;
 *   - a level or a time of 2^53 or more is not accepted; a remainder of any size is. */
#include "stored.h"

#include <string.h>

#define SECOND 1000000

struct reader {
    const char *at, *end;
};

/* Reads at least one digit. A number of 2^53 or more becomes 2^53. */
static bool stored_read_number(struct reader *r, int64_t *number) {
    const char *at = r->at;
    int64_t n = 0;
    for (; at < r->end && *at >= '0' && *at <= '9'; at++)
        if (n < STEADY__EXACT) n = n * 10 + (*at - '0');
    *number = n < STEADY__EXACT ? n : STEADY__EXACT;
    const bool found = at > r->at;
    r->at = at;
    return found;
}

static bool stored_read_char(struct reader *r, char c) {
    if (r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

/* Reads the six decimals of a second, after the point. */
static bool stored_read_decimals(struct reader *r, int64_t seconds, int64_t *us) {
    const char *start = r->at;
    int64_t decimals = 0;
    if (!stored_read_number(r, &decimals) || r->at - start != 6) return false;
    *us = seconds < STEADY__EXACT / SECOND + 1 ? seconds * SECOND + decimals : STEADY__EXACT;
    return *us < STEADY__EXACT;
}

static bool stored_read_time(struct reader *r, int64_t *us) {
    int64_t seconds = 0;
    return stored_read_number(r, &seconds) && stored_read_char(r, '.') && stored_read_decimals(r, seconds, us);
}

static bool stored_read_block(struct reader *r, int64_t *us) {
    const char *start = r->at;
    int64_t seconds = 0;
    if (!stored_read_number(r, &seconds)) return false;
    if (stored_read_char(r, '.')) return stored_read_decimals(r, seconds, us);
    *us = 0;
    return r->at - start == 1 && *start == '0';
}

bool steady__stored_parse(struct steady__bucket *bucket, const char *text, size_t len) {
    struct reader r = {text, text + len};
    struct steady__bucket b = {0};
    if (!stored_read_number(&r, &b.level) || b.level >= STEADY__EXACT || !stored_read_char(&r, ' ')) return false;
    if (!stored_read_time(&r, &b.last) || !stored_read_char(&r, ' ') || !stored_read_block(&r, &b.blocked_until))
        return false;
    if (r.at < r.end && (!stored_read_char(&r, ' ') || !stored_read_number(&r, &b.rem) || r.at < r.end)) return false;
    *bucket = b;
    return true;
}

/* The functions below write from the end to the front, so that digits need not be reversed. Each returns the begin of
 * its text. */

static char *stored_put_pair(char *end, unsigned two_digits) {
    static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    return memcpy(end - 2, pairs + 2 * (size_t)two_digits, 2);
}

char *steady__put_number(char *end, uint64_t number) {
    for (; number >= 100; number /= 100)
        end = stored_put_pair(end, (unsigned)(number % 100));
    if (number >= 10) return stored_put_pair(end, (unsigned)number);
    *--end = (char)('0' + number);
    return end;
}

static char *stored_put_time(char *end, int64_t us) {
    uint32_t decimals = (uint32_t)(us % SECOND);
    for (int pairs = 0; pairs < 3; pairs++, decimals /= 100)
        end = stored_put_pair(end, decimals % 100);
    *--end = '.';
    return steady__put_number(end, (uint64_t)(us / SECOND));
}

static char *stored_put_char(char *end, char c) {
    *--end = c;
    return end;
}

const char *steady__stored_format(char *end, const struct steady__bucket *bucket, size_t *len) {
    char *at = end;
    if (bucket->rem != 0) at = stored_put_char(steady__put_number(at, (uint64_t)bucket->rem), ' ');
    at = bucket->blocked_until != 0 ? stored_put_time(at, bucket->blocked_until) : stored_put_char(at, '0');
    at = stored_put_time(stored_put_char(at, ' '), bucket->last);
    at = steady__put_number(stored_put_char(at, ' '), (uint64_t)bucket->level);
    *len = (size_t)(end - at);
    return at;
}
