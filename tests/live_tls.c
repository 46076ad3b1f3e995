/* SPDX-License-Identifier: MIT
 * TLS with a real redis-server: which certificates the library trusts, which the server trusts, and the same
 * charges, unknown results and rules for a child as without TLS. */
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "certificates.h"
#include "conn/connect.h"
#include "proxy.h"
#include "redis_cluster.h"
#include "rig.h"

static int tls_port;
static struct proxy *proxy;

/* Sets the certificate of the server: NAME.pem and NAME.key. */
static void serve_with(const char *name) {
    char cert[32], key[32];
    snprintf(cert, sizeof cert, "%s.pem", name);
    snprintf(key, sizeof key, "%s.key", name);
    assert_string_equal(
        server_ask(&rig.server, "CONFIG SET tls-cert-file %s tls-key-file %s", certificate(cert), certificate(key)),
        "OK");
}

static void set(const char *name, const char *value) {
    assert_string_equal(server_ask(&rig.server, "CONFIG SET %s %s", name, value), "OK");
}

static int set_up(void **state) {
    const int error = rig_set_up(state);
    char port[16];
    tls_port = free_port();
    snprintf(port, sizeof port, "%d", tls_port);
    set("tls-ca-cert-file", certificate("ca.pem"));
    set("tls-auth-clients", "no");
    serve_with("server");
    set("tls-port", port);
    return error;
}

static int tear_down(void **state) {
    forget_tallies(true);
    rig_close();
    proxy_stop(proxy);
    proxy = NULL;
    return rig_tear_down(state);
}

/* rediss://HOST:PORT and options; one buffer. */
__attribute__((format(printf, 3, 4))) static const char *url_of(const char *host, int port, const char *options, ...) {
    static char url[1024];
    va_list args;
    const int n = snprintf(url, sizeof url, "rediss://%s:%d", host, port);
    va_start(args, options);
    vsnprintf(url + n, sizeof url - (size_t)n, options, args);
    va_end(args);
    return url;
}

static const char *trusting(const char *host) { return url_of(host, tls_port, "?tls_ca=%s", certificate("ca.pem")); }

static void open_through_proxy(const struct proxy_rules *rules, steady_us timeout) {
    proxy = proxy_start(tls_port);
    proxy_set(proxy, rules);
    rig_open_at(url_of("127.0.0.1", proxy_port(proxy), "?tls_ca=%s", certificate("ca.pem")), timeout);
}

static steady_us timeout = 3 * STEADY_SECOND;

/* One blocking decision on a new store. */
static int ask_at(const char *url, const steady_tls_options *tls, char trouble[256]) {
    const steady_store_options options = {.timeout = timeout, .tls = tls};
    steady_result result;
    steady_store *store = open_store(url, &options);
    steady_throttler *throttler = new_throttler(store, 10, HOUR);
    const int error = steady_consume_sync(throttler, "k", 1, 1, &result);
    snprintf(trouble, 256, "%s", last_error_of(store));
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    assert_int_equal(ERR_peek_error(), 0);
    return error;
}

static void assert_allowed(const char *url) {
    char trouble[256];
    if (ask_at(url, NULL, trouble) != 0) fail_msg("%s: %s", url, trouble);
}

static void assert_refused(const char *url, int error, const char *says) {
    char trouble[256];
    const int got = ask_at(url, NULL, trouble);
    if (got != error || strstr(trouble, says) == NULL)
        fail_msg("%s: %s (\"%s\") instead of \"%s\"", url, steady_error_name(got), trouble, says);
}

/* ---- The server's certificate ---- */

static void callback_and_blocking_calls_work_over_tls(void **state) {
    (void)state;
    for (int version = 2; version <= 3; version++) {
        set("tls-protocols", version == 2 ? "TLSv1.2" : "TLSv1.3");
        rig_open_at(trusting("localhost"), STEADY_SECOND);
        warm_up();
        steady_result result;
        assert_int_equal(steady_consume_sync(rig.throttler, "k", 1, 2, &result), 0);
        assert_int_equal(ask_one(), 0);
        assert_int_equal(level("k"), 3 * (version - 1));
        rig_close();
        assert_int_equal(ERR_peek_error(), 0);
    }
}

