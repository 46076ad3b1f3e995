/* SPDX-License-Identifier: MIT
 * core/parts.c against a plain model, by random calls and settlements on random buckets.
 *
 * A bucket of the model is one number, its content: what has yet to leak, in 1/drops us. The level is the content in
 * drops, rounded up. The model finds waits and grants by trying them; parts.c computes them. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "parts_rig.h"

#define NOW INT64_C(1764000000000000)

struct model {
    wide content;
    int64_t at, blocked_until;
};

static struct model model_at(struct model b, const struct steady__rate *rate, int64_t now) {
    b.content = wide_max(0, b.content - (wide)(now - b.at) * rate->drops);
    b.at = now;
    if (b.blocked_until <= now) b.blocked_until = 0;
    return b;
}

static int64_t model_level(const struct model *b, const struct steady__rate *rate) {
    return (int64_t)ceil_div(b->content, rate->recharge);
}

/* Whether n more drops are no more than the capacity after `wait` us. */
static bool model_has_room(const struct model *b, const struct steady__rate *rate, int64_t n, int64_t wait) {
    return b->content + (wide)n * rate->recharge - (wide)wait * rate->drops <= (wide)rate->capacity * rate->recharge;
}

static bool model_fits(const struct model *b, const struct steady__rate *rate, int64_t n, int64_t max_wait) {
    return b->blocked_until == 0 && model_level(b, rate) + n <= top_of(rate) && model_has_room(b, rate, n, max_wait);
}

/* A call on the model, and its answer. `asked` is the amount that has to fit. */
struct call {
    struct steady__part parts[BUCKETS];
    size_t where[BUCKETS]; /* the bucket of each part */
    size_t n;
    struct steady__how how;
};

struct answer {
    struct steady__verdict verdict;
    struct steady__part_decision each[BUCKETS];
};

static bool votes(const struct steady__part *part) { return part->kind == STEADY__TAKE || part->kind == STEADY__LOOK; }

static int64_t asked_of(const struct call *call, size_t i) {
    return call->how.at_least > 0 ? call->how.at_least : call->parts[i].amount;
}

static bool is_idle(const struct call *call) {
    for (size_t i = 0; i < call->n; i++)
        if (call->parts[i].amount != 0) return false;
    return true;
}

static bool model_allows(const struct call *call, size_t i, const struct model *b) {
    if (is_idle(call)) return b->blocked_until == 0;
    const int64_t n = asked_of(call, i);
    return call->parts[i].kind == STEADY__CHARGE || n <= 0 || model_fits(b, call->parts[i].rate, n, call->how.max_wait);
}

/* The smallest wait after which the part allows the call: by halving, because levels only fall. -1: never. */
static int64_t model_retry_after(const struct call *call, size_t i, const struct model *b) {
    int64_t denied = -1, allowed = INT64_C(1) << 55;
    struct model later = model_at(*b, call->parts[i].rate, b->at + allowed);
    if (!model_allows(call, i, &later)) return -1;
    while (allowed - denied > 1) {
        const int64_t middle = denied + (allowed - denied) / 2;
        later = model_at(*b, call->parts[i].rate, b->at + middle);
        if (model_allows(call, i, &later))
            allowed = middle;
        else
            denied = middle;
    }
    return allowed;
}

/* The smallest wait after which n more drops are no more than the capacity. */
static int64_t model_wait(const struct model *b, const struct steady__rate *rate, int64_t n) {
    int64_t waits = -1, goes = INT64_C(1) << 55;
    while (goes - waits > 1) {
        const int64_t middle = waits + (goes - waits) / 2;
        if (model_has_room(b, rate, n, middle))
            goes = middle;
        else
            waits = middle;
    }
    return goes;
}

static bool model_all_fit_now(const struct call *call, const struct model *before, int64_t n) {
    for (size_t i = 0; i < call->n; i++)
        if (!model_fits(&before[i], call->parts[i].rate, n, 0)) return false;
    return true;
}

/* The most that fits now into all parts, or at_least. */
static int64_t model_partial(const struct call *call, const struct model *before) {
    int64_t fits = call->how.at_least, too_much = call->parts[0].amount + 1;
    if (!model_all_fit_now(call, before, fits)) return fits;
    while (too_much - fits > 1) {
        const int64_t middle = fits + (too_much - fits) / 2;
        if (model_all_fit_now(call, before, middle))
            fits = middle;
        else
            too_much = middle;
    }
    return fits;
}

