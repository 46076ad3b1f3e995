/* SPDX-License-Identifier: MIT
 * The decisions in flight on one loop.
 *
 * The path of a decision, and the way back of its reply:
 *
 *     throttler.c    steady_consume              checks the arguments, puts the prefix before the key
 *     redis_store.c  redis_submit                the asynchronous part, or redis_decide for a blocking call
 *     inflight.c     steady__inflight_submit     sets the deadline, copies the key
 *     cluster.c      cluster_submit              key -> slot -> node (for peeks at a replica, replica.c comes first)
 *     connection.c   steady__connection_submit   queues the request until the window lets it out
 *     inflight.c     inflight_encode             late, when its bytes go out: by then the engine of the
 *     command.c                                  connection is known, and whether the reply can be in time
 *     pipeline.c     steady__pipeline_put        remembers the order, sends the bytes
 *
 *     pipeline.c     steady__pipeline_next       reply.c reads a reply; the ring names its request
 *     cluster.c      cluster_answered            follows MOVED and ASK
 *     inflight.c     inflight_answered           a result, or another try
 *     policy.c       steady__finish              the policy for errors, then the callback
 *
 * Each decision has a `struct pending`, from submit to its result. All timeouts of a store are equal, so the order of
 * submit is the order of deadlines. One timer serves all. It fires at the first deadline, and TICKS times in each
 * timeout while decisions are in flight: if it fires late, the loop was held. It is not stopped when the last decision
 * is answered, because firing once in vain is cheaper.
 *
 * Sending again. An error reply means that nothing was charged. Only these replies send a decision again:
 *   - NOSCRIPT: the server lost the script. The first decision with this reply sends SCRIPT LOAD, and its command
 *     behind it. The others that were sent before that SCRIPT LOAD send only their command. `loads` tells them apart:
 *     it counts the loads sent on the connection before the decision. If it is 0, the tries of the decision were on
 *     another connection, and it starts anew. After a second NOSCRIPT a decision sends the script itself, as EVAL.
 *   - An unknown or forbidden command of the module: the script decides instead. If scripts are forbidden, the reverse.
 *   - READONLY: connection.c finds the primary, and sends the decision there.
 *   - MOVED and ASK: cluster.c sends the decision to the node that they name.
 * The exception is a peek, which charges nothing: replica.c sends it to the primary if a replica fails to answer.
 *
 * A call on keys of several slots has a coordinator, which sends branches in its place: see coordinator.c. A branch has
 * a `struct pending`, too. It is in no list and has the deadline of its call. If it gives drops back, it is in `due`.
 *
 * The memory of denials (deny_memory.c) may deny a call at once. A call on a remembered bucket that would fit only
 * without the calls in flight waits in the line of a gate for their replies. Of several buckets, the one with the
 * least room has the gate. A drop may leak within the round trip by which the time of the memory is uncertain. The
 * first call then is sent; if it is denied, the next one waits until the drop has leaked. So an attacker costs the
 * server two calls for each drop. A waiting call is in `due`, without a request in flight.
 *
 * A lease (leases.c) may answer a call at once, too. A call that takes one has a branch, with the deadline of the call.
 * The reply to the branch answers the call, and the rest is the lease. Other calls on the bucket wait for this reply.
 * When a lease ends, its branch becomes the settle of what is left, in `due`.
 *
 * Housekeeping requests (SCRIPT LOAD, the eviction query) have a `struct pending` too, in no list and without a
 * deadline.
 *
 * A callback may do anything, such as close the store. So after inflight_finish touch nothing, or hold the store and
 * check `closed`. */
#include "redis/inflight.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/redact.h"
#include "group.h"
#include "policy.h"
#include "redis/command.h"
#include "redis/coordinator.h"
#include "redis/eviction.h"
#include "redis/slot_map.h"

#define SLAB_SIZE 32
#define PORTION 1024                        /* decisions that are ended before the loop goes on */
#define HELD_LEAST (5 * STEADY_MILLISECOND) /* a timer that is this late shows that the loop was held */
#define TICKS 10                            /* how often the alarm fires in a timeout, to notice a held loop */
#define KEY_NEAR 64                         /* longer keys need memory of their own */
#define TRIES_MAX 3                         /* EVALSHA, EVALSHA, EVAL */
#define INDEX_BITS 26 /* of an id: max_in_flight is at most 2^24. The other bits count decisions */
#define NO_TIMER_TEXT "the event loop cannot start a timer"
#define EVICTION_QUERIES_MAX 3 /* a proxy may have closed the connection because of the query */

enum pending_kind {
    DECISION,
    BRANCH,         /* of a decision that has a coordinator */
    SCRIPT_LOAD,    /* for the verb of its call; in no list */
    EVICTION_QUERY, /* in no list either */
};

/* The calls of this loop on one remembered bucket. */
struct steady__gate {
    struct steady__hash name;
    uint64_t in_flight;        /* calls */
    int64_t amount;            /* of them together */
    struct steady__list line;  /* calls that wait for their replies */
    struct steady__gate *next; /* in the same place of inflight->gates */
};

struct pending {
    struct steady__call call; /* call.key is `key` below, or in the memory of call.group */
    struct steady__request request;
    struct steady__list place;               /* in due, failed or spare */
    struct steady__coordinator *coordinator; /* of a DECISION on several slots; NULL: `request` is in flight */
    struct steady__branch *branch;           /* if it is a BRANCH */
    steady_us deadline;
    steady_us held;        /* inflight->held at submit */
    steady_result *answer; /* NULL: the result goes to the callback */
    int error;             /* while in `failed` */
    bool expired;          /* its deadline was moved up */
    enum pending_kind kind;
    uint32_t index;                    /* in all slabs */
    uint64_t id;                       /* 0: not in flight, or a call without an id */
    bool to_module;                    /* the last try went to the module */
    bool scripts_forbidden;            /* scripts are forbidden; the next try goes to the module */
    unsigned tries;                    /* with the script */
    uint32_t loads;                    /* SCRIPT LOADs sent on the connection before it */
    steady_us sent;                    /* of the clock of the memory: before its request was sent */
    struct steady__gate *gate;         /* the gate that it has passed, or waits at; NULL: none */
    size_t gate_part;                  /* its bucket of that gate, or the bucket that denies it from memory */
    struct steady__list place_in_line; /* while it waits */
    bool waits;                        /* in the line of a gate, or for a lease */
    struct steady__branch *take;       /* the request for a lease; NULL: it takes none */
    struct steady__hash lease_name;    /* of its bucket */
    struct steady__list place_of_take; /* in inflight->takers */
    struct steady__list waiters;       /* calls that wait for this lease, by place_in_line */
    bool is_remembered;                /* while in `failed`: not failed, but answered from memory or from a lease */
    enum steady_source remembered_by;
    struct steady__decision remembered;
    size_t key_room;
    char *key;
    char key_near[KEY_NEAR];
};

struct steady__slab {
    struct pending entries[SLAB_SIZE];
};

static steady_us inflight_shorter(steady_us a, steady_us b) { return a < b ? a : b; }

static steady_us inflight_longer(steady_us a, steady_us b) { return a > b ? a : b; }

#define PENDING(list) STEADY__OWNER(struct pending, place, list)
#define WAITING(list) STEADY__OWNER(struct pending, place_in_line, list)
#define PENDING_OF(request_) STEADY__OWNER(struct pending, request, request_)

/* ---- Pending decisions ---- */

static bool inflight_add_slab(struct steady__inflight *inflight) {
    if ((inflight->n_slabs + 1) * SLAB_SIZE > (size_t)1 << INDEX_BITS) return false; /* branches may be more */
    if (inflight->n_slabs == inflight->slabs_room) {
        const size_t room = inflight->slabs_room > 0 ? 2 * inflight->slabs_room : 8;
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
        struct steady__slab **slabs = realloc(inflight->slabs, room * sizeof *slabs);
        if (slabs == NULL) return false;
        inflight->slabs = slabs;
        inflight->slabs_room = room;
    }
    struct steady__slab *slab = calloc(1, sizeof *slab);
    if (slab == NULL) return false;
    for (size_t i = 0; i < SLAB_SIZE; i++) {
        slab->entries[i].index = (uint32_t)(inflight->n_slabs * SLAB_SIZE + i);
        slab->entries[i].key = slab->entries[i].key_near;
        slab->entries[i].key_room = KEY_NEAR;
        steady__list_init(&slab->entries[i].place_in_line);
        steady__list_init(&slab->entries[i].place_of_take);
        steady__list_init(&slab->entries[i].waiters);
        steady__list_append(&inflight->spare, &slab->entries[i].place);
    }
    inflight->slabs[inflight->n_slabs++] = slab;
    return true;
}

