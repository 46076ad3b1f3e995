/* SPDX-License-Identifier: MIT
 * How many requests a second had which verdict, in the last five minutes. The first worker writes it once a second; the
 * admin socket, which is of the same thread, reads it. */
#ifndef STEADY_SERVER_HISTORY_H
#define STEADY_SERVER_HISTORY_H

#include "metrics.h"

enum { HISTORY_SECONDS = 300 };

struct history {
    uint64_t before[METRICS_VERDICTS];
    uint64_t at_ms; /* of `before`; 0: it was a second ago */
    uint32_t rates[HISTORY_SECONDS][METRICS_VERDICTS];
    size_t next, n;
};

/* Adds the rates since the last call. */
void history_add(struct history *history, struct server *server, uint64_t now_ms);

/* A list of rates, the oldest first. */
void history_text(struct buffer *out, const struct history *history, enum metrics_verdict verdict);

#endif
