/* SPDX-License-Identifier: MIT
 * A Redis store on a client of the caller: see <steady/client.h>.
 *
 * The transport is freed when it has no holder left. Its holders are the store and each request that the client has. A
 * decision may end before its reply, at its deadline or when the store is closed. Then its request stays with the
 * client, and `pending` is NULL. */
#include "steady/client.h"

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
#define UNTRUSTED_TEXT "the server sent an unexpected reply"

struct client_transport;

struct steady_client_request {
    struct client_transport *transport;
    struct steady__request *pending; /* NULL: its decision has ended */
    bool decision;
    struct steady_client_request *next; /* while spare */
};

struct client_transport {
    const steady_client_ops *ops;
    void *client;
    struct steady__inflight *inflight; /* NULL: the store is closed */
    unsigned holders;
    bool gone;       /* the client said so; gone_why has the reason */
    bool distrusted; /* a reply fitted no command, so the others may belong to other requests */
    bool detached;
    uint32_t owed; /* decisions that the client has, with those that have ended */
    struct steady_client_request *spare;
    struct steady__engines engines;
    struct steady__circuit circuit;
    struct steady__log log;
    steady_message gone_why;
};

struct client_store {
    steady_store head;
    struct steady__fork_guard fork_guard;
    struct steady__last_error last_error;
    struct steady__counters counters;
    atomic_int state;           /* enum steady_state */
    struct steady__retry retry; /* over the loop of the caller */
    struct steady__inflight inflight;
    struct client_transport *transport; /* NULL: closed */
    const char *client_name;
    void (*log)(void *data, enum steady_log_level level, const char *text);
    void *log_data;
};

static struct client_store *client_store_of(steady_store *store) { return (struct client_store *)store; }

/* ---- The transport and its requests ---- */

static void client_release(struct client_transport *transport) {
    if (--transport->holders > 0) return;
    while (transport->spare != NULL) {
        steady_client_request *request = transport->spare;
        transport->spare = request->next;
        free(request);
    }
    free(transport);
}

static void client_detach(struct client_transport *transport) {
    if (transport->detached) return;
    transport->detached = true;
    transport->ops->detach(transport->client);
}

static steady_client_request *client_request_take(struct client_transport *transport, struct steady__request *pending) {
    steady_client_request *request = transport->spare;
    if (request != NULL)
        transport->spare = request->next;
    else
        request = calloc(1, sizeof *request);
    if (request == NULL) return NULL;
    request->transport = transport;
    request->pending = pending;
    request->decision = pending->key != NULL;
    transport->owed += request->decision;
    return request;
}

static void client_request_put(steady_client_request *request) {
    struct client_transport *transport = request->transport;
    transport->owed -= request->decision;
    request->next = transport->spare;
    transport->spare = request;
}

/* ---- Sending ---- */

/* A client keeps what a silent server does not take, so there is a limit. Requests that are no decisions are sent only
 * after a reply. */
static bool client_owes_too_much(const struct client_transport *transport) {
    if (transport->owed < transport->inflight->max_in_flight) return false;
    steady__note_error(transport->inflight->last_error, 0, "the server still owes %lu replies",
                       (unsigned long)transport->owed);
    return true;
}

static bool client_accepts(struct client_transport *transport, const struct steady__request *pending) {
    if (transport->gone || transport->distrusted) {
        steady__note_error(transport->inflight->last_error, 0, "%s",
                           transport->gone ? transport->gone_why.text : UNTRUSTED_TEXT);
        return false;
    }
    if (pending->key == NULL) return true;
    return !client_owes_too_much(transport) && !steady__circuit_holds(&transport->circuit, &transport->inflight->loop);
}

