/* SPDX-License-Identifier: MIT
 * Throttler: the base, in C, of the class in leakybucket.py. Every call passes through here. */
#include "throttler.h"

#include <stddef.h>

#include "binding.h"
#include "call.h"
#include "convert.h"
#include "decision.h"
#include "result.h"
#include "src/conn/reply.h"
#include "src/core/limit.h"
#include "src/redis/command.h"
#include "sync.h"

/* ---- Deciding ---- */

static void throttler_complete(const struct steady__call *call, steady_result *result) {
    result->atomic = true;
    result->granted = call->verb == STEADY__CONSUME && result->success ? call->amount : 0;
}

/* An embedded store always answers, so no policy and no steady_throttler is needed. With other terms than those of the
 * throttler it is an attempt: a denial is not counted, because another call follows. */
static PyObject *throttler_decide_embedded(struct throttler *self, struct request request, PyObject *key,
                                           const struct steady__terms *terms) {
    char room[STEADY__KEY_MAX];
    steady_result result;
    steady_store *store = self->store->embedded->store;
    struct steady__call call = {.verb = request.verb, .amount = request.amount, .terms = terms};
    if (store == NULL) return convert_raise(self->state, STEADY_CLOSED, NULL);
    if (binding_key(self, key, room, &call.key, &call.key_len) != 0) return NULL;
    if (!state_is_of_process(self->state, self->tally.pid)) store_enter_process(self->store);
    steady__result_clear(&result); /* the store fills only the fields that it knows */
    store->class_->decide(store, &call, &result);
    throttler_complete(&call, &result);
    if (result.success || terms == &self->terms) tally_plain(&self->tally, request.verb, &result);
    return result_from(self->state, &result, PyTuple_GET_ITEM(self->names, 0));
}

bool throttler_is_embedded(const struct throttler *self) {
    return self->n_limits == 1 && self->store != NULL && self->store->embedded != NULL &&
           !self->store->embedded->is_pool && self->store->embedded->store != NULL;
}

static int64_t throttler_clamped(const struct throttler *self, int64_t amount) {
    return self->options.clamp && amount > self->limits[0].max_capacity ? self->limits[0].max_capacity : amount;
}

PyObject *throttler_consume_embedded(struct throttler *self, PyObject *key, int64_t amount) {
    const struct request request = {STEADY__CONSUME, throttler_clamped(self, amount)};
    return throttler_decide_embedded(self, request, key, &self->terms);
}

PyObject *throttler_decide(struct call *call) {
    const struct throttler *first = call->parts[0].throttler;
    if (first->client != NULL) return PyObject_CallMethod(first->client, "ask_call", "O", call);
    return first->store->embedded != NULL ? call_decide_embedded(call) : decision_of_call(call);
}

/* Returns the result if the store has no loop, otherwise an awaitable of it. */
static PyObject *throttler_call(struct throttler *self, struct request request, PyObject *key) {
    const char *bytes = NULL;
    Py_ssize_t len = 0;
    if (!binding_is_initialized(self)) return NULL;
    if (self->store != NULL && self->store->embedded != NULL)
        return self->store->embedded->is_pool ? sync_decide(self, request, key)
                                              : throttler_decide_embedded(self, request, key, &self->terms);
    if (convert_key(key, &bytes, &len) != 0) return NULL;
    if (self->client == NULL) return decision_new(self, request, key);
    return PyObject_CallMethod(self->client, "ask", "OiOL", self, (int)request.verb, key, (long long)request.amount);
}

/* A call with the options of `how`, on a throttler with any number of limits. */
static PyObject *throttler_call_with(struct throttler *self, PyObject *key, PyObject *amount,
                                     const struct call_options *how) {
    if (!binding_is_initialized(self)) return NULL;
    struct call *call = (struct call *)call_on_key(self, key, amount, how);
    PyObject *answer = call != NULL ? throttler_decide(call) : NULL;
    Py_XDECREF(call);
    return answer;
}

/* ---- The methods ---- */

