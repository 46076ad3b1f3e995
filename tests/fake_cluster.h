/* SPDX-License-Identifier: MIT
 * What tests of the cluster on nodes that do not exist share: two such nodes, a store that begins with the first, and
 * what nodes may say of each other. */
#ifndef FAKE_CLUSTER_H
#define FAKE_CLUSTER_H

#include "client.h"
#include "fake_node.h"

#define TIMEOUT (200 * MS)
#define KEY "somekey"
#define VERDICT ":1\r\n"
#define NO_MAP "*0\r\n"

extern struct fake_node *a, *b; /* without a map; b has verdicts */
extern steady_us timeout;       /* of the next store; long, but where a deadline matters */

/* For cmocka. */
int nodes_set_up(void **state);
int nodes_tear_down(void **state);
#define WITH_NODES(test) cmocka_unit_test_setup_teardown(test, nodes_set_up, nodes_tear_down)

/* Opens the store on a; "user:pass@", or "". */
void open_with(const char *credentials);
void open_at(const char *credentials_and_host);

/* What a decision ends as. */
int ask(const char *key);

/* What nodes may say: "MOVED" or "ASK" for KEY, and a map of two halves. They stay until the same number is taken. */
const char *redirect(int number, const char *word, const char *host, int port);
const char *map_of(int number, const struct fake_node *low, const struct fake_node *high);

/* How many commands both nodes have read that begin with the word. */
unsigned heard(const char *word);

/* Waits for the last of so many; fails the test if it does not come, or one more. */
void await_heard(const char *word, unsigned times);

#endif
