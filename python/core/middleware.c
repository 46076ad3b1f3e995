/* SPDX-License-Identifier: MIT
 * What the middlewares take from the library, with the conversions. */
#include "middleware.h"

#include "convert.h"
#include "result.h"
#include "src/core/address.h"
#include "steady/http.h"

#define HOPS_MAX 1000

/* ---- Header fields ---- */

/* (quota, result or None). The state of a quota without a result is not shown. The name belongs to `item`. */
static int middleware_read_policy(const struct core_state *state, PyObject *item, steady_http_policy *policy,
                                  steady_limit *limit) {
    long long capacity = 0, recharge = 0, drops = 0;
    int blocks = 0;
    PyObject *result = NULL;
    if (!PyTuple_Check(item)) {
        PyErr_Format(PyExc_TypeError, "a policy must be a tuple, not %.100s", Py_TYPE(item)->tp_name);
        return -1;
    }
    if (!PyArg_ParseTuple(item, "(sLLLp)O", &policy->name, &capacity, &recharge, &drops, &blocks, &result)) return -1;
    if (result != Py_None && Py_TYPE(result) != state->result_type) {
        PyErr_Format(PyExc_TypeError, "a result must be a ThrottleResult, not %.100s", Py_TYPE(result)->tp_name);
        return -1;
    }
    *limit = (steady_limit){.max_capacity = capacity, .drop_recharge = recharge, .drops = drops};
    policy->limit = limit;
    policy->retry_after = -1;
    if (result != Py_None) result_fill_policy(result, policy);
    return 0;
}

static PyObject *middleware_fields_of(const steady_http_field *fields, int n) {
    PyObject *list = PyList_New(n);
    for (int i = 0; list != NULL && i < n; i++) {
        PyObject *field = Py_BuildValue("(yy#)", fields[i].name, fields[i].value, (Py_ssize_t)fields[i].value_len);
        if (field == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, field);
    }
    return list;
}

static PyObject *middleware_make_fields(const struct core_state *state, enum steady_http_form form, PyObject *items) {
    const Py_ssize_t n = PyTuple_GET_SIZE(items);
    steady_http_field fields[STEADY_HTTP_FIELDS_MAX] = {{0}};
    steady_http_policy *policies = PyMem_Calloc((size_t)n + 1, sizeof *policies);
    steady_limit *limits = PyMem_Calloc((size_t)n + 1, sizeof *limits);
    char *text = NULL;
    PyObject *list = NULL;
    size_t size = 0;
    int count = policies != NULL && limits != NULL ? 0 : STEADY_NO_MEMORY;
    for (Py_ssize_t i = 0; count == 0 && i < n; i++) {
        if (middleware_read_policy(state, PyTuple_GET_ITEM(items, i), &policies[i], &limits[i]) != 0) goto end;
        size += STEADY_HTTP_TEXT_MAX(1, strlen(policies[i].name));
    }
    if (count == 0 && (text = PyMem_Malloc(size + 1)) == NULL) count = STEADY_NO_MEMORY;
    if (count == 0) count = steady_http_fields(form, policies, (size_t)n, fields, text, size);
    if (count == STEADY_NO_MEMORY)
        PyErr_NoMemory();
    else if (count < 0)
        PyErr_SetString(PyExc_ValueError,
                        "a policy has a name that is not printable ASCII, or a limit that is not valid");
    else
        list = middleware_fields_of(fields, count);
end:
    PyMem_Free(text);
    PyMem_Free(limits);
    PyMem_Free(policies);
    return list;
}

int middleware_form(PyObject *name) {
    static const char *const forms[] = {[STEADY_HTTP_DRAFT_11] = "draft-11",
                                        [STEADY_HTTP_DRAFT_07] = "draft-07",
                                        [STEADY_HTTP_DRAFT_03] = "draft-03",
                                        [STEADY_HTTP_X] = "x",
                                        NULL};
    return convert_choice(name, "form", forms);
}

