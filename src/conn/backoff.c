/* SPDX-License-Identifier: MIT
 * Exponential back-off with jitter. */
#include "conn/backoff.h"

#define REFUSED_PAUSE STEADY_SECOND

steady_us steady__backoff_next(struct steady__backoff *backoff) {
    steady_us pause = backoff->next != 0 ? backoff->next : backoff->first;
    if (pause > backoff->last) pause = backoff->last; /* which may have become shorter */
    backoff->next = pause < backoff->last / 2 ? 2 * pause : backoff->last;
    return pause;
}

steady_us steady__jitter(const struct steady__net *net, steady_us most) {
    return (steady_us)(net->random(net) % (uint64_t)(most + 1));
}

steady_us steady__jittered(const struct steady__net *net, steady_us pause) {
    return pause / 2 + steady__jitter(net, pause / 2);
}

steady_us steady__reconnect_pause(struct steady__backoff *backoff, const struct steady__net *net, bool refused) {
    if (refused) return REFUSED_PAUSE + steady__jitter(net, backoff->last);
    return steady__jittered(net, steady__backoff_next(backoff));
}
