/* SPDX-License-Identifier: MIT
 * SipHash in one call. siphash.h has the algorithm. */
#include "core/siphash.h"

struct steady__hash steady__siphash(const unsigned char key[STEADY__SIPHASH_KEY], const void *data, size_t len) {
    struct steady__siphash state;
    struct steady__hash hash;
    hash.word[0] = steady__siphash_first(&state, key, data, len);
    hash.word[1] = steady__siphash_second(&state);
    return hash;
}
