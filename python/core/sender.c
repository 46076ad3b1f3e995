/* SPDX-License-Identifier: MIT
 * Sender: what an application calls in place of `send`, so that its response gets the rate-limit fields.
 *
 * A coroutine function around `send` would cost as much as the decision, twice for each response. A Sender returns the
 * awaitable of `send` itself. */
#include "sender.h"

#include <stddef.h>

struct sender *sender_new(struct core_state *state, PyObject *send, PyObject *owner) {
    struct sender *self = PyObject_GC_New(struct sender, state->sender_type);
    if (self == NULL) return NULL;
    self->state = state;
    self->send = Py_NewRef(send);
    Py_XINCREF(owner);
    self->owner = owner;
    self->fields = self->result = self->decision = self->collected = NULL;
    PyObject_GC_Track((PyObject *)self);
    return self;
}

/* (send, collected) */
static PyObject *sender_make(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"send", "collected", NULL};
    PyObject *send = NULL, *collected = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:Sender", names, &send, &collected)) return NULL;
    struct sender *self = sender_new(state_of(type), send, NULL);
    if (self != NULL) self->collected = Py_NewRef(collected);
    return (PyObject *)self;
}

/* The RequestFields. Borrowed; NULL and an exception on failure. */
static PyObject *sender_open(struct sender *self) {
    if (self->collected == NULL)
        self->collected = PyObject_CallMethodObjArgs(self->owner, self->state->collected, self->result, NULL);
    return self->collected;
}

/* ---- The headers of a response ---- */

static bool sender_is_same_name(const char *ours, const char *theirs, Py_ssize_t len) {
    for (Py_ssize_t i = 0; i < len; i++)
        if (ours[i] != Py_TOLOWER(theirs[i])) return false;
    return true;
}

/* Whether `header` is a pair of bytes, and its name is none of our fields. */
static bool sender_may_precede(const struct sender *self, PyObject *header) {
    PyObject *name = NULL;
    if (PyTuple_CheckExact(header) && PyTuple_GET_SIZE(header) == 2)
        name = PyTuple_GET_ITEM(header, 0);
    else if (PyList_CheckExact(header) && PyList_GET_SIZE(header) == 2)
        name = PyList_GET_ITEM(header, 0);
    if (name == NULL || !PyBytes_CheckExact(name)) return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->fields); i++) {
        PyObject *ours = PyTuple_GET_ITEM(PyTuple_GET_ITEM(self->fields, i), 0);
        const Py_ssize_t len = PyBytes_GET_SIZE(ours);
        if (len == PyBytes_GET_SIZE(name) && sender_is_same_name(PyBytes_AS_STRING(ours), PyBytes_AS_STRING(name), len))
            return false;
    }
    return true;
}

/* The headers with our fields at their end. NULL without an exception: only Python code can merge them. */
static PyObject *sender_append(const struct sender *self, PyObject *headers) {
    const Py_ssize_t n = headers == NULL ? 0 : PySequence_Fast_GET_SIZE(headers), more = PyTuple_GET_SIZE(self->fields);
    for (Py_ssize_t i = 0; i < n; i++)
        if (!sender_may_precede(self, PySequence_Fast_GET_ITEM(headers, i))) return NULL;
    PyObject *merged = PyList_New(n + more);
    for (Py_ssize_t i = 0; merged != NULL && i < n + more; i++)
        PyList_SET_ITEM(
            merged, i, Py_NewRef(i < n ? PySequence_Fast_GET_ITEM(headers, i) : PyTuple_GET_ITEM(self->fields, i - n)));
    return merged;
}

/* A message with other headers. Takes the reference of `headers`, which may be NULL. */
static PyObject *sender_with_headers(const struct sender *self, PyObject *message, PyObject *headers) {
    PyObject *copy = headers != NULL ? PyDict_Copy(message) : NULL;
    if (copy != NULL && PyDict_SetItem(copy, self->state->headers, headers) != 0) Py_CLEAR(copy);
    Py_XDECREF(headers);
    return copy;
}

