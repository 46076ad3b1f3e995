/* SPDX-License-Identifier: MIT
 * Fills the report from what the engine counted. */
#include "results.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/limit.h"
#include "reorder.h"
#include "rules/memory.h"
#include "suggest.h"

static const double results_shares[REPORT_QUANTILES] = {0.5, 0.9, 0.99, 0.999, 1, 0};

bool results_new(struct results *results) {
    *results = (struct results){.memory = memory_new()};
    return results->memory != NULL;
}

void results_note(struct results *results, const char *format, ...) {
    char text[600];
    va_list arguments;
    if (results->n_notes == results->notes_room) {
        const size_t room = results->notes_room + 16;
        const char **notes = realloc(results->notes, room * sizeof *notes);
        if (notes == NULL) return;
        results->notes = notes;
        results->notes_room = room;
    }
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const char *copy = memory_copy(results->memory, text, strlen(text));
    if (copy != NULL) results->notes[results->n_notes++] = copy;
    results->report.notes = results->notes;
    results->report.n_notes = results->n_notes;
}

static struct report_text results_text(struct results *results, struct rules_text text) {
    char *copy = memory_copy(results->memory, text.bytes, text.len);
    return (struct report_text){copy, copy != NULL ? text.len : 0};
}

/* ---- Needed capacities ---- */

static void results_add_bin(void *data, int64_t value, uint64_t n) {
    struct report_rate *rate = data;
    size_t bin = 0;
    while (bin < REPORT_BINS - 1 && value > (int64_t)1 << bin)
        bin++;
    rate->bins[bin] += n;
}

/* The smallest capacity that is enough for this share of the keys. -1: none is. */
static int64_t results_quantile(const struct histogram *needed, uint64_t over, double share) {
    const uint64_t n = (needed != NULL ? needed->n : 0) + over;
    const uint64_t rank = histogram_rank_of(n, share);
    if (n == 0) return 1;
    if (needed == NULL || rank > needed->n) return -1;
    const int64_t value = histogram_rank(needed, rank);
    return value < 1 ? 1 : value;
}

static void results_fill_rate(struct report_rate *to, const steady_limit *rate, const struct histogram *needed,
                              uint64_t over, double share) {
    to->rate = *rate;
    for (size_t i = 0; i < REPORT_QUANTILES; i++)
        to->needed[i] = results_quantile(needed, over,
                                         results_shares[i] > 0 ? results_shares[i]
                                         : share > 0           ? share
                                                               : 1);
    if (needed != NULL) histogram_each(needed, results_add_bin, to);
    to->bins[REPORT_BINS - 1] += over;
}

/* ---- Keys ---- */

/* What the entries of a limit tell. */
struct tally {
    uint64_t keys, keys_denied, by_fallback;
    struct histogram *needed;
    uint64_t over;
    uint32_t *denied; /* of each denied key */
    size_t n_denied, room;
    const struct keys_entry *top[REPORT_TOP], *changed[REPORT_TOP];
    size_t n_top, n_changed;
    uint64_t keys_changed, newly_hit, freed;
};

static const struct keys_denial *results_denial(const struct engine_side *side, const struct keys_entry *entry) {
    /* keys_denial makes none if there is one */
    return entry->denial == KEYS_NONE ? NULL : keys_denial(side->keys, (struct keys_entry *)entry);
}

/* Equal counts are sorted by key, so that the order of lines of one moment does not show. */
static bool results_is_before(const struct engine_side *side, const struct keys_entry *a, uint32_t a_number,
                              const struct keys_entry *b, uint32_t b_number) {
    const struct rules_text left = keys_text(side->keys, a), right = keys_text(side->keys, b);
    if (a_number != b_number) return a_number > b_number;
    const int order = memcmp(left.bytes, right.bytes, left.len < right.len ? left.len : right.len);
    return order != 0 ? order < 0 : left.len < right.len;
}

