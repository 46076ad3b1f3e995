/* SPDX-License-Identifier: MIT
 * The circuit breaker of a link: for how long a server in trouble is left alone, and who asks it next. */
#include "circuit.h"

#include "loop.h"

#define BACKOFF_FIRST (20 * STEADY_MILLISECOND)
#define BACKOFF_LAST (500 * STEADY_MILLISECOND) /* so that a server is used within a second of coming back */
#define BACKOFF_REFUSED STEADY_SECOND
#define PAUSE (100 * STEADY_MILLISECOND) /* half of it at least: no more than twenty probes a second */

steady_us steady__circuit_jitter(const struct steady__circuit *circuit, steady_us most) {
    return (steady_us)(circuit->net->random(circuit->net) % (uint64_t)(most + 1));
}

static steady_us circuit_jittered(const struct steady__circuit *circuit, steady_us most) {
    return most / 2 + steady__circuit_jitter(circuit, most / 2);
}

steady_us steady__circuit_failed(struct steady__circuit *circuit, bool refused) {
    if (refused) return BACKOFF_REFUSED + steady__circuit_jitter(circuit, BACKOFF_LAST);
    const unsigned doublings = circuit->failures < 5 ? circuit->failures : 5;
    const steady_us nominal = BACKOFF_FIRST << doublings;
    circuit->failures++;
    return circuit_jittered(circuit, nominal < BACKOFF_LAST ? nominal : BACKOFF_LAST);
}

static void circuit_pause(struct steady__circuit *circuit, const steady_loop *loop) {
    circuit->probe_at = steady__loop_now(loop) + circuit_jittered(circuit, PAUSE);
}

enum steady__circuit_event steady__circuit_reply(struct steady__circuit *circuit, const struct steady__reply *reply,
                                                 const steady_loop *loop) {
    const bool error = reply->kind == STEADY__REPLY_ERROR, was_open = circuit->open;
    const enum steady__error_class error_class =
        error ? steady__error_class_of(reply->text, reply->text_len) : STEADY__ERROR_CLASS_OTHER;
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
