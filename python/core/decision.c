/* SPDX-License-Identifier: MIT
 * Decision: what a call to a server awaits. It behaves as a coroutine.
 *
 *     NEW --awaited--> STARTING --> WAITING --> ANSWERED --> OVER   the task gets a Waiter
 *                      STARTING --> OVER                            nothing was submitted
 *
 * A Decision submits nothing before it is awaited. While it is WAITING the library holds a reference, so the Decision
 * always exists when the answer arrives. If the task is cancelled, the library forgets the Decision. Exception: a call
 * that reserves stays in flight, and what it reserved is given back when the answer arrives. The library matches
 * answers to Decisions, so a task never gets the answer of another. The answer is in the Decision and not in the
 * Waiter: an exception that no task fetches is not reported as "never retrieved". */
#include "decision.h"

#include "convert.h"
#include "reservation.h"
#include "result.h"
#include "waiter.h"

struct decision {
    PyObject_HEAD struct core_state *state;
    struct throttler *throttler; /* these three: a call on one bucket without options */
    PyObject *key;
    struct request request;
    struct call *call; /* any other call; NULL: none */
    const char *name;  /* of the method that made it */
    uint64_t id;       /* in the store */
    enum { DECISION_NEW, DECISION_STARTING, DECISION_WAITING, DECISION_ANSWERED, DECISION_OVER } phase;
    bool failed;              /* `answer` is an exception */
    bool counted;             /* by its throttlers */
    struct loop_store *store; /* the store that has the request */
    struct waiter *waiter;    /* wakes the task; NULL: no task waits any more */
    PyObject *answer;
    struct held held; /* the reference of the library while the decision is in flight */
};

/* ---- The answer of the store ---- */

/* Gives back what the answer reserved. Takes the answer, which may be NULL. */
static void decision_drop_answer(struct decision *self, PyObject *answer) {
    PyObject *reservation = answer != NULL && !self->failed ? result_reservation(answer) : NULL;
    if (reservation != NULL) reservation_give_back(self->store, reservation_of(self->state, reservation));
    Py_XDECREF(answer);
}

/* Throttler and call are NULL if it was counted and has ended before. */
static void decision_count(struct decision *self, const steady_result *result) {
    if (self->counted) return;
    self->counted = true;
    if (self->throttler != NULL) tally_plain(&self->throttler->tally, self->request.verb, result);
    if (self->call != NULL) call_count(self->call, 0, result);
}

/* A task of a closed loop cannot be woken. */
static bool decision_is_awaited(struct decision *self, const steady_result *result) {
    if (self->waiter == NULL || self->waiter->done) return false;
    if (result->error != STEADY_CANCELLED) return true;
    const int closed = loop_store_loop_is_closed(self->store);
    if (closed < 0) loop_store_report(self->store, self->store->loop);
    return closed == 0;
}

static PyObject *decision_make_answer(struct decision *self, const steady_result *result) {
    if (!self->failed && self->call != NULL) return call_result(self->call, result);
    if (!self->failed) return result_from(self->state, result, PyTuple_GET_ITEM(self->throttler->names, 0));
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
        decision_drop_answer(self, answer);
        return;
    }
    self->answer = answer;
    self->phase = DECISION_ANSWERED;
    waiter_wake(self->waiter);
}

static void decision_answered(const steady_result *result, void *data) {
    struct decision *self = data;
    decision_count(self, result);
    if (decision_is_awaited(self, result))
        decision_deliver(self, result);
    else if (result->reservation != NULL)
        reservation_give_back(self->store, result->reservation);
    loop_store_release(&self->held);
}

/* ---- Submitting ---- */

static int decision_submit_plain(struct decision *self) {
    static const enum steady_verb verbs[] = {
        [STEADY__CONSUME] = STEADY_CONSUME, [STEADY__PEEK] = STEADY_PEEK, [STEADY__RESET] = STEADY_RESET};
    const char *key = NULL;
    Py_ssize_t len = 0;
    steady_throttler *throttler = binding_on_store(self->throttler, self->store);
    if (throttler == NULL) return STEADY_CLOSED;
    if (convert_key(self->key, &key, &len) != 0) return STEADY_NO_MEMORY; /* it was checked before */
    const steady_call call = {
        .verb = verbs[self->request.verb], .key = key, .key_len = (size_t)len, .amount = self->request.amount};
    return steady_decide(throttler, &call, decision_answered, self, &self->id);
}

static int decision_submit(struct decision *self, steady_message *why) {
    if (!loop_store_is_usable(self->store)) return STEADY_CLOSED; /* by a collection, in waiter_new */
    if (self->store->calling_loop != 0) return STEADY_UNAVAILABLE;
    if (self->call == NULL) return decision_submit_plain(self);
    return call_submit(self->call, self->store, decision_answered, self, &self->id, why);
}

/* Python code that ran meanwhile may have closed the store and freed its throttlers. */
static PyObject *decision_submit_failed(struct decision *self, int error, const char *why) {
    if (PyErr_Occurred()) return NULL;
    if (!loop_store_is_usable(self->store)) return convert_raise(self->state, STEADY_CLOSED, NULL);
    if (error == STEADY_WRONG_THREAD)
        return PyErr_Format(PyExc_RuntimeError,
                            "this event loop ran in another thread before; open a new Store in this thread");
    if (self->call != NULL) return call_policy(self->call, error, why);
    steady_throttler *asked = binding_on_store(self->throttler, self->store);
    return binding_policy(self->throttler, asked, self->request, self->key, error, NULL);
}

