/* SPDX-License-Identifier: MIT
 * A decision over several buckets.
 *
 * First each part is brought to `now` and asked whether it allows the call. Then the votes are counted. Only then are
 * the parts applied. lua/consume_all.lua and lua/settle.lua take the same steps in doubles.
 *
 * The level may pass the capacity, up to `top`. There a product of level and recharge is still below 2^53. The product
 * of level + amount may pass 2^53, but not 2^63. */
#include "core/parts.h"

static const struct steady__bucket empty_bucket;

static int64_t parts_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t parts_max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* The highest level that can be counted. */
static int64_t parts_top(const struct steady__rate *rate) {
    return parts_min64(STEADY__LEVEL_MAX, (STEADY__EXACT - 1) / rate->recharge);
}

/* A part at `now`, before the call. */
struct before {
    struct steady__bucket bucket;
    int64_t phase;
    int64_t top;
    bool stepped;
};

static struct before parts_before(const struct steady__rate *rate, const struct steady__bucket *stored, int64_t now) {
    struct before b = {.bucket = *stored, .top = parts_top(rate)};
    b.phase = steady__bucket_advance(&b.bucket, rate, now, &b.stepped);
    return b;
}

/* The time until `amount` more drops are no more than the capacity. */
static int64_t parts_need(const struct before *b, const struct steady__rate *rate, int64_t amount) {
    const int64_t surplus = b->bucket.level + amount - rate->capacity;
    return surplus > 0 ? steady__bucket_wait_for(surplus, b->phase, rate) : 0;
}

static bool parts_fits(const struct before *b, const struct steady__rate *rate, int64_t amount, int64_t max_wait) {
    return b->bucket.blocked_until == 0 && b->bucket.level + amount <= b->top &&
           parts_need(b, rate, amount) <= max_wait;
}

/* The wait after which a part that denies would allow the same call. */
static int64_t parts_retry_after(const struct before *b, const struct steady__rate *rate, int64_t amount,
                                 int64_t max_wait, int64_t blocked_for) {
    if (amount > b->top) return -1;
    if (amount > rate->capacity && steady__bucket_wait_for(amount - rate->capacity, 0, rate) > max_wait) return -1;
    int64_t wait = parts_max64(blocked_for, parts_need(b, rate, amount) - max_wait);
    const int64_t over = b->bucket.level + amount - b->top;
    if (over > 0) wait = parts_max64(wait, steady__bucket_wait_for(over, b->phase, rate));
    return wait;
}

/* Whether a / b < c / d, exactly. b and d are 1 to 2^31-1; a and c have up to 53 bits. */
static bool parts_less(int64_t a, int64_t b, int64_t c, int64_t d) {
    int64_t left = a / b, right = c / d, left_rest = a % b, right_rest = c % d;
    if (left_rest < 0) left--, left_rest += b; /* round down, as for positive numbers */
    if (right_rest < 0) right--, right_rest += d;
    return left != right ? left < right : left_rest * d < right_rest * b;
}

/* -1, "never", is the longest wait. */
static bool parts_longer(int64_t a, int64_t b) { return b != -1 && (a == -1 || a > b); }

/* How many drops each part of an allowed call gets: as many as fit now in all of them. If at_least does not fit now, it
 * fits within max_wait. */
static int64_t parts_partial_grant(const struct steady__part *parts, size_t n, const struct steady__how *how,
                                   const struct before *before) {
    int64_t grant = parts[0].amount;
    for (size_t i = 0; i < n; i++)
        grant = parts_min64(grant, parts[i].rate->capacity - before[i].bucket.level);
    return parts_max64(grant, how->at_least);
}

static int64_t parts_granted(const struct steady__part *part, const struct before *b, bool allows, int64_t partial) {
    switch (part->kind) {
    case STEADY__LOOK: return 0;
    case STEADY__SHADOW: return allows ? part->amount : 0;
    case STEADY__CHARGE: return parts_min64(part->amount, parts_max64(0, b->top - b->bucket.level));
    default: return part->amount > 0 && partial > 0 ? partial : part->amount;
    }
}

size_t steady__parts_name(const struct steady__part *parts, size_t n, bool allowed,
                          const struct steady__part_decision *each, int64_t partial) {
    size_t named = n;
    int64_t room = 0, amount = 1;
    for (size_t i = 0; i < n; i++) {
        const struct steady__decision *d = &each[i].bucket;
        if (!allowed) {
            const bool votes = parts[i].kind == STEADY__TAKE || parts[i].kind == STEADY__LOOK;
            if (!votes || d->success) continue;
            if (named == n || parts_longer(d->retry_after, each[named].bucket.retry_after)) named = i;
        } else if (parts[i].amount > 0 && parts[i].kind != STEADY__SHADOW) {
            const int64_t its_amount = partial > 0 ? partial : parts[i].amount;
            const int64_t its_room = parts[i].rate->capacity - d->level;
            if (named != n && !parts_less(its_room, its_amount, room, amount)) continue;
            named = i;
            room = its_room;
            amount = its_amount;
        }
    }
    return named == n ? 0 : named;
}