/* The most arguments of a method. */
#define ARGUMENTS_MAX 4

/* Reads arguments by position or by name into `given`; one that was not given is NULL. Of `names`, which end with NULL,
 * the first is required. The references are borrowed. */
static int throttler_read_call(const char *signature, const char *const *names, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames, PyObject **given) {
    int most = 0;
    while (names[most] != NULL)
        given[most++] = NULL;
    bool excess = nargs > most;
    for (Py_ssize_t i = 0; i < nargs && i < most; i++)
        given[i] = args[i];
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        int at = 0;
        while (at < most && PyUnicode_CompareWithASCIIString(name, names[at]) != 0)
            at++;
        if (at == most || given[at] != NULL)
            excess = true;
        else
            given[at] = args[nargs + i];
    }
    if (!excess && given[0] != NULL) return 0;
    PyErr_Format(PyExc_TypeError, "%s", signature);
    return -1;
}

static bool throttler_is_no_wait(PyObject *wait) {
    return wait == NULL || ((PyLong_CheckExact(wait) || PyFloat_CheckExact(wait)) && PyObject_IsTrue(wait) == 0);
}

/* Whether a call is one on one bucket without options. */
static bool throttler_is_plain(const struct throttler *self, PyObject *amount, PyObject *max_wait, PyObject *at_least) {
    return self->n_limits == 1 && (amount == NULL || PyIndex_Check(amount)) && throttler_is_no_wait(max_wait) &&
           (at_least == NULL || at_least == Py_None);
}

PyObject *throttler_consume(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"key", "amount", "max_wait", "at_least", NULL};
    PyObject *given[ARGUMENTS_MAX];
    struct request request = {STEADY__CONSUME, 1};
    if (throttler_read_call("consume() takes key, amount=1, max_wait=0 and at_least=None", names, args, nargs, kwnames,
                            given) != 0)
        return NULL;
    if (throttler_is_plain(self, given[1], given[2], given[3])) {
        if (given[1] != NULL &&
            convert_int(given[1], "amount", -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX, &request.amount) != 0)
            return NULL;
        request.amount = throttler_clamped(self, request.amount);
        return throttler_call(self, request, given[0]);
    }
    const struct call_options how = {.verb = STEADY__CONSUME_ALL, .max_wait = given[2], .at_least = given[3]};
    return throttler_call_with(self, given[0], given[1], &how);
}

PyObject *throttler_reserve(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"key", "amount", "max_wait", "at_least", NULL};
    PyObject *given[ARGUMENTS_MAX];
    if (throttler_read_call("reserve() takes key, amount=1, max_wait=0 and at_least=None", names, args, nargs, kwnames,
                            given) != 0)
        return NULL;
    const struct call_options how = {
        .verb = STEADY__CONSUME_ALL, .max_wait = given[2], .at_least = given[3], .reserve = true};
    return throttler_call_with(self, given[0], given[1], &how);
}

PyObject *throttler_charge(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"key", "amount", NULL};
    PyObject *given[ARGUMENTS_MAX];
    const struct call_options how = {.verb = STEADY__CONSUME_ALL, .kind = STEADY_CHARGE};
    if (throttler_read_call("charge() takes key and amount", names, args, nargs, kwnames, given) != 0) return NULL;
    return throttler_call_with(self, given[0], given[1], &how);
}

PyObject *throttler_peek(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"key", "amount", "max_wait", "at_least", NULL};
    PyObject *given[ARGUMENTS_MAX];
    int64_t amount = 1;
    if (throttler_read_call("peek() takes key, amount=1, max_wait=0 and at_least=None", names, args, nargs, kwnames,
                            given) != 0)
        return NULL;
    if (throttler_is_plain(self, given[1], given[2], given[3])) {
        if (given[1] != NULL && convert_int(given[1], "amount", -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX, &amount) != 0)
            return NULL;
        if (amount == 1) return throttler_call(self, (struct request){STEADY__PEEK, 1}, given[0]);
    }
    const struct call_options how = {.verb = STEADY__PEEK_ALL, .max_wait = given[2], .at_least = given[3]};
    return throttler_call_with(self, given[0], given[1], &how);
}

