/* SPDX-License-Identifier: MIT
 * The requests of each key once more, for many rates and capacities.
 *
 * The engine adds each request in the order of time. They go to a temporary file without a name, in parts by the hash
 * of the key. Then series_each groups each part by key. */
#ifndef STEADY_REPLAY_SERIES_H
#define STEADY_REPLAY_SERIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "histogram.h"
#include "needed.h"

struct series;

struct series_event {
    int64_t time; /* us since 1970 */
    int64_t amount;
};

/* Sees the events of each key. A key with very many events comes in several pieces, in the order of time. `state` has
 * state_size bytes and belongs to the key; before its first piece they are zero. */
struct series_visitor {
    size_t state_size;
    /* whole: these are all its events */
    void (*run)(void *data, void *state, size_t limit, const struct series_event *events, size_t n, bool whole);
    void (*finish)(void *data, void *state, size_t limit);
    void *data;
};

/* folder: of the temporary file. NULL: out of memory. */
struct series *series_new(const char *folder);

void series_add(struct series *series, size_t limit, uint64_t hash, int64_t time, int64_t amount);

/* False: it was not possible to read all; series_error says why. */
bool series_each(struct series *series, const struct series_visitor *visitor);

/* NULL: all is well. */
const char *series_error(const struct series *series);

void series_free(struct series *series);

/* ---- What the visitors compute ---- */

enum { SERIES_RATES_MOST = 64, SERIES_CAPACITIES_MOST = 16 };

/* For one limit: what its keys need at each of these rates. */
struct series_need {
    size_t n_rates;
    struct needed_rate rates[SERIES_RATES_MOST];
    struct histogram *needed[SERIES_RATES_MOST]; /* from calloc; drops, 0 if a key needs none */
    uint64_t over[SERIES_RATES_MOST];            /* keys that no capacity is enough for */
    bool failed;                                 /* out of memory */
};

bool series_find_needed(struct series *series, struct series_need *limits, size_t n_limits);
void series_free_needed(struct series_need *limits, size_t n_limits);

/* A rate with some capacities. */
struct series_row {
    struct steady__rate rate; /* its capacity is not used */
    size_t n;
    int64_t capacities[SERIES_CAPACITIES_MOST];
    uint64_t keys_denied[SERIES_CAPACITIES_MOST], requests_denied[SERIES_CAPACITIES_MOST];
};

/* For one limit: the rates and capacities to try. */
struct series_trial {
    size_t n_rows;
    struct series_row rows[SERIES_RATES_MOST];
};

/* Fills in what each limit of this rate and capacity denies if it stands alone. */
bool series_try(struct series *series, struct series_trial *limits, size_t n_limits);

#endif
