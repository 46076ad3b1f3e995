/* SPDX-License-Identifier: MIT
 * One supervised connection to a server. It connects, makes the handshake, detects loss and reconnects by itself. */
#ifndef STEADY__CONNECTION_H
#define STEADY__CONNECTION_H

#include "conn/connect.h"
#include "conn/engine.h"
#include "conn/handshake.h"
#include "conn/pipeline.h"
#include "core/counter.h"
#include "core/error.h"
#include "core/url.h"
#include "loop/fork_guard.h"
#include "loop/loop.h"

struct steady__connection;

/* The longest request without `extra`: an EVAL with the text of a script and the longest key. */
#define STEADY__REQUEST_MAX 16384

/* The action of the owner of a request on its reply. */
enum steady__reply_action {
    STEADY__REPLY_ACCEPTED,
    STEADY__REPLY_RESENT,      /* the request was sent again, or to another server */
    STEADY__REPLY_UNTRUSTED,   /* not a reply to this request; a decision comes back as unanswered */
    STEADY__REPLY_NOT_PRIMARY, /* find the primary, and send it this request and all later ones */
    STEADY__REPLY_REJECTED,    /* the server rejected the connection, and read none of the requests */
};

/* The owner of the requests of a connection. Each submitted request comes back exactly once, through `answered` or
 * `unanswered`, unless it is forgotten or the connection is closed. Both are called from the loop only. */
struct steady__connection_owner {
    /* Writes at most STEADY__REQUEST_MAX + request->extra bytes. 0: do not send the request; its owner keeps it. The
     * owner updates `engines`, the engines of this connection. */
    size_t (*encode)(void *owner, struct steady__request *request, struct steady__engines *engines, char *out);
    enum steady__reply_action (*answered)(void *owner, struct steady__request *request, struct steady__engines *engines,
                                          const struct steady__reply *reply);
    /* written: a byte of it was sent. error: STEADY_UNAVAILABLE or STEADY_REFUSED, why the connection is down. */
    void (*unanswered)(void *owner, struct steady__request *request, bool written, int error);
};

/* The connections of a store, counted by their states. Any thread may read it. */
struct steady__readiness {
    steady__counter in[3]; /* by enum steady_state */
};

/* READY if a connection is; otherwise DOWN if a connection is. */
enum steady_state steady__readiness_state(const struct steady__readiness *readiness);

/* Finds the server of a connection, if the URL does not name it. The connection calls: */
struct steady__finder {
    /* Starts a search. Answer with steady__connection_found or steady__connection_not_found, from the loop or inside
     * this call. */
    void (*find)(struct steady__finder *finder, struct steady__connection *conn);
    void (*close)(struct steady__finder *finder); /* the connection is closed; may come inside any call of it */
};

struct steady__connection_options {
    const struct steady__net *net;
    steady_loop loop;
    /* These outlive the connection. */
    const struct steady__url *url;
    const struct steady__tls_context *tls; /* NULL: no TLS */
    const struct steady__fork_guard *fork_guard;
    struct steady__last_error *last_error; /* gets the text of the last error */
    steady__counter *reconnects;           /* counts the connections after the first. NULL: not counted */
    struct steady__readiness *readiness;   /* NULL: no part of the state of the store */
    unsigned *lookups;                     /* running lookups of all connections that share it; NULL: not shared */
    const char *client_name;               /* NULL: none */

    struct steady__finder *finder; /* NULL: the URL names the server */
    enum steady__role role;        /* the role that the server must have; ANY: asked only after a READONLY */
    steady_us timeout;
    steady_us connect_timeout; /* of each attempt; 0: derived from timeout */
    uint32_t max_unanswered;
    bool patient; /* a request waits for a running attempt even if the last one failed */
    void (*log)(void *data, enum steady_log_level level, const char *text);
    void *log_data;
    const struct steady__connection_owner *owner_class;
    void *owner;
};

/* NULL: out of memory. The first attempt starts in the next turn of the loop. */
struct steady__connection *steady__connection_open(const struct steady__connection_options *options);

/* No callback runs any more. May be called inside any callback of the connection. */
void steady__connection_close(struct steady__connection *conn);

/* 0, or the error of the request, if the server is known to be down. Runs no callback. */
int steady__connection_submit(struct steady__connection *conn, struct steady__request *request);

/* Takes a request back, and returns the error of its decision. held: the loop was held while the request waited.
 *   STEADY_UNKNOWN      a byte of it was sent, or may be
 *   STEADY_OVERLOADED   not sent, and the fault is ours: the server answers, and other requests are before it; or the
 *                       loop was held while the connection was being made
 *   STEADY_UNAVAILABLE  not sent: there is no connection, or the server is silent */
int steady__connection_forget(struct steady__connection *conn, struct steady__request *request, bool held);

/* Connected, and the handshake is done. */
bool steady__connection_is_up(const struct steady__connection *conn);

/* It has no request, on the wire or waiting. */
bool steady__connection_is_idle(const struct steady__connection *conn);

/* It was connected before, perhaps without a complete handshake. */
bool steady__connection_was_up(const struct steady__connection *conn);

/* A lookup of its name is running. It would go on if the connection were closed. */
bool steady__connection_looks_up(const struct steady__connection *conn);

/* If it has no request and was never up, it stops its attempts until a request comes. */
void steady__connection_pause(struct steady__connection *conn);

/* Reads received replies before the caller ends decisions as timed out. Reads about *left bytes, and subtracts them
 * from *left. From the loop only. */
#define STEADY__CATCH_UP ((size_t)2097152) /* bytes: the replies to 65536 decisions */
void steady__connection_catch_up(struct steady__connection *conn, size_t *left);

/* ---- Calls for a finder, from the loop only. Each may close the connection. ---- */

/* The answer to `find`: the address, which stays valid until the next answer; or why there is none. */
void steady__connection_found(struct steady__connection *conn, const struct steady__url *at);
void steady__connection_not_found(struct steady__connection *conn, int error, const char *why);

/* The server has moved. The connection drains: it is closed when the requests on the wire are answered or have timed
 * out. Then `find` is called. */
void steady__connection_server_moved(struct steady__connection *conn);

/* The step that a request waits for, if it is not on the wire: words to follow "still". NULL: it waits for no step. */
const char *steady__connection_activity(const struct steady__connection *conn);

#endif
