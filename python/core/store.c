/* SPDX-License-Identifier: MIT
 * Store: a URL, and a store of the library for each event loop that uses it.
 *
 * The first decision on a loop opens the store of that loop, in the thread of the loop. That store is closed
 *
 *   - when the Store is closed or finalized. If the loop runs in another thread, the store is closed there.
 *   - when its loop is closed and a store for another loop is opened. */
#include "store.h"

#include <stddef.h>

#include "clock.h"
#include "convert.h"
#include "local.h"
#include "loop.h"
#include "src/core/url.h"
#include "src/local/local_store.h"

/* The maxima of connect(), as in steady.h. */
#define IN_FLIGHT_MAX (1 << 24)
#define BUCKETS_MAX (1 << 30)
#define TIMEOUT_MAX (24 * 3600 * STEADY_SECOND)

/* A file for TLS is not usable any more: it was when the Store was made. This is logged once, because a policy may hide
 * the exception. */
static void store_open_failed(struct store *store, struct loop_store *opened, int error, const char *why) {
    if (error == STEADY_BAD_ARGUMENT) error = STEADY_UNAVAILABLE;
    if (error == STEADY_UNAVAILABLE && !store->open_failure_logged) loop_store_log(opened, STEADY_LOG_WARNING, why);
    store->open_failure_logged = true;
    if (loop_store_raise_pending(opened) == 0) convert_raise(store->state, error, why);
}

/* loop NULL: an embedded store. */
static struct loop_store *store_open_on_loop(struct store *self, PyObject *loop) {
    steady_message why = {.text = ""};
    steady_store_options options = self->options;
    struct loop_store *opened = loop_store_new(self->state, loop, self->counters);
    if (opened == NULL) return NULL;
    const steady_loop on = {.ops = &loop_ops, .loop = opened};
    if (loop != NULL) {
        options.loop = &on;
        options.log = loop_store_log;
        options.log_data = opened;
    }
    const int error = steady_store_open(&opened->store, self->url, &options, &why);
    if (error == 0) {
        self->open_failure_logged = false;
        return opened;
    }
    if (loop != NULL)
        store_open_failed(self, opened, error, why.text);
    else
        convert_raise(self->state, error, why.text);
    Py_DECREF(opened);
    return NULL;
}

/* A store for blocking calls. Its options and its URL are checked now; it connects with the first call. */
static struct loop_store *store_open_pool(struct store *self, uint32_t connections, bool embedded) {
    steady_message why = {.text = ""};
    steady_store_options options = self->options;
    struct loop_store *opened = loop_store_new(self->state, NULL, self->counters);
    if (opened == NULL) return NULL;
    opened->is_pool = !embedded;
    options.log = embedded ? NULL : loop_store_log_without_gil;
    options.log_data = opened;
    const int error = steady_pool_open(&opened->store, self->url, connections, &options, &why);
    if (error == 0) return opened;
    convert_raise(self->state, error, why.text);
    Py_DECREF(opened);
    return NULL;
}

/* ---- The stores of all loops ---- */

/* The loop raised the exception that is set, when it was asked to close its store. If the loop is closed by now, the
 * store is closed here and the exception is dropped. Otherwise the store becomes unusable. It ends in the next callback
 * of its loop, or when the Store is closed again. */
static int store_close_refused(struct loop_store *store) {
    PyObject *type, *value, *traceback;
    const bool ordinary = PyErr_ExceptionMatches(PyExc_Exception) != 0;
    PyErr_Fetch(&type, &value, &traceback);
    const int closed = loop_store_loop_is_closed(store);
    if (closed == 1 && ordinary) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return loop_store_close(store);
    }
    PyErr_Clear();
    store->close_pending = true;
    PyErr_Restore(type, value, traceback);
    return -1;
}

/* Closes a store in the thread of its loop. If that loop is closed, or belongs to the parent process, closes it here.
 */
static int store_close_in_its_thread(struct loop_store *store) {
    const bool close_here = store->thread == PyThread_get_thread_ident() || store->pid != state_pid(store->state);
    const int closed = close_here ? 1 : loop_store_loop_is_closed(store);
    if (closed != 0) return closed < 0 ? -1 : loop_store_close(store);
    loop_store_count(store);
    PyObject *close = PyObject_GetAttrString((PyObject *)store, "close");
    PyObject *answer = close != NULL ? PyObject_CallMethod(store->loop, "call_soon_threadsafe", "O", close) : NULL;
    Py_XDECREF(close);
    Py_XDECREF(answer);
    return answer != NULL ? 0 : store_close_refused(store);
}

