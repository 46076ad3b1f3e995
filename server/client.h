/* SPDX-License-Identifier: MIT
 * A connection of a client. The first bytes select its protocol.
 *
 * An exchange is a request and its answer. The answers go out in the order of the requests, although the store may
 * answer in another order. HTTP/2 has its own order: its exchanges are of one stream each. */
#ifndef STEADY_SERVER_CLIENT_H
#define STEADY_SERVER_CLIENT_H

#include "server.h"

struct exchange;
struct held;
struct rls_call;
struct settling;

/* What a protocol does with a connection. */
struct protocol {
    const char *name;
    enum metrics_protocol counted_as;
    /* Reads requests from the bytes, and answers them. Returns how many bytes are used up; the rest comes again, with
     * more behind it. -1: the connection is to be closed when all answers are sent. */
    ptrdiff_t (*read)(struct client *client, char *bytes, size_t len);
    /* The daemon ends. First each client is told, if the protocol can. Its requests are still answered. The second call
     * is the last one: finish what is under way, and close. */
    void (*drain)(struct client *client, bool last);
    void (*closed)(struct client *client); /* free `state` */
};

extern const struct protocol client_http1, client_http2, client_resp;

struct exchange {
    struct client *client;     /* NULL: it has gone */
    struct exchange *next;     /* of the client */
    struct buffer reply;       /* while earlier exchanges are not answered */
    struct waiting *waiting;   /* for the store */
    struct rls_call *call;     /* of Envoy; see rls.c */
    struct settling *settling; /* see question.c */
    struct held *held;         /* its answer waits in line; see answer.c */
    struct json_t *explained;  /* the document of admin_explain.c */
    bool answered;
    bool admin;      /* came by the admin socket */
    bool head_only;  /* HTTP: the method is HEAD */
    bool keep_alive; /* HTTP/1 */
    bool interim;    /* HTTP/1.1: the client knows interim answers (1xx) */
    int stream;      /* HTTP/2 */
};

/* ENDING: it is closed when all answers are sent. LINGERING: they are; the client closes first, unless it is slow. */
enum client_state { CLIENT_OPEN, CLIENT_ENDING, CLIENT_LINGERING, CLIENT_CLOSED };

struct client {
    struct worker *worker;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    uv_write_t write;
    bool writing; /* `write` is under way, with the bytes of `sent` */
    struct buffer sent, out, in;
    struct exchange *first, *last; /* not answered yet */
    size_t n_exchanges;
    const struct protocol *protocol; /* NULL: the first bytes have not come */
    void *state;                     /* of the protocol */
    struct http1_progress progress;
    enum client_state condition;
    bool admin;
    bool paused;      /* reads nothing */
    bool finishing;   /* no more is read; what was read is answered */
    bool at_eof;      /* the client sends no more */
    size_t discarded; /* while it lingers */
    bool is_dirty;
    struct client *next_dirty;
    struct client_list *list;
    struct client *newer, *older;
    uint64_t deadline; /* ms of the loop */
    struct steady__address peer;
    bool has_peer; /* false: a Unix socket */
};

/* A new connection of a listener. */
void client_accept(struct worker *worker, uv_stream_t *listener, bool admin);

/* An exchange in the order of the connection. NULL: out of memory. */
struct exchange *client_begin(struct client *client);

/* Where its answer is written: add all of it, then call client_answered. */
struct buffer *client_reply(struct exchange *exchange);

/* The answer is complete. The exchange is gone after this call. */
void client_answered(struct exchange *exchange);

/* Ends an exchange of a protocol with an order of its own (HTTP/2). It is gone after this call. */
void client_forget(struct exchange *exchange);

/* Bytes that belong to no exchange. */
struct buffer *client_out(struct client *client);

/* Sends what is in `out` when the events of this turn are done. */
void client_send_soon(struct client *client);

/* Reads no more, answers the requests that were read, and closes it. */
void client_finish(struct client *client);

/* Closes it when everything is sent. No further request is answered. */
void client_end(struct client *client);

/* Closes it at once. */
void client_close(struct client *client);

/* A held answer whose client has gone. */
void answer_forget(struct held *held);

/* A held answer whose client has closed its half of the connection, or has gone: finds out which. */
void answer_probe(struct held *held);

/* A settle whose client has gone. */
void question_forget_settling(struct settling *settling);

/* A call of Envoy whose client has gone. */
void rls_forget(struct rls_call *call);

/* Its answers wait, because the client does not read, or has asked for very much at once. */
bool client_must_wait(const struct client *client);

void client_send_dirty(struct worker *worker);
void client_close_late(struct worker *worker);
void client_close_all(struct worker *worker);
void client_drain_all(struct worker *worker, bool last);
bool client_any(const struct worker *worker);

#endif
