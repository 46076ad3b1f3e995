/* SPDX-License-Identifier: MIT
 * Requests a second, over time. */
#include "history.h"

#include "server.h"

void history_add(struct history *history, struct server *server, uint64_t now_ms) {
    const uint64_t elapsed_ms = history->at_ms != 0 ? now_ms - history->at_ms : 1000;
    if (elapsed_ms == 0) return;
    for (size_t i = 0; i < METRICS_VERDICTS; i++) {
        const uint64_t now = metrics_answers(server, (enum metrics_verdict)i);
        const uint64_t new = now - history->before[i];
        history->before[i] = now;
        /* A tick that was late stands for more than a second. */
        history->rates[history->next][i] = (uint32_t)((new * 1000 + elapsed_ms / 2) / elapsed_ms);
    }
    history->at_ms = now_ms;
    history->next = (history->next + 1) % HISTORY_SECONDS;
    if (history->n < HISTORY_SECONDS) history->n++;
}

void history_text(struct buffer *out, const struct history *history, enum metrics_verdict verdict) {
    buffer_add_text(out, "[");
    for (size_t i = 0; i < history->n; i++) {
        const size_t at = (history->next + HISTORY_SECONDS - history->n + i) % HISTORY_SECONDS;
        if (i > 0) buffer_add_text(out, ",");
        buffer_add_number(out, history->rates[at][verdict]);
    }
    buffer_add_text(out, "]");
}
