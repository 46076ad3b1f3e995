/* SPDX-License-Identifier: MIT
 * Which limits count for a request, and why: for `steady check` and for the admin socket.
 *
 * Both make the same document; docs/reference/explain.md describes it. The daemon adds what the store says. */
#ifndef STEADY_SERVER_EXPLAIN_H
#define STEADY_SERVER_EXPLAIN_H

#include <jansson.h>

#include "question.h"

enum { EXPLAIN_FIELDS_MOST = 100 };

/* A request as a user describes it. */
struct explain {
    struct rules_request request; /* its texts belong to the document that was read */
    struct rules_field fields[EXPLAIN_FIELDS_MOST], entries[EXPLAIN_FIELDS_MOST];
    struct steady__address peer, client;
    bool has_peer;
    char why[300]; /* if it is not valid */
};

/* Reads {"request": "METHOD TARGET", "host": NAME, "ip": ADDRESS, "headers": ["NAME: VALUE", ...], "domain": NAME,
 * "entries": ["KEY=VALUE", ...]}; each may be missing. False: it is not valid, and explain->why says why. */
bool explain_read(struct explain *explain, const json_t *document);

/* Matches the request. The parts of `match` are the limits that a decision asks for, also that of a file of
 * envoyproxy/ratelimit. Returns a new document; its "limits" with a "key" are these parts, in their order. */
json_t *explain_match(struct explain *explain, const struct rules *rules, struct rules_match *match);

/* A time as seconds; below 0: null. */
json_t *explain_seconds(steady_us us);

/* What a request does to a bucket of a question that was only looked at. */
void explain_request(steady_part_result *after, const steady_part_result *before, const struct question_part *part,
                     bool allowed, steady_us max_wait);

/* Adds the state of a limit, and its arithmetic in words. */
void explain_add_state(json_t *to, const struct question_part *part, const steady_part_result *before,
                       const steady_part_result *after, bool allowed);

#endif
