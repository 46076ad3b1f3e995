/* SPDX-License-Identifier: MIT
 * Decision: what consume(), peek() and reset() of a Throttler on a server await. It behaves as a coroutine.
 *
 *     NEW --awaited--> STARTING --> WAITING --> ANSWERED --> OVER   the task gets a Waiter
 *                      STARTING --> OVER                            nothing was submitted
 *
 * A Decision submits nothing before it is awaited. While it is WAITING the library holds a reference, so the Decision
 * always exists when the answer arrives. If the task was cancelled, `waiter` is NULL or done, and the answer is
 * dropped. The library matches answers to Decisions, so a task never gets the answer of another. The answer is in the
 * Decision and not in the Waiter: an exception that no task fetches is not reported as "never retrieved". */
#include "decision.h"

#include "convert.h"
#include "result.h"
#include "waiter.h"

struct decision {
    PyObject_HEAD struct core_state *state;
    struct throttler *throttler;
    PyObject *key;
    struct request request;
    enum { DECISION_NEW, DECISION_STARTING, DECISION_WAITING, DECISION_ANSWERED, DECISION_OVER } phase;
    bool failed;              /* `answer` is an exception */
    struct loop_store *store; /* the store that has the request */
    struct waiter *waiter;    /* wakes the task; NULL: no task waits any more */
    PyObject *answer;
    struct held held; /* the reference of the library while the decision is in flight */
};

/* ---- The answer of the store ---- */

/* A task of a closed loop cannot be woken. */
static bool decision_is_awaited(struct decision *self, const steady_result *result) {
    if (self->waiter == NULL || self->waiter->done) return false;
    if (result->error != STEADY_CANCELLED) return true;
    const int closed = loop_store_loop_is_closed(self->store);
    if (closed < 0) loop_store_report(self->store, self->store->loop);
    return closed == 0;
}

static PyObject *decision_make_answer(struct decision *self, const steady_result *result) {
    if (!self->failed) return result_from(self->state, result);
    steady_message last;
    steady_store_last_error(self->store->store, &last);
    return convert_error(self->state, result->error, last.text);
}

/* Making an exception may run Python code, which may cancel the task. So the waiter is checked again. */
static void decision_deliver(struct decision *self, const steady_result *result) {
    self->failed = result->source == STEADY_FROM_NOWHERE;
    PyObject *answer = decision_make_answer(self, result);
    if (answer == NULL) PyErr_Clear(); /* no memory: decision_resume raises MemoryError */
    if (self->waiter == NULL || self->waiter->done) {
        Py_XDECREF(answer);
        return;
    }
    self->answer = answer;
    self->phase = DECISION_ANSWERED;
    waiter_wake(self->waiter);
}

static void decision_answered(const steady_result *result, void *data) {
    struct decision *self = data;
    if (decision_is_awaited(self, result)) decision_deliver(self, result);
    loop_store_release(&self->held);
}

/* ---- Submitting ---- */

static int decision_submit(struct decision *self, steady_throttler *throttler, const char *key, size_t len) {
    switch (self->request.verb) {
    case STEADY__CONSUME: return steady_consume(throttler, key, len, self->request.amount, decision_answered, self);
    case STEADY__PEEK: return steady_peek(throttler, key, len, decision_answered, self);
    default: return steady_reset(throttler, key, len, decision_answered, self);
    }
}

/* `throttler` belongs to the store. Python code that ran meanwhile may have closed that store and freed it. */
static PyObject *decision_submit_failed(struct decision *self, steady_throttler *throttler, int error) {
    if (!loop_store_is_usable(self->store)) return convert_raise(self->state, STEADY_CLOSED, NULL);
    if (error != STEADY_WRONG_THREAD)
        return binding_policy(self->throttler, throttler, self->request, self->key, error, NULL);
    PyErr_SetString(PyExc_RuntimeError,
                    "this event loop ran in another thread before; open a new Store in this thread");
    return NULL;
}

static PySendResult decision_submit_to_store(struct decision *self, steady_throttler *throttler, const char *key,
                                             size_t len, PyObject **out) {
    if ((self->waiter = waiter_new(self->store)) == NULL) return PYGEN_ERROR;
    PyObject *waiter = Py_NewRef((PyObject *)self->waiter);
    loop_store_hold(self->store, &self->held, (PyObject *)self);
    int error = loop_store_is_usable(self->store) ? 0 : STEADY_CLOSED; /* by a collection, in waiter_new */
    if (error == 0)
        error = self->store->calling_loop == 0 ? decision_submit(self, throttler, key, len) : STEADY_UNAVAILABLE;
    if (error == 0) {
        if (self->phase == DECISION_STARTING) self->phase = DECISION_WAITING;
        *out = waiter;
        loop_store_after_call(self->store);
        return loop_store_raise_pending(self->store) == 0 ? PYGEN_NEXT : PYGEN_ERROR;
    }
    loop_store_after_call(self->store);
    Py_DECREF(waiter);
    loop_store_release(&self->held);
    *out = decision_submit_failed(self, throttler, error);
    return *out != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult decision_start(struct decision *self, PyObject **out) {
    char room[STEADY__KEY_MAX];
    const char *key = NULL;
    size_t len = 0;
    self->phase = DECISION_STARTING; /* keeps throttler and key, whatever Python code runs meanwhile */
    const struct binding *binding = binding_of_running_loop(self->throttler);
    if (binding == NULL) {
        *out = binding_policy_if_not_opened(self->throttler, self->request, self->key);
        return *out != NULL ? PYGEN_RETURN : PYGEN_ERROR;
    }
    if (binding_key(self->throttler, self->key, room, &key, &len) != 0) return PYGEN_ERROR;
    steady_throttler *throttler = binding_throttler(binding, self->request);
    self->store = (struct loop_store *)Py_NewRef((PyObject *)binding->store);
    return decision_submit_to_store(self, throttler, key, len, out);
}

/* ---- As a coroutine ---- */

/* Drops what it holds. If the decision is in flight, its answer will be dropped. */
static void decision_end(struct decision *self) {
    self->phase = DECISION_OVER;
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->answer);
    Py_CLEAR(self->key);
    Py_CLEAR(self->throttler);
}

