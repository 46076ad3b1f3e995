/* SPDX-License-Identifier: MIT
 * Fills the report from what the engine counted. */
#ifndef STEADY_REPLAY_RESULTS_H
#define STEADY_REPLAY_RESULTS_H

#include "engine.h"
#include "report.h"
#include "series.h"

struct results_options {
    double share;              /* of --suggest; 0: none */
    const steady_limit *rates; /* of --rate */
    size_t n_rates;
    bool heat;
};

struct results {
    struct report report; /* the caller sets what belongs to files and lines */
    struct rules_memory *memory;
    const char **notes;
    size_t n_notes, notes_room;
};

/* False: out of memory. */
bool results_new(struct results *results);

/* A sentence for the reader. */
__attribute__((format(printf, 2, 3))) void results_note(struct results *results, const char *format, ...);

/* series: NULL if there is neither --suggest nor a heat map. */
bool results_fill(struct results *results, const struct engine *engine, struct series *series,
                  const struct results_options *options);

void results_free(struct results *results);

#endif
