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

/* A script's reply is one integer, or in rare cases an array of four, see lua/report.lua; the module's one of five. */
#define STEADY__REPLY_MAX 5

/* Makes a result of the integer, or integers, of a reply. False: that is no reply of our scripts, and the connection is
 * not to be trusted. *stepped: the server saw its clock step back. */
bool steady__command_script_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                  steady_result *result, bool *stepped);

/* The same decision as a command of the module steady.so: STEADY__COMMAND_MAX bytes at most; and what its reply means.
 * Whether the clock stepped is known to the server alone. */
size_t steady__command_module(char *out, const struct steady__call *call);
bool steady__command_module_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                  steady_result *result);

/* Whether an error reply says that the command is not for us: a right to it is missing, or to one inside the script. */
bool steady__error_is_forbidden_command(const char *error, size_t len);

/* Lets a server of a cluster answer the next command for a slot that it is only about to get. Whatever it is answered
 * with itself, nobody wants to know. */
#define STEADY__ASKING "*1\r\n$6\r\nASKING\r\n"

/* What an error reply means for the decision it answers. In each case nothing was charged: the scripts write once,
 * last. */
enum steady__error_class {
    STEADY__ERROR_CLASS_NOSCRIPT,      /* load the script, send again */
    STEADY__ERROR_CLASS_MOVED,         /* wrong node: MOVED, ASK */
    STEADY__ERROR_CLASS_READONLY,      /* not the primary any more: connect anew */
    STEADY__ERROR_CLASS_BUSY,          /* LOADING BUSY MASTERDOWN: unavailable, like all that is asked for a while */
    STEADY__ERROR_CLASS_RETRY_LATER,   /* OOM MISCONF NOREPLICAS CLUSTERDOWN TRYAGAIN: unavailable */
    STEADY__ERROR_CLASS_NO_PERMISSION, /* NOAUTH WRONGPASS NOPERM, and a script's commands forbidden: refused */
    STEADY__ERROR_CLASS_NOT_A_BUCKET,  /* WRONGTYPE, and the scripts' own NOTABUCKET: not a bucket */
    STEADY__ERROR_CLASS_REJECTED,      /* DENIED, max number of clients: as if it had not connected */
    STEADY__ERROR_CLASS_OTHER,         /* anything else: server */
};

enum steady__error_class steady__error_class_of(const char *error, size_t len);

/* Whether it passes by itself: it is about the server's state, and not about us or what we ask. */
static inline bool steady__error_class_is_temporary(enum steady__error_class error_class) {
    return error_class == STEADY__ERROR_CLASS_BUSY || error_class == STEADY__ERROR_CLASS_RETRY_LATER ||
           error_class == STEADY__ERROR_CLASS_REJECTED;
}

/* The error code that a refusal ends as, where it is not healed. */
int steady__error_class_code(enum steady__error_class error_class);

#endif
