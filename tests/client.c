/* SPDX-License-Identifier: MIT
 * Shared by tests on fake servers. */
#include "client.h"

steady_poller *poller;
steady_loop loop;
struct log_lines log_lines;
steady_store *store;
steady_throttler *throttler;

int client_set_up(void **state) {
    (void)state;
    memset(&log_lines, 0, sizeof log_lines);
    assert_int_equal(steady_poller_new(&poller), 0);
    loop = steady_poller_loop(poller);
    return 0;
}

void client_close(void) {
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

int client_tear_down(void **state) {
    (void)state;
    client_close();
    steady_poller_free(&poller);
    return 0;
}

void client_open_with(const char *url, steady_store_options options) {
    options.loop = &loop;
    if (options.log == NULL) {
        options.log = remember_line;
        options.log_data = &log_lines;
    }
    store = open_store(url, &options);
    throttler = new_throttler(store, 10, HOUR);
}

void client_open(const char *url, steady_us timeout) {
    client_open_with(url, (steady_store_options){.timeout = timeout, .engine = STEADY_ENGINE_SCRIPT});
}

void client_open_at(int port, steady_us timeout) {
    char url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", port);
    client_open(url, timeout);
}

int client_ask(void) {
    struct tally tally = {0};
    consume_counted(throttler, "somekey", 1, &tally);
    run_until_done(poller, &tally, 5 * STEADY_SECOND);
    return tally.last.error;
}

uint64_t client_reconnects(void) {
    steady_stats stats;
    steady_store_stats(store, &stats);
    return stats.reconnects;
}
