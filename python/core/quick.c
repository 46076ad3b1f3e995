/* SPDX-License-Identifier: MIT
 * Quick: the judgement on a request in one call, for a middleware with one policy, one limit and an embedded store. It
 * does what _middleware.py does for any policies: the decision, the Decision object and the rate-limit fields. */
#include "quick.h"

#include <stddef.h>

#include "convert.h"
#include "middleware.h"
#include "result.h"
#include "sender.h"
#include "throttler.h"

struct quick {
    PyObject_HEAD struct core_state *state;
    struct throttler *throttler;
    PyObject *key;           /* of the policy: a function of the scope */
    PyObject *name;          /* of the policy */
    PyObject *decision_type; /* the class Decision of _policy.py */
    int64_t cost;
    int form;               /* -1: no fields */
    PyObject *policy_field; /* the field that is the same in each response; NULL: the form has none */
    PyObject *field_names;  /* a tuple of bytes */
    char *text;             /* room for the values of the fields */
    size_t text_size;
    char *head; /* NAME: */
    size_t head_len;
};

/* ---- One request ---- */

/* The key with the name of the policy before it. NULL: it is not usable. No exception is set. */
static PyObject *quick_whole_key(const struct quick *self, PyObject *key) {
    const char *bytes = NULL;
    Py_ssize_t len = 0, prefix_len = 0;
    if (convert_key(key, &bytes, &len) != 0) {
        PyErr_Clear();
        return NULL;
    }
    if (PyUnicode_AsUTF8AndSize(self->throttler->prefix, &prefix_len) == NULL) PyErr_Clear();
    if (len == 0 || (size_t)(len + prefix_len) + self->head_len > STEADY__KEY_MAX) return NULL;
    PyObject *whole = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)self->head_len + len);
    if (whole == NULL) {
        PyErr_Clear();
        return NULL;
    }
    memcpy(PyBytes_AS_STRING(whole), self->head, self->head_len);
    memcpy(PyBytes_AS_STRING(whole) + self->head_len, bytes, (size_t)len);
    return whole;
}

static PyObject *quick_field(PyObject *name, const steady_http_field *field) {
    PyObject *value = PyBytes_FromStringAndSize(field->value, (Py_ssize_t)field->value_len);
    PyObject *pair = value != NULL ? PyTuple_New(2) : NULL;
    if (pair == NULL) {
        Py_XDECREF(value);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, Py_NewRef(name));
    PyTuple_SET_ITEM(pair, 1, value);
    return pair;
}

/* The fields of a response, or an empty tuple. */
static PyObject *quick_fields(const struct quick *self, PyObject *result) {
    steady_http_policy policy = {.name = self->head, .limit = &self->throttler->limits[0]};
    steady_http_field fields[STEADY_HTTP_FIELDS_MAX] = {{0}};
    if (self->form < 0) return PyTuple_New(0);
    result_fill_policy(result, &policy);
    self->head[self->head_len - 1] = '\0';
    const int n =
        steady_http_fields((enum steady_http_form)self->form, &policy, 1, fields, self->text, self->text_size);
    self->head[self->head_len - 1] = ':';
    if (n < 0) return PyErr_Format(PyExc_ValueError, "the rate-limit fields cannot be made");
    PyObject *made = PyTuple_New(n);
    for (int i = 0; made != NULL && i < n; i++) {
        PyObject *pair = i == 0 && self->policy_field != NULL
                             ? Py_NewRef(self->policy_field)
                             : quick_field(PyTuple_GET_ITEM(self->field_names, i), &fields[i]);
        if (pair == NULL)
            Py_CLEAR(made);
        else
            PyTuple_SET_ITEM(made, i, pair);
    }
    return made;
}

/* Sets an attribute to {name: value}. */
static int quick_set_by_name(const struct quick *self, PyObject *decision, PyObject *attribute, PyObject *value) {
    PyObject *dict = value != NULL ? PyDict_New() : NULL;
    int error = dict != NULL ? PyDict_SetItem(dict, self->name, value) : -1;
    if (error == 0) error = PyObject_GenericSetAttr(decision, attribute, dict);
    Py_XDECREF(dict);
    return error;
}

