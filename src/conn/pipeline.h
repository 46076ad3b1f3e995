/* SPDX-License-Identifier: MIT
 * One connected socket: the requests on the wire, and the order in which their replies are due. */
#ifndef STEADY__PIPELINE_H
#define STEADY__PIPELINE_H

#include "conn/net.h"
#include "conn/reply.h"
#include "conn/tls.h"
#include "conn/window.h"
#include "core/list.h"
#include "core/redact.h"

enum steady__request_state {
    STEADY__REQUEST_OFF_WIRE, /* not sent yet, or answered */
    STEADY__REQUEST_ON_WIRE,
    STEADY__REQUEST_LOST,     /* written, and its connection was lost */
    STEADY__REQUEST_TOO_LATE, /* not sent: the server answers, but the reply would have come too late */
};

/* A request, which has one reply. It is embedded in a struct of its owner. */
struct steady__request {
    struct steady__list place; /* in a list, while the request is not on the wire */
    uint64_t number;           /* on the wire: its index, counted from 0 */
    enum steady__request_state state;
    uint32_t nested;  /* the most bytes of a nested reply, see steady__reply_read_nested; 0: not nested */
    void *at;         /* for the transport: the node of the request */
    bool send_asking; /* send ASKING before it */
    bool read_only;   /* it changes nothing on the server */
    uint8_t redirects;
    uint32_t extra;             /* bytes that its encoding may need beyond STEADY__REQUEST_MAX; 0 for most requests */
    steady_us expected_latency; /* of its reply, as the transport estimates; set before it is encoded */
    const char *key;            /* chooses the node in a cluster; NULL: the request goes to `at` */
    size_t key_len;
    size_t prefix_len;              /* how much of the key is the prefix, which may be shown */
    const struct steady__key *keys; /* of a call on several keys: all of them, `key` is the first. NULL: only `key` */
    size_t n_keys;
};

/* The secrets that the reply to a request may quote. */
static inline struct steady__secrets steady__request_secrets(const struct steady__request *request,
                                                             const struct steady__url *url) {
    return (struct steady__secrets){url,           request->key,   request->key_len, request->prefix_len,
                                    request->keys, request->n_keys};
}

#define STEADY__PIPELINE_OUT 65536 /* a longer request gets a longer buffer for itself */
#define STEADY__PIPELINE_IN 16384
#define STEADY__NESTED 65536       /* bytes of a nested reply, at most */
#define STEADY__NESTED_MAP 8388608 /* of a map: of a cluster in which each slot is a range of its own */

struct steady__pipeline_slot {
    struct steady__request *request; /* NULL: a tombstone; the reply is dropped */
    uint64_t begin;                  /* the position of its first byte in the stream */
    steady_us since;                 /* when it was put, by `clock` */
    uint32_t ahead;                  /* requests that were unanswered then */
    uint32_t nested;                 /* as in the request */
};

struct steady__pipeline_block;

struct steady__pipeline {
    const struct steady__net *net;
    int fd;                  /* -1: not connected */
    struct steady__tls *tls; /* NULL: no TLS */
    int broken;              /* errno of a failed send */
    steady_us clock;         /* the time of the last read or write; set by the caller */
    uint64_t sent;           /* bytes that the system has taken; with TLS, bytes inside the records that it has taken */
    size_t out_from, out_to, out_room;
    size_t in_from, in_to, in_room;
    size_t out_used, in_used;         /* bytes that have ever been filled, and are wiped in the end */
    struct steady__progress progress; /* of the reply at in_from */
    uint64_t head, tail;              /* index of the first unanswered request, and of the next new one */
    uint32_t max;                     /* the most requests on the wire */
    uint32_t room;                    /* size of `blocks`, a power of two */
    struct steady__window window;
    struct steady__pipeline_block **blocks; /* the ring; an entry may be NULL */
    struct steady__pipeline_block *spare;
    char *out, *in;
};

