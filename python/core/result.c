/* SPDX-License-Identifier: MIT
 * ThrottleResult: the outcome of a decision. It has the four fields of aiosteady 22.1.0, and more. A decision on
 * several buckets has a result for each of them in `parts`. */
#include "result.h"

#include <math.h>
#include <stddef.h>

#include "convert.h"

/* Times are stored as C doubles. A getter makes the Python object. The fields from `level` to `reservation` are copied
 * as they are. */
struct result {
    PyObject_HEAD long long level;
    long long granted;
    double until_next_drop;
    double blocked_for;
    double retry_after;
    double must_wait;
    int part;
    bool success;
    bool atomic;
    bool blocked;   /* false: blocked_for is None */
    bool may_retry; /* false: retry_after is None */
    signed char source;
    signed char error;
    PyObject *name;        /* a str; NULL: None */
    PyObject *each;        /* a tuple with a result for each bucket; NULL: none, or one bucket that has this result */
    PyObject *reservation; /* NULL: none */
};

static const char *const sources[] = {"nowhere", "store", "policy", "local", "memory", "lease"};

static double result_seconds(steady_us us) { return (double)us / 1e6; }

static struct result *result_alloc(PyTypeObject *type) {
    struct result *self = PyObject_New(struct result, type);
    if (self != NULL) self->name = self->each = self->reservation = NULL;
    return self;
}

static void result_fill_times(struct result *self, steady_us until_next_drop, steady_us blocked_for,
                              steady_us retry_after) {
    self->until_next_drop = result_seconds(until_next_drop);
    self->blocked_for = result_seconds(blocked_for);
    self->retry_after = result_seconds(retry_after);
    self->blocked = blocked_for > 0;
    self->may_retry = retry_after >= 0;
}

PyObject *result_from(struct core_state *state, const steady_result *from, PyObject *name) {
    struct result *self = result_alloc(state->result_type);
    if (self == NULL) return NULL;
    self->level = from->level;
    self->granted = from->granted;
    self->must_wait = result_seconds(from->must_wait);
    result_fill_times(self, from->until_next_drop, from->blocked_for, from->retry_after);
    self->success = from->success;
    self->atomic = from->atomic;
    self->part = 0;
    self->source = (signed char)from->source;
    self->error = (signed char)from->error;
    Py_XINCREF(name);
    self->name = name;
    return (PyObject *)self;
}

/* ---- Several buckets ---- */

static PyObject *result_from_bucket(struct core_state *state, const steady_result *call,
                                    const steady_part_result *from) {
    struct result *self = result_alloc(state->result_type);
    if (self == NULL) return NULL;
    self->level = from->level;
    self->granted = from->granted;
    self->must_wait = 0;
    result_fill_times(self, from->until_next_drop, from->blocked_for, from->retry_after);
    self->success = from->success;
    self->atomic = call->atomic;
    self->part = (int)from->part;
    self->source = (signed char)(from->answered ? call->source : STEADY_FROM_NOWHERE);
    self->error = (signed char)call->error;
    if ((self->name = PyUnicode_FromString(from->name)) == NULL) Py_CLEAR(self);
    return (PyObject *)self;
}

PyObject *result_from_group(struct core_state *state, const steady_result *from, PyObject *reservation) {
    struct result *self = (struct result *)result_from(state, from, NULL);
    if (self == NULL) return NULL;
    Py_XINCREF(reservation);
    self->reservation = reservation;
    if (from->parts == NULL) return (PyObject *)self;
    const steady_part_result *named = &from->parts[from->part];
    self->part = (int)named->part;
    if ((self->name = PyUnicode_FromString(named->name)) == NULL) Py_CLEAR(self);
    /* A shadow that denies has another verdict than its call, also if it is the only part. */
    const bool each = from->n_parts > 1 || from->parts[0].success != from->success;
    if (self != NULL && each && (self->each = PyTuple_New((Py_ssize_t)from->n_parts)) == NULL) Py_CLEAR(self);
    for (size_t i = 0; self != NULL && self->each != NULL && i < from->n_parts; i++) {
        PyObject *bucket = result_from_bucket(state, from, &from->parts[i]);
        if (bucket == NULL)
            Py_CLEAR(self);
        else
            PyTuple_SET_ITEM(self->each, (Py_ssize_t)i, bucket);
    }
    return (PyObject *)self;
}

double result_must_wait(PyObject *result) { return ((struct result *)result)->must_wait; }

bool result_is_from_store(PyObject *result) { return ((struct result *)result)->source == STEADY_FROM_STORE; }

bool result_is_success(PyObject *result) { return ((struct result *)result)->success; }

