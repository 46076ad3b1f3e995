/* SPDX-License-Identifier: MIT
 * The world of one seed: a heap of events, a seeded generator, a hash of the history. */
#include "world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../random.h"

#define EVENTS_MAX 1048576
#define HAPPENINGS_MAX 2000000 /* events of a seed; a seed with more does not end */
#define MEMORY ((size_t)64 << 20)

struct event {
    steady_us when;
    uint64_t tie;
    void (*run)(void *arg);
    void *arg;
};

struct world world;

static struct event heap[EVENTS_MAX];
static size_t count;
static _Alignas(16) char memory[MEMORY];
static size_t used;

void world_begin(uint64_t seed, bool verbose) {
    world = (struct world){.seed = seed, .verbose = verbose, .hash = seed};
    /* Spread the seeds: xorshift works badly with small seeds. */
    world.chance = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 0; i < 8; i++)
        random_next(&world.chance);
    count = 0;
    used = 0;
}

void *keep(size_t size) {
    void *block = memory + used;
    size = (size + 15) & ~(size_t)15;
    if (size > MEMORY - used) broken("the simulation needs more than %zu bytes", MEMORY);
    used += size;
    return memset(block, 0, size);
}

/* ---- Chance ---- */

int64_t between(int64_t low, int64_t high) { return random_in(&world.chance, low, high); }
bool one_in(int64_t n) { return between(1, n) == 1; }

steady_us any_scale(steady_us low, steady_us high) {
    steady_us most = low;
    while (most < high && !one_in(4))
        most = most * 4 < high ? most * 4 : high;
    return between(low, most);
}

/* ---- Events ---- */

static bool before(const struct event *a, const struct event *b) {
    return a->when != b->when ? a->when < b->when : a->tie < b->tie;
}

void at(steady_us when, void (*run)(void *arg), void *arg) {
    const struct event event = {when > world.now ? when : world.now, random_next(&world.chance), run, arg};
    if (count == EVENTS_MAX) broken("more than %d events are to come", EVENTS_MAX);
    size_t i = count++;
    while (i > 0 && before(&event, &heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = event;
}

static struct event take_first(void) {
    const struct event first = heap[0];
    const struct event last = heap[--count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < count && before(&heap[child + 1], &heap[child])) child++;
        if (child >= count || !before(&heap[child], &last)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return first;
}

static void run_next(void) {
    const struct event event = take_first();
    world.now = event.when;
    if (++world.happened > HAPPENINGS_MAX) broken("it does not come to rest");
    event.run(event.arg);
}

void world_run_until(steady_us when) {
    while (count > 0 && heap[0].when <= when)
        run_next();
    world.now = when;
}

void world_run_out(void) {
    while (count > 0)
        run_next();
}

/* ---- History ---- */

static void mix(uint64_t number) {
    world.hash = (world.hash ^ number) * UINT64_C(0x9fb21c651e98df25);
    world.hash ^= world.hash >> 29;
}

void note(const char *what, int64_t a, int64_t b, int64_t c) {
    mix((uint64_t)world.now);
    for (const char *at_ = what; *at_ != '\0'; at_++)
        mix((uint64_t)*at_);
    mix((uint64_t)a);
    mix((uint64_t)b);
    mix((uint64_t)c);
    if (!world.verbose) return;
    printf("%4" PRId64 ".%06" PRId64 "  %-34s %" PRId64 " %" PRId64 " %" PRId64 "\n", world.now / 1000000,
           world.now % 1000000, what, a, b, c);
}

void broken(const char *format, ...) {
    va_list list;
    fflush(stdout);
    printf("not ok - seed %" PRIu64 " at %" PRId64 ".%06" PRId64 ": ", world.seed, world.now / 1000000,
           world.now % 1000000);
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf("\n# build/sim --seed %" PRIu64 " --verbose tells its history\n", world.seed);
    fflush(stdout);
    _Exit(1);
}