PyObject *middleware_http_fields(PyObject *module, PyObject *args) {
    PyObject *name = NULL, *policies = NULL;
    if (!PyArg_ParseTuple(args, "OO", &name, &policies)) return NULL;
    const int form = middleware_form(name);
    PyObject *items = form >= 0 ? PySequence_Tuple(policies) : NULL;
    PyObject *list =
        items != NULL ? middleware_make_fields(PyModule_GetState(module), (enum steady_http_form)form, items) : NULL;
    Py_XDECREF(items);
    return list;
}

PyObject *middleware_http_retry_after(PyObject *Py_UNUSED(module), PyObject *seconds) {
    steady_us wait = 0;
    if (convert_wait(seconds, "retry_after", &wait) != 0) return NULL;
    return PyLong_FromLongLong(steady_http_retry_after(wait));
}

/* ---- Problem documents ---- */

static PyObject *middleware_make_problem(int status, const char *const *names, size_t n) {
    const size_t len = steady_http_problem(NULL, 0, status, names, n);
    if (len == 0)
        return PyErr_Format(PyExc_ValueError, "status is %d, which has no problem document, or a name is not valid",
                            status);
    PyObject *document = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (document != NULL) steady_http_problem(PyBytes_AS_STRING(document), len + 1, status, names, n);
    return document;
}

PyObject *middleware_http_problem(PyObject *Py_UNUSED(module), PyObject *args) {
    int status = 0;
    PyObject *given = NULL, *document = NULL;
    if (!PyArg_ParseTuple(args, "iO", &status, &given)) return NULL;
    PyObject *items = PySequence_Tuple(given);
    if (items == NULL) return NULL;
    const Py_ssize_t n = PyTuple_GET_SIZE(items);
    const char **names = PyMem_Calloc((size_t)n + 1, sizeof *names);
    bool read = names != NULL;
    if (names == NULL) PyErr_NoMemory();
    for (Py_ssize_t i = 0; read && i < n; i++) {
        Py_ssize_t len = 0;
        read = convert_check_str(PyTuple_GET_ITEM(items, i), "name") == 0 &&
               (names[i] = convert_utf8(PyTuple_GET_ITEM(items, i), "name", &len)) != NULL;
    }
    if (read) document = middleware_make_problem(status, names, (size_t)n);
    PyMem_Free(names);
    Py_DECREF(items);
    return document;
}

/* ---- Addresses ---- */

/* (text, ipv6_prefix, hops). hops above 0: the text is X-Forwarded-For, and the address is at this place from the
 * right. None if there is no address. */
PyObject *middleware_address_key(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs) {
    char key[STEADY__ADDRESS_KEY_MAX];
    struct steady__address address;
    const char *text = NULL;
    Py_ssize_t size = 0;
    int64_t prefix = 0, hops = 0;
    if (nargs != 3) return PyErr_Format(PyExc_TypeError, "address_key() takes text, ipv6_prefix and hops");
    PyObject *object = args[0];
    if (convert_int(args[1], "ipv6_prefix", 1, 128, &prefix) != 0 ||
        convert_int(args[2], "hops", 0, HOPS_MAX, &hops) != 0)
        return NULL;
    if (PyBytes_Check(object)) {
        text = PyBytes_AS_STRING(object);
        size = PyBytes_GET_SIZE(object);
    } else if (convert_check_str(object, "address") != 0) {
        return NULL;
    } else if ((text = PyUnicode_AsUTF8AndSize(object, &size)) == NULL) {
        PyErr_Clear(); /* a lone surrogate */
        Py_RETURN_NONE;
    }
    size_t len = (size_t)size;
    if ((hops > 0 && !steady__address_forwarded(text, len, (size_t)hops, &text, &len)) ||
        !steady__address_parse(&address, text, len))
        Py_RETURN_NONE;
    return PyUnicode_FromStringAndSize(key, (Py_ssize_t)steady__address_key(key, &address, (unsigned)prefix));
}
