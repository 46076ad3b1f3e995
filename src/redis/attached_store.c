/* SPDX-License-Identifier: MIT
 * A Redis store on a hiredis context of the caller's.
 *
 * The context is the caller's to use, to disconnect and to free, and may be gone any time the loop runs. hiredis then
 * calls the `cleanup` hook of the event adapter, and no other who is not waiting for a reply. So a bridge stands in for
 * the adapter: it takes the adapter's hooks and their data over, hands each call on, and learns of the end from
 * cleanup.
 *
 * The bridge lives as long as anyone may still come to it: the store, the context while its hooks are ours, and each
 * reply that hiredis owes us. A decision that ended without its reply (its deadline, the store closed) leaves the
 * slot of that reply behind as a tombstone. */
#include <hiredis/async.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conn/circuit.h"
#include "conn/log.h"
#include "conn/net.h"
#include "core/error.h"
#include "core/redact.h"
#include "redis/command.h"
#include "redis/inflight.h"

#define TIMEOUT (100 * STEADY_MILLISECOND)
#define MAX_IN_FLIGHT 65536
#define GONE_TEXT "the hiredis context was disconnected or freed"
#define NO_ANSWER_TEXT "the server sent an unexpected reply"

struct bridge;

struct slot {
    struct bridge *bridge;
    struct steady__request *request; /* NULL: nobody waits for it any more */
    bool decision;
    struct slot *next; /* spare */
};

struct bridge {
    redisAsyncContext *context;        /* NULL: gone */
    struct steady__inflight *inflight; /* NULL: closed */
    unsigned holders;
    bool distrusted; /* a reply was none of ours, so nobody knows whose the others are */
    uint32_t owed;   /* replies to decisions that are still to come, those given up included */
    struct slot *spare;
    struct steady__engines engines;
    struct steady__circuit circuit;
    struct steady__log log;
    __typeof__(((redisAsyncContext *)NULL)->ev) theirs; /* the adapter's hooks and their data */
};

struct attached_store {
    steady_store head;
    struct steady__fork_guard fork_guard;
    steady_message last_error;
    struct steady__retry retry; /* over the caller's loop */
    struct steady__inflight inflight;
    void (*log)(void *data, enum steady_log_level level, const char *text);
    void *log_data;
};

static struct attached_store *attached_store_of(steady_store *store) { return (struct attached_store *)store; }

/* ---- The bridge ---- */

static void attached_release(struct bridge *bridge, unsigned holders) {
    bridge->holders -= holders;
    if (bridge->holders > 0) return;
    while (bridge->spare != NULL) {
        struct slot *slot = bridge->spare;
        bridge->spare = slot->next;
        free(slot);
    }
    free(bridge);
}

static void attached_add_read(void *arg) {
    struct bridge *bridge = arg;
    bridge->theirs.addRead(bridge->theirs.data);
}

static void attached_del_read(void *arg) {
    struct bridge *bridge = arg;
    bridge->theirs.delRead(bridge->theirs.data);
}

static void attached_add_write(void *arg) {
    struct bridge *bridge = arg;
    bridge->theirs.addWrite(bridge->theirs.data);
}

static void attached_del_write(void *arg) {
    struct bridge *bridge = arg;
    bridge->theirs.delWrite(bridge->theirs.data);
}

#if HIREDIS_MAJOR >= 1
static void attached_schedule_timer(void *arg, struct timeval tv) {
    struct bridge *bridge = arg;
    bridge->theirs.scheduleTimer(bridge->theirs.data, tv);
}
#endif

static void attached_restore_hooks(struct bridge *bridge) {
    bridge->context->ev = bridge->theirs;
    bridge->context = NULL;
}

/* Leaves the context to its owner: how many holders of the bridge that makes fewer. Someone may have put hooks of his
 * own over ours; he has to go on finding them. */
static unsigned attached_detach(struct bridge *bridge) {
    if (bridge->context == NULL || bridge->context->ev.data != bridge) return 0;
    attached_restore_hooks(bridge);
    return 1;
}

/* The log callback may close the store, so these come last. */
static void attached_log(const struct steady__inflight *inflight, enum steady_log_level level, const char *text) {
    const struct attached_store *store = attached_store_of(inflight->store);
    if (store->log != NULL) store->log(store->log_data, level, text);
}

