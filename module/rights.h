/* SPDX-License-Identifier: MIT
 * Which ACL rules name a command. */
#ifndef STEADY__MODULE_RIGHTS_H
#define STEADY__MODULE_RIGHTS_H

#include <stdbool.h>

#include "abi.h"

/* Whether a rule of any user names the command: "+name", "-name" or with a first argument, "+name|argument". */
bool steady__rights_name(server_context *context, const char *command);

#endif
