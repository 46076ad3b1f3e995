/* SPDX-License-Identifier: MIT
 * The fallback store: an embedded store that decides under on_error="local" while the server does not answer. */
#ifndef AIOSTEADY_LOCAL_H
#define AIOSTEADY_LOCAL_H

#include "loop_store.h"

/* A new reference to the fallback store in *place, a capsule. The first call makes it. buckets 0 is the default.
 * Returns NULL and sets an exception if it cannot be made. */
PyObject *local_get(struct core_state *state, PyObject **place, uint32_t buckets);

steady_store *local_store(PyObject *local);

/* Makes the fallback store in *place the one that `to` uses. Call it before a throttler with on_error="local" is made.
 * Otherwise the library would make one itself. 0, or -1 and an exception. */
int local_attach(struct loop_store *to, PyObject **place, uint32_t buckets);

#endif
