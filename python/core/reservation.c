/* SPDX-License-Identifier: MIT
 * Reservation: what a call took, to be settled later. The classes of _reserve.py and blocking.py are built on it. */
#include "reservation.h"

#include "convert.h"

struct reservation {
    PyObject_HEAD steady_reservation *reservation;
};

PyObject *reservation_new(struct core_state *state, steady_reservation *from) {
    struct reservation *self = PyObject_New(struct reservation, state->reservation_type);
    if (self == NULL)
        steady_reservation_free(&from);
    else
        self->reservation = from;
    return (PyObject *)self;
}

steady_reservation *reservation_of(struct core_state *state, PyObject *object) {
    if (Py_TYPE(object) == state->reservation_type) return ((struct reservation *)object)->reservation;
    PyErr_Format(PyExc_TypeError, "reservation must be a Reservation, not %.100s", Py_TYPE(object)->tp_name);
    return NULL;
}

/* ---- Settling ---- */

/* A bool is an int to Python, but never a cost. */
static int reservation_read_cost(PyObject *given, int64_t *actual) {
    if (!PyBool_Check(given)) return convert_int(given, "actual", 0, INT64_MAX, actual);
    PyErr_SetString(PyExc_TypeError, "actual must be an int, not bool");
    return -1;
}

static int reservation_read_one(const steady_reserved *parts, size_t n, PyObject *given, int64_t *actuals) {
    int64_t actual = 0;
    if (reservation_read_cost(given, &actual) != 0) return -1;
    for (size_t i = 0; i < n; i++) {
        if (parts[i].amount != parts[0].amount) {
            PyErr_SetString(PyExc_ValueError, "actual is one number, but the limits were asked for different amounts; "
                                              "give a number for each, such as {\"name\": 1}");
            return -1;
        }
        actuals[i] = actual;
    }
    return 0;
}

/* An __index__ may change a list, so a tuple of it is read. */
static int reservation_read_sequence(size_t n, PyObject *given, int64_t *actuals) {
    PyObject *numbers = PySequence_Tuple(given);
    if (numbers == NULL) return -1;
    int error = PyTuple_GET_SIZE(numbers) == (Py_ssize_t)n ? 0 : -1;
    if (error != 0)
        PyErr_Format(PyExc_ValueError, "actual has %zd numbers; the reservation has %zu limits",
                     PyTuple_GET_SIZE(numbers), n);
    for (size_t i = 0; error == 0 && i < n; i++)
        error = reservation_read_cost(PyTuple_GET_ITEM(numbers, (Py_ssize_t)i), &actuals[i]);
    Py_DECREF(numbers);
    return error;
}

static int reservation_unknown_name(const steady_reserved *parts, size_t n, PyObject *name) {
    PyObject *names = PyList_New(0);
    for (size_t i = 0; names != NULL && i < n; i++) {
        PyObject *known = PyUnicode_FromString(parts[i].name);
        if (known == NULL || PyList_Append(names, known) != 0) Py_CLEAR(names);
        Py_XDECREF(known);
    }
    if (names != NULL)
        PyErr_Format(PyExc_ValueError, "actual names %.100R; the limits of the reservation are %R", name, names);
    Py_XDECREF(names);
    return -1;
}

static int reservation_read_mapping(const steady_reserved *parts, size_t n, PyObject *given, int64_t *actuals) {
    PyObject *items = PyMapping_Items(given);
    int error = items != NULL ? 0 : -1;
    for (size_t i = 0; i < n; i++)
        actuals[i] = -1;
    for (Py_ssize_t at = 0; error == 0 && at < PyList_GET_SIZE(items); at++) {
        PyObject *item = PyList_GET_ITEM(items, at), *name = PySequence_GetItem(item, 0);
        PyObject *number = PySequence_GetItem(item, 1);
        int64_t actual = 0;
        bool found = false;
        if (name == NULL || number == NULL || reservation_read_cost(number, &actual) != 0) error = -1;
        for (size_t i = 0; error == 0 && i < n; i++)
            if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, parts[i].name) == 0) {
                actuals[i] = actual;
                found = true;
            }
        if (error == 0 && !found) error = reservation_unknown_name(parts, n, name);
        Py_XDECREF(name);
        Py_XDECREF(number);
    }
    if (error == 0 && PyList_GET_SIZE(items) == 0) {
        PyErr_SetString(PyExc_ValueError, "actual names no limit; leave it unset if all stay charged");
        error = -1;
    }
    Py_XDECREF(items);
    return error;
}

