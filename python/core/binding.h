/* SPDX-License-Identifier: MIT
 * Bindings: the throttlers of the library behind a Throttler. Each event loop has its own, since a throttler belongs to
 * one store. */
#ifndef AIOSTEADY_BINDING_H
#define AIOSTEADY_BINDING_H

#include "convert.h"
#include "store.h"
#include "tally.h"

/* What to do with a key. */
struct request {
    enum steady__verb verb;
    int64_t amount;
};

struct binding {
    struct loop_store *store; /* NULL: the binding to the fallback store */
    steady_throttler *throttler;
};

/* A Throttler. throttler.c makes it. */
struct throttler {
    PyObject_HEAD struct core_state *state;
    PyObject *redis; /* these five: as the caller gave them; the middle three are those of the first limit */
    PyObject *max_capacity;
    PyObject *drop_recharge;
    PyObject *block_duration;
    PyObject *prefix;
    PyObject *names;          /* a tuple with the name of each limit */
    struct store *store;      /* NULL: the caller has a client */
    PyObject *client;         /* the Adapter of _clients.py for this client; NULL: there is a store */
    struct binding *bindings; /* one for each event loop */
    size_t count;
    PyObject *local;         /* the fallback store, see local.h; NULL until needed */
    struct binding fallback; /* its throttlers capture calls and apply the policy */
    struct binding embedded; /* for calls on several buckets, and with options; empty until needed */
    size_t n_limits;
    steady_limit *limits;
    struct steady__terms terms; /* of the first limit, for an embedded store and for clients; throttlers of the library
                                   have their own */
    steady_throttler_options options;
    struct tally tally;
};

/* __init__ sets `store` or `client` last. Without it: false and a RuntimeError. */
static inline bool binding_is_initialized(const struct throttler *self) {
    if (self->store != NULL || self->client != NULL) return true;
    PyErr_SetString(PyExc_RuntimeError, "Throttler.__init__ was not called, or it failed");
    return false;
}

/* The throttler of a store without a loop. On an embedded store it reports every error. NULL and an exception on
 * failure. */
steady_throttler *binding_embedded(struct throttler *self);

/* The throttler of the fallback store: calls on it are captured. NULL and an exception on failure. */
steady_throttler *binding_captured(struct throttler *self);

/* The throttler on this store of a loop; NULL if there is none. */
steady_throttler *binding_on_store(const struct throttler *self, const struct loop_store *store);

/* The binding to the store of the running loop. Valid until Python code runs. NULL and an exception on failure. */
struct binding *binding_of_running_loop(struct throttler *self);

/* Prefix and key as bytes, in `room`, which has STEADY__KEY_MAX bytes. 0, or -1 and an exception. */
int binding_prefixed_key(const struct throttler *self, PyObject *key, char *room, const char **bytes, size_t *len);

/* The same; without a prefix the bytes are those of the key object. Inline, because every decision calls it. */
static inline int binding_key(const struct throttler *self, PyObject *key, char *room, const char **bytes,
                              size_t *len) {
    if (PyUnicode_GET_LENGTH(self->prefix) > 0) return binding_prefixed_key(self, key, room, bytes, len);
    Py_ssize_t key_len = 0;
    if (convert_key(key, bytes, &key_len) != 0) return -1;
    *len = (size_t)key_len;
    return 0;
}

/* The same. NULL if the policy is "report" or there is no memory. */
steady_throttler *binding_fallback(struct throttler *self);

/* The answer of the policy of `asked` (NULL: "report") to an error. Raises the error if the policy has no answer. */
PyObject *binding_policy(struct throttler *self, steady_throttler *asked, struct request request, PyObject *key,
                         int error, const char *why);

/* The answer of the policy if a store could not be opened and that exception is set. If the policy has no answer, the
 * exception stays set. */
PyObject *binding_policy_if_not_opened(struct throttler *self, struct request request, PyObject *key);

/* Frees all bindings. */
void binding_clear(struct throttler *self);

#endif
