/* SPDX-License-Identifier: MIT
 * Which engine answers on a connection: the command of the module or the script, for each verb. */
#ifndef STEADY__ENGINE_H
#define STEADY__ENGINE_H

#include "core/bucket.h"
#include "steady.h"

enum steady__engine_state {
    STEADY__ENGINE_UNTRIED, /* the next decision is sent to the module */
    STEADY__ENGINE_TRYING,  /* a decision was sent to the module; others go to the scripts until it is answered */
    STEADY__ENGINE_SKIPPED, /* the module is not tried: see steady__engine_reconnected */
    STEADY__ENGINE_MODULE,
    STEADY__ENGINE_SCRIPT,
};

/* The engines of a connection. All zero for a new one. */
struct steady__engines {
    struct {
        enum steady__engine_state engine_state;
        unsigned sent_while_trying; /* decisions sent to the scripts since it was tried */
        uint32_t loads;             /* SCRIPT LOADs sent */
        bool loading;               /* a SCRIPT LOAD is queued */
    } verbs[STEADY__VERBS];         /* by enum steady__verb */
    unsigned hung_up;               /* connections lost in a row while TRYING */
    unsigned skip;    /* further connections on which the module is not tried: the back-off after hung_up */
    uint64_t session; /* the number of this connection; 0: it has none yet. A give-back is sent only on the
                         connection that took the drops: see coordinator.c */
};

/* The engines of the next connection. A proxy may hang up on an unknown command. So after a connection that was lost
 * while TRYING, the next one does not try the module, after the second such loss three do not, then seven, and so on.
 */
struct steady__engines steady__engine_reconnected(const struct steady__engines *before);

/* Whether to send the next decision to the module. */
bool steady__engine_asks_module(struct steady__engines *engines, enum steady__verb verb, enum steady_engine engine);

/* The user may not run scripts. Whether to send the decision to the module instead. */
bool steady__engine_switch_to_module(struct steady__engines *engines, enum steady__verb verb,
                                     enum steady_engine engine);

/* Note the result of an answer: this engine works for this verb; the server has no module; nothing is known. */
void steady__engine_settle(struct steady__engines *engines, enum steady__verb verb, bool module);
void steady__engine_no_module(struct steady__engines *engines);
void steady__engine_not_answered(struct steady__engines *engines);

/* Whether a decision to the module is unanswered. A connection lost now may be lost because of it. */
bool steady__engine_is_trying(const struct steady__engines *engines);

/* Whether the engine of any verb is known. */
bool steady__engine_is_settled(const struct steady__engines *engines);

#endif
