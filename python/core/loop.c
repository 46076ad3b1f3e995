/* SPDX-License-Identifier: MIT
 * The running asyncio loop, as a loop of the library's: add_reader, add_writer and call_later.
 *
 * An Io and a Timer are what the loop calls back. They are held by the library, from io_new to io_free, and by the
 * loop, for as long as it has them in its tables, which may be longer: `ready` and `fired` are NULL from then on. A
 * loop that is closed, or that is the parent's in a forked child, is not talked to any more.
 *
 * Talking to it runs Python code, and with that, by a collection of garbage, any. The library is in the middle of
 * something then: while `asking` is not 0, its store is asked nothing, and ends only after (core_left). */
#include "core.h"

struct io {
    PyObject_HEAD struct loop_store *store;
    struct held held; /* until io_free */
    int fd;
    int wanted;                           /* the loop knows of */
    int next;                             /* is to be wanted, once `ready` has returned */
    bool called;                          /* it is in `ready` */
    void (*ready)(void *arg, int events); /* NULL: freed */
    void *arg;
};

struct timer {
    PyObject_HEAD struct loop_store *store;
    struct held held; /* until timer_free */
    PyObject *handle; /* of call_later; NULL: not running */
    void (*fired)(void *arg);
    void *arg;
};

static bool can_talk(struct loop_store *store) {
    if (store->process != core_process(store->state)) return false;
    store->asking++;
    PyObject *closed = PyObject_CallMethodNoArgs(store->loop, store->state->is_closed);
    const bool open = closed == Py_False;
    Py_XDECREF(closed);
    PyErr_Clear();
    store->asking--;
    return open;
}

/* ---- Descriptors ---- */

static void *io_new(void *loop, int fd, void (*ready)(void *arg, int events), void *arg) {
    struct loop_store *store = loop;
    store->asking++;
    struct io *io = PyObject_GC_New(struct io, store->state->io_type);
    store->asking--;
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
    core_hold(store, &io->held, (PyObject *)io);
    PyObject_GC_Track((PyObject *)io);
    Py_DECREF(io);
    return io;
}

/* Event is STEADY_READABLE (1) or STEADY_WRITABLE (2), and stands first or second in the tables. */
static int change(struct io *io, int event, bool want) {
    struct loop_store *store = io->store;
    PyObject *answer = want ? PyObject_CallFunction(store->add[event - 1], "iOi", io->fd, io, event)
                            : PyObject_CallFunction(store->remove[event - 1], "i", io->fd);
    if (answer == NULL) {
        core_complain(store, (PyObject *)io);
        return -1;
    }
    Py_DECREF(answer);
    io->wanted = want ? io->wanted | event : io->wanted & ~event;
    return 0;
}

static int change_all(struct io *io, int events) {
    int error = 0;
    io->store->asking++;
    for (int event = STEADY_READABLE; error == 0 && event <= STEADY_WRITABLE; event++)
        if (((events ^ io->wanted) & event) != 0) error = change(io, event, (events & event) != 0);
    io->store->asking--;
    return error;
}

/* The library may change its mind again and again while it reads; the loop, which is not run in there, is told once. */
static int io_want(void *handle, int events) {
    struct io *io = handle;
    io->next = events;
    return io->called ? 0 : change_all(io, events);
}

static void io_free(void *handle) {
    struct io *io = handle;
    io->ready = NULL;
    if (io->wanted != 0 && can_talk(io->store)) change_all(io, 0);
    core_let_go(&io->held);
}

static PyObject *io_call(struct io *io, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    int events = 0;
    if (!PyArg_ParseTuple(args, "i", &events)) return NULL;
    io->store->at_top = true;
    io->called = true;
    if (io->ready != NULL && io->store->store != NULL) io->ready(io->arg, events);
    io->called = false;
    if (io->ready != NULL && io->next != io->wanted && can_talk(io->store)) change_all(io, io->next);
    io->store->at_top = false;
    core_left(io->store);
    if (core_raise_kept(io->store) != 0) return NULL;
    Py_RETURN_NONE;
}

static int io_traverse(struct io *io, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(io));
    Py_VISIT(io->store);
    return 0;
}

