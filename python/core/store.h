/* SPDX-License-Identifier: MIT
 * Store: what connect() returns. */
#ifndef AIOSTEADY_STORE_H
#define AIOSTEADY_STORE_H

#include "loop_store.h"
#include "src/core/url.h"

/* A URL, and a store for each event loop that uses it. */
struct store {
    PyObject_HEAD struct core_state *state;
    char *url;
    steady_store_options options;
    char client_name[STEADY__CLIENT_NAME_MAX + 1]; /* options.client_name points to it, or is NULL */
    struct loop_store *embedded; /* decides without a loop: an embedded store, or a pool; NULL: decisions need a loop */
    PyObject *loops;             /* {loop: struct loop_store} */
    PyObject *local;             /* the fallback store, see local.h; NULL until needed */
    PyObject *counters;          /* of stores whose loops are gone, see loop_store_new_counters */
    PyObject *clock;             /* of options.clock; NULL: none */
    pid_t pid;                   /* the process whose decisions are counted */
    bool closed;
    bool open_failure_logged; /* since the last successful opening */
};

/* The store of this loop; the first call opens it. Returns a new reference, or NULL and an exception. */
struct loop_store *store_on_loop(struct store *self, PyObject *loop);

/* The tp_new of a Store. connections NULL: a Store of event loops; otherwise one for blocking calls. */
PyObject *store_make(PyTypeObject *type, PyObject *args, PyObject *kwargs, const uint32_t *connections);

/* Makes the counters begin at 0 in a child. Call it before the first decision of a process. */
void store_enter_process(struct store *self);

extern PyType_Spec store_spec;

#endif
