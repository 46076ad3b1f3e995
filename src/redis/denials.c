/* SPDX-License-Identifier: MIT
 * The memory of denials.
 *
 * WHY IT IS SAFE. Other processes only put drops in. So the level of a bucket is at least what it was at the last
 * reply, minus what has leaked since. A reply does not say when the server decided, only that it was after the request
 * was sent. So the leak is counted from the sending: then the remembered level is at most the true one, and a call that
 * is denied here would be denied there. The wait is counted from the reply: then it is never too short by more than the
 * clocks differ, and at most a round trip too long.
 *
 * A give-back, a reset, a limit that leaks faster, a lost bucket and a step of the server's clock break this rule. In
 * this process, the first two reach the memory at once, and the memory serves only calls that leak at the rate that it
 * knows; their capacities may differ. For all others, an entry counts for a bounded time only.
 *
 * The clock here and that of the server may run at slightly different speeds. So a thousandth of the age is added.
 *
 * THE TABLE has groups of eight entries; a name may be in any entry of its group. An entry is guarded by its version,
 * which is odd while a thread writes it. A reader that meets a writer knows nothing of the bucket. If all entries of a
 * group are in use, a bucket is not remembered. */
#include "redis/denials.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "core/parts.h"
#include "loop/fork_guard.h"

#define GROUPS 1024
#define GROUP 8
#define TRIES 100
#define EPOCH ((steady_us)1 << 51)      /* the time of the boot, so that `last` of a bucket is never negative */
#define BARRIER STEADY__DENY_MEMORY_MAX /* a barrier is kept for so long: what was sent before is too old by then */
#define IN_USE (60 * STEADY_SECOND)     /* a bucket that was full is known as stale for at least so long */
#define REM_BITS 20                     /* drops is at most a million */

struct denials_entry {
    atomic_uint_fast64_t version;        /* odd while a thread writes */
    atomic_uint_fast64_t tag;            /* 0: never used */
    atomic_int_fast64_t sent;            /* the request of the reply */
    atomic_int_fast64_t barrier;         /* the end of a give-back: requests that were sent before say nothing */
    atomic_int_fast64_t delay;           /* from then to the reply */
    atomic_int_fast64_t until;           /* after this the entry may be used for another name */
    atomic_int_fast64_t recharge, drops; /* of the limit of the call */
    atomic_int_fast64_t last;            /* the bucket, as if it was decided at `sent` */
    atomic_int_fast64_t level;           /* and rem in the low bits */
    atomic_int_fast64_t blocked_until;
    atomic_int_fast64_t full, denied; /* the reply showed no room; the reply was a denial */
    char apart[24];
};

_Static_assert(sizeof(struct denials_entry) == 128, "an entry has two cache lines");

/* What an entry holds, as plain values. */
struct denials_view {
    steady_us sent, barrier, delay, until;
    int64_t recharge, drops;
    struct steady__bucket bucket;
    bool full, denied;
};

struct steady__denials {
    struct denials_entry entries[GROUPS * GROUP];
    const struct steady__denials_world *world;
    void *block; /* for free */
    unsigned char key[STEADY__SIPHASH_KEY];
    struct steady__fork_guard fork_guard;
    atomic_uint_fast64_t crowded;
    atomic_int_fast64_t used_until;    /* by a bucket that was full; 0: there was none */
    atomic_int_fast64_t ignore_before; /* a give-back found no place: later replies to requests before it say nothing */
    atomic_int_fast64_t forget_before; /* nor do replies that are remembered */
    unsigned holders;                  /* guarded by the lock of the process */
};

/* The only writable variable of the library. */
static struct {
    atomic_flag lock;
    struct steady__denials *memory;
} denials_process = {.lock = ATOMIC_FLAG_INIT};

/* ---- The clock and the names ---- */

