/* SPDX-License-Identifier: MIT
 * The keys of a simulated server: the results of the real scripts, and the expected results. */
#ifndef SIM_KEYS_H
#define SIM_KEYS_H

#include "conn/reply.h"
#include "journal.h"
#include "node.h"
#include "redis/command.h"
#include "words.h"

void keys_open(void); /* once: starts the Lua interpreter */
void keys_close(void);

/* Runs the script of a decision. Returns NULL and the integers of its reply, or its error. Compares the result with
 * bucket.c and a third, simpler implementation, and writes it into the journal. */
const char *keys_run(struct node *node, struct decision *d, int64_t values[STEADY__REPLY_MAX], size_t *count);

/* Like keys_run, with the reply of the module. */
const char *keys_run_module(struct node *node, struct decision *d, int64_t values[STEADY__REPLY_MAX], size_t *count);

/* The same for a decision on several keys, whose command is `group`. */
const char *keys_run_group(struct node *node, struct request *r, const struct group_words *group, bool to_module,
                           int64_t values[STEADY__REPLY_MAX], size_t *count);

/* Whether a server that owns the bucket would deny so many drops at that time. Sets *retry_after to its longest wait.
 */
bool keys_would_deny(const struct place *place, int64_t amount, steady_us when, steady_us *retry_after);

bool keys_has(const struct node *node, const struct place *place);
void keys_move(struct node *to, struct node *from, const struct place *place); /* if the bucket exists */
void keys_forget(struct node *node);
void keys_copy(struct node *to, const struct node *from);
void keys_step_clock(struct node *node, int64_t by);
void keys_plant(int bucket, const char *value); /* writes a foreign value on all nodes; KEYS_OTHER_TYPE: not a string */
#define KEYS_OTHER_TYPE ""

#endif
