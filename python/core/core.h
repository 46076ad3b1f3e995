/* SPDX-License-Identifier: MIT
 * What the files of the extension share: its state, its types, its conversions. */
#ifndef AIOSTEADY_CORE_H
#define AIOSTEADY_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "loop/fork_guard.h" /* of ../../src */
#include "store.h"

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

/* Every heap type, exception and interned name of one interpreter's copy of the module: references, and then the rest.
 */
struct core_state {
    PyTypeObject *result_type;
    PyTypeObject *decision_type;
    PyTypeObject *store_type;
    PyTypeObject *loop_store_type;
    PyTypeObject *throttler_type;
    PyTypeObject *io_type;
    PyTypeObject *timer_type;
    PyTypeObject *waiter_type;
    PyObject *errors[AIOSTEADY_ERROR_COUNT]; /* by -error; [0] is their base */
    PyObject *get_running_loop;
    PyObject *logger;
    PyObject *cancelled_error; /* of asyncio */
    PyObject *context_only;    /* ("context",) */
    PyObject *is_closed;
    PyObject *local; /* of all clients of others, see local.c; NULL: not needed yet */
    struct steady__fork_guard fork_guard;
};

extern struct PyModuleDef aiosteady_core;

/* The state of the module that a type of ours, or a subclass of one, comes from. */
struct core_state *core_state_of(PyTypeObject *type);

/* ---- Errors ---- */

/* An exception for an error of the library; `why` may be "" or NULL. NULL with an exception set where that fails. */
PyObject *core_error(struct core_state *state, int error, const char *why);

/* The same, raised. Returns NULL. */
PyObject *core_raise(struct core_state *state, int error, const char *why);

/* ---- Arguments: -1 and an exception that names the argument where it is not usable ---- */

int core_int(PyObject *object, const char *name, int64_t min, int64_t max, int64_t *out);
int core_is_text(PyObject *object, const char *name);

/* Which of the names, the last of which is NULL, `given` is. */
int core_choice(PyObject *given, const char *name, const char *const *names);

int core_seconds(PyObject *object, const char *name, steady_us *out);

/* The UTF-8 of a str, which belongs to it; NULL and an exception where it has none. */
const char *core_utf8(PyObject *text, const char *name, Py_ssize_t *len);

/* The bytes of a key, which belong to it. */
int core_key(PyObject *key, const char **bytes, Py_ssize_t *len);

/* ---- Results ---- */

PyObject *core_result(struct core_state *state, const steady_result *from);

/* ---- Stores ---- */

/* A reference that the library has, in a list of its loop's store. A collection of garbage must see it: without it a
 * decision in flight would keep itself, its throttler and the connection for ever once its loop is gone. */
struct held {
    PyObject *object; /* NULL: not held */
    struct held *next;
    struct held **link; /* what points here */
};

/* The store of one running loop, or (loop NULL) an embedded one. */
struct loop_store {
    PyObject_HEAD struct core_state *state;
    PyObject *loop;
    PyObject *add[2]; /* add_reader and add_writer of the loop, bound */
    PyObject *remove[2];
    PyObject *call_later;
    PyObject *call_soon;
    PyObject *interrupt; /* raised where nobody could get it: the loop is to */
    bool at_top;         /* in a callback of the loop, see waiter.c */
    bool ending;         /* closed while `asking` */
    unsigned asking;     /* the library is in a call to the loop, see loop.c */
    steady_store *store; /* NULL: closed */
    struct held *held;   /* by `store` */
    PyObject *local;     /* lent to `store`; NULL: not needed yet */
    PyObject *counters;  /* of its Store, and what is in them of this one */
    steady_stats counted;
    unsigned long thread;
    pid_t process;
};

/* What connect() returns: a URL, and a store for each loop that uses it. */
struct store {
    PyObject_HEAD struct core_state *state;
    char *url;
    steady_store_options options;
    struct loop_store *embedded; /* NULL: a server's */
    PyObject *loops;             /* {loop: struct loop_store} */
    PyObject *local;             /* see local.c; NULL: not needed yet */
    PyObject *counters;          /* what the stores of loops that are gone have counted: a steady_stats, as a capsule */
    bool closed;
    bool told; /* the log, that no more can be opened */
};

/* Takes a reference for the library, and gives it back, which may end the object and whatever `held` is in. */
void core_hold(struct loop_store *store, struct held *held, PyObject *object);
void core_let_go(struct held *held);

/* The store of this loop, opened if need be; a new reference. */
struct loop_store *core_store_on(struct store *self, PyObject *loop);

/* The process that this is; after a fork the child's. */
pid_t core_process(struct core_state *state);

