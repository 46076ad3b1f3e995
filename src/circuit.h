/* SPDX-License-Identifier: MIT
 * The circuit breaker of a link: for how long a server in trouble is left alone, and who asks it next. */
#ifndef STEADY__CIRCUIT_H
#define STEADY__CIRCUIT_H

#include "net.h"
#include "reply.h"

struct steady__circuit {
    const struct steady__net *net; /* whose chance it takes */
    bool open;                     /* it is connected, but decides nothing for now */
    steady_us probe_at;            /* while open: when one request is let through */
};

/* What the reply to a decision says of the server: */
enum steady__circuit_event {
    STEADY__CIRCUIT_NOTHING, /* or nothing new */
    STEADY__CIRCUIT_DECIDES,
    STEADY__CIRCUIT_OPENED,  /* it has begun to decide nothing */
    STEADY__CIRCUIT_REFUSES, /* this one, for a reason that is not its key's */
};
enum steady__circuit_event steady__circuit_reply(struct steady__circuit *circuit, const struct steady__reply *reply,
                                                 const steady_loop *loop);

/* Whether a decision has to wait while the circuit is open. One that need not is a probe: the next has to wait for
 * another pause, or for the answer to this one, whichever comes first. */
bool steady__circuit_holds(struct steady__circuit *circuit, const steady_loop *loop);

#endif
