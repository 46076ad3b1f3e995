/* SPDX-License-Identifier: MIT
 * The shipped scripts in an embedded Lua 5.1: the part of Redis that a script sees, at a given time. Keys have no
 * names here: the first key of each command is key 0, and so on. */
#ifndef LUA_SERVER_H
#define LUA_SERVER_H

#include "conn/reply.h"
#include "redis/command.h"

struct lua_server;

struct lua_server *lua_server_new(void);
void lua_server_free(struct lua_server *server);

/* Sets the value of key i; NULL: none. expires_ms 0: never. */
void lua_server_set_key(struct lua_server *server, size_t i, const char *value, int64_t expires_ms);
const char *lua_server_get_key(const struct lua_server *server, size_t i, int64_t now_us);
int64_t lua_server_expires_ms_of(const struct lua_server *server, size_t i); /* 0: never */

/* The same for key 0. */
void lua_server_set(struct lua_server *server, const char *value, int64_t expires_ms);
const char *lua_server_get(const struct lua_server *server, int64_t now_us);
int64_t lua_server_expires_ms(const struct lua_server *server);

/* Runs a command as command.c wrote it: EVALSHA in RESP. Returns 0 and the integers of the reply, or -1, with the text
 * in lua_server_error. */
int lua_server_run(struct lua_server *server, const char *command, size_t len, int64_t now_us,
                   int64_t values[STEADY__REPLY_MAX], size_t *count);
const char *lua_server_error(const struct lua_server *server);

/* The whole reply of the last run, even if it is longer than STEADY__REPLY_MAX. */
const int64_t *lua_server_reply(const struct lua_server *server, size_t *count);

/* How often the last run wrote. 100 if it read after a write. The second one: how often it wrote key i. */
int lua_server_writes(const struct lua_server *server);
int lua_server_writes_of(const struct lua_server *server, size_t i);

/* Makes a whole decision: command, script, reply. False: an error, or an invalid reply. */
bool lua_server_decide(struct lua_server *server, enum steady__verb verb, const struct steady__rate *rate,
                       int64_t amount, int64_t now_us, steady_result *result, bool *stepped);

/* Reads a stored text. False if the scripts would not have written it like this. NULL: an empty bucket. */
bool stored_parse(const char *text, struct steady__bucket *bucket);

#endif
