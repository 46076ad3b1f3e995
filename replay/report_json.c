/* SPDX-License-Identifier: MIT
 * The report as one JSON document. docs/reference/replay.md describes it; within a version, members are only added. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "report_words.h"

enum { VERSION = 1 };

/* ---- Values ---- */

struct report_json {
    FILE *to;
    unsigned depth;
    bool first; /* in this object or array */
};

static void report_json_text(struct report_json *j, struct rules_text text) {
    char piece[REPORT_PIECE];
    if (text.bytes == NULL) {
        fputs("null", j->to);
        return;
    }
    putc('"', j->to);
    while (report_piece(&text, piece, false)) {
        for (const char *at = piece; *at != '\0'; at++)
            fprintf(j->to, *at == '"' || *at == '\\' ? "\\%c" : "%c", *at);
    }
    putc('"', j->to);
}

static struct rules_text report_json_of(const char *text) {
    return (struct rules_text){text, text != NULL ? strlen(text) : 0};
}

/* Begins a member, or with NULL an item. */
static void report_json_begin(struct report_json *j, const char *name) {
    fprintf(j->to, "%s\n%*s", j->first ? "" : ",", (int)j->depth, "");
    j->first = false;
    if (name != NULL) fprintf(j->to, "\"%s\": ", name);
}

static void report_json_open(struct report_json *j, const char *name, char bracket) {
    report_json_begin(j, name);
    putc(bracket, j->to);
    j->depth++;
    j->first = true;
}

static void report_json_close(struct report_json *j, char bracket) {
    j->depth--;
    if (!j->first) fprintf(j->to, "\n%*s", (int)j->depth, "");
    putc(bracket, j->to);
    j->first = false;
}

static void report_json_number(struct report_json *j, const char *name, uint64_t n) {
    report_json_begin(j, name);
    fprintf(j->to, "%" PRIu64, n);
}

/* Below `least` is not known. */
static void report_json_known(struct report_json *j, const char *name, int64_t n, int64_t least) {
    report_json_begin(j, name);
    if (n < least)
        fputs("null", j->to);
    else
        fprintf(j->to, "%" PRId64, n);
}

static void report_json_bool(struct report_json *j, const char *name, bool value) {
    report_json_begin(j, name);
    fputs(value ? "true" : "false", j->to);
}

static void report_json_string(struct report_json *j, const char *name, const char *text) {
    report_json_begin(j, name);
    report_json_text(j, report_json_of(text));
}

static void report_json_time(struct report_json *j, const char *name, int64_t us) {
    char text[REPORT_SHORT];
    report_json_string(j, name, report_rfc3339(text, us));
}

/* A list of numbers on one line. */
static void report_json_numbers(struct report_json *j, const char *name, const uint64_t *all, size_t n) {
    report_json_begin(j, name);
    putc('[', j->to);
    for (size_t i = 0; i < n; i++)
        fprintf(j->to, "%s%" PRIu64, i > 0 ? ", " : "", all[i]);
    putc(']', j->to);
}

static void report_json_sentences(struct report_json *j, const char *name, const struct report_sentences *all) {
    report_json_open(j, name, '[');
    for (size_t i = 0; i < all->n; i++)
        report_json_string(j, NULL, all->texts[i]);
    report_json_close(j, ']');
}

/* The rate of a limit; with `whole` the limit. */
static void report_json_limit(struct report_json *j, const char *name, const steady_limit *limit, bool whole) {
    char text[REPORT_LIMIT];
    steady_limit shown = *limit;
    if (!whole) shown.max_capacity = shown.block_duration = 0;
    report_limit_text(&shown, text, sizeof text);
    report_json_open(j, name, '{');
    report_json_string(j, "text", text);
    report_json_number(j, "drops", (uint64_t)(limit->drops > 0 ? limit->drops : 1));
    report_json_number(j, "period_us", (uint64_t)limit->drop_recharge);
    if (whole) {
        report_json_number(j, "burst", (uint64_t)limit->max_capacity);
        report_json_number(j, "block_us", (uint64_t)limit->block_duration);
    }
    report_json_close(j, '}');
}

/* ---- The log ---- */

