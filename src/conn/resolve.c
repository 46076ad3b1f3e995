/* SPDX-License-Identifier: MIT
 * Looks up host names, each in a short-lived thread.
 *
 * The thread and the loop share the lookup. The last one to release it frees it. The thread releases it after it has
 * written the answer and the eventfd; the loop after it has read the answer, or on cancel. getaddrinfo cannot be
 * interrupted. So the thread of a cancelled lookup lives until the resolver gives up, and touches only the lookup.
 *
 * A forked child has no such thread and shares the eventfd with its parent. It must not read the eventfd. */
#include "conn/resolve.h"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "loop/fork_guard.h"
#include "loop/loop.h"

struct steady__lookup {
    atomic_uint holders; /* the thread and the loop */
    int bell;
    struct steady__fork_guard fork_guard;
    int error; /* of getaddrinfo */
    struct steady__addresses found;
    struct steady__watch watch;
    void (*done)(void *arg, const struct steady__addresses *found, const char *why);
    void *arg;
    char port[8];
    char host[];
};

static void resolve_release(struct steady__lookup *lookup) {
    if (atomic_fetch_sub(&lookup->holders, 1) != 1) return;
    close(lookup->bell);
    free(lookup);
}

static void resolve_ask(struct steady__lookup *lookup, int flags) {
    const struct addrinfo hints = {.ai_flags = flags | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    lookup->error = getaddrinfo(lookup->host, lookup->port, &hints, &list);
    for (struct addrinfo *a = list; a != NULL && lookup->found.count < STEADY__ADDRESSES_MAX; a = a->ai_next) {
        struct steady__address *to = &lookup->found.at[lookup->found.count++];
        memcpy(&to->bytes, a->ai_addr, a->ai_addrlen);
        to->len = a->ai_addrlen;
    }
    if (list != NULL) freeaddrinfo(list);
}

static void resolve_ring(const struct steady__lookup *lookup) { eventfd_write(lookup->bell, 1); }

static void *resolve_thread(void *arg) {
    struct steady__lookup *lookup = arg;
    resolve_ask(lookup, AI_ADDRCONFIG);
    resolve_ring(lookup);
    resolve_release(lookup);
    return NULL;
}

/* Signals belong to the threads of the program. This thread inherits a mask that blocks all of them. */
static int resolve_start_thread(struct steady__lookup *lookup) {
    pthread_t id;
    sigset_t all, before;
    sigfillset(&all);
    atomic_fetch_add(&lookup->holders, 1);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&id, NULL, resolve_thread, lookup);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) return pthread_detach(id);
    atomic_fetch_sub(&lookup->holders, 1);
    return -1;
}

static void resolve_rang(void *arg, int events) {
    struct steady__lookup *lookup = arg;
    eventfd_t count;
    (void)events;
    if (steady__forked(&lookup->fork_guard)) {
        steady__fork_guard_detach(lookup->bell);
        return;
    }
    if (eventfd_read(lookup->bell, &count) != 0) return;
    steady__watch_stop(&lookup->watch);
    lookup->done(lookup->arg, &lookup->found, lookup->error != 0 ? gai_strerror(lookup->error) : NULL);
    resolve_release(lookup);
}

void steady__resolve_cancel(const struct steady__net *net, struct steady__lookup *lookup) {
    (void)net;
    steady__watch_stop(&lookup->watch);
    resolve_release(lookup);
}

struct steady__lookup *steady__resolve(const struct steady__net *net, const steady_loop *loop, const char *host,
                                       uint16_t port,
                                       void (*done)(void *arg, const struct steady__addresses *found, const char *why),
                                       void *arg) {
    (void)net;
    struct steady__lookup *lookup = calloc(1, sizeof *lookup + strlen(host) + 1);
    if (lookup == NULL) return NULL;
    lookup->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (lookup->bell < 0) {
        free(lookup);
        return NULL;
    }
    atomic_init(&lookup->holders, 1);
    steady__fork_guard_set(&lookup->fork_guard, false);
    lookup->done = done;
    lookup->arg = arg;
    memcpy(lookup->host, host, strlen(host));
    snprintf(lookup->port, sizeof lookup->port, "%u", (unsigned)port);
    if (steady__watch_start(&lookup->watch, loop, lookup->bell, STEADY_READABLE, resolve_rang, lookup) == 0) {
        resolve_ask(lookup, AI_NUMERICHOST); /* touches no resolver */
        if (lookup->error != EAI_NONAME) {
            resolve_ring(lookup);
            return lookup;
        }
        if (resolve_start_thread(lookup) == 0) return lookup;
    }
    steady__resolve_cancel(net, lookup);
    return NULL;
}
