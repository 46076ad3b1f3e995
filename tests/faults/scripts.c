/* SPDX-License-Identifier: MIT
 * A script cache that other programs fill. Redis 7.4, Valkey 8 and later evict the oldest of 500 scripts that came
 * by EVAL. The test uses the server of scripts/chroot. */
#include "rig.h"

#include <stdlib.h>
#include <unistd.h>

static int find_server(void **state) {
    char program[2048], root[512];
    const char *build = getenv("BUILD");
    (void)state;
    snprintf(root, sizeof root, "%s/trixie", build != NULL ? build : "build");
    snprintf(program, sizeof program, "%s/usr/bin/valkey-server", root);
    if (access(program, X_OK) != 0) return 0;
    snprintf(program, sizeof program,
             "%s/lib64/ld-linux-x86-64.so.2 --library-path %s/usr/lib/x86_64-linux-gnu "
             "%s/usr/bin/valkey-server",
             root, root, root);
    return setenv("REDIS_SERVER", program, 1);
}

static void script_survives_a_full_script_cache(void **state) {
    struct tally tally = {0};
    (void)state;
    if (getenv("REDIS_SERVER") == NULL) skip_because("takes a Valkey 8: scripts/chroot make");
    rig_open(5 * STEADY_SECOND);
    warm_up();
    const uint64_t loads = stats().script_loads;
    for (int i = 0; i < 600; i++) {
        server_ask(&rig.server, "EVAL %s 0", i % 2 ? "return 1" : "return 2");
        char script[64];
        snprintf(script, sizeof script, "return %d", i);
        server_ask(&rig.server, "EVAL %s 0", script);
        consume_counted(rig.throttler, "k", 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
    }
    assert_int_equal(tally.allowed, 600);
    account(&tally, level("k"));
    assert_true(server_stat(&rig.server, "evicted_scripts") > 0);
    assert_int_equal(stats().script_loads, loads);
}

int main(void) {
    const struct CMUnitTest tests[] = {WITH_RIG(script_survives_a_full_script_cache)};
    return cmocka_run_group_tests_name("scripts", tests, find_server, NULL);
}
