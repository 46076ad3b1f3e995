/* SPDX-License-Identifier: MIT
 * Registers the commands, with their data for COMMAND DOCS, cluster routing and ACL rules. */
#include "clock.h"
#include "commands.h"

#include <stdbool.h>

#define SINCE "26.12.0"
/* Keys from the first argument up to `last`, which is relative to it, or -1: up to the end. */
#define KEYS(what, last)                                                                                               \
    (const struct command_key_spec[]) {                                                                                \
        {.flags = (what),                                                                                              \
         .begin_type = BEGIN_AT_INDEX,                                                                                 \
         .begin.index.position = 1,                                                                                    \
         .find_type = FIND_RANGE,                                                                                      \
         .find.range = {.last_key = (last), .step = 1}},                                                               \
            {0},                                                                                                       \
    }
#define KEY(what) KEYS(what, 0)
/* numkeys key [key ...] */
#define COUNTED_KEYS(what)                                                                                             \
    (const struct command_key_spec[]) {                                                                                \
        {.flags = (what),                                                                                              \
         .begin_type = BEGIN_AT_INDEX,                                                                                 \
         .begin.index.position = 1,                                                                                    \
         .find_type = FIND_COUNTED,                                                                                    \
         .find.count = {.index = 0, .first_key = 1, .step = 1}},                                                       \
            {0},                                                                                                       \
    }
#define KEY_ARGUMENT                                                                                                   \
    { .name = "key", .type = ARG_KEY }
#define KEY_ARGUMENTS                                                                                                  \
    { .name = "key", .type = ARG_KEY, .flags = ARG_MULTIPLE }
#define INTEGER(n)                                                                                                     \
    { .name = (n), .type = ARG_INTEGER, .key_spec = -1 }
#define OPTION(n, t)                                                                                                   \
    { .name = (n), .type = ARG_INTEGER, .key_spec = -1, .token = (t), .flags = ARG_OPTIONAL }
#define NEEDED_OPTION(n, t)                                                                                            \
    { .name = (n), .type = ARG_INTEGER, .key_spec = -1, .token = (t) }
#define WORD(n, t)                                                                                                     \
    { .name = (n), .type = ARG_WORD, .key_spec = -1, .token = (t) }
#define PARTS(fields)                                                                                                  \
    {                                                                                                                  \
        .name = "part", .type = ARG_BLOCK, .key_spec = -1, .token = "PART",                                            \
        .flags = ARG_MULTIPLE | ARG_MULTIPLE_TOKEN, .arguments = (fields)                                              \
    }

static const struct command_argument kinds[] = {
    WORD("take", "take"), WORD("look", "look"), WORD("charge", "charge"), WORD("shadow", "shadow"), {0}};
static const struct command_argument part_fields[] = {
    INTEGER("max_capacity"),
    INTEGER("drop_recharge_us"),
    OPTION("drops", "DROPS"),
    OPTION("block_duration_us", "BLOCK"),
    OPTION("amount", "AMOUNT"),
    {.name = "kind", .type = ARG_ONE_OF, .key_spec = -1, .token = "KIND", .flags = ARG_OPTIONAL, .arguments = kinds},
    {0}};
static const struct command_argument parts_arguments[] = {INTEGER("numkeys"),
                                                          KEY_ARGUMENTS,
                                                          OPTION("max_wait_us", "WAIT"),
                                                          OPTION("at_least", "ATLEAST"),
                                                          PARTS(part_fields),
                                                          {0}};
static const struct command_argument settlement_fields[] = {
    INTEGER("max_capacity"),
    INTEGER("drop_recharge_us"),
    OPTION("drops", "DROPS"),
    NEEDED_OPTION("reserved", "RESERVED"),
    NEEDED_OPTION("moment_us", "MOMENT"),
    NEEDED_OPTION("actual", "ACTUAL"),
    {.name = "other_rate", .type = ARG_WORD, .key_spec = -1, .token = "OTHERRATE", .flags = ARG_OPTIONAL},
    {0}};

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
      KEY(KEY_READ_WRITE | KEY_ACCESSED | KEY_UPDATED),
      (const struct command_argument[]){KEY_ARGUMENT,
                                        INTEGER("max_capacity"),
                                        INTEGER("drop_recharge_us"),
                                        OPTION("drops", "DROPS"),
                                        OPTION("block_duration_us", "BLOCK"),
                                        OPTION("amount", "AMOUNT"),
                                        OPTION("max_wait_us", "WAIT"),
                                        OPTION("at_least", "ATLEAST"),
                                        {0}}}},
    {"steady.peek",
     steady__command_peek,
     "readonly fast",
     "read string fast",
     {&version, "Returns whether one drop would fit into a leaky bucket, and its state.", "O(1)", SINCE, NULL,
      "nondeterministic_output", -4, KEY(KEY_READ_ONLY | KEY_ACCESSED),
      (const struct command_argument[]){
          KEY_ARGUMENT, INTEGER("max_capacity"), INTEGER("drop_recharge_us"), OPTION("drops", "DROPS"), {0}}}},
    {"steady.reset",
     steady__command_reset,
     "write fast",
     "write string fast",
     {&version, "Deletes leaky buckets.", "O(N) with the number N of keys", SINCE, NULL, NULL, -2,
      KEYS(KEY_REMOVED | KEY_DELETED, -1), (const struct command_argument[]){KEY_ARGUMENTS, {0}}}},
    {"steady.consumeall",
     steady__command_consume_all,
     "write deny-oom fast getkeys-api",
     "write string fast",
     {&version, "Puts drops into several leaky buckets if they fit into all.", "O(N) with the number N of keys", SINCE,
      NULL, "nondeterministic_output", -6, COUNTED_KEYS(KEY_READ_WRITE | KEY_ACCESSED | KEY_UPDATED), parts_arguments}},
    {"steady.peekall",
     steady__command_peek_all,
     "readonly fast getkeys-api",
     "read string fast",
     {&version, "Returns what STEADY.CONSUMEALL would answer.", "O(N) with the number N of keys", SINCE, NULL,
      "nondeterministic_output", -6, COUNTED_KEYS(KEY_READ_ONLY | KEY_ACCESSED), parts_arguments}},
    {"steady.settle",
     steady__command_settle,
     "write deny-oom fast getkeys-api",
     "write string fast",
     {&version, "Corrects leaky buckets by the true cost of a reservation.", "O(N) with the number N of keys", SINCE,
      NULL, "nondeterministic_output", -12, COUNTED_KEYS(KEY_READ_WRITE | KEY_ACCESSED | KEY_UPDATED),
      (const struct command_argument[]){INTEGER("numkeys"), KEY_ARGUMENTS, PARTS(settlement_fields), {0}}}},
};

static const struct command throttle = {
    "cl.throttle",
    steady__command_throttle,
    "write deny-oom fast",
    "write string fast",
    {&version, "Limits a rate, with the arguments and the reply of redis-cell.", "O(1)", SINCE, NULL,
     "nondeterministic_output", -5, KEY(KEY_READ_WRITE | KEY_ACCESSED | KEY_UPDATED),
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
    /* The key specs below tell more than these three numbers. */
    const int first = c->info.key_specs->find_type == FIND_RANGE;
    if (s->CreateCommand(context, c->name, c->function, c->flags, first, first, first) != SERVER_OK) return false;
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