/* 1 if its loop is closed, or if it belongs to the parent process; else 0. -1 and an exception on failure. */
static int store_is_left_over(struct loop_store *store) {
    return store->pid != state_pid(store->state) ? 1 : loop_store_loop_is_closed(store);
}

static int store_close_left_over(struct store *self) {
    PyObject *stores = PyDict_Values(self->loops);
    int error = stores != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; error == 0 && i < PyList_GET_SIZE(stores); i++) {
        struct loop_store *store = (struct loop_store *)PyList_GET_ITEM(stores, i);
        const int left_over = store_is_left_over(store);
        if (left_over < 0) error = -1;
        if (left_over <= 0) continue;
        if (PyDict_GetItemWithError(self->loops, store->loop) == (PyObject *)store)
            error = PyDict_DelItem(self->loops, store->loop);
        if (loop_store_close(store) != 0 || PyErr_Occurred()) error = -1;
    }
    Py_XDECREF(stores);
    return error;
}

/* A new reference to the store of this loop. NULL if there is none, with an exception if the Store is closed. */
static struct loop_store *store_find(struct store *self, PyObject *loop) {
    if (self->closed) {
        convert_raise(self->state, STEADY_CLOSED, NULL);
        return NULL;
    }
    PyObject *there = PyDict_GetItemWithError(self->loops, loop);
    return there != NULL && loop_store_is_usable((struct loop_store *)there) ? (struct loop_store *)Py_NewRef(there)
                                                                             : NULL;
}

struct loop_store *store_on_loop(struct store *self, PyObject *loop) {
    struct loop_store *there = store_find(self, loop);
    if (there != NULL || PyErr_Occurred()) return there;
    store_enter_process(self);
    if (store_close_left_over(self) != 0) return NULL;
    struct loop_store *opened = store_open_on_loop(self, loop);
    if (opened == NULL) return NULL;
    there = store_find(self, loop); /* Python code that ran meanwhile may have opened one, or closed the Store */
    if (there == NULL && !PyErr_Occurred() && PyDict_SetItem(self->loops, loop, (PyObject *)opened) == 0) return opened;
    loop_store_end(opened); /* a DECREF alone would not free it: bound methods of the loop keep it */
    Py_DECREF(opened);
    return there;
}

/* ---- The Store ---- */

/* Clears the exception that is set, if any. Keeps it in `first` if `first` is empty. */
static void store_keep_first(PyObject *first[3]) {
    PyObject *next[3];
    if (PyErr_Occurred() == NULL) return;
    PyErr_Fetch(&next[0], &next[1], &next[2]);
    const bool is_first = first[0] == NULL;
    for (int i = 0; i < 3; i++) {
        if (is_first)
            first[i] = next[i];
        else
            Py_XDECREF(next[i]);
    }
}

static int store_keep_for_later(struct store *self, struct loop_store *store) {
    return store->store != NULL ? PyDict_SetItem(self->loops, store->loop, (PyObject *)store) : 0;
}

/* Closes all stores, even if some raise. Raises the first exception. */
static int store_close_all(struct store *self) {
    PyObject *first[3] = {NULL, NULL, NULL};
    self->closed = true;
    if (self->embedded != NULL) loop_store_close(self->embedded);
    store_keep_first(first);
    PyObject *stores = self->loops != NULL ? PyDict_Values(self->loops) : NULL;
    store_keep_first(first);
    if (stores != NULL) PyDict_Clear(self->loops);
    for (Py_ssize_t i = 0; stores != NULL && i < PyList_GET_SIZE(stores); i++) {
        struct loop_store *store = (struct loop_store *)PyList_GET_ITEM(stores, i);
        const bool refused = store_close_in_its_thread(store) != 0;
        store_keep_first(first);
        if (refused && store_keep_for_later(self, store) != 0) store_keep_first(first);
    }
    Py_XDECREF(stores);
    if (first[0] == NULL) return 0;
    PyErr_Restore(first[0], first[1], first[2]);
    return -1;
}

static PyObject *store_close(struct store *self, PyObject *Py_UNUSED(none)) {
    if (store_close_all(self) != 0) return NULL;
    Py_RETURN_NONE;
}

static void store_finalize(PyObject *self) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (store_close_all((struct store *)self) != 0) PyErr_WriteUnraisable(self);
    PyErr_Restore(type, value, traceback);
}

static int store_read_count(PyObject *given, const char *name, int64_t max, uint32_t *count) {
    int64_t number = 0;
    if (given == NULL) return 0;
    if (convert_int(given, name, 0, max, &number) != 0) return -1;
    *count = (uint32_t)number;
    return 0;
}