/* False: closed, or the parent's. */
static inline bool core_is_usable(const struct loop_store *store) {
    return store->store != NULL && !store->ending && store->process == core_process(store->state);
}

/* An exception that there is nobody to raise to. It is reported, but for one that is to stop the program, such as
 * KeyboardInterrupt: that is kept for the next core_raise_kept. */
void core_complain(struct loop_store *store, PyObject *about);

/* 0, or -1 and what was kept is raised. */
int core_raise_kept(struct loop_store *store);

/* After each call of the library: what was closed in its calls to the loop ends now. */
void core_left(struct loop_store *store);

/* asyncio, as a loop of the library's; `loop` is the struct loop_store. */
extern const steady_loop_ops core_loop_ops;

/* What stands in under on_error="local", in a place that others share, made when it is first needed: a new reference.
 * NULL with an exception. */
PyObject *core_local(struct core_state *state, PyObject **place, uint32_t buckets);
steady_store *core_local_store(PyObject *local);

/* Before a loop's store has a throttler that wants it. 0, or -1 with an exception. */
int core_lend_local(struct store *from, struct loop_store *to);

/* Before a loop's store is closed, which would close what it was lent. */
void core_return_local(struct loop_store *from);

/* ---- Throttlers and decisions ---- */

struct binding {
    struct loop_store *store; /* NULL: what stands in */
    steady_throttler *throttler;
    steady_throttler *patient; /* the same without a block_duration; NULL: there is none anyway */
};

struct throttler {
    PyObject_HEAD struct core_state *state;
    PyObject *redis; /* as it was given */
    PyObject *max_capacity;
    PyObject *drop_recharge;
    PyObject *block_duration;
    PyObject *prefix;         /* str */
    struct store *store;      /* NULL: a client of others */
    PyObject *ask;            /* what asks a client of others, see _clients.py; else NULL */
    struct binding *bindings; /* one a loop */
    size_t count;
    PyObject *local;         /* see local.c; NULL: not needed yet */
    struct binding stand_in; /* to it: its policy is asked, and no more */
    steady_limit limit;
    struct steady__terms terms;   /* of an embedded store and of a client of others; only the rate is filled in */
    struct steady__terms patient; /* the same without a block */
    steady_throttler_options options;
};

/* What to ask for a key. */
struct question {
    enum steady__verb verb;
    bool patient; /* a consume that starts no block */
    int64_t amount;
};

/* What a task is given to wait for. */
struct waiter {
    PyObject_HEAD struct loop_store *store;
    PyObject *wakeup; /* of the task, to be called in its context; NULL: not there yet, or called */
    PyObject *context;
    PyObject *why; /* it was cancelled */
    char blocking; /* asyncio's, between a task and what it waits for */
    char done;
    char cancelled;
};

struct waiter *core_waiter(struct loop_store *store);
void core_waiter_wake(struct waiter *self);

struct decision {
    PyObject_HEAD struct core_state *state;
    struct throttler *throttler;
    PyObject *key;
    struct question question;
    enum { DECISION_NEW, DECISION_STARTING, DECISION_WAITING, DECISION_ANSWERED, DECISION_OVER } phase;
    bool failed;              /* `answer` is an exception */
    struct loop_store *store; /* asked */
    struct waiter *waiter;    /* whom the answer wakes; NULL: nobody any more */
    PyObject *answer;
    struct held held; /* while it is in flight */
};

/* Of the two throttlers of a binding. */
static inline steady_throttler *core_whom(const struct binding *binding, struct question question) {
    return question.patient && binding->patient != NULL ? binding->patient : binding->throttler;
}

PyObject *core_decision(struct throttler *throttler, struct question question, PyObject *key);

/* Prefix and key, as bytes; in `room`, of STEADY__KEY_MAX bytes, where there is a prefix. -1 and an exception. */
int core_whole_key(const struct throttler *self, PyObject *key, char *room, const char **bytes, size_t *len);

/* Whom to ask on the running loop. NULL with an exception. Valid until Python code runs. */
struct binding *core_binding(struct throttler *self);

/* The throttler's policy for the exception that is set, of a store that could not be opened: a result, or the exception
 * stays. */
PyObject *core_policy_unopened(struct throttler *self, struct question question, PyObject *key);

/* What the throttler's policy makes of an error; an exception raised where it says nothing. */
PyObject *core_policy(struct throttler *self, steady_throttler *asked, struct question question, PyObject *key,
                      int error, const char *why);

extern PyType_Spec core_result_spec, core_decision_spec, core_store_spec, core_loop_store_spec, core_throttler_spec,
    core_io_spec, core_timer_spec, core_waiter_spec;

#endif
