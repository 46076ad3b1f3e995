/* SPDX-License-Identifier: MIT
 * Patterns with `*`, and paths as servers read them. */
#ifndef STEADY_RULES_PATTERN_H
#define STEADY_RULES_PATTERN_H

#include <string.h>

#include "rules.h"

/* `*` matches any bytes, also none. Every other byte matches itself; with fold, in either case of ASCII. */
bool pattern_matches(const char *pattern, struct rules_text text, bool fold);

/* Decodes %XX. *size: the room, and then the length. False: there is no room. */
bool pattern_decode(char *out, size_t *size, struct rules_text text, bool plus_is_space);

/* Replaces \OOO and \C of a quoted string in place. The new length. */
size_t pattern_unescape(char *bytes, size_t len);

/* False: the path is too long. */
bool pattern_read_path(struct rules_path *path, struct rules_text target);

/* True if one reading matches, with or without a slash at its end. So no spelling of a path passes a limit. */
bool pattern_matches_path(const char *pattern, const struct rules_path *path);

/* The first bytes, at most eight, that all patterns begin with. A path that does not begin with them matches none. */
void pattern_path_begins(const char *const *patterns, size_t n, uint64_t *begins, uint64_t *mask);
static inline bool pattern_path_may_begin(const struct rules_path *path, uint64_t begins, uint64_t mask) {
    for (size_t i = 0; i < path->n; i++) {
        uint64_t first;
        memcpy(&first, path->bytes[i], sizeof first);
        if ((first & mask) == begins) return true;
    }
    return false;
}

/* The query of a request target. */
struct rules_text pattern_query(struct rules_text target);

#endif