static steady_us denials_system_now(const struct steady__denials_world *world) {
    struct timespec t;
    (void)world;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return EPOCH + (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

static struct steady__hash denials_system_hash(const struct steady__denials_world *world,
                                               const unsigned char key[STEADY__SIPHASH_KEY], const void *bytes,
                                               size_t len) {
    (void)world;
    return steady__siphash(key, bytes, len);
}

const struct steady__denials_world steady__denials_system = {denials_system_now, denials_system_hash};

/* ---- One for each process ---- */

/* False: the process was forked while another thread held the lock. It stays locked then. */
static bool denials_lock_process(void) {
    for (int i = 0; i < TRIES; i++) {
        if (!atomic_flag_test_and_set_explicit(&denials_process.lock, memory_order_acquire)) return true;
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    return false;
}

struct steady__denials *steady__denials_new(const struct steady__denials_world *world) {
    const size_t line = sizeof(struct denials_entry);
    char *block = calloc(1, sizeof(struct steady__denials) + line); /* the system gives a page when it is used */
    if (block == NULL) return NULL;
    struct steady__denials *denials = (struct steady__denials *)(block + (line - (uintptr_t)block % line) % line);
    denials->block = block;
    if (getrandom(denials->key, sizeof denials->key, GRND_NONBLOCK) != (ssize_t)sizeof denials->key) {
        free(block);
        return NULL;
    }
    steady__fork_guard_set(&denials->fork_guard, true);
    denials->world = world;
    denials->holders = 1;
    return denials;
}

/* A child of fork makes a memory of its own: a thread of the parent may have been in the middle of an entry. */
struct steady__denials *steady__denials_hold(void) {
    if (!denials_lock_process()) return steady__denials_new(&steady__denials_system);
    struct steady__denials *denials = denials_process.memory;
    if (denials != NULL && !steady__forked(&denials->fork_guard))
        denials->holders++;
    else
        denials = denials_process.memory = steady__denials_new(&steady__denials_system);
    atomic_flag_clear_explicit(&denials_process.lock, memory_order_release);
    return denials;
}

void steady__denials_release(struct steady__denials *denials) {
    if (denials == NULL || steady__forked(&denials->fork_guard)) return;
    const bool locked = denials_lock_process();
    const bool last = --denials->holders == 0;
    if (last && denials_process.memory == denials) denials_process.memory = NULL;
    if (locked) atomic_flag_clear_explicit(&denials_process.lock, memory_order_release);
    if (!last) return;
    steady__fork_guard_clear(&denials->fork_guard);
    free(denials->block);
}

struct steady__denials *steady__denials_hold_again(struct steady__denials *denials) {
    const bool locked = denials_lock_process();
    denials->holders++;
    if (locked) atomic_flag_clear_explicit(&denials_process.lock, memory_order_release);
    return denials;
}

steady_us steady__denials_now(const struct steady__denials *denials) { return denials->world->now(denials->world); }

/* ---- Names ---- */

uint64_t steady__denials_scope(const struct steady__denials *denials, const void *server, size_t len) {
    return denials->world->hash(denials->world, denials->key, server, len).word[0];
}

struct steady__hash steady__denials_name(const struct steady__denials *denials, uint64_t scope, const char *key,
                                         size_t key_len) {
    struct steady__hash name = denials->world->hash(denials->world, denials->key, key, key_len);
    name.word[0] ^= scope;
    name.word[1] ^= scope;
    if (name.word[0] == 0) name.word[0] = 1;
    return name;
}

static struct denials_entry *denials_group(const struct steady__denials *denials, struct steady__hash name) {
    return (struct denials_entry *)&denials->entries[name.word[1] % GROUPS * GROUP];
}

/* ---- Entries ---- */

/* The version is read before and after the fields, and written before and after them. The orders of the fields keep it
 * so: no load of a field moves behind the second load of the version, and no store of one before its first store. */
static int64_t denials_load(const atomic_int_fast64_t *field) {
    return atomic_load_explicit(field, memory_order_acquire);
}

static void denials_store(atomic_int_fast64_t *field, int64_t value) {
    atomic_store_explicit(field, value, memory_order_release);
}

static bool denials_is(const struct denials_entry *entry, struct steady__hash name) {
    return atomic_load_explicit(&entry->tag, memory_order_acquire) == name.word[0];
}

static bool denials_read(const struct denials_entry *entry, struct steady__hash name, struct denials_view *view) {
    const uint64_t version = atomic_load_explicit(&entry->version, memory_order_acquire);
    if (version % 2 == 1 || !denials_is(entry, name)) return false;
    view->sent = denials_load(&entry->sent);
    view->barrier = denials_load(&entry->barrier);
    view->delay = denials_load(&entry->delay);
    view->until = denials_load(&entry->until);
    view->recharge = denials_load(&entry->recharge);
    view->drops = denials_load(&entry->drops);
    const int64_t level = denials_load(&entry->level);
    view->bucket = (struct steady__bucket){.level = level >> REM_BITS,
                                           .last = denials_load(&entry->last),
                                           .rem = level & ((1 << REM_BITS) - 1),
                                           .blocked_until = denials_load(&entry->blocked_until)};
    view->full = denials_load(&entry->full) != 0;
    view->denied = denials_load(&entry->denied) != 0;
    return atomic_load_explicit(&entry->version, memory_order_relaxed) == version;
}

static bool denials_lock(struct denials_entry *entry) {
    for (int i = 0; i < TRIES; i++) {
        uint64_t version = atomic_load_explicit(&entry->version, memory_order_relaxed);
        if (version % 2 == 0 && atomic_compare_exchange_weak_explicit(&entry->version, &version, version + 1,
                                                                      memory_order_acquire, memory_order_relaxed))
            return true;
    }
    return false;
}

static void denials_unlock(struct denials_entry *entry) {
    atomic_fetch_add_explicit(&entry->version, 1, memory_order_release);
}

/* The caller has locked the entry. */
static void denials_write(struct denials_entry *entry, struct steady__hash name, const struct denials_view *view) {
    atomic_store_explicit(&entry->tag, name.word[0], memory_order_release);
    denials_store(&entry->sent, view->sent);
    denials_store(&entry->barrier, view->barrier);
    denials_store(&entry->delay, view->delay);
    denials_store(&entry->until, view->until);
    denials_store(&entry->recharge, view->recharge);
    denials_store(&entry->drops, view->drops);
    denials_store(&entry->last, view->bucket.last);
    denials_store(&entry->level, view->bucket.level << REM_BITS | view->bucket.rem);
    denials_store(&entry->blocked_until, view->bucket.blocked_until);
    denials_store(&entry->full, view->full);
    denials_store(&entry->denied, view->denied);
}

/* The entry of the name, or one that is free; locked. NULL: all are in use, or are being written. */
static struct denials_entry *denials_take(struct steady__denials *denials, struct steady__hash name, steady_us now,
                                          bool only_known) {
    struct denials_entry *group = denials_group(denials, name);
    for (int i = 0; i < GROUP; i++) {
        if (!denials_is(&group[i], name) || !denials_lock(&group[i])) continue;
        if (denials_is(&group[i], name)) return &group[i];
        denials_unlock(&group[i]);
    }
    for (int i = 0; i < GROUP && !only_known; i++) {
        if (denials_load(&group[i].until) > now || !denials_lock(&group[i])) continue;
        if (denials_load(&group[i].until) <= now) return &group[i];
        denials_unlock(&group[i]);
    }
    return NULL;
}

/* ---- Learning ---- */

/* Of the moments at which the next drop may leak, takes the earliest one: `until_next_drop` is rounded up. */
static struct steady__bucket denials_bucket(const struct steady__observed *o) {
    const int64_t longest = (o->until_next_drop - 1) * o->rate->drops + 1;
    const int64_t phase = longest < o->rate->recharge ? o->rate->recharge - longest : 0;
    struct steady__bucket bucket = steady__bucket_at(o->rate, o->sent, o->level, phase, 0);
    if (o->blocked_for > 0)
        bucket.blocked_until =
            o->blocked_for < STEADY__EXACT - 1 - o->sent ? o->sent + o->blocked_for : STEADY__EXACT - 1;
    return bucket;
}

static void denials_raise(atomic_int_fast64_t *to, int64_t now) {
    int64_t before = denials_load(to);
    while (before < now && !atomic_compare_exchange_weak(to, &before, now))
        continue;
}

bool steady__denials_in_use_at(const struct steady__denials *denials, steady_us *now) {
    const steady_us until = denials_load(&denials->used_until);
    if (until == 0) return false;
    *now = steady__denials_now(denials);
    return *now < until;
}

bool steady__denials_in_use(const struct steady__denials *denials) {
    steady_us now;
    return steady__denials_in_use_at(denials, &now);
}

/* A bucket gets an entry when it is full. A reply that shows room updates the entry, because a hot bucket is full again
 * soon, but does not make it last longer. */
void steady__denials_learn(struct steady__denials *denials, struct steady__hash name,
                           const struct steady__observed *o) {
    const bool full = steady__denials_is_full(o->rate, o->level, o->amount, o->blocked_for);
    struct denials_view view = {.sent = o->sent,
                                .delay = o->came - o->sent,
                                .until = o->sent + o->valid,
                                .recharge = o->rate->recharge,
                                .drops = o->rate->drops,
                                .bucket = denials_bucket(o),
                                .full = full,
                                .denied = o->denied};
    if (view.bucket.last < 0 || view.until <= o->came || o->sent < denials_load(&denials->ignore_before) ||
        o->sent < denials_load(&denials->forget_before))
        return;
    if (full) denials_raise(&denials->used_until, view.until + IN_USE);
    struct denials_entry *entry = denials_take(denials, name, o->came, !full);
    if (entry == NULL) {
        if (full) atomic_fetch_add_explicit(&denials->crowded, 1, memory_order_relaxed);
        return;
    }
    const bool known = denials_is(entry, name);
    view.barrier = known ? denials_load(&entry->barrier) : 0;
    if (!full || view.until < view.barrier + BARRIER) view.until = denials_load(&entry->until);
    if (!known || (denials_load(&entry->sent) <= o->sent && view.barrier <= o->sent)) denials_write(entry, name, &view);
    denials_unlock(entry);
}

/* If no entry is free, earlier requests of all names are ignored. */
void steady__denials_forget(struct steady__denials *denials, struct steady__hash name, steady_us now) {
    const struct denials_view view = {
        .sent = now, .barrier = now, .until = now + BARRIER, .recharge = 1, .drops = 1, .bucket = {.last = now}};
    struct denials_entry *group = denials_group(denials, name);
    bool kept = false;
    for (int i = 0; i < GROUP; i++) {
        if (!denials_is(&group[i], name)) continue;
        while (!denials_lock(&group[i])) /* a thread was stopped while it wrote */
            nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
        if (denials_is(&group[i], name)) {
            denials_write(&group[i], name, &view);
            kept = true;
        }
        denials_unlock(&group[i]);
    }
    struct denials_entry *entry = kept ? NULL : denials_take(denials, name, now, false);
    if (entry != NULL) {
        denials_write(entry, name, &view);
        denials_unlock(entry);
    } else if (!kept) {
        denials_raise(&denials->ignore_before, now);
    }
}

void steady__denials_forget_all(struct steady__denials *denials, steady_us now) {
    denials_raise(&denials->forget_before, now);
}

uint64_t steady__denials_crowded(const struct steady__denials *denials) {
    return atomic_load_explicit(&denials->crowded, memory_order_relaxed);
}

/* ---- Denying ---- */

/* The bucket is at `sent` what it was when the server decided. So it is looked at twice. If the server decided at once,
 * all of the age has leaked; if it replied at once, all but the delay. */
static enum steady__denial denials_judge(const struct denials_view *view, const struct steady__rate *rate,
                                         int64_t amount, steady_us valid, steady_us now, struct steady__look *look) {
    const struct steady__rate no_block = {rate->capacity, rate->recharge, rate->drops, 0};
    const steady_us age = now - view->sent;
    const steady_us earliest = age > view->delay ? now - view->delay : view->sent, latest = now + age / 1000 + 1;
    struct steady__bucket least = view->bucket, most = view->bucket;
    bool stepped;
    /* At another rate, the server counts the leak from the last write of the bucket, which the reply does not show. */
    if (rate->recharge != view->recharge || rate->drops != view->drops) return STEADY__UNKNOWN_BUCKET;
    if (age < 0 || age >= valid || now >= view->until) return view->full ? STEADY__STALE : STEADY__UNKNOWN_BUCKET;
    steady__bucket_consume(&most, &no_block, earliest, amount, &look->decision);
    /* If no drop leaks in between, the bucket is the same at both times. Most denials end here. */
    if (rate->block == 0 && view->bucket.blocked_until == 0 && !look->decision.success &&
        look->decision.until_next_drop > latest - earliest)
        return STEADY__FULL;
    steady__bucket_advance(&least, rate, latest, &stepped);
    look->room = rate->capacity - least.level;
    if (least.blocked_until == 0 && rate->block != 0) {
        look->room = INT64_MAX; /* the store has to start the block */
        return STEADY__HAS_ROOM;
    }
    if (least.blocked_until != 0 || amount > look->room) return STEADY__FULL;
    if (!view->denied || look->decision.success) return STEADY__HAS_ROOM;
    look->wait = look->decision.retry_after;
    return STEADY__TOO_EARLY;
}

enum steady__denial steady__denials_look(const struct steady__denials *denials, struct steady__hash name,
                                         const struct steady__rate *rate, int64_t amount, steady_us valid,
                                         steady_us now, struct steady__look *look) {
    struct denials_entry *group = denials_group(denials, name);
    struct denials_view view;
    for (int i = 0; i < GROUP; i++)
        if (denials_is(&group[i], name) && denials_read(&group[i], name, &view))
            return view.sent >= denials_load(&denials->forget_before)
                       ? denials_judge(&view, rate, amount, valid, now, look)
                       : STEADY__UNKNOWN_BUCKET;
    return STEADY__UNKNOWN_BUCKET;
}
