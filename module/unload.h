/* SPDX-License-Identifier: MIT
 * Whether the server survives that the module is unloaded. */
#ifndef STEADY__MODULE_UNLOAD_H
#define STEADY__MODULE_UNLOAD_H

#include <stdbool.h>

#include "abi.h"

/* `commands` are the names of those registered, and end with NULL. undone: the command that loads the module unloads
 * it, so that connections cannot know its commands. False, logged: not now. */
bool steady__unload_is_safe(server_context *context, const char *const *commands, bool undone);

#endif
