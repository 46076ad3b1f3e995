/* SPDX-License-Identifier: MIT
 * A fake server that follows a script, for behaviour that no real server can be made to show. */
#ifndef FAKE_SERVER_H
#define FAKE_SERVER_H

#include <stddef.h>

enum fake_verb {
    FAKE_ACCEPT, /* accept the next connection */
    FAKE_EXPECT, /* read this number of commands */
    FAKE_SEND,   /* send these bytes */
    FAKE_DRIP,   /* send these bytes, one at a time */
    FAKE_SLEEP,  /* wait this number of ms */
    FAKE_CLOSE,
    FAKE_RST,
    FAKE_AWAIT_CLOSE, /* read and ignore everything until the peer closes */
};

struct fake_step {
    enum fake_verb verb;
    int number;
    const char *bytes;
    size_t len; /* 0: strlen(bytes) */
};

/* fake_start with no steps makes a server that only listens: the backlog accepts connections. */
struct fake_server;

struct fake_server *fake_start(const struct fake_step *steps, size_t count);
int fake_port(const struct fake_server *fake);

/* Waits for the end of the script. Returns the bytes received on all connections, in order. Valid until fake_stop. */
const char *fake_finish(struct fake_server *fake, size_t *len);

/* Waits for the end of the script. Returns how often the bytes received contain this text. */
unsigned fake_count(struct fake_server *fake, const char *text);

void fake_stop(struct fake_server *fake);

#endif
