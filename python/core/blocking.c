/* SPDX-License-Identifier: MIT
 * The bases, in C, of the classes in blocking.py: a Store without event loops, and a Throttler whose calls return the
 * result.
 *
 * A wait for a place in line is here and not in Python: an exception of a signal handler, such as KeyboardInterrupt,
 * could otherwise come between the call that takes the place and the code that gives it back. */
#include "blocking.h"

#include <errno.h>
#include <time.h>

#include "clock.h"
#include "reservation.h"
#include "result.h"
#include "sync.h"

#define CONNECTIONS_MAX 64 /* of steady_pool_open */
#define LATE 0.001         /* seconds by which a timer may be late */

/* ---- Store ---- */

static int blocking_take_connections(PyObject *kwargs, PyObject *name, uint32_t *connections) {
    int64_t number = 0;
    PyObject *given = PyDict_GetItemWithError(kwargs, name); /* borrowed */
    if (given == NULL) return PyErr_Occurred() ? -1 : 0;
    if (convert_int(given, "connections", 0, CONNECTIONS_MAX, &number) != 0) return -1;
    *connections = (uint32_t)number;
    return PyDict_DelItem(kwargs, name);
}

/* Removes it from the arguments. */
static int blocking_read_connections(PyObject *kwargs, uint32_t *connections) {
    PyObject *name = PyUnicode_FromString("connections");
    const int error = name != NULL ? blocking_take_connections(kwargs, name, connections) : -1;
    Py_XDECREF(name);
    return error;
}

static PyObject *blocking_store_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    uint32_t connections = 0;
    PyObject *rest = kwargs != NULL ? PyDict_Copy(kwargs) : PyDict_New(), *made = NULL;
    if (rest != NULL && blocking_read_connections(rest, &connections) == 0)
        made = store_make(type, args, rest, &connections);
    Py_XDECREF(rest);
    return made;
}

static PyType_Slot store_slots[] = {{Py_tp_new, blocking_store_new}, {0, NULL}};

/* Without Py_TPFLAGS_HAVE_GC and a tp_traverse both are those of the base. */
PyType_Spec blocking_store_spec = {"aiosteady._core.BlockingStore", sizeof(struct store), 0,
                                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, store_slots};

/* ---- Places in line ---- */

/* The time that waits count by. */
static steady_us blocking_now(const struct throttler *self) {
    struct timespec now;
    if (self->store->clock != NULL) return clock_read(self->store->clock);
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * STEADY_SECOND + now.tv_nsec / 1000;
}

