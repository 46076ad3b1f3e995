/* SPDX-License-Identifier: MIT
 * Host names looked up in a short-lived thread of their own, addresses at once: see lookup in net.h. */
#ifndef STEADY__RESOLVE_H
#define STEADY__RESOLVE_H

#include "net.h"

struct steady__lookup *steady__resolve(const struct steady__net *net, const steady_loop *loop, const char *host,
                                       uint16_t port,
                                       void (*done)(void *arg, const struct steady__addresses *found, const char *why),
                                       void *arg);
void steady__resolve_cancel(const struct steady__net *net, struct steady__lookup *lookup);

#endif
