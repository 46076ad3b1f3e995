/* SPDX-License-Identifier: MIT
 * Decision: what consume(), peek() and reset() of a Throttler on a server await; a coroutine in all but its making.
 *
 *     NEW --awaited--> STARTING --> WAITING --> ANSWERED --> OVER   the task is handed a Waiter
 *                      STARTING --> OVER                            it could not be asked
 *
 * Nothing is asked before it is awaited. While WAITING the library holds a reference, so that the answer finds the
 * Decision in any case. Where the task was cancelled, `waiter` is gone or done, and the answer is dropped. Answers are
 * matched to Decisions by the library, so nobody ever gets another's. The Waiter only wakes the task: what it wakes to
 * is in the Decision, so an answer that nobody comes for is no "exception that was never retrieved". */
#include "core.h"

/* ---- The answer of a server's store ---- */

static bool loop_is_closed(struct loop_store *store) {
    PyObject *answer = PyObject_CallMethodNoArgs(store->loop, store->state->is_closed);
    const bool closed = answer != Py_False;
    if (answer == NULL) core_complain(store, store->loop);
    Py_XDECREF(answer);
    return closed;
}

/* A closed loop has nobody left to tell. */
static bool is_awaited(struct decision *self, const steady_result *result) {
    if (self->waiter == NULL || self->waiter->done) return false;
    return result->error != STEADY_CANCELLED || !loop_is_closed(self->store);
}

static PyObject *answer_of(struct decision *self, const steady_result *result) {
    if (!self->failed) return core_result(self->state, result);
    return core_error(self->state, result->error, steady_store_trouble(self->store->store));
}

/* Making an exception may run any code, and so end what waited for it. */
static void tell(struct decision *self, const steady_result *result) {
    self->failed = result->source == STEADY_FROM_NOWHERE;
    PyObject *answer = answer_of(self, result);
    if (answer == NULL) PyErr_Clear(); /* no memory: resume says so */
    if (self->waiter == NULL || self->waiter->done) {
        Py_XDECREF(answer);
        return;
    }
    self->answer = answer;
    self->phase = DECISION_ANSWERED;
    core_waiter_wake(self->waiter);
}

static void answered(const steady_result *result, void *data) {
    struct decision *self = data;
    if (is_awaited(self, result)) tell(self, result);
    core_let_go(&self->held);
}

/* ---- Asking ---- */

static int submit(struct decision *self, steady_throttler *throttler, const char *key, size_t len) {
    switch (self->question.verb) {
    case STEADY__CONSUME: return steady_consume(throttler, key, len, self->question.amount, answered, self);
    case STEADY__PEEK: return steady_peek(throttler, key, len, answered, self);
    default: return steady_reset(throttler, key, len, answered, self);
    }
}

/* `throttler` goes with the store, which code that ran meanwhile may have closed. */
static PyObject *refused_at_once(struct decision *self, steady_throttler *throttler, int error) {
    if (!core_is_usable(self->store)) return core_raise(self->state, STEADY_CLOSED, NULL);
    if (error != STEADY_WRONG_THREAD)
        return core_policy(self->throttler, throttler, self->question, self->key, error, NULL);
    PyErr_SetString(PyExc_RuntimeError, "this event loop used to run in another thread; open a new Store there");
    return NULL;
}

static PySendResult ask_server(struct decision *self, steady_throttler *throttler, const char *key, size_t len,
                               PyObject **out) {
    if ((self->waiter = core_waiter(self->store)) == NULL) return PYGEN_ERROR;
    PyObject *waiter = Py_NewRef((PyObject *)self->waiter);
    core_hold(self->store, &self->held, (PyObject *)self);
    int error = core_is_usable(self->store) ? 0 : STEADY_CLOSED; /* by a collection, in core_waiter */
    if (error == 0) error = self->store->asking == 0 ? submit(self, throttler, key, len) : STEADY_UNAVAILABLE;
    if (error == 0) {
        if (self->phase == DECISION_STARTING) self->phase = DECISION_WAITING;
        *out = waiter;
        core_left(self->store);
        return core_raise_kept(self->store) == 0 ? PYGEN_NEXT : PYGEN_ERROR;
    }
    core_left(self->store);
    Py_DECREF(waiter);
    core_let_go(&self->held);
    *out = refused_at_once(self, throttler, error);
    return *out != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult start(struct decision *self, PyObject **out) {
    char room[STEADY__KEY_MAX];
    const char *key = NULL;
    size_t len = 0;
    self->phase = DECISION_STARTING; /* and so nobody lets go of throttler and key, whatever code runs meanwhile */
    const struct binding *binding = core_binding(self->throttler);
    if (binding == NULL) {
        *out = core_policy_unopened(self->throttler, self->question, self->key);
        return *out != NULL ? PYGEN_RETURN : PYGEN_ERROR;
    }
    if (core_whole_key(self->throttler, self->key, room, &key, &len) != 0) return PYGEN_ERROR;
    steady_throttler *throttler = core_whom(binding, self->question);
    self->store = (struct loop_store *)Py_NewRef((PyObject *)binding->store);
    return ask_server(self, throttler, key, len, out);
}

/* ---- As a coroutine ---- */

/* Nobody waits for it any more: what it holds may live on, and it may go on waiting without. */
static void let_go(struct decision *self) {
    self->phase = DECISION_OVER;
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->answer);
    Py_CLEAR(self->key);
    Py_CLEAR(self->throttler);
}

