/* SPDX-License-Identifier: MIT
 * The commands to the byte, the arguments and values that the scripts refuse, and the replies of the scripts. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "lua_server.h"
#include "packed.h"

#define NOW INT64_C(1764000000250000)

static const struct steady__rate plain = {10, 5000000, 1, 0};

static struct steady__terms terms_of(struct steady__rate rate) {
    struct steady__terms terms = {.rate = rate};
    steady__command_encode_limit(&terms);
    return terms;
}

static struct steady__call call_of(const struct steady__terms *terms, enum steady__verb verb, int64_t amount) {
    return (struct steady__call){.verb = verb, .amount = amount, .key = "user:42", .key_len = 7, .terms = terms};
}

struct argument {
    const char *bytes;
    size_t len;
};
#define TEXT(text)                                                                                                     \
    { (text), sizeof(text) - 1 }

/* Runs EVALSHA with these keys and arguments at NOW. */
static int run(struct lua_server *server, enum steady__verb verb, int keys, int argc, const struct argument *argv) {
    static int64_t values[STEADY__REPLY_MAX];
    char command[4096];
    size_t count = 0;
    int n = snprintf(command, sizeof command, "*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n%d\r\n", 3 + argc,
                     steady__scripts[verb].sha1, keys);
    for (int i = 0; i < argc; i++) {
        n += sprintf(command + n, "$%zu\r\n", argv[i].len);
        memcpy(command + n, argv[i].bytes, argv[i].len);
        n += (int)argv[i].len;
        n += sprintf(command + n, "\r\n");
    }
    return lua_server_run(server, command, (size_t)n, NOW, values, &count);
}

static void assert_evalsha(struct steady__rate rate, enum steady__verb verb, int64_t amount, const char *packed,
                           size_t packed_len) {
    char out[STEADY__COMMAND_MAX], expected[512];
    const struct steady__terms terms = terms_of(rate);
    const struct steady__call call = call_of(&terms, verb, amount);
    int n =
        snprintf(expected, sizeof expected, "*5\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n1\r\n$7\r\nuser:42\r\n$%zu\r\n",
                 steady__scripts[verb].sha1, packed_len);
    memcpy(expected + n, packed, packed_len);
    memcpy(expected + n + packed_len, "\r\n", 2);
    assert_int_equal(steady__command_evalsha(out, &call), (size_t)n + packed_len + 2);
    assert_memory_equal(out, expected, (size_t)n + packed_len + 2);
}

/* 5000000 is 0x1.312Dp+22, and 2^52 - 1 is 0x1.FFFFFFFFFFFFEp+51. */
static void evalsha_is_written_to_the_byte(void **state) {
    static const char small[] = "\x0A\0\0\0"
                                "\0\0\0\0\xD0\x12\x53\x41"
                                "\xFD\xFF\xFF\xFF";
    static const char large[] = "\xFF\xFF\xFF\x7F"
                                "\0\0\0\0\0\0\xF0\x3F"
                                "\x01\0\0\0"
                                "\x40\x42\x0F\0"
                                "\xFE\xFF\xFF\xFF\xFF\xFF\x2F\x43";
    (void)state;
    assert_evalsha(plain, STEADY__CONSUME, -3, small, sizeof small - 1);
    assert_evalsha((struct steady__rate){INT32_MAX, 1, 1000000, STEADY__BLOCK_LIMIT - 1}, STEADY__PEEK, 1, large,
                   sizeof large - 1);
}

