/* SPDX-License-Identifier: MIT
 * What core/parts.c promises about a history of calls, by random histories: the bounds on starts and on true costs,
 * exact waits, the order of starts, and the promise of settle. Each test looks only at answers and stored buckets.
 *
 * The start of a call is its moment plus its wait. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "parts_rig.h"

#define NOW INT64_C(1764000000000000)
#define STEPS 70

/* What one call took from one bucket. */
struct entry {
    size_t bucket;
    enum steady__kind kind;
    int64_t moment, start;
    int64_t granted;
    int64_t actual; /* the true cost that settle will name, if it comes */
    int64_t cost;   /* the true cost once it is settled; until then `granted` */
    bool open;
};

struct drain {
    size_t bucket;
    int64_t moment, taken;
};

enum give_back { NEVER, IF_NOBODY_WAITS, ANY_TIME };

struct options {
    size_t buckets; /* a call takes from some of them */
    bool small;     /* limits */
    bool waits, charges, overruns;
    enum give_back give_back, drains;
};

struct history {
    struct options options;
    uint64_t seed;
    struct steady__rate rates[BUCKETS];
    struct steady__bucket buckets[BUCKETS];
    int64_t now;
    struct entry entries[STEPS * BUCKETS];
    size_t n;
    struct drain drains[STEPS];
    size_t n_drains;
    int64_t last_start, longest_wait;
    /* The content of each bucket if every cost had been known, and the overruns that are not charged yet. */
    wide known[BUCKETS], open_overruns[BUCKETS];
};

static void history_call(struct history *h) {
    struct steady__part parts[BUCKETS];
    struct steady__bucket buckets[BUCKETS];
    struct steady__part_decision each[BUCKETS];
    struct steady__how how = {0};
    struct steady__verdict verdict;
    size_t order[BUCKETS];
    const size_t n = (size_t)random_in(&h->seed, 1, (int64_t)h->options.buckets);
    const bool partial = random_next(&h->seed) % 6 == 0;
    shuffle(&h->seed, order, h->options.buckets);
    for (size_t i = 0; i < n; i++) {
        const struct steady__rate *rate = &h->rates[order[i]];
        const int64_t level = (int64_t)ceil_div(content_of(&h->buckets[order[i]], rate, h->now), rate->recharge);
        buckets[i] = h->buckets[order[i]];
        parts[i] = (struct steady__part){rate, some_amount(&h->seed, rate, level), STEADY__TAKE};
        if (!h->options.small && parts[i].amount > rate->capacity) parts[i].amount = rate->capacity;
        if (random_next(&h->seed) % 4 == 0) parts[i].kind = (enum steady__kind)random_in(&h->seed, 0, 3);
        if (parts[i].kind == STEADY__CHARGE && !h->options.charges) parts[i].kind = STEADY__TAKE;
        if (parts[i].kind == STEADY__CHARGE) parts[i].amount = random_in(&h->seed, 1, rate->capacity);
        if (partial) parts[i].amount = parts[0].amount, parts[i].kind = STEADY__TAKE;
    }
    if (partial) how.at_least = random_in(&h->seed, 1, parts[0].amount);
    if (h->options.waits) how.max_wait = some_max_wait(&h->seed, parts[0].rate);
    if (how.max_wait > STEADY__EXACT / 8) how.max_wait = h->options.small ? 1000 : STEADY__EXACT / 8;
    steady__parts_decide(parts, n, &how, h->now, buckets, each, &verdict);
    for (size_t i = 0; i < n; i++) {
        h->buckets[order[i]] = buckets[i];
        if (each[i].granted == 0) continue;
        struct entry *e = &h->entries[h->n++];
        *e = (struct entry){.bucket = order[i],
                            .kind = parts[i].kind,
                            .moment = h->now,
                            .start = h->now + verdict.wait,
                            .granted = each[i].granted,
                            .cost = each[i].granted,
                            .actual = random_in(&h->seed, 0, each[i].granted),
                            .open = h->options.give_back != NEVER || h->options.overruns};
        if (random_next(&h->seed) % 3 == 0) e->actual = 0;
        if (h->options.overruns && random_next(&h->seed) % 3 == 0) e->actual = e->granted + random_in(&h->seed, 1, 5);
        h->known[order[i]] += (wide)e->actual * parts[i].rate->recharge;
        if (e->actual > e->granted)
            h->open_overruns[order[i]] += (wide)(e->actual - e->granted) * parts[i].rate->recharge;
        if (e->start > h->last_start) h->last_start = e->start;
        if (verdict.wait > h->longest_wait) h->longest_wait = verdict.wait;
    }
}

