/* SPDX-License-Identifier: MIT
 * libsteady-hiredis: a store on a hiredis context of the caller. It uses the public headers of Steady only.
 *
 * The caller may disconnect or free the context at any time the loop runs. If no reply is owed, hiredis then calls
 * only the `cleanup` hook of the event adapter. So the bridge takes the place of the adapter: it keeps the hooks of the
 * adapter and their data, passes each call on, and learns of the end from `cleanup`.
 *
 * The bridge is freed when it has neither a store nor a context. A reply needs no bridge: its data is the request. */
#include <hiredis/async.h>
#include <stdio.h>
#include <stdlib.h>

#include "steady/client.h"
#include "steady/hiredis.h"

#define INTEGERS_MAX 389 /* no reply to a command of ours has more */

struct bridge {
    redisAsyncContext *context;                          /* NULL: gone, or the bridge has given the hooks back */
    steady_store *store;                                 /* NULL: detached */
    __typeof__(((redisAsyncContext *)NULL)->ev) adapter; /* the hooks of the adapter, and their data */
};

static void bridge_release(struct bridge *bridge) {
    if (bridge->context == NULL && bridge->store == NULL) free(bridge);
}

/* ---- Hooks ---- */

static void bridge_add_read(void *arg) {
    struct bridge *bridge = arg;
    bridge->adapter.addRead(bridge->adapter.data);
}

static void bridge_del_read(void *arg) {
    struct bridge *bridge = arg;
    bridge->adapter.delRead(bridge->adapter.data);
}

static void bridge_add_write(void *arg) {
    struct bridge *bridge = arg;
    bridge->adapter.addWrite(bridge->adapter.data);
}

static void bridge_del_write(void *arg) {
    struct bridge *bridge = arg;
    bridge->adapter.delWrite(bridge->adapter.data);
}

#if HIREDIS_MAJOR >= 1
static void bridge_schedule_timer(void *arg, struct timeval tv) {
    struct bridge *bridge = arg;
    bridge->adapter.scheduleTimer(bridge->adapter.data, tv);
}
#endif

static void bridge_give_hooks_back(struct bridge *bridge) {
    bridge->context->ev = bridge->adapter;
    bridge->context = NULL;
}

/* The store tells the log, which may close the store and so free the bridge. */
static void bridge_cleanup(void *arg) {
    struct bridge *bridge = arg;
    void (*cleanup)(void *) = bridge->adapter.cleanup;
    void *data = bridge->adapter.data;
    bridge_give_hooks_back(bridge);
    if (cleanup != NULL) cleanup(data);
    if (bridge->store != NULL)
        steady_client_gone(bridge->store, "the hiredis context was disconnected or freed");
    else
        bridge_release(bridge);
}

/* A hook that the adapter does not have, the bridge does not have either. */
static void bridge_take_hooks(struct bridge *bridge, redisAsyncContext *context) {
    bridge->context = context;
    bridge->adapter = context->ev;
    context->ev.data = bridge;
    context->ev.addRead = bridge_add_read;
    context->ev.addWrite = bridge_add_write;
    context->ev.cleanup = bridge_cleanup;
    if (context->ev.delRead != NULL) context->ev.delRead = bridge_del_read;
    if (context->ev.delWrite != NULL) context->ev.delWrite = bridge_del_write;
#if HIREDIS_MAJOR >= 1
    if (context->ev.scheduleTimer != NULL) context->ev.scheduleTimer = bridge_schedule_timer;
#endif
}

/* ---- Requests and replies ---- */

static void bridge_reply_array(steady_client_request *request, const redisReply *reply) {
    int64_t values[INTEGERS_MAX];
    size_t count = reply->elements <= INTEGERS_MAX ? reply->elements : 0;
    for (size_t i = 0; i < count; i++) {
        if (reply->element[i]->type != REDIS_REPLY_INTEGER) {
            count = 0;
            break;
        }
        values[i] = reply->element[i]->integer;
    }
    steady_client_reply_integers(request, values, count);
}

