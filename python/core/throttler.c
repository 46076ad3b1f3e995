/* SPDX-License-Identifier: MIT
 * Throttler: a limit, and whom to ask; the part of it that is on the way of every decision. */
#include <stddef.h>

#include "core.h"
#include "core/limit.h"
#include "policy.h"
#include "redis/command.h"
#include "conn/reply.h"

/* ---- Bindings ---- */

static void free_binding(struct binding *binding) {
    steady_throttler_free(&binding->throttler);
    steady_throttler_free(&binding->patient);
}

/* The throttlers of a binding. 0, or -1 and an exception. */
static int fill_binding(const struct throttler *self, struct binding *binding, steady_store *store) {
    steady_message why = {.text = ""};
    steady_limit blockless = self->limit;
    blockless.block_duration = 0;
    int error = steady_throttler_new(&binding->throttler, store, &self->limit, &self->options, &why);
    if (error == 0 && self->limit.block_duration != 0)
        error = steady_throttler_new(&binding->patient, store, &blockless, &self->options, &why);
    if (error == 0) return 0;
    free_binding(binding);
    core_raise(self->state, error, error == STEADY_BAD_ARGUMENT ? why.text : NULL);
    return -1;
}

static struct binding *bind_to(struct throttler *self, struct loop_store *store) {
    if (self->options.on_error == STEADY_LOCAL && core_lend_local(self->store, store) != 0) return NULL;
    if (store->store == NULL) {
        core_raise(self->state, STEADY_CLOSED, NULL);
        return NULL;
    }
    struct binding *more = PyMem_Realloc(self->bindings, (self->count + 1) * sizeof *more);
    if (more == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    self->bindings = more;
    struct binding binding = {.store = store};
    if (fill_binding(self, &binding, store->store) != 0) return NULL;
    Py_INCREF(store);
    more[self->count] = binding;
    return &more[self->count++];
}

/* Of stores that are of no use any more; of all, where `all`. Letting go of one may run any code, this too. */
static void unbind(struct throttler *self, bool all) {
    for (size_t i = 0; i < self->count;) {
        if (!all && core_is_usable(self->bindings[i].store)) {
            i++;
            continue;
        }
        struct binding binding = self->bindings[i];
        self->bindings[i] = self->bindings[--self->count];
        free_binding(&binding);
        Py_DECREF(binding.store);
        i = 0;
    }
}

struct binding *core_binding(struct throttler *self) {
    PyObject *loop = PyObject_CallNoArgs(self->state->get_running_loop);
    if (loop == NULL) return NULL;
    struct binding *found = NULL;
    for (size_t i = 0; found == NULL && i < self->count; i++)
        if (self->bindings[i].store->loop == loop) found = &self->bindings[i];
    if (found == NULL || !core_is_usable(found->store)) {
        unbind(self, false);
        struct loop_store *store = core_store_on(self->store, loop);
        found = store != NULL ? bind_to(self, store) : NULL;
        Py_XDECREF(store);
    }
    Py_DECREF(loop);
    return found;
}

/* ---- Keys and policies ---- */

int core_whole_key(const struct throttler *self, PyObject *key, char *room, const char **bytes, size_t *len) {
    Py_ssize_t key_len = 0, prefix_len = 0;
    if (core_key(key, bytes, &key_len) != 0) return -1;
    const char *prefix = PyUnicode_AsUTF8AndSize(self->prefix, &prefix_len);
    if (prefix == NULL) return -1;
    *len = (size_t)(key_len + prefix_len);
    if (prefix_len == 0) return 0;
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

PyObject *core_policy(struct throttler *self, steady_throttler *asked, struct question question, PyObject *key,
                      int error, const char *why) {
    char room[STEADY__KEY_MAX];
    struct steady__call call = {.verb = question.verb, .amount = question.amount};
    steady_result result = {.error = error};
    if (core_whole_key(self, key, room, &call.key, &call.key_len) != 0) return NULL;
    if (asked != NULL) steady__policy_apply(asked, &call, &result);
    return result.source != STEADY_FROM_NOWHERE ? core_result(self->state, &result)
                                                : core_raise(self->state, error, why);
}

/* The binding to what stands in, made when it is first needed. NULL: none is needed, or an exception. */
static const struct binding *stand_in(struct throttler *self) {
    if (self->options.on_error == STEADY_REPORT) return NULL;
    if (self->local == NULL) {
        PyObject *local = self->store != NULL
                              ? core_local(self->state, &self->store->local, self->store->options.buckets)
                              : core_local(self->state, &self->state->local, 0);
        if (local == NULL) return NULL;
        Py_XSETREF(self->local, local);
    }
    if (self->stand_in.throttler != NULL) return &self->stand_in;
    return fill_binding(self, &self->stand_in, core_local_store(self->local)) == 0 ? &self->stand_in : NULL;
}

static steady_throttler *stand_in_for(struct throttler *self, struct question question) {
    const struct binding *binding = stand_in(self);
    if (binding == NULL) PyErr_Clear();
    return binding != NULL ? core_whom(binding, question) : NULL;
}

PyObject *core_policy_unopened(struct throttler *self, struct question question, PyObject *key) {
    PyObject *type, *value, *traceback;
    if (!PyErr_ExceptionMatches(self->state->errors[-STEADY_UNAVAILABLE])) return NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *answer = core_policy(self, stand_in_for(self, question), question, key, STEADY_UNAVAILABLE, NULL);
    if (answer == NULL) {
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    Py_DECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return answer;
}

/* ---- Asking ---- */

/* The store decides in place, so a steady_throttler has nothing to add. */
static PyObject *ask_embedded(struct throttler *self, struct question question, PyObject *key) {
    char room[STEADY__KEY_MAX];
    steady_result result;
    steady_store *store = self->store->embedded->store;
    struct steady__call call = {
        .verb = question.verb, .amount = question.amount, .terms = question.patient ? &self->patient : &self->terms};
    if (store == NULL) return core_raise(self->state, STEADY_CLOSED, NULL);
    if (core_whole_key(self, key, room, &call.key, &call.key_len) != 0) return NULL;
    store->class_->decide(store, &call, &result);
    return core_result(self->state, &result);
}

/* Or RuntimeError. What __init__ fills in comes before these two. */
static bool is_made(const struct throttler *self) {
    if (self->store != NULL || self->ask != NULL) return true;
    PyErr_SetString(PyExc_RuntimeError, "Throttler.__init__ did not run to its end");
    return false;
}

/* The result of an embedded store, or an awaitable. */
static PyObject *ask(struct throttler *self, struct question question, PyObject *key) {
    const char *bytes = NULL;
    Py_ssize_t len = 0;
    if (!is_made(self)) return NULL;
    if (self->store != NULL && self->store->embedded != NULL) return ask_embedded(self, question, key);
    if (core_key(key, &bytes, &len) != 0) return NULL;
    if (self->ask == NULL) return core_decision(self, question, key);
    return PyObject_CallFunction(self->ask, "OiOLi", self, (int)question.verb, key, (long long)question.amount,
                                 (int)question.patient);
}

/* (key, amount=1) or (key) of a vectorcall; borrowed. */
static int read_call(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int most,
                     PyObject **key, PyObject **amount) {
    PyObject **places[] = {key, amount};
    static const char *const names[] = {"key", "amount"};
    bool excess = nargs > most;
    for (Py_ssize_t i = 0; i < nargs && i < most; i++)
        *places[i] = args[i];
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *given = PyTuple_GET_ITEM(kwnames, i);
        int at = 0;
        while (at < most && PyUnicode_CompareWithASCIIString(given, names[at]) != 0)
            at++;
        if (at == most || *places[at] != NULL)
            excess = true;
        else
            *places[at] = args[nargs + i];
    }
    if (!excess && *key != NULL) return 0;
    PyErr_Format(PyExc_TypeError, most == 2 ? "%s() takes key and amount=1" : "%s() takes key", name);
    return -1;
}

static PyObject *consume(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                         struct question question) {
    PyObject *key = NULL, *amount = NULL;
    if (read_call("consume", args, nargs, kwnames, 2, &key, &amount) != 0) return NULL;
    if (amount != NULL && core_int(amount, "amount", -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX, &question.amount) != 0)
        return NULL;
    return ask(self, question, key);
}

static PyObject *throttler_consume(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    return consume(self, args, nargs, kwnames, (struct question){STEADY__CONSUME, false, 1});
}

static PyObject *throttler_patient(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    return consume(self, args, nargs, kwnames, (struct question){STEADY__CONSUME, true, 1});
}

static PyObject *throttler_peek(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *key = NULL;
    if (read_call("peek", args, nargs, kwnames, 1, &key, NULL) != 0) return NULL;
    return ask(self, (struct question){STEADY__PEEK, false, 1}, key);
}

static PyObject *throttler_reset(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *key = NULL;
    if (read_call("reset", args, nargs, kwnames, 1, &key, NULL) != 0) return NULL;
    return ask(self, (struct question){STEADY__RESET, false, 0}, key);
}

/* For wait(): the amount, as an int, where it can be waited for. */
static PyObject *throttler_fitting(struct throttler *self, PyObject *args) {
    PyObject *key = NULL, *given = NULL;
    const char *bytes = NULL;
    Py_ssize_t len = 0;
    int64_t amount = 0;
    if (!is_made(self) || !PyArg_ParseTuple(args, "OO", &key, &given) || core_key(key, &bytes, &len) != 0 ||
        core_int(given, "amount", -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX, &amount) != 0)
        return NULL;
    if (amount <= self->limit.max_capacity) return PyLong_FromLongLong(amount);
    PyErr_Format(PyExc_ValueError, "amount is %lld, over the max_capacity of %lld: it will never fit",
                 (long long)amount, (long long)self->limit.max_capacity);
    return NULL;
}

/* ---- For clients of others ---- */

/* (key, arguments of the script ...) */
static PyObject *throttler_arguments(struct throttler *self, PyObject *args) {
    char room[STEADY__KEY_MAX], first[80], second[48];
    const char *bytes = NULL;
    size_t len = 0;
    PyObject *key = NULL;
    long long amount = 0;
    int patient = 0;
    const struct steady__rate *rate = &self->terms.rate;
    if (!is_made(self) || !PyArg_ParseTuple(args, "OLp", &key, &amount, &patient)) return NULL;
    if (core_whole_key(self, key, room, &bytes, &len) != 0) return NULL;
    const long long block = patient ? 0 : (long long)rate->block;
    PyOS_snprintf(first, sizeof first, "%lld %lld %lld", (long long)rate->capacity, (long long)rate->recharge, amount);
    if (rate->drops == 1 && block == 0) return Py_BuildValue("(y#s)", bytes, (Py_ssize_t)len, first);
    PyOS_snprintf(second, sizeof second, "%lld %lld", (long long)rate->drops, block);
    return Py_BuildValue("(y#ss)", bytes, (Py_ssize_t)len, first, second);
}

/* The whole EVALSHA, as it is sent. */
static PyObject *throttler_packed(struct throttler *self, PyObject *args) {
    char room[STEADY__KEY_MAX], out[STEADY__COMMAND_MAX];
    struct steady__call call = {0};
    PyObject *key = NULL;
    long long amount = 0;
    int verb = 0, patient = 0;
    if (!is_made(self) || !PyArg_ParseTuple(args, "iOLp", &verb, &key, &amount, &patient)) return NULL;
    if (core_whole_key(self, key, room, &call.key, &call.key_len) != 0) return NULL;
    call.verb = (enum steady__verb)verb;
    call.amount = amount;
    call.terms = patient ? &self->patient : &self->terms;
    return PyBytes_FromStringAndSize(out, (Py_ssize_t)steady__command_evalsha(out, &call));
}

/* How many integers a reply is; -1 where it is none of ours. */
static Py_ssize_t read_reply(PyObject *reply, int64_t *values) {
    const bool one = PyLong_Check(reply);
    const Py_ssize_t count = one ? 1 : PyList_Check(reply) ? PyList_GET_SIZE(reply) : -1;
    if (count > STEADY__REPLY_MAX) return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        int overflow = 0;
        PyObject *value = one ? reply : PyList_GET_ITEM(reply, i);
        if (!PyLong_Check(value)) return -1;
        values[i] = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow != 0) return -1;
    }
    return count;
}

