/* SPDX-License-Identifier: MIT
 * One connected socket: what is on its way to the server, and in which order the answers are due. */
#ifndef STEADY__WIRE_H
#define STEADY__WIRE_H

#include "list.h"
#include "net.h"
#include "reply.h"
#include "tls.h"
#include "window.h"

/* Something that is answered by one reply. Embedded in what its owner knows about it. */
struct steady__request {
    struct steady__list place; /* in a list of requests that are not on the wire */
    uint64_t number;           /* on the wire: which one it is, counted from 0 */
    bool on_wire;
    bool lost;       /* it was written, and its connection is gone */
    bool passed;     /* its turn came too late to send it, at a server that answers */
    uint32_t nested; /* bytes that its reply may have as an array of anything: steady__reply_read_nested; 0: none */
    void *at;        /* a carrier's own: where it has put it */
    bool asking;     /* to be sent behind an ASKING */
    bool reads;      /* and changes nothing */
    uint8_t redirects;
    steady_us reckons; /* what its answer may take, as far as its carrier can tell; known when it is encoded */
    const char *key;   /* what decides, in a cluster, where it goes; NULL: it goes where `at` says, if anywhere */
    size_t key_len;
    size_t prefix_len; /* so much of it is the throttler's prefix, and may be shown */
};

#define STEADY__WIRE_OUT 65536
#define STEADY__WIRE_IN 16384
#define STEADY__NESTED 65536       /* bytes of a nested reply, at most */
#define STEADY__NESTED_MAP 8388608 /* of a map: of a cluster in which each slot is a range of its own */

struct steady__wire_slot {
    struct steady__request *request; /* NULL: whoever asked does not want to know any more */
    uint64_t begin;                  /* its first byte, counted from the first of the connection */
    steady_us since;                 /* by the wire's clock */
    uint32_t ahead;                  /* unanswered at that time */
    uint32_t nested;                 /* the request's */
};

struct steady__wire_block;

struct steady__wire {
    const struct steady__net *net;
    int fd;                  /* -1: not connected */
    struct steady__tls *tls; /* NULL: in the clear */
    int broken;              /* errno of a failed send */
    steady_us clock;         /* when bytes last came, or were about to go: whoever reads or writes sets it */
    uint64_t sent;           /* bytes the system has taken; with TLS, in what it has taken */
    size_t out_from, out_to;
    size_t in_from, in_to, in_room;
    size_t out_used, in_used;         /* bytes that have ever been filled, and are wiped in the end */
    struct steady__progress progress; /* of the reply at in_from */
    uint64_t head, tail;              /* numbers of the first unanswered request and of the next one */
    uint32_t max;                     /* unanswered there may be */
    uint32_t room;                    /* blocks there may be, a power of two */
    struct steady__window window;
    struct steady__wire_block **blocks; /* a ring; NULL: there is none */
    struct steady__wire_block *spare;
    char *out, *in;
};

int steady__wire_init(struct steady__wire *wire, const struct steady__net *net, uint32_t max_unanswered);
void steady__wire_free(struct steady__wire *wire);

/* Takes the descriptor and the TLS over it, if any. timeout and round_trip: see steady__window_open. */
void steady__wire_open(struct steady__wire *wire, int fd, struct steady__tls *tls, steady_us timeout,
                       steady_us round_trip);

/* Closes both. What was unanswered can still be taken: first what is unwritten, then what is left. */
void steady__wire_close(struct steady__wire *wire);

/* Of a closed wire: takes the last request of which no byte went out, tombstones left out; NULL when there is none.
 * They fill no more than the buffer. */
struct steady__request *steady__wire_take_unwritten(struct steady__wire *wire);

/* Of a closed wire: takes the first request that is left, NULL for a tombstone. False: none is left. */
bool steady__wire_take_first(struct steady__wire *wire, struct steady__request **request);

/* Room for so many requests of up to `size` bytes in all, to be filled and then put; NULL: not now. */
char *steady__wire_room(struct steady__wire *wire, unsigned requests, size_t size);
void steady__wire_put(struct steady__wire *wire, struct steady__request *request, size_t len); /* NULL: tombstone */

/* Sends what there is: true, or false where the system did not take all of it. */
bool steady__wire_flush(struct steady__wire *wire);

/* Receives once: bytes, 0 at the end of the stream, or -1 and errno. */
ssize_t steady__wire_receive(struct steady__wire *wire);

/* There may be more to receive that the loop does not know of. */
static inline bool steady__wire_pending(const struct steady__wire *wire) {
    return wire->tls != NULL && steady__tls_pending(wire->tls);
}

/* Gives back what a long reply needed, once all has been read. Replies are not valid after it. */
void steady__wire_relax(struct steady__wire *wire);

/* Why it can go on no more, given the errno of a send or receive, or 0 at the end of the stream. */
const char *steady__wire_excuse(const struct steady__wire *wire, int error);

/* The server has read nothing of what was sent, as it never let us in. */
static inline bool steady__wire_turned_away(const struct steady__wire *wire) {
    return wire->tls != NULL && steady__tls_turned_away(wire->tls);
}

/* The next reply and whose it is (NULL: nobody's): 1, 0 when there is none yet, -1 when the peer cannot be trusted: an
 * error is then what it said without being asked. The reply is valid until the next receive. */
int steady__wire_next(struct steady__wire *wire, struct steady__reply *reply, struct steady__request **request);

/* The reply of a request on the wire will be dropped. */
void steady__wire_forget(struct steady__wire *wire, struct steady__request *request);

/* Bytes that have come and are no reply yet, or have not been looked at. */
static inline bool steady__wire_unread(const struct steady__wire *wire) { return wire->in_from < wire->in_to; }

static inline bool steady__wire_idle(const struct steady__wire *wire) { return wire->head == wire->tail; }

/* The next reply may be a long one. */
bool steady__wire_awaits_nested(struct steady__wire *wire);

/* No more is to be sent before something is answered. */
static inline bool steady__wire_full(const struct steady__wire *wire) {
    return wire->tail - wire->head >= wire->window.size;
}

/* To be called where all has been read that had come: adapts the window. What a request that is put now has to reckon
 * with until it is answered. */
steady_us steady__wire_look(struct steady__wire *wire);

#endif
