/* SPDX-License-Identifier: MIT
 * Reservation: what a call took, to be settled later. */
#ifndef AIOSTEADY_RESERVATION_H
#define AIOSTEADY_RESERVATION_H

#include "loop_store.h"

/* Takes the reservation, also if it returns NULL and sets an exception. */
PyObject *reservation_new(struct core_state *state, steady_reservation *from);

/* Borrowed. NULL and a TypeError if the object is no Reservation. */
steady_reservation *reservation_of(struct core_state *state, PyObject *object);

/* The actual of each part, from an int, a sequence in order or a mapping by name. None gives all back. -1: the part
 * stays charged. `actuals` has room for STEADY__PARTS_MAX. 0, or -1 and an exception. */
int reservation_read_actual(const steady_reservation *reservation, PyObject *given, int64_t *actuals);

/* Settles it with 0, without a caller. An error is logged. Frees it. `store` is a store on a loop. */
void reservation_give_back(struct loop_store *store, steady_reservation *reservation);

extern PyType_Spec reservation_spec;

#endif
