/* SPDX-License-Identifier: MIT
 * Replies: which are read, wherever the stream is cut, and which end the connection. */
#include "support.h"

#include <stdlib.h>

#include "conn/reply.h"

/* Reads from memory that ends with the bytes, so that a sanitizer detects a read beyond them. */
static ptrdiff_t read_flush(struct steady__reply *reply, const char *bytes, size_t len) {
    char *exact = malloc(len > 0 ? len : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, len);
    const ptrdiff_t took = steady__reply_read(reply, exact, len);
    free(exact);
    return took;
}

static const struct {
    const char *bytes;
    int kind;
    size_t count;
    int64_t values[STEADY__REPLY_MAX];
} good[] = {
    {":0\r\n", STEADY__REPLY_INTEGERS, 1, {0}},
    {":7\r\n", STEADY__REPLY_INTEGERS, 1, {7}},
    {":-12\r\n", STEADY__REPLY_INTEGERS, 1, {-12}},
    {":9223372036854775807\r\n", STEADY__REPLY_INTEGERS, 1, {INT64_MAX}},
    {":-9223372036854775808\r\n", STEADY__REPLY_INTEGERS, 1, {INT64_MIN}},
    {"*2\r\n:1\r\n:2\r\n", STEADY__REPLY_INTEGERS, 2, {1, 2}},
    {"*4\r\n:1\r\n:-2\r\n:3000000\r\n:0\r\n", STEADY__REPLY_INTEGERS, 4, {1, -2, 3000000, 0}},
    {"*5\r\n:1\r\n:2\r\n:3000000\r\n:0\r\n:-1\r\n", STEADY__REPLY_INTEGERS, 5, {1, 2, 3000000, 0, -1}},
    {"+OK\r\n", STEADY__REPLY_TEXT, 0, {0}},
    {"+\r\n", STEADY__REPLY_TEXT, 0, {0}},
    {"$0\r\n\r\n", STEADY__REPLY_TEXT, 0, {0}},
    {"$40\r\n0123456789012345678901234567890123456789\r\n", STEADY__REPLY_TEXT, 0, {0}},
    {"$3\r\n\r\n:\r\n", STEADY__REPLY_TEXT, 0, {0}},
    {"-NOSCRIPT No matching script.\r\n", STEADY__REPLY_ERROR, 0, {0}},
    {"-\r\n", STEADY__REPLY_ERROR, 0, {0}},
};

static void valid_reply_is_read_once_it_is_whole(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        const size_t len = strlen(good[i].bytes);
        struct steady__reply reply;
        for (size_t cut = 0; cut < len; cut++)
            if (read_flush(&reply, good[i].bytes, cut) != 0) fail_msg("%s cut at %zu", good[i].bytes, cut);
        assert_int_equal(read_flush(&reply, good[i].bytes, len), len);
        assert_int_equal(reply.kind, good[i].kind);
        if (reply.kind != STEADY__REPLY_INTEGERS) continue;
        assert_int_equal(reply.count, good[i].count);
        assert_memory_equal(reply.values, good[i].values, reply.count * sizeof(int64_t));
    }
}

static void text_of_a_reply_is_found(void **state) {
    static const char bytes[] = "$3\r\na\rb\r\n-ERR no\r\n";
    struct steady__reply reply;
    (void)state;
    const ptrdiff_t took = steady__reply_read(&reply, bytes, sizeof bytes - 1);
    assert_int_equal(took, 9);
    assert_int_equal(reply.text_len, 3);
    assert_memory_equal(reply.text, "a\rb", 3);
    assert_int_equal(steady__reply_read(&reply, bytes + took, sizeof bytes - 1 - (size_t)took), 9);
    assert_int_equal(reply.text_len, 6);
    assert_memory_equal(reply.text, "ERR no", 6);
}

/* Refused as soon as these bytes have come, whatever follows. */
static const char *const bad[] = {
    "*4294967295\r\n",
    "*4294967298\r\n",
    "*100000000\r\n",
    "*390\r\n",
    "*1\r\n",
    "*0\r\n",
    "*-1\r\n",
    "*\r\n",
    "*x\r\n",
    "*2\r\n*",
    "*2\r\n$",
    "*2\r\n+",
    "*2\r\n-",
    "*2\r\n:1\r\n_",
    "*2\r\n:\r\n",
    "*2\r\n:1\r\n:1x\r\n",
    "$9223372036854775807\r\n",
    "$99999999999999999999999999",
    "$65\r\n",
    "$-1\r\n",
    "$-2\r\n",
    "$2\r\nabc\r",
    "$2\r\nab\n\r",
    "%4294967295\r\n",
    "%1\r\n",
    "~1\r\n",
    ">2\r\n",
    "|1\r\n",
    "_\r\n",
    "#t\r\n",
    ",1.5\r\n",
    "(1\r\n",
    "=3\r\n",
    "!3\r\n",
    ":+1\r\n",
    ":-0\r\n",
    ":01\r\n",
    ":00\r\n",
    ": 1\r\n",
    ":1 \r\n",
    ":\r\n",
    ":-\r\n",
    ":1.5\r\n",
    ":0x1\r\n",
    ":9223372036854775808\r\n",
    ":-9223372036854775809\r\n",
    ":18446744073709551616\r\n",
    ":99999999999999999999\r\n",
    ":000000000000000000000000000",
    ":1\r:",
    "-ERR\r!",
    "-ERR\n:1\r\n",
    "+OK\n\r\n",
    "\r\n",
    "\n",
    " ",
    "OK",
    "HTTP/1.1 400",
    "\0",
    "\x15\x03",
};