static void certificate_matches_name_address_and_server_name(void **state) {
    (void)state;
    assert_allowed(trusting("localhost"));
    assert_allowed(trusting("127.0.0.1"));
    assert_allowed(trusting("LOCALHOST"));
    serve_with("chained");
    assert_allowed(trusting("localhost"));
    serve_with("elsewhere");
    assert_allowed(
        url_of("127.0.0.1", tls_port, "?tls_ca=%s&tls_server_name=elsewhere.example", certificate("ca.pem")));
    serve_with("server");
    assert_allowed(url_of("localhost", tls_port, "?tls_ca=%s&tls_server_name=127.0.0.1", certificate("ca.pem")));
    assert_allowed(url_of("localhost", tls_port, "?tls_ca=%s&tls_server_name=::1", certificate("ca.pem")));
}

static const struct {
    const char *certificate, *host, *ca, *says; /* the error text after the port */
} distrusted[] = {
    {"elsewhere", "localhost", "ca.pem", "the server's certificate is not for localhost"},
    {"elsewhere", "127.0.0.1", "ca.pem", "the server's certificate is not for 127.0.0.1"},
    {"named", "127.0.0.1", "ca.pem", "the server's certificate is not for 127.0.0.1"},
    {"nameless", "localhost", "ca.pem", "the server's certificate is not for localhost"},
    {"expired", "localhost", "ca.pem", "the server's certificate has expired"},
    {"self", "localhost", "ca.pem", "the server's certificate is self-signed and not trusted (set tls_ca)"},
    {"stranger", "localhost", "ca.pem", "the server's certificate is signed by a CA that is not trusted (set tls_ca)"},
    {"server", "localhost", "stranger-ca.pem",
     "the server's certificate is signed by a CA that is not trusted (set tls_ca)"},
};

/* The first decision fails by its deadline and the next at once. Nothing is sent. */
static void untrusted_certificate_is_unavailable_and_nothing_is_sent(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(distrusted); i++) {
        char says[160];
        serve_with(distrusted[i].certificate);
        set("tls-protocols", i % 2 == 0 ? "TLSv1.2" : "TLSv1.3");
        snprintf(says, sizeof says, "%s:%d: %s", distrusted[i].host, tls_port, distrusted[i].says);
        assert_refused(url_of(distrusted[i].host, tls_port, "?tls_ca=%s", certificate(distrusted[i].ca)),
                       STEADY_UNAVAILABLE, says);
    }
    assert_string_equal(server_ask(&rig.server, "DBSIZE"), "0");
}

/* Without tls_ca the system's authorities are trusted. The CA of the tests is none of them. */
static void system_authorities_are_trusted_by_default(void **state) {
    (void)state;
    assert_refused(url_of("localhost", tls_port, "%s", ""), STEADY_UNAVAILABLE,
                   "a CA that is not trusted (set tls_ca)");
    setenv("SSL_CERT_FILE", certificate("ca.pem"), 1);
    assert_allowed(url_of("localhost", tls_port, "%s", ""));
    unsetenv("SSL_CERT_FILE");
}

static void skipped_verification_accepts_any_certificate(void **state) {
    (void)state;
    static const char *const names[] = {"self", "expired", "elsewhere", "stranger"};
    for (size_t i = 0; i < COUNT(names); i++) {
        serve_with(names[i]);
        assert_allowed(url_of("localhost", tls_port, "?tls_insecure_skip_verify=yes"));
        assert_refused(url_of("localhost", tls_port, "?tls_insecure_skip_verify=no"), STEADY_UNAVAILABLE,
                       "certificate");
    }
}

/* ---- The client's certificate ---- */

static void client_certificate_is_checked_by_the_server(void **state) {
    char options[512];
    (void)state;
    set("tls-auth-clients", "yes");
    for (int version = 2; version <= 3; version++) {
        set("tls-protocols", version == 2 ? "TLSv1.2" : "TLSv1.3");
        assert_refused(trusting("localhost"), STEADY_REFUSED,
                       "the server requires a client certificate (set tls_cert)");
        snprintf(options, sizeof options, "?tls_ca=%s&tls_cert=%s&tls_key=%s", certificate("ca.pem"),
                 certificate("client.pem"), certificate("client.key"));
        assert_allowed(url_of("localhost", tls_port, "%s", options));
        snprintf(options, sizeof options, "?tls_ca=%s&tls_cert=%s", certificate("ca.pem"),
                 certificate("client-both.pem"));
        assert_allowed(url_of("localhost", tls_port, "%s", options));
        snprintf(options, sizeof options, "?tls_ca=%s&tls_cert=%s&tls_key=%s", certificate("ca.pem"),
                 certificate("stranger.pem"), certificate("stranger.key"));
        assert_refused(url_of("localhost", tls_port, "%s", options), STEADY_REFUSED,
                       "the server refused the client certificate: ");
    }
    assert_int_equal(level("k"), 4);
}

