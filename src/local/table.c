/* SPDX-License-Identifier: MIT
 * A fixed-size concurrent table of buckets.
 *
 * A slot is 32 bytes, two halves of two words, and each half only ever changes by one 16-byte compare-and-swap:
 *
 *     identity   tag    the second half of the key's hash
 *                meta   blocked_until 50 | 0 | generation 13
 *     state      when   last 50 | tentative 1 | generation 13
 *                what   level 31 | rem 20 | drain 13
 *
 * Times are us since boot. `drain` is the time after `last` when the bucket is empty under the limit that wrote it,
 * rounded up by less than 1 %. From then on it is empty under any limit, as an expired key of Redis is, and its slot is
 * free. The first half of the hash of a key chooses two groups of eight slots; the key may be in any of these sixteen.
 * Nothing is deleted or swept: a drained bucket is no bucket. All zeroes are an empty slot.
 *
 * TENANCY. The generation of the identity counts the keys that the slot has had. The state belongs to the current key
 * only if it has the same generation. A free slot goes to another key in three swaps. Any thread may win each of them:
 *
 *     seal      state      (anything drained) -> (now, tentative, generation + 1)
 *     claim     identity   (old tag, generation) -> (new tag, not blocked, generation + 1)
 *     confirm   state      tentative -> a bucket with its first drops in it
 *
 * A late write for the old key fails, because the seal changed the state. A late claim fails, because the first claim
 * changed the identity. A reset seals the slot; see FULL NEIGHBOURHOODS for what may follow.
 *
 * ONE BUCKET FOR A KEY. Threads with the same new key may claim different slots for it. So a claimed slot does not
 * count until it is confirmed. Before a thread confirms slot A, it scans all sixteen slots, and it knew A before the
 * scan. It confirms A only if the scan finds no confirmed slot of the key, if A is the first tentative slot of the
 * key in probe order, and if it could kill (seal again) the other tentative ones. Proof that A and B are not both
 * confirmed: let A be claimed before B. The scan that confirms B starts after B was claimed, and so sees A. If A is
 * confirmed, B is not. If A is tentative and first, B is killed. If A is tentative and second, A is killed. The swaps
 * are full barriers and the loads sequentially consistent, which this proof needs. Two threads that know A both try to
 * confirm it, and one fails.
 *
 * FULL NEIGHBOURHOODS. If all sixteen slots of a key are live, the key uses an overflow bucket. It is shared by the
 * keys there whose limits leak at the same rate. Its tag is a fingerprint of that rate, and its slot is one of a block
 * of overflow slots, taken and freed as above. So the drops of a limit never leak at the rate of another limit. A key
 * with two capacities, or with a block and without, has one bucket. If each slot of the block is live with another
 * rate, the answer is a denial until the first of them is free. Nothing is written then.
 *
 * When a slot is free again, the share of the key in the overflow bucket is not known. So its own bucket starts as a
 * copy of the overflow bucket. The overflow bucket is read once more between claim and confirm. And a thread that
 * changed an overflow bucket checks whether the key has a slot by now, tentative or not; if so, it decides again, on
 * that slot. Either the reader sees the change, or the writer sees the claim. So no drop is lost; some may count twice.
 * A key that is reset in such a block gets an empty bucket.
 *
 * A settlement gives back nothing from an overflow bucket, nor from the copy that a new bucket starts as: the drops of
 * the reservation may have been in a bucket of the key that was reset since. A call that takes back its own drops knows
 * that they are there.
 *
 * CRASHES. A process that dies or stops between any two instructions leaves a consistent slot and no lock. At worst it
 * leaves a tentative slot. The next thread with that key adopts it; after LEASE any other key may take it. A loop below
 * repeats only after the swap of another thread succeeded.
 *
 * READING. The words of a slot are read one by one, in the order meta, tag, when, what. If the key of the slot changes
 * meanwhile, the generation in `when` shows it, because the seal came before the claim. If the state changes meanwhile,
 * the swap that follows fails. A call that writes nothing reads meta and when once more instead. */
#include "local/table.h"