PyObject *throttler_reset(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"key", NULL};
    PyObject *given[ARGUMENTS_MAX];
    const struct call_options how = {.verb = STEADY__RESET_ALL};
    if (throttler_read_call("reset() takes key", names, args, nargs, kwnames, given) != 0) return NULL;
    if (self->n_limits > 1) return throttler_call_with(self, given[0], NULL, &how);
    return throttler_call(self, (struct request){STEADY__RESET, 0}, given[0]);
}

/* ValueError if the amount can never fit without a surplus. */
static int throttler_check_fits(const struct throttler *self, const struct call *call) {
    const int64_t *amounts = call->parts[0].amounts;
    for (size_t i = 0; i < self->n_limits && !self->options.clamp; i++) {
        if (amounts[i] <= self->limits[i].max_capacity) continue;
        PyErr_Format(PyExc_ValueError, "amount is %lld; it must be at most %lld, the max_capacity",
                     (long long)amounts[i], (long long)self->limits[i].max_capacity);
        if (self->n_limits > 1) convert_say_where("limit %R", PyTuple_GET_ITEM(self->names, (Py_ssize_t)i));
        return -1;
    }
    return 0;
}

/* A place in line: (key, amount, max_wait). An embedded bucket with room is charged at once. */
PyObject *throttler_wait(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"key", "amount", "max_wait", NULL};
    PyObject *given[ARGUMENTS_MAX];
    struct request request = {STEADY__CONSUME, 1};
    if (throttler_read_call("wait() takes key, amount=1 and timeout=None", names, args, nargs, kwnames, given) != 0 ||
        !binding_is_initialized(self))
        return NULL;
    if (self->store != NULL && self->store->embedded != NULL && !self->store->embedded->is_pool &&
        self->n_limits == 1 && given[1] != NULL && PyLong_CheckExact(given[1]) &&
        (request.amount = PyLong_AsLongLong(given[1])) > 0 && request.amount <= self->limits[0].max_capacity) {
        struct steady__terms blockless = {.rate = self->terms.rate};
        blockless.rate.block = 0;
        PyObject *result = throttler_decide_embedded(self, request, given[0], &blockless);
        if (result == NULL || result_is_success(result)) return result;
        Py_DECREF(result);
    }
    PyErr_Clear(); /* the amount does not fit into a long long */
    const struct call_options how = {
        .verb = STEADY__CONSUME_ALL, .max_wait = given[2], .reserve = true, .only_if_wait = true};
    struct call *call = (struct call *)call_on_key(self, given[0], given[1], &how);
    PyObject *answer = call != NULL && throttler_check_fits(self, call) == 0 ? throttler_decide(call) : NULL;
    Py_XDECREF(call);
    return answer;
}

/* ---- For clients of the caller, see _clients.py ---- */

/* The key with its prefix, and the argument of the script. */
static PyObject *throttler_script_arguments(struct throttler *self, PyObject *args) {
    char room[STEADY__KEY_MAX], argument[STEADY__COMMAND_ARGUMENT_MAX];
    struct steady__call call = {.terms = &self->terms};
    PyObject *key = NULL;
    long long amount = 0;
    if (!binding_is_initialized(self) || !PyArg_ParseTuple(args, "OL", &key, &amount)) return NULL;
    if (binding_key(self, key, room, &call.key, &call.key_len) != 0) return NULL;
    call.amount = amount;
    const size_t len = steady__command_argument(argument, &call);
    return Py_BuildValue("(y#y#)", call.key, (Py_ssize_t)call.key_len, argument, (Py_ssize_t)len);
}

