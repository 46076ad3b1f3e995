/* SPDX-License-Identifier: MIT
 * Which engine the decisions of a connection are put to, and what its answers teach. */
#include "support.h"

#include "engine.h"

#define AUTO STEADY_ENGINE_AUTO

static bool to_module(struct steady__dialect *dialect, enum steady__verb verb) {
    return steady__dialect_module(dialect, verb, AUTO);
}

/* A first decision that was given up leaves nobody to hear the answer, so that there has to be another first. */
static void test_one_in_a_thousand_until_answered(void **state) {
    struct steady__dialect dialect = {.hung_up = 0};
    unsigned count = 0;
    (void)state;
    for (int i = 0; i < 10010; i++)
        count += to_module(&dialect, STEADY__CONSUME);
    assert_int_equal(count, 10);
    assert_true(steady__dialect_in_question(&dialect));
    steady__dialect_settle(&dialect, STEADY__CONSUME, true);
    assert_false(steady__dialect_in_question(&dialect));
    for (int i = 0; i < 10; i++)
        assert_true(to_module(&dialect, STEADY__CONSUME));
}

static void test_forced(void **state) {
    struct steady__dialect dialect = {.hung_up = 0};
    (void)state;
    assert_false(steady__dialect_module(&dialect, STEADY__PEEK, STEADY_ENGINE_SCRIPT));
    assert_true(steady__dialect_module(&dialect, STEADY__PEEK, STEADY_ENGINE_MODULE));
    assert_false(steady__dialect_turn(&dialect, STEADY__PEEK, STEADY_ENGINE_SCRIPT));
    assert_false(steady__dialect_in_question(&dialect));
}

/* The rights to one command say nothing of the others; that there is no module says all. */
static void test_each_verb_for_itself(void **state) {
    struct steady__dialect dialect = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&dialect, STEADY__CONSUME) && to_module(&dialect, STEADY__RESET));
    steady__dialect_settle(&dialect, STEADY__CONSUME, true);
    steady__dialect_settle(&dialect, STEADY__RESET, false);
    assert_true(to_module(&dialect, STEADY__CONSUME));
    assert_false(to_module(&dialect, STEADY__RESET));
    assert_true(to_module(&dialect, STEADY__PEEK));
    steady__dialect_without_module(&dialect);
    for (int verb = 0; verb < 3; verb++)
        assert_false(to_module(&dialect, (enum steady__verb)verb));
}

static void test_an_answer_that_teaches_nothing(void **state) {
    struct steady__dialect dialect = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&dialect, STEADY__CONSUME));
    steady__dialect_settle(&dialect, STEADY__PEEK, true);
    steady__dialect_settle(&dialect, STEADY__RESET, false);
    steady__dialect_nothing_learnt(&dialect);
    assert_false(steady__dialect_in_question(&dialect));
    assert_true(to_module(&dialect, STEADY__CONSUME)); /* asked anew */
    assert_true(to_module(&dialect, STEADY__PEEK));    /* what was known stays known */
    assert_false(to_module(&dialect, STEADY__RESET));
}

static void test_scripts_forbidden(void **state) {
    struct steady__dialect dialect = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&dialect, STEADY__CONSUME));
    assert_true(steady__dialect_turn(&dialect, STEADY__CONSUME, AUTO));
    assert_true(steady__dialect_in_question(&dialect));
    steady__dialect_settle(&dialect, STEADY__CONSUME, true);
    assert_true(steady__dialect_turn(&dialect, STEADY__CONSUME, AUTO)); /* one that was on its way */
    assert_false(steady__dialect_in_question(&dialect));
    steady__dialect_settle(&dialect, STEADY__PEEK, false);
    assert_false(steady__dialect_turn(&dialect, STEADY__PEEK, AUTO)); /* neither the one nor the other */
}

/* How many connections come between one that is lost over the question and the next that is asked. */
static unsigned spared(struct steady__dialect *dialect) {
    unsigned n = 0;
    assert_true(to_module(dialect, STEADY__CONSUME));
    for (; *dialect = steady__dialect_anew(dialect), !to_module(dialect, STEADY__PEEK); n++)
        assert_false(to_module(dialect, STEADY__CONSUME));
    *dialect = (struct steady__dialect){.hung_up = dialect->hung_up, .spared = dialect->spared};
    return n;
}

static void test_hung_up_on_for_the_question(void **state) {
    struct steady__dialect dialect = {.hung_up = 0};
    (void)state;
    for (unsigned i = 1; i <= 8; i++)
        assert_int_equal(spared(&dialect), (1U << (i < 6 ? i : 6)) - 1);
    assert_true(to_module(&dialect, STEADY__CONSUME));
    steady__dialect_without_module(&dialect);
    dialect = steady__dialect_anew(&dialect);
    assert_int_equal(spared(&dialect), 1); /* an answer makes all of it forgotten */
}

/* A connection that was spared may yet need the module, and learns of it. */
static void test_spared_but_needed(void **state) {
    struct steady__dialect dialect = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&dialect, STEADY__CONSUME));
    dialect = steady__dialect_anew(&dialect);
    assert_false(to_module(&dialect, STEADY__CONSUME));
    assert_false(steady__dialect_is_settled(&dialect));
    assert_true(steady__dialect_turn(&dialect, STEADY__CONSUME, AUTO));
    steady__dialect_settle(&dialect, STEADY__CONSUME, true);
    assert_true(to_module(&dialect, STEADY__CONSUME));
    assert_true(steady__dialect_is_settled(&dialect));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_in_a_thousand_until_answered),
        cmocka_unit_test(test_forced),
        cmocka_unit_test(test_each_verb_for_itself),
        cmocka_unit_test(test_an_answer_that_teaches_nothing),
        cmocka_unit_test(test_scripts_forbidden),
        cmocka_unit_test(test_hung_up_on_for_the_question),
        cmocka_unit_test(test_spared_but_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
