/* SPDX-License-Identifier: MIT
 * Clock: the base, in C, of the class in testing.py. A test sets its time. */
#ifndef AIOSTEADY_CLOCK_H
#define AIOSTEADY_CLOCK_H

#include "state.h"
#include "steady.h"

/* For the options of a memory: store. The store reads it under the GIL. */
steady_us clock_read(void *clock);

extern PyType_Spec clock_spec;

#endif
