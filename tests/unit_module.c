/* SPDX-License-Identifier: MIT
 * The module in a server that lacks a function it needs, as servers before Redis 7.0 do. It names the function and
 * calls nothing else. */
#include <dlfcn.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../module/abi.h"
#include "../module/stored.c"
#include "assertions.h"
#include "random.h"

/* ---- The text of a bucket ---- */

static void expect_text(const struct steady__bucket *bucket) {
    char expected[128], room[STEADY__STORED_MAX];
    struct steady__bucket read_back = {0};
    size_t len = 0;
    const char *text = steady__stored_format(room + sizeof room, bucket, &len);
    int n = sprintf(expected, "%" PRId64 " %" PRId64 ".%06d ", bucket->level, bucket->last / SECOND,
                    (int)(bucket->last % SECOND));
    if (bucket->blocked_until == 0)
        n += sprintf(expected + n, "0");
    else
        n += sprintf(expected + n, "%" PRId64 ".%06d", bucket->blocked_until / SECOND,
                     (int)(bucket->blocked_until % SECOND));
    if (bucket->rem != 0) n += sprintf(expected + n, " %" PRId64, bucket->rem);
    assert_int_equal(len, n);
    assert_memory_equal(text, expected, len);
    assert_true(steady__stored_parse(&read_back, text, len));
    assert_memory_equal(&read_back, bucket, sizeof read_back);
}

/* Numbers of all lengths are written as printf writes them, and read back. */
static void bucket_is_written_as_text_and_read_back(void **state) {
    uint64_t seed = 12;
    (void)state;
    for (int i = 0; i < 200000; i++) {
        int64_t n[4];
        for (int j = 0; j < 4; j++)
            n[j] = random_edgy(&seed, 0, STEADY__EXACT - 1);
        expect_text(&(struct steady__bucket){.level = n[0], .last = n[1], .rem = n[2], .blocked_until = n[3]});
    }
}

/* Both ways of reading agree on texts that are nearly buckets. A copy of the exact size lets ASan see a byte too many.
 */
static void changed_text_is_read_alike_in_both_ways(void **state) {
    static const char bytes[] = "0123456789 .-+\0x\x80/:";
    uint64_t seed = 15;
    unsigned long read = 0;
    (void)state;
    for (int i = 0; i < 400000; i++) {
        char text[128];
        const int n = sprintf(text, "%" PRId64 " %" PRId64 ".%06d %s", random_edgy(&seed, 0, STEADY__EXACT),
                              random_edgy(&seed, 0, STEADY__EXACT / SECOND + 2), (int)random_edgy(&seed, 0, SECOND - 1),
                              random_in(&seed, 0, 3) == 0 ? "0.000000" : "0");
        const size_t len = (size_t)(n - random_in(&seed, 0, 1) * random_in(&seed, 0, n));
        for (int64_t changes = random_in(&seed, 0, 2); changes > 0 && len > 0; changes--)
            text[random_in(&seed, 0, (int64_t)len - 1)] = bytes[random_in(&seed, 0, sizeof bytes - 2)];
        char *copy = malloc(len + (len == 0));
        memcpy(copy, text, len);
        struct steady__bucket common = {0}, any = {0};
        const bool is_common = stored_parse_common(&common, copy, len), is_any = stored_parse_any(&any, copy, len);
        if (is_common) {
            assert_true(is_any);
            assert_memory_equal(&common, &any, sizeof any);
        }
        read += is_common;
        free(copy);
    }
    assert_true(read > 10000);
}

/* ---- Digits ---- */

static void digits_are_written_with_leading_zeros(void **state) {
    char text[9], expected[16];
    (void)state;
    for (uint32_t four = 0; four < 10000; four++) {
        const uint32_t numbers[] = {four * 10000, four, four * 10000 + 9999 - four};
        for (int i = 0; i < 3; i++) {
            steady__digits_put(text, numbers[i]);
            sprintf(expected, "%08" PRIu32, numbers[i]);
            assert_memory_equal(text, expected, 8);
        }
    }
}