/* A signal handler may run Python code and raise. 0, or -1 and its exception. */
static int blocking_sleep(double seconds) {
    struct timespec until;
    int error = 0;
    if (seconds <= 0) return PyErr_CheckSignals();
    clock_gettime(CLOCK_MONOTONIC, &until);
    const int64_t us = (int64_t)(seconds * 1e6) + 1, ns = until.tv_nsec + us % STEADY_SECOND * 1000;
    until.tv_sec += (time_t)(us / STEADY_SECOND + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    do {
        if (PyErr_CheckSignals() != 0) return -1;
        Py_BEGIN_ALLOW_THREADS error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        Py_END_ALLOW_THREADS
    } while (error == EINTR);
    return 0;
}

static void blocking_give_back_of(struct throttler *self, PyObject *result) {
    PyObject *reservation = result_reservation(result);
    if (reservation != NULL) sync_give_back(self->store->embedded, reservation_of(self->state, reservation));
}

/* `asked`: the time of the clock of the store when it was asked. */
static int blocking_sleep_by_clock(struct throttler *self, steady_us asked, double seconds) {
    if (seconds <= 0) return 0;
    const long long due = asked + (long long)(seconds * 1e6 + 0.5);
    PyObject *answer = PyObject_CallMethod(self->store->clock, "_wait", "L", due);
    Py_XDECREF(answer);
    return answer != NULL ? 0 : -1;
}

/* Sleeps until it is the turn of a result. If an exception ends the sleep, the place is given back. Takes the reference
 * to the result. */
static PyObject *blocking_await_turn(struct throttler *self, PyObject *result, steady_us asked) {
    if (result == NULL) return NULL;
    const double wait = result_must_wait(result);
    if ((self->store->clock == NULL ? blocking_sleep(wait) : blocking_sleep_by_clock(self, asked, wait)) == 0)
        return result;
    blocking_give_back_of(self, result);
    Py_DECREF(result);
    return NULL;
}

static bool blocking_is_ready(struct throttler *self) {
    if (!binding_is_initialized(self)) return false;
    if (self->store != NULL && self->store->embedded != NULL) return true;
    PyErr_SetString(PyExc_TypeError, "the store is not one of aiosteady.blocking");
    return false;
}

/* The answer of the store took its time: the place comes later than the caller wants to wait. */
static PyObject *blocking_too_late(struct throttler *self, PyObject *result) {
    char text[80];
    PyOS_snprintf(text, sizeof text, "the bucket has no room in time: it would take %.3f s", result_must_wait(result));
    PyErr_SetString(PyExc_TimeoutError, text);
    blocking_give_back_of(self, result);
    Py_DECREF(result);
    return NULL;
}

/* (key, amount, max_wait) */
static PyObject *blocking_wait(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    steady_us most = STEADY__MAX_WAIT;
    if (!blocking_is_ready(self)) return NULL;
    if (nargs > 2 && convert_wait(args[2], "timeout", &most) != 0) return NULL;
    const steady_us asked = blocking_now(self);
    PyObject *result = throttler_wait(self, args, nargs, kwnames);
    if (result == NULL) return NULL;
    const double wait = result_must_wait(result);
    if (wait > LATE && self->store->clock == NULL &&
        (double)(blocking_now(self) - asked) / 1e6 + wait > (double)most / 1e6 + LATE)
        return blocking_too_late(self, result);
    return blocking_await_turn(self, result, asked);
}

static PyObject *blocking_reserve(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    if (!blocking_is_ready(self)) return NULL;
    const steady_us asked = blocking_now(self);
    return blocking_await_turn(self, throttler_reserve(self, args, nargs, kwnames), asked);
}

static PyObject *blocking_await_turn_of(struct throttler *self, PyObject *result) {
    if (!blocking_is_ready(self)) return NULL;
    if (Py_TYPE(result) != self->state->result_type)
        return PyErr_Format(PyExc_TypeError, "result must be a ThrottleResult, not %.100s", Py_TYPE(result)->tp_name);
    return blocking_await_turn(self, Py_NewRef(result), blocking_now(self));
}

static PyObject *blocking_give_back(struct throttler *self, PyObject *result) {
    if (!blocking_is_ready(self)) return NULL;
    if (Py_TYPE(result) != self->state->result_type)
        return PyErr_Format(PyExc_TypeError, "result must be a ThrottleResult, not %.100s", Py_TYPE(result)->tp_name);
    blocking_give_back_of(self, result);
    Py_RETURN_NONE;
}

/* ---- Throttler ---- */

/* The options of these calls are keywords, as in the asynchronous class. */
static bool blocking_has_excess(const char *name, Py_ssize_t nargs, Py_ssize_t most) {
    if (nargs > most) PyErr_Format(PyExc_TypeError, "%s() takes at most %zd positional arguments", name, most);
    return nargs > most;
}

static PyObject *blocking_consume(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    return blocking_has_excess("consume", nargs, 2) ? NULL : throttler_consume(self, args, nargs, kwnames);
}

static PyObject *blocking_peek(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    return blocking_has_excess("peek", nargs, 2) ? NULL : throttler_peek(self, args, nargs, kwnames);
}

static PyObject *blocking_charge(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    if (nargs + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0) == 2)
        return throttler_charge(self, args, nargs, kwnames);
    return PyErr_Format(PyExc_TypeError, "charge() takes key and amount");
}

#define METHOD(name, function, doc)                                                                                    \
    { name, (PyCFunction)(void (*)(void))function, METH_FASTCALL | METH_KEYWORDS, doc }

static PyMethodDef methods[] = {
    METHOD("consume", blocking_consume,
           "consume($self, key, amount=1, *, max_wait=0, at_least=None)\n--\n\n"
           "Puts `amount` drops into the bucket if they all fit. A negative amount takes drops out.\n\n"
           "Look at `success` of the result. If it is False, no drop was charged. If the store gives no verdict, "
           "`on_error` of\nthe throttler applies."),
    METHOD("peek", blocking_peek,
           "peek($self, key, amount=1, *, max_wait=0, at_least=None)\n--\n\n"
           "Returns the state of the bucket and changes nothing. `success` is True if the drops would fit."),
    METHOD("charge", blocking_charge,
           "charge($self, key, amount)\n--\n\n"
           "Puts the drops in whatever the level, also if the key is blocked. For a cost that has already arisen."),
    METHOD("reset", throttler_reset,
           "reset($self, key)\n--\n\nDeletes the bucket. A new one is empty and not blocked."),
    METHOD("_wait_in_line", blocking_wait,
           "_wait_in_line($self, key, amount=1, max_wait=0)\n--\n\nDoes the same as _wait, and sleeps until it is the "
           "turn of the result."),
    METHOD("_reserve_in_line", blocking_reserve,
           "_reserve_in_line($self, key, amount=1, max_wait=0, at_least=None)\n--\n\nDoes the same as _reserve, and "
           "sleeps until it is the turn of the result."),
    {"_await_turn", (PyCFunction)blocking_await_turn_of, METH_O, NULL},
    {"_give_back", (PyCFunction)blocking_give_back, METH_O, NULL},
    {NULL, NULL, 0, NULL}};

static PyType_Slot throttler_slots[] = {{Py_tp_methods, methods}, {0, NULL}};

PyType_Spec blocking_throttler_spec = {"aiosteady._core.BlockingThrottler", sizeof(struct throttler), 0,
                                       Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
                                       throttler_slots};
