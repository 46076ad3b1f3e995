/* SPDX-License-Identifier: MIT
 * The writer of requests in RESP. */
#include "support.h"

#include <inttypes.h>

#include "conn/resp.h"
#include "random.h"

static void assert_written(int64_t number) {
    char out[32], expected[32];
    const size_t len = (size_t)snprintf(expected, sizeof expected, "%" PRId64, number);
    assert_int_equal(steady__resp_put_number(out, number) - out, len);
    assert_memory_equal(out, expected, len);
}

static void numbers_are_written_as_printf_writes_them(void **state) {
    static const int64_t edges[] = {0, 1, -1, 9, 10, -10, 99, 100, INT64_MAX, INT64_MIN};
    uint64_t seed = 3;
    (void)state;
    for (size_t i = 0; i < COUNT(edges); i++)
        assert_written(edges[i]);
    for (int i = 0; i < 100000; i++)
        assert_written(random_edgy(&seed, INT64_MIN / 2, INT64_MAX / 2));
}

static void integer_is_a_bulk_string_of_its_digits(void **state) {
    char out[64];
    (void)state;
    *steady__resp_put_integer(out, -10) = '\0';
    assert_string_equal(out, "$3\r\n-10\r\n");
    *steady__resp_put_integer(out, INT64_MIN) = '\0';
    assert_string_equal(out, "$20\r\n-9223372036854775808\r\n");
}

static void bulk_string_of_any_bytes_is_written_whole(void **state) {
    static const char bytes[] = {'a', '\0', '\r', '\n', '\xff'}, expected[] = "$5\r\na\0\r\n\xff\r\n";
    char out[64];
    (void)state;
    assert_int_equal(steady__resp_put_bulk(out, bytes, sizeof bytes) - out, sizeof expected - 1);
    assert_memory_equal(out, expected, sizeof expected - 1);
    assert_int_equal(steady__resp_put_bulk(out, "", 0) - out, 6);
    assert_memory_equal(out, "$0\r\n\r\n", 6);
}

static void command_is_an_array_of_bulk_strings(void **state) {
    static const char expected[] = "*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$0\r\n\r\n";
    char out[64];
    (void)state;
    assert_int_equal(steady__resp_command(out, 3, (const char *const[]){"CONFIG", "GET", ""}), sizeof expected - 1);
    assert_memory_equal(out, expected, sizeof expected - 1);
    assert_int_equal(steady__resp_command(out, 1, (const char *const[]){"ASKING"}), strlen(STEADY__ASKING));
    assert_memory_equal(out, STEADY__ASKING, strlen(STEADY__ASKING));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_written_as_printf_writes_them),
        cmocka_unit_test(integer_is_a_bulk_string_of_its_digits),
        cmocka_unit_test(bulk_string_of_any_bytes_is_written_whole),
        cmocka_unit_test(command_is_an_array_of_bulk_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