static int store_read_timeout(PyObject *given, const char *name, steady_us *timeout) {
    if (given == NULL || given == Py_None) return 0;
    if (convert_seconds(given, name, 0, timeout) == 0) {
        if (*timeout >= 1 && *timeout <= TIMEOUT_MAX) return 0;
    } else if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
        return -1;
    }
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "%s is %.50R s; it must be 0.000001 .. %d s, or None for the default", name, given,
                 (int)(TIMEOUT_MAX / STEADY_SECOND));
    return -1;
}

/* 0: off. None: the default. */
static int store_read_deny_memory(PyObject *given, steady_store_options *options) {
    steady_us *const time = &options->deny_memory;
    if (given == NULL || given == Py_None) return 0;
    if (convert_seconds(given, "deny_memory", 0, time) == 0) {
        options->deny_memory_off = *time == 0;
        if (*time >= 0 && *time <= STEADY__DENY_MEMORY_MAX) return 0;
    } else if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
        return -1;
    }
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "deny_memory is %.50R s; it must be 0.000001 .. %d s, 0 for off, or None for 1 s",
                 given, (int)(STEADY__DENY_MEMORY_MAX / STEADY_SECOND));
    return -1;
}

/* 0 and None: no leases. */
static int store_read_lease_age(PyObject *given, steady_us *age) {
    if (given == NULL || given == Py_None) return 0;
    if (convert_seconds(given, "lease_age", 0, age) == 0) {
        if (*age == 0 || (*age >= STEADY__LEASE_AGE_MIN && *age <= STEADY__LEASE_AGE_MAX)) return 0;
    } else if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
        return -1;
    }
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "lease_age is %.50R s; it must be 0.001 .. %d s, or 0 or None for no leases", given,
                 (int)(STEADY__LEASE_AGE_MAX / STEADY_SECOND));
    return -1;
}

static int store_read_client_name(struct store *self, PyObject *given) {
    Py_ssize_t len = 0;
    if (given == NULL || given == Py_None) return 0;
    if (convert_check_str(given, "client_name") != 0) return -1;
    const char *name = convert_utf8(given, "client_name", &len);
    if (name == NULL) return -1;
    if (strlen(name) != (size_t)len) {
        PyErr_SetString(PyExc_ValueError, "client_name must not hold a NUL");
        return -1;
    }
    if (!steady__client_name_is_valid(name))
        return convert_bad_text(given, "client_name",
                                "1 .. 64 printable ASCII characters without spaces, or None for no name");
    memcpy(self->client_name, name, (size_t)len + 1);
    self->options.client_name = self->client_name;
    return 0;
}

static int store_read_clock(struct store *self, PyObject *given) {
    if (given == NULL || given == Py_None) return 0;
    if (!PyObject_TypeCheck(given, self->state->clock_type)) {
        PyErr_Format(PyExc_TypeError, "clock must be an aiosteady.testing.Clock, not %.100s", Py_TYPE(given)->tp_name);
        return -1;
    }
    self->clock = Py_NewRef(given);
    self->options.clock = clock_read;
    self->options.clock_data = given;
    return 0;
}

/* The arguments of Store beside the URL. One that was not given is NULL. */
struct store_arguments {
    PyObject *timeout, *max_in_flight, *buckets, *engine, *connect_timeout, *client_name, *deny_memory, *lease_age,
        *clock;
};

static int store_read_options(struct store *self, const struct store_arguments *given) {
    static const char *const engines[] = {"auto", "script", "module", NULL};
    steady_store_options *options = &self->options;
    const int chosen = given->engine != NULL ? convert_choice(given->engine, "engine", engines) : STEADY_ENGINE_AUTO;
    if (chosen < 0) return -1;
    options->engine = (enum steady_engine)chosen;
    return store_read_timeout(given->timeout, "timeout", &options->timeout) != 0 ||
                   store_read_count(given->max_in_flight, "max_in_flight", IN_FLIGHT_MAX, &options->max_in_flight) !=
                       0 ||
                   store_read_count(given->buckets, "buckets", BUCKETS_MAX, &options->buckets) != 0 ||
                   store_read_timeout(given->connect_timeout, "connect_timeout", &options->connect_timeout) != 0 ||
                   store_read_client_name(self, given->client_name) != 0 ||
                   store_read_deny_memory(given->deny_memory, options) != 0 ||
                   store_read_lease_age(given->lease_age, &options->lease_age) != 0 ||
                   store_read_clock(self, given->clock) != 0
               ? -1
               : 0;
}

