/* SPDX-License-Identifier: MIT
 * The threads of the daemon. */
#ifndef STEADY_SERVER_WORKER_H
#define STEADY_SERVER_WORKER_H

#include "server.h"

/* Opens the loop of a worker. NULL on success, otherwise the reason, which is valid until the next call. */
const char *worker_open(struct worker *worker, struct server *server, int number);

/* Listens at host:port, [host]:port or unix:/path, for clients or for the admin. `fd`: a socket that listens already,
 * or -1. NULL on success, otherwise the reason. */
const char *worker_listen(struct worker *worker, const char *where, int fd, bool admin);

/* Opens the store, and takes the rules. Call it on the thread of the worker, to which the store then belongs. NULL on
 * success, otherwise the reason. */
const char *worker_start(struct worker *worker);

/* Starts the worker unless that is done, and runs the loop until the daemon ends and the clients have gone. Call it on
 * the thread of the worker. False: it could not start; then the daemon ends. */
bool worker_run(struct worker *worker);

/* Tells a worker that there are new rules, or that the daemon ends. May be called from any thread. */
void worker_wake(struct worker *worker);

/* Closes what is open, and frees the loop. After worker_run, or if that never ran. */
void worker_close(struct worker *worker);

/* The port of the first TCP listener; 0: none. */
int worker_port(const struct worker *worker);

/* The same of the last one, which is the admin socket. */
int worker_admin_port(const struct worker *worker);

#endif
