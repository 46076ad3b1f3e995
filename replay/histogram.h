/* SPDX-License-Identifier: MIT
 * How often each value came, in bounded memory: exact below 4096, then 128 steps from one power of two to the next. */
#ifndef STEADY_REPLAY_HISTOGRAM_H
#define STEADY_REPLAY_HISTOGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_EXACT = 4096, HISTOGRAM_STEPS = 128, HISTOGRAM_SIZE = HISTOGRAM_EXACT + (63 - 12) * HISTOGRAM_STEPS };

/* All zero is an empty one. Pages that were never written take no memory, if it comes from calloc. */
struct histogram {
    uint64_t n;
    int64_t most;
    uint64_t counts[HISTOGRAM_SIZE];
};

/* value: 0 or more. */
void histogram_add(struct histogram *histogram, int64_t value);

/* The smallest value with at least this many values at or below it. Over 4096 it is up to 1/128 higher, and no value is
 * over the largest. rank: 1 to n; -1 if there is no value. */
int64_t histogram_rank(const struct histogram *histogram, uint64_t rank);

/* The value that this share of all values does not pass. */
int64_t histogram_quantile(const struct histogram *histogram, double share);

/* Calls for each step with values: its largest value, and how many there are. */
void histogram_each(const struct histogram *histogram, void (*call)(void *data, int64_t value, uint64_t n), void *data);

/* The rank of the value that at least this share of n values does not pass. */
uint64_t histogram_rank_of(uint64_t n, double share);

#endif