void result_fill_policy(PyObject *result, steady_http_policy *policy) {
    const struct result *self = (struct result *)result;
    policy->success = self->success;
    policy->level = self->level;
    policy->blocked_for = self->blocked ? llround(self->blocked_for * 1e6) : 0;
    policy->retry_after = self->success ? 0 : self->may_retry ? llround(self->retry_after * 1e6) : -1;
}

PyObject *result_reservation(PyObject *result) { return ((struct result *)result)->reservation; }

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

/* An answer by policy knows no bucket. */
static PyObject *result_get_parts(struct result *self, void *Py_UNUSED(closure)) {
    if (self->each != NULL) return Py_NewRef(self->each);
    return self->source == STEADY_FROM_POLICY ? PyTuple_New(0) : PyTuple_Pack(1, self);
}

static PyObject *result_get_limits(struct result *self, void *closure) {
    PyObject *parts = result_get_parts(self, closure), *limits = PyDict_New();
    for (Py_ssize_t i = 0; parts != NULL && limits != NULL && i < PyTuple_GET_SIZE(parts); i++) {
        struct result *bucket = (struct result *)PyTuple_GET_ITEM(parts, i);
        if (bucket->part != self->part || bucket->name == NULL) continue;
        if (PyDict_SetItem(limits, bucket->name, (PyObject *)bucket) != 0) Py_CLEAR(limits);
    }
    if (parts == NULL) Py_CLEAR(limits);
    Py_XDECREF(parts);
    return limits;
}

/* ---- For JSON ---- */

/* The fields of a result; those of one of several buckets without `parts`. */
static PyObject *result_fields(struct result *self, bool whole) {
    PyObject *fields =
        Py_BuildValue("{sNsLsdsNsNsssssdsLsOsisN}", "success", PyBool_FromLong(self->success), "level", self->level,
                      "until_next_drop", self->until_next_drop, "blocked_for", result_get_blocked_for(self, NULL),
                      "retry_after", result_get_retry_after(self, NULL), "source", sources[self->source], "error",
                      self->error != 0 ? steady_error_name(self->error) : NULL, "must_wait", self->must_wait, "granted",
                      self->granted, "name", self->name != NULL ? self->name : Py_None, "part", self->part, "atomic",
                      PyBool_FromLong(self->atomic));
    PyObject *parts = fields != NULL && whole ? PyList_New(0) : NULL;
    for (Py_ssize_t i = 0; parts != NULL && self->each != NULL && i < PyTuple_GET_SIZE(self->each); i++) {
        PyObject *bucket = result_fields((struct result *)PyTuple_GET_ITEM(self->each, i), false);
        if (bucket == NULL || PyList_Append(parts, bucket) != 0) Py_CLEAR(parts);
        Py_XDECREF(bucket);
    }
    if (whole && (parts == NULL || PyDict_SetItemString(fields, "parts", parts) != 0)) Py_CLEAR(fields);
    Py_XDECREF(parts);
    return fields;
}

/* For vars(), which FastAPI's jsonable_encoder calls. */
static PyObject *result_get_dict(struct result *self, void *Py_UNUSED(closure)) { return result_fields(self, true); }

/* pydantic calls it with the type and a handler. */
static PyObject *result_pydantic_schema(PyObject *type, PyObject *Py_UNUSED(args)) {
    PyObject *module = PyImport_ImportModule("aiosteady._pydantic");
    PyObject *schema = module != NULL ? PyObject_CallMethod(module, "schema_of", "O", type) : NULL;
    Py_XDECREF(module);
    return schema;
}

/* ---- Attributes ---- */

