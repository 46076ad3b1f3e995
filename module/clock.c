/* SPDX-License-Identifier: MIT
 * The time of the server: the moment at which the outermost command began. The outermost command is the transaction or
 * script around a command, or the command itself. Redis 7.2 and Valkey return it at once. Redis 7.0 has it only in
 * INFO, which is slow; it is used only inside a transaction or script, and the system clock otherwise. */
#include "clock.h"

#include <time.h>

#ifdef STEADY_TEST_CLOCK
static long long test_time_us;

int steady__clock_command(server_context *context, server_string **argv, int argc) {
    if (argc != 2 || steady__server.StringToLongLong(argv[1], &test_time_us) != SERVER_OK)
        return steady__server.ReplyWithError(context, "ERR STEADY.CLOCK needs a time in us");
    return steady__server.ReplyWithLongLong(context, test_time_us);
}
#endif

static int64_t clock_real_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t clock_info(server_context *context, const char *section, const char *field) {
    int error = 0;
    server_fields *fields = steady__server.GetServerInfo(context, section);
    const int64_t value = steady__server.ServerInfoGetFieldSigned(fields, field, &error);
    steady__server.FreeServerInfo(context, fields);
    return value;
}

static int64_t clock_info_us(server_context *context) { return clock_info(context, "server", "server_time_usec"); }

struct steady__moment steady__clock_moment(server_context *context) {
    const bool cached = steady__server.CachedMicroseconds != NULL;
    return (struct steady__moment){.us = cached ? steady__server.CachedMicroseconds() : clock_info_us(context),
                                   .commands = clock_info(context, "stats", "total_commands_processed")};
}

bool steady__clock_same(struct steady__moment a, struct steady__moment b) {
    return a.us == b.us && a.commands == b.commands;
}

int64_t steady__clock_us(server_context *context) {
#ifdef STEADY_TEST_CLOCK
    if (test_time_us != 0) return test_time_us;
#endif
    if (steady__server.CachedMicroseconds != NULL) return steady__server.CachedMicroseconds();
    return (steady__server.GetContextFlags(context) & (IN_LUA | IN_MULTI)) != 0 ? clock_info_us(context)
                                                                                : clock_real_us();
}