/* The EVALSHA command in RESP. */
static PyObject *throttler_encode_evalsha(struct throttler *self, PyObject *args) {
    char room[STEADY__KEY_MAX], out[STEADY__COMMAND_MAX];
    struct steady__call call = {0};
    PyObject *key = NULL;
    long long amount = 0;
    int verb = 0;
    if (!binding_is_initialized(self) || !PyArg_ParseTuple(args, "iOL", &verb, &key, &amount)) return NULL;
    if (binding_key(self, key, room, &call.key, &call.key_len) != 0) return NULL;
    call.verb = (enum steady__verb)verb;
    call.amount = amount;
    call.terms = &self->terms;
    return PyBytes_FromStringAndSize(out, (Py_ssize_t)steady__command_evalsha(out, &call));
}

/* The result for a reply of a script; None if our scripts send no such reply. */
static PyObject *throttler_decode_reply(struct throttler *self, PyObject *args) {
    int64_t values[STEADY__REPLY_MAX];
    int verb = 0;
    long long amount = 0;
    PyObject *reply = NULL;
    steady_result result;
    bool stepped = false;
    if (!binding_is_initialized(self) || !PyArg_ParseTuple(args, "iLO", &verb, &amount, &reply)) return NULL;
    const struct steady__call call = {.verb = (enum steady__verb)verb, .amount = amount, .terms = &self->terms};
    const Py_ssize_t count = convert_reply(reply, values, STEADY__REPLY_MAX);
    if (count < 0 || !steady__command_script_reply(&call, values, (size_t)count, &result, &stepped)) Py_RETURN_NONE;
    throttler_complete(&call, &result);
    tally_plain(&self->tally, call.verb, &result);
    return result_from(self->state, &result, PyTuple_GET_ITEM(self->names, 0));
}

static PyObject *throttler_apply_policy(struct throttler *self, PyObject *args) {
    int error = 0, verb = 0;
    const char *why = NULL;
    PyObject *key = NULL;
    long long amount = 0;
    if (!binding_is_initialized(self) || !PyArg_ParseTuple(args, "iziOL", &error, &why, &verb, &key, &amount))
        return NULL;
    const struct request request = {(enum steady__verb)verb, amount};
    return binding_policy(self, binding_fallback(self), request, key, error, why);
}

/* (verb): the caller of a client no longer waits for the answer. */
static PyObject *throttler_lost(struct throttler *self, PyObject *args) {
    int verb = 0;
    const steady_result lost = {.error = STEADY_CANCELLED};
    if (!binding_is_initialized(self) || !PyArg_ParseTuple(args, "i", &verb)) return NULL;
    tally_plain(&self->tally, (enum steady__verb)verb, &lost);
    Py_RETURN_NONE;
}

static PyObject *throttler_stats(struct throttler *self, PyObject *Py_UNUSED(none)) {
    return binding_is_initialized(self) ? tally_dict(&self->tally, self->names) : NULL;
}

static PyMethodDef methods[] = {
    {"stats", (PyCFunction)throttler_stats, METH_NOARGS, "Returns the counters of this throttler in this process."},
    {"_lost", (PyCFunction)throttler_lost, METH_VARARGS, NULL},
    {"_consume", (PyCFunction)(void (*)(void))throttler_consume, METH_FASTCALL | METH_KEYWORDS,
     "_consume($self, key, amount=1, max_wait=0, at_least=None)\n--\n\nReturns the result if the store is embedded, "
     "otherwise an awaitable of the result."},
    {"_peek", (PyCFunction)(void (*)(void))throttler_peek, METH_FASTCALL | METH_KEYWORDS,
     "_peek($self, key, amount=1, max_wait=0, at_least=None)\n--\n\nReturns as _consume does."},
    {"_reset", (PyCFunction)(void (*)(void))throttler_reset, METH_FASTCALL | METH_KEYWORDS,
     "_reset($self, key)\n--\n\nReturns as _consume does."},
    {"_reserve", (PyCFunction)(void (*)(void))throttler_reserve, METH_FASTCALL | METH_KEYWORDS,
     "_reserve($self, key, amount=1, max_wait=0, at_least=None)\n--\n\nThe same; _reservation of the result holds what "
     "was "
     "taken."},
    {"_charge", (PyCFunction)(void (*)(void))throttler_charge, METH_FASTCALL | METH_KEYWORDS,
     "_charge($self, key, amount=1)\n--\n\nReturns as _consume does."},
    {"_wait", (PyCFunction)(void (*)(void))throttler_wait, METH_FASTCALL | METH_KEYWORDS,
     "_wait($self, key, amount=1, max_wait=0)\n--\n\nThe same as _reserve with only_if_wait. ValueError if the amount "
     "is "
     "over a capacity."},
    {"_script_arguments", (PyCFunction)throttler_script_arguments, METH_VARARGS, NULL},
    {"_encode_evalsha", (PyCFunction)throttler_encode_evalsha, METH_VARARGS, NULL},
    {"_decode_reply", (PyCFunction)throttler_decode_reply, METH_VARARGS, NULL},
    {"_apply_policy", (PyCFunction)throttler_apply_policy, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL}};

