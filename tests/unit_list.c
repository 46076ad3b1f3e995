/* SPDX-License-Identifier: MIT
 * Lists: order, empty lists, and members that leave in any order. */
#include "support.h"

#include "core/list.h"

/* The place is not the first member, so that STEADY__OWNER has to subtract something. */
struct item {
    char name;
    struct steady__list place;
};

static struct item items[6];
static struct steady__list list, other;

static int set_up(void **state) {
    (void)state;
    steady__list_init(&list);
    steady__list_init(&other);
    for (size_t i = 0; i < COUNT(items); i++) {
        items[i].name = (char)('a' + i);
        steady__list_init(&items[i].place);
    }
    return 0;
}

/* Appends items to a list: append_items(&list, 0, 3) appends a, b and c. */
static void append_items(struct steady__list *to, size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++)
        steady__list_append(to, &items[i].place);
}

/* Fails unless the list has these members, in both directions. */
static void assert_order(const struct steady__list *head, const char *names) {
    const size_t len = strlen(names);
    const struct steady__list *forward = head->next, *back = head->prev;
    for (size_t i = 0; i < len; i++, forward = forward->next, back = back->prev) {
        if (forward == head || back == head) fail_msg("%zu members, not %zu", i, len);
        assert_int_equal(STEADY__OWNER(struct item, place, forward)->name, names[i]);
        assert_int_equal(STEADY__OWNER(struct item, place, back)->name, names[len - 1 - i]);
    }
    assert_ptr_equal(forward, head);
    assert_ptr_equal(back, head);
    assert_int_equal(steady__list_empty(head), len == 0);
}

static void new_list_is_empty(void **state) {
    struct steady__list fresh;
    (void)state;
    memset(&fresh, 0xa5, sizeof fresh);
    steady__list_init(&fresh);
    assert_true(steady__list_empty(&fresh));
    assert_order(&fresh, "");
}

static void appended_members_are_in_the_order_of_their_appending(void **state) {
    (void)state;
    append_items(&list, 0, 1);
    assert_false(steady__list_empty(&list));
    assert_order(&list, "a");
    append_items(&list, 1, 2);
    assert_order(&list, "abc");
}

static void prepended_member_comes_before_all_others(void **state) {
    (void)state;
    steady__list_prepend(&list, &items[0].place);
    assert_order(&list, "a");
    steady__list_prepend(&list, &items[1].place);
    append_items(&list, 2, 1);
    steady__list_prepend(&list, &items[3].place);
    assert_order(&list, "dbac");
}

static void removal_keeps_the_order_of_the_others(void **state) {
    (void)state;
    append_items(&list, 0, 5);
    steady__list_remove(&items[2].place);
    assert_order(&list, "abde");
    steady__list_remove(&items[0].place);
    assert_order(&list, "bde");
    steady__list_remove(&items[4].place);
    assert_order(&list, "bd");
}

static void list_is_empty_when_its_last_member_is_removed(void **state) {
    (void)state;
    append_items(&list, 0, 1);
    steady__list_remove(&items[0].place);
    assert_order(&list, "");
    append_items(&list, 1, 1);
    assert_order(&list, "b");
}

/* Callers remove a member without asking whether it is in a list. */
static void removed_member_may_be_removed_again(void **state) {
    (void)state;
    append_items(&list, 0, 3);
    steady__list_remove(&items[1].place);
    assert_true(steady__list_empty(&items[1].place));
    steady__list_remove(&items[0].place);
    steady__list_remove(&items[1].place);
    assert_order(&list, "c");
    assert_order(&items[1].place, "");
}

static void removed_member_can_join_another_list(void **state) {
    (void)state;
    append_items(&list, 0, 3);
    append_items(&other, 3, 1);
    steady__list_remove(&items[1].place);
    steady__list_append(&other, &items[1].place);
    assert_order(&list, "ac");
    assert_order(&other, "db");
}

/* The usual loop over a list whose members leave while it runs. */
static void first_member_can_be_removed_until_the_list_is_empty(void **state) {
    char seen[COUNT(items) + 1] = "";
    (void)state;
    append_items(&list, 0, COUNT(items));
    for (size_t n = 0; !steady__list_empty(&list) && n < COUNT(items); n++) {
        struct item *first = STEADY__OWNER(struct item, place, list.next);
        steady__list_remove(&first->place);
        seen[n] = first->name;
    }
    assert_string_equal(seen, "abcdef");
    assert_order(&list, "");
}

static void moved_members_come_after_those_of_the_list(void **state) {
    (void)state;
    append_items(&list, 0, 2);
    append_items(&other, 2, 3);
    steady__list_move(&list, &other);
    assert_order(&list, "abcde");
    assert_order(&other, "");
}

static void one_moved_member_becomes_the_last_one(void **state) {
    (void)state;
    append_items(&list, 0, 1);
    append_items(&other, 1, 1);
    steady__list_move(&list, &other);
    assert_order(&list, "ab");
    assert_order(&other, "");
}

static void move_into_an_empty_list_keeps_the_order(void **state) {
    (void)state;
    append_items(&other, 0, 3);
    steady__list_move(&list, &other);
    assert_order(&list, "abc");
    assert_order(&other, "");
}

static void move_of_an_empty_list_changes_nothing(void **state) {
    (void)state;
    steady__list_move(&list, &other);
    assert_order(&list, "");
    append_items(&list, 0, 2);
    steady__list_move(&list, &other);
    assert_order(&list, "ab");
    assert_order(&other, "");
}

static void both_lists_can_be_used_after_a_move(void **state) {
    (void)state;
    append_items(&list, 0, 2);
    append_items(&other, 2, 2);
    steady__list_move(&list, &other);
    steady__list_remove(&items[3].place);
    append_items(&other, 4, 1);
    append_items(&list, 5, 1);
    assert_order(&list, "abcf");
    assert_order(&other, "e");
}

#define WITH_ITEMS(test) cmocka_unit_test_setup(test, set_up)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_ITEMS(new_list_is_empty),
        WITH_ITEMS(appended_members_are_in_the_order_of_their_appending),
        WITH_ITEMS(prepended_member_comes_before_all_others),
        WITH_ITEMS(removal_keeps_the_order_of_the_others),
        WITH_ITEMS(list_is_empty_when_its_last_member_is_removed),
        WITH_ITEMS(removed_member_may_be_removed_again),
        WITH_ITEMS(removed_member_can_join_another_list),
        WITH_ITEMS(first_member_can_be_removed_until_the_list_is_empty),
        WITH_ITEMS(moved_members_come_after_those_of_the_list),
        WITH_ITEMS(one_moved_member_becomes_the_last_one),
        WITH_ITEMS(move_into_an_empty_list_keeps_the_order),
        WITH_ITEMS(move_of_an_empty_list_changes_nothing),
        WITH_ITEMS(both_lists_can_be_used_after_a_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