static void invalid_reply_is_refused_at_once(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct steady__reply reply;
        const size_t len = strlen(bad[i]) > 0 ? strlen(bad[i]) : 1;
        if (read_flush(&reply, bad[i], len) != -1) fail_msg("number %zu was not refused: %s", i, bad[i]);
    }
}

static void endless_line_is_refused(void **state) {
    static const char kinds[] = "-+:*$";
    static char bytes[1 << 20];
    (void)state;
    memset(bytes, '1', sizeof bytes);
    for (size_t i = 0; i < strlen(kinds); i++) {
        struct steady__reply reply;
        bytes[0] = kinds[i];
        assert_int_equal(steady__reply_read(&reply, bytes, sizeof bytes), -1);
        assert_int_equal(steady__reply_read(&reply, bytes, 16000), -1);
    }
}

static void endless_nesting_is_refused(void **state) {
    char bytes[40000];
    struct steady__reply reply;
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i += 4)
        memcpy(bytes + i, "*1\r\n", 4);
    assert_int_equal(steady__reply_read(&reply, bytes, sizeof bytes), -1);
}

/* With any bytes, nothing is read beyond them, and no more is taken than there is. */
static void random_bytes_are_read_within_their_bounds(void **state) {
    static const char alphabet[] = "*:$+-\r\n0123456789 x";
    uint64_t seed = 1;
    (void)state;
    for (int i = 0; i < 200000; i++) {
        struct steady__reply reply;
        char bytes[24];
        size_t len = 0;
        for (seed = seed * 6364136223846793005u + 1; len < (size_t)(i % 25); len++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            bytes[len == 24 ? 23 : len] = alphabet[(seed >> 33) % (sizeof alphabet - 1)];
        }
        len = len > 24 ? 24 : len;
        const ptrdiff_t took = read_flush(&reply, bytes, len);
        assert_true(took >= -1 && took <= (ptrdiff_t)len);
        if (took > 0 && reply.kind != STEADY__REPLY_INTEGERS) assert_true(reply.text_len + 3 <= (size_t)took);
    }
}

/* ---- Nested replies ---- */

static ptrdiff_t read_nested(struct steady__reply *reply, const char *bytes, size_t len) {
    struct steady__progress progress = {0};
    return steady__reply_read_nested(reply, &progress, bytes, len);
}

static ptrdiff_t read_nested_flush(struct steady__reply *reply, const char *bytes, size_t len) {
    char *exact = malloc(len > 0 ? len : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, len);
    const ptrdiff_t took = read_nested(reply, exact, len);
    free(exact);
    return took;
}

