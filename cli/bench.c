/* SPDX-License-Identifier: MIT
 * steady bench: measures how many decisions a second the store makes, and how long a decision takes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

/* A histogram of latencies in ns. Each power of two has 16 cells. */
enum { FINE = 16, N_CELLS = 61 * FINE };

enum { KEY_SIZE = 48, NAME_SIZE = 66, PREFIX_MAX = 1024 - KEY_SIZE }; /* a name of a limit, and its braces */

struct bench;

/* A decision in flight. */
struct slot {
    struct bench *bench;
    int64_t started;
};

struct bench {
    steady_throttler *throttler;
    steady_poller *poller;
    struct slot *slots;
    struct slot **idle;
    size_t n_slots, n_idle;
    uint64_t random;
    uint64_t n_keys;
    char key[KEY_SIZE]; /* ends in eight digits that change */
    size_t key_len;
    uint64_t allowed, denied, errors;
    uint64_t from_memory; /* of the denied: without a request to the server */
    uint64_t from_lease;  /* of the allowed and the denied: the same */
    int last_error;
    int64_t started, ended; /* ns */
    uint64_t cells[N_CELLS];
};

static int64_t bench_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- Recording ---- */

static size_t bench_cell_of(uint64_t ns) {
    if (ns < FINE) return (size_t)ns;
    const int exponent = 63 - __builtin_clzll(ns);
    return (size_t)(exponent - 3) * FINE + (size_t)(ns >> (exponent - 4) & (FINE - 1));
}

/* The smallest value of a cell. */
static uint64_t bench_value_of(size_t cell) {
    if (cell < FINE) return cell;
    return (uint64_t)(FINE + cell % FINE) << (cell / FINE - 1);
}

static uint64_t bench_quantile(const struct bench *b, uint64_t percent) {
    const uint64_t total = b->allowed + b->denied + b->errors;
    uint64_t seen = 0;
    for (size_t i = 0; i < N_CELLS; i++) {
        seen += b->cells[i];
        if (seen * 100 >= total * percent) return bench_value_of(i);
    }
    return 0;
}

static void bench_record(struct bench *b, const steady_result *r, int64_t ns) {
    b->cells[bench_cell_of((uint64_t)ns)]++;
    b->from_lease += r->source == STEADY_FROM_LEASE;
    if (r->error != 0) {
        b->errors++;
        b->last_error = r->error;
    } else if (r->success) {
        b->allowed++;
    } else {
        b->denied++;
        b->from_memory += r->source == STEADY_FROM_MEMORY;
    }
}

static void bench_next_key(struct bench *b) {
    b->random ^= b->random << 13; /* xorshift64 */
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    uint64_t n = b->random % b->n_keys;
    for (size_t i = 1; i <= 8; i++, n /= 10)
        b->key[b->key_len - i] = (char)('0' + n % 10);
}

/* ---- Measuring ---- */

static void bench_measure_embedded(struct bench *b, int64_t duration) {
    steady_result r;
    b->started = bench_now_ns();
    int64_t now = b->started;
    while (now < b->started + duration) {
        const int64_t before = now;
        bench_next_key(b);
        steady_consume_sync(b->throttler, b->key, b->key_len, 1, &r);
        now = bench_now_ns();
        bench_record(b, &r, now - before);
    }
    b->ended = now;
}

static void bench_answered(const steady_result *r, void *data) {
    struct slot *slot = data;
    struct bench *b = slot->bench;
    bench_record(b, r, bench_now_ns() - slot->started);
    b->idle[b->n_idle++] = slot;
}

static bool bench_start_one(struct bench *b) {
    struct slot *slot = b->idle[b->n_idle - 1];
    bench_next_key(b);
    slot->started = bench_now_ns();
    const int error = steady_consume(b->throttler, b->key, b->key_len, 1, bench_answered, slot);
    if (error == 0) {
        b->n_idle--;
        return true;
    }
    b->errors++;
    b->last_error = error;
    return false;
}

static void bench_wait_for_all(struct bench *b) {
    while (b->n_idle < b->n_slots)
        steady_poller_run(b->poller, STEADY_SECOND / 10);
}

/* Keeps as many decisions in flight as there are slots. */
static void bench_measure_redis(struct bench *b, int64_t duration) {
    b->started = bench_now_ns();
    while (bench_now_ns() < b->started + duration) {
        while (b->n_idle > 0 && bench_start_one(b))
            ;
        steady_poller_run(b->poller, STEADY_SECOND / 10);
    }
    bench_wait_for_all(b);
    b->ended = bench_now_ns();
}

/* Makes one decision that is not counted. It connects, and loads the script. */
static int bench_warm_up(struct bench *b) {
    if (bench_start_one(b)) bench_wait_for_all(b);
    const int error = b->last_error;
    b->allowed = b->denied = b->errors = b->from_memory = b->from_lease = 0;
    memset(b->cells, 0, sizeof b->cells);
    return error;
}

