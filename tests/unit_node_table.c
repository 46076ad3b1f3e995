/* SPDX-License-Identifier: MIT
 * The nodes of a cluster: numbers, names, the limit, and nodes that leave. */
#include "support.h"

#include <stdlib.h>

#include "alloc.h"
#include "redis/node_table.h"

#define NODES_MOST 1024
#define NO_NUMBER STEADY__SLOT_UNKNOWN

static struct steady__node_table nodes;
static struct steady__node_entry entries[NODES_MOST + 1];

static int set_up(void **state) {
    (void)state;
    memset(&nodes, 0, sizeof nodes);
    memset(entries, 0xa5, sizeof entries); /* the caller clears nothing */
    steady__node_table_set_key(&nodes, (const uint64_t[2]){1, 2});
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    alloc_fail(0);
    free(nodes.by_number);
    return 0;
}

/* Adds entries[i], and fails if it cannot be added. */
static struct steady__node_entry *add(size_t i, const char *host, uint16_t port) {
    assert_true(steady__node_table_add(&nodes, &entries[i], host, port));
    entries[i].slots = 0;
    return &entries[i];
}

/* Adds a.test:1000, b.test:1001, ... */
static void add_nodes(size_t count) {
    for (size_t i = 0; i < count; i++)
        add(i, (char[]){(char)('a' + i), '.', 't', 'e', 's', 't', '\0'}, (uint16_t)(1000 + i));
}

/* ---- Names ---- */

static void empty_table_has_no_nodes(void **state) {
    (void)state;
    assert_null(steady__node_table_find(&nodes, "a.test", 1000));
    assert_int_equal(nodes.count, 0);
}

static void node_is_found_by_its_host_and_port(void **state) {
    (void)state;
    add_nodes(3);
    assert_ptr_equal(steady__node_table_find(&nodes, "a.test", 1000), &entries[0]);
    assert_ptr_equal(steady__node_table_find(&nodes, "b.test", 1001), &entries[1]);
    assert_ptr_equal(steady__node_table_find(&nodes, "c.test", 1002), &entries[2]);
    assert_string_equal(entries[1].host, "b.test");
    assert_int_equal(entries[1].port, 1001);
}

static void node_is_not_found_by_another_host_or_port(void **state) {
    static const char *const hosts[] = {"", "a", "a.tes", "a.test.", "b.test", "?.test"};
    (void)state;
    add_nodes(2);
    assert_null(steady__node_table_find(&nodes, "a.test", 1001));
    assert_null(steady__node_table_find(&nodes, "a.test", 0));
    for (size_t i = 0; i < COUNT(hosts); i++)
        assert_null(steady__node_table_find(&nodes, hosts[i], 1000));
}

/* One machine may run several nodes. They must not share a chain. */
static void nodes_of_one_host_differ_by_their_port(void **state) {
    (void)state;
    add(0, "a.test", 1);
    add(1, "a.test", UINT16_MAX);
    assert_ptr_equal(steady__node_table_find(&nodes, "a.test", 1), &entries[0]);
    assert_ptr_equal(steady__node_table_find(&nodes, "a.test", UINT16_MAX), &entries[1]);
    assert_true(entries[0].hash != entries[1].hash);
}

static void host_in_another_case_is_the_same_node(void **state) {
    (void)state;
    add(0, "Node-1.Example.TEST", 7000);
    assert_ptr_equal(steady__node_table_find(&nodes, "node-1.example.test", 7000), &entries[0]);
    assert_ptr_equal(steady__node_table_find(&nodes, "NODE-1.EXAMPLE.TEST", 7000), &entries[0]);
    assert_string_equal(entries[0].host, "Node-1.Example.TEST");
}

/* The hash ignores the bit that tells the cases of a letter apart. In these hosts it tells other bytes apart. */
static void hosts_with_equal_hashes_are_different_nodes(void **state) {
    (void)state;
    add(0, "[x]", 1);
    add(1, "{x}", 1);
    assert_int_equal(entries[0].hash, entries[1].hash);
    assert_ptr_equal(steady__node_table_find(&nodes, "[x]", 1), &entries[0]);
    assert_ptr_equal(steady__node_table_find(&nodes, "{x}", 1), &entries[1]);
}

