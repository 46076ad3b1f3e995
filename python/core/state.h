/* SPDX-License-Identifier: MIT
 * The state of the extension in one interpreter. Includes Python.h for all files of this folder.
 *
 * The files form layers; each file includes only headers of layers below it:
 *
 *   - module: exceptions, functions and types that Python code sees
 *   - blocking: the Store and the Throttler of aiosteady.blocking
 *   - quick, sender: the judgement of the ASGI middleware in one call, and what it gives the application as `send`
 *   - middleware: header fields, problem documents and the addresses of clients, for the middlewares
 *   - throttler: Throttler: its limits, and calls with a key
 *   - decision: Decision: the coroutine that a call to a server returns
 *   - call: Call: a decision on several buckets, or with options; settling
 *   - sync: decisions of a store for blocking calls
 *   - binding: the throttlers of the library behind a Throttler, one for each event loop; its policy
 *   - tally: the counters of a Throttler
 *   - store: Store: a URL, and a store of the library for each event loop
 *   - loop, waiter, local, capture, reservation: asyncio for the library; waking a task; the fallback store
 *   - loop_store: the store of one event loop
 *   - gil: calls without the GIL
 *   - clock: Clock: a time that tests set
 *   - result, convert: ThrottleResult; numbers, texts and errors between Python and C
 */
#ifndef AIOSTEADY_STATE_H
#define AIOSTEADY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "src/loop/fork_guard.h"

#if PY_VERSION_HEX < 0x030A0000
typedef enum { PYGEN_RETURN = 0, PYGEN_ERROR = -1, PYGEN_NEXT = 1 } PySendResult;
#define Py_TPFLAGS_IMMUTABLETYPE 0
#define Py_TPFLAGS_DISALLOW_INSTANTIATION 0
static inline PyObject *Py_NewRef(PyObject *object) {
    Py_INCREF(object);
    return object;
}
#endif

#define AIOSTEADY_ERROR_COUNT 14 /* errors are numbered from -1 down */

/* The heap types, exceptions and constants of the module in one interpreter. The references come first: module.c visits
 * and clears them as an array that ends at `fork_guard`. */
struct core_state {
    PyTypeObject *result_type;
    PyTypeObject *decision_type;
    PyTypeObject *call_type;
    PyTypeObject *reservation_type;
    PyTypeObject *clock_type;
    PyTypeObject *store_type;
    PyTypeObject *loop_store_type;
    PyTypeObject *throttler_type;
    PyTypeObject *blocking_store_type;
    PyTypeObject *blocking_throttler_type;
    PyTypeObject *io_type;
    PyTypeObject *timer_type;
    PyTypeObject *waiter_type;
    PyTypeObject *quick_type;
    PyTypeObject *sender_type;
    PyObject *errors[AIOSTEADY_ERROR_COUNT]; /* exception types by -error; [0] is their base */
    PyObject *get_running_loop;
    PyObject *logger;
    PyObject *cancelled_error; /* asyncio.CancelledError */
    PyObject *context_only;    /* ("context",) */
    PyObject *is_closed;       /* this, and those below: the names */
    PyObject *type;
    PyObject *headers;
    PyObject *collected;
    PyObject *with_fields;
    PyObject *allowed;
    PyObject *results;
    PyObject *keys;
    PyObject *state;
    PyObject *rate_limit;
    PyObject *entry;     /* "aiosteady.asgi", of a scope */
    PyObject *starts[3]; /* the types of the messages that begin a response */
    PyObject *local;     /* the fallback store of all clients, see local.h; NULL until needed */
    struct steady__fork_guard fork_guard;
};

/* The name of the module, in its definition. state_of tells the module from others by this address. */
extern const char state_module_name[];

/* The state of the module that made `type`, or a base of it. */
struct core_state *state_of(PyTypeObject *type);

/* The id of this process. After a fork it is the child's. */
pid_t state_pid(struct core_state *state);

/* Whether `pid` is the id of this process. May be false although it is. Inline, because every decision of an embedded
 * store calls it. */
static inline bool state_is_of_process(const struct core_state *state, pid_t pid) {
    const struct steady__fork_guard *guard = &state->fork_guard;
    return guard->page != NULL && *guard->page != 0 && guard->pid == pid;
}

#endif
