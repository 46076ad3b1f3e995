/* SPDX-License-Identifier: MIT
 * The entry points of the module: loading with arguments, unloading, and its section of INFO. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "clock.h"
#include "commands.h"
#include "core/error.h"
#include "decide.h"
#include "unload.h"

#define NAME "steady"
#define VERSION (STEADY_VERSION_MAJOR * 10000 + STEADY_VERSION_MINOR * 100 + STEADY_VERSION_PATCH)

static struct steady__moment loaded_at;

static void module_show_info(server_info *info, int for_crash_report) {
    const struct server_functions *s = &steady__server;
    const struct steady__counters *c = steady__decide_counters();
    (void)for_crash_report;
    s->InfoAddSection(info, "");
    s->InfoAddFieldULongLong(info, "decisions", c->decisions);
    s->InfoAddFieldULongLong(info, "allowed", c->allowed);
    s->InfoAddFieldULongLong(info, "denied", c->denied);
    s->InfoAddFieldULongLong(info, "blocked", c->blocked);
    s->InfoAddFieldULongLong(info, "not_a_bucket", c->not_a_bucket);
    s->InfoAddFieldULongLong(info, "clock_steps", c->clock_steps);
}

static bool module_is(const server_string *argument, const char *word) {
    size_t len = 0;
    const char *text = steady__server.StringPtrLen(argument, &len);
    return strnlen(word, len + 1) == len && strncasecmp(word, text, len) == 0;
}

/* cl-throttle yes|no */
static bool module_read_arguments(server_context *context, server_string **argv, int argc, bool *with_throttle) {
    *with_throttle = true;
    if (argc == 0) return true;
    if (argc == 2 && module_is(argv[0], "cl-throttle") && (module_is(argv[1], "yes") || module_is(argv[1], "no"))) {
        *with_throttle = module_is(argv[1], "yes");
        return true;
    }
    steady__server.Log(context, "warning", NAME ": the only argument is: cl-throttle yes|no");
    return false;
}

__attribute__((visibility("default"))) int RedisModule_OnLoad(server_context *context, server_string **argv, int argc);

int RedisModule_OnLoad(server_context *context, server_string **argv, int argc) {
    bool with_throttle = true;
    const char *lacking = steady__server_bind(context);
    const struct server_functions *s = &steady__server;
    if (lacking != NULL) {
        s->Log(context, "warning", NAME ": this server lacks RedisModule_%s; use Redis 7.0 or Valkey 7.2, or later",
               lacking);
        return SERVER_ERR;
    }
    if (s->IsModuleNameBusy(NAME)) {
        s->Log(context, "warning", NAME ": the module is loaded already");
        return SERVER_ERR;
    }
    s->SetModuleAttribs(context, NAME, VERSION, SERVER_API_VERSION);
    if (!module_read_arguments(context, argv, argc, &with_throttle)) return SERVER_ERR;
    s->SetModuleOptions(context, OPTION_SIGNAL_BY_HAND | OPTION_ASYNC_LOADING);
    s->RegisterInfoFunc(context, module_show_info);
    if (steady__commands_register(context, with_throttle) != SERVER_OK) return SERVER_ERR;
    steady__decide_start();
    loaded_at = steady__clock_moment(context);
    return SERVER_OK;
}

__attribute__((visibility("default"))) int RedisModule_OnUnload(server_context *context);

/* MODULE LOADEX with settings that the server does not accept loads and unloads the module in one command. No
 * connection knows the commands then, so unloading is safe. If it were refused, Redis would stop with a failed
 * assertion. */
int RedisModule_OnUnload(server_context *context) {
    const bool undone = steady__clock_same(steady__clock_moment(context), loaded_at);
    if (!steady__unload_is_safe(context, steady__commands_names(), undone)) return SERVER_ERR;
    steady__decide_stop();
    return SERVER_OK;
}
