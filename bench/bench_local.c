/* SPDX-License-Identifier: MIT
 * Measures the embedded store against a lower limit: a clock read and an atomic update of a random cache line in
 * as much memory. Rounds alternate; the medians count. The time is that of the processor, so other programs on the
 * machine count less.
 *
 * Then it takes the decision on one hot key apart: each stage does what the stage before does, and one thing more. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "local/table.h"
#include "steady.h"

#define ROUNDS 9
#define ROUND_NS 100000000
#define BATCH 10000 /* the time of a thread is a system call */
#define THREADS_MAX 2
#define CACHE_LINE 64

struct scene {
    const char *name;
    const char *title;
    uint32_t keys;
    uint32_t buckets; /* 0: the default */
    int threads;
    double goal; /* of the ratio; 0: none */
    double most; /* ns, the goal of the value itself; 0: none */
};

static const struct scene scenes[] = {
    {"local_hot_1t", "1 hot key, 1 thread", 1, 1024, 1, 0, 55},
    {"local_1k_1t", "1 k keys, 1 thread", 1000, 0, 1, 0, 55},
    {"local_1k_full_1t", "1 k keys in a table for 1 k, 1 thread", 1000, 1024, 1, 0, 55},
    {"local_1m_1t", "1 M keys, 1 thread", 1000000, 0, 1, 2.0, 0},
    {"local_hot_2t", "1 hot key, 2 threads", 1, 1024, 2, 0, 0},
    {"local_1k_2t", "1 k keys, 2 threads", 1000, 0, 2, 0, 0},
    {"local_1m_2t", "1 M keys, 2 threads", 1000000, 0, 2, 2.0, 0},
};

/* What a thread does again and again. */
enum stage { KEY, HASH, CLOCK, SWAP, SLOT, BASELINE, CONSUME };

/* The work of a thread, and its result. */
struct work {
    const struct scene *scene;
    enum stage stage;
    steady_throttler *throttler;       /* CONSUME */
    const struct steady__table *table; /* up to SLOT: in `memory` */
    unsigned char *memory;
    uint64_t lines;
    uint64_t used; /* lines, as many as there are keys, evenly in the memory */
    uint64_t random;
    atomic_bool *go;
    double ns;
};

static int64_t ns_of_thread(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(*state >> 32);
}

static uint32_t pick(uint64_t *state, uint64_t count) { return (uint32_t)(next_random(state) * count >> 32); }

#define KEY_LEN 13

/* "user:" and eight hexadecimal digits. */
static inline void write_key(char key[KEY_LEN + 1], uint32_t number) {
    static const char digits[] = "0123456789abcdef";
    memcpy(key, "user:", 5);
    for (int i = 0; i < 8; i++)
        key[5 + i] = digits[number >> (28 - 4 * i) & 15];
}

/* The baseline writes the key, too. So the ratio does not contain that cost. */
static inline void one_baseline(const struct work *w, uint64_t *random) {
    char key[KEY_LEN + 1];
    struct timespec t;
    write_key(key, pick(random, w->scene->keys));
    __asm__ volatile("" : : "r"(key) : "memory");
    const uint64_t line = pick(random, w->used) * (w->lines / w->used);
    clock_gettime(CLOCK_BOOTTIME, &t);
    atomic_fetch_add((_Atomic uint64_t *)(void *)(w->memory + line * CACHE_LINE), (uint64_t)t.tv_nsec);
}

static inline void one_consume(const struct work *w, uint64_t *random) {
    char key[KEY_LEN + 1];
    steady_result result;
    write_key(key, pick(random, w->scene->keys));
    if (steady_consume_sync(w->throttler, key, KEY_LEN, 1, &result) != 0 || !result.success) abort();
}

static inline int64_t us_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* A stage of the store's own way through a consume. */
__attribute__((always_inline)) static inline void one_stage(const struct work *w, uint64_t *random, enum stage stage) {
    static const unsigned char hash_key[STEADY__SIPHASH_KEY] = {1, 2, 3};
    static const struct steady__rate rate = {1000000000, STEADY_SECOND, 1, 0};
    struct steady__siphash half;
    struct steady__answer answer;
    unsigned __int128 *slot = (void *)w->memory;
    char key[KEY_LEN + 1];
    write_key(key, pick(random, w->scene->keys));
    __asm__ volatile("" : : "r"(key) : "memory");
    if (stage == KEY) return;
    const uint64_t first = steady__siphash_first(&half, hash_key, key, KEY_LEN);
    if (stage == SLOT) {
        struct steady__ask ask = {.place = steady__table_place(w->table, (struct steady__hash){{first, 0}}),
                                  .rate = &rate,
                                  .amount = 1,
                                  .now = us_now()};
        ask.place.tag = steady__siphash_second(&half);
        if (!steady__table_decide(&ask, &answer)) abort();
        return;
    }
    const int64_t now = stage >= CLOCK ? us_now() : 0;
    const uint64_t second = steady__siphash_second(&half);
    __asm__ volatile("" : : "r"(first), "r"(second), "r"(now));
    if (stage == SWAP) __sync_bool_compare_and_swap(slot, *slot, *slot + 1);
}

/* The stage is a constant where this is inlined, so each stage has a loop of its own. */
__attribute__((always_inline)) static inline void repeat(struct work *w, enum stage stage) {
    uint64_t random = w->random; /* in a register: a load would wait for the compare-and-swap */
    for (int i = 0; i < BATCH; i++)
        if (stage == CONSUME)
            one_consume(w, &random);
        else if (stage == BASELINE)
            one_baseline(w, &random);
        else
            one_stage(w, &random, stage);
    w->random = random;
}

