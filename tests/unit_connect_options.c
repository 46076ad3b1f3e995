/* SPDX-License-Identifier: MIT
 * Options of a new connection: the name of the client, and the time that connecting may take. */
#include "client.h"

#include "fake_node.h"

#define VERDICT ":3600000000\r\n"

static struct fake_node *node;

static int set_up(void **state) {
    node = fake_node_start(false);
    fake_node_says(node, "EVALSHA", VERDICT, strlen(VERDICT), 0);
    return client_set_up(state);
}

static int tear_down(void **state) {
    client_close();
    fake_node_stop(node);
    return client_tear_down(state);
}

static void open_url(const char *user, const char *options_of_url, steady_store_options options) {
    char url[160];
    client_close();
    snprintf(url, sizeof url, "redis://%s127.0.0.1:%d%s", user, fake_node_port(node), options_of_url);
    options.engine = STEADY_ENGINE_SCRIPT;
    client_open_with(url, options);
}

static void name_is_sent_only_if_it_is_set(void **state) {
    (void)state;
    open_url("", "", (steady_store_options){.timeout = STEADY_SECOND});
    assert_int_equal(client_ask(), 0);
    assert_int_equal(fake_node_heard(node, "CLIENT"), 0);
    open_url("", "", (steady_store_options){.timeout = STEADY_SECOND, .client_name = "api-7"});
    assert_int_equal(client_ask(), 0);
    assert_int_equal(fake_node_heard(node, "CLIENT"), 1);
    open_url("", "?client_name=api%2D8", (steady_store_options){.timeout = STEADY_SECOND});
    assert_int_equal(client_ask(), 0);
    assert_int_equal(fake_node_heard(node, "CLIENT"), 2);
    assert_int_equal(log_lines.lines, 0);
}

static void refused_name_is_logged_once_and_decisions_go_on(void **state) {
    static const char refusal[] = "-NOPERM User app has no permissions to run the 'client|setname' command\r\n";
    (void)state;
    fake_node_says(node, "CLIENT", refusal, sizeof refusal - 1, 0);
    open_url("", "?client_name=api", (steady_store_options){.timeout = STEADY_SECOND});
    for (int i = 0; i < 3; i++)
        assert_int_equal(client_ask(), 0);
    assert_int_equal(log_lines.lines, 1);
    assert_int_equal(log_lines.warnings, 1);
    assert_non_null(strstr(log_lines.last, "refuses the client name"));
    assert_non_null(strstr(log_lines.last, "NOPERM"));
}

static void connect_timeout_ends_an_attempt_before_four_timeouts(void **state) {
    (void)state;
    fake_node_says(node, "AUTH", FAKE_SILENCE, 0, 0);
    for (int by_url = 0; by_url < 2; by_url++) {
        const steady_store_options options = {.timeout = STEADY_SECOND, .connect_timeout = by_url ? 0 : 50 * MS};
        const steady_us begin = now_us();
        open_url(":pass@", by_url ? "?connect_timeout=50ms" : "", options);
        while (steady_store_state(store) != STEADY_DOWN) {
            assert_true(now_us() - begin < STEADY_SECOND);
            run_for(poller, MS);
        }
        assert_true(now_us() - begin >= 50 * MS);
    }
}

static void bad_names_and_times_are_refused(void **state) {
    static const char *urls[] = {
        "redis://h?client_name=",       "redis://h?client_name=a%20b",
        "redis://h?client_name=%C3%A9", "redis://h?client_name=a%0Ab",
        "redis://h?connect_timeout=",   "redis://h?connect_timeout=5",
        "redis://h?connect_timeout=0s", "redis://h?connect_timeout=24h1us",
        "memory:?client_name=a",        "redis://h?client_name=a&client_name=b",
        "redis://h?deny_memory=",       "redis://h?deny_memory=1",
        "redis://h?deny_memory=61s",    "redis://h?deny_memory=-1s",
        "redis://h?deny_memory=-1us",   "redis://h?deny_memory=off",
        "memory:?deny_memory=1s",       "memory:?deny_memory=0",
        "redis://h?lease_age=999us",    "redis://h?lease_age=61s",
        "redis://h?lease_age=-1us",     "redis://h?lease_age=",
        "memory:?lease_age=100ms",      "file:/tmp/x?lease_age=100ms",
    };
    char long_name[66];
    steady_store *none = NULL;
    steady_message why;
    (void)state;
    client_open("memory:", 0);
    for (size_t i = 0; i < COUNT(urls); i++)
        if (steady_store_open(&none, urls[i], NULL, &why) != STEADY_BAD_ARGUMENT) fail_msg("%s", urls[i]);
    memset(long_name, 'n', sizeof long_name);
    long_name[65] = '\0';
    const char *names[] = {"", "a b", "a\n", "\xc3\xa9", long_name};
    for (size_t i = 0; i < COUNT(names); i++) {
        const steady_store_options options = {.client_name = names[i]};
        assert_int_equal(steady_store_open(&none, "redis://h", &options, &why), STEADY_BAD_ARGUMENT);
        assert_non_null(strstr(why.text, "client_name must be 1 to 64 printable ASCII bytes"));
    }
    const steady_store_options options = {.connect_timeout = -1};
    assert_int_equal(steady_store_open(&none, "redis://h", &options, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "connect_timeout is -1 us"));
    for (int i = 0; i < 2; i++) {
        const steady_store_options memory = {.deny_memory = i == 0 ? -1 : 60 * STEADY_SECOND + 1};
        assert_int_equal(steady_store_open(&none, "redis://h", &memory, &why), STEADY_BAD_ARGUMENT);
        assert_non_null(strstr(why.text, "it must be 1 .. 60000000, or 0 for the default"));
    }
    const steady_store_options both = {.deny_memory = STEADY_SECOND, .deny_memory_off = true};
    assert_int_equal(steady_store_open(&none, "redis://h", &both, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "set one of them"));
    const steady_store_options memory = {.deny_memory = STEADY_SECOND};
    assert_int_equal(steady_store_open(&none, "memory:", &memory, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "deny_memory is set, but an embedded store"));
    const steady_us ages[] = {-1, 1, STEADY_MILLISECOND - 1, 60 * STEADY_SECOND + 1};
    for (size_t i = 0; i < COUNT(ages); i++) {
        const steady_store_options leases = {.lease_age = ages[i]};
        assert_int_equal(steady_store_open(&none, "redis://h", &leases, &why), STEADY_BAD_ARGUMENT);
        assert_non_null(strstr(why.text, "it must be 1000 .. 60000000, or 0: no leases"));
    }
    const steady_store_options leases = {.lease_age = STEADY_SECOND};
    assert_int_equal(steady_store_open(&none, "memory:", &leases, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "lease_age is set, but an embedded store"));
    assert_int_equal(steady_pool_open(&none, "memory:", 2, &leases, &why), STEADY_BAD_ARGUMENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(name_is_sent_only_if_it_is_set),
        TEST(refused_name_is_logged_once_and_decisions_go_on),
        TEST(connect_timeout_ends_an_attempt_before_four_timeouts),
        TEST(bad_names_and_times_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