/* Keeps the entries with the highest numbers. */
static void results_keep(const struct engine_side *side, const struct keys_entry **top, size_t *n,
                         const struct keys_entry *entry, uint32_t (*number)(const struct keys_denial *)) {
    const uint32_t own = number(results_denial(side, entry));
    size_t at = *n;
    while (at > 0 && results_is_before(side, entry, own, top[at - 1], number(results_denial(side, top[at - 1]))))
        at--;
    if (at == REPORT_TOP) return;
    if (*n < REPORT_TOP) ++*n;
    for (size_t i = *n - 1; i > at; i--)
        top[i] = top[i - 1];
    top[at] = entry;
}

static uint32_t results_denied(const struct keys_denial *denial) { return denial->denied; }
static uint32_t results_changed(const struct keys_denial *denial) { return denial->changed; }

static bool results_tally_entry(const struct engine_side *side, struct tally *tally, const struct keys_entry *entry) {
    const struct keys_denial *denial = results_denial(side, entry);
    if (denial != NULL && denial->changed > 0) {
        tally->keys_changed++;
        results_keep(side, tally->changed, &tally->n_changed, entry, results_changed);
    }
    if (denial != NULL) {
        tally->newly_hit += denial->against > 0 && denial->denied == 0;
        tally->freed += denial->against == 0 && denial->denied > 0;
    }
    if (entry->requests == 0) return true;
    tally->keys++;
    const struct rules_text key = keys_text(side->keys, entry);
    tally->by_fallback += key.len > 0 && key.bytes[0] == '+'; /* match_make_fallback */
    if (entry->highest == KEYS_OVER)
        tally->over++;
    else
        histogram_add(tally->needed, entry->highest);
    if (denial == NULL || denial->denied == 0) return true;
    tally->keys_denied++;
    results_keep(side, tally->top, &tally->n_top, entry, results_denied);
    if (tally->n_denied == tally->room) {
        const size_t room = tally->room > 0 ? 2 * tally->room : 256;
        uint32_t *denied = realloc(tally->denied, room * sizeof *denied);
        if (denied == NULL) return false;
        tally->denied = denied;
        tally->room = room;
    }
    tally->denied[tally->n_denied++] = denial->denied;
    return true;
}

/* NULL: out of memory. */
static struct tally *results_tally(const struct engine_side *side) {
    struct tally *tallies = calloc(side->n_limits + 1, sizeof *tallies);
    bool done = tallies != NULL;
    for (size_t i = 0; i < side->n_limits && done; i++) {
        tallies[i].needed = calloc(1, sizeof *tallies[i].needed);
        done = tallies[i].needed != NULL;
    }
    for (uint32_t id = 0; id < keys_end(side->keys) && done; id++) {
        const struct keys_entry *entry = keys_at(side->keys, id);
        if (entry->limit < side->n_limits && !entry->shared)
            done = results_tally_entry(side, &tallies[entry->limit], entry);
    }
    if (done || tallies == NULL) return tallies;
    for (size_t i = 0; i < side->n_limits; i++) {
        free(tallies[i].needed);
        free(tallies[i].denied);
    }
    free(tallies);
    return NULL;
}

static void results_free_tally(struct tally *tallies, const struct engine_side *side) {
    for (size_t i = 0; tallies != NULL && i < side->n_limits; i++) {
        free(tallies[i].needed);
        free(tallies[i].denied);
    }
    free(tallies);
}

static int results_compare_counts(const void *a, const void *b) {
    const uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? 1 : left > right ? -1 : 0;
}

/* How many keys, most denied first, have half of the denied requests. */
static uint64_t results_half(struct tally *tally, uint64_t denied) {
    uint64_t sum = 0, n = 0;
    if (tally->n_denied > 0) qsort(tally->denied, tally->n_denied, sizeof *tally->denied, results_compare_counts);
    while (2 * sum < denied && n < tally->n_denied)
        sum += tally->denied[n++];
    return n;
}

/* ---- Limits ---- */