/* A longer key gets room for the longest key, once. */
static bool inflight_keep_key(struct pending *pending, const struct steady__call *call) {
    if (call->key_len > pending->key_room) {
        char *key = malloc(STEADY__KEY_MAX);
        if (key == NULL) return false;
        pending->key = key;
        pending->key_room = STEADY__KEY_MAX;
    }
    memcpy(pending->key, call->key, call->key_len);
    pending->call = *call;
    pending->call.key = pending->key;
    return true;
}

static void inflight_set_one_key(struct steady__request *request, const char *key) {
    request->key = key;
    request->keys = NULL;
    request->n_keys = 0;
    request->extra = 0;
}

static void inflight_set_room(struct steady__request *request, size_t room) {
    request->extra = room > STEADY__REQUEST_MAX ? (uint32_t)(room - STEADY__REQUEST_MAX) : 0;
}

__attribute__((noinline, cold)) static void inflight_set_keys(struct steady__request *request,
                                                              const struct steady__call *call) {
    request->key = call->key;
    request->keys = call->group->keys;
    request->n_keys = call->group->n;
    inflight_set_room(request, steady__command_group_room(call, false));
}

/* The keys of a group stay in its own memory. */
static inline bool inflight_take_call(struct pending *pending, const struct steady__call *call) {
    if (call->group != NULL) {
        pending->call = *call;
        inflight_set_keys(&pending->request, call);
        return true;
    }
    if (!inflight_keep_key(pending, call)) return false;
    inflight_set_one_key(&pending->request, pending->key);
    return true;
}

/* The spare entry that was used last, because it is still in the cache. It stays in the list. */
static struct pending *inflight_pending_find(struct steady__inflight *inflight) {
    if (steady__list_empty(&inflight->spare) && !inflight_add_slab(inflight)) return NULL;
    return PENDING(inflight->spare.next);
}

static inline struct pending *inflight_pending_take(struct steady__inflight *inflight,
                                                    const struct steady__call *call) {
    struct pending *pending = inflight_pending_find(inflight);
    if (pending == NULL || !inflight_take_call(pending, call)) return NULL;
    steady__list_remove(&pending->place);
    pending->request.key_len = call->key_len;
    pending->request.prefix_len = steady__prefix_len(call->throttler);
    pending->request.redirects = 0;
    pending->request.read_only = call->verb == STEADY__PEEK; /* STEADY__PEEK_ALL goes to the primary */
    pending->request.expected_latency = 0;
    pending->request.nested = 0;
    pending->kind = DECISION;
    pending->coordinator = NULL;
    pending->gate = NULL;
    pending->take = NULL;
    pending->waits = pending->is_remembered = false;
    pending->scripts_forbidden = false;
    pending->tries = 1;
    pending->error = 0;
    pending->expired = false;
    return pending;
}

static inline void inflight_pending_release(struct steady__inflight *inflight, struct pending *pending) {
    pending->id = 0;
    steady__list_remove(&pending->place);
    steady__list_prepend(&inflight->spare, &pending->place);
}

static void inflight_count(struct steady__counters *counters, const struct steady__call *call,
                           const steady_result *result) {
    steady__counter_add(&counters->in_flight, (uint64_t)-1);
    if (!steady__verb_decides(call->verb)) return;
    if (result->error == STEADY_UNKNOWN || result->error == STEADY_CANCELLED)
        steady__counter_add(&counters->unknown, 1);
    else if (result->error != 0)
        steady__counter_add(&counters->unavailable, 1);
    else
        steady__counter_add(result->success ? &counters->allowed : &counters->denied, 1);
    if (result->error == 0 && !result->success && result->blocked_for > 0) steady__counter_add(&counters->blocked, 1);
    if (result->source == STEADY_FROM_MEMORY) steady__counter_add(&counters->from_memory, 1);
    if (result->source == STEADY_FROM_LEASE) steady__counter_add(&counters->from_lease, 1);
}

void steady__counters_read(const struct steady__counters *counters, steady_stats *stats) {
    stats->decisions = steady__counter_get(&counters->decisions);
    stats->allowed = steady__counter_get(&counters->allowed);
    stats->denied = steady__counter_get(&counters->denied);
    stats->blocked = steady__counter_get(&counters->blocked);
    stats->unavailable = steady__counter_get(&counters->unavailable);
    stats->unknown = steady__counter_get(&counters->unknown);
    stats->clock_steps = steady__counter_get(&counters->clock_steps);
    stats->reconnects = steady__counter_get(&counters->reconnects);
    stats->script_loads = steady__counter_get(&counters->script_loads);
    stats->in_flight = steady__counter_get(&counters->in_flight);
    stats->timeouts = steady__counter_get(&counters->timeouts);
    stats->from_memory = steady__counter_get(&counters->from_memory);
    stats->from_lease = steady__counter_get(&counters->from_lease);
}

static void inflight_take_ended(struct steady__inflight *inflight, struct steady__branch *branch,
                                const steady_result *result);

__attribute__((noinline, cold)) static void inflight_finish_branch(struct steady__inflight *inflight,
                                                                   struct pending *pending,
                                                                   const steady_result *result) {
    struct steady__branch *branch = pending->branch;
    branch->request = NULL;
    inflight_pending_release(inflight, pending);
    if (branch->taker != NULL)
        inflight_take_ended(inflight, branch, result);
    else if (inflight->closed)
        steady__coordinator_drop_branch(branch);
    else
        steady__coordinator_branch_ended(branch, result);
}

__attribute__((noinline, cold)) static void inflight_free_coordinator(struct pending *pending) {
    steady__coordinator_free(pending->coordinator);
    pending->coordinator = NULL;
}

static void inflight_leave_gate(struct steady__inflight *inflight, struct pending *pending);
static void inflight_end_leased(struct steady__inflight *inflight, struct pending *pending);
static void inflight_end_leases(struct steady__inflight *inflight);

__attribute__((noinline)) static void inflight_end_remembered(struct steady__inflight *inflight,
                                                              struct pending *pending) {
    steady__deny_memory_ended(&inflight->memory, &pending->call);
    if (pending->gate != NULL) inflight_leave_gate(inflight, pending);
}

/* The key of a spare entry stays until the next submit. So the policy can still use it. */
static void inflight_finish(struct steady__inflight *inflight, struct pending *pending, steady_result *result) {
    if (inflight->memory.denials != NULL) inflight_end_remembered(inflight, pending);
    if (inflight->leases != NULL) inflight_end_leased(inflight, pending);
    if (pending->kind == BRANCH) {
        inflight_finish_branch(inflight, pending, result);
        return;
    }
    if (pending->coordinator != NULL) inflight_free_coordinator(pending);
    inflight_count(inflight->counters, &pending->call, result);
    if (--inflight->n_in_flight == 0) inflight->ending_in_portions = false;
    inflight_pending_release(inflight, pending);
    if (pending->answer == NULL) {
        steady__finish(&pending->call, result);
    } else {
        *pending->answer = *result;
        if (inflight->answered != NULL) inflight->answered(pending->answer);
    }
}

static void inflight_note_no_memory(void *owner) {
    const struct steady__inflight *inflight = owner;
    steady__note_error(inflight->last_error, 0, "out of memory");
}

static void inflight_fail(struct steady__inflight *inflight, struct pending *pending, int error) {
    steady_result result = {.error = error};
    if (error == STEADY_NO_MEMORY) inflight_note_no_memory(inflight);
    inflight_finish(inflight, pending, &result);
}

/* ---- Deadlines ---- */

static steady_us inflight_tick(const struct steady__inflight *inflight) {
    return inflight_shorter(inflight->timeout, inflight_longer(inflight->timeout / TICKS, HELD_LEAST));
}

/* The first deadline, or before it the time to open a gate or to end a lease. INT64_MAX: nothing is to come. */
static steady_us inflight_next(const struct steady__inflight *inflight) {
    steady_us next = steady__list_empty(&inflight->due) ? INT64_MAX : PENDING(inflight->due.next)->deadline;
    if (inflight->opens_at != 0) next = inflight_shorter(inflight->opens_at, next);
    return inflight->leases_end_at != 0 ? inflight_shorter(inflight->leases_end_at, next) : next;
}

static void inflight_set_alarm(struct steady__inflight *inflight) {
    if (inflight->closed || inflight->alarm.set) return;
    if (!steady__list_empty(&inflight->failed) || !steady__list_empty(&inflight->finishing))
        steady__alarm_set(&inflight->alarm, 0);
    else if (!steady__list_empty(&inflight->due) || inflight->leases_end_at != 0)
        steady__alarm_set(
            &inflight->alarm,
            inflight_shorter(inflight_next(inflight) - steady__loop_now(&inflight->loop), inflight_tick(inflight)));
}

/* ---- A loop that is held ---- */

/* How long the loop was held so far: the sum of the delays of the alarm, with the present one. */
static steady_us inflight_held_so_far(const struct steady__inflight *inflight, steady_us now) {
    const steady_us late = inflight->alarm.set && inflight->alarm.due != 0 ? now - inflight->alarm.due : 0;
    return inflight->held + (late >= HELD_LEAST ? late : 0);
}