static PySendResult resume(struct decision *self, PyObject **out) {
    PyObject *answer = self->answer;
    self->answer = NULL;
    let_go(self);
    if (answer != NULL && !self->failed) {
        *out = answer;
        return PYGEN_RETURN;
    }
    if (answer == NULL)
        PyErr_NoMemory();
    else
        PyErr_SetObject((PyObject *)Py_TYPE(answer), answer);
    Py_XDECREF(answer);
    return PYGEN_ERROR;
}

static PySendResult step(struct decision *self, PyObject *Py_UNUSED(value), PyObject **out) {
    *out = NULL;
    if (self->phase == DECISION_ANSWERED) return resume(self, out);
    if (self->phase != DECISION_NEW) {
        PyErr_SetString(PyExc_RuntimeError, self->phase == DECISION_OVER ? "a decision cannot be awaited twice"
                                                                         : "a decision is being awaited already");
        return PYGEN_ERROR;
    }
    const PySendResult result = start(self, out);
    if (result == PYGEN_ERROR) Py_CLEAR(*out);
    if (result != PYGEN_NEXT) let_go(self);
    return result;
}

static PyObject *decision_send(struct decision *self, PyObject *value) {
    PyObject *out = NULL;
    if (step(self, value, &out) != PYGEN_RETURN) return out;
    PyErr_SetObject(PyExc_StopIteration, out);
    Py_DECREF(out);
    return NULL;
}

static PyObject *decision_next(struct decision *self) { return decision_send(self, Py_None); }

/* By code that runs inside its start. */
static bool is_starting(const struct decision *self) {
    if (self->phase == DECISION_STARTING) PyErr_SetString(PyExc_ValueError, "the decision is being started");
    return self->phase == DECISION_STARTING;
}

static PyObject *decision_throw(struct decision *self, PyObject *args) {
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &traceback)) return NULL;
    if (is_starting(self)) return NULL;
    let_go(self);
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    } else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value);
    } else {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
    }
    return NULL;
}

/* Ends it with an exception, as if that were the answer. One that is not in flight, or not awaited, stays as it is. */
static PyObject *decision_expire(struct decision *self, PyObject *error) {
    if (!PyExceptionInstance_Check(error)) {
        PyErr_SetString(PyExc_TypeError, "a decision expires with an exception");
        return NULL;
    }
    if (self->phase == DECISION_WAITING && !self->waiter->done) {
        self->failed = true;
        self->answer = Py_NewRef(error);
        self->phase = DECISION_ANSWERED;
        core_waiter_wake(self->waiter);
    }
    Py_RETURN_NONE;
}

static PyObject *decision_close(struct decision *self, PyObject *Py_UNUSED(none)) {
    if (is_starting(self)) return NULL;
    let_go(self);
    Py_RETURN_NONE;
}

/* ---- Life ---- */

PyObject *core_decision(struct throttler *throttler, struct question question, PyObject *key) {
    struct decision *self = PyObject_GC_New(struct decision, throttler->state->decision_type);
    if (self == NULL) return NULL;
    self->state = throttler->state;
    self->throttler = (struct throttler *)Py_NewRef((PyObject *)throttler);
    self->key = Py_NewRef(key);
    self->question = question;
    self->phase = DECISION_NEW;
    self->failed = false;
    self->store = NULL;
    self->waiter = NULL;
    self->answer = NULL;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int decision_traverse(struct decision *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->throttler);
    Py_VISIT(self->key);
    Py_VISIT(self->store);
    Py_VISIT(self->waiter);
    Py_VISIT(self->answer);
    return 0;
}

static int decision_clear(struct decision *self) {
    let_go(self);
    Py_CLEAR(self->store);
    return 0;
}

static void decision_dealloc(struct decision *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    decision_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* What asyncio's debug mode shows of a coroutine. */
static PyObject *decision_name(struct decision *self, void *Py_UNUSED(closure)) {
    static const char *const names[] = {"Throttler.consume", "Throttler.peek", "Throttler.reset"};
    return PyUnicode_FromString(names[self->question.verb]);
}

static PyGetSetDef getters[] = {{"__name__", (getter)decision_name, NULL, NULL, NULL},
                                {"__qualname__", (getter)decision_name, NULL, NULL, NULL},
                                {NULL, NULL, NULL, NULL, NULL}};

static PyMethodDef methods[] = {{"send", (PyCFunction)decision_send, METH_O, NULL},
                                {"throw", (PyCFunction)decision_throw, METH_VARARGS, NULL},
                                {"close", (PyCFunction)decision_close, METH_NOARGS, NULL},
                                {"expire", (PyCFunction)decision_expire, METH_O, NULL},
                                {NULL, NULL, 0, NULL}};

static PyType_Slot slots[] = {{Py_tp_doc, "A decision; await it."},
                              {Py_tp_traverse, decision_traverse},
                              {Py_tp_clear, decision_clear},
                              {Py_tp_dealloc, decision_dealloc},
                              {Py_tp_iter, PyObject_SelfIter},
                              {Py_tp_iternext, decision_next},
                              {Py_tp_methods, methods},
                              {Py_tp_getset, getters},
                              {Py_am_await, PyObject_SelfIter},
#if PY_VERSION_HEX >= 0x030A0000
                              {Py_am_send, step},
#endif
                              {0, NULL}};

PyType_Spec core_decision_spec = {
    "aiosteady._core.Decision", sizeof(struct decision), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