/* ---- The type ---- */

static int throttler_check_prefix(PyObject *prefix) {
    Py_ssize_t len = 0;
    const char *text = convert_check_str(prefix, "prefix") == 0 ? convert_utf8(prefix, "prefix", &len) : NULL;
    if (text == NULL) return -1;
    if (len < STEADY__KEY_MAX && strlen(text) == (size_t)len) return 0;
    if (len < STEADY__KEY_MAX)
        PyErr_SetString(PyExc_ValueError, "prefix must not hold a NUL");
    else
        PyErr_Format(PyExc_ValueError, "prefix is %zd bytes long; it must be at most %d", len, STEADY__KEY_MAX - 1);
    return -1;
}

/* The name of a limit: a str in self->names, whose bytes the limit uses. */
static int throttler_read_name(struct throttler *self, size_t at, PyObject *given) {
    char period[48];
    steady_limit *limit = &self->limits[at];
    if (given != Py_None && convert_check_str(given, "the name of a limit") != 0) return -1;
    steady__duration_text(period, sizeof period, limit->drop_recharge);
    PyObject *name = given != Py_None ? Py_NewRef(given) : PyUnicode_FromString(period);
    if (name == NULL) return -1;
    PyTuple_SET_ITEM(self->names, (Py_ssize_t)at, name);
    if ((limit->name = convert_utf8(name, "the name of a limit", &(Py_ssize_t){0})) == NULL) return -1;
    return 0;
}

static int throttler_check_name(const struct throttler *self, size_t at) {
    for (size_t i = 0; i < at; i++)
        if (strcmp(self->limits[i].name, self->limits[at].name) == 0) {
            PyErr_Format(PyExc_ValueError,
                         "limits has two limits with the name %R; give each a name, such as {\"burst\": \"10/second\"}",
                         PyTuple_GET_ITEM(self->names, (Py_ssize_t)at));
            return -1;
        }
    return 0;
}

/* (name or None, max_capacity, drop_recharge, block_duration or None, drops) */
static int throttler_read_limit(struct throttler *self, size_t at, PyObject *spec) {
    PyObject *name, *capacity, *recharge, *block, *drops;
    steady_message why = {.text = ""};
    struct steady__rate rate;
    steady_limit *limit = &self->limits[at];
    if (!PyArg_ParseTuple(spec, "OOOOO", &name, &capacity, &recharge, &block, &drops)) return -1;
    if (convert_int(capacity, "max_capacity", 1, STEADY__CAPACITY_MAX, &limit->max_capacity) != 0 ||
        convert_seconds(recharge, "drop_recharge", 1, &limit->drop_recharge) != 0 ||
        convert_int(drops, "drops", 1, STEADY__DROPS_MAX, &limit->drops) != 0 ||
        (block != Py_None && convert_seconds(block, "block_duration", 0, &limit->block_duration) != 0))
        return -1;
    if (throttler_read_name(self, at, name) != 0) return -1;
    const int error = steady__limit_rate(&rate, limit, &why);
    if (error != 0) convert_raise(self->state, error, why.text);
    if (at > 0 || error != 0) return error;
    self->terms.rate = rate;
    self->max_capacity = Py_NewRef(capacity);
    self->drop_recharge = Py_NewRef(recharge);
    self->block_duration = Py_NewRef(block);
    return 0;
}

