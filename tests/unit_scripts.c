/* SPDX-License-Identifier: MIT
 * The scripts for several buckets: which arguments and stored values they reject, that nothing is written then, and
 * what reset_all.lua deletes. */
#include <stdio.h>
#include <string.h>

#include "assertions.h"
#include "conn/server_error.h"
#include "lua_parts.h"
#include "packed.h"

#define NOW 1764000000500000
#define FULL "3 1764000000.250000 0"

static struct lua_argument argv[70];
static bool in_full; /* plain parts have the long form, too */

/* The argument i of a script. A part is given as "capacity recharge drops block amount kind", and packed here. */
static void set_argument(size_t i, enum steady__verb verb, const char *text) {
    static const char plain[PACKED_PART - PACKED_PLAIN] = {1};
    struct lua_argument *argument = &argv[i];
    if (i > 0 && verb != STEADY__SETTLE && packed_of_text(argument->bytes, text)) {
        const bool is_plain = memcmp(argument->bytes + PACKED_PLAIN, plain, sizeof plain) == 0;
        argument->len = is_plain && !in_full ? PACKED_PLAIN : PACKED_PART;
    } else {
        argument->len = (size_t)snprintf(argument->bytes, sizeof argument->bytes, "%s", text);
    }
}

/* Runs a script with n keys, each of which holds a bucket before. True: the script ended without an error. */
static bool runs(struct lua_server *server, enum steady__verb verb, size_t n, size_t argc, const char *const *args) {
    for (size_t i = 0; i < argc; i++)
        set_argument(i, verb, args[i]);
    for (size_t i = 0; i < n && i < STEADY__PARTS_MAX; i++)
        lua_server_set_key(server, i, FULL, 0);
    return lua_parts_run(server, verb, n, argc, argv, NOW) == 0;
}

static void assert_no_write(struct lua_server *server, size_t n) {
    for (size_t i = 0; i < n && i < STEADY__PARTS_MAX; i++)
        assert_string_equal(lua_server_get_key(server, i, NOW), FULL);
    assert_int_equal(lua_server_writes(server), 0);
}

static void assert_rejected(struct lua_server *server, enum steady__verb verb, size_t n, size_t argc,
                            const char *const *args) {
    if (runs(server, verb, n, argc, args)) fail_msg("accepted: verb %d, %s, %s", (int)verb, args[0], args[1]);
    if (strncmp(lua_server_error(server), "ERR steady: ", 12) != 0) fail_msg("%s", lua_server_error(server));
    assert_no_write(server, n);
}

static void scripts_begin_with_their_flags(void **state) {
    (void)state;
    assert_memory_equal(steady__scripts[STEADY__CONSUME_ALL].text, "#!lua\n", 6);
    assert_memory_equal(steady__scripts[STEADY__PEEK_ALL].text, "#!lua flags=no-writes\n", 22);
    assert_memory_equal(steady__scripts[STEADY__SETTLE].text, "#!lua\n", 6);
    assert_memory_equal(steady__scripts[STEADY__RESET_ALL].text, "#!lua\n", 6);
}

static void numbers_at_the_ends_of_their_ranges_are_accepted(void **state) {
    static const char *const hows[] = {"0 0", "4503599627370496 0", "0 1", "4503599627370496 1"};
    static const char *const parts[] = {
        "1 1 1 0 1 0",
        "2147483647 4194304 1 0 1 0",
        "1 9007199254740991 1000000 4503599627370495 2147483647 0",
        "1 9007199254740991 1 0 2147483647 0",
    };
    static const char *const more[] = {"1 1 1 0 -2147483647 0", "1 1 1 0 0 1", "1 1 1 0 0 2", "1 1 1 0 0 3",
                                       "1 1 1 0 2147483647 3"};
    static const char *const settlements[] = {"1 1 1 0 0 0 0",
                                              "2147483647 4194304 1 2147483647 9007199254740991 2147483647 1",
                                              "1 9007199254740991 1000000 0 0 2147483647 1"};
    struct lua_server *server = lua_server_new();
    (void)state;
    for (size_t h = 0; h < 2 * (sizeof hows / sizeof hows[0]); h++)
        for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
            in_full = h % 2 == 1;
            assert_true(runs(server, STEADY__CONSUME_ALL, 1, 2, (const char *[]){hows[h / 2], parts[p]}));
            assert_true(runs(server, STEADY__PEEK_ALL, 1, 2, (const char *[]){hows[h / 2], parts[p]}));
        }
    in_full = false;
    for (size_t p = 0; p < sizeof more / sizeof more[0]; p++)
        assert_true(runs(server, STEADY__CONSUME_ALL, 2, 3, (const char *[]){"0 0", parts[0], more[p]}));
    for (size_t p = 0; p < sizeof settlements / sizeof settlements[0]; p++)
        assert_true(runs(server, STEADY__SETTLE, 1, 1, &settlements[p]));
    lua_server_free(server);
}