static void batch(struct work *w) {
    switch (w->stage) {
    case KEY: repeat(w, KEY); break;
    case HASH: repeat(w, HASH); break;
    case CLOCK: repeat(w, CLOCK); break;
    case SWAP: repeat(w, SWAP); break;
    case SLOT: repeat(w, SLOT); break;
    case BASELINE: repeat(w, BASELINE); break;
    case CONSUME: repeat(w, CONSUME); break;
    }
}

static void *run(void *arg) {
    struct work *w = arg;
    int64_t start, end;
    uint64_t count = 0;
    while (!atomic_load(w->go))
        ;
    start = ns_of_thread();
    do {
        batch(w);
        count += BATCH;
        end = ns_of_thread();
    } while (end - start < ROUND_NS);
    w->ns = (double)(end - start) / (double)count;
    return NULL;
}

/* ns for an operation, as the mean of the threads. */
static double round_of(const struct scene *scene, enum stage stage, steady_throttler *throttler, unsigned char *memory,
                       size_t size, uint64_t seed) {
    pthread_t threads[THREADS_MAX];
    struct work work[THREADS_MAX];
    atomic_bool go = false;
    struct steady__table table;
    double sum = 0;
    steady__table_init(&table, memory, scene->buckets);
    for (int i = 0; i < scene->threads; i++) {
        work[i] = (struct work){.scene = scene,
                                .stage = stage,
                                .table = &table,
                                .throttler = throttler,
                                .memory = memory,
                                .lines = size / CACHE_LINE,
                                .used = scene->keys < size / CACHE_LINE ? scene->keys : size / CACHE_LINE,
                                .random = seed + (uint64_t)i * 77777,
                                .go = &go};
        if (pthread_create(&threads[i], NULL, run, &work[i]) != 0) abort();
    }
    atomic_store(&go, true);
    for (int i = 0; i < scene->threads; i++) {
        pthread_join(threads[i], NULL);
        sum += work[i].ns;
    }
    return sum / scene->threads;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count) {
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

static unsigned char *get_memory(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    madvise(memory, size, MADV_HUGEPAGE);
    memset(memory, 0, size);
    return memory;
}

static void fill(steady_throttler *throttler, uint32_t keys) {
    for (uint32_t i = 0; i < keys; i++) {
        char key[KEY_LEN + 1];
        steady_result result;
        write_key(key, i);
        if (steady_consume_sync(throttler, key, KEY_LEN, 1, &result) != 0) abort();
    }
}

/* Prints a line for scripts/bench. */
static void report(const struct scene *scene, double value, double baseline, uint64_t overflowed) {
    printf("{\"name\": \"%s\", \"title\": \"embedded, %s\", \"value\": %.1f, \"unit\": \"ns\", \"baseline\": %.1f",
           scene->name, scene->title, value, baseline);
    if (scene->goal > 0) printf(", \"goal\": %.1f", scene->goal);
    if (scene->most > 0) printf(", \"most\": %.1f", scene->most);
    if (overflowed > 0) printf(", \"overflowed\": %llu", (unsigned long long)overflowed);
    printf("}\n");
    fflush(stdout);
}

static void play(const struct scene *scene) {
    const steady_store_options options = {.buckets = scene->buckets};
    const steady_limit limit = {.max_capacity = 1000000000, .drop_recharge = STEADY_SECOND};
    const size_t size = steady__table_bytes(scene->buckets != 0 ? scene->buckets : 1 << 20);
    steady_store *store = NULL;
    steady_throttler *throttler = NULL;
    steady_stats stats;
    steady_message why;
    double ours[ROUNDS], theirs[ROUNDS];
    if (steady_store_open(&store, "memory:", &options, &why) != 0) abort();
    if (steady_throttler_new(&throttler, store, &limit, NULL, &why) != 0) abort();
    unsigned char *memory = get_memory(size);
    fill(throttler, scene->keys);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        theirs[i] = round_of(scene, BASELINE, NULL, memory, size, i);
        ours[i] = round_of(scene, CONSUME, throttler, memory, size, i);
    }
    steady_store_stats(store, &stats);
    report(scene, median(ours, ROUNDS), median(theirs, ROUNDS), stats.overflowed);
    munmap(memory, size);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static void take_apart(void) {
    static const struct scene scene = {"local_part", "", 1, 1024, 1, 0, 0};
    static const char *const titles[] = {[KEY] = "the loop, which writes the key",
                                         [HASH] = "and the hash",
                                         [CLOCK] = "and the clock read",
                                         [SWAP] = "and a bare compare-and-swap",
                                         [SLOT] = "and the slot and the bucket around the swap"};
    const size_t size = steady__table_bytes(scene.buckets);
    unsigned char *memory[SLOT + 1];
    double ns[SLOT + 1][ROUNDS];
    for (enum stage stage = KEY; stage <= SLOT; stage++)
        memory[stage] = get_memory(size);
    for (uint64_t i = 0; i < ROUNDS; i++)
        for (enum stage stage = KEY; stage <= SLOT; stage++)
            ns[stage][i] = round_of(&scene, stage, NULL, memory[stage], size, i);
    for (enum stage stage = KEY; stage <= SLOT; stage++) {
        printf("{\"name\": \"local_part_%d\", \"title\": \"embedded, 1 hot key: %s\", \"value\": %.1f, "
               "\"unit\": \"ns\"}\n",
               (int)stage, titles[stage], median(ns[stage], ROUNDS));
        munmap(memory[stage], size);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++)
        play(&scenes[i]);
    take_apart();
    return 0;
}
