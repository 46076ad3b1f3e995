/* SPDX-License-Identifier: MIT
 * From a URL to a connected socket: one attempt, over all addresses. */
#ifndef STEADY__DIAL_H
#define STEADY__DIAL_H

#include "fork.h"
#include "loop.h"
#include "net.h"
#include "url.h"

struct steady__dial {
    const struct steady__net *net;
    const steady_loop *loop;
    const struct steady__url *url;
    const struct steady__birthmark *birthmark;
    steady_us patience; /* an address has this long to accept */
    steady_us unanswered;
    void (*done)(void *arg, int fd, const char *why); /* once a start: a descriptor, or -1 and the reason */
    void *arg;
    struct steady__lookup *lookup;
    struct steady__addresses addresses;
    size_t next;
    int fd;
    int last_error;
    struct steady__watch watch;
    struct steady__alarm alarm;
};

/* Expects net, loop, url, birthmark, patience, unanswered, done and arg filled in, and the rest zero. */
int steady__dial_init(struct steady__dial *dial);

/* To be called from the loop only, since done may be called inside it. */
void steady__dial_start(struct steady__dial *dial);
void steady__dial_stop(struct steady__dial *dial);
void steady__dial_free(struct steady__dial *dial);

#endif