static void wrong_arguments_are_rejected_and_nothing_is_written(void **state) {
    static const char good[] = "10 5000000 1 0 1 0", settled[] = "10 5000000 1 1 0 0 1";
    static const char *const hows[] = {
        "",     "0",    "0 0 0", "-1 0",  "0 -1", "x 0", "4503599627370497 0", "0 2147483648",
        "0  0", " 0 0", "0 0 ",  "1.5 0", "0 2" /* over the amount */};
    static const char *const parts[] = {"",
                                        "15 bytes long..",
                                        "of 17 bytes long.",
                                        "this one is of 28 bytes long",
                                        "this one is of 30 bytes long..",
                                        "10 5000000 1 0 1 4",
                                        "10 5000000 1 0 1 255",
                                        "-1 5000000 1 0 1 0",
                                        "10 nan 1 0 1 0",
                                        "10 inf 1 0 1 0",
                                        "10 -inf 1 0 1 0",
                                        "10 0.5 1 0 1 0",
                                        "10 1.5 1 0 1 0",
                                        "10 -5 1 0 1 0",
                                        "10 5000000 1 nan 1 0",
                                        "10 5000000 1 inf 1 0",
                                        "10 5000000 1 0.5 1 0",
                                        "10 5000000 1 -1 1 0",
                                        "0 5000000 1 0 1 0",
                                        "2147483648 1 1 0 1 0",
                                        "10 0 1 0 1 0",
                                        "1 9007199254740992 1 0 1 0",
                                        "2 4503599627370496 1 0 1 0",
                                        "10 5000000 0 0 1 0",
                                        "10 5000000 1000001 0 1 0",
                                        "10 5000000 3 4503599627370496 1 0",
                                        "10 5000000 3 0 -1 1",
                                        "10 5000000 0 7 1 0",
                                        "10 5000000 1000001 7 1 1",
                                        "10 5000000 -1 0 1 0",
                                        "10 5000000 1 4503599627370496 1 0",
                                        "10 5000000 1 0 2147483648 0",
                                        "10 5000000 7 0 2147483648 0",
                                        "10 5000000 1 0 -2147483648 0",
                                        "10 5000000 1 0 -1 1",
                                        "10 5000000 1 0 -1 2",
                                        "10 5000000 1 0 -1 3"};
    static const char *const settlements[] = {"",
                                              "10 5000000 1 1 0 0",
                                              "10 5000000 1 1 0 0 2",
                                              "10 5000000 1 1 0 0 1 1",
                                              "0 5000000 1 1 0 0 1",
                                              "2147483648 1 1 1 0 0 1",
                                              "10 0 1 1 0 0 1",
                                              "1 9007199254740992 1 1 0 0 1",
                                              "2 4503599627370496 1 1 0 0 1",
                                              "10 5000000 0 1 0 0 1",
                                              "10 5000000 1000001 1 0 0 1",
                                              "10 5000000 1 2147483648 0 0 1",
                                              "10 5000000 1 -1 0 0 1",
                                              "10 5000000 1 1 9007199254740992 0 1",
                                              "10 5000000 1 1 0 2147483648 1",
                                              "10 5000000 1 1 0 -1 1"};
    struct lua_server *server = lua_server_new();
    (void)state;
    for (int verb = STEADY__CONSUME_ALL; verb <= STEADY__PEEK_ALL; verb++) {
        for (size_t h = 0; h < sizeof hows / sizeof hows[0]; h++)
            assert_rejected(server, (enum steady__verb)verb, 1, 2, (const char *[]){hows[h], good});
        for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++)
            for (size_t place = 1; place <= 5; place++) { /* also where a part is handled by a function */
                const char *args[6] = {"0 0", good, good, good, good, good};
                args[place] = parts[p];
                assert_rejected(server, (enum steady__verb)verb, 5, 6, args);
            }
        for (int kind = 1; kind < STEADY__KINDS; kind++) {
            char part[] = "10 5000000 1 0 1 0";
            part[sizeof part - 2] = (char)('0' + kind);
            assert_rejected(server, (enum steady__verb)verb, 1, 2, (const char *[]){"0 1", part});
        }
        assert_rejected(server, (enum steady__verb)verb, 1, 1, (const char *[]){"0 0", ""});
        assert_rejected(server, (enum steady__verb)verb, 1, 3, (const char *[]){"0 0", good, good});
        assert_rejected(server, (enum steady__verb)verb, 1, 0, (const char *[]){"", ""});
    }
    for (size_t p = 0; p < sizeof settlements / sizeof settlements[0]; p++)
        for (size_t place = 0; place < 3; place++) {
            const char *args[3] = {settled, settled, settled};
            args[place] = settlements[p];
            assert_rejected(server, STEADY__SETTLE, 3, 3, args);
        }
    assert_rejected(server, STEADY__SETTLE, 2, 1, (const char *[]){settled, ""});
    assert_rejected(server, STEADY__SETTLE, 1, 2, (const char *[]){settled, settled});
    assert_rejected(server, STEADY__RESET_ALL, 1, 1, (const char *[]){"x", ""});
    lua_server_free(server);
}

