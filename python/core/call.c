/* SPDX-License-Identifier: MIT
 * Call: a decision on several buckets, or on one with options; or the settling of a reservation.
 *
 * For code that sends calls over a client of the caller, or blocks (see _core.pyi):
 *
 *     call = Call(verb, parts, max_wait, at_least, reserve), or Call.settle(throttler, reservation, actual)
 *     decide(call)               the result if the store is embedded, otherwise an awaitable of it
 *     call.keys()                the keys as stored, for the node of a cluster
 *     call.encode()              the EVALSHA command in RESP
 *     call.words()               what follows EVALSHA SHA1, or EVAL TEXT: numkeys, keys, arguments
 *     scripts[call.verb]         (SHA1, text)
 *     call.gives_back            do not cancel it: it reserves, so use call.give_back(reservation) instead, or settles
 *     call.redact(text, of_server)  a text for an exception, without the keys
 *     call.decode(reply)         the result, or None if our scripts send no such reply
 *     call.apply_policy(e, why)  the answer of the policy to an error; raises the error if there is none
 *
 * The last four belong to one attempt: encode or words first, then decode or apply_policy, and each of these at most
 * once. The library does the work: the call is submitted to a store that decides nothing, see capture.h. */
#include "call.h"

#include <stddef.h>

#include "capture.h"
#include "convert.h"
#include "local.h"
#include "reservation.h"
#include "result.h"
#include "src/policy.h"
#include "src/redis/command.h"
#include "sync.h"

#define VALUES_MAX (2 + 3 * STEADY__PARTS_MAX) /* the longest reply of a script */

/* ---- Making: amounts ---- */

static int call_read_amount(PyObject *given, int64_t least, int64_t *amount) {
    return convert_int(given, "amount", least, STEADY__AMOUNT_MAX, amount);
}

static int call_wrong_count(const struct throttler *t, Py_ssize_t count) {
    PyErr_Format(PyExc_ValueError, "amount has %zd numbers; the throttler has %zd limits: %R", count,
                 (Py_ssize_t)t->n_limits, t->names);
    return -1;
}

/* An __index__ may change a list, so a tuple of it is read. */
static int call_read_sequence(const struct throttler *t, PyObject *given, int64_t least, int64_t *amounts) {
    PyObject *numbers = PySequence_Tuple(given);
    if (numbers == NULL) return -1;
    const Py_ssize_t count = PyTuple_GET_SIZE(numbers);
    int error = count == (Py_ssize_t)t->n_limits ? 0 : t->n_limits > 1 ? call_wrong_count(t, count) : -1;
    if (error != 0 && t->n_limits == 1)
        PyErr_Format(PyExc_TypeError, "amount must be an int, not %.100s", Py_TYPE(given)->tp_name);
    for (Py_ssize_t i = 0; error == 0 && i < count; i++)
        error = call_read_amount(PyTuple_GET_ITEM(numbers, i), least, &amounts[i]);
    Py_DECREF(numbers);
    return error;
}

static int call_check_names(const struct throttler *t, PyObject *given) {
    PyObject *keys = PyMapping_Keys(given);
    int error = keys != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; error == 0 && i < PyList_GET_SIZE(keys); i++) {
        const int known = PySequence_Contains(t->names, PyList_GET_ITEM(keys, i));
        if (known == 0)
            PyErr_Format(PyExc_ValueError, "amount names %.100R; the limits are %R", PyList_GET_ITEM(keys, i),
                         t->names);
        error = known == 1 ? 0 : -1;
    }
    Py_XDECREF(keys);
    return error;
}

static int call_read_mapping(const struct throttler *t, PyObject *given, int64_t least, int64_t *amounts) {
    if (call_check_names(t, given) != 0) return -1;
    for (size_t i = 0; i < t->n_limits; i++) {
        PyObject *name = PyTuple_GET_ITEM(t->names, (Py_ssize_t)i), *number = PyObject_GetItem(given, name);
        if (number == NULL && PyErr_ExceptionMatches(PyExc_KeyError)) {
            PyErr_Clear();
            PyErr_Format(PyExc_ValueError, "amount lacks %R; give each limit its amount, or 0 to leave it alone", name);
        }
        const int error = number != NULL ? call_read_amount(number, least, &amounts[i]) : -1;
        Py_XDECREF(number);
        if (error != 0) return -1;
    }
    return 0;
}