static int64_t model_granted(const struct call *call, size_t i, const struct model *before, bool allows) {
    const struct steady__part *part = &call->parts[i];
    switch (part->kind) {
    case STEADY__LOOK: return 0;
    case STEADY__SHADOW: return allows ? part->amount : 0;
    case STEADY__CHARGE:
        return (int64_t)wide_max(0, wide_min(part->amount, top_of(part->rate) - model_level(&before[i], part->rate)));
    default: return call->how.at_least > 0 ? model_partial(call, before) : part->amount;
    }
}

/* The named part. In an allowed call the smallest room / amount, as an exact fraction. */
static size_t model_name(const struct call *call, const struct answer *a) {
    size_t named = call->n;
    for (size_t i = 0; i < call->n; i++) {
        const struct steady__part *part = &call->parts[i], *best = &call->parts[named == call->n ? i : named];
        const struct steady__decision *d = &a->each[i].bucket, *so_far = &a->each[best - call->parts].bucket;
        const bool partial = call->how.at_least > 0;
        bool counts, better;
        if (a->verdict.success) {
            const wide amount = partial ? a->each[i].granted : part->amount;
            const wide amount_so_far = partial ? a->each[best - call->parts].granted : best->amount;
            counts = part->amount > 0 && part->kind != STEADY__SHADOW;
            better =
                (part->rate->capacity - d->level) * amount_so_far < (best->rate->capacity - so_far->level) * amount;
        } else {
            const uint64_t never = UINT64_MAX; /* -1 */
            counts = votes(part) && !d->success;
            better = (uint64_t)so_far->retry_after != never && (uint64_t)d->retry_after > (uint64_t)so_far->retry_after;
        }
        if (counts && (named == call->n || better)) named = i;
    }
    return named == call->n ? 0 : named;
}

/* Decides, and moves the buckets of the model. */
static void model_decide(const struct call *call, int64_t now, struct model *buckets, struct answer *a) {
    struct model before[BUCKETS];
    memset(a, 0, sizeof *a);
    a->verdict.success = true;
    for (size_t i = 0; i < call->n; i++) {
        before[i] = model_at(buckets[call->where[i]], call->parts[i].rate, now);
        a->each[i].bucket.success = model_allows(call, i, &before[i]);
        if (!a->each[i].bucket.success && votes(&call->parts[i])) a->verdict.success = false;
    }
    for (size_t i = 0; i < call->n; i++) {
        const struct steady__part *part = &call->parts[i];
        const struct steady__rate *rate = part->rate;
        struct steady__decision *d = &a->each[i].bucket;
        struct model b = before[i];
        if (a->verdict.success) {
            a->each[i].granted = model_granted(call, i, before, d->success);
            const int64_t needs = part->kind == STEADY__LOOK ? part->amount : a->each[i].granted;
            if (votes(part) && needs > 0 && model_wait(&b, rate, needs) > a->verdict.wait)
                a->verdict.wait = model_wait(&b, rate, needs);
        }
        if (!call->how.peek) {
            const bool starts_block = !is_idle(call) && !d->success && call->how.max_wait == 0 &&
                                      part->kind != STEADY__LOOK && b.blocked_until == 0 && rate->block > 0;
            b.content = wide_max(0, b.content + (wide)a->each[i].granted * rate->recharge);
            if (starts_block && asked_of(call, i) <= rate->capacity) b.blocked_until = now + rate->block;
            buckets[call->where[i]] = b;
        }
        const wide below = wide_max(0, model_level(&b, rate) - 1);
        d->level = model_level(&b, rate);
        d->until_next_drop =
            (int64_t)ceil_div(d->level > 0 ? b.content - below * rate->recharge : rate->recharge, rate->drops);
        d->blocked_for = b.blocked_until > 0 ? b.blocked_until - now : 0;
        const struct model with_block = {before[i].content, now, b.blocked_until};
        d->retry_after = d->success ? 0 : model_retry_after(call, i, &with_block);
    }
    a->verdict.part = model_name(call, a);
    a->verdict.retry_after = a->verdict.success ? 0 : a->each[a->verdict.part].bucket.retry_after;
}

/* ---- Random calls on buckets of both ---- */

struct world {
    uint64_t seed;
    struct steady__rate rates[BUCKETS];
    struct steady__bucket buckets[BUCKETS];
    struct model models[BUCKETS];
    int64_t now;
};

