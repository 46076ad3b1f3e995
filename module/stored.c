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

#include "digits.h"

#define SECOND 1000000
#define SECONDS_DIGITS 10 /* of the seconds from the year 2001 to the year 2286 */
#define TIME_LEN (SECONDS_DIGITS + 1 + 6)

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

/* Reads a bucket without block and remainder: "<level> <10 digits>.<6 digits> 0". Returns false for any other text. */
static bool stored_parse_common(struct steady__bucket *bucket, const char *text, size_t len) {
    int64_t level = 0;
    if (len < TIME_LEN + 4) return false;
    const size_t level_len = len - TIME_LEN - 3;
    const char *time = text + level_len + 1, *point = time + SECONDS_DIGITS;
    if (time[-1] != ' ' || *point != '.' || point[7] != ' ' || point[8] != '0') return false;
    /* The last two digits of the seconds, and the decimals. */
    const uint64_t low = (steady__digits_load(point - 1) & ~(uint64_t)0xFFFF) | (unsigned char)point[-2] |
                         (uint64_t)(unsigned char)point[-1] << 8;
    const uint64_t high = steady__digits_load(time);
    const int64_t last = steady__digits_join(high) * STEADY__DIGITS_OF_WORD + steady__digits_join(low);
    if (!steady__digits_valid(high, low) || last >= STEADY__EXACT || !steady__digits_read(text, level_len, &level))
        return false;
    *bucket = (struct steady__bucket){.level = level, .last = last};
    return true;
}

static bool stored_parse_any(struct steady__bucket *bucket, const char *text, size_t len) {
    struct reader r = {text, text + len};
    struct steady__bucket b = {0};
    if (!stored_read_number(&r, &b.level) || b.level >= STEADY__EXACT || !stored_read_char(&r, ' ')) return false;
    if (!stored_read_time(&r, &b.last) || !stored_read_char(&r, ' ') || !stored_read_block(&r, &b.blocked_until))
        return false;
    if (r.at < r.end && (!stored_read_char(&r, ' ') || !stored_read_number(&r, &b.rem) || r.at < r.end)) return false;
    *bucket = b;
    return true;
}

bool steady__stored_parse(struct steady__bucket *bucket, const char *text, size_t len) {
    return stored_parse_common(bucket, text, len) || stored_parse_any(bucket, text, len);
}

/* The functions below write from the end to the front, so that digits need not be reversed. Each returns the begin of
 * its text. */

char *steady__put_number(char *end, uint64_t number) {
    for (; number >= STEADY__DIGITS_OF_WORD; number /= STEADY__DIGITS_OF_WORD) {
        end -= STEADY__DIGITS_WORD;
        steady__digits_put(end, (uint32_t)(number % STEADY__DIGITS_OF_WORD));
    }
    return steady__digits_put_before(end, (uint32_t)number);
}

static char *stored_put_time(char *end, int64_t us) {
    const int64_t high = us / STEADY__DIGITS_OF_WORD;
    if (high >= STEADY__DIGITS_OF_WORD / 10) { /* ten digits of seconds, the last two of them in the lower word */
        steady__digits_put(end - STEADY__DIGITS_WORD, (uint32_t)(us % STEADY__DIGITS_OF_WORD));
        memmove(end - 9, end - 8, 2);
        end[-7] = '.';
        steady__digits_put(end - TIME_LEN, (uint32_t)high);
        return end - TIME_LEN;
    }
    (void)steady__digits_put_before(end, (uint32_t)(us % SECOND)); /* two bytes more than the decimals */
    end -= 6;
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
