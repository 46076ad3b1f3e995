/* SPDX-License-Identifier: MIT
 * The shipped scripts in an embedded Lua 5.1, on a server of one key: what a script sees of Redis, with the time given.
 */
#ifndef LUA_SERVER_H
#define LUA_SERVER_H

#include "conn/reply.h"
#include "redis/command.h"

struct lua_server;

struct lua_server *lua_server_new(void);
void lua_server_free(struct lua_server *server);

/* What the key holds; NULL: nothing. `expires_ms` 0: never. */
void lua_server_set(struct lua_server *server, const char *value, int64_t expires_ms);
const char *lua_server_get(const struct lua_server *server, int64_t now_us);

int64_t lua_server_expires_ms(const struct lua_server *server); /* 0: never */

/* Runs a command as command.c wrote it, EVALSHA with its RESP. 0 and the reply's integers, or -1 and the error text. */
int lua_server_run(struct lua_server *server, const char *command, size_t len, int64_t now_us,
                   int64_t values[STEADY__REPLY_MAX], size_t *count);
const char *lua_server_error(const struct lua_server *server);

/* How often the last run wrote; a write that was not the last call of its run counts as 100. */
int lua_server_writes(const struct lua_server *server);

/* A whole decision: command, script, reply. False: an error, or no reply of ours. */
bool lua_server_decide(struct lua_server *server, enum steady__verb verb, const struct steady__rate *rate,
                       int64_t amount, int64_t now_us, steady_result *result, bool *stepped);

/* Reads a stored text the way the scripts write it; false where they would not have written it so. NULL: empty. */
bool stored_parse(const char *text, struct steady__bucket *bucket);

#endif
