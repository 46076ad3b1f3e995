/* SPDX-License-Identifier: MIT
 * The addresses of clients as keys of limits. tests/test_address.py compares with another implementation. */
#include <arpa/inet.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "assertions.h"
#include "core/address.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const char *key_of(const char *text, unsigned prefix) {
    static char key[STEADY__ADDRESS_KEY_MAX];
    struct steady__address address;
    if (!steady__address_parse(&address, text, strlen(text))) return NULL;
    const size_t len = steady__address_key(key, &address, prefix);
    assert_int_equal(len, strlen(key));
    return key;
}

static void an_address_counts_as_its_network(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"192.0.2.1", "192.0.2.1"},
        {"192.0.2.1:4711", "192.0.2.1"},
        {"192.0.2.1%eth0", "192.0.2.1"},
        {"2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
        {"[2001:db8:1:2:3::4]:4711", "2001:db8:1:2::/64"},
        {"[2001:db8:1:2:3::4]", "2001:db8:1:2::/64"},
        {"2001:DB8:1:2:ffff::1", "2001:db8:1:2::/64"},
        {"fe80::1%eth0", "fe80::/64"},
        {"[fe80::1%eth0]:80", "fe80::/64"},
        {"::1", "::/64"},
        {"::", "::/64"},
        {"::ffff:192.0.2.1", "192.0.2.1"},
        {"::1.2.3.4", "1.2.3.4"},
        {"::ffff:0:1.2.3.4", "1.2.3.4"},
        {"64:ff9b::1.2.3.4", "1.2.3.4"},
        {"64:ff9c::1.2.3.4", "64:ff9c::/64"},
        {"64:ff9b:1:7::1.2.3.4", "64:ff9b:1:7::102:304/128"},
        {"2002:102:304:1::5", "1.2.3.4"},
        {"2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.0.2.45"}, /* the example of RFC 4380, 4 */
        {"2001:1::5", "2001:1::/64"},
        {"2001:db8:1:2:0:5efe:1.2.3.4", "2001:db8:1:2::/64"},
    };
    for (size_t i = 0; i < COUNT(pairs); i++) {
        const char *key = key_of(pairs[i][0], 64);
        if (key == NULL) fail_msg("%s is read as no address", pairs[i][0]);
        assert_string_equal(key, pairs[i][1]);
    }
}

