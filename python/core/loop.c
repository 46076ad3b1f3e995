/* SPDX-License-Identifier: MIT
 * The running asyncio loop, as an event loop of the library: add_reader, add_writer and call_later.
 *
 * The loop calls an Io or a Timer. The library holds it from loop_io_new to loop_io_free. The loop holds it as long as
 * it is in the tables of the loop, which may be longer; `ready` and `fired` are NULL then. Never call a loop that is
 * closed, or in a forked child the loop of the parent.
 *
 * A call to the loop runs Python code, and a garbage collection may run any other code. The library is inside a
 * function of its own then. So `calling_loop` counts these calls. While it is not 0, the store starts no decision, and
 * it is closed only afterwards (loop_store_after_call). */
#include "loop.h"

#include "loop_store.h"

struct loop_io {
    PyObject_HEAD struct loop_store *store;
    struct held held; /* until io_free */
    int fd;
    int wanted;                           /* the events registered with the loop */
    int next;                             /* the events to register once `ready` has returned */
    bool called;                          /* `ready` is running */
    void (*ready)(void *arg, int events); /* NULL: freed */
    void *arg;
};

struct loop_timer {
    PyObject_HEAD struct loop_store *store;
    struct held held; /* until timer_free */
    PyObject *handle; /* from call_later; NULL: not running */
    void (*fired)(void *arg);
    void *arg;
};

static bool loop_is_open(struct loop_store *store) {
    if (store->pid != state_pid(store->state)) return false;
    store->calling_loop++;
    const int closed = loop_store_loop_is_closed(store);
    if (closed < 0) PyErr_Clear();
    store->calling_loop--;
    return closed == 0;
}

/* ---- Descriptors ---- */

static void *loop_io_new(void *loop, int fd, void (*ready)(void *arg, int events), void *arg) {
    struct loop_store *store = loop;
    store->calling_loop++;
    struct loop_io *io = PyObject_GC_New(struct loop_io, store->state->io_type);
    store->calling_loop--;
    if (io == NULL) {
        PyErr_Clear();
        return NULL;
    }
    Py_INCREF(store);
    io->store = store;
    io->fd = fd;
    io->wanted = io->next = 0;
    io->called = false;
    io->ready = ready;
    io->arg = arg;
    loop_store_hold(store, &io->held, (PyObject *)io);
    PyObject_GC_Track((PyObject *)io);
    Py_DECREF(io);
    return io;
}

/* `event` is STEADY_READABLE (1) or STEADY_WRITABLE (2): the first or second of `add` and `remove`. */
static int loop_io_change(struct loop_io *io, int event, bool want) {
    struct loop_store *store = io->store;
    PyObject *answer = want ? PyObject_CallFunction(store->add[event - 1], "iOi", io->fd, io, event)
                            : PyObject_CallFunction(store->remove[event - 1], "i", io->fd);
    if (answer == NULL) {
        loop_store_report(store, (PyObject *)io);
        return -1;
    }
    Py_DECREF(answer);
    io->wanted = want ? io->wanted | event : io->wanted & ~event;
    return 0;
}

static int loop_io_change_all(struct loop_io *io, int events) {
    int error = 0;
    io->store->calling_loop++;
    for (int event = STEADY_READABLE; error == 0 && event <= STEADY_WRITABLE; event++)
        if (((events ^ io->wanted) & event) != 0) error = loop_io_change(io, event, (events & event) != 0);
    io->store->calling_loop--;
    return error;
}

/* The library may call this several times inside `ready`. The loop does not run meanwhile, so only the last call
 * counts.
 */
static int loop_io_want(void *handle, int events) {
    struct loop_io *io = handle;
    io->next = events;
    return io->called ? 0 : loop_io_change_all(io, events);
}

static void loop_io_free(void *handle) {
    struct loop_io *io = handle;
    io->ready = NULL;
    if (io->wanted != 0 && loop_is_open(io->store)) loop_io_change_all(io, 0);
    loop_store_release(&io->held);
}

static PyObject *loop_io_call(struct loop_io *io, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    int events = 0;
    if (!PyArg_ParseTuple(args, "i", &events)) return NULL;
    io->store->in_callback = true;
    io->called = true;
    if (io->ready != NULL && io->store->store != NULL) io->ready(io->arg, events);
    io->called = false;
    if (io->ready != NULL && io->next != io->wanted && loop_is_open(io->store)) loop_io_change_all(io, io->next);
    io->store->in_callback = false;
    loop_store_after_call(io->store);
    if (loop_store_raise_pending(io->store) != 0) return NULL;
    Py_RETURN_NONE;
}