int steady__pipeline_init(struct steady__pipeline *pipeline, const struct steady__net *net, uint32_t max_unanswered);
void steady__pipeline_free(struct steady__pipeline *pipeline);

/* Takes over the descriptor and its TLS, if any. For timeout and round_trip see steady__window_open. */
void steady__pipeline_open(struct steady__pipeline *pipeline, int fd, struct steady__tls *tls, steady_us timeout,
                           steady_us round_trip);

/* Closes both. Then take the unanswered requests: first the unwritten ones, then the others. */
void steady__pipeline_close(struct steady__pipeline *pipeline);

/* For a closed pipeline: takes the last request of which no byte was sent, without tombstones. NULL: there is none.
 * Their number is small, because they all were in the buffer. */
struct steady__request *steady__pipeline_take_unwritten(struct steady__pipeline *pipeline);

/* For a closed pipeline: takes the first request that is left, NULL for a tombstone. False: none is left. */
bool steady__pipeline_take_first(struct steady__pipeline *pipeline, struct steady__request **request);

/* Room for `requests` requests of at most `size` bytes together. Write them there, then put them. NULL: not now. */
char *steady__pipeline_room(struct steady__pipeline *pipeline, unsigned requests, size_t size);
void steady__pipeline_put(struct steady__pipeline *pipeline, struct steady__request *request,
                          size_t len); /* NULL: tombstone */

/* Sends all that is encoded. False if the system did not take all of it. */
bool steady__pipeline_flush(struct steady__pipeline *pipeline);

/* Receives once. Returns the bytes, 0 at the end of the stream, or -1 and errno. */
ssize_t steady__pipeline_receive(struct steady__pipeline *pipeline);

/* TLS has decrypted bytes, of which the loop does not know. */
static inline bool steady__pipeline_pending(const struct steady__pipeline *pipeline) {
    return pipeline->tls != NULL && steady__tls_pending(pipeline->tls);
}

/* Frees the memory of a long reply after it was read, and of a long request after it was sent. Replies are not valid
 * any more. */
void steady__pipeline_shrink(struct steady__pipeline *pipeline);

/* Why the connection is lost, given the errno of a send or receive, or 0 at the end of the stream. */
const char *steady__pipeline_error_text(const struct steady__pipeline *pipeline, int error);

/* The server rejected the client before it read any request. */
static inline bool steady__pipeline_was_rejected(const struct steady__pipeline *pipeline) {
    return pipeline->tls != NULL && steady__tls_was_rejected(pipeline->tls);
}

/* Reads the next reply. 1: *request is its request, or NULL for a tombstone. 0: no complete reply yet. -1: the server
 * cannot be trusted any more; an error in *reply then came unasked. The reply is valid until the next receive. */
int steady__pipeline_next(struct steady__pipeline *pipeline, struct steady__reply *reply,
                          struct steady__request **request);

/* Drops the reply of a request on the wire, when it comes. */
void steady__pipeline_forget(struct steady__pipeline *pipeline, struct steady__request *request);

/* Whether received bytes wait to be read as replies. */
static inline bool steady__pipeline_unread(const struct steady__pipeline *pipeline) {
    return pipeline->in_from < pipeline->in_to;
}

static inline bool steady__pipeline_idle(const struct steady__pipeline *pipeline) {
    return pipeline->head == pipeline->tail;
}

/* Whether the next reply may be a long one. */
bool steady__pipeline_awaits_nested(struct steady__pipeline *pipeline);

/* Whether the window allows no further request before a reply. */
static inline bool steady__pipeline_full(const struct steady__pipeline *pipeline) {
    return pipeline->tail - pipeline->head >= pipeline->window.size;
}

/* Adapts the window. Call it when all received replies are read. Returns the expected latency of a request that is put
 * now. */
steady_us steady__pipeline_look(struct steady__pipeline *pipeline);

#endif
