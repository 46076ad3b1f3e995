/* SPDX-License-Identifier: MIT
 * What tests on servers of our own share: a store that asks one of them, its loop and its log. */
#ifndef CLIENT_H
#define CLIENT_H

#include "support.h"

#define MS STEADY_MILLISECOND

extern steady_poller *poller;
extern steady_loop loop; /* the poller's */
extern struct log_lines log_lines;
extern steady_store *store;
extern steady_throttler *throttler; /* ten an hour */

/* For cmocka; a test's own servers are stopped between client_close and client_tear_down. */
int client_set_up(void **state);
int client_tear_down(void **state);

/* Opens the store. The loop is `loop`, the log `log_lines` unless there is another; by client_open, scripts decide. */
void client_open(const char *url, steady_us timeout);
void client_open_with(const char *url, steady_store_options options);
void client_open_at(int port, steady_us timeout); /* of 127.0.0.1 */
void client_close(void);

/* What a single decision on the key "somekey" ends as. */
int client_ask(void);

uint64_t client_reconnects(void);

#endif
