/* SPDX-License-Identifier: MIT
 * The lower limit of the cost of STEADY.CONSUME: the same calls of the server, with constants instead of the algorithm.
 * scripts/bench compares it with the commands of steady.so. The constants have as many digits as the numbers there,
 * because the server takes longer to write longer numbers.
 *
 *     FLOOR.REPLY        replies with five integers
 *     FLOOR.READ key     also opens a key for writing, and reads it, as a denied consume does
 *     FLOOR.WRITE key    also writes it, sets its expiry, replicates and announces, as an allowed consume does */
#include <string.h>

#include "abi.h"

static const char text[] = "3 1764000000.250000 0";
static const char expires_ms[] = "4102444800000";
static server_string *pxat;

static const long long allowed[] = {1, 20000, 1000000, 0, 0}, denied[] = {0, 10, 3599000000, 0, 3599000000};

static int reply_with(server_context *context, const long long *values) {
    steady__server.ReplyWithArray(context, 5);
    for (int i = 0; i < 5; i++)
        steady__server.ReplyWithLongLong(context, values[i]);
    return SERVER_OK;
}

static int reply(server_context *context, server_string **argv, int argc) {
    (void)argv, (void)argc;
    return reply_with(context, allowed);
}

static server_key *open_key(server_context *context, server_string *name, char **data, size_t *len) {
    server_key *key = steady__server.OpenKey(context, name, OPEN_READ | OPEN_WRITE);
    if (steady__server.KeyType(key) == KEY_STRING) *data = steady__server.StringDMA(key, len, OPEN_WRITE);
    return key;
}

static int read_key(server_context *context, server_string **argv, int argc) {
    char *data = NULL;
    size_t len = 0;
    (void)argc;
    steady__server.CloseKey(open_key(context, argv[1], &data, &len));
    return reply_with(context, denied);
}

static int write_key(server_context *context, server_string **argv, int argc) {
    char *data = NULL;
    size_t len = 0;
    server_key *key = open_key(context, argv[1], &data, &len);
    if (len != sizeof text - 1) {
        steady__server.StringTruncate(key, sizeof text - 1);
        data = steady__server.StringDMA(key, &len, OPEN_WRITE);
    }
    memcpy(data, text, sizeof text - 1);
    steady__server.SetAbsExpire(key, 4102444800000);
    steady__server.CloseKey(key);
    steady__server.SignalModifiedKey(context, argv[1]);
    steady__server.Replicate(context, "SET", "sbsb", argv[1], text, sizeof text - 1, pxat, expires_ms,
                             sizeof expires_ms - 1);
    steady__server.NotifyKeyspaceEvent(context, NOTIFY_STRING, "set", argv[1]);
    steady__server.NotifyKeyspaceEvent(context, NOTIFY_GENERIC, "expire", argv[1]);
    (void)argc;
    return reply_with(context, allowed);
}

__attribute__((visibility("default"))) int RedisModule_OnLoad(server_context *context, server_string **argv, int argc);

int RedisModule_OnLoad(server_context *context, server_string **argv, int argc) {
    (void)argv, (void)argc;
    if (steady__server_bind(context) != NULL) return SERVER_ERR;
    const struct server_functions *s = &steady__server;
    s->SetModuleAttribs(context, "floor", 1, SERVER_API_VERSION);
    s->SetModuleOptions(context, OPTION_SIGNAL_BY_HAND);
    s->CreateCommand(context, "floor.reply", reply, "fast", 0, 0, 0);
    s->CreateCommand(context, "floor.read", read_key, "write fast", 1, 1, 1);
    s->CreateCommand(context, "floor.write", write_key, "write deny-oom fast", 1, 1, 1);
    pxat = s->CreateString(NULL, "PXAT", 4);
    return SERVER_OK;
}
