/* SPDX-License-Identifier: MIT
 * Decimal digits, eight at a time. Inline, because each decision reads and writes about sixty.
 *
 * A word holds eight digits, the first one in its lowest byte. Each step joins neighbours: digits to pairs, pairs to
 * four, and these to eight. Writing splits them in the reverse order. No step carries into a neighbour. */
#ifndef STEADY__MODULE_DIGITS_H
#define STEADY__MODULE_DIGITS_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define STEADY__DIGITS_WORD 8
#define STEADY__DIGITS_OF_WORD 100000000 /* 10^8 */
#define STEADY__DIGITS_MOST 15           /* any number with as many digits is below 2^53 */

static inline uint64_t steady__digits_load(const char *text) {
    uint64_t word;
    memcpy(&word, text, sizeof word);
    return le64toh(word);
}

/* Whether all bytes of two words are digits. */
static inline bool steady__digits_valid(uint64_t a, uint64_t b) {
    a ^= 0x3030303030303030;
    b ^= 0x3030303030303030;
    return ((a | b | (a + 0x7676767676767676) | (b + 0x7676767676767676)) & 0x8080808080808080) == 0;
}

/* The number of a valid word. */
static inline int64_t steady__digits_join(uint64_t word) {
    word &= 0x0F0F0F0F0F0F0F0F;
    word = word * 10 + (word >> 8);
    word = ((word & 0x000000FF000000FF) * (100 + ((uint64_t)1000000 << 32)) +
            ((word >> 16) & 0x000000FF000000FF) * (1 + ((uint64_t)10000 << 32))) >>
           32;
    return (int64_t)(uint32_t)word;
}

/* The word of 1 to 7 digits, with zeros before them. It reads only these bytes, some of them twice. */
static inline uint64_t steady__digits_load_short(const char *text, size_t len) {
    uint64_t word;
    if (len >= 4) {
        uint32_t first, last;
        memcpy(&first, text, sizeof first);
        memcpy(&last, text + len - 4, sizeof last);
        word = le32toh(first) | (uint64_t)le32toh(last) << 8 * (len - 4);
    } else {
        word = (unsigned char)text[0] | (uint64_t)(unsigned char)text[len / 2] << 8 * (len / 2) |
               (uint64_t)(unsigned char)text[len - 1] << 8 * (len - 1);
    }
    return word << 8 * (8 - len) | (uint64_t)0x3030303030303030 >> 8 * len;
}

/* Reads 1 to STEADY__DIGITS_MOST digits. Returns false for any other text. */
static inline bool steady__digits_read(const char *text, size_t len, int64_t *number) {
    if (len == 0 || len > STEADY__DIGITS_MOST) return false;
    if (len <= STEADY__DIGITS_WORD) {
        const uint64_t word =
            len < STEADY__DIGITS_WORD ? steady__digits_load_short(text, len) : steady__digits_load(text);
        *number = steady__digits_join(word);
        return steady__digits_valid(word, word);
    }
    const size_t more = len - STEADY__DIGITS_WORD;
    const uint64_t high = steady__digits_load_short(text, more), low = steady__digits_load(text + more);
    *number = steady__digits_join(high) * STEADY__DIGITS_OF_WORD + steady__digits_join(low);
    return steady__digits_valid(high, low);
}

/* The word of a number below 10^8: eight values of 0 to 9. */
static inline uint64_t steady__digits_split(uint32_t number) {
    uint64_t word = number / 10000 | (uint64_t)(number % 10000) << 32;
    const uint64_t hundreds = ((word * 10486) >> 20) & 0x0000007F0000007F; /* each four divided by 100 */
    word = hundreds | (word - hundreds * 100) << 16;
    const uint64_t tens = ((word * 103) >> 10) & 0x000F000F000F000F; /* each pair divided by 10 */
    return tens | (word - tens * 10) << 8;
}

static inline void steady__digits_store(char *text, uint64_t word) {
    word = htole64(word | 0x3030303030303030);
    memcpy(text, &word, sizeof word);
}

/* Writes a number below 10^8 with its leading zeros. */
static inline void steady__digits_put(char *text, uint32_t number) {
    steady__digits_store(text, steady__digits_split(number));
}

/* Writes a number below 10^8 as the 8 bytes before `end`. Returns the address of its first digit that is not 0, or of
 * the last digit. */
static inline char *steady__digits_put_before(char *end, uint32_t number) {
    const uint64_t word = steady__digits_split(number);
    steady__digits_store(end - STEADY__DIGITS_WORD, word);
    return end - STEADY__DIGITS_WORD + __builtin_ctzll(word | (uint64_t)1 << 56) / 8;
}

#endif
