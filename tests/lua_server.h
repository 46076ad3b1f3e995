/* SPDX-License-Identifier: MIT
 * The shipped scripts in an embedded Lua 5.1, on a server with one key: the part of Redis that a script sees, at a
 * given time. */
#ifndef LUA_SERVER_H
#define LUA_SERVER_H

#include "conn/reply.h"
#include "redis/command.h"

struct lua_server;

struct lua_server *lua_server_new(void);
void lua_server_free(struct lua_server *server);

/* Sets the value of the key; NULL: none. expires_ms 0: never. */
void lua_server_set(struct lua_server *server, const char *value, int64_t expires_ms);
const char *lua_server_get(const struct lua_server *server, int64_t now_us);

int64_t lua_server_expires_ms(const struct lua_server *server); /* 0: never */

/* Runs a command as command.c wrote it: EVALSHA in RESP. Returns 0 and the integers of the reply, or -1, with the text
 * in lua_server_error. */
int lua_server_run(struct lua_server *server, const char *command, size_t len, int64_t now_us,
                   int64_t values[STEADY__REPLY_MAX], size_t *count);
const char *lua_server_error(const struct lua_server *server);

/* How often the last run wrote. 100 if a write was not the last call of the run. */
int lua_server_writes(const struct lua_server *server);

/* Makes a whole decision: command, script, reply. False: an error, or an invalid reply. */
bool lua_server_decide(struct lua_server *server, enum steady__verb verb, const struct steady__rate *rate,
                       int64_t amount, int64_t now_us, steady_result *result, bool *stepped);

/* Reads a stored text. False if the scripts would not have written it like this. NULL: an empty bucket. */
bool stored_parse(const char *text, struct steady__bucket *bucket);

#endif