static void history_settle(struct history *h, struct entry *e) {
    const bool gives_back = e->actual < e->granted;
    if (!e->open || (gives_back && h->options.give_back == NEVER)) return;
    if (gives_back && h->options.give_back == IF_NOBODY_WAITS && h->now < h->last_start) return;
    const struct steady__settlement s = {&h->rates[e->bucket], true, e->granted, e->moment, e->actual};
    struct steady__settled settled;
    steady__settle(&s, h->now, &h->buckets[e->bucket], &settled);
    e->open = false;
    e->cost = e->actual;
    if (gives_back) return;
    assert_int_equal(settled.charged, e->actual - e->granted);
    h->open_overruns[e->bucket] -= (wide)settled.charged * s.rate->recharge;
}

static void history_drain(struct history *h) {
    const size_t i = (size_t)random_in(&h->seed, 0, (int64_t)h->options.buckets - 1);
    const struct steady__part part = {&h->rates[i], -random_in(&h->seed, 1, 4), STEADY__TAKE};
    struct steady__part_decision each;
    struct steady__verdict verdict;
    if (h->options.drains == IF_NOBODY_WAITS && h->now < h->last_start) return;
    steady__parts_decide(&part, 1, &(struct steady__how){0}, h->now, &h->buckets[i], &each, &verdict);
    h->drains[h->n_drains++] = (struct drain){i, h->now, -part.amount};
}

static void history_pause(struct history *h) {
    const size_t i = (size_t)random_in(&h->seed, 0, (int64_t)h->options.buckets - 1);
    int64_t pause = some_pause(&h->seed, &h->rates[i], &h->buckets[i], h->now);
    if (random_next(&h->seed) % 8 == 0 && h->last_start > h->now) pause = h->last_start - h->now;
    if (h->now + pause >= STEADY__BLOCK_LIMIT) return;
    h->now += pause;
    for (size_t b = 0; b < h->options.buckets; b++)
        h->known[b] = wide_max(0, h->known[b] - (wide)pause * h->rates[b].drops);
}

/* The content is never below that of the bucket that knew the costs. An overrun counts as soon as it is charged. */
static void assert_never_below_the_known_costs(const struct history *h) {
    for (size_t i = 0; i < h->options.buckets; i++)
        assert_true(content_of(&h->buckets[i], &h->rates[i], h->now) + h->open_overruns[i] >= h->known[i]);
}

static void history_make(struct history *h, const struct options *options, uint64_t seed) {
    memset(h, 0, sizeof *h);
    h->options = *options;
    h->seed = seed;
    h->now = h->last_start = NOW;
    for (size_t i = 0; i < options->buckets; i++)
        h->rates[i] = options->small ? small_rate(&h->seed) : any_rate(&h->seed);
    for (int step = 0; step < STEPS; step++) {
        switch (random_next(&h->seed) % 8) {
        case 0:
        case 1:
        case 2:
            if (h->n > 0)
                history_settle(h,
                               &h->entries[random_in(&h->seed, h->n > 8 ? (int64_t)h->n - 8 : 0, (int64_t)h->n - 1)]);
            break;
        case 3:
            if (options->drains != NEVER) history_drain(h);
            break;
        default: history_call(h); break;
        }
        if (options->drains == NEVER) assert_never_below_the_known_costs(h);
        history_pause(h);
    }
}

/* ---- The bounds ---- */

/* How close a history came to a bound. */
struct tightness {
    long windows, met; /* met: with equality */
};

static int by_start(const void *a, const void *b) {
    const struct entry *one = a, *other = b;
    return one->start < other->start ? -1 : one->start > other->start;
}

/* Checks all windows that begin at a start and end at a start. In a window W the takes of a bucket cost at most
 *     capacity + (W + slack) * drops / recharge
 *     + what a single call took beyond the capacity + the overruns + the drains since `slack` before the window. */
