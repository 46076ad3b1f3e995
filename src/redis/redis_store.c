/* SPDX-License-Identifier: MIT
 * The Redis store. It has the decisions in flight on the caller's loop, and separate ones for the blocking calls.
 *
 * The blocking part is made when it is first needed. It has its own connection and poller. So a blocking call may be
 * made inside a callback of the asynchronous part. Between two blocking calls its poller does not run. */
#include "redis/redis_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conn/tls.h"
#include "core/error.h"
#include "core/url.h"
#include "redis/cluster.h"
#include "redis/command.h"
#include "redis/inflight.h"
#include "redis/replica.h"

#define TIMEOUT (100 * STEADY_MILLISECOND)
#define MAX_IN_FLIGHT 65536
#define LATELY STEADY_MILLISECOND

struct redis_store {
    steady_store head;
    const struct steady__net *net;
    struct steady__url url;
    struct steady__tls_context *tls; /* NULL: no TLS */
    struct steady__fork_guard fork_guard;
    struct steady__last_error last_error;
    struct steady__counters counters;
    struct steady__readiness readiness; /* of the asynchronous part; without a loop, of the blocking part */
    steady_store_options options;
    char client_name[STEADY__CLIENT_NAME_MAX + 1];
    struct steady__deny_memory memory;
    struct steady__leases *leases;    /* NULL: none */
    struct steady__retry retry;       /* over the caller's loop */
    struct steady__inflight inflight; /* on that */
    struct steady__inflight blocking; /* on `poller` */
    steady_poller *poller;
    bool in_parts; /* the poller is the caller's: see steady__redis_open_in_parts */
    void (*answered)(steady_result *answer);
    steady_us stood_still_at; /* when that poller last ran */
};

static struct redis_store *redis_store_of(steady_store *store) { return (struct redis_store *)store; }

/* ---- Opening ---- */

static int redis_start(struct redis_store *store, struct steady__inflight *inflight, const steady_loop *loop) {
    const bool blocking = inflight == &store->blocking;
    const bool main = !blocking || !store->head.has_loop; /* it tells the log and the state of the store */
    inflight->store = &store->head;
    inflight->retry = blocking ? NULL : &store->retry;
    inflight->loop = *loop;
    inflight->timeout = store->options.timeout;
    inflight->max_in_flight = store->options.max_in_flight;
    inflight->engine = store->options.engine;
    inflight->last_error = &store->last_error;
    inflight->counters = &store->counters;
    inflight->fork_guard = &store->fork_guard;
    inflight->answered = store->answered;
    inflight->log = main ? store->options.log : NULL;
    inflight->log_data = store->options.log_data;
    inflight->url = &store->url;
    inflight->memory = store->memory;
    inflight->leases = store->leases;
    inflight->transport_class = store->url.peek_replica ? &steady__replica_class : &steady__cluster_class;
    if (steady__inflight_init(inflight) != 0) return STEADY_NO_MEMORY;
    const struct steady__connection_options options = {.net = store->net,
                                                       .loop = *loop,
                                                       .url = &store->url,
                                                       .tls = store->tls,
                                                       .fork_guard = &store->fork_guard,
                                                       .last_error = &store->last_error,
                                                       .reconnects = &store->counters.reconnects,
                                                       .readiness = main ? &store->readiness : NULL,
                                                       .timeout = inflight->timeout,
                                                       .connect_timeout = store->options.connect_timeout,
                                                       .client_name =
                                                           *store->client_name != '\0' ? store->client_name : NULL,
                                                       .max_unanswered = inflight->max_in_flight,
                                                       .patient = blocking,
                                                       .log = inflight->log,
                                                       .log_data = inflight->log_data,
                                                       .owner_class = &steady__inflight_owner,
                                                       .owner = inflight};
    if (store->url.peek_replica)
        inflight->transport = steady__replica_open(&options);
    else
        inflight->transport = steady__cluster_open(&options);
    if (inflight->transport != NULL) return 0;
    steady__inflight_close(inflight);
    return STEADY_NO_MEMORY;
}

/* A blocking call waits for a connection attempt in progress, because attempts advance only inside blocking calls. */
static int redis_start_blocking(struct redis_store *store) {
    if (store->blocking.transport != NULL) return 0;
    if (store->poller == NULL && steady__poller_new_deaf(&store->poller) != 0) return STEADY_NO_MEMORY;
    const steady_loop loop = steady_poller_loop(store->poller);
    memset(&store->blocking, 0, sizeof store->blocking);
    return redis_start(store, &store->blocking, &loop);
}