/* Each amount must be `least` or more. */
static int call_read_amounts(const struct throttler *t, PyObject *given, int64_t least, int64_t *amounts) {
    if (given != NULL && (PyTuple_Check(given) || PyList_Check(given)))
        return call_read_sequence(t, given, least, amounts);
    const int mapping = given != NULL ? convert_is_mapping(given) : 0;
    if (mapping != 0) return mapping > 0 ? call_read_mapping(t, given, least, amounts) : -1;
    int64_t amount = 1;
    if (given != NULL && call_read_amount(given, least, &amount) != 0) return -1;
    for (size_t i = 0; i < t->n_limits; i++)
        amounts[i] = amount;
    return 0;
}

/* ---- Making: options ---- */

static int call_read_options(struct call *self, const struct call_options *options) {
    self->verb = options->verb;
    self->reserve = options->reserve;
    self->only_if_wait = options->only_if_wait;
    if (options->max_wait != NULL && convert_wait(options->max_wait, "max_wait", &self->max_wait) != 0) return -1;
    if (options->at_least == NULL || options->at_least == Py_None) return 0;
    return convert_int(options->at_least, "at_least", 1, STEADY__AMOUNT_MAX, &self->at_least);
}

static struct call *call_alloc(struct core_state *state, Py_ssize_t n, size_t amounts) {
    struct call *self = PyObject_GC_New(struct call, state->call_type);
    if (self == NULL) return NULL;
    const size_t head = offsetof(struct call, state);
    memset((char *)self + head, 0, sizeof *self - head);
    self->state = state;
    self->parts = PyMem_Calloc((size_t)n, sizeof *self->parts);
    self->amounts = PyMem_Calloc(amounts, sizeof *self->amounts);
    PyObject_GC_Track((PyObject *)self);
    if (self->parts != NULL && self->amounts != NULL) return self;
    PyErr_NoMemory();
    Py_DECREF(self);
    return NULL;
}

static int call_check_key(const struct throttler *t, PyObject *key) {
    char room[STEADY__KEY_MAX];
    const char *bytes = NULL;
    size_t len = 0;
    Py_ssize_t key_len = 0;
    return t->n_limits == 1 ? binding_key(t, key, room, &bytes, &len) : convert_key(key, &bytes, &key_len);
}

/* Adds a part. The amounts of the parts follow each other in self->amounts. */
static int call_add(struct call *self, struct throttler *t, PyObject *key, PyObject *amount, enum steady_kind kind) {
    struct call_part *part = &self->parts[self->n];
    int64_t *amounts = self->amounts;
    /* A drain has no place in line, and cannot be settled. */
    const int64_t least = kind == STEADY_TAKE && !self->reserve ? -STEADY__AMOUNT_MAX : 0;
    if (!binding_is_initialized(t)) return -1;
    for (Py_ssize_t i = 0; i < self->n; i++)
        amounts += self->parts[i].throttler->n_limits;
    if (call_check_key(t, key) != 0 || call_read_amounts(t, amount, least, amounts) != 0) return -1;
    *part = (struct call_part){(struct throttler *)Py_NewRef((PyObject *)t), Py_NewRef(key), kind, amounts};
    self->n++;
    return 0;
}