/* The result that a reply stands for; None: that is no reply of our scripts. */
static PyObject *throttler_decode(struct throttler *self, PyObject *args) {
    int64_t values[STEADY__REPLY_MAX];
    int verb = 0;
    long long amount = 0;
    PyObject *reply = NULL;
    steady_result result;
    bool stepped = false;
    if (!is_made(self) || !PyArg_ParseTuple(args, "iLO", &verb, &amount, &reply)) return NULL;
    const struct steady__call call = {.verb = (enum steady__verb)verb, .amount = amount, .terms = &self->terms};
    const Py_ssize_t count = read_reply(reply, values);
    if (count < 0 || !steady__command_script_reply(&call, values, (size_t)count, &result, &stepped)) Py_RETURN_NONE;
    return core_result(self->state, &result);
}

static PyObject *throttler_failed(struct throttler *self, PyObject *args) {
    int error = 0, verb = 0, patient = 0;
    const char *why = NULL;
    PyObject *key = NULL;
    long long amount = 0;
    if (!is_made(self) || !PyArg_ParseTuple(args, "iziOLp", &error, &why, &verb, &key, &amount, &patient)) return NULL;
    const struct question question = {(enum steady__verb)verb, patient != 0, amount};
    return core_policy(self, stand_in_for(self, question), question, key, error, why);
}

