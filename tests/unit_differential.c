/* SPDX-License-Identifier: MIT
 * bucket.c against the shipped Lua scripts: two million random steps with hostile values give the same results, the
 * same stored state and the same time to live, to the last bit. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "assertions.h"
#include "lua_server.h"
#include "random.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 100000
#else
#define STEPS 2000000
#endif

#define NOW 1764000000000000 /* a day in 2025 */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static struct steady__rate random_rate(uint64_t *seed) {
    static const int64_t common_drops[] = {1, 1, 1, 3, 7, 1000, 1000000};
    struct steady__rate rate;
    rate.capacity = random_edgy(seed, 1, STEADY__CAPACITY_MAX);
    rate.recharge = random_edgy(seed, 1, (STEADY__EXACT - 1) / rate.capacity);
    rate.drops = common_drops[random_next(seed) % 7];
    if (random_next(seed) % 4 == 0) rate.drops = random_edgy(seed, 1, STEADY__DROPS_MAX);
    rate.block = random_next(seed) % 3 == 0 ? random_edgy(seed, 1, STEADY__BLOCK_LIMIT - 1) : 0;
    return rate;
}

/* Amounts near the capacity and near the room that is left. */
static int64_t random_amount(uint64_t *seed, const struct steady__rate *rate, int64_t level) {
    switch (random_next(seed) % 6) {
    case 0: return 1;
    case 1: return 0;
    case 2: return smaller(STEADY__AMOUNT_MAX, rate->capacity + random_in(seed, -1, 1));
    case 3:
        return smaller(STEADY__AMOUNT_MAX,
                       rate->capacity > level ? rate->capacity - level + random_in(seed, -1, 1) : 1);
    case 4: return -random_edgy(seed, 0, smaller(STEADY__AMOUNT_MAX, 2 * rate->capacity));
    default: return random_edgy(seed, -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX);
    }
}

/* Mostly moments at which the bucket changes. */
static int64_t random_step(uint64_t *seed, const struct steady__rate *rate, const struct steady__bucket *b,
                           int64_t now) {
    int64_t next = now;
    switch (random_next(seed) % 8) {
    case 0: break;
    case 1: next = now - random_edgy(seed, 0, NOW / 2); break;
    case 2: /* near the moment when it is empty; a planted level may be too large for that to be a time */
        next = (int64_t)((uint64_t)b->last + (uint64_t)b->level * (uint64_t)(rate->recharge / rate->drops) +
                         (uint64_t)random_in(seed, -2, 2));
        break;
    case 3: next = b->blocked_until + random_in(seed, -1, 1); break;
    case 4: next = now + random_edgy(seed, 0, rate->recharge); break;
    case 5: next = now + random_in(seed, 0, 3); break;
    case 6: next = now + random_edgy(seed, 0, NOW); break;
    default: next = now + (rate->recharge + rate->drops - 1) / rate->drops + random_in(seed, -1, 1); break;
    }
    return next < 0 || next >= STEADY__EXACT - STEADY__BLOCK_LIMIT ? NOW : next;
}

/* A state that a user, another limit or another clock may have left. */
static void plant(struct lua_server *server, uint64_t *seed, int64_t now) {
    char text[128];
    const int64_t last = random_next(seed) % 2 ? now - random_in(seed, 0, smaller(now, 1000000))
                                               : random_edgy(seed, 0, STEADY__EXACT - 1);
    const int64_t until = random_next(seed) % 2 ? 0 : random_edgy(seed, 0, STEADY__EXACT - 1);
    int n = snprintf(text, sizeof text, "%" PRId64 " %" PRId64 ".%06" PRId64 " ",
                     random_edgy(seed, 0, STEADY__EXACT - 1), last / 1000000, last % 1000000);
    n += until == 0 && random_next(seed) % 2
             ? snprintf(text + n, sizeof text - (size_t)n, "0")
             : snprintf(text + n, sizeof text - (size_t)n, "%" PRId64 ".%06" PRId64, until / 1000000, until % 1000000);
    if (random_next(seed) % 3 == 0)
        snprintf(text + n, sizeof text - (size_t)n, " %" PRId64, random_edgy(seed, 0, 2 * STEADY__DROPS_MAX));
    lua_server_set(server, text, 0);
}

static bool same_result(const steady_result *r, const struct steady__decision *d, bool stepped) {
    return r->success == d->success && r->level == d->level && r->until_next_drop == d->until_next_drop &&
           r->blocked_for == d->blocked_for && r->retry_after == d->retry_after && stepped == d->stepped;
}

/* Runs one step on both. The state before comes from the text on the Lua side. */
static void step(struct lua_server *server, uint64_t *seed, const struct steady__rate *rate, int64_t *now,
                 long number) {
    struct steady__bucket before, after, stored;
    struct steady__decision d;
    steady_result r = {0};
    bool stepped = false;
    stored_parse(lua_server_get(server, *now), &before);
    *now = random_step(seed, rate, &before, *now);
    if (random_next(seed) % 16 == 0) plant(server, seed, *now);
    const bool peek = random_next(seed) % 4 == 0;
    stored_parse(lua_server_get(server, *now), &before);
    const int64_t amount = peek ? 1 : random_amount(seed, rate, before.level);
    after = before;
    if (peek)
        steady__bucket_peek(&after, rate, *now, &d);
    else
        steady__bucket_consume(&after, rate, *now, amount, &d);

    char text[128];
    snprintf(text, sizeof text, "%s", lua_server_get(server, *now) ? lua_server_get(server, *now) : "nothing");
    const bool answered =
        lua_server_decide(server, peek ? STEADY__PEEK : STEADY__CONSUME, rate, amount, *now, &r, &stepped);
    const char *stored_text = lua_server_get(server, *now);
    bool ok = answered && same_result(&r, &d, stepped) && lua_server_writes(server) <= (d.changed ? 1 : 0);
    if (ok && d.changed) ok = stored_parse(stored_text, &stored) && memcmp(&stored, &after, sizeof stored) == 0;
    if (ok && d.changed && d.busy_for > 0)
        ok = lua_server_expires_ms(server) == *now / 1000 + (d.busy_for + 999) / 1000;
    if (ok && !d.changed) ok = lua_server_writes(server) == 0;
    if (ok) return;
    print_error("step %ld: capacity %" PRId64 " recharge %" PRId64 " drops %" PRId64 " block %" PRId64 " now %" PRId64
                " %s %" PRId64 " on \"%s\"\n C: %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " stepped %d\n"
                " Lua: %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " stepped %d, left \"%s\" %s\n",
                number, rate->capacity, rate->recharge, rate->drops, rate->block, *now, peek ? "peek" : "consume",
                amount, text, d.success, d.level, d.until_next_drop, d.blocked_for, d.retry_after, d.stepped, r.success,
                r.level, r.until_next_drop, r.blocked_for, r.retry_after, stepped,
                stored_text ? stored_text : "nothing", answered ? "" : lua_server_error(server));
    fail();
}

static void bucket_and_script_agree_to_the_bit(void **state) {
    (void)state;
    struct lua_server *server = lua_server_new();
    uint64_t seed = 42;
    struct steady__rate rate = random_rate(&seed);
    int64_t now = NOW;
    for (long i = 0; i < STEPS; i++) {
        if (random_next(&seed) % 8 == 0) rate = random_rate(&seed);
        if (random_next(&seed) % 64 == 0) lua_server_set(server, NULL, 0);
        step(server, &seed, &rate, &now, i);
    }
    lua_server_free(server);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bucket_and_script_agree_to_the_bit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