static bool bound_holds(const struct history *h, size_t bucket, int64_t slack, struct tightness *tightness) {
    const struct steady__rate *rate = &h->rates[bucket];
    struct entry sorted[STEPS * BUCKETS];
    size_t n = 0;
    for (size_t i = 0; i < h->n; i++)
        if (h->entries[i].bucket == bucket && h->entries[i].kind == STEADY__TAKE) sorted[n++] = h->entries[i];
    qsort(sorted, n, sizeof *sorted, by_start);
    for (size_t from = 0; from < n; from++) {
        wide cost = 0, beyond = 0, overrun = 0;
        for (size_t to = from; to < n; to++) {
            const struct entry *e = &sorted[to];
            cost += e->cost;
            beyond = wide_max(beyond, e->granted - rate->capacity);
            overrun += wide_max(0, e->cost - e->granted);
            if (to + 1 < n && sorted[to + 1].start == e->start) continue;
            const int64_t begin = sorted[from].start;
            wide drained = 0;
            for (size_t i = 0; i < h->n_drains; i++)
                if (h->drains[i].bucket == bucket && h->drains[i].moment >= begin - slack &&
                    h->drains[i].moment <= e->start)
                    drained += h->drains[i].taken;
            const wide over = (cost - rate->capacity - beyond - overrun - drained) * rate->recharge;
            const wide allowed = ((wide)e->start - begin + slack) * rate->drops;
            if (over > allowed) return false;
            tightness->windows++;
            tightness->met += over == allowed;
        }
    }
    return true;
}

static void print_history(const struct history *h) {
    for (size_t i = 0; i < h->options.buckets; i++)
        print_error("bucket %zu: capacity %" PRId64 " recharge %" PRId64 " drops %" PRId64 "\n", i,
                    h->rates[i].capacity, h->rates[i].recharge, h->rates[i].drops);
    for (size_t i = 0; i < h->n; i++)
        print_error("at %" PRId64 " bucket %zu kind %d granted %" PRId64 " start %" PRId64 " cost %" PRId64 "\n",
                    h->entries[i].moment - NOW, h->entries[i].bucket, (int)h->entries[i].kind, h->entries[i].granted,
                    h->entries[i].start - NOW, h->entries[i].cost);
}

static void assert_bound_holds(const struct history *h, int64_t slack, struct tightness *tightness) {
    for (size_t i = 0; i < h->options.buckets; i++) {
        if (bound_holds(h, i, slack, tightness)) continue;
        print_history(h);
        fail_msg("bucket %zu lets more start than the bound", i);
    }
}

static void starts_of_a_bucket_asked_alone_stay_within_the_bound(void **state) {
    (void)state;
    struct tightness with_drops = {0}, with_rates = {0};
    struct history h;
    long plain_broken = 0;
    for (int round = 1; round <= rounds(6000); round++) {
        const struct options options = {.buckets = 1,
                                        .small = round % 4 != 0,
                                        .waits = true,
                                        .charges = round % 2,
                                        .give_back = round % 3 ? IF_NOBODY_WAITS : NEVER};
        history_make(&h, &options, (uint64_t)round);
        if (h.rates[0].drops == 1) {
            assert_bound_holds(&h, 0, &with_drops);
        } else {
            assert_bound_holds(&h, 1, &with_rates);
            plain_broken += !bound_holds(&h, 0, 0, &(struct tightness){0});
        }
    }
    assert_true(with_drops.met > 1000); /* the bound is sharp */
    assert_true(plain_broken > 0);      /* and a rate needs the us more */
}

static void starts_of_several_parts_stay_within_the_bound_and_the_longest_wait(void **state) {
    (void)state;
    struct tightness tightness = {0};
    struct history h;
    long plain_broken = 0;
    for (int round = 1; round <= rounds(4000); round++) {
        const struct options options = {.buckets = 1 + (size_t)round % BUCKETS,
                                        .small = round % 4 != 0,
                                        .waits = true,
                                        .charges = round % 2,
                                        .give_back = ANY_TIME};
        history_make(&h, &options, (uint64_t)round);
        assert_bound_holds(&h, h.longest_wait, &tightness);
        plain_broken += !bound_holds(&h, 0, 1, &(struct tightness){0});
    }
    assert_true(tightness.met > 100);
    assert_true(plain_broken > 100);
}