static PyMethodDef methods[] = {
    {"_consume", (PyCFunction)(void (*)(void))throttler_consume, METH_FASTCALL | METH_KEYWORDS,
     "_consume($self, key, amount=1)\n--\n\nThe result if the store is embedded, else an awaitable of it."},
    {"_peek", (PyCFunction)(void (*)(void))throttler_peek, METH_FASTCALL | METH_KEYWORDS,
     "_peek($self, key)\n--\n\nLikewise."},
    {"_reset", (PyCFunction)(void (*)(void))throttler_reset, METH_FASTCALL | METH_KEYWORDS,
     "_reset($self, key)\n--\n\nLikewise."},
    {"_consume_patiently", (PyCFunction)(void (*)(void))throttler_patient, METH_FASTCALL | METH_KEYWORDS,
     "_consume_patiently($self, key, amount=1)\n--\n\n_consume, but it starts no block."},
    {"_fitting", (PyCFunction)throttler_fitting, METH_VARARGS, NULL},
    {"_arguments", (PyCFunction)throttler_arguments, METH_VARARGS, NULL},
    {"_packed", (PyCFunction)throttler_packed, METH_VARARGS, NULL},
    {"_decode", (PyCFunction)throttler_decode, METH_VARARGS, NULL},
    {"_failed", (PyCFunction)throttler_failed, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL}};