/* An embedded store, and a pool, is opened now. The store of a server is opened later, by its loop. One without a loop
 * is opened and closed now: it checks the URL, the options and the files for TLS. */
static int store_open_or_check(struct store *self, const uint32_t *connections) {
    steady_message why = {.text = ""};
    steady_store *store = NULL;
    struct steady__url url;
    int error = steady__url_parse(&url, self->url, &why);
    if (error == 0) {
        const bool embedded = url.scheme == STEADY__URL_MEMORY || url.scheme == STEADY__URL_FILE;
        steady__url_clear(&url);
        if (connections != NULL)
            return (self->embedded = store_open_pool(self, *connections, embedded)) != NULL ? 0 : -1;
        if (embedded) return (self->embedded = store_open_on_loop(self, NULL)) != NULL ? 0 : -1;
        error = steady_store_open(&store, self->url, &self->options, &why);
        steady_store_close(&store);
    }
    if (error != 0) convert_raise(self->state, error, why.text);
    return error != 0 ? -1 : 0;
}

static int store_read_url(struct store *self, PyObject *url) {
    Py_ssize_t len = 0;
    const char *text = convert_check_str(url, "url") == 0 ? convert_utf8(url, "url", &len) : NULL;
    if (text == NULL) return -1;
    if (strlen(text) != (size_t)len) {
        PyErr_SetString(PyExc_ValueError, "url must not hold a NUL");
        return -1;
    }
    self->url = PyMem_Malloc((size_t)len + 1);
    if (self->url == NULL) PyErr_NoMemory();
    if (self->url != NULL) memcpy(self->url, text, (size_t)len + 1);
    return self->url != NULL ? 0 : -1;
}

PyObject *store_make(PyTypeObject *type, PyObject *args, PyObject *kwargs, const uint32_t *connections) {
    static char *names[] = {"url",         "timeout",     "max_in_flight", "buckets", "engine", "connect_timeout",
                            "client_name", "deny_memory", "lease_age",     "clock",   NULL};
    PyObject *url = NULL;
    struct store_arguments given = {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOOOOOOO:Store", names, &url, &given.timeout,
                                     &given.max_in_flight, &given.buckets, &given.engine, &given.connect_timeout,
                                     &given.client_name, &given.deny_memory, &given.lease_age, &given.clock))
        return NULL;
    struct store *self = (struct store *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->state = state_of(type);
    self->pid = state_pid(self->state);
    self->loops = PyDict_New();
    self->counters = self->loops != NULL ? loop_store_new_counters() : NULL;
    if (self->counters == NULL || store_read_url(self, url) != 0 || store_read_options(self, &given) != 0 ||
        store_open_or_check(self, connections) != 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *store_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return store_make(type, args, kwargs, NULL);
}

static int store_traverse(struct store *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->embedded);
    Py_VISIT(self->loops);
    Py_VISIT(self->clock);
    return 0;
}

static int store_clear(struct store *self) {
    Py_CLEAR(self->embedded);
    Py_CLEAR(self->loops);
    Py_CLEAR(self->local);
    return 0;
}

static void store_dealloc(struct store *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) return;
    PyObject_GC_UnTrack(self);
    store_clear(self);
    Py_XDECREF(self->counters);
    Py_XDECREF(self->clock); /* the embedded store, which reads it, is closed */
    PyMem_Free(self->url);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Deletes all buckets of a memory: store, under the GIL: no other thread is in a call. */
static PyObject *store_clear_buckets(struct store *self, PyObject *Py_UNUSED(none)) {
    const struct loop_store *embedded = self->embedded;
    if (embedded == NULL || embedded->is_pool) Py_RETURN_FALSE;
    if (embedded->store == NULL) return convert_raise(self->state, STEADY_CLOSED, NULL);
    if (!steady__local_is_private(embedded->store)) Py_RETURN_FALSE;
    const int error = steady__local_clear(embedded->store);
    if (error != 0) return convert_raise(self->state, error, NULL);
    Py_RETURN_TRUE;
}

/* ---- Counters ---- */

void store_enter_process(struct store *self) {
    PyObject *loop = NULL, *store = NULL;
    Py_ssize_t at = 0;
    const pid_t pid = state_pid(self->state);
    if (pid == self->pid) return;
    self->pid = pid;
    memset(loop_store_counters(self->counters), 0, sizeof(steady_stats));
    if (self->embedded != NULL) loop_store_skip_counted(self->embedded);
    while (PyDict_Next(self->loops, &at, &loop, &store))
        loop_store_skip_counted((struct loop_store *)store);
}