/* Without waits a call starts at its moment. */
static void true_costs_without_waits_stay_within_the_bound(void **state) {
    (void)state;
    struct tightness tightness = {0};
    struct history h;
    for (int round = 1; round <= rounds(4000); round++) {
        const struct options options = {.buckets = 1 + (size_t)round % BUCKETS,
                                        .small = round % 4 != 0,
                                        .overruns = round % 4 == 1,
                                        .give_back = ANY_TIME};
        history_make(&h, &options, (uint64_t)round);
        assert_int_equal(h.longest_wait, 0);
        assert_bound_holds(&h, 0, &tightness);
    }
    assert_true(tightness.met > 1000);
}

/* The overruns of the calls in the window raise the bounds on starts. */
static void overruns_raise_the_bound_of_starts_by_what_they_are(void **state) {
    (void)state;
    struct tightness tightness = {0};
    struct history h;
    for (int round = 1; round <= rounds(4000); round++) {
        const struct options options = {.buckets = 1 + (size_t)round % 2,
                                        .small = true,
                                        .waits = true,
                                        .overruns = true,
                                        .give_back = round % 2 ? ANY_TIME : IF_NOBODY_WAITS};
        history_make(&h, &options, (uint64_t)round);
        assert_bound_holds(&h, options.buckets == 1 ? h.rates[0].drops > 1 : h.longest_wait, &tightness);
    }
    assert_true(tightness.met > 100);
}

/* Without settlements: one that follows a drain may give back too much. */
static void drains_raise_the_bound_by_what_they_take_out(void **state) {
    (void)state;
    struct tightness tightness = {0};
    struct history h;
    for (int round = 1; round <= rounds(4000); round++) {
        const struct options options = {.buckets = 1 + (size_t)round % 2,
                                        .small = true,
                                        .waits = true,
                                        .drains = round % 2 ? ANY_TIME : IF_NOBODY_WAITS};
        history_make(&h, &options, (uint64_t)round);
        assert_bound_holds(&h, options.drains == IF_NOBODY_WAITS ? h.rates[0].drops > 1 : h.longest_wait, &tightness);
    }
    assert_true(tightness.met > 100);
}

/* Calls that take. A look puts nothing in, so a later call may start before it. */
static void calls_on_one_bucket_start_in_their_order(void **state) {
    (void)state;
    struct history h;
    long waited = 0;
    for (int round = 1; round <= rounds(3000); round++) {
        const struct options options = {.buckets = 1, .small = round % 4 != 0, .waits = true, .charges = round % 2};
        history_make(&h, &options, (uint64_t)round);
        int64_t before = NOW;
        for (size_t i = 0; i < h.n; i++) {
            if (h.entries[i].kind != STEADY__TAKE) continue;
            assert_true(h.entries[i].start >= before);
            before = h.entries[i].start;
            waited += h.entries[i].start > h.entries[i].moment;
        }
    }
    assert_true(waited > 1000);
}

/* history_make compares after each step. */
static void settled_bucket_is_never_below_the_bucket_that_knew_the_costs(void **state) {
    (void)state;
    struct history h;
    for (int round = 1; round <= rounds(8000); round++) {
        const bool small = round % 4 != 0;
        const struct options options = {.buckets = 1 + (size_t)round % BUCKETS,
                                        .small = small,
                                        .waits = round % 3 != 0,
                                        .charges = true,
                                        .overruns = small && round % 2,
                                        .give_back = ANY_TIME};
        history_make(&h, &options, (uint64_t)round);
    }
}

/* ---- Exact waits ---- */

/* A bucket somewhere below, at or over its capacity, perhaps blocked. */
static struct steady__bucket some_bucket(uint64_t *seed, const struct steady__rate *rate) {
    const int64_t most =
        (int64_t)wide_min(top_of(rate), random_next(seed) % 2 ? rate->capacity : 3 * (wide)rate->capacity);
    return (struct steady__bucket){.level = random_in(seed, random_next(seed) % 2 ? most / 2 : 0, most),
                                   .last = NOW - random_in(seed, 0, rate->recharge / rate->drops),
                                   .blocked_until = random_next(seed) % 6 ? 0 : NOW + random_in(seed, 1, 50)};
}

/* The answer of the call at `when`. The buckets stay as they are. */
static struct steady__verdict ask(const struct steady__part *parts, size_t n, const struct steady__how *how,
                                  int64_t when, const struct steady__bucket *stored) {
    struct steady__bucket buckets[BUCKETS];
    struct steady__part_decision each[BUCKETS];
    struct steady__verdict verdict;
    memcpy(buckets, stored, sizeof buckets);
    steady__parts_decide(parts, n, how, when, buckets, each, &verdict);
    return verdict;
}

