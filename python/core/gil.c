/* SPDX-License-Identifier: MIT
 * Calls of the library without the GIL.
 *
 * The thread state is kept in a variable of the thread. So a callback takes the GIL for the right interpreter, which
 * PyGILState_Ensure would not. Calls can be nested: a handler of the log may make one. */
#include "gil.h"

static _Thread_local struct gil_released *innermost;

void gil_release(struct gil_released *released) {
    released->exception = NULL;
    released->outer = innermost;
    innermost = released;
    released->thread = PyEval_SaveThread();
}

void gil_take(struct gil_released *released) {
    PyEval_RestoreThread(released->thread);
    innermost = released->outer;
}

int gil_raise(struct gil_released *released) {
    PyObject *exception = released->exception;
    if (exception == NULL) return 0;
    released->exception = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    return -1;
}

struct gil_released *gil_enter(void) {
    if (innermost == NULL || gil_is_finalizing()) return NULL;
    PyEval_RestoreThread(innermost->thread);
    return innermost;
}

void gil_leave(struct gil_released *released) { released->thread = PyEval_SaveThread(); }

bool gil_is_finalizing(void) {
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing() != 0;
#else
    return _Py_IsFinalizing() != 0;
#endif
}