/* The Decision that allows the request. All other attributes have the defaults of the class. */
static PyObject *quick_decision(const struct quick *self, PyObject *key, PyObject *whole, PyObject *result) {
    PyTypeObject *type = (PyTypeObject *)self->decision_type;
    const char *own = PyBytes_AS_STRING(whole) + self->head_len;
    PyObject *bytes = PyBytes_CheckExact(key)
                          ? Py_NewRef(key)
                          : PyBytes_FromStringAndSize(own, PyBytes_GET_SIZE(whole) - (Py_ssize_t)self->head_len);
    PyObject *decision = type->tp_alloc(type, 0);
    if (decision != NULL && (PyObject_GenericSetAttr(decision, self->state->allowed, Py_True) != 0 ||
                             quick_set_by_name(self, decision, self->state->results, result) != 0 ||
                             quick_set_by_name(self, decision, self->state->keys, bytes) != 0))
        Py_CLEAR(decision);
    Py_XDECREF(bytes);
    return decision;
}

/* Sets scope["state"]["rate_limit"], which handlers read, and scope["aiosteady.asgi"], which nested RateLimits read. */
static int quick_enter(const struct quick *self, PyObject *scope, struct sender *sender) {
    PyObject *state = PyDict_GetItemWithError(scope, self->state->state);
    if (state == NULL && PyErr_Occurred()) return -1;
    PyObject *held = state != NULL ? Py_NewRef(state) : PyDict_New();
    int error = held != NULL ? PyObject_SetItem(held, self->state->rate_limit, sender->decision) : -1;
    if (error == 0 && state == NULL) error = PyDict_SetItem(scope, self->state->state, held);
    if (error == 0) error = PyDict_SetItem(scope, self->state->entry, (PyObject *)sender);
    Py_XDECREF(held);
    return error;
}

/* The Sender of a request that is allowed. Takes the reference of `result`. */
static PyObject *quick_allow(const struct quick *self, PyObject *const *args, PyObject *key, PyObject *whole,
                             PyObject *result) {
    struct sender *sender = sender_new(self->state, args[1], args[2]);
    if (sender == NULL) {
        Py_DECREF(result);
        return NULL;
    }
    sender->result = result;
    if ((sender->fields = quick_fields(self, result)) == NULL ||
        (sender->decision = quick_decision(self, key, whole, result)) == NULL ||
        quick_enter(self, args[0], sender) != 0)
        Py_CLEAR(sender);
    return (PyObject *)sender;
}

/* The whole key. NULL: only _middleware.py can judge the request. No exception is set. */
static PyObject *quick_usable_key(const struct quick *self, PyObject *scope, PyObject *key) {
    if (!PyDict_CheckExact(scope) || (!PyUnicode_CheckExact(key) && !PyBytes_CheckExact(key)) ||
        !throttler_is_embedded(self->throttler))
        return NULL;
    return quick_whole_key(self, key);
}

/* (scope, send, owner). If the request is allowed: a Sender, and the scope has its entries. Otherwise (key, result) for
 * _middleware.py; the result is None if nothing was decided. */
static PyObject *quick_judge(struct quick *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3) return PyErr_Format(PyExc_TypeError, "judge() takes scope, send and owner");
    PyObject *key = PyObject_CallOneArg(self->key, args[0]), *answer = NULL, *result = NULL;
    if (key == NULL) return NULL;
    PyObject *whole = quick_usable_key(self, args[0], key);
    if (whole != NULL && (result = throttler_consume_embedded(self->throttler, whole, self->cost)) == NULL) goto end;
    if (result != NULL && !result_is_from_store(result)) Py_CLEAR(result);
    if (result != NULL && result_is_success(result)) {
        answer = quick_allow(self, args, key, whole, result);
    } else {
        answer = PyTuple_Pack(2, key, result != NULL ? result : Py_None);
        Py_XDECREF(result);
    }
end:
    Py_XDECREF(whole);
    Py_DECREF(key);
    return answer;
}

/* ---- Making ---- */

