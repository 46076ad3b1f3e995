/* SPDX-License-Identifier: MIT
 * SipHash-1-3-128 for every length of a key, against an implementation of any number of rounds. With two and four
 * rounds that one agrees with libsodium's SipHash-2-4-128. Also against vectors of the authors' siphash.c, built with
 * -DcROUNDS=1 -DdROUNDS=3. */
#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

#include "assertions.h"
#include "core/siphash.h"
#include "store.h"

/* ---- Plainly, after the paper ---- */

static uint64_t v[4];

static uint64_t left(uint64_t x, unsigned bits) { return x << bits | x >> (64 - bits); }

static void rounds(int count) {
    for (; count > 0; count--) {
        v[0] += v[1], v[1] = left(v[1], 13), v[1] ^= v[0], v[0] = left(v[0], 32);
        v[2] += v[3], v[3] = left(v[3], 16), v[3] ^= v[2];
        v[0] += v[3], v[3] = left(v[3], 21), v[3] ^= v[0];
        v[2] += v[1], v[1] = left(v[1], 17), v[1] ^= v[2], v[2] = left(v[2], 32);
    }
}

static uint64_t little_endian(const unsigned char *bytes, size_t n) {
    uint64_t word = 0;
    for (size_t i = 0; i < n; i++)
        word |= (uint64_t)bytes[i] << (8 * i);
    return word;
}

static void plainly(uint64_t out[2], const unsigned char *key, const unsigned char *data, size_t len, int each,
                    int last) {
    static const uint64_t start[4] = {0x736f6d6570736575, 0x646f72616e646f6d, 0x6c7967656e657261, 0x7465646279746573};
    for (size_t i = 0; i < 4; i++)
        v[i] = start[i] ^ little_endian(key + i % 2 * 8, 8);
    v[1] ^= 0xee;
    for (size_t at = 0; at <= len; at += 8) {
        const uint64_t whole =
            at + 8 <= len ? little_endian(data + at, 8) : little_endian(data + at, len - at) | (uint64_t)len << 56;
        v[3] ^= whole;
        rounds(each);
        v[0] ^= whole;
    }
    v[2] ^= 0xee;
    rounds(last);
    out[0] = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    rounds(last);
    out[1] = v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- Comparisons ---- */

static void agrees(const unsigned char *key, const unsigned char *data, size_t len) {
    uint64_t theirs[2];
    const struct steady__hash ours = steady__siphash(key, data, len);
    plainly(theirs, key, data, len, 1, 3);
    assert_memory_equal(&ours, theirs, sizeof theirs);
}

static void plain_one_agrees_with_libsodium(const unsigned char *key, const unsigned char *data, size_t len) {
    unsigned char theirs[16];
    uint64_t plain[2];
    plainly(plain, key, data, len, 2, 4);
    assert_int_equal(crypto_shorthash_siphashx24(theirs, data, len, key), 0);
    assert_memory_equal(plain, theirs, sizeof theirs);
}

static void siphash_agrees_for_every_length(void **state) {
    (void)state;
    unsigned char key[STEADY__SIPHASH_KEY], data[STEADY__KEY_MAX];
    for (int round = 0; round < 20; round++) {
        randombytes_buf(key, sizeof key);
        randombytes_buf(data, sizeof data);
        for (size_t len = 0; len <= sizeof data; len++) {
            plain_one_agrees_with_libsodium(key, data, len);
            agrees(key, data, len);
        }
    }
}

static void siphash_agrees_with_the_vectors_of_its_authors(void **state) {
    (void)state;
    static const struct {
        size_t len;
        const char *hash;
    } vectors[] = {
        {0, "\xe7\x7e\xbc\xb2\x27\x88\xa5\xbe\xfd\x62\xdb\x6a\xdd\x30\x30\x01"},
        {1, "\xfc\x6f\x37\x04\x60\xd3\xed\xa8\x5e\x05\x73\xcc\x2b\x2f\xf0\x63"},
        {7, "\x10\x84\xb9\x23\xf2\xaa\xe0\xc3\xa6\x2f\x2e\xc8\x08\x48\xab\x77"},
        {8, "\xaa\x12\xfe\xe1\xd5\xe3\xda\xb4\x72\x4f\x16\xab\x35\xf9\xc7\x99"},
        {9, "\x81\xdd\xb8\x04\x2c\xf3\x39\x94\xf4\x72\x0e\x00\x94\x13\x7c\x42"},
        {13, "\xb2\xf8\x58\xc7\xc9\xea\x80\x1d\x53\xd6\x03\x59\x6d\x65\x78\x44"},
        {15, "\xc1\x7e\x55\x05\xb2\xbd\x52\x6c\x29\x21\xcd\xec\x1e\x7e\x01\x09"},
        {16, "\xd0\xa8\xd9\x57\x15\x51\x8e\xeb\xb5\x13\xb0\xf8\x3d\x9e\x17\x93"},
        {31, "\x42\xea\x96\x1c\x5b\x3c\x85\x8b\x17\xc3\xe5\x50\xdf\xa7\x90\x10"},
        {63, "\x4c\x58\x00\xe3\x4e\xfe\x42\x6f\x07\x9f\x6b\x0a\xa7\x52\x60\xad"},
    };
    unsigned char key[STEADY__SIPHASH_KEY], data[64];
    for (unsigned i = 0; i < sizeof data; i++)
        key[i % sizeof key] = (unsigned char)(i % sizeof key), data[i] = (unsigned char)i;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        const struct steady__hash ours = steady__siphash(key, data, vectors[i].len);
        assert_memory_equal(&ours, vectors[i].hash, sizeof ours);
    }
}

static void siphash_reads_from_any_address(void **state) {
    (void)state;
    unsigned char key[STEADY__SIPHASH_KEY] = {7}, data[64 + 8] = {1, 2, 3};
    for (size_t offset = 0; offset < 8; offset++)
        agrees(key, data + offset, 64);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(siphash_agrees_for_every_length),
                                       cmocka_unit_test(siphash_agrees_with_the_vectors_of_its_authors),
                                       cmocka_unit_test(siphash_reads_from_any_address)};
    if (sodium_init() < 0) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
