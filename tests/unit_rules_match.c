/* SPDX-License-Identifier: MIT
 * Patterns with `*`. */
#include <string.h>

#include "assertions.h"
#include "rules/pattern.h"

#define TEXT(literal) ((struct rules_text){literal, sizeof(literal) - 1})

static void a_pattern_matches_the_whole_text(void **state) {
    (void)state;
    assert_true(pattern_matches("", TEXT(""), false));
    assert_true(pattern_matches("*", TEXT(""), false));
    assert_true(pattern_matches("/a/*", TEXT("/a/"), false));
    assert_true(pattern_matches("*a*b", TEXT("xaxbab"), false));
    assert_true(pattern_matches("*.Example", TEXT("w.eXAMPLE"), true));
    assert_false(pattern_matches("*.Example", TEXT("w.eXAMPLE"), false));
    assert_false(pattern_matches("/a", TEXT("/a/"), false));
    assert_false(pattern_matches("/a/*", TEXT("/a"), false));
    assert_false(pattern_matches("a*b", TEXT("abc"), false));
}

/* The fuzzer found that the end of the pattern matched a NUL byte, so that bytes behind the pattern were read. */
static void the_end_of_a_pattern_matches_no_nul_byte(void **state) {
    (void)state;
    static const char pattern[] = "/a\0x";
    assert_false(pattern_matches(pattern, TEXT("/a\0x"), false));
    assert_false(pattern_matches(pattern, TEXT("/a\0"), true));
    assert_true(pattern_matches("/a*", TEXT("/a\0x"), false));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_pattern_matches_the_whole_text),
                                       cmocka_unit_test(the_end_of_a_pattern_matches_no_nul_byte)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
