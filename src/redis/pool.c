/* SPDX-License-Identifier: MIT
 * A Redis store for blocking calls from any thread.
 *
 * Each connection is a Redis store without a loop (redis_store.c), with a poller. It has no thread of its own. A thread
 * that makes a call puts it into the queue of a connection. One of the threads that wait drives the connection:
 *
 *     no driver yet      the thread drives: it submits the queued calls, and runs the poller until its own call ends
 *     a driver           the thread wakes the poller if need be, and sleeps until its call has ended, or until it is
 *                        told to drive
 *     the driver's call  the driver tells the thread whose call came last to drive, and returns. If no call waits,
 *     ends               the connection has no driver
 *
 * So the calls of many threads are pipelined. While a call waits, a thread drives: `driver` passes from thread to
 * thread under the mutex, or becomes 0 under the mutex if queue and in_flight are empty.
 *
 * The call of a thread is in its stack frame. It is in `queue`, which the mutex guards, then in `in_flight` and
 * `answered`, which belong to the driver. pool_end is the last access to it, except that the futex at its address may
 * still be woken.
 *
 * The log callback runs inside the poller, on the thread that drives, without the mutex. A call that it makes goes to
 * the same connection, and drives it further down the stack (`nested`).
 *
 * Closing. The thread that closes is the next to drive. It closes the Redis store of the connection, which ends the
 * calls in flight. Memory stays until the last throttler is freed: each call holds its own.
 *
 * Fork. What a process needs is in a struct of its own, pool_process. A child makes a new one. It reads nothing of the
 * old one but the descriptors to close: another thread may have been in the middle of it, with the mutex locked. */
#include "redis/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conn/net.h"
#include "core/error.h"
#include "core/list.h"
#include "core/url.h"
#include "loop/fork_guard.h"
#include "loop/loop.h"
#include "redis/command.h"
#include "redis/inflight.h"
#include "redis/redis_store.h"

/* As in linux/futex.h, which a system with musl may lack. */
#define FUTEX_WAIT_PRIVATE 128
#define FUTEX_WAKE_PRIVATE 129
#define DESCRIPTORS 64 /* of a connection, that a child closes; a cluster has more than one */

enum pool_turn { POOL_WAITS, POOL_SLEEPS, POOL_DRIVES, POOL_HAS_ENDED };

struct pool_caller {
    steady_result result;
    struct steady__list place; /* in queue, in_flight or answered */
    const struct steady__call *call;
    struct pool_connection *conn;
    uintptr_t thread;
    bool nested;      /* made by the log callback, on the thread that drives */
    atomic_uint turn; /* enum pool_turn; a futex */
};

struct pool_connection {
    struct steady__net net; /* the system's; it notes the descriptors */
    struct pool_process *process;
    atomic_int descriptors[DESCRIPTORS]; /* number + 1; 0: none */
    atomic_uint callers;                 /* threads that are in a call on it */

    pthread_mutex_t mutex; /* guards these; atomic ones may be read without it */
    struct steady__list queue;
    bool closed;
    atomic_uintptr_t driver;              /* a thread; 0: none */
    _Atomic(struct pool_caller *) closer; /* waits to drive; NULL: none */
    atomic_bool asleep;                   /* the driver may be waiting in the poller */

    struct steady__list in_flight; /* these belong to the driver; any thread may read the atomic ones */
    struct steady__list answered;  /* in this turn */
    steady_poller *poller;         /* this and the store are made by the first driver, and stay until pool_free */
    _Atomic(steady_store *) store;
    struct steady__counters counters;     /* of calls for which no store could be made */
    struct steady__last_error last_error; /* why */
};

/* What belongs to one process. */
struct pool_process {
    struct steady__fork_guard fork_guard;
    atomic_uint failed; /* the connection on which a call failed last */
    struct steady__deny_memory memory;
    struct steady__leases *leases;    /* NULL: none */
    struct steady__counters counters; /* of calls that were answered on the threads of the callers */
    uint32_t n;
    struct pool_connection connections[];
};

struct pool {
    steady_store head;
    struct steady__url url;
    steady_store_options options;
    steady_tls_options tls;
    char *strings; /* those of options and tls */
    uint32_t n;
    _Atomic(struct pool_process *) process;
};

