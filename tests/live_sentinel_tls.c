/* SPDX-License-Identifier: MIT
 * rediss+sentinel://: TLS to the sentinel and to its server, each of them trusted or not. */
#include "support.h"

#include "certificates.h"
#include "sentinels.h"

static struct server server, sentinel;

/* The result of a decision with these certificates, "NAME.pem" with "NAME.key". */
static int ask(const char *of_sentinel, const char *of_server, char trouble[256]) {
    const int server_port = free_port(), sentinel_port = free_port();
    const steady_store_options options = {.timeout = 3 * STEADY_SECOND};
    steady_result result;
    char text[600], pem[32], key[32];
    snprintf(pem, sizeof pem, "%s.pem", of_server);
    snprintf(key, sizeof key, "%s.key", of_server);
    snprintf(text, sizeof text,
             "--tls-port %d --tls-auth-clients no --tls-ca-cert-file %s --tls-cert-file %s --tls-key-file %s",
             server_port, certificate("ca.pem"), certificate(pem), certificate(key));
    server_start(&server, text);
    snprintf(pem, sizeof pem, "%s.pem", of_sentinel);
    snprintf(key, sizeof key, "%s.key", of_sentinel);
    snprintf(text, sizeof text,
             "tls-port %d\ntls-auth-clients no\ntls-replication yes\ntls-ca-cert-file %s\ntls-cert-file "
             "%s\ntls-key-file %s\n",
             sentinel_port, certificate("ca.pem"), certificate(pem), certificate(key));
    sentinel_start(&sentinel, server_port, text);
    snprintf(text, sizeof text, "rediss+sentinel://127.0.0.1:%d/main?tls_ca=%s", sentinel_port, certificate("ca.pem"));
    steady_store *store = open_store(text, &options);
    steady_throttler *throttler = new_throttler(store, 10, HOUR);
    const int error = steady_consume_sync(throttler, "k", 1, 1, &result);
    snprintf(trouble, 256, "%s", last_error_of(store));
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    return error;
}

static int tear_down(void **state) {
    (void)state;
    server_stop(&sentinel);
    server_stop(&server);
    return 0;
}

static void trusted_sentinel_and_server_are_used(void **state) {
    char trouble[256];
    (void)state;
    if (ask("server", "server", trouble) != 0) fail_msg("%s", trouble);
}

static void assert_distrusted(const char *of_sentinel, const char *of_server) {
    char trouble[256];
    assert_int_equal(ask(of_sentinel, of_server, trouble), STEADY_UNAVAILABLE);
    if (strstr(trouble, "certificate is signed by a CA that is not trusted (set tls_ca)") == NULL)
        fail_msg("%s", trouble);
}

static void untrusted_sentinel_is_unavailable(void **state) {
    (void)state;
    assert_distrusted("stranger", "server");
}

static void untrusted_server_is_unavailable(void **state) {
    (void)state;
    assert_distrusted("server", "stranger");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(trusted_sentinel_and_server_are_used, tear_down),
        cmocka_unit_test_teardown(untrusted_sentinel_is_unavailable, tear_down),
        cmocka_unit_test_teardown(untrusted_server_is_unavailable, tear_down),
    };
    certificates_make();
    const int failed = cmocka_run_group_tests_name("sentinel over TLS", tests, NULL, NULL);
    certificates_remove();
    return failed;
}
