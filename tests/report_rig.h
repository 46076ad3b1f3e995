/* SPDX-License-Identifier: MIT
 * A report that is filled by hand: three limits, a day with an attack, hostile texts. */
#ifndef REPORT_RIG_H
#define REPORT_RIG_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "replay/report.h"

enum { RIG_LOGIN, RIG_SEARCH, RIG_UNUSED, RIG_SHADOW, RIG_LIMITS };

#define RIG_BEGIN INT64_C(1796083200000000) /* 2026-12-01 00:00:00 UTC */
#define RIG_MINUTE INT64_C(60000000)
#define RIG_HOSTILE "</script><script>window.evil=1</script><img src=x onerror='window.evil=1'>\"&"
#define RIG_BYTES "a\\b\33[31m\r\n\t\xff\xc3\x28\xe2\x80\xae\x7f\xc3\xa9"
#define RIG_FORMULA "=HYPERLINK(\"http://192.0.2.1\")"

static const char rig_rules[] =
    "limits:\n"
    "  - { name: login, match: { method: POST, path: [/login, \"/api/*/login\"] }, key: ip, rate: 5/min, burst: 10,\n"
    "      block: 10m }\n"
    "  - { name: search, match: { header: { x-a: \"yes\", x-b: [c, \"d e\"] }, ip: [192.0.2.0/24, \"2001:db8::/32\"] "
    "},\n"
    "      key: header:x-api-key+path, rate: 20/s }\n"
    "  - { name: unused, match: { path: /nothing }, key: path, rate: 5/7s }\n"
    "  - { name: \"a<b>\", key: hash:header:x-token, rate: 1000/1h30m, burst: 2000, mode: shadow, cost: 3,\n"
    "      tiers: { header: x-plan, trusted_header: true, pro: 9/s } }\n";

static const char *const rig_files[] = {"access.log", "access.log.1.gz"};
static const char *const rig_notes[] = {"The log has no field for the header x-b."};

static struct report_text rig_text(const char *text) {
    char *copy = strdup(text);
    assert_non_null(copy);
    return (struct report_text){copy, strlen(text)};
}

static void rig_list(struct report_list *list, const char *const *names, size_t n, uint64_t most) {
    for (size_t i = 0; i < n; i++)
        list->items[list->n++] = (struct report_count){.name = rig_text(names[i]), .n = most >> i, .error = i > 3};
}

/* A day: busy at noon, with an attack from 14:00 on. */
static void rig_timeline(struct report_limit *limit, double requests, bool attacked) {
    limit->requests = limit->denied = 0;
    for (size_t i = 0; i < REPORT_TIMELINE; i++) {
        const double day = 1 - cos((double)i / REPORT_TIMELINE * 6.2831853), noise = (double)(i * 7919 % 23) / 23;
        const bool attack = attacked && i >= 140 && i < 152;
        limit->timeline[i].requests = (uint64_t)(requests * (0.15 + day + 0.2 * noise));
        limit->timeline[i].denied = attacked && i % 9 == 4 ? (uint64_t)(3 * noise) : 0;
        if (attack) limit->timeline[i].denied = (uint64_t)(requests * (1 + noise));
        limit->timeline[i].requests += limit->timeline[i].denied;
        limit->requests += limit->timeline[i].requests;
        limit->denied += limit->timeline[i].denied;
    }
    limit->allowed = limit->requests - limit->denied;
}

static void rig_rate(struct report_rate *rate, steady_limit of, double clients) {
    static const uint64_t shape[] = {2048, 1024, 400, 250, 120, 60, 30, 16, 9, 0, 2, 1};
    const double scale = clients / 3960;
    rate->rate = of;
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++)
        rate->bins[i] = (uint64_t)((double)shape[i] * scale + 0.5);
    const int64_t needed[REPORT_QUANTILES] = {1, 7, 41, 213, 1804, 213};
    memcpy(rate->needed, needed, sizeof needed);
}

static const int64_t rig_counts[] = {1, 2, 3, 5, 10, 20, 30, 60, 100, 200, 500, 1000};

static void rig_heat(struct report_limit *limit) {
    struct report_heat *heat = &limit->heat;
    static const int64_t capacities[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000};
    limit->has_heat = true;
    heat->n_rates = heat->n_capacities = REPORT_GRID;
    heat->rate_at = heat->capacity_at = 3;
    for (size_t i = 0; i < REPORT_GRID; i++) {
        heat->rates[i] = (steady_limit){.drops = rig_counts[i], .drop_recharge = RIG_MINUTE};
        heat->capacities[i] = capacities[i];
        for (size_t k = 0; k < REPORT_GRID; k++) {
            const double share = 0.9 * exp(-0.55 * (double)i - 0.62 * (double)k);
            heat->keys_denied[i][k] = (uint64_t)((double)limit->keys * share);
            heat->requests_denied[i][k] = (uint64_t)((double)limit->requests * share / 3);
        }
    }
}

