/* SPDX-License-Identifier: MIT
 * Finds the functions of the server. */
#include "abi.h"

#include <string.h>

struct server_functions steady__server;

typedef int find_function(const char *name, void *where);

const char *steady__server_bind(server_context *context) {
    struct server_functions found = {0};
    find_function *find = NULL;
    memcpy(&find, context, sizeof find);
    find("RedisModule_Log", &found.Log);
#define BIND(result, name, arguments) find("RedisModule_" #name, &found.name);
    SERVER_FUNCTIONS(BIND)
    SERVER_FUNCTIONS_7_2(BIND)
#undef BIND
    steady__server = found;
#define CHECK(result, name, arguments)                                                                                 \
    if (found.name == NULL) return #name;
    SERVER_FUNCTIONS(CHECK)
#undef CHECK
    return NULL;
}
