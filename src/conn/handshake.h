/* SPDX-License-Identifier: MIT
 * The handshake of a new connection: AUTH, CLIENT SETNAME, SELECT, ROLE. This file encodes the commands and reads the
 * replies. It does no I/O. */
#ifndef STEADY__HANDSHAKE_H
#define STEADY__HANDSHAKE_H

#include "conn/reply.h"
#include "core/url.h"

/* In the order in which they are sent. */
enum steady__handshake_step {
    STEADY__HANDSHAKE_AUTH,
    STEADY__HANDSHAKE_NAME,
    STEADY__HANDSHAKE_SELECT,
    STEADY__HANDSHAKE_ROLE
};
#define STEADY__HANDSHAKE_STEPS 4

/* The role that the server must have. */
enum steady__role { STEADY__ROLE_ANY, STEADY__ROLE_PRIMARY, STEADY__ROLE_REPLICA };

/* Writes the command of a step; `out` has room for STEADY__URL_MAX + 128 bytes. 0: this URL,
 * name and role need no such step. client_name: NULL if the client has no name. */
size_t steady__handshake_encode(char *out, enum steady__handshake_step which, const struct steady__url *url,
                                const char *client_name, enum steady__role role);

enum steady__handshake_outcome {
    STEADY__HANDSHAKE_OK,
    STEADY__HANDSHAKE_ROLE_UNKNOWN, /* the server does not tell its role */
    STEADY__HANDSHAKE_NAME_REFUSED, /* the server sets no name; the connection is usable */
    STEADY__HANDSHAKE_FAILED,       /* unusable for now: busy, another role, or a reply that makes no sense */
    STEADY__HANDSHAKE_REFUSED,      /* the server refuses the credentials */
};

/* Reads the reply to a step. Unless the outcome is OK, `why` gets a text without secrets. */
enum steady__handshake_outcome steady__handshake_reply(enum steady__handshake_step which, const struct steady__url *url,
                                                       enum steady__role role, const struct steady__reply *reply,
                                                       char *why, size_t why_size);

/* A server that accepts no more clients says so unasked, or in reply to the first request. Returns the reason as our
 * own text, or NULL if the reply is not such an error. */
const char *steady__handshake_rejection(const struct steady__reply *reply);

#endif
