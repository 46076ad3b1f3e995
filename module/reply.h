/* SPDX-License-Identifier: MIT
 * The replies of the commands. Each returns SERVER_OK. */
#ifndef STEADY__MODULE_REPLY_H
#define STEADY__MODULE_REPLY_H

#include "abi.h"
#include "steady.h"

int steady__reply_error(server_context *context, const steady_message *why);
int steady__reply_not_a_bucket(server_context *context);
int steady__reply_integers(server_context *context, const int64_t *values, size_t count);

#endif
