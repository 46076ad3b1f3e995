/* SPDX-License-Identifier: MIT
 * Escapes of logs: servers write some bytes of a request in another way. */
#ifndef STEADY_REPLAY_FORMAT_ESCAPE_H
#define STEADY_REPLAY_FORMAT_ESCAPE_H

#include "rules/rules.h"

/* How the bytes of a field are written. */
enum format_escape {
    ESCAPE_NONE,
    ESCAPE_BACKSLASH, /* \xNN, \", \\, \n: nginx, Apache */
    ESCAPE_JSON,
    ESCAPE_HASH,    /* #NN: HAProxy */
    ESCAPE_PERCENT, /* %NN: CloudFront */
    ESCAPE_PLUS,    /* + is a space: IIS */
    ESCAPE_DOUBLED  /* "": CSV */
};

/* The byte that begins an escape. */
char format_escape_mark(enum format_escape escape);

/* Writes a text without its escapes; `out` has room for the text with them. */
struct rules_text format_escape_undo(char *out, struct rules_text raw, enum format_escape escape);

#endif
