/* SPDX-License-Identifier: MIT
 * Another module that has the name CL.THROTTLE, or with an argument that name. */
#include "abi.h"

static int reply(server_context *context, server_string **argv, int argc) {
    (void)argv, (void)argc;
    return steady__server.ReplyWithLongLong(context, 42);
}

__attribute__((visibility("default"))) int RedisModule_OnLoad(server_context *context, server_string **argv, int argc);

int RedisModule_OnLoad(server_context *context, server_string **argv, int argc) {
    size_t len = 0;
    if (steady__server_bind(context) != NULL) return SERVER_ERR;
    steady__server.SetModuleAttribs(context, "other", 1, SERVER_API_VERSION);
    const char *name = argc > 0 ? steady__server.StringPtrLen(argv[0], &len) : "cl.throttle";
    return steady__server.CreateCommand(context, name, reply, "fast", 0, 0, 0);
}