static void attached_log_lost(struct steady__inflight *inflight, const char *why) {
    steady__fail(inflight->last_error, 0, "%s", why);
    attached_log(inflight, STEADY_LOG_WARNING, why);
}

static void attached_cleanup(void *arg) {
    struct bridge *bridge = arg;
    void (*theirs)(void *) = bridge->theirs.cleanup;
    void *data = bridge->theirs.data;
    attached_restore_hooks(bridge);
    if (theirs != NULL) theirs(data);
    if (bridge->inflight != NULL) attached_log_lost(bridge->inflight, GONE_TEXT);
    attached_release(bridge, 1);
}

/* What the adapter does without, the bridge does without. */
static void attached_install_hooks(struct bridge *bridge, redisAsyncContext *context) {
    bridge->context = context;
    bridge->theirs = context->ev;
    context->ev.data = bridge;
    context->ev.addRead = attached_add_read;
    context->ev.addWrite = attached_add_write;
    context->ev.cleanup = attached_cleanup;
    if (context->ev.delRead != NULL) context->ev.delRead = attached_del_read;
    if (context->ev.delWrite != NULL) context->ev.delWrite = attached_del_write;
#if HIREDIS_MAJOR >= 1
    if (context->ev.scheduleTimer != NULL) context->ev.scheduleTimer = attached_schedule_timer;
#endif
    bridge->holders++;
}

/* ---- The bridge, as a carrier ---- */

static struct slot *attached_take_slot(struct bridge *bridge, struct steady__request *request) {
    struct slot *slot = bridge->spare;
    if (slot != NULL)
        bridge->spare = slot->next;
    else
        slot = calloc(1, sizeof *slot);
    if (slot == NULL) return NULL;
    slot->bridge = bridge;
    slot->request = request;
    slot->decision = request->key != NULL;
    bridge->owed += slot->decision;
    return slot;
}

static void attached_put_slot(struct bridge *bridge, struct slot *slot) {
    bridge->owed -= slot->decision;
    slot->next = bridge->spare;
    bridge->spare = slot;
}

static bool attached_read_integers(const redisReply *reply, struct steady__reply *out) {
    out->count = reply->elements;
    if (out->count > STEADY__REPLY_MAX) return false;
    for (size_t i = 0; i < out->count; i++) {
        if (reply->element[i]->type != REDIS_REPLY_INTEGER) return false;
        out->values[i] = reply->element[i]->integer;
    }
    return true;
}

/* A reply of any other shape becomes integers that no script of ours says: none at all. */
static void attached_read_reply(const redisReply *reply, struct steady__reply *out) {
    *out = (struct steady__reply){.kind = STEADY__REPLY_INTEGERS};
    if (reply->type == REDIS_REPLY_INTEGER) {
        out->count = 1;
        out->values[0] = reply->integer;
    } else if (reply->type == REDIS_REPLY_ARRAY) {
        if (!attached_read_integers(reply, out)) out->count = 0;
    } else if (reply->type == REDIS_REPLY_ERROR || reply->type == REDIS_REPLY_STRING ||
               reply->type == REDIS_REPLY_STATUS) {
        out->kind = reply->type == REDIS_REPLY_ERROR ? STEADY__REPLY_ERROR : STEADY__REPLY_TEXT;
        out->text = reply->str;
        out->text_len = reply->len;
        if (out->kind == STEADY__REPLY_ERROR) out->error_class = steady__error_class_of(out->text, out->text_len);
    }
}

/* The log may do anything, so it is told when all else is done; the request, too, has ended by then, or gone on. */
static void attached_deliver_reply(struct bridge *bridge, struct steady__request *request, const redisReply *reply) {
    struct steady__reply read;
    char why[200] = "";
    const struct steady__secrets secrets = {NULL, request->key, request->key_len, request->prefix_len};
    enum steady__circuit_event news = STEADY__CIRCUIT_NOTHING;
    attached_read_reply(reply, &read);
    if (request->key != NULL) news = steady__circuit_reply(&bridge->circuit, &read, &bridge->inflight->loop);
    if (steady__log_needs_reason(&bridge->log, &bridge->inflight->loop, news))
        steady__redact(why, sizeof why, read.text, read.text_len, &secrets);
    const enum steady__reply_action action =
        steady__inflight_owner.answered(bridge->inflight, request, &bridge->engines, &read);
    /* To find the primary is for whoever owns the connection. */
    if (action == STEADY__REPLY_NOT_PRIMARY)
        steady__inflight_owner.unanswered(bridge->inflight, request, false, STEADY_UNAVAILABLE);
    if (action == STEADY__REPLY_UNTRUSTED) {
        bridge->distrusted = true;
        if (request->key != NULL)
            steady__inflight_owner.unanswered(bridge->inflight, request, true, STEADY_UNAVAILABLE);
    }
    if (bridge->inflight == NULL) return; /* closed by the callback */
    if (action == STEADY__REPLY_UNTRUSTED)
        attached_log_lost(bridge->inflight, NO_ANSWER_TEXT);
    else if (action == STEADY__REPLY_ACCEPTED)
        steady__log_reply(&bridge->log, &bridge->inflight->loop, news, why);
}

