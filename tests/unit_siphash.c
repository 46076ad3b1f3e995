/* SPDX-License-Identifier: MIT
 * SipHash-2-4-128 against libsodium's, for every length of a key. */
#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

#include "assertions.h"
#include "core/siphash.h"
#include "store.h"

static void agrees(const unsigned char *key, const unsigned char *data, size_t len) {
    unsigned char theirs[16];
    const struct steady__hash ours = steady__siphash(key, data, len);
    assert_int_equal(crypto_shorthash_siphashx24(theirs, data, len, key), 0);
    assert_memory_equal(&ours, theirs, sizeof theirs);
}

static void siphash_agrees_with_libsodium(void **state) {
    (void)state;
    unsigned char key[STEADY__SIPHASH_KEY], data[STEADY__KEY_MAX];
    for (int round = 0; round < 20; round++) {
        randombytes_buf(key, sizeof key);
        randombytes_buf(data, sizeof data);
        for (size_t len = 0; len <= sizeof data; len++)
            agrees(key, data, len);
    }
}

static void siphash_reads_from_any_address(void **state) {
    (void)state;
    unsigned char key[STEADY__SIPHASH_KEY] = {7}, data[64 + 8] = {1, 2, 3};
    for (size_t offset = 0; offset < 8; offset++)
        agrees(key, data + offset, 64);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(siphash_agrees_with_libsodium),
                                       cmocka_unit_test(siphash_reads_from_any_address)};
    if (sodium_init() < 0) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
