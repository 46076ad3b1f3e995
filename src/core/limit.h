/* SPDX-License-Identifier: MIT
 * Checks and parses limits and durations. */
#ifndef STEADY__LIMIT_H
#define STEADY__LIMIT_H

#include "core/bucket.h"
#include "steady.h"

/* Checks a limit, and reduces drops and drop_recharge to lowest terms: 100 drops in 60 s become one in 0.6 s. That is
 * the same bucket to the microsecond, with less to compute and no remainder to store. */
int steady__limit_rate(struct steady__rate *rate, const steady_limit *limit, steady_message *why);

/* The greatest common divisor of two numbers above 0. */
int64_t steady__gcd(int64_t a, int64_t b);

#endif
