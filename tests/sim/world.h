/* SPDX-License-Identifier: MIT
 * The world of one seed: its time, its random numbers, its events, and its history. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "steady.h"

#define MS STEADY_MILLISECOND
#define NEVER INT64_MAX

struct world {
    uint64_t seed;
    uint64_t chance;
    uint64_t hash; /* of the history; the same seed gives the same hash */
    steady_us now;
    steady_us calm_at; /* when the faults end */
    bool verbose;
    unsigned long happened;
};

extern struct world world;

void world_begin(uint64_t seed, bool verbose);
void world_run_until(steady_us when);
void world_run_out(void); /* until no event is left */

/* Schedules an event. Events of the same time run in random order. An event cannot be cancelled: its function checks
 * whether it still applies. */
void at(steady_us when, void (*run)(void *arg), void *arg);

/* Returns zeroed memory that is freed at the end of the seed. */
void *keep(size_t size);

int64_t between(int64_t low, int64_t high); /* inclusive */
bool one_in(int64_t n);
steady_us any_scale(steady_us low, steady_us high); /* each order of magnitude has the same probability */

/* Writes a line of the history. */
void note(const char *what, int64_t a, int64_t b, int64_t c);

/* Reports a broken rule and how to reproduce it, and ends the program. */
_Noreturn void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
