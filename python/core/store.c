/* SPDX-License-Identifier: MIT
 * Stores: a URL, and one store of the library's for each event loop that uses it.
 *
 * A loop's store is opened by the first decision made on that loop, in its thread. It ends when the Store is closed or
 * finalised, or, once the loop is closed, with the next one that is opened. Another thread's loop closes its own. */
#include <stddef.h>

#include "core.h"
#include "core/url.h"

/* Of connect(): as steady.h says. */
#define IN_FLIGHT_MAX (1 << 24)
#define BUCKETS_MAX (1 << 30)

pid_t core_process(struct core_state *state) {
    if (steady__forked(&state->fork_guard)) {
        steady__fork_guard_clear(&state->fork_guard);
        steady__fork_guard_set(&state->fork_guard, true);
    }
    return state->fork_guard.pid;
}

/* ---- Exceptions with nobody to go to ---- */

void core_complain(struct loop_store *store, PyObject *about) {
    PyObject *type, *value, *traceback;
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_WriteUnraisable(about);
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (value != NULL && traceback != NULL) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    Py_XSETREF(store->interrupt, value);
}

int core_raise_kept(struct loop_store *store) {
    PyObject *kept = store->interrupt;
    if (kept == NULL) return 0;
    store->interrupt = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(kept), kept);
    Py_DECREF(kept);
    return -1;
}

/* ---- One loop's ---- */

void core_hold(struct loop_store *store, struct held *held, PyObject *object) {
    *held = (struct held){Py_NewRef(object), store->held, &store->held};
    if (held->next != NULL) held->next->link = &held->next;
    store->held = held;
}

void core_let_go(struct held *held) {
    PyObject *object = held->object;
    *held->link = held->next;
    if (held->next != NULL) held->next->link = held->link;
    held->object = NULL;
    Py_DECREF(object);
}

static int loop_store_clear(struct loop_store *self) {
    Py_CLEAR(self->loop);
    for (int i = 0; i < 2; i++) {
        Py_CLEAR(self->add[i]);
        Py_CLEAR(self->remove[i]);
    }
    Py_CLEAR(self->call_later);
    Py_CLEAR(self->call_soon);
    Py_CLEAR(self->interrupt);
    return 0;
}

static int loop_store_traverse(struct loop_store *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    for (int i = 0; i < 2; i++) {
        Py_VISIT(self->add[i]);
        Py_VISIT(self->remove[i]);
    }
    Py_VISIT(self->call_later);
    Py_VISIT(self->call_soon);
    Py_VISIT(self->interrupt);
    for (const struct held *held = self->held; held != NULL; held = held->next)
        Py_VISIT(held->object);
    return 0;
}

/* ---- Counting: the counters of a Store live on in its loops' stores, which may be closed after it ---- */

static void free_counters(PyObject *capsule) { PyMem_Free(PyCapsule_GetPointer(capsule, NULL)); }

static PyObject *new_counters(void) {
    steady_stats *sum = PyMem_Calloc(1, sizeof *sum);
    if (sum == NULL) return PyErr_NoMemory();
    PyObject *counters = PyCapsule_New(sum, NULL, free_counters);
    if (counters == NULL) PyMem_Free(sum);
    return counters;
}

/* What is not in the counters of the Store yet. */
static void add_new(steady_stats *to, const steady_stats *stats, const steady_stats *counted) {
    uint64_t *sum = (uint64_t *)to;
    const uint64_t *now = (const uint64_t *)stats, *then = (const uint64_t *)counted;
    for (size_t i = 0; i < sizeof *to / sizeof *sum; i++)
        if (now[i] > then[i]) sum[i] += now[i] - then[i]; /* a store that is closed has forgotten its reconnects */
}

/* For good: `store` is its own, and may be closed already. */
static void count(struct loop_store *self, const steady_store *store) {
    steady_stats now;
    steady_store_stats(store, &now);
    now.in_flight = 0;
    add_new(PyCapsule_GetPointer(self->counters, NULL), &now, &self->counted);
    self->counted = now;
}

