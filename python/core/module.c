/* SPDX-License-Identifier: MIT
 * The module: its types, its exceptions, the scripts, and functions for texts. All state belongs to the module object,
 * so each interpreter has its own copy. */
#include <stddef.h>
#include <sys/timerfd.h>

#include "blocking.h"
#include "call.h"
#include "clock.h"
#include "convert.h"
#include "decision.h"
#include "loop.h"
#include "loop_store.h"
#include "middleware.h"
#include "quick.h"
#include "reservation.h"
#include "result.h"
#include "sender.h"
#include "src/conn/server_error.h"
#include "src/conn/tls.h"
#include "src/core/url.h"
#include "src/redis/command.h"
#include "src/redis/denials.h"
#include "store.h"
#include "throttler.h"
#include "waiter.h"

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

/* ---- Functions ---- */

/* The error of the library for an error reply of a server. 0 is NOSCRIPT: the script is not loaded. */
static PyObject *module_reply_error_code(PyObject *Py_UNUSED(module), PyObject *text) {
    Py_ssize_t len = 0;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &len);
    if (bytes == NULL) return NULL;
    const enum steady__error_class what = steady__error_class_of(bytes, (size_t)len);
    return PyLong_FromLong(what == STEADY__ERROR_CLASS_NOSCRIPT ? 0 : steady__error_class_code(what));
}

/* What this process remembers of buckets, in all stores. */
static PyObject *module_forget_denials(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    struct steady__denials *denials = steady__denials_hold();
    if (denials == NULL) return PyErr_NoMemory();
    steady__denials_forget_all(denials, steady__denials_now(denials));
    steady__denials_release(denials);
    Py_RETURN_NONE;
}

static PyObject *module_quote(PyObject *Py_UNUSED(module), PyObject *text) {
    char shown[STEADY__URL_MAX + 64];
    PyObject *bytes = PyUnicode_Check(text) ? convert_to_ascii(text) : NULL;
    if (bytes == NULL) return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "text must be a str");
    steady_quote(shown, sizeof shown, PyBytes_AS_STRING(bytes));
    Py_DECREF(bytes);
    return PyUnicode_FromString(shown);
}

/* (text, key, of_server). of_server: the text may hold words of a server. */
static PyObject *module_redact(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *text, *key;
    int of_server = 0;
    struct steady__secrets secrets = {0};
    Py_ssize_t key_len = 0;
    if (!PyArg_ParseTuple(args, "UOp", &text, &key, &of_server)) return NULL;
    if (convert_key(key, &secrets.key, &key_len) != 0) return NULL;
    secrets.key_len = (size_t)key_len;
    return convert_redacted(text, &secrets, of_server != 0);
}

/* (text): max_capacity, drop_recharge in microseconds and drops of a rate as the library reads it. */
static PyObject *module_parse_rate(PyObject *Py_UNUSED(module), PyObject *text) {
    steady_limit limit = {.max_capacity = 0};
    steady_message why = {.text = ""};
    Py_ssize_t len = 0;
    const char *rate = convert_check_str(text, "rate") == 0 ? convert_utf8(text, "rate", &len) : NULL;
    if (rate == NULL) return NULL;
    if (strlen(rate) != (size_t)len) return PyErr_Format(PyExc_ValueError, "rate must not hold a NUL");
    if (steady_limit_parse(&limit, rate, &why) != 0) return PyErr_Format(PyExc_ValueError, "%s", why.text);
    return Py_BuildValue("LLL", (long long)limit.max_capacity, (long long)limit.drop_recharge, (long long)limit.drops);
}

/* ---- Timers that are exact to some 0.1 ms; those of asyncio are to 1 ms ---- */

/* The time of these timers, in seconds. freezegun replaces time.monotonic. */
static PyObject *module_monotonic(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return PyFloat_FromDouble((double)now.tv_sec + (double)now.tv_nsec / 1e9);
}

static PyObject *module_open_timer(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    const int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return fd >= 0 ? PyLong_FromLong(fd) : PyErr_SetFromErrno(PyExc_OSError);
}