/* ---- Making one ---- */

static int check_prefix(PyObject *prefix) {
    Py_ssize_t len = 0;
    if (core_is_text(prefix, "prefix") != 0 || core_utf8(prefix, "prefix", &len) == NULL) return -1;
    if (len < STEADY__KEY_MAX) return 0;
    PyErr_Format(PyExc_ValueError, "prefix is %zd bytes long; it must be at most %d", len, STEADY__KEY_MAX - 1);
    return -1;
}

static int read_limit(struct throttler *self, int64_t drops) {
    steady_message why = {.text = ""};
    steady_limit *limit = &self->limit;
    if (core_int(self->max_capacity, "max_capacity", 1, STEADY__CAPACITY_MAX, &limit->max_capacity) != 0 ||
        core_seconds(self->drop_recharge, "drop_recharge", &limit->drop_recharge) != 0)
        return -1;
    if (self->block_duration != Py_None && core_seconds(self->block_duration, "block_duration", &limit->block_duration))
        return -1;
    limit->drops = drops;
    const int error = steady__limit_rate(&self->terms.rate, limit, &why);
    if (error != 0) core_raise(self->state, error, why.text);
    self->patient = self->terms;
    self->patient.rate.block = 0;
    return error;
}

static int throttler_init(struct throttler *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"redis", "target", "max_capacity", "drop_recharge", "block_duration",
                            "drops", "prefix", "on_error",     "local_share",   NULL};
    PyObject *redis = NULL, *target = NULL, *given[3], *drops = NULL, *prefix = NULL, *share = NULL;
    static const char *const policies[] = {"report", "deny", "allow", "local", NULL};
    PyObject *on_error = NULL;
    int64_t count = 0, shares = 0;
    int policy = 0;
    if (self->redis != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Throttler.__init__ was called before");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOOO:Throttler", names, &redis, &target, &given[0], &given[1],
                                     &given[2], &drops, &prefix, &on_error, &share) ||
        check_prefix(prefix) != 0 || core_int(drops, "drops", 1, STEADY__DROPS_MAX, &count) != 0 ||
        core_int(share, "local_share", 1, UINT32_MAX, &shares) != 0 ||
        (policy = core_choice(on_error, "on_error", policies)) < 0)
        return -1;
    self->options.on_error = (enum steady_policy)policy;
    self->options.local_share = (uint32_t)shares;
    self->redis = Py_NewRef(redis);
    self->max_capacity = Py_NewRef(given[0]);
    self->drop_recharge = Py_NewRef(given[1]);
    self->block_duration = Py_NewRef(given[2]);
    self->prefix = Py_NewRef(prefix);
    if (read_limit(self, count) != 0) return -1;
    if (PyObject_TypeCheck(target, self->state->store_type)) {
        self->store = (struct store *)Py_NewRef(target);
    } else {
        steady__command_encode_limit(&self->terms);
        steady__command_encode_limit(&self->patient);
        self->ask = Py_NewRef(target);
    }
    return 0;
}

