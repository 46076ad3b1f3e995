/* SPDX-License-Identifier: MIT
 * parts.c against the shipped Lua scripts for several buckets: random steps with hostile values give the same results,
 * the same stored states and the same times to live, to the last bit. STEPS=n in the environment sets their number. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "lua_parts.h"
#include "random.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 30000
#else
#define STEPS 250000
#endif

#define NOW 1764000000000000 /* a day in 2025 */

struct world {
    struct lua_server *server;
    uint64_t seed;
    int64_t now;
    size_t n;
    bool mild; /* small numbers, so that many steps are near a limit */
    struct steady__rate rates[STEADY__PARTS_MAX];
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static uint64_t one_of(struct world *w, uint64_t n) { return random_next(&w->seed) % n; }

/* ---- Random values ---- */

static struct steady__rate random_rate(struct world *w) {
    static const int64_t common_drops[] = {1, 1, 1, 3, 7, 1000, 1000000};
    uint64_t *seed = &w->seed;
    struct steady__rate rate;
    if (w->mild) {
        rate = (struct steady__rate){random_in(seed, 1, 12), random_in(seed, 1, 40), random_in(seed, 1, 9), 0};
        if (one_of(w, 2) == 0) rate.drops = 1;
        if (one_of(w, 3) == 0) rate.block = random_in(seed, 1, 100);
        return rate;
    }
    rate.capacity = one_of(w, 8) == 0 ? 1 : random_edgy(seed, 1, STEADY__CAPACITY_MAX);
    const int64_t most = (STEADY__EXACT - 1) / rate.capacity;
    rate.recharge = one_of(w, 4) == 0 ? most - smaller(most - 1, random_in(seed, 0, 3)) : random_edgy(seed, 1, most);
    if (one_of(w, 8) == 0) rate.recharge = INT64_C(1) << one_of(w, 53); /* then a product can be 2^53 */
    rate.capacity = smaller(rate.capacity, (STEADY__EXACT - 1) / rate.recharge);
    rate.drops = common_drops[one_of(w, 7)];
    if (one_of(w, 4) == 0) rate.drops = random_edgy(seed, 1, STEADY__DROPS_MAX);
    rate.block = one_of(w, 3) == 0 ? random_edgy(seed, 1, STEADY__BLOCK_LIMIT - 1) : 0;
    return rate;
}

static int64_t top_of(const struct steady__rate *rate) {
    return smaller(STEADY__LEVEL_MAX, (STEADY__EXACT - 1) / rate->recharge);
}

/* Amounts near the capacity, the highest level, and the room that is left to both. */
static int64_t random_amount(struct world *w, const struct steady__rate *rate, int64_t level) {
    const int64_t near = random_in(&w->seed, -1, 1);
    int64_t amount = 1;
    switch (one_of(w, 9)) {
    case 0: break;
    case 1: amount = 0; break;
    case 2: amount = rate->capacity + near; break;
    case 3: amount = rate->capacity - level + near; break;
    case 4: amount = top_of(rate) + near; break;
    case 5: amount = top_of(rate) - level + near; break;
    case 6: amount = random_in(&w->seed, 1, smaller(STEADY__AMOUNT_MAX, 2 * rate->capacity)); break;
    case 7: amount = -random_edgy(&w->seed, 0, smaller(STEADY__AMOUNT_MAX, 2 * rate->capacity)); break;
    default: amount = random_edgy(&w->seed, -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX); break;
    }
    if (amount > STEADY__AMOUNT_MAX || amount < -STEADY__AMOUNT_MAX) amount = STEADY__AMOUNT_MAX;
    return amount;
}

/* Waits near the one that this part needs. */
static int64_t random_max_wait(struct world *w, const struct steady__part *part, struct steady__bucket before) {
    bool stepped = false;
    int64_t wait = 0;
    const int64_t phase = steady__bucket_advance(&before, part->rate, w->now, &stepped);
    const int64_t surplus = before.level + part->amount - part->rate->capacity;
    switch (one_of(w, 8)) {
    case 0: return STEADY__MAX_WAIT;
    case 1: return random_edgy(&w->seed, 0, STEADY__MAX_WAIT);
    case 2:
    case 3:
    case 4:
        if (surplus > 0 && surplus <= top_of(part->rate)) wait = steady__bucket_wait_for(surplus, phase, part->rate);
        wait += random_in(&w->seed, -1, 1);
        return wait < 0 || wait > STEADY__MAX_WAIT ? 0 : wait;
    default: return 0;
    }
}

/* Mostly moments at which one of the buckets changes. */
static int64_t random_now(struct world *w) {
    struct steady__bucket b;
    const size_t i = one_of(w, w->n);
    const struct steady__rate *rate = &w->rates[i];
    const int64_t near = random_in(&w->seed, -2, 2);
    int64_t next = w->now;
    stored_parse(lua_server_get_key(w->server, i, w->now), &b);
    switch (one_of(w, 9)) {
    case 0: break;
    case 1: next -= w->mild ? random_in(&w->seed, 0, 50) : random_edgy(&w->seed, 0, NOW / 2); break;
    case 2: /* near the moment when it is empty; a planted level may be too large for that to be a time */
        next =
            (int64_t)((uint64_t)b.last + (uint64_t)b.level * (uint64_t)(rate->recharge / rate->drops) + (uint64_t)near);
        break;
    case 3: next = b.blocked_until + near; break;
    case 4: next += random_edgy(&w->seed, 0, rate->recharge); break;
    case 5: next += random_in(&w->seed, 0, 3); break;
    case 6: next += w->mild ? random_in(&w->seed, 0, 100) : random_edgy(&w->seed, 0, NOW); break;
    case 7: /* a young clock; or the moment of the last leak, where the phase can be below 0 */
        next = one_of(w, 50) == 0 ? random_in(&w->seed, 0, 1000000) : b.last;
        break;
    default: next += (rate->recharge + rate->drops - 1) / rate->drops + near; break;
    }
    return next < 0 || next >= STEADY__EXACT - STEADY__BLOCK_LIMIT ? NOW : next;
}

/* A state that a user, another limit or another clock may have left in key i. */
static void plant(struct world *w, size_t i) {
    char text[128];
    const int64_t last = one_of(w, 2) == 0 ? random_edgy(&w->seed, 0, STEADY__EXACT - 1)
                                           : w->now - random_in(&w->seed, 0, smaller(w->now, 1000000));
    const int64_t until = one_of(w, 2) == 0 ? 0 : random_edgy(&w->seed, 0, STEADY__EXACT - 1);
    const int64_t most = one_of(w, 2) == 0 ? STEADY__EXACT - 1 : top_of(&w->rates[i]);
    int n = snprintf(text, sizeof text, "%" PRId64 " %" PRId64 ".%06" PRId64 " ", random_edgy(&w->seed, 0, most),
                     last / 1000000, last % 1000000);
    n += until == 0 && one_of(w, 2) == 0
             ? snprintf(text + n, sizeof text - (size_t)n, "0")
             : snprintf(text + n, sizeof text - (size_t)n, "%" PRId64 ".%06" PRId64, until / 1000000, until % 1000000);
    if (one_of(w, 3) == 0)
        snprintf(text + n, sizeof text - (size_t)n, " %" PRId64, random_edgy(&w->seed, 0, 2 * STEADY__DROPS_MAX));
    lua_server_set_key(w->server, i, text, 0);
}

/* ---- Comparing ---- */

static void print_limit(const struct steady__rate *rate) {
    print_error("[%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "]", rate->capacity, rate->recharge, rate->drops,
                rate->block);
}

