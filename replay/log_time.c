/* SPDX-License-Identifier: MIT
 * Times and durations as logs write them. */
#include "log_time.h"

#include <string.h>

enum { DAY = 86400, YEAR_FIRST = 1970, YEAR_LAST = 2200 };

static const int64_t log_time_end = INT64_C(7289654400);           /* the first second of the year 2201 */
static const int64_t log_time_longest = 366 * DAY * STEADY_SECOND; /* a longer duration is an error of the log */

static bool log_time_is_digit(char c) { return c >= '0' && c <= '9'; }

/* Two digits; -1: these are none. */
static int log_time_two(const char *at) {
    return log_time_is_digit(at[0]) && log_time_is_digit(at[1]) ? (at[0] - '0') * 10 + (at[1] - '0') : -1;
}

static int log_time_four(const char *at) {
    const int high = log_time_two(at), low = log_time_two(at + 2);
    return high < 0 || low < 0 ? -1 : high * 100 + low;
}

/* 1 to 12, 0 if it is no month. */
static int log_time_month(const char *at) {
    static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    for (int i = 0; i < 12; i++)
        if (memcmp(names + 3 * i, at, 3) == 0) return i + 1;
    return 0;
}

/* Seconds since 1970 of the beginning of a day; -1: there is no such day. */
static int64_t log_time_day(int year, int month, int day) {
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    if (year < YEAR_FIRST || year > YEAR_LAST || month < 1 || month > 12 || day < 1) return -1;
    const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    const int length = before[month] - before[month - 1] + (leap && month == 2 ? 1 : 0);
    if (day > length) return -1;
    const int y = year - 1; /* complete years, for their leap days */
    const int leap_days = y / 4 - y / 100 + y / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    const int days = (year - 1970) * 365 + leap_days + before[month - 1] + (leap && month > 2 ? 1 : 0) + day - 1;
    return (int64_t)days * DAY;
}

/* Seconds of a day; -1: there is no such time. A leap second counts as the second before it. */
static int log_time_clock(int hour, int minute, int second) {
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) return -1;
    return hour * 3600 + minute * 60 + (second == 60 ? 59 : second);
}

static bool log_time_set(struct log_time *time, int64_t seconds, int64_t us, bool whole_second) {
    if (seconds < 0 || seconds >= log_time_end) return false;
    *time = (struct log_time){.us = seconds * STEADY_SECOND + us, .whole_second = whole_second};
    return true;
}

/* "+0200", "+02:00", "+02" or "Z". Returns the bytes that it used, 0 if it is no zone. */
static size_t log_time_zone(int64_t *zone, const char *at, size_t len) {
    if (len >= 1 && (at[0] == 'Z' || at[0] == 'z')) {
        *zone = 0;
        return 1;
    }
    if (len < 3 || (at[0] != '+' && at[0] != '-')) return 0;
    const int hours = log_time_two(at + 1);
    const size_t colon = len > 3 && at[3] == ':' ? 1 : 0;
    const int minutes = len >= 5 + colon ? log_time_two(at + 3 + colon) : -1;
    if (hours < 0 || hours > 23 || minutes > 59 || (colon == 1 && minutes < 0)) return 0;
    const int64_t east = hours * 3600 + (minutes < 0 ? 0 : minutes) * 60;
    *zone = at[0] == '-' ? -east : east;
    return minutes < 0 ? 3 : 5 + colon;
}

/* The digits of a fraction of a second, in us. Returns their number; those after the sixth do not count. */
static size_t log_time_fraction(int64_t *us, const char *at, size_t len) {
    int64_t value = 0;
    size_t n = 0;
    for (; n < len && log_time_is_digit(at[n]); n++)
        if (n < 6) value = value * 10 + (at[n] - '0');
    for (size_t i = n; i < 6; i++)
        value *= 10;
    *us = value;
    return n;
}

/* "DD/Mon/YYYY:HH:MM:SS": 20 bytes. -1: it is none. */
static int64_t log_time_clf_second(const char *at) {
    if (at[2] != '/' || at[6] != '/' || at[11] != ':' || at[14] != ':' || at[17] != ':') return -1;
    const int64_t day = log_time_day(log_time_four(at + 7), log_time_month(at + 3), log_time_two(at));
    const int clock = log_time_clock(log_time_two(at + 12), log_time_two(at + 15), log_time_two(at + 18));
    return day < 0 || clock < 0 ? -1 : day + clock;
}