/* Decisions go on. The server refuses about once a second, and no decision is unknown. */
static void missing_client_certificate_is_refused_and_never_unknown(void **state) {
    struct tally tally = {0};
    (void)state;
    set("tls-auth-clients", "yes");
    set("tls-protocols", "TLSv1.3");
    rig_open_at(trusting("localhost"), TIMEOUT);
    trickle(&tally, 5 * MS, how_long(700 * MS, 3 * STEADY_SECOND));
    assert_int_equal(tally.verdicts, 0);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 0);
    assert_true(tally.errors[-STEADY_REFUSED] > tally.submitted / 2);
    assert_between(server_stat(&rig.server, "total_connections_received"), 1, 12);
    set("tls-auth-clients", "no");
    run_for(rig.poller, 1600 * MS);
    assert_int_equal(ask_one(), 0);
}

/* ---- Options ---- */

static void tls_options_of_the_struct_apply(void **state) {
    char trouble[256];
    const steady_tls_options all = {.ca_file = certificate("ca.pem"),
                                    .cert_file = certificate("client.pem"),
                                    .key_file = certificate("client.key"),
                                    .server_name = "elsewhere.example"};
    const steady_tls_options off = {.insecure_skip_verify = true};
    (void)state;
    serve_with("elsewhere");
    assert_int_equal(ask_at(url_of("localhost", tls_port, "%s", ""), &off, trouble), 0);
    set("tls-auth-clients", "yes");
    assert_int_equal(ask_at(url_of("localhost", tls_port, "%s", ""), &all, trouble), 0);
    assert_int_equal(ask_at(url_of("localhost", tls_port, "?tls_server_name=other.example"), &all, trouble),
                     STEADY_UNAVAILABLE);
    assert_non_null(strstr(trouble, "not for other.example"));
}

static const struct {
    const char *options; /* %s stands for the directory */
    const char *says;
} unusable[] = {
    {"?tls_ca=%s/no-such-file", "no-such-file: No such file or directory"},
    {"?tls_ca=%s", ": it is not a regular file"},
    {"?tls_ca=/dev/zero&tls_cert=%s", "/dev/zero: it is not a regular file"},
    {"?tls_ca=%s/ca.key", "/ca.key: "},
    {"?tls_ca=%s/log", "/log: "},
    {"?tls_cert=%s/no-such-file", "the TLS certificate "},
    {"?tls_cert=%s/client.key", "/client.key: "},
    {"?tls_cert=%s/client.pem", "the TLS key "},
    {"?tls_key=%s/client.key", "without a certificate"},
    {"?tls_cert=%1$s/client.pem&tls_key=%1$s/no-such-file", "the TLS key "},
    {"?tls_cert=%1$s/client.pem&tls_key=%1$s/client.pem", "it is not in PEM format"},
    {"?tls_cert=%1$s/client.pem&tls_key=%1$s/server.key", "/server.key: it does not match the certificate"},
    {"?tls_cert=%1$s/client.pem&tls_key=%1$s/client-locked.key", "/client-locked.key: it has a passphrase"},
    {"?tls_server_name=.example&tls_ca=%s/ca.pem", "server name"},
};

static void unusable_file_is_a_bad_argument(void **state) {
    char directory[128];
    (void)state;
    snprintf(directory, sizeof directory, "%s", certificate(""));
    directory[strlen(directory) - 1] = '\0';
    for (size_t i = 0; i < COUNT(unusable); i++) {
        char url[512] = "rediss://localhost";
        steady_store *store = NULL;
        steady_message why = {.text = ""};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(url + strlen(url), sizeof url - strlen(url), unusable[i].options, directory);
#pragma GCC diagnostic pop
        assert_int_equal(steady_store_open(&store, url, NULL, &why), STEADY_BAD_ARGUMENT);
        assert_null(store);
        if (strstr(why.text, unusable[i].says) == NULL) fail_msg("%s: \"%s\"", url, why.text);
        assert_int_equal(ERR_peek_error(), 0);
    }
}

