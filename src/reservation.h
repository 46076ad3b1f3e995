/* SPDX-License-Identifier: MIT
 * Reservations: what a call took from each bucket, to be settled later; and their text form. */
#ifndef STEADY__RESERVATION_H
#define STEADY__RESERVATION_H

#include <stdatomic.h>

#include "store.h"

struct steady_reservation {
    atomic_uint holders; /* the caller, and a settle in flight */
    atomic_bool settled;
    int64_t store; /* the tag of the store that made it */
    size_t n;
    steady_reserved *parts;
    struct steady__reserved_key *keys; /* one for each part */
    char *text;                        /* the keys and names */
};

/* How the key of a part was made, to find its throttler again. */
struct steady__reserved_key {
    size_t prefix_len;
    bool has_name; /* of its limit, at its end: the throttler had several limits */
};

/* The reservation that a group will make in the store with this tag. NULL: out of memory. */
steady_reservation *steady__reservation_new(const struct steady__group *group, int64_t store);

/* Fills in what the group took, and when. */
void steady__reservation_fill(steady_reservation *reservation, const struct steady__group *group);

/* Marks the reservation as settled: false if it was before. */
bool steady__reservation_settle(steady_reservation *reservation);

/* The result of that settle: after an error that changed nothing it may be settled again. */
void steady__reservation_settled(steady_reservation *reservation, int error);

void steady__reservation_hold(steady_reservation *reservation);
void steady__reservation_release(steady_reservation *reservation); /* NULL is fine */

#endif