/* room: for the command. */
static int client_send(struct client_transport *transport, struct steady__request *pending, char *room) {
    struct steady__inflight *inflight = transport->inflight;
    steady_message why = {.text = ""};
    int error = STEADY_UNAVAILABLE;
    steady_client_request *request = client_request_take(transport, pending);
    if (request == NULL) return STEADY_NO_MEMORY;
    const size_t len = steady__inflight_owner.encode(inflight, pending, &transport->engines, room);
    if (len > 0) error = transport->ops->send(transport->client, room, len, request, &why);
    if (error != 0) {
        client_request_put(request);
        return steady__note_error(inflight->last_error, error == STEADY_NO_MEMORY ? error : STEADY_UNAVAILABLE, "%s",
                                  why.text);
    }
    pending->at = request;
    transport->holders++;
    return 0;
}

static int client_transport_submit(void *transport_, struct steady__request *pending) {
    struct client_transport *transport = transport_;
    char room[STEADY__REQUEST_MAX], *longer = NULL;
    if (!client_accepts(transport, pending)) return STEADY_UNAVAILABLE;
    if (pending->extra > 0 && (longer = malloc(STEADY__REQUEST_MAX + pending->extra)) == NULL) return STEADY_NO_MEMORY;
    const int error = client_send(transport, pending, longer != NULL ? longer : room);
    free(longer);
    return error;
}

static int client_transport_forget(void *transport, struct steady__request *pending, bool held) {
    (void)transport;
    (void)held;
    ((steady_client_request *)pending->at)->pending = NULL;
    return STEADY_UNKNOWN;
}

static void client_transport_close(void *transport_) {
    struct client_transport *transport = transport_;
    transport->inflight = NULL;
    client_detach(transport);
    client_release(transport);
}

static const struct steady__transport client_transport_class = {
    .submit = client_transport_submit, .forget = client_transport_forget, .close = client_transport_close};

/* ---- Replies ---- */

static void client_set_state(const struct steady__inflight *inflight, enum steady_state state) {
    atomic_store_explicit(&client_store_of(inflight->store)->state, (int)state, memory_order_relaxed);
}

static void client_log_lost(struct steady__inflight *inflight, const char *why) {
    client_set_state(inflight, STEADY_DOWN);
    const struct client_store *store = client_store_of(inflight->store);
    steady__note_error(inflight->last_error, 0, "%s", why);
    if (store->log != NULL) store->log(store->log_data, STEADY_LOG_WARNING, why);
}

/* The log may close the store, so it is told last. By then the decision has ended, or was sent again. */
static void client_deliver(struct client_transport *transport, struct steady__request *pending,
                           const struct steady__reply *reply) {
    struct steady__inflight *inflight = transport->inflight;
    char why[200] = "";
    const struct steady__secrets secrets = steady__request_secrets(pending, NULL);
    enum steady__circuit_event news = STEADY__CIRCUIT_NOTHING;
    if (pending->key != NULL) news = steady__circuit_reply(&transport->circuit, reply, &inflight->loop);
    client_set_state(inflight, transport->gone || transport->circuit.open ? STEADY_DOWN : STEADY_READY);
    if (steady__log_needs_reason(&transport->log, &inflight->loop, news))
        steady__redact(why, sizeof why, reply->text, reply->text_len, &secrets);
    const enum steady__reply_action action =
        steady__inflight_owner.answered(inflight, pending, &transport->engines, reply);
    /* The owner of the connection has to find the primary. */
    if (action == STEADY__REPLY_NOT_PRIMARY)
        steady__inflight_owner.unanswered(inflight, pending, false, STEADY_UNAVAILABLE);
    if (action == STEADY__REPLY_UNTRUSTED) {
        transport->distrusted = true;
        if (pending->key != NULL) steady__inflight_owner.unanswered(inflight, pending, true, STEADY_UNAVAILABLE);
    }
    if (transport->inflight == NULL) return; /* a callback closed the store */
    if (action == STEADY__REPLY_UNTRUSTED)
        client_log_lost(transport->inflight, UNTRUSTED_TEXT);
    else if (action == STEADY__REPLY_ACCEPTED)
        steady__log_reply(&transport->log, &transport->inflight->loop, news, why);
}