/* reply is NULL when the context goes away. A command of one that never connected was not sent. */
static void attached_replied(redisAsyncContext *context, void *reply, void *privdata) {
    struct slot *slot = privdata;
    struct bridge *bridge = slot->bridge;
    struct steady__request *request = slot->request;
    const bool sent = reply != NULL || (context->c.flags & REDIS_CONNECTED) != 0;
    attached_put_slot(bridge, slot);
    if (request != NULL && bridge->inflight != NULL) {
        if (reply != NULL && !bridge->distrusted)
            attached_deliver_reply(bridge, request, reply);
        else
            steady__inflight_owner.unanswered(bridge->inflight, request, sent, STEADY_UNAVAILABLE);
    }
    attached_release(bridge, 1 + (bridge->distrusted ? attached_detach(bridge) : 0));
}

/* hiredis keeps what a silent server does not take, so there has to be an end to it. The few requests that are no
 * decisions are only sent upon a reply. */
static bool attached_owes_too_much(const struct bridge *bridge) {
    if (bridge->owed < bridge->inflight->max_in_flight) return false;
    steady__fail(bridge->inflight->last_error, 0, "the server still owes %lu replies", (unsigned long)bridge->owed);
    return true;
}

static bool attached_accepts(struct bridge *bridge, const struct steady__request *request) {
    if (bridge->context == NULL || bridge->distrusted) {
        steady__fail(bridge->inflight->last_error, 0, "%s", bridge->distrusted ? NO_ANSWER_TEXT : GONE_TEXT);
        return false;
    }
    if (request->key == NULL) return true;
    return !attached_owes_too_much(bridge) && !steady__circuit_holds(&bridge->circuit, &bridge->inflight->loop);
}

static int attached_transport_submit(void *transport, struct steady__request *request) {
    struct bridge *bridge = transport;
    char command[STEADY__REQUEST_MAX];
    if (!attached_accepts(bridge, request)) return STEADY_UNAVAILABLE;
    struct slot *slot = attached_take_slot(bridge, request);
    if (slot == NULL) return STEADY_NO_MEMORY;
    const size_t len = steady__inflight_owner.encode(bridge->inflight, request, &bridge->engines, command);
    if (len == 0 || redisAsyncFormattedCommand(bridge->context, attached_replied, slot, command, len) != REDIS_OK) {
        attached_put_slot(bridge, slot);
        return steady__fail(bridge->inflight->last_error, STEADY_UNAVAILABLE, "the hiredis context accepts no command");
    }
    request->at = slot;
    bridge->holders++;
    return 0;
}

static int attached_transport_forget(void *transport, struct steady__request *request, bool held) {
    (void)transport;
    (void)held;
    ((struct slot *)request->at)->request = NULL;
    return STEADY_UNKNOWN;
}

static void attached_transport_close(void *transport) {
    struct bridge *bridge = transport;
    const unsigned let_go = attached_detach(bridge);
    bridge->inflight = NULL;
    attached_release(bridge, let_go + 1);
}

static const struct steady__transport bridge_class = {
    attached_transport_submit, attached_transport_forget, NULL, attached_transport_close, NULL, NULL};

/* ---- The class ---- */

static int attached_submit(steady_store *head, const struct steady__call *call) {
    struct attached_store *store = attached_store_of(head);
    if (steady__forked(&store->fork_guard))
        return steady__turn_away(&store->inflight.stats, &store->last_error, call, STEADY_UNAVAILABLE,
                                 STEADY__FORKED_TEXT);
    return steady__inflight_submit(&store->inflight, call, NULL);
}