#if !defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16) && !defined(__aarch64__)
#error "the embedded store needs a 16-byte compare-and-swap: x86-64 with -mcx16, or aarch64"
#endif

#define NEIGHBOURS (2 * STEADY__GROUP_SLOTS)
#define GENERATION ((uint64_t)0x1fff)
#define DRAIN ((uint64_t)0x1fff)
#define TENTATIVE ((uint64_t)0x2000)
#define TIME_SHIFT 14
#define LEASE 1000 /* us */

/* The overflow slots of a block: at most as many limits have an overflow bucket there. */
#define BLOCK STEADY__GROUP_SLOTS

/* A new key goes to its first group, where it is found soonest, until this many slots of it are taken. Then it goes to
 * the emptier group. At 5, a table with as many live buckets as it was made for sends one key in a million to an
 * overflow bucket. */
#define PREFERRED 5

/* A hook between any two accesses to shared memory. Tests interrupt, stop or kill the caller there. */
#ifndef STEADY__STEP
#define STEADY__STEP() ((void)0)
#endif

union half {
    unsigned __int128 whole;
    uint64_t word[2];
};

struct steady__slot {
    union half identity; /* tag, meta */
    union half state;    /* when, what */
};

_Static_assert(sizeof(struct steady__slot) == STEADY__SLOT_SIZE, "the file format says so");
_Static_assert(sizeof(struct steady__slot) * STEADY__GROUP_SLOTS == STEADY__TABLE_ALIGN, "a group is aligned");

/* The words of a slot, as they were read. */
struct view {
    struct steady__slot *slot;
    uint64_t tag, meta, when, what;
};

static const struct steady__bucket empty;