/* reply: NULL if there is none. */
static void client_take_back(steady_client_request *request, const struct steady__reply *reply, bool sent) {
    struct client_transport *transport = request->transport;
    struct steady__request *pending = request->pending;
    client_request_put(request);
    if (pending != NULL && transport->inflight != NULL) {
        if (reply != NULL && !transport->distrusted)
            client_deliver(transport, pending, reply);
        else
            steady__inflight_owner.unanswered(transport->inflight, pending, sent, STEADY_UNAVAILABLE);
    }
    if (transport->distrusted) client_detach(transport);
    client_release(transport);
}

/* All but the values, of which there are many. */
static void client_reply_init(struct steady__reply *reply, enum steady__reply_kind kind, const char *text, size_t len) {
    reply->kind = kind;
    reply->error_class = STEADY__ERROR_CLASS_NONE;
    reply->count = 0;
    reply->text = text;
    reply->text_len = len;
}

/* No script and no command of the module answers with 0 integers. */
void steady_client_reply_integers(steady_client_request *request, const int64_t *values, size_t count) {
    struct steady__reply reply;
    client_reply_init(&reply, STEADY__REPLY_INTEGERS, NULL, 0);
    if (count <= STEADY__REPLY_MAX) reply.count = count;
    for (size_t i = 0; i < reply.count; i++)
        reply.values[i] = values[i];
    client_take_back(request, &reply, true);
}

void steady_client_reply_text(steady_client_request *request, const char *text, size_t len) {
    struct steady__reply reply;
    client_reply_init(&reply, STEADY__REPLY_TEXT, text, len);
    client_take_back(request, &reply, true);
}

void steady_client_reply_error(steady_client_request *request, const char *text, size_t len) {
    struct steady__reply reply;
    client_reply_init(&reply, STEADY__REPLY_ERROR, text, len);
    reply.error_class = steady__error_class_of(text, len);
    client_take_back(request, &reply, true);
}

void steady_client_lost(steady_client_request *request, bool sent) { client_take_back(request, NULL, sent); }

void steady_client_gone(steady_store *store, const char *why) {
    struct client_store *s = client_store_of(store);
    if (s->inflight.closed) return;
    s->transport->gone = true;
    steady__fail(&s->transport->gone_why, 0, "%s", why);
    client_log_lost(&s->inflight, why);
}

/* ---- The class ---- */

static int client_submit(steady_store *head, const struct steady__call *call, uint64_t *id) {
    struct client_store *store = client_store_of(head);
    if (steady__forked(&store->fork_guard))
        return steady__reject(&store->counters, &store->last_error, call, STEADY_UNAVAILABLE, STEADY__FORKED_TEXT);
    return steady__inflight_submit(&store->inflight, call, NULL, id);
}

static bool client_cancel(steady_store *head, uint64_t id) {
    return steady__inflight_cancel(&client_store_of(head)->inflight, id);
}

static bool client_expire(steady_store *head, uint64_t id) {
    return steady__inflight_expire(&client_store_of(head)->inflight, id);
}

static void client_decide(steady_store *head, const struct steady__call *call, steady_result *result) {
    struct client_store *store = client_store_of(head);
    steady_message why;
    steady__fail(&why, 0, "a store on %s has no ..._sync calls", store->client_name);
    result->error = steady__reject(&store->counters, &store->last_error, call, STEADY_UNSUPPORTED, why.text);
}

static void client_stats(const steady_store *head, steady_stats *stats) {
    steady__counters_read(&((const struct client_store *)head)->counters, stats);
}

static void client_last_error(const steady_store *head, steady_message *message) {
    steady__last_error_get(&((const struct client_store *)head)->last_error, message);
}

static enum steady_state client_state(const steady_store *head) {
    const struct client_store *store = (const struct client_store *)head;
    if (steady__forked(&store->fork_guard)) return STEADY_DOWN;
    return (enum steady_state)atomic_load_explicit(&store->state, memory_order_relaxed);
}

