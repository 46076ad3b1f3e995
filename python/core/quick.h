/* SPDX-License-Identifier: MIT
 * Quick: the judgement on a request in one call. */
#ifndef AIOSTEADY_QUICK_H
#define AIOSTEADY_QUICK_H

#include "state.h"

extern PyType_Spec quick_spec;

#endif
