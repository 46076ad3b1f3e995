/* SPDX-License-Identifier: MIT
 * Waiter: the object that a Decision yields to its task. It has the part of a Future that a task uses.
 *
 * A Future wakes its task in the next turn of the loop. That turn costs more than the rest of a decision. A Waiter
 * wakes its task at once, inside the callback in which the answer arrives. All calls to the library are allowed there,
 * and what the woken tasks ask goes out in one write.
 *
 * It may do so only in a callback of the loop that runs no task: `in_callback` of the store. It is false while a woken
 * task runs. In all other cases the Waiter uses call_soon: the store is closed, the task is cancelled, or the program
 * is about to end with a pending exception. */
#include "waiter.h"

struct waiter *waiter_new(struct loop_store *store) {
    struct waiter *self = PyObject_GC_New(struct waiter, store->state->waiter_type);
    if (self == NULL) return NULL;
    self->store = (struct loop_store *)Py_NewRef((PyObject *)store);
    self->wakeup = self->context = self->cancel_message = NULL;
    self->blocking = 1;
    self->done = self->cancelled = 0;
    PyObject_GC_Track((PyObject *)self);
    return self;
}

/* ---- Waking ---- */

static PyObject *waiter_call_soon(struct waiter *self, PyObject *wakeup, PyObject *context) {
    PyObject *args[] = {wakeup, (PyObject *)self, context};
    return PyObject_Vectorcall(self->store->call_soon, args, 2, self->store->state->context_only);
}

static PyObject *waiter_call_now(struct waiter *self, PyObject *wakeup, PyObject *context) {
    struct loop_store *store = (struct loop_store *)Py_NewRef((PyObject *)self->store);
    PyObject *answer = NULL;
    if (PyContext_Enter(context) != 0) {
        PyErr_Clear(); /* the context is in use: a callback runs the loop again */
        answer = waiter_call_soon(self, wakeup, context);
    } else {
        store->in_callback = false;
        answer = PyObject_CallOneArg(wakeup, (PyObject *)self);
        store->in_callback = true;
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyContext_Exit(context);
        PyErr_Restore(type, value, traceback);
    }
    Py_DECREF(store);
    return answer;
}

static int waiter_wake_task(struct waiter *self, bool now) {
    PyObject *wakeup = self->wakeup, *context = self->context;
    self->wakeup = self->context = NULL;
    self->done = 1;
    if (wakeup == NULL) return 0;
    PyObject *answer = now ? waiter_call_now(self, wakeup, context) : waiter_call_soon(self, wakeup, context);
    Py_DECREF(wakeup);
    Py_DECREF(context);
    Py_XDECREF(answer);
    return answer != NULL ? 0 : -1;
}

void waiter_wake(struct waiter *self) {
    if (self->done) return;
    Py_INCREF(self);
    if (waiter_wake_task(self, self->store->in_callback && self->store->pending_exception == NULL) != 0)
        loop_store_report(self->store, (PyObject *)self);
    Py_DECREF(self);
}

/* ---- What a task calls ---- */

/* (wakeup, *, context) */
static PyObject *waiter_add_done_callback(struct waiter *self, PyObject *const *args, Py_ssize_t nargs,
                                          PyObject *kwnames) {
    const Py_ssize_t named = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    if (nargs != 1 || named > 1 || self->wakeup != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a decision can wake only one task");
        return NULL;
    }
    self->context = named == 1 ? Py_NewRef(args[1]) : PyContext_CopyCurrent();
    if (self->context == NULL) return NULL;
    self->wakeup = Py_NewRef(args[0]);
    if (self->done && waiter_wake_task(self, false) != 0) return NULL; /* the store was closed in between */
    Py_RETURN_NONE;
}

static PyObject *waiter_cancel(struct waiter *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"msg", NULL};
    PyObject *why = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &why)) return NULL;
    if (self->done) Py_RETURN_FALSE;
    self->cancelled = 1;
    Py_XSETREF(self->cancel_message, why != Py_None ? Py_NewRef(why) : NULL);
    if (waiter_wake_task(self, false) != 0) return NULL;
    Py_RETURN_TRUE;
}

static PyObject *waiter_result(struct waiter *self, PyObject *Py_UNUSED(none)) {
    PyObject *error = self->store->state->cancelled_error;
    if (self->done && !self->cancelled) Py_RETURN_NONE;
    if (!self->done)
        PyErr_SetString(PyExc_RuntimeError, "the store has not answered yet");
    else if (self->cancel_message != NULL)
        PyErr_SetObject(error, self->cancel_message);
    else
        PyErr_SetNone(error);
    return NULL;
}

static PyObject *waiter_done(struct waiter *self, PyObject *Py_UNUSED(none)) { return PyBool_FromLong(self->done); }

static PyObject *waiter_cancelled(struct waiter *self, PyObject *Py_UNUSED(none)) {
    return PyBool_FromLong(self->cancelled);
}

static PyObject *waiter_get_loop(struct waiter *self, PyObject *Py_UNUSED(none)) {
    return Py_NewRef(self->store->loop);
}

/* ---- Life ---- */

static int waiter_traverse(struct waiter *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->store);
    Py_VISIT(self->wakeup);
    Py_VISIT(self->context);
    Py_VISIT(self->cancel_message);
    return 0;
}

/* Keeps the store: methods need it. */
static int waiter_clear(struct waiter *self) {
    Py_CLEAR(self->wakeup);
    Py_CLEAR(self->context);
    Py_CLEAR(self->cancel_message);
    return 0;
}

static void waiter_dealloc(struct waiter *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    waiter_clear(self);
    Py_DECREF(self->store);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"add_done_callback", (PyCFunction)(void (*)(void))waiter_add_done_callback, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"cancel", (PyCFunction)(void (*)(void))waiter_cancel, METH_VARARGS | METH_KEYWORDS, NULL},
    {"result", (PyCFunction)waiter_result, METH_NOARGS, NULL},
    {"done", (PyCFunction)waiter_done, METH_NOARGS, NULL},
    {"cancelled", (PyCFunction)waiter_cancelled, METH_NOARGS, NULL},
    {"get_loop", (PyCFunction)waiter_get_loop, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL}};

static PyMemberDef members[] = {{"_asyncio_future_blocking", T_BOOL, offsetof(struct waiter, blocking), 0, NULL},
                                {NULL, 0, 0, 0, NULL}};

static PyType_Slot slots[] = {{Py_tp_traverse, waiter_traverse}, {Py_tp_clear, waiter_clear},
                              {Py_tp_dealloc, waiter_dealloc},   {Py_tp_methods, methods},
                              {Py_tp_members, members},          {0, NULL}};

PyType_Spec waiter_spec = {
    "aiosteady._core.Waiter", sizeof(struct waiter), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