static void only_digits_are_read_as_a_number(void **state) {
    uint64_t seed = 16;
    (void)state;
    for (size_t len = 1; len <= STEADY__DIGITS_MOST + 2; len++)
        for (int i = 0; i < 2000; i++) {
            char text[32], *end;
            for (size_t at = 0; at < len; at++)
                text[at] = (char)('0' + random_in(&seed, 0, 9));
            text[len] = '\0';
            char *copy = malloc(len);
            int64_t number = -1;
            memcpy(copy, text, len);
            const bool fits = len <= STEADY__DIGITS_MOST;
            assert_int_equal(steady__digits_read(copy, len, &number), fits);
            if (fits) assert_int_equal(number, strtoll(text, &end, 10));
            const int64_t at = random_in(&seed, 0, (int64_t)len - 1);
            for (int byte = 0; byte < 256; byte++) {
                copy[at] = (char)byte;
                assert_int_equal(steady__digits_read(copy, len, &number), fits && byte >= '0' && byte <= '9');
            }
            free(copy);
        }
    assert_false(steady__digits_read("", 0, &(int64_t){0}));
}

/* ---- A server that lacks a function ---- */

static const char *const needed[] = {
#define NAME(result, name, arguments) #name,
    SERVER_FUNCTIONS(NAME)
#undef NAME
};
#define NEEDED (sizeof needed / sizeof needed[0])

/* The server. It has every function except `lacking`. If `old`, it has no functions that came after 6.2. */
static const char *lacking;
static int old;
static char logged[512];

__attribute__((format(printf, 3, 4))) static void log_line(server_context *context, const char *level,
                                                           const char *format, ...) {
    va_list arguments;
    (void)context;
    assert_string_equal(level, "warning");
    va_start(arguments, format);
    vsnprintf(logged, sizeof logged, format, arguments);
    va_end(arguments);
}

static void called(void) { fail_msg("called a server that will not do"); }

static int find(const char *name, void *where) {
    static const char *const came_later[] = {"GetCommand", "SetCommandInfo", "CachedMicroseconds",
                                             "SetCommandACLCategories"};
    void (*function)(void) = called;
    const char *bare = name + strlen("RedisModule_");
    if (lacking != NULL && strcmp(bare, lacking) == 0) return SERVER_ERR;
    for (size_t i = 0; old && i < sizeof came_later / sizeof came_later[0]; i++)
        if (strcmp(bare, came_later[i]) == 0) return SERVER_ERR;
    if (strcmp(bare, "Log") == 0)
        memcpy(where, &(void (*)(server_context *, const char *, const char *, ...)){log_line}, sizeof function);
    else
        memcpy(where, &function, sizeof function);
    return SERVER_OK;
}

static int (*load)(void *context, server_string **argv, int argc);

static int load_into_this(void) {
    int (*const first_word)(const char *, void *) = find;
    void *context[16] = {NULL};
    memcpy(context, &first_word, sizeof first_word);
    logged[0] = '\0';
    return load(context, NULL, 0);
}

static void module_names_the_function_that_the_server_lacks(void **state) {
    (void)state;
    char wanted[256];
    old = 0;
    for (size_t i = 0; i < NEEDED; i++) {
        lacking = needed[i];
        assert_int_equal(load_into_this(), SERVER_ERR);
        snprintf(wanted, sizeof wanted,
                 "steady: this server lacks RedisModule_%s; use Redis 7.0 or Valkey 7.2, or later", lacking);
        assert_string_equal(logged, wanted);
    }
}

static void module_is_refused_on_redis_6_2(void **state) {
    (void)state;
    lacking = NULL;
    old = 1;
    assert_int_equal(load_into_this(), SERVER_ERR);
    assert_non_null(strstr(logged, "this server lacks RedisModule_GetCommand;"));
}

/* Loads the module of this build: ../steady.so, relative to this program. */
static int find_module(void **state) {
    char path[4096];
    const ssize_t len = readlink("/proc/self/exe", path, sizeof path - 32);
    (void)state;
    if (len < 0) return -1;
    path[len] = '\0';
    for (int up = 0; up < 2; up++)
        *strrchr(path, '/') = '\0';
    strcat(path, "/steady.so");
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (module == NULL) return -1;
    *(void **)&load = dlsym(module, "RedisModule_OnLoad");
    return load != NULL ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bucket_is_written_as_text_and_read_back),
                                       cmocka_unit_test(changed_text_is_read_alike_in_both_ways),
                                       cmocka_unit_test(digits_are_written_with_leading_zeros),
                                       cmocka_unit_test(only_digits_are_read_as_a_number),
                                       cmocka_unit_test(module_names_the_function_that_the_server_lacks),
                                       cmocka_unit_test(module_is_refused_on_redis_6_2)};
    return cmocka_run_group_tests(tests, find_module, NULL);
}
