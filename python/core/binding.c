/* SPDX-License-Identifier: MIT
 * Bindings: the throttlers of the library behind a Throttler, and its policy. */
#include "binding.h"

#include "convert.h"
#include "local.h"
#include "result.h"
#include "src/policy.h"

/* ---- Bindings ---- */

/* Makes the throttler of a binding. 0, or -1 and an exception. */
static int binding_fill(const struct throttler *self, struct binding *binding, steady_store *store,
                        const steady_throttler_options *options) {
    steady_message why = {.text = ""};
    const int error =
        steady_throttler_new_limits(&binding->throttler, store, self->limits, self->n_limits, options, &why);
    if (error == 0) return 0;
    convert_raise(self->state, error, error == STEADY_BAD_ARGUMENT ? why.text : NULL);
    return -1;
}

/* The prefix of the options belongs to self->prefix. */
static int binding_options(const struct throttler *self, steady_throttler_options *options) {
    *options = self->options;
    options->prefix = PyUnicode_AsUTF8(self->prefix);
    return options->prefix != NULL ? 0 : -1;
}

static struct binding *binding_add(struct throttler *self, struct loop_store *store) {
    if (self->options.on_error == STEADY_LOCAL &&
        local_attach(store, &self->store->local, self->store->options.buckets) != 0)
        return NULL;
    if (store->store == NULL) {
        convert_raise(self->state, STEADY_CLOSED, NULL);
        return NULL;
    }
    struct binding *more = PyMem_Realloc(self->bindings, (self->count + 1) * sizeof *more);
    if (more == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    self->bindings = more;
    struct binding binding = {.store = store};
    steady_throttler_options options;
    if (binding_options(self, &options) != 0 || binding_fill(self, &binding, store->store, &options) != 0) return NULL;
    Py_INCREF(store);
    more[self->count] = binding;
    return &more[self->count++];
}

/* Frees the bindings to unusable stores, or all. This may run any Python code and call itself again, so it starts over
 * after each. */
static void binding_remove(struct throttler *self, bool all) {
    for (size_t i = 0; i < self->count;) {
        if (!all && loop_store_is_usable(self->bindings[i].store)) {
            i++;
            continue;
        }
        struct binding binding = self->bindings[i];
        self->bindings[i] = self->bindings[--self->count];
        steady_throttler_free(&binding.throttler);
        Py_DECREF(binding.store);
        i = 0;
    }
}

struct binding *binding_of_running_loop(struct throttler *self) {
    PyObject *loop = PyObject_CallNoArgs(self->state->get_running_loop);
    if (loop == NULL) return NULL;
    struct binding *found = NULL;
    for (size_t i = 0; found == NULL && i < self->count; i++)
        if (self->bindings[i].store->loop == loop) found = &self->bindings[i];
    if (found == NULL || !loop_store_is_usable(found->store)) {
        binding_remove(self, false);
        struct loop_store *store = store_on_loop(self->store, loop);
        found = store != NULL ? binding_add(self, store) : NULL;
        Py_XDECREF(store);
    }
    Py_DECREF(loop);
    return found;
}

steady_throttler *binding_on_store(const struct throttler *self, const struct loop_store *store) {
    for (size_t i = 0; i < self->count; i++)
        if (self->bindings[i].store == store) return self->bindings[i].throttler;
    return NULL;
}

/* A memory: or file: store always answers, so it needs no policy. A pool keeps the policy of the caller. */
steady_throttler *binding_embedded(struct throttler *self) {
    steady_throttler_options options;
    steady_store *store = self->store->embedded->store;
    if (!state_is_of_process(self->state, self->tally.pid)) store_enter_process(self->store);
    if (self->embedded.throttler != NULL && store != NULL) return self->embedded.throttler;
    if (store == NULL) {
        convert_raise(self->state, STEADY_CLOSED, NULL);
        return NULL;
    }
    if (binding_options(self, &options) != 0) return NULL;
    if (!self->store->embedded->is_pool) options.on_error = STEADY_REPORT;
    return binding_fill(self, &self->embedded, store, &options) == 0 ? self->embedded.throttler : NULL;
}

/* ---- Keys and policies ---- */

int binding_prefixed_key(const struct throttler *self, PyObject *key, char *room, const char **bytes, size_t *len) {
    Py_ssize_t key_len = 0, prefix_len = 0;
    if (convert_key(key, bytes, &key_len) != 0) return -1;
    const char *prefix = PyUnicode_AsUTF8AndSize(self->prefix, &prefix_len);
    if (prefix == NULL) return -1;
    *len = (size_t)(key_len + prefix_len);
    if (*len > STEADY__KEY_MAX) {
        PyErr_Format(PyExc_ValueError, "key with its prefix is %zu bytes long; it must be at most %d", *len,
                     STEADY__KEY_MAX);
        return -1;
    }
    memcpy(room, prefix, (size_t)prefix_len);
    memcpy(room + prefix_len, *bytes, (size_t)key_len);
    *bytes = room;
    return 0;
}

PyObject *binding_policy(struct throttler *self, steady_throttler *asked, struct request request, PyObject *key,
                         int error, const char *why) {
    char room[STEADY__KEY_MAX];
    struct steady__call call = {
        .verb = request.verb, .amount = request.amount, .terms = &self->terms, .throttler = asked};
    steady_result result = {.error = error};
    if (binding_key(self, key, room, &call.key, &call.key_len) != 0) return NULL;
    if (asked != NULL) steady__complete(&call, &result);
    tally_plain(&self->tally, request.verb, &result);
    return result.source != STEADY_FROM_NOWHERE ? result_from(self->state, &result, NULL)
                                                : convert_raise(self->state, error, why);
}

static PyObject *binding_get_local(struct throttler *self) {
    const bool decides = self->options.on_error == STEADY_LOCAL;
    PyObject *local = local_get(self->state, self->store != NULL ? &self->store->local : &self->state->local);
    const uint32_t buckets = self->store != NULL ? self->store->options.buckets : 0;
    if (local != NULL && decides && local_open(self->state, local, buckets) != 0) Py_CLEAR(local);
    return local;
}

/* The first call makes it. */
static const struct binding *binding_to_fallback(struct throttler *self) {
    steady_throttler_options options;
    if (self->local == NULL) {
        PyObject *local = binding_get_local(self);
        if (local == NULL) return NULL;
        Py_XSETREF(self->local, local);
    }
    if (self->fallback.throttler != NULL) return &self->fallback;
    if (binding_options(self, &options) != 0) return NULL;
    return binding_fill(self, &self->fallback, local_capture(self->local), &options) == 0 ? &self->fallback : NULL;
}

steady_throttler *binding_captured(struct throttler *self) {
    const struct binding *binding = binding_to_fallback(self);
    return binding != NULL ? binding->throttler : NULL;
}

steady_throttler *binding_fallback(struct throttler *self) {
    if (self->options.on_error == STEADY_REPORT) return NULL;
    const struct binding *binding = binding_to_fallback(self);
    if (binding == NULL) PyErr_Clear();
    return binding != NULL ? binding->throttler : NULL;
}

PyObject *binding_policy_if_not_opened(struct throttler *self, struct request request, PyObject *key) {
    PyObject *type, *value, *traceback;
    if (!PyErr_ExceptionMatches(self->state->errors[-STEADY_UNAVAILABLE])) return NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *answer = binding_policy(self, binding_fallback(self), request, key, STEADY_UNAVAILABLE, NULL);
    if (answer == NULL) {
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    Py_DECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return answer;
}

void binding_clear(struct throttler *self) {
    binding_remove(self, true);
    PyMem_Free(self->bindings);
    self->bindings = NULL;
    steady_throttler_free(&self->fallback.throttler);
    steady_throttler_free(&self->embedded.throttler);
    Py_CLEAR(self->local);
}