/* The clock may be as young as the bucket. */
static void world_begin(struct world *w, bool small) {
    memset(w->buckets, 0, sizeof w->buckets);
    w->now = random_next(&w->seed) % 8 ? NOW : 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        w->rates[i] = small ? small_rate(&w->seed) : any_rate(&w->seed);
        w->models[i] = (struct model){.at = w->now};
    }
}

static void world_pause(struct world *w) {
    const size_t i = (size_t)random_in(&w->seed, 0, BUCKETS - 1);
    w->now += some_pause(&w->seed, &w->rates[i], &w->buckets[i], w->now);
}

static int64_t world_level(const struct world *w, size_t i) {
    return (int64_t)ceil_div(content_of(&w->buckets[i], &w->rates[i], w->now), w->rates[i].recharge);
}

static void random_call(struct world *w, struct call *call) {
    size_t order[BUCKETS];
    const bool partial = random_next(&w->seed) % 4 == 0, idle = random_next(&w->seed) % 30 == 0;
    memset(call, 0, sizeof *call);
    call->n = (size_t)random_in(&w->seed, 1, BUCKETS);
    call->how.peek = random_next(&w->seed) % 8 == 0;
    shuffle(&w->seed, order, BUCKETS);
    for (size_t i = 0; i < call->n; i++) {
        struct steady__part *part = &call->parts[i];
        call->where[i] = order[i];
        *part = (struct steady__part){.rate = &w->rates[order[i]]};
        part->amount = some_amount(&w->seed, part->rate, world_level(w, order[i]));
        part->kind = random_next(&w->seed) % 2 ? STEADY__TAKE : (enum steady__kind)random_in(&w->seed, 0, 3);
        if (idle || random_next(&w->seed) % 12 == 0) part->amount = 0;
        if (part->kind == STEADY__TAKE && random_next(&w->seed) % 12 == 0) part->amount = -part->amount;
        if (partial) *part = (struct steady__part){part->rate, call->parts[0].amount, STEADY__TAKE};
        if (i == 0) call->how.max_wait = some_max_wait(&w->seed, part->rate);
        if (i == 0 && partial && part->amount <= 0) part->amount = 5;
    }
    if (partial) call->how.at_least = random_in(&w->seed, 1, call->parts[0].amount);
    if (partial && random_next(&w->seed) % 3 == 0) call->how.at_least = 1;
}

static void decide(struct world *w, const struct call *call, struct answer *a) {
    struct steady__bucket buckets[BUCKETS];
    for (size_t i = 0; i < call->n; i++)
        buckets[i] = w->buckets[call->where[i]];
    steady__parts_decide(call->parts, call->n, &call->how, w->now, buckets, a->each, &a->verdict);
    for (size_t i = 0; i < call->n; i++)
        w->buckets[call->where[i]] = buckets[i];
}

static void assert_same_bucket(const struct steady__decision *d, const struct steady__decision *expected) {
    assert_int_equal(d->success, expected->success);
    assert_int_equal(d->level, expected->level);
    assert_int_equal(d->until_next_drop, expected->until_next_drop);
    assert_int_equal(d->blocked_for, expected->blocked_for);
    assert_int_equal(d->retry_after, expected->retry_after);
}

static void assert_same_verdict(const struct steady__verdict *v, const struct steady__verdict *expected) {
    assert_int_equal(v->success, expected->success);
    assert_int_equal(v->wait, expected->wait);
    assert_int_equal(v->retry_after, expected->retry_after);
    assert_int_equal(v->part, expected->part);
}

/* A stored bucket holds what its model holds. An empty bucket without a block is not stored. */
static void assert_same_content(const struct world *w) {
    for (size_t i = 0; i < BUCKETS; i++) {
        const struct model b = model_at(w->models[i], &w->rates[i], w->now);
        const struct steady__bucket *stored = &w->buckets[i];
        assert_true(content_of(stored, &w->rates[i], w->now) == b.content);
        assert_int_equal(stored->blocked_until > w->now ? stored->blocked_until : 0, b.blocked_until);
        assert_true(stored->level >= 0 && stored->last >= 0 && stored->rem >= 0 && stored->rem < w->rates[i].drops);
    }
}

static void assert_not_stored_if_empty(const struct steady__bucket *b, const struct steady__decision *d) {
    static const struct steady__bucket empty;
    if (d->changed && d->busy_for == 0) assert_memory_equal(b, &empty, sizeof empty);
}

