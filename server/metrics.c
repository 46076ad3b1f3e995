/* SPDX-License-Identifier: MIT
 * Counters, and their text for Prometheus. */
#include "metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server.h"

/* The upper bounds of the histogram. */
static const uint64_t steps_us[METRICS_STEPS] = {5,    10,   25,   50,    100,   250,    500,
                                                 1000, 2500, 5000, 10000, 50000, 100000, 1000000};

struct limit_counters *metrics_of(struct metrics *metrics, const char *name) {
    struct limit_counters *_Atomic *place = &metrics->limits;
    struct limit_counters *counters;
    while ((counters = atomic_load_explicit(place, memory_order_relaxed)) != NULL) {
        if (strcmp(counters->name, name) == 0) return counters;
        place = &counters->next;
    }
    counters = calloc(1, sizeof *counters);
    if (counters == NULL) return NULL;
    snprintf(counters->name, sizeof counters->name, "%s", name);
    buffer_add_json(&counters->json, name, strlen(name));
    if (counters->json.lost) {
        free(counters);
        return NULL;
    }
    atomic_store_explicit(place, counters, memory_order_release);
    return counters;
}

void metrics_time(struct metrics *metrics, uint64_t us) {
    size_t i = 0;
    while (i < METRICS_STEPS && us > steps_us[i])
        i++;
    metrics_add(&metrics->seconds[i], 1);
    metrics_add(&metrics->seconds_sum_us, us);
}

void metrics_free(struct metrics *metrics) {
    struct limit_counters *counters = atomic_load(&metrics->limits);
    while (counters != NULL) {
        struct limit_counters *next = atomic_load(&counters->next);
        buffer_free(&counters->json);
        free(counters);
        counters = next;
    }
}

/* ---- Text ---- */