#define CALLER(list) STEADY__OWNER(struct pool_caller, place, list)

static uintptr_t pool_this_thread(void) { return (uintptr_t)pthread_self(); }

/* ---- Descriptors, for a child ---- */

static void pool_replace_descriptor(struct pool_connection *conn, int from, int to) {
    for (size_t i = 0; i < DESCRIPTORS; i++) {
        int old = from;
        if (atomic_compare_exchange_strong(&conn->descriptors[i], &old, to)) return;
    }
}

static int pool_connect(const struct steady__net *net, const struct steady__address *address, steady_us unanswered) {
    const int fd = steady__net_system.connect(net, address, unanswered);
    const int error = errno;
    if (fd >= 0) pool_replace_descriptor(STEADY__OWNER(struct pool_connection, net, net), 0, fd + 1);
    errno = error;
    return fd;
}

static void pool_close_descriptor(const struct steady__net *net, int fd) {
    pool_replace_descriptor(STEADY__OWNER(struct pool_connection, net, net), fd + 1, 0);
    steady__net_system.close(net, fd);
}

/* In a child: closes the descriptors of the parent's connections. If this thread forked while it drove, its stack still
 * uses them. */
static void pool_forget_parent(struct pool_process *parent) {
    for (uint32_t i = 0; i < parent->n; i++) {
        struct pool_connection *conn = &parent->connections[i];
        if (atomic_load(&conn->driver) == pool_this_thread()) continue;
        for (size_t k = 0; k < DESCRIPTORS; k++) {
            const int fd = atomic_load(&conn->descriptors[k]) - 1;
            if (fd >= 0) close(fd);
        }
    }
}

/* ---- What belongs to one process ---- */

static struct pool_process *pool_process_new(const struct pool *pool) {
    const uint32_t n = pool->n;
    const steady_us age = steady__leases_age(&pool->url, &pool->options);
    struct pool_process *process = calloc(1, sizeof *process + n * sizeof process->connections[0]);
    if (process == NULL) return NULL;
    if (age > 0) process->leases = steady__leases_new(age, NULL);
    if ((age > 0 && process->leases == NULL) ||
        steady__deny_memory_open(&process->memory, NULL, &pool->url, &pool->options) != 0) {
        steady__leases_release(process->leases);
        free(process);
        return NULL;
    }
    steady__fork_guard_set(&process->fork_guard, true);
    process->n = n;
    for (uint32_t i = 0; i < n; i++) {
        struct pool_connection *conn = &process->connections[i];
        conn->net = steady__net_system;
        conn->net.connect = pool_connect;
        conn->net.close = pool_close_descriptor;
        conn->process = process;
        pthread_mutex_init(&conn->mutex, NULL);
        steady__list_init(&conn->queue);
        steady__list_init(&conn->in_flight);
        steady__list_init(&conn->answered);
    }
    return process;
}

/* The stores are closed. */
static void pool_process_free(struct pool_process *process) {
    for (uint32_t i = 0; i < process->n; i++) {
        struct pool_connection *conn = &process->connections[i];
        steady_store *store = atomic_load(&conn->store);
        if (store != NULL) steady__store_release(store);
        steady_poller_free(&conn->poller);
        pthread_mutex_destroy(&conn->mutex);
    }
    steady__deny_memory_close(&process->memory);
    steady__leases_release(process->leases);
    steady__fork_guard_clear(&process->fork_guard);
    free(process);
}

/* NULL: out of memory. In a child the first thread that has made a new one keeps it. */
static struct pool_process *pool_present(struct pool *pool) {
    struct pool_process *process = atomic_load(&pool->process);
    if (!steady__forked(&process->fork_guard)) return process;
    struct pool_process *fresh = pool_process_new(pool);
    if (fresh == NULL) return NULL;
    if (atomic_compare_exchange_strong(&pool->process, &process, fresh)) {
        pool_forget_parent(process);
        return fresh;
    }
    pool_process_free(fresh);
    return process;
}

/* ---- Threads that wait ---- */