/* The values of a walk: i an integer, t a text, n nil, a an array. */
static const struct {
    const char *bytes;
    const char *walk;
} nested[] = {
    {"*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n", "a2 t(127.0.0.1) t(6379) "},
    {"*-1\r\n", "n "},
    {"$-1\r\n", "n "},
    {"*0\r\n", "a0 "},
    {"$2\r\nok\r\n", "t(ok) "},
    {"*3\r\n$6\r\nmaster\r\n:42\r\n*2\r\n*3\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\n9\r\n*1\r\n$-1\r\n",
     "a3 t(master) i42 a2 a3 t(a) t(1) t(9) a1 n "},
    {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n", "a1 a1 a1 a1 a1 a0 "},
};

static void describe(char *out, const struct steady__reply *reply) {
    struct steady__walk walk = steady__walk_over(reply);
    struct steady__value value;
    for (*out = '\0'; steady__walk_next(&walk, &value); out += strlen(out)) {
        switch (value.kind) {
        case STEADY__VALUE_NIL: strcpy(out, "n "); break;
        case STEADY__VALUE_INTEGER: sprintf(out, "i%lld ", (long long)value.number); break;
        case STEADY__VALUE_TEXT: sprintf(out, "t(%.*s) ", (int)value.text_len, value.text); break;
        case STEADY__VALUE_ARRAY: sprintf(out, "a%lld ", (long long)value.number); break;
        }
    }
}

static void nested_reply_is_read_once_it_is_whole(void **state) {
    char seen[256];
    (void)state;
    for (size_t i = 0; i < COUNT(nested); i++) {
        const size_t len = strlen(nested[i].bytes);
        struct steady__reply reply;
        for (size_t cut = 0; cut < len; cut++)
            if (read_nested_flush(&reply, nested[i].bytes, cut) != 0) fail_msg("%s cut at %zu", nested[i].bytes, cut);
        assert_int_equal(read_nested(&reply, nested[i].bytes, len), len);
        assert_int_equal(reply.kind, STEADY__REPLY_NESTED);
        describe(seen, &reply);
        assert_string_equal(seen, nested[i].walk);
    }
}

/* Reading goes on where it stopped, byte by byte. */
static void nested_reply_is_read_on_byte_by_byte(void **state) {
    char seen[256];
    (void)state;
    for (size_t i = 0; i < COUNT(nested); i++) {
        const size_t len = strlen(nested[i].bytes);
        struct steady__progress progress = {0};
        struct steady__reply reply;
        for (size_t cut = 1; cut < len; cut++) {
            const size_t before = progress.at;
            assert_int_equal(steady__reply_read_nested(&reply, &progress, nested[i].bytes, cut), 0);
            assert_true(progress.at >= before && progress.at <= cut);
        }
        assert_int_equal(steady__reply_read_nested(&reply, &progress, nested[i].bytes, len), len);
        assert_int_equal(progress.at, 0);
        describe(seen, &reply);
        assert_string_equal(seen, nested[i].walk);
    }
}

static void invalid_nested_reply_is_refused(void **state) {
    static const char *const never[] = {
        "*-2\r\n",
        "*16385\r\n",
        "$4097\r\n",
        "$-2\r\n",
        "*1\r\n%",
        "*1\r\n_",
        "*1\r\n+OK",
        "*1\r\n-ERR no",
        "*2\r\n$1\r\nab",
        "*1\r\n$",
        "*99999999999999999999",
        "%1\r\n",
        "_\r\n",
    };
    struct steady__reply reply;
    (void)state;
    for (size_t i = 0; i < COUNT(never); i++) {
        char bytes[64];
        snprintf(bytes, sizeof bytes, "%s%s", never[i], strcmp(never[i], "*1\r\n$") == 0 ? "x\r\n" : "\r\n");
        if (read_nested_flush(&reply, bytes, strlen(bytes)) != -1) fail_msg("taken: %s", never[i]);
    }
}

static void nested_reply_of_too_many_values_is_refused(void **state) {
    struct steady__reply reply;
    char *bytes = malloc(25 * (8 + 4 * 16383) + 16);
    (void)state;
    for (int arrays = 23; arrays <= 25; arrays++) { /* of 16384 values each, with the array itself */
        size_t len = (size_t)sprintf(bytes, "*%d\r\n", arrays);
        for (int i = 0; i < arrays; i++) {
            len += (size_t)sprintf(bytes + len, "*16383\r\n");
            for (int k = 0; k < 16383; k++, len += 4)
                memcpy(bytes + len, ":0\r\n", 4);
        }
        assert_int_equal(read_nested(&reply, bytes, len), arrays < 24 ? (ptrdiff_t)len : -1);
    }
    free(bytes);
}

static void plain_reply_is_read_where_a_nested_one_may_come(void **state) {
    struct steady__reply reply;
    (void)state;
    assert_int_equal(read_nested(&reply, "-NOAUTH x\r\n", 11), 11);
    assert_int_equal(reply.kind, STEADY__REPLY_ERROR);
    assert_int_equal(read_nested(&reply, "+OK\r\n", 5), 5);
    assert_int_equal(reply.kind, STEADY__REPLY_TEXT);
    struct steady__walk walk = steady__walk_over(&reply);
    struct steady__value value;
    assert_false(steady__walk_next(&walk, &value));
}

static void skip_passes_over_a_whole_value(void **state) {
    static const char bytes[] = "*3\r\n*2\r\n*1\r\n:1\r\n$1\r\nx\r\n$-1\r\n:7\r\n";
    struct steady__reply reply;
    struct steady__value value;
    (void)state;
    assert_int_equal(read_nested(&reply, bytes, sizeof bytes - 1), sizeof bytes - 1);
    struct steady__walk walk = steady__walk_over(&reply);
    assert_true(steady__walk_next(&walk, &value));
    assert_int_equal(value.number, 3);
    steady__walk_skip(&walk);
    steady__walk_skip(&walk);
    assert_true(steady__walk_next(&walk, &value));
    assert_int_equal(value.kind, STEADY__VALUE_INTEGER);
    assert_int_equal(value.number, 7);
    assert_false(steady__walk_next(&walk, &value));
    steady__walk_skip(&walk); /* nothing is left, so nothing happens */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_reply_is_read_once_it_is_whole),
        cmocka_unit_test(text_of_a_reply_is_found),
        cmocka_unit_test(invalid_reply_is_refused_at_once),
        cmocka_unit_test(endless_line_is_refused),
        cmocka_unit_test(endless_nesting_is_refused),
        cmocka_unit_test(random_bytes_are_read_within_their_bounds),
        cmocka_unit_test(nested_reply_is_read_once_it_is_whole),
        cmocka_unit_test(nested_reply_is_read_on_byte_by_byte),
        cmocka_unit_test(invalid_nested_reply_is_refused),
        cmocka_unit_test(nested_reply_of_too_many_values_is_refused),
        cmocka_unit_test(plain_reply_is_read_where_a_nested_one_may_come),
        cmocka_unit_test(skip_passes_over_a_whole_value),
    };
    return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
