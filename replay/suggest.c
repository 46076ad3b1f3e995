/* SPDX-License-Identifier: MIT
 * Well-rounded rates and capacities, and the choice among them. */
#include "suggest.h"

#define SECOND INT64_C(1000000)

size_t suggest_rates(steady_limit rates[SUGGEST_RATES]) {
    static const struct {
        int64_t period, most; /* most: of the counts per period */
    } units[] = {{86400, 10}, {3600, 30}, {60, 30}, {1, 1000000}};
    static const int64_t steps[] = {1, 2, 5, 10, 20, 30, 50};
    size_t n = 0;
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        for (int64_t ten = 1; ten <= units[u].most; ten *= 100)
            for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
                const int64_t count = ten * steps[i];
                if (count > units[u].most || (steps[i] == 30 && units[u].period == 1)) continue;
                rates[n++] =
                    (steady_limit){.max_capacity = count, .drop_recharge = units[u].period * SECOND, .drops = count};
            }
    }
    return n;
}

static int64_t suggest_drops(const steady_limit *limit) { return limit->drops > 0 ? limit->drops : 1; }

double suggest_speed(const steady_limit *limit) {
    return (double)suggest_drops(limit) * 1e6 / (double)limit->drop_recharge;
}

int64_t suggest_round_up(int64_t capacity) {
    static const int64_t steps[] = {10, 12, 15, 20, 25, 30, 40, 50, 60, 80};
    if (capacity <= 10) return capacity < 1 ? 1 : capacity;
    for (int64_t ten = 1;; ten *= 10)
        for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
            if (steps[i] * ten >= capacity) return steps[i] * ten <= INT32_MAX ? steps[i] * ten : INT32_MAX;
}

void suggest_window(const int64_t *needed, size_t n, size_t most, size_t *from, size_t *to) {
    size_t first = 0, last = n - 1;
    while (last > 0 && needed[last - 1] == needed[n - 1])
        last--;
    while (first < last && needed[first + 1] == needed[0])
        first++;
    if (last + 1 - first > most) first = last + 1 - most;
    *from = first;
    *to = last + 1;
}

/* What one key can send in SUGGEST_SECONDS. */
static double suggest_sent(const steady_limit *limit) {
    return (double)limit->max_capacity + suggest_speed(limit) * SUGGEST_SECONDS;
}

/* The log says nothing about a bucket that takes longer to empty than the log lasts. */
static bool suggest_refills(const steady_limit *limit, int64_t span) {
    return (double)limit->max_capacity <= suggest_speed(limit) * (double)span / 1e6;
}

size_t suggest_choose(const struct report_choice *choices, size_t n, int64_t span) {
    size_t best = SIZE_MAX, fastest = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        const steady_limit *limit = &choices[i].limit;
        if (fastest == SIZE_MAX || suggest_speed(limit) > suggest_speed(&choices[fastest].limit)) fastest = i;
        if (!suggest_refills(limit, span)) continue;
        if (best == SIZE_MAX || suggest_sent(limit) < suggest_sent(&choices[best].limit)) best = i;
    }
    return best != SIZE_MAX ? best : fastest;
}

/* ---- The heat map ---- */

/* Picks REPORT_GRID places of n around `at`: five before it, and six after it if there are so many. */
static size_t suggest_begin(size_t n, size_t at) {
    size_t begin = at > 5 ? at - 5 : 0;
    if (begin + REPORT_GRID > n) begin = n > REPORT_GRID ? n - REPORT_GRID : 0;
    return begin;
}

static void suggest_grid_rates(struct report_heat *heat, const steady_limit *limit) {
    steady_limit known[SUGGEST_RATES], all[SUGGEST_RATES + 1];
    const size_t n_known = suggest_rates(known);
    const double speed = suggest_speed(limit);
    size_t n = 0, at = SIZE_MAX;
    for (size_t i = 0; i <= n_known; i++) {
        const double other = i < n_known ? suggest_speed(&known[i]) : 0;
        if (at == SIZE_MAX && (i == n_known || other > speed * 0.95)) {
            at = n;
            all[n++] = *limit;
        }
        if (i < n_known && (other < speed * 0.95 || other > speed * 1.05)) all[n++] = known[i];
    }
    const size_t begin = suggest_begin(n, at);
    for (heat->n_rates = 0; heat->n_rates < REPORT_GRID && begin + heat->n_rates < n; heat->n_rates++)
        heat->rates[heat->n_rates] = all[begin + heat->n_rates];
    heat->rate_at = at - begin;
}

static void suggest_grid_capacities(struct report_heat *heat, int64_t capacity) {
    int64_t all[64];
    size_t n = 0, at = SIZE_MAX;
    for (int64_t ten = 1; ten <= INT32_MAX; ten *= 10)
        for (size_t i = 0; i < 3; i++) {
            const int64_t other = ten * (i == 0 ? 1 : i == 1 ? 2 : 5);
            if (at == SIZE_MAX && other >= capacity) {
                at = n;
                all[n++] = capacity;
            }
            if (other != capacity && other <= INT32_MAX) all[n++] = other;
        }
    if (at == SIZE_MAX) {
        at = n;
        all[n++] = capacity;
    }
    const size_t begin = suggest_begin(n, at);
    for (heat->n_capacities = 0; heat->n_capacities < REPORT_GRID && begin + heat->n_capacities < n;
         heat->n_capacities++)
        heat->capacities[heat->n_capacities] = all[begin + heat->n_capacities];
    heat->capacity_at = at - begin;
}

void suggest_grid(struct report_heat *heat, const steady_limit *limit) {
    suggest_grid_rates(heat, limit);
    suggest_grid_capacities(heat, limit->max_capacity);
}
