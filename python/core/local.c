/* SPDX-License-Identifier: MIT
 * The fallback store: a capture store, and an embedded store that it uses for on_error="local".
 *
 * Each Store has one, and all clients share one. The stores of all loops of a Store use its embedded store, from any
 * thread. Its users hold it in a capsule, which the garbage collector does not traverse and so never clears while it is
 * in use. */
#include "local.h"

#include "capture.h"
#include "convert.h"

#define BUCKETS ((uint32_t)1 << 16) /* the default of the library */

steady_store *local_capture(PyObject *local) { return PyCapsule_GetPointer(local, NULL); }

/* Closes the embedded store, too. */
static void local_end(PyObject *capsule) {
    steady_store *capture = local_capture(capsule);
    steady_store_close(&capture);
}

PyObject *local_get(struct core_state *state, PyObject **place) {
    if (*place != NULL) return Py_NewRef(*place);
    steady_store *capture = capture_open();
    if (capture == NULL) return convert_raise(state, STEADY_NO_MEMORY, NULL);
    PyObject *made = PyCapsule_New(capture, NULL, local_end);
    if (made == NULL) {
        steady_store_close(&capture);
        return NULL;
    }
    if (*place == NULL) *place = Py_NewRef(made); /* else Python code that ran meanwhile made one */
    Py_DECREF(made);
    return Py_NewRef(*place);
}

int local_open(struct core_state *state, PyObject *local, uint32_t buckets) {
    const steady_store_options options = {.buckets = buckets != 0 ? buckets : BUCKETS};
    steady_store *capture = local_capture(local);
    if (capture->local != NULL) return 0;
    steady_store *embedded = NULL;
    const int error = steady_store_open(&embedded, "memory:", &options, NULL);
    if (error != 0) convert_raise(state, error, NULL);
    capture->local = embedded;
    return error != 0 ? -1 : 0;
}

int local_attach(struct loop_store *to, PyObject **place, uint32_t buckets) {
    if (to->local != NULL) return 0;
    PyObject *local = local_get(to->state, place);
    if (local == NULL || local_open(to->state, local, buckets) != 0) {
        Py_XDECREF(local);
        return -1;
    }
    if (to->store == NULL || to->local != NULL) { /* Python code that ran meanwhile closed it, or attached one */
        Py_DECREF(local);
        return 0;
    }
    to->local = local;
    to->store->local = local_capture(local)->local;
    return 0;
}