PyObject *call_on_key(struct throttler *throttler, PyObject *key, PyObject *amount,
                      const struct call_options *options) {
    struct call *self = call_alloc(throttler->state, 1, throttler->n_limits);
    if (self != NULL &&
        (call_read_options(self, options) != 0 || call_add(self, throttler, key, amount, options->kind) != 0))
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* ---- Making: from Python ---- */

/* (throttler, key, amount, kind) */
static int call_add_from(struct call *self, PyObject *item, Py_ssize_t at) {
    static const char *const kinds[] = {"take", "look", "charge", "shadow", NULL};
    PyObject *throttler = NULL, *key = NULL, *amount = NULL, *kind_name = NULL;
    if (!PyArg_ParseTuple(item, "O!OOO", self->state->throttler_type, &throttler, &key, &amount, &kind_name)) return -1;
    const int kind = convert_choice(kind_name, "kind", kinds);
    struct throttler *t = (struct throttler *)throttler;
    if (kind < 0 || call_add(self, t, key, amount, (enum steady_kind)kind) != 0) {
        convert_say_where("parts[%zd]", at);
        return -1;
    }
    const struct throttler *first = self->parts[0].throttler;
    if (t->store == first->store && t->client == first->client) return 0;
    PyErr_Format(PyExc_ValueError, "parts[%zd] has another store than parts[0]; make both throttlers with one Store",
                 at);
    return -1;
}

/* The number of limits of all throttlers in `parts`; 0 and an exception if it is no valid number. */
static size_t call_count_limits(struct core_state *state, PyObject *parts) {
    size_t count = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parts); i++) {
        PyObject *item = PyTuple_GET_ITEM(parts, i);
        PyObject *t = PyTuple_Check(item) && PyTuple_GET_SIZE(item) == 4 ? PyTuple_GET_ITEM(item, 0) : NULL;
        if (t == NULL || !PyObject_TypeCheck(t, state->throttler_type)) {
            PyErr_Format(PyExc_TypeError, "parts[%zd] must have a Throttler, a key, an amount and a kind", i);
            return 0;
        }
        count += ((struct throttler *)t)->n_limits;
    }
    if (count > 0 && count <= STEADY__PARTS_MAX) return count;
    PyErr_Format(PyExc_ValueError, "parts have %zu limits together; they must have 1 .. %d", count, STEADY__PARTS_MAX);
    return 0;
}

static PyObject *call_make(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"verb", "parts", "max_wait", "at_least", "reserve", NULL};
    struct core_state *state = state_of(type);
    struct call_options options = {.verb = STEADY__CONSUME_ALL};
    PyObject *parts = NULL;
    int verb = 0, reserve = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iO!|OOp:Call", names, &verb, &PyTuple_Type, &parts,
                                     &options.max_wait, &options.at_least, &reserve))
        return NULL;
    if (verb != STEADY__CONSUME_ALL && verb != STEADY__PEEK_ALL)
        return PyErr_Format(PyExc_ValueError, "verb must be CONSUME_ALL or PEEK_ALL");
    options.verb = (enum steady__verb)verb;
    options.reserve = reserve != 0;
    const size_t limits = call_count_limits(state, parts);
    struct call *self = limits > 0 ? call_alloc(state, PyTuple_GET_SIZE(parts), limits) : NULL;
    if (self != NULL && call_read_options(self, &options) != 0) Py_CLEAR(self);
    for (Py_ssize_t i = 0; self != NULL && i < PyTuple_GET_SIZE(parts); i++)
        if (call_add_from(self, PyTuple_GET_ITEM(parts, i), i) != 0) Py_CLEAR(self);
    return (PyObject *)self;
}

/* (throttler, reservation, actual) */
static PyObject *call_settle(PyObject *type, PyObject *args) {
    struct core_state *state = state_of((PyTypeObject *)type);
    PyObject *throttler = NULL, *reservation = NULL, *actual = NULL;
    if (!PyArg_ParseTuple(args, "O!OO", state->throttler_type, &throttler, &reservation, &actual) ||
        !binding_is_initialized((struct throttler *)throttler))
        return NULL;
    const steady_reservation *of = reservation_of(state, reservation);
    struct call *self = of != NULL ? call_alloc(state, 1, STEADY__PARTS_MAX) : NULL;
    if (self == NULL) return NULL;
    self->verb = STEADY__SETTLE;
    self->reservation = Py_NewRef(reservation);
    self->actuals = self->amounts;
    self->parts[self->n++].throttler = (struct throttler *)Py_NewRef(throttler);
    if (reservation_read_actual(of, actual, self->actuals) != 0) Py_CLEAR(self);
    return (PyObject *)self;
}