static void inflight_stop_alarm(struct steady__inflight *inflight) {
    inflight->held = inflight_held_so_far(inflight, steady__loop_now(&inflight->loop));
    steady__alarm_stop(&inflight->alarm);
}

/* The loop was held for at least half of the time of the decision. */
static bool inflight_was_held(const struct steady__inflight *inflight, const struct pending *pending, steady_us now) {
    return inflight_held_so_far(inflight, now) - pending->held >= inflight->timeout / 2;
}

/* The alarm must ring by this time. */
static void inflight_wake_by(struct steady__inflight *inflight, steady_us when) {
    if (inflight->alarm.set && inflight->alarm.due <= when) return;
    if (inflight->alarm.set) inflight_stop_alarm(inflight);
    inflight_set_alarm(inflight);
}

static void inflight_fail_from_loop(struct steady__inflight *inflight, struct pending *pending, int error);

/* ---- The memory of denials ---- */

void steady__counters_answer(struct steady__counters *counters, const steady_result *result) {
    const bool lease = result->source == STEADY_FROM_LEASE;
    steady__counter_add(&counters->decisions, 1);
    steady__counter_add(result->success ? &counters->allowed : &counters->denied, 1);
    steady__counter_add(lease ? &counters->from_lease : &counters->from_memory, 1);
    if (result->blocked_for > 0) steady__counter_add(&counters->blocked, 1);
}

/* ---- Gates ---- */

enum gate_outcome { GATE_OPEN, GATE_HOLDS, GATE_DENIES };

static struct steady__gate **inflight_gate_place(struct steady__inflight *inflight, struct steady__hash name) {
    struct steady__gate **place = &inflight->gates[name.word[1] % STEADY__GATES];
    while (*place != NULL && ((*place)->name.word[0] != name.word[0] || (*place)->name.word[1] != name.word[1]))
        place = &(*place)->next;
    return place;
}

/* The drops that the call would put into the bucket of its gate. */
static int64_t inflight_amount(const struct pending *pending) {
    return steady__deny_memory_amount(&pending->call, pending->gate_part);
}

static void inflight_gate_enter(struct steady__gate *gate, struct pending *pending) {
    pending->gate = gate;
    gate->in_flight++;
    gate->amount += inflight_amount(pending);
}

/* The gate opens by the alarm, because no reply will open it. */
static void inflight_open_later(struct steady__inflight *inflight, steady_us wait) {
    const steady_us when = steady__loop_now(&inflight->loop) + wait;
    if (inflight->opens_at != 0 && inflight->opens_at <= when) return;
    inflight->opens_at = when;
    inflight_wake_by(inflight, when);
}

/* Whether a call has to wait at a gate. */
static bool inflight_must_wait(struct steady__inflight *inflight, const struct steady__gate *gate,
                               const struct pending *pending, enum steady__denial denial,
                               const struct steady__look *look) {
    if (denial == STEADY__TOO_EARLY && gate->in_flight == 0) inflight_open_later(inflight, look->wait);
    if (denial == STEADY__TOO_EARLY) return true;
    if (gate->in_flight == 0 || denial == STEADY__UNKNOWN_BUCKET) return false;
    return denial == STEADY__STALE || inflight_amount(pending) > look->room - gate->amount;
}

/* A call that finds no memory for a gate is sent. */
__attribute__((noinline)) static enum gate_outcome inflight_pass_gate(struct steady__inflight *inflight,
                                                                      struct pending *pending) {
    struct steady__denied denied;
    const enum steady__denial denial = steady__deny_memory_ask(&inflight->memory, &pending->call, &denied);
    if (denial == STEADY__UNKNOWN_BUCKET) return GATE_OPEN;
    pending->gate_part = denied.part;
    pending->remembered = denied.look.decision;
    if (denial == STEADY__FULL) return GATE_DENIES;
    struct steady__gate **place = inflight_gate_place(inflight, denied.name);
    if (*place == NULL) {
        if ((*place = calloc(1, sizeof **place)) == NULL) return GATE_OPEN;
        (*place)->name = denied.name;
        steady__list_init(&(*place)->line);
    }
    struct steady__gate *gate = *place;
    if (!steady__list_empty(&gate->line) || inflight_must_wait(inflight, gate, pending, denial, &denied.look)) {
        pending->gate = gate;
        pending->waits = true;
        steady__list_append(&gate->line, &pending->place_in_line);
        return GATE_HOLDS;
    }
    inflight_gate_enter(gate, pending);
    return GATE_OPEN;
}

static int inflight_send(struct steady__inflight *inflight, struct pending *pending);

static void inflight_deny_from_loop(struct steady__inflight *inflight, struct pending *pending,
                                    const struct steady__denied *denied) {
    pending->is_remembered = true;
    pending->remembered_by = STEADY_FROM_MEMORY;
    pending->gate_part = denied->part;
    pending->remembered = denied->look.decision;
    inflight_fail_from_loop(inflight, pending, 0);
}

static void inflight_leave_line(struct pending *pending) {
    steady__list_remove(&pending->place_in_line);
    pending->waits = false;
    pending->gate = NULL;
}

/* A reply came, a call ended without one, or the time has come: those that wait are denied from memory, or sent while
 * they fit. Any bucket of a call may deny it; only that of this gate makes it wait on. */
static void inflight_open_gate(struct steady__inflight *inflight, struct steady__gate *gate) {
    while (!steady__list_empty(&gate->line)) {
        struct pending *pending = WAITING(gate->line.next);
        struct steady__denied denied;
        if (steady__deny_memory_ask(&inflight->memory, &pending->call, &denied) == STEADY__FULL) {
            inflight_leave_line(pending);
            inflight_deny_from_loop(inflight, pending, &denied);
            continue;
        }
        const enum steady__denial denial =
            steady__deny_memory_look(&inflight->memory, &pending->call, pending->gate_part, gate->name, &denied.look);
        if (inflight_must_wait(inflight, gate, pending, denial, &denied.look)) break;
        inflight_leave_line(pending);
        inflight_gate_enter(gate, pending);
        const int error = inflight_send(inflight, pending);
        if (error != 0) inflight_fail_from_loop(inflight, pending, error);
    }
}

static void inflight_free_empty_gate(struct steady__inflight *inflight, struct steady__gate *gate) {
    if (gate->in_flight > 0 || !steady__list_empty(&gate->line)) return;
    *inflight_gate_place(inflight, gate->name) = gate->next;
    free(gate);
}

/* Opens the gates at which calls wait for a drop to leak. */
static void inflight_open_gates(struct steady__inflight *inflight) {
    if (inflight->opens_at == 0 || steady__loop_now(&inflight->loop) < inflight->opens_at) return;
    inflight->opens_at = 0;
    for (int i = 0; i < STEADY__GATES; i++)
        for (struct steady__gate *gate = inflight->gates[i], *next; gate != NULL; gate = next) {
            next = gate->next;
            if (gate->in_flight == 0) inflight_open_gate(inflight, gate);
            inflight_free_empty_gate(inflight, gate);
        }
}

static void inflight_leave_gate(struct steady__inflight *inflight, struct pending *pending) {
    struct steady__gate *gate = pending->gate;
    pending->gate = NULL;
    if (pending->waits) {
        inflight_leave_line(pending);
    } else {
        gate->in_flight--;
        gate->amount -= inflight_amount(pending);
    }
    if (inflight->transport != NULL) inflight_open_gate(inflight, gate);
    inflight_free_empty_gate(inflight, gate);
}

/* ---- Ending ---- */

/* Writes the reason of a timeout. Many decisions time out for the same reason, so the text is reused. */
static void inflight_describe_timeout(struct steady__inflight *inflight, int error, const char *doing) {
    struct steady__late *late = &inflight->late;
    if (late->error != error || late->doing != doing)
        steady__fail(&late->why, 0, "%s within %lld us%s%s",
                     error == STEADY_UNKNOWN      ? "no reply"
                     : error == STEADY_OVERLOADED ? "not sent (too many requests, or the event loop was blocked)"
                                                  : "no usable connection",
                     (long long)inflight->timeout, doing != NULL ? "; still " : "", doing != NULL ? doing : "");
    late->error = error;
    late->doing = doing;
    steady__last_error_set(inflight->last_error, &late->why);
}

static int inflight_take_back(void *owner, struct steady__branch *branch, bool held) {
    struct steady__inflight *inflight = owner;
    struct pending *pending = PENDING_OF(branch->request);
    int error = pending->error;
    if (error == 0 && inflight->transport != NULL)
        error = inflight->transport_class->forget(inflight->transport, &pending->request, held);
    if (inflight->memory.denials != NULL) steady__deny_memory_ended(&inflight->memory, &pending->call);
    branch->request = NULL;
    inflight_pending_release(inflight, pending);
    return error != 0 ? error : STEADY_UNKNOWN;
}