static void tls_options_without_tls_are_a_bad_argument(void **state) {
    const steady_tls_options none = {0};
    const steady_store_options options = {.tls = &none};
    steady_store *store = NULL;
    steady_message why = {.text = ""};
    (void)state;
    assert_int_equal(steady_store_open(&store, "redis://u:secret@h", &options, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "not rediss:"));
    assert_int_equal(steady_store_open(&store, "memory:", &options, &why), STEADY_BAD_ARGUMENT);
    const steady_tls_options newer = {.reserved = {[3] = 1}};
    const steady_store_options of_tomorrow = {.tls = &newer};
    assert_int_equal(steady_store_open(&store, "rediss://h", &of_tomorrow, &why), STEADY_BAD_ARGUMENT);
    assert_non_null(strstr(why.text, "reserved"));
}

/* ---- No TLS on one of the sides ---- */

/* A redis-server without TLS takes the handshake for a line, and waits for its end. */
static void port_without_tls_is_unavailable(void **state) {
    (void)state;
    timeout = 300 * MS;
    assert_refused(url_of("localhost", rig.server.port, "%s", ""), STEADY_UNAVAILABLE, "TLS");
    timeout = 3 * STEADY_SECOND;
}

/* ---- As without TLS ---- */

static void tls_in_single_bytes_is_decided(void **state) {
    struct tally tally = {0};
    (void)state;
    open_through_proxy(&(struct proxy_rules){.slice = 1}, 5 * STEADY_SECOND);
    for (int i = 0; i < 50; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    run_until_done(rig.poller, &tally, 10 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 50);
    assert_int_equal(level("k"), 50);
}

static void resets_under_load_charge_nothing_twice(void **state) {
    struct tally tally = {0};
    (void)state;
    open_through_proxy(&(struct proxy_rules){0}, 2 * STEADY_SECOND);
    warm_up();
    for (int i = 0; i < 20; i++) {
        load(&tally, 200, 20 * MS);
        for (int n = 0; n < 200; n++)
            consume_counted(rig.throttler, "k", 1, &tally);
        steady_poller_run(rig.poller, 0);
        proxy_reset_all(proxy);
        run_until_done(rig.poller, &tally, 5 * STEADY_SECOND);
    }
    sleep_us(50 * MS); /* requests in flight may still be charged */
    account(&tally, level("k"));
    assert_true(tally.errors[-STEADY_UNKNOWN] > 0);
    assert_true(stats().reconnects >= 10);
    assert_used_again();
}

static void killed_server_leaves_decisions_unknown_then_unavailable(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open_at(trusting("localhost"), STEADY_SECOND);
    load(&tally, 100, 100 * MS);
    assert_int_equal(tally.allowed, tally.submitted);
    server_freeze(&rig.server);
    for (int i = 0; i < 100; i++)
        consume_counted(rig.throttler, "k", 1, &tally);
    run_for(rig.poller, 20 * MS);
    server_kill(&rig.server);
    run_until_done(rig.poller, &tally, 2 * STEADY_SECOND);
    assert_int_equal(tally.errors[-STEADY_UNKNOWN], 100);
    assert_int_equal(ask_one(), STEADY_UNAVAILABLE);
}

/* The server is silent during the handshake, and later during work. */
static void silent_handshake_and_connection_delay_no_deadline(void **state) {
    struct tally tally = {0};
    (void)state;
    open_through_proxy(&(struct proxy_rules){.deaf = true}, TIMEOUT);
    trickle(&tally, 10 * MS, how_long(800 * MS, 2 * STEADY_SECOND));
    /* on a busy machine the loop may be held; then a decision that waits for a connection is overloaded */
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE] + tally.errors[-STEADY_OVERLOADED], tally.submitted);
    assert_true(tally.slowest < TIMEOUT + SLACK_OF(tally));
    assert_non_null(strstr(rig.log.all, "TLS handshake failed: the server does not answer"));
    assert_int_equal(rig.log.lines, 1);
    proxy_set(proxy, &(struct proxy_rules){0});
    assert_used_again();
    proxy_set(proxy, &(struct proxy_rules){.frozen = true});
    memset(&tally, 0, sizeof tally);
    trickle(&tally, 10 * MS, how_long(800 * MS, 2 * STEADY_SECOND));
    assert_int_equal(tally.verdicts, 0);
    assert_true(tally.slowest < TIMEOUT + SLACK_OF(tally));
    proxy_set(proxy, &(struct proxy_rules){0});
    assert_used_again();
    assert_int_equal(ERR_peek_error(), 0);
}

