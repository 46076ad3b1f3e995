/* SPDX-License-Identifier: MIT
 * Calls between the slots of a cluster: which commands a call may send in its rounds, and what must be true of their
 * sum. */
#ifndef SIM_ROUNDS_H
#define SIM_ROUNDS_H

#include "several.h"

/* The request of a command on some of the members. */
struct request *rounds_request_of(struct decision *decision, const struct group_words *group, const uint8_t *at);

/* It may go on when its call has ended without doubt: it gives drops back, or only looks, or another part has denied.
 */
bool rounds_outlives(const struct request *request);

void rounds_leaves(struct conn *conn, struct request *request, const struct group_words *group);
void rounds_check_arguments(const struct request *request, const struct group_words *group);
void rounds_executed(struct request *request, const struct made *made);

/* The call has ended, with a verdict of the store, as uncharged, or as unknown. */
void rounds_check_verdict(const struct decision *decision, const steady_result *result);
void rounds_check_uncharged(const struct decision *decision);
void rounds_check_doubt(const struct decision *decision);
void rounds_told(struct decision *decision, int64_t granted);

/* A command of this decision goes out on the connection. */
void rounds_overtake(struct conn *conn, const struct decision *decision);

/* The seed has ended. */
void rounds_end(const struct decision *decision);

#endif