/* A branch in `due` gives drops back. Its call has its own deadline, or has ended. */
static void inflight_time_out_branch(struct steady__inflight *inflight, struct pending *pending) {
    struct steady__branch *branch = pending->branch;
    const int error = inflight_take_back(inflight, branch, false);
    steady__coordinator_branch_ended(branch, &(steady_result){.error = error});
}

static void inflight_time_out_coordinator(struct steady__inflight *inflight, struct pending *pending) {
    steady_result result;
    steady__coordinator_stop(pending->coordinator,
                             inflight_was_held(inflight, pending, steady__loop_now(&inflight->loop)), &result);
    if (result.error != 0) {
        if (steady__verb_decides(pending->call.verb)) steady__counter_add(&inflight->counters->timeouts, 1);
        if (!pending->expired) inflight_describe_timeout(inflight, result.error, NULL);
    }
    inflight_finish(inflight, pending, &result);
}

/* Takes back the request for a lease, and returns its error. */
static int inflight_take_back_take(struct steady__inflight *inflight, struct pending *taker, bool held) {
    struct steady__branch *branch = taker->take;
    taker->take = NULL;
    const int error = inflight_take_back(inflight, branch, held);
    steady__leases_failed(inflight->leases, taker->lease_name);
    steady__coordinator_drop_branch(branch);
    return error;
}

/* The calls before it were not answered in its time. It was not sent. */
static void inflight_time_out_waiting(struct steady__inflight *inflight, struct pending *pending) {
    if (steady__verb_decides(pending->call.verb)) steady__counter_add(&inflight->counters->timeouts, 1);
    inflight_describe_timeout(inflight, STEADY_UNAVAILABLE, "waiting for the replies to earlier calls on the same key");
    inflight_fail(inflight, pending, STEADY_UNAVAILABLE);
}

static void inflight_time_out(struct steady__inflight *inflight, struct pending *pending) {
    if (pending->kind == BRANCH) {
        inflight_time_out_branch(inflight, pending);
        return;
    }
    if (pending->coordinator != NULL) {
        inflight_time_out_coordinator(inflight, pending);
        return;
    }
    if (pending->waits) {
        inflight_time_out_waiting(inflight, pending);
        return;
    }
    const struct steady__transport *transport = inflight->transport_class;
    struct steady__request *request = pending->take != NULL ? pending->take->request : &pending->request;
    const char *doing = transport->doing != NULL ? transport->doing(inflight->transport, request) : NULL;
    const bool held = inflight_was_held(inflight, pending, steady__loop_now(&inflight->loop));
    const int error = pending->take != NULL ? inflight_take_back_take(inflight, pending, held)
                                            : transport->forget(inflight->transport, request, held);
    if (steady__verb_decides(pending->call.verb)) steady__counter_add(&inflight->counters->timeouts, 1);
    if (!pending->expired) inflight_describe_timeout(inflight, error, error == STEADY_UNKNOWN ? NULL : doing);
    inflight_fail(inflight, pending, error);
}

/* Ends a decision from the loop, not from inside submit. */
static void inflight_fail_from_loop(struct steady__inflight *inflight, struct pending *pending, int error) {
    pending->error = error;
    steady__list_remove(&pending->place);
    if (steady__list_empty(&inflight->failed)) inflight_stop_alarm(inflight);
    steady__list_append(&inflight->failed, &pending->place);
    inflight_set_alarm(inflight);
}

static bool inflight_is_open(const struct steady__inflight *inflight) {
    return !inflight->closed && !steady__forked(inflight->fork_guard);
}

static void inflight_answer(struct steady__inflight *inflight, struct pending *pending) {
    steady_result result;
    steady__result_clear(&result);
    steady__group_answer(&pending->call, pending->gate_part, pending->remembered_by, &pending->remembered, &result);
    inflight_finish(inflight, pending, &result);
}

/* Finishes only the decisions that have failed by now. A callback may ask again at once and fail again; that decision
 * waits for the next turn. If a callback runs the loop, that turn happens inside it. */
static void inflight_finish_failed(struct steady__inflight *inflight) {
    steady__list_move(&inflight->finishing, &inflight->failed);
    if (steady__list_empty(&inflight->finishing)) inflight->ending_in_portions = false;
    for (int i = 0; i < PORTION && inflight_is_open(inflight) && !steady__list_empty(&inflight->finishing); i++) {
        struct pending *pending = PENDING(inflight->finishing.next);
        if (pending->is_remembered)
            inflight_answer(inflight, pending);
        else
            inflight_fail(inflight, pending, pending->error);
    }
}

static bool inflight_is_due(const struct steady__inflight *inflight, steady_us when) {
    return !steady__list_empty(&inflight->due) && PENDING(inflight->due.next)->deadline <= when;
}

static void inflight_expire(struct steady__inflight *inflight, steady_us until) {
    inflight_finish_failed(inflight);
    for (int i = 0; i < PORTION && inflight_is_open(inflight) && inflight_is_due(inflight, until); i++)
        inflight_time_out(inflight, PENDING(inflight->due.next));
}

/* A loop may run timers before it polls its sockets. If the loop was held and the transport cannot catch up, waits for
 * one more turn, so that replies are read first. */
static bool inflight_wait_for_replies(struct steady__inflight *inflight) {
    const bool overdue = inflight_is_due(inflight, steady__loop_now(&inflight->loop) - HELD_LEAST);
    const bool wait = inflight->transport_class->catch_up == NULL && overdue && !inflight->extra_turn_given;
    inflight->extra_turn_given = overdue; /* one extra turn, however many decisions are late */
    if (wait) steady__alarm_set(&inflight->alarm, STEADY_MILLISECOND);
    return wait;
}

/* If the loop was held, the replies may have arrived. Read them before decisions time out. */
static void inflight_on_alarm(void *arg) {
    struct steady__inflight *inflight = arg;
    if (steady__forked(inflight->fork_guard)) return;
    inflight->held = inflight_held_so_far(inflight, steady__loop_now(&inflight->loop));
    if (!steady__alarm_rang(&inflight->alarm) || inflight_wait_for_replies(inflight)) return;
    steady_store *store = inflight->store;
    steady__store_hold(store);
    if (inflight->transport_class->catch_up != NULL && inflight_is_due(inflight, steady__loop_now(&inflight->loop))) {
        inflight_set_alarm(inflight); /* in case a callback runs the loop */
        inflight->transport_class->catch_up(inflight->transport);
        inflight_stop_alarm(inflight);
    }
    inflight_open_gates(inflight);
    inflight_end_leases(inflight);
    inflight_set_alarm(inflight); /* again in case a callback runs the loop */
    inflight_expire(inflight, steady__loop_now(&inflight->loop));
    inflight_set_alarm(inflight);
    steady__store_release(store);
}

void steady__inflight_give_up(struct steady__inflight *inflight) {
    do
        inflight_expire(inflight, INT64_MAX);
    while (inflight_is_open(inflight) &&
           (inflight_is_due(inflight, INT64_MAX) || !steady__list_empty(&inflight->finishing)));
}

/* ---- Called by the coordinator of a call ---- */

static bool inflight_send_branch(void *owner, struct steady__request *parent, struct steady__branch *branch) {
    struct steady__inflight *inflight = owner;
    struct pending *pending = inflight_is_open(inflight) ? inflight_pending_take(inflight, &branch->call) : NULL;
    if (pending == NULL) return false;
    const steady_us now = steady__loop_now(&inflight->loop);
    pending->kind = BRANCH;
    pending->branch = branch;
    pending->answer = NULL;
    pending->deadline = parent != NULL ? PENDING_OF(parent)->deadline : now + inflight->timeout;
    pending->held = parent != NULL ? PENDING_OF(parent)->held : inflight_held_so_far(inflight, now);
    branch->request = &pending->request;
    if (inflight->closing) inflight_set_room(&pending->request, steady__command_group_room(&pending->call, true));
    if (parent == NULL) steady__list_append(&inflight->due, &pending->place);
    inflight_set_alarm(inflight);
    const int error = inflight->transport_class->submit(inflight->transport, &pending->request);
    if (error != 0) inflight_fail_from_loop(inflight, pending, error);
    return true;
}

static void inflight_end(void *owner, struct steady__request *parent, steady_result *result) {
    inflight_finish(owner, PENDING_OF(parent), result);
}

static const struct steady__coordinator_owner coordinator_owner = {inflight_send_branch, inflight_take_back,
                                                                   inflight_note_no_memory, inflight_end};

