/* SPDX-License-Identifier: MIT
 * Measures what leases and the memory of denials bring for hot keys. The two sides of a ratio take turns; the medians
 * count.
 *
 *     bench_hot URL ROUNDS    prints a line of JSON for each scene, for scripts/bench */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "steady.h"

#define ROUND (200 * STEADY_MILLISECOND)
#define SHORT_ROUND (10 * STEADY_MILLISECOND) /* of what takes nanoseconds, ... */
#define SHORT_ROUNDS 15                       /* ... so many for each round */
#define WARM_UP (100 * STEADY_MILLISECOND)
#define BATCH 16
#define ROUNDS_MAX 33
#define MOST (ROUNDS_MAX * SHORT_ROUNDS)
#define KEYS 1000
#define KEY_LEN 13
#define BURST 50                       /* requests of an attacker at once ... */
#define PAUSE (1 * STEADY_MILLISECOND) /* ... each millisecond: 50,000 requests a second */

/* What one side has done in its rounds. */
struct side {
    const char *prefix; /* of its keys: each side has buckets of its own */
    const char *url;    /* NULL: that of the server */
    bool has_lease, has_memory;
    enum steady_source source; /* of each answer that is measured; STEADY_FROM_STORE: any */
    steady_store *store;
    steady_throttler *throttler;
    steady_poller *poller;
    double rate[MOST], cpu[MOST]; /* decisions a second; seconds of CPU time for a decision */
    double allowed[MOST];         /* a second */
    long asked, answered, let_in;
};

struct scene {
    const char *name, *title;
    steady_limit limit;
    uint32_t keys;
    bool is_paced, on_loop;
    enum { RATE, ALLOWED, TIME, CPU } value; /* TIME and CPU: CPU time, in ns and us */
    double goal;                             /* 0: none */
};

static double now_in(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void die(const char *what, const char *why) {
    fprintf(stderr, "bench_hot: %s: %s\n", what, why);
    exit(1);
}

/* "user:" and eight hexadecimal digits. */
static void write_key(char key[KEY_LEN + 1], uint32_t number) {
    static const char digits[] = "0123456789abcdef";
    memcpy(key, "user:", 5);
    for (int i = 0; i < 8; i++)
        key[5 + i] = digits[number >> (28 - 4 * i) & 15];
}

/* ---- Calls ---- */

static uint64_t seed = 1;

static uint32_t pick(uint32_t count) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)((seed >> 32) * count >> 32);
}

static void count(struct side *side, const steady_result *result) {
    if (result->error != 0) die("answer", steady_error_text(result->error));
    side->answered++;
    side->let_in += result->success;
}

static void call_blocking(struct side *side, uint32_t keys) {
    char key[KEY_LEN + 1];
    steady_result result;
    write_key(key, keys > 1 ? pick(keys) : 0);
    steady_consume_sync(side->throttler, key, KEY_LEN, 1, &result);
    count(side, &result);
    if (side->source != STEADY_FROM_STORE && result.source != side->source) die("answer", "it has another source");
}

static void answered(const steady_result *result, void *data) { count(data, result); }

static void call_on_loop(struct side *side) {
    char key[KEY_LEN + 1];
    write_key(key, 0);
    const int error = steady_consume(side->throttler, key, KEY_LEN, 1, answered, side);
    if (error != 0) die("consume", steady_error_text(error));
    side->asked++;
}

static void call_some(struct side *side, const struct scene *scene, int some) {
    for (int i = 0; i < some; i++)
        if (scene->on_loop)
            call_on_loop(side);
        else
            call_blocking(side, scene->keys);
    while (scene->on_loop && side->answered < side->asked)
        if (steady_poller_run(side->poller, -1) < 0) die("poller", "failed");
}