static void throttler_say_which_limit(PyObject *spec, Py_ssize_t at, Py_ssize_t count) {
    if (!PyTuple_Check(spec) || PyTuple_GET_SIZE(spec) == 0) return;
    PyObject *name = PyTuple_GET_ITEM(spec, 0);
    if (name != Py_None)
        convert_say_where("limits[%.100R]", name);
    else if (count > 1)
        convert_say_where("limits[%zd]", at);
}

static int throttler_read_limits(struct throttler *self, PyObject *specs) {
    const Py_ssize_t count = PyTuple_GET_SIZE(specs);
    if (count < 1 || count > STEADY__PARTS_MAX) {
        PyErr_Format(PyExc_ValueError, "limits has %zd limits; it must have 1 .. %d", count, STEADY__PARTS_MAX);
        return -1;
    }
    self->names = PyTuple_New(count);
    self->limits = PyMem_Calloc((size_t)count, sizeof *self->limits);
    self->n_limits = (size_t)count;
    if (self->limits == NULL) PyErr_NoMemory();
    if (self->names == NULL || self->limits == NULL) return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *spec = PyTuple_GET_ITEM(specs, i);
        if (throttler_read_limit(self, (size_t)i, spec) != 0) {
            throttler_say_which_limit(spec, i, count);
            return -1;
        }
        if (throttler_check_name(self, (size_t)i) != 0) return -1;
    }
    return 0;
}

/* To the library, 0 is no bound. To a reader it says that no caller may wait. */
static int throttler_read_max_ahead(struct throttler *self, PyObject *given) {
    if (given == Py_None) return 0;
    if (convert_wait(given, "max_ahead", &self->options.max_ahead) != 0) return -1;
    if (self->options.max_ahead > 0) return 0;
    PyErr_Format(PyExc_ValueError, "max_ahead is %.50R s; it must be 0.000001 or more, or None for no bound", given);
    return -1;
}

/* (redis, target, limits, prefix, on_error, local_share, max_ahead, clamp). `target` is a Store or an Adapter. */
static int throttler_init(struct throttler *self, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    static const char *const policies[] = {"report", "deny", "allow", "local", NULL};
    PyObject *redis = NULL, *target = NULL, *limits = NULL, *prefix = NULL, *share = NULL, *on_error = NULL;
    PyObject *max_ahead = NULL, *clamp = NULL;
    int64_t shares = 0;
    int policy = 0;
    if (self->redis != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Throttler.__init__ must be called only once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OOO!OOOOO:Throttler", &redis, &target, &PyTuple_Type, &limits, &prefix, &on_error,
                          &share, &max_ahead, &clamp) ||
        throttler_check_prefix(prefix) != 0 || convert_int(share, "local_share", 1, UINT32_MAX, &shares) != 0 ||
        (policy = convert_choice(on_error, "on_error", policies)) < 0 || throttler_read_max_ahead(self, max_ahead) != 0)
        return -1;
    if (!PyBool_Check(clamp)) {
        PyErr_Format(PyExc_TypeError, "clamp must be a bool, not %.100s", Py_TYPE(clamp)->tp_name);
        return -1;
    }
    self->options.on_error = (enum steady_policy)policy;
    self->options.local_share = (uint32_t)shares;
    self->options.clamp = clamp == Py_True;
    self->redis = Py_NewRef(redis);
    self->prefix = Py_NewRef(prefix);
    if (throttler_read_limits(self, limits) != 0 || tally_init(&self->tally, self->state, self->n_limits) != 0)
        return -1;
    if (PyObject_TypeCheck(target, self->state->store_type)) {
        self->store = (struct store *)Py_NewRef(target);
        store_enter_process(self->store);
    } else {
        steady__command_encode_limit(&self->terms);
        self->client = Py_NewRef(target);
    }
    return 0;
}

