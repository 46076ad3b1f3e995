/* SPDX-License-Identifier: MIT
 * The world of one seed: its time, its chance, what happens next, and the history that is told of it. */
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
    uint64_t hash; /* of the history: the same seed has the same */
    steady_us now;
    steady_us calm_at; /* when the faults end */
    bool verbose;
    unsigned long happened;
};

extern struct world world;

void world_begin(uint64_t seed, bool verbose);
void world_run_until(steady_us when);
void world_run_out(void); /* until nothing is to come any more */

/* Something is to happen; among what happens at the same time, chance says what is first. Nothing is ever called off:
 * whoever is called looks whether it still concerns him. */
void at(steady_us when, void (*run)(void *arg), void *arg);

/* Zeroed memory that lasts as long as the seed. */
void *keep(size_t size);

int64_t between(int64_t low, int64_t high); /* both included */
bool one_in(int64_t n);
steady_us any_scale(steady_us low, steady_us high); /* every order of magnitude as likely as the next */

/* A line of the history. */
void note(const char *what, int64_t a, int64_t b, int64_t c);

/* A promise is broken: says so, and how to see it again, and ends the program. */
_Noreturn void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
