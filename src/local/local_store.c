/* SPDX-License-Identifier: MIT
 * The embedded store: a table of buckets. Decisions are made in the thread of the caller.
 *
 * Asynchronous calls are decided at once, too. Their results wait in a queue for a timer with delay 0, because a
 * callback must not run inside the call that started it. */
#include "local/local_store.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/counter.h"
#include "core/error.h"
#include "local/local_group.h"
#include "local/region.h"
#include "local/table.h"
#include "loop/loop.h"
#include "policy.h"

#define PRIVATE_BUCKETS ((uint32_t)1 << 20)
#define IN_FLIGHT 65536
#define PORTION 1024 /* answers in one turn of the loop */
#define SHARDS 16
#define CLOCK_MIDDLE ((STEADY__TIME_MAX + 1) / 2) /* the time at which a store with the option `clock` is opened */

enum count { ALLOWED, DENIED, BLOCKED, REFUSED, OVERFLOWED, CLOCK_STEPS, COUNTS };

/* Counters of different threads mostly lie in different cache lines: two shards are more than a line apart. The first
 * thread that counts in a shard owns it, and adds without locking the bus, which takes 1 to 4 ns. Other threads whose
 * ids lead to the same shard share the second set. When the owner ends, the shard is owned by the next thread with its
 * id, or by none. */
struct shard {
    atomic_uintptr_t owner; /* the id of a thread; 0: none yet */
    steady__counter own[COUNTS];
    atomic_uint_fast64_t shared[COUNTS];
    char apart[88];
};

struct verdict {
    struct steady__call call;
    steady_result result;
};

/* Verdicts that wait: a list of blocks, of which none ever moves. A ring that grows would be copied, in one call. */
#define BLOCK 64

struct block {
    struct block *next;
    struct verdict verdicts[BLOCK];
};

struct local {
    struct steady_store head;
    struct steady__region region;
    struct steady__table table;
    steady_us (*clock)(void *data); /* the option; NULL: CLOCK_BOOTTIME */
    void *clock_data;
    int64_t clock_opened; /* what `clock` returned at the opening */
    steady_loop loop;
    struct steady__alarm alarm; /* set while verdicts wait */
    struct block *first;        /* of the queue; NULL: there is none yet */
    struct block *last;
    struct block *spare;
    uint32_t taken;  /* verdicts of the first block that have left */
    uint32_t filled; /* of the last block that have come */
    uint32_t queue_max;
    uint64_t submitted;               /* verdicts so far; their ids are 1, 2, ... in the order of the queue */
    steady__counter cancelled;        /* of those in the queue */
    atomic_uint queued;               /* written by the thread of the loop only */
    _Atomic(const char *) last_error; /* the same; static text; NULL: none */
    struct shard shards[SHARDS];
    atomic_uint slots; /* of private memory that have been in use */
};

/* Where this thread counts. */
struct tally {
    struct shard *shard;
    bool owned;
};

static inline struct tally local_tally(struct local *s) {
    const uintptr_t thread = (uintptr_t)pthread_self(); /* an address: its low bits are always the same */
    struct shard *shard = &s->shards[((uint64_t)thread * 0x9e3779b97f4a7c15 >> 32) % SHARDS];
    uintptr_t owner = atomic_load_explicit(&shard->owner, memory_order_relaxed);
    if (owner == 0 && atomic_compare_exchange_strong(&shard->owner, &owner, thread)) owner = thread;
    return (struct tally){.shard = shard, .owned = owner == thread};
}

static inline void local_count(struct tally tally, enum count what, uint64_t by) {
    if (tally.owned)
        steady__counter_add(&tally.shard->own[what], by);
    else
        atomic_fetch_add_explicit(&tally.shard->shared[what], by, memory_order_relaxed);
}

/* ---- Deciding ---- */

/* The table takes times from 0 to STEADY__TIME_MAX. The clock of the caller may count from any moment, also from 1970.
 */
__attribute__((noinline)) static int64_t local_now_of_caller(const struct local *s) {
    const int64_t now = s->clock(s->clock_data);
    int64_t since;
    if (__builtin_sub_overflow(now, s->clock_opened, &since)) since = now < s->clock_opened ? INT64_MIN : INT64_MAX;
    if (since < -CLOCK_MIDDLE) return 0;
    return since < CLOCK_MIDDLE ? CLOCK_MIDDLE + since : STEADY__TIME_MAX;
}

