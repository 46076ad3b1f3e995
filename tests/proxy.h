/* SPDX-License-Identifier: MIT
 * A TCP proxy that treats connections as networks do: delays, slices, slows, freezes and cuts them. */
#ifndef PROXY_H
#define PROXY_H

#include "steady.h"

/* How the proxy treats the data. All zero: it forwards everything unchanged. */
struct proxy_rules {
    steady_us delay_up, delay_down; /* towards the server; towards the client */
    size_t slice;                   /* at most so many bytes in a send; 0: as they come */
    size_t bytes_per_second;        /* in each direction; 0: unlimited */
    bool frozen;                    /* nothing is read or forwarded */
    bool deaf;                      /* replies of the server are read and discarded */
    /* The connection is reset once the client has sent `cut_sent` more requests. The server gets `cut_requests` of them
     * and answers all of those, and the client gets `cut_replies` of the replies. Each reply must be one line. */
    bool cut;
    unsigned cut_sent, cut_requests, cut_replies;
    bool cut_softly; /* closed rather than reset */
};

struct proxy;

/* Listens on a port of its own and connects to `to_port`, both on 127.0.0.1. */
struct proxy *proxy_start(int to_port);
int proxy_port(const struct proxy *proxy);

/* Sets the rules from now on, also for open connections. */
void proxy_set(struct proxy *proxy, const struct proxy_rules *rules);
void proxy_reset_all(struct proxy *proxy);
unsigned proxy_accepted(struct proxy *proxy); /* connections accepted so far */
void proxy_stop(struct proxy *proxy);

#endif