static PyObject *throttler_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs)) {
    struct throttler *self = (struct throttler *)type->tp_alloc(type, 0);
    if (self != NULL) self->state = core_state_of(type);
    return (PyObject *)self;
}

static int throttler_traverse(struct throttler *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->redis);
    Py_VISIT(self->max_capacity);
    Py_VISIT(self->drop_recharge);
    Py_VISIT(self->block_duration);
    Py_VISIT(self->prefix);
    Py_VISIT(self->store);
    Py_VISIT(self->ask);
    for (size_t i = 0; i < self->count; i++)
        Py_VISIT(self->bindings[i].store);
    return 0;
}

static int throttler_clear(struct throttler *self) {
    unbind(self, true);
    Py_CLEAR(self->redis);
    Py_CLEAR(self->max_capacity);
    Py_CLEAR(self->drop_recharge);
    Py_CLEAR(self->block_duration);
    Py_CLEAR(self->prefix);
    Py_CLEAR(self->store);
    Py_CLEAR(self->ask);
    free_binding(&self->stand_in);
    Py_CLEAR(self->local);
    return 0;
}

static void throttler_dealloc(struct throttler *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    throttler_clear(self);
    PyMem_Free(self->bindings);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"redis", T_OBJECT_EX, offsetof(struct throttler, redis), READONLY, "What it was made with."},
    {"max_capacity", T_OBJECT_EX, offsetof(struct throttler, max_capacity), READONLY, "Drops a bucket can hold."},
    {"drop_recharge", T_OBJECT_EX, offsetof(struct throttler, drop_recharge), READONLY,
     "Seconds in which `drops` drops leak."},
    {"block_duration", T_OBJECT_EX, offsetof(struct throttler, block_duration), READONLY,
     "Seconds an overflow blocks a key; None: it does not."},
    {"drops", T_LONGLONG, offsetof(struct throttler, limit.drops), READONLY, "Drops that leak in one drop_recharge."},
    {"_recharge_us", T_LONGLONG, offsetof(struct throttler, limit.drop_recharge), READONLY, NULL},
    {"_local_share", T_UINT, offsetof(struct throttler, options.local_share), READONLY, NULL},
    {"prefix", T_OBJECT_EX, offsetof(struct throttler, prefix), READONLY, "Put before every key."},
    {NULL, 0, 0, 0, NULL}};

static PyType_Slot slots[] = {{Py_tp_new, throttler_new},
                              {Py_tp_init, throttler_init},
                              {Py_tp_traverse, throttler_traverse},
                              {Py_tp_clear, throttler_clear},
                              {Py_tp_dealloc, throttler_dealloc},
                              {Py_tp_methods, methods},
                              {Py_tp_members, members},
                              {0, NULL}};

PyType_Spec core_throttler_spec = {
    "aiosteady._core.Throttler", sizeof(struct throttler), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, slots};
