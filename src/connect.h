/* SPDX-License-Identifier: MIT
 * From a URL to a connected socket, with TLS where it is wanted: one attempt, over all addresses. */
#ifndef STEADY__CONNECT_H
#define STEADY__CONNECT_H

#include "fork_guard.h"
#include "loop.h"
#include "net.h"
#include "tls.h"
#include "url.h"

/* What an attempt came to: a descriptor and the TLS over it, for the taker, or -1 and the reason. */
struct steady__dialed {
    int fd;
    struct steady__tls *tls; /* NULL: in the clear */
    int error;               /* STEADY_UNAVAILABLE, or STEADY_REFUSED */
    const char *why;
    steady_us round_trip; /* what the network took to connect */
};

#define STEADY__DIAL_LOOKUPS 3
#define STEADY__LOOKUPS_MAX 16 /* of dials that share a count */
#define STEADY__DIAL_HOST_MAX 255

/* A lookup that was begun: for this attempt, or for one that could not wait any longer. */
struct steady__dial_lookup {
    struct steady__dial *dial;
    struct steady__lookup *lookup; /* NULL: it has come back */
    bool counted;                  /* in what dials share */
    steady_us begun_at;
    uint16_t port;
    char host[STEADY__DIAL_HOST_MAX + 1];
};

struct steady__dial {
    const struct steady__net *net;
    const steady_loop *loop;
    const struct steady__url *url;
    const struct steady__tls_context *tls_context; /* NULL: in the clear */
    const struct steady__birthmark *birthmark;
    steady_us patience;          /* an address has this long to accept, and again to shake hands */
    unsigned *lookups_under_way; /* of names; shared, and longer-lived. NULL: not counted */
    steady_us name_patience;     /* a lookup has this long before another one is begun beside it */
    steady_us unanswered;
    void (*done)(void *arg, const struct steady__dialed *dialed); /* once a start */
    void *arg;
    bool looking;   /* the attempt waits for a lookup */
    bool queued;    /* that cannot begin yet */
    bool last_turn; /* the time is over, but the loop may have been away */
    struct steady__dial_lookup lookups[STEADY__DIAL_LOOKUPS];
    struct steady__addresses addresses;
    size_t next;
    int fd;
    steady_us begun_at, round_trip;
    struct steady__tls *tls; /* NULL: not that far */
    struct steady__tls_ticket ticket;
    int error; /* of the last address */
    char why[160];
    struct steady__watch watch;
    struct steady__alarm alarm;
};

/* Expects net, loop, url, tls_context, birthmark, patience, name_patience, unanswered, done and arg filled in, and the
 * rest zero. */
int steady__dial_init(struct steady__dial *dial);

/* To be called from the loop only, since done may be called inside it. */
void steady__dial_start(struct steady__dial *dial);
void steady__dial_stop(struct steady__dial *dial);

/* A lookup is under way, for this attempt or another one. */
bool steady__dial_looks_up(const struct steady__dial *dial);

/* What an attempt is at, in words that go with "still". */
const char *steady__dial_doing(const struct steady__dial *dial);

void steady__dial_free(struct steady__dial *dial);

#endif
