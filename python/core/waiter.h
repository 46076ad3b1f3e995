/* SPDX-License-Identifier: MIT
 * Waiter: the object that a task waits for, and that wakes it. */
#ifndef AIOSTEADY_WAITER_H
#define AIOSTEADY_WAITER_H

#include "loop_store.h"

struct waiter {
    PyObject_HEAD struct loop_store *store;
    PyObject *wakeup; /* the callback of the task; NULL: not added yet, or already called */
    PyObject *context;
    PyObject *cancel_message;
    char blocking; /* the attribute _asyncio_future_blocking: set when it is awaited; the task reads and clears it */
    char done;
    char cancelled;
};

struct waiter *waiter_new(struct loop_store *store);
void waiter_wake(struct waiter *self);

extern PyType_Spec waiter_spec;

#endif
