/* SPDX-License-Identifier: MIT
 * Roles: what ROLE and READONLY make of a server. The time is a parameter. */
#include "support.h"

#include "conn/role.h"

#define MS STEADY_MILLISECOND
#define MADE_AT (5 * HOUR) /* when the connection was made */

/* A new connection to a server that must have this role. */
static struct steady__role_state connected(enum steady__role wanted) {
    return (struct steady__role_state){.wanted = wanted, .since = MADE_AT};
}

/* A new connection after one whose server was no primary. */
static struct steady__role_state connected_to_a_suspect(void) {
    struct steady__role_state role = connected(STEADY__ROLE_ANY);
    role.suspect = true;
    return role;
}

static void role_is_not_asked_before_a_readonly(void **state) {
    struct steady__role_state role = connected(STEADY__ROLE_ANY);
    (void)state;
    assert_int_equal(steady__role_expected(&role), STEADY__ROLE_ANY);
    steady__role_contradicted(&role, MADE_AT);
    assert_int_equal(steady__role_expected(&role), STEADY__ROLE_PRIMARY);
}

static void wanted_role_is_expected_whatever_the_server_has_answered(void **state) {
    static const enum steady__role wanted[] = {STEADY__ROLE_PRIMARY, STEADY__ROLE_REPLICA};
    (void)state;
    for (size_t i = 0; i < COUNT(wanted); i++) {
        struct steady__role_state role = connected(wanted[i]);
        assert_int_equal(steady__role_expected(&role), wanted[i]);
        steady__role_contradicted(&role, MADE_AT);
        assert_int_equal(steady__role_expected(&role), wanted[i]);
    }
}

static void only_the_first_readonly_is_news(void **state) {
    struct steady__role_state role = connected(STEADY__ROLE_ANY);
    (void)state;
    assert_true(steady__role_contradicted(&role, MADE_AT));
    assert_true(role.suspect);
    assert_false(steady__role_contradicted(&role, MADE_AT + 1));
    assert_true(role.suspect);
}

static void readonly_is_news_again_after_a_confirmation(void **state) {
    struct steady__role_state role = connected_to_a_suspect();
    (void)state;
    steady__role_confirmed(&role);
    assert_true(steady__role_contradicted(&role, MADE_AT + 10 * STEADY_SECOND));
}

static void role_of_a_suspect_server_ends_the_suspicion(void **state) {
    struct steady__role_state role = connected_to_a_suspect();
    (void)state;
    steady__role_confirmed(&role);
    assert_true(role.confirmed);
    assert_false(role.suspect);
    assert_int_equal(steady__role_expected(&role), STEADY__ROLE_ANY);
    assert_true(steady__role_not_contradicted(&role, MADE_AT));
}

/* A proxy may answer ROLE itself. Each next connection would then be trusted, and left at once, without a pause. */
static void role_is_not_trusted_after_a_readonly_contradicted_it(void **state) {
    struct steady__role_state role = connected_to_a_suspect();
    (void)state;
    steady__role_confirmed(&role);
    steady__role_contradicted(&role, MADE_AT + STEADY__ROLE_SUSPECT_FOR - 1);
    assert_true(role.contradicted);
    role.confirmed = false; /* the next connection */
    role.since = MADE_AT + 2 * STEADY_SECOND;
    steady__role_confirmed(&role);
    assert_true(role.suspect);
    assert_false(steady__role_not_contradicted(&role, role.since));
}

/* A primary that has become a replica since. */
static void late_readonly_does_not_contradict_role(void **state) {
    struct steady__role_state role = connected_to_a_suspect();
    (void)state;
    steady__role_confirmed(&role);
    steady__role_contradicted(&role, MADE_AT + STEADY__ROLE_SUSPECT_FOR);
    assert_false(role.contradicted);
    assert_true(role.suspect);
    steady__role_confirmed(&role);
    assert_false(role.suspect);
}