static void host_of_any_length_is_found(void **state) {
    char host[STEADY__HOST_MAX + 1];
    (void)state;
    memset(host, 'h', sizeof host - 1);
    for (size_t len = 0; len <= STEADY__HOST_MAX; len++) {
        memset(host, 'h', len);
        host[len] = '\0';
        add(len, host, 7000);
    }
    for (size_t len = 0; len <= STEADY__HOST_MAX; len++) {
        memset(host, 'H', len);
        host[len] = '\0';
        assert_ptr_equal(steady__node_table_find(&nodes, host, 7000), &entries[len]);
    }
}

/* An attacker who knows the hash could name nodes that share a chain. */
static void hash_depends_on_the_secret_key(void **state) {
    static const uint64_t keys[][2] = {{1, 2}, {1, 3}, {2, 2}};
    uint64_t hashes[COUNT(keys)];
    (void)state;
    for (size_t i = 0; i < COUNT(keys); i++) {
        steady__node_table_set_key(&nodes, keys[i]);
        hashes[i] = add(i, "a.test", 1000)->hash;
        steady__node_table_remove(&nodes, &entries[i]);
        for (size_t k = 0; k < i; k++)
            assert_true(hashes[k] != hashes[i]);
    }
}

/* ---- Numbers ---- */

static void numbers_are_given_from_zero_up(void **state) {
    (void)state;
    add_nodes(5);
    assert_int_equal(nodes.count, 5);
    for (uint16_t i = 0; i < 5; i++) {
        assert_int_equal(entries[i].number, i);
        assert_ptr_equal(nodes.by_number[i], &entries[i]);
    }
}

static void lowest_free_number_is_given_first(void **state) {
    (void)state;
    add_nodes(6);
    steady__node_table_remove(&nodes, &entries[4]);
    steady__node_table_remove(&nodes, &entries[1]);
    steady__node_table_remove(&nodes, &entries[3]);
    assert_int_equal(add(7, "n.test", 1)->number, 1);
    assert_int_equal(add(8, "n.test", 2)->number, 3);
    assert_int_equal(add(9, "n.test", 3)->number, 4);
    assert_int_equal(add(10, "n.test", 4)->number, 6);
    assert_int_equal(nodes.count, 7);
}

static void table_takes_at_most_1024_nodes(void **state) {
    char host[16];
    (void)state;
    for (size_t i = 0; i < NODES_MOST; i++) {
        snprintf(host, sizeof host, "n%zu.test", i);
        assert_int_equal(add(i, host, 7000)->number, i);
    }
    assert_false(steady__node_table_add(&nodes, &entries[NODES_MOST], "more.test", 7000));
    assert_null(steady__node_table_find(&nodes, "more.test", 7000));
    assert_int_equal(nodes.count, NODES_MOST);
    for (size_t i = 0; i < NODES_MOST; i++) {
        snprintf(host, sizeof host, "N%zu.test", i);
        assert_ptr_equal(steady__node_table_find(&nodes, host, 7000), &entries[i]);
    }
}

static void full_table_takes_a_node_when_one_has_left(void **state) {
    (void)state;
    for (size_t i = 0; i < NODES_MOST; i++)
        add(i, "a.test", (uint16_t)(i + 1));
    steady__node_table_remove(&nodes, &entries[700]);
    assert_int_equal(add(NODES_MOST, "more.test", 7000)->number, 700);
    assert_false(steady__node_table_add(&nodes, &entries[700], "a.test", 701));
}

static void node_is_not_added_without_memory(void **state) {
    (void)state;
    add_nodes(1);
    alloc_fail(1);
    assert_false(steady__node_table_add(&nodes, &entries[1], "b.test", 1001));
    assert_true(alloc_failed());
    assert_null(steady__node_table_find(&nodes, "b.test", 1001));
    assert_int_equal(nodes.count, 1);
    assert_int_equal(add(1, "b.test", 1001)->number, 1);
    assert_ptr_equal(steady__node_table_find(&nodes, "a.test", 1000), &entries[0]);
}

