/* SPDX-License-Identifier: MIT
 * The bases, in C, of the classes in blocking.py. */
#ifndef AIOSTEADY_BLOCKING_H
#define AIOSTEADY_BLOCKING_H

#include "throttler.h"

extern PyType_Spec blocking_store_spec, blocking_throttler_spec;

#endif