static int bench_prepare(struct bench *b, const struct options *options) {
    b->n_slots = (size_t)options->in_flight;
    b->slots = calloc(b->n_slots, sizeof *b->slots);
    b->idle = calloc(b->n_slots, sizeof(struct slot *));
    if (b->slots == NULL || b->idle == NULL) return STEADY_NO_MEMORY;
    for (; b->n_idle < b->n_slots; b->n_idle++) {
        b->slots[b->n_idle].bench = b;
        b->idle[b->n_idle] = &b->slots[b->n_idle];
    }
    b->n_keys = (uint64_t)options->keys;
    b->random = (uint64_t)bench_now_ns() | 1;
    b->key_len = (size_t)snprintf(b->key, sizeof b->key, "steady-bench:%ld:00000000", (long)getpid());
    return steady_poller_new(&b->poller);
}

/* ---- The report ---- */

static void bench_add_ns(struct text *text, const char *name, uint64_t ns) {
    if (ns < 10000)
        text_add(text, "  %s %" PRIu64 " ns", name, ns);
    else
        text_add(text, "  %s %" PRIu64 " us", name, (ns + 500) / 1000);
}

static bool bench_report(const struct bench *b, const struct options *options, bool embedded) {
    struct text text = {0};
    const uint64_t total = b->allowed + b->denied + b->errors;
    const int64_t us = (b->ended - b->started) / 1000;
    const uint64_t per_second = total * 1000000 / (uint64_t)(us > 0 ? us : 1);
    const uint64_t p50 = bench_quantile(b, 50), p99 = bench_quantile(b, 99);
    if (options->json) {
        text_add(&text, "{\"decisions\":%" PRIu64 ",\"seconds\":", total);
        text_add_seconds(&text, us);
        text_add(&text,
                 ",\"decisions_per_second\":%" PRIu64 ",\"p50_ns\":%" PRIu64 ",\"p99_ns\":%" PRIu64
                 ",\"allowed\":%" PRIu64 ",\"denied\":%" PRIu64 ",\"from_memory\":%" PRIu64 ",\"from_lease\":%" PRIu64
                 ",\"errors\":%" PRIu64 "}\n",
                 per_second, p50, p99, b->allowed, b->denied, b->from_memory, b->from_lease, b->errors);
    } else {
        text_add(&text, "%" PRIu64 " decisions/s ", per_second);
        bench_add_ns(&text, "p50", p50);
        bench_add_ns(&text, "p99", p99);
        if (embedded)
            text_add(&text, "  (embedded, 1 thread)\n");
        else
            text_add(&text, "  (%zu in flight)\n", b->n_slots);
        text_add(&text, "%" PRIu64 " allowed, %" PRIu64 " denied", b->allowed, b->denied);
        if (b->from_memory > 0) text_add(&text, " (%" PRIu64 " from memory)", b->from_memory);
        text_add(&text, ", %" PRIu64 " errors, %" PRId64 " keys", b->errors, options->keys);
        if (b->from_lease > 0) text_add(&text, ", %" PRIu64 " from a lease", b->from_lease);
        text_add(&text, "\n");
    }
    return text_say(&text, ALLOWED, UNKNOWN) == ALLOWED;
}

static int bench_measure(struct bench *b, const struct options *options, const struct limits *limits, bool *embedded,
                         steady_message *why) {
    const int64_t duration = options->seconds * 1000000000;
    const steady_throttler_options throttler_options = {.prefix = options->prefix};
    steady_store *store = NULL;
    int error = bench_prepare(b, options);
    if (error != 0) goto out;
    const steady_loop loop = steady_poller_loop(b->poller);
    error = open_store(&store, options, &loop, embedded, why);
    if (error == 0)
        error = steady_throttler_new_limits(&b->throttler, store, limits->all, limits->n, &throttler_options, why);
    if (error == 0) error = bench_warm_up(b);
    if (error != 0) goto out;
    if (*embedded)
        bench_measure_embedded(b, duration);
    else
        bench_measure_redis(b, duration);
    error = b->errors > 0 ? b->last_error : 0;
out:
    if (why->text[0] == '\0') steady_store_last_error(store, why);
    steady_throttler_free(&b->throttler);
    steady_store_close(&store);
    steady_poller_free(&b->poller);
    free(b->idle);
    free(b->slots);
    return error;
}

int run_bench(const struct options *options) {
    static const steady_limit usual = {.max_capacity = 100, .drop_recharge = STEADY_SECOND, .drops = 100};
    struct bench bench = {0};
    struct limits limits = {0};
    steady_message why = {.text = ""};
    bool embedded = false;
    if (options_limits(options, &usual, &limits) != ALLOWED) return USAGE;
    const size_t prefix_max = limits.n > 1 ? PREFIX_MAX - NAME_SIZE : PREFIX_MAX;
    if (options->prefix != NULL && strlen(options->prefix) > prefix_max)
        return complain("--prefix is %zu bytes long; for bench it must be at most %zu", strlen(options->prefix),
                        prefix_max);
    const int error = bench_measure(&bench, options, &limits, &embedded, &why);
    if (error != 0) complain_error(error, &why);
    if (bench.ended == 0) return error_code(error);
    return bench_report(&bench, options, embedded) ? error_code(error) : UNKNOWN;
}
