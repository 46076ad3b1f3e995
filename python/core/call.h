/* SPDX-License-Identifier: MIT
 * Call: a decision on several buckets, or on one with options; or the settling of a reservation. A Decision submits it
 * to a server. An embedded store answers it at once. Code for the caller's clients sends it: see the methods in call.c.
 */
#ifndef AIOSTEADY_CALL_H
#define AIOSTEADY_CALL_H

#include "binding.h"

/* A key with its throttler, as the caller gave them. */
struct call_part {
    struct throttler *throttler;
    PyObject *key; /* NULL: the throttler only says whose limits settle a reservation */
    enum steady_kind kind;
    const int64_t *amounts; /* one for each limit of the throttler */
};

struct call {
    PyObject_HEAD struct core_state *state;
    enum steady__verb verb; /* STEADY__CONSUME_ALL or one after it */
    steady_us max_wait;
    int64_t at_least;      /* 0: not given */
    bool reserve;          /* the result gets a reservation */
    bool only_if_wait;     /* and keeps it only if it has a must_wait */
    PyObject *reservation; /* to be settled; NULL: none */
    int64_t *actuals;      /* of the parts of the reservation */
    bool captured;         /* `capture` has to be released */
    struct steady__call capture;
    PyObject *local; /* keeps the capture store alive */
    Py_ssize_t n;
    struct call_part *parts;
    int64_t *amounts; /* those of all parts */
};

/* What the caller asks, before it is read. NULL: the default. */
struct call_options {
    enum steady__verb verb;
    enum steady_kind kind;
    PyObject *max_wait;
    PyObject *at_least;
    bool reserve;
    bool only_if_wait;
};

/* A call on one key. `amount` is an int, a sequence or a mapping; NULL: 1. */
PyObject *call_on_key(struct throttler *throttler, PyObject *key, PyObject *amount, const struct call_options *options);

/* Decides in the store of its throttlers, which is embedded or a pool. */
PyObject *call_decide_embedded(struct call *self);

/* ---- For decision.c ---- */

/* The store of the running loop, with a binding of each throttler. A new reference, or NULL and an exception. */
struct loop_store *call_find_store(struct call *self);

/* Submits it to that store. 0, or an error of the library, with *why. */
int call_submit(struct call *self, struct loop_store *store, steady_callback callback, void *data, uint64_t *id,
                steady_message *why);

/* The result; it takes the reservation. NULL and an exception if there is no memory. */
PyObject *call_result(struct call *self, const steady_result *result);

/* Counts the end of the call for its throttlers. `result` may be of any source; error 0: it has a result. */
void call_count(struct call *self, int error, const steady_result *result);

/* The answer of the policy to an error. Raises the error if the policy has no answer. */
PyObject *call_policy(struct call *self, int error, const char *why);

/* It must not be cancelled in flight: it reserves, and what it reserved is given back; or it settles. */
bool call_gives_back(const struct call *self);

/* The name of the method that made it. */
const char *call_name(const struct call *self);

extern PyType_Spec call_spec;

#endif
