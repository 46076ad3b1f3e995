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

#include "circuit.h"
#include "error.h"
#include "flight.h"
#include "net.h"
#include "notice.h"
#include "redact.h"
#include "script.h"

#define TIMEOUT (100 * STEADY_MILLISECOND)
#define MAX_IN_FLIGHT 65536
#define GONE_TEXT "the hiredis context was disconnected or freed"
#define NO_ANSWER_TEXT "the server answers with what is no answer"

struct bridge;

struct slot {
    struct bridge *bridge;
    struct steady__request *request; /* NULL: nobody waits for it any more */
    bool decision;
    struct slot *next; /* spare */
};

struct bridge {
    redisAsyncContext *context;    /* NULL: gone */
    struct steady__flight *flight; /* NULL: closed */
    unsigned holders;
    bool distrusted; /* a reply was none of ours, so nobody knows whose the others are */
    uint32_t owed;   /* replies to decisions that are still to come, those given up included */
    struct slot *spare;
    struct steady__dialect dialect;
    struct steady__circuit circuit;
    struct steady__notice notice;
    __typeof__(((redisAsyncContext *)NULL)->ev) theirs; /* the adapter's hooks and their data */
};

struct attached_store {
    steady_store head;
    struct steady__birthmark birthmark;
    steady_message trouble;
    struct steady__retry retry; /* over the caller's loop */
    struct steady__flight flight;
    void (*log)(void *data, enum steady_log_level level, const char *text);
    void *log_data;
};

static struct attached_store *attached(steady_store *store) { return (struct attached_store *)store; }

/* ---- The bridge ---- */

static void release(struct bridge *bridge, unsigned holders) {
    bridge->holders -= holders;
    if (bridge->holders > 0) return;
    while (bridge->spare != NULL) {
        struct slot *slot = bridge->spare;
        bridge->spare = slot->next;
        free(slot);
    }
    free(bridge);
}

static void add_read(void *arg) {
    struct bridge *bridge = arg;
    bridge->theirs.addRead(bridge->theirs.data);
}

static void del_read(void *arg) {
    struct bridge *bridge = arg;
    bridge->theirs.delRead(bridge->theirs.data);
}

static void add_write(void *arg) {
    struct bridge *bridge = arg;
    bridge->theirs.addWrite(bridge->theirs.data);
}

static void del_write(void *arg) {
    struct bridge *bridge = arg;
    bridge->theirs.delWrite(bridge->theirs.data);
}

#if HIREDIS_MAJOR >= 1
static void schedule_timer(void *arg, struct timeval tv) {
    struct bridge *bridge = arg;
    bridge->theirs.scheduleTimer(bridge->theirs.data, tv);
}
#endif

static void give_back(struct bridge *bridge) {
    bridge->context->ev = bridge->theirs;
    bridge->context = NULL;
}

/* Leaves the context to its owner: how many holders of the bridge that makes fewer. Someone may have put hooks of his
 * own over ours; he has to go on finding them. */
static unsigned part(struct bridge *bridge) {
    if (bridge->context == NULL || bridge->context->ev.data != bridge) return 0;
    give_back(bridge);
    return 1;
}

/* The log callback may close the store, so these come last. */
static void tell(const struct steady__flight *flight, enum steady_log_level level, const char *text) {
    const struct attached_store *store = attached(flight->store);
    if (store->log != NULL) store->log(store->log_data, level, text);
}

static void tell_lost(struct steady__flight *flight, const char *why) {
    steady__fail(flight->trouble, 0, "%s", why);
    tell(flight, STEADY_LOG_WARNING, why);
}

static void cleanup(void *arg) {
    struct bridge *bridge = arg;
    void (*theirs)(void *) = bridge->theirs.cleanup;
    void *data = bridge->theirs.data;
    give_back(bridge);
    if (theirs != NULL) theirs(data);
    if (bridge->flight != NULL) tell_lost(bridge->flight, GONE_TEXT);
    release(bridge, 1);
}

/* What the adapter does without, the bridge does without. */
static void take_over(struct bridge *bridge, redisAsyncContext *context) {
    bridge->context = context;
    bridge->theirs = context->ev;
    context->ev.data = bridge;
    context->ev.addRead = add_read;
    context->ev.addWrite = add_write;
    context->ev.cleanup = cleanup;
    if (context->ev.delRead != NULL) context->ev.delRead = del_read;
    if (context->ev.delWrite != NULL) context->ev.delWrite = del_write;
#if HIREDIS_MAJOR >= 1
    if (context->ev.scheduleTimer != NULL) context->ev.scheduleTimer = schedule_timer;
#endif
    bridge->holders++;
}

/* ---- The bridge, as a carrier ---- */