static void every_answer_is_that_of_the_model(void **state) {
    (void)state;
    struct world w = {.seed = 1};
    int allowed = 0, denied = 0, waited = 0, never = 0;
    for (int round = 0; round < rounds(3000); round++) {
        world_begin(&w, round % 3 != 0);
        for (int step = 0; step < 30; step++) {
            struct call call;
            struct answer a, expected;
            random_call(&w, &call);
            decide(&w, &call, &a);
            model_decide(&call, w.now, w.models, &expected);
            for (size_t i = 0; i < call.n; i++) {
                assert_same_bucket(&a.each[i].bucket, &expected.each[i].bucket);
                assert_int_equal(a.each[i].granted, expected.each[i].granted);
                assert_not_stored_if_empty(&w.buckets[call.where[i]], &a.each[i].bucket);
            }
            assert_same_verdict(&a.verdict, &expected.verdict);
            assert_same_content(&w);
            allowed += a.verdict.success;
            denied += !a.verdict.success;
            waited += a.verdict.wait > 0;
            never += a.verdict.retry_after == -1;
            world_pause(&w);
        }
    }
    assert_true(allowed > 10000 && denied > 10000 && waited > 3000 && never > 3000);
}

/* ---- Settlements ---- */

/* What settle takes out, in exact numbers. The moment of the reservation may be forged. */
static void model_settle(const struct steady__settlement *s, int64_t now, struct model *b, wide *given_back,
                         wide *charged) {
    const struct steady__rate *rate = s->rate;
    const wide granted = wide_min(s->reserved, top_of(rate)), age = wide_max(0, now - s->moment);
    *b = model_at(*b, rate, now);
    *given_back = *charged = 0;
    if (s->actual > s->reserved) {
        *charged = wide_max(0, wide_min(s->actual - s->reserved, top_of(rate) - model_level(b, rate)));
        b->content += *charged * rate->recharge;
    } else if (s->same_rate) {
        const wide not_used = wide_max(0, granted - s->actual) * rate->recharge;
        const wide not_leaked = wide_max(0, granted * rate->recharge - age * rate->drops);
        *given_back = wide_min(b->content, wide_min(not_used, not_leaked));
        b->content -= *given_back;
        /* The moment of the last leak is not before 0. */
        const wide phase = model_level(b, rate) * (wide)rate->recharge - b->content;
        if (*given_back > 0) b->content += wide_max(0, phase - (wide)now * rate->drops);
    }
}

static struct steady__settlement random_settlement(struct world *w, size_t i) {
    struct steady__settlement s = {.rate = &w->rates[i], .same_rate = random_next(&w->seed) % 8 != 0};
    const int64_t age = random_in(&w->seed, -2, 2 * s.rate->recharge / s.rate->drops + 2);
    s.reserved = random_next(&w->seed) % 8 ? some_amount(&w->seed, s.rate, world_level(w, i)) : INT32_MAX;
    s.actual = random_next(&w->seed) % 3 ? random_in(&w->seed, 0, s.reserved) : some_amount(&w->seed, s.rate, 0);
    s.moment = age > w->now ? 0 : w->now - age;
    return s;
}

static void every_settlement_is_that_of_the_model(void **state) {
    (void)state;
    struct world w = {.seed = 2};
    int given = 0, charged = 0;
    for (int round = 0; round < rounds(6000); round++) {
        world_begin(&w, round % 3 != 0);
        for (int step = 0; step < 30; step++) {
            const size_t i = (size_t)random_in(&w.seed, 0, BUCKETS - 1);
            const struct steady__settlement s = random_settlement(&w, i);
            struct steady__settled settled;
            struct call call;
            struct answer a, expected;
            wide expected_back, expected_charge;
            random_call(&w, &call);
            decide(&w, &call, &a);
            model_decide(&call, w.now, w.models, &expected);
            world_pause(&w);

            steady__settle(&s, w.now, &w.buckets[i], &settled);
            model_settle(&s, w.now, &w.models[i], &expected_back, &expected_charge);
            assert_true(settled.given_back == expected_back && settled.charged == expected_charge);
            assert_not_stored_if_empty(&w.buckets[i], &settled.bucket);
            assert_same_content(&w);
            struct steady__bucket after = w.buckets[i];
            struct steady__decision d;
            steady__bucket_peek(&after, s.rate, w.now, &d);
            d.success = true;
            d.retry_after = 0;
            assert_same_bucket(&settled.bucket, &d);
            assert_int_equal(settled.bucket.busy_for, d.busy_for);
            assert_int_equal(settled.bucket.changed, settled.given_back > 0 || settled.charged > 0);
            given += settled.given_back > 0;
            charged += settled.charged > 0;
        }
    }
    assert_true(given > 10000 && charged > 10000);
}

