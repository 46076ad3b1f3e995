/* SPDX-License-Identifier: MIT
 * What a connection is known to understand: for each verb the module's command, or only the script. */
#ifndef STEADY__ENGINE_H
#define STEADY__ENGINE_H

#include "bucket.h"
#include "steady.h"

enum steady__engine_state {
    STEADY__ENGINE_UNTRIED, /* the next decision is put to the module */
    STEADY__ENGINE_TRYING,  /* one is; those sent before it is answered go to the scripts */
    STEADY__ENGINE_SPARED,  /* it is not to be tried without need: see steady__engine_reconnected */
    STEADY__ENGINE_MODULE,
    STEADY__ENGINE_SCRIPT,
};

/* Of a connection; a new one is zero. */
struct steady__engines {
    struct {
        enum steady__engine_state engine_state;
        unsigned since; /* decisions sent since one was put to the module; while TRYING */
        uint32_t loads; /* SCRIPT LOADs sent */
        bool loading;   /* one is about to be */
    } verbs[3];         /* by enum steady__verb */
    unsigned hung_up;   /* connections lost over the question, in a row */
    unsigned spared;    /* connections to come that are spared it */
};

/* Of the connection that comes after one with this dialect. A proxy may hang up on who says what it does not know, so
 * after a connection that was lost over the question one is spared it, after the next such one three, then seven, and
 * so on. */
struct steady__engines steady__engine_reconnected(const struct steady__engines *before);

/* Whether the next decision is to be put to the module. */
bool steady__engine_asks_module(struct steady__engines *engines, enum steady__verb verb, enum steady_engine engine);

/* The scripts are forbidden: whether the module may be asked instead. */
bool steady__engine_switch_to_module(struct steady__engines *engines, enum steady__verb verb,
                                     enum steady_engine engine);

/* What an answer has shown: the module's command works, or not for us; there is no module; nothing. */
void steady__engine_settle(struct steady__engines *engines, enum steady__verb verb, bool module);
void steady__engine_no_module(struct steady__engines *engines);
void steady__engine_not_answered(struct steady__engines *engines);

/* Whether a connection that is lost now may have been lost over the question. */
bool steady__engine_is_trying(const struct steady__engines *engines);

/* Whether it was answered, for any verb. */
bool steady__engine_is_settled(const struct steady__engines *engines);

#endif