/* Without those that the log does not tell. */
static void results_fill_statuses(struct results *results, struct report_list *list, const uint32_t *counts) {
    bool used[ENGINE_STATUSES] = {true};
    for (list->n = 0; list->n < REPORT_TOP; list->n++) {
        struct report_count *count = &list->items[list->n];
        size_t most = 0;
        for (size_t i = 0; i < ENGINE_STATUSES; i++)
            if (!used[i] && (used[most] || counts[i] > counts[most])) most = i;
        if (used[most] || counts[most] == 0) return;
        used[most] = true;
        char text[8];
        const int len = snprintf(text, sizeof text, "%zu", most);
        *count = (struct report_count){.name = results_text(results, (struct rules_text){text, (size_t)len}),
                                       .n = counts[most]};
    }
}

static void results_fill_list(struct results *results, struct report_list *list, const struct heavy *heavy) {
    struct heavy_item items[REPORT_TOP];
    uint64_t error;
    if (heavy == NULL) return;
    list->n = heavy_list(heavy, items, REPORT_TOP, &error);
    for (size_t i = 0; i < list->n; i++)
        list->items[i] =
            (struct report_count){.name = results_text(results, items[i].text), .n = items[i].n, .error = error};
}

static struct report_text results_key(struct results *results, const struct engine *engine,
                                      const struct keys_entry *entry) {
    char memory[ENGINE_KEY_MAX];
    return results_text(results, engine_shown_key(engine, keys_text(engine->sides[0].keys, entry), memory));
}

static void results_fill_keys(struct results *results, const struct engine *engine, struct report_limit *to,
                              struct tally *tally) {
    const struct engine_side *side = &engine->sides[0];
    to->keys = tally->keys;
    to->keys_denied = tally->keys_denied;
    to->half_of_denied = results_half(tally, to->denied);
    to->n_top = tally->n_top;
    for (size_t i = 0; i < tally->n_top; i++) {
        const struct keys_entry *entry = tally->top[i];
        const struct keys_denial *denial = results_denial(side, entry);
        to->top[i] = (struct report_key){.key = results_key(results, engine, entry),
                                         .requests = entry->requests,
                                         .denied = denial->denied,
                                         .first_denied = denial->first,
                                         .last_denied = denial->last,
                                         .needed = entry->highest == KEYS_OVER ? -1 : (int64_t)entry->highest};
    }
}

static void results_add_forgotten(void *data, int64_t value, uint64_t n) {
    struct histogram *needed = data;
    for (uint64_t i = 0; i < n; i++)
        histogram_add(needed, value);
}

/* An estimate may be over what is possible. */
static uint64_t results_at_most(uint64_t n, uint64_t most) { return n < most ? n : most; }

static void results_fill_limit(struct results *results, const struct engine *engine, struct report_limit *to,
                               const struct engine_limit *from, struct tally *tally) {
    const struct histogram *waits = from->waits;
    *to = (struct report_limit){.limit = from->limit,
                                .from_rules = !engine->options.by_name,
                                .has_verdicts = !engine->options.no_verdicts,
                                .requests = from->requests,
                                .allowed = from->allowed,
                                .denied = from->denied,
                                .blocked = from->blocked,
                                .never = from->never,
                                .other = from->other,
                                .keys_merged = results_at_most(engine_merged_keys(from), from->requests_merged),
                                .requests_merged = from->requests_merged,
                                .keys_forgotten = from->keys_forgotten,
                                .wait_p50 = waits != NULL ? histogram_quantile(waits, 0.5) : -1,
                                .wait_p99 = waits != NULL ? histogram_quantile(waits, 0.99) : -1,
                                .wait_max = waits != NULL && waits->n > 0 ? waits->most : -1};
    results_fill_keys(results, engine, to, tally);
    to->by_fallback = tally->keys > 0 && tally->by_fallback == tally->keys && from->keys_forgotten == 0;
    to->keys += from->keys_forgotten;
    memcpy(to->timeline, from->timeline, sizeof to->timeline);
    results_fill_statuses(results, &to->by_status, from->by_status);
    results_fill_list(results, &to->by_path, from->by_path);
    results_fill_list(results, &to->by_agent, from->by_agent);
    if (from->forgotten != NULL) histogram_each(from->forgotten, results_add_forgotten, tally->needed);
    if (!engine->options.no_verdicts)
        results_fill_rate(&to->needed, &from->limit->rates[0], tally->needed, tally->over + from->forgotten_over,
                          results->report.share);
}

