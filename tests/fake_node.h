/* SPDX-License-Identifier: MIT
 * A fake node of a cluster: a server that answers each command with a given reply, on any number of connections. */
#ifndef FAKE_NODE_H
#define FAKE_NODE_H

#include <stdbool.h>
#include <stddef.h>

struct fake_node;

/* On 127.0.0.1, or on ::1. */
struct fake_node *fake_node_start(bool ipv6);
int fake_node_port(const struct fake_node *node);
void fake_node_stop(struct fake_node *node);

#define FAKE_SILENCE ((const char *)0) /* no reply at all on this connection from then on */
#define FAKE_HANG_UP ""

/* Sets the reply to commands with this first word, in capitals. "*" is for all other commands, "+OK" at first. times:
 * how often it is sent, before the reply that was set earlier; 0: always. `reply` must outlive the node. */
void fake_node_says(struct fake_node *node, const char *word, const char *reply, size_t len, unsigned times);

/* Makes the node wait, without doing anything else, before it answers this command. `word` must outlive the node. */
void fake_node_is_slow(struct fake_node *node, const char *word, unsigned takes_us);

/* Resets all replies to "+OK". */
void fake_node_says_nothing_more(struct fake_node *node);

/* The number of commands with this first word that it has read. "" means all. */
unsigned fake_node_heard(struct fake_node *node, const char *word);

/* The first words of all commands that it has read, each followed by a space. Valid until the next call. */
const char *fake_node_words(struct fake_node *node);

/* The last command with this first word, its words with a space between them. Valid until the next call. */
const char *fake_node_last(struct fake_node *node, const char *word);

/* The connections open now, and the connections accepted so far. */
unsigned fake_node_open(struct fake_node *node);
unsigned fake_node_accepted(struct fake_node *node);

#endif
