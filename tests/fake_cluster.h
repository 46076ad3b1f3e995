/* SPDX-License-Identifier: MIT
 * Shared by tests of a cluster of fake nodes: two nodes, a store that begins with the first, and replies of nodes. */
#ifndef FAKE_CLUSTER_H
#define FAKE_CLUSTER_H

#include "client.h"
#include "fake_node.h"

#define TIMEOUT (200 * MS)
#define KEY "somekey"
#define VERDICT ":1\r\n"
#define NO_MAP "*0\r\n"

extern struct fake_node *a, *b; /* without a map; b answers decisions */
extern steady_us timeout;       /* of the next store; long, unless the test is about a deadline */

/* For cmocka. */
int nodes_set_up(void **state);
int nodes_tear_down(void **state);
#define WITH_NODES(test) cmocka_unit_test_setup_teardown(test, nodes_set_up, nodes_tear_down)

/* Opens the store on a. credentials: "user:pass@", or "". */
void open_with(const char *credentials);
void open_at(const char *credentials_and_host);

/* Makes one decision and returns its error. */
int ask(const char *key);

/* Replies of nodes: "MOVED" or "ASK" for KEY, and a map of two halves. Valid until the same number is used again. */
const char *redirect(int number, const char *word, const char *host, int port);
const char *map_of(int number, const struct fake_node *low, const struct fake_node *high);

/* The number of commands with this first word that both nodes have read. */
unsigned heard(const char *word);

/* Waits until `times` commands have come. Fails the test if they do not come, or if more come. */
void await_heard(const char *word, unsigned times);

#endif