static void heavy_load_over_tls_never_holds_the_loop(void **state) {
    struct tally tally = {0};
    (void)state;
    rig_open_at(trusting("localhost"), 10 * STEADY_SECOND);
    load(&tally, 2000, 500 * MS);
    assert_int_equal(tally.allowed, tally.submitted);
    assert_int_equal(level("k"), tally.allowed);
    assert_true(tally.allowed > 2000);
    assert_loop_never_held();
}

/* OpenSSL errors that the program left do not mislead the library, and the library leaves none. */
static void openssl_errors_of_the_program_are_ignored_and_none_are_left(void **state) {
    struct tally tally = {0};
    (void)state;
    open_through_proxy(&(struct proxy_rules){.slice = 1}, 5 * STEADY_SECOND);
    for (int i = 0; i < 20; i++) {
        ERR_raise(ERR_LIB_SSL, ERR_R_INTERNAL_ERROR);
        consume_counted(rig.throttler, "k", 1, &tally);
        while (tally.called < tally.submitted) {
            ERR_raise(ERR_LIB_SYS, EPIPE);
            assert_true(steady_poller_run(rig.poller, STEADY_SECOND) > 0);
        }
    }
    assert_int_equal(tally.allowed, 20);
    assert_int_equal(stats().reconnects, 0);
    assert_int_equal(ERR_peek_error(), 0);
}

/* The child closes its copy without a TLS close notice, which would end the parent's connection. */
static void forked_child_closes_without_ending_the_parents_connection(void **state) {
    int status = 0;
    (void)state;
    rig_open_at(trusting("localhost"), STEADY_SECOND);
    warm_up();
    steady_result result;
    assert_int_equal(steady_consume_sync(rig.throttler, "k", 1, 1, &result), 0);
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) {
        const int in_child = steady_consume_sync(rig.throttler, "k", 1, 1, &result);
        steady_throttler_free(&rig.throttler);
        steady_store_close(&rig.store);
        _exit(in_child == STEADY_UNAVAILABLE ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(ask_one(), 0);
    assert_int_equal(steady_consume_sync(rig.throttler, "k", 1, 1, &result), 0);
    assert_int_equal(stats().reconnects, 0);
    assert_int_equal(level("k"), 3);
}

/* ---- Leaks ---- */

static unsigned descriptors(void) {
    unsigned n = 0;
    DIR *directory = opendir("/proc/self/fd");
    assert_non_null(directory);
    while (readdir(directory) != NULL)
        n++;
    closedir(directory);
    return n;
}

static size_t heap(void) { return mallinfo2().uordblks; }

struct attempts {
    unsigned done, failed;
    char why[160];
};

static void count_attempt(void *arg, const struct steady__connect_result *dialed) {
    struct attempts *attempts = arg;
    attempts->done++;
    if (dialed->fd < 0) attempts->failed++;
    if (dialed->fd < 0) snprintf(attempts->why, sizeof attempts->why, "%s", dialed->why);
}

static void attempt(struct steady__connect *dial, struct attempts *attempts, unsigned times) {
    const unsigned until = attempts->done + times;
    while (attempts->done < until) {
        const unsigned before = attempts->done;
        steady__connect_start(dial);
        while (attempts->done == before)
            assert_true(steady_poller_run(rig.poller, 5 * STEADY_SECOND) > 0);
    }
}

/* Sanitizers have no mallinfo2; their leak checker does this check. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ATTEMPTS 100
#else
#define ATTEMPTS 1000
#endif

static void failed_handshakes_leave_no_descriptor_and_no_memory(void **state) {
    struct steady__url url;
    struct steady__tls_context *tls = NULL;
    struct steady__fork_guard fork_guard;
    struct attempts attempts = {0};
    (void)state;
    serve_with("elsewhere");
    assert_int_equal(steady__url_parse(&url, trusting("127.0.0.1"), NULL), 0);
    assert_int_equal(steady__tls_open(&tls, &url, NULL, NULL), 0);
    steady__fork_guard_set(&fork_guard, false);
    struct steady__connect dial = {.net = &steady__net_system,
                                   .loop = &rig.loop,
                                   .url = &url,
                                   .tls_context = tls,
                                   .fork_guard = &fork_guard,
                                   .address_timeout = 10 * STEADY_SECOND,
                                   .unanswered = 10 * STEADY_SECOND,
                                   .done = count_attempt,
                                   .arg = &attempts};
    assert_int_equal(steady__connect_init(&dial), 0);
    attempt(&dial, &attempts, 50);
    const unsigned descriptors_before = descriptors();
    const size_t heap_before = heap();
    attempt(&dial, &attempts, ATTEMPTS);
    assert_int_equal(attempts.failed, 50 + ATTEMPTS);
    assert_string_equal(attempts.why, "the server's certificate is not for 127.0.0.1");
    assert_int_equal(descriptors(), descriptors_before);
    assert_true(heap() < heap_before + 64 * 1024); /* less than 66 bytes for each attempt */
    assert_int_equal(ERR_peek_error(), 0);
    steady__connect_free(&dial);
    steady__tls_close(tls);
    steady__fork_guard_clear(&fork_guard);
}

