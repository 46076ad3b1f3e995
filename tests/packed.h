/* SPDX-License-Identifier: MIT
 * The packed argument of the scripts, as the comments of lua/bucket.lua and lua/parts.lua define it. The tests write
 * and read it here, and not by command.c. */
#ifndef PACKED_H
#define PACKED_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/parts.h"

#define PACKED_PLAIN 16
#define PACKED_BUCKET 28 /* with drops and block */
#define PACKED_PART 29   /* and with a kind */

struct packed {
    double capacity, recharge, amount, drops, block, kind;
};

static inline void packed_put_i4(char *out, double number) {
    const uint32_t word = htole32((uint32_t)(int64_t)number);
    memcpy(out, &word, sizeof word);
}

static inline void packed_put_d(char *out, double number) {
    uint64_t word;
    memcpy(&word, &number, sizeof word);
    word = htole64(word);
    memcpy(out, &word, sizeof word);
}

/* Writes the first `len` bytes. */
static inline void packed_put(char *out, const struct packed *p, size_t len) {
    char bytes[PACKED_PART];
    packed_put_i4(bytes, p->capacity);
    packed_put_d(bytes + 4, p->recharge);
    packed_put_i4(bytes + 12, p->amount);
    packed_put_i4(bytes + 16, p->drops);
    packed_put_d(bytes + 20, p->block);
    bytes[28] = (char)p->kind;
    memcpy(out, bytes, len);
}

/* The shortest argument of a part, or of a bucket if `part` is false. Returns its length. */
static inline size_t packed_shortest(char *out, const struct steady__rate *rate, int64_t amount, enum steady__kind kind,
                                     bool part) {
    const bool plain = rate->drops == 1 && rate->block == 0 && kind == STEADY__TAKE;
    const size_t len = plain ? PACKED_PLAIN : part ? PACKED_PART : PACKED_BUCKET;
    packed_put(out,
               &(struct packed){(double)rate->capacity, (double)rate->recharge, (double)amount, (double)rate->drops,
                                (double)rate->block, (double)kind},
               len);
    return len;
}

static inline int64_t packed_get_i4(const char *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return (int32_t)le32toh(word);
}

static inline int64_t packed_get_d(const char *bytes) {
    uint64_t word;
    double number;
    memcpy(&word, bytes, sizeof word);
    word = le64toh(word);
    memcpy(&number, &word, sizeof number);
    return (int64_t)number;
}

/* Packs "capacity recharge drops block amount kind" in 29 bytes. Returns false if the text is not six numbers. */
static inline bool packed_of_text(char *out, const char *text) {
    struct packed p;
    int end = 0;
    if (sscanf(text, "%lf %lf %lf %lf %lf %lf%n", &p.capacity, &p.recharge, &p.drops, &p.block, &p.amount, &p.kind,
               &end) != 6 ||
        text[end] != '\0')
        return false;
    packed_put(out, &p, PACKED_PART);
    return true;
}

/* Writes the argument of a part as such a text. Returns its length. */
static inline int packed_to_text(char *out, const char *bytes, size_t len) {
    const bool plain = len == PACKED_PLAIN;
    if (!plain && len != PACKED_PART) return sprintf(out, "?");
    return sprintf(out, "%lld %lld %lld %lld %lld %d", (long long)packed_get_i4(bytes),
                   (long long)packed_get_d(bytes + 4), plain ? 1LL : (long long)packed_get_i4(bytes + 16),
                   plain ? 0LL : (long long)packed_get_d(bytes + 20), (long long)packed_get_i4(bytes + 12),
                   plain ? 0 : bytes[28]);
}

#endif
