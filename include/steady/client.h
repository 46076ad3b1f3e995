/* SPDX-License-Identifier: MIT
 * A Redis store on a client of yours. The client owns the connection and carries the requests: the store gives it the
 * bytes of each command, and the client hands each reply back. Use it for a client library that Steady does not know.
 * For hiredis, <steady/hiredis.h> has done it: src/hiredis/bridge.c is the example.
 *
 * You write two functions, `send` and `detach`, and call one of the functions below for each reply:
 *
 *     static void replied(my_connection *connection, my_reply *reply, void *data) {
 *         steady_client_request *request = data;
 *         if (reply == NULL)
 *             steady_client_lost(request, true);
 *         else if (reply->type == MY_ERROR)
 *             steady_client_reply_error(request, reply->text, reply->len);
 *         else if (reply->type == MY_STRING)
 *             steady_client_reply_text(request, reply->text, reply->len);
 *         else if (reply->type == MY_INTEGER)
 *             steady_client_reply_integers(request, &reply->integer, 1);
 *         else
 *             ... an array of integers: steady_client_reply_integers, with all of them
 *     }
 *
 *     static int send(void *client, const char *command, size_t len, steady_client_request *request,
 *                     steady_message *why) {
 *         if (my_send(client, command, len, replied, request) == 0) return 0;
 *         snprintf(why->text, sizeof why->text, "the client takes no command");
 *         return STEADY_UNAVAILABLE;
 *     }
 *
 * REQUESTS. A request belongs to the client from the `send` that returned 0. The client gives it back exactly once,
 * with a reply or as lost. Until then the request stays valid, even if its decision has timed out or the store is
 * closed. Decisions that timed out count until then: with max_in_flight of them, further decisions are unavailable.
 *
 * ORDER. The server must get the commands in the order of `send`: SCRIPT LOAD comes before the EVALSHA that needs it.
 * Replies may come in any order.
 *
 * CALLBACKS. Make all calls on the thread of the store, from the loop, and none of them inside `send` or `detach`. The
 * calls that hand a reply back, steady_client_lost and steady_client_gone may run callbacks of decisions and the log.
 * These may close the store; then `detach` runs inside the call.
 *
 * THE END. `detach` runs once: when the store is closed, or after a reply that fits no command of ours. After it the
 * store sends nothing more. Requests that the client still has must be given back later. */
#ifndef STEADY_CLIENT_H
#define STEADY_CLIENT_H

#include <steady.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A command that the client has, until its reply. */
typedef struct steady_client_request steady_client_request;

typedef struct steady_client_ops {
    /* What the client is, for messages: "a libvalkey context". Static text. */
    const char *name;
    /* Sends a command of one request: `len` bytes of RESP, at most 98304. They are valid only during the call. Returns
     * 0. Or returns STEADY_UNAVAILABLE or STEADY_NO_MEMORY, and writes the reason to *why: then nothing was sent, and
     * the request stays with the store. */
    int (*send)(void *client, const char *command, size_t len, steady_client_request *request, steady_message *why);
    /* The store does not use the client any more. */
    void (*detach)(void *client);
    void (*reserved[4])(void); /* must be NULL */
} steady_client_ops;

/* Opens the store. `ops` outlives the store and its requests; `client` is passed to its functions, and stays valid
 * until `detach`. options->loop is required, for deadlines; TLS is up to the client. The connection must be to the
 * server that has the keys: MOVED, ASK and READONLY end a decision as unavailable. The ..._sync calls are
 * STEADY_UNSUPPORTED. Errors as with steady_store_open. */
STEADY_API int steady_store_open_client(steady_store **store, const steady_client_ops *ops, void *client,
                                        const steady_store_options *options, steady_message *why);

/* Gives a request back with its reply: an integer (count is 1) or an array of integers. For a reply of any other shape
 * set count to 0. */
STEADY_API void steady_client_reply_integers(steady_client_request *request, const int64_t *values, size_t count);

/* Gives a request back with its reply: a simple string or a bulk string. */
STEADY_API void steady_client_reply_text(steady_client_request *request, const char *text, size_t len);

/* Gives a request back with its reply: an error, without the leading "-". */
STEADY_API void steady_client_reply_error(steady_client_request *request, const char *text, size_t len);

/* Gives a request back without a reply. sent: the server may have received a byte of it, so the decision may have been
 * charged (STEADY_UNKNOWN). Otherwise it is STEADY_UNAVAILABLE. */
STEADY_API void steady_client_lost(steady_client_request *request, bool sent);

/* The connection is gone for good. Later decisions end as STEADY_UNAVAILABLE without a `send`. `why` goes to the log
 * and to the last error; it must hold no password and no key. Requests that the client has are still given back. Do not
 * call it after `detach`. */
STEADY_API void steady_client_gone(steady_store *store, const char *why);

#ifdef __cplusplus
}
#endif

#endif
