/* SPDX-License-Identifier: MIT
 * What a connection is known to understand. The rights of a user may differ by verb; what hangs up does so on all. */
#include "engine.h"

#define VERBS 3
#define HUNG_UP_MOST 6

/* The one decision that is put to the module may have been given up, so that its answer was heard by nobody; another
 * has its turn then. */
#define TRY_AGAIN_AFTER 1000

struct steady__dialect steady__dialect_anew(const struct steady__dialect *before) {
    struct steady__dialect dialect = {.hung_up = before->hung_up, .spared = before->spared};
    if (steady__dialect_in_question(before)) {
        if (dialect.hung_up < HUNG_UP_MOST) dialect.hung_up++;
        dialect.spared = (1U << dialect.hung_up) - 1;
    }
    if (dialect.spared == 0) return dialect;
    dialect.spared--;
    for (int verb = 0; verb < VERBS; verb++)
        dialect.verbs[verb].fluency = STEADY__FLUENCY_SPARED;
    return dialect;
}

bool steady__dialect_module(struct steady__dialect *dialect, enum steady__verb verb, enum steady_engine engine) {
    if (engine != STEADY_ENGINE_AUTO) return engine == STEADY_ENGINE_MODULE;
    switch (dialect->verbs[verb].fluency) {
    case STEADY__FLUENCY_MODULE: return true;
    case STEADY__FLUENCY_SPARED:
    case STEADY__FLUENCY_SCRIPT: return false;
    case STEADY__FLUENCY_TRYING:
        if (dialect->verbs[verb].since++ < TRY_AGAIN_AFTER) return false;
        break;
    case STEADY__FLUENCY_UNTRIED: break;
    }
    dialect->verbs[verb].fluency = STEADY__FLUENCY_TRYING;
    dialect->verbs[verb].since = 0;
    return true;
}

bool steady__dialect_turn(struct steady__dialect *dialect, enum steady__verb verb, enum steady_engine engine) {
    if (engine != STEADY_ENGINE_AUTO || dialect->verbs[verb].fluency == STEADY__FLUENCY_SCRIPT) return false;
    if (dialect->verbs[verb].fluency != STEADY__FLUENCY_MODULE) dialect->verbs[verb].fluency = STEADY__FLUENCY_TRYING;
    return true;
}

void steady__dialect_settle(struct steady__dialect *dialect, enum steady__verb verb, bool module) {
    dialect->verbs[verb].fluency = module ? STEADY__FLUENCY_MODULE : STEADY__FLUENCY_SCRIPT;
    dialect->hung_up = 0;
}

void steady__dialect_without_module(struct steady__dialect *dialect) {
    for (int verb = 0; verb < VERBS; verb++)
        steady__dialect_settle(dialect, (enum steady__verb)verb, false);
}

void steady__dialect_nothing_learnt(struct steady__dialect *dialect) {
    for (int verb = 0; verb < VERBS; verb++)
        if (dialect->verbs[verb].fluency == STEADY__FLUENCY_TRYING)
            dialect->verbs[verb].fluency = STEADY__FLUENCY_UNTRIED;
}

bool steady__dialect_in_question(const struct steady__dialect *dialect) {
    for (int verb = 0; verb < VERBS; verb++)
        if (dialect->verbs[verb].fluency == STEADY__FLUENCY_TRYING) return true;
    return false;
}

bool steady__dialect_is_settled(const struct steady__dialect *dialect) {
    for (int verb = 0; verb < VERBS; verb++)
        if (dialect->verbs[verb].fluency >= STEADY__FLUENCY_MODULE) return dialect->hung_up == 0;
    return false;
}
