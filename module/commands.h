/* SPDX-License-Identifier: MIT
 * The commands: they read the arguments and send the reply. */
#ifndef STEADY__MODULE_COMMANDS_H
#define STEADY__MODULE_COMMANDS_H

#include "abi.h"

command_function steady__command_consume;
command_function steady__command_peek;
command_function steady__command_throttle;

/* On several keys: see all.c. */
command_function steady__command_consume_all;
command_function steady__command_peek_all;
command_function steady__command_settle;
command_function steady__command_reset;

/* Registers the commands, with their data for COMMAND DOCS, cluster routing and ACL rules. If another module has a
 * STEADY command: logs it and returns SERVER_ERR. If another module has CL.THROTTLE, it keeps it. */
int steady__commands_register(server_context *context, int with_throttle);

/* The names of the registered commands; NULL after the last. */
const char *const *steady__commands_names(void);

#endif