static int64_t table_min64(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- The only accesses to shared memory ---- */

static inline uint64_t table_load(const uint64_t *word) {
    STEADY__STEP();
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static inline bool table_swap(union half *half, uint64_t old0, uint64_t old1, uint64_t new0, uint64_t new1) {
    const union half from = {.word = {old0, old1}}, to = {.word = {new0, new1}};
    STEADY__STEP();
    const bool swapped = __sync_bool_compare_and_swap(&half->whole, from.whole, to.whole);
    STEADY__STEP();
    return swapped;
}

static inline void table_read_identity(struct steady__slot *slot, struct view *v) {
    v->slot = slot;
    v->meta = table_load(&slot->identity.word[1]);
    v->tag = table_load(&slot->identity.word[0]);
}

static inline void table_read_state(struct view *v) {
    v->when = table_load(&v->slot->state.word[0]);
    v->what = table_load(&v->slot->state.word[1]);
}

static inline void table_read_slot(struct steady__slot *slot, struct view *v) {
    table_read_identity(slot, v);
    table_read_state(v);
}

/* ---- Words ---- */

/* A duration in 13 bits, rounded up: below 128 exactly; else with eight significant bits, of which the first is
 * implied. */
static uint64_t table_drain_encode(int64_t us) {
    if (us < 128) return us < 0 ? 0 : (uint64_t)us;
    const unsigned shift = 56 - (unsigned)__builtin_clzll((unsigned long long)us);
    return ((uint64_t)shift << 7) + (((uint64_t)us + ((uint64_t)1 << shift) - 1) >> shift);
}

static int64_t table_drain_decode(uint64_t code) {
    if (code < 128) return (int64_t)code;
    const uint64_t shift = (code >> 7) - 1;
    return (int64_t)((128 | (code & 127)) << shift);
}

static int64_t table_time_of(uint64_t word) { return (int64_t)(word >> TIME_SHIFT); }
static uint64_t table_with_time(uint64_t word, int64_t us) {
    return (uint64_t)us << TIME_SHIFT | (word & (((uint64_t)1 << TIME_SHIFT) - 1));
}

/* The state belongs to the identity. */
static bool table_belongs(const struct view *v) { return ((v->when ^ v->meta) & GENERATION) == 0; }
static bool table_is_tentative(const struct view *v) { return (v->when & TENTATIVE) != 0; }

static void table_unpack(const struct view *v, struct steady__bucket *b) {
    b->level = (int64_t)(v->what >> 33);
    b->last = table_time_of(v->when);
    b->rem = (int64_t)(v->what >> 13 & 0xfffff);
    b->blocked_until = table_time_of(v->meta);
}

/* The bucket is drained and not blocked. */
static bool table_is_over(const struct view *v, int64_t now) {
    return now - table_time_of(v->when) >= table_drain_decode(v->what & DRAIN) && now >= table_time_of(v->meta);
}

/* The slot may go to another key. A state of another generation is sealed, or rubbish; or the identity was read too
 * early, and the slot was claimed and confirmed since. */
static bool table_is_free(const struct view *v, int64_t now) {
    const int64_t age = now - table_time_of(v->when);
    if (!table_belongs(v)) return table_load(&v->slot->identity.word[1]) == v->meta;
    if (table_is_tentative(v)) return age > LEASE || age < -LEASE;
    return table_is_over(v, now);
}

/* ---- Swaps ---- */

/* When the level will have drained. A decision that left the level alone (not `poured`) knows this only if it is after
 * the end of the block. Otherwise the level drains before that, and the earlier time in the slot stays true. */
static inline int64_t table_drained_at(const struct view *v, const struct steady__decision *d, bool poured,
                                       int64_t now) {
    const int64_t busy_until = now + d->busy_for;
    if (poured || d->busy_for > d->blocked_for) return busy_until;
    return table_time_of(v->when) +
           table_min64(table_drain_decode(v->what & DRAIN), busy_until - table_time_of(v->when));
}

static inline bool table_write_state(const struct view *v, const struct steady__bucket *b,
                                     const struct steady__decision *d, bool poured, int64_t now) {
    const int64_t drain = d->busy_for == 0 ? 0 : table_drained_at(v, d, poured, now) - b->last;
    const uint64_t when = table_with_time(v->when & ~TENTATIVE, b->last);
    const uint64_t what = (uint64_t)b->level << 33 | (uint64_t)b->rem << 13 | table_drain_encode(drain);
    return table_swap(&v->slot->state, v->when, v->what, when, what);
}

static bool table_write_block(const struct view *v, int64_t blocked_until) {
    return table_swap(&v->slot->identity, v->tag, v->meta, v->tag, table_with_time(v->meta, blocked_until));
}

static bool table_seal(struct view *v, int64_t now) {
    const uint64_t when = table_with_time(TENTATIVE | ((v->meta + 1) & GENERATION), now);
    if (!table_swap(&v->slot->state, v->when, v->what, when, 0)) return false;
    v->when = when;
    v->what = 0;
    return true;
}

/* Seals and claims a free slot. */
static bool table_take(struct view *v, uint64_t tag, int64_t now) {
    if (!table_seal(v, now)) return false;
    const uint64_t meta = v->when & GENERATION;
    if (!table_swap(&v->slot->identity, v->tag, v->meta, tag, meta)) return false;
    v->tag = tag;
    v->meta = meta;
    return true;
}

/* ---- Places ---- */

uint32_t steady__table_buckets(uint32_t wanted) {
    uint32_t buckets = 64;
    while (buckets < wanted)
        buckets *= 2;
    return buckets;
}

/* Three slots for two buckets, so that the last keys still find a free slot. */
uint32_t steady__table_groups(uint32_t buckets) { return buckets / 2 * 3 / STEADY__GROUP_SLOTS; }
uint32_t steady__table_overflow(uint32_t buckets) { return steady__table_groups(buckets) / 8; }

size_t steady__table_bytes(uint32_t buckets) {
    const size_t groups = steady__table_groups(buckets), overflow = steady__table_overflow(buckets);
    return (groups * STEADY__GROUP_SLOTS + overflow) * STEADY__SLOT_SIZE;
}

void steady__table_init(struct steady__table *table, void *bytes, uint32_t buckets) {
    table->slots = bytes;
    table->groups = steady__table_groups(buckets);
    table->overflow = table->slots + (size_t)table->groups * STEADY__GROUP_SLOTS;
    table->overflow_slots = steady__table_overflow(buckets);
}

/* 0 .. count-1, evenly. */
static uint32_t table_scale(uint64_t bits, uint32_t count) { return (uint32_t)((bits & 0xffffffff) * count >> 32); }

struct steady__place steady__table_place(const struct steady__table *table, struct steady__hash hash) {
    const uint32_t first = table_scale(hash.word[0], table->groups);
    uint32_t second = table_scale(hash.word[0] >> 32, table->groups);
    if (second == first) second = first + 1 < table->groups ? first + 1 : 0;
    const struct steady__place place = {.group = {table->slots + (size_t)first * STEADY__GROUP_SLOTS,
                                                  table->slots + (size_t)second * STEADY__GROUP_SLOTS},
                                        .table = table,
                                        .tag = hash.word[1],
                                        .home = hash.word[0] & (STEADY__GROUP_SLOTS - 1),
                                        .slots = NEIGHBOURS};
    __builtin_prefetch(place.group[0] + place.home, 1);
    return place;
}

/* The block of overflow slots that the hash chooses. A table of under 512 buckets has one, three or six overflow slots.
 */
static inline struct steady__slot *table_overflow_block(const struct steady__place *key) {
    const uint32_t slots = key->table->overflow_slots, blocks = slots < BLOCK ? 1 : slots / BLOCK;
    return key->table->overflow + (size_t)table_scale(key->tag >> 32, blocks) * BLOCK;
}

/* The place of the overflow bucket of all limits with this leak rate, whatever their capacity and block. */
static struct steady__place table_overflow_place(const struct steady__place *key, const struct steady__rate *rate) {
    static const unsigned char no_key[STEADY__SIPHASH_KEY];
    const int64_t leak[2] = {rate->recharge, rate->drops};
    const uint32_t slots = key->table->overflow_slots;
    return (struct steady__place){.group = {table_overflow_block(key), NULL},
                                  .tag = steady__siphash(no_key, leak, sizeof leak).word[0] | 1,
                                  .slots = slots < BLOCK ? slots : BLOCK};
}

/* Whether the block was ever used: the first overflow bucket takes the first slot. */
static inline bool table_has_overflowed(const struct steady__place *key) {
    return table_load(&table_overflow_block(key)->identity.word[0]) != 0;
}

/* In probe order: the home slot and the other one of its cache line first. */
static inline struct steady__slot *table_slot_at(const struct steady__place *place, unsigned i) {
    return place->group[i / STEADY__GROUP_SLOTS] + ((place->home ^ i) & (STEADY__GROUP_SLOTS - 1));
}

static inline bool table_find(const struct steady__place *place, struct view *v) {
    for (unsigned i = 0, slots = place->slots; i < slots; i++) {
        table_read_identity(table_slot_at(place, i), v);
        if (v->tag != place->tag) continue;
        table_read_state(v);
        if (table_belongs(v) && !table_is_tentative(v)) return true;
    }
    return false;
}

/* ---- New keys ---- */

struct scan {
    bool confirmed;        /* the key has a bucket; the other fields are not set */
    struct view tentative; /* the first slot claimed for the key; slot NULL: none */
    struct view free;      /* the slot for a new bucket; slot NULL: none is free */
};

static void table_choose_free(struct scan *s, const struct view first_free[2], const unsigned taken[2]) {
    const bool other = first_free[1].slot != NULL && taken[0] >= PREFERRED && taken[1] < taken[0];
    s->free = first_free[other || first_free[0].slot == NULL];
}

/* Reads all slots of the place, and kills all tentative ones of the key but the first. False: another thread
 * interfered. */
static bool table_scan(const struct steady__place *place, int64_t now, struct scan *s) {
    struct view first_free[2] = {{.slot = NULL}, {.slot = NULL}};
    unsigned taken[2] = {0, 0};
    s->confirmed = false;
    s->tentative.slot = NULL;
    for (unsigned i = 0, slots = place->slots; i < slots; i++) {
        const unsigned group = i / STEADY__GROUP_SLOTS;
        struct view v;
        table_read_slot(table_slot_at(place, i), &v);
        if (v.tag == place->tag && table_belongs(&v)) {
            s->confirmed = !table_is_tentative(&v);
            if (s->confirmed) return true;
            struct view found = v; /* a copy, so that v itself has no address and stays in registers */
            if (s->tentative.slot == NULL)
                s->tentative = v;
            else if (!table_seal(&found, now))
                return false;
        } else if (table_is_free(&v, now)) {
            if (first_free[group].slot == NULL) first_free[group] = v;
            continue;
        }
        taken[group]++;
    }
    table_choose_free(s, first_free, taken);
    return true;
}

/* Finds a tentative slot of the key that may be confirmed, starting with the scan *s. False: another thread
 * interfered. */
static bool table_settle(const struct steady__place *place, int64_t now, struct scan *s, struct view *known) {
    known->slot = NULL;
    for (;;) {
        if (s->confirmed) return false;
        if (s->tentative.slot != NULL) {
            if (s->tentative.slot == known->slot && s->tentative.when == known->when) return true;
            *known = s->tentative;
        } else {
            if (s->free.slot == NULL || !table_take(&s->free, place->tag, now)) return false;
            *known = s->free;
        }
        if (!table_scan(place, now, s)) return false;
    }
}

/* ---- Decisions ---- */

enum outcome { DONE, AHEAD, AGAIN, FULL };

static bool table_is_overflow(const struct steady__place *place) { return place->table == NULL; }

/* A second part, which is blocked for ever, makes the denial of the whole call. */
static void table_decide_part(const struct steady__ask *ask, struct steady__bucket *b, struct steady__decision *d) {
    static const struct steady__rate any = {1, 1, 1, 0};
    struct steady__errand *e = ask->errand;
    struct steady__rate rate = *e->part->rate;
    struct steady__part parts[2] = {*e->part, {&any, 1, STEADY__TAKE}};
    struct steady__bucket buckets[2] = {*b, {.blocked_until = STEADY__EXACT - 1}};
    struct steady__part_decision each[2];
    struct steady__verdict verdict;
    rate.block = table_min64(rate.block, STEADY__TIME_MAX - ask->now);
    parts[0].rate = &rate;
    if (parts[0].amount < 0 && table_is_overflow(&ask->place)) parts[0].amount = 0;
    steady__parts_decide(parts, e->task == STEADY__DENY ? 2 : 1, e->how, ask->now, buckets, each, &verdict);
    *b = buckets[0];
    *d = each[0].bucket;
    e->granted = each[0].granted;
    e->wait = verdict.wait;
    e->poured = e->granted != 0;
}

__attribute__((noinline)) static void table_run_errand(struct steady__bucket *b, const struct steady__ask *ask,
                                                       struct steady__decision *d) {
    struct steady__errand *e = ask->errand;
    if (e->task == STEADY__READ) {
        e->bucket = *b;
        e->poured = false;
        *d = (struct steady__decision){.success = true};
    } else if (e->task == STEADY__CORRECT) {
        struct steady__settlement settlement = *e->settlement;
        struct steady__settled settled;
        settlement.same_rate = settlement.same_rate && !e->keeps;
        steady__settle(&settlement, ask->now, b, &settled);
        *d = settled.bucket;
        e->given_back = settled.given_back;
        e->charged = settled.charged;
        e->poured = d->changed;
    } else {
        table_decide_part(ask, b, d);
    }
}

static inline void table_compute(struct steady__bucket *b, const struct steady__ask *ask, struct steady__decision *d) {
    const struct steady__rate *rate = ask->rate;
    struct steady__rate shorter;
    if (__builtin_expect(ask->errand != NULL, 0)) {
        table_run_errand(b, ask, d);
        return;
    }
    if (rate->block > STEADY__TIME_MAX - ask->now) {
        shorter = *rate;
        shorter.block = STEADY__TIME_MAX - ask->now;
        rate = &shorter;
    }
    if (ask->peek)
        steady__bucket_peek(b, rate, ask->now, d);
    else
        steady__bucket_consume(b, rate, ask->now, ask->amount, d);
}

/* The decision changed the level: it must not be made again. */
static bool table_poured(const struct steady__ask *ask, const struct steady__decision *d) {
    return ask->errand != NULL ? ask->errand->poured : d->success;
}

static bool table_unchanged(const struct view *v) {
    return table_load(&v->slot->identity.word[1]) == v->meta && table_load(&v->slot->state.word[0]) == v->when;
}

/* The slot was sealed while its bucket was being blocked, so the block was lost. */
static bool table_lost_tenancy(const struct view *v) {
    return ((table_load(&v->slot->state.word[0]) ^ v->when) & (GENERATION | TENTATIVE)) != 0;
}

/* The state is written first. Of several threads that see the clock step back, the one that writes it moves the block.
 */
static enum outcome table_write_back(const struct view *v, const struct steady__bucket *b,
                                     const struct steady__ask *ask, const struct steady__decision *d) {
    const bool poured = table_poured(ask, d);
    if (!table_write_state(v, b, d, poured, ask->now)) return AGAIN;
    if (b->blocked_until == table_time_of(v->meta)) return DONE;
    const bool blocked = table_write_block(v, b->blocked_until);
    return poured || (blocked && !table_lost_tenancy(v)) ? DONE : AGAIN;
}

static bool table_is_ahead(const struct steady__bucket *b, const struct steady__ask *ask,
                           struct steady__answer *answer) {
    if (b->last <= ask->now || ask->stepped) return false;
    answer->ahead = b->last;
    return true;
}

/* A settlement computes what has leaked since its reservation. If its time were older than the last drops of others in
 * the bucket, what leaked in between would be given back, too. So it is made only if the state is the one that was read
 * before the time was. */
static bool table_is_too_early(const struct view *v, const struct steady__ask *ask, struct steady__answer *answer) {
    struct steady__errand *e = ask->errand;
    if (e == NULL || e->task != STEADY__CORRECT) return false;
    /* An overflow bucket holds the drops of other keys. It may hold those of the reservation, or not: if the key was
     * reset, or lost its bucket. So nothing is given back, unless this call has just put the drops there. */
    e->keeps = table_is_overflow(&ask->place) && !e->own_drops;
    if (e->seen[0] == v->when && e->seen[1] == v->what) return false;
    e->seen[0] = v->when;
    e->seen[1] = v->what;
    answer->ahead = ask->now;
    return true;
}

static enum outcome table_decide_on(const struct view *v, const struct steady__ask *ask,
                                    struct steady__answer *answer) {
    struct steady__bucket b;
    if (table_is_too_early(v, ask, answer)) return AHEAD;
    table_unpack(v, &b);
    if (table_is_ahead(&b, ask, answer)) return AHEAD;
    if (table_is_over(v, ask->now)) b = empty;
    table_compute(&b, ask, &answer->decision);
    if (answer->decision.changed) return table_write_back(v, &b, ask, &answer->decision);
    return table_unchanged(v) ? DONE : AGAIN;
}

static bool table_inherit_overflow(const struct steady__ask *ask, struct steady__bucket *b) {
    struct view v;
    const struct steady__place shared = table_overflow_place(&ask->place, ask->rate);
    do
        if (!table_find(&shared, &v)) return false;
    while (!table_unchanged(&v));
    if (table_is_over(&v, ask->now)) return false;
    table_unpack(&v, b);
    return true;
}

/* A key without a bucket may have drops in the overflow bucket of its rate. False: there is no such bucket. */
static inline bool table_inherit(const struct steady__ask *ask, struct steady__bucket *b) {
    return !table_is_overflow(&ask->place) && table_has_overflowed(&ask->place) && table_inherit_overflow(ask, b);
}

/* Confirms a slot that table_settle found. The block is written first: until then it belongs to no key. */
static bool table_confirm(struct view *own, const struct steady__bucket *b, const struct steady__decision *d,
                          bool poured, int64_t now) {
    if (b->blocked_until != table_time_of(own->meta) && !table_write_block(own, b->blocked_until)) return false;
    return table_write_state(own, b, d, poured, now);
}

/* The key had no bucket when its slots were read. */
static enum outcome table_decide_on_none(const struct steady__ask *ask, struct steady__answer *answer) {
    struct scan s;
    struct view own;
    struct steady__bucket b = empty;
    struct steady__decision *d = &answer->decision;
    if (!table_scan(&ask->place, ask->now, &s) || s.confirmed) return AGAIN;
    if (s.tentative.slot == NULL && s.free.slot == NULL) return FULL;
    answer->overflowed = table_inherit(ask, &b);
    if (ask->errand != NULL) ask->errand->keeps = true; /* see table_is_too_early */
    if (table_is_ahead(&b, ask, answer)) return AHEAD;
    table_compute(&b, ask, d);
    if (!d->changed || (d->busy_for == 0 && !answer->overflowed)) return DONE;
    answer->grew = s.tentative.slot == NULL && s.free.tag == 0;
    if (!table_settle(&ask->place, ask->now, &s, &own)) return AGAIN;
    if (table_inherit(ask, &b)) {
        if (table_is_ahead(&b, ask, answer)) return AHEAD;
        table_compute(&b, ask, d);
        if (!d->changed) return DONE;
    }
    answer->overflowed = false;
    return table_confirm(&own, &b, d, table_poured(ask, d), ask->now) ? DONE : AGAIN;
}

static enum outcome table_decide_at(const struct steady__ask *ask, struct steady__answer *answer) {
    struct view v;
    return table_find(&ask->place, &v) ? table_decide_on(&v, ask, answer) : table_decide_on_none(ask, answer);
}

/* ---- Full neighbourhoods ---- */

/* The time until the slot is free, in us. */
static int64_t table_free_in(const struct view *v, int64_t now) {
    const int64_t drain =
        table_is_tentative(v) ? LEASE + 1 : table_min64(table_drain_decode(v->what & DRAIN), STEADY__EXACT);
    const int64_t drained_in = table_time_of(v->when) + drain - now, unblocked_in = table_time_of(v->meta) - now;
    return drained_in > unblocked_in ? drained_in : unblocked_in;
}

/* A part that votes, or a shadow, denies until the key can get a bucket. Nothing can be charged or settled. */
static void table_refuse_errand(const struct steady__ask *ask, int64_t wait, struct steady__decision *d) {
    struct steady__errand *e = ask->errand;
    struct steady__bucket full = {.level = ask->rate->capacity, .last = ask->now};
    if (e->task == STEADY__CORRECT || e->part->amount > 0) full.blocked_until = ask->now + wait;
    e->keeps = true;
    table_run_errand(&full, ask, d);
    e->refused_for = wait;
    e->granted = e->wait = e->charged = 0;
    d->changed = false;
    d->level = ask->rate->capacity;
    d->blocked_for = 0;
    d->until_next_drop = wait;
    if (d->retry_after > 0) d->retry_after = wait;
}

/* All overflow slots of the block belong to other rates. So deny as if the bucket were full, until the first slot is
 * free. */
static enum outcome table_refuse(const struct steady__ask *ask, struct steady__answer *answer) {
    const struct steady__rate rate = {ask->rate->capacity, ask->rate->recharge, ask->rate->drops, 0};
    struct steady__bucket full = {.level = rate.capacity, .last = ask->now};
    struct steady__ask unblocking = *ask;
    struct steady__decision *d = &answer->decision;
    int64_t wait = STEADY__EXACT;
    for (unsigned i = 0; i < ask->place.slots; i++) {
        struct view v;
        table_read_slot(table_slot_at(&ask->place, i), &v);
        wait = table_min64(wait, table_free_in(&v, ask->now));
    }
    if (ask->errand != NULL) {
        table_refuse_errand(ask, wait > 0 ? wait : 1, d);
        return DONE;
    }
    unblocking.rate = &rate;
    table_compute(&full, &unblocking, d);
    d->until_next_drop = wait > 0 ? wait : 1;
    if (d->retry_after > 0) d->retry_after = d->until_next_drop;
    return DONE;
}

/* The key has a slot, or will soon have one, which may have been started before our drops were in the overflow bucket.
 */
static bool table_is_claimed(const struct steady__place *place) {
    for (unsigned i = 0, slots = place->slots; i < slots; i++) {
        struct view v;
        table_read_slot(table_slot_at(place, i), &v);
        if (v.tag == place->tag && table_belongs(&v)) return true;
    }
    return false;
}

__attribute__((noinline)) static enum outcome table_decide_on_overflow(const struct steady__ask *ask,
                                                                       struct steady__answer *answer) {
    const struct steady__errand *e = ask->errand;
    const bool of_part = e != NULL && (e->task == STEADY__DECIDE || e->task == STEADY__DENY);
    const int64_t amount = of_part ? e->part->amount : ask->amount;
    const bool drains = !ask->peek && amount < 0; /* the drops may belong to another key */
    struct steady__ask shared = *ask;
    shared.place = table_overflow_place(&ask->place, ask->rate);
    if (drains) shared.amount = 0;
    enum outcome outcome = table_decide_at(&shared, answer);
    if (outcome == FULL) outcome = table_refuse(&shared, answer);
    /* Drops that were given back here are not given back to a copy, too: it may have been made since. */
    const bool gave_back = e != NULL && e->given_back > 0;
    if (outcome == DONE && answer->decision.changed && !gave_back && table_is_claimed(&ask->place)) return AGAIN;
    answer->overflowed = true;
    if (drains && outcome == DONE) {
        answer->decision.success = true;
        answer->decision.retry_after = 0;
    }
    return outcome;
}

__attribute__((noinline)) static bool table_decide_in_full(struct steady__ask *ask, struct steady__answer *answer) {
    enum outcome outcome;
    do {
        answer->overflowed = answer->grew = false;
        outcome = table_decide_at(ask, answer);
        if (outcome == FULL) outcome = table_decide_on_overflow(ask, answer);
    } while (outcome == AGAIN);
    return outcome == DONE;
}

/* The usual case of a consume: the key has a bucket, no block is in it and none begins, and the clock is not behind it.
 * Slot, bucket and decision stay in registers here: on the way through memory a decision takes 8 ns longer. False:
 * nothing was decided. */
static inline bool table_consume_usual(const struct steady__place *place, const struct steady__rate *rate, int64_t now,
                                       int64_t amount, struct steady__decision *decision) {
    struct view v;
    struct steady__bucket b;
    struct steady__decision d;
    if (!table_find(place, &v)) return false;
    table_unpack(&v, &b);
    if (b.blocked_until != 0) return false;
    if (table_is_over(&v, now)) b = empty;
    if (!steady__bucket_consume_usual(&b, rate, now, amount, &d)) return false;
    *decision = d;
    return d.changed ? table_write_state(&v, &b, &d, true, now) : table_unchanged(&v);
}

bool steady__table_decide(struct steady__ask *ask, struct steady__answer *answer) {
    ask->now = table_min64(ask->now, STEADY__TIME_MAX);
    answer->overflowed = answer->grew = false;
    if (ask->errand == NULL && !ask->peek &&
        table_consume_usual(&ask->place, ask->rate, ask->now, ask->amount, &answer->decision))
        return true;
    return table_decide_in_full(ask, answer);
}

/* ---- Reset ---- */

/* Gives the key an empty bucket, so that it does not start as a copy of the overflow bucket. It fails only if another
 * thread used the key after the reset. */
static void table_begin_empty(const struct steady__place *place, int64_t now) {
    static const struct steady__decision drained;
    struct scan s;
    struct view own;
    if (table_scan(place, now, &s) && table_settle(place, now, &s, &own))
        table_confirm(&own, &empty, &drained, false, now);
}

/* The overflow bucket stays: its drops may belong to other keys. */
void steady__table_reset(const struct steady__place *place, int64_t now) {
    struct view v;
    struct scan s;
    bool done = false;
    now = table_min64(now, STEADY__TIME_MAX);
    while (!done) {
        if (table_find(place, &v))
            done = table_seal(&v, now);
        else
            done = table_scan(place, now, &s) && !s.confirmed;
    }
    if (table_has_overflowed(place)) table_begin_empty(place, now);
}
