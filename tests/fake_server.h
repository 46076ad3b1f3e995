/* SPDX-License-Identifier: MIT
 * A server that does what a script says, for what no real one can be made to do. */
#ifndef FAKE_SERVER_H
#define FAKE_SERVER_H

#include <stddef.h>

enum fake_verb {
    FAKE_ACCEPT, /* the next connection */
    FAKE_EXPECT, /* that many commands */
    FAKE_SEND,   /* these bytes */
    FAKE_DRIP,   /* these bytes, one at a time */
    FAKE_SLEEP,  /* that many ms */
    FAKE_CLOSE,
    FAKE_RST,
    FAKE_AWAIT_CLOSE, /* until the peer has closed; whatever it sends is read */
};

struct fake_step {
    enum fake_verb verb;
    int number;
    const char *bytes;
    size_t len; /* 0: strlen(bytes) */
};

/* A server that only listens and accepts in the backlog needs no script: fake_start with no steps. */
struct fake_server;

struct fake_server *fake_start(const struct fake_step *steps, size_t count);
int fake_port(const struct fake_server *fake);

/* Waits for the script to end: the bytes received by all connections, in order. Valid until fake_stop. */
const char *fake_finish(struct fake_server *fake, size_t *len);

/* How often this text is among them; waits for the same. */
unsigned fake_count(struct fake_server *fake, const char *text);

void fake_stop(struct fake_server *fake);

#endif
