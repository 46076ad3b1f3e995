/* SPDX-License-Identifier: MIT
 * ThrottleResult: the outcome of a decision. */
#ifndef AIOSTEADY_RESULT_H
#define AIOSTEADY_RESULT_H

#include "state.h"
#include "steady.h"
#include "steady/http.h"

/* The result of a decision on one bucket. `name` is the name of its limit, or NULL. */
PyObject *result_from(struct core_state *state, const steady_result *from, PyObject *name);

/* The same for a call that may have several buckets. `reservation` is a Reservation, or NULL. */
PyObject *result_from_group(struct core_state *state, const steady_result *from, PyObject *reservation);

double result_must_wait(PyObject *result);
bool result_is_success(PyObject *result);
bool result_is_from_store(PyObject *result);
void result_fill_policy(PyObject *result, steady_http_policy *policy); /* success, level and the two times */
PyObject *result_reservation(PyObject *result);                        /* borrowed; NULL: none */

extern PyType_Spec result_spec;

#endif
