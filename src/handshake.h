/* SPDX-License-Identifier: MIT
 * What is said on a new connection before anything else, and what the answers mean. Bytes only. */
#ifndef STEADY__HANDSHAKE_H
#define STEADY__HANDSHAKE_H

#include "reply.h"
#include "url.h"

/* In the order in which they are said. */
enum steady__handshake_step { STEADY__HANDSHAKE_AUTH, STEADY__HANDSHAKE_SELECT, STEADY__HANDSHAKE_ROLE };
#define STEADY__HANDSHAKE_STEPS 3

/* What the server has to be. */
enum steady__role { STEADY__ROLE_ANY, STEADY__ROLE_PRIMARY, STEADY__ROLE_REPLICA };

/* Writes a greeting to where there is room for STEADY__URL_MAX + 128 bytes; 0: the URL and the role want none. */
size_t steady__handshake_encode(char *out, enum steady__handshake_step which, const struct steady__url *url,
                                enum steady__role role);

enum steady__handshake_outcome {
    STEADY__HANDSHAKE_OK,
    STEADY__HANDSHAKE_ROLE_UNKNOWN, /* the server does not say what its role is */
    STEADY__HANDSHAKE_FAILED,  /* it cannot be used: it waits for something, or has another role, or makes no sense */
    STEADY__HANDSHAKE_REFUSED, /* it does not want us */
};

/* What the answer to a greeting means; `why` says so without a secret where it is no welcome. */
enum steady__handshake_outcome steady__handshake_reply(enum steady__handshake_step which, const struct steady__url *url,
                                                       enum steady__role role, const struct steady__reply *reply,
                                                       char *why, size_t why_size);

/* A server that lets nobody in may say so before it is asked, or to whatever is asked first: why, in words that hold
 * nothing it was sent; NULL: that is not what it says. */
const char *steady__handshake_rejection(const struct steady__reply *reply);

#endif
