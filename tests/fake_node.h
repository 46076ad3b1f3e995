/* SPDX-License-Identifier: MIT
 * A server that answers each command with what it was told to say, on any number of connections: a node of a cluster
 * that does not exist. */
#ifndef FAKE_NODE_H
#define FAKE_NODE_H

#include <stdbool.h>
#include <stddef.h>

struct fake_node;

/* On 127.0.0.1, or on ::1. */
struct fake_node *fake_node_start(bool ipv6);
int fake_node_port(const struct fake_node *node);
void fake_node_stop(struct fake_node *node);

#define FAKE_SILENCE ((const char *)0) /* nothing at all, on that connection, from then on */
#define FAKE_HANG_UP ""

/* What it says from now on to commands that begin with this word, in capitals; "*" is for all others, "+OK" at first.
 * `times`: only so often, and after that what was said before; 0: for good. `reply` outlives the node. */
void fake_node_says(struct fake_node *node, const char *word, const char *reply, size_t len, unsigned times);

/* So long it does nothing else before it answers this command. `word` outlives the node. */
void fake_node_is_slow(struct fake_node *node, const char *word, unsigned takes_us);

/* It says "+OK" to everything again. */
void fake_node_says_nothing_more(struct fake_node *node);

/* How many commands it has read that begin with the word; "" means all. */
unsigned fake_node_heard(struct fake_node *node, const char *word);

/* The first words of all commands it has read, each with a space behind it. Valid until the next call. */
const char *fake_node_words(struct fake_node *node);

/* Connections that are open, and those there have been. */
unsigned fake_node_open(struct fake_node *node);
unsigned fake_node_accepted(struct fake_node *node);

#endif
