/* SPDX-License-Identifier: MIT
 * Patterns with `*`, and paths in their normal form. */
#ifndef STEADY_RULES_PATTERN_H
#define STEADY_RULES_PATTERN_H

#include "rules.h"

/* `*` matches any bytes, also none. Every other byte matches itself; with fold, in either case of ASCII. */
bool pattern_matches(const char *pattern, struct rules_text text, bool fold);

/* Writes the path of a request target in its normal form, as a server would understand it: percent-decoded, without
 * query, empty segments, "." and "..". So no other spelling of a path passes a limit. Returns its length, or SIZE_MAX
 * if there is no room, or if the target has no path. */
size_t pattern_normal_path(char *out, size_t size, struct rules_text target);

/* The query of a request target. */
struct rules_text pattern_query(struct rules_text target);

#endif