/* (reservation, actual=None): a call that settles what this one has reserved; None: with 0. */
static PyObject *call_give_back(struct call *self, PyObject *args) {
    PyObject *reservation = NULL, *actual = Py_None;
    if (!PyArg_ParseTuple(args, "O|O", &reservation, &actual)) return NULL;
    const steady_reservation *of = reservation_of(self->state, reservation);
    struct call *back = of != NULL ? call_alloc(self->state, self->n, STEADY__PARTS_MAX) : NULL;
    if (back == NULL) return NULL;
    back->verb = STEADY__SETTLE;
    back->reservation = Py_NewRef(reservation);
    back->actuals = back->amounts;
    if (reservation_read_actual(of, actual, back->actuals) != 0) Py_CLEAR(back);
    for (; back != NULL && back->n < self->n; back->n++)
        back->parts[back->n].throttler = (struct throttler *)Py_NewRef((PyObject *)self->parts[back->n].throttler);
    return (PyObject *)back;
}

/* ---- Asking the library ---- */

/* The steady_throttlers of the parts, in the same order. */
typedef steady_throttler *steady_throttlers[STEADY__PARTS_MAX];

/* The bytes of the keys belong to the key objects. Nothing here runs Python code: the keys were checked. */
static int call_fill_parts(const struct call *self, const steady_throttlers throttlers, steady_part *parts) {
    for (Py_ssize_t i = 0; i < self->n; i++) {
        const char *key = NULL;
        Py_ssize_t len = 0;
        if (convert_key(self->parts[i].key, &key, &len) != 0) return -1;
        parts[i] = (steady_part){.throttler = throttlers[i],
                                 .key = key,
                                 .key_len = (size_t)len,
                                 .amounts = self->parts[i].amounts,
                                 .kind = self->parts[i].kind};
    }
    return 0;
}

static steady_settlement call_settlement(const struct call *self, const steady_throttlers throttlers,
                                         steady_store *store, steady_message *why) {
    return (steady_settlement){.reservation = reservation_of(self->state, self->reservation),
                               .actuals = self->actuals,
                               .throttlers = throttlers,
                               .n_throttlers = (size_t)self->n,
                               .store = store,
                               .why = why};
}

static steady_how call_how(const struct call *self, steady_message *why) {
    return (steady_how){.max_wait = self->max_wait, .at_least = self->at_least, .reserve = self->reserve, .why = why};
}

/* STEADY_NO_MEMORY also stands for an exception. */
static int call_submit_on(const struct call *self, const steady_throttlers throttlers, steady_store *store,
                          steady_callback callback, void *data, uint64_t *id, steady_message *why) {
    steady_part parts[STEADY__PARTS_MAX];
    const steady_how how = call_how(self, why);
    if (self->verb == STEADY__SETTLE) {
        const steady_settlement settlement = call_settlement(self, throttlers, store, why);
        return steady_settle(&settlement, callback, data, id);
    }
    if (call_fill_parts(self, throttlers, parts) != 0) return STEADY_NO_MEMORY;
    if (self->verb == STEADY__CONSUME_ALL) return steady_consume_all(parts, (size_t)self->n, &how, callback, data, id);
    if (self->verb == STEADY__PEEK_ALL) return steady_peek_all(parts, (size_t)self->n, &how, callback, data, id);
    const steady_call reset = {.verb = STEADY_RESET, .key = parts[0].key, .key_len = parts[0].key_len};
    /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): a call has a part, so parts[0] is filled */
    return steady_decide(parts[0].throttler, &reset, callback, data, id);
}

bool call_gives_back(const struct call *self) { return self->reserve || self->verb == STEADY__SETTLE; }

PyObject *call_result(struct call *self, const steady_result *result) {
    steady_reservation *taken = result->reservation;
    PyObject *reservation = NULL;
    if (self->only_if_wait && result->must_wait == 0) steady_reservation_free(&taken);
    if (taken != NULL && (reservation = reservation_new(self->state, taken)) == NULL) return NULL;
    PyObject *made = result_from_group(self->state, result, reservation);
    Py_XDECREF(reservation);
    return made;
}