bool log_time_clf(struct log_time *time, struct log_time_cache *cache, struct rules_text text) {
    if (text.len >= 2 && text.bytes[0] == '[' && text.bytes[text.len - 1] == ']')
        text = (struct rules_text){text.bytes + 1, text.len - 2};
    if (cache->filled && text.len == sizeof cache->text && memcmp(cache->text, text.bytes, sizeof cache->text) == 0) {
        *time = (struct log_time){.us = cache->seconds * STEADY_SECOND, .whole_second = true};
        return true;
    }
    if (text.len < 20) return false;
    const int64_t local = log_time_clf_second(text.bytes);
    const char *at = text.bytes + 20, *end = text.bytes + text.len;
    int64_t us = 0, zone = 0;
    bool whole = true;
    if (local < 0) return false;
    if (at < end && (*at == '.' || *at == ',')) {
        const size_t n = log_time_fraction(&us, at + 1, (size_t)(end - at - 1));
        if (n == 0) return false;
        at += n + 1;
        whole = false;
    }
    if (at < end) {
        if (*at == ' ') at++;
        const size_t n = log_time_zone(&zone, at, (size_t)(end - at));
        if (n == 0 || at + n != end) return false;
    }
    if (!log_time_set(time, local - zone, us, whole)) return false;
    if (whole && text.len == sizeof cache->text) {
        memcpy(cache->text, text.bytes, sizeof cache->text);
        cache->seconds = local - zone;
        cache->filled = true;
    }
    return true;
}

bool log_time_iso(struct log_time *time, struct rules_text text) {
    const char *at = text.bytes, *const end = text.bytes + text.len;
    int64_t us = 0, zone = 0, day;
    bool whole = true;
    if (text.len < 19 || (at[10] != 'T' && at[10] != 't' && at[10] != ' ' && at[10] != '_')) return false;
    if (!log_time_date(&day, (struct rules_text){at, 10}) || at[13] != ':' || at[16] != ':') return false;
    const int clock = log_time_clock(log_time_two(at + 11), log_time_two(at + 14), log_time_two(at + 17));
    if (clock < 0) return false;
    at += 19;
    if (at < end && (*at == '.' || *at == ',')) {
        const size_t n = log_time_fraction(&us, at + 1, (size_t)(end - at - 1));
        if (n == 0) return false;
        at += n + 1;
        whole = false;
    }
    if (at < end && *at == ' ') at++;
    if (at < end) {
        const size_t n = log_time_zone(&zone, at, (size_t)(end - at));
        const bool utc = end - at == 3 && memcmp(at, "UTC", 3) == 0;
        if (!utc && (n == 0 || at + n != end)) return false;
    }
    return log_time_set(time, day / STEADY_SECOND + clock - zone, us, whole);
}

/* A decimal number: digits * 10^exponent. */
struct log_time_decimal {
    uint64_t digits;
    int exponent;
    bool negative, fraction;
};

enum { DIGITS_MAX = 19, EXPONENT_MAX = 400 };

/* Reads a number at the beginning of a text, with a sign, a fraction and an exponent. Digits after the 19th do not
 * count. Returns the bytes that it used, 0 if it is no number. */
static size_t log_time_decimal(struct log_time_decimal *number, struct rules_text text) {
    const char *at = text.bytes, *const end = text.bytes + text.len;
    int significant = 0, digits = 0;
    *number = (struct log_time_decimal){0};
    if (at < end && (*at == '-' || *at == '+')) number->negative = *at++ == '-';
    for (; at < end && (log_time_is_digit(*at) || (*at == '.' && !number->fraction)); at++) {
        if (*at == '.') {
            number->fraction = true;
            continue;
        }
        digits++;
        const bool counts = significant < DIGITS_MAX;
        if (counts) number->digits = number->digits * 10 + (uint64_t)(*at - '0');
        if (counts && number->digits > 0) significant++;
        if (counts && number->fraction) number->exponent--;
        if (!counts && !number->fraction && number->exponent < EXPONENT_MAX) number->exponent++;
    }
    if (digits == 0) return 0;
    if (end - at >= 2 && (*at == 'e' || *at == 'E')) {
        const char *e = at + 1;
        const bool minus = *e == '-';
        int power = 0;
        if (*e == '-' || *e == '+') e++;
        if (e == end || !log_time_is_digit(*e)) return 0;
        for (; e < end && log_time_is_digit(*e); e++)
            if (power < EXPONENT_MAX) power = power * 10 + (*e - '0');
        number->exponent += minus ? -power : power;
        at = e;
    }
    return (size_t)(at - text.bytes);
}