static int loop_io_traverse(struct loop_io *io, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(io));
    Py_VISIT(io->store);
    return 0;
}

static void loop_io_dealloc(struct loop_io *io) {
    PyTypeObject *type = Py_TYPE(io);
    PyObject_GC_UnTrack(io);
    Py_DECREF(io->store);
    PyObject_GC_Del(io);
    Py_DECREF(type);
}

/* No tp_clear: as long as the library has this handle, its store must stay. The tp_clear of the store breaks a cycle.
 */
static PyType_Slot io_slots[] = {
    {Py_tp_call, loop_io_call}, {Py_tp_traverse, loop_io_traverse}, {Py_tp_dealloc, loop_io_dealloc}, {0, NULL}};

PyType_Spec loop_io_spec = {
    "aiosteady._core.Io", sizeof(struct loop_io), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, io_slots};

/* ---- Timers ---- */

static void *loop_timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    struct loop_store *store = loop;
    store->calling_loop++;
    struct loop_timer *timer = PyObject_GC_New(struct loop_timer, store->state->timer_type);
    store->calling_loop--;
    if (timer == NULL) {
        PyErr_Clear();
        return NULL;
    }
    Py_INCREF(store);
    timer->store = store;
    timer->handle = NULL;
    timer->fired = fired;
    timer->arg = arg;
    loop_store_hold(store, &timer->held, (PyObject *)timer);
    PyObject_GC_Track((PyObject *)timer);
    Py_DECREF(timer);
    return timer;
}

static void loop_timer_stop(void *handle) {
    struct loop_timer *timer = handle;
    if (timer->handle == NULL) return;
    timer->store->calling_loop++;
    if (loop_is_open(timer->store)) {
        PyObject *answer = PyObject_CallMethod(timer->handle, "cancel", NULL);
        if (answer == NULL) loop_store_report(timer->store, (PyObject *)timer);
        Py_XDECREF(answer);
    }
    Py_CLEAR(timer->handle);
    timer->store->calling_loop--;
}

static int loop_timer_start(void *handle, steady_us delay) {
    struct loop_timer *timer = handle;
    loop_timer_stop(timer);
    timer->store->calling_loop++;
    timer->handle = PyObject_CallFunction(timer->store->call_later, "dO", (double)delay / 1e6, timer);
    if (timer->handle == NULL) loop_store_report(timer->store, (PyObject *)timer);
    timer->store->calling_loop--;
    return timer->handle != NULL ? 0 : -1;
}

static void loop_timer_free(void *handle) {
    struct loop_timer *timer = handle;
    loop_timer_stop(timer);
    timer->fired = NULL;
    loop_store_release(&timer->held);
}

static PyObject *loop_timer_call(struct loop_timer *timer, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs)) {
    Py_CLEAR(timer->handle);
    timer->store->in_callback = true;
    if (timer->fired != NULL && timer->store->store != NULL) timer->fired(timer->arg);
    timer->store->in_callback = false;
    loop_store_after_call(timer->store);
    if (loop_store_raise_pending(timer->store) != 0) return NULL;
    Py_RETURN_NONE;
}

static int loop_timer_traverse(struct loop_timer *timer, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(timer));
    Py_VISIT(timer->store);
    Py_VISIT(timer->handle);
    return 0;
}

/* Keeps the store: the library needs it while it holds this. */
static int loop_timer_clear(struct loop_timer *timer) {
    Py_CLEAR(timer->handle);
    return 0;
}

static void loop_timer_dealloc(struct loop_timer *timer) {
    PyTypeObject *type = Py_TYPE(timer);
    PyObject_GC_UnTrack(timer);
    loop_timer_clear(timer);
    Py_DECREF(timer->store);
    PyObject_GC_Del(timer);
    Py_DECREF(type);
}

static PyType_Slot timer_slots[] = {{Py_tp_call, loop_timer_call},
                                    {Py_tp_traverse, loop_timer_traverse},
                                    {Py_tp_clear, loop_timer_clear},
                                    {Py_tp_dealloc, loop_timer_dealloc},
                                    {0, NULL}};

PyType_Spec loop_timer_spec = {"aiosteady._core.Timer", sizeof(struct loop_timer), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                                   Py_TPFLAGS_DISALLOW_INSTANTIATION,
                               timer_slots};

const steady_loop_ops loop_ops = {.name = "asyncio",
                                  .io_new = loop_io_new,
                                  .io_want = loop_io_want,
                                  .io_free = loop_io_free,
                                  .timer_new = loop_timer_new,
                                  .timer_start = loop_timer_start,
                                  .timer_stop = loop_timer_stop,
                                  .timer_free = loop_timer_free};
