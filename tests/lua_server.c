/* SPDX-License-Identifier: MIT
 * The shipped scripts in an embedded Lua 5.1, with TIME, GET, SET key value PX ms and DEL as Redis gives them to Lua.
 */
#include "lua_server.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lua_server {
    lua_State *lua;
    int chunks[STEADY__VERBS];
    int64_t now_us;
    bool holds;
    int64_t expires_ms; /* 0: never */
    int writes;
    int calls_after_write;
    char value[128];
    char error[256];
};

static struct lua_server *self(lua_State *lua) { return lua_touserdata(lua, lua_upvalueindex(1)); }

static bool alive(const struct lua_server *server, int64_t now_us) {
    return server->holds && (server->expires_ms == 0 || now_us / 1000 <= server->expires_ms);
}

static int call_time(lua_State *lua) {
    char text[24];
    lua_createtable(lua, 2, 0);
    snprintf(text, sizeof text, "%lld", (long long)(self(lua)->now_us / 1000000));
    lua_pushstring(lua, text);
    lua_rawseti(lua, -2, 1);
    snprintf(text, sizeof text, "%lld", (long long)(self(lua)->now_us % 1000000));
    lua_pushstring(lua, text);
    lua_rawseti(lua, -2, 2);
    return 1;
}

/* A key that was found expired stays away, even if the clock is set back later. */
static int call_get(lua_State *lua) {
    self(lua)->holds = alive(self(lua), self(lua)->now_us);
    if (self(lua)->holds)
        lua_pushstring(lua, self(lua)->value);
    else
        lua_pushboolean(lua, 0);
    return 1;
}

/* Redis formats a number as %.17g. The time to live must be a whole number above 0. */
static int call_set(lua_State *lua) {
    struct lua_server *server = self(lua);
    const char *value = luaL_checkstring(lua, 3);
    char ttl[32], *end = NULL;
    snprintf(ttl, sizeof ttl, "%.17g", lua_tonumber(lua, 5));
    const long long ms = strtoll(ttl, &end, 10);
    if (strcmp(luaL_checkstring(lua, 4), "PX") != 0 || lua_gettop(lua) != 5 || *end != '\0' || ms < 1)
        return luaL_error(lua, "ERR invalid expire time in 'set' command: %s", ttl);
    snprintf(server->value, sizeof server->value, "%s", value);
    server->holds = true;
    server->expires_ms = server->now_us / 1000 + ms;
    server->writes++;
    return 0;
}

static int call_del(lua_State *lua) {
    self(lua)->holds = false;
    self(lua)->writes++;
    return 0;
}

static int redis_call(lua_State *lua) {
    static const struct {
        const char *name;
        lua_CFunction run;
    } commands[] = {{"TIME", call_time}, {"GET", call_get}, {"SET", call_set}, {"DEL", call_del}};
    const char *name = luaL_checkstring(lua, 1);
    if (self(lua)->writes > 0) self(lua)->calls_after_write++;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(name, commands[i].name) == 0) return commands[i].run(lua);
    return luaL_error(lua, "ERR no such command here: %s", name);
}

static int redis_error_reply(lua_State *lua) {
    lua_createtable(lua, 0, 1);
    lua_pushvalue(lua, 1);
    lua_setfield(lua, -2, "err");
    return 1;
}

static void set_function(struct lua_server *server, const char *name, lua_CFunction function) {
    lua_pushlightuserdata(server->lua, server);
    lua_pushcclosure(server->lua, function, 1);
    lua_setfield(server->lua, -2, name);
}

struct lua_server *lua_server_new(void) {
    struct lua_server *server = calloc(1, sizeof *server);
    server->lua = luaL_newstate();
    luaL_openlibs(server->lua);
    lua_newtable(server->lua);
    set_function(server, "call", redis_call);
    set_function(server, "error_reply", redis_error_reply);
    lua_setglobal(server->lua, "redis");
    for (int verb = 0; verb < STEADY__VERBS; verb++) {
        /* Redis removes the #! line before it compiles the script. */
        const char *body = strchr(steady__scripts[verb].text, '\n');
        if (luaL_loadbuffer(server->lua, body, strlen(body), "@script") != 0) abort();
        server->chunks[verb] = luaL_ref(server->lua, LUA_REGISTRYINDEX);
    }
    return server;
}

void lua_server_free(struct lua_server *server) {
    lua_close(server->lua);
    free(server);
}

void lua_server_set(struct lua_server *server, const char *value, int64_t expires_ms) {
    server->holds = value != NULL;
    server->expires_ms = expires_ms;
    snprintf(server->value, sizeof server->value, "%s", value != NULL ? value : "");
}

const char *lua_server_get(const struct lua_server *server, int64_t now_us) {
    return alive(server, now_us) ? server->value : NULL;
}

int64_t lua_server_expires_ms(const struct lua_server *server) { return server->expires_ms; }

const char *lua_server_error(const struct lua_server *server) { return server->error; }

int lua_server_writes(const struct lua_server *server) { return server->calls_after_write > 0 ? 100 : server->writes; }

/* ---- Running a command ---- */