static void results_fill_against(struct results *results, const struct engine *engine, struct report_limit *to,
                                 const struct engine_limit *from, const struct tally *tally,
                                 const struct tally *theirs) {
    const struct engine_side *side = &engine->sides[0];
    to->has_against = true;
    to->against.missing = from->twin == SIZE_MAX;
    if (to->against.missing) return;
    const struct engine_limit *twin = &engine->sides[1].limits[from->twin];
    to->against.limit = twin->limit->rates[0];
    to->against.denied = twin->denied;
    to->against.keys_denied = theirs[from->twin].keys_denied;
    to->against.keys_changed = tally->keys_changed;
    to->against.newly_hit = tally->newly_hit;
    to->against.freed = tally->freed;
    to->against.n_changes = tally->n_changed;
    for (size_t i = 0; i < tally->n_changed; i++) {
        const struct keys_entry *entry = tally->changed[i];
        const struct keys_denial *denial = results_denial(side, entry);
        to->against.changes[i] = (struct report_change){.key = results_key(results, engine, entry),
                                                        .requests = entry->requests,
                                                        .denied = denial->denied,
                                                        .denied_against = denial->against,
                                                        .first_changed = denial->first_changed};
    }
}

/* ---- Suggestions and the heat map ---- */

/* A limit of the report with its number in the engine. */
struct suggested {
    struct series_need *needs; /* of each limit of the engine */
    struct series_trial *trials;
    steady_limit rates[SUGGEST_RATES];
    size_t n_rates;
};

/* The smallest well-rounded capacity that denies at most 1-P of the keys something. False: there is none. */
static bool results_offer(struct report_choice *choice, const steady_limit *rate, int64_t needed, int64_t block) {
    steady_message why;
    *choice = (struct report_choice){.limit = *rate};
    if (needed < 0) return false;
    choice->limit.max_capacity = suggest_round_up(needed);
    choice->limit.block_duration = block;
    return steady_limit_check(&choice->limit, &why) == 0;
}

/* The rates of the ladder that tell something, and a choice for each. */
static void results_fill_ladder(struct report_limit *to, const struct series_need *need,
                                const struct suggested *suggested, const struct results_options *options,
                                int64_t span) {
    int64_t needed[SUGGEST_RATES];
    size_t from = 0, end = suggested->n_rates;
    for (size_t r = 0; r < suggested->n_rates; r++)
        needed[r] = results_quantile(need->needed[r], need->over[r], options->share);
    if (options->n_rates == 0) suggest_window(needed, suggested->n_rates, REPORT_LADDER, &from, &end);
    const int64_t block = to->has_verdicts ? to->limit->rates[0].block_duration : 0;
    for (size_t r = from; r < end; r++) {
        results_fill_rate(&to->ladder[to->n_ladder++], &suggested->rates[r], need->needed[r], need->over[r],
                          options->share);
        if (results_offer(&to->choices[to->n_choices], &suggested->rates[r], needed[r], block)) to->n_choices++;
    }
    const size_t best = suggest_choose(to->choices, to->n_choices, span);
    if (best != SIZE_MAX) to->choices[best].suggested = true;
}

static const steady_limit *results_suggested(const struct report_limit *limit) {
    for (size_t i = 0; i < limit->n_choices; i++)
        if (limit->choices[i].suggested) return &limit->choices[i].limit;
    return NULL;
}

static void results_add_row(struct series_trial *trial, const steady_limit *rate, const int64_t *capacities, size_t n) {
    struct series_row *row = &trial->rows[trial->n_rows];
    steady_limit limit = *rate;
    steady_message why;
    limit.max_capacity = 1;
    *row = (struct series_row){.n = n};
    if (steady__limit_rate(&row->rate, &limit, &why) != 0) row->rate = (struct steady__rate){1, 1, 1, 0};
    memcpy(row->capacities, capacities, n * sizeof *capacities);
    trial->n_rows++;
}

