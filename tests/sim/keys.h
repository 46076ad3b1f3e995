/* SPDX-License-Identifier: MIT
 * The keys of a simulated server: what the real scripts make of them, and what must come out. */
#ifndef SIM_KEYS_H
#define SIM_KEYS_H

#include "redis/command.h"
#include "conn/reply.h"
#include "journal.h"
#include "node.h"
#include "words.h"

void keys_open(void); /* once: the interpreter */
void keys_close(void);

/* Runs a decision's script: NULL and the integers of its reply, or the error it ends with. Checks the outcome against
 * bucket.c and against a third, simpler opinion, and writes it into the journal. */
const char *keys_run(struct node *node, struct decision *d, int64_t values[STEADY__REPLY_MAX], size_t *count);

/* The same, as the module replies. */
const char *keys_run_module(struct node *node, struct decision *d, int64_t values[STEADY__REPLY_MAX], size_t *count);

bool keys_has(const struct node *node, const struct place *place);
void keys_move(struct node *to, struct node *from, const struct place *place); /* if there is something */
void keys_forget(struct node *node);
void keys_copy(struct node *to, const struct node *from);
void keys_step_clock(struct node *node, int64_t by);
void keys_plant(int bucket, const char *value); /* foreign data, on all nodes; KEYS_OTHER_TYPE: no string at all */
#define KEYS_OTHER_TYPE ""

#endif
