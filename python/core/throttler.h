/* SPDX-License-Identifier: MIT
 * Throttler: the base, in C, of the class in leakybucket.py. */
#ifndef AIOSTEADY_THROTTLER_H
#define AIOSTEADY_THROTTLER_H

#include "call.h"

/* The result if the store has no loop, otherwise an awaitable of it. */
PyObject *throttler_decide(struct call *call);

/* Methods, for METH_FASTCALL | METH_KEYWORDS. They answer as throttler_decide does. */
PyObject *throttler_consume(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *throttler_peek(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *throttler_reset(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *throttler_charge(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *throttler_reserve(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *throttler_wait(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* Whether throttler_consume_embedded may be called: one limit, and an open embedded store. */
bool throttler_is_embedded(const struct throttler *self);

/* The result of a decision of an embedded store. */
PyObject *throttler_consume_embedded(struct throttler *self, PyObject *key, int64_t amount);

extern PyType_Spec throttler_spec;

#endif