static void close_and_count(struct loop_store *self) {
    steady_store *store = self->store;
    if (store == NULL) return;
    count(self, store);
    steady__store_hold(store);
    steady_store_close(&self->store);
    count(self, store); /* what ended as cancelled, too */
    steady__store_release(store);
}

/* What is in flight ends as cancelled, inside. */
static void loop_store_finalize(PyObject *object) {
    struct loop_store *self = (struct loop_store *)object;
    PyObject *type, *value, *traceback;
    self->ending = self->asking > 0 && self->process == core_process(self->state);
    if (self->ending) return;
    PyErr_Fetch(&type, &value, &traceback);
    Py_INCREF(self);
    core_return_local(self);
    close_and_count(self);
    Py_CLEAR(self->local);
    Py_DECREF(self);
    PyErr_Restore(type, value, traceback);
}

void core_left(struct loop_store *store) {
    if (store->ending) loop_store_finalize((PyObject *)store);
}

static PyObject *loop_store_close(struct loop_store *self, PyObject *Py_UNUSED(none)) {
    loop_store_finalize((PyObject *)self);
    if (core_raise_kept(self) != 0) return NULL;
    Py_RETURN_NONE;
}

static void loop_store_dealloc(struct loop_store *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) return;
    PyObject_GC_UnTrack(self);
    loop_store_clear(self);
    Py_DECREF(self->counters);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static void log_line(void *data, enum steady_log_level level, const char *text) {
    struct loop_store *self = data;
    const char *method = level == STEADY_LOG_WARNING ? "warning" : "info";
    PyObject *answer = PyObject_CallMethod(self->state->logger, method, "ss", "%s", text);
    if (answer == NULL) core_complain(self, self->state->logger);
    Py_XDECREF(answer);
}

static int bind_loop(struct loop_store *self, PyObject *loop) {
    static const char *const add[] = {"add_reader", "add_writer"};
    static const char *const remove[] = {"remove_reader", "remove_writer"};
    self->loop = Py_NewRef(loop);
    for (int i = 0; i < 2; i++) {
        if ((self->add[i] = PyObject_GetAttrString(loop, add[i])) == NULL) return -1;
        if ((self->remove[i] = PyObject_GetAttrString(loop, remove[i])) == NULL) return -1;
    }
    if ((self->call_later = PyObject_GetAttrString(loop, "call_later")) == NULL) return -1;
    return (self->call_soon = PyObject_GetAttrString(loop, "call_soon")) != NULL ? 0 : -1;
}

/* A file for TLS, which was in order when the Store was made. The log is told once, since a policy may answer for it.
 */
static void open_failed(struct store *store, struct loop_store *opened, int error, const char *why) {
    if (error == STEADY_BAD_ARGUMENT) error = STEADY_UNAVAILABLE;
    if (error == STEADY_UNAVAILABLE && !store->told) log_line(opened, STEADY_LOG_WARNING, why);
    store->told = true;
    if (core_raise_kept(opened) == 0) core_raise(store->state, error, why);
}

/* loop NULL: embedded. */
static struct loop_store *loop_store_open(struct store *store, PyObject *loop) {
    steady_message why = {.text = ""};
    steady_store_options options = store->options;
    struct loop_store *self = PyObject_GC_New(struct loop_store, store->state->loop_store_type);
    if (self == NULL) return NULL;
    memset((char *)self + offsetof(struct loop_store, state), 0, sizeof *self - offsetof(struct loop_store, state));
    self->state = store->state;
    self->counters = Py_NewRef(store->counters);
    self->thread = PyThread_get_thread_ident();
    self->process = core_process(store->state);
    PyObject_GC_Track((PyObject *)self);
    const steady_loop on = {.ops = &core_loop_ops, .loop = self};
    if (loop != NULL) {
        if (bind_loop(self, loop) != 0) goto failed;
        options.loop = &on;
        options.log = log_line;
        options.log_data = self;
    }
    const int error = steady_store_open(&self->store, store->url, &options, &why);
    if (error == 0) {
        store->told = false;
        return self;
    }
    if (loop != NULL)
        open_failed(store, self, error, why.text);
    else
        core_raise(store->state, error, why.text);
failed:
    Py_DECREF(self);
    return NULL;
}

