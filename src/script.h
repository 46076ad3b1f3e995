/* SPDX-License-Identifier: MIT
 * The Lua scripts: their text and SHA-1, the commands that call them, what their replies mean. Bytes only. */
#ifndef STEADY__SCRIPT_H
#define STEADY__SCRIPT_H

#include "store.h"

struct steady__script {
    const char *text;
    size_t text_len;
    const char *sha1; /* 40 lower-case hex digits */
};

/* By enum steady__verb. */
extern const struct steady__script steady__scripts[3];

/* Fills terms->wire: the arguments of the limit, ready to send. */
void steady__script_terms(struct steady__terms *terms);

/* No command with a key of up to STEADY__KEY_MAX is longer. */
#define STEADY__COMMAND_MAX (STEADY__KEY_MAX + 512)

/* Writes EVALSHA for a decision; `out` has room for STEADY__COMMAND_MAX bytes. Returns how many it wrote. */
size_t steady__script_command(char *out, const struct steady__call *call);

/* The same decision as EVAL, with the script's text: STEADY__COMMAND_MAX + text_len bytes at most. */
size_t steady__script_eval(char *out, const struct steady__call *call);

/* SCRIPT LOAD: text_len + 64 bytes at most. */
size_t steady__script_load(char *out, enum steady__verb verb);

/* A script's reply is ONE INTEGER, or in rare cases an array of this many: see lua/report.lua. */
#define STEADY__REPLY_MAX 4

/* Makes a result of the integer, or integers, of a reply. False: that is no reply of our scripts, and the connection is
 * not to be trusted. *stepped: the server saw its clock step back. */
bool steady__script_reply(const struct steady__call *call, const int64_t *values, size_t count, steady_result *result,
                          bool *stepped);

/* What an error reply means for the decision it answers. In each case nothing was charged: the scripts write once,
 * last. */
enum steady__refusal {
    STEADY__REFUSAL_NOSCRIPT, /* load the script, send again */
    STEADY__REFUSAL_MOVED,    /* wrong node: MOVED, ASK */
    STEADY__REFUSAL_READONLY, /* not the primary any more: connect anew */
    STEADY__REFUSAL_WAIT,     /* LOADING BUSY OOM MISCONF NOREPLICAS MASTERDOWN CLUSTERDOWN TRYAGAIN: unavailable */
    STEADY__REFUSAL_AUTH,     /* NOAUTH WRONGPASS NOPERM, and a script's commands forbidden: refused */
    STEADY__REFUSAL_DATA,     /* WRONGTYPE, and the scripts' own NOTABUCKET: not a bucket */
    STEADY__REFUSAL_CLIENTS,  /* max number of clients reached: as if it had not connected */
    STEADY__REFUSAL_OTHER,    /* anything else: server */
};

enum steady__refusal steady__script_refusal(const char *error, size_t len);

/* The error code that a refusal ends as, where it is not healed. */
int steady__refusal_error(enum steady__refusal refusal);

#endif
