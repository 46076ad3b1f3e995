/* SPDX-License-Identifier: MIT
 * ThrottleResult: the outcome of a decision. */
#ifndef AIOSTEADY_RESULT_H
#define AIOSTEADY_RESULT_H

#include "state.h"
#include "steady.h"

PyObject *result_from(struct core_state *state, const steady_result *from);

extern PyType_Spec result_spec;

#endif