/* The certificate of each node of a cluster is checked like that of the first. */
static void each_node_of_a_cluster_is_verified(void **state) {
    static struct cluster cluster;
    char options[300], key[16];
    struct tally tally = {0};
    (void)state;
    snprintf(options, sizeof options,
             "--tls-auth-clients no --tls-ca-cert-file %s --tls-cert-file %s --tls-key-file %s", certificate("ca.pem"),
             certificate("server.pem"), certificate("server.key"));
    cluster_start(&cluster, PRIMARIES, options);
    rig_open_at(url_of("127.0.0.1", cluster.tls_ports[0], "?tls_ca=%s", certificate("ca.pem")), 5 * STEADY_SECOND);
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "k%d", i);
        consume_counted(rig.throttler, key, 1, &tally);
    }
    run_until_done(rig.poller, &tally, 10 * STEADY_SECOND);
    assert_int_equal(tally.allowed, 500);
    for (unsigned i = 0; i < PRIMARIES; i++)
        assert_true(server_stat(&cluster.nodes[i], "cmdstat_evalsha:calls") > 100);
    server_ask(&cluster.nodes[1], "CONFIG SET tls-cert-file %s tls-key-file %s", certificate("stranger.pem"),
               certificate("stranger.key"));
    rig_close();
    rig_open_at(url_of("127.0.0.1", cluster.tls_ports[0], "?tls_ca=%s", certificate("ca.pem")), 5 * STEADY_SECOND);
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "k%d", i);
        consume_counted(rig.throttler, key, 1, &tally);
    }
    run_until_done(rig.poller, &tally, 10 * STEADY_SECOND);
    assert_between(tally.errors[-STEADY_UNAVAILABLE], 100, 250); /* the slots of one of three nodes */
    assert_int_equal(tally.allowed + tally.errors[-STEADY_UNAVAILABLE], 1000);
    cluster_stop(&cluster);
}

#define WITH_TLS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_TLS(callback_and_blocking_calls_work_over_tls),
        WITH_TLS(certificate_matches_name_address_and_server_name),
        WITH_TLS(untrusted_certificate_is_unavailable_and_nothing_is_sent),
        WITH_TLS(system_authorities_are_trusted_by_default),
        WITH_TLS(skipped_verification_accepts_any_certificate),
        WITH_TLS(client_certificate_is_checked_by_the_server),
        WITH_TLS(missing_client_certificate_is_refused_and_never_unknown),
        WITH_TLS(tls_options_of_the_struct_apply),
        cmocka_unit_test(unusable_file_is_a_bad_argument),
        cmocka_unit_test(tls_options_without_tls_are_a_bad_argument),
        WITH_TLS(port_without_tls_is_unavailable),
        WITH_TLS(tls_in_single_bytes_is_decided),
        WITH_TLS(resets_under_load_charge_nothing_twice),
        WITH_TLS(killed_server_leaves_decisions_unknown_then_unavailable),
        WITH_TLS(silent_handshake_and_connection_delay_no_deadline),
        WITH_TLS(heavy_load_over_tls_never_holds_the_loop),
        WITH_TLS(openssl_errors_of_the_program_are_ignored_and_none_are_left),
        WITH_TLS(forked_child_closes_without_ending_the_parents_connection),
        WITH_TLS(failed_handshakes_leave_no_descriptor_and_no_memory),
        WITH_TLS(each_node_of_a_cluster_is_verified),
    };
    certificates_make();
    const int failed = cmocka_run_group_tests_name("tls", tests, NULL, NULL);
    certificates_remove();
    return failed;
}