static void report_json_bad_lines(struct report_json *j, const struct report *report) {
    report_json_open(j, "bad", '[');
    for (size_t i = 0; i < report->n_bad; i++) {
        report_json_open(j, NULL, '{');
        report_json_string(j, "file", report->bad[i].file);
        report_json_number(j, "line", report->bad[i].line);
        report_json_string(j, "reason", report->bad[i].reason);
        report_json_string(j, "text", report->bad[i].text);
        report_json_close(j, '}');
    }
    report_json_close(j, ']');
}

static void report_json_log(struct report_json *j, const struct report *report) {
    report_json_open(j, "log", '{');
    report_json_open(j, "files", '[');
    for (size_t i = 0; i < report->n_files; i++)
        report_json_string(j, NULL, report->files[i]);
    report_json_close(j, ']');
    report_json_open(j, "unread_files", '[');
    for (size_t i = 0; i < report->n_unread; i++)
        report_json_string(j, NULL, report->unread[i]);
    report_json_close(j, ']');
    report_json_string(j, "format", report->format);
    report_json_number(j, "bytes", report->bytes);
    report_json_number(j, "lines", report->lines);
    report_json_number(j, "bad_lines", report->bad_lines);
    report_json_number(j, "other_lines", report->other_lines);
    report_json_number(j, "late_lines", report->late_lines);
    report_json_number(j, "cut_lines", report->cut_lines);
    report_json_bad_lines(j, report);
    if (report->first > report->last) {
        report_json_string(j, "first", NULL);
        report_json_string(j, "last", NULL);
    } else {
        report_json_time(j, "first", report->first);
        report_json_time(j, "last", report->last);
    }
    report_json_bool(j, "whole_seconds", report->whole_seconds);
    report_json_bool(j, "spread", report->spread);
    report_json_bool(j, "durations_subtracted", report->begun_known);
    report_json_bool(j, "partial", report->partial);
    report_json_close(j, '}');
}

static void report_json_requests(struct report_json *j, const struct report *report) {
    report_json_open(j, "requests", '{');
    report_json_number(j, "total", report->requests);
    report_json_number(j, "allowed", report->allowed);
    report_json_number(j, "denied", report->denied);
    report_json_number(j, "exempt", report->exempt);
    report_json_number(j, "unmatched", report->unmatched);
    report_json_number(j, "refused", report->refused);
    report_json_number(j, "without_address", report->without_address);
    report_json_close(j, '}');
}

/* ---- A limit ---- */

static void report_json_list(struct report_json *j, const char *name, const struct report_list *list) {
    report_json_open(j, name, '[');
    for (size_t i = 0; i < list->n; i++) {
        report_json_open(j, NULL, '{');
        report_json_begin(j, "name");
        report_json_text(j, report_view(&list->items[i].name));
        report_json_number(j, "denied", list->items[i].n);
        report_json_number(j, "error", list->items[i].error);
        report_json_close(j, '}');
    }
    report_json_close(j, ']');
}

static void report_json_keys(struct report_json *j, const struct report_limit *limit) {
    report_json_open(j, "top_denied", '[');
    for (size_t i = 0; i < limit->n_top; i++) {
        const struct report_key *key = &limit->top[i];
        report_json_open(j, NULL, '{');
        report_json_begin(j, "key");
        report_json_text(j, report_view(&key->key));
        report_json_number(j, "requests", key->requests);
        report_json_number(j, "denied", key->denied);
        report_json_time(j, "first_denied", key->first_denied);
        report_json_time(j, "last_denied", key->last_denied);
        report_json_known(j, "needed", key->needed, 1);
        report_json_close(j, '}');
    }
    report_json_close(j, ']');
}

static void report_json_timeline(struct report_json *j, const struct report *report, const struct report_limit *limit) {
    uint64_t requests[REPORT_TIMELINE], denied[REPORT_TIMELINE];
    for (size_t i = 0; i < report->n_intervals; i++) {
        requests[i] = limit->timeline[i].requests;
        denied[i] = limit->timeline[i].denied;
    }
    report_json_open(j, "timeline", '{');
    report_json_time(j, "begin", report->begin);
    report_json_number(j, "interval_us", (uint64_t)report->interval);
    report_json_numbers(j, "requests", requests, report->n_intervals);
    report_json_numbers(j, "denied", denied, report->n_intervals);
    report_json_close(j, '}');
}

