/* SPDX-License-Identifier: MIT
 * The part of cmocka that some unit tests use, for compilers without a cmocka: musl-gcc and cross compilers. See
 * tests/test_builds.py. A failed check ends its test; the results are printed as TAP. */
#ifndef SMALL_CMOCKA_H
#define SMALL_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
};

static jmp_buf small_end;

static inline void small_check(int holds, const char *what, const char *file, int line) {
    if (holds) return;
    printf("# %s:%d: %s\n", file, line, what);
    longjmp(small_end, 1);
}

static inline int small_same_text(const char *a, const char *b) { return strcmp(a, b) == 0; }

static inline int small_run(const struct CMUnitTest *tests, size_t count) {
    volatile int failed = 0;
    printf("1..%zu\n", count);
    for (volatile size_t i = 0; i < count; i++) {
        void *state = NULL;
        const int fails = setjmp(small_end);
        if (!fails) tests[i].test(&state);
        failed += fails;
        printf("%s %zu - %s\n", fails ? "not ok" : "ok", i + 1, tests[i].name);
    }
    return failed;
}

#define SMALL_CHECK(condition) small_check((condition), #condition, __FILE__, __LINE__)
#define assert_true(c) SMALL_CHECK(c)
#define assert_false(c) SMALL_CHECK(!(c))
#define assert_null(p) SMALL_CHECK((p) == NULL)
#define assert_non_null(p) SMALL_CHECK((p) != NULL)
#define assert_ptr_equal(a, b) SMALL_CHECK((const void *)(a) == (const void *)(b))
#define assert_int_equal(a, b) SMALL_CHECK((int64_t)(a) == (int64_t)(b))
#define assert_int_not_equal(a, b) SMALL_CHECK((int64_t)(a) != (int64_t)(b))
#define assert_string_equal(a, b) SMALL_CHECK(small_same_text((a), (b)))
#define assert_string_not_equal(a, b) SMALL_CHECK(!small_same_text((a), (b)))
#define assert_memory_equal(a, b, size) SMALL_CHECK(memcmp((a), (b), (size)) == 0)
#define _fail(file, line) small_check(0, "failed", (file), (line))
#define print_message(...) printf(__VA_ARGS__)
#define print_error(...) printf(__VA_ARGS__)
#define fail_msg(...) (printf(__VA_ARGS__), printf("\n"), _fail(__FILE__, __LINE__))
#define cmocka_unit_test(name)                                                                                         \
    { #name, name }
#define cmocka_run_group_tests(tests, up, down) small_run((tests), sizeof(tests) / sizeof(tests)[0])
#define cmocka_run_group_tests_name(name, tests, up, down) cmocka_run_group_tests(tests, up, down)

#endif
