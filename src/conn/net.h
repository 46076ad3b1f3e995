/* SPDX-License-Identifier: MIT
 * The network and the random numbers of a connection, behind a struct of functions. The simulation replaces them. */
#ifndef STEADY__NET_H
#define STEADY__NET_H

#include <sys/types.h>

#include "conn/resolve.h"

struct steady__net {
    /* Starts to connect. Returns a non-blocking descriptor, or -1 and errno. `unanswered`: how long sent data may stay
     * unacknowledged before the system gives the connection up. */
    int (*connect)(const struct steady__net *net, const struct steady__address *address, steady_us unanswered);
    /* Once the descriptor is writable: 0, or the errno of the failed attempt. */
    int (*connected)(const struct steady__net *net, int fd);
    ssize_t (*send)(const struct steady__net *net, int fd, const void *bytes, size_t len); /* never raises SIGPIPE */
    ssize_t (*recv)(const struct steady__net *net, int fd, void *bytes, size_t room);
    void (*close)(const struct steady__net *net, int fd);
    uint64_t (*random)(const struct steady__net *net);
    /* Looks up a host without blocking. `done` is called from the loop, once, with the addresses or a reason; never
     * after cancel. NULL: out of memory, descriptors or threads. */
    struct steady__lookup *(*lookup)(const struct steady__net *net, const steady_loop *loop, const char *host,
                                     uint16_t port,
                                     void (*done)(void *arg, const struct steady__addresses *found, const char *why),
                                     void *arg);
    void (*lookup_cancel)(const struct steady__net *net, struct steady__lookup *lookup);
};

extern const struct steady__net steady__net_system;

/* The descriptors that this process may have (`ulimit -n`). */
unsigned steady__net_descriptors(void);

#endif
