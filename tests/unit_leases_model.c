/* SPDX-License-Identifier: MIT
 * Leases against a bucket of a server: random histories of many processes, without a clock of the machine.
 *
 * A history has a true time. The clock of a process is as fast, and some time ahead. That of the server may step.
 * Messages take random times, overtake each other, and are lost. Processes crash. Limits change. Buckets are reset and
 * lost.
 *
 * THE BOUND has no tolerance. The content of a bucket is counted in 1/drops us, and nothing in it is rounded. After the
 * last drops of a window went in, it is at most capacity * recharge. It was at least 0 before the first ones. Between
 * them it leaks at most `drops` for each us. A drop is spent less than lease_age after it went in, so
 *
 *     n * recharge <= capacity * recharge + (W + lease_age) * drops      for n drops allowed in a window of length W
 *
 * What a reset, a drain or a loss takes out comes on top. So does a settle of drops that went in before one of them,
 * under another rate, or before a step of the clock. In a window with two rates or such a step, nothing is promised. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "core/parts.h"
#include "random.h"
#include "redis/leases.h"

#define HISTORIES 800
#define LEAST 50 /* times for each kind of event */
#define PROCESSES 5
#define HOLDERS 2
#define BUCKETS 2
#define LIMITS 3
#define WAITERS 64
#define EVENTS 4096
#define MESSAGES 16384
#define ALLOWED 16384
#define SHARE 16 /* of the capacity: the most that a take may ask for */
#define UNUSED 4 /* a lease that is unused for this part of its age is over */

__extension__ typedef __int128 wide;

enum verb { CALL, TAKE, SETTLE, RESET, DRAIN };

/* A request. That of a take is also its lease, and its ticket. */
struct message {
    enum verb verb;
    int process, holder, bucket;
    unsigned life; /* of the process */
    struct steady__rate rate;
    int64_t amount, n; /* of a take: its own drops, and those that it asks for */
    steady_us sent;
    bool is_silent; /* no answer is heard */
    /* What the server did. */
    bool executed, success;
    steady_us moment, stamp; /* the true time, and that of the server */
    int64_t op, granted, level, until_next_drop;
    /* The lease. */
    steady_us came, used_at;
    bool held, ended, is_void;
    int64_t spent;
    struct message *of; /* of a settle: the take */
};

struct process {
    struct steady__denials_world world; /* first */
    steady_us ahead;                    /* its clock is so far ahead */
    unsigned life;
    struct steady__leases *leases;
    struct steady__lease_holder holders[HOLDERS];
    bool timer_set[HOLDERS];
    steady_us late; /* its timers are, at most */
    int limit;
    struct message *lease[BUCKETS], *take[BUCKETS], *short_take[BUCKETS];
    int64_t waiters[BUCKETS][WAITERS];
    int n_waiters[BUCKETS];
};

/* Drops that were allowed. */
struct allowed {
    steady_us time;
    const struct message *message;
    int64_t amount;
};

struct taken_out {
    steady_us time;
    int64_t content;
};

struct server_bucket {
    struct steady__bucket bucket;
    struct steady__rate rate; /* of the last operation; recharge 0: there was none */
    int64_t ops;
    int64_t boundary;           /* the last operation after which an earlier reservation gives back too much */
    steady_us switches[EVENTS]; /* of the rate, and steps of the clock */
    int n_switches;
    struct taken_out taken_out[EVENTS];
    int n_taken_out;
    struct allowed allowed[ALLOWED];
    int n_allowed;
};

enum event_kind { ARRIVES, ANSWERED, TIMED_OUT, CALLS, TIMER, CHANGES, BURSTS, ENDS, LOSES, STEPS };

struct event {
    steady_us time;
    uint64_t order;
    enum event_kind kind;
    int process, holder, bucket;
    struct message *message;
};

static struct history {
    int64_t number;
    uint64_t seed, events_made;
    steady_us now, age, end, timeout;
    steady_us stepped; /* the clock of the server is so far ahead */
    int64_t trip;      /* most messages take so long at most */
    int n_processes;
    struct process processes[PROCESSES];
    struct server_bucket buckets[BUCKETS];
    struct steady__rate limits[LIMITS];
    struct event queue[EVENTS];
    size_t n_queue;
    struct message messages[MESSAGES];
    size_t n_messages;
    int64_t call_every, unit; /* of amounts */
} h;

