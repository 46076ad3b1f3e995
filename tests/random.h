/* SPDX-License-Identifier: MIT
 * Seeded random numbers for tests: uniform ones, and ones near the values at which arithmetic fails. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stdint.h>

/* xorshift64* (Vigna 2016); the seed is not 0. */
static inline uint64_t random_next(uint64_t *seed) {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * UINT64_C(2685821657736338717);
}

/* low .. high, both included */
static inline int64_t random_in(uint64_t *seed, int64_t low, int64_t high) {
    return low + (int64_t)(random_next(seed) % ((uint64_t)(high - low) + 1));
}

/* low .. high. All magnitudes are equally likely, and the ends are frequent. */
static inline int64_t random_edgy(uint64_t *seed, int64_t low, int64_t high) {
    const uint64_t span = (uint64_t)(high - low);
    switch (random_next(seed) % 8) {
    case 0: return low;
    case 1: return high;
    case 2: return span > 0 ? high - 1 : high;
    case 3: return span > 0 ? low + 1 : low;
    case 4: return random_in(seed, low, high);
    default: break;
    }
    const uint64_t scaled = random_next(seed) >> (random_next(seed) % 64);
    return low + (int64_t)(scaled % (span + 1));
}

#endif
