/* SPDX-License-Identifier: MIT
 * The module: its types, its exceptions, and what Python code needs to know of the scripts. All state is the module's
 * own, so each interpreter has its own copy. */
#include <math.h>
#include <stddef.h>

#include "conn/reply.h"
#include "core.h"
#include "core/redact.h"
#include "redis/command.h"

struct core_state *core_state_of(PyTypeObject *type) {
    for (; type != NULL; type = type->tp_base) {
        if (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) continue;
        PyObject *module = PyType_GetModule(type);
        if (module == NULL)
            PyErr_Clear(); /* a subclass made in Python */
        else if (PyModule_GetDef(module) == &aiosteady_core)
            return PyModule_GetState(module);
    }
    Py_FatalError("aiosteady: a type of another module");
}

/* ---- Errors ---- */

static const struct {
    int error;
    const char *name; /* NULL: a built-in exception */
    const char *sentence;
} errors[] = {
    {STEADY_UNAVAILABLE, "Unavailable", "The store gave no verdict; nothing was charged."},
    {STEADY_UNKNOWN, "Unknown", "The answer was lost; the drops may have been charged."},
    {STEADY_OVERLOADED, "Overloaded", "Too many decisions are in flight; nothing was charged."},
    {STEADY_CANCELLED, "Cancelled", "The store was closed before it answered; the drops may have been charged."},
    {STEADY_NOT_A_BUCKET, "NotABucket", "The key holds something that is not a bucket; it was not changed."},
    {STEADY_REFUSED, "Refused", "The server refused the credentials or the command; nothing was charged."},
    {STEADY_CLOSED, "Closed", "The store is closed; nothing was charged."},
    {STEADY_UNSUPPORTED, "Unsupported", "This store or this build does not support it; nothing was charged."},
    {STEADY_BAD_FILE, "BadFile", "The file cannot be used as a store; it was not changed."},
    {STEADY_SYSTEM, "SystemRefused", "A call of the operating system failed; nothing was charged."},
    {STEADY_SERVER, "ServerError", "The server answered with an error; nothing was charged."},
};

PyObject *core_error(struct core_state *state, int error, const char *why) {
    PyObject *type = error < 0 && error > -AIOSTEADY_ERROR_COUNT ? state->errors[-error] : NULL;
    const char *sentence = steady_error_text(error);
    if (error == STEADY_BAD_ARGUMENT) {
        type = PyExc_ValueError;
        if (why != NULL && *why != '\0') return PyObject_CallFunction(type, "s", why);
    } else if (error == STEADY_NO_MEMORY) {
        type = PyExc_MemoryError;
    } else if (error == STEADY_WRONG_THREAD || error == STEADY_NO_LOOP) {
        type = PyExc_RuntimeError;
    } else if (type == NULL) {
        type = state->errors[0];
    }
    if (why == NULL || *why == '\0') return PyObject_CallFunction(type, "s", sentence);
    PyObject *text = PyUnicode_FromFormat("%s: %s", sentence, why);
    PyObject *exception = text != NULL ? PyObject_CallOneArg(type, text) : NULL;
    Py_XDECREF(text);
    return exception;
}

PyObject *core_raise(struct core_state *state, int error, const char *why) {
    PyObject *exception = core_error(state, error, why);
    if (exception != NULL) PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
    return NULL;
}

/* ---- Arguments ---- */

int core_int(PyObject *object, const char *name, int64_t min, int64_t max, int64_t *out) {
    if (!PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be an int, not %.100s", name, Py_TYPE(object)->tp_name);
        return -1;
    }
    int overflow = 0;
    PyObject *number = PyNumber_Index(object);
    if (number == NULL) return -1;
    *out = PyLong_AsLongLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (PyErr_Occurred()) return -1;
    if (!overflow && *out >= min && *out <= max) return 0;
    char shown[24] = "out of range";
    if (!overflow) PyOS_snprintf(shown, sizeof shown, "%lld", (long long)*out);
    PyErr_Format(PyExc_ValueError, "%s is %s; it must be %lld .. %lld", name, shown, (long long)min, (long long)max);
    return -1;
}

