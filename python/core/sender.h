/* SPDX-License-Identifier: MIT
 * Sender: what an application calls in place of `send`, so that its response gets the rate-limit fields. */
#ifndef AIOSTEADY_SENDER_H
#define AIOSTEADY_SENDER_H

#include "state.h"

struct sender {
    PyObject_HEAD struct core_state *state;
    PyObject *send;      /* of the server */
    PyObject *owner;     /* the RateLimit that has made `result`; NULL: there is no result */
    PyObject *result;    /* of its only policy */
    PyObject *fields;    /* a tuple of (name, value); NULL: `collected` has them */
    PyObject *decision;  /* NULL: there is no result, or it is a denial */
    PyObject *collected; /* the RequestFields; NULL: only `result` is known */
};

/* A new one without `collected`. `owner` may be NULL. */
struct sender *sender_new(struct core_state *state, PyObject *send, PyObject *owner);

extern PyType_Spec sender_spec;

#endif