/* ---- Removal ---- */

static void removed_node_is_forgotten(void **state) {
    (void)state;
    add_nodes(3);
    steady__node_table_remove(&nodes, &entries[1]);
    assert_null(steady__node_table_find(&nodes, "b.test", 1001));
    assert_null(nodes.by_number[1]);
    assert_ptr_equal(steady__node_table_find(&nodes, "a.test", 1000), &entries[0]);
    assert_ptr_equal(steady__node_table_find(&nodes, "c.test", 1002), &entries[2]);
}

static void removed_node_can_come_back(void **state) {
    (void)state;
    add_nodes(2);
    steady__node_table_remove(&nodes, &entries[0]);
    assert_int_equal(add(5, "a.test", 1000)->number, 0);
    assert_ptr_equal(steady__node_table_find(&nodes, "a.test", 1000), &entries[5]);
}

/* 600 nodes in 256 chains: the first, a middle and the last of a chain leave. */
static void removal_keeps_the_others_of_the_chain(void **state) {
    enum { MANY = 600 };
    (void)state;
    for (size_t i = 0; i < MANY; i++)
        add(i, "a.test", (uint16_t)(i + 1));
    for (size_t i = 0; i < MANY; i += 2)
        steady__node_table_remove(&nodes, &entries[i]);
    for (size_t i = 0; i < MANY; i++)
        assert_ptr_equal(steady__node_table_find(&nodes, "a.test", (uint16_t)(i + 1)), i % 2 == 0 ? NULL : &entries[i]);
    for (size_t i = 1; i < MANY; i += 2)
        steady__node_table_remove(&nodes, &entries[i]);
    for (size_t i = 0; i < COUNT(nodes.chains); i++)
        assert_null(nodes.chains[i]);
}

/* ---- Slots ---- */

static struct steady__slot_map map;

static void give_slots(unsigned first, unsigned count, uint16_t number) {
    for (unsigned slot = first; slot < first + count; slot++)
        map.node[slot] = number;
}

static void slots_are_counted_by_node_and_those_without_one_returned(void **state) {
    (void)state;
    add_nodes(4);
    give_slots(0, STEADY__SLOTS, NO_NUMBER);
    assert_int_equal(steady__node_table_count_slots(&nodes, &map), STEADY__SLOTS);
    give_slots(0, 100, 0);
    give_slots(5000, 7, 3);
    give_slots(STEADY__SLOTS - 1, 1, 3);
    assert_int_equal(steady__node_table_count_slots(&nodes, &map), STEADY__SLOTS - 108);
    assert_int_equal(entries[0].slots, 100);
    assert_int_equal(entries[1].slots, 0);
    assert_int_equal(entries[3].slots, 8);
}

static void count_of_slots_is_made_anew_beside_a_removed_node(void **state) {
    (void)state;
    add_nodes(3);
    give_slots(0, STEADY__SLOTS, 2);
    assert_int_equal(steady__node_table_count_slots(&nodes, &map), 0);
    assert_int_equal(entries[2].slots, STEADY__SLOTS);
    steady__node_table_remove(&nodes, &entries[1]);
    give_slots(0, 4, 0);
    assert_int_equal(steady__node_table_count_slots(&nodes, &map), 0);
    assert_int_equal(entries[0].slots, 4);
    assert_int_equal(entries[2].slots, STEADY__SLOTS - 4);
}

/* ---- The only other node at a port ---- */

/* Asks for one port and for all ports, and fails if the answers differ. */
static uint16_t other_with_port(const struct steady__node_entry *but, uint16_t port) {
    const uint16_t number = steady__node_table_other_with_port(&nodes, but, port);
    uint16_t *others = steady__node_table_others_by_port(&nodes, but);
    assert_non_null(others);
    const uint16_t same = others[port];
    free(others);
    assert_int_equal(same, number);
    return number;
}

/* Adds a node with one slot. */
static struct steady__node_entry *add_serving(size_t i, const char *host, uint16_t port) {
    add(i, host, port)->slots = 1;
    return &entries[i];
}

