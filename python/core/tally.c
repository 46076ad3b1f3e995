/* SPDX-License-Identifier: MIT
 * The counters of a Throttler. */
#include "tally.h"

int tally_init(struct tally *self, struct core_state *state, size_t n_limits) {
    self->limits = PyMem_Calloc(n_limits, sizeof *self->limits);
    if (self->limits == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->n_limits = n_limits;
    self->state = state;
    self->pid = state_pid(state);
    return 0;
}

void tally_free(struct tally *self) {
    PyMem_Free(self->limits);
    self->limits = NULL;
}

/* Sets all counters to 0 in a child: its parent has these decisions, too. */
static void tally_enter(struct tally *self) {
    const pid_t pid = state_pid(self->state);
    if (pid == self->pid) return;
    self->pid = pid;
    memset(&self->n, 0, sizeof self->n);
    memset(self->limits, 0, self->n_limits * sizeof *self->limits);
}

/* ---- Decisions ---- */

/* Why the store gave no verdict. */
static void tally_reason(struct tally *self, int error) {
    if (error == STEADY_UNKNOWN || error == STEADY_CANCELLED)
        self->n.unknown++;
    else if (error != 0)
        self->n.unavailable++;
}

void tally_error(struct tally *self, int error) {
    tally_enter(self);
    self->n.errors++;
    tally_reason(self, error);
}

void tally_other(struct tally *self, enum steady__verb verb) {
    tally_enter(self);
    if (verb == STEADY__PEEK || verb == STEADY__PEEK_ALL)
        self->n.peeks++;
    else if (verb == STEADY__SETTLE)
        self->n.settles++;
    else
        self->n.resets++;
}

static void tally_granted(struct tally_limit *limit, int64_t granted) {
    if (granted >= 0)
        limit->charged += (uint64_t)granted;
    else
        limit->drained += (uint64_t)-granted;
}

static void tally_verdict(struct tally *self, bool allowed, bool blocked, enum steady_source source) {
    if (source == STEADY_FROM_POLICY) {
        self->n.policy_allowed += allowed;
        self->n.policy_denied += !allowed;
    } else if (source == STEADY_FROM_LOCAL) {
        self->n.local_allowed += allowed;
        self->n.local_denied += !allowed;
    } else {
        self->n.allowed += allowed;
        self->n.denied += !allowed;
    }
    self->n.blocked += !allowed && blocked;
}

void tally_plain_rare(struct tally *self, enum steady__verb verb, const steady_result *result) {
    if (!tally_counts(result->error)) return;
    if (verb != STEADY__CONSUME) {
        tally_other(self, verb);
        return;
    }
    if (result->source == STEADY_FROM_NOWHERE) {
        tally_error(self, result->error);
        return;
    }
    tally_enter(self);
    tally_verdict(self, result->success, result->blocked_for > 0, result->source);
    tally_reason(self, result->error);
    if (result->source == STEADY_FROM_POLICY) return;
    tally_granted(&self->limits[0], result->granted);
    self->limits[0].denied += !result->success;
}

void tally_part(struct tally *self, enum steady_kind kind, const steady_result *call,
                const steady_part_result *buckets) {
    bool denies = false, blocked = false;
    tally_enter(self);
    tally_reason(self, call->error);
    if (buckets == NULL) {
        tally_verdict(self, call->success, false, call->source);
        return;
    }
    for (size_t i = 0; i < self->n_limits; i++) {
        tally_granted(&self->limits[i], buckets[i].granted);
        if (buckets[i].success || !buckets[i].answered || kind == STEADY_CHARGE) continue;
        denies = true;
        blocked = blocked || buckets[i].blocked_for > 0;
        *(kind == STEADY_SHADOW ? &self->limits[i].shadow_denied : &self->limits[i].denied) += 1;
    }
    if (denies && kind == STEADY_SHADOW)
        self->n.shadow_denied++;
    else if (!denies && !call->success)
        self->n.denied_elsewhere++;
    else
        tally_verdict(self, call->success, blocked, call->source);
    if (call->must_wait > 0) {
        self->n.waits++;
        self->n.wait_us += (uint64_t)call->must_wait;
    }
}

/* ---- Settling ---- */

/* given_back is in 1/drops us of the rate in lowest terms; in these, a drop is as many as the recharge has us. */
static double tally_in_drops(int64_t given_back, const steady_limit *limit) {
    int64_t a = limit->drop_recharge, b = limit->drops > 0 ? limit->drops : 1;
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    const int64_t recharge = a > 0 ? limit->drop_recharge / a : 0;
    return recharge > 0 ? (double)given_back / (double)recharge : 0;
}

void tally_settled(struct tally *self, PyObject *names, const steady_reservation *reservation,
                   const steady_result *result) {
    size_t n = 0;
    const steady_reserved *reserved = steady_reservation_parts(reservation, &n);
    for (size_t i = 0; result->parts != NULL && i < n && i < result->n_parts; i++)
        for (size_t k = 0; k < self->n_limits; k++) {
            if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, (Py_ssize_t)k), result->parts[i].name) != 0)
                continue;
            self->limits[k].charged += (uint64_t)result->parts[i].charged;
            self->limits[k].given_back += tally_in_drops(result->parts[i].given_back, &reserved[i].limit);
        }
}