void call_count(struct call *self, int error, const steady_result *result) {
    const steady_part_result *buckets = result->source != STEADY_FROM_POLICY ? result->parts : NULL;
    if (error == 0 && result->source == STEADY_FROM_NOWHERE) error = result->error;
    if (!tally_counts(error)) return;
    for (Py_ssize_t i = 0; i < self->n; i++) {
        struct throttler *t = self->parts[i].throttler;
        if (self->verb != STEADY__CONSUME_ALL)
            tally_other(&t->tally, self->verb);
        else if (error != 0)
            tally_error(&t->tally, error);
        else
            tally_part(&t->tally, self->parts[i].kind, result, buckets);
        if (self->verb == STEADY__SETTLE) break; /* the others only name limits */
        buckets = buckets != NULL ? buckets + t->n_limits : NULL;
    }
    struct throttler *first = self->parts[0].throttler;
    if (self->verb == STEADY__SETTLE && error == 0)
        tally_settled(&first->tally, first->names, reservation_of(self->state, self->reservation), result);
}

/* ---- In a store without a loop ---- */

static int call_ask_blocking(const struct call *self, const steady_settlement *settlement, const steady_part *parts,
                             const steady_how *how, steady_result *result) {
    if (self->verb == STEADY__SETTLE) return steady_settle_sync(settlement, result);
    if (self->verb == STEADY__CONSUME_ALL) return steady_consume_all_sync(parts, (size_t)self->n, how, result);
    if (self->verb == STEADY__PEEK_ALL) return steady_peek_all_sync(parts, (size_t)self->n, how, result);
    const steady_call reset = {.verb = STEADY_RESET, .key = parts[0].key, .key_len = parts[0].key_len, .how = how};
    /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): a call has a part, so parts[0] is filled */
    return steady_decide_sync(parts[0].throttler, &reset, result);
}

/* STEADY_NO_MEMORY also stands for an exception. */
static int call_ask_without_loop(struct call *self, const steady_throttlers throttlers, steady_part_result *results,
                                 steady_result *result, steady_message *why) {
    steady_part parts[STEADY__PARTS_MAX];
    struct gil_released released;
    struct loop_store *store = self->parts[0].throttler->store->embedded;
    steady_how how = call_how(self, why);
    steady_settlement settlement = {.reservation = NULL};
    how.parts = results;
    how.parts_room = STEADY__PARTS_MAX;
    if (self->verb == STEADY__SETTLE)
        settlement = call_settlement(self, throttlers, store->store, why);
    else if (call_fill_parts(self, throttlers, parts) != 0)
        return STEADY_NO_MEMORY;
    settlement.parts = results;
    settlement.parts_room = STEADY__PARTS_MAX;
    loop_store_begin_call(store, &released);
    const int error = call_ask_blocking(self, &settlement, parts, &how, result);
    loop_store_end_call(store, &released);
    call_count(self, error, result);
    if (gil_raise(&released) == 0) return error;
    if (result->reservation != NULL) sync_give_back(store, result->reservation);
    steady_reservation_free(&result->reservation);
    return STEADY_NO_MEMORY;
}

PyObject *call_decide_embedded(struct call *self) {
    steady_throttlers throttlers;
    steady_part_result results[STEADY__PARTS_MAX];
    steady_message why = {.text = ""};
    steady_result result = {.error = 0};
    for (Py_ssize_t i = 0; i < self->n; i++)
        if ((throttlers[i] = binding_embedded(self->parts[i].throttler)) == NULL) return NULL;
    const int error = call_ask_without_loop(self, throttlers, results, &result, &why);
    if (PyErr_Occurred()) return NULL;
    if (error == 0) return call_result(self, &result);
    return sync_raise(self->parts[0].throttler->store->embedded, error, &why);
}

/* ---- On a server ---- */

/* Making a binding may run Python code, which may remove others. So all are made first, and taken afterwards. */
struct loop_store *call_find_store(struct call *self) {
    for (Py_ssize_t i = 0; i < self->n; i++)
        if (binding_of_running_loop(self->parts[i].throttler) == NULL) return NULL;
    const struct binding *first = binding_of_running_loop(self->parts[0].throttler);
    return first != NULL ? (struct loop_store *)Py_NewRef((PyObject *)first->store) : NULL;
}

int call_submit(struct call *self, struct loop_store *store, steady_callback callback, void *data, uint64_t *id,
                steady_message *why) {
    steady_throttlers throttlers;
    for (Py_ssize_t i = 0; i < self->n; i++)
        if ((throttlers[i] = binding_on_store(self->parts[i].throttler, store)) == NULL) return STEADY_CLOSED;
    return call_submit_on(self, throttlers, store->store, callback, data, id, why);
}

