/* SPDX-License-Identifier: MIT
 * Conversions between Python objects and the values of the library. */
#include "convert.h"

#include <math.h>

/* ---- Errors ---- */

PyObject *convert_error(struct core_state *state, int error, const char *why) {
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

PyObject *convert_raise(struct core_state *state, int error, const char *why) {
    PyObject *exception = convert_error(state, error, why);
    if (exception != NULL) PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
    return NULL;
}

void convert_say_where(const char *format, ...) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL || (type != PyExc_TypeError && type != PyExc_ValueError)) {
        PyErr_Restore(type, value, traceback);
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    PyObject *where = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    if (where != NULL) PyErr_Format(type, "%U: %S", where, value);
    Py_XDECREF(where);
    Py_DECREF(type);
    Py_DECREF(value);
}

/* ---- Arguments ---- */

int convert_int(PyObject *object, const char *name, int64_t min, int64_t max, int64_t *out) {
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

int convert_check_str(PyObject *object, const char *name) {
    if (PyUnicode_Check(object)) return 0;
    PyErr_Format(PyExc_TypeError, "%s must be a str, not %.100s", name, Py_TYPE(object)->tp_name);
    return -1;
}

int convert_is_mapping(PyObject *object) {
    if (PyDict_Check(object)) return 1;
    if (PyIndex_Check(object) || !PyMapping_Check(object) || PyUnicode_Check(object) || PyBytes_Check(object)) return 0;
    PyObject *keys = PyObject_GetAttrString(object, "keys");
    if (keys == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError)) return -1;
    PyErr_Clear();
    Py_XDECREF(keys);
    return keys != NULL;
}

PyObject *convert_to_ascii(PyObject *text) { return PyUnicode_AsEncodedString(text, "ascii", "backslashreplace"); }

int convert_bad_text(PyObject *given, const char *name, const char *must_be) {
    char shown[100] = "?";
    PyObject *bytes = convert_to_ascii(given);
    if (bytes == NULL) return -1;
    steady_quote(shown, sizeof shown, PyBytes_AS_STRING(bytes));
    Py_DECREF(bytes);
    PyErr_Format(PyExc_ValueError, "%s is '%s'; it must be %s", name, shown, must_be);
    return -1;
}

int convert_choice(PyObject *given, const char *name, const char *const *names) {
    char list[80] = "one of ";
    if (convert_check_str(given, name) != 0) return -1;
    for (int i = 0; names[i] != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(given, names[i]) == 0) return i;
        const size_t len = strlen(list);
        PyOS_snprintf(list + len, sizeof list - len, "%s'%s'", i > 0 ? ", " : "", names[i]);
    }
    return convert_bad_text(given, name, list);
}

PyObject *convert_redacted(PyObject *text, const struct steady__secrets *secrets, bool of_server) {
    char shown[sizeof((steady_message *)NULL)->text];
    PyObject *bytes = convert_to_ascii(text);
    if (bytes == NULL) return NULL;
    if (of_server)
        steady__redact(shown, sizeof shown, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes), secrets);
    else
        steady__redact_known(shown, sizeof shown, PyBytes_AS_STRING(bytes), secrets);
    Py_DECREF(bytes);
    return PyUnicode_FromString(shown);
}

static int convert_bad_seconds(const char *name, PyObject *given, steady_us least) {
    PyErr_Format(PyExc_ValueError, "%s is %.50R s; it must be %s0.000001 .. 9007199254 s", name, given,
                 least == 0 ? "0, or " : "");
    return -1;
}

int convert_seconds(PyObject *object, const char *name, steady_us least, steady_us *out) {
    if (!PyNumber_Check(object) || PyComplex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be a number of seconds, not %.100s", name, Py_TYPE(object)->tp_name);
        return -1;
    }
    const double seconds = PyFloat_AsDouble(object);
    if (seconds == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
        PyErr_Clear();
        return convert_bad_seconds(name, object, least);
    }
    if (!isfinite(seconds) || seconds < 0 || seconds >= (double)STEADY__EXACT / 1e6)
        return convert_bad_seconds(name, object, least);
    *out = llround(seconds * 1e6);
    return *out < least || (*out == 0 && seconds > 0) ? convert_bad_seconds(name, object, least) : 0;
}

int convert_wait(PyObject *object, const char *name, steady_us *out) {
    if (object == Py_None) {
        *out = STEADY__MAX_WAIT;
        return 0;
    }
    if (!PyNumber_Check(object) || PyComplex_Check(object)) return convert_seconds(object, name, 0, out);
    const double seconds = PyFloat_AsDouble(object);
    if (seconds == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s is out of range; it must be 0 or more, or None for no bound", name);
        return -1;
    }
    if (seconds < 0 || isnan(seconds)) {
        PyErr_Format(PyExc_ValueError, "%s is %.50R s; it must be 0 or more, or None for no bound", name, object);
        return -1;
    }
    *out = seconds < (double)STEADY__MAX_WAIT / 1e6 ? llround(seconds * 1e6) : STEADY__MAX_WAIT;
    return 0;
}

const char *convert_utf8(PyObject *text, const char *name, Py_ssize_t *len) {
    const char *bytes = PyUnicode_AsUTF8AndSize(text, len);
    if (bytes == NULL && PyErr_ExceptionMatches(PyExc_UnicodeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s holds a lone surrogate, which UTF-8 cannot encode", name);
    }
    return bytes;
}

int convert_key(PyObject *key, const char **bytes, Py_ssize_t *len) {
    if (PyUnicode_Check(key)) {
        if ((*bytes = convert_utf8(key, "key", len)) == NULL) return -1;
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

/* ---- Replies ---- */

Py_ssize_t convert_reply(PyObject *reply, int64_t *values, Py_ssize_t most) {
    const bool one = PyLong_Check(reply);
    const Py_ssize_t count = one ? 1 : PyList_Check(reply) ? PyList_GET_SIZE(reply) : -1;
    if (count > most) return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        int overflow = 0;
        PyObject *value = one ? reply : PyList_GET_ITEM(reply, i);
        if (!PyLong_Check(value)) return -1;
        values[i] = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow != 0) return -1;
    }
    return count;
}
