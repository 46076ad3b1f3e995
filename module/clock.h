/* SPDX-License-Identifier: MIT
 * The server's time, in us since 1970. */
#ifndef STEADY__MODULE_CLOCK_H
#define STEADY__MODULE_CLOCK_H

#include "abi.h"

/* The same for all commands of one transaction or one script. */
int64_t steady__clock_us(server_context *context);

/* When the outermost command that is being executed began. */
int64_t steady__clock_command_us(server_context *context);

#ifdef STEADY_TEST_CLOCK
command_function steady__clock_command; /* STEADY.CLOCK us: the time from now on; 0: that of the server again */
#endif

#endif
