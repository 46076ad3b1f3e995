/* SPDX-License-Identifier: MIT
 * One attempt to connect: from a URL to a connected socket, over all addresses of the host, with TLS if the URL wants
 * it. */
#ifndef STEADY__CONNECT_H
#define STEADY__CONNECT_H

#include "conn/net.h"
#include "conn/tls.h"
#include "core/url.h"
#include "loop/fork_guard.h"
#include "loop/loop.h"

/* The result of an attempt: a descriptor and its TLS, which `done` takes over; or -1 and the reason. */
struct steady__connect_result {
    int fd;
    struct steady__tls *tls; /* NULL: no TLS */
    int error;               /* STEADY_UNAVAILABLE or STEADY_REFUSED */
    const char *why;
    steady_us round_trip; /* the time that connecting took */
};

#define STEADY__CONNECT_LOOKUPS 3
#define STEADY__LOOKUPS_MAX 16 /* of attempts that share a count */
#define STEADY__CONNECT_HOST_MAX 255

/* A running lookup, of this attempt or of an earlier one that gave up waiting for it. */
struct steady__connect_lookup {
    struct steady__connect *attempt;
    struct steady__lookup *lookup; /* NULL: not running */
    bool counted;                  /* in the shared count */
    steady_us begun_at;
    uint16_t port;
    char host[STEADY__CONNECT_HOST_MAX + 1];
};

struct steady__connect {
    const struct steady__net *net;
    const steady_loop *loop;
    const struct steady__url *url;
    const struct steady__tls_context *tls_context; /* NULL: no TLS */
    const struct steady__fork_guard *fork_guard;
    steady_us address_timeout;   /* the time for an address to accept, and again for the TLS handshake */
    unsigned *lookups_under_way; /* of names; shared, and longer-lived. NULL: not counted */
    steady_us lookup_timeout;    /* the time for a lookup, before another one is started beside it */
    steady_us unanswered;
    void (*done)(void *arg, const struct steady__connect_result *result); /* once for each start */
    void *arg;
    bool awaits_lookup;    /* the next step is the result of a lookup */
    bool lookup_queued;    /* that lookup cannot start yet: too many are running */
    bool extra_turn_given; /* the time is over; the loop gets one more turn, because it may have been held */
    struct steady__connect_lookup lookups[STEADY__CONNECT_LOOKUPS];
    struct steady__addresses addresses;
    size_t next;
    int fd;
    steady_us begun_at, round_trip;
    struct steady__tls *tls; /* NULL: not yet */
    struct steady__tls_ticket ticket;
    int error; /* of the last address */
    char why[160];
    struct steady__watch watch;
    struct steady__alarm alarm;
};

/* Expects net, loop, url, tls_context, fork_guard, address_timeout, lookup_timeout, unanswered, done and arg filled in,
 * and the rest zero. */
int steady__connect_init(struct steady__connect *attempt);

/* Call it from the loop only, because `done` may be called inside it. */
void steady__connect_start(struct steady__connect *attempt);
void steady__connect_stop(struct steady__connect *attempt);

/* A lookup is under way, for this attempt or another one. */
bool steady__connect_looks_up(const struct steady__connect *attempt);

/* The current step of the attempt, as words to follow "still". */
const char *steady__connect_activity(const struct steady__connect *attempt);

void steady__connect_free(struct steady__connect *attempt);

#endif
