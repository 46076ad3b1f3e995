/* SPDX-License-Identifier: MIT
 * The replies of the commands. */
#include "reply.h"

#include <stdio.h>

int steady__reply_error(server_context *context, const steady_message *why) {
    char text[sizeof why->text + 4];
    snprintf(text, sizeof text, "ERR %s", why->text);
    return steady__server.ReplyWithError(context, text);
}

int steady__reply_not_a_bucket(server_context *context) {
    return steady__server.ReplyWithError(context, "NOTABUCKET the key holds something else");
}

int steady__reply_integers(server_context *context, const int64_t *values, size_t count) {
    steady__server.ReplyWithArray(context, (long)count);
    for (size_t i = 0; i < count; i++)
        steady__server.ReplyWithLongLong(context, values[i]);
    return SERVER_OK;
}
