/* SPDX-License-Identifier: MIT
 * Decisions over several buckets by the shipped scripts, in the Lua of lua_server.h. Key i of the server is part i. */
#ifndef LUA_PARTS_H
#define LUA_PARTS_H

#include "lua_server.h"

/* Makes a whole decision: the command, the script, and the result that the client computes from the reply. Returns
 * false if the script ended with an error, or if the reply is wrong; lua_server_error says which. *stepped: how many
 * buckets were ahead of the clock. */
bool lua_parts_decide(struct lua_server *server, const struct steady__part *parts, size_t n,
                      const struct steady__how *how, int64_t now, struct steady__part_decision *each,
                      struct steady__verdict *verdict, unsigned *stepped);

/* The same for a settlement of n buckets. */
bool lua_parts_settle(struct lua_server *server, const struct steady__settlement *settlements, size_t n, int64_t now,
                      struct steady__settled *settled, unsigned *stepped);

struct lua_argument {
    char bytes[128];
    size_t len;
};

/* Runs a script with n keys and these arguments. 0, or -1 with lua_server_error. */
int lua_parts_run(struct lua_server *server, enum steady__verb verb, size_t n, size_t argc,
                  const struct lua_argument *argv, int64_t now);

#endif