static void retry_after_of_a_call_is_exact(void **state) {
    (void)state;
    uint64_t seed = 1;
    long denied = 0, never = 0;
    for (int round = 0; round < rounds(200000); round++) {
        struct steady__rate rates[BUCKETS];
        struct steady__part parts[BUCKETS];
        struct steady__bucket buckets[BUCKETS] = {0};
        struct steady__part_decision each[BUCKETS];
        struct steady__how how = {0};
        struct steady__verdict verdict;
        const size_t n = (size_t)random_in(&seed, 1, BUCKETS);
        const bool partial = random_next(&seed) % 4 == 0;
        for (size_t i = 0; i < n; i++) {
            rates[i] = round % 3 ? small_rate(&seed) : any_rate(&seed);
            buckets[i] = some_bucket(&seed, &rates[i]);
            parts[i] = (struct steady__part){&rates[i], some_amount(&seed, &rates[i], buckets[i].level),
                                             (enum steady__kind)(random_next(&seed) % 2 ? 0 : random_in(&seed, 0, 3))};
            if (partial) parts[i] = (struct steady__part){&rates[i], parts[0].amount, STEADY__TAKE};
        }
        if (partial) how.at_least = random_in(&seed, 1, parts[0].amount);
        how.max_wait = some_max_wait(&seed, &rates[0]);
        steady__parts_decide(parts, n, &how, NOW, buckets, each, &verdict);
        if (verdict.success) continue;
        denied++;
        if (verdict.retry_after == -1) {
            never++;
            assert_false(ask(parts, n, &how, STEADY__EXACT - 1, buckets).success);
            memset(buckets, 0, sizeof buckets);
            assert_false(ask(parts, n, &how, NOW, buckets).success);
            continue;
        }
        assert_true(verdict.retry_after > 0);
        if (NOW + verdict.retry_after >= STEADY__EXACT) continue;
        assert_false(ask(parts, n, &how, NOW + verdict.retry_after - 1, buckets).success);
        assert_true(ask(parts, n, &how, NOW + verdict.retry_after, buckets).success);
    }
    assert_true(denied > 10000 && never > 10000);
}

/* After the wait the level, with the drops of the call, is no more than the capacity; 1 us before it is more. */
static void wait_of_a_call_is_exact(void **state) {
    (void)state;
    uint64_t seed = 2;
    long waited = 0;
    for (int round = 0; round < rounds(200000); round++) {
        const struct steady__rate rate = round % 3 ? small_rate(&seed) : any_rate(&seed);
        struct steady__bucket b = some_bucket(&seed, &rate);
        const struct steady__part part = {&rate, some_amount(&seed, &rate, b.level), STEADY__TAKE};
        const struct steady__how how = {.max_wait = some_max_wait(&seed, &rate)};
        struct steady__part_decision each;
        struct steady__verdict verdict;
        steady__parts_decide(&part, 1, &how, NOW, &b, &each, &verdict);
        if (!verdict.success || verdict.wait == 0 || NOW + verdict.wait >= STEADY__EXACT) continue;
        const wide full = (wide)rate.capacity * rate.recharge;
        assert_true(content_of(&b, &rate, NOW + verdict.wait) <= full);
        assert_true(content_of(&b, &rate, NOW + verdict.wait - 1) > full);
        waited++;
    }
    assert_true(waited > 10000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_of_a_bucket_asked_alone_stay_within_the_bound),
        cmocka_unit_test(starts_of_several_parts_stay_within_the_bound_and_the_longest_wait),
        cmocka_unit_test(true_costs_without_waits_stay_within_the_bound),
        cmocka_unit_test(overruns_raise_the_bound_of_starts_by_what_they_are),
        cmocka_unit_test(drains_raise_the_bound_by_what_they_take_out),
        cmocka_unit_test(calls_on_one_bucket_start_in_their_order),
        cmocka_unit_test(settled_bucket_is_never_below_the_bucket_that_knew_the_costs),
        cmocka_unit_test(retry_after_of_a_call_is_exact),
        cmocka_unit_test(wait_of_a_call_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
