/* SPDX-License-Identifier: MIT
 * ThrottleResult: the outcome of a decision. It has the four fields of aiosteady 22.1.0, and retry_after, source and
 * error. */
#include "result.h"

#include <stddef.h>

/* Times are stored as C doubles. A getter makes the Python object. */
struct result {
    PyObject_HEAD long long level;
    double until_next_drop;
    double blocked_for;
    double retry_after;
    bool success;
    bool blocked;   /* false: blocked_for is None */
    bool may_retry; /* false: retry_after is None */
    signed char source;
    signed char error;
};

static const char *const sources[] = {"nowhere", "store", "policy", "local"};

static double result_seconds(steady_us us) { return (double)us / 1e6; }

PyObject *result_from(struct core_state *state, const steady_result *from) {
    struct result *self = PyObject_New(struct result, state->result_type);
    if (self == NULL) return NULL;
    self->level = from->level;
    self->until_next_drop = result_seconds(from->until_next_drop);
    self->blocked_for = result_seconds(from->blocked_for);
    self->retry_after = result_seconds(from->retry_after);
    self->success = from->success;
    self->blocked = from->blocked_for > 0;
    self->may_retry = from->retry_after >= 0;
    self->source = (signed char)from->source;
    self->error = (signed char)from->error;
    return (PyObject *)self;
}

/* ---- Fields ---- */

static PyObject *result_optional(bool there, double value) {
    return there ? PyFloat_FromDouble(value) : Py_NewRef(Py_None);
}

static PyObject *result_get_blocked_for(struct result *self, void *Py_UNUSED(closure)) {
    return result_optional(self->blocked, self->blocked_for);
}

static PyObject *result_get_retry_after(struct result *self, void *Py_UNUSED(closure)) {
    return result_optional(self->may_retry, self->retry_after);
}

static PyObject *result_get_source(struct result *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(sources[self->source]);
}

static PyObject *result_get_error(struct result *self, void *Py_UNUSED(closure)) {
    return self->error == 0 ? Py_NewRef(Py_None) : PyUnicode_FromString(steady_error_name(self->error));
}

static PyMemberDef members[] = {
    {"success", T_BOOL, offsetof(struct result, success), READONLY,
     "True if the drops were charged; from peek(), if one drop would fit."},
    {"level", T_LONGLONG, offsetof(struct result, level), READONLY, "The drops in the bucket after the call."},
    {"until_next_drop", T_DOUBLE, offsetof(struct result, until_next_drop), READONLY,
     "The seconds until the next drop leaks."},
    {NULL, 0, 0, 0, NULL}};

static PyGetSetDef getters[] = {
    {"blocked_for", (getter)result_get_blocked_for, NULL,
     "The seconds until the block ends; None if the key is not blocked.", NULL},
    {"retry_after", (getter)result_get_retry_after, NULL,
     "The seconds until the same call can succeed; 1.0 if the policy denied it; None if it can never succeed.", NULL},
    {"source", (getter)result_get_source, NULL,
     "The origin of the answer: \"store\", \"policy\", or \"local\" for the local bucket.", NULL},
    {"error", (getter)result_get_error, NULL,
     "The name of the error for which the store gave no verdict; None if it gave one.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

/* ---- The constructor ---- */

static int result_read_optional(PyObject *object, bool *there, double *value) {
    *there = object != Py_None;
    *value = *there ? PyFloat_AsDouble(object) : 0;
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

static int result_bad_word(const char *format, const char *name) {
    char shown[100];
    steady_quote(shown, sizeof shown, name);
    PyErr_Format(PyExc_ValueError, format, shown);
    return -1;
}

static int result_read_source(const char *name, signed char *source) {
    for (size_t i = 1; i < sizeof sources / sizeof sources[0]; i++) {
        if (strcmp(name, sources[i]) != 0) continue;
        *source = (signed char)i;
        return 0;
    }
    return result_bad_word("source is '%s'; it must be 'store', 'policy' or 'local'", name);
}

static int result_read_error(const char *name, signed char *error) {
    *error = 0;
    if (name == NULL) return 0;
    for (int i = 1; i < AIOSTEADY_ERROR_COUNT; i++)
        if (strcmp(name, steady_error_name(-i)) == 0) *error = (signed char)-i;
    if (*error != 0) return 0;
    return result_bad_word("error is '%s'; it must be the name of an error of aiosteady", name);
}

static PyObject *result_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"success",     "level",  "until_next_drop", "blocked_for",
                            "retry_after", "source", "error",           NULL};
    struct result read = {0};
    PyObject *blocked_for = NULL, *retry_after = Py_None;
    const char *source = "store", *error = NULL;
    int success = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "pLdO|Osz:ThrottleResult", names, &success, &read.level,
                                     &read.until_next_drop, &blocked_for, &retry_after, &source, &error) ||
        result_read_optional(blocked_for, &read.blocked, &read.blocked_for) < 0 ||
        result_read_optional(retry_after, &read.may_retry, &read.retry_after) < 0 ||
        result_read_source(source, &read.source) < 0 || result_read_error(error, &read.error) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return NULL; /* its text would quote the argument */
        PyErr_Clear();
        PyErr_SetString(PyExc_ValueError, "source or error holds a lone surrogate, which UTF-8 cannot encode");
        return NULL;
    }
    struct result *self = PyObject_New(struct result, type);
    if (self == NULL) return NULL;
    const size_t head = offsetof(struct result, level);
    memcpy((char *)self + head, (char *)&read + head, sizeof read - head);
    self->success = success != 0;
    return (PyObject *)self;
}