/* reply is NULL if the context goes away. If it never connected, the command was not sent. */
static void bridge_replied(redisAsyncContext *context, void *arg, void *data) {
    steady_client_request *request = data;
    const redisReply *reply = arg;
    int64_t value = 0;
    if (reply == NULL) {
        steady_client_lost(request, (context->c.flags & REDIS_CONNECTED) != 0);
        return;
    }
    switch (reply->type) {
    case REDIS_REPLY_INTEGER:
        value = reply->integer;
        steady_client_reply_integers(request, &value, 1);
        break;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS: steady_client_reply_text(request, reply->str, reply->len); break;
    case REDIS_REPLY_ERROR: steady_client_reply_error(request, reply->str, reply->len); break;
    case REDIS_REPLY_ARRAY: bridge_reply_array(request, reply); break;
    default: steady_client_reply_integers(request, NULL, 0);
    }
}

static int bridge_send(void *client, const char *command, size_t len, steady_client_request *request,
                       steady_message *why) {
    const struct bridge *bridge = client;
    if (redisAsyncFormattedCommand(bridge->context, bridge_replied, request, command, len) == REDIS_OK) return 0;
    snprintf(why->text, sizeof why->text, "the hiredis context accepts no command");
    return STEADY_UNAVAILABLE;
}

/* Another library may have put its hooks over ours and still call ours. Then they stay until `cleanup`. */
static void bridge_detach(void *client) {
    struct bridge *bridge = client;
    bridge->store = NULL;
    if (bridge->context != NULL && bridge->context->ev.data == bridge) bridge_give_hooks_back(bridge);
    bridge_release(bridge);
}

static const steady_client_ops bridge_ops = {.name = "a hiredis context", .send = bridge_send, .detach = bridge_detach};

/* ---- Opening ---- */

static int bridge_fail(steady_message *why, int error, const char *text) {
    if (why != NULL) snprintf(why->text, sizeof why->text, "%s", text);
    return error;
}

/* context->errstr may hold bytes from the server, so the kind of the failure is reported instead. */
static const char *bridge_failure(int err) {
    switch (err) {
    case REDIS_ERR_IO: return "the context has failed: input or output";
    case REDIS_ERR_EOF: return "the context has failed: the server closed the connection";
    case REDIS_ERR_PROTOCOL: return "the context has failed: the reply was not RESP";
    case REDIS_ERR_OOM: return "the context has failed: out of memory";
    default: return "the context has failed";
    }
}

static int bridge_check_context(const redisAsyncContext *context, steady_message *why) {
    if (context == NULL) return bridge_fail(why, STEADY_BAD_ARGUMENT, "context is NULL");
    if (context->ev.addRead == NULL || context->ev.addWrite == NULL)
        return bridge_fail(why, STEADY_BAD_ARGUMENT, "the context is not attached to an event loop yet");
    if (context->err != 0) return bridge_fail(why, STEADY_BAD_ARGUMENT, bridge_failure(context->err));
    if ((context->c.flags & (REDIS_SUBSCRIBED | REDIS_MONITORING)) != 0)
        return bridge_fail(why, STEADY_BAD_ARGUMENT, "the context is subscribed or monitoring");
    return 0;
}

int steady_store_attach(steady_store **store, struct redisAsyncContext *context, const steady_store_options *options,
                        steady_message *why) {
    if (store == NULL) return bridge_fail(why, STEADY_BAD_ARGUMENT, "store is NULL");
    *store = NULL;
    int error = bridge_check_context(context, why);
    if (error != 0) return error;
    struct bridge *bridge = calloc(1, sizeof *bridge);
    if (bridge == NULL) return bridge_fail(why, STEADY_NO_MEMORY, "out of memory");
    error = steady_store_open_client(&bridge->store, &bridge_ops, bridge, options, why);
    if (error != 0) {
        free(bridge);
        return error;
    }
    bridge_take_hooks(bridge, context);
    *store = bridge->store;
    return 0;
}
