/* SPDX-License-Identifier: MIT
 * The circuit breaker of a connection. It opens when the server answers LOADING, BUSY or MASTERDOWN. While it is open,
 * decisions fail at once, except one probe in each pause. */
#ifndef STEADY__CIRCUIT_H
#define STEADY__CIRCUIT_H

#include "conn/net.h"
#include "conn/reply.h"

struct steady__circuit {
    const struct steady__net *net; /* for random numbers */
    bool open;                     /* the server is connected, but makes no decisions for now */
    steady_us probe_at;            /* while open: the time of the next probe */
};

/* The state of the server that a reply to a decision shows. */
enum steady__circuit_event {
    STEADY__CIRCUIT_NOTHING, /* nothing, or nothing new */
    STEADY__CIRCUIT_DECIDES, /* the server makes decisions */
    STEADY__CIRCUIT_OPENED,  /* the server has just stopped making decisions */
    STEADY__CIRCUIT_REFUSES, /* the server refuses this decision, for a reason that is not its key */
};
/* Updates the circuit with the reply to a decision. */
enum steady__circuit_event steady__circuit_reply(struct steady__circuit *circuit, const struct steady__reply *reply,
                                                 const steady_loop *loop);

/* Whether the open circuit holds a decision back. If it does not, the decision is a probe: further decisions are held
 * back until the next pause is over, or until the probe is answered and closes the circuit. */
bool steady__circuit_holds(struct steady__circuit *circuit, const steady_loop *loop);

#endif
