/* SPDX-License-Identifier: MIT
 * The store in Redis or Valkey. */
#ifndef STEADY__REDIS_STORE_H
#define STEADY__REDIS_STORE_H

#include "store.h"

struct steady__denials;
struct steady__leases;
struct steady__net;
struct steady__last_error;
struct steady__url;

/* On failure *store is NULL and *why says why. */
int steady__redis_open(steady_store **store, const struct steady__url *url, const steady_store_options *options,
                       steady_message *why);

/* The same over `net`, which outlives the store, instead of the network of the system. denials: NULL: the memory of
 * this process. leases: NULL: its own, if it has any. The blocking calls do not work on such a store, because their
 * loop is the system's. */
int steady__redis_open_over(steady_store **store, const struct steady__net *net, struct steady__denials *denials,
                            struct steady__leases *leases, const struct steady__url *url,
                            const steady_store_options *options, steady_message *why);

/* ---- For pool.c: a store without a loop, whose blocking calls are made in parts ----
 *
 * So several calls can be in flight at once. One thread at a time may be in these calls and in the run of `poller`. */

/* The poller is the caller's. It outlives the store. leases: those that it shares; NULL: none. answered: called in a
 * run or a close when an *answer is there. */
int steady__redis_open_in_parts(steady_store **store, const struct steady__net *net, struct steady__leases *leases,
                                const struct steady__url *url, const steady_store_options *options,
                                steady_poller *poller, void (*answered)(steady_result *answer), steady_message *why);

/* Starts a call: 0, or an error, and it has ended. */
int steady__redis_ask(steady_store *head, const struct steady__call *call, steady_result *answer);

/* Call them before the first run after a pause, and before a pause. */
void steady__redis_resume(steady_store *head);
void steady__redis_pause(steady_store *head);

/* The poller cannot run: ends all calls. error: the errno. */
void steady__redis_give_up(steady_store *head, int error);

/* How often the text of the last error was set. Any thread may call it. */
unsigned steady__redis_errors(const steady_store *head);

#endif