static void io_dealloc(struct io *io) {
    PyTypeObject *type = Py_TYPE(io);
    PyObject_GC_UnTrack(io);
    Py_DECREF(io->store);
    PyObject_GC_Del(io);
    Py_DECREF(type);
}

/* No tp_clear: while the library has it, it needs the store. The store's own clears what is a cycle. */
static PyType_Slot io_slots[] = {
    {Py_tp_call, io_call}, {Py_tp_traverse, io_traverse}, {Py_tp_dealloc, io_dealloc}, {0, NULL}};

PyType_Spec core_io_spec = {
    "aiosteady._core.Io", sizeof(struct io), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, io_slots};

/* ---- Timers ---- */

static void *timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    struct loop_store *store = loop;
    store->asking++;
    struct timer *timer = PyObject_GC_New(struct timer, store->state->timer_type);
    store->asking--;
    if (timer == NULL) {
        PyErr_Clear();
        return NULL;
    }
    Py_INCREF(store);
    timer->store = store;
    timer->handle = NULL;
    timer->fired = fired;
    timer->arg = arg;
    core_hold(store, &timer->held, (PyObject *)timer);
    PyObject_GC_Track((PyObject *)timer);
    Py_DECREF(timer);
    return timer;
}

static void timer_stop(void *handle) {
    struct timer *timer = handle;
    if (timer->handle == NULL) return;
    timer->store->asking++;
    if (can_talk(timer->store)) {
        PyObject *answer = PyObject_CallMethod(timer->handle, "cancel", NULL);
        if (answer == NULL) core_complain(timer->store, (PyObject *)timer);
        Py_XDECREF(answer);
    }
    Py_CLEAR(timer->handle);
    timer->store->asking--;
}

static int timer_start(void *handle, steady_us delay) {
    struct timer *timer = handle;
    timer_stop(timer);
    timer->store->asking++;
    timer->handle = PyObject_CallFunction(timer->store->call_later, "dO", (double)delay / 1e6, timer);
    if (timer->handle == NULL) core_complain(timer->store, (PyObject *)timer);
    timer->store->asking--;
    return timer->handle != NULL ? 0 : -1;
}

static void timer_free(void *handle) {
    struct timer *timer = handle;
    timer_stop(timer);
    timer->fired = NULL;
    core_let_go(&timer->held);
}

static PyObject *timer_call(struct timer *timer, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs)) {
    Py_CLEAR(timer->handle);
    timer->store->at_top = true;
    if (timer->fired != NULL && timer->store->store != NULL) timer->fired(timer->arg);
    timer->store->at_top = false;
    core_left(timer->store);
    if (core_raise_kept(timer->store) != 0) return NULL;
    Py_RETURN_NONE;
}

static int timer_traverse(struct timer *timer, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(timer));
    Py_VISIT(timer->store);
    Py_VISIT(timer->handle);
    return 0;
}

/* The store stays: while the library has it, it needs the store. */
static int timer_clear(struct timer *timer) {
    Py_CLEAR(timer->handle);
    return 0;
}

static void timer_dealloc(struct timer *timer) {
    PyTypeObject *type = Py_TYPE(timer);
    PyObject_GC_UnTrack(timer);
    timer_clear(timer);
    Py_DECREF(timer->store);
    PyObject_GC_Del(timer);
    Py_DECREF(type);
}

static PyType_Slot timer_slots[] = {{Py_tp_call, timer_call},
                                    {Py_tp_traverse, timer_traverse},
                                    {Py_tp_clear, timer_clear},
                                    {Py_tp_dealloc, timer_dealloc},
                                    {0, NULL}};

PyType_Spec core_timer_spec = {"aiosteady._core.Timer", sizeof(struct timer), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                                   Py_TPFLAGS_DISALLOW_INSTANTIATION,
                               timer_slots};

const steady_loop_ops core_loop_ops = {.name = "asyncio",
                                       .io_new = io_new,
                                       .io_want = io_want,
                                       .io_free = io_free,
                                       .timer_new = timer_new,
                                       .timer_start = timer_start,
                                       .timer_stop = timer_stop,
                                       .timer_free = timer_free};