/* A reservation that is settled with 0 at its moment leaves no trace, not even a part of a us. */
static void reservation_settled_with_nothing_leaves_the_bucket_as_it_was(void **state) {
    (void)state;
    struct world w = {.seed = 3};
    int reserved = 0;
    for (int round = 0; round < rounds(6000); round++) {
        world_begin(&w, round % 3 != 0);
        w.now = NOW;
        for (int step = 0; step < 20; step++) {
            struct call call;
            struct answer a;
            struct steady__bucket before[BUCKETS];
            memcpy(before, w.buckets, sizeof before);
            random_call(&w, &call);
            for (size_t i = 0; i < call.n; i++)
                call.parts[i].amount = llabs(call.parts[i].amount);
            call.how.peek = false;
            decide(&w, &call, &a);
            if (random_next(&w.seed) % 2) continue; /* so that the buckets fill */
            for (size_t i = 0; i < call.n; i++) {
                struct steady__bucket *b = &w.buckets[call.where[i]], *unreserved = &before[call.where[i]];
                const struct steady__settlement s = {call.parts[i].rate, true, a.each[i].granted, w.now, 0};
                struct steady__settled settled;
                steady__settle(&s, w.now, b, &settled);
                assert_true(settled.given_back == (wide)s.reserved * s.rate->recharge);
                assert_true(content_of(b, s.rate, w.now) == content_of(unreserved, s.rate, w.now));
                reserved += s.reserved > 0;

                struct steady__decision with, without;
                struct steady__bucket one = *b, other = *unreserved;
                const int64_t later = w.now + some_pause(&w.seed, s.rate, b, w.now);
                const int64_t amount = some_amount(&w.seed, s.rate, 0);
                other.blocked_until = one.blocked_until; /* a shadow part that denied has started its block */
                steady__bucket_consume(&one, s.rate, later, amount, &with);
                steady__bucket_consume(&other, s.rate, later, amount, &without);
                assert_same_bucket(&with, &without);
                assert_int_equal(with.busy_for, without.busy_for);
            }
            world_pause(&w);
        }
    }
    assert_true(reserved > 10000);
}

/* ---- All or nothing ---- */

static void denied_call_changes_no_level(void **state) {
    (void)state;
    struct world w = {.seed = 4};
    int denied = 0, blocks = 0;
    for (int round = 0; round < rounds(10000); round++) {
        world_begin(&w, round % 3 != 0);
        for (int step = 0; step < 20; step++) {
            struct call call;
            struct answer a;
            struct steady__bucket before[BUCKETS];
            memcpy(before, w.buckets, sizeof before);
            random_call(&w, &call);
            decide(&w, &call, &a);
            world_pause(&w);
            if (a.verdict.success) continue;
            denied++;
            for (size_t i = 0; i < call.n; i++) {
                const struct steady__bucket *b = &w.buckets[call.where[i]], *was = &before[call.where[i]];
                const struct steady__rate *rate = call.parts[i].rate;
                const bool block_began = b->blocked_until != was->blocked_until && b->blocked_until != 0;
                assert_int_equal(a.each[i].granted, 0);
                assert_true(content_of(b, rate, w.now) == content_of(was, rate, w.now));
                if (!block_began) assert_memory_equal(b, was, sizeof *b);
                if (block_began) assert_true(!call.how.peek && call.how.max_wait == 0 && !a.each[i].bucket.success);
                blocks += block_began;
            }
        }
    }
    assert_true(denied > 10000 && blocks > 1000);
}

/* The clock may step back. */
static void look_and_peek_and_amount_of_0_change_nothing(void **state) {
    (void)state;
    struct world w = {.seed = 5};
    for (int round = 0; round < rounds(10000); round++) {
        world_begin(&w, round % 3 != 0);
        for (int step = 0; step < 20; step++) {
            struct call call;
            struct answer a;
            struct steady__bucket before[BUCKETS];
            memcpy(before, w.buckets, sizeof before);
            random_call(&w, &call);
            decide(&w, &call, &a);
            for (size_t i = 0; i < call.n; i++) {
                const size_t place = call.where[i];
                if (!call.how.peek && call.parts[i].kind != STEADY__LOOK && call.parts[i].amount != 0) continue;
                assert_false(a.each[i].bucket.changed);
                assert_memory_equal(&w.buckets[place], &before[place], sizeof before[place]);
            }
            world_pause(&w);
            if (random_next(&w.seed) % 8 == 0) w.now -= random_in(&w.seed, 0, w.now < 30 ? w.now : 30);
        }
    }
}