static void report_json_needed(struct report_json *j, const struct report *report, const struct report_rate *rate) {
    static const char *const names[] = {"p50", "p90", "p99", "p99_9", "max"};
    size_t n = REPORT_BINS;
    report_json_limit(j, "rate", &rate->rate, false);
    report_json_open(j, "needed", '{');
    for (size_t i = 0; i < 5; i++)
        report_json_known(j, names[i], rate->needed[i], 1);
    report_json_known(j, "suggest", report->share > 0 ? rate->needed[5] : 0, 1);
    report_json_close(j, '}');
    while (n > 0 && rate->bins[n - 1] == 0)
        n--;
    report_json_numbers(j, "bins", rate->bins, n);
}

static void report_json_heat(struct report_json *j, const struct report_heat *heat) {
    uint64_t capacities[REPORT_GRID];
    report_json_open(j, "grid", '{');
    report_json_open(j, "rates", '[');
    for (size_t i = 0; i < heat->n_rates; i++)
        report_json_limit(j, NULL, &heat->rates[i], false);
    report_json_close(j, ']');
    for (size_t i = 0; i < heat->n_capacities; i++)
        capacities[i] = (uint64_t)heat->capacities[i];
    report_json_numbers(j, "bursts", capacities, heat->n_capacities);
    report_json_open(j, "keys_denied", '[');
    for (size_t i = 0; i < heat->n_rates; i++)
        report_json_numbers(j, NULL, heat->keys_denied[i], heat->n_capacities);
    report_json_close(j, ']');
    report_json_open(j, "requests_denied", '[');
    for (size_t i = 0; i < heat->n_rates; i++)
        report_json_numbers(j, NULL, heat->requests_denied[i], heat->n_capacities);
    report_json_close(j, ']');
    const bool known = heat->rate_at != SIZE_MAX && heat->capacity_at != SIZE_MAX;
    report_json_known(j, "rate_at", known ? (int64_t)heat->rate_at : -1, 0);
    report_json_known(j, "burst_at", known ? (int64_t)heat->capacity_at : -1, 0);
    report_json_close(j, '}');
}

static void report_json_choices(struct report_json *j, const struct report_limit *limit) {
    report_json_open(j, "choices", '[');
    for (size_t i = 0; i < limit->n_choices; i++) {
        const struct report_choice *choice = &limit->choices[i];
        report_json_open(j, NULL, '{');
        report_json_limit(j, "limit", &choice->limit, true);
        report_json_number(j, "keys_denied", choice->keys_denied);
        report_json_number(j, "requests_denied", choice->requests_denied);
        report_json_bool(j, "suggested", choice->suggested);
        report_json_close(j, '}');
    }
    report_json_close(j, ']');
}

static void report_json_against(struct report_json *j, const struct report_against *against) {
    if (against->missing) {
        report_json_string(j, "against", NULL);
        return;
    }
    report_json_open(j, "against", '{');
    report_json_limit(j, "limit", &against->limit, true);
    report_json_number(j, "denied", against->denied);
    report_json_number(j, "keys_denied", against->keys_denied);
    report_json_number(j, "keys_changed", against->keys_changed);
    report_json_number(j, "newly_denied", against->newly_hit);
    report_json_number(j, "no_longer_denied", against->freed);
    report_json_open(j, "changes", '[');
    for (size_t i = 0; i < against->n_changes; i++) {
        const struct report_change *change = &against->changes[i];
        report_json_open(j, NULL, '{');
        report_json_begin(j, "key");
        report_json_text(j, report_view(&change->key));
        report_json_number(j, "requests", change->requests);
        report_json_number(j, "denied", change->denied);
        report_json_number(j, "denied_against", change->denied_against);
        report_json_time(j, "first_changed", change->first_changed);
        report_json_close(j, '}');
    }
    report_json_close(j, ']');
    report_json_close(j, '}');
}

static void report_json_verdicts(struct report_json *j, const struct report_limit *limit) {
    report_json_number(j, "requests", limit->requests);
    report_json_number(j, "keys", limit->keys);
    if (limit->has_verdicts) {
        report_json_number(j, "allowed", limit->allowed);
        report_json_number(j, "denied", limit->denied);
        report_json_number(j, "blocked", limit->blocked);
        report_json_number(j, "never", limit->never);
        report_json_number(j, "other_limit_denied", limit->other);
        report_json_number(j, "keys_denied", limit->keys_denied);
        report_json_number(j, "keys_with_half_of_denied", limit->half_of_denied);
    } else {
        static const char *const names[] = {
            "allowed", "denied", "blocked", "never", "other_limit_denied", "keys_denied", "keys_with_half_of_denied"};
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
            report_json_string(j, names[i], NULL);
    }
    report_json_number(j, "keys_merged", limit->keys_merged);
    report_json_number(j, "requests_merged", limit->requests_merged);
    report_json_number(j, "keys_forgotten", limit->keys_forgotten);
    report_json_open(j, "wait_us", '{');
    report_json_known(j, "p50", limit->has_verdicts ? limit->wait_p50 : -1, 0);
    report_json_known(j, "p99", limit->has_verdicts ? limit->wait_p99 : -1, 0);
    report_json_known(j, "max", limit->has_verdicts ? limit->wait_max : -1, 0);
    report_json_close(j, '}');
}