/* (fd, seconds): makes the descriptor readable after that time. A time of 0 or less is now. */
static PyObject *module_set_timer(PyObject *Py_UNUSED(module), PyObject *args) {
    int fd = 0;
    double seconds = 0;
    if (!PyArg_ParseTuple(args, "id", &fd, &seconds)) return NULL;
    if (!(seconds > 1e-9)) seconds = 1e-9; /* 0 would stop the timer */
    if (seconds > 1e9) seconds = 1e9;
    const time_t whole = (time_t)seconds;
    const struct itimerspec spec = {.it_value = {.tv_sec = whole, .tv_nsec = (long)((seconds - (double)whole) * 1e9)}};
    if (timerfd_settime(fd, 0, &spec, NULL) != 0) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *module_decide(PyObject *module, PyObject *call) {
    const struct core_state *state = PyModule_GetState(module);
    if (Py_TYPE(call) == state->call_type) return throttler_decide((struct call *)call);
    return PyErr_Format(PyExc_TypeError, "call must be a Call, not %.100s", Py_TYPE(call)->tp_name);
}

static PyMethodDef functions[] = {
    {"decide", module_decide, METH_O,
     "decide(call, /)\n--\n\nReturns the result if the store is embedded, otherwise an "
     "awaitable of the result."},
    {"reply_error_code", module_reply_error_code, METH_O, NULL},
    {"forget_denials", module_forget_denials, METH_NOARGS, NULL},
    {"monotonic", module_monotonic, METH_NOARGS, NULL},
    {"open_timer", module_open_timer, METH_NOARGS, NULL},
    {"set_timer", module_set_timer, METH_VARARGS, NULL},
    {"parse_rate", module_parse_rate, METH_O, NULL},
    {"quote", module_quote, METH_O, NULL},
    {"http_fields", middleware_http_fields, METH_VARARGS, NULL},
    {"http_problem", middleware_http_problem, METH_VARARGS, NULL},
    {"http_retry_after", middleware_http_retry_after, METH_O, NULL},
    {"address_key", (PyCFunction)(void (*)(void))middleware_address_key, METH_FASTCALL, NULL},
    {"redact", module_redact, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL}};

/* ---- The module ---- */

static int module_add(PyObject *module, const char *name, PyObject *object) {
    if (object == NULL) return -1;
    if (PyModule_AddObject(module, name, Py_NewRef(object)) == 0) return 0;
    Py_DECREF(object);
    return -1;
}

static int module_add_errors(PyObject *module, struct core_state *state) {
    state->errors[0] =
        PyErr_NewExceptionWithDoc("aiosteady.Error", "The base class of all exceptions of aiosteady.", NULL, NULL);
    if (module_add(module, "Error", state->errors[0]) != 0) return -1;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        char name[64];
        PyOS_snprintf(name, sizeof name, "aiosteady.%s", errors[i].name);
        PyObject *type = PyErr_NewExceptionWithDoc(name, errors[i].sentence, state->errors[0], NULL);
        state->errors[-errors[i].error] = type;
        if (module_add(module, errors[i].name, type) != 0) return -1;
    }
    return PyModule_AddIntMacro(module, STEADY_UNAVAILABLE) || PyModule_AddIntMacro(module, STEADY_UNKNOWN) ||
                   PyModule_AddIntMacro(module, STEADY_SERVER) || PyModule_AddIntMacro(module, STEADY_OVERLOADED) ||
                   PyModule_AddIntMacro(module, STEADY_UNSUPPORTED) ||
                   PyModule_AddIntMacro(module, STEADY_NOT_A_BUCKET) ||
                   PyModule_AddIntConstant(module, "RESET", STEADY__RESET) ||
                   PyModule_AddIntConstant(module, "CONSUME_ALL", STEADY__CONSUME_ALL) ||
                   PyModule_AddIntConstant(module, "PEEK_ALL", STEADY__PEEK_ALL) ||
                   PyModule_AddIntConstant(module, "SETTLE", STEADY__SETTLE)
               ? -1
               : 0;
}

static int module_add_types(PyObject *module, struct core_state *state) {
    const struct {
        PyTypeObject **type;
        PyType_Spec *spec;
        const char *name;    /* NULL: Python code does not need it */
        bool internal;       /* Python code cannot make one */
        PyTypeObject **base; /* NULL: object */
    } types[] = {
        {&state->result_type, &result_spec, "ThrottleResult", false, NULL},
        {&state->decision_type, &decision_spec, "Decision", true, NULL},
        {&state->call_type, &call_spec, "Call", false, NULL},
        {&state->reservation_type, &reservation_spec, "Reservation", false, NULL},
        {&state->clock_type, &clock_spec, "Clock", false, NULL},
        {&state->store_type, &store_spec, "Store", false, NULL},
        {&state->loop_store_type, &loop_store_spec, NULL, true, NULL},
        {&state->throttler_type, &throttler_spec, "Throttler", false, NULL},
        {&state->blocking_store_type, &blocking_store_spec, "BlockingStore", false, &state->store_type},
        {&state->blocking_throttler_type, &blocking_throttler_spec, "BlockingThrottler", false, &state->throttler_type},
        {&state->io_type, &loop_io_spec, NULL, true, NULL},
        {&state->timer_type, &loop_timer_spec, NULL, true, NULL},
        {&state->waiter_type, &waiter_spec, NULL, true, NULL},
        {&state->quick_type, &quick_spec, "Quick", false, NULL},
        {&state->sender_type, &sender_spec, "Sender", false, NULL},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        PyObject *bases = types[i].base != NULL ? PyTuple_Pack(1, *types[i].base) : NULL;
        if (types[i].base != NULL && bases == NULL) return -1;
        *types[i].type = (PyTypeObject *)PyType_FromModuleAndSpec(module, types[i].spec, bases);
        Py_XDECREF(bases);
        if (*types[i].type == NULL) return -1;
#if PY_VERSION_HEX < 0x030A0000
        if (types[i].internal)
            (*types[i].type)->tp_new = NULL; /* as Py_TPFLAGS_DISALLOW_INSTANTIATION does from 3.10 on */
#endif
        if (types[i].name != NULL && module_add(module, types[i].name, (PyObject *)*types[i].type) != 0) return -1;
    }
    return 0;
}