static void metrics_head(struct buffer *out, const char *name, const char *type, const char *help) {
    buffer_add_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label value: \, " and line ends are escaped. */
static void metrics_add_label(struct buffer *out, const char *value) {
    for (; *value != '\0'; value++) {
        if (*value == '\\' || *value == '"') buffer_add(out, "\\", 1);
        if (*value == '\n')
            buffer_add_text(out, "\\n");
        else
            buffer_add(out, value, 1);
    }
}

/* Most workers have the limits in the same order. So the search begins where the last one ended. */
static struct limit_sum *metrics_sum_of(struct limit_sums *sums, size_t *at, const char *name) {
    for (size_t i = 0; i < sums->n; i++) {
        *at = (*at + 1) % sums->n;
        if (strcmp(sums->all[*at].name, name) == 0) return &sums->all[*at];
    }
    if (sums->n == sums->room) {
        const size_t room = sums->room > 0 ? 2 * sums->room : 32;
        struct limit_sum *all = realloc(sums->all, room * sizeof *all);
        if (all == NULL) return NULL;
        sums->all = all;
        sums->room = room;
    }
    *at = sums->n;
    sums->all[sums->n] = (struct limit_sum){.name = name};
    return &sums->all[sums->n++];
}

void metrics_sum_limits(struct limit_sums *sums, struct server *server) {
    size_t at = 0;
    for (int w = 0; w < server->n_workers; w++) {
        struct limit_counters *c = atomic_load_explicit(&server->workers[w].metrics.limits, memory_order_acquire);
        for (; c != NULL; c = atomic_load_explicit(&c->next, memory_order_acquire)) {
            struct limit_sum *sum = metrics_sum_of(sums, &at, c->name);
            if (sum == NULL) continue;
            sum->allowed += metrics_get(&c->allowed);
            sum->denied += metrics_get(&c->denied);
            sum->no_verdict += metrics_get(&c->no_verdict);
            sum->near_limit += metrics_get(&c->near_limit);
            sum->shadow_denied += metrics_get(&c->shadow_denied);
        }
    }
}

uint64_t metrics_answers(struct server *server, enum metrics_verdict verdict) {
    uint64_t sum = 0;
    for (int w = 0; w < server->n_workers; w++)
        sum += metrics_get(&server->workers[w].metrics.answers[verdict]);
    return sum;
}

uint64_t metrics_connections(struct server *server, enum metrics_protocol protocol) {
    uint64_t sum = 0;
    for (int w = 0; w < server->n_workers; w++)
        sum += metrics_get(&server->workers[w].metrics.connections[protocol]);
    return sum;
}

uint64_t metrics_log_dropped(struct server *server) {
    uint64_t sum = 0;
    for (int w = 0; w < server->n_workers; w++)
        sum += metrics_get(&server->workers[w].metrics.log_dropped);
    return sum;
}

/* A worker whose store could not be opened has none. */
int metrics_stores(struct server *server, int *ready) {
    const int n = server->embedded != NULL ? 1 : server->n_workers;
    *ready = 0;
    for (int w = 0; w < n; w++)
        *ready += steady_store_state(server->workers[w].store) == STEADY_READY;
    return n;
}

static void metrics_add_verdict(struct buffer *out, const char *limit, const char *verdict, uint64_t n) {
    buffer_add_text(out, "steady_decisions_total{limit=\"");
    metrics_add_label(out, limit);
    buffer_add_format(out, "\",verdict=\"%s\"} %llu\n", verdict, (unsigned long long)n);
}

static void metrics_add_limits(struct buffer *out, struct server *server) {
    struct limit_sums sums = {0};
    metrics_sum_limits(&sums, server);
    metrics_head(out, "steady_decisions_total", "counter",
                 "Decisions by limit and verdict. A shadow limit has shadow_denied in place of denied; it denies no "
                 "request. Limits that came with requests have one empty name.");
    for (size_t i = 0; i < sums.n; i++) {
        metrics_add_verdict(out, sums.all[i].name, "allowed", sums.all[i].allowed);
        metrics_add_verdict(out, sums.all[i].name, "denied", sums.all[i].denied);
        metrics_add_verdict(out, sums.all[i].name, "shadow_denied", sums.all[i].shadow_denied);
        metrics_add_verdict(out, sums.all[i].name, "none", sums.all[i].no_verdict);
    }
    metrics_head(out, "steady_near_limit_total", "counter",
                 "Decisions after which at most a fifth of the capacity was left.");
    for (size_t i = 0; i < sums.n; i++) {
        buffer_add_text(out, "steady_near_limit_total{limit=\"");
        metrics_add_label(out, sums.all[i].name);
        buffer_add_format(out, "\"} %llu\n", (unsigned long long)sums.all[i].near_limit);
    }
    free(sums.all);
}

static void metrics_add_times(struct buffer *out, struct server *server) {
    uint64_t count = 0, sum_us = 0;
    metrics_head(out, "steady_decision_seconds", "histogram", "The time from a question to its answer.");
    for (size_t i = 0; i <= METRICS_STEPS; i++) {
        for (int w = 0; w < server->n_workers; w++)
            count += metrics_get(&server->workers[w].metrics.seconds[i]);
        buffer_add_text(out, "steady_decision_seconds_bucket{le=\"");
        if (i < METRICS_STEPS)
            buffer_add_seconds(out, (int64_t)steps_us[i]);
        else
            buffer_add_text(out, "+Inf");
        buffer_add_format(out, "\"} %llu\n", (unsigned long long)count);
    }
    for (int w = 0; w < server->n_workers; w++)
        sum_us += metrics_get(&server->workers[w].metrics.seconds_sum_us);
    buffer_add_text(out, "steady_decision_seconds_sum ");
    buffer_add_seconds(out, (int64_t)sum_us);
    buffer_add_format(out, "\nsteady_decision_seconds_count %llu\n", (unsigned long long)count);
}

static void metrics_add_store(struct buffer *out, struct server *server) {
    static const struct {
        const char *name, *help;
        size_t at;
    } counters[] = {
        {"steady_store_decisions_total", "Decisions of the store, also those without a request.",
         offsetof(steady_stats, decisions)},
        {"steady_store_unavailable_total", "Decisions without a verdict; nothing was charged.",
         offsetof(steady_stats, unavailable)},
        {"steady_store_unknown_total", "Decisions without a verdict; perhaps charged.",
         offsetof(steady_stats, unknown)},
        {"steady_store_timeouts_total", "Decisions that ended at their deadline.", offsetof(steady_stats, timeouts)},
        {"steady_store_from_memory_total", "Decisions denied by the memory of denials, without a request.",
         offsetof(steady_stats, from_memory)},
        {"steady_store_from_lease_total", "Decisions answered from a lease, without a request.",
         offsetof(steady_stats, from_lease)},
        {"steady_store_reconnects_total", "Connections to the store after the first.",
         offsetof(steady_stats, reconnects)},
        {"steady_store_overflowed_total", "Embedded: decisions on a bucket that keys share for lack of room.",
         offsetof(steady_stats, overflowed)},
        {"steady_store_clock_steps_total", "Buckets that were ahead of the clock of the store.",
         offsetof(steady_stats, clock_steps)}};
    int ready;
    const int n_stores = metrics_stores(server, &ready);
    metrics_head(out, "steady_store_ready", "gauge",
                 "How many stores can make decisions. Each thread has one, unless it is embedded.");
    buffer_add_format(out, "steady_store_ready %d\n", ready);
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        uint64_t sum = 0;
        for (int w = 0; w < n_stores; w++) {
            steady_stats stats;
            steady_store_stats(server->workers[w].store, &stats);
            sum += *(const uint64_t *)(const void *)((const char *)&stats + counters[i].at);
        }
        metrics_head(out, counters[i].name, "counter", counters[i].help);
        buffer_add_format(out, "%s %llu\n", counters[i].name, (unsigned long long)sum);
    }
}

