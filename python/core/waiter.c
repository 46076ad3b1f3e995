/* SPDX-License-Identifier: MIT
 * Waiter: what a Decision hands to the task that awaits it; as much of a future as a task asks for.
 *
 * It may wake its task where the answer arrives, in the loop's own callback, and not one turn of the loop later, as a
 * future does: that turn costs more than all the rest of a decision. So what the task does next is done inside the
 * library's callback, where every call is allowed, and what all tasks ask there goes out in one piece.
 *
 * `at_top` of the store says where that may be: in a callback of the loop, which runs no task, and not in what a task
 * does that was woken there. Everywhere else (a store is closed, a task is cancelled), and once the program is to stop,
 * the loop is asked to call soon. */
#include "core.h"

struct waiter *core_waiter(struct loop_store *store) {
    struct waiter *self = PyObject_GC_New(struct waiter, store->state->waiter_type);
    if (self == NULL) return NULL;
    self->store = (struct loop_store *)Py_NewRef((PyObject *)store);
    self->wakeup = self->context = self->why = NULL;
    self->blocking = 1;
    self->done = self->cancelled = 0;
    PyObject_GC_Track((PyObject *)self);
    return self;
}

/* ---- Waking ---- */

static PyObject *call_soon(struct waiter *self, PyObject *wakeup, PyObject *context) {
    PyObject *args[] = {wakeup, (PyObject *)self, context};
    return PyObject_Vectorcall(self->store->call_soon, args, 2, self->store->state->context_only);
}

static PyObject *call_now(struct waiter *self, PyObject *wakeup, PyObject *context) {
    struct loop_store *store = (struct loop_store *)Py_NewRef((PyObject *)self->store);
    PyObject *answer = NULL;
    if (PyContext_Enter(context) != 0) {
        PyErr_Clear(); /* somebody is in there: a callback that runs the loop */
        answer = call_soon(self, wakeup, context);
    } else {
        store->at_top = false;
        answer = PyObject_CallOneArg(wakeup, (PyObject *)self);
        store->at_top = true;
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyContext_Exit(context);
        PyErr_Restore(type, value, traceback);
    }
    Py_DECREF(store);
    return answer;
}

static int wake(struct waiter *self, bool now) {
    PyObject *wakeup = self->wakeup, *context = self->context;
    self->wakeup = self->context = NULL;
    self->done = 1;
    if (wakeup == NULL) return 0;
    PyObject *answer = now ? call_now(self, wakeup, context) : call_soon(self, wakeup, context);
    Py_DECREF(wakeup);
    Py_DECREF(context);
    Py_XDECREF(answer);
    return answer != NULL ? 0 : -1;
}

void core_waiter_wake(struct waiter *self) {
    if (self->done) return;
    Py_INCREF(self);
    if (wake(self, self->store->at_top && self->store->interrupt == NULL) != 0)
        core_complain(self->store, (PyObject *)self);
    Py_DECREF(self);
}

/* ---- What a task calls ---- */

/* (wakeup, *, context) */
static PyObject *waiter_add_done_callback(struct waiter *self, PyObject *const *args, Py_ssize_t nargs,
                                          PyObject *kwnames) {
    const Py_ssize_t named = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    if (nargs != 1 || named > 1 || self->wakeup != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a decision wakes one task");
        return NULL;
    }
    self->context = named == 1 ? Py_NewRef(args[1]) : PyContext_CopyCurrent();
    if (self->context == NULL) return NULL;
    self->wakeup = Py_NewRef(args[0]);
    if (self->done && wake(self, false) != 0) return NULL; /* the store was closed meanwhile */
    Py_RETURN_NONE;
}

static PyObject *waiter_cancel(struct waiter *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"msg", NULL};
    PyObject *why = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &why)) return NULL;
    if (self->done) Py_RETURN_FALSE;
    self->cancelled = 1;
    Py_XSETREF(self->why, why != Py_None ? Py_NewRef(why) : NULL);
    if (wake(self, false) != 0) return NULL;
    Py_RETURN_TRUE;
}

static PyObject *waiter_result(struct waiter *self, PyObject *Py_UNUSED(none)) {
    PyObject *error = self->store->state->cancelled_error;
    if (self->done && !self->cancelled) Py_RETURN_NONE;
    if (!self->done)
        PyErr_SetString(PyExc_RuntimeError, "the decision is not made yet");
    else if (self->why != NULL)
        PyErr_SetObject(error, self->why);
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
    Py_VISIT(self->why);
    return 0;
}

/* The store stays: methods need it. */
static int waiter_clear(struct waiter *self) {
    Py_CLEAR(self->wakeup);
    Py_CLEAR(self->context);
    Py_CLEAR(self->why);
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

PyType_Spec core_waiter_spec = {
    "aiosteady._core.Waiter", sizeof(struct waiter), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
