/* SPDX-License-Identifier: MIT
 * The commands: their arguments read, their replies sent. */
#ifndef STEADY__MODULE_COMMANDS_H
#define STEADY__MODULE_COMMANDS_H

#include "abi.h"

command_function steady__command_consume;
command_function steady__command_peek;
command_function steady__command_reset;
command_function steady__command_throttle;

/* Registers them, and says of each what COMMAND DOCS, cluster routing and ACL rules want to know. SERVER_ERR, logged:
 * a name of ours is taken. A CL.THROTTLE that is taken is left to who has it. */
int steady__commands_register(server_context *context, int with_throttle);

/* The names of those registered; NULL after the last. */
const char *const *steady__commands_names(void);

#endif