/* The message with our fields. */
static PyObject *sender_merge(struct sender *self, PyObject *message) {
    if (self->fields != NULL && self->collected == NULL && PyDict_CheckExact(message)) {
        PyObject *headers = PyDict_GetItemWithError(message, self->state->headers);
        if (headers == NULL && PyErr_Occurred()) return NULL;
        if (headers == NULL || PyList_CheckExact(headers) || PyTuple_CheckExact(headers)) {
            PyObject *merged = sender_append(self, headers);
            if (merged != NULL || PyErr_Occurred()) return sender_with_headers(self, message, merged);
        }
    }
    PyObject *collected = sender_open(self);
    return collected != NULL ? PyObject_CallMethodObjArgs(collected, self->state->with_fields, message, NULL) : NULL;
}

/* 1 if the message begins a response. */
static int sender_is_start(const struct sender *self, PyObject *message) {
    PyObject *type = PyObject_GetItem(message, self->state->type);
    int is_start = type != NULL ? 0 : -1;
    for (size_t i = 0; is_start == 0 && i < sizeof self->state->starts / sizeof self->state->starts[0]; i++) {
        PyObject *start = self->state->starts[i];
        if (type == start)
            is_start = 1;
        else if (!PyUnicode_CheckExact(type) || PyUnicode_GET_LENGTH(type) == PyUnicode_GET_LENGTH(start))
            is_start = PyObject_RichCompareBool(type, start, Py_EQ);
    }
    Py_XDECREF(type);
    return is_start;
}

static PyObject *sender_call(struct sender *self, PyObject *args, PyObject *kwargs) {
    PyObject *message = NULL;
    static char *names[] = {"message", NULL};
    if (kwargs == NULL && PyTuple_GET_SIZE(args) == 1)
        message = PyTuple_GET_ITEM(args, 0);
    else if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:send", names, &message))
        return NULL;
    const int is_start = sender_is_start(self, message);
    if (is_start < 0) return NULL;
    if (is_start == 0) return PyObject_CallOneArg(self->send, message);
    PyObject *merged = sender_merge(self, message);
    PyObject *awaitable = merged != NULL ? PyObject_CallOneArg(self->send, merged) : NULL;
    Py_XDECREF(merged);
    return awaitable;
}

/* ---- The type ---- */

static int sender_traverse(struct sender *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->send);
    Py_VISIT(self->owner);
    Py_VISIT(self->fields);
    Py_VISIT(self->result);
    Py_VISIT(self->decision);
    Py_VISIT(self->collected);
    return 0;
}

static int sender_clear(struct sender *self) {
    Py_CLEAR(self->send);
    Py_CLEAR(self->owner);
    Py_CLEAR(self->fields);
    Py_CLEAR(self->result);
    Py_CLEAR(self->decision);
    Py_CLEAR(self->collected);
    return 0;
}

static void sender_dealloc(struct sender *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    sender_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"result", T_OBJECT, offsetof(struct sender, result), READONLY, "The result of the only policy; None: not known."},
    {"decision", T_OBJECT, offsetof(struct sender, decision), READONLY,
     "None: the request is denied, or not judged yet."},
    {NULL, 0, 0, 0, NULL}};

static PyObject *sender_get_collected(struct sender *self, void *Py_UNUSED(closure)) {
    PyObject *collected = sender_open(self);
    Py_XINCREF(collected);
    return collected;
}

static PyGetSetDef getters[] = {{"collected", (getter)sender_get_collected, NULL, "The RequestFields.", NULL},
                                {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot slots[] = {{Py_tp_doc, "The `send` of an application behind a RateLimit."},
                              {Py_tp_new, sender_make},
                              {Py_tp_call, sender_call},
                              {Py_tp_traverse, sender_traverse},
                              {Py_tp_clear, sender_clear},
                              {Py_tp_dealloc, sender_dealloc},
                              {Py_tp_members, members},
                              {Py_tp_getset, getters},
                              {0, NULL}};

PyType_Spec sender_spec = {"aiosteady._core.Sender", sizeof(struct sender), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, slots};