static PyObject *throttler_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs)) {
    struct throttler *self = (struct throttler *)type->tp_alloc(type, 0);
    if (self != NULL) self->state = state_of(type);
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
    Py_VISIT(self->client);
    for (size_t i = 0; i < self->count; i++)
        Py_VISIT(self->bindings[i].store);
    return 0;
}

static int throttler_clear(struct throttler *self) {
    binding_clear(self);
    Py_CLEAR(self->redis);
    Py_CLEAR(self->max_capacity);
    Py_CLEAR(self->drop_recharge);
    Py_CLEAR(self->block_duration);
    Py_CLEAR(self->prefix);
    Py_CLEAR(self->store);
    Py_CLEAR(self->client);
    return 0;
}

static void throttler_dealloc(struct throttler *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    throttler_clear(self);
    Py_XDECREF(self->names);
    PyMem_Free(self->limits);
    tally_free(&self->tally);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"redis", T_OBJECT_EX, offsetof(struct throttler, redis), READONLY, "The URL, Store or client that was given."},
    {"max_capacity", T_OBJECT_EX, offsetof(struct throttler, max_capacity), READONLY,
     "The drops that a bucket can hold."},
    {"drop_recharge", T_OBJECT_EX, offsetof(struct throttler, drop_recharge), READONLY,
     "The seconds in which `drops` drops leak."},
    {"block_duration", T_OBJECT_EX, offsetof(struct throttler, block_duration), READONLY,
     "The seconds for which an overflow blocks its key; None if it does not."},
    {"_clamp", T_BOOL, offsetof(struct throttler, options.clamp), READONLY, NULL},
    {"_names", T_OBJECT_EX, offsetof(struct throttler, names), READONLY, NULL},
    {"prefix", T_OBJECT_EX, offsetof(struct throttler, prefix), READONLY, "The text before every key."},
    {NULL, 0, 0, 0, NULL}};

static PyObject *throttler_get_drops(struct throttler *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(self->limits != NULL ? self->limits[0].drops : 0);
}

/* (name, max_capacity, drop_recharge, block_duration, drops) of each limit; times in microseconds. */
static PyObject *throttler_get_limits(struct throttler *self, void *Py_UNUSED(closure)) {
    PyObject *limits = PyTuple_New((Py_ssize_t)self->n_limits);
    for (size_t i = 0; limits != NULL && i < self->n_limits; i++) {
        const steady_limit *from = &self->limits[i];
        PyObject *limit =
            Py_BuildValue("OLLLL", PyTuple_GET_ITEM(self->names, (Py_ssize_t)i), (long long)from->max_capacity,
                          (long long)from->drop_recharge, (long long)from->block_duration, (long long)from->drops);
        if (limit == NULL)
            Py_CLEAR(limits);
        else
            PyTuple_SET_ITEM(limits, (Py_ssize_t)i, limit);
    }
    return limits;
}

/* The Store, or the Adapter of the client. */
static PyObject *throttler_get_target(struct throttler *self, void *Py_UNUSED(closure)) {
    PyObject *target = self->store != NULL ? (PyObject *)self->store : self->client;
    return Py_NewRef(target != NULL ? target : Py_None);
}

static PyGetSetDef getters[] = {
    {"_limits", (getter)throttler_get_limits, NULL, NULL, NULL},
    {"_target", (getter)throttler_get_target, NULL, NULL, NULL},
    {"drops", (getter)throttler_get_drops, NULL, "The drops that leak in drop_recharge seconds.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot slots[] = {{Py_tp_new, throttler_new},
                              {Py_tp_init, throttler_init},
                              {Py_tp_traverse, throttler_traverse},
                              {Py_tp_clear, throttler_clear},
                              {Py_tp_dealloc, throttler_dealloc},
                              {Py_tp_methods, methods},
                              {Py_tp_members, members},
                              {Py_tp_getset, getters},
                              {0, NULL}};

PyType_Spec throttler_spec = {"aiosteady._core.Throttler", sizeof(struct throttler), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
                              slots};