static void only_other_node_at_a_port_is_found(void **state) {
    (void)state;
    add_serving(0, "a.test", 1);
    add_serving(1, "b.test", UINT16_MAX);
    add_serving(2, "c.test", 0);
    assert_int_equal(other_with_port(&entries[0], UINT16_MAX), 1);
    assert_int_equal(other_with_port(&entries[0], 0), 2);
    assert_int_equal(other_with_port(NULL, 1), 0);
    assert_int_equal(other_with_port(&entries[0], 2), NO_NUMBER);
}

static void node_itself_is_not_the_other_one_at_its_port(void **state) {
    (void)state;
    add_serving(0, "a.test", 7000);
    assert_int_equal(other_with_port(&entries[0], 7000), NO_NUMBER);
    add_serving(1, "b.test", 7000);
    assert_int_equal(other_with_port(&entries[0], 7000), 1);
    assert_int_equal(other_with_port(&entries[1], 7000), 0);
}

static void none_of_several_others_at_a_port_is_chosen(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        add_serving(i, (char[]){(char)('a' + i), '\0'}, 7000);
        if (i > 1) assert_int_equal(other_with_port(&entries[0], 7000), NO_NUMBER);
    }
    add_serving(4, "e", 7001);
    assert_int_equal(other_with_port(&entries[0], 7001), 4);
}

static void node_without_slots_is_not_the_other_one_at_a_port(void **state) {
    (void)state;
    add_serving(0, "a.test", 1);
    add_serving(1, "b.test", 7000);
    add_serving(2, "c.test", 7000);
    entries[1].slots = 0;
    assert_int_equal(other_with_port(&entries[0], 7000), 2);
    entries[2].slots = 0;
    assert_int_equal(other_with_port(&entries[0], 7000), NO_NUMBER);
}

static void removed_node_is_not_the_other_one_at_a_port(void **state) {
    (void)state;
    add_serving(0, "a.test", 1);
    add_serving(1, "b.test", 7000);
    add_serving(2, "c.test", 7000);
    steady__node_table_remove(&nodes, &entries[1]);
    assert_int_equal(other_with_port(&entries[0], 7000), 2);
}

static void others_of_all_ports_are_null_without_memory(void **state) {
    (void)state;
    add_serving(0, "a.test", 1);
    alloc_fail(1);
    assert_null(steady__node_table_others_by_port(&nodes, NULL));
    assert_true(alloc_failed());
}

#define WITH_TABLE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_TABLE(empty_table_has_no_nodes),
        WITH_TABLE(node_is_found_by_its_host_and_port),
        WITH_TABLE(node_is_not_found_by_another_host_or_port),
        WITH_TABLE(nodes_of_one_host_differ_by_their_port),
        WITH_TABLE(host_in_another_case_is_the_same_node),
        WITH_TABLE(hosts_with_equal_hashes_are_different_nodes),
        WITH_TABLE(host_of_any_length_is_found),
        WITH_TABLE(hash_depends_on_the_secret_key),
        WITH_TABLE(numbers_are_given_from_zero_up),
        WITH_TABLE(lowest_free_number_is_given_first),
        WITH_TABLE(table_takes_at_most_1024_nodes),
        WITH_TABLE(full_table_takes_a_node_when_one_has_left),
        WITH_TABLE(node_is_not_added_without_memory),
        WITH_TABLE(removed_node_is_forgotten),
        WITH_TABLE(removed_node_can_come_back),
        WITH_TABLE(removal_keeps_the_others_of_the_chain),
        WITH_TABLE(slots_are_counted_by_node_and_those_without_one_returned),
        WITH_TABLE(count_of_slots_is_made_anew_beside_a_removed_node),
        WITH_TABLE(only_other_node_at_a_port_is_found),
        WITH_TABLE(node_itself_is_not_the_other_one_at_its_port),
        WITH_TABLE(none_of_several_others_at_a_port_is_chosen),
        WITH_TABLE(node_without_slots_is_not_the_other_one_at_a_port),
        WITH_TABLE(removed_node_is_not_the_other_one_at_a_port),
        WITH_TABLE(others_of_all_ports_are_null_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
