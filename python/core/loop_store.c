/* SPDX-License-Identifier: MIT
 * The store of one event loop: its references, its counters, its end. store.c opens it. */
#include "loop_store.h"

#include <stddef.h>

/* ---- Making ---- */

static int loop_store_bind(struct loop_store *self, PyObject *loop) {
    static const char *const add[] = {"add_reader", "add_writer"};
    static const char *const remove[] = {"remove_reader", "remove_writer"};
    self->loop = Py_NewRef(loop);
    for (int i = 0; i < 2; i++) {
        if ((self->add[i] = PyObject_GetAttrString(loop, add[i])) == NULL) return -1;
        if ((self->remove[i] = PyObject_GetAttrString(loop, remove[i])) == NULL) return -1;
    }
    if ((self->call_later = PyObject_GetAttrString(loop, "call_later")) == NULL) return -1;
    return (self->call_soon = PyObject_GetAttrString(loop, "call_soon")) != NULL ? 0 : -1;
}

struct loop_store *loop_store_new(struct core_state *state, PyObject *loop, PyObject *counters) {
    struct loop_store *self = PyObject_GC_New(struct loop_store, state->loop_store_type);
    if (self == NULL) return NULL;
    const size_t head = offsetof(struct loop_store, state);
    memset((char *)self + head, 0, sizeof *self - head);
    self->state = state;
    self->counters = Py_NewRef(counters);
    self->thread = PyThread_get_thread_ident();
    self->pid = state_pid(state);
    PyObject_GC_Track((PyObject *)self);
    if (loop != NULL && loop_store_bind(self, loop) != 0) Py_CLEAR(self);
    return self;
}

int loop_store_loop_is_closed(const struct loop_store *self) {
    PyObject *answer = PyObject_CallMethodNoArgs(self->loop, self->state->is_closed);
    const int closed = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return closed;
}

/* ---- References of the library ---- */

void loop_store_hold(struct loop_store *self, struct held *held, PyObject *object) {
    *held = (struct held){Py_NewRef(object), self->held, &self->held};
    if (held->next != NULL) held->next->link = &held->next;
    self->held = held;
}

void loop_store_release(struct held *held) {
    PyObject *object = held->object;
    *held->link = held->next;
    if (held->next != NULL) held->next->link = held->link;
    held->object = NULL;
    Py_DECREF(object);
}

/* ---- Exceptions without a caller ---- */

void loop_store_report(struct loop_store *self, PyObject *about) {
    PyObject *type, *value, *traceback;
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_WriteUnraisable(about);
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (value != NULL && traceback != NULL) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    Py_XSETREF(self->pending_exception, value);
}

int loop_store_raise_pending(struct loop_store *self) {
    PyObject *exception = self->pending_exception;
    if (exception == NULL) return 0;
    self->pending_exception = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    return -1;
}

void loop_store_log(void *data, enum steady_log_level level, const char *text) {
    struct loop_store *self = data;
    const char *method = level == STEADY_LOG_WARNING ? "warning" : "info";
    PyObject *answer = PyObject_CallMethod(self->state->logger, method, "ss", "%s", text);
    if (answer == NULL) loop_store_report(self, self->state->logger);
    Py_XDECREF(answer);
}

void loop_store_log_without_gil(void *data, enum steady_log_level level, const char *text) {
    struct loop_store *self = data;
    struct gil_released *call = gil_enter();
    if (call == NULL) return;
    loop_store_log(self, level, text);
    if (self->pending_exception != NULL && call->exception == NULL) {
        call->exception = self->pending_exception;
        self->pending_exception = NULL;
    }
    gil_leave(call);
}

/* ---- Blocking calls ---- */

void loop_store_begin_call(struct loop_store *self, struct gil_released *released) {
    released->exception = NULL;
    if (!self->is_pool) return;
    self->waiting++;
    gil_release(released);
}

void loop_store_end_call(struct loop_store *self, struct gil_released *released) {
    if (!self->is_pool) return;
    gil_take(released);
    self->waiting--;
}

/* ---- Counters: those of a Store outlive it, since a store of a loop may be closed later ---- */

static void loop_store_free_counters(PyObject *capsule) { PyMem_Free(PyCapsule_GetPointer(capsule, NULL)); }

PyObject *loop_store_new_counters(void) {
    steady_stats *sum = PyMem_Calloc(1, sizeof *sum);
    if (sum == NULL) return PyErr_NoMemory();
    PyObject *counters = PyCapsule_New(sum, NULL, loop_store_free_counters);
    if (counters == NULL) PyMem_Free(sum);
    return counters;
}

steady_stats *loop_store_counters(PyObject *counters) { return PyCapsule_GetPointer(counters, NULL); }

/* Adds `stats` to *sum, except for `counted`. A number may be lower than before: a closed store forgets its reconnects.
 */
