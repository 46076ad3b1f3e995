/* SPDX-License-Identifier: MIT
 * The circuit breaker of a connection. */
#include "conn/circuit.h"

#include "conn/backoff.h"
#include "loop/loop.h"

#define PAUSE (100 * STEADY_MILLISECOND) /* at least half of it: at most 20 probes a second */

static void circuit_pause(struct steady__circuit *circuit, const steady_loop *loop) {
    circuit->probe_at = steady__loop_now(loop) + steady__jittered(circuit->net, PAUSE);
}

enum steady__circuit_event steady__circuit_reply(struct steady__circuit *circuit, const struct steady__reply *reply,
                                                 const steady_loop *loop) {
    const bool error = reply->kind == STEADY__REPLY_ERROR, was_open = circuit->open;
    const enum steady__error_class error_class = reply->error_class;
    circuit->open = error_class == STEADY__ERROR_CLASS_BUSY;
    if (!error) return STEADY__CIRCUIT_DECIDES;
    if (circuit->open) circuit_pause(circuit, loop);
    const bool refuses =
        error_class == STEADY__ERROR_CLASS_RETRY_LATER || error_class == STEADY__ERROR_CLASS_NO_PERMISSION;
    if (!refuses && (!circuit->open || was_open)) return STEADY__CIRCUIT_NOTHING;
    return refuses ? STEADY__CIRCUIT_REFUSES : STEADY__CIRCUIT_OPENED;
}

bool steady__circuit_holds(struct steady__circuit *circuit, const steady_loop *loop) {
    if (!circuit->open) return false;
    if (steady__loop_now(loop) < circuit->probe_at) return true;
    circuit_pause(circuit, loop);
    return false;
}
