/* SPDX-License-Identifier: MIT
 * Shared by tests on fake servers: a store that uses one of them, its loop and its log. */
#ifndef CLIENT_H
#define CLIENT_H

#include "support.h"

#define MS STEADY_MILLISECOND

extern steady_poller *poller;
extern steady_loop loop; /* the poller's */
extern struct log_lines log_lines;
extern steady_store *store;
extern steady_throttler *throttler; /* ten drops an hour */

/* For cmocka. A test stops its own servers between client_close and client_tear_down. */
int client_set_up(void **state);
int client_tear_down(void **state);

/* Opens the store on `loop`, with the log `log_lines` unless the options have another. client_open uses scripts. */
void client_open(const char *url, steady_us timeout);
void client_open_with(const char *url, steady_store_options options);
void client_open_at(int port, steady_us timeout); /* on 127.0.0.1 */
void client_close(void);

/* Makes one decision on the key "somekey" and returns its error. */
int client_ask(void);

uint64_t client_reconnects(void);

#endif
