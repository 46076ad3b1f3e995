/* SPDX-License-Identifier: MIT
 * The replies of a server about its settings, and replies that no server sends. */
#include "redis/eviction.h"

#include "client.h"
#include "fake_node.h"

static bool evicts(const char *bytes, char policy[32]) {
    struct steady__reply reply;
    struct steady__progress progress = {0};
    const ptrdiff_t len = (ptrdiff_t)strlen(bytes);
    assert_int_equal(steady__reply_read_nested(&reply, &progress, bytes, (size_t)len), len);
    return steady__eviction_possible(&reply, policy, 32);
}

static void query_is_a_config_get(void **state) {
    char out[64];
    (void)state;
    const size_t len = steady__eviction_query(out);
    assert_int_equal(len, strlen("*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$10\r\nmaxmemory*\r\n"));
    assert_memory_equal(out, "*3\r\n$6\r\nCONFIG\r\n", 16);
}

#define MEMORY(digits) "$9\r\nmaxmemory\r\n" digits
#define POLICY(name) "$16\r\nmaxmemory-policy\r\n" name
#define SAMPLES "$17\r\nmaxmemory-samples\r\n$1\r\n5\r\n"

static void evicting_server_is_found_with_its_policy(void **state) {
    char policy[32];
    (void)state;
    assert_true(evicts("*6\r\n" MEMORY("$1\r\n9\r\n") SAMPLES POLICY("$12\r\nvolatile-ttl\r\n"), policy));
    assert_string_equal(policy, "volatile-ttl");
    assert_true(evicts("*4\r\n" POLICY("$11\r\nallkeys-lfu\r\n") MEMORY("$7\r\n1000000\r\n"), policy));
    assert_string_equal(policy, "allkeys-lfu");
    assert_true(evicts(
        "*4\r\n" MEMORY("$1\r\n9\r\n") POLICY("$41\r\n\001\r\n34567890123456789012345678901234567890\r\n"), policy));
    assert_string_equal(policy, "unknown"); /* a server may send anything */
}

static void other_settings_and_replies_are_no_eviction(void **state) {
    static const char *const answers[] = {
        "*4\r\n" MEMORY("$1\r\n9\r\n") POLICY("$10\r\nnoeviction\r\n"),
        "*4\r\n" MEMORY("$1\r\n0\r\n") POLICY("$11\r\nallkeys-lru\r\n"),
        "*2\r\n" POLICY("$11\r\nallkeys-lru\r\n"),
        "*2\r\n" MEMORY("$1\r\n9\r\n"),
        "*0\r\n",
        "*-1\r\n",
        "$-1\r\n",
        "$1\r\n9\r\n",
        "*4\r\n" MEMORY("$1\r\n9\r\n") POLICY(":1\r\n"),
        "*3\r\n" MEMORY("$1\r\n9\r\n") "$16\r\nmaxmemory-policy\r\n",
        "*4\r\n" MEMORY("*1\r\n$1\r\n9\r\n") POLICY("$11\r\nallkeys-lru\r\n"),
        "-NOPERM this user has no permissions\r\n",
        "+OK\r\n",
        ":1\r\n",
    };
    char policy[32];
    (void)state;
    for (size_t i = 0; i < COUNT(answers); i++)
        if (evicts(answers[i], policy)) fail_msg("answer %zu", i);
}

/* A query lost with its connection is sent again, three times in all. */
static void lost_query_is_sent_three_times_at_most(void **state) {
    static const char settings[] = "*4\r\n" MEMORY("$1\r\n9\r\n") POLICY("$11\r\nallkeys-lru\r\n");
    struct fake_node *node = fake_node_start(false);
    for (unsigned lost = 1; lost <= 3; lost++) {
        assert_int_equal(client_set_up(state), 0);
        fake_node_says_nothing_more(node);
        fake_node_says(node, "EVALSHA", ":3600000000\r\n", 0, 0);
        fake_node_says(node, "STEADY.CONSUME", "-ERR unknown command\r\n", 0, 0);
        fake_node_says(node, "CONFIG", settings, 0, 0);
        fake_node_says(node, "CONFIG", FAKE_HANG_UP, 0, lost);
        const unsigned before = fake_node_heard(node, "CONFIG");
        char url[64];
        snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_node_port(node));
        client_open_with(url, (steady_store_options){.timeout = 500 * MS});
        for (int i = 0; i < 20; i++) {
            client_ask();
            run_for(poller, 20 * MS);
        }
        assert_int_equal(fake_node_heard(node, "CONFIG") - before, lost < 3 ? lost + 1 : 3);
        assert_int_equal(strstr(log_lines.all, "allkeys-lru") != NULL, lost < 3);
        client_close();
        client_tear_down(state);
    }
    fake_node_stop(node);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(query_is_a_config_get),
        cmocka_unit_test(evicting_server_is_found_with_its_policy),
        cmocka_unit_test(other_settings_and_replies_are_no_eviction),
        cmocka_unit_test(lost_query_is_sent_three_times_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
