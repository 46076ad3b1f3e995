/* SPDX-License-Identifier: MIT
 * The decisions of a replay: matches records against rules, decides in the order of time, and counts. */
#ifndef STEADY_REPLAY_ENGINE_H
#define STEADY_REPLAY_ENGINE_H

#include <stdio.h>

#include "format.h"
#include "heavy.h"
#include "histogram.h"
#include "keys.h"
#include "report.h"

struct series;
struct reorder;

enum {
    ENGINE_STATUSES = 1000,
    ENGINE_SKETCH = 4096,   /* registers of a HyperLogLog, which has an error of 1.6 % */
    ENGINE_NAMED_MOST = 64, /* limits of a decision log that no rules describe */
    ENGINE_KEY_MAX = RULES_KEY_MAX
};

struct engine_limit {
    const struct rules_limit *limit;
    struct steady__rate *rates; /* of the tiers */
    struct needed_rate *needed;
    size_t twin; /* the limit of this name in the other rules; SIZE_MAX: there is none */
    uint64_t requests, allowed, denied, blocked, never, other;
    uint64_t requests_merged, keys_forgotten;
    uint8_t *merged;             /* a sketch of the keys that found no room; NULL: none */
    struct histogram *waits;     /* retry_after of the denied; NULL: none */
    struct histogram *forgotten; /* `highest` of forgotten keys; NULL: none */
    uint64_t forgotten_over;     /* forgotten keys that no capacity is enough for */
    uint32_t by_status[ENGINE_STATUSES];
    struct heavy *by_path, *by_agent; /* NULL: nothing was denied */
    struct report_interval timeline[REPORT_TIMELINE];
};

/* The rules, or those of --against. */
struct engine_side {
    struct engine *engine;
    const struct rules *rules;
    struct engine_limit *limits;
    size_t n_limits;
    struct keys *keys;
};

struct engine_options {
    const struct rules *rules, *against; /* against: NULL: none */
    bool by_name;     /* the one limit of `rules` counts for each limit of a decision log, under the name of that */
    bool no_verdicts; /* there is no limit, only keys */
    bool at_end, spread, hash_keys;
    size_t memory;         /* bytes, of keys and waiting events */
    FILE *verdicts;        /* NULL: none */
    struct series *series; /* NULL: none */
};

struct engine {
    struct engine_options options;
    struct engine_side sides[2];
    size_t n_sides;
    struct reorder *reorder;
    struct rules_memory *memory;
    struct rules_match match;
    int64_t now; /* of the last decision */
    uint64_t requests, allowed, denied, exempt, unmatched, refused, late, without_address;
    uint64_t waited; /* requests that max_ahead lets wait */
    uint64_t moved;  /* requests that took longer than the window: they count later than they came */
    uint64_t unknown_parts;
    bool whole_seconds, begun_known, at_ends, has_parts;
    int64_t first, last; /* first > last: there is none */
    int64_t begin, interval;
    size_t n_intervals;
    char refusal[200]; /* why the first request was refused */
    unsigned char secret[16];
    bool lost; /* out of memory: something was not counted */
};

/* NULL: out of memory, or a limit is wrong; `why` has the reason. The options, and what they point to, must live as
 * long as the engine. */
struct engine *engine_new(const struct engine_options *options, char *why, size_t room);

/* A record of a log. */
void engine_take(struct engine *engine, const struct record *record);

/* All files have been read up to this time. */
void engine_advance(struct engine *engine, int64_t newest);

/* Decides what still waits. */
void engine_end(struct engine *engine);

/* The key as it is shown. The result may point into `out`. */
struct rules_text engine_shown_key(const struct engine *engine, struct rules_text key, char out[ENGINE_KEY_MAX]);

/* About how many keys of a limit found no room. */
uint64_t engine_merged_keys(const struct engine_limit *limit);

void engine_free(struct engine *engine);

#endif