static void pool_set_turn(struct pool_caller *caller, enum pool_turn turn) {
    if (atomic_exchange(&caller->turn, turn) == POOL_SLEEPS)
        syscall(SYS_futex, &caller->turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool pool_is(const struct pool_caller *caller, enum pool_turn turn) {
    return atomic_load_explicit(&caller->turn, memory_order_acquire) == (unsigned)turn;
}

/* Returns when the caller is to drive, or when its call has ended. */
static void pool_sleep(struct pool_caller *caller) {
    unsigned turn = POOL_WAITS;
    if (!atomic_compare_exchange_strong(&caller->turn, &turn, POOL_SLEEPS)) return;
    while (pool_is(caller, POOL_SLEEPS))
        syscall(SYS_futex, &caller->turn, FUTEX_WAIT_PRIVATE, POOL_SLEEPS, NULL, NULL, 0);
}

static void pool_end(struct pool_caller *caller) {
    struct pool_process *process = caller->conn->process;
    const unsigned at = (unsigned)(caller->conn - process->connections);
    if (caller->result.error != 0) atomic_store_explicit(&process->failed, at, memory_order_relaxed);
    steady__list_remove(&caller->place);
    pool_set_turn(caller, POOL_HAS_ENDED);
}

static void pool_fail(struct pool_caller *caller, int error) {
    caller->result = (steady_result){.error = error};
    pool_end(caller);
}

/* Called in a run of the poller, which returns then. So the driver need not be woken any more. */
static void pool_answered(steady_result *answer) {
    struct pool_caller *caller = STEADY__OWNER(struct pool_caller, result, answer);
    atomic_store(&caller->conn->asleep, false);
    steady__list_remove(&caller->place);
    steady__list_append(&caller->conn->answered, &caller->place);
}

/* A thread that wakes may take the processor of the driver. So threads are woken after all replies are read: measured,
 * a fifth more decisions. */
static void pool_end_answered(struct pool_connection *conn) {
    while (!steady__list_empty(&conn->answered))
        pool_end(CALLER(conn->answered.next));
}

/* ---- Driving ---- */

static int pool_make_store(struct pool *pool, struct pool_connection *conn, steady_message *why) {
    steady_store *store = NULL;
    if (conn->poller == NULL) {
        const int error = steady_poller_new(&conn->poller);
        if (error == STEADY_NO_MEMORY) return steady__fail(why, error, "out of memory");
        if (error != 0) return steady__fail(why, error, "eventfd: %s", strerror(errno));
    }
    const int error = steady__redis_open_in_parts(&store, &conn->net, conn->process->leases, &pool->url, &pool->options,
                                                  conn->poller, pool_answered, why);
    if (error != 0) return error;
    steady__store_hold(store); /* until pool_process_free */
    atomic_store(&conn->store, store);
    return 0;
}

static int pool_start(struct pool *pool, struct pool_connection *conn, struct pool_caller *caller) {
    steady_message why = {.text = ""};
    int error = atomic_load(&conn->store) == NULL ? pool_make_store(pool, conn, &why) : 0;
    if (error == 0) return steady__redis_ask(atomic_load(&conn->store), caller->call, &caller->result);
    if (error != STEADY_NO_MEMORY) error = STEADY_UNAVAILABLE;
    return steady__reject(&conn->counters, &conn->last_error, caller->call, error, why.text);
}

/* Starts the next queued call. False: there is none; from now on threads that queue a call wake the poller. */
static bool pool_start_next(struct pool *pool, struct pool_connection *conn) {
    struct pool_caller *caller = NULL;
    pthread_mutex_lock(&conn->mutex);
    if (steady__list_empty(&conn->queue)) {
        atomic_store(&conn->asleep, true);
    } else {
        caller = CALLER(conn->queue.next);
        steady__list_remove(&caller->place);
    }
    pthread_mutex_unlock(&conn->mutex);
    if (caller == NULL) return false;
    steady__list_append(&conn->in_flight, &caller->place);
    const int error = pool_start(pool, conn, caller);
    if (error != 0) pool_fail(caller, error);
    return true;
}

/* Drives until the call has ended, or another thread is to drive. */
static void pool_drive(struct pool *pool, struct pool_connection *conn, struct pool_caller *caller) {
    while (pool_is(caller, POOL_DRIVES)) {
        while (pool_start_next(pool, conn))
            continue;
        if (!pool_is(caller, POOL_DRIVES) || (!caller->nested && atomic_load(&conn->closer) != NULL)) break;
        if (steady_poller_run(conn->poller, -1) < 0) steady__redis_give_up(atomic_load(&conn->store), errno);
        atomic_store(&conn->asleep, false);
        pool_end_answered(conn);
        if (steady__forked(&conn->process->fork_guard)) pool_fail(caller, STEADY_UNKNOWN); /* by the log callback */
    }
}

/* The thread that drives next: the one that closes; otherwise one whose call came late, because it drives longest. */
static struct pool_caller *pool_successor(struct pool_connection *conn) {
    struct pool_caller *closer = atomic_load(&conn->closer);
    if (closer != NULL) return closer;
    if (!steady__list_empty(&conn->queue)) return CALLER(conn->queue.prev);
    return steady__list_empty(&conn->in_flight) ? NULL : CALLER(conn->in_flight.prev);
}

static void pool_stop_driving(struct pool_connection *conn, struct pool_caller *caller) {
    if (steady__forked(&conn->process->fork_guard)) return;
    steady_store *store = atomic_load(&conn->store);
    pthread_mutex_lock(&conn->mutex);
    struct pool_caller *successor = pool_successor(conn);
    atomic_store(&conn->asleep, false);
    atomic_store(&conn->closer, NULL);
    if (pool_is(caller, POOL_DRIVES)) pool_set_turn(caller, POOL_WAITS);
    if (successor == NULL && store != NULL) steady__redis_pause(store);
    atomic_store(&conn->driver, successor != NULL ? successor->thread : 0);
    pthread_mutex_unlock(&conn->mutex);
    if (successor != NULL) pool_set_turn(successor, POOL_DRIVES);
}

/* ---- Calls ---- */

/* A call of the log callback goes to the connection that its thread drives. Otherwise two threads could wait for each
 * other. */
static struct pool_connection *pool_choose(struct pool_process *process, uintptr_t thread) {
    struct pool_connection *least = &process->connections[0];
    for (uint32_t i = 0; i < process->n; i++) {
        struct pool_connection *conn = &process->connections[i];
        if (atomic_load_explicit(&conn->driver, memory_order_relaxed) == thread) return conn;
        if (atomic_load_explicit(&conn->callers, memory_order_relaxed) <
            atomic_load_explicit(&least->callers, memory_order_relaxed))
            least = conn;
    }
    return least;
}

/* Queues a call. If no thread drives, its thread drives. Returns 0 or STEADY_CLOSED. */
static int pool_queue(struct pool_connection *conn, struct pool_caller *caller) {
    bool wake = false, resume = false;
    pthread_mutex_lock(&conn->mutex);
    const bool closed = conn->closed;
    const uintptr_t driver = atomic_load(&conn->driver);
    if (!closed) {
        steady__list_append(&conn->queue, &caller->place);
        resume = driver == 0;
        caller->nested = driver == caller->thread;
        if (resume) atomic_store(&conn->driver, caller->thread);
        if (resume || caller->nested)
            atomic_store(&caller->turn, POOL_DRIVES);
        else
            wake = atomic_exchange(&conn->asleep, false);
    }
    pthread_mutex_unlock(&conn->mutex);
    if (wake) steady_poller_wake(conn->poller);
    if (resume && atomic_load(&conn->store) != NULL) steady__redis_resume(atomic_load(&conn->store));
    return closed ? STEADY_CLOSED : 0;
}

static void pool_ask(struct pool *pool, struct pool_connection *conn, struct pool_caller *caller) {
    const int error = pool_queue(conn, caller);
    if (error != 0) pool_fail(caller, error);
    if (caller->nested) pool_drive(pool, conn, caller);
    while (!pool_is(caller, POOL_HAS_ENDED)) {
        pool_sleep(caller);
        if (!pool_is(caller, POOL_DRIVES)) continue;
        pool_drive(pool, conn, caller);
        pool_stop_driving(conn, caller);
    }
}

/* Any thread may count here, so these are atomic additions. */
static void pool_count_answer(struct steady__counters *counters, const steady_result *result) {
    const bool lease = result->source == STEADY_FROM_LEASE;
    atomic_fetch_add_explicit(&counters->decisions, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(result->success ? &counters->allowed : &counters->denied, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(lease ? &counters->from_lease : &counters->from_memory, 1, memory_order_relaxed);
    if (result->blocked_for > 0) atomic_fetch_add_explicit(&counters->blocked, 1, memory_order_relaxed);
}

static void pool_decide(steady_store *head, const struct steady__call *call, steady_result *result) {
    struct pool *pool = (struct pool *)head;
    struct pool_process *process = pool_present(pool);
    if (process == NULL) {
        result->error = STEADY_NO_MEMORY;
        return;
    }
    if (steady__leases_answer(process->leases, call, result) ||
        steady__deny_memory_denies(&process->memory, call, result)) {
        pool_count_answer(&process->counters, result);
        return;
    }
    struct pool_caller caller = {.call = call, .thread = pool_this_thread()};
    struct pool_connection *conn = caller.conn = pool_choose(process, caller.thread);
    steady__list_init(&caller.place);
    atomic_fetch_add_explicit(&conn->callers, 1, memory_order_relaxed);
    pool_ask(pool, conn, &caller);
    atomic_fetch_sub_explicit(&conn->callers, 1, memory_order_relaxed);
    *result = caller.result;
}

/* A pool has no asynchronous calls, so there is nothing to cancel. */
static bool pool_cancel(steady_store *head, uint64_t id) {
    (void)head;
    (void)id;
    return false;
}

/* ---- What any thread may ask ---- */

/* NULL: this process was forked, and has made no call yet. */
static struct pool_process *pool_seen(const steady_store *head) {
    struct pool_process *process = atomic_load(&((const struct pool *)head)->process);
    return steady__forked(&process->fork_guard) ? NULL : process;
}

static void pool_add_stats(steady_stats *sum, const steady_stats *stats) {
    sum->decisions += stats->decisions;
    sum->allowed += stats->allowed;
    sum->denied += stats->denied;
    sum->blocked += stats->blocked;
    sum->unavailable += stats->unavailable;
    sum->unknown += stats->unknown;
    sum->clock_steps += stats->clock_steps;
    sum->reconnects += stats->reconnects;
    sum->script_loads += stats->script_loads;
    sum->in_flight += stats->in_flight;
    sum->timeouts += stats->timeouts;
    sum->from_memory += stats->from_memory;
    sum->from_lease += stats->from_lease;
}

static void pool_stats(const steady_store *head, steady_stats *sum) {
    struct pool_process *process = pool_seen(head);
    steady_stats stats;
    if (process != NULL) {
        steady__counters_read(&process->counters, &stats);
        pool_add_stats(sum, &stats);
    }
    for (uint32_t i = 0; process != NULL && i < process->n; i++) {
        const steady_store *store = atomic_load(&process->connections[i].store);
        steady__counters_read(&process->connections[i].counters, &stats);
        pool_add_stats(sum, &stats);
        if (store == NULL) continue;
        store->class_->stats(store, &stats);
        pool_add_stats(sum, &stats);
    }
}

static void pool_last_error(const steady_store *head, steady_message *message) {
    struct pool_process *process = pool_seen(head);
    if (process == NULL) return;
    struct pool_connection *conn = &process->connections[atomic_load_explicit(&process->failed, memory_order_relaxed)];
    const steady_store *store = atomic_load(&conn->store);
    if (store != NULL)
        store->class_->last_error(store, message);
    else
        steady__last_error_get(&conn->last_error, message);
}

static enum steady_state pool_state(const steady_store *head) {
    struct pool_process *process = pool_seen(head);
    bool down = false;
    for (uint32_t i = 0; process != NULL && i < process->n; i++) {
        const steady_store *store = atomic_load(&process->connections[i].store);
        const enum steady_state state = store != NULL ? store->class_->state(store) : STEADY_CONNECTING;
        if (state == STEADY_READY) return state;
        down = down || state == STEADY_DOWN;
    }
    return down ? STEADY_DOWN : STEADY_CONNECTING;
}

/* ---- Opening and closing ---- */

/* The caller drives. */
static void pool_end_all(struct pool_connection *conn) {
    steady_store *store = atomic_load(&conn->store);
    struct steady__list queue;
    steady__list_init(&queue);
    pthread_mutex_lock(&conn->mutex);
    steady__list_move(&queue, &conn->queue);
    pthread_mutex_unlock(&conn->mutex);
    while (!steady__list_empty(&queue))
        pool_fail(CALLER(queue.next), STEADY_CLOSED);
    steady_store_close(&store);
    pool_end_answered(conn);
}

static void pool_close_connection(struct pool_connection *conn) {
    struct pool_caller closer = {.conn = conn, .thread = pool_this_thread()};
    bool wake = false;
    pthread_mutex_lock(&conn->mutex);
    const uintptr_t driver = atomic_load(&conn->driver);
    conn->closed = true;
    if (driver == 0) {
        atomic_store(&conn->driver, closer.thread);
        atomic_store(&closer.turn, POOL_DRIVES);
    } else if (driver != closer.thread) {
        atomic_store(&conn->closer, &closer);
        wake = atomic_exchange(&conn->asleep, false);
    }
    pthread_mutex_unlock(&conn->mutex);
    if (wake) steady_poller_wake(conn->poller);
    if (driver != closer.thread) pool_sleep(&closer);
    pool_end_all(conn);
    if (driver != closer.thread) pool_stop_driving(conn, &closer);
}

/* No thread needs the URL any more: calls are refused. */
static void pool_close(steady_store *head) {
    struct pool *pool = (struct pool *)head;
    struct pool_process *process = pool_present(pool);
    if (process == NULL) return;
    for (uint32_t i = 0; i < process->n; i++)
        pool_close_connection(&process->connections[i]);
    steady__url_clear(&pool->url);
}

static void pool_discard(struct pool *pool, struct pool_process *process) {
    if (process != NULL) pool_process_free(process);
    steady__url_clear(&pool->url);
    free(pool->strings);
    free(pool);
}

/* In a child that made no call the memory of the parent's stores stays. */
static void pool_free(steady_store *head) { pool_discard((struct pool *)head, pool_seen(head)); }

static const struct steady__store_class pool_class = {
    .name = "pool",
    .any_thread = true,
    .prepare = steady__command_encode_limit,
    .cancel = pool_cancel,
    .decide = pool_decide,
    .stats = pool_stats,
    .last_error = pool_last_error,
    .state = pool_state,
    .close = pool_close,
    .free = pool_free,
};

/* Copies a string of the options. */
static void pool_keep(const char **text, char **room) {
    if (*text == NULL) return;
    const size_t size = strlen(*text) + 1;
    memcpy(*room, *text, size);
    *text = *room;
    *room += size;
}

/* A child reads the files of TLS again, so their names are kept. */
static int pool_keep_options(struct pool *pool, const steady_store_options *options) {
    pool->options = *options;
    if (options->tls != NULL) pool->tls = *options->tls;
    if (options->tls != NULL) pool->options.tls = &pool->tls;
    const char **texts[] = {&pool->options.client_name, &pool->tls.ca_file, &pool->tls.cert_file, &pool->tls.key_file,
                            &pool->tls.server_name};
    size_t size = 1;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        size += *texts[i] != NULL ? strlen(*texts[i]) + 1 : 0;
    char *room = pool->strings = malloc(size);
    if (room == NULL) return STEADY_NO_MEMORY;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        pool_keep(texts[i], &room);
    return 0;
}

static struct pool *pool_new(const struct steady__url *url, uint32_t connections, const steady_store_options *options) {
    struct pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) return NULL;
    steady__store_init(&pool->head, &pool_class, options);
    steady__url_copy(&pool->url, url);
    pool->n = connections;
    const bool kept = pool_keep_options(pool, options) == 0;
    atomic_init(&pool->process, kept ? pool_process_new(pool) : NULL);
    if (atomic_load(&pool->process) != NULL) return pool;
    pool_discard(pool, atomic_load(&pool->process));
    return NULL;
}

/* Makes the first store, which finds what is wrong with the options. */
int steady__pool_open(steady_store **store, const struct steady__url *url, uint32_t connections,
                      const steady_store_options *options, steady_message *why) {
    struct pool *pool = pool_new(url, connections, options);
    *store = NULL;
    if (pool == NULL) return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
    const int error = pool_make_store(pool, &atomic_load(&pool->process)->connections[0], why);
    if (error == 0)
        *store = &pool->head;
    else
        pool_discard(pool, atomic_load(&pool->process));
    return error;
}
