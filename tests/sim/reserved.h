/* SPDX-License-Identifier: MIT
 * Reservations that the clients keep, and their settles. */
#ifndef SIM_RESERVED_H
#define SIM_RESERVED_H

#include "several.h"

void reserved_begin(void);
void reserved_end(void); /* frees them */

/* Keeps the reservation of a decision that was allowed. */
void reserved_keep(struct decision *by, steady_reservation *reservation);

/* Settles one of them. False: there is none that this client can settle. */
bool reserved_settle(struct client *client);

void reserved_settled(const struct request *request); /* a server has made it */
void reserved_told(struct decision *settle, int error);

#endif
