/* SPDX-License-Identifier: MIT
 * The fallback store of on_error="local".
 *
 * Each Store has one, and all clients share one. The stores of all loops of a Store use it, from any thread. Its users
 * hold it in a capsule, which the garbage collector does not traverse and so never clears while it is in use. A
 * throttler of this store serves only to apply the policy. So the fallback of this store is the store itself. */
#include "local.h"

#include "convert.h"

#define BUCKETS ((uint32_t)1 << 16) /* the default of the library */

static void local_end(PyObject *capsule) {
    steady_store *store = PyCapsule_GetPointer(capsule, NULL);
    store->local = NULL;
    steady_store_close(&store);
}

steady_store *local_store(PyObject *local) { return PyCapsule_GetPointer(local, NULL); }

PyObject *local_get(struct core_state *state, PyObject **place, uint32_t buckets) {
    const steady_store_options options = {.buckets = buckets != 0 ? buckets : BUCKETS};
    steady_store *store = NULL;
    if (*place != NULL) return Py_NewRef(*place);
    const int error = steady_store_open(&store, "memory:", &options, NULL);
    if (error != 0) return convert_raise(state, error, NULL);
    store->local = store;
    PyObject *made = PyCapsule_New(store, NULL, local_end);
    if (made == NULL) {
        store->local = NULL;
        steady_store_close(&store);
        return NULL;
    }
    if (*place == NULL) *place = Py_NewRef(made); /* else Python code that ran meanwhile made one */
    Py_DECREF(made);
    return Py_NewRef(*place);
}

int local_attach(struct loop_store *to, PyObject **place, uint32_t buckets) {
    if (to->local != NULL) return 0;
    PyObject *local = local_get(to->state, place, buckets);
    if (local == NULL) return -1;
    if (to->store == NULL || to->local != NULL) { /* Python code that ran meanwhile closed it, or attached one */
        Py_DECREF(local);
        return 0;
    }
    to->local = local;
    to->store->local = local_store(local);
    return 0;
}
