/* SPDX-License-Identifier: MIT
 * SipHash-1-3 with 128 bits of output, after Aumasson and Bernstein: a keyed hash. Without the key no collisions can be
 * found.
 *
 * One round for each word and three at the end: the variant for hash tables, as in Rust and Python. No attack on it is
 * known. An attacker chooses the keys of a rate limiter, but never sees the hash of one. So do not show the hash of a
 * text that others choose: that takes SipHash-2-4.
 *
 * It is inlined into the embedded store. The two halves of the output are computed one after the other. So the store
 * can use the first half while the processor still computes the second one. */
#ifndef STEADY__SIPHASH_H
#define STEADY__SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Steady needs a little-endian machine"
#endif

#define STEADY__SIPHASH_KEY 16

struct steady__hash {
    uint64_t word[2];
};

struct steady__hash steady__siphash(const unsigned char key[STEADY__SIPHASH_KEY], const void *data, size_t len);

/* ---- In two steps ---- */

/* The state between the two halves. */
struct steady__siphash {
    uint64_t a, b, c, d;
};

static inline uint64_t siphash_rotate(uint64_t x, unsigned bits) { return (x << bits) | (x >> (64 - bits)); }

static inline void siphash_round(struct steady__siphash *s) {
    s->a += s->b;
    s->c += s->d;
    s->b = siphash_rotate(s->b, 13) ^ s->a;
    s->d = siphash_rotate(s->d, 16) ^ s->c;
    s->a = siphash_rotate(s->a, 32) + s->d;
    s->c += s->b;
    s->d = siphash_rotate(s->d, 21) ^ s->a;
    s->b = siphash_rotate(s->b, 17) ^ s->c;
    s->c = siphash_rotate(s->c, 32);
}

static inline void siphash_absorb(struct steady__siphash *s, uint64_t word) {
    s->d ^= word;
    siphash_round(s);
    s->a ^= word;
}

static inline uint64_t siphash_finish(struct steady__siphash *s) {
    siphash_round(s);
    siphash_round(s);
    siphash_round(s);
    return s->a ^ s->b ^ s->c ^ s->d;
}

/* The bytes left over, and the length in the highest byte. */
static inline uint64_t siphash_last_word(const unsigned char *data, size_t len) {
    uint64_t word = (uint64_t)len << 56, last;
    const size_t left = len & 7;
    const unsigned char *tail = data + (len - left);
    if (left > 0 && len >= sizeof last) {
        memcpy(&last, data + len - sizeof last, sizeof last);
        return word | last >> (8 * (sizeof last - left));
    }
    for (size_t i = 0; i < left; i++)
        word |= (uint64_t)tail[i] << (8 * i);
    return word;
}

/* word[0]. */
static inline uint64_t steady__siphash_first(struct steady__siphash *s, const unsigned char key[STEADY__SIPHASH_KEY],
                                             const void *data, size_t len) {
    uint64_t k[2], word;
    memcpy(k, key, sizeof k);
    s->a = k[0] ^ 0x736f6d6570736575;
    s->b = k[1] ^ 0x646f72616e646f6d ^ 0xee;
    s->c = k[0] ^ 0x6c7967656e657261;
    s->d = k[1] ^ 0x7465646279746573;
    for (size_t at = 0; at + 8 <= len; at += 8) {
        memcpy(&word, (const unsigned char *)data + at, sizeof word);
        siphash_absorb(s, word);
    }
    siphash_absorb(s, siphash_last_word(data, len));
    s->c ^= 0xee;
    return siphash_finish(s);
}

/* word[1]. */
static inline uint64_t steady__siphash_second(struct steady__siphash *s) {
    s->b ^= 0xdd;
    return siphash_finish(s);
}

#endif
