/* SPDX-License-Identifier: MIT
 * The decision log: a line of JSON for each decision, or for a share of them. `steady replay` reads it.
 *
 * Lines are collected, and written by another thread of the loop. If the disk does not keep up, lines are dropped and
 * counted; a decision never waits for the log. A line:
 *
 *     {"ts": "2026-12-01T01:02:03.123456Z", "allowed": true, "parts": [{"limit": "login", "key": "192.0.2.1",
 *      "amount": 1, "kind": "take", "allowed": true, "level": 3}]}
 *
 *     ts       when the decision was made
 *     allowed  the answer to the request
 *     error    if the store gave no verdict: why. Then `allowed` is what on_error says
 *     limit    its name; "" or the name that the request gave if the limit came with the request
 *     key      as clients know it; as it is stored if the limit came with the request
 *     amount   drops that were asked for; with "granted" if fewer were given
 *     kind     take, look, charge or shadow; all parts of a peek are looks
 *     level    after the decision. `allowed` and `level` of a part are missing if the store gave no verdict */
#ifndef STEADY_SERVER_DECISION_LOG_H
#define STEADY_SERVER_DECISION_LOG_H

#include "server.h"

/* Opens the file of the options. NULL on success, otherwise the reason. */
const char *decision_log_open(struct server *server);

/* If the file was renamed or removed, opens a new one. On the tick of the first worker, and on SIGHUP. */
void decision_log_look(struct server *server);

/* A decision. It may be left out, by chance. */
void decision_log_add(struct worker *worker, const struct question *question, const steady_result *result);

/* Writes what was collected; on the tick of the worker. */
void decision_log_flush(struct worker *worker);

/* Writes the rest, and waits for it. */
void decision_log_end(struct worker *worker);

void decision_log_close(struct server *server);

#endif