static void a_prefix_of_any_length_masks_its_bits(void **state) {
    (void)state;
    static const struct {
        unsigned prefix;
        const char *key;
    } keys[] = {{1, "8000::/1"},
                {8, "ff00::/8"},
                {31, "ffff:fffe::/31"},
                {32, "ffff:ffff::/32"},
                {33, "ffff:ffff:8000::/33"},
                {56, "ffff:ffff:ffff:ff00::/56"},
                {127, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"},
                {128, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"}};
    for (size_t i = 0; i < COUNT(keys); i++)
        assert_string_equal(key_of("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", keys[i].prefix), keys[i].key);
}

static void a_text_that_is_no_address_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "unknown",
                                        "1.2.3",
                                        "1.2.3.4.5",
                                        "1.2.3.256",
                                        "01.2.3.4",
                                        "1.2.3.4 ",
                                        "::1::",
                                        "1:2:3:4:5:6:7",
                                        "[]",
                                        "[",
                                        ":",
                                        "%",
                                        "12345::",
                                        "1:2:3:4:5:6:7:8:9",
                                        "\xff",
                                        "1.2.3.4\n",
                                        "0x1.2.3.4",
                                        "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.2555"};
    for (size_t i = 0; i < COUNT(texts); i++)
        if (key_of(texts[i], 64) != NULL) fail_msg("\"%s\" is read as the address %s", texts[i], key_of(texts[i], 64));
    struct steady__address address;
    assert_false(steady__address_parse(&address, "1.2.3.4\0", 8));
}

/* ---- Networks ---- */

/* Texts by chance, most of them nearly an address. */
static void an_ipv4_address_is_what_inet_pton_reads(void **state) {
    (void)state;
    uint64_t chance = 1;
    size_t valid = 0;
    for (int i = 0; i < 300000; i++) {
        char text[24] = "";
        size_t len = 0;
        for (int part = 0; part < 4; part++) {
            static const char *const numbers[] = {"0", "7", "42", "255", "256", "192", "1234", "", "00", "099", "1x"};
            chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            const unsigned drawn = (unsigned)(chance >> 33);
            const char *number = numbers[drawn % 64 < 50 ? drawn % 4 : drawn % COUNT(numbers)];
            const char *end = part == 3 ? "" : drawn / 64 % 40 == 0 ? &"..."[drawn / 64 / 40 % 4] : ".";
            len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", number, end);
        }
        struct steady__address address;
        struct in_addr expected;
        const bool is_one = inet_pton(AF_INET, text, &expected) == 1;
        assert_int_equal(steady__address_parse(&address, text, strlen(text)), is_one);
        if (is_one) assert_memory_equal(address.bytes + 12, &expected, 4);
        valid += is_one;
    }
    assert_true(valid > 10000 && valid < 290000);
}

static void a_network_has_its_addresses_and_no_others(void **state) {
    (void)state;
    static const struct {
        const char *network, *inside, *outside;
    } rows[] = {
        {"10.0.0.0/8", "10.255.255.255", "11.0.0.0"},
        {"10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"},
        {"192.0.2.128/25", "192.0.2.128", "192.0.2.127"},
        {"192.0.2.1", "192.0.2.1", "192.0.2.2"},
        {"0.0.0.0/0", "255.1.2.3", "2001:db8::1"},
        {"2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"},
        {"::1", "::1", "::2"},
        {"2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"},
        {"::/1", "7fff::", "8000::"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct steady__network network;
        struct steady__address address;
        assert_true(steady__network_parse(&network, rows[i].network));
        assert_true(steady__address_parse(&address, rows[i].inside, strlen(rows[i].inside)));
        assert_true(steady__network_has(&network, &address));
        assert_true(steady__address_parse(&address, rows[i].outside, strlen(rows[i].outside)));
        assert_false(steady__network_has(&network, &address));
    }
}

static void a_text_that_is_no_network_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",           "10.0.0.1/8",  "10.0.0.0/33", "10.0.0.0/",   "10.0.0.0/8x", "10.0.0.0/-1",
        "2001::1/64", "::/129",      "::/0128",     "[::]/0",      "fe80::%1/64", "10/8",
        "/8",         "10.0.0.0/ 8", "10.0.0.0//8", "10.0.0.0:80x"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct steady__network network;
        if (steady__network_parse(&network, texts[i])) fail_msg("\"%s\" is read as a network", texts[i]);
    }
}

/* ---- X-Forwarded-For ---- */

static void an_address_of_the_field_is_counted_from_the_right(void **state) {
    (void)state;
    static const struct {
        const char *field;
        size_t place;
        const char *text; /* NULL: there are not so many */
    } rows[] = {
        {"a", 1, "a"}, {"a, b", 1, "b"}, {"a, b", 2, "a"}, {"a, b", 3, NULL}, {"a,b\t, c ", 2, "b"},
        {"", 1, ""},   {"", 2, NULL},    {",", 2, ""},     {", ,", 3, ""},    {", ,", 4, NULL},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *text = NULL;
        size_t len = 0;
        const bool found = steady__address_forwarded(rows[i].field, strlen(rows[i].field), rows[i].place, &text, &len);
        assert_int_equal(found, rows[i].text != NULL);
        if (!found) continue;
        assert_int_equal(len, strlen(rows[i].text));
        assert_memory_equal(text, rows[i].text, len);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_counts_as_its_network),
        cmocka_unit_test(a_prefix_of_any_length_masks_its_bits),
        cmocka_unit_test(a_text_that_is_no_address_is_refused),
        cmocka_unit_test(an_ipv4_address_is_what_inet_pton_reads),
        cmocka_unit_test(a_network_has_its_addresses_and_no_others),
        cmocka_unit_test(a_text_that_is_no_network_is_refused),
        cmocka_unit_test(an_address_of_the_field_is_counted_from_the_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
