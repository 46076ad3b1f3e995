/* SPDX-License-Identifier: MIT
 * The shipped scripts in an embedded Lua 5.1, with TIME, GET, SET key value PX ms, DEL and struct.unpack as Redis gives
 * them to Lua. */
#include "lua_server.h"

#include <endian.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct slot {
    const char *key; /* of the command that runs */
    size_t key_len;
    bool holds;
    int64_t expires_ms; /* 0: never */
    int writes;         /* of the last run */
    char value[128];
};

struct lua_server {
    lua_State *lua;
    int chunks[STEADY__VERBS];
    int64_t now_us;
    struct slot slots[STEADY__PARTS_MAX]; /* the key number i of a command is in slot i, whatever its name */
    size_t keys;
    int writes;
    int reads_after_write;
    int64_t reply[2 + 3 * STEADY__PARTS_MAX];
    size_t reply_count;
    char error[256];
};

static struct lua_server *self(lua_State *lua) { return lua_touserdata(lua, lua_upvalueindex(1)); }

static bool alive(const struct slot *slot, int64_t now_us) {
    return slot->holds && (slot->expires_ms == 0 || now_us / 1000 <= slot->expires_ms);
}

/* The slot of an argument of redis.call. A script may use only the keys in KEYS. */
static struct slot *slot_of(lua_State *lua, int argument) {
    struct lua_server *server = self(lua);
    size_t len = 0;
    const char *key = luaL_checklstring(lua, argument, &len);
    for (size_t i = 0; i < server->keys; i++)
        if (server->slots[i].key_len == len && memcmp(server->slots[i].key, key, len) == 0) return &server->slots[i];
    luaL_error(lua, "ERR Script attempted to access a non local key in a cluster node: %s", key);
    return NULL;
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
    struct slot *slot = slot_of(lua, 2);
    slot->holds = alive(slot, self(lua)->now_us);
    if (slot->holds)
        lua_pushstring(lua, slot->value);
    else
        lua_pushboolean(lua, 0);
    return 1;
}

/* Redis formats a number as %.17g. The time to live must be a whole number above 0. */
static int call_set(lua_State *lua) {
    struct slot *slot = slot_of(lua, 2);
    const char *value = luaL_checkstring(lua, 3);
    char ttl[32], *end = NULL;
    snprintf(ttl, sizeof ttl, "%.17g", lua_tonumber(lua, 5));
    const long long ms = strtoll(ttl, &end, 10);
    if (strcmp(luaL_checkstring(lua, 4), "PX") != 0 || lua_gettop(lua) != 5 || *end != '\0' || ms < 1)
        return luaL_error(lua, "ERR invalid expire time in 'set' command: %s", ttl);
    snprintf(slot->value, sizeof slot->value, "%s", value);
    slot->holds = true;
    slot->expires_ms = self(lua)->now_us / 1000 + ms;
    slot->writes++;
    return 0;
}

static int call_del(lua_State *lua) {
    for (int i = 2; i <= lua_gettop(lua); i++) {
        struct slot *slot = slot_of(lua, i);
        slot->holds = false;
        slot->writes++;
    }
    return 0;
}

static int redis_call(lua_State *lua) {
    static const struct {
        const char *name;
        lua_CFunction run;
        bool writes;
    } commands[] = {
        {"TIME", call_time, false}, {"GET", call_get, false}, {"SET", call_set, true}, {"DEL", call_del, true}};
    struct lua_server *server = self(lua);
    const char *name = luaL_checkstring(lua, 1);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(name, commands[i].name) != 0) continue;
        server->writes += commands[i].writes;
        server->reads_after_write += !commands[i].writes && server->writes > 0;
        return commands[i].run(lua);
    }
    return luaL_error(lua, "ERR no such command here: %s", name);
}

static int redis_error_reply(lua_State *lua) {
    lua_createtable(lua, 0, 1);
    lua_pushvalue(lua, 1);
    lua_setfield(lua, -2, "err");
    return 1;
}