/* What is the same in each response. */
static int quick_prepare(struct quick *self) {
    steady_http_policy policy = {.name = self->head, .limit = &self->throttler->limits[0], .success = true};
    steady_http_field fields[STEADY_HTTP_FIELDS_MAX] = {{0}};
    self->head[self->head_len - 1] = '\0';
    const int n =
        steady_http_fields((enum steady_http_form)self->form, &policy, 1, fields, self->text, self->text_size);
    self->head[self->head_len - 1] = ':';
    if (n < 0 || (self->field_names = PyTuple_New(n)) == NULL) return -1;
    for (int i = 0; i < n; i++) {
        PyObject *name = PyBytes_FromString(fields[i].name);
        if (name == NULL) return -1;
        PyTuple_SET_ITEM(self->field_names, i, name);
    }
    if (self->form != STEADY_HTTP_DRAFT_11 && self->form != STEADY_HTTP_DRAFT_07) return 0;
    self->policy_field = quick_field(PyTuple_GET_ITEM(self->field_names, 0), &fields[0]);
    return self->policy_field != NULL ? 0 : -1;
}

/* (throttler, key, name, cost, form, decision_type). form: None makes no fields. */
static PyObject *quick_make(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"throttler", "key", "name", "cost", "form", "decision_type", NULL};
    struct core_state *state = state_of(type);
    PyObject *throttler = NULL, *key = NULL, *name = NULL, *cost = NULL, *form = NULL, *decision_type = NULL;
    Py_ssize_t len = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OUOOO!:Quick", names, state->throttler_type, &throttler, &key,
                                     &name, &cost, &form, &PyType_Type, &decision_type) ||
        !binding_is_initialized((struct throttler *)throttler))
        return NULL;
    const char *bytes = PyUnicode_AsUTF8AndSize(name, &len);
    if (bytes == NULL) return NULL;
    struct quick *self = (struct quick *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->state = state;
    self->throttler = (struct throttler *)Py_NewRef(throttler);
    self->key = Py_NewRef(key);
    self->name = Py_NewRef(name);
    self->decision_type = Py_NewRef(decision_type);
    self->head_len = (size_t)len + 1;
    self->text_size = STEADY_HTTP_TEXT_MAX(1, (size_t)len);
    self->head = PyMem_Malloc(self->head_len);
    self->text = PyMem_Malloc(self->text_size);
    if (self->head == NULL || self->text == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    memcpy(self->head, bytes, (size_t)len);
    self->head[len] = ':';
    self->form = form == Py_None ? -1 : middleware_form(form);
    if ((form != Py_None && self->form < 0) || convert_int(cost, "cost", 1, STEADY__AMOUNT_MAX, &self->cost) != 0 ||
        (self->form >= 0 && quick_prepare(self) != 0)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "the rate-limit fields cannot be made");
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* ---- The type ---- */

static int quick_traverse(struct quick *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->throttler);
    Py_VISIT(self->key);
    Py_VISIT(self->decision_type);
    return 0;
}

static int quick_clear(struct quick *self) {
    Py_CLEAR(self->throttler);
    Py_CLEAR(self->key);
    Py_CLEAR(self->decision_type);
    return 0;
}

static void quick_dealloc(struct quick *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    quick_clear(self);
    Py_XDECREF(self->name);
    Py_XDECREF(self->policy_field);
    Py_XDECREF(self->field_names);
    PyMem_Free(self->text);
    PyMem_Free(self->head);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {{"judge", (PyCFunction)(void (*)(void))quick_judge, METH_FASTCALL,
                                 "judge($self, scope, send, owner, /)\n--\n\nReturns a Sender, or (key, result)."},
                                {NULL, NULL, 0, NULL}};

static PyType_Slot slots[] = {{Py_tp_doc, "The judgement on a request in one call."},
                              {Py_tp_new, quick_make},
                              {Py_tp_traverse, quick_traverse},
                              {Py_tp_clear, quick_clear},
                              {Py_tp_dealloc, quick_dealloc},
                              {Py_tp_methods, methods},
                              {0, NULL}};

PyType_Spec quick_spec = {"aiosteady._core.Quick", sizeof(struct quick), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, slots};