static bool same_decision(const struct steady__decision *a, const struct steady__decision *b) {
    return a->success == b->success && a->level == b->level && a->until_next_drop == b->until_next_drop &&
           a->blocked_for == b->blocked_for && a->retry_after == b->retry_after;
}

/* What the script left in key i. `after` and `d` are those of C. */
static bool same_stored(const struct world *w, size_t i, bool existed, const struct steady__bucket *after,
                        const struct steady__decision *d) {
    struct steady__bucket stored;
    const char *text = lua_server_get_key(w->server, i, w->now);
    if (!stored_parse(text, &stored) && d->changed) return false; /* a planted text may be one that no script writes */
    const int writes = lua_server_writes_of(w->server, i);
    if (writes != (d->changed && (existed || d->busy_for > 0))) return false;
    if (!d->changed) return true;
    if (memcmp(&stored, after, sizeof stored) != 0) return false;
    return d->busy_for == 0 || lua_server_expires_ms_of(w->server, i) == w->now / 1000 + (d->busy_for + 999) / 1000;
}

struct texts {
    char text[STEADY__PARTS_MAX][128];
    bool holds[STEADY__PARTS_MAX];
};

static void read_all(const struct world *w, struct steady__bucket *buckets, struct texts *texts) {
    for (size_t i = 0; i < w->n; i++) {
        const char *text = lua_server_get_key(w->server, i, w->now);
        stored_parse(text, &buckets[i]);
        texts->holds[i] = text != NULL;
        snprintf(texts->text[i], sizeof texts->text[i], "%s", text != NULL ? text : "nothing");
    }
}

