/* SPDX-License-Identifier: MIT
 * Decision: what consume(), peek() and reset() return; a coroutine in all but its making.
 *
 *     NEW --awaited--> OVER                embedded: the answer is there at once
 *     NEW --awaited--> WAITING --> OVER    a server's: a future of the loop's is handed to the task, which waits for it
 *
 * Nothing is asked before it is awaited. While WAITING the library holds a reference, so that the answer finds the
 * Decision in any case; a task that was cancelled has taken `future` away, or has it done already, and the answer is
 * dropped. Answers are matched to Decisions by the library, so nobody ever gets another's. */
#include "core.h"

/* ---- The answer of a server's store ---- */

static PyObject *exception_of(struct decision *self, const steady_result *result) {
    return core_error(self->state, result->error, steady_store_trouble(self->store->store));
}

static void deliver(struct decision *self, const steady_result *result) {
    struct core_state *state = self->state;
    const bool failed = result->source == STEADY_FROM_NOWHERE;
    PyObject *future = Py_NewRef(self->future);
    PyObject *value = failed ? exception_of(self, result) : core_result(state, result);
    PyObject *answer = NULL;
    if (value != NULL)
        answer = PyObject_CallMethodOneArg(future, failed ? state->set_exception : state->set_result, value);
    if (answer == NULL) PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(answer);
    Py_XDECREF(value);
    Py_DECREF(future);
}

static bool says_yes(PyObject *object, PyObject *method) {
    PyObject *answer = PyObject_CallMethodNoArgs(object, method);
    const bool yes = answer != Py_False;
    if (answer == NULL) PyErr_WriteUnraisable(object);
    Py_XDECREF(answer);
    return yes;
}

/* A closed loop has nobody left to tell. */
static void answered(const steady_result *result, void *data) {
    struct decision *self = data;
    if (self->future != NULL && !says_yes(self->future, self->state->done) &&
        (result->error != STEADY_CANCELLED || !says_yes(self->store->loop, self->state->is_closed)))
        deliver(self, result);
    Py_DECREF(self);
}

/* ---- Asking ---- */

static PyObject *ask_embedded(struct decision *self, steady_throttler *throttler, const char *key, size_t len) {
    steady_result result;
    switch (self->verb) {
    case STEADY__CONSUME: steady_consume_sync(throttler, key, len, self->amount, &result); break;
    case STEADY__PEEK: steady_peek_sync(throttler, key, len, &result); break;
    default: steady_reset_sync(throttler, key, len, &result); break;
    }
    if (result.source == STEADY_FROM_NOWHERE) return core_raise(self->state, result.error, NULL);
    return core_result(self->state, &result);
}

static int submit(struct decision *self, steady_throttler *throttler, const char *key, size_t len) {
    switch (self->verb) {
    case STEADY__CONSUME: return steady_consume(throttler, key, len, self->amount, answered, self);
    case STEADY__PEEK: return steady_peek(throttler, key, len, answered, self);
    default: return steady_reset(throttler, key, len, answered, self);
    }
}

static PyObject *refused_at_once(struct decision *self, steady_throttler *throttler, int error) {
    if (error != STEADY_BAD_ARGUMENT)
        return core_policy(self->throttler, throttler, self->verb, self->key, self->amount, error, NULL);
    PyErr_SetString(PyExc_RuntimeError, "this event loop used to run in another thread; open a new Store there");
    return NULL;
}

