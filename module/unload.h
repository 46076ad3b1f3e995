/* SPDX-License-Identifier: MIT
 * Tells whether the server survives when the module is unloaded. */
#ifndef STEADY__MODULE_UNLOAD_H
#define STEADY__MODULE_UNLOAD_H

#include <stdbool.h>

#include "abi.h"

/* `commands` are the names of the registered commands and end with NULL. undone: the command that loaded the module
 * unloads it, so no connection knows its commands. Returns false and logs the reason if the server could crash. */
bool steady__unload_is_safe(server_context *context, const char *const *commands, bool undone);

#endif