int core_is_text(PyObject *object, const char *name) {
    if (PyUnicode_Check(object)) return 0;
    PyErr_Format(PyExc_TypeError, "%s must be a str, not %.100s", name, Py_TYPE(object)->tp_name);
    return -1;
}

/* As ASCII: a text may hold what UTF-8 has no bytes for. */
static PyObject *escape(PyObject *text) { return PyUnicode_AsEncodedString(text, "ascii", "backslashreplace"); }

int core_choice(PyObject *given, const char *name, const char *const *names) {
    char list[80] = "";
    if (core_is_text(given, name) != 0) return -1;
    for (int i = 0; names[i] != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(given, names[i]) == 0) return i;
        const size_t len = strlen(list);
        PyOS_snprintf(list + len, sizeof list - len, "%s'%s'", i > 0 ? ", " : "", names[i]);
    }
    char shown[100] = "?";
    PyObject *bytes = escape(given);
    if (bytes == NULL) return -1;
    steady_quote(shown, sizeof shown, PyBytes_AS_STRING(bytes));
    Py_DECREF(bytes);
    PyErr_Format(PyExc_ValueError, "%s is '%s'; it must be one of %s", name, shown, list);
    return -1;
}

static int bad_seconds(const char *name, const char *what) {
    PyErr_Format(PyExc_ValueError, "%s %s", name, what);
    return -1;
}

int core_seconds(PyObject *object, const char *name, steady_us *out) {
    if (!PyNumber_Check(object) || PyComplex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be a number of seconds, not %.100s", name, Py_TYPE(object)->tp_name);
        return -1;
    }
    const double seconds = PyFloat_AsDouble(object);
    if (seconds == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
        PyErr_Clear();
        return bad_seconds(name, "is too large");
    }
    if (!isfinite(seconds)) return bad_seconds(name, "must be a finite number of seconds");
    if (seconds < 0) return bad_seconds(name, "must not be negative");
    if (seconds >= (double)STEADY__EXACT / 1e6) return bad_seconds(name, "is too large");
    *out = llround(seconds * 1e6);
    return *out == 0 && seconds > 0 ? bad_seconds(name, "is shorter than a microsecond") : 0;
}

const char *core_utf8(PyObject *text, const char *name, Py_ssize_t *len) {
    const char *bytes = PyUnicode_AsUTF8AndSize(text, len);
    if (bytes == NULL && PyErr_ExceptionMatches(PyExc_UnicodeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s holds a lone surrogate, which UTF-8 has no bytes for", name);
    }
    return bytes;
}

int core_key(PyObject *key, const char **bytes, Py_ssize_t *len) {
    if (PyUnicode_Check(key)) {
        if ((*bytes = core_utf8(key, "key", len)) == NULL) return -1;
    } else if (PyBytes_Check(key)) {
        *bytes = PyBytes_AS_STRING(key);
        *len = PyBytes_GET_SIZE(key);
    } else {
        PyErr_Format(PyExc_TypeError, "key must be str or bytes, not %.100s", Py_TYPE(key)->tp_name);
        return -1;
    }
    if (*len >= 1 && *len <= STEADY__KEY_MAX) return 0;
    PyErr_Format(PyExc_ValueError, "key is %zd bytes long; it must be 1 .. %d", *len, STEADY__KEY_MAX);
    return -1;
}

/* ---- Functions ---- */

/* What an error reply of a server means: an error of ours, or 0: the script is not loaded. */
static PyObject *refusal(PyObject *Py_UNUSED(module), PyObject *text) {
    Py_ssize_t len = 0;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &len);
    if (bytes == NULL) return NULL;
    const enum steady__error_class what = steady__error_class_of(bytes, (size_t)len);
    return PyLong_FromLong(what == STEADY__ERROR_CLASS_NOSCRIPT ? 0 : steady__error_class_code(what));
}

static PyObject *quote(PyObject *Py_UNUSED(module), PyObject *text) {
    char shown[STEADY__URL_MAX + 64];
    PyObject *bytes = PyUnicode_Check(text) ? escape(text) : NULL;
    if (bytes == NULL) return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "text must be a str");
    steady_quote(shown, sizeof shown, PyBytes_AS_STRING(bytes));
    Py_DECREF(bytes);
    return PyUnicode_FromString(shown);
}