static void report_json_suggestion(struct report_json *j, const struct report *report,
                                   const struct report_limit *limit) {
    steady_limit suggested;
    if (!report_suggestion(report, limit, &suggested)) {
        report_json_string(j, "suggestion", NULL);
        return;
    }
    char *rule = report_rule_text(limit->limit, &suggested);
    report_json_open(j, "suggestion", '{');
    report_json_limit(j, "limit", &suggested, true);
    report_json_string(j, "rule", report_rule_is_whole(limit->limit) ? rule : NULL);
    report_json_close(j, '}');
    free(rule);
}

static void report_json_one(struct report_json *j, const struct report *report, const struct report_limit *limit) {
    const struct rules_limit *rule = limit->limit;
    struct report_sentences sentences;
    char *key = report_key_text(rule);
    report_json_open(j, NULL, '{');
    report_json_string(j, "name", report_name(limit));
    report_json_string(j, "file", limit->from_rules ? rule->file : NULL);
    report_json_known(j, "line", limit->from_rules ? rule->line : 0, 1);
    report_json_string(j, "key", key);
    report_json_bool(j, "shadow", rule->shadow);
    if (limit->has_verdicts && rule->n_rates > 0)
        report_json_limit(j, "limit", &rule->rates[0], true);
    else
        report_json_string(j, "limit", NULL);
    free(key);
    report_json_verdicts(j, limit);
    report_json_list(j, "by_status", &limit->by_status);
    report_json_list(j, "by_path", &limit->by_path);
    report_json_list(j, "by_user_agent", &limit->by_agent);
    report_json_keys(j, limit);
    report_json_timeline(j, report, limit);
    report_json_open(j, "at_this_rate", '{');
    if (limit->has_verdicts) report_json_needed(j, report, &limit->needed);
    report_json_close(j, '}');
    report_json_open(j, "rates", '[');
    for (size_t i = 0; i < limit->n_ladder; i++) {
        report_json_open(j, NULL, '{');
        report_json_needed(j, report, &limit->ladder[i]);
        report_json_close(j, '}');
    }
    report_json_close(j, ']');
    if (limit->has_heat)
        report_json_heat(j, &limit->heat);
    else
        report_json_string(j, "grid", NULL);
    report_json_choices(j, limit);
    report_json_suggestion(j, report, limit);
    if (limit->has_against)
        report_json_against(j, &limit->against);
    else
        report_json_string(j, "against", NULL);
    report_findings(report, limit, &sentences);
    report_json_sentences(j, "findings", &sentences);
    report_notes(report, limit, &sentences);
    report_json_sentences(j, "notes", &sentences);
    report_json_close(j, '}');
}

bool report_write_json(const struct report *report, FILE *to) {
    struct report_json json = {.to = to, .depth = 1, .first = true};
    struct report_sentences notes;
    putc('{', to);
    report_json_number(&json, "version", VERSION);
    report_json_string(&json, "rules_file", report->rules_file);
    report_json_string(&json, "against_file", report->against_file);
    report_json_bool(&json, "keys_hashed", report->hashed);
    report_json_begin(&json, "suggest_share");
    if (report->share > 0)
        fprintf(to, "%.10g", report->share);
    else
        fputs("null", to);
    report_json_log(&json, report);
    report_json_requests(&json, report);
    report_notes(report, NULL, &notes);
    report_json_sentences(&json, "notes", &notes);
    report_json_open(&json, "limits", '[');
    for (size_t i = 0; i < report->n_limits; i++)
        report_json_one(&json, report, &report->limits[i]);
    report_json_close(&json, ']');
    fputs("\n}\n", to);
    return fflush(to) == 0 && ferror(to) == 0;
}
