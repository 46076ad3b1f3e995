/* SPDX-License-Identifier: MIT
 * The commands of a decision, to the scripts and to the module: their bytes and their replies. No I/O. */
#ifndef STEADY__COMMAND_H
#define STEADY__COMMAND_H

#include "store.h"

struct steady__script {
    const char *text;
    size_t text_len;
    const char *sha1; /* 40 lower-case hex digits */
};

/* By enum steady__verb. */
extern const struct steady__script steady__scripts[STEADY__VERBS];

/* Fills terms->encoded with the arguments of the limit, ready to send. */
void steady__command_encode_limit(struct steady__terms *terms);

/* No command with a key of up to STEADY__KEY_MAX is longer. */
#define STEADY__COMMAND_MAX (STEADY__KEY_MAX + 512)

/* No EVALSHA and no command to the module is longer, of a call with this group. eval: no EVAL either. At most
 * STEADY__GROUP_COMMAND_MAX. */
#define STEADY__GROUP_COMMAND_MAX 98000
size_t steady__command_group_room(const struct steady__call *call, bool eval);

/* Writes EVALSHA for a decision; `out` has room for STEADY__COMMAND_MAX bytes, or for those of its group. Returns the
 * bytes written. */
size_t steady__command_evalsha(char *out, const struct steady__call *call);

/* Writes the argument of the script for a call on one key. Returns the bytes written. */
#define STEADY__COMMAND_ARGUMENT_MAX 29 /* also of a part of a group */
size_t steady__command_argument(char *out, const struct steady__call *call);

/* The same decision as EVAL, with the text of the script: at most STEADY__COMMAND_MAX + text_len bytes, or those of its
 * group. */
size_t steady__command_eval(char *out, const struct steady__call *call);

/* SCRIPT LOAD: at most text_len + STEADY__SCRIPT_LOAD_MAX bytes. */
#define STEADY__SCRIPT_LOAD_MAX 64
size_t steady__command_script_load(char *out, enum steady__verb verb);

/* Turns the integers of a reply into a result. False if our scripts have no such reply; then the connection cannot be
 * trusted. *stepped: the server's clock stepped back. */
bool steady__command_script_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                  steady_result *result, bool *stepped);

/* The same decision as a command of the module: at most STEADY__COMMAND_MAX bytes, or those of its group; and its
 * reply. The reply does not tell whether the clock stepped back. */
size_t steady__command_module(char *out, const struct steady__call *call);
bool steady__command_module_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                  steady_result *result);

/* The same for the reply to a call with a group. They fill the results of its members, too. After a false the results
 * hold anything. *stepped: how many buckets were ahead of the server's clock. */
bool steady__command_group_script_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                        steady_result *result, unsigned *stepped);
bool steady__command_group_module_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                        steady_result *result);

#endif
