/* SPDX-License-Identifier: MIT
 * Throttler: the base, in C, of the class in leakybucket.py. Every call passes through here. */
#include "throttler.h"

#include <stddef.h>

#include "binding.h"
#include "convert.h"
#include "decision.h"
#include "result.h"
#include "src/conn/reply.h"
#include "src/core/limit.h"
#include "src/redis/command.h"

/* ---- Deciding ---- */

/* An embedded store always answers, so no policy and no steady_throttler is needed. */
static PyObject *throttler_decide_embedded(struct throttler *self, struct request request, PyObject *key) {
    char room[STEADY__KEY_MAX];
    steady_result result;
    steady_store *store = self->store->embedded->store;
    struct steady__call call = {.verb = request.verb,
                                .amount = request.amount,
                                .terms = request.no_block ? &self->blockless_terms : &self->terms};
    if (store == NULL) return convert_raise(self->state, STEADY_CLOSED, NULL);
    if (binding_key(self, key, room, &call.key, &call.key_len) != 0) return NULL;
    store->class_->decide(store, &call, &result);
    return result_from(self->state, &result);
}

/* __init__ sets `store` or `ask_client` last. Without it: false and a RuntimeError. */
static bool throttler_is_initialized(const struct throttler *self) {
    if (self->store != NULL || self->ask_client != NULL) return true;
    PyErr_SetString(PyExc_RuntimeError, "Throttler.__init__ was not called, or it failed");
    return false;
}

/* Returns the result if the store is embedded, otherwise an awaitable of it. */
static PyObject *throttler_call(struct throttler *self, struct request request, PyObject *key) {
    const char *bytes = NULL;
    Py_ssize_t len = 0;
    if (!throttler_is_initialized(self)) return NULL;
    if (self->store != NULL && self->store->embedded != NULL) return throttler_decide_embedded(self, request, key);
    if (convert_key(key, &bytes, &len) != 0) return NULL;
    if (self->ask_client == NULL) return decision_new(self, request, key);
    return PyObject_CallFunction(self->ask_client, "OiOLi", self, (int)request.verb, key, (long long)request.amount,
                                 (int)request.no_block);
}