/* struct.unpack with the formats that the scripts use: "<", then i4, d and B. */
static int struct_unpack(lua_State *lua) {
    size_t len = 0, at = 0;
    const char *format = luaL_checkstring(lua, 1), *bytes = luaL_checklstring(lua, 2, &len);
    int values = 0;
    if (*format != '<') return luaL_error(lua, "a format of a script begins with %s", format);
    for (format++; *format != '\0'; values++) {
        const size_t size = *format == 'd' ? sizeof(double) : *format == 'i' ? sizeof(int32_t) : 1;
        uint64_t word = 0;
        uint32_t half = 0;
        if (size > len - at) return luaL_error(lua, "data string too short");
        if (*format == 'd') {
            double number;
            memcpy(&word, bytes + at, size);
            word = le64toh(word);
            memcpy(&number, &word, size);
            lua_pushnumber(lua, number);
        } else if (strncmp(format, "i4", 2) == 0) {
            memcpy(&half, bytes + at, size);
            lua_pushnumber(lua, (int32_t)le32toh(half));
            format++;
        } else if (*format == 'B') {
            lua_pushnumber(lua, (unsigned char)bytes[at]);
        } else {
            return luaL_error(lua, "no such format here: %s", format);
        }
        format++;
        at += size;
    }
    lua_pushnumber(lua, (lua_Number)at + 1);
    return values + 1;
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
    lua_newtable(server->lua);
    set_function(server, "unpack", struct_unpack);
    lua_setglobal(server->lua, "struct");
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

void lua_server_set_key(struct lua_server *server, size_t i, const char *value, int64_t expires_ms) {
    struct slot *slot = &server->slots[i];
    slot->holds = value != NULL;
    slot->expires_ms = expires_ms;
    snprintf(slot->value, sizeof slot->value, "%s", value != NULL ? value : "");
}

void lua_server_set(struct lua_server *server, const char *value, int64_t expires_ms) {
    lua_server_set_key(server, 0, value, expires_ms);
}

const char *lua_server_get_key(const struct lua_server *server, size_t i, int64_t now_us) {
    return alive(&server->slots[i], now_us) ? server->slots[i].value : NULL;
}

const char *lua_server_get(const struct lua_server *server, int64_t now_us) {
    return lua_server_get_key(server, 0, now_us);
}

int64_t lua_server_expires_ms_of(const struct lua_server *server, size_t i) { return server->slots[i].expires_ms; }

int64_t lua_server_expires_ms(const struct lua_server *server) { return lua_server_expires_ms_of(server, 0); }

const char *lua_server_error(const struct lua_server *server) { return server->error; }

int lua_server_writes_of(const struct lua_server *server, size_t i) { return server->slots[i].writes; }

int lua_server_writes(const struct lua_server *server) { return server->reads_after_write > 0 ? 100 : server->writes; }

const int64_t *lua_server_reply(const struct lua_server *server, size_t *count) {
    *count = server->reply_count;
    return server->reply;
}

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
    const bool keys = strcmp(name, "KEYS") == 0;
    if (keys) server->keys = count < STEADY__PARTS_MAX ? (size_t)count : STEADY__PARTS_MAX;
    lua_createtable(server->lua, (int)count, 0);
    for (int i = 1; i <= count; i++) {
        size_t len = 0;
        const char *bytes = next_bulk(at, end, &len);
        if (bytes == NULL) return false;
        if (keys && i <= STEADY__PARTS_MAX) {
            server->slots[i - 1].key = bytes;
            server->slots[i - 1].key_len = len;
        }
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

/* The reply on top of the stack. */
static int take_reply(struct lua_server *server) {
    lua_State *lua = server->lua;
    server->reply_count = 1;
    if (lua_isnumber(lua, -1)) {
        server->reply[0] = (int64_t)lua_tonumber(lua, -1);
        return 0;
    }
    lua_getfield(lua, -1, "err");
    if (lua_isstring(lua, -1)) return fail(server, lua_tostring(lua, -1));
    lua_pop(lua, 1);
    for (size_t i = 0;; i++) { /* Redis stops at the first nil */
        lua_rawgeti(lua, -1, (int)i + 1);
        if (lua_isnil(lua, -1)) {
            server->reply_count = i;
            return 0;
        }
        if (!lua_isnumber(lua, -1) || i == sizeof server->reply / sizeof server->reply[0])
            return fail(server, "the reply is not an array of integers, or too long");
        server->reply[i] = (int64_t)lua_tonumber(lua, -1);
        lua_pop(lua, 1);
    }
}

int lua_server_run(struct lua_server *server, const char *command, size_t len, int64_t now_us,
                   int64_t values[STEADY__REPLY_MAX], size_t *count) {
    lua_State *lua = server->lua;
    server->now_us = now_us;
    server->writes = server->reads_after_write = 0;
    strcpy(server->error, "the reply is wrong"); /* unless the script fails */
    for (size_t i = 0; i < STEADY__PARTS_MAX; i++)
        server->slots[i].writes = 0;
    const int chunk = prepare(server, command, len);
    if (chunk == -1) return fail(server, "no such command or script");
    lua_rawgeti(lua, LUA_REGISTRYINDEX, chunk);
    if (lua_pcall(lua, 0, 1, 0) != 0) return fail(server, lua_tostring(lua, -1));
    if (take_reply(server) != 0) return -1;
    *count = server->reply_count;
    for (size_t i = 0; i < *count && i < STEADY__REPLY_MAX; i++)
        values[i] = server->reply[i];
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