static void attached_decide(steady_store *head, const struct steady__call *call, steady_result *result) {
    struct attached_store *store = attached_store_of(head);
    result->error = steady__turn_away(&store->inflight.stats, &store->last_error, call, STEADY_UNSUPPORTED,
                                      "a store on a hiredis context has no ..._sync calls");
}

static void attached_stats(const steady_store *head, steady_stats *out) {
    *out = ((const struct attached_store *)head)->inflight.stats;
}

static const char *attached_last_error(const steady_store *head) {
    return ((const struct attached_store *)head)->last_error.text;
}

static void attached_close_store(steady_store *head) { steady__inflight_close(&attached_store_of(head)->inflight); }

/* In a child the loop may still hold the flight's timer, which looks at the fork_guard: all of it stays. */
static void attached_free_store(steady_store *head) {
    struct attached_store *store = attached_store_of(head);
    if (steady__forked(&store->fork_guard)) return;
    steady__inflight_free(&store->inflight);
    steady__fork_guard_clear(&store->fork_guard);
    free(store);
}

static const struct steady__store_class attached_class = {
    .name = "attached",
    .prepare = steady__command_encode_limit,
    .submit = attached_submit,
    .decide = attached_decide,
    .stats = attached_stats,
    .last_error = attached_last_error,
    .close = attached_close_store,
    .free = attached_free_store,
};

/* ---- Opening ---- */

static int attached_check_context(const redisAsyncContext *context, const steady_store_options *options,
                                  steady_message *why) {
    if (context == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "context is NULL");
    if (options->loop == NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "loop is NULL; it must be the one the context is attached to");
    if (options->tls != NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "TLS options are set; set TLS in the hiredis context instead");
    if (context->ev.addRead == NULL || context->ev.addWrite == NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "the context is not attached to an event loop yet");
    if (context->err != 0) {
        char shown[160];
        steady__redact_known(shown, sizeof shown, context->errstr, &(struct steady__secrets){0});
        return steady__fail(why, STEADY_BAD_ARGUMENT, "the context has failed: %s", shown);
    }
    if ((context->c.flags & (REDIS_SUBSCRIBED | REDIS_MONITORING)) != 0)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "the context is subscribed or monitoring");
    return 0;
}

static struct attached_store *attached_new_store(const steady_store_options *options) {
    struct attached_store *store = calloc(1, sizeof *store);
    if (store == NULL) return NULL;
    steady__store_init(&store->head, &attached_class, options);
    steady__fork_guard_set(&store->fork_guard, true);
    store->log = options->log;
    store->log_data = options->log_data;
    store->inflight.store = &store->head;
    store->inflight.loop = steady__retry_loop(&store->retry, options->loop, &store->fork_guard);
    store->inflight.retry = &store->retry;
    store->inflight.timeout = options->timeout != 0 ? options->timeout : TIMEOUT;
    store->inflight.max_in_flight = options->max_in_flight != 0 ? options->max_in_flight : MAX_IN_FLIGHT;
    store->inflight.last_error = &store->last_error;
    store->inflight.fork_guard = &store->fork_guard;
    store->inflight.engine = options->engine;
    store->inflight.transport_class = &bridge_class;
    return store;
}

int steady_store_attach(steady_store **store, struct redisAsyncContext *context, const steady_store_options *options,
                        steady_message *why) {
    static const steady_store_options defaults;
    struct attached_store *s = NULL;
    struct bridge *bridge = NULL;
    if (store == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "store is NULL");
    *store = NULL;
    if (options == NULL) options = &defaults;
    int error = steady__options_check(options, why);
    if (error == 0) error = attached_check_context(context, options, why);
    if (error != 0) return error;

    bridge = calloc(1, sizeof *bridge);
    s = attached_new_store(options);
    if (bridge == NULL || s == NULL || steady__inflight_init(&s->inflight) != 0) goto no_memory;
    bridge->holders = 1;
    bridge->inflight = &s->inflight;
    bridge->circuit.net = &steady__net_system;
    bridge->log.log = options->log;
    bridge->log.log_data = options->log_data;
    s->inflight.transport = bridge;
    attached_install_hooks(bridge, context);
    *store = &s->head;
    return 0;

no_memory:
    if (s != NULL) attached_free_store(&s->head);
    free(bridge);
    return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
}
