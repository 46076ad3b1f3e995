/* SPDX-License-Identifier: MIT
 * Clock: the base, in C, of the class in testing.py. A decision reads it without a call of Python code. */
#include "clock.h"

#include <stddef.h>

#include "convert.h"

#define US_MAX (((int64_t)1 << 52) - 1)

struct clock {
    PyObject_HEAD long long us;
};

steady_us clock_read(void *clock) { return ((struct clock *)clock)->us; }

/* Each of these is one step for other threads. */
static PyObject *clock_set(struct clock *self, PyObject *us) {
    int64_t number = 0;
    if (convert_int(us, "the time in microseconds", -US_MAX, US_MAX, &number) != 0) return NULL;
    self->us = number;
    Py_RETURN_NONE;
}

static PyObject *clock_add(struct clock *self, PyObject *us) {
    int64_t number = 0;
    if (convert_int(us, "the time in microseconds", 0, US_MAX - self->us, &number) != 0) return NULL;
    self->us += number;
    Py_RETURN_NONE;
}

static PyObject *clock_reach(struct clock *self, PyObject *us) {
    int64_t number = 0;
    if (convert_int(us, "the time in microseconds", -US_MAX, US_MAX, &number) != 0) return NULL;
    if (self->us < number) self->us = number;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"_set", (PyCFunction)clock_set, METH_O, NULL},
                                {"_add", (PyCFunction)clock_add, METH_O, NULL},
                                {"_reach", (PyCFunction)clock_reach, METH_O, NULL},
                                {NULL, NULL, 0, NULL}};

static PyMemberDef members[] = {{"_us", T_LONGLONG, offsetof(struct clock, us), READONLY, NULL}, {NULL, 0, 0, 0, NULL}};

static PyType_Slot slots[] = {{Py_tp_methods, methods}, {Py_tp_members, members}, {0, NULL}};

PyType_Spec clock_spec = {"aiosteady._core.Clock", sizeof(struct clock), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, slots};
