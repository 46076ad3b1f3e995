/* SPDX-License-Identifier: MIT
 * Which engine a connection uses for its decisions, and what the replies say about the engines. */
#include "support.h"

#include "conn/engine.h"

#define AUTO STEADY_ENGINE_AUTO

static bool to_module(struct steady__engines *engines, enum steady__verb verb) {
    return steady__engine_asks_module(engines, verb, AUTO);
}

/* A trial that was cancelled gets no reply, so another decision must try again. */
static void module_is_tried_once_in_a_thousand_until_a_reply(void **state) {
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

static void forced_engine_is_used_without_a_trial(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    assert_false(steady__engine_asks_module(&engines, STEADY__PEEK, STEADY_ENGINE_SCRIPT));
    assert_true(steady__engine_asks_module(&engines, STEADY__PEEK, STEADY_ENGINE_MODULE));
    assert_false(steady__engine_switch_to_module(&engines, STEADY__PEEK, STEADY_ENGINE_SCRIPT));
    assert_false(steady__engine_is_trying(&engines));
}

/* A permission holds for one command only. A missing module holds for all commands. */
static void each_verb_settles_its_own_engine(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&engines, STEADY__CONSUME) && to_module(&engines, STEADY__RESET));
    steady__engine_settle(&engines, STEADY__CONSUME, true);
    steady__engine_settle(&engines, STEADY__RESET, false);
    assert_true(to_module(&engines, STEADY__CONSUME));
    assert_false(to_module(&engines, STEADY__RESET));
    assert_true(to_module(&engines, STEADY__PEEK));
    steady__engine_no_module(&engines);
    for (int verb = 0; verb < STEADY__VERBS; verb++)
        assert_false(to_module(&engines, (enum steady__verb)verb));
}

static void trial_without_a_result_is_repeated(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&engines, STEADY__CONSUME));
    steady__engine_settle(&engines, STEADY__PEEK, true);
    steady__engine_settle(&engines, STEADY__RESET, false);
    steady__engine_not_answered(&engines);
    assert_false(steady__engine_is_trying(&engines));
    assert_true(to_module(&engines, STEADY__CONSUME)); /* tried again */
    assert_true(to_module(&engines, STEADY__PEEK));    /* known results stay known */
    assert_false(to_module(&engines, STEADY__RESET));
}

static void forbidden_script_switches_to_the_module(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    assert_true(to_module(&engines, STEADY__CONSUME));
    assert_true(steady__engine_switch_to_module(&engines, STEADY__CONSUME, AUTO));
    assert_true(steady__engine_is_trying(&engines));
    steady__engine_settle(&engines, STEADY__CONSUME, true);
    assert_true(steady__engine_switch_to_module(&engines, STEADY__CONSUME, AUTO)); /* a request that was in flight */
    assert_false(steady__engine_is_trying(&engines));
    steady__engine_settle(&engines, STEADY__PEEK, false);
    assert_false(steady__engine_switch_to_module(&engines, STEADY__PEEK, AUTO)); /* neither engine is permitted */
}

/* The number of connections between a connection lost over a trial and the next trial. */
static unsigned connections_skipped(struct steady__engines *engines) {
    unsigned n = 0;
    assert_true(to_module(engines, STEADY__CONSUME));
    for (; *engines = steady__engine_reconnected(engines), !to_module(engines, STEADY__PEEK); n++)
        assert_false(to_module(engines, STEADY__CONSUME));
    *engines = (struct steady__engines){.hung_up = engines->hung_up, .skip = engines->skip};
    return n;
}

static void connection_lost_over_a_trial_doubles_the_pause_between_trials(void **state) {
    struct steady__engines engines = {.hung_up = 0};
    (void)state;
    for (unsigned i = 1; i <= 8; i++)
        assert_int_equal(connections_skipped(&engines), (1U << (i < 6 ? i : 6)) - 1);
    assert_true(to_module(&engines, STEADY__CONSUME));
    steady__engine_no_module(&engines);
    engines = steady__engine_reconnected(&engines);
    assert_int_equal(connections_skipped(&engines), 1); /* a reply resets the count */
}

/* A connection without a trial may still need the module, and then settles it. */
static void connection_without_a_trial_can_switch_to_the_module(void **state) {
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
        cmocka_unit_test(module_is_tried_once_in_a_thousand_until_a_reply),
        cmocka_unit_test(forced_engine_is_used_without_a_trial),
        cmocka_unit_test(each_verb_settles_its_own_engine),
        cmocka_unit_test(trial_without_a_result_is_repeated),
        cmocka_unit_test(forbidden_script_switches_to_the_module),
        cmocka_unit_test(connection_lost_over_a_trial_doubles_the_pause_between_trials),
        cmocka_unit_test(connection_without_a_trial_can_switch_to_the_module),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
