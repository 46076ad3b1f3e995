/* SPDX-License-Identifier: MIT
 * Whether the server of a link is a primary, as far as ROLE, READONLY and the lack of it tell. */
#ifndef STEADY__ROLE_H
#define STEADY__ROLE_H

#include <stdbool.h>

#include "handshake.h"

struct steady__primacy {
    enum steady__role wanted; /* ANY: the server is asked only after a READONLY */
    bool doubtful;            /* the last server met was no primary */
    bool vouched;             /* this one has said that it is */
    bool belied;              /* one that had said so said READONLY */
    steady_us since;          /* of this connection */
};

/* A server that goes without READONLY for so long is a primary, whatever it says. */
#define STEADY__DOUBT STEADY_SECOND

/* What ROLE has to say on a new connection. */
static inline enum steady__role steady__primacy_role(const struct steady__primacy *primacy) {
    const bool asks = primacy->doubtful && primacy->wanted == STEADY__ROLE_ANY;
    return asks ? STEADY__ROLE_PRIMARY : primacy->wanted;
}

/* ROLE has said it. Who was no primary nevertheless is not believed a second time: it may be a proxy that speaks. */
static inline void steady__primacy_vouched(struct steady__primacy *primacy) {
    primacy->vouched = true;
    if (!primacy->belied) primacy->doubtful = false;
}

/* READONLY. False: that had been to be expected. */
static inline bool steady__primacy_refuted(struct steady__primacy *primacy, steady_us now) {
    const bool news = !primacy->doubtful;
    if (primacy->vouched && now - primacy->since < STEADY__DOUBT) primacy->belied = true;
    primacy->doubtful = true;
    return news;
}

/* It has answered as a primary might. False: it is in doubt still. */
static inline bool steady__primacy_upheld(struct steady__primacy *primacy, steady_us now) {
    if (primacy->doubtful && now - primacy->since >= STEADY__DOUBT) primacy->doubtful = primacy->belied = false;
    return !primacy->doubtful;
}

#endif
