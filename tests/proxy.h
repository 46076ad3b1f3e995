/* SPDX-License-Identifier: MIT
 * A TCP proxy that does to connections what networks do: delays, slices, slows, freezes and cuts them. */
#ifndef PROXY_H
#define PROXY_H

#include "steady.h"

/* What becomes of what passes. All zero: it is only passed on. */
struct proxy_rules {
    steady_us delay_up, delay_down; /* towards the server; towards the client */
    size_t slice;                   /* so many bytes a send; 0: as they come */
    size_t bytes_per_second;        /* each way; 0: as fast as it goes */
    bool frozen;                    /* nothing is read, and nothing passed on */
    bool deaf;                      /* what the server says is read and thrown away */
    /* Once a client has sent so many requests more, of which the server has had so many and answered them all, of
     * whose replies the client has had so many, the connection is reset. Replies have to be of one line. */
    bool cut;
    unsigned cut_sent, cut_requests, cut_replies;
    bool cut_softly; /* closed rather than reset */
};

struct proxy;

/* Listens on a port of its own, and connects to another one, both of 127.0.0.1. */
struct proxy *proxy_start(int to_port);
int proxy_port(const struct proxy *proxy);

/* From now on, for the connections there are, too. */
void proxy_set(struct proxy *proxy, const struct proxy_rules *rules);
void proxy_reset_all(struct proxy *proxy);
unsigned proxy_accepted(struct proxy *proxy); /* connections so far */
void proxy_stop(struct proxy *proxy);

#endif
