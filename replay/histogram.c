/* SPDX-License-Identifier: MIT
 * How often each value came, in bounded memory. */
#include "histogram.h"

#include <math.h>

static size_t histogram_index(int64_t value) {
    if (value < HISTOGRAM_EXACT) return (size_t)value;
    const int power = 63 - __builtin_clzll((unsigned long long)value); /* 12 or more */
    const size_t step = (size_t)(value >> (power - 7)) - HISTOGRAM_STEPS;
    return HISTOGRAM_EXACT + (size_t)(power - 12) * HISTOGRAM_STEPS + step;
}

/* The largest value of a step. */
static int64_t histogram_value(size_t index) {
    if (index < HISTOGRAM_EXACT) return (int64_t)index;
    const size_t above = index - HISTOGRAM_EXACT, power = 12 + above / HISTOGRAM_STEPS;
    const uint64_t step = HISTOGRAM_STEPS + above % HISTOGRAM_STEPS;
    return (int64_t)(((step + 1) << (power - 7)) - 1);
}

void histogram_add(struct histogram *histogram, int64_t value) {
    histogram->counts[histogram_index(value)]++;
    histogram->n++;
    if (value > histogram->most) histogram->most = value;
}

int64_t histogram_rank(const struct histogram *histogram, uint64_t rank) {
    uint64_t seen = 0;
    if (histogram->n == 0) return -1;
    for (size_t i = 0; i < HISTOGRAM_SIZE; i++) {
        seen += histogram->counts[i];
        if (seen >= rank) return histogram_value(i) < histogram->most ? histogram_value(i) : histogram->most;
    }
    return histogram->most;
}

uint64_t histogram_rank_of(uint64_t n, double share) {
    /* 0.999 of 1000 is 999, although the nearest double is a little over it. */
    const double rank = ceil(share * (double)n - 1e-9 * (double)n);
    return rank < 1 ? 1 : rank > (double)n ? n : (uint64_t)rank;
}

int64_t histogram_quantile(const struct histogram *histogram, double share) {
    return histogram_rank(histogram, histogram_rank_of(histogram->n, share));
}

void histogram_each(const struct histogram *histogram, void (*call)(void *data, int64_t value, uint64_t n),
                    void *data) {
    for (size_t i = 0; i < HISTOGRAM_SIZE; i++)
        if (histogram->counts[i] > 0)
            call(data, histogram_value(i) < histogram->most ? histogram_value(i) : histogram->most,
                 histogram->counts[i]);
}