/* Makes a coordinator for a call, which has no request in flight. 0, or STEADY_NO_MEMORY. */
__attribute__((noinline, cold)) static int inflight_coordinate(struct steady__inflight *inflight,
                                                               struct pending *pending, bool one_by_one) {
    pending->coordinator =
        steady__coordinator_new(&coordinator_owner, inflight, &pending->request, &pending->call, one_by_one);
    if (pending->coordinator != NULL && steady__coordinator_start(pending->coordinator)) return 0;
    inflight_free_coordinator(pending);
    return STEADY_NO_MEMORY;
}

/* ---- Leases ---- */

/* A request on the bucket of a call, with a copy of its key and limit. NULL: out of memory. */
static struct steady__branch *inflight_new_take(const struct pending *taker, int64_t drops) {
    const struct steady__call *call = &taker->call;
    struct steady__branch *branch = calloc(1, sizeof *branch + sizeof branch->rates[0]);
    struct steady__group *group = branch != NULL ? steady__group_new(1, call->key_len) : NULL;
    if (group == NULL) {
        free(branch);
        return NULL;
    }
    steady__list_init(&branch->place);
    branch->is_lease = true;
    branch->rates[0] = call->terms->rate;
    struct steady__member *member = steady__group_add(group, call->throttler, call->terms, call->key, call->key_len);
    member->part = (struct steady__part){.rate = &branch->rates[0], .kind = STEADY__TAKE, .amount = drops};
    group->how.at_least = steady__leases_amount(call);
    branch->call = (struct steady__call){.verb = STEADY__CONSUME_ALL,
                                         .key = member->key,
                                         .key_len = member->key_len,
                                         .terms = call->terms,
                                         .throttler = call->throttler,
                                         .group = group};
    return branch;
}

/* Settles what is left of a lease. Its branch outlives the throttler that took it. */
static void inflight_return_lease(struct steady__inflight *inflight, const struct steady__lease_end *end) {
    struct steady__branch *branch = end->ticket;
    if (branch == NULL) return;
    struct steady__member *member = &branch->call.group->members[0];
    branch->taker = NULL;
    branch->rates[0] = end->rate;
    branch->call.verb = STEADY__SETTLE;
    branch->call.throttler = NULL;
    branch->call.terms = NULL;
    member->settlement = (struct steady__settlement){.rate = &branch->rates[0],
                                                     .same_rate = true,
                                                     .reserved = end->granted,
                                                     .moment = member->moment,
                                                     .actual = end->spent};
    if (!end->is_due || inflight->transport == NULL || !inflight_send_branch(inflight, NULL, branch))
        steady__coordinator_drop_branch(branch);
}

/* Ends the leases that are due. all: each one. */
static void inflight_end_some_leases(struct steady__inflight *inflight, bool all) {
    struct steady__lease_end ends[32];
    size_t n;
    do {
        n = steady__leases_end(inflight->leases, &inflight->leases_held, all, ends, sizeof ends / sizeof ends[0]);
        for (size_t i = 0; i < n; i++)
            inflight_return_lease(inflight, &ends[i]);
    } while (n == sizeof ends / sizeof ends[0]);
}

static void inflight_schedule_leases(struct steady__inflight *inflight) {
    const steady_us due = steady__leases_due(inflight->leases, &inflight->leases_held);
    const steady_us wait = inflight_longer(due - steady__leases_now(inflight->leases), 1);
    inflight->leases_end_at = due < 0 ? 0 : steady__loop_now(&inflight->loop) + wait;
}

static void inflight_end_leases(struct steady__inflight *inflight) {
    if (inflight->leases_end_at == 0 || steady__loop_now(&inflight->loop) < inflight->leases_end_at) return;
    inflight_end_some_leases(inflight, false);
    inflight_schedule_leases(inflight);
}

/* A reset empties the bucket, so its leases are void. Drops that are given back end the denials of a short take. */
static void inflight_forget_leases(struct steady__inflight *inflight, const struct steady__call *call) {
    const bool reset = call->verb == STEADY__RESET || call->verb == STEADY__RESET_ALL;
    const size_t n = call->group != NULL ? call->group->n : 1;
    if (!steady__gives_back(call)) return;
    for (size_t i = 0; i < n; i++) {
        struct steady__lease_end end;
        const char *key = call->group != NULL ? call->group->members[i].key : call->key;
        const size_t key_len = call->group != NULL ? call->group->members[i].key_len : call->key_len;
        steady__leases_forget(inflight->leases, &inflight->leases_held,
                              steady__leases_name(inflight->leases, key, key_len), reset, &end);
        inflight_return_lease(inflight, &end);
    }
}

static struct pending *inflight_taker(const struct steady__inflight *inflight, struct steady__hash name) {
    for (struct steady__list *place = inflight->takers.next; place != &inflight->takers; place = place->next) {
        struct pending *taker = STEADY__OWNER(struct pending, place_of_take, place);
        if (taker->lease_name.word[0] == name.word[0] && taker->lease_name.word[1] == name.word[1]) return taker;
    }
    return NULL;
}

/* False: out of memory. */
static bool inflight_start_take(struct steady__inflight *inflight, struct pending *pending, int64_t drops) {
    struct steady__branch *branch = inflight_new_take(pending, drops);
    if (branch != NULL) {
        branch->taker = &pending->request;
        pending->take = branch;
        steady__list_append(&inflight->takers, &pending->place_of_take);
        if (inflight_send_branch(inflight, &pending->request, branch)) return true;
        pending->take = NULL;
        steady__list_remove(&pending->place_of_take);
        steady__coordinator_drop_branch(branch);
    }
    steady__leases_failed(inflight->leases, pending->lease_name);
    return false;
}

/* The memory of denials will deny the call. So a take would get nothing. */
static bool inflight_is_known_full(struct steady__inflight *inflight, const struct pending *pending) {
    struct steady__denied denied;
    return inflight->memory.denials != NULL &&
           steady__deny_memory_ask(&inflight->memory, &pending->call, &denied) == STEADY__FULL;
}

/* True: the call is answered from a lease, takes one, or waits for one. */
static bool inflight_use_lease(struct steady__inflight *inflight, struct pending *pending) {
    const int64_t amount = steady__leases_amount(&pending->call);
    struct steady__lease_look look;
    if (amount == 0) return false;
    pending->lease_name = steady__leases_name(inflight->leases, pending->call.key, pending->call.key_len);
    steady__leases_ask(inflight->leases, &inflight->leases_held, pending->lease_name, &pending->call.terms->rate,
                       amount, &look);
    inflight_return_lease(inflight, &look.end);
    switch (look.answer) {
    case STEADY__LEASE_SPENT:
    case STEADY__LEASE_SHORT:
        pending->is_remembered = true;
        pending->remembered_by = STEADY_FROM_LEASE;
        pending->gate_part = 0;
        pending->remembered = look.decision;
        return true;
    case STEADY__LEASE_WAIT:
        pending->waits = true;
        steady__list_append(&inflight_taker(inflight, pending->lease_name)->waiters, &pending->place_in_line);
        return true;
    case STEADY__LEASE_TAKE:
        if (inflight_is_known_full(inflight, pending)) {
            steady__leases_put_off(inflight->leases, pending->lease_name);
            return false;
        }
        return inflight_start_take(inflight, pending, look.take);
    default: return false;
    }
}

/* Sends a decision that may go. 0 or its error. In a child of fork, a call that ends lets others go: they are not sent,
 * because the connection is the parent's. */
static int inflight_send(struct steady__inflight *inflight, struct pending *pending) {
    const struct steady__transport *transport = inflight->transport_class;
    if (steady__forked(inflight->fork_guard)) return STEADY_UNAVAILABLE;
    const bool divided = pending->request.n_keys > 1 && transport->divides != NULL &&
                         transport->divides(inflight->transport, &pending->request);
    return divided ? inflight_coordinate(inflight, pending, false)
                   : transport->submit(inflight->transport, &pending->request);
}

/* What becomes of a call: it is answered at once, waits, or is sent. Returns its error. */
static int inflight_start(struct steady__inflight *inflight, struct pending *pending) {
    if (inflight->leases != NULL && inflight_use_lease(inflight, pending)) return 0;
    const enum gate_outcome gate = inflight->memory.denials != NULL ? inflight_pass_gate(inflight, pending) : GATE_OPEN;
    pending->is_remembered = gate == GATE_DENIES;
    pending->remembered_by = STEADY_FROM_MEMORY;
    return gate == GATE_OPEN ? inflight_send(inflight, pending) : 0;
}

/* The lease is there, or there will be none. The next of them may take another one. */
static void inflight_go_on_without(struct steady__inflight *inflight, struct pending *taker) {
    struct steady__list waiters;
    steady__list_init(&waiters);
    steady__list_remove(&taker->place_of_take);
    steady__list_move(&waiters, &taker->waiters);
    while (!steady__list_empty(&waiters)) {
        struct pending *pending = WAITING(waiters.next);
        steady__list_remove(&pending->place_in_line);
        pending->waits = false;
        if (inflight->transport == NULL) continue; /* the store ends it */
        const int error = inflight_start(inflight, pending);
        if (error != 0 || pending->is_remembered) inflight_fail_from_loop(inflight, pending, error);
    }
}