/* What took drops out cannot be settled. */
static void reservation_give_all_back(const steady_reserved *parts, size_t n, int64_t *actuals) {
    for (size_t i = 0; i < n; i++)
        actuals[i] = parts[i].amount >= 0 ? 0 : -1;
}

int reservation_read_actual(const steady_reservation *reservation, PyObject *given, int64_t *actuals) {
    size_t n = 0;
    const steady_reserved *parts = steady_reservation_parts(reservation, &n);
    if (given == Py_None) {
        reservation_give_all_back(parts, n, actuals);
        return 0;
    }
    if (PyTuple_Check(given) || PyList_Check(given)) return reservation_read_sequence(n, given, actuals);
    const int mapping = convert_is_mapping(given);
    if (mapping != 0) return mapping > 0 ? reservation_read_mapping(parts, n, given, actuals) : -1;
    return reservation_read_one(parts, n, given, actuals);
}

static void reservation_given_back(const steady_result *result, void *data) {
    if (result->error != 0 && result->error != STEADY_CANCELLED)
        loop_store_log(data, STEADY_LOG_WARNING, "what a cancelled call reserved could not be given back");
}

void reservation_give_back(struct loop_store *store, steady_reservation *reservation) {
    int64_t actuals[STEADY__PARTS_MAX];
    size_t n = 0;
    const steady_reserved *parts = steady_reservation_parts(reservation, &n);
    reservation_give_all_back(parts, n, actuals);
    const steady_settlement settlement = {.reservation = reservation, .actuals = actuals, .store = store->store};
    if (loop_store_is_usable(store) && store->calling_loop == 0)
        (void)steady_settle(&settlement, reservation_given_back, store, NULL);
    steady_reservation_free(&reservation);
}

/* ---- The type ---- */

static PyObject *reservation_text(struct reservation *self, PyObject *Py_UNUSED(none)) {
    const size_t size = steady_reservation_text(self->reservation, NULL, 0) + 1;
    char *text = PyMem_Malloc(size);
    if (text == NULL) return PyErr_NoMemory();
    steady_reservation_text(self->reservation, text, size);
    PyObject *made = PyUnicode_FromString(text);
    PyMem_Free(text);
    return made;
}

/* Raises what settling with this actual would raise. */
static PyObject *reservation_check(struct reservation *self, PyObject *given) {
    int64_t actuals[STEADY__PARTS_MAX];
    if (given == Py_None) return PyErr_Format(PyExc_TypeError, "actual must be an int, not NoneType");
    if (reservation_read_actual(self->reservation, given, actuals) != 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *reservation_make(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"text", NULL};
    struct core_state *state = state_of(type);
    steady_reservation *made = NULL;
    steady_message why = {.text = ""};
    PyObject *given = NULL;
    Py_ssize_t len = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Reservation", names, &given) ||
        convert_check_str(given, "text") != 0)
        return NULL;
    const char *text = convert_utf8(given, "text", &len);
    if (text == NULL) return NULL;
    const int error = strlen(text) == (size_t)len ? steady_reservation_parse(&made, text, &why) : STEADY_BAD_ARGUMENT;
    if (error == STEADY_BAD_ARGUMENT)
        return PyErr_Format(PyExc_ValueError, "reservation is not the text of a reservation");
    return error != 0 ? convert_raise(state, error, why.text) : reservation_new(state, made);
}

static void reservation_dealloc(struct reservation *self) {
    PyTypeObject *type = Py_TYPE(self);
    steady_reservation_free(&self->reservation);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {{"text", (PyCFunction)reservation_text, METH_NOARGS, NULL},
                                {"check", (PyCFunction)reservation_check, METH_O, NULL},
                                {NULL, NULL, 0, NULL}};

static PyType_Slot slots[] = {
    {Py_tp_new, reservation_make}, {Py_tp_dealloc, reservation_dealloc}, {Py_tp_methods, methods}, {0, NULL}};

PyType_Spec reservation_spec = {"aiosteady._core.Reservation", sizeof(struct reservation), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, slots};
