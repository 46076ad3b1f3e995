/* SPDX-License-Identifier: MIT
 * One supervised connection to a server: it is made, greeted, kept, given up and made again without being asked. */
#ifndef STEADY__LINK_H
#define STEADY__LINK_H

#include "dial.h"
#include "dialect.h"
#include "fork.h"
#include "greeting.h"
#include "loop.h"
#include "url.h"
#include "wire.h"

struct steady__link;

/* No request is longer: an EVAL with a script's text and the longest key. */
#define STEADY__REQUEST_MAX 16384

/* What the owner of a request makes of its reply. */
enum steady__heed {
    STEADY__HEED_NOTHING,
    STEADY__HEED_AGAIN,       /* it goes out again, in other words or elsewhere; what becomes of it is yet to be seen */
    STEADY__HEED_UNTRUSTED,   /* that was no reply to this request; a decision is unanswered, and comes back so */
    STEADY__HEED_NOT_PRIMARY, /* find the primary, and ask it this request and all that comes */
    STEADY__HEED_NOT_LET_IN,  /* the server turned the connection away; it has read none of the requests */
};

/* What a link asks of whoever gives it requests. Each request that was submitted comes back exactly once, through
 * answered or unanswered, unless it is forgotten or the link closed. The last two are only called from the loop. */
struct steady__link_owner {
    /* Writes up to STEADY__REQUEST_MAX bytes; 0: it is not to be sent any more, and its owner takes care of it.
     * dialect: of this connection, to be kept up by whoever encodes. */
    size_t (*encode)(void *owner, struct steady__request *request, struct steady__dialect *dialect, char *out);
    enum steady__heed (*answered)(void *owner, struct steady__request *request, struct steady__dialect *dialect,
                                  const struct steady__reply *reply);
    /* written: a byte of it went out. error: STEADY_UNAVAILABLE or STEADY_REFUSED, what the link is down with. */
    void (*unanswered)(void *owner, struct steady__request *request, bool written, int error);
};

/* Says where the server is, where that is not in the URL of a link. It belongs to the link, and hears from it: */
struct steady__finder {
    /* Begins to look anew, to be answered with steady__link_found or steady__link_not_found, from the loop or inside
     * this call. */
    void (*find)(struct steady__finder *finder, struct steady__link *link);
    void (*close)(struct steady__finder *finder); /* the link is closed; may be called inside any call to it */
};

struct steady__link_options {
    const struct steady__net *net;
    steady_loop loop;
    const struct steady__url *url;             /* outlives the link */
    const struct steady__tls_context *tls;     /* as well; NULL: in the clear */
    const struct steady__birthmark *birthmark; /* as well */
    steady_message *trouble;                   /* as well; where to leave what went wrong */
    struct steady__finder *finder;             /* NULL: the URL says where the server is */
    enum steady__role role;                    /* what it has to be; ANY: it is asked only after a READONLY */
    steady_us timeout;
    uint32_t max_unanswered;
    unsigned *lookups; /* outlives it; of names, under way in all links that share it. NULL: it is alone */
    bool patient;      /* a request waits for an attempt under way even where the last one failed */
    void (*log)(void *data, enum steady_log_level level, const char *text);
    void *log_data;
    const struct steady__link_owner *owner_class;
    void *owner;
};

/* NULL: out of memory. It begins to connect at the next turn of the loop. */
struct steady__link *steady__link_open(const struct steady__link_options *options);

/* Nothing is called back any more. May be called inside any callback of the link. */
void steady__link_close(struct steady__link *link);

/* 0, or what a request ends as since the server is known to be down. Calls nothing back. */
int steady__link_submit(struct steady__link *link, struct steady__request *request);

/* Takes a request back. held: the loop was held while it waited. What it ends as:
 *   STEADY_UNKNOWN      the server has it, will have it, or had it when the connection was lost
 *   STEADY_OVERLOADED   it was not sent, and the fault is ours: others are before it at a server that answers, or the
 *                       loop was held while the link was connecting
 *   STEADY_UNAVAILABLE  it was not sent, because there is no connection or the server is silent */
int steady__link_forget(struct steady__link *link, struct steady__request *request, bool held);

/* It is connected, and greeted. */
bool steady__link_is_up(const struct steady__link *link);

/* It has no request. */
bool steady__link_is_idle(const struct steady__link *link);

/* It has been connected, if not greeted. */
bool steady__link_was_up(const struct steady__link *link);

/* A lookup of its name is under way, and would go on without it if it were closed. */
bool steady__link_looks_up(const struct steady__link *link);

/* Where it has no request and was never up, it gives its attempt up. It makes the next one when a request wants it. */
void steady__link_pause(struct steady__link *link);

/* Reads what has arrived, for one who is about to say that nothing has: about as many bytes as *left, which becomes
 * less by them. From the loop only. */
#define STEADY__CATCH_UP ((size_t)2097152) /* bytes: the replies to 65536 decisions, or what a server sends instead */
void steady__link_catch_up(struct steady__link *link, size_t *left);

/* ---- A finder's calls, from the loop only. Inside each the link may be closed. ---- */

/* The answer to find: the address, valid until the next one, or why there is none. */
void steady__link_found(struct steady__link *link, const struct steady__url *at);
void steady__link_not_found(struct steady__link *link, int error, const char *why);

/* The server is elsewhere than found last: the connection is left once what is on the wire is answered, or had its
 * time, and find is called. */
void steady__link_moved(struct steady__link *link);

/* What a request that is not on the wire waits for, in words that go with "still"; NULL: its turn. */
const char *steady__link_doing(const struct steady__link *link);

/* Connections made after the first. */
uint64_t steady__link_reconnects(const struct steady__link *link);

#endif