/* The reply to the request of a taker. The rest of the lease is kept for the others before a callback runs. */
static void inflight_take_ended(struct steady__inflight *inflight, struct steady__branch *branch,
                                const steady_result *result) {
    struct pending *taker = PENDING_OF(branch->taker);
    const steady_part_result *part = &branch->call.group->results[0];
    const int64_t amount = branch->call.group->how.at_least;
    steady_result own = *result;
    bool kept = false;
    taker->take = NULL;
    if (result->error == 0) {
        const struct steady__lease_take take = {.ticket = branch,
                                                .granted = result->success ? part->granted : 0,
                                                .amount = amount,
                                                .sent = taker->sent,
                                                .level = part->level,
                                                .until_next_drop = part->until_next_drop,
                                                .is_blocked = part->blocked_for > 0};
        const struct steady__decision decision = {.success = result->success,
                                                  .level = part->level,
                                                  .until_next_drop = part->until_next_drop,
                                                  .blocked_for = part->blocked_for,
                                                  .retry_after = part->retry_after};
        kept = steady__leases_granted(inflight->leases, &inflight->leases_held, taker->lease_name, &take);
        steady__result_clear(&own);
        steady__group_answer(&taker->call, 0, STEADY_FROM_STORE, &decision, &own);
    } else if (inflight->leases != NULL) {
        steady__leases_failed(inflight->leases, taker->lease_name);
    }
    if (!kept) steady__coordinator_drop_branch(branch);
    if (kept && inflight->leases_end_at == 0) {
        inflight_schedule_leases(inflight);
        inflight_wake_by(inflight, inflight->leases_end_at);
    }
    if (!inflight->closed) inflight_finish(inflight, taker, &own);
}

/* The call is not in flight any more: calls that wait for its lease go on. */
__attribute__((noinline)) static void inflight_end_leased(struct steady__inflight *inflight, struct pending *pending) {
    inflight_forget_leases(inflight, &pending->call);
    if (pending->waits && pending->gate == NULL) {
        steady__list_remove(&pending->place_in_line);
        pending->waits = false;
    }
    if (pending->take != NULL) inflight_take_back_take(inflight, pending, false);
    if (!steady__list_empty(&pending->place_of_take)) inflight_go_on_without(inflight, pending);
}

/* ---- Called by the transport ---- */

/* Drops a SCRIPT LOAD that waited while its connection was replaced. No decision has seen NOSCRIPT on the new
 * connection. */
static size_t inflight_encode_script_load(struct steady__inflight *inflight, struct pending *pending,
                                          struct steady__engines *engines, char *out) {
    const enum steady__verb verb = pending->call.verb;
    if (!engines->verbs[verb].loading) {
        inflight_pending_release(inflight, pending);
        return 0;
    }
    steady__counter_add(&inflight->counters->script_loads, 1);
    engines->verbs[verb].loading = false;
    engines->verbs[verb].loads++;
    return steady__command_script_load(out, verb);
}

static uint64_t inflight_session(struct steady__inflight *inflight, struct steady__engines *engines) {
    if (engines->session == 0) engines->session = ++inflight->sessions;
    return engines->session;
}

/* Whether a branch may give drops back on this connection. See NEVER MORE in coordinator.c. A lease may be old, so its
 * settle does not even follow a redirect: after a failover the new node may lack the drops. */
static bool inflight_session_fits(struct steady__inflight *inflight, const struct pending *pending,
                                  struct steady__engines *engines) {
    if (pending->kind != BRANCH || pending->call.verb != STEADY__SETTLE) return true;
    const uint64_t wanted = pending->branch->session;
    if (pending->branch->is_lease)
        return pending->request.redirects == 0 && wanted == inflight_session(inflight, engines);
    return wanted == 0 || pending->request.redirects > 0 || wanted == inflight_session(inflight, engines);
}

static size_t inflight_encode(void *owner, struct steady__request *request, struct steady__engines *engines,
                              char *out) {
    struct steady__inflight *inflight = owner;
    struct pending *pending = PENDING_OF(request);
    const enum steady__verb verb = pending->call.verb;
    if (inflight->closing && (pending->kind != BRANCH || verb != STEADY__SETTLE)) return 0;
    if (pending->kind == SCRIPT_LOAD) return inflight_encode_script_load(inflight, pending, engines, out);
    if (pending->kind == EVICTION_QUERY) return steady__eviction_query(out);
    /* A request whose reply would come too late is not sent. Its decision ends at the deadline. After the loop was
     * held, a request with little time left is not sent either: its reply may be late, and that is not the server's
     * fault. */
    const steady_us now = steady__loop_now(&inflight->loop);
    const steady_us least = inflight_was_held(inflight, pending, now) ? inflight->timeout / 4 : 0;
    if (now + inflight_longer(request->expected_latency, least) >= pending->deadline) return 0;
    if (!inflight_session_fits(inflight, pending, engines)) {
        inflight_fail_from_loop(inflight, pending, STEADY_UNAVAILABLE);
        return 0;
    }
    if (inflight->memory.denials != NULL) pending->sent = steady__denials_now(inflight->memory.denials);
    if (pending->kind == BRANCH && pending->branch->taker != NULL)
        PENDING_OF(pending->branch->taker)->sent = steady__leases_now(inflight->leases);
    pending->loads = engines->verbs[verb].loads;
    pending->to_module = pending->scripts_forbidden ||
                         (pending->tries == 1 && steady__engine_asks_module(engines, verb, inflight->engine));
    if (pending->to_module) return steady__command_module(out, &pending->call);
    return pending->tries < TRIES_MAX && !inflight->closing ? steady__command_evalsha(out, &pending->call)
                                                            : steady__command_eval(out, &pending->call);
}

/* A housekeeping request for the server that `asker` was sent to. NULL: out of memory. */
static struct pending *inflight_housekeeping_take(struct steady__inflight *inflight, const struct pending *asker,
                                                  enum pending_kind kind) {
    struct pending *pending = inflight_pending_find(inflight);
    if (pending == NULL) return NULL;
    steady__list_remove(&pending->place);
    pending->kind = kind;
    pending->call.verb = asker->call.verb;
    pending->call.group = NULL;
    inflight_set_one_key(&pending->request, NULL);
    if (kind == SCRIPT_LOAD)
        inflight_set_room(&pending->request, steady__scripts[asker->call.verb].text_len + STEADY__SCRIPT_LOAD_MAX);
    pending->request.read_only = false;
    pending->request.nested = kind == EVICTION_QUERY ? STEADY__NESTED : 0;
    pending->request.at = asker->request.at;
    return pending;
}

static bool inflight_housekeeping_send(struct steady__inflight *inflight, struct pending *pending) {
    const bool runs = inflight->transport_class->submit(inflight->transport, &pending->request) == 0;
    if (!runs) inflight_pending_release(inflight, pending);
    return runs;
}

/* False: out of memory. */
static bool inflight_load_script(struct steady__inflight *inflight, const struct pending *asker,
                                 struct steady__engines *engines) {
    const enum steady__verb verb = asker->call.verb;
    if (engines->verbs[verb].loading) return true;
    struct pending *pending = inflight_housekeeping_take(inflight, asker, SCRIPT_LOAD);
    if (pending == NULL) return false;
    engines->verbs[verb].loading = true; /* encoding resets it, perhaps at once */
    const bool runs = inflight_housekeeping_send(inflight, pending);
    if (!runs) engines->verbs[verb].loading = false;
    return runs;
}

/* If the script cannot be loaded, the decision sends it as EVAL. */
static bool inflight_resend_after_noscript(struct steady__inflight *inflight, struct pending *pending,
                                           struct steady__engines *engines) {
    const bool at_once = pending->loads == engines->verbs[pending->call.verb].loads;
    if (pending->tries == TRIES_MAX) return false;
    if (pending->loads == 0) pending->tries = 1;
    if (pending->tries == 1 && at_once && !inflight_load_script(inflight, pending, engines))
        pending->tries = TRIES_MAX - 1;
    pending->tries++;
    if (pending->tries == TRIES_MAX && pending->call.group != NULL)
        inflight_set_room(&pending->request, steady__command_group_room(&pending->call, true));
    return inflight->transport_class->submit(inflight->transport, &pending->request) == 0;
}

static void inflight_note_error(struct steady__inflight *inflight, const struct pending *pending,
                                const struct steady__reply *reply) {
    const struct steady__secrets secrets = steady__request_secrets(&pending->request, inflight->url);
    steady_message text = {.text = ""};
    steady__redact(text.text, sizeof text.text, reply->text, reply->text_len, &secrets);
    steady__last_error_set(inflight->last_error, &text);
}