static PyMethodDef loop_store_methods[] = {{"close", (PyCFunction)loop_store_close, METH_NOARGS, NULL},
                                           {NULL, NULL, 0, NULL}};

static PyType_Slot loop_store_slots[] = {{Py_tp_finalize, loop_store_finalize}, {Py_tp_traverse, loop_store_traverse},
                                         {Py_tp_clear, loop_store_clear},       {Py_tp_dealloc, loop_store_dealloc},
                                         {Py_tp_methods, loop_store_methods},   {0, NULL}};

PyType_Spec core_loop_store_spec = {"aiosteady._core.LoopStore", sizeof(struct loop_store), 0,
                                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                                        Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                    loop_store_slots};

/* ---- All loops' ---- */

static int loop_is_closed(struct core_state *state, PyObject *loop) {
    PyObject *closed = PyObject_CallMethodNoArgs(loop, state->is_closed);
    const int answer = closed == NULL ? -1 : PyObject_IsTrue(closed);
    Py_XDECREF(closed);
    return answer;
}

static int close_here(struct loop_store *store) {
    PyObject *answer = loop_store_close(store, NULL);
    Py_XDECREF(answer);
    return answer != NULL ? 0 : -1;
}

/* The exception that is set is what a loop said when it was asked to close its store: nothing of interest where it has
 * been closed meanwhile. The store of a loop that says no is of no use from now on, and ends in its next callback, or
 * when the Store is closed once more. */
static int refused_to_close(struct loop_store *store) {
    PyObject *type, *value, *traceback;
    const bool ordinary = PyErr_ExceptionMatches(PyExc_Exception) != 0;
    PyErr_Fetch(&type, &value, &traceback);
    const int closed = loop_is_closed(store->state, store->loop);
    if (closed == 1 && ordinary) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return close_here(store);
    }
    PyErr_Clear();
    store->ending = true;
    PyErr_Restore(type, value, traceback);
    return -1;
}

/* Closes a loop's store in the thread of its loop, or here where nobody runs that loop any more. */
static int retire(struct loop_store *store) {
    const bool ours = store->thread == PyThread_get_thread_ident() || store->process != core_process(store->state);
    const int closed = ours ? 1 : loop_is_closed(store->state, store->loop);
    if (closed != 0) return closed < 0 ? -1 : close_here(store);
    count(store, store->store);
    PyObject *close = PyObject_GetAttrString((PyObject *)store, "close");
    PyObject *answer = close != NULL ? PyObject_CallMethod(store->loop, "call_soon_threadsafe", "O", close) : NULL;
    Py_XDECREF(close);
    Py_XDECREF(answer);
    return answer != NULL ? 0 : refused_to_close(store);
}

/* 1, or 0, or -1 with an exception: its loop has been closed, or it is the parent's and this is a forked child. */
static int is_left_over(struct loop_store *store) {
    return store->process != core_process(store->state) ? 1 : loop_is_closed(store->state, store->loop);
}

static int sweep(struct store *self) {
    PyObject *stores = PyDict_Values(self->loops);
    int error = stores != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; error == 0 && i < PyList_GET_SIZE(stores); i++) {
        struct loop_store *store = (struct loop_store *)PyList_GET_ITEM(stores, i);
        const int left_over = is_left_over(store);
        if (left_over < 0) error = -1;
        if (left_over <= 0) continue;
        if (PyDict_GetItemWithError(self->loops, store->loop) == (PyObject *)store)
            error = PyDict_DelItem(self->loops, store->loop);
        Py_XDECREF(loop_store_close(store, NULL));
        if (PyErr_Occurred()) error = -1;
    }
    Py_XDECREF(stores);
    return error;
}

/* The one that is there; NULL, with an exception or without: there is none. */
static struct loop_store *find(struct store *self, PyObject *loop) {
    if (self->closed) {
        core_raise(self->state, STEADY_CLOSED, NULL);
        return NULL;
    }
    PyObject *there = PyDict_GetItemWithError(self->loops, loop);
    return there != NULL && core_is_usable((struct loop_store *)there) ? (struct loop_store *)Py_NewRef(there) : NULL;
}