/* The number times 10^power, towards 0. False: it is over 2^62. */
static bool log_time_scale(int64_t *result, const struct log_time_decimal *number, int power) {
    uint64_t value = number->digits;
    int shift = number->exponent + power;
    for (; shift < 0 && value > 0; shift++)
        value /= 10;
    for (; shift > 0 && value > 0; shift--)
        if (__builtin_mul_overflow(value, 10, &value)) return false;
    if (value > (uint64_t)1 << 62) return false;
    *result = (int64_t)value;
    return true;
}

bool log_time_number(struct log_time *time, struct rules_text text, enum log_time_unit unit) {
    struct log_time_decimal number;
    int64_t whole, us;
    if (text.len == 0 || log_time_decimal(&number, text) != text.len || number.negative) return false;
    if (!log_time_scale(&whole, &number, 0)) return false;
    if (unit == LOG_TIME_GUESS)
        unit = whole < INT64_C(100000000000)         ? LOG_TIME_S
               : whole < INT64_C(100000000000000)    ? LOG_TIME_MS
               : whole < INT64_C(100000000000000000) ? LOG_TIME_US
                                                     : LOG_TIME_NS;
    if (!log_time_scale(&us, &number, 6 - (int)unit) || us >= log_time_end * STEADY_SECOND) return false;
    *time = (struct log_time){.us = us, .whole_second = unit == LOG_TIME_S && !number.fraction};
    return true;
}

bool log_time_any(struct log_time *time, struct log_time_cache *cache, struct rules_text text) {
    if (text.len >= 11 && text.bytes[4] == '-') return log_time_iso(time, text);
    if (text.len >= 20 && memchr(text.bytes, '/', 4) != NULL) return log_time_clf(time, cache, text);
    return log_time_number(time, text, LOG_TIME_GUESS);
}

bool log_time_date(int64_t *us, struct rules_text text) {
    const char *at = text.bytes;
    if (text.len != 10 || (at[4] != '-' && at[4] != '/') || at[7] != at[4]) return false;
    const int64_t day = log_time_day(log_time_four(at), log_time_two(at + 5), log_time_two(at + 8));
    *us = day * STEADY_SECOND;
    return day >= 0;
}

bool log_time_of_day(int64_t *us, bool *whole_second, struct rules_text text) {
    const char *at = text.bytes;
    int64_t fraction = 0;
    if (text.len < 8 || at[2] != ':' || at[5] != ':') return false;
    const int clock = log_time_clock(log_time_two(at), log_time_two(at + 3), log_time_two(at + 6));
    *whole_second = text.len == 8;
    if (text.len > 8 &&
        (at[8] != '.' || text.len == 9 || log_time_fraction(&fraction, at + 9, text.len - 9) != text.len - 9))
        return false;
    *us = clock * STEADY_SECOND + fraction;
    return clock >= 0;
}

/* The unit at the beginning of a text, as the power of ten that makes it us; minutes and hours have a factor. */
static size_t log_time_suffix(int *power, int64_t *factor, struct rules_text text) {
    static const struct {
        const char *text;
        int power;
        int64_t factor;
    } units[] = {{"ns", -3, 1}, {"us", 0, 1}, {"\xc2\xb5s", 0, 1}, {"\xce\xbcs", 0, 1},
                 {"ms", 3, 1},  {"s", 6, 1},  {"m", 6, 60},        {"h", 6, 3600}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        const size_t len = strlen(units[i].text);
        if (text.len < len || memcmp(text.bytes, units[i].text, len) != 0) continue;
        *power = units[i].power;
        *factor = units[i].factor;
        return len;
    }
    return 0;
}

bool log_time_duration(int64_t *us, struct rules_text text, enum log_time_unit unit) {
    struct log_time_decimal number;
    int64_t sum = 0, part, factor;
    int power;
    if (text.len == 0) return false;
    for (bool first = true; text.len > 0; first = false) {
        const size_t n = log_time_decimal(&number, text);
        if (n == 0 || number.negative) return false;
        text = (struct rules_text){text.bytes + n, text.len - n};
        if (first && text.len == 0)
            return unit != LOG_TIME_GUESS && log_time_scale(us, &number, 6 - (int)unit) && *us <= log_time_longest;
        const size_t suffix = log_time_suffix(&power, &factor, text);
        if (suffix == 0 || !log_time_scale(&part, &number, power)) return false;
        if (__builtin_mul_overflow(part, factor, &part) || __builtin_add_overflow(sum, part, &sum)) return false;
        text = (struct rules_text){text.bytes + suffix, text.len - suffix};
    }
    *us = sum;
    return sum <= log_time_longest;
}

/* ---- Times in a form of strftime(3) ---- */

