/* SPDX-License-Identifier: MIT
 * The progress of a replay, in one line of a terminal. If standard error is no terminal, nothing is shown. */
#ifndef STEADY_REPLAY_PROGRESS_H
#define STEADY_REPLAY_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool shown;          /* there is a terminal */
    bool drawn;          /* the line has text */
    int64_t begun, next; /* us of the monotonic clock */
};

void progress_begin(struct progress *progress);

/* Whether it is time to draw again; asks the clock. */
bool progress_is_due(struct progress *progress);

/* position of size: bytes of the files; size 0: not known. bytes: of the lines. */
void progress_draw(struct progress *progress, uint64_t position, uint64_t size, uint64_t lines, uint64_t bytes);

/* Removes the line. */
void progress_end(struct progress *progress);

#endif
