/* SPDX-License-Identifier: MIT
 * The fallback store: it applies policies, and decides under on_error="local" while the server does not answer. */
#ifndef AIOSTEADY_LOCAL_H
#define AIOSTEADY_LOCAL_H

#include "loop_store.h"

/* A new reference to the fallback store in *place, a capsule. The first call makes it. Returns NULL and sets an
 * exception if it cannot be made. */
PyObject *local_get(struct core_state *state, PyObject **place);

/* The store for throttlers of a fallback store: see capture.h. */
steady_store *local_capture(PyObject *local);

/* Opens its embedded store, which decides under on_error="local". Call it before a throttler with this policy is made.
 * buckets 0 is the default. 0, or -1 and an exception. */
int local_open(struct core_state *state, PyObject *local, uint32_t buckets);

/* Makes the embedded store of the fallback store in *place the one that `to` uses. Call it before a throttler with
 * on_error="local" is made. Otherwise the library would make one itself. 0, or -1 and an exception. */
int local_attach(struct loop_store *to, PyObject **place, uint32_t buckets);

#endif
