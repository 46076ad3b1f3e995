/* SPDX-License-Identifier: MIT
 * SipHash-2-4 with 128 bits of output: a keyed hash. Without the key no collisions can be found. */
#ifndef STEADY__SIPHASH_H
#define STEADY__SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define STEADY__SIPHASH_KEY 16

struct steady__hash {
    uint64_t word[2];
};

struct steady__hash steady__siphash(const unsigned char key[STEADY__SIPHASH_KEY], const void *data, size_t len);

#endif
