/* SPDX-License-Identifier: MIT
 * The server's time, in us since 1970. */
#ifndef STEADY__MODULE_CLOCK_H
#define STEADY__MODULE_CLOCK_H

#include <stdbool.h>

#include "abi.h"

/* It is the same for all commands of one transaction or one script. */
int64_t steady__clock_us(server_context *context);

/* Identifies the command that is being executed. The time alone is the same for all commands of a transaction, and
 * CONFIG RESETSTAT resets the number. Both together differ for each command. */
struct steady__moment {
    int64_t us;       /* the time at which the outermost command began */
    int64_t commands; /* the number of commands executed before */
};
struct steady__moment steady__clock_moment(server_context *context);
bool steady__clock_same(struct steady__moment a, struct steady__moment b);

#ifdef STEADY_TEST_CLOCK
command_function steady__clock_command; /* STEADY.CLOCK us sets a fixed time; 0 uses the time of the server again */
#endif

#endif