struct loop_store *core_store_on(struct store *self, PyObject *loop) {
    struct loop_store *there = find(self, loop);
    if (there != NULL || PyErr_Occurred() || sweep(self) != 0) return there;
    struct loop_store *opened = loop_store_open(self, loop);
    if (opened == NULL) return NULL;
    there = find(self, loop); /* code that ran meanwhile may have opened one, or closed the Store */
    if (there == NULL && !PyErr_Occurred() && PyDict_SetItem(self->loops, loop, (PyObject *)opened) == 0) return opened;
    loop_store_finalize((PyObject *)opened); /* what it has of the loop holds it */
    Py_DECREF(opened);
    return there;
}

/* ---- The Store ---- */

/* Takes the exception that is set away, if there is one, and keeps it where it is the first. */
static void keep_first(PyObject *first[3]) {
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

static int keep_for_later(struct store *self, struct loop_store *store) {
    return store->store != NULL ? PyDict_SetItem(self->loops, store->loop, (PyObject *)store) : 0;
}

/* Whatever happens with one, the others are closed, too; the first exception is raised. */
static int close_all(struct store *self) {
    PyObject *first[3] = {NULL, NULL, NULL};
    self->closed = true;
    if (self->embedded != NULL) close_here(self->embedded);
    keep_first(first);
    PyObject *stores = self->loops != NULL ? PyDict_Values(self->loops) : NULL;
    keep_first(first);
    if (stores != NULL) PyDict_Clear(self->loops);
    for (Py_ssize_t i = 0; stores != NULL && i < PyList_GET_SIZE(stores); i++) {
        struct loop_store *store = (struct loop_store *)PyList_GET_ITEM(stores, i);
        const bool refused = retire(store) != 0;
        keep_first(first);
        if (refused && keep_for_later(self, store) != 0) keep_first(first);
    }
    Py_XDECREF(stores);
    if (first[0] == NULL) return 0;
    PyErr_Restore(first[0], first[1], first[2]);
    return -1;
}

static PyObject *store_close(struct store *self, PyObject *Py_UNUSED(none)) {
    if (close_all(self) != 0) return NULL;
    Py_RETURN_NONE;
}

static void store_finalize(PyObject *self) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (close_all((struct store *)self) != 0) PyErr_WriteUnraisable(self);
    PyErr_Restore(type, value, traceback);
}

static int read_count(PyObject *given, const char *name, int64_t max, uint32_t *count) {
    int64_t number = 0;
    if (given == NULL) return 0;
    if (core_int(given, name, 0, max, &number) != 0) return -1;
    *count = (uint32_t)number;
    return 0;
}

static int read_timeout(PyObject *given, steady_us *timeout) {
    if (given == NULL || given == Py_None) return 0;
    if (core_seconds(given, "timeout", timeout) != 0) return -1;
    if (*timeout > 0) return 0;
    PyErr_SetString(PyExc_ValueError, "timeout is 0; it must be over 0 s, or None for the default");
    return -1;
}

/* NULL: not given. */
static int read_options(struct store *self, PyObject *timeout, PyObject *max_in_flight, PyObject *buckets,
                        PyObject *engine) {
    static const char *const engines[] = {"auto", "script", "module", NULL};
    const int chosen = engine != NULL ? core_choice(engine, "engine", engines) : STEADY_ENGINE_AUTO;
    if (chosen < 0) return -1;
    self->options.engine = (enum steady_engine)chosen;
    return read_timeout(timeout, &self->options.timeout) != 0 ||
                   read_count(max_in_flight, "max_in_flight", IN_FLIGHT_MAX, &self->options.max_in_flight) != 0 ||
                   read_count(buckets, "buckets", BUCKETS_MAX, &self->options.buckets) != 0
               ? -1
               : 0;
}

/* An embedded store is opened here and now. A server's needs a loop for that: one without is opened, and closed, which
 * tells whether the URL, the options and the files for TLS are of use. */