/* text, key, whether a server has a part in the text. */
static PyObject *redact(PyObject *Py_UNUSED(module), PyObject *args) {
    char shown[sizeof((steady_message *)NULL)->text];
    PyObject *text, *key;
    int of_server = 0;
    struct steady__secrets secrets = {0};
    Py_ssize_t key_len = 0;
    if (!PyArg_ParseTuple(args, "UOp", &text, &key, &of_server)) return NULL;
    if (core_key(key, &secrets.key, &key_len) != 0) return NULL;
    PyObject *bytes = escape(text);
    if (bytes == NULL) return NULL;
    secrets.key_len = (size_t)key_len;
    if (of_server)
        steady__redact(shown, sizeof shown, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes), &secrets);
    else
        steady__redact_known(shown, sizeof shown, PyBytes_AS_STRING(bytes), &secrets);
    Py_DECREF(bytes);
    return PyUnicode_FromString(shown);
}

static PyMethodDef functions[] = {{"refusal", refusal, METH_O, NULL},
                                  {"quote", quote, METH_O, NULL},
                                  {"redact", redact, METH_VARARGS, NULL},
                                  {NULL, NULL, 0, NULL}};

/* ---- The module ---- */

static int add(PyObject *module, const char *name, PyObject *object) {
    if (object == NULL) return -1;
    if (PyModule_AddObject(module, name, Py_NewRef(object)) == 0) return 0;
    Py_DECREF(object);
    return -1;
}

static int add_errors(PyObject *module, struct core_state *state) {
    state->errors[0] =
        PyErr_NewExceptionWithDoc("aiosteady.Error", "What every exception of aiosteady is.", NULL, NULL);
    if (add(module, "Error", state->errors[0]) != 0) return -1;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        char name[64];
        PyOS_snprintf(name, sizeof name, "aiosteady.%s", errors[i].name);
        PyObject *type = PyErr_NewExceptionWithDoc(name, errors[i].sentence, state->errors[0], NULL);
        state->errors[-errors[i].error] = type;
        if (add(module, errors[i].name, type) != 0) return -1;
    }
    return PyModule_AddIntMacro(module, STEADY_UNAVAILABLE) || PyModule_AddIntMacro(module, STEADY_UNKNOWN) ||
                   PyModule_AddIntMacro(module, STEADY_SERVER) || PyModule_AddIntMacro(module, STEADY_OVERLOADED)
               ? -1
               : 0;
}

static int add_types(PyObject *module, struct core_state *state) {
    const struct {
        PyTypeObject **type;
        PyType_Spec *spec;
        const char *name; /* NULL: not for Python code */
        bool made_by_us;  /* and by nobody else */
    } types[] = {
        {&state->result_type, &core_result_spec, "ThrottleResult", false},
        {&state->decision_type, &core_decision_spec, "Decision", true},
        {&state->store_type, &core_store_spec, "Store", false},
        {&state->loop_store_type, &core_loop_store_spec, NULL, true},
        {&state->throttler_type, &core_throttler_spec, "Throttler", false},
        {&state->io_type, &core_io_spec, NULL, true},
        {&state->timer_type, &core_timer_spec, NULL, true},
        {&state->waiter_type, &core_waiter_spec, NULL, true},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        *types[i].type = (PyTypeObject *)PyType_FromModuleAndSpec(module, types[i].spec, NULL);
        if (*types[i].type == NULL) return -1;
#if PY_VERSION_HEX < 0x030A0000
        if (types[i].made_by_us)
            (*types[i].type)->tp_new = NULL; /* what Py_TPFLAGS_DISALLOW_INSTANTIATION does later */
#endif
        if (types[i].name != NULL && add(module, types[i].name, (PyObject *)*types[i].type) != 0) return -1;
    }
    return 0;
}

static int add_to_type(PyTypeObject *type, const char *name, PyObject *object) {
    const int error = object == NULL ? -1 : PyDict_SetItemString(type->tp_dict, name, object);
    Py_XDECREF(object);
    PyType_Modified(type);
    return error;
}