static void scripts_take_1_to_64_keys(void **state) {
    struct lua_server *server = lua_server_new();
    (void)state;
    for (int verb = STEADY__CONSUME_ALL; verb <= STEADY__RESET_ALL; verb++)
        for (size_t n = 0; n <= 65; n++) {
            const char *args[66] = {"0 0"};
            const bool how = verb == STEADY__CONSUME_ALL || verb == STEADY__PEEK_ALL;
            for (size_t i = 0; i < n; i++)
                args[i + how] = verb == STEADY__SETTLE ? "10 5000000 1 1 0 0 1" : "10 5000000 1 0 1 0";
            const size_t argc = verb == STEADY__RESET_ALL ? 0 : n + how;
            if (n == 0 || n == 65) {
                assert_rejected(server, (enum steady__verb)verb, n, argc, args);
                continue;
            }
            size_t count = 0;
            assert_true(runs(server, (enum steady__verb)verb, n, argc, args));
            assert_int_equal(lua_server_reply(server, &count)[0], verb == STEADY__RESET_ALL ? (int64_t)n : 1);
            assert_int_equal(count, verb == STEADY__RESET_ALL ? 1 : 2 + n);
        }
    lua_server_free(server);
}

static void a_foreign_value_in_any_key_stops_the_call_before_the_first_write(void **state) {
    static const char *const foreign[] = {"hello", "3 1764000000.25 0", "9007199254740992 1764000000.250000 0",
                                          "3 9007199254.740992 0", "3 1764000000.250000 0 "};
    static const char *const consume[] = {"0 0",
                                          "10 5000000 1 0 1 0",
                                          "10 5000000 3 0 1 2",
                                          "10 5000000 1 0 1 3",
                                          "10 5000000 1 0 -1 0",
                                          "10 5000000 1 7 1 0"};
    static const char *const settle[] = {"10 5000000 1 1 0 7 1", "10 5000000 1 1 1764000000500000 0 1",
                                         "10 5000000 1 1 0 7 1", "10 5000000 1 1 0 7 1", "10 5000000 1 1 0 7 1"};
    struct lua_server *server = lua_server_new();
    (void)state;
    for (int verb = STEADY__CONSUME_ALL; verb <= STEADY__RESET_ALL; verb++)
        for (size_t f = 0; f < sizeof foreign / sizeof foreign[0]; f++)
            for (size_t place = 0; place < 5; place++) {
                const bool settles = verb == STEADY__SETTLE, resets = verb == STEADY__RESET_ALL;
                const size_t argc = resets ? 0 : settles ? 5 : 6;
                for (size_t i = 0; i < argc; i++)
                    set_argument(i, (enum steady__verb)verb, settles ? settle[i] : consume[i]);
                for (size_t i = 0; i < 5; i++)
                    lua_server_set_key(server, i, i == place ? foreign[f] : FULL, 0);
                assert_int_equal(lua_parts_run(server, (enum steady__verb)verb, 5, argc, argv, NOW), -1);
                const char *error = lua_server_error(server);
                assert_int_equal(steady__error_class_of(error, strlen(error)), STEADY__ERROR_CLASS_NOT_A_BUCKET);
                for (size_t i = 0; i < 5; i++)
                    assert_string_equal(lua_server_get_key(server, i, NOW), i == place ? foreign[f] : FULL);
                assert_int_equal(lua_server_writes(server), 0);
            }
    lua_server_free(server);
}

static void reset_all_deletes_and_counts_the_buckets_that_exist(void **state) {
    struct lua_server *server = lua_server_new();
    size_t count = 0;
    (void)state;
    lua_server_set_key(server, 0, FULL, 0);
    lua_server_set_key(server, 1, NULL, 0);
    lua_server_set_key(server, 2, "3 1764000000.250000 1764000001.000000 6", 0);
    assert_int_equal(lua_parts_run(server, STEADY__RESET_ALL, 3, 0, argv, NOW), 0);
    assert_int_equal(lua_server_reply(server, &count)[0], 2);
    assert_int_equal(count, 1);
    for (size_t i = 0; i < 3; i++)
        assert_null(lua_server_get_key(server, i, NOW));
    assert_int_equal(lua_parts_run(server, STEADY__RESET_ALL, 3, 0, argv, NOW), 0);
    assert_int_equal(lua_server_reply(server, &count)[0], 0);
    assert_int_equal(lua_server_writes(server), 0);
    lua_server_free(server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scripts_begin_with_their_flags),
        cmocka_unit_test(numbers_at_the_ends_of_their_ranges_are_accepted),
        cmocka_unit_test(wrong_arguments_are_rejected_and_nothing_is_written),
        cmocka_unit_test(scripts_take_1_to_64_keys),
        cmocka_unit_test(a_foreign_value_in_any_key_stops_the_call_before_the_first_write),
        cmocka_unit_test(reset_all_deletes_and_counts_the_buckets_that_exist),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