static void rig_choices(struct report_limit *limit) {
    static const int64_t bursts[] = {4012, 1804, 900, 213, 120, 81, 64, 35, 30, 22, 12, 10};
    for (size_t i = 0; i < REPORT_GRID; i++) {
        limit->choices[limit->n_choices++] = (struct report_choice){
            .limit = {.drops = rig_counts[i], .drop_recharge = RIG_MINUTE, .max_capacity = bursts[i]},
            .keys_denied = 4,
            .requests_denied = (uint64_t)(12 * (REPORT_GRID - i)),
            .suggested = i == 5};
        rig_rate(&limit->ladder[limit->n_ladder++], limit->choices[i].limit, (double)limit->keys);
    }
}

static void rig_keys(struct report_limit *limit) {
    char *const long_key = malloc(1024);
    assert_non_null(long_key);
    memset(long_key, 'k', 1024);
    const struct report_text keys[] = {rig_text("203.0.113.7"),   rig_text("2001:db8:1234:5678::/64"),
                                       rig_text(RIG_HOSTILE),     rig_text(RIG_BYTES),
                                       {long_key, 1024},          rig_text(RIG_FORMULA),
                                       rig_text("+198.51.100.4"), rig_text(""),
                                       rig_text("198.51.100.23"), rig_text("198.51.100.24"),
                                       rig_text("198.51.100.25"), rig_text("192.0.2.9")};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        limit->top[limit->n_top++] = (struct report_key){.key = keys[i],
                                                         .requests = 40000 >> i,
                                                         .denied = 3000 >> i,
                                                         .first_denied = RIG_BEGIN + (int64_t)(840 + i) * RIG_MINUTE,
                                                         .last_denied = RIG_BEGIN + (int64_t)(900 + i) * RIG_MINUTE,
                                                         .needed = i == 1 ? -1 : 1804 >> i};
}

static void rig_against(struct report_limit *limit) {
    limit->has_against = true;
    limit->against = (struct report_against){.limit = {.drops = 20, .drop_recharge = RIG_MINUTE, .max_capacity = 35},
                                             .denied = 2000,
                                             .keys_denied = 40,
                                             .keys_changed = 90,
                                             .newly_hit = 2,
                                             .freed = 88,
                                             .n_changes = 2};
    for (size_t i = 0; i < 2; i++)
        limit->against.changes[i] = (struct report_change){.key = rig_text(i == 0 ? "203.0.113.7" : RIG_HOSTILE),
                                                           .requests = 40000,
                                                           .denied = 3000,
                                                           .denied_against = 10,
                                                           .first_changed = RIG_BEGIN + 841 * RIG_MINUTE + 1};
}