/* For `match` and for typing.get_type_hints, as of the class of aiosteady 22.1.0. A type is looked up in
 * leakybucket.py. */
static int add_about_result(PyTypeObject *type) {
    PyObject *names = Py_BuildValue("(ssss)", "success", "level", "until_next_drop", "blocked_for");
    if (add_to_type(type, "__match_args__", names) != 0) return -1;
    PyObject *types =
        Py_BuildValue("{ssssssssssssss}", "success", "bool", "level", "int", "until_next_drop", "float", "blocked_for",
                      "Optional[float]", "retry_after", "Optional[float]", "source", "str", "error", "Optional[str]");
    return add_to_type(type, "__annotations__", types);
}

static int add_scripts(PyObject *module) {
    PyObject *scripts = PyTuple_New(3);
    for (int i = 0; scripts != NULL && i < 3; i++) {
        const struct steady__script *script = &steady__scripts[i];
        PyObject *pair = Py_BuildValue("ss#", script->sha1, script->text, (Py_ssize_t)script->text_len);
        if (pair == NULL)
            Py_CLEAR(scripts);
        else
            PyTuple_SET_ITEM(scripts, i, pair);
    }
    const int error = add(module, "scripts", scripts);
    Py_XDECREF(scripts);
    return error;
}

static int intern_names(struct core_state *state) {
    const struct {
        PyObject **object;
        const char *name;
    } names[] = {
        {&state->is_closed, "is_closed"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if ((*names[i].object = PyUnicode_InternFromString(names[i].name)) == NULL) return -1;
    return 0;
}

static PyObject *imported(const char *module_name, const char *name) {
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *object = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return object;
}

static int core_exec(PyObject *module) {
    struct core_state *state = PyModule_GetState(module);
    memset(state, 0, sizeof *state);
    steady__fork_guard_set(&state->fork_guard, true);
    if (intern_names(state) != 0 || add_errors(module, state) != 0 || add_types(module, state) != 0 ||
        add_about_result(state->result_type) != 0 || add_scripts(module) != 0)
        return -1;
    if ((state->get_running_loop = imported("asyncio", "get_running_loop")) == NULL ||
        (state->cancelled_error = imported("asyncio", "CancelledError")) == NULL ||
        (state->context_only = Py_BuildValue("(s)", "context")) == NULL)
        return -1;
    PyObject *get_logger = imported("logging", "getLogger");
    if (get_logger != NULL) state->logger = PyObject_CallFunction(get_logger, "s", "aiosteady");
    Py_XDECREF(get_logger);
    return state->logger != NULL ? PyModule_AddStringConstant(module, "core_version", steady_version()) : -1;
}

/* References, one after the other. */
#define STATE_OBJECTS (offsetof(struct core_state, fork_guard) / sizeof(PyObject *))

static int core_traverse(PyObject *module, visitproc visit, void *arg) {
    PyObject **objects = PyModule_GetState(module);
    for (size_t i = 0; i < STATE_OBJECTS; i++)
        Py_VISIT(objects[i]);
    return 0;
}

static int core_clear(PyObject *module) {
    PyObject **objects = PyModule_GetState(module);
    for (size_t i = 0; i < STATE_OBJECTS; i++)
        Py_CLEAR(objects[i]);
    return 0;
}

static void core_free(void *module) {
    struct core_state *state = PyModule_GetState(module);
    core_clear(module);
    steady__fork_guard_clear(&state->fork_guard);
}

static PyModuleDef_Slot core_slots[] = {{Py_mod_exec, core_exec},
#if PY_VERSION_HEX >= 0x030C0000
                                        {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
                                        {0, NULL}};

struct PyModuleDef aiosteady_core = {
    PyModuleDef_HEAD_INIT,  .m_name = "aiosteady._core", .m_size = sizeof(struct core_state),
    .m_methods = functions, .m_slots = core_slots,       .m_traverse = core_traverse,
    .m_clear = core_clear,  .m_free = core_free};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&aiosteady_core); }