/* Without blocks, because a peek starts none. A peek reports the level before the call, so it may name another part. */
static void peek_answers_what_the_consume_answers(void **state) {
    (void)state;
    struct world w = {.seed = 6};
    for (int round = 0; round < rounds(10000); round++) {
        world_begin(&w, round % 3 != 0);
        for (size_t i = 0; i < BUCKETS; i++)
            w.rates[i].block = 0;
        for (int step = 0; step < 20; step++) {
            struct call call;
            struct answer peek, consume;
            random_call(&w, &call);
            call.how.peek = true;
            decide(&w, &call, &peek);
            for (size_t i = 0; i < call.n; i++)
                assert_int_equal(peek.each[i].bucket.level, world_level(&w, call.where[i]));
            call.how.peek = false;
            decide(&w, &call, &consume);
            assert_int_equal(peek.verdict.success, consume.verdict.success);
            assert_int_equal(peek.verdict.wait, consume.verdict.wait);
            assert_int_equal(peek.verdict.retry_after, consume.verdict.retry_after);
            if (!consume.verdict.success) assert_int_equal(peek.verdict.part, consume.verdict.part);
            for (size_t i = 0; i < call.n; i++) {
                assert_int_equal(peek.each[i].granted, consume.each[i].granted);
                assert_int_equal(peek.each[i].bucket.success, consume.each[i].bucket.success);
                assert_int_equal(peek.each[i].bucket.retry_after, consume.each[i].bucket.retry_after);
                assert_int_equal(peek.each[i].bucket.blocked_for, consume.each[i].bucket.blocked_for);
            }
            world_pause(&w);
        }
    }
}

/* Only the first of equal parts is named. */
static void order_of_the_parts_does_not_matter(void **state) {
    (void)state;
    struct world w = {.seed = 7};
    for (int round = 0; round < rounds(10000); round++) {
        world_begin(&w, round % 3 != 0);
        for (int step = 0; step < 20; step++) {
            struct call call, other;
            struct answer a, b;
            struct world twin;
            size_t order[BUCKETS];
            random_call(&w, &call);
            twin = w;
            other = call;
            shuffle(&w.seed, order, call.n);
            for (size_t i = 0; i < call.n; i++) {
                other.parts[i] = call.parts[order[i]];
                other.where[i] = call.where[order[i]];
            }
            decide(&w, &call, &a);
            decide(&twin, &other, &b);
            assert_int_equal(a.verdict.success, b.verdict.success);
            assert_int_equal(a.verdict.wait, b.verdict.wait);
            assert_int_equal(a.verdict.retry_after, b.verdict.retry_after);
            for (size_t i = 0; i < call.n; i++) {
                assert_int_equal(a.each[order[i]].granted, b.each[i].granted);
                assert_same_bucket(&a.each[order[i]].bucket, &b.each[i].bucket);
            }
            assert_memory_equal(w.buckets, twin.buckets, sizeof w.buckets);
            world_pause(&w);
        }
    }
}

/* Also a denied part, and one that only denies because of another. A look keeps its bucket as it is. */
static void clock_set_back_moves_each_bucket_of_a_denied_call(void **state) {
    (void)state;
    const struct steady__rate rate = {5, 1000, 1, 0};
    const struct steady__bucket full = {5, NOW, 0, 0}, half = {2, NOW + 7, 0, 0};
    const struct steady__part parts[4] = {
        {&rate, 1, STEADY__TAKE}, {&rate, 1, STEADY__TAKE}, {&rate, 1, STEADY__LOOK}, {&rate, -1, STEADY__TAKE}};
    struct steady__bucket buckets[4] = {full, half, full, half};
    struct answer a;
    steady__parts_decide(parts, 4, &(struct steady__how){0}, NOW - 10, buckets, a.each, &a.verdict);
    assert_false(a.verdict.success);
    assert_int_equal(a.verdict.retry_after, 1000);
    for (int i = 0; i < 4; i++) {
        assert_true(a.each[i].bucket.stepped);
        assert_int_equal(a.each[i].bucket.changed, i != 2);
        assert_int_equal(buckets[i].last, i == 2 ? NOW : NOW - 10);
        assert_int_equal(buckets[i].level, i % 2 ? 2 : 5);
    }
}