static void client_close(steady_store *head) { steady__inflight_close(&client_store_of(head)->inflight); }

/* In a forked child the loop may still hold the timer, which looks at fork_guard. So the child frees nothing. */
static void client_free(steady_store *head) {
    struct client_store *store = client_store_of(head);
    if (steady__forked(&store->fork_guard)) return;
    steady__inflight_free(&store->inflight);
    steady__fork_guard_clear(&store->fork_guard);
    free(store);
}

static const struct steady__store_class client_class = {
    .name = "client",
    .prepare = steady__command_encode_limit,
    .submit = client_submit,
    .cancel = client_cancel,
    .expire = client_expire,
    .decide = client_decide,
    .stats = client_stats,
    .last_error = client_last_error,
    .state = client_state,
    .close = client_close,
    .free = client_free,
};

/* ---- Opening ---- */

static int client_check(const steady_client_ops *ops, const steady_store_options *options, steady_message *why) {
    if (ops == NULL || ops->name == NULL || ops->send == NULL || ops->detach == NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "ops is NULL, or one of name, send and detach is");
    for (size_t i = 0; i < sizeof ops->reserved / sizeof *ops->reserved; i++)
        if (ops->reserved[i] != NULL)
            return steady__fail(why, STEADY_BAD_ARGUMENT, "reserved fields of steady_client_ops must be zero");
    if (options->loop == NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "loop is NULL; set it to the loop of %s", ops->name);
    if (options->tls != NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "TLS options are set; set TLS in %s instead", ops->name);
    if (options->clock != NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT,
                            "clock is set, but the server of %s uses a clock of its own; only memory: takes one",
                            ops->name);
    if (options->lease_age > 0)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "lease_age is set; only stores of a URL have leases");
    if (options->deny_memory > 0)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "deny_memory is set; only stores of a URL have a memory");
    return 0;
}

static struct client_store *client_new(const steady_client_ops *ops, const steady_store_options *options) {
    struct client_store *store = calloc(1, sizeof *store);
    if (store == NULL) return NULL;
    steady__store_init(&store->head, &client_class, options);
    steady__fork_guard_set(&store->fork_guard, true);
    store->client_name = ops->name;
    store->log = options->log;
    store->log_data = options->log_data;
    store->inflight.store = &store->head;
    store->inflight.loop = steady__retry_loop(&store->retry, options->loop, &store->fork_guard);
    store->inflight.retry = &store->retry;
    store->inflight.timeout = options->timeout != 0 ? options->timeout : TIMEOUT;
    store->inflight.max_in_flight = options->max_in_flight != 0 ? options->max_in_flight : MAX_IN_FLIGHT;
    store->inflight.last_error = &store->last_error;
    store->inflight.counters = &store->counters;
    store->inflight.fork_guard = &store->fork_guard;
    store->inflight.engine = options->engine;
    store->inflight.transport_class = &client_transport_class;
    return store;
}

int steady_store_open_client(steady_store **store, const steady_client_ops *ops, void *client,
                             const steady_store_options *options, steady_message *why) {
    static const steady_store_options defaults;
    struct client_store *s = NULL;
    struct client_transport *transport = NULL;
    if (store == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "store is NULL");
    *store = NULL;
    if (options == NULL) options = &defaults;
    int error = steady__options_check(options, why);
    if (error == 0) error = client_check(ops, options, why);
    if (error != 0) return error;

    transport = calloc(1, sizeof *transport);
    s = client_new(ops, options);
    if (transport == NULL || s == NULL || steady__inflight_init(&s->inflight) != 0) goto no_memory;
    transport->ops = ops;
    transport->client = client;
    transport->holders = 1;
    transport->inflight = &s->inflight;
    transport->circuit.net = &steady__net_system;
    transport->log.log = options->log;
    transport->log.log_data = options->log_data;
    s->inflight.transport = s->transport = transport;
    *store = &s->head;
    return 0;

no_memory:
    if (s != NULL) client_free(&s->head);
    free(transport);
    return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
}