static PyMemberDef members[] = {
    {"success", T_BOOL, offsetof(struct result, success), READONLY,
     "True if the drops were charged; from peek(), if they would fit."},
    {"level", T_LONGLONG, offsetof(struct result, level), READONLY, "The drops in the bucket after the call."},
    {"until_next_drop", T_DOUBLE, offsetof(struct result, until_next_drop), READONLY,
     "The seconds until the next drop leaks."},
    {"must_wait", T_DOUBLE, offsetof(struct result, must_wait), READONLY,
     "Wait for these seconds before you go ahead, although success is True; 0 unless the call had a max_wait."},
    {"granted", T_LONGLONG, offsetof(struct result, granted), READONLY,
     "The drops that the call put in; below 0: that it took out."},
    {"name", T_OBJECT, offsetof(struct result, name), READONLY, "The name of the limit of this bucket."},
    {"part", T_INT, offsetof(struct result, part), READONLY, "The index of this bucket's part in consume_all()."},
    {"atomic", T_BOOL, offsetof(struct result, atomic), READONLY, "True if all buckets were decided at one moment."},
    {"_reservation", T_OBJECT, offsetof(struct result, reservation), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyGetSetDef getters[] = {
    {"blocked_for", (getter)result_get_blocked_for, NULL,
     "The seconds until the block ends; None if the key is not blocked.", NULL},
    {"retry_after", (getter)result_get_retry_after, NULL,
     "The seconds until the same call can succeed; 1.0 if the policy denied it; None if it can never succeed.", NULL},
    {"source", (getter)result_get_source, NULL,
     "The origin of the answer: \"store\", \"memory\" or \"lease\" for its verdict; \"policy\" or \"local\" without "
     "one. In `parts` also \"nowhere\": the bucket was not asked, because another one denied.",
     NULL},
    {"error", (getter)result_get_error, NULL,
     "The name of the error for which the store gave no verdict; None if it gave one.", NULL},
    {"parts", (getter)result_get_parts, NULL,
     "A result for each bucket, in the order of the parts and of their limits; empty if the policy answered.", NULL},
    {"__dict__", (getter)result_get_dict, NULL, "The fields as JSON has them.", NULL},
    {"limits", (getter)result_get_limits, NULL, "The result of each limit by its name, for the part that is named.",
     NULL},
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
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        if (strcmp(name, sources[i]) != 0) continue;
        *source = (signed char)i;
        return 0;
    }
    return result_bad_word("source is '%s'; it must be 'store', 'policy', 'local', 'memory', 'lease' or 'nowhere'",
                           name);
}

static int result_read_error(const char *name, signed char *error) {
    *error = 0;
    if (name == NULL) return 0;
    for (int i = 1; i < AIOSTEADY_ERROR_COUNT; i++)
        if (strcmp(name, steady_error_name(-i)) == 0) *error = (signed char)-i;
    if (*error != 0) return 0;
    return result_bad_word("error is '%s'; it must be the name of an error of aiosteady", name);
}

static int result_read_parts(PyTypeObject *type, PyObject *given) {
    bool good = given == NULL || PyTuple_Check(given);
    for (Py_ssize_t i = 0; given != NULL && good && i < PyTuple_GET_SIZE(given); i++)
        good = Py_TYPE(PyTuple_GET_ITEM(given, i)) == type;
    if (good) return 0;
    PyErr_SetString(PyExc_TypeError, "parts must be a tuple of ThrottleResult");
    return -1;
}

/* The text of a UnicodeEncodeError would quote the argument. */
static PyObject *result_bad_arguments(void) {
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return NULL;
    PyErr_Clear();
    PyErr_SetString(PyExc_ValueError, "source or error holds a lone surrogate, which UTF-8 cannot encode");
    return NULL;
}

static PyObject *result_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"success", "level",  "until_next_drop", "blocked_for", "retry_after",
                            "source",  "error",  "must_wait",       "granted",     "name",
                            "part",    "atomic", "parts",           NULL};
    struct result read = {0};
    PyObject *blocked_for = NULL, *retry_after = Py_None, *name = Py_None, *parts = NULL;
    const char *source = "store", *error = NULL;
    int success = 0, atomic = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "pLdO|OszdLOipO:ThrottleResult", names, &success, &read.level,
                                     &read.until_next_drop, &blocked_for, &retry_after, &source, &error,
                                     &read.must_wait, &read.granted, &name, &read.part, &atomic, &parts) ||
        result_read_optional(blocked_for, &read.blocked, &read.blocked_for) < 0 ||
        result_read_optional(retry_after, &read.may_retry, &read.retry_after) < 0 ||
        result_read_source(source, &read.source) < 0 || result_read_error(error, &read.error) < 0 ||
        (name != Py_None && convert_check_str(name, "name") != 0) || result_read_parts(type, parts) != 0)
        return result_bad_arguments();
    struct result *self = result_alloc(type);
    if (self == NULL) return NULL;
    const size_t head = offsetof(struct result, level), end = offsetof(struct result, name);
    memcpy((char *)self + head, (char *)&read + head, end - head);
    self->success = success != 0;
    self->atomic = atomic != 0;
    if (name != Py_None) self->name = Py_NewRef(name);
    if (parts != NULL && PyTuple_GET_SIZE(parts) > 1) self->each = Py_NewRef(parts);
    return (PyObject *)self;
}

static void result_dealloc(struct result *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->name);
    Py_XDECREF(self->each);
    Py_XDECREF(self->reservation);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* Without the reservation, which has a text form. */