static void rig_login(struct report_limit *limit) {
    static const char *const paths[] = {"/login", "/api/v1/login", RIG_HOSTILE, RIG_BYTES, "/%6cogin"},
                             *const agents[] = {"python-requests/2.31.0",
                                                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", RIG_HOSTILE},
                             *const statuses[] = {"401", "200", "503"};
    rig_timeline(limit, 60, true);
    limit->keys = 4096;
    limit->keys_denied = 127;
    limit->half_of_denied = 4;
    limit->blocked = limit->denied / 2;
    limit->never = 3;
    limit->other = 17;
    limit->wait_p50 = 1250000;
    limit->wait_p99 = 48 * INT64_C(1000000);
    limit->wait_max = 600 * INT64_C(1000000);
    rig_list(&limit->by_path, paths, 5, 900);
    rig_list(&limit->by_agent, agents, 3, 900);
    rig_list(&limit->by_status, statuses, 3, 900);
    rig_keys(limit);
    rig_rate(&limit->needed, limit->limit->rates[0], 4096);
    rig_heat(limit);
    rig_choices(limit);
    rig_against(limit);
}

static void rig_shadow(struct report_limit *limit) {
    rig_timeline(limit, 600, false);
    limit->denied = limit->timeline[40].denied = 7;
    limit->allowed = limit->requests - 7;
    limit->keys = 900;
    limit->keys_denied = limit->half_of_denied = 1;
    limit->keys_merged = 12;
    limit->requests_merged = 340;
    limit->keys_forgotten = 1;
    limit->wait_p50 = limit->wait_p99 = limit->wait_max = 5400;
    limit->top[limit->n_top++] = (struct report_key){rig_text("5f3759df"),         100, 7, RIG_BEGIN + 240 * RIG_MINUTE,
                                                     RIG_BEGIN + 241 * RIG_MINUTE, 2007};
    rig_rate(&limit->needed, limit->limit->rates[0], 900);
    limit->has_against = limit->against.missing = true;
}

/* All that was made lives until the program ends; so a checker of leaks can reach it. */
static const void *rig_kept[300];

static void rig_keep(const void *made) {
    static size_t n;
    assert_non_null(made);
    assert_true(n < sizeof rig_kept / sizeof rig_kept[0]);
    rig_kept[n++] = made;
}

static struct report *rig_report(void) {
    struct rules_error error;
    struct report *report = calloc(1, sizeof *report);
    struct report_limit *limits = calloc(RIG_LIMITS, sizeof *limits);
    const struct rules *rules = rules_read_text("steady.yaml", rig_rules, strlen(rig_rules), &error);
    if (rules == NULL) fail_msg("%s", error.text);
    rig_keep(report);
    rig_keep(limits);
    rig_keep(rules);
    *report = (struct report){.rules_file = "steady.yaml",
                              .against_file = "new.yaml",
                              .files = rig_files,
                              .n_files = 2,
                              .format = "combined",
                              .bad_lines = 12,
                              .other_lines = 2,
                              .late_lines = 1,
                              .bytes = 5170000,
                              .n_bad = 3,
                              .first = RIG_BEGIN + 3 * STEADY_SECOND,
                              .last = RIG_BEGIN + INT64_C(86399000000),
                              .interval = 6 * RIG_MINUTE,
                              .begin = RIG_BEGIN,
                              .n_intervals = REPORT_TIMELINE,
                              .whole_seconds = true,
                              .share = 0.999,
                              .exempt = 120,
                              .unmatched = 3,
                              .refused = 1,
                              .notes = rig_notes,
                              .n_notes = 1,
                              .limits = limits,
                              .n_limits = RIG_LIMITS};
    for (size_t i = 0; i < report->n_bad; i++) {
        report->bad[i] = (struct report_bad_line){.file = rig_files[0], .line = 17 + i, .reason = "no time in []"};
        snprintf(report->bad[i].text, sizeof report->bad[i].text, "%s", i == 1 ? RIG_BYTES : RIG_HOSTILE);
    }
    for (size_t i = 0; i < RIG_LIMITS; i++) {
        limits[i].limit = &rules->limits[i];
        limits[i].from_rules = limits[i].has_verdicts = true;
        limits[i].wait_p50 = limits[i].wait_p99 = limits[i].wait_max = -1;
    }
    rig_login(&limits[RIG_LOGIN]);
    rig_timeline(&limits[RIG_SEARCH], 400, false);
    limits[RIG_SEARCH].keys = 812;
    rig_rate(&limits[RIG_SEARCH].needed, limits[RIG_SEARCH].limit->rates[0], 812);
    memset(&limits[RIG_SEARCH].needed.bins[5], 0, sizeof limits[RIG_SEARCH].needed.bins - 5 * sizeof(uint64_t));
    limits[RIG_SEARCH].needed.needed[2] = limits[RIG_SEARCH].needed.needed[3] = limits[RIG_SEARCH].needed.needed[4] =
        14;
    rig_shadow(&limits[RIG_SHADOW]);
    report->requests = limits[RIG_SHADOW].requests + 124;
    report->lines = report->requests + 15;
    report->denied = limits[RIG_LOGIN].denied;
    report->allowed = report->requests - report->denied - 1;
    return report;
}

/* One limit of the report alone. */
static struct report *rig_alone(size_t limit) {
    struct report *report = rig_report();
    report->limits += limit;
    report->n_limits = 1;
    return report;
}

/* Without a request, as of an empty file. */
static struct report *rig_empty(void) {
    struct report *report = rig_report();
    report->lines = report->requests = report->allowed = report->denied = report->bytes = 0;
    report->bad_lines = report->n_bad = report->exempt = report->unmatched = report->refused = report->late_lines = 0;
    report->n_intervals = report->n_notes = 0;
    report->whole_seconds = false;
    report->first = 1;
    report->last = 0;
    report->limits += RIG_UNUSED;
    report->n_limits = 1;
    return report;
}

/* One request, and no limit: only --suggest. */
static struct report *rig_one_line(void) {
    struct report *report = rig_alone(RIG_SEARCH);
    struct report_limit *limit = &report->limits[0];
    report->n_intervals = 1;
    report->lines = report->requests = limit->requests = limit->keys = 1;
    report->bad_lines = report->n_bad = 0;
    report->last = report->first;
    report->partial = true;
    report->rules_file = NULL;
    limit->timeline[0] = (struct report_interval){1, 0};
    limit->from_rules = limit->has_verdicts = false;
    memset(&limit->needed, 0, sizeof limit->needed);
    limit->choices[limit->n_choices++] = (struct report_choice){
        .limit = {.drops = 1, .drop_recharge = RIG_MINUTE, .max_capacity = 1}, .suggested = true};
    return report;
}

#endif
