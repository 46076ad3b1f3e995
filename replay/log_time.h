/* SPDX-License-Identifier: MIT
 * Times and durations as logs write them, in exact microseconds. No locale, no time zone of this machine. */
#ifndef STEADY_REPLAY_LOG_TIME_H
#define STEADY_REPLAY_LOG_TIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rules/rules.h"

/* How many digits of a unit are in a second. */
enum log_time_unit { LOG_TIME_S = 0, LOG_TIME_MS = 3, LOG_TIME_US = 6, LOG_TIME_NS = 9, LOG_TIME_GUESS = 10 };

struct log_time {
    int64_t us;        /* since 1970; below the year 2201 */
    bool whole_second; /* the text has no fraction */
};

/* The last date and second that was read, because the next line often has the same. Zero it once. */
struct log_time_cache {
    char text[26];
    bool filled;
    int64_t seconds;
};

/* Each reads a whole text; false if it is anything else.
 * clf: "10/Oct/2000:13:55:36 -0700", in brackets or not; the zone may be missing, and a fraction may follow the second.
 * iso: "2000-10-10T13:55:36.123-07:00". The T may be a space, the point a comma. Without a zone it is UTC.
 * number: since 1970, "1700000000.123". LOG_TIME_GUESS takes the unit from the size.
 * any: one of these. */
bool log_time_clf(struct log_time *time, struct log_time_cache *cache, struct rules_text text);
bool log_time_iso(struct log_time *time, struct rules_text text);
bool log_time_number(struct log_time *time, struct rules_text text, enum log_time_unit unit);
bool log_time_any(struct log_time *time, struct log_time_cache *cache, struct rules_text text);

/* "2000-10-10" and "13:55:36.123", for columns of their own: us of the first moment of the day, and us of the day. */
bool log_time_date(int64_t *us, struct rules_text text);
bool log_time_of_day(int64_t *us, bool *whole_second, struct rules_text text);

/* A duration. With a suffix ("12ms", "1.5s", "1m2.5s") the suffix is the unit; LOG_TIME_GUESS takes nothing else. A
 * negative duration is none: it is an error of the log. */
bool log_time_duration(int64_t *us, struct rules_text text, enum log_time_unit unit);

/* ---- Times in a form of strftime(3), and %3f of Envoy: so many digits of a fraction ---- */

struct log_time_parts {
    int year, month, day, hour, minute, second; /* month: 1 to 12 */
    int64_t zone;                               /* seconds east of UTC */
    int64_t fraction;                           /* us */
    bool has_date, has_clock, has_epoch, has_fraction;
    int64_t epoch; /* us; if the log has it so */
};

/* The first letter of a form that log_time_pattern does not know; NULL: it knows all. */
const char *log_time_pattern_fault(const char *pattern, size_t len);

/* Reads the beginning of a text; returns the bytes that it used, 0 if it is not of the form. */
size_t log_time_pattern(struct log_time_parts *parts, const char *pattern, size_t len, struct rules_text text);

/* False if the parts are not enough for a time, or there is no such time. */
bool log_time_join(struct log_time *time, const struct log_time_parts *parts);

#endif
