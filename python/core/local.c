/* SPDX-License-Identifier: MIT
 * The embedded store that stands in for others under on_error="local": one for each Store, and one for all
 * clients of others. The stores of all loops of a Store are lent its one, and ask it in whatever thread they are.
 *
 * Whoever may ask it holds it, as a capsule: an object that no collection of garbage can end while somebody still asks.
 * Of a throttler on it the policy is asked, and nothing else. So the store that "local" falls back to is itself. */
#include "core.h"

#define BUCKETS ((uint32_t)1 << 16) /* as many as the library would give it */

static void end(PyObject *capsule) {
    steady_store *store = PyCapsule_GetPointer(capsule, NULL);
    store->local = NULL;
    steady_store_close(&store);
}

steady_store *core_local_store(PyObject *local) { return PyCapsule_GetPointer(local, NULL); }

PyObject *core_local(struct core_state *state, PyObject **place, uint32_t buckets) {
    const steady_store_options options = {.buckets = buckets != 0 ? buckets : BUCKETS};
    steady_store *store = NULL;
    if (*place != NULL) return Py_NewRef(*place);
    const int error = steady_store_open(&store, "memory:", &options, NULL);
    if (error != 0) return core_raise(state, error, NULL);
    store->local = store;
    PyObject *made = PyCapsule_New(store, NULL, end);
    if (made == NULL) {
        store->local = NULL;
        steady_store_close(&store);
        return NULL;
    }
    if (*place == NULL) *place = Py_NewRef(made); /* else by code that ran meanwhile */
    Py_DECREF(made);
    return Py_NewRef(*place);
}

int core_lend_local(struct store *from, struct loop_store *to) {
    if (to->local != NULL) return 0;
    PyObject *local = core_local(from->state, &from->local, from->options.buckets);
    if (local == NULL) return -1;
    if (to->store == NULL || to->local != NULL) { /* by code that ran meanwhile */
        Py_DECREF(local);
        return 0;
    }
    to->local = local;
    to->store->local = core_local_store(local);
    return 0;
}

void core_return_local(struct loop_store *from) {
    if (from->local != NULL && from->store != NULL) from->store->local = NULL;
}
