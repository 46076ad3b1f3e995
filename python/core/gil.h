/* SPDX-License-Identifier: MIT
 * Calls of the library without the GIL: those that wait for a server. */
#ifndef AIOSTEADY_GIL_H
#define AIOSTEADY_GIL_H

#include "state.h"

/* A call without the GIL, in the stack frame of its thread. */
struct gil_released {
    PyThreadState *thread;
    PyObject *exception; /* that the log callback raised, and that must not be lost; NULL: none */
    struct gil_released *outer;
};

/* Nothing of Python may be touched between these two, except by gil_enter. */
void gil_release(struct gil_released *released);
void gil_take(struct gil_released *released);

/* Raises the exception of a call that has ended. 0 if there is none, else -1. */
int gil_raise(struct gil_released *released);

/* For a callback of the library inside such a call: takes the GIL. NULL: the interpreter is being finalized, so Python
 * code must not run. End with gil_leave. */
struct gil_released *gil_enter(void);
void gil_leave(struct gil_released *released);

/* Whether the interpreter is being finalized. Threads that want the GIL end then, wherever they are. */
bool gil_is_finalizing(void);

#endif