static void play_round(struct side *side, const struct scene *scene, steady_us time, int round) {
    side->asked = side->answered = side->let_in = 0;
    const double cpu = now_in(CLOCK_PROCESS_CPUTIME_ID), began = now_in(CLOCK_MONOTONIC);
    double took;
    do {
        call_some(side, scene, scene->is_paced ? BURST : BATCH);
        if (scene->is_paced) nanosleep(&(struct timespec){.tv_nsec = PAUSE * 1000}, NULL);
        took = now_in(CLOCK_MONOTONIC) - began;
    } while (took < (double)time / STEADY_SECOND);
    side->rate[round] = (double)side->answered / took;
    side->allowed[round] = (double)side->let_in / took;
    side->cpu[round] = (now_in(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (double)side->answered;
}

/* ---- Scenes ---- */

static void open_side(struct side *side, const struct scene *scene, const char *url) {
    steady_message why = {.text = ""};
    const bool embedded = side->url != NULL;
    const steady_throttler_options named = {.prefix = side->prefix};
    if (steady_poller_new(&side->poller) != 0) die("poller", "failed");
    const steady_loop loop = steady_poller_loop(side->poller);
    const steady_store_options options = {.loop = scene->on_loop ? &loop : NULL,
                                          .timeout = 10 * STEADY_SECOND,
                                          .buckets = embedded ? 8192 : 0, /* as many as the memory of denials */
                                          .lease_age = side->has_lease ? 100 * STEADY_MILLISECOND : 0,
                                          .deny_memory_off = !embedded && !side->has_memory,
                                          .deny_memory = side->source == STEADY_FROM_MEMORY ? 60 * STEADY_SECOND : 0};
    if (steady_store_open(&side->store, embedded ? side->url : url, &options, &why) != 0 ||
        steady_throttler_new(&side->throttler, side->store, &scene->limit, &named, &why) != 0)
        die("open", why.text);
}

/* Fills each bucket until it denies. */
static void fill(struct side *side, const struct scene *scene) {
    for (uint32_t i = 0; i < scene->keys; i++) {
        char key[KEY_LEN + 1];
        steady_result result;
        write_key(key, i);
        do
            if (steady_consume_sync(side->throttler, key, KEY_LEN, 1, &result) != 0) die("fill", "failed");
        while (result.success);
    }
}

static void close_side(struct side *side) {
    steady_throttler_free(&side->throttler);
    steady_store_close(&side->store);
    steady_poller_free(&side->poller);
}

static void reset(struct side *side, const struct scene *scene) {
    for (uint32_t i = 0; i < scene->keys; i++) {
        char key[KEY_LEN + 1];
        steady_result result;
        write_key(key, i);
        if (steady_reset_sync(side->throttler, key, KEY_LEN, &result) != 0) die("reset", "failed");
    }
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, compare);
    return values[n / 2];
}

static double value_of(struct side *side, const struct scene *scene, int rounds) {
    switch (scene->value) {
    case RATE: return median(side->rate, rounds);
    case ALLOWED: return median(side->allowed, rounds);
    case TIME: return median(side->cpu, rounds) * 1e9;
    default: return median(side->cpu, rounds) * 1e6;
    }
}

static void print_row(const struct scene *scene, struct side *ours, struct side *theirs, int rounds) {
    static const char *const units[] = {"/s", "/s", "ns", "us"}, *const goals[] = {">=", ">=", "<=", "<"};
    printf("{\"name\": \"%s\", \"title\": \"%s\", \"value\": %.3f, \"unit\": \"%s\", \"baseline\": %.3f, \"goal\": ",
           scene->name, scene->title, value_of(ours, scene, rounds), units[scene->value],
           value_of(theirs, scene, rounds));
    if (scene->goal > 0)
        printf("[\"%s\", %.2f]}\n", goals[scene->value], scene->goal);
    else
        printf("null}\n");
    fflush(stdout);
}

static void play(const struct scene *scene, struct side ours, struct side theirs, const char *url, int rounds) {
    struct side *sides[] = {&theirs, &ours};
    for (int i = 0; i < 2; i++) {
        open_side(sides[i], scene, url);
        reset(sides[i], scene);
        if (sides[i]->source == STEADY_FROM_MEMORY || sides[i]->url != NULL) fill(sides[i], scene);
        play_round(sides[i], scene, WARM_UP, 0);
    }
    if (scene->value == TIME) rounds *= SHORT_ROUNDS;
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < 2; i++)
            play_round(sides[i], scene, scene->value == TIME ? SHORT_ROUND : ROUND, round);
    print_row(scene, &ours, &theirs, rounds);
    steady_stats stats;
    steady_store_stats(ours.store, &stats);
    if (ours.has_lease && stats.from_lease == 0) die(scene->name, "there was no lease");
    close_side(&ours);
    close_side(&theirs);
}

static steady_limit per_second(int64_t drops, int64_t capacity) {
    const bool fast = drops > 1000000;
    return (steady_limit){.max_capacity = capacity,
                          .drop_recharge = fast ? STEADY_SECOND / 10 : STEADY_SECOND,
                          .drops = fast ? drops / 10 : drops};
}

int main(int argc, char **argv) {
    const struct side plain = {.prefix = "w:", .source = STEADY_FROM_STORE};
    const struct side leased = {.prefix = "l:", .has_lease = true, .has_memory = true, .source = STEADY_FROM_STORE};
    const struct side remembers = {.prefix = "m:", .has_memory = true, .source = STEADY_FROM_STORE};
    const struct side remembered = {.prefix = "m:", .has_memory = true, .source = STEADY_FROM_MEMORY};
    const struct side embedded = {.prefix = "e:", .url = "memory:", .source = STEADY_FROM_STORE};
    const steady_limit fast = per_second(10000000, 1000000), busy = per_second(100000, 10000),
                       slow = per_second(10, 10), full = {.max_capacity = 1, .drop_recharge = 3600 * STEADY_SECOND};
    const int rounds = argc > 2 ? atoi(argv[2]) : 0;
    if (rounds < 1 || rounds > ROUNDS_MAX) die("usage", "bench_hot URL ROUNDS");
    const struct {
        struct scene scene;
        struct side ours, theirs;
    } all[] = {
        {{"hot_lease_10m", "hot key, limit 10,000,000/s, decisions with a lease against without", fast, 1, false, false,
          RATE, 50},
         leased,
         plain},
        {{"hot_lease_100k", "hot key, limit 100,000/s, decisions with a lease against without", busy, 1, false, false,
          RATE, 10},
         leased,
         plain},
        {{"hot_lease_100k_allowed", "the same, allowed decisions, capacity included", busy, 1, false, false, ALLOWED,
          0},
         leased,
         plain},
        {{"hot_denial", "a denial from memory against the embedded store, one key", full, 1, false, false, TIME, 1.3},
         remembered,
         embedded},
        {{"hot_denial_1k", "the same, 1 k keys", full, KEYS, false, false, TIME, 1.3}, remembered, embedded},
        {{"hot_attack", "client CPU of a request over its limit of 10/s, some 50,000/s, against without the memory",
          slow, 1, true, false, CPU, 1.0},
         remembers,
         plain},
        {{"hot_attack_loop", "the same on a loop", slow, 1, true, true, CPU, 1.0}, remembers, plain},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        play(&all[i].scene, all[i].ours, all[i].theirs, argv[1], rounds);
    return 0;
}