static int open_or_check(struct store *self) {
    steady_message why = {.text = ""};
    steady_store *store = NULL;
    struct steady__url url;
    int error = steady__url_parse(&url, self->url, &why);
    if (error == 0) {
        const bool embedded = url.scheme == STEADY__URL_MEMORY || url.scheme == STEADY__URL_FILE;
        steady__url_clear(&url);
        if (embedded) return (self->embedded = loop_store_open(self, NULL)) != NULL ? 0 : -1;
        error = steady_store_open(&store, self->url, &self->options, &why);
        steady_store_close(&store);
    }
    if (error != 0) core_raise(self->state, error, why.text);
    return error != 0 ? -1 : 0;
}

static int read_url(struct store *self, PyObject *url) {
    Py_ssize_t len = 0;
    const char *text = core_is_text(url, "url") == 0 ? core_utf8(url, "url", &len) : NULL;
    if (text == NULL) return -1;
    if (strlen(text) != (size_t)len) {
        PyErr_SetString(PyExc_ValueError, "url holds a NUL");
        return -1;
    }
    self->url = PyMem_Malloc((size_t)len + 1);
    if (self->url == NULL) PyErr_NoMemory();
    if (self->url != NULL) memcpy(self->url, text, (size_t)len + 1);
    return self->url != NULL ? 0 : -1;
}

static PyObject *store_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"url", "timeout", "max_in_flight", "buckets", "engine", NULL};
    PyObject *url = NULL, *timeout = NULL, *max_in_flight = NULL, *buckets = NULL, *engine = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOO:Store", names, &url, &timeout, &max_in_flight, &buckets,
                                     &engine))
        return NULL;
    struct store *self = (struct store *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->state = core_state_of(type);
    self->loops = PyDict_New();
    self->counters = self->loops != NULL ? new_counters() : NULL;
    if (self->counters == NULL || read_url(self, url) != 0 ||
        read_options(self, timeout, max_in_flight, buckets, engine) != 0 || open_or_check(self) != 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int store_traverse(struct store *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->embedded);
    Py_VISIT(self->loops);
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
    PyMem_Free(self->url);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* ---- Looking ---- */

static void add_stats(steady_stats *sum, const struct loop_store *store) {
    steady_stats now;
    steady_store_stats(store->store, &now);
    add_new(sum, &now, &store->counted);
}

static PyObject *store_stats(struct store *self, PyObject *Py_UNUSED(none)) {
    steady_stats sum = *(const steady_stats *)PyCapsule_GetPointer(self->counters, NULL);
    PyObject *loop = NULL, *store = NULL;
    Py_ssize_t at = 0;
    if (self->embedded != NULL) add_stats(&sum, self->embedded);
    while (PyDict_Next(self->loops, &at, &loop, &store))
        add_stats(&sum, (struct loop_store *)store);
    return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsKsKsK}", "decisions", sum.decisions, "allowed", sum.allowed, "denied",
                         sum.denied, "blocked", sum.blocked, "unavailable", sum.unavailable, "unknown", sum.unknown,
                         "overflowed", sum.overflowed, "clock_steps", sum.clock_steps, "reconnects", sum.reconnects,
                         "script_loads", sum.script_loads, "in_flight", sum.in_flight, "timeouts", sum.timeouts);
}

static PyMethodDef store_methods[] = {
    {"close", (PyCFunction)store_close, METH_NOARGS, "Ends what is in flight as Cancelled, and lets go of everything."},
    {"stats", (PyCFunction)store_stats, METH_NOARGS,
     "Counters since it was opened, over all loops, those that are gone too."},
    {NULL, NULL, 0, NULL}};

static PyMemberDef store_members[] = {
    {"closed", T_BOOL, offsetof(struct store, closed), READONLY, "Whether it was closed."}, {NULL, 0, 0, 0, NULL}};

static PyType_Slot store_slots[] = {{Py_tp_new, store_new},           {Py_tp_finalize, store_finalize},
                                    {Py_tp_traverse, store_traverse}, {Py_tp_clear, store_clear},
                                    {Py_tp_dealloc, store_dealloc},   {Py_tp_methods, store_methods},
                                    {Py_tp_members, store_members},   {0, NULL}};

PyType_Spec core_store_spec = {"aiosteady._core.Store", sizeof(struct store), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
                               store_slots};