static PySendResult decision_resume(struct decision *self, PyObject **out) {
    PyObject *answer = self->answer;
    self->answer = NULL;
    decision_end(self);
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

static PySendResult decision_step(struct decision *self, PyObject *Py_UNUSED(value), PyObject **out) {
    *out = NULL;
    if (self->phase == DECISION_ANSWERED) return decision_resume(self, out);
    if (self->phase != DECISION_NEW) {
        PyErr_SetString(PyExc_RuntimeError, self->phase == DECISION_OVER ? "a decision cannot be awaited twice"
                                                                         : "a decision is being awaited already");
        return PYGEN_ERROR;
    }
    const PySendResult result = decision_start(self, out);
    if (result == PYGEN_ERROR) Py_CLEAR(*out);
    if (result != PYGEN_NEXT) decision_end(self);
    return result;
}

static PyObject *decision_send(struct decision *self, PyObject *value) {
    PyObject *out = NULL;
    if (decision_step(self, value, &out) != PYGEN_RETURN) return out;
    PyErr_SetObject(PyExc_StopIteration, out);
    Py_DECREF(out);
    return NULL;
}

static PyObject *decision_next(struct decision *self) { return decision_send(self, Py_None); }

/* By code that runs inside its start. */
static bool decision_is_starting(const struct decision *self) {
    if (self->phase == DECISION_STARTING) PyErr_SetString(PyExc_ValueError, "the decision is being started");
    return self->phase == DECISION_STARTING;
}

static PyObject *decision_throw(struct decision *self, PyObject *args) {
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &traceback)) return NULL;
    if (decision_is_starting(self)) return NULL;
    decision_end(self);
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    } else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value);
    } else {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
    }
    return NULL;
}

/* Makes `error` the answer. Has no effect unless the decision is in flight and a task awaits it. */
static PyObject *decision_expire(struct decision *self, PyObject *error) {
    if (!PyExceptionInstance_Check(error)) {
        PyErr_SetString(PyExc_TypeError, "the argument of expire must be an exception");
        return NULL;
    }
    if (self->phase == DECISION_WAITING && !self->waiter->done) {
        self->failed = true;
        self->answer = Py_NewRef(error);
        self->phase = DECISION_ANSWERED;
        waiter_wake(self->waiter);
    }
    Py_RETURN_NONE;
}

static PyObject *decision_close(struct decision *self, PyObject *Py_UNUSED(none)) {
    if (decision_is_starting(self)) return NULL;
    decision_end(self);
    Py_RETURN_NONE;
}

/* ---- Life ---- */

PyObject *decision_new(struct throttler *throttler, struct request request, PyObject *key) {
    struct decision *self = PyObject_GC_New(struct decision, throttler->state->decision_type);
    if (self == NULL) return NULL;
    self->state = throttler->state;
    self->throttler = (struct throttler *)Py_NewRef((PyObject *)throttler);
    self->key = Py_NewRef(key);
    self->request = request;
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
    decision_end(self);
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

/* The debug mode of asyncio shows this name. */
static PyObject *decision_name(struct decision *self, void *Py_UNUSED(closure)) {
    static const char *const names[] = {"Throttler.consume", "Throttler.peek", "Throttler.reset"};
    return PyUnicode_FromString(names[self->request.verb]);
}

static PyGetSetDef getters[] = {{"__name__", (getter)decision_name, NULL, NULL, NULL},
                                {"__qualname__", (getter)decision_name, NULL, NULL, NULL},
                                {NULL, NULL, NULL, NULL, NULL}};

static PyMethodDef methods[] = {{"send", (PyCFunction)decision_send, METH_O, NULL},
                                {"throw", (PyCFunction)decision_throw, METH_VARARGS, NULL},
                                {"close", (PyCFunction)decision_close, METH_NOARGS, NULL},
                                {"expire", (PyCFunction)decision_expire, METH_O, NULL},
                                {NULL, NULL, 0, NULL}};

static PyType_Slot slots[] = {{Py_tp_doc, "A decision of a server. Await it once."},
                              {Py_tp_traverse, decision_traverse},
                              {Py_tp_clear, decision_clear},
                              {Py_tp_dealloc, decision_dealloc},
                              {Py_tp_iter, PyObject_SelfIter},
                              {Py_tp_iternext, decision_next},
                              {Py_tp_methods, methods},
                              {Py_tp_getset, getters},
                              {Py_am_await, PyObject_SelfIter},
#if PY_VERSION_HEX >= 0x030A0000
                              {Py_am_send, decision_step},
#endif
                              {0, NULL}};

PyType_Spec decision_spec = {
    "aiosteady._core.Decision", sizeof(struct decision), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
