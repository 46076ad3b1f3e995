/* SPDX-License-Identifier: MIT
 * Checks and parses limits and durations. */
#ifndef STEADY__LIMIT_H
#define STEADY__LIMIT_H

#include "core/bucket.h"
#include "steady.h"

#define STEADY__NAME_MAX 64 /* bytes of the name of a limit */

/* Checks a limit, and reduces drops and drop_recharge to lowest terms: 100 drops in 60 s become one in 0.6 s. That is
 * the same bucket to the microsecond, with less to compute and no remainder to store. */
int steady__limit_rate(struct steady__rate *rate, const steady_limit *limit, steady_message *why);

/* Writes a duration as steady_duration_parse reads it, such as "1m" or "1h30m"; 0 is "0s". At most 40 bytes. */
void steady__duration_text(char *out, size_t size, steady_us duration);

/* The greatest common divisor of two numbers above 0. */
int64_t steady__gcd(int64_t a, int64_t b);

#endif
