/* SPDX-License-Identifier: MIT
 * The rules of a replay: of a file, or of --limit and --key. And the fields of the log that they look at. */
#ifndef STEADY_REPLAY_SETUP_H
#define STEADY_REPLAY_SETUP_H

#include "rules/rules.h"

/* Names of fields. Empty: all zero. */
struct setup_fields {
    const char **names;
    size_t n;
};

/* The rules of one limit without a match. rate: NULL: there is no limit, only keys. key: a key of a rules file, in
 * which a part may also be a field of the log, such as `.user.id`. A request without such a field does not count.
 * bare: gets the fields that are named without a dot; they may be a mistake, so the log has to have them. */
struct rules *setup_rules(const char *rate, const char *key, struct setup_fields *bare, struct rules_error *error);

/* Adds the names of the fields that the rules look at. False: out of memory. */
bool setup_add_fields(struct setup_fields *fields, const struct rules *rules);

#endif