static int module_add_to_type(PyTypeObject *type, const char *name, PyObject *object) {
    const int error = object == NULL ? -1 : PyDict_SetItemString(type->tp_dict, name, object);
    Py_XDECREF(object);
    PyType_Modified(type);
    return error;
}

/* For `match` and typing.get_type_hints, as in aiosteady 22.1.0. The names of types are resolved in leakybucket.py. */
static int module_add_result_hints(PyTypeObject *type) {
    PyObject *names = Py_BuildValue("(ssss)", "success", "level", "until_next_drop", "blocked_for");
    if (module_add_to_type(type, "__match_args__", names) != 0) return -1;
    PyObject *types =
        Py_BuildValue("{ssssssssssssssssssssssssssss}", "success", "bool", "level", "int", "until_next_drop", "float",
                      "blocked_for", "Optional[float]", "retry_after", "Optional[float]", "source", "str", "error",
                      "Optional[str]", "must_wait", "float", "granted", "int", "name", "Optional[str]", "part", "int",
                      "atomic", "bool", "parts", "tuple[ThrottleResult, ...]", "limits", "dict[str, ThrottleResult]");
    return module_add_to_type(type, "__annotations__", types);
}

static int module_add_scripts(PyObject *module) {
    PyObject *scripts = PyTuple_New(STEADY__VERBS);
    for (int i = 0; scripts != NULL && i < STEADY__VERBS; i++) {
        const struct steady__script *script = &steady__scripts[i];
        PyObject *pair = Py_BuildValue("ss#", script->sha1, script->text, (Py_ssize_t)script->text_len);
        if (pair == NULL)
            Py_CLEAR(scripts);
        else
            PyTuple_SET_ITEM(scripts, i, pair);
    }
    const int error = module_add(module, "scripts", scripts);
    Py_XDECREF(scripts);
    return error;
}

static int module_intern_names(struct core_state *state) {
    const struct {
        PyObject **object;
        const char *name;
    } names[] = {
        {&state->is_closed, "is_closed"},
        {&state->type, "type"},
        {&state->headers, "headers"},
        {&state->collected, "_collected"},
        {&state->with_fields, "with_fields"},
        {&state->allowed, "allowed"},
        {&state->results, "results"},
        {&state->keys, "keys"},
        {&state->state, "state"},
        {&state->rate_limit, "rate_limit"},
        {&state->entry, "aiosteady.asgi"},
        {&state->starts[0], "http.response.start"},
        {&state->starts[1], "websocket.accept"},
        {&state->starts[2], "websocket.http.response.start"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if ((*names[i].object = PyUnicode_InternFromString(names[i].name)) == NULL) return -1;
    return 0;
}

static PyObject *module_import(const char *module_name, const char *name) {
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *object = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return object;
}

static int module_exec(PyObject *module) {
    struct core_state *state = PyModule_GetState(module);
    memset(state, 0, sizeof *state);
    steady__fork_guard_set(&state->fork_guard, true);
    if (module_intern_names(state) != 0 || module_add_errors(module, state) != 0 ||
        module_add_types(module, state) != 0 || module_add_result_hints(state->result_type) != 0 ||
        module_add_scripts(module) != 0)
        return -1;
    if ((state->get_running_loop = module_import("asyncio", "get_running_loop")) == NULL ||
        (state->cancelled_error = module_import("asyncio", "CancelledError")) == NULL ||
        (state->context_only = Py_BuildValue("(s)", "context")) == NULL)
        return -1;
    PyObject *get_logger = module_import("logging", "getLogger");
    if (get_logger != NULL) state->logger = PyObject_CallFunction(get_logger, "s", "aiosteady");
    Py_XDECREF(get_logger);
    if (state->logger == NULL || PyModule_AddStringConstant(module, "core_version", steady_version()) != 0) return -1;
    PyObject *openssl = Py_BuildValue("z", steady__tls_version());
    const int error = module_add(module, "OPENSSL_VERSION", openssl);
    Py_XDECREF(openssl);
    return error;
}

/* The references at the begin of core_state, as an array. */
#define STATE_OBJECTS (offsetof(struct core_state, fork_guard) / sizeof(PyObject *))

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    PyObject **objects = PyModule_GetState(module);
    for (size_t i = 0; i < STATE_OBJECTS; i++)
        Py_VISIT(objects[i]);
    return 0;
}

static int module_clear(PyObject *module) {
    PyObject **objects = PyModule_GetState(module);
    for (size_t i = 0; i < STATE_OBJECTS; i++)
        Py_CLEAR(objects[i]);
    return 0;
}

static void module_free(void *module) {
    struct core_state *state = PyModule_GetState(module);
    module_clear(module);
    steady__fork_guard_clear(&state->fork_guard);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
                                          {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
                                          {0, NULL}};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,   .m_name = state_module_name, .m_size = sizeof(struct core_state),
    .m_methods = functions,  .m_slots = module_slots,     .m_traverse = module_traverse,
    .m_clear = module_clear, .m_free = module_free};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&module_definition); }
