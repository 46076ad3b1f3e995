/* SPDX-License-Identifier: MIT
 * The results of decisions and settlements, as text for people and as JSON for scripts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* ---- Pieces of text ---- */

static void describe_after(struct text *text, const char *before, steady_us wait) {
    text_add(text, "%s", before);
    text_add_wait(text, wait);
}

/* The amount that has to fit. */
static int64_t describe_asked(const struct decision *d) {
    return d->options->at_least > 0 ? d->options->at_least : d->options->amount;
}

static bool describe_waits(const struct decision *d) { return d->options->max_wait > 0; }

/* Adds the time to wait, and for what. */
static void describe_outlook(struct text *text, const struct decision *d, const steady_part_result *r) {
    if (r->blocked_for > 0) describe_after(text, r->success ? "blocked for " : "for ", r->blocked_for);
    if (d->asks_again) {
        text_add(text, "; then it asks again");
    } else if (r->retry_after < 0) {
        text_add(text, "%s%" PRId64 " drops never fit", r->blocked_for > 0 ? "; " : "", describe_asked(d));
        if (describe_waits(d)) describe_after(text, " within ", d->options->max_wait);
    } else if (!r->success && r->retry_after != r->blocked_for) {
        describe_after(text, r->blocked_for > 0 ? "; retry in " : "retry in ", r->retry_after);
    } else if (r->success && r->blocked_for == 0 && r->level > 0) {
        describe_after(text, "next drop in ", r->until_next_drop);
    } else if (r->success && r->blocked_for == 0) {
        text_add(text, "empty");
    }
}

/* The named bucket of a result. */
static steady_part_result describe_named(const steady_result *r) {
    return (steady_part_result){.success = r->success,
                                .answered = true,
                                .granted = r->granted,
                                .level = r->level,
                                .until_next_drop = r->until_next_drop,
                                .blocked_for = r->blocked_for,
                                .retry_after = r->retry_after};
}

static void describe_verdict(struct text *text, const struct decision *d) {
    static const char *const words[][3] = {[CONSUME] = {"allowed", "denied", "blocked"},
                                           [PEEK] = {"free", "full", "blocked"},
                                           [RESET] = {"reset"},
                                           [WAIT] = {"allowed", "denied", "blocked"},
                                           [RESERVE] = {"allowed", "denied", "blocked"}};
    const steady_result *r = d->result;
    const char *word = words[d->verb][r->success ? 0 : r->blocked_for > 0 ? 2 : 1];
    if (r->must_wait > 0) {
        describe_after(text, "wait ", r->must_wait);
        text_add(text, "  ");
    }
    text_add(text, "%-7s  ", d->options->charge && r->success ? "charged" : word);
    text_add_key(text, d->options->operands[0]);
}

/* Says how many drops went in, if this can be another number than --amount. */
static void describe_granted(struct text *text, const struct decision *d) {
    const steady_result *r = d->result;
    const bool may_differ = d->options->at_least > 0 || (d->options->charge && r->granted != d->options->amount);
    if (!may_differ || !r->success || r->source == STEADY_FROM_POLICY) return;
    text_add(text, "  granted %" PRId64 " of %" PRId64, r->granted, d->options->amount);
}

static void describe_policy(struct text *text, const struct decision *d) {
    const steady_part_result named = describe_named(d->result);
    text_add(text, "  ");
    if (!d->result->success) describe_outlook(text, d, &named);
    text_add(text, "%sby --on-error\n", d->result->success ? "" : "  ");
}

static const char *describe_local(const steady_result *r) {
    return r->source == STEADY_FROM_LOCAL ? "  by --on-error, from a local bucket" : "";
}

/* ---- Several limits as text ---- */

/* The widths of the columns. */
struct columns {
    int name, level;
};

static int describe_level_width(int64_t level, int64_t capacity) {
    return snprintf(NULL, 0, "%" PRId64 "/%" PRId64, level, capacity);
}

static void describe_widen(struct columns *columns, int name, int level) {
    if (name > columns->name) columns->name = name;
    if (level > columns->level) columns->level = level;
}

static void describe_level(struct text *text, int width, int64_t level, int64_t capacity) {
    const int own = describe_level_width(level, capacity);
    text_add_bar(text, level, capacity);
    text_add(text, " %" PRId64 "/%" PRId64 "%*s  ", level, capacity, width > own ? width - own : 0, "");
}

static void describe_limits(struct text *text, const struct decision *d) {
    const steady_part_result *parts = d->result->parts;
    struct decision one = *d;
    struct columns columns = {0, 0};
    one.asks_again = false;
    for (size_t i = 0; i < d->result->n_parts; i++)
        describe_widen(&columns, (int)strlen(parts[i].name),
                       describe_level_width(parts[i].level, d->limits->all[i].max_capacity));
    for (size_t i = 0; i < d->result->n_parts; i++) {
        text_add(text, "  %-*s  ", columns.name, parts[i].name);
        if (parts[i].answered) {
            describe_level(text, columns.level, parts[i].level, d->limits->all[i].max_capacity);
            describe_outlook(text, &one, &parts[i]);
        } else {
            text_add(text, "not asked");
        }
        text_add(text, "\n");
    }
}