/* ---- Over a client, and for the policy ---- */

static void call_never_ends(const steady_result *result, void *data) {
    (void)result;
    (void)data;
}

static void call_release_capture(struct call *self) {
    if (self->captured) steady__call_release(&self->capture);
    self->captured = false;
}

/* Submits it to the capture store. 0, or -1 and an exception. */
static int call_capture(struct call *self) {
    steady_throttlers throttlers;
    steady_message why = {.text = ""};
    call_release_capture(self);
    for (Py_ssize_t i = 0; i < self->n; i++)
        if ((throttlers[i] = binding_captured(self->parts[i].throttler)) == NULL) return -1;
    if (self->local == NULL) self->local = Py_NewRef(self->parts[0].throttler->local);
    steady_store *capture = local_capture(self->local);
    capture_begin(capture);
    const int error = call_submit_on(self, throttlers, capture, call_never_ends, NULL, NULL, &why);
    if (error == 0) {
        self->capture = capture_take(capture);
        self->captured = true;
        return 0;
    }
    if (!PyErr_Occurred()) convert_raise(self->state, error, why.text);
    return -1;
}

PyObject *call_policy(struct call *self, int error, const char *why) {
    steady_result result = {.error = error};
    if (!self->captured && call_capture(self) != 0) return NULL;
    steady__complete(&self->capture, &result);
    call_count(self, 0, &result);
    PyObject *made = result.source != STEADY_FROM_NOWHERE ? call_result(self, &result) : NULL;
    call_release_capture(self);
    return made != NULL || PyErr_Occurred() ? made : convert_raise(self->state, error, why);
}

static PyObject *call_keys(struct call *self, PyObject *Py_UNUSED(none)) {
    if (!self->captured && call_capture(self) != 0) return NULL;
    const struct steady__group *group = self->capture.group;
    const size_t n = group != NULL ? group->n : 0;
    PyObject *keys = PyTuple_New((Py_ssize_t)n);
    for (size_t i = 0; keys != NULL && i < n; i++) {
        const struct steady__member *member = &group->members[i];
        PyObject *key = PyBytes_FromStringAndSize(member->key, (Py_ssize_t)member->key_len);
        if (key == NULL)
            Py_CLEAR(keys);
        else
            PyTuple_SET_ITEM(keys, (Py_ssize_t)i, key);
    }
    return keys;
}

static PyObject *call_encode(struct call *self, PyObject *Py_UNUSED(none)) {
    if (!self->captured && call_capture(self) != 0) return NULL;
    PyObject *room = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)steady__command_group_room(&self->capture, false));
    if (room == NULL) return NULL;
    const size_t len = steady__command_evalsha(PyBytes_AS_STRING(room), &self->capture);
    if (_PyBytes_Resize(&room, (Py_ssize_t)len) != 0) return NULL;
    return room;
}

/* Splits the command: "*N\r\n", then "$LEN\r\nBYTES\r\n" N times. The first two words are EVALSHA and the SHA1. */
static PyObject *call_words(struct call *self, PyObject *none) {
    PyObject *command = call_encode(self, none);
    if (command == NULL) return NULL;
    char *at = PyBytes_AS_STRING(command) + 1;
    const long count = strtol(at, &at, 10) - 2;
    PyObject *words = PyTuple_New(count);
    at += 2;
    for (long i = -2; words != NULL && i < count; i++) {
        const long len = strtol(at + 1, &at, 10);
        PyObject *word = i >= 0 ? PyBytes_FromStringAndSize(at + 2, len) : NULL;
        if (i >= 0 && word == NULL)
            Py_CLEAR(words);
        else if (i >= 0)
            PyTuple_SET_ITEM(words, i, word);
        at += 2 + len + 2;
    }
    Py_DECREF(command);
    return words;
}

static PyObject *call_decode(struct call *self, PyObject *reply) {
    int64_t values[VALUES_MAX];
    steady_result result = {.error = 0};
    unsigned stepped = 0;
    if (!self->captured) return PyErr_Format(PyExc_RuntimeError, "decode() comes after encode() or words()");
    const Py_ssize_t count = convert_reply(reply, values, VALUES_MAX);
    if (count < 0 || !steady__command_group_script_reply(&self->capture, values, (size_t)count, &result, &stepped))
        Py_RETURN_NONE;
    steady__complete(&self->capture, &result);
    call_count(self, 0, &result);
    PyObject *made = call_result(self, &result);
    call_release_capture(self);
    return made;
}