static inline int64_t local_now_us(const struct local *s) {
    struct timespec t;
    if (__builtin_expect(s->clock != NULL, 0)) return local_now_of_caller(s);
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t local_now_of_site(const void *store) { return local_now_us(store); }

/* Threads read the clock at slightly different moments. So a step back counts only if the clock, read after the bucket,
 * is behind it. */
static void local_decide_now(const struct local *s, struct steady__ask *ask, struct steady__answer *answer) {
    while (!steady__table_decide(ask, answer)) {
        ask->now = local_now_us(s);
        ask->stepped = ask->now < answer->ahead;
    }
}

static void local_count_answer(struct local *s, const struct steady__answer *answer) {
    const struct steady__decision *d = &answer->decision;
    const struct tally tally = local_tally(s);
    local_count(tally, d->success ? ALLOWED : DENIED, 1);
    if (!d->success && d->blocked_for > 0) local_count(tally, BLOCKED, 1);
    if (answer->overflowed) local_count(tally, OVERFLOWED, 1);
    if (d->stepped) local_count(tally, CLOCK_STEPS, 1);
}

/* A group is one decision, whatever the number of its members. */
static void local_count_group(struct local *s, enum steady__verb verb, const struct steady__local_site *site,
                              const steady_result *result) {
    const struct tally tally = local_tally(s);
    if (site->stepped > 0) local_count(tally, CLOCK_STEPS, site->stepped);
    if (!steady__verb_decides(verb)) return;
    local_count(tally, result->success ? ALLOWED : DENIED, 1);
    if (!result->success && result->blocked_for > 0) local_count(tally, BLOCKED, 1);
    if (site->overflowed) local_count(tally, OVERFLOWED, 1);
}

__attribute__((noinline, cold)) static void local_grew(struct local *s) {
    steady__region_grew(&s->region, atomic_fetch_add_explicit(&s->slots, 1, memory_order_relaxed) + 1);
}

__attribute__((noinline)) static void local_decide_group(struct local *s, const struct steady__call *call,
                                                         steady_result *result) {
    struct steady__local_site site = {
        .table = &s->table, .key = s->region.key, .clock = local_now_of_site, .clock_data = s};
    steady__local_group(&site, call, result);
    local_count_group(s, call->verb, &site, result);
    for (unsigned i = 0; i < site.grew; i++)
        local_grew(s);
}

static void local_decide(steady_store *store, const struct steady__call *call, steady_result *result) {
    struct local *s = (struct local *)store;
    struct steady__answer answer;
    if (call->group != NULL) {
        local_decide_group(s, call, result);
        return;
    }
    struct steady__siphash half;
    const uint64_t first = steady__siphash_first(&half, s->region.key, call->key, call->key_len);
    struct steady__ask ask = {.place = steady__table_place(&s->table, (struct steady__hash){{first, 0}}),
                              .rate = &call->terms->rate,
                              .peek = call->verb == STEADY__PEEK,
                              .amount = call->amount,
                              .now = local_now_us(s)};
    ask.place.tag = steady__siphash_second(&half); /* while the slot is read */
    if (call->verb == STEADY__RESET) {
        static const struct steady__bucket empty;
        steady__table_reset(&ask.place, ask.now);
        steady__bucket_peek(&empty, ask.rate, ask.now, &answer.decision);
    } else {
        local_decide_now(s, &ask, &answer);
        local_count_answer(s, &answer);
        if (answer.grew) local_grew(s);
    }
    result->source = STEADY_FROM_STORE;
    result->success = answer.decision.success;
    result->level = answer.decision.level;
    result->until_next_drop = answer.decision.until_next_drop;
    result->blocked_for = answer.decision.blocked_for;
    result->retry_after = answer.decision.retry_after;
}

/* ---- Answering later ---- */

static uint32_t local_queued(const struct local *s) { return atomic_load_explicit(&s->queued, memory_order_relaxed); }

static struct block *local_take_block(struct local *s) {
    struct block *block = s->spare;
    if (block == NULL) return malloc(sizeof *block);
    s->spare = block->next;
    return block;
}

/* Room for one more verdict. It is taken by filled++ and queued++. */
static struct verdict *local_queue_room(struct local *s) {
    if (s->first != NULL && s->filled < BLOCK) return &s->last->verdicts[s->filled];
    struct block *block = local_take_block(s);
    if (block == NULL) return NULL;
    block->next = NULL;
    if (s->first == NULL)
        s->first = block;
    else
        s->last->next = block;
    s->last = block;
    s->filled = 0;
    return &block->verdicts[0];
}

static struct verdict local_queue_take(struct local *s) {
    const struct verdict v = s->first->verdicts[s->taken++];
    const uint32_t left = atomic_fetch_sub_explicit(&s->queued, 1, memory_order_relaxed) - 1;
    if (left == 0) {
        s->taken = s->filled = 0; /* of the first block, which is the last one */
    } else if (s->taken == BLOCK) {
        struct block *block = s->first;
        s->first = block->next;
        s->taken = 0;
        block->next = s->spare;
        s->spare = block;
    }
    return v;
}

static void local_free_blocks(struct block **blocks) {
    while (*blocks != NULL) {
        struct block *block = *blocks;
        *blocks = block->next;
        free(block);
    }
}

static int local_come_back(struct local *s) {
    if (!s->alarm.set) steady__alarm_set(&s->alarm, 0);
    return s->alarm.set ? 0 : STEADY_SYSTEM;
}

static int local_submit(steady_store *store, const struct steady__call *call, uint64_t *id) {
    struct local *s = (struct local *)store;
    const uint32_t waiting = local_queued(s);
    int error = waiting >= s->queue_max ? STEADY_OVERLOADED : 0;
    if (error == 0) error = local_come_back(s);
    struct verdict *v = error == 0 ? local_queue_room(s) : NULL;
    if (error == 0 && v == NULL) error = STEADY_NO_MEMORY;
    if (error != 0) {
        if (steady__verb_decides(call->verb)) local_count(local_tally(s), REFUSED, 1);
        const char *why = error == STEADY_OVERLOADED  ? "max_in_flight decisions already wait for the event loop"
                          : error == STEADY_NO_MEMORY ? "out of memory"
                                                      : "the event loop cannot start a timer";
        atomic_store_explicit(&s->last_error, why, memory_order_relaxed);
        return error;
    }
    *id = ++s->submitted;
    v->call = *call;
    steady__result_clear(&v->result);
    local_decide(store, call, &v->result);
    s->filled++;
    atomic_store_explicit(&s->queued, waiting + 1, memory_order_relaxed);
    return 0;
}

/* A cancelled verdict stays in the queue, without a throttler. */
static bool local_cancel(steady_store *store, uint64_t id) {
    struct local *s = (struct local *)store;
    const uint64_t answered = s->submitted - local_queued(s);
    if (id <= answered || id > s->submitted) return false;
    uint64_t at = s->taken + (id - answered - 1);
    struct block *block = s->first;
    for (; at >= BLOCK; at -= BLOCK)
        block = block->next;
    const struct steady__call cancelled = block->verdicts[at].call;
    if (cancelled.throttler == NULL) return false;
    block->verdicts[at].call.throttler = NULL;
    steady__counter_add(&s->cancelled, 1);
    steady__call_release(&cancelled);
    return true;
}

/* Remove the verdict from the queue first: the callback may do anything. */
static void local_answer_first(struct local *s, int error) {
    struct verdict v = local_queue_take(s);
    if (v.call.throttler == NULL) { /* it was cancelled */
        steady__counter_add(&s->cancelled, (uint64_t)-1);
        return;
    }
    if (error != 0) v.result = (steady_result){.error = error};
    steady__finish(&v.call, &v.result);
}

/* Answers in portions, so that the loop is not held. The calls that a callback makes are answered in the next turn. If
 * a callback runs the loop, that turn happens inside the callback. */
static void local_alarm_rang(void *arg) {
    struct local *s = arg;
    if (!steady__alarm_rang(&s->alarm)) return;
    steady__store_hold(&s->head);
    const uint32_t waiting = local_queued(s);
    if (waiting > 1) (void)local_come_back(s);
    for (uint32_t left = waiting < PORTION ? waiting : PORTION; left > 0 && local_queued(s) > 0; left--)
        local_answer_first(s, 0);
    if (local_queued(s) == 0) steady__alarm_stop(&s->alarm);
    steady__store_release(&s->head);
}

/* ---- Opening and closing ---- */

static void local_stats(const steady_store *store, steady_stats *stats) {
    const struct local *s = (const struct local *)store;
    uint64_t sums[COUNTS] = {0};
    for (size_t i = 0; i < SHARDS; i++)
        for (size_t what = 0; what < COUNTS; what++)
            sums[what] += steady__counter_get(&s->shards[i].own[what]) +
                          atomic_load_explicit(&s->shards[i].shared[what], memory_order_relaxed);
    stats->allowed = sums[ALLOWED];
    stats->denied = sums[DENIED];
    stats->blocked = sums[BLOCKED];
    stats->unavailable = sums[REFUSED];
    stats->overflowed = sums[OVERFLOWED];
    stats->clock_steps = sums[CLOCK_STEPS];
    stats->decisions = stats->allowed + stats->denied + stats->unavailable;
    stats->in_flight = local_queued(s) - steady__counter_get(&s->cancelled);
}

static void local_last_error(const steady_store *store, steady_message *message) {
    const char *text = atomic_load_explicit(&((const struct local *)store)->last_error, memory_order_relaxed);
    if (text != NULL) steady__fail(message, 0, "%s", text);
}

/* A local_alarm_rang further down the stack then finds an empty queue. */
static void local_close(steady_store *store) {
    struct local *s = (struct local *)store;
    while (local_queued(s) > 0)
        local_answer_first(s, STEADY_CANCELLED);
    steady__alarm_free(&s->alarm);
    local_free_blocks(&s->first);
    local_free_blocks(&s->spare);
}

/* Calls of other threads may still use the table while the store is closed. They hold their throttlers. */
static void local_free(steady_store *store) {
    steady__region_close(&((struct local *)store)->region);
    free(store);
}

bool steady__local_is_private(const steady_store *store) { return ((const struct local *)store)->region.is_private; }

int steady__local_clear(steady_store *store) {
    struct local *s = (struct local *)store;
    const int error = steady__region_clear(&s->region);
    if (error == 0) atomic_store_explicit(&s->slots, 0, memory_order_relaxed);
    return error;
}

static const struct steady__store_class local_class = {.name = "local",
                                                       .any_thread = true,
                                                       .quiet = true,
                                                       .submit = local_submit,
                                                       .cancel = local_cancel,
                                                       .decide = local_decide,
                                                       .stats = local_stats,
                                                       .last_error = local_last_error,
                                                       .close = local_close,
                                                       .free = local_free};

static int local_open_region(struct local *s, const char *path, uint32_t buckets, steady_message *why) {
    const int error = path != NULL ? steady__region_file(&s->region, path, buckets, why)
                                   : steady__region_private(&s->region, buckets != 0 ? buckets : PRIVATE_BUCKETS, why);
    if (error == 0) steady__table_init(&s->table, s->region.bytes, s->region.buckets);
    return error;
}

static int local_open_alarm(struct local *s, const steady_loop *loop, steady_message *why) {
    if (loop == NULL) return 0;
    s->loop = *loop;
    if (steady__alarm_new(&s->alarm, &s->loop, local_alarm_rang, s) == 0) return 0;
    return steady__fail(why, STEADY_SYSTEM, "the event loop %s cannot create a timer", loop->ops->name);
}

int steady__local_open(steady_store **store, const char *path, const steady_store_options *options,
                       steady_message *why) {
    *store = NULL;
    struct local *s = calloc(1, sizeof *s);
    if (s == NULL) return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
    steady__store_init(&s->head, &local_class, options);
    s->queue_max = options->max_in_flight != 0 ? options->max_in_flight : IN_FLIGHT;
    s->clock = options->clock;
    s->clock_data = options->clock_data;
    if (s->clock != NULL) s->clock_opened = s->clock(s->clock_data);
    int error = local_open_region(s, path, options->buckets, why);
    if (error == 0) error = local_open_alarm(s, options->loop, why);
    if (error != 0) {
        steady__region_close(&s->region);
        free(s);
        return error;
    }
    s->head.tag = (int64_t)(steady__siphash(s->region.key, "tag", 3).word[0] >> 11 | 1);
    *store = &s->head;
    return 0;
}
