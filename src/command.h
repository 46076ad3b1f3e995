/* SPDX-License-Identifier: MIT
 * The Lua scripts and the module's commands: what is sent to call them, what their replies mean. Bytes only. */
#ifndef STEADY__COMMAND_H
#define STEADY__COMMAND_H

#include "store.h"

struct steady__script {
    const char *text;
    size_t text_len;
    const char *sha1; /* 40 lower-case hex digits */
};

/* By enum steady__verb. */
extern const struct steady__script steady__scripts[3];

/* Fills terms->wire: the arguments of the limit, ready to send. */
void steady__command_encode_limit(struct steady__terms *terms);

/* No command with a key of up to STEADY__KEY_MAX is longer. */
#define STEADY__COMMAND_MAX (STEADY__KEY_MAX + 512)

/* Writes EVALSHA for a decision; `out` has room for STEADY__COMMAND_MAX bytes. Returns how many it wrote. */
size_t steady__command_evalsha(char *out, const struct steady__call *call);

/* The same decision as EVAL, with the script's text: STEADY__COMMAND_MAX + text_len bytes at most. */
size_t steady__command_eval(char *out, const struct steady__call *call);

/* SCRIPT LOAD: text_len + 64 bytes at most. */
size_t steady__command_script_load(char *out, enum steady__verb verb);

/* Makes a result of the integer, or integers, of a reply. False: that is no reply of our scripts, and the connection is
 * not to be trusted. *stepped: the server saw its clock step back. */
bool steady__command_script_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                  steady_result *result, bool *stepped);

/* The same decision as a command of the module steady.so: STEADY__COMMAND_MAX bytes at most; and what its reply means.
 * Whether the clock stepped is known to the server alone. */
size_t steady__command_module(char *out, const struct steady__call *call);
bool steady__command_module_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                  steady_result *result);

#endif