/* The verdict, and a line for each limit. */
static void describe_several(struct text *text, const struct decision *d) {
    const steady_result *r = d->result;
    const steady_part_result named = describe_named(r);
    if (!r->success) {
        text_add(text, "  by %s  ", r->parts[r->part].name);
        describe_outlook(text, d, &named);
    }
    text_add(text, "%s\n", describe_local(r));
    describe_limits(text, d);
}

void describe(struct text *text, const struct decision *d) {
    const steady_result *r = d->result;
    const steady_part_result named = describe_named(r);
    describe_verdict(text, d);
    describe_granted(text, d);
    if (r->source == STEADY_FROM_POLICY) {
        describe_policy(text, d);
    } else if (d->limits->n > 1) {
        describe_several(text, d);
    } else {
        text_add(text, "  ");
        if (d->verb != RESET) describe_level(text, 0, r->level, d->limits->all[0].max_capacity);
        describe_outlook(text, d, &named);
        text_add(text, "%s\n", describe_local(r));
    }
}

/* ---- JSON ---- */

static void describe_json_time(struct text *text, const char *name, bool known, steady_us us) {
    text_add(text, ",\"%s\":", name);
    if (known)
        text_add_seconds(text, us);
    else
        text_add(text, "null");
}

static void describe_json_drops(struct text *text, const char *name, bool known, int64_t drops) {
    text_add(text, ",\"%s\":", name);
    if (known)
        text_add(text, "%" PRId64, drops);
    else
        text_add(text, "null");
}

/* A consume with options, or with several limits, has more members than a plain one. */
static bool describe_is_long(const struct decision *d) {
    const struct options *options = d->options;
    if (d->verb == WAIT || d->verb == RESERVE) return true;
    return d->verb == CONSUME &&
           (d->limits->n > 1 || options->max_wait >= 0 || options->at_least > 0 || options->charge);
}

static void describe_json_limits(struct text *text, const struct decision *d) {
    const steady_part_result *parts = d->result->parts;
    if (parts == NULL) {
        text_add(text, ",\"limit\":null,\"limits\":null");
        return;
    }
    text_add(text, ",\"limit\":");
    text_add_json(text, parts[d->result->part].name);
    text_add(text, ",\"limits\":[");
    for (size_t i = 0; i < d->result->n_parts; i++) {
        const steady_part_result *part = &parts[i];
        text_add(text, "%s{\"name\":", i > 0 ? "," : "");
        text_add_json(text, part->name);
        const bool known = part->answered;
        text_add(text, ",\"success\":%s", !known ? "null" : part->success ? "true" : "false");
        if (describe_is_long(d)) describe_json_drops(text, "granted", true, part->granted);
        describe_json_drops(text, "level", known, part->level);
        describe_json_time(text, "until_next_drop", known, part->until_next_drop);
        describe_json_time(text, "blocked_for", known, part->blocked_for);
        describe_json_time(text, "retry_after", known && part->retry_after >= 0, part->retry_after);
        text_add(text, "}");
    }
    text_add(text, "]");
}

static void describe_json_end(struct text *text, const steady_result *r) {
    static const char *const sources[] = {"null", "\"store\"", "\"policy\"", "\"local\"", "\"memory\"", "\"lease\""};
    if (r->error != 0)
        text_add(text, ",\"error\":\"%s\"", steady_error_name(r->error));
    else
        text_add(text, ",\"error\":null");
    text_add(text, ",\"source\":%s", sources[r->source]);
}

/* Unknown values are null. Without an answer all values but the error are unknown. If a policy answered, the numbers
 * are unknown, except must_wait, and retry_after of a denial. */
void describe_json(struct text *text, const struct decision *d) {
    const steady_result *r = d->result;
    const bool answered = r->source != STEADY_FROM_NOWHERE, is_long = describe_is_long(d);
    const bool known = answered && r->source != STEADY_FROM_POLICY;
    const bool has_limit = options_have_limit(d->options);
    text_add(text, "{");
    if (is_long && answered) {
        text_add(text, "\"must_wait\":");
        text_add_seconds(text, r->must_wait);
        text_add(text, ",");
    } else if (is_long) {
        text_add(text, "\"must_wait\":null,");
    }
    text_add(text, "\"success\":%s", !answered ? "null" : r->success ? "true" : "false");
    if (is_long) describe_json_drops(text, "granted", known, r->granted);
    describe_json_drops(text, "level", known, r->level);
    describe_json_time(text, "until_next_drop", known && has_limit, r->until_next_drop);
    describe_json_time(text, "blocked_for", known, r->blocked_for);
    describe_json_time(text, "retry_after", answered && (known || !r->success) && r->retry_after >= 0, r->retry_after);
    describe_json_end(text, r);
    if (d->limits->n > 1) describe_json_limits(text, d);
    if (d->verb == RESERVE && r->reservation != NULL) {
        text_add(text, ",\"reservation\":\"");
        describe_reservation(text, r->reservation);
        text_add(text, "\"");
    } else if (d->verb == RESERVE) {
        text_add(text, ",\"reservation\":null");
    }
    text_add(text, "}\n");
}

