/* SPDX-License-Identifier: MIT
 * Looks up host names, each in a short-lived thread of its own. An address is not looked up. */
#ifndef STEADY__RESOLVE_H
#define STEADY__RESOLVE_H

#include <sys/socket.h>

#include "steady.h"

#define STEADY__ADDRESSES_MAX 16 /* per attempt; further addresses of a name are ignored */

struct steady__address {
    struct sockaddr_storage bytes;
    socklen_t len;
};

struct steady__addresses {
    size_t count;
    struct steady__address at[STEADY__ADDRESSES_MAX];
};

struct steady__lookup;
struct steady__net;

/* The `lookup` and the `lookup_cancel` of the system's network: see net.h. */
struct steady__lookup *steady__resolve(const struct steady__net *net, const steady_loop *loop, const char *host,
                                       uint16_t port,
                                       void (*done)(void *arg, const struct steady__addresses *found, const char *why),
                                       void *arg);
void steady__resolve_cancel(const struct steady__net *net, struct steady__lookup *lookup);

#endif