static PyObject *result_reduce(struct result *self, PyObject *Py_UNUSED(none)) {
    return Py_BuildValue("O(NLdNNszdLOiNN)", Py_TYPE(self), PyBool_FromLong(self->success), self->level,
                         self->until_next_drop, result_get_blocked_for(self, NULL), result_get_retry_after(self, NULL),
                         sources[self->source], self->error != 0 ? steady_error_name(self->error) : NULL,
                         self->must_wait, self->granted, self->name != NULL ? self->name : Py_None, self->part,
                         PyBool_FromLong(self->atomic), self->each != NULL ? Py_NewRef(self->each) : PyTuple_New(0));
}

static PyMethodDef methods[] = {
    {"__reduce__", (PyCFunction)result_reduce, METH_NOARGS, NULL},
    {"__get_pydantic_core_schema__", result_pydantic_schema, METH_VARARGS | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL}};

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

#define SECONDS_ROOM 64

/* Writes `label` and the repr of a float. 0, or -1 and an exception. */
static int result_put_seconds(char *to, const char *label, double value) {
    char *text = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (text == NULL) return -1;
    PyOS_snprintf(to, SECONDS_ROOM, "%s%s", label, text);
    PyMem_Free(text);
    return 0;
}

static bool result_is_verdict(const struct result *self) {
    return self->source == STEADY_FROM_STORE || self->source == STEADY_FROM_MEMORY || self->source == STEADY_FROM_LEASE;
}

/* The four fields, and others that are not as by default. The wait comes first: a caller that overlooks it goes ahead
 * too early. whole: with retry_after, granted, and the source of a verdict without a request. */
static PyObject *result_text(struct result *self, bool whole) {
    char wait[SECONDS_ROOM] = "", until[SECONDS_ROOM], blocked[SECONDS_ROOM] = "None", retry[SECONDS_ROOM] = "";
    char granted[SECONDS_ROOM] = "", source[SECONDS_ROOM] = "", error[SECONDS_ROOM] = "";
    if (result_put_seconds(until, "", self->until_next_drop) != 0 ||
        (self->blocked && result_put_seconds(blocked, "", self->blocked_for) != 0) ||
        (self->must_wait > 0 && result_put_seconds(wait, "must_wait=", self->must_wait) != 0) ||
        (whole && !self->success && self->may_retry &&
         result_put_seconds(retry, ", retry_after=", self->retry_after) != 0))
        return NULL;
    if (whole && !self->success && !self->may_retry && self->name != NULL) /* a program that makes one gives no name */
        PyOS_snprintf(retry, sizeof retry, ", retry_after=None");
    if (whole && (self->granted < 0 || self->granted > 1))
        PyOS_snprintf(granted, sizeof granted, ", granted=%lld", self->granted);
    if (whole ? self->source != STEADY_FROM_STORE : !result_is_verdict(self))
        PyOS_snprintf(source, sizeof source, ", source='%s'", sources[self->source]);
    if (self->error != 0) PyOS_snprintf(error, sizeof error, ", error='%s'", steady_error_name(self->error));
    PyObject *part = self->each != NULL ? PyUnicode_FromFormat(", part=%d, name=%R", self->part,
                                                               self->name != NULL ? self->name : Py_None)
                                        : PyUnicode_FromString("");
    if (part == NULL) return NULL;
    PyObject *text =
        PyUnicode_FromFormat("ThrottleResult(%s%ssuccess=%s, level=%lld, until_next_drop=%s, blocked_for=%s%s%s%s%s%U)",
                             wait, wait[0] != '\0' ? ", " : "", self->success ? "True" : "False", self->level, until,
                             blocked, retry, granted, source, error, part);
    Py_DECREF(part);
    return text;
}

static PyObject *result_repr(struct result *self) { return result_text(self, true); }

/* Programs of 22.1.0 print results. For them, decisions of a store have the same text. */
static PyObject *result_str(struct result *self) { return result_text(self, false); }

static PyType_Slot slots[] = {
    {Py_tp_doc,
     "ThrottleResult(success, level, until_next_drop, blocked_for, retry_after=None, source='store', error=None, "
     "must_wait=0.0, granted=0, name=None, part=0, atomic=True, parts=())\n--\n\n"
     "The outcome of a decision. Comparison uses the first four fields. If the call had several buckets, they are "
     "those "
     "of the one that `part` and `name` name: of a denied call the one with the longest wait, of an allowed call the "
     "one "
     "into which the fewest further calls fit."},
    {Py_tp_new, result_new},
    {Py_tp_dealloc, result_dealloc},
    {Py_tp_members, members},
    {Py_tp_getset, getters},
    {Py_tp_methods, methods},
    {Py_tp_richcompare, result_compare},
    {Py_tp_hash, result_hash},
    {Py_tp_repr, result_repr},
    {Py_tp_str, result_str},
    {0, NULL}};

PyType_Spec result_spec = {"aiosteady.leakybucket.ThrottleResult", sizeof(struct result), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, slots};