static void print_part(const struct world *w, size_t i, const struct texts *before, const struct steady__decision *c,
                       const struct steady__decision *lua) {
    const char *text = lua_server_get_key(w->server, i, w->now);
    print_limit(&w->rates[i]);
    print_error(" on \"%s\"\n  C:   %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " changed %d\n  Lua: %d %" PRId64
                " %" PRId64 " %" PRId64 " %" PRId64 " wrote %d, left \"%s\"\n",
                before->text[i], c->success, c->level, c->until_next_drop, c->blocked_for, c->retry_after, c->changed,
                lua->success, lua->level, lua->until_next_drop, lua->blocked_for, lua->retry_after,
                lua_server_writes_of(w->server, i), text != NULL ? text : "nothing");
}

/* ---- Steps ---- */

static void random_call(struct world *w, const struct steady__bucket *before, struct steady__part *parts,
                        struct steady__how *how) {
    *how = (struct steady__how){.peek = one_of(w, 5) == 0};
    const bool partial = one_of(w, 6) == 0, plain = one_of(w, 3) == 0;
    for (size_t i = 0; i < w->n; i++) {
        parts[i] = (struct steady__part){.rate = &w->rates[i], .kind = STEADY__TAKE};
        if (!plain) parts[i].kind = (enum steady__kind)one_of(w, STEADY__KINDS);
        parts[i].amount = random_amount(w, &w->rates[i], before[i].level);
        if (parts[i].kind != STEADY__TAKE && parts[i].amount < 0) parts[i].amount = -parts[i].amount;
    }
    if (one_of(w, 16) == 0)
        for (size_t i = 0; i < w->n; i++)
            parts[i].amount = 0;
    const size_t one = one_of(w, w->n);
    if (partial) {
        const int64_t amount = parts[one].amount > 0 ? parts[one].amount : 5;
        for (size_t i = 0; i < w->n; i++)
            parts[i] = (struct steady__part){.rate = &w->rates[i], .kind = STEADY__TAKE, .amount = amount};
        how->at_least =
            one_of(w, 2) == 0 ? random_edgy(&w->seed, 1, amount) : smaller(amount, random_in(&w->seed, 1, 3));
    }
    how->max_wait = random_max_wait(w, &parts[one], before[one]);
}

static bool decide(struct world *w) {
    struct steady__part parts[STEADY__PARTS_MAX];
    struct steady__how how;
    struct steady__bucket buckets[STEADY__PARTS_MAX];
    struct steady__part_decision c[STEADY__PARTS_MAX], lua[STEADY__PARTS_MAX] = {0};
    struct steady__verdict verdict, lua_verdict = {0};
    struct texts before;
    unsigned stepped = 0, lua_stepped = 0;
    read_all(w, buckets, &before);
    random_call(w, buckets, parts, &how);
    steady__parts_decide(parts, w->n, &how, w->now, buckets, c, &verdict);
    const bool answered = lua_parts_decide(w->server, parts, w->n, &how, w->now, lua, &lua_verdict, &lua_stepped);
    for (size_t i = 0; i < w->n; i++)
        stepped += c[i].bucket.stepped;
    bool ok = answered && verdict.success == lua_verdict.success && verdict.part == lua_verdict.part &&
              verdict.wait == lua_verdict.wait && verdict.retry_after == lua_verdict.retry_after &&
              stepped == lua_stepped && lua_server_writes(w->server) <= (how.peek ? 0 : (int)w->n);
    for (size_t i = 0; ok && i < w->n; i++)
        ok = c[i].granted == lua[i].granted && same_decision(&c[i].bucket, &lua[i].bucket) &&
             same_stored(w, i, before.holds[i], &buckets[i], &c[i].bucket);
    if (ok) return true;
    print_error("%s at %" PRId64 ", max_wait %" PRId64 " at_least %" PRId64 ": %s\n C:   %d part %zu wait %" PRId64
                " stepped %u\n Lua: %d part %zu wait %" PRId64 " stepped %u\n",
                how.peek ? "peek" : "consume", w->now, how.max_wait, how.at_least,
                answered ? "" : lua_server_error(w->server), verdict.success, verdict.part, verdict.wait, stepped,
                lua_verdict.success, lua_verdict.part, lua_verdict.wait, lua_stepped);
    for (size_t i = 0; i < w->n; i++) {
        print_error(" %" PRId64 " of kind %d: ", parts[i].amount, (int)parts[i].kind);
        print_part(w, i, &before, &c[i].bucket, &lua[i].bucket);
    }
    return false;
}

