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
struct steady__connect_result {
    int fd;
    struct steady__tls *tls; /* NULL: in the clear */
    int error;               /* STEADY_UNAVAILABLE, or STEADY_REFUSED */
    const char *why;
    steady_us round_trip; /* what the network took to connect */
};

#define STEADY__CONNECT_LOOKUPS 3
#define STEADY__LOOKUPS_MAX 16 /* of dials that share a count */
#define STEADY__CONNECT_HOST_MAX 255

/* A lookup that was begun: for this attempt, or for one that could not wait any longer. */
struct steady__connect_lookup {
    struct steady__connect *attempt;
    struct steady__lookup *lookup; /* NULL: it has come back */
    bool counted;                  /* in what dials share */
    steady_us begun_at;
    uint16_t port;
    char host[STEADY__CONNECT_HOST_MAX + 1];
};

struct steady__connect {
    const struct steady__net *net;
    const steady_loop *loop;
    const struct steady__url *url;
    const struct steady__tls_context *tls_context; /* NULL: in the clear */
    const struct steady__fork_guard *fork_guard;
    steady_us patience;          /* an address has this long to accept, and again to shake hands */
    unsigned *lookups_under_way; /* of names; shared, and longer-lived. NULL: not counted */
    steady_us name_patience;     /* a lookup has this long before another one is begun beside it */
    steady_us unanswered;
    void (*done)(void *arg, const struct steady__connect_result *dialed); /* once a start */
    void *arg;
    bool looking;   /* the attempt waits for a lookup */
    bool queued;    /* that cannot begin yet */
    bool last_turn; /* the time is over, but the loop may have been away */
    struct steady__connect_lookup lookups[STEADY__CONNECT_LOOKUPS];
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

/* Expects net, loop, url, tls_context, fork_guard, patience, name_patience, unanswered, done and arg filled in, and the
 * rest zero. */
int steady__connect_init(struct steady__connect *attempt);

/* To be called from the loop only, since done may be called inside it. */
void steady__connect_start(struct steady__connect *attempt);
void steady__connect_stop(struct steady__connect *attempt);

/* A lookup is under way, for this attempt or another one. */
bool steady__connect_looks_up(const struct steady__connect *attempt);

/* What an attempt is at, in words that go with "still". */
const char *steady__connect_activity(const struct steady__connect *attempt);

void steady__connect_free(struct steady__connect *attempt);

#endif