/* What the limits of the report want to try: the rows of the heat map, then the choices. */
static void results_plan(struct report_limit *to, struct series_trial *trial, bool heat) {
    const steady_limit *suggested = results_suggested(to);
    const steady_limit *centre = to->has_verdicts ? &to->limit->rates[0] : suggested;
    if (heat && centre != NULL) {
        suggest_grid(&to->heat, centre);
        to->has_heat = true;
        for (size_t r = 0; r < to->heat.n_rates; r++) {
            to->heat.rates[r].block_duration = centre->block_duration;
            results_add_row(trial, &to->heat.rates[r], to->heat.capacities, to->heat.n_capacities);
        }
        if (!to->has_verdicts) to->heat.rate_at = to->heat.capacity_at = SIZE_MAX;
    }
    for (size_t i = 0; i < to->n_choices; i++)
        results_add_row(trial, &to->choices[i].limit, &to->choices[i].limit.max_capacity, 1);
}

static void results_take(struct report_limit *to, const struct series_trial *trial) {
    const size_t n_heat = to->has_heat ? to->heat.n_rates : 0;
    for (size_t r = 0; r < trial->n_rows; r++) {
        const struct series_row *row = &trial->rows[r];
        if (r >= n_heat) {
            to->choices[r - n_heat].keys_denied = row->keys_denied[0];
            to->choices[r - n_heat].requests_denied = row->requests_denied[0];
            continue;
        }
        for (size_t c = 0; c < row->n; c++) {
            to->heat.keys_denied[r][c] = row->keys_denied[c];
            to->heat.requests_denied[r][c] = row->requests_denied[c];
        }
    }
}

static bool results_find_needed(struct suggested *suggested, const struct results_options *options, size_t n_limits,
                                struct series *series) {
    suggested->n_rates = options->n_rates > 0 ? options->n_rates : suggest_rates(suggested->rates);
    if (options->n_rates > 0) memcpy(suggested->rates, options->rates, options->n_rates * sizeof *options->rates);
    for (size_t i = 0; i < n_limits; i++) {
        suggested->needs[i].n_rates = suggested->n_rates;
        for (size_t r = 0; r < suggested->n_rates; r++) {
            struct steady__rate rate;
            steady_message why;
            if (steady__limit_rate(&rate, &suggested->rates[r], &why) != 0) return false;
            suggested->needs[i].rates[r] = needed_rate(&rate);
        }
    }
    return series_find_needed(series, suggested->needs, n_limits);
}

/* numbers: the limit of the engine for each limit of the report. */
static bool results_fill_series(struct results *results, const struct engine *engine, struct series *series,
                                const struct results_options *options, const size_t *numbers) {
    struct report *report = &results->report;
    const size_t n = engine->sides[0].n_limits;
    struct suggested suggested = {.needs = calloc(n + 1, sizeof *suggested.needs),
                                  .trials = calloc(n + 1, sizeof *suggested.trials)};
    bool done = suggested.needs != NULL && suggested.trials != NULL;
    const int64_t span = engine->last > engine->first ? engine->last - engine->first : 0;
    if (done && options->share > 0) {
        done = results_find_needed(&suggested, options, n, series);
        for (size_t i = 0; i < report->n_limits && done; i++)
            if (report->limits[i].requests > 0)
                results_fill_ladder(&report->limits[i], &suggested.needs[numbers[i]], &suggested, options, span);
    }
    for (size_t i = 0; i < report->n_limits && done; i++)
        results_plan(&report->limits[i], &suggested.trials[numbers[i]], options->heat);
    done = done && series_try(series, suggested.trials, n);
    for (size_t i = 0; i < report->n_limits && done; i++)
        results_take(&report->limits[i], &suggested.trials[numbers[i]]);
    if (suggested.needs != NULL) series_free_needed(suggested.needs, n);
    free(suggested.needs);
    free(suggested.trials);
    if (done && options->share > 0)
        results_note(results, "The suggested limit lets one key send the fewest requests in a minute, of all listed "
                              "limits that refill within the time of the log.");
    return done;
}

/* ---- The whole ---- */

