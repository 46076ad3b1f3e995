/* SPDX-License-Identifier: MIT
 * Shared by tests of a cluster of fake nodes. */
#include "fake_cluster.h"

#include "redis/slot_map.h"

struct fake_node *a, *b;
steady_us timeout;
static char text[8][512]; /* the texts of replies must stay valid */

int nodes_set_up(void **state) {
    timeout = 5 * STEADY_SECOND;
    a = fake_node_start(false);
    b = fake_node_start(false);
    fake_node_says(a, "CLUSTER", NO_MAP, 0, 0);
    fake_node_says(b, "CLUSTER", NO_MAP, 0, 0);
    fake_node_says(b, "EVALSHA", VERDICT, 0, 0);
    return client_set_up(state);
}

int nodes_tear_down(void **state) {
    client_close();
    fake_node_stop(a);
    fake_node_stop(b);
    return client_tear_down(state);
}

void open_at(const char *credentials_and_host) {
    char url[128];
    snprintf(url, sizeof url, "redis://%s:%d", credentials_and_host, fake_node_port(a));
    client_open(url, timeout);
}

void open_with(const char *credentials) {
    char host[64];
    snprintf(host, sizeof host, "%s127.0.0.1", credentials);
    open_at(host);
}

int ask(const char *key) {
    struct tally tally = {0};
    consume_counted(throttler, key, 1, &tally);
    run_until_done(poller, &tally, 10 * STEADY_SECOND);
    return tally.last.error;
}

const char *redirect(int number, const char *word, const char *host, int port) {
    snprintf(text[number], sizeof text[number], "-%s %u %s:%d\r\n", word, steady__slot_of(KEY, strlen(KEY)), host,
             port);
    return text[number];
}

/* All slots to one node, or a half to each. */
const char *map_of(int number, const struct fake_node *low, const struct fake_node *high) {
    snprintf(text[number], sizeof text[number],
             "*2\r\n*3\r\n:0\r\n:8191\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$2\r\nid\r\n"
             "*3\r\n:8192\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$2\r\nid\r\n",
             fake_node_port(low), fake_node_port(high));
    return text[number];
}

unsigned heard(const char *word) { return fake_node_heard(a, word) + fake_node_heard(b, word); }

void await_heard(const char *word, unsigned times) {
    const steady_us until = now_us() + 2 * STEADY_SECOND;
    while (heard(word) < times && now_us() < until)
        run_for(poller, 5 * MS);
    assert_int_equal(heard(word), times);
    run_for(poller, 20 * MS); /* for the reply */
}