static PySendResult decision_submit_to_store(struct decision *self, PyObject **out) {
    steady_message why = {.text = ""};
    if ((self->waiter = waiter_new(self->store)) == NULL) return PYGEN_ERROR;
    PyObject *waiter = Py_NewRef((PyObject *)self->waiter);
    loop_store_hold(self->store, &self->held, (PyObject *)self);
    const int error = decision_submit(self, &why);
    if (error == 0) {
        if (self->phase == DECISION_STARTING) self->phase = DECISION_WAITING;
        *out = waiter;
        loop_store_after_call(self->store);
        return loop_store_raise_pending(self->store) == 0 ? PYGEN_NEXT : PYGEN_ERROR;
    }
    loop_store_after_call(self->store);
    Py_DECREF(waiter);
    loop_store_release(&self->held);
    *out = decision_submit_failed(self, error, why.text);
    return *out != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

/* A new reference. NULL and an exception on failure. */
static struct loop_store *decision_find_store(struct decision *self) {
    if (self->call != NULL) return call_find_store(self->call);
    const struct binding *binding = binding_of_running_loop(self->throttler);
    return binding != NULL ? (struct loop_store *)Py_NewRef((PyObject *)binding->store) : NULL;
}

static PyObject *decision_policy_if_not_opened(struct decision *self) {
    if (self->call == NULL) return binding_policy_if_not_opened(self->throttler, self->request, self->key);
    PyObject *type, *value, *traceback;
    if (!PyErr_ExceptionMatches(self->state->errors[-STEADY_UNAVAILABLE])) return NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *answer = call_policy(self->call, STEADY_UNAVAILABLE, NULL);
    if (answer == NULL) {
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return answer;
}

static PySendResult decision_start(struct decision *self, PyObject **out) {
    char room[STEADY__KEY_MAX];
    const char *key = NULL;
    size_t len = 0;
    self->phase = DECISION_STARTING; /* keeps throttler and key, whatever Python code runs meanwhile */
    self->store = decision_find_store(self);
    if (self->store == NULL) {
        *out = decision_policy_if_not_opened(self);
        return *out != NULL ? PYGEN_RETURN : PYGEN_ERROR;
    }
    if (self->call == NULL && binding_key(self->throttler, self->key, room, &key, &len) != 0) return PYGEN_ERROR;
    return decision_submit_to_store(self, out);
}

/* ---- As a coroutine ---- */

/* If it is in flight, the store forgets it. Not if it reserves: see the top of this file. */
static void decision_cancel(struct decision *self) {
    struct loop_store *store = self->store;
    if (self->held.object == NULL || (self->call != NULL && call_gives_back(self->call))) return;
    if (!loop_store_is_usable(store) || store->calling_loop != 0 || store->thread != PyThread_get_thread_ident())
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    const bool forgotten = store->store->class_->cancel(store->store, self->id);
    loop_store_after_call(store);
    if (forgotten) loop_store_release(&self->held);
    PyErr_Restore(type, value, traceback);
}

/* Drops what it holds. If the answer is still to come, no caller gets it: it counts as unknown. */
static void decision_end(struct decision *self) {
    PyObject *answer = self->answer;
    const bool waiting = self->phase == DECISION_WAITING;
    const steady_result lost = {.error = STEADY_CANCELLED};
    if (self->held.object != NULL && self->phase >= DECISION_WAITING) decision_count(self, &lost);
    self->answer = NULL;
    self->phase = DECISION_OVER;
    decision_drop_answer(self, answer);
    if (waiting) decision_cancel(self);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->key);
    Py_CLEAR(self->throttler);
    Py_CLEAR(self->call);
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

static struct decision *decision_alloc(struct core_state *state) {
    struct decision *self = PyObject_GC_New(struct decision, state->decision_type);
    if (self == NULL) return NULL;
    self->state = state;
    self->throttler = NULL;
    self->key = NULL;
    self->call = NULL;
    self->phase = DECISION_NEW;
    self->failed = self->counted = false;
    self->store = NULL;
    self->waiter = NULL;
    self->answer = NULL;
    self->held.object = NULL;
    PyObject_GC_Track((PyObject *)self);
    return self;
}

PyObject *decision_new(struct throttler *throttler, struct request request, PyObject *key) {
    static const char *const names[] = {"Throttler.consume", "Throttler.peek", "Throttler.reset"};
    struct decision *self = decision_alloc(throttler->state);
    if (self == NULL) return NULL;
    self->name = names[request.verb];
    self->throttler = (struct throttler *)Py_NewRef((PyObject *)throttler);
    self->key = Py_NewRef(key);
    self->request = request;
    return (PyObject *)self;
}

PyObject *decision_of_call(struct call *call) {
    struct decision *self = decision_alloc(call->state);
    if (self == NULL) return NULL;
    self->name = call_name(call);
    self->call = (struct call *)Py_NewRef((PyObject *)call);
    return (PyObject *)self;
}

static int decision_traverse(struct decision *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->throttler);
    Py_VISIT(self->key);
    Py_VISIT(self->call);
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
    return PyUnicode_FromString(self->name);
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