/* The caller of a client no longer waits for the answer. */
static PyObject *call_lost(struct call *self, PyObject *Py_UNUSED(none)) {
    const steady_result lost = {.error = STEADY_CANCELLED};
    call_count(self, lost.error, &lost);
    Py_RETURN_NONE;
}

/* (text, of_server): the text without the keys of the call. */
static PyObject *call_redact(struct call *self, PyObject *args) {
    PyObject *text = NULL;
    int of_server = 0;
    if (!PyArg_ParseTuple(args, "Up", &text, &of_server) || (!self->captured && call_capture(self) != 0)) return NULL;
    const struct steady__group *group = self->capture.group;
    const struct steady__secrets secrets = {.keys = group->keys, .n_keys = group->n};
    return convert_redacted(text, &secrets, of_server != 0);
}

static PyObject *call_apply_policy(struct call *self, PyObject *args) {
    int error = 0;
    const char *why = NULL;
    if (!PyArg_ParseTuple(args, "iz", &error, &why)) return NULL;
    return call_policy(self, error, why);
}

/* ---- The type ---- */

const char *call_name(const struct call *self) {
    static const char *const names[STEADY__VERBS] = {[STEADY__CONSUME_ALL] = "Throttler.consume",
                                                     [STEADY__PEEK_ALL] = "Throttler.peek",
                                                     [STEADY__SETTLE] = "Throttler.settle",
                                                     [STEADY__RESET_ALL] = "Throttler.reset"};
    return names[self->verb];
}

static int call_traverse(struct call *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t i = 0; i < self->n; i++) {
        Py_VISIT(self->parts[i].throttler);
        Py_VISIT(self->parts[i].key);
    }
    Py_VISIT(self->reservation);
    return 0;
}

/* No tp_clear: a throttler that refers to it breaks the cycle. */
static void call_dealloc(struct call *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    call_release_capture(self);
    for (Py_ssize_t i = 0; i < self->n; i++) {
        Py_DECREF(self->parts[i].throttler);
        Py_XDECREF(self->parts[i].key);
    }
    Py_XDECREF(self->reservation);
    Py_XDECREF(self->local);
    PyMem_Free(self->parts);
    PyMem_Free(self->amounts);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {{"settle", (PyCFunction)call_settle, METH_VARARGS | METH_CLASS, NULL},
                                {"give_back", (PyCFunction)call_give_back, METH_VARARGS, NULL},
                                {"keys", (PyCFunction)call_keys, METH_NOARGS, NULL},
                                {"encode", (PyCFunction)call_encode, METH_NOARGS, NULL},
                                {"words", (PyCFunction)call_words, METH_NOARGS, NULL},
                                {"decode", (PyCFunction)call_decode, METH_O, NULL},
                                {"redact", (PyCFunction)call_redact, METH_VARARGS, NULL},
                                {"lost", (PyCFunction)call_lost, METH_NOARGS, NULL},
                                {"apply_policy", (PyCFunction)call_apply_policy, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static PyMemberDef members[] = {{"verb", T_INT, offsetof(struct call, verb), READONLY, "An index into `scripts`."},
                                {"reserve", T_BOOL, offsetof(struct call, reserve), READONLY, NULL},
                                {NULL, 0, 0, 0, NULL}};

static PyObject *call_get_gives_back(struct call *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(call_gives_back(self));
}

static PyGetSetDef getters[] = {{"gives_back", (getter)call_get_gives_back, NULL, "It reserves or settles.", NULL},
                                {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot slots[] = {{Py_tp_new, call_make},
                              {Py_tp_traverse, call_traverse},
                              {Py_tp_dealloc, call_dealloc},
                              {Py_tp_methods, methods},
                              {Py_tp_members, members},
                              {Py_tp_getset, getters},
                              {0, NULL}};

PyType_Spec call_spec = {"aiosteady._core.Call", sizeof(struct call), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, slots};