/* The leak that is due within this us does not count as content. */
static void settlement_after_the_clock_stepped_into_the_last_us_gives_back_whole_drops(void **state) {
    (void)state;
    const struct steady__rate rate = {5, 1000, 3, 0};
    const struct steady__settlement s = {&rate, true, 5, NOW, 0};
    struct steady__bucket b = {3, NOW, 2, 0};
    struct steady__settled settled;
    steady__settle(&s, NOW, &b, &settled);
    assert_int_equal(settled.given_back, 3000);
    assert_int_equal(settled.bucket.level, 0);
}

static void settlement_that_changes_nothing_writes_nothing(void **state) {
    (void)state;
    const struct steady__rate rate = {5, 1000, 1, 0};
    const struct steady__settlement s = {&rate, true, 2, NOW, 2};
    const struct steady__bucket before = {3, NOW + 10, 0, NOW + 20};
    struct steady__bucket b = before;
    struct steady__settled settled;
    steady__settle(&s, NOW, &b, &settled);
    assert_true(settled.bucket.stepped && !settled.bucket.changed);
    assert_int_equal(settled.bucket.blocked_for, 10);
    assert_memory_equal(&b, &before, sizeof b);
}

/* ---- One part ---- */

static void random_state(uint64_t *seed, struct steady__bucket *b, int64_t now) {
    if (random_next(seed) % 2) {
        b->level = random_edgy(seed, 0, INT32_MAX);
        b->last = now - random_in(seed, -3, random_next(seed) % 2 ? 3 : 1000000);
        b->rem = random_edgy(seed, 0, STEADY__DROPS_MAX);
        b->blocked_until = random_next(seed) % 2 ? 0 : now + random_in(seed, -5, 1000);
        return;
    }
    uint64_t *words = (uint64_t *)(void *)b;
    for (size_t i = 0; i < sizeof *b / sizeof *words; i++)
        words[i] = random_next(seed) >> random_in(seed, 0, 63);
}

static void one_part_without_options_is_a_plain_consume(void **state) {
    (void)state;
    uint64_t seed = 8;
    struct steady__rate rate = small_rate(&seed);
    struct steady__bucket plain = {0}, b = {0};
    int64_t now = NOW;
    for (int step = 0; step < rounds(2000000); step++) {
        struct steady__decision expected;
        struct answer a;
        if (random_next(&seed) % 8 == 0) rate = random_next(&seed) % 2 ? small_rate(&seed) : any_rate(&seed);
        if (random_next(&seed) % 32 == 0) random_state(&seed, &b, now);
        now += random_next(&seed) % 16 ? random_edgy(&seed, 0, rate.recharge) : -random_edgy(&seed, 0, now);
        if (now >= STEADY__BLOCK_LIMIT) now = NOW;
        plain = b;
        struct steady__part part = {&rate, random_edgy(&seed, -INT32_MAX, INT32_MAX), STEADY__TAKE};
        if (random_next(&seed) % 2) part.amount = some_amount(&seed, &rate, b.level < INT32_MAX ? b.level : 0);
        if (random_next(&seed) % 16 == 0) part.amount = 0;
        steady__bucket_consume(&plain, &rate, now, part.amount, &expected);
        steady__parts_decide(&part, 1, &(struct steady__how){0}, now, &b, a.each, &a.verdict);
        assert_same_bucket(&a.each[0].bucket, &expected);
        assert_int_equal(a.each[0].bucket.stepped, expected.stepped);
        assert_int_equal(a.each[0].bucket.changed, expected.changed);
        assert_int_equal(a.each[0].bucket.busy_for, expected.busy_for);
        assert_int_equal(a.each[0].granted, expected.success ? part.amount : 0);
        const struct steady__verdict verdict = {expected.success, 0, 0, expected.retry_after};
        assert_same_verdict(&a.verdict, &verdict);
        assert_memory_equal(&b, &plain, sizeof b);
    }
}