static PyObject *store_stats(struct store *self, PyObject *Py_UNUSED(none)) {
    store_enter_process(self);
    steady_stats sum = *loop_store_counters(self->counters);
    PyObject *loop = NULL, *store = NULL;
    Py_ssize_t at = 0;
    if (self->embedded != NULL) loop_store_add_stats(&sum, self->embedded);
    while (PyDict_Next(self->loops, &at, &loop, &store))
        loop_store_add_stats(&sum, (struct loop_store *)store);
    return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsKsKsKsKsK}", "decisions", sum.decisions, "allowed", sum.allowed, "denied",
                         sum.denied, "blocked", sum.blocked, "unavailable", sum.unavailable, "unknown", sum.unknown,
                         "overflowed", sum.overflowed, "clock_steps", sum.clock_steps, "reconnects", sum.reconnects,
                         "script_loads", sum.script_loads, "in_flight", sum.in_flight, "timeouts", sum.timeouts,
                         "from_memory", sum.from_memory, "from_lease", sum.from_lease);
}

/* ---- State ---- */

/* The store of the running loop; without one, the best of all. */
static enum steady_state store_state_of_loops(struct store *self, PyObject *running) {
    enum steady_state best = STEADY_DOWN;
    bool any = false;
    PyObject *loop = NULL, *each = NULL;
    Py_ssize_t at = 0;
    while (PyDict_Next(self->loops, &at, &loop, &each)) {
        const struct loop_store *store = (struct loop_store *)each;
        if (!loop_store_is_usable(store) || (running != NULL && loop != running)) continue;
        const enum steady_state state = steady_store_state(store->store);
        if (state == STEADY_READY || best == STEADY_DOWN) best = state;
        any = true;
    }
    return any ? best : STEADY_CONNECTING;
}

static enum steady_state store_state(struct store *self) {
    if (self->closed) return STEADY_DOWN;
    if (self->embedded != NULL) return steady_store_state(self->embedded->store);
    PyObject *running = PyObject_CallNoArgs(self->state->get_running_loop);
    PyErr_Clear(); /* no loop is running */
    const enum steady_state state = store_state_of_loops(self, running);
    Py_XDECREF(running);
    return state;
}

static PyObject *store_get_state(struct store *self, void *Py_UNUSED(closure)) {
    static const char *const names[] = {
        [STEADY_CONNECTING] = "connecting", [STEADY_READY] = "ready", [STEADY_DOWN] = "down"};
    return PyUnicode_FromString(names[store_state(self)]);
}

static PyObject *store_get_ready(struct store *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(store_state(self) == STEADY_READY);
}

/* Its URL without user and passwords. */
static PyObject *store_get_shown_url(struct store *self, void *Py_UNUSED(closure)) {
    char shown[STEADY__URL_MAX + 64];
    steady_quote(shown, sizeof shown, self->url);
    return PyUnicode_FromString(shown);
}

static PyGetSetDef store_getters[] = {
    {"_shown_url", (getter)store_get_shown_url, NULL, NULL, NULL},
    {"state", (getter)store_get_state, NULL,
     "\"ready\", \"connecting\" or \"down\", for a health check. It sends nothing. The store connects with its first "
     "decision, so it is \"connecting\" before.",
     NULL},
    {"ready", (getter)store_get_ready, NULL, "True if the state is \"ready\".", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyMethodDef store_methods[] = {
    {"close", (PyCFunction)store_close, METH_NOARGS, "Closes the store. Decisions in flight end as cancelled."},
    {"_clear", (PyCFunction)store_clear_buckets, METH_NOARGS, NULL},
    {"stats", (PyCFunction)store_stats, METH_NOARGS,
     "Returns the counters of this process since the Store was made, over all event loops, closed ones too."},
    {NULL, NULL, 0, NULL}};

static PyMemberDef store_members[] = {
    {"closed", T_BOOL, offsetof(struct store, closed), READONLY, "True after close()."},
    {"clock", T_OBJECT, offsetof(struct store, clock), READONLY, "The clock of a test; None: that of the system."},
    {NULL, 0, 0, 0, NULL}};

static PyType_Slot store_slots[] = {
    {Py_tp_new, store_new},         {Py_tp_finalize, store_finalize}, {Py_tp_traverse, store_traverse},
    {Py_tp_clear, store_clear},     {Py_tp_dealloc, store_dealloc},   {Py_tp_methods, store_methods},
    {Py_tp_members, store_members}, {Py_tp_getset, store_getters},    {0, NULL}};

PyType_Spec store_spec = {"aiosteady._core.Store", sizeof(struct store), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
                          store_slots};
