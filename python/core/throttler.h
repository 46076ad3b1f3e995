/* SPDX-License-Identifier: MIT
 * Throttler: the base, in C, of the class in leakybucket.py. */
#ifndef AIOSTEADY_THROTTLER_H
#define AIOSTEADY_THROTTLER_H

#include "state.h"

extern PyType_Spec throttler_spec;

#endif
