/* SPDX-License-Identifier: MIT
 * Whether the server of a link is a primary, as far as ROLE, READONLY and the lack of it tell. */
#ifndef STEADY__ROLE_H
#define STEADY__ROLE_H

#include <stdbool.h>

#include "handshake.h"

struct steady__role_state {
    enum steady__role wanted; /* ANY: the server is asked only after a READONLY */
    bool suspect;             /* the last server met was no primary */
    bool confirmed;           /* this one has said that it is */
    bool contradicted;        /* one that had said so said READONLY */
    steady_us since;          /* of this connection */
};

/* A server that goes without READONLY for so long is a primary, whatever it says. */
#define STEADY__ROLE_SUSPECT_FOR STEADY_SECOND

/* What ROLE has to say on a new connection. */
static inline enum steady__role steady__role_expected(const struct steady__role_state *role) {
    const bool asks = role->suspect && role->wanted == STEADY__ROLE_ANY;
    return asks ? STEADY__ROLE_PRIMARY : role->wanted;
}

/* ROLE has said it. Who was no primary nevertheless is not believed a second time: it may be a proxy that speaks. */
static inline void steady__role_confirmed(struct steady__role_state *role) {
    role->confirmed = true;
    if (!role->contradicted) role->suspect = false;
}

/* READONLY. False: that had been to be expected. */
static inline bool steady__role_contradicted(struct steady__role_state *role, steady_us now) {
    const bool news = !role->suspect;
    if (role->confirmed && now - role->since < STEADY__ROLE_SUSPECT_FOR) role->contradicted = true;
    role->suspect = true;
    return news;
}

/* It has answered as a primary might. False: it is in doubt still. */
static inline bool steady__role_not_contradicted(struct steady__role_state *role, steady_us now) {
    if (role->suspect && now - role->since >= STEADY__ROLE_SUSPECT_FOR) role->suspect = role->contradicted = false;
    return !role->suspect;
}

#endif