/* ---- The class ---- */

static int redis_submit(steady_store *head, const struct steady__call *call, uint64_t *id) {
    struct redis_store *store = redis_store_of(head);
    if (steady__forked(&store->fork_guard))
        return steady__reject(&store->counters, &store->last_error, call, STEADY_UNAVAILABLE, STEADY__FORKED_TEXT);
    return steady__inflight_submit(&store->inflight, call, NULL, id);
}

static bool redis_cancel(steady_store *head, uint64_t id) {
    return steady__inflight_cancel(&redis_store_of(head)->inflight, id);
}

static bool redis_expire(steady_store *head, uint64_t id) {
    return steady__inflight_expire(&redis_store_of(head)->inflight, id);
}

/* Notices a connection that was lost since the last call, before a decision is written to it. Right after the last call
 * this is skipped: its system call is a quarter of those of a decision. */
void steady__redis_resume(steady_store *head) {
    struct redis_store *store = redis_store_of(head);
    if (store->blocking.transport == NULL) return;
    if (steady__loop_now(&store->blocking.loop) - store->stood_still_at < LATELY) return;
    if (steady_poller_run(store->poller, 0) > 0) steady_poller_run(store->poller, 0); /* a reply came before the end */
}

void steady__redis_pause(steady_store *head) {
    struct redis_store *store = redis_store_of(head);
    if (store->blocking.transport != NULL) store->stood_still_at = steady__loop_now(&store->blocking.loop);
}

void steady__redis_give_up(steady_store *head, int error) {
    struct redis_store *store = redis_store_of(head);
    if (store->blocking.transport != NULL) steady__inflight_give_up(&store->blocking);
    steady__note_error(&store->last_error, 0, "poll: %s", strerror(error));
}

unsigned steady__redis_errors(const steady_store *head) {
    return atomic_load_explicit(&((const struct redis_store *)head)->last_error.edition, memory_order_relaxed);
}

int steady__redis_ask(steady_store *head, const struct steady__call *call, steady_result *answer) {
    struct redis_store *store = redis_store_of(head);
    if (atomic_load(&head->closed)) return STEADY_CLOSED; /* the log callback closed it */
    const int error = redis_start_blocking(store);
    if (error == 0) return steady__inflight_submit(&store->blocking, call, answer, NULL);
    /* store->blocking is cleared at the next attempt */
    return steady__reject(&store->counters, &store->last_error, call, error, "out of memory");
}

static bool redis_recall(steady_store *head, const struct steady__call *call, steady_result *result) {
    struct redis_store *store = redis_store_of(head);
    if (steady__forked(&store->fork_guard)) return false;
    if (!steady__leases_answer(store->leases, call, result) &&
        !steady__deny_memory_denies(&store->memory, call, result))
        return false;
    steady__counters_answer(&store->counters, result);
    return true;
}

/* For a call on one bucket, call.c has asked redis_recall before. */
static void redis_decide(steady_store *head, const struct steady__call *call, steady_result *result) {
    struct redis_store *store = redis_store_of(head);
    if (steady__forked(&store->fork_guard)) {
        result->error =
            steady__reject(&store->counters, &store->last_error, call, STEADY_UNAVAILABLE, STEADY__FORKED_TEXT);
        return;
    }
    if (call->group != NULL && redis_recall(head, call, result)) return;
    steady__store_hold(head);
    steady__redis_resume(head);
    result->error = steady__redis_ask(head, call, result);
    if (result->error == 0) result->error = STEADY__PENDING;
    while (result->error == STEADY__PENDING)
        if (steady_poller_run(store->poller, -1) < 0) steady__redis_give_up(head, errno);
    steady__redis_pause(head);
    steady__store_release(head);
}

static void redis_stats(const steady_store *head, steady_stats *stats) {
    steady__counters_read(&((const struct redis_store *)head)->counters, stats);
}

static void redis_last_error(const steady_store *head, steady_message *message) {
    steady__last_error_get(&((const struct redis_store *)head)->last_error, message);
}

static enum steady_state redis_state(const steady_store *head) {
    const struct redis_store *store = (const struct redis_store *)head;
    return steady__forked(&store->fork_guard) ? STEADY_DOWN : steady__readiness_state(&store->readiness);
}

static void redis_stop(struct steady__inflight *inflight) {
    if (inflight->transport != NULL) steady__inflight_close(inflight);
}

