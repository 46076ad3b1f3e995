/* SPDX-License-Identifier: MIT
 * Limits and durations: checked, parsed. */
#ifndef STEADY__LIMIT_H
#define STEADY__LIMIT_H

#include "bucket.h"
#include "steady.h"

/* The checked form of a limit, drops at least 1 and reduced against drop_recharge where they share a factor (100 drops
 * in 60 s are one in 0.6 s): the same bucket to the microsecond, with less to compute and no remainder to store. */
int steady__limit_rate(struct steady__rate *rate, const steady_limit *limit, steady_message *why);

/* The greatest common divisor of two numbers above 0. */
int64_t steady__gcd(int64_t a, int64_t b);

#endif