static struct {
    int64_t calls, sent_as_they_are, spent, right_denials, wrong_denials, waits;
    int64_t takes_full, takes_short, takes_denied, takes_unknown, takes_void, takes_executed_unheard;
    int64_t settles, settles_lost, settles_not_due, settles_wrong, replaced, left_behind;
    int64_t resets, drains, losses, steps, changes, bursts, crashes, crashes_with_a_lease, closes, closes_with_a_lease;
    int64_t windows, windows_without_a_bound, windows_that_need_the_age, closest;
} totals;

#define require(condition)                                                                                             \
    ((condition) ? (void)0                                                                                             \
                 : (print_error("history %" PRId64 " at %" PRId64 " us\n", h.number, h.now),                           \
                    mock_assert(0, #condition, __FILE__, __LINE__), fail()))

static int64_t any(int64_t low, int64_t high) { return random_in(&h.seed, low, high); }
static bool one_in(int64_t n) { return any(1, n) == 1; }

#define CLOCK_BEGINS ((steady_us)1 << 50)
static steady_us server_now(void) { return CLOCK_BEGINS + h.now + h.stepped; }

/* ---- Events ---- */

static bool is_before(const struct event *a, const struct event *b) {
    return a->time != b->time ? a->time < b->time : a->order < b->order;
}

static void queue_swap(size_t a, size_t b) {
    const struct event event = h.queue[a];
    h.queue[a] = h.queue[b];
    h.queue[b] = event;
}

static void schedule(struct event event) {
    size_t i = h.n_queue++;
    require(i < EVENTS);
    event.order = ++h.events_made;
    h.queue[i] = event;
    for (; i > 0 && is_before(&h.queue[i], &h.queue[(i - 1) / 2]); i = (i - 1) / 2)
        queue_swap(i, (i - 1) / 2);
}

static struct event next_event(void) {
    const struct event event = h.queue[0];
    h.queue[0] = h.queue[--h.n_queue];
    for (size_t i = 0, child; (child = 2 * i + 1) < h.n_queue; i = child) {
        if (child + 1 < h.n_queue && is_before(&h.queue[child + 1], &h.queue[child])) child++;
        if (!is_before(&h.queue[child], &h.queue[i])) break;
        queue_swap(i, child);
    }
    return event;
}

/* ---- Messages ---- */

static steady_us any_trip(void) { return one_in(20) ? any(0, 2 * h.age) : any(0, h.trip); }

static struct message *new_message(enum verb verb, int p, int holder, int bucket) {
    require(h.n_messages < MESSAGES);
    struct message *m = &h.messages[h.n_messages++];
    *m = (struct message){.verb = verb,
                          .process = p,
                          .holder = holder,
                          .bucket = bucket,
                          .life = h.processes[p].life,
                          .rate = h.limits[h.processes[p].limit]};
    return m;
}

/* It waits for its connection, then goes out. */
static void send_message(struct message *m) {
    m->sent = h.now + (one_in(4) ? any(0, h.age / 4) : 0);
    const steady_us arrives = m->sent + any_trip(), answered = arrives + any_trip();
    const bool lost = one_in(30);
    m->is_silent = lost || one_in(30) || answered > h.now + h.timeout;
    if (!lost) schedule((struct event){.time = arrives, .kind = ARRIVES, .message = m});
    if (m->verb == SETTLE)
        totals.settles_lost += lost;
    else if (m->is_silent)
        schedule((struct event){.time = h.now + h.timeout, .kind = TIMED_OUT, .message = m});
    else
        schedule((struct event){.time = answered, .kind = ANSWERED, .message = m});
}

/* ---- Processes ---- */

static steady_us process_now(const struct steady__denials_world *world) {
    return h.now + ((const struct process *)world)->ahead;
}

static struct steady__hash process_hash(const struct steady__denials_world *world,
                                        const unsigned char key[STEADY__SIPHASH_KEY], const void *bytes, size_t len) {
    (void)world;
    (void)key;
    assert_int_equal(len, 1);
    const uint64_t bucket = *(const unsigned char *)bytes - (uint64_t)'a';
    return (struct steady__hash){{bucket + 1, 77}}; /* one group has all buckets */
}

static struct steady__hash name_of(const struct process *process, int bucket) {
    const char key = (char)('a' + bucket);
    return steady__leases_name(process->leases, &key, 1);
}

static void start_process(int p) {
    struct process *process = &h.processes[p];
    const struct process fresh = {.world = {process_now, process_hash},
                                  .ahead = any(0, (int64_t)1 << 50),
                                  .life = process->life + 1,
                                  .late = one_in(2)   ? 0
                                          : one_in(3) ? 3 * h.age
                                                      : any(0, h.age / 4),
                                  .limit = process->limit};
    *process = fresh;
    process->leases = steady__leases_new(h.age, &process->world);
    assert_non_null(process->leases);
    for (int i = 0; i < HOLDERS; i++)
        steady__list_init(&process->holders[i].leases);
}

/* ---- Leases ---- */

static bool leaks_alike(const struct steady__rate *a, const struct steady__rate *b) {
    return a->recharge == b->recharge && a->drops == b->drops;
}

static bool is_same_rate(const struct steady__rate *a, const struct steady__rate *b) {
    return a->capacity == b->capacity && leaks_alike(a, b);
}

static void allow(const struct message *m, steady_us time, int64_t amount) {
    struct server_bucket *b = &h.buckets[m->bucket];
    require(b->n_allowed < ALLOWED);
    b->allowed[b->n_allowed++] = (struct allowed){time, m, amount};
}

/* The lease has ended. A settle names what was spent, once, and never more than was granted. */
static void end_lease(struct process *process, const struct steady__lease_end *end) {
    struct message *take = end->ticket;
    if (take == NULL) return;
    require(take->held && !take->ended && take->process == process - h.processes && take->life == process->life);
    require(end->granted == take->granted && end->spent >= 0 && end->spent <= end->granted);
    take->ended = true;
    if (process->lease[take->bucket] == take) process->lease[take->bucket] = NULL;
    if (!end->is_due) {
        const bool has_leaked =
            (wide)(h.now - take->came) * take->rate.drops >= (wide)take->granted * take->rate.recharge;
        require(take->is_void || take->spent == take->granted || has_leaked ||
                !leaks_alike(&take->rate, &h.limits[process->limit]));
        totals.settles_not_due++;
        return;
    }
    require(!take->is_void && end->spent == take->spent && leaks_alike(&end->rate, &take->rate));
    struct message *settle = new_message(SETTLE, take->process, take->holder, take->bucket);
    settle->rate = end->rate;
    settle->of = take;
    totals.settles++;
    send_message(settle);
}

/* A lease answers with drops that were in the bucket before, at most lease_age earlier, counted from the sending. */
static void spend(struct process *process, int bucket, const struct steady__rate *rate, int64_t amount,
                  const struct steady__decision *decision) {
    struct message *take = process->lease[bucket];
    require(take != NULL && take->held && !take->ended && !take->is_void && take->executed && take->success);
    require(take->sent <= take->moment && take->moment <= h.now);
    require(h.now - take->sent < h.age);
    require(is_same_rate(&take->rate, rate));
    require(take->spent + amount <= take->granted);
    require(decision->success && decision->level == take->level && decision->retry_after == 0);
    require(decision->until_next_drop == take->until_next_drop);
    take->spent += amount;
    take->used_at = h.now;
    totals.spent++;
    allow(take, h.now, amount);
}

/* A short take denies, at most until lease_age after its sending. */
static void deny(struct process *process, int bucket, const struct steady__rate *rate, int64_t amount,
                 const struct steady__decision *decision) {
    const struct message *take = process->short_take[bucket];
    struct steady__bucket copy = h.buckets[bucket].bucket;
    struct steady__decision real;
    require(take != NULL && is_same_rate(&take->rate, rate) && take->granted < take->n && amount <= take->n);
    require(h.now < take->sent + h.age);
    require(!decision->success && decision->retry_after > 0 && decision->level == take->level);
    require(h.now + decision->retry_after <= take->sent + h.age);
    steady__bucket_consume(&copy, rate, server_now(), amount, &real);
    if (real.success)
        totals.wrong_denials++;
    else
        totals.right_denials++;
}

/* All leases of all processes hold at most a sixteenth of the capacity for each of them. */
static void check_idle(int bucket) {
    int64_t capacity = 0, held = 0;
    for (int i = 0; i < LIMITS; i++)
        if (h.limits[i].capacity > capacity) capacity = h.limits[i].capacity;
    for (int i = 0; i < h.n_processes; i++) {
        const struct message *take = h.processes[i].lease[bucket];
        if (take != NULL) held += take->granted - take->spent;
    }
    require(held <= h.n_processes * (capacity / SHARE));
}

static void schedule_timers(struct process *process) {
    for (int i = 0; i < HOLDERS; i++) {
        const steady_us due = steady__leases_due(process->leases, &process->holders[i]);
        if (due < 0 || process->timer_set[i]) continue;
        const steady_us when = due - process->ahead > h.now ? due - process->ahead : h.now;
        process->timer_set[i] = true;
        schedule((struct event){.time = when + any(0, process->late),
                                .kind = TIMER,
                                .process = (int)(process - h.processes),
                                .holder = i,
                                .bucket = (int)process->life});
    }
}

static void end_due(struct process *process, int holder, bool all) {
    struct steady__lease_end ends[BUCKETS];
    const size_t most = all ? BUCKETS : (size_t)any(1, BUCKETS);
    size_t n;
    do {
        n = steady__leases_end(process->leases, &process->holders[holder], all, ends, most);
        require(n <= most);
        for (size_t i = 0; i < n; i++)
            end_lease(process, &ends[i]);
    } while (n == most);
    const steady_us due = steady__leases_due(process->leases, &process->holders[holder]);
    require(all ? due == -1 : due == -1 || due > h.now + process->ahead);
}

/* ---- Calls ---- */

static void ask(struct process *process, int holder, int bucket, int64_t amount);

static void take_drops(struct process *process, int holder, int bucket, int64_t amount, int64_t n) {
    struct message *take = new_message(TAKE, (int)(process - h.processes), holder, bucket);
    struct message *left = process->lease[bucket]; /* that of another loop is left behind when it is over */
    require(process->take[bucket] == NULL);
    require(left == NULL || left->is_void || left->spent == left->granted || h.now >= left->sent + h.age ||
            h.now >= left->used_at + h.age / UNUSED);
    totals.left_behind += left != NULL;
    process->lease[bucket] = NULL;
    require(n > amount && n <= take->rate.capacity / SHARE);
    take->amount = amount;
    take->n = n;
    process->take[bucket] = take;
    send_message(take);
}

static void send_as_it_is(struct process *process, int holder, int bucket, int64_t amount) {
    struct message *call = new_message(CALL, (int)(process - h.processes), holder, bucket);
    call->amount = amount;
    totals.sent_as_they_are++;
    send_message(call);
}

static void ask(struct process *process, int holder, int bucket, int64_t amount) {
    const struct steady__rate *rate = &h.limits[process->limit];
    const struct steady__hash name = name_of(process, bucket);
    struct steady__lease_look look = {.answer = STEADY__LEASE_NONE};
    if (one_in(2)) /* the threads of a pool first look without a loop */
        look.answer = steady__leases_spend(process->leases, name, rate, amount, &look.decision);
    if (look.answer == STEADY__LEASE_NONE) {
        steady__leases_ask(process->leases, &process->holders[holder], name, rate, amount, &look);
        totals.replaced += look.answer == STEADY__LEASE_TAKE && look.end.ticket != NULL;
        end_lease(process, &look.end);
    }
    switch (look.answer) {
    case STEADY__LEASE_SPENT: spend(process, bucket, rate, amount, &look.decision); break;
    case STEADY__LEASE_SHORT: deny(process, bucket, rate, amount, &look.decision); break;
    case STEADY__LEASE_TAKE: take_drops(process, holder, bucket, amount, look.take); break;
    case STEADY__LEASE_NONE: send_as_it_is(process, holder, bucket, amount); break;
    case STEADY__LEASE_WAIT:
        require(process->take[bucket] != NULL && process->take[bucket]->holder == holder);
        require(amount <= process->take[bucket]->n);
        totals.waits++;
        if (process->n_waiters[bucket] < WAITERS) process->waiters[bucket][process->n_waiters[bucket]++] = amount;
        break;
    }
}

static void go_on(struct process *process, int holder, int bucket) {
    int64_t amounts[WAITERS];
    const int n = process->n_waiters[bucket];
    memcpy(amounts, process->waiters[bucket], sizeof amounts);
    process->n_waiters[bucket] = 0;
    for (int i = 0; i < n; i++)
        ask(process, holder, bucket, amounts[i]);
}

static void forget(const struct message *m) {
    struct process *process = &h.processes[m->process];
    struct steady__lease_end end;
    const bool resets = m->verb == RESET;
    process->short_take[m->bucket] = NULL;
    for (size_t i = 0; i < h.n_messages && resets; i++) { /* also those that are left behind */
        struct message *lease = &h.messages[i];
        if (lease->process == m->process && lease->life == m->life && lease->bucket == m->bucket && lease->held)
            lease->is_void = true;
    }
    if (resets && process->take[m->bucket] != NULL) process->take[m->bucket]->is_void = true;
    steady__leases_forget(process->leases, &process->holders[m->holder], name_of(process, m->bucket), resets, &end);
    require(!end.is_due);
    end_lease(process, &end);
}

static void call(int p) {
    struct process *process = &h.processes[p];
    const int holder = one_in(4) ? 1 : 0, bucket = one_in(8) ? 1 : 0;
    const int64_t capacity = h.limits[process->limit].capacity;
    totals.calls++;
    if (one_in(400)) {
        struct message *m = new_message(one_in(2) ? RESET : DRAIN, p, holder, bucket);
        m->amount = any(1, capacity);
        *(m->verb == RESET ? &totals.resets : &totals.drains) += 1;
        forget(m);
        send_message(m);
        return;
    }
    if (process->late > h.age && one_in(3)) end_due(process, holder, false); /* a store that only blocks */
    ask(process, holder, bucket, one_in(20) ? any(1, 1 + capacity / SHARE) : any(1, 3 * h.unit));
}

/* ---- The server ---- */

static int64_t content_of(const struct server_bucket *b) {
    struct steady__bucket bucket = b->bucket;
    bool stepped;
    if (b->rate.recharge == 0) return 0;
    const int64_t phase = steady__bucket_advance(&bucket, &b->rate, server_now(), &stepped);
    return bucket.level * b->rate.recharge - phase;
}

static void take_out(struct server_bucket *b, int64_t content) {
    require(b->n_taken_out < EVENTS);
    b->taken_out[b->n_taken_out++] = (struct taken_out){h.now, content};
}

static void empty(struct server_bucket *b) {
    take_out(b, content_of(b));
    b->bucket = (struct steady__bucket){.level = 0};
    b->boundary = ++b->ops;
}

/* Nothing is known of what leaks. */
static void break_promise(struct server_bucket *b) {
    require(b->n_switches < EVENTS);
    b->switches[b->n_switches++] = h.now;
    b->boundary = b->ops;
}

static void step_clock(void) {
    totals.steps++;
    h.stepped += any(-20 * h.age, 20 * h.age);
    for (int i = 0; i < BUCKETS; i++)
        break_promise(&h.buckets[i]);
}

static void use_rate(struct server_bucket *b, const struct steady__rate *rate) {
    if (b->rate.recharge != 0 && !leaks_alike(&b->rate, rate)) break_promise(b);
    b->rate = *rate;
}

static void consume(struct server_bucket *b, struct message *m, int64_t amount) {
    struct steady__decision decision;
    const int64_t before = content_of(b);
    steady__bucket_consume(&b->bucket, &m->rate, server_now(), amount, &decision);
    m->success = decision.success;
    m->granted = decision.success ? amount : 0;
    if (amount > 0) return;
    take_out(b, before - content_of(b));
    b->boundary = b->ops;
}

static void consume_partly(struct server_bucket *b, struct message *m) {
    const struct steady__part part = {.rate = &m->rate, .amount = m->n, .kind = STEADY__TAKE};
    const struct steady__how how = {.at_least = m->amount};
    struct steady__part_decision each;
    struct steady__verdict verdict;
    steady__parts_decide(&part, 1, &how, server_now(), &b->bucket, &each, &verdict);
    m->success = verdict.success;
    m->granted = each.granted;
    m->level = each.bucket.level;
    m->until_next_drop = each.bucket.until_next_drop;
}

static void settle(struct server_bucket *b, const struct message *m) {
    const struct steady__settlement settlement = {.rate = &m->rate,
                                                  .same_rate = true,
                                                  .reserved = m->of->granted,
                                                  .moment = m->of->stamp,
                                                  .actual = m->of->spent};
    struct steady__settled settled;
    steady__settle(&settlement, server_now(), &b->bucket, &settled);
    require(settled.charged == 0);
    if (m->of->op > b->boundary || settled.given_back == 0) return;
    totals.settles_wrong++;
    take_out(b, settled.given_back);
}

static void arrive(struct message *m) {
    struct server_bucket *b = &h.buckets[m->bucket];
    if (m->verb == RESET) {
        empty(b);
        return;
    }
    use_rate(b, &m->rate);
    m->executed = true;
    m->moment = h.now;
    m->stamp = server_now();
    m->op = ++b->ops;
    switch (m->verb) {
    case CALL: consume(b, m, m->amount); break;
    case TAKE: consume_partly(b, m); break;
    case DRAIN: consume(b, m, -m->amount); break;
    default: settle(b, m);
    }
}

/* ---- Answers ---- */

static void take_answered(struct process *process, struct message *m) {
    const struct steady__lease_take take = {.ticket = m,
                                            .granted = m->success ? m->granted : 0,
                                            .amount = m->amount,
                                            .sent = m->sent + process->ahead,
                                            .level = m->level,
                                            .until_next_drop = m->until_next_drop};
    const bool was_void = m->is_void;
    require(process->take[m->bucket] == m);
    process->take[m->bucket] = NULL;
    m->came = m->used_at = h.now;
    m->held = steady__leases_granted(process->leases, &process->holders[m->holder], name_of(process, m->bucket), &take);
    require(m->held == (!was_void && take.granted > take.amount));
    if (m->success) allow(m, m->moment, m->amount);
    m->spent = m->amount;
    if (m->held) process->lease[m->bucket] = m;
    if (!was_void) process->short_take[m->bucket] = take.granted < m->n ? m : NULL;
    totals.takes_void += was_void;
    *(take.granted == m->n ? &totals.takes_full : m->success ? &totals.takes_short : &totals.takes_denied) += 1;
    check_idle(m->bucket);
}

/* Whether it was executed, the process does not know. */
static void take_unknown(struct process *process, struct message *m) {
    require(process->take[m->bucket] == m);
    process->take[m->bucket] = NULL;
    totals.takes_unknown++;
    totals.takes_executed_unheard += m->success;
    steady__leases_failed(process->leases, name_of(process, m->bucket));
}

static void end_message(struct message *m, bool answered) {
    struct process *process = &h.processes[m->process];
    if (m->life != process->life) return; /* it has crashed */
    switch (m->verb) {
    case CALL:
        if (answered && m->success) allow(m, m->moment, m->amount);
        break;
    case TAKE:
        if (answered)
            take_answered(process, m);
        else
            take_unknown(process, m);
        go_on(process, m->holder, m->bucket);
        break;
    case RESET:
    case DRAIN: forget(m); break;
    default: break;
    }
    schedule_timers(process);
}

/* ---- A history ---- */

static bool has_lease(const struct process *process) {
    for (int i = 0; i < BUCKETS; i++)
        if (process->lease[i] != NULL) return true;
    return false;
}

static void close_leases(struct process *process) {
    for (int i = 0; i < HOLDERS; i++)
        end_due(process, i, true);
    require(!has_lease(process));
}

/* Another process starts in its place. */
static void end_process(int p) {
    struct process *process = &h.processes[p];
    if (one_in(2)) {
        totals.crashes++;
        totals.crashes_with_a_lease += has_lease(process);
    } else {
        totals.closes++;
        totals.closes_with_a_lease += has_lease(process);
        close_leases(process);
    }
    steady__leases_release(process->leases);
    start_process(p);
}

/* All processes spend what they have at once, and one of them asks for what may be left. */
static void burst(int p) {
    totals.bursts++;
    for (int i = 0; i < h.n_processes; i++)
        while (h.processes[i].lease[0] != NULL && !one_in(40))
            ask(&h.processes[i], 0, 0, any(1, 3 * h.unit));
    const int64_t capacity = h.limits[h.processes[p].limit].capacity;
    for (int64_t n = any(1, 4); n > 0; n--)
        send_as_it_is(&h.processes[p], 0, 0, any(1, capacity));
}

static void on_timer(const struct event *event) {
    struct process *process = &h.processes[event->process];
    if ((unsigned)event->bucket != process->life) return;
    process->timer_set[event->holder] = false;
    end_due(process, event->holder, false);
}

static void happen(const struct event *event) {
    struct process *process = &h.processes[event->process];
    const bool over = h.now >= h.end;
    switch (event->kind) {
    case ARRIVES: arrive(event->message); return;
    case ANSWERED: end_message(event->message, true); return;
    case TIMED_OUT: end_message(event->message, false); return;
    case TIMER: on_timer(event); break;
    case CHANGES:
        totals.changes++;
        process->limit = event->bucket;
        break;
    case LOSES:
        totals.losses++;
        empty(&h.buckets[event->bucket]);
        return;
    case STEPS: step_clock(); return;
    case ENDS: end_process(event->process); return;
    case BURSTS: burst(event->process); break;
    default:
        if (over) return;
        for (int64_t n = one_in(10) ? any(1, 10) : 1; n > 0; n--)
            call(event->process);
        schedule((struct event){.time = h.now + (one_in(200) ? any(0, 3 * h.age) : any(1, 2 * h.call_every)),
                                .kind = CALLS,
                                .process = event->process});
    }
    schedule_timers(process);
}

static struct steady__rate any_limit(void) {
    static const int64_t scales[] = {16, 100, 600, 3000};
    const int64_t scale = scales[any(0, 3)], capacity = any(scale / 2, 2 * scale);
    const int64_t drops = one_in(2) ? 1 : any(2, 1000);
    int64_t recharge = any(1, 20) * h.age / 4 * drops / capacity; /* it empties in a quarter of the age, to 5 ages */
    return (struct steady__rate){capacity, recharge > 0 ? recharge : 1, drops, 0};
}

static void choose_limits(void) {
    const int64_t kind = any(0, 3);
    for (int i = 0; i < LIMITS; i++) {
        h.limits[i] = i == 0 || kind == 3 ? any_limit() : h.limits[0];
        if (i > 0 && kind == 2) h.limits[i].capacity = any(16, 2 * h.limits[0].capacity);
        if (i == 0 || kind < 2) continue;
        const steady_us when = any(0, h.end);
        for (int p = 0; p < h.n_processes; p++)
            schedule((struct event){.time = when + any(0, 2 * h.age), .kind = CHANGES, .process = p, .bucket = i});
    }
}

static void begin(int64_t number) {
    static const steady_us ages[] = {STEADY_MILLISECOND, 7777, 100 * STEADY_MILLISECOND, STEADY_SECOND,
                                     STEADY__LEASE_AGE_MAX};
    static const int64_t fifths[] = {1, 1, 2, 4, 8, 25}; /* of the load that is as much as leaks, inverted */
    memset(&h, 0, offsetof(struct history, processes));
    h.number = number;
    h.seed = (uint64_t)number * UINT64_C(0x9e3779b97f4a7c15) + 1;
    h.age = ages[any(0, 4)];
    h.end = h.now + any(5, 20) * h.age;
    h.timeout = any(h.age / 4, 4 * h.age);
    h.trip = any(1, one_in(4) ? h.age / 2 : h.age / 20);
    h.n_queue = h.n_messages = 0;
    h.n_processes = (int)any(1, PROCESSES);
    memset(h.processes, 0, sizeof h.processes);
    for (int i = 0; i < BUCKETS; i++) {
        struct server_bucket *b = &h.buckets[i];
        b->bucket = (struct steady__bucket){.level = 0};
        b->rate = (struct steady__rate){.recharge = 0};
        b->ops = b->boundary = b->n_switches = b->n_taken_out = b->n_allowed = 0;
    }
    choose_limits();
    const struct steady__rate *rate = &h.limits[0];
    h.unit = 1 + rate->capacity / 200;
    h.call_every = 2 * h.unit * rate->recharge * h.n_processes / rate->drops * fifths[any(0, 5)] / 5;
    if (h.call_every < h.age / 40) h.call_every = h.age / 40;
    if (h.call_every > h.age / 6) h.call_every = h.age / 6;
    for (int p = 0; p < h.n_processes; p++) {
        start_process(p);
        schedule((struct event){.time = any(0, h.age), .kind = CALLS, .process = p});
        if (one_in(3)) schedule((struct event){.time = any(0, h.end), .kind = ENDS, .process = p});
        if (one_in(2)) schedule((struct event){.time = any(0, h.end), .kind = BURSTS, .process = p});
    }
    if (one_in(6)) schedule((struct event){.time = any(0, h.end), .kind = STEPS});
    if (one_in(4)) schedule((struct event){.time = any(0, h.end), .kind = LOSES, .bucket = 0});
}

static void end(void) {
    for (int p = 0; p < h.n_processes; p++) {
        close_leases(&h.processes[p]);
        steady__leases_release(h.processes[p].leases);
    }
}

/* ---- The bound ---- */

static int by_time(const void *a, const void *b) {
    const struct allowed *x = a, *y = b;
    return x->time != y->time ? (x->time < y->time ? -1 : 1) : 0;
}

/* What was taken out of the bucket from the first time to the second. */
static wide taken_out_between(const struct server_bucket *b, steady_us from, steady_us to) {
    wide sum = 0;
    for (int i = 0; i < b->n_taken_out; i++)
        if (b->taken_out[i].time >= from && b->taken_out[i].time <= to) sum += b->taken_out[i].content;
    return sum;
}

static bool has_no_bound(const struct server_bucket *b, steady_us from, steady_us to) {
    for (int i = 0; i < b->n_switches; i++)
        if (b->switches[i] >= from && b->switches[i] <= to) return true;
    return false;
}

static void check_window(const struct message *last_in, wide n, steady_us length, wide taken_out) {
    const struct steady__rate *rate = &last_in->rate;
    const wide capacity = (wide)rate->capacity * rate->recharge + taken_out;
    const wide most = capacity + (wide)(length + h.age) * rate->drops;
    const int64_t part = (int64_t)(n * rate->recharge * 1000 / most);
    require(n * rate->recharge <= most);
    totals.windows++;
    totals.windows_that_need_the_age += n * rate->recharge > capacity + (wide)length * rate->drops;
    if (part > totals.closest) totals.closest = part;
}

/* Each window that begins and ends with an allowed drop: no other window of its length has more. */
static void check_bound(struct server_bucket *b) {
    qsort(b->allowed, (size_t)b->n_allowed, sizeof b->allowed[0], by_time);
    for (int i = 0; i < b->n_allowed; i++) {
        const steady_us from = b->allowed[i].time - h.age;
        const struct message *last_in = b->allowed[i].message;
        wide n = 0;
        for (int j = i; j < b->n_allowed; j++) {
            const struct allowed *a = &b->allowed[j];
            n += a->amount;
            if (a->message->op > last_in->op) last_in = a->message;
            if (has_no_bound(b, from, a->time)) {
                totals.windows_without_a_bound += b->n_allowed - j;
                break;
            }
            check_window(last_in, n, a->time - b->allowed[i].time, taken_out_between(b, from, a->time));
        }
    }
}

static void run_history(int64_t number) {
    begin(number);
    while (h.n_queue > 0) {
        const struct event event = next_event();
        require(event.time >= h.now);
        h.now = event.time;
        happen(&event);
    }
    end();
    for (int i = 0; i < BUCKETS; i++)
        check_bound(&h.buckets[i]);
}

/* What happens too seldom is not tested. */
#define SHOW(field) (print_message("# %9" PRId64 " %s\n", totals.field, #field), assert_true(totals.field >= LEAST))

static void leases_of_many_processes_admit_no_more_than_stated(void **state) {
    (void)state;
    for (int64_t number = 1; number <= HISTORIES; number++)
        run_history(number);
    SHOW(calls), SHOW(sent_as_they_are), SHOW(spent), SHOW(waits), SHOW(right_denials), SHOW(wrong_denials);
    SHOW(takes_full), SHOW(takes_short), SHOW(takes_denied), SHOW(takes_unknown), SHOW(takes_executed_unheard);
    SHOW(takes_void), SHOW(replaced), SHOW(left_behind), SHOW(settles), SHOW(settles_lost), SHOW(settles_not_due),
        SHOW(settles_wrong);
    SHOW(resets), SHOW(drains), SHOW(losses), SHOW(steps), SHOW(changes), SHOW(bursts), SHOW(crashes),
        SHOW(crashes_with_a_lease);
    SHOW(closes), SHOW(closes_with_a_lease), SHOW(windows), SHOW(windows_that_need_the_age),
        SHOW(windows_without_a_bound);
    print_message("# the fullest window has %" PRId64 " of 1000 of what is stated\n", totals.closest);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leases_of_many_processes_admit_no_more_than_stated),
    };
    return cmocka_run_group_tests_name("leases_model", tests, NULL, NULL);
}
