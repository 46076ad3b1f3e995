/* SPDX-License-Identifier: MIT
 * A running asyncio loop, as the event loop of a store of the library. */
#ifndef AIOSTEADY_LOOP_H
#define AIOSTEADY_LOOP_H

#include "state.h"
#include "steady.h"

/* The loop of a steady_loop with these functions is a struct loop_store. */
extern const steady_loop_ops loop_ops;

extern PyType_Spec loop_io_spec, loop_timer_spec;

#endif
