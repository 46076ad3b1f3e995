/* SPDX-License-Identifier: MIT
 * The server's time, in us since 1970. */
#ifndef STEADY__MODULE_CLOCK_H
#define STEADY__MODULE_CLOCK_H

#include <stdbool.h>

#include "abi.h"

/* The same for all commands of one transaction or one script. */
int64_t steady__clock_us(server_context *context);

/* Which command is being executed. The time is the same for all commands of a transaction, and CONFIG RESETSTAT sets
 * the number back; both together tell commands apart. */
struct steady__moment {
    int64_t us;       /* when the outermost command began */
    int64_t commands; /* that were executed before */
};
struct steady__moment steady__clock_moment(server_context *context);
bool steady__clock_same(struct steady__moment a, struct steady__moment b);

#ifdef STEADY_TEST_CLOCK
command_function steady__clock_command; /* STEADY.CLOCK us: the time from now on; 0: that of the server again */
#endif

#endif