static void random_settlement(struct world *w, size_t i, struct steady__settlement *s) {
    const struct steady__rate *rate = &w->rates[i];
    *s = (struct steady__settlement){.rate = rate, .same_rate = one_of(w, 4) != 0};
    s->reserved = one_of(w, 2) == 0 ? random_edgy(&w->seed, 0, smaller(STEADY__AMOUNT_MAX, 2 * rate->capacity))
                                    : random_edgy(&w->seed, 0, STEADY__AMOUNT_MAX);
    s->actual = one_of(w, 3) == 0   ? random_edgy(&w->seed, 0, STEADY__AMOUNT_MAX)
                : one_of(w, 3) == 0 ? smaller(STEADY__AMOUNT_MAX, s->reserved + random_in(&w->seed, 0, 3))
                                    : random_edgy(&w->seed, 0, s->reserved);
    const int64_t leak = smaller(s->reserved, top_of(rate)) * rate->recharge / rate->drops;
    switch (one_of(w, 5)) {
    case 0: s->moment = w->now; break;
    case 1: s->moment = w->now - leak + random_in(&w->seed, -2, 2); break;
    case 2: s->moment = w->now - random_in(&w->seed, 0, leak); break;
    case 3: s->moment = w->now - random_in(&w->seed, 0, rate->recharge); break;
    default: s->moment = random_edgy(&w->seed, 0, STEADY__EXACT - 1); break;
    }
    if (s->moment < 0 || s->moment >= STEADY__EXACT) s->moment = 0;
}

static bool settle(struct world *w) {
    struct steady__settlement settlements[STEADY__PARTS_MAX];
    struct steady__bucket buckets[STEADY__PARTS_MAX];
    struct steady__settled c[STEADY__PARTS_MAX], lua[STEADY__PARTS_MAX] = {0};
    struct texts before;
    unsigned stepped = 0, lua_stepped = 0;
    read_all(w, buckets, &before);
    for (size_t i = 0; i < w->n; i++) {
        random_settlement(w, i, &settlements[i]);
        steady__settle(&settlements[i], w->now, &buckets[i], &c[i]);
        stepped += c[i].bucket.stepped;
    }
    const bool answered = lua_parts_settle(w->server, settlements, w->n, w->now, lua, &lua_stepped);
    bool ok = answered && stepped == lua_stepped && lua_server_writes(w->server) <= (int)w->n;
    for (size_t i = 0; ok && i < w->n; i++)
        ok = c[i].given_back == lua[i].given_back && c[i].charged == lua[i].charged &&
             same_decision(&c[i].bucket, &lua[i].bucket) &&
             same_stored(w, i, before.holds[i], &buckets[i], &c[i].bucket);
    if (ok) return true;
    print_error("settle at %" PRId64 ": %s stepped %u, Lua %u\n", w->now, answered ? "" : lua_server_error(w->server),
                stepped, lua_stepped);
    for (size_t i = 0; i < w->n; i++) {
        print_error(" reserved %" PRId64 " moment %" PRId64 " actual %" PRId64 " same_rate %d, back %" PRId64
                    " %" PRId64 ", charged %" PRId64 " %" PRId64 ": ",
                    settlements[i].reserved, settlements[i].moment, settlements[i].actual, settlements[i].same_rate,
                    c[i].given_back, lua[i].given_back, c[i].charged, lua[i].charged);
        print_part(w, i, &before, &c[i].bucket, &lua[i].bucket);
    }
    return false;
}

static void begin(struct world *w) {
    w->n = one_of(w, 64) == 0 ? STEADY__PARTS_MAX : (size_t)random_in(&w->seed, 1, 5);
    w->mild = one_of(w, 2) == 0;
    w->now = NOW;
    for (size_t i = 0; i < w->n; i++) {
        w->rates[i] = random_rate(w);
        lua_server_set_key(w->server, i, NULL, 0);
    }
}

static void parts_and_scripts_agree_to_the_bit(void **state) {
    (void)state;
    const char *more = getenv("STEPS");
    const long steps = more != NULL ? strtol(more, NULL, 10) : STEPS;
    struct world w = {.server = lua_server_new(), .seed = more != NULL ? 43 : 42};
    begin(&w);
    for (long i = 0; i < steps; i++) {
        if (one_of(&w, 32) == 0) begin(&w);
        if (one_of(&w, 8) == 0) w.rates[one_of(&w, w.n)] = random_rate(&w);
        w.now = random_now(&w);
        if (one_of(&w, 16) == 0) plant(&w, one_of(&w, w.n));
        if (one_of(&w, 4) == 0 ? settle(&w) : decide(&w)) continue;
        print_error("in step %ld of %ld\n", i, steps);
        fail();
    }
    lua_server_free(w.server);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_and_scripts_agree_to_the_bit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
