/* SPDX-License-Identifier: MIT
 * The counters of a Throttler. They are plain integers: only threads that hold the GIL count and read. */
#ifndef AIOSTEADY_TALLY_H
#define AIOSTEADY_TALLY_H

#include "src/store.h"
#include "state.h"

struct tally_limit {
    uint64_t charged; /* drops */
    uint64_t drained; /* drops */
    uint64_t denied;
    uint64_t shadow_denied;
    double given_back; /* drops */
};

/* docs/reference/python.md has the meaning of each counter. */
struct tally {
    struct core_state *state;
    pid_t pid; /* the process that counts; a child begins at 0 */
    size_t n_limits;
    struct tally_limit *limits; /* NULL: not made yet */
    struct {
        uint64_t allowed, denied, denied_elsewhere, shadow_denied;
        uint64_t local_allowed, local_denied, policy_allowed, policy_denied, errors;
        uint64_t blocked, unavailable, unknown, waits;
        uint64_t wait_us;
        uint64_t peeks, resets, settles;
    } n;
};

/* 0, or -1 and MemoryError. */
int tally_init(struct tally *self, struct core_state *state, size_t n_limits);
void tally_free(struct tally *self);

/* Whether a call that ends with this error counts. A wrong call does not, and no call on a closed store. */
static inline bool tally_counts(int error) {
    return error != STEADY_CLOSED && error != STEADY_BAD_ARGUMENT && error != STEADY_WRONG_THREAD;
}

/* A call on one bucket without options ended with a result; STEADY_FROM_NOWHERE is an error. */
void tally_plain_rare(struct tally *self, enum steady__verb verb, const steady_result *result);

/* Inline, because each decision of an embedded store calls it. */
static inline void tally_plain(struct tally *self, enum steady__verb verb, const steady_result *result) {
    if (!state_is_of_process(self->state, self->pid) || verb != STEADY__CONSUME ||
        result->source != STEADY_FROM_STORE || result->granted < 0) {
        tally_plain_rare(self, verb, result);
    } else if (result->success) {
        self->n.allowed++;
        self->limits[0].charged += (uint64_t)result->granted;
    } else {
        self->n.denied++;
        self->n.blocked += result->blocked_for > 0;
        self->limits[0].denied++;
    }
}

/* A part of a consume on several buckets, or with options. `buckets` has a result for each limit; NULL: a policy
 * answered. */
void tally_part(struct tally *self, enum steady_kind kind, const steady_result *call,
                const steady_part_result *buckets);

/* A peek, a reset or a settle ended. */
void tally_other(struct tally *self, enum steady__verb verb);

/* A consume ended without an answer. */
void tally_error(struct tally *self, int error);

/* What a settle has changed. */
void tally_settled(struct tally *self, PyObject *names, const steady_reservation *reservation,
                   const steady_result *result);

/* The dict of stats(). `names` has the name of each limit. */
PyObject *tally_dict(struct tally *self, PyObject *names);

#endif
