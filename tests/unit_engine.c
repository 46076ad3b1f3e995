/* SPDX-License-Identifier: MIT
 * Which engine the decisions of a connection are put to, and what its answers teach. */
#include "support.h"

#include "conn/engine.h"

#define AUTO STEADY_ENGINE_AUTO

static bool to_module(struct steady__engines *engines, enum steady__verb verb) {
    return steady__engine_asks_module(engines, verb, AUTO);
}

/* A first decision that was given up leaves nobody to hear the answer, so that there has to be another first. */
static void test_one_in_a_thousand_until_answered(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    unsigned count = 0;
    (void)state;
    for (int i = 0; i < 10010; i++)
        count += to_module(&engines, STEADY__CONSUME);
    assert_int_equal(count, 10);
    assert_true(steady__engine_is_trying(&engines));
    steady__engine_settle(&engines, STEADY__CONSUME, true);
    assert_false(steady__engine_is_trying(&engines));
    for (int i = 0; i < 10; i++)
        assert_true(to_module(&engines, STEADY__CONSUME));
}

static void test_forced(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    assert_false(steady__engine_asks_module(&engines, STEADY__PEEK, STEADY_ENGINE_SCRIPT));
    assert_true(steady__engine_asks_module(&engines, STEADY__PEEK, STEADY_ENGINE_MODULE));
    assert_false(steady__engine_switch_to_module(&engines, STEADY__PEEK, STEADY_ENGINE_SCRIPT));
    assert_false(steady__engine_is_trying(&engines));
}

/* The rights to one command say nothing of the others; that there is no module says all. */
static void test_each_verb_for_itself(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&engines, STEADY__CONSUME) && to_module(&engines, STEADY__RESET));
    steady__engine_settle(&engines, STEADY__CONSUME, true);
    steady__engine_settle(&engines, STEADY__RESET, false);
    assert_true(to_module(&engines, STEADY__CONSUME));
    assert_false(to_module(&engines, STEADY__RESET));
    assert_true(to_module(&engines, STEADY__PEEK));
    steady__engine_no_module(&engines);
    for (int verb = 0; verb < 3; verb++)
        assert_false(to_module(&engines, (enum steady__verb)verb));
}

static void test_an_answer_that_teaches_nothing(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&engines, STEADY__CONSUME));
    steady__engine_settle(&engines, STEADY__PEEK, true);
    steady__engine_settle(&engines, STEADY__RESET, false);
    steady__engine_not_answered(&engines);
    assert_false(steady__engine_is_trying(&engines));
    assert_true(to_module(&engines, STEADY__CONSUME)); /* asked anew */
    assert_true(to_module(&engines, STEADY__PEEK));    /* what was known stays known */
    assert_false(to_module(&engines, STEADY__RESET));
}

static void test_scripts_forbidden(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&engines, STEADY__CONSUME));
    assert_true(steady__engine_switch_to_module(&engines, STEADY__CONSUME, AUTO));
    assert_true(steady__engine_is_trying(&engines));
    steady__engine_settle(&engines, STEADY__CONSUME, true);
    assert_true(steady__engine_switch_to_module(&engines, STEADY__CONSUME, AUTO)); /* one that was on its way */
    assert_false(steady__engine_is_trying(&engines));
    steady__engine_settle(&engines, STEADY__PEEK, false);
    assert_false(steady__engine_switch_to_module(&engines, STEADY__PEEK, AUTO)); /* neither the one nor the other */
}

/* How many connections come between one that is lost over the question and the next that is asked. */
static unsigned spared(struct steady__engines *engines) {
    unsigned n = 0;
    assert_true(to_module(engines, STEADY__CONSUME));
    for (; *engines = steady__engine_reconnected(engines), !to_module(engines, STEADY__PEEK); n++)
        assert_false(to_module(engines, STEADY__CONSUME));
    *engines = (struct steady__engines){.hung_up = engines->hung_up, .spared = engines->spared};
    return n;
}

static void test_hung_up_on_for_the_question(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    for (unsigned i = 1; i <= 8; i++)
        assert_int_equal(spared(&engines), (1U << (i < 6 ? i : 6)) - 1);
    assert_true(to_module(&engines, STEADY__CONSUME));
    steady__engine_no_module(&engines);
    engines = steady__engine_reconnected(&engines);
    assert_int_equal(spared(&engines), 1); /* an answer makes all of it forgotten */
}

/* A connection that was spared may yet need the module, and learns of it. */
static void test_spared_but_needed(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&engines, STEADY__CONSUME));
    engines = steady__engine_reconnected(&engines);
    assert_false(to_module(&engines, STEADY__CONSUME));
    assert_false(steady__engine_is_settled(&engines));
    assert_true(steady__engine_switch_to_module(&engines, STEADY__CONSUME, AUTO));
    steady__engine_settle(&engines, STEADY__CONSUME, true);
    assert_true(to_module(&engines, STEADY__CONSUME));
    assert_true(steady__engine_is_settled(&engines));
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