/* ---- Reservations ---- */

void describe_reservation(struct text *text, const steady_reservation *reservation) {
    const size_t size = steady_reservation_text(reservation, NULL, 0) + 1;
    char *copy = malloc(size);
    if (copy != NULL) steady_reservation_text(reservation, copy, size);
    text->lost = text->lost || copy == NULL;
    if (copy != NULL) text_add(text, "%s", copy);
    free(copy);
}

/* The key as stored; it may hold any bytes. */
static struct text describe_key(const steady_reserved *part) {
    struct text key = {0};
    for (size_t at = 0; at < part->key_len; at += strlen(part->key + at) + 1) {
        if (at > 0) text_add(&key, "\\x00");
        text_add_key(&key, part->key + at);
    }
    return key;
}

static void describe_correction(struct text *text, const steady_reserved *reserved, const steady_part_result *part) {
    if (part->charged > 0) {
        text_add(text, "charged %" PRId64 " more", part->charged);
    } else if (part->given_back > 0) {
        const int64_t recharge = reserved->limit.drop_recharge;
        const int64_t hundredths =
            (part->given_back * 200 + recharge) / (2 * recharge); /* to the nearest; below 2^62 */
        text_add(text, "gave back ");
        text_add_ratio(text, hundredths, 100, 2);
        text_add(text, hundredths == 100 ? " drop" : " drops");
    } else {
        text_add(text, "nothing changed");
    }
}

/* The capacity of today. A limit without a name has that of its period. */
static int64_t describe_capacity(const struct limits *limits, const steady_reserved *part) {
    if (limits->n == 1) return limits->all[0].max_capacity;
    for (size_t i = 0; i < limits->n; i++) {
        const steady_limit *limit = &limits->all[i];
        steady_us period = 0;
        if (limit->name != NULL
                ? strcmp(limit->name, part->name) == 0
                : steady_duration_parse(&period, part->name, NULL) == 0 && period == limit->drop_recharge)
            return limit->max_capacity;
    }
    return part->limit.max_capacity;
}

void describe_settled(struct text *text, const steady_reservation *reservation, const struct limits *limits,
                      const steady_part_result *parts, size_t n) {
    const steady_reserved *reserved = steady_reservation_parts(reservation, NULL);
    struct columns columns = {0, 0};
    for (size_t i = 0; i < n; i++) {
        const steady_reserved *its = &reserved[parts[i].part];
        struct text key = describe_key(its);
        describe_widen(&columns, (int)key.len, describe_level_width(parts[i].level, describe_capacity(limits, its)));
        text_free(&key);
    }
    for (size_t i = 0; i < n; i++) {
        const steady_reserved *its = &reserved[parts[i].part];
        struct text key = describe_key(its);
        text_add(text, "settled  %-*s  ", columns.name, key.bytes != NULL ? key.bytes : "");
        text_free(&key);
        describe_level(text, columns.level, parts[i].level, describe_capacity(limits, its));
        describe_correction(text, its, &parts[i]);
        text_add(text, "\n");
    }
}

void describe_settled_json(struct text *text, const steady_reservation *reservation, const steady_part_result *parts,
                           const steady_result *r) {
    const steady_reserved *reserved = steady_reservation_parts(reservation, NULL);
    const bool answered = r->source != STEADY_FROM_NOWHERE;
    text_add(text, "{\"success\":%s", answered ? "true" : "null");
    describe_json_end(text, r);
    text_add(text, ",\"limits\":%s", answered ? "[" : "null");
    for (size_t i = 0; answered && i < r->n_parts; i++) {
        text_add(text, "%s{\"name\":", i > 0 ? "," : "");
        text_add_json(text, parts[i].name);
        text_add(text, ",\"given_back\":");
        text_add_ratio(text, parts[i].given_back, reserved[parts[i].part].limit.drop_recharge, 6);
        describe_json_drops(text, "charged", true, parts[i].charged);
        describe_json_drops(text, "level", true, parts[i].level);
        describe_json_time(text, "until_next_drop", true, parts[i].until_next_drop);
        describe_json_time(text, "blocked_for", true, parts[i].blocked_for);
        text_add(text, "}");
    }
    text_add(text, "%s}\n", answered ? "]" : "");
}
