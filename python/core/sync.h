/* SPDX-License-Identifier: MIT
 * Decisions of a store for blocking calls. The GIL is released while they wait for a server. */
#ifndef AIOSTEADY_SYNC_H
#define AIOSTEADY_SYNC_H

#include "binding.h"

/* Decides on one bucket, in a pool. */
PyObject *sync_decide(struct throttler *self, struct request request, PyObject *key);

/* Raises the error of a call; `why` says more, or is "". Returns NULL. */
PyObject *sync_raise(const struct loop_store *store, int error, steady_message *why);

/* Settles a reservation with 0, and does not free it. An error is logged. The exception that is set, if any, stays. */
void sync_give_back(struct loop_store *self, steady_reservation *reservation);

#endif