/* Run under UBSan this shows that nothing overflows. */
static void any_state_and_any_call_give_numbers_in_range(void **state) {
    (void)state;
    struct world w = {.seed = 9};
    for (int round = 0; round < rounds(150000); round++) {
        struct call call;
        struct answer a;
        world_begin(&w, round % 8 == 0);
        w.now = random_edgy(&w.seed, 0, STEADY__BLOCK_LIMIT - 1);
        random_call(&w, &call);
        call.how.max_wait = random_edgy(&w.seed, 0, STEADY__MAX_WAIT);
        for (size_t i = 0; i < BUCKETS; i++)
            random_state(&w.seed, &w.buckets[i], w.now);
        for (size_t i = 0; i < call.n && call.how.at_least == 0; i++)
            call.parts[i].amount = random_edgy(&w.seed, call.parts[i].kind == STEADY__TAKE ? -INT32_MAX : 0, INT32_MAX);
        decide(&w, &call, &a);
        assert_between(a.verdict.wait, 0, call.how.max_wait);
        assert_between(a.verdict.retry_after, -1, STEADY__EXACT);
        assert_true(a.verdict.part < call.n);
        for (size_t i = 0; i < call.n; i++) {
            const struct steady__decision *d = &a.each[i].bucket;
            const struct steady__bucket *b = &w.buckets[call.where[i]];
            assert_between(d->level, 0, STEADY__EXACT - 1);
            assert_between(d->until_next_drop, 1, STEADY__EXACT);
            assert_between(d->blocked_for, 0, STEADY__EXACT - 1);
            assert_between(d->retry_after, -1, STEADY__EXACT);
            if (d->changed) assert_true(b->last <= w.now && b->rem < call.parts[i].rate->drops);
            if (call.parts[i].amount >= 0) assert_between(a.each[i].granted, 0, call.parts[i].amount);
            if (a.each[i].granted > 0) assert_true(d->level <= top_of(call.parts[i].rate) || call.how.peek);
        }
        const size_t i = (size_t)random_in(&w.seed, 0, BUCKETS - 1);
        struct steady__settlement s = random_settlement(&w, i);
        struct steady__settled settled;
        s.moment = random_edgy(&w.seed, 0, STEADY__EXACT - 1);
        s.reserved = random_edgy(&w.seed, 0, INT32_MAX);
        s.actual = random_edgy(&w.seed, 0, INT32_MAX);
        random_state(&w.seed, &w.buckets[i], w.now);
        steady__settle(&s, w.now, &w.buckets[i], &settled);
        assert_between(settled.given_back, 0, STEADY__EXACT - 1);
        assert_between(settled.charged, 0, INT32_MAX);
        assert_between(settled.bucket.level, 0, STEADY__EXACT - 1);
        if (settled.bucket.changed) assert_between(w.buckets[i].last, 0, w.now);
    }
}

/* A state that was brought to `now` comes back from its level and phase. */
static void bucket_made_from_level_and_phase_goes_on_alike(void **state) {
    (void)state;
    uint64_t seed = 10;
    for (int round = 0; round < rounds(100000); round++) {
        const struct steady__rate rate = round % 2 ? small_rate(&seed) : any_rate(&seed);
        struct steady__bucket b;
        struct steady__decision d, expected;
        bool stepped;
        random_state(&seed, &b, NOW);
        const int64_t phase = steady__bucket_advance(&b, &rate, NOW, &stepped);
        struct steady__bucket made =
            steady__bucket_at(&rate, NOW, b.level, phase, b.blocked_until == 0 ? 0 : b.blocked_until - NOW);
        assert_int_equal(made.blocked_until, b.blocked_until);
        assert_int_equal(steady__bucket_advance(&made, &rate, NOW, &stepped), phase);
        assert_false(stepped);
        const int64_t later = NOW + some_pause(&seed, &rate, &b, NOW), amount = some_amount(&seed, &rate, b.level);
        steady__bucket_consume(&made, &rate, later, amount, &d);
        steady__bucket_consume(&b, &rate, later, amount, &expected);
        assert_same_bucket(&d, &expected);
        assert_int_equal(d.busy_for, expected.busy_for);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_answer_is_that_of_the_model),
        cmocka_unit_test(every_settlement_is_that_of_the_model),
        cmocka_unit_test(reservation_settled_with_nothing_leaves_the_bucket_as_it_was),
        cmocka_unit_test(denied_call_changes_no_level),
        cmocka_unit_test(look_and_peek_and_amount_of_0_change_nothing),
        cmocka_unit_test(peek_answers_what_the_consume_answers),
        cmocka_unit_test(order_of_the_parts_does_not_matter),
        cmocka_unit_test(clock_set_back_moves_each_bucket_of_a_denied_call),
        cmocka_unit_test(settlement_after_the_clock_stepped_into_the_last_us_gives_back_whole_drops),
        cmocka_unit_test(settlement_that_changes_nothing_writes_nothing),
        cmocka_unit_test(one_part_without_options_is_a_plain_consume),
        cmocka_unit_test(any_state_and_any_call_give_numbers_in_range),
        cmocka_unit_test(bucket_made_from_level_and_phase_goes_on_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