static void results_note_engine(struct results *results, const struct engine *engine) {
    const struct engine_side *side = &engine->sides[0];
    const double window = (double)reorder_window(engine->reorder) / 1e6;
    bool after = false, tiers = false, descriptors = false;
    for (size_t i = 0; i < side->n_limits; i++) {
        descriptors = descriptors || side->limits[i].limit->by_descriptor;
        after = after || side->limits[i].limit->cost == RULES_COST_AFTER;
        tiers = tiers || side->limits[i].limit->n_rates > 1;
    }
    if (after)
        results_note(results,
                     "A log does not tell the cost of a limit with cost: after. Such a limit denies nothing here.");
    if (tiers && engine->has_parts)
        results_note(results, "A decision log does not tell tiers. The usual rate of each limit is used.");
    if (descriptors && !engine->has_parts)
        results_note(results, "Only a decision log has descriptors of Envoy. Limits on them count for no other log.");
    if (engine->refused > 0) results_note(results, "The reason of the first refusal: %s.", engine->refusal);
    if (engine->unknown_parts > 0)
        results_note(results,
                     "Some parts of decisions have a limit that the rules do not have (%llu). They do not count.",
                     (unsigned long long)engine->unknown_parts);
    if (engine->waited > 0)
        results_note(results, "Some allowed requests have to wait, because a limit has max_ahead (%llu).",
                     (unsigned long long)engine->waited);
    if (engine->moved > 0)
        results_note(results,
                     "Some requests took longer than 60 s (%llu). They count up to so much later than they came.",
                     (unsigned long long)engine->moved);
    if (window < 60)
        results_note(results,
                     "Waiting requests took all their memory, so lines more than %.0f s out of order are late. Raise "
                     "--memory to avoid it.",
                     window);
    if (engine->lost) results_note(results, "There was not enough memory to count all details.");
}

bool results_fill(struct results *results, const struct engine *engine, struct series *series,
                  const struct results_options *options) {
    struct report *report = &results->report;
    const struct engine_side *side = &engine->sides[0];
    struct tally *tallies = results_tally(side), *theirs = NULL;
    size_t *numbers = memory_take(results->memory, (side->n_limits + 1) * sizeof *numbers);
    bool done = tallies != NULL && numbers != NULL;
    if (engine->n_sides > 1) theirs = results_tally(&engine->sides[1]);
    report->limits = memory_take(results->memory, (side->n_limits + 1) * sizeof *report->limits);
    done = done && report->limits != NULL && (engine->n_sides == 1 || theirs != NULL);
    report->share = options->share;
    report->late_lines = engine->late;
    report->first = engine->first;
    report->last = engine->last;
    report->interval = engine->interval;
    report->begin = engine->begin;
    report->n_intervals = engine->n_intervals;
    report->whole_seconds = engine->whole_seconds;
    report->spread = engine->options.spread;
    report->begun_known = engine->begun_known;
    report->at_ends = engine->at_ends;
    report->requests = engine->requests;
    report->denied = engine->denied;
    report->exempt = engine->exempt;
    report->unmatched = engine->unmatched;
    report->refused = engine->refused;
    report->allowed = engine->requests - engine->denied - engine->refused;
    report->without_address = engine->without_address;
    report->hashed = engine->options.hash_keys;
    for (size_t i = 0; i < side->n_limits && done; i++) {
        const struct engine_limit *from = &side->limits[i];
        /* The descriptors of Envoy are in no log. Of a decision log without rules, only its own limits count. */
        const bool unused = from->limit->by_descriptor || (engine->options.by_name && engine->has_parts);
        if (from->requests == 0 && unused) continue;
        struct report_limit *to = &report->limits[report->n_limits];
        numbers[report->n_limits++] = i;
        results_fill_limit(results, engine, to, from, &tallies[i]);
        if (theirs != NULL) results_fill_against(results, engine, to, from, &tallies[i], theirs);
    }
    results_note_engine(results, engine);
    if (done && series != NULL && !results_fill_series(results, engine, series, options, numbers))
        results_note(results, "There is no suggestion and no heat map: %s.",
                     series_error(series) != NULL ? series_error(series) : "out of memory");
    results_free_tally(tallies, side);
    results_free_tally(theirs, &engine->sides[1]);
    return done;
}

void results_free(struct results *results) {
    memory_free(results->memory);
    free(results->notes);
}
