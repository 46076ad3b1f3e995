/* SPDX-License-Identifier: MIT
 * Registers the commands, with their data for COMMAND DOCS, cluster routing and ACL rules. */
#include "clock.h"
#include "commands.h"

#include <stdbool.h>

#define SINCE "0.1.0"
#define KEY_SPEC(what)                                                                                                 \
    (const struct command_key_spec[]) {                                                                                \
        {.flags = (what),                                                                                              \
         .begin_type = BEGIN_AT_INDEX,                                                                                 \
         .begin.index.position = 1,                                                                                    \
         .find_type = FIND_RANGE,                                                                                      \
         .find.range = {.last_key = 0, .step = 1}},                                                                    \
            {0},                                                                                                       \
    }
#define KEY_ARGUMENT                                                                                                   \
    { .name = "key", .type = ARG_KEY }
#define INTEGER(n)                                                                                                     \
    { .name = (n), .type = ARG_INTEGER, .key_spec = -1 }
#define OPTION(n, t)                                                                                                   \
    { .name = (n), .type = ARG_INTEGER, .key_spec = -1, .token = (t), .flags = ARG_OPTIONAL }

static const struct command_version version = {1, 2 * sizeof(char *), sizeof(struct command_key_spec),
                                               sizeof(struct command_argument)};

struct command {
    const char *name;
    command_function *function;
    const char *flags;
    const char *categories;
    struct command_info info;
};

static const struct command commands[] = {
    {"steady.consume",
     steady__command_consume,
     "write deny-oom fast",
     "write string fast",
     {&version, "Puts drops into a leaky bucket if they all fit.", "O(1)", SINCE, NULL, "nondeterministic_output", -4,
      KEY_SPEC(KEY_READ_WRITE | KEY_ACCESSED | KEY_UPDATED),
      (const struct command_argument[]){KEY_ARGUMENT,
                                        INTEGER("max_capacity"),
                                        INTEGER("drop_recharge_us"),
                                        OPTION("drops", "DROPS"),
                                        OPTION("block_duration_us", "BLOCK"),
                                        OPTION("amount", "AMOUNT"),
                                        {0}}}},
    {"steady.peek",
     steady__command_peek,
     "readonly fast",
     "read string fast",
     {&version, "Returns whether one drop would fit into a leaky bucket, and its state.", "O(1)", SINCE, NULL,
      "nondeterministic_output", -4, KEY_SPEC(KEY_READ_ONLY | KEY_ACCESSED),
      (const struct command_argument[]){
          KEY_ARGUMENT, INTEGER("max_capacity"), INTEGER("drop_recharge_us"), OPTION("drops", "DROPS"), {0}}}},
    {"steady.reset",
     steady__command_reset,
     "write fast",
     "write string fast",
     {&version, "Deletes a leaky bucket.", "O(1)", SINCE, NULL, NULL, 2, KEY_SPEC(KEY_REMOVED | KEY_DELETED),
      (const struct command_argument[]){KEY_ARGUMENT, {0}}}},
};

static const struct command throttle = {
    "cl.throttle",
    steady__command_throttle,
    "write deny-oom fast",
    "write string fast",
    {&version, "Limits a rate, with the arguments and the reply of redis-cell.", "O(1)", SINCE, NULL,
     "nondeterministic_output", -5, KEY_SPEC(KEY_READ_WRITE | KEY_ACCESSED | KEY_UPDATED),
     (const struct command_argument[]){KEY_ARGUMENT,
                                       INTEGER("max_burst"),
                                       INTEGER("count"),
                                       INTEGER("period_s"),
                                       {.name = "quantity", .type = ARG_INTEGER, .key_spec = -1, .flags = ARG_OPTIONAL},
                                       {0}}}};

static const char *names[sizeof commands / sizeof commands[0] + 2]; /* of the registered commands */
static size_t count;

const char *const *steady__commands_names(void) { return names; }

/* False: another module has this name. */
static bool register_add(server_context *context, const struct command *c) {
    const struct server_functions *s = &steady__server;
    if (s->CreateCommand(context, c->name, c->function, c->flags, 1, 1, 1) != SERVER_OK) return false;
    names[count++] = c->name;
    server_command *command = s->GetCommand(context, c->name);
    s->SetCommandInfo(command, &c->info);
    if (s->SetCommandACLCategories != NULL) s->SetCommandACLCategories(command, c->categories);
    return true;
}

int steady__commands_register(server_context *context, int with_throttle) {
    count = 0;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (register_add(context, &commands[i])) continue;
        steady__server.Log(context, "warning", "steady: another module has %s: not loaded", commands[i].name);
        return SERVER_ERR;
    }
    if (with_throttle && !register_add(context, &throttle))
        steady__server.Log(context, "notice", "steady: another module has %s, and keeps it", throttle.name);
#ifdef STEADY_TEST_CLOCK
    steady__server.CreateCommand(context, "steady.clock", steady__clock_command, "fast", 0, 0, 0);
#endif
    return SERVER_OK;
}