static void result_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *result_reduce(struct result *self, PyObject *Py_UNUSED(none)) {
    return Py_BuildValue("O(NLdNNsz)", Py_TYPE(self), PyBool_FromLong(self->success), self->level,
                         self->until_next_drop, result_get_blocked_for(self, NULL), result_get_retry_after(self, NULL),
                         sources[self->source], self->error != 0 ? steady_error_name(self->error) : NULL);
}

static PyMethodDef methods[] = {{"__reduce__", (PyCFunction)result_reduce, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};

/* ---- Comparison and repr: the four fields of aiosteady 22.1.0 ---- */

static PyObject *result_four_fields(struct result *self) {
    return Py_BuildValue("(NLdN)", PyBool_FromLong(self->success), self->level, self->until_next_drop,
                         result_get_blocked_for(self, NULL));
}

static PyObject *result_compare(PyObject *a, PyObject *b, int op) {
    if ((op != Py_EQ && op != Py_NE) || Py_TYPE(a) != Py_TYPE(b)) return Py_NewRef(Py_NotImplemented);
    const struct result *x = (struct result *)a, *y = (struct result *)b;
    const bool same = x->success == y->success && x->level == y->level && x->until_next_drop == y->until_next_drop &&
                      x->blocked == y->blocked && x->blocked_for == y->blocked_for;
    return PyBool_FromLong(same == (op == Py_EQ));
}

static Py_hash_t result_hash(struct result *self) {
    PyObject *fields = result_four_fields(self);
    if (fields == NULL) return -1;
    const Py_hash_t hash = PyObject_Hash(fields);
    Py_DECREF(fields);
    return hash;
}

static PyObject *result_repr(struct result *self) {
    static const char format[] = "ThrottleResult(success=%R, level=%R, until_next_drop=%R, blocked_for=%R)";
    PyObject *fields = result_four_fields(self), *text = NULL;
    if (fields == NULL) return NULL;
    text = PyUnicode_FromFormat(format, PyTuple_GET_ITEM(fields, 0), PyTuple_GET_ITEM(fields, 1),
                                PyTuple_GET_ITEM(fields, 2), PyTuple_GET_ITEM(fields, 3));
    Py_DECREF(fields);
    return text;
}

static PyType_Slot slots[] = {
    {Py_tp_doc,
     "ThrottleResult(success, level, until_next_drop, blocked_for, retry_after=None, source='store', error=None)"
     "\n--\n\nThe outcome of a decision. Comparison and repr use the first four fields."},
    {Py_tp_new, result_new},
    {Py_tp_dealloc, result_dealloc},
    {Py_tp_members, members},
    {Py_tp_getset, getters},
    {Py_tp_methods, methods},
    {Py_tp_richcompare, result_compare},
    {Py_tp_hash, result_hash},
    {Py_tp_repr, result_repr},
    {0, NULL}};

PyType_Spec result_spec = {"aiosteady.leakybucket.ThrottleResult", sizeof(struct result), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, slots};