static void readonly_of_a_server_that_did_not_tell_its_role_contradicts_nothing(void **state) {
    struct steady__role_state role = connected(STEADY__ROLE_ANY);
    (void)state;
    steady__role_contradicted(&role, MADE_AT);
    assert_false(role.contradicted);
    steady__role_confirmed(&role);
    assert_false(role.suspect);
}

static void suspect_server_is_a_primary_after_a_second_without_readonly(void **state) {
    struct steady__role_state role = connected_to_a_suspect();
    (void)state;
    assert_int_equal(STEADY__ROLE_SUSPECT_FOR, 1000 * MS);
    assert_false(steady__role_not_contradicted(&role, MADE_AT));
    assert_false(steady__role_not_contradicted(&role, MADE_AT + STEADY__ROLE_SUSPECT_FOR - 1));
    assert_true(role.suspect);
    assert_true(steady__role_not_contradicted(&role, MADE_AT + STEADY__ROLE_SUSPECT_FOR));
    assert_false(role.suspect);
}

static void second_without_readonly_makes_role_trusted_again(void **state) {
    struct steady__role_state role = connected_to_a_suspect();
    (void)state;
    steady__role_confirmed(&role);
    steady__role_contradicted(&role, MADE_AT);
    assert_true(steady__role_not_contradicted(&role, MADE_AT + STEADY__ROLE_SUSPECT_FOR));
    assert_false(role.contradicted);
    role.suspect = true;
    steady__role_confirmed(&role);
    assert_false(role.suspect);
}

static void server_that_never_answered_readonly_is_a_primary_at_once(void **state) {
    struct steady__role_state role = connected(STEADY__ROLE_ANY);
    (void)state;
    assert_true(steady__role_not_contradicted(&role, MADE_AT));
    assert_false(role.suspect || role.confirmed || role.contradicted);
}

/* Every state and event, against the rules written as a table of conditions. */
static void every_event_in_every_state_ends_as_the_rules_say(void **state) {
    (void)state;
    for (unsigned bits = 0; bits < 16; bits++) {
        const bool suspect = bits & 1, confirmed = bits & 2, contradicted = bits & 4, late = bits & 8;
        const steady_us now = MADE_AT + (late ? STEADY_SECOND : STEADY_SECOND - 1);
        const struct steady__role_state before = {STEADY__ROLE_ANY, suspect, confirmed, contradicted, MADE_AT};
        struct steady__role_state role = before;
        steady__role_confirmed(&role);
        assert_true(role.confirmed);
        assert_int_equal(role.suspect, suspect && contradicted);
        assert_int_equal(role.contradicted, contradicted);
        role = before;
        assert_int_equal(steady__role_contradicted(&role, now), !suspect);
        assert_true(role.suspect);
        assert_int_equal(role.confirmed, confirmed);
        assert_int_equal(role.contradicted, contradicted || (confirmed && !late));
        role = before;
        assert_int_equal(steady__role_not_contradicted(&role, now), !suspect || late);
        assert_int_equal(role.suspect, suspect && !late);
        assert_int_equal(role.confirmed, confirmed);
        assert_int_equal(role.contradicted, contradicted && !(suspect && late));
        assert_int_equal(role.since, MADE_AT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(role_is_not_asked_before_a_readonly),
        cmocka_unit_test(wanted_role_is_expected_whatever_the_server_has_answered),
        cmocka_unit_test(only_the_first_readonly_is_news),
        cmocka_unit_test(readonly_is_news_again_after_a_confirmation),
        cmocka_unit_test(role_of_a_suspect_server_ends_the_suspicion),
        cmocka_unit_test(role_is_not_trusted_after_a_readonly_contradicted_it),
        cmocka_unit_test(late_readonly_does_not_contradict_role),
        cmocka_unit_test(readonly_of_a_server_that_did_not_tell_its_role_contradicts_nothing),
        cmocka_unit_test(suspect_server_is_a_primary_after_a_second_without_readonly),
        cmocka_unit_test(second_without_readonly_makes_role_trusted_again),
        cmocka_unit_test(server_that_never_answered_readonly_is_a_primary_at_once),
        cmocka_unit_test(every_event_in_every_state_ends_as_the_rules_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
