/* SPDX-License-Identifier: MIT
 * Whether the server of a connection is a primary. ROLE says so; READONLY contradicts; an absence of READONLY for a
 * while confirms. handshake.c sends ROLE and reads its reply. */
#ifndef STEADY__ROLE_H
#define STEADY__ROLE_H

#include <stdbool.h>

#include "conn/handshake.h"

struct steady__role_state {
    enum steady__role wanted; /* ANY: ROLE is asked only after a READONLY */
    bool suspect;             /* the last server was no primary */
    bool confirmed;           /* this server said by ROLE that it is a primary */
    bool contradicted;        /* a server that said so then answered READONLY */
    steady_us since;          /* when this connection was made */
};

/* A suspect server that answers for this long without READONLY is a primary. */
#define STEADY__ROLE_SUSPECT_FOR STEADY_SECOND

/* The role that ROLE must report on a new connection; ANY: do not ask. */
static inline enum steady__role steady__role_expected(const struct steady__role_state *role) {
    const bool asks = role->suspect && role->wanted == STEADY__ROLE_ANY;
    return asks ? STEADY__ROLE_PRIMARY : role->wanted;
}

/* ROLE reported the expected role. After a contradiction the report is not trusted: a proxy may have answered. */
static inline void steady__role_confirmed(struct steady__role_state *role) {
    role->confirmed = true;
    if (!role->contradicted) role->suspect = false;
}

/* The server answered READONLY. False if it was suspect already. */
static inline bool steady__role_contradicted(struct steady__role_state *role, steady_us now) {
    const bool news = !role->suspect;
    if (role->confirmed && now - role->since < STEADY__ROLE_SUSPECT_FOR) role->contradicted = true;
    role->suspect = true;
    return news;
}

/* The server gave an answer that a primary may give. False if it is still suspect. */
static inline bool steady__role_not_contradicted(struct steady__role_state *role, steady_us now) {
    if (role->suspect && now - role->since >= STEADY__ROLE_SUSPECT_FOR) role->suspect = role->contradicted = false;
    return !role->suspect;
}

#endif
