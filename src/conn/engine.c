/* SPDX-License-Identifier: MIT
 * Which engine answers on a connection. The rights of a user may differ by verb. A proxy hangs up on all verbs alike.
 */
#include "conn/engine.h"

#define HUNG_UP_MOST 6

/* The decision that tried the module may have passed its deadline, so that its answer was dropped. Then try another. */
#define TRY_AGAIN_AFTER 1000

struct steady__engines steady__engine_reconnected(const struct steady__engines *before) {
    struct steady__engines engines = {.hung_up = before->hung_up, .skip = before->skip};
    if (steady__engine_is_trying(before)) {
        if (engines.hung_up < HUNG_UP_MOST) engines.hung_up++;
        engines.skip = (1U << engines.hung_up) - 1;
    }
    if (engines.skip == 0) return engines;
    engines.skip--;
    for (int verb = 0; verb < STEADY__VERBS; verb++)
        engines.verbs[verb].engine_state = STEADY__ENGINE_SKIPPED;
    return engines;
}

bool steady__engine_asks_module(struct steady__engines *engines, enum steady__verb verb, enum steady_engine engine) {
    if (engine != STEADY_ENGINE_AUTO) return engine == STEADY_ENGINE_MODULE;
    switch (engines->verbs[verb].engine_state) {
    case STEADY__ENGINE_MODULE: return true;
    case STEADY__ENGINE_SKIPPED:
    case STEADY__ENGINE_SCRIPT: return false;
    case STEADY__ENGINE_TRYING:
        if (engines->verbs[verb].sent_while_trying++ < TRY_AGAIN_AFTER) return false;
        break;
    case STEADY__ENGINE_UNTRIED: break;
    }
    engines->verbs[verb].engine_state = STEADY__ENGINE_TRYING;
    engines->verbs[verb].sent_while_trying = 0;
    return true;
}

bool steady__engine_switch_to_module(struct steady__engines *engines, enum steady__verb verb,
                                     enum steady_engine engine) {
    if (engine != STEADY_ENGINE_AUTO || engines->verbs[verb].engine_state == STEADY__ENGINE_SCRIPT) return false;
    if (engines->verbs[verb].engine_state != STEADY__ENGINE_MODULE)
        engines->verbs[verb].engine_state = STEADY__ENGINE_TRYING;
    return true;
}

void steady__engine_settle(struct steady__engines *engines, enum steady__verb verb, bool module) {
    engines->verbs[verb].engine_state = module ? STEADY__ENGINE_MODULE : STEADY__ENGINE_SCRIPT;
    engines->hung_up = 0;
}

void steady__engine_no_module(struct steady__engines *engines) {
    for (int verb = 0; verb < STEADY__VERBS; verb++)
        steady__engine_settle(engines, (enum steady__verb)verb, false);
}

void steady__engine_not_answered(struct steady__engines *engines) {
    for (int verb = 0; verb < STEADY__VERBS; verb++)
        if (engines->verbs[verb].engine_state == STEADY__ENGINE_TRYING)
            engines->verbs[verb].engine_state = STEADY__ENGINE_UNTRIED;
}

bool steady__engine_is_trying(const struct steady__engines *engines) {
    for (int verb = 0; verb < STEADY__VERBS; verb++)
        if (engines->verbs[verb].engine_state == STEADY__ENGINE_TRYING) return true;
    return false;
}

bool steady__engine_is_settled(const struct steady__engines *engines) {
    for (int verb = 0; verb < STEADY__VERBS; verb++)
        if (engines->verbs[verb].engine_state >= STEADY__ENGINE_MODULE) return engines->hung_up == 0;
    return false;
}