const char *log_time_pattern_fault(const char *pattern, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (pattern[i] != '%') continue;
        const size_t digit = i + 2 < len && log_time_is_digit(pattern[i + 1]) && pattern[i + 2] == 'f' ? 1 : 0;
        if (i + 1 == len || strchr("YmdeHMSTFDRbhyzZstnf%", pattern[i + 1 + digit]) == NULL) return pattern + i;
        i += 1 + digit;
    }
    return NULL;
}

/* A number of 1 to `width` digits; a space may come before it. Returns the bytes that it used. */
static size_t log_time_digits(int *value, struct rules_text text, size_t width) {
    size_t n = 0;
    *value = 0;
    if (text.len > 1 && text.bytes[0] == ' ' && width == 2) n++;
    const size_t blank = n;
    for (; n < text.len && n < width && log_time_is_digit(text.bytes[n]); n++)
        *value = *value * 10 + (text.bytes[n] - '0');
    return n > blank ? n : 0;
}

/* width: of %f, the digits of the fraction. */
static size_t log_time_letter(struct log_time_parts *parts, char letter, size_t width, struct rules_text text) {
    struct log_time number;
    int year;
    size_t n = 0;
    switch (letter) {
    case 'Y': return log_time_digits(&parts->year, text, 4);
    case 'm': return log_time_digits(&parts->month, text, 2);
    case 'd':
    case 'e': parts->has_date = true; return log_time_digits(&parts->day, text, 2);
    case 'H': parts->has_clock = true; return log_time_digits(&parts->hour, text, 2);
    case 'M': return log_time_digits(&parts->minute, text, 2);
    case 'S': return log_time_digits(&parts->second, text, 2);
    case 'T': return log_time_pattern(parts, "%H:%M:%S", 8, text);
    case 'R': return log_time_pattern(parts, "%H:%M", 5, text);
    case 'F': return log_time_pattern(parts, "%Y-%m-%d", 8, text);
    case 'D': return log_time_pattern(parts, "%m/%d/%y", 8, text);
    case 'b':
    case 'h': parts->month = text.len >= 3 ? log_time_month(text.bytes) : 0; return parts->month > 0 ? 3 : 0;
    case 'y':
        n = log_time_digits(&year, text, 2);
        parts->year = year + (year < 70 ? 2000 : 1900);
        return n;
    case 'z': return log_time_zone(&parts->zone, text.bytes, text.len);
    case 'Z':
        while (n < text.len && text.bytes[n] >= 'A' && text.bytes[n] <= 'Z')
            n++;
        return n;
    case 's':
        while (n < text.len && log_time_is_digit(text.bytes[n]))
            n++;
        if (!log_time_number(&number, (struct rules_text){text.bytes, n}, LOG_TIME_S)) return 0;
        parts->epoch = number.us;
        parts->has_epoch = true;
        return n;
    case 'f':
        parts->has_fraction = true;
        return log_time_fraction(&parts->fraction, text.bytes, text.len < width ? text.len : width);
    default: /* %%, %t, %n */
        return text.len > 0 && text.bytes[0] == (letter == 't' ? '\t' : letter == 'n' ? '\n' : letter) ? 1 : 0;
    }
}

size_t log_time_pattern(struct log_time_parts *parts, const char *pattern, size_t len, struct rules_text text) {
    size_t at = 0;
    for (size_t i = 0; i < len; i++) {
        size_t n = at < text.len && text.bytes[at] == pattern[i] ? 1 : 0;
        if (pattern[i] == '%' && i + 1 < len) {
            const bool digit = i + 2 < len && log_time_is_digit(pattern[i + 1]);
            const size_t width = digit ? (size_t)(pattern[i + 1] - '0') : 9;
            i += digit ? 2 : 1;
            n = log_time_letter(parts, pattern[i], width, (struct rules_text){text.bytes + at, text.len - at});
        }
        if (n == 0) return 0;
        at += n;
    }
    return at;
}

bool log_time_join(struct log_time *time, const struct log_time_parts *parts) {
    if (parts->has_epoch) {
        const int64_t us = parts->epoch + parts->fraction;
        *time = (struct log_time){.us = us, .whole_second = !parts->has_fraction && us % STEADY_SECOND == 0};
        return true;
    }
    if (!parts->has_date || !parts->has_clock) return false;
    const int64_t day = log_time_day(parts->year, parts->month, parts->day);
    const int clock = log_time_clock(parts->hour, parts->minute, parts->second);
    return day >= 0 && clock >= 0 &&
           log_time_set(time, day + clock - parts->zone, parts->fraction, !parts->has_fraction);
}
