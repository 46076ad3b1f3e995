/* SPDX-License-Identifier: MIT
 * The decision log: a line of JSON for each decision, or for a share of them. `steady replay` reads it.
 *
 * Lines are collected, and written by another thread of the loop. If the disk does not keep up, lines are dropped and
 * counted; a decision never waits for the log. */
#ifndef STEADY_SERVER_DECISION_LOG_H
#define STEADY_SERVER_DECISION_LOG_H

#include "server.h"

/* Opens the file of the options. NULL on success, otherwise the reason. */
const char *decision_log_open(struct server *server);

/* A decision. It may be left out, by chance. */
void decision_log_add(struct worker *worker, const struct question *question, const steady_result *result);

/* Writes what was collected; on the tick of the worker. */
void decision_log_flush(struct worker *worker);

/* Writes the rest, and waits for it. */
void decision_log_end(struct worker *worker);

void decision_log_close(struct server *server);

#endif