static PySendResult ask_server(struct decision *self, steady_throttler *throttler, const char *key, size_t len,
                               PyObject **out) {
    PyObject *future = PyObject_CallNoArgs(self->store->create_future);
    if (future == NULL) return PYGEN_ERROR;
    self->future = future;
    if (self->store->store == NULL) { /* closed by create_future, which is anybody's */
        core_raise(self->state, STEADY_CLOSED, NULL);
        return PYGEN_ERROR;
    }
    if (PyObject_SetAttr(future, self->state->blocking, Py_True) != 0) return PYGEN_ERROR;
    Py_INCREF(self);
    const int error = submit(self, throttler, key, len);
    if (error == 0) {
        self->phase = DECISION_WAITING;
        *out = Py_NewRef(future);
        return PYGEN_NEXT;
    }
    Py_DECREF(self);
    Py_CLEAR(self->future);
    *out = refused_at_once(self, throttler, error);
    return *out != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult start(struct decision *self, PyObject **out) {
    char room[STEADY__KEY_MAX];
    const char *key = NULL;
    size_t len = 0;
    self->phase = DECISION_OVER;
    const struct binding *binding = core_binding(self->throttler);
    if (binding == NULL || core_whole_key(self->throttler, self->key, room, &key, &len) != 0) return PYGEN_ERROR;
    if (binding->store->loop != NULL) {
        self->store = (struct loop_store *)Py_NewRef((PyObject *)binding->store);
        return ask_server(self, binding->throttler, key, len, out);
    }
    *out = ask_embedded(self, binding->throttler, key, len);
    return *out != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

/* ---- As a coroutine ---- */

static PySendResult resume(struct decision *self, PyObject **out) {
    PyObject *future = self->future;
    self->future = NULL;
    self->phase = DECISION_OVER;
    *out = PyObject_CallMethodNoArgs(future, self->state->result);
    Py_DECREF(future);
    return *out != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult step(struct decision *self, PyObject *Py_UNUSED(value), PyObject **out) {
    *out = NULL;
    if (self->phase == DECISION_NEW) return start(self, out);
    if (self->phase == DECISION_WAITING) return resume(self, out);
    PyErr_SetString(PyExc_RuntimeError, "a decision cannot be awaited twice");
    return PYGEN_ERROR;
}

static PyObject *decision_send(struct decision *self, PyObject *value) {
    PyObject *out = NULL;
    if (step(self, value, &out) != PYGEN_RETURN) return out;
    PyErr_SetObject(PyExc_StopIteration, out);
    Py_DECREF(out);
    return NULL;
}

static PyObject *decision_next(struct decision *self) { return decision_send(self, Py_None); }

static void abandon(struct decision *self) {
    self->phase = DECISION_OVER;
    Py_CLEAR(self->future);
}

static PyObject *decision_throw(struct decision *self, PyObject *args) {
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &traceback)) return NULL;
    abandon(self);
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    } else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value);
    } else {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
    }
    return NULL;
}

static PyObject *decision_close(struct decision *self, PyObject *Py_UNUSED(none)) {
    abandon(self);
    Py_RETURN_NONE;
}

/* ---- Life ---- */

PyObject *core_decision(struct throttler *throttler, enum steady__verb verb, PyObject *key, int64_t amount) {
    struct decision *self = PyObject_GC_New(struct decision, throttler->state->decision_type);
    if (self == NULL) return NULL;
    self->state = throttler->state;
    self->throttler = (struct throttler *)Py_NewRef((PyObject *)throttler);
    self->key = Py_NewRef(key);
    self->amount = amount;
    self->verb = verb;
    self->phase = DECISION_NEW;
    self->store = NULL;
    self->future = NULL;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

/* A limit that nobody asked about is no limit. */
static void decision_finalize(PyObject *object) {
    struct decision *self = (struct decision *)object;
    PyObject *type, *value, *traceback;
    if (self->phase != DECISION_NEW) return;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "a decision about %R was never awaited", self->key) < 0)
        PyErr_WriteUnraisable(object);
    PyErr_Restore(type, value, traceback);
}

static int decision_traverse(struct decision *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->throttler);
    Py_VISIT(self->key);
    Py_VISIT(self->store);
    Py_VISIT(self->future);
    return 0;
}

static int decision_clear(struct decision *self) {
    Py_CLEAR(self->throttler);
    Py_CLEAR(self->key);
    Py_CLEAR(self->store);
    Py_CLEAR(self->future);
    self->phase = DECISION_OVER;
    return 0;
}

static void decision_dealloc(struct decision *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->phase == DECISION_NEW && PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) return;
    PyObject_GC_UnTrack(self);
    decision_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {{"send", (PyCFunction)decision_send, METH_O, NULL},
                                {"throw", (PyCFunction)decision_throw, METH_VARARGS, NULL},
                                {"close", (PyCFunction)decision_close, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static PyType_Slot slots[] = {{Py_tp_doc, "A decision; await it."},
                              {Py_tp_finalize, decision_finalize},
                              {Py_tp_traverse, decision_traverse},
                              {Py_tp_clear, decision_clear},
                              {Py_tp_dealloc, decision_dealloc},
                              {Py_tp_iter, PyObject_SelfIter},
                              {Py_tp_iternext, decision_next},
                              {Py_tp_methods, methods},
                              {Py_am_await, PyObject_SelfIter},
#if PY_VERSION_HEX >= 0x030A0000
                              {Py_am_send, step},
#endif
                              {0, NULL}};

PyType_Spec core_decision_spec = {
    "aiosteady._core.Decision", sizeof(struct decision), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