void metrics_text(struct buffer *out, struct server *server) {
    static const char *const protocols[METRICS_PROTOCOLS] = {"http", "http2", "resp"};
    static const char *const verdicts[METRICS_VERDICTS] = {"allowed", "denied", "none"};
    uint64_t refused = 0;
    metrics_add_limits(out, server);
    metrics_head(out, "steady_answers_total", "counter", "Requests by verdict; a request may have several limits.");
    for (size_t i = 0; i < METRICS_VERDICTS; i++)
        buffer_add_format(out, "steady_answers_total{verdict=\"%s\"} %llu\n", verdicts[i],
                          (unsigned long long)metrics_answers(server, (enum metrics_verdict)i));
    metrics_add_times(out, server);
    metrics_add_store(out, server);
    metrics_head(out, "steady_connections", "gauge", "Open connections of clients.");
    for (size_t i = 0; i < METRICS_PROTOCOLS; i++)
        buffer_add_format(out, "steady_connections{protocol=\"%s\"} %llu\n", protocols[i],
                          (unsigned long long)metrics_connections(server, (enum metrics_protocol)i));
    for (int w = 0; w < server->n_workers; w++)
        refused += metrics_get(&server->workers[w].metrics.refused);
    metrics_head(out, "steady_bad_requests_total", "counter", "Requests that were not valid.");
    buffer_add_format(out, "steady_bad_requests_total %llu\n", (unsigned long long)refused);
    metrics_head(out, "steady_log_dropped_total", "counter", "Lines of the decision log that were not written.");
    buffer_add_format(out, "steady_log_dropped_total %llu\n", (unsigned long long)metrics_log_dropped(server));
    metrics_head(out, "steady_config_loaded_timestamp_seconds", "gauge", "When the rules in force were read.");
    buffer_add_format(out, "steady_config_loaded_timestamp_seconds %lld\n", (long long)server->loaded_at);
    metrics_head(out, "steady_config_errors_total", "counter", "Reloads that failed; the old rules stayed.");
    buffer_add_format(out, "steady_config_errors_total %llu\n", (unsigned long long)server->loads_failed);
}