/* Reads (key, amount=1), or (key) if most is 1. The references are borrowed. */
static int throttler_read_call(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int most,
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

static PyObject *throttler_consume_amount(struct throttler *self, PyObject *const *args, Py_ssize_t nargs,
                                          PyObject *kwnames, struct request request) {
    PyObject *key = NULL, *amount = NULL;
    if (throttler_read_call("consume", args, nargs, kwnames, 2, &key, &amount) != 0) return NULL;
    if (amount != NULL && convert_int(amount, "amount", -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX, &request.amount) != 0)
        return NULL;
    return throttler_call(self, request, key);
}

static PyObject *throttler_consume(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    return throttler_consume_amount(self, args, nargs, kwnames, (struct request){STEADY__CONSUME, false, 1});
}

static PyObject *throttler_consume_without_block(struct throttler *self, PyObject *const *args, Py_ssize_t nargs,
                                                 PyObject *kwnames) {
    return throttler_consume_amount(self, args, nargs, kwnames, (struct request){STEADY__CONSUME, true, 1});
}

static PyObject *throttler_peek(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *key = NULL;
    if (throttler_read_call("peek", args, nargs, kwnames, 1, &key, NULL) != 0) return NULL;
    return throttler_call(self, (struct request){STEADY__PEEK, false, 1}, key);
}

static PyObject *throttler_reset(struct throttler *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    PyObject *key = NULL;
    if (throttler_read_call("reset", args, nargs, kwnames, 1, &key, NULL) != 0) return NULL;
    return throttler_call(self, (struct request){STEADY__RESET, false, 0}, key);
}

/* For wait(): the amount as an int. ValueError if it can never fit. */
static PyObject *throttler_check_amount(struct throttler *self, PyObject *args) {
    PyObject *key = NULL, *given = NULL;
    const char *bytes = NULL;
    Py_ssize_t len = 0;
    int64_t amount = 0;
    if (!throttler_is_initialized(self) || !PyArg_ParseTuple(args, "OO", &key, &given) ||
        convert_key(key, &bytes, &len) != 0 ||
        convert_int(given, "amount", -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX, &amount) != 0)
        return NULL;
    if (amount <= self->limit.max_capacity) return PyLong_FromLongLong(amount);
    PyErr_Format(PyExc_ValueError, "amount is %lld; it must be at most %lld, the max_capacity", (long long)amount,
                 (long long)self->limit.max_capacity);
    return NULL;
}

/* ---- For clients of the caller, see _clients.py ---- */

/* The key with its prefix, and the arguments of the script. */
static PyObject *throttler_script_arguments(struct throttler *self, PyObject *args) {
    char room[STEADY__KEY_MAX], first[80], second[48];
    const char *bytes = NULL;
    size_t len = 0;
    PyObject *key = NULL;
    long long amount = 0;
    int no_block = 0;
    const struct steady__rate *rate = &self->terms.rate;
    if (!throttler_is_initialized(self) || !PyArg_ParseTuple(args, "OLp", &key, &amount, &no_block)) return NULL;
    if (binding_key(self, key, room, &bytes, &len) != 0) return NULL;
    const long long block = no_block ? 0 : (long long)rate->block;
    PyOS_snprintf(first, sizeof first, "%lld %lld %lld", (long long)rate->capacity, (long long)rate->recharge, amount);
    if (rate->drops == 1 && block == 0) return Py_BuildValue("(y#s)", bytes, (Py_ssize_t)len, first);
    PyOS_snprintf(second, sizeof second, "%lld %lld", (long long)rate->drops, block);
    return Py_BuildValue("(y#ss)", bytes, (Py_ssize_t)len, first, second);
}

/* The EVALSHA command in RESP. */
static PyObject *throttler_encode_evalsha(struct throttler *self, PyObject *args) {
    char room[STEADY__KEY_MAX], out[STEADY__COMMAND_MAX];
    struct steady__call call = {0};
    PyObject *key = NULL;
    long long amount = 0;
    int verb = 0, no_block = 0;
    if (!throttler_is_initialized(self) || !PyArg_ParseTuple(args, "iOLp", &verb, &key, &amount, &no_block))
        return NULL;
    if (binding_key(self, key, room, &call.key, &call.key_len) != 0) return NULL;
    call.verb = (enum steady__verb)verb;
    call.amount = amount;
    call.terms = no_block ? &self->blockless_terms : &self->terms;
    return PyBytes_FromStringAndSize(out, (Py_ssize_t)steady__command_evalsha(out, &call));
}

/* The number of integers in a reply; -1 if our scripts send no such reply. */
static Py_ssize_t throttler_read_reply(PyObject *reply, int64_t *values) {
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

/* The result for a reply of a script; None if our scripts send no such reply. */
static PyObject *throttler_decode_reply(struct throttler *self, PyObject *args) {
    int64_t values[STEADY__REPLY_MAX];
    int verb = 0;
    long long amount = 0;
    PyObject *reply = NULL;
    steady_result result;
    bool stepped = false;
    if (!throttler_is_initialized(self) || !PyArg_ParseTuple(args, "iLO", &verb, &amount, &reply)) return NULL;
    const struct steady__call call = {.verb = (enum steady__verb)verb, .amount = amount, .terms = &self->terms};
    const Py_ssize_t count = throttler_read_reply(reply, values);
    if (count < 0 || !steady__command_script_reply(&call, values, (size_t)count, &result, &stepped)) Py_RETURN_NONE;
    return result_from(self->state, &result);
}

static PyObject *throttler_apply_policy(struct throttler *self, PyObject *args) {
    int error = 0, verb = 0, no_block = 0;
    const char *why = NULL;
    PyObject *key = NULL;
    long long amount = 0;
    if (!throttler_is_initialized(self) ||
        !PyArg_ParseTuple(args, "iziOLp", &error, &why, &verb, &key, &amount, &no_block))
        return NULL;
    const struct request request = {(enum steady__verb)verb, no_block != 0, amount};
    return binding_policy(self, binding_fallback(self, request), request, key, error, why);
}

static PyMethodDef methods[] = {
    {"_consume", (PyCFunction)(void (*)(void))throttler_consume, METH_FASTCALL | METH_KEYWORDS,
     "_consume($self, key, amount=1)\n--\n\nReturns the result if the store is embedded, otherwise an awaitable of the "
     "result."},
    {"_peek", (PyCFunction)(void (*)(void))throttler_peek, METH_FASTCALL | METH_KEYWORDS,
     "_peek($self, key)\n--\n\nReturns as _consume does."},
    {"_reset", (PyCFunction)(void (*)(void))throttler_reset, METH_FASTCALL | METH_KEYWORDS,
     "_reset($self, key)\n--\n\nReturns as _consume does."},
    {"_consume_without_block", (PyCFunction)(void (*)(void))throttler_consume_without_block,
     METH_FASTCALL | METH_KEYWORDS,
     "_consume_without_block($self, key, amount=1)\n--\n\nDoes the same as _consume, but never starts a block."},
    {"_check_amount", (PyCFunction)throttler_check_amount, METH_VARARGS, NULL},
    {"_script_arguments", (PyCFunction)throttler_script_arguments, METH_VARARGS, NULL},
    {"_encode_evalsha", (PyCFunction)throttler_encode_evalsha, METH_VARARGS, NULL},
    {"_decode_reply", (PyCFunction)throttler_decode_reply, METH_VARARGS, NULL},
    {"_apply_policy", (PyCFunction)throttler_apply_policy, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL}};

/* ---- The type ---- */

static int throttler_check_prefix(PyObject *prefix) {
    Py_ssize_t len = 0;
    if (convert_check_str(prefix, "prefix") != 0 || convert_utf8(prefix, "prefix", &len) == NULL) return -1;
    if (len < STEADY__KEY_MAX) return 0;
    PyErr_Format(PyExc_ValueError, "prefix is %zd bytes long; it must be at most %d", len, STEADY__KEY_MAX - 1);
    return -1;
}

static int throttler_read_limit(struct throttler *self, int64_t drops) {
    steady_message why = {.text = ""};
    steady_limit *limit = &self->limit;
    if (convert_int(self->max_capacity, "max_capacity", 1, STEADY__CAPACITY_MAX, &limit->max_capacity) != 0 ||
        convert_seconds(self->drop_recharge, "drop_recharge", &limit->drop_recharge) != 0)
        return -1;
    if (self->block_duration != Py_None &&
        convert_seconds(self->block_duration, "block_duration", &limit->block_duration))
        return -1;
    if (limit->drop_recharge < 1) {
        PyErr_Format(PyExc_ValueError, "drop_recharge is %.50R s; it must be 0.000001 .. 9007199254 s",
                     self->drop_recharge);
        return -1;
    }
    limit->drops = drops;
    const int error = steady__limit_rate(&self->terms.rate, limit, &why);
    if (error != 0) convert_raise(self->state, error, why.text);
    self->blockless_terms = self->terms;
    self->blockless_terms.rate.block = 0;
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
        PyErr_SetString(PyExc_RuntimeError, "Throttler.__init__ must be called only once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOOO:Throttler", names, &redis, &target, &given[0], &given[1],
                                     &given[2], &drops, &prefix, &on_error, &share) ||
        throttler_check_prefix(prefix) != 0 || convert_int(drops, "drops", 1, STEADY__DROPS_MAX, &count) != 0 ||
        convert_int(share, "local_share", 1, UINT32_MAX, &shares) != 0 ||
        (policy = convert_choice(on_error, "on_error", policies)) < 0)
        return -1;
    self->options.on_error = (enum steady_policy)policy;
    self->options.local_share = (uint32_t)shares;
    self->redis = Py_NewRef(redis);
    self->max_capacity = Py_NewRef(given[0]);
    self->drop_recharge = Py_NewRef(given[1]);
    self->block_duration = Py_NewRef(given[2]);
    self->prefix = Py_NewRef(prefix);
    if (throttler_read_limit(self, count) != 0) return -1;
    if (PyObject_TypeCheck(target, self->state->store_type)) {
        self->store = (struct store *)Py_NewRef(target);
    } else {
        steady__command_encode_limit(&self->terms);
        steady__command_encode_limit(&self->blockless_terms);
        self->ask_client = Py_NewRef(target);
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
    Py_VISIT(self->ask_client);
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
    Py_CLEAR(self->ask_client);
    return 0;
}

static void throttler_dealloc(struct throttler *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    throttler_clear(self);
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
    {"drops", T_LONGLONG, offsetof(struct throttler, limit.drops), READONLY,
     "The drops that leak in drop_recharge seconds."},
    {"_recharge_us", T_LONGLONG, offsetof(struct throttler, limit.drop_recharge), READONLY, NULL},
    {"_local_share", T_UINT, offsetof(struct throttler, options.local_share), READONLY, NULL},
    {"prefix", T_OBJECT_EX, offsetof(struct throttler, prefix), READONLY, "The text before every key."},
    {NULL, 0, 0, 0, NULL}};

static PyType_Slot slots[] = {{Py_tp_new, throttler_new},
                              {Py_tp_init, throttler_init},
                              {Py_tp_traverse, throttler_traverse},
                              {Py_tp_clear, throttler_clear},
                              {Py_tp_dealloc, throttler_dealloc},
                              {Py_tp_methods, methods},
                              {Py_tp_members, members},
                              {0, NULL}};

PyType_Spec throttler_spec = {"aiosteady._core.Throttler", sizeof(struct throttler), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
                              slots};