/* ---- Reading ---- */

/* Takes the reference to the value; NULL is an exception. Clears *dict on failure. */
static void tally_put(PyObject **dict, const char *name, PyObject *value) {
    if (*dict != NULL && (value == NULL || PyDict_SetItemString(*dict, name, value) != 0)) Py_CLEAR(*dict);
    Py_XDECREF(value);
}

static PyObject *tally_limits(const struct tally *self, PyObject *names) {
    PyObject *limits = PyDict_New();
    for (size_t i = 0; limits != NULL && i < self->n_limits; i++) {
        const struct tally_limit *from = &self->limits[i];
        PyObject *limit = PyDict_New();
        tally_put(&limit, "charged", PyLong_FromUnsignedLongLong(from->charged));
        tally_put(&limit, "given_back", PyFloat_FromDouble(from->given_back));
        tally_put(&limit, "drained", PyLong_FromUnsignedLongLong(from->drained));
        tally_put(&limit, "denied", PyLong_FromUnsignedLongLong(from->denied));
        tally_put(&limit, "shadow_denied", PyLong_FromUnsignedLongLong(from->shadow_denied));
        if (limit == NULL || PyDict_SetItem(limits, PyTuple_GET_ITEM(names, (Py_ssize_t)i), limit) != 0)
            Py_CLEAR(limits);
        Py_XDECREF(limit);
    }
    return limits;
}

PyObject *tally_dict(struct tally *self, PyObject *names) {
    tally_enter(self);
    const struct {
        const char *name;
        uint64_t value;
    } counters[] = {
        {"decisions", self->n.allowed + self->n.denied + self->n.denied_elsewhere + self->n.shadow_denied +
                          self->n.local_allowed + self->n.local_denied + self->n.policy_allowed +
                          self->n.policy_denied + self->n.errors},
        {"allowed", self->n.allowed},
        {"denied", self->n.denied},
        {"denied_elsewhere", self->n.denied_elsewhere},
        {"shadow_denied", self->n.shadow_denied},
        {"local_allowed", self->n.local_allowed},
        {"local_denied", self->n.local_denied},
        {"policy_allowed", self->n.policy_allowed},
        {"policy_denied", self->n.policy_denied},
        {"errors", self->n.errors},
        {"blocked", self->n.blocked},
        {"unavailable", self->n.unavailable},
        {"unknown", self->n.unknown},
        {"peeks", self->n.peeks},
        {"resets", self->n.resets},
        {"settles", self->n.settles},
        {"waits", self->n.waits},
    };
    PyObject *stats = PyDict_New();
    for (size_t i = 0; stats != NULL && i < sizeof counters / sizeof counters[0]; i++)
        tally_put(&stats, counters[i].name, PyLong_FromUnsignedLongLong(counters[i].value));
    if (stats != NULL) tally_put(&stats, "wait_seconds", PyFloat_FromDouble((double)self->n.wait_us / 1e6));
    if (stats != NULL) tally_put(&stats, "limits", tally_limits(self, names));
    return stats;
}
