/* SPDX-License-Identifier: MIT
 * Decision: the coroutine that a call to a server returns. */
#ifndef AIOSTEADY_DECISION_H
#define AIOSTEADY_DECISION_H

#include "binding.h"
#include "call.h"

PyObject *decision_new(struct throttler *throttler, struct request request, PyObject *key);

/* The same for a Call. */
PyObject *decision_of_call(struct call *call);

extern PyType_Spec decision_spec;

#endif
