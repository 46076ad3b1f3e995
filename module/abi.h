/* SPDX-License-Identifier: MIT
 * The part of the documented modules API that the module uses: Redis 7.0 and later, and Valkey.
 *
 * The context that RedisModule_OnLoad gets begins with the address of a function. That function finds the others by
 * name. */
#ifndef STEADY__MODULE_ABI_H
#define STEADY__MODULE_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef struct server_context server_context; /* RedisModuleCtx */
typedef struct server_string server_string;   /* RedisModuleString */
typedef struct server_key server_key;         /* RedisModuleKey */
typedef struct server_command server_command; /* RedisModuleCommand */
typedef struct server_info server_info;       /* RedisModuleInfoCtx */
typedef struct server_reply server_reply;     /* RedisModuleCallReply */
typedef struct server_fields server_fields;   /* RedisModuleServerInfoData */

typedef int command_function(server_context *context, server_string **argv, int argc);
typedef void info_function(server_info *info, int for_crash_report);

enum { SERVER_OK = 0, SERVER_ERR = 1 };
enum { SERVER_API_VERSION = 1 };
enum { OPEN_READ = 1 << 0, OPEN_WRITE = 1 << 1 };
enum { KEY_EMPTY = 0, KEY_STRING = 1 };
enum { IN_LUA = 1 << 0, IN_MULTI = 1 << 1 }; /* context flags */
enum { NOTIFY_GENERIC = 1 << 2, NOTIFY_STRING = 1 << 3 };
enum { OPTION_SIGNAL_BY_HAND = 1 << 1, OPTION_ASYNC_LOADING = 1 << 2 };

/* ---- The description of a command ---- */

enum { KEY_READ_ONLY = 1 << 0, KEY_READ_WRITE = 1 << 1, KEY_REMOVED = 1 << 3 }; /* the effect on the key */
enum { KEY_ACCESSED = 1 << 4, KEY_UPDATED = 1 << 5, KEY_DELETED = 1 << 7 };     /* the effect on its data */
enum { BEGIN_AT_INDEX = 2 };
enum { FIND_RANGE = 2, FIND_COUNTED = 3 }; /* counted: a number of keys, then the keys */
enum { ARG_INTEGER = 1, ARG_KEY = 3, ARG_WORD = 6, ARG_ONE_OF = 7, ARG_BLOCK = 8 };
enum { ARG_OPTIONAL = 1 << 0, ARG_MULTIPLE = 1 << 1, ARG_MULTIPLE_TOKEN = 1 << 2 };

struct command_version {
    int version;
    size_t history_size, key_spec_size, argument_size; /* of the structs below */
};

struct command_key_spec {
    const char *notes;
    uint64_t flags;
    int begin_type;
    union {
        struct {
            int position;
        } index;
        struct {
            const char *keyword;
            int start_from;
        } keyword;
    } begin;
    int find_type;
    union {
        struct {
            int last_key, step, limit;
        } range;
        struct {
            int index, first_key, step;
        } count;
    } find;
};

struct command_argument {
    const char *name;
    int type;
    int key_spec;
    const char *token;
    const char *summary;
    const char *since;
    int flags;
    const char *deprecated_since;
    const struct command_argument *arguments;
    const char *display_text;
};

struct command_info {
    const struct command_version *version;
    const char *summary;
    const char *complexity;
    const char *since;
    const void *history;
    const char *tips;
    int arity;
    const struct command_key_spec *key_specs;
    const struct command_argument *arguments;
};

/* ---- Functions ---- */

/* X(result, name, arguments): all are in 7.0, the oldest supported version. */
#define SERVER_FUNCTIONS(X)                                                                                            \
    X(int, IsModuleNameBusy, (const char *name))                                                                       \
    X(void, SetModuleAttribs, (server_context *, const char *name, int version, int api_version))                      \
    X(void, SetModuleOptions, (server_context *, int options))                                                         \
    X(int, CreateCommand,                                                                                              \
      (server_context *, const char *name, command_function *, const char *flags, int first, int last, int step))      \
    X(server_command *, GetCommand, (server_context *, const char *name))                                              \
    X(int, SetCommandInfo, (server_command *, const struct command_info *))                                            \
    X(int, RegisterInfoFunc, (server_context *, info_function *))                                                      \
    X(int, InfoAddSection, (server_info *, const char *name))                                                          \
    X(int, InfoAddFieldULongLong, (server_info *, const char *field, unsigned long long value))                        \
    X(server_fields *, GetServerInfo, (server_context *, const char *section))                                         \
    X(long long, ServerInfoGetFieldSigned, (server_fields *, const char *field, int *error))                           \
    X(void, FreeServerInfo, (server_context *, server_fields *))                                                       \
    X(int, GetContextFlags, (server_context *))                                                                        \
    X(int, IsKeysPositionRequest, (server_context *))                                                                  \
    X(void, KeyAtPosWithFlags, (server_context *, int position, int flags))                                            \
    X(server_string *, CreateString, (server_context *, const char *bytes, size_t len))                                \
    X(void, FreeString, (server_context *, server_string *))                                                           \
    X(const char *, StringPtrLen, (const server_string *, size_t *len))                                                \
    X(int, StringToLongLong, (const server_string *, long long *number))                                               \
    X(server_key *, OpenKey, (server_context *, server_string * name, int mode))                                       \
    X(void, CloseKey, (server_key *))                                                                                  \
    X(int, KeyType, (server_key *))                                                                                    \
    X(int, DeleteKey, (server_key *))                                                                                  \
    X(int, SetAbsExpire, (server_key *, long long unix_ms))                                                            \
    X(char *, StringDMA, (server_key *, size_t * len, int mode))                                                       \
    X(int, StringTruncate, (server_key *, size_t len))                                                                 \
    X(int, SignalModifiedKey, (server_context *, server_string * name))                                                \
    X(int, NotifyKeyspaceEvent, (server_context *, int type, const char *event, server_string *name))                  \
    X(int, Replicate, (server_context *, const char *command, const char *format, ...))                                \
    X(server_reply *, Call, (server_context *, const char *command, const char *format, ...))                          \
    X(size_t, CallReplyLength, (server_reply *))                                                                       \
    X(server_reply *, CallReplyArrayElement, (server_reply *, size_t index))                                           \
    X(const char *, CallReplyStringPtr, (server_reply *, size_t * len))                                                \
    X(void, FreeCallReply, (server_reply *))                                                                           \
    X(int, ReplyWithArray, (server_context *, long len))                                                               \
    X(int, ReplyWithLongLong, (server_context *, long long number))                                                    \
    X(int, ReplyWithError, (server_context *, const char *text))

/* These two came with 7.2. They are NULL in older servers. */
#define SERVER_FUNCTIONS_7_2(X)                                                                                        \
    X(long long, CachedMicroseconds, (void))                                                                           \
    X(int, SetCommandACLCategories, (server_command *, const char *categories))

struct server_functions {
#define MEMBER(result, name, arguments) result(*name) arguments;
    SERVER_FUNCTIONS(MEMBER)
    SERVER_FUNCTIONS_7_2(MEMBER)
#undef MEMBER
    void (*Log)(server_context *, const char *level, const char *format, ...); /* in every version */
};

/* The functions of the server that has loaded the module. */
extern struct server_functions steady__server;

/* Fills steady__server. Returns NULL, or the name of a function that the server lacks. */
const char *steady__server_bind(server_context *context);

#endif
