/* SPDX-License-Identifier: MIT
 * Throttler: the base, in C, of the class in leakybucket.py. */
#ifndef AIOSTEADY_THROTTLER_H
#define AIOSTEADY_THROTTLER_H

#include "call.h"

/* The result if the store is embedded, otherwise an awaitable of it. */
PyObject *throttler_decide(struct call *call);

extern PyType_Spec throttler_spec;

#endif