/* The server says that it has not all keys of a request. True: they are asked apart, or the call has ended. */
static bool inflight_divide(struct steady__inflight *inflight, struct pending *pending, bool one_by_one) {
    if (pending->request.n_keys < 2 || inflight->transport_class->divides == NULL) return false;
    if (pending->kind == BRANCH && !one_by_one) return false; /* it was one slot to us */
    if (pending->kind == BRANCH)
        inflight_finish_branch(inflight, pending, &(steady_result){.error = STEADY__TRY_AGAIN});
    else if (inflight_coordinate(inflight, pending, one_by_one) != 0)
        inflight_fail(inflight, pending, STEADY_NO_MEMORY);
    return true;
}

static enum steady__reply_action inflight_error_replied(struct steady__inflight *inflight, struct pending *pending,
                                                        struct steady__engines *engines,
                                                        const struct steady__reply *reply) {
    const enum steady__error_class error_class = reply->error_class;
    if (error_class == STEADY__ERROR_CLASS_NOSCRIPT && inflight_resend_after_noscript(inflight, pending, engines))
        return STEADY__REPLY_RESENT;
    if (error_class == STEADY__ERROR_CLASS_CROSS_SLOT && inflight_divide(inflight, pending, false))
        return STEADY__REPLY_ACCEPTED;
    if (error_class == STEADY__ERROR_CLASS_TRY_AGAIN && inflight_divide(inflight, pending, true))
        return STEADY__REPLY_ACCEPTED;
    int error = steady__error_class_code(error_class);
    if (error_class == STEADY__ERROR_CLASS_CROSS_SLOT) {
        inflight_fail(inflight, pending, steady__note_error(inflight->last_error, error, STEADY__CROSS_SLOT_TEXT));
        return STEADY__REPLY_ACCEPTED;
    }
    /* The user may call scripts but not load them. Another client has to load them. */
    if (error_class == STEADY__ERROR_CLASS_NO_PERMISSION && pending->tries == TRIES_MAX) error = STEADY_UNAVAILABLE;
    inflight_note_error(inflight, pending, reply);
    if (error_class == STEADY__ERROR_CLASS_READONLY) return STEADY__REPLY_NOT_PRIMARY;
    inflight_fail(inflight, pending, error);
    return error_class == STEADY__ERROR_CLASS_REJECTED ? STEADY__REPLY_REJECTED : STEADY__REPLY_ACCEPTED;
}

static enum steady__reply_action inflight_script_loaded(struct steady__inflight *inflight, struct pending *pending,
                                                        const struct steady__reply *reply) {
    inflight_pending_release(inflight, pending);
    if (reply->kind == STEADY__REPLY_ERROR) inflight_note_error(inflight, pending, reply);
    return reply->kind == STEADY__REPLY_INTEGERS ? STEADY__REPLY_UNTRUSTED : STEADY__REPLY_ACCEPTED;
}

static void inflight_resend_with_other_engine(struct steady__inflight *inflight, struct pending *pending) {
    const int error = inflight->transport_class->submit(inflight->transport, &pending->request);
    if (error != 0) inflight_fail(inflight, pending, error);
}

/* If the server has no module, or forbids this command of it, sends this decision and all later ones to the script.
 * Without the module a server answers "ERR unknown command", a proxy anything. True: the decision was sent again, or
 * ended. */
static bool inflight_fall_back_to_script(struct steady__inflight *inflight, struct pending *pending,
                                         struct steady__engines *engines, const struct steady__reply *reply) {
    if (!pending->to_module || inflight->engine != STEADY_ENGINE_AUTO) return false;
    if (reply->error_class == STEADY__ERROR_CLASS_OTHER) {
        steady__engine_no_module(engines);
    } else if (steady__error_is_forbidden_command(reply->text, reply->text_len)) {
        steady__engine_settle(engines, pending->call.verb, false);
    } else {
        steady__engine_not_answered(engines);
        return false;
    }
    pending->scripts_forbidden = false;
    inflight_resend_with_other_engine(inflight, pending);
    return true;
}

/* The reverse: a user may be allowed the module only. Decisions that were sent before that was known went to the
 * scripts. */
static bool inflight_fall_back_to_module(struct steady__inflight *inflight, struct pending *pending,
                                         struct steady__engines *engines, const struct steady__reply *reply) {
    if (pending->to_module || !steady__error_is_forbidden_command(reply->text, reply->text_len)) return false;
    if (!steady__engine_switch_to_module(engines, pending->call.verb, inflight->engine)) return false;
    pending->scripts_forbidden = true;
    inflight_resend_with_other_engine(inflight, pending);
    return true;
}

/* Queries once whether the server may evict buckets, for a warning in the log. The engine must be known first: then no
 * proxy is in between that hangs up on an unknown command. */
static void inflight_query_eviction(struct steady__inflight *inflight, const struct pending *asker,
                                    const struct steady__engines *engines) {
    if (inflight->eviction_asked || inflight->log == NULL || !steady__engine_is_settled(engines)) return;
    inflight->eviction_asked = true;
    inflight->eviction_queries++;
    struct pending *pending = inflight_housekeeping_take(inflight, asker, EVICTION_QUERY);
    if (pending != NULL) inflight_housekeeping_send(inflight, pending);
}

/* Warns if the server may evict. If CONFIG GET is not permitted, the reply is an error and there is no warning. */
static enum steady__reply_action inflight_eviction_replied(struct steady__inflight *inflight, struct pending *pending,
                                                           const struct steady__reply *reply) {
    char where[300], policy[32], text[480];
    inflight_pending_release(inflight, pending);
    if (steady__eviction_possible(reply, policy, sizeof policy)) {
        steady__redact_place(where, sizeof where, inflight->url, inflight->url);
        snprintf(text, sizeof text,
                 "%s: the server may evict buckets (maxmemory-policy %s): an evicted key starts with an empty bucket",
                 where, policy);
        inflight->log(inflight->log_data, STEADY_LOG_WARNING, text);
    }
    return reply->kind == STEADY__REPLY_ERROR || reply->kind == STEADY__REPLY_NESTED ? STEADY__REPLY_ACCEPTED
                                                                                     : STEADY__REPLY_UNTRUSTED;
}

static bool inflight_decode_group(struct steady__inflight *inflight, const struct pending *pending,
                                  const struct steady__reply *reply, steady_result *result) {
    const struct steady__call *call = &pending->call;
    unsigned stepped = 0;
    if (pending->to_module) return steady__command_group_module_reply(call, reply->values, reply->count, result);
    if (!steady__command_group_script_reply(call, reply->values, reply->count, result, &stepped)) return false;
    const bool looked = pending->kind == BRANCH && !pending->branch->is_lease && call->verb == STEADY__CONSUME_ALL;
    if (!looked) /* otherwise its look has counted them */
        steady__counter_add(&inflight->counters->clock_steps, stepped);
    return true;
}

static bool inflight_decode_reply(struct steady__inflight *inflight, const struct pending *pending,
                                  const struct steady__reply *reply, steady_result *result) {
    bool stepped = false;
    if (reply->kind != STEADY__REPLY_INTEGERS) return false;
    if (pending->call.group != NULL) return inflight_decode_group(inflight, pending, reply, result);
    if (pending->to_module) return steady__command_module_reply(&pending->call, reply->values, reply->count, result);
    if (!steady__command_script_reply(&pending->call, reply->values, reply->count, result, &stepped)) return false;
    if (stepped) steady__counter_add(&inflight->counters->clock_steps, 1);
    return true;
}

static enum steady__reply_action inflight_answered(void *owner, struct steady__request *request,
                                                   struct steady__engines *engines, const struct steady__reply *reply) {
    struct steady__inflight *inflight = owner;
    struct pending *pending = PENDING_OF(request);
    steady_result result;
    if (pending->kind == SCRIPT_LOAD) return inflight_script_loaded(inflight, pending, reply);
    if (pending->kind == EVICTION_QUERY) return inflight_eviction_replied(inflight, pending, reply);
    if (reply->kind == STEADY__REPLY_ERROR) {
        if (inflight_fall_back_to_script(inflight, pending, engines, reply)) return STEADY__REPLY_RESENT;
        if (inflight_fall_back_to_module(inflight, pending, engines, reply)) return STEADY__REPLY_RESENT;
        return inflight_error_replied(inflight, pending, engines, reply);
    }
    if (!inflight_decode_reply(inflight, pending, reply, &result)) return STEADY__REPLY_UNTRUSTED;
    if (pending->to_module) steady__engine_settle(engines, pending->call.verb, true);
    if (pending->kind == BRANCH)
        pending->branch->session = request->send_asking ? 0 : inflight_session(inflight, engines);
    inflight_query_eviction(inflight, pending, engines);
    if (inflight->memory.denials != NULL && (pending->call.verb != STEADY__PEEK_ALL || pending->kind == BRANCH))
        steady__deny_memory_learn(&inflight->memory, &pending->call, &result, pending->sent);
    inflight_finish(inflight, pending, &result);
    return STEADY__REPLY_ACCEPTED;
}