/* The next bulk string of a RESP command, or NULL. */
static const char *next_bulk(const char **at, const char *end, size_t *len) {
    if (*at >= end || **at != '$') return NULL;
    *len = strtoul(*at + 1, NULL, 10);
    const char *bytes = strstr(*at, "\r\n") + 2;
    *at = bytes + *len + 2;
    return *at <= end ? bytes : NULL;
}

/* Sets a global table to the next bulk strings. */
static bool set_table(struct lua_server *server, const char *name, long count, const char **at, const char *end) {
    lua_createtable(server->lua, (int)count, 0);
    for (int i = 1; i <= count; i++) {
        size_t len = 0;
        const char *bytes = next_bulk(at, end, &len);
        if (bytes == NULL) return false;
        lua_pushlstring(server->lua, bytes, len);
        lua_rawseti(server->lua, -2, i);
    }
    lua_setglobal(server->lua, name);
    return true;
}

static int fail(struct lua_server *server, const char *text) {
    snprintf(server->error, sizeof server->error, "%s", text);
    lua_settop(server->lua, 0);
    return -1;
}

/* *argc EVALSHA sha numkeys key... arg...: finds the script, and sets KEYS and ARGV. */
static int prepare(struct lua_server *server, const char *command, size_t len) {
    const char *at = strstr(command, "\r\n") + 2, *end = command + len;
    const long argc = strtol(command + 1, NULL, 10);
    size_t n = 0;
    const char *word = next_bulk(&at, end, &n);
    if (word == NULL || n != 7 || memcmp(word, "EVALSHA", 7) != 0) return -1;
    const char *sha = next_bulk(&at, end, &n);
    const char *keys = next_bulk(&at, end, &n);
    if (sha == NULL || keys == NULL) return -1;
    const long key_count = strtol(keys, NULL, 10);
    if (!set_table(server, "KEYS", key_count, &at, end) || !set_table(server, "ARGV", argc - 3 - key_count, &at, end))
        return -1;
    if (at != end) return -1;
    for (int verb = 0; verb < STEADY__VERBS; verb++)
        if (memcmp(sha, steady__scripts[verb].sha1, 40) == 0) return server->chunks[verb];
    return -1;
}

int lua_server_run(struct lua_server *server, const char *command, size_t len, int64_t now_us,
                   int64_t values[STEADY__REPLY_MAX], size_t *count) {
    lua_State *lua = server->lua;
    server->now_us = now_us;
    server->writes = server->calls_after_write = 0;
    const int chunk = prepare(server, command, len);
    if (chunk == -1) return fail(server, "no such command or script");
    lua_rawgeti(lua, LUA_REGISTRYINDEX, chunk);
    if (lua_pcall(lua, 0, 1, 0) != 0) return fail(server, lua_tostring(lua, -1));
    *count = 1;
    if (lua_isnumber(lua, -1)) {
        values[0] = (int64_t)lua_tonumber(lua, -1);
    } else {
        lua_getfield(lua, -1, "err");
        if (lua_isstring(lua, -1)) return fail(server, lua_tostring(lua, -1));
        lua_pop(lua, 1);
        *count = lua_objlen(lua, -1);
        for (size_t i = 0; i < *count && i < STEADY__REPLY_MAX; i++) {
            lua_rawgeti(lua, -1, (int)i + 1);
            values[i] = (int64_t)lua_tonumber(lua, -1);
            lua_pop(lua, 1);
        }
    }
    lua_settop(lua, 0);
    return 0;
}

bool lua_server_decide(struct lua_server *server, enum steady__verb verb, const struct steady__rate *rate,
                       int64_t amount, int64_t now_us, steady_result *result, bool *stepped) {
    char command[STEADY__COMMAND_MAX];
    int64_t values[STEADY__REPLY_MAX];
    size_t count = 0;
    struct steady__terms terms = {.rate = *rate};
    steady__command_encode_limit(&terms);
    const struct steady__call call = {.verb = verb, .amount = amount, .key = "k", .key_len = 1, .terms = &terms};
    const size_t len = steady__command_evalsha(command, &call);
    if (lua_server_run(server, command, len, now_us, values, &count) != 0) return false;
    snprintf(server->error, sizeof server->error, "a reply of %zu that is not ours", count);
    return steady__command_script_reply(&call, values, count, result, stepped);
}

bool stored_parse(const char *text, struct steady__bucket *b) {
    long long level = 0, s = 0, us = 0, bs = 0, bus = 0, rem = 0;
    char again[128];
    memset(b, 0, sizeof *b);
    if (text == NULL) return true;
    const bool blocked = sscanf(text, "%lld %lld.%6lld %lld.%6lld %lld", &level, &s, &us, &bs, &bus, &rem) >= 5;
    if (!blocked) {
        bs = bus = rem = 0;
        sscanf(text, "%lld %lld.%6lld 0 %lld", &level, &s, &us, &rem);
    }
    int n = snprintf(again, sizeof again, "%lld %lld.%06lld ", level, s, us);
    n += blocked ? snprintf(again + n, sizeof again - (size_t)n, "%lld.%06lld", bs, bus)
                 : snprintf(again + n, sizeof again - (size_t)n, "0");
    if (rem != 0) snprintf(again + n, sizeof again - (size_t)n, " %lld", rem);
    b->level = level;
    b->last = s * 1000000 + us;
    b->rem = rem;
    b->blocked_until = bs * 1000000 + bus;
    return strcmp(text, again) == 0;
}
