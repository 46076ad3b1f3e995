/* SPDX-License-Identifier: MIT
 * What is said on a new connection before anything else, and what the answers mean. Bytes only. */
#ifndef STEADY__HANDSHAKE_H
#define STEADY__HANDSHAKE_H

#include "reply.h"
#include "url.h"

/* In the order in which they are said. */
enum steady__greeting { STEADY__GREETING_AUTH, STEADY__GREETING_SELECT, STEADY__GREETING_ROLE };
#define STEADY__GREETINGS 3

/* What the server has to be. */
enum steady__role { STEADY__ROLE_ANY, STEADY__ROLE_PRIMARY, STEADY__ROLE_REPLICA };

/* Writes a greeting to where there is room for STEADY__URL_MAX + 128 bytes; 0: the URL and the role want none. */
size_t steady__greeting_say(char *out, enum steady__greeting which, const struct steady__url *url,
                            enum steady__role role);

enum steady__welcome {
    STEADY__WELCOME,
    STEADY__WELCOME_UNSURE,  /* the server does not say what its role is */
    STEADY__WELCOME_NOT_NOW, /* it cannot be used: it waits for something, or has another role, or makes no sense */
    STEADY__WELCOME_NEVER,   /* it does not want us */
};

/* What the answer to a greeting means; `why` says so without a secret where it is no welcome. */
enum steady__welcome steady__greeting_heard(enum steady__greeting which, const struct steady__url *url,
                                            enum steady__role role, const struct steady__reply *reply, char *why,
                                            size_t why_size);

/* A server that lets nobody in may say so before it is asked, or to whatever is asked first: why, in words that hold
 * nothing it was sent; NULL: that is not what it says. */
const char *steady__greeting_turned_away(const struct steady__reply *reply);

#endif
