/* SPDX-License-Identifier: MIT
 * Well-rounded rates and capacities, and the choice among them. */
#ifndef STEADY_REPLAY_SUGGEST_H
#define STEADY_REPLAY_SUGGEST_H

#include "report.h"

enum { SUGGEST_RATES = 40, SUGGEST_SECONDS = 60 };

/* Rates as people write them, from 1/day to 1000000/s, slow ones first. Returns how many. */
size_t suggest_rates(steady_limit rates[SUGGEST_RATES]);

/* Drops in a second. */
double suggest_speed(const steady_limit *limit);

/* The next well-rounded number. */
int64_t suggest_round_up(int64_t capacity);

/* The rates that tell something: needed[i] is what most keys need at rate i, slow ones first; -1: over all. The others
 * need what their neighbour needs. There are at most `most`. */
void suggest_window(const int64_t *needed, size_t n, size_t most, size_t *from, size_t *to);

/* The choice that lets one key send the least in SUGGEST_SECONDS, among those that refill within `span` us.
 * SIZE_MAX: there is no choice. */
size_t suggest_choose(const struct report_choice *choices, size_t n, int64_t span);

/* Rates and capacities around a limit, with the limit itself at *rate_at and *capacity_at. */
void suggest_grid(struct report_heat *heat, const steady_limit *limit);

#endif