static void loop_store_add_difference(steady_stats *sum, const steady_stats *stats, const steady_stats *counted) {
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *now = (const uint64_t *)stats, *before = (const uint64_t *)counted;
    for (size_t i = 0; i < sizeof *sum / sizeof *to; i++)
        if (now[i] > before[i]) to[i] += now[i] - before[i];
}

void loop_store_add_stats(steady_stats *sum, const struct loop_store *self) {
    steady_stats now;
    steady_store_stats(self->store, &now);
    loop_store_add_difference(sum, &now, &self->counted);
}

void loop_store_skip_counted(struct loop_store *self) { steady_store_stats(self->store, &self->counted); }

/* `store` is the store of `self`, which may be closed and no longer in self->store. A child does not count the
 * decisions of its parent. */
static void loop_store_count_of(struct loop_store *self, const steady_store *store) {
    steady_stats now;
    if (self->loop != NULL && self->pid != state_pid(self->state)) return;
    steady_store_stats(store, &now);
    now.in_flight = 0;
    loop_store_add_difference(loop_store_counters(self->counters), &now, &self->counted);
    self->counted = now;
}

void loop_store_count(struct loop_store *self) { loop_store_count_of(self, self->store); }

/* ---- Closing ---- */

/* Waits for a thread that serves the pool. In a finalized interpreter such a thread may have ended in its call. */
static void loop_store_close_pool(struct loop_store *self, steady_store *store) {
    struct gil_released released;
    if (self->waiting > 0 && gil_is_finalizing()) return;
    loop_store_begin_call(self, &released);
    steady_store_close(&store);
    loop_store_end_call(self, &released);
    if (gil_raise(&released) != 0) loop_store_report(self, self->state->logger);
}

/* Counts twice: closing ends decisions as cancelled, and a closed store forgets its reconnects. */
static void loop_store_close_and_count(struct loop_store *self) {
    steady_store *store = self->store;
    if (store == NULL) return;
    loop_store_count_of(self, store);
    steady__store_hold(store);
    if (self->is_pool) {
        self->store = NULL; /* other threads may run meanwhile */
        loop_store_close_pool(self, store);
    } else {
        steady_store_close(&self->store);
    }
    loop_store_count_of(self, store);
    steady__store_release(store);
}

void loop_store_end(struct loop_store *self) {
    PyObject *type, *value, *traceback;
    self->close_pending = self->calling_loop > 0 && self->pid == state_pid(self->state);
    if (self->close_pending) return;
    PyErr_Fetch(&type, &value, &traceback);
    Py_INCREF(self);
    /* The fallback store is shared, and closing would close it. */
    if (self->local != NULL && self->store != NULL) self->store->local = NULL;
    loop_store_close_and_count(self);
    Py_CLEAR(self->local);
    Py_DECREF(self);
    PyErr_Restore(type, value, traceback);
}

void loop_store_after_call(struct loop_store *self) {
    if (self->close_pending) loop_store_end(self);
}

int loop_store_close(struct loop_store *self) {
    loop_store_end(self);
    return loop_store_raise_pending(self);
}

/* ---- The type ---- */

static PyObject *loop_store_close_method(struct loop_store *self, PyObject *Py_UNUSED(none)) {
    if (loop_store_close(self) != 0) return NULL;
    Py_RETURN_NONE;
}

static void loop_store_finalize(PyObject *self) { loop_store_end((struct loop_store *)self); }

static int loop_store_traverse(struct loop_store *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    for (int i = 0; i < 2; i++) {
        Py_VISIT(self->add[i]);
        Py_VISIT(self->remove[i]);
    }
    Py_VISIT(self->call_later);
    Py_VISIT(self->call_soon);
    Py_VISIT(self->pending_exception);
    for (const struct held *held = self->held; held != NULL; held = held->next)
        Py_VISIT(held->object);
    return 0;
}

static int loop_store_clear(struct loop_store *self) {
    Py_CLEAR(self->loop);
    for (int i = 0; i < 2; i++) {
        Py_CLEAR(self->add[i]);
        Py_CLEAR(self->remove[i]);
    }
    Py_CLEAR(self->call_later);
    Py_CLEAR(self->call_soon);
    Py_CLEAR(self->pending_exception);
    return 0;
}

static void loop_store_dealloc(struct loop_store *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) return;
    PyObject_GC_UnTrack(self);
    loop_store_clear(self);
    Py_DECREF(self->counters);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef loop_store_methods[] = {{"close", (PyCFunction)loop_store_close_method, METH_NOARGS, NULL},
                                           {NULL, NULL, 0, NULL}};

static PyType_Slot loop_store_slots[] = {{Py_tp_finalize, loop_store_finalize}, {Py_tp_traverse, loop_store_traverse},
                                         {Py_tp_clear, loop_store_clear},       {Py_tp_dealloc, loop_store_dealloc},
                                         {Py_tp_methods, loop_store_methods},   {0, NULL}};

PyType_Spec loop_store_spec = {"aiosteady._core.LoopStore", sizeof(struct loop_store), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                                   Py_TPFLAGS_DISALLOW_INSTANTIATION,
                               loop_store_slots};