static void module_commands_are_written_to_the_byte(void **state) {
    static const struct {
        enum steady__verb verb;
        struct steady__rate rate;
        int64_t amount;
        const char *command;
    } rows[] = {
        {STEADY__CONSUME,
         {10, 5000000, 1, 0},
         1,
         "*4\r\n$14\r\nSTEADY.CONSUME\r\n$7\r\nuser:42\r\n$2\r\n10\r\n$7\r\n5000000\r\n"},
        {STEADY__CONSUME,
         {INT32_MAX, 1, 1000000, STEADY__BLOCK_LIMIT - 1},
         -3,
         "*10\r\n$14\r\nSTEADY.CONSUME\r\n$7\r\nuser:42\r\n$10\r\n2147483647\r\n$1\r\n1\r\n"
         "$5\r\nDROPS\r\n$7\r\n1000000\r\n$5\r\nBLOCK\r\n$16\r\n4503599627370495\r\n"
         "$6\r\nAMOUNT\r\n$2\r\n-3\r\n"},
        {STEADY__PEEK,
         {10, 5000000, 3, 7},
         1,
         "*6\r\n$11\r\nSTEADY.PEEK\r\n$7\r\nuser:42\r\n$2\r\n10\r\n$7\r\n5000000\r\n$5\r\nDROPS\r\n$1\r\n3\r\n"},
        {STEADY__RESET, {10, 5000000, 3, 7}, 0, "*2\r\n$12\r\nSTEADY.RESET\r\n$7\r\nuser:42\r\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char out[STEADY__COMMAND_MAX + 1];
        const struct steady__terms terms = terms_of(rows[i].rate);
        const struct steady__call call = call_of(&terms, rows[i].verb, rows[i].amount);
        out[steady__command_module(out, &call)] = '\0';
        assert_string_equal(out, rows[i].command);
    }
}

static void eval_and_script_load_carry_the_script(void **state) {
    (void)state;
    const struct steady__terms terms = terms_of(plain);
    for (int verb = 0; verb < 3; verb++) {
        const struct steady__script *script = &steady__scripts[verb];
        const struct steady__call call = call_of(&terms, (enum steady__verb)verb, 1);
        char *out = malloc(script->text_len + STEADY__COMMAND_MAX);
        size_t len = steady__command_eval(out, &call);
        assert_true(len < script->text_len + STEADY__COMMAND_MAX);
        assert_memory_equal(out, "*5\r\n$4\r\nEVAL\r\n", 14);
        assert_non_null(memmem(out, len, script->text, script->text_len));
        len = steady__command_script_load(out, (enum steady__verb)verb);
        assert_true(len < script->text_len + 64);
        assert_memory_equal(out, "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n", 26);
        assert_non_null(memmem(out, len, script->text, script->text_len));
        free(out);
    }
}

static void longest_key_fits_into_a_command(void **state) {
    (void)state;
    char key[STEADY__KEY_MAX], *out = malloc(STEADY__COMMAND_MAX);
    memset(key, '{', sizeof key);
    const struct steady__terms terms =
        terms_of((struct steady__rate){INT32_MAX, 4194304, 1000000, STEADY__BLOCK_LIMIT - 1});
    struct steady__call call = call_of(&terms, STEADY__CONSUME, -INT32_MAX);
    call.key = key;
    call.key_len = sizeof key;
    assert_true(steady__command_evalsha(out, &call) <= STEADY__COMMAND_MAX);
    free(out);
}

static void scripts_begin_with_their_flags(void **state) {
    (void)state;
    assert_memory_equal(steady__scripts[STEADY__CONSUME].text, "#!lua\n", 6);
    assert_memory_equal(steady__scripts[STEADY__PEEK].text, "#!lua flags=no-writes\n", 22);
    assert_memory_equal(steady__scripts[STEADY__RESET].text, "#!lua\n", 6);
}

static void script_refuses_bad_arguments(void **state) {
    static const struct packed bad[] = {{-1, 5, 1, 1, 0, 0},
                                        {0, 5, 1, 1, 0, 0},
                                        {2147483648, 1, 1, 1, 0, 0},
                                        {10, -5, 1, 1, 0, 0},
                                        {10, 0, 1, 1, 0, 0},
                                        {10, 0.5, 1, 1, 0, 0},
                                        {10, 5.5, 1, 1, 0, 0},
                                        {10, NAN, 1, 1, 0, 0},
                                        {10, INFINITY, 1, 1, 0, 0},
                                        {10, -INFINITY, 1, 1, 0, 0},
                                        {10, 1e308, 1, 1, 0, 0},
                                        {10, 900719925474100, 1, 1, 0, 0},
                                        {2, 4503599627370496, 1, 1, 0, 0},
                                        {10, 5, 2147483648, 1, 0, 0},
                                        {10, 5, -2147483648.0, 1, 0, 0}};
    static const struct packed bad_rest[] = {{10, 5, 1, 0, 0, 0},        {10, 5, 1, 1000001, 0, 0},
                                             {10, 5, 1, -1, 0, 0},       {10, 5, 1, 1, 4503599627370496, 0},
                                             {10, 5, 1, 1, -1, 0},       {10, 5, 1, 1, 0.5, 0},
                                             {10, 5, 1, 1, NAN, 0},      {10, 5, 1, 1, INFINITY, 0},
                                             {10, 5, 1, 1, -INFINITY, 0}};
    static const struct packed packed = {10, 5, 1, 2, 7, 0};
    char bytes[PACKED_PART];
    const struct argument k = TEXT("k"), l = TEXT("l"), good = {bytes, PACKED_PLAIN};
    struct lua_server *server = lua_server_new();
    (void)state;
    for (int i = 0; i < 3; i++) {
        const enum steady__verb verb = (enum steady__verb)i;
        for (size_t b = 0; b < sizeof bad / sizeof bad[0]; b++)
            for (size_t len = PACKED_PLAIN; len <= PACKED_BUCKET; len += PACKED_BUCKET - PACKED_PLAIN) {
                packed_put(bytes, &bad[b], len);
                assert_int_equal(run(server, verb, 1, 2, (const struct argument[]){k, {bytes, len}}), -1);
                assert_memory_equal(lua_server_error(server), "ERR steady: ", 12);
            }
        for (size_t b = 0; b < sizeof bad_rest / sizeof bad_rest[0]; b++) {
            packed_put(bytes, &bad_rest[b], PACKED_BUCKET);
            assert_int_equal(run(server, verb, 1, 2, (const struct argument[]){k, {bytes, PACKED_BUCKET}}), -1);
            assert_memory_equal(lua_server_error(server), "ERR steady: ", 12);
        }
        packed_put(bytes, &packed, PACKED_PART);
        for (size_t len = 0; len <= PACKED_PART; len++) {
            const bool is_right = len == PACKED_PLAIN || len == PACKED_BUCKET;
            assert_int_equal(run(server, verb, 1, 2, (const struct argument[]){k, {bytes, len}}), is_right ? 0 : -1);
            lua_server_set(server, NULL, 0);
        }
        assert_int_equal(run(server, verb, 0, 0, NULL), -1);
        assert_int_equal(run(server, verb, 0, 1, (const struct argument[]){good}), -1);
        assert_int_equal(run(server, verb, 1, 1, (const struct argument[]){k}), -1);
        assert_int_equal(run(server, verb, 2, 3, (const struct argument[]){k, l, good}), -1);
        assert_int_equal(run(server, verb, 1, 3, (const struct argument[]){k, good, good}), -1);
        assert_null(lua_server_get(server, NOW));
    }
    lua_server_free(server);
}

static void script_leaves_a_foreign_value_alone(void **state) {
    (void)state;
    static const char *const foreign[] = {"",
                                          "hello",
                                          "3",
                                          "3 1764000000.250000",
                                          "3 1764000000 0",
                                          "3 1764000000.25 0",
                                          "3 1764000000.2500000 0",
                                          "-3 1764000000.250000 0",
                                          "3 -1764000000.250000 0",
                                          "3 1764000000.250000 -1",
                                          "3 1764000000.250000 5",
                                          "3 1764000000.250000 0.5",
                                          "3 1764000000.250000 1764000000.25",
                                          "3 1764000000.250000 0 ",
                                          "3 1764000000.250000 0 x",
                                          "3 1764000000.250000 0 -1",
                                          "3 1764000000.250000 0 1 2",
                                          " 3 1764000000.250000 0",
                                          "3.5 1764000000.250000 0",
                                          "nan 1764000000.250000 0",
                                          "3 inf 0",
                                          "3 1764000000.250000 nan",
                                          "0x3 1764000000.250000 0",
                                          "9007199254740992 1764000000.250000 0",
                                          "3 9007199254.740992 0",
                                          "3 1764000000.250000 9007199254.740992",
                                          "3 99999999999999999999999999999999999999999999.250000 0",
                                          "3 1764000000.250000 0\n",
                                          "3\t1764000000.250000 0"};
    char bytes[PACKED_PART];
    const struct argument arguments[] = {TEXT("k"), {bytes, packed_shortest(bytes, &plain, 1, STEADY__TAKE, false)}};
    struct lua_server *server = lua_server_new();
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        for (int verb = 0; verb < 3; verb++) {
            lua_server_set(server, foreign[i], 0);
            if (run(server, (enum steady__verb)verb, 1, 2, arguments) != -1)
                fail_msg("taken for a bucket: \"%s\"", foreign[i]);
            assert_string_equal(lua_server_get(server, NOW), foreign[i]);
            assert_int_equal(steady__error_class_of(lua_server_error(server), strlen(lua_server_error(server))),
                             STEADY__ERROR_CLASS_NOT_A_BUCKET);
        }
    lua_server_free(server);
}

/* The text in Redis: first as aiosteady writes it, then as we do. */
static void script_continues_a_bucket_of_aiosteady(void **state) {
    (void)state;
    struct lua_server *server = lua_server_new();
    const struct steady__rate blocking = {3, 1000000, 7, 60000000};
    steady_result r;
    bool stepped = false;
    lua_server_set(server, "2 1764000000.250000 0.000000", 0);
    assert_true(lua_server_decide(server, STEADY__CONSUME, &plain, 1, NOW, &r, &stepped));
    assert_int_equal(r.level, 3);
    assert_string_equal(lua_server_get(server, NOW), "3 1764000000.250000 0");
    assert_true(lua_server_decide(server, STEADY__CONSUME, &blocking, 1, NOW + 142858, &r, &stepped));
    assert_string_equal(lua_server_get(server, NOW), "3 1764000000.392857 0 1");
    assert_true(lua_server_decide(server, STEADY__CONSUME, &blocking, 1, NOW + 142858, &r, &stepped));
    assert_false(r.success);
    assert_string_equal(lua_server_get(server, NOW), "3 1764000000.392857 1764000060.392858 1");
    lua_server_free(server);
}

static void script_writes_at_most_once(void **state) {
    (void)state;
    struct lua_server *server = lua_server_new();
    const struct steady__rate rate = {3, 1000000, 1, 60000000};
    steady_result r;
    bool stepped = false;
    for (int i = 0; i < 4; i++)
        assert_true(lua_server_decide(server, STEADY__CONSUME, &rate, 1, NOW, &r, &stepped));
    assert_int_equal(lua_server_writes(server), 1); /* the block */
    assert_true(lua_server_decide(server, STEADY__PEEK, &rate, 1, NOW, &r, &stepped));
    assert_int_equal(lua_server_writes(server), 0);
    assert_int_equal(r.blocked_for, 60000000);
    assert_true(lua_server_decide(server, STEADY__RESET, &rate, 0, NOW, &r, &stepped));
    assert_int_equal(lua_server_writes(server), 1);
    assert_true(r.success && r.level == 0 && r.until_next_drop == 1000000 && r.blocked_for == 0);
    assert_null(lua_server_get(server, NOW));
    assert_true(lua_server_decide(server, STEADY__RESET, &rate, 0, NOW, &r, &stepped));
    assert_int_equal(lua_server_writes(server), 0);
    lua_server_free(server);
}

static void script_reply_out_of_range_is_rejected(void **state) {
    (void)state;
    static const struct {
        int64_t values[STEADY__REPLY_MAX];
        size_t count;
    } bad[] = {{{0}, 0},
               {{STEADY__EXACT}, 1},
               {{INT64_MAX}, 1},
               {{INT64_MIN}, 1},
               {{1, 2}, 2},
               {{1, 2, 3}, 3},
               {{4, 0, 0, 0}, 4},
               {{-1, 0, 0, 0}, 4},
               {{1, -1, 0, 0}, 4},
               {{1, INT64_MAX, 0, 0}, 4},
               {{1, 1, 5000000, 0}, 4},
               {{1, 1, -1, 0}, 4},
               {{1, 1, 0, -1}, 4},
               {{1, 1, 0, INT64_MAX}, 4}};
    const struct steady__terms terms = terms_of(plain);
    const struct steady__call call = call_of(&terms, STEADY__CONSUME, 1);
    steady_result r;
    bool stepped = false;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(steady__command_script_reply(&call, bad[i].values, bad[i].count, &r, &stepped));
    assert_true(steady__command_script_reply(&call, (const int64_t[]){-1 - 48000000}, 1, &r, &stepped));
    assert_true(!r.success && r.level == 10 && r.until_next_drop == 3000000 && r.retry_after == 3000000);
    assert_true(steady__command_script_reply(&call, (const int64_t[]){2, 10, 0, 7000000}, 4, &r, &stepped));
    assert_true(!r.success && stepped && r.blocked_for == 7000000 && r.retry_after == 7000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(evalsha_is_written_to_the_byte),
        cmocka_unit_test(module_commands_are_written_to_the_byte),
        cmocka_unit_test(eval_and_script_load_carry_the_script),
        cmocka_unit_test(longest_key_fits_into_a_command),
        cmocka_unit_test(scripts_begin_with_their_flags),
        cmocka_unit_test(script_refuses_bad_arguments),
        cmocka_unit_test(script_leaves_a_foreign_value_alone),
        cmocka_unit_test(script_continues_a_bucket_of_aiosteady),
        cmocka_unit_test(script_writes_at_most_once),
        cmocka_unit_test(script_reply_out_of_range_is_rejected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