static void redis_close_store(steady_store *head) {
    struct redis_store *store = redis_store_of(head);
    redis_stop(&store->inflight);
    redis_stop(&store->blocking);
    if (!store->in_parts) steady_poller_free(&store->poller);
    if (!steady__forked(&store->fork_guard)) steady__tls_close(store->tls); /* in a child its connections remain */
    store->tls = NULL;
    steady__url_clear(&store->url);
}

/* In a child the loop may still hold timers, whose callbacks read the fork guard. So the memory stays. */
static void redis_free_store(steady_store *head) {
    struct redis_store *store = redis_store_of(head);
    if (steady__forked(&store->fork_guard)) return;
    steady__inflight_free(&store->inflight);
    steady__inflight_free(&store->blocking);
    steady__deny_memory_close(&store->memory);
    steady__leases_release(store->leases);
    steady__fork_guard_clear(&store->fork_guard);
    free(store);
}

static const struct steady__store_class redis_class = {
    .name = "redis",
    .prepare = steady__command_encode_limit,
    .submit = redis_submit,
    .cancel = redis_cancel,
    .expire = redis_expire,
    .recall = redis_recall,
    .decide = redis_decide,
    .stats = redis_stats,
    .last_error = redis_last_error,
    .state = redis_state,
    .close = redis_close_store,
    .free = redis_free_store,
};

/* The leases of a store. 0 or STEADY_NO_MEMORY. */
static int redis_open_leases(struct redis_store *s, struct steady__leases *shared) {
    const steady_us age = steady__leases_age(&s->url, &s->options);
    if (shared != NULL) steady__leases_hold(shared);
    s->leases = shared != NULL || age == 0 ? shared : steady__leases_new(age, NULL);
    return s->leases != NULL || age == 0 ? 0 : STEADY_NO_MEMORY;
}

int steady__redis_open_over(steady_store **store, const struct steady__net *net, struct steady__denials *denials,
                            struct steady__leases *leases, const struct steady__url *url,
                            const steady_store_options *options, steady_message *why) {
    struct redis_store *s = calloc(1, sizeof *s);
    *store = NULL;
    if (s == NULL) return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
    steady__store_init(&s->head, &redis_class, options);
    s->net = net;
    steady__url_copy(&s->url, url);
    steady__fork_guard_set(&s->fork_guard, true);
    s->options = *options;
    if (url->connect_timeout > 0) s->options.connect_timeout = url->connect_timeout;
    const char *name =
        *url->client_name == '\0' && options->client_name != NULL ? options->client_name : url->client_name;
    snprintf(s->client_name, sizeof s->client_name, "%s", name);
    s->options.client_name = NULL; /* it belongs to the caller */
    if (s->options.timeout == 0) s->options.timeout = TIMEOUT;
    if (s->options.max_in_flight == 0) s->options.max_in_flight = MAX_IN_FLIGHT;
    int error = steady__deny_memory_open(&s->memory, denials, url, options);
    if (error == 0) error = redis_open_leases(s, leases);
    if (error != 0) steady__fail(why, error, "out of memory");
    if (error == 0) error = steady__url_has_tls(url->scheme) ? steady__tls_open(&s->tls, url, options->tls, why) : 0;
    s->options.tls = NULL; /* it belongs to the caller */
    steady_loop loop = {0};
    if (options->loop != NULL) loop = steady__retry_loop(&s->retry, options->loop, &s->fork_guard);
    if (error == 0 && options->loop != NULL && redis_start(s, &s->inflight, &loop) != 0)
        error = steady__fail(why, STEADY_NO_MEMORY, "out of memory");
    if (error == 0) {
        *store = &s->head;
    } else {
        redis_close_store(&s->head);
        redis_free_store(&s->head);
    }
    return error;
}

int steady__redis_open(steady_store **store, const struct steady__url *url, const steady_store_options *options,
                       steady_message *why) {
    return steady__redis_open_over(store, &steady__net_system, NULL, NULL, url, options, why);
}

int steady__redis_open_in_parts(steady_store **store, const struct steady__net *net, struct steady__leases *leases,
                                const struct steady__url *url, const steady_store_options *options,
                                steady_poller *poller, void (*answered)(steady_result *answer), steady_message *why) {
    const int error = steady__redis_open_over(store, net, NULL, leases, url, options, why);
    if (error != 0) return error;
    struct redis_store *s = redis_store_of(*store);
    s->in_parts = true;
    s->poller = poller;
    s->answered = answered;
    return 0;
}