void steady__parts_decide(const struct steady__part *parts, size_t n, const struct steady__how *how, int64_t now,
                          struct steady__bucket *buckets, struct steady__part_decision *each,
                          struct steady__verdict *verdict) {
    struct before before[STEADY__PARTS_MAX];
    bool idle = true, allowed = true; /* idle: all amounts are 0 */
    for (size_t i = 0; i < n; i++)
        idle = idle && parts[i].amount == 0;

    for (size_t i = 0; i < n; i++) {
        const struct steady__part *part = &parts[i];
        const int64_t asked = how->at_least > 0 ? how->at_least : part->amount;
        before[i] = parts_before(part->rate, &buckets[i], now);
        bool allows =
            part->kind == STEADY__CHARGE || asked <= 0 || parts_fits(&before[i], part->rate, asked, how->max_wait);
        if (idle) allows = before[i].bucket.blocked_until == 0;
        if (!allows && (part->kind == STEADY__TAKE || part->kind == STEADY__LOOK)) allowed = false;
        each[i].bucket.success = allows;
    }
    const int64_t partial = how->at_least > 0 ? parts_partial_grant(parts, n, how, before) : 0;

    verdict->success = allowed;
    verdict->wait = 0;
    for (size_t i = 0; i < n; i++) {
        const struct steady__part *part = &parts[i];
        const struct steady__rate *rate = part->rate;
        struct steady__decision *d = &each[i].bucket;
        struct steady__bucket b = before[i].bucket;
        int64_t phase = before[i].phase;
        const int64_t asked = how->at_least > 0 ? how->at_least : part->amount;
        const int64_t granted = allowed ? parts_granted(part, &before[i], d->success, partial) : 0;
        const int64_t needed = part->kind == STEADY__LOOK ? part->amount : part->kind == STEADY__TAKE ? granted : 0;
        if (allowed && needed > 0) verdict->wait = parts_max64(verdict->wait, parts_need(&before[i], rate, needed));

        const bool writes = !how->peek && part->kind != STEADY__LOOK && part->amount != 0;
        d->stepped = before[i].stepped;
        d->changed = writes && (granted != 0 || d->stepped);
        if (writes && granted != 0) {
            b.level = parts_max64(0, b.level + granted);
            if (b.level == 0) {
                b.last = now;
                b.rem = 0;
                phase = 0;
            }
        }
        /* A part that writes and denies is of kind take or shadow. */
        if (writes && !d->success && how->max_wait == 0 && rate->block != 0 && b.blocked_until == 0 &&
            asked <= rate->capacity) {
            b.blocked_until = now + rate->block;
            d->changed = true;
        }
        const int64_t blocked_for = b.blocked_until != 0 ? b.blocked_until - now : 0;
        steady__bucket_report(d, rate, b.level, phase, blocked_for, 0);
        if (d->success)
            d->retry_after = 0;
        else
            d->retry_after =
                idle ? blocked_for : parts_retry_after(&before[i], rate, asked, how->max_wait, blocked_for);
        each[i].granted = granted;
        if (d->changed) buckets[i] = d->busy_for == 0 ? empty_bucket : b;
    }
    verdict->part = steady__parts_name(parts, n, allowed, each, partial);
    verdict->retry_after = allowed ? 0 : each[verdict->part].bucket.retry_after;
}

struct steady__bucket steady__bucket_at(const struct steady__rate *rate, int64_t now, int64_t level, int64_t phase,
                                        int64_t blocked_for) {
    const int64_t whole = phase > 0 ? (phase + rate->drops - 1) / rate->drops : 0;
    return (struct steady__bucket){.level = level,
                                   .last = now - whole,
                                   .rem = whole * rate->drops - phase,
                                   .blocked_until = blocked_for > 0 ? now + blocked_for : 0};
}

void steady__settle(const struct steady__settlement *settlement, int64_t now, struct steady__bucket *bucket,
                    struct steady__settled *settled) {
    const struct steady__rate *rate = settlement->rate;
    struct before b = parts_before(rate, bucket, now);
    const int64_t reserved = settlement->reserved, actual = settlement->actual;
    const int64_t countable = parts_min64(reserved, b.top); /* a forged reservation may hold more */
    const int64_t blocked_until = b.bucket.blocked_until;
    *settled = (struct steady__settled){.bucket.success = true, .bucket.stepped = b.stepped};
    if (actual > reserved) {
        settled->charged = parts_min64(actual - reserved, parts_max64(0, b.top - b.bucket.level));
        b.bucket.level += settled->charged;
    } else if (settlement->same_rate && b.bucket.level > 0) {
        /* What has leaked of the reservation since then is not given back. */
        const int64_t age = parts_max64(0, now - settlement->moment), all = countable * rate->recharge;
        const int64_t left = age <= all / rate->drops ? all - age * rate->drops : 0;
        int64_t content = b.bucket.level * rate->recharge - parts_max64(0, b.phase);
        settled->given_back =
            parts_min64(parts_min64(parts_max64(0, countable - actual) * rate->recharge, left), content);
        if (settled->given_back > 0) {
            content -= settled->given_back;
            const int64_t level = content / rate->recharge + (content % rate->recharge != 0);
            b.phase = level * rate->recharge - content;
            b.bucket =
                level > 0 ? steady__bucket_at(rate, now, level, b.phase, 0) : (struct steady__bucket){.last = now};
            if (b.bucket.last < 0) { /* the clock is younger than the phase */
                b.bucket.last = b.bucket.rem = 0;
                b.phase = now * rate->drops;
            }
            b.bucket.blocked_until = blocked_until;
        }
    }
    settled->bucket.changed = settled->charged > 0 || settled->given_back > 0;
    steady__bucket_report(&settled->bucket, rate, b.bucket.level, b.phase, blocked_until != 0 ? blocked_until - now : 0,
                          0);
    if (settled->bucket.changed) *bucket = settled->bucket.busy_for == 0 ? empty_bucket : b.bucket;
}