static struct slot *take_slot(struct bridge *bridge, struct steady__request *request) {
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

static void put_slot(struct bridge *bridge, struct slot *slot) {
    bridge->owed -= slot->decision;
    slot->next = bridge->spare;
    bridge->spare = slot;
}

static bool read_integers(const redisReply *reply, struct steady__reply *out) {
    out->count = reply->elements;
    if (out->count > STEADY__REPLY_MAX) return false;
    for (size_t i = 0; i < out->count; i++) {
        if (reply->element[i]->type != REDIS_REPLY_INTEGER) return false;
        out->values[i] = reply->element[i]->integer;
    }
    return true;
}

/* A reply of any other shape becomes integers that no script of ours says: none at all. */
static void read_reply(const redisReply *reply, struct steady__reply *out) {
    *out = (struct steady__reply){.kind = STEADY__REPLY_INTEGERS};
    if (reply->type == REDIS_REPLY_INTEGER) {
        out->count = 1;
        out->values[0] = reply->integer;
    } else if (reply->type == REDIS_REPLY_ARRAY) {
        if (!read_integers(reply, out)) out->count = 0;
    } else if (reply->type == REDIS_REPLY_ERROR || reply->type == REDIS_REPLY_STRING ||
               reply->type == REDIS_REPLY_STATUS) {
        out->kind = reply->type == REDIS_REPLY_ERROR ? STEADY__REPLY_ERROR : STEADY__REPLY_TEXT;
        out->text = reply->str;
        out->text_len = reply->len;
    }
}

/* The log may do anything, so it is told when all else is done; the request, too, has ended by then, or gone on. */
static void hand_over(struct bridge *bridge, struct steady__request *request, const redisReply *reply) {
    struct steady__reply read;
    char why[200] = "";
    const struct steady__secrets secrets = {NULL, request->key, request->key_len, request->prefix_len};
    enum steady__circuit_news news = STEADY__CIRCUIT_NOTHING;
    read_reply(reply, &read);
    if (request->key != NULL) news = steady__circuit_heard(&bridge->circuit, &read, &bridge->flight->loop);
    if (steady__notice_wants_reason(&bridge->notice, &bridge->flight->loop, news))
        steady__redact(why, sizeof why, read.text, read.text_len, &secrets);
    const enum steady__heed heed = steady__flight_owner.answered(bridge->flight, request, &bridge->dialect, &read);
    /* To find the primary is for whoever owns the connection. */
    if (heed == STEADY__HEED_NOT_PRIMARY)
        steady__flight_owner.unanswered(bridge->flight, request, false, STEADY_UNAVAILABLE);
    if (heed == STEADY__HEED_UNTRUSTED) {
        bridge->distrusted = true;
        if (request->key != NULL) steady__flight_owner.unanswered(bridge->flight, request, true, STEADY_UNAVAILABLE);
    }
    if (bridge->flight == NULL) return; /* closed by the callback */
    if (heed == STEADY__HEED_UNTRUSTED)
        tell_lost(bridge->flight, NO_ANSWER_TEXT);
    else if (heed == STEADY__HEED_NOTHING)
        steady__notice_heard(&bridge->notice, &bridge->flight->loop, news, why);
}

/* reply is NULL when the context goes away. A command of one that never connected was not sent. */
static void replied(redisAsyncContext *context, void *reply, void *privdata) {
    struct slot *slot = privdata;
    struct bridge *bridge = slot->bridge;
    struct steady__request *request = slot->request;
    const bool sent = reply != NULL || (context->c.flags & REDIS_CONNECTED) != 0;
    put_slot(bridge, slot);
    if (request != NULL && bridge->flight != NULL) {
        if (reply != NULL && !bridge->distrusted)
            hand_over(bridge, request, reply);
        else
            steady__flight_owner.unanswered(bridge->flight, request, sent, STEADY_UNAVAILABLE);
    }
    release(bridge, 1 + (bridge->distrusted ? part(bridge) : 0));
}

/* hiredis keeps what a silent server does not take, so there has to be an end to it. The few requests that are no
 * decisions are only sent upon a reply. */
static bool owes_too_much(const struct bridge *bridge) {
    if (bridge->owed < bridge->flight->max_in_flight) return false;
    steady__fail(bridge->flight->trouble, 0, "the server still owes %lu answers", (unsigned long)bridge->owed);
    return true;
}

static bool takes(struct bridge *bridge, const struct steady__request *request) {
    if (bridge->context == NULL || bridge->distrusted) {
        steady__fail(bridge->flight->trouble, 0, "%s", bridge->distrusted ? NO_ANSWER_TEXT : GONE_TEXT);
        return false;
    }
    if (request->key == NULL) return true;
    return !owes_too_much(bridge) && !steady__circuit_holds(&bridge->circuit, &bridge->flight->loop);
}

static int submit(void *carrier, struct steady__request *request) {
    struct bridge *bridge = carrier;
    char command[STEADY__REQUEST_MAX];
    if (!takes(bridge, request)) return STEADY_UNAVAILABLE;
    struct slot *slot = take_slot(bridge, request);
    if (slot == NULL) return STEADY_NO_MEMORY;
    const size_t len = steady__flight_owner.encode(bridge->flight, request, &bridge->dialect, command);
    if (len == 0 || redisAsyncFormattedCommand(bridge->context, replied, slot, command, len) != REDIS_OK) {
        put_slot(bridge, slot);
        return steady__fail(bridge->flight->trouble, STEADY_UNAVAILABLE, "the hiredis context takes no command");
    }
    request->at = slot;
    bridge->holders++;
    return 0;
}

static int forget(void *carrier, struct steady__request *request, bool held) {
    (void)carrier;
    (void)held;
    ((struct slot *)request->at)->request = NULL;
    return STEADY_UNKNOWN;
}

static void close_bridge(void *carrier) {
    struct bridge *bridge = carrier;
    const unsigned let_go = part(bridge);
    bridge->flight = NULL;
    release(bridge, let_go + 1);
}

static const struct steady__carrier bridge_class = {submit, forget, NULL, close_bridge, NULL, NULL};

/* ---- The class ---- */

static int submit_call(steady_store *head, const struct steady__call *call) {
    struct attached_store *store = attached(head);
    if (steady__forked(&store->birthmark))
        return steady__turn_away(&store->flight.stats, &store->trouble, call, STEADY_UNAVAILABLE, STEADY__FORKED_TEXT);
    return steady__flight_submit(&store->flight, call, NULL);
}

static void decide(steady_store *head, const struct steady__call *call, steady_result *result) {
    struct attached_store *store = attached(head);
    result->error = steady__turn_away(&store->flight.stats, &store->trouble, call, STEADY_UNSUPPORTED,
                                      "a store on a hiredis context has no ..._sync calls");
}

static void stats(const steady_store *head, steady_stats *out) {
    *out = ((const struct attached_store *)head)->flight.stats;
}

static const char *trouble(const steady_store *head) { return ((const struct attached_store *)head)->trouble.text; }

static void close_store(steady_store *head) { steady__flight_close(&attached(head)->flight); }

/* In a child the loop may still hold the flight's timer, which looks at the birthmark: all of it stays. */
static void free_store(steady_store *head) {
    struct attached_store *store = attached(head);
    if (steady__forked(&store->birthmark)) return;
    steady__flight_free(&store->flight);
    steady__birthmark_clear(&store->birthmark);
    free(store);
}

static const struct steady__store_class attached_class = {
    .name = "attached",
    .prepare = steady__script_terms,
    .submit = submit_call,
    .decide = decide,
    .stats = stats,
    .trouble = trouble,
    .close = close_store,
    .free = free_store,
};

/* ---- Opening ---- */

static int check_context(const redisAsyncContext *context, const steady_store_options *options, steady_message *why) {
    if (context == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "context is NULL");
    if (options->loop == NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "loop is NULL; it must be the one the context is attached to");
    if (options->tls != NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "there are TLS options; the context has its own");
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

static struct attached_store *new_store(const steady_store_options *options) {
    struct attached_store *store = calloc(1, sizeof *store);
    if (store == NULL) return NULL;
    steady__store_init(&store->head, &attached_class, options);
    steady__birthmark_set(&store->birthmark, true);
    store->log = options->log;
    store->log_data = options->log_data;
    store->flight.store = &store->head;
    store->flight.loop = steady__retry_loop(&store->retry, options->loop, &store->birthmark);
    store->flight.retry = &store->retry;
    store->flight.timeout = options->timeout != 0 ? options->timeout : TIMEOUT;
    store->flight.max_in_flight = options->max_in_flight != 0 ? options->max_in_flight : MAX_IN_FLIGHT;
    store->flight.trouble = &store->trouble;
    store->flight.birthmark = &store->birthmark;
    store->flight.engine = options->engine;
    store->flight.carrier_class = &bridge_class;
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
    if (error == 0) error = check_context(context, options, why);
    if (error != 0) return error;

    bridge = calloc(1, sizeof *bridge);
    s = new_store(options);
    if (bridge == NULL || s == NULL || steady__flight_init(&s->flight) != 0) goto no_memory;
    bridge->holders = 1;
    bridge->flight = &s->flight;
    bridge->circuit.net = &steady__net_system;
    bridge->notice.log = options->log;
    bridge->notice.log_data = options->log_data;
    s->flight.carrier = bridge;
    take_over(bridge, context);
    *store = &s->head;
    return 0;

no_memory:
    if (s != NULL) free_store(&s->head);
    free(bridge);
    return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
}
