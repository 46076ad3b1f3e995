/* SPDX-License-Identifier: MIT
 * The store of one event loop, or one without a loop: an embedded store, or a pool for blocking calls. */
#ifndef AIOSTEADY_LOOP_STORE_H
#define AIOSTEADY_LOOP_STORE_H

#include "gil.h"
#include "src/store.h"

/* A reference that the library holds, in the list of its loop's store. The list lets the garbage collector see it.
 * Otherwise a decision in flight would keep itself, its throttler and the connection alive after its loop is gone. */
struct held {
    PyObject *object; /* NULL: not held */
    struct held *next;
    struct held **link; /* the pointer to this one */
};

struct loop_store {
    PyObject_HEAD struct core_state *state;
    PyObject *loop;   /* NULL: an embedded store, or a pool */
    PyObject *add[2]; /* add_reader and add_writer of the loop, bound */
    PyObject *remove[2];
    PyObject *call_later;
    PyObject *call_soon;
    PyObject *pending_exception; /* to be raised in the next callback of the loop, see loop_store_report */
    bool in_callback;            /* in a callback of the loop that runs no task, see waiter.c */
    bool close_pending;          /* closed while `calling_loop`: loop_store_after_call ends it */
    unsigned calling_loop;       /* calls of the library to the loop on the stack, see loop.c */
    steady_store *store;         /* NULL: closed */
    struct held *held;           /* the references that `store` holds */
    PyObject *local;             /* keeps the fallback of `store` alive, see local.h; NULL until needed */
    PyObject *counters;          /* shared with its Store; includes `counted` of this store */
    steady_stats counted;
    unsigned long thread;
    pid_t pid; /* the process that opened it */
    bool is_pool;
    unsigned waiting; /* threads that are in a call of a pool */
};

/* A capsule with a steady_stats: the counters of a Store. */
PyObject *loop_store_new_counters(void);
steady_stats *loop_store_counters(PyObject *counters);

/* A new one without a store. `loop` may be NULL. */
struct loop_store *loop_store_new(struct core_state *state, PyObject *loop, PyObject *counters);

/* False: it is closed, or belongs to the parent process. */
static inline bool loop_store_is_usable(const struct loop_store *self) {
    return self->store != NULL && !self->close_pending && self->pid == state_pid(self->state);
}

/* Whether its event loop is closed; -1 and an exception if the loop cannot tell. */
int loop_store_loop_is_closed(const struct loop_store *self);

/* Takes a reference for the library. */
void loop_store_hold(struct loop_store *self, struct held *held, PyObject *object);

/* Gives it back. This may free the object, and `held` with it. */
void loop_store_release(struct held *held);

/* Handles the exception that is set where no caller can get it. An Exception is reported as unraisable. Others, such as
 * KeyboardInterrupt, must end the program: they are kept for the next loop_store_raise_pending. */
void loop_store_report(struct loop_store *self, PyObject *about);

/* Raises the exception that was kept. 0 if there is none, else -1. */
int loop_store_raise_pending(struct loop_store *self);

/* Call this after each call to the library. It ends the store if the store was closed inside the call. */
void loop_store_after_call(struct loop_store *self);

/* The log callback of the library; `data` is the struct loop_store. */
void loop_store_log(void *data, enum steady_log_level level, const char *text);

/* The same for a pool, whose callers hold no GIL. An exception that must not be lost goes to the caller on this thread.
 */
void loop_store_log_without_gil(void *data, enum steady_log_level level, const char *text);

/* Around a blocking call. If it may wait for a server, other threads can run Python code meanwhile, and may close the
 * store. */
void loop_store_begin_call(struct loop_store *self, struct gil_released *released);
void loop_store_end_call(struct loop_store *self, struct gil_released *released);

/* Adds its counters to those of its Store. Other threads see them then, also if it cannot be closed yet. */
void loop_store_count(struct loop_store *self);

/* Makes the counters begin at what they are now. */
void loop_store_skip_counted(struct loop_store *self);

/* Adds what loop_store_count has not added yet to *sum. */
void loop_store_add_stats(steady_stats *sum, const struct loop_store *self);

/* Closes the store; decisions in flight end as cancelled. If the library is calling the loop, the store ends after that
 * call. Runs in any state. */
void loop_store_end(struct loop_store *self);

/* The same, and raises the exception that was kept. 0, or -1. */
int loop_store_close(struct loop_store *self);

extern PyType_Spec loop_store_spec;

#endif