static void inflight_unanswered(void *owner, struct steady__request *request, bool written, int error) {
    struct steady__inflight *inflight = owner;
    struct pending *pending = PENDING_OF(request);
    if (written) error = STEADY_UNKNOWN;
    if (inflight->n_in_flight > PORTION) inflight->ending_in_portions = true;
    if (pending->kind == EVICTION_QUERY) inflight->eviction_asked = inflight->eviction_queries == EVICTION_QUERIES_MAX;
    if (pending->kind == SCRIPT_LOAD || pending->kind == EVICTION_QUERY)
        inflight_pending_release(inflight, pending);
    else if (inflight->ending_in_portions)
        inflight_fail_from_loop(inflight, pending, error);
    else
        inflight_fail(inflight, pending, error);
}

const struct steady__connection_owner steady__inflight_owner = {inflight_encode, inflight_answered,
                                                                inflight_unanswered};

/* ---- Called by the store ---- */

int steady__inflight_init(struct steady__inflight *inflight) {
    steady__list_init(&inflight->due);
    steady__list_init(&inflight->failed);
    steady__list_init(&inflight->finishing);
    steady__list_init(&inflight->spare);
    steady__list_init(&inflight->takers);
    steady__list_init(&inflight->leases_held.leases);
    return steady__alarm_new(&inflight->alarm, &inflight->loop, inflight_on_alarm, inflight);
}

int steady__reject(struct steady__counters *counters, struct steady__last_error *last_error,
                   const struct steady__call *call, int error, const char *why) {
    if (steady__verb_decides(call->verb)) {
        steady__counter_add(&counters->decisions, 1);
        steady__counter_add(&counters->unavailable, 1);
    }
    return steady__note_error(last_error, error, "%s", why);
}

static int inflight_reject(struct steady__inflight *inflight, const struct steady__call *call, int error,
                           const char *why) {
    return steady__reject(inflight->counters, inflight->last_error, call, error, why);
}

/* Whether a timer can end the decision at its deadline. Checked before the decision starts. */
static bool inflight_has_alarm(struct steady__inflight *inflight) {
    if (!inflight->alarm.set) steady__alarm_set(&inflight->alarm, inflight_tick(inflight));
    return steady__retry_runs(inflight->retry);
}

/* Ends a decision that failed inside submit, if no timer can report it later. */
static int inflight_fail_without_timer(struct steady__inflight *inflight, struct pending *pending) {
    if (pending->gate != NULL) inflight_leave_gate(inflight, pending);
    if (inflight->leases != NULL) inflight_end_leased(inflight, pending);
    inflight->n_in_flight--;
    inflight_count(inflight->counters, &pending->call, &(steady_result){.error = STEADY_SYSTEM});
    inflight_pending_release(inflight, pending);
    return steady__note_error(inflight->last_error, STEADY_SYSTEM, NO_TIMER_TEXT);
}

int steady__inflight_submit(struct steady__inflight *inflight, const struct steady__call *call, steady_result *answer,
                            uint64_t *id) {
    const steady_us now = steady__loop_now(&inflight->loop);
    if (inflight->n_in_flight >= inflight->max_in_flight)
        return inflight_reject(inflight, call, STEADY_OVERLOADED, "max_in_flight decisions are already in flight");
    if (!inflight_has_alarm(inflight)) return inflight_reject(inflight, call, STEADY_SYSTEM, NO_TIMER_TEXT);
    struct pending *pending = inflight_pending_take(inflight, call);
    if (pending == NULL) return inflight_reject(inflight, call, STEADY_NO_MEMORY, "out of memory");
    if (steady__verb_decides(call->verb)) steady__counter_add(&inflight->counters->decisions, 1);
    pending->answer = answer;
    if (id != NULL) *id = pending->id = ++inflight->submitted << INDEX_BITS | pending->index;
    if (answer != NULL) answer->error = STEADY__PENDING;
    inflight->n_in_flight++;
    steady__counter_add(&inflight->counters->in_flight, 1);
    pending->deadline = now + inflight->timeout;
    pending->held = inflight_held_so_far(inflight, now);
    if (inflight->leases != NULL) inflight_forget_leases(inflight, call);
    const int error = inflight_start(inflight, pending);
    if (error != 0 || pending->is_remembered) {
        inflight_fail_from_loop(inflight, pending, error);
        if (!steady__retry_runs(inflight->retry)) return inflight_fail_without_timer(inflight, pending);
    } else {
        steady__list_append(&inflight->due, &pending->place);
        inflight_set_alarm(inflight);
    }
    return 0;
}

/* Returns its error. */
static int inflight_take_back_decision(struct steady__inflight *inflight, struct pending *pending) {
    steady_result result = {.error = STEADY_UNKNOWN};
    if (pending->error != 0) return pending->error;
    if (pending->waits || pending->is_remembered) return STEADY_UNAVAILABLE; /* nothing was sent */
    if (pending->take != NULL) return inflight_take_back_take(inflight, pending, false);
    if (pending->coordinator != NULL) {
        if (inflight->transport != NULL) steady__coordinator_stop(pending->coordinator, false, &result);
        inflight_free_coordinator(pending);
    } else if (inflight->transport != NULL) {
        return inflight->transport_class->forget(inflight->transport, &pending->request, false);
    }
    return result.error != 0 ? result.error : STEADY_UNKNOWN;
}

/* An id names an entry and the decision that has it. So an old id never names another decision: the count in it would
 * have to come around, after 2^38 decisions. NULL: the decision has ended. */
static struct pending *inflight_find(struct steady__inflight *inflight, uint64_t id) {
    const size_t index = id & ((UINT64_C(1) << INDEX_BITS) - 1);
    if (id == 0 || index / SLAB_SIZE >= inflight->n_slabs) return NULL;
    struct pending *pending = &inflight->slabs[index / SLAB_SIZE]->entries[index % SLAB_SIZE];
    return pending->id == id ? pending : NULL;
}

bool steady__inflight_cancel(struct steady__inflight *inflight, uint64_t id) {
    struct pending *pending = inflight_find(inflight, id);
    if (pending == NULL) return false;
    const int error = inflight_take_back_decision(inflight, pending);
    inflight_count(inflight->counters, &pending->call, &(steady_result){.error = error});
    if (--inflight->n_in_flight == 0) inflight->ending_in_portions = false;
    if (inflight->memory.denials != NULL) inflight_end_remembered(inflight, pending);
    if (inflight->leases != NULL) inflight_end_leased(inflight, pending);
    const struct steady__call cancelled = pending->call; /* the store may end with its last throttler */
    inflight_pending_release(inflight, pending);
    steady__call_release(&cancelled);
    return true;
}

bool steady__inflight_expire(struct steady__inflight *inflight, uint64_t id) {
    struct pending *pending = inflight_find(inflight, id);
    if (pending == NULL) return false;
    if (pending->error != 0 || pending->expired || pending->is_remembered) return true; /* it is ending */
    pending->expired = true;
    pending->deadline = steady__loop_now(&inflight->loop);
    steady__list_remove(&pending->place);
    steady__list_prepend(&inflight->due, &pending->place);
    inflight_stop_alarm(inflight);
    inflight_set_alarm(inflight);
    return true;
}

void steady__inflight_close(struct steady__inflight *inflight) {
    if (steady__forked(inflight->fork_guard)) inflight->leases = NULL; /* the parent has them, and spends them on */
    inflight->closing = true;
    if (inflight->leases != NULL) inflight_end_some_leases(inflight, true);
    inflight->closed = true;
    if (inflight->transport != NULL) inflight->transport_class->close(inflight->transport);
    inflight->transport = NULL;
    if (!steady__forked(inflight->fork_guard)) steady__alarm_free(&inflight->alarm);
    while (!steady__list_empty(&inflight->finishing))
        inflight_fail(inflight, PENDING(inflight->finishing.next), STEADY_CANCELLED);
    while (!steady__list_empty(&inflight->failed))
        inflight_fail(inflight, PENDING(inflight->failed.next), STEADY_CANCELLED);
    while (!steady__list_empty(&inflight->due))
        inflight_fail(inflight, PENDING(inflight->due.next), STEADY_CANCELLED);
}

void steady__inflight_free(struct steady__inflight *inflight) {
    for (size_t at = 0; at < inflight->n_slabs; at++) {
        struct steady__slab *slab = inflight->slabs[at];
        for (size_t i = 0; i < SLAB_SIZE; i++)
            if (slab->entries[i].key != slab->entries[i].key_near) free(slab->entries[i].key);
        free(slab);
    }
    free(inflight->slabs);
    inflight->slabs = NULL;
    inflight->n_slabs = 0;
}
