/* SPDX-License-Identifier: MIT
 * Questions out of matches, and answers over HTTP out of results. */
#ifndef STEADY_SERVER_ANSWER_H
#define STEADY_SERVER_ANSWER_H

#include <steady/http.h>

#include "http.h"

/* The limits that match a request, as worker->match has them. The question is valid until the next match. */
void answer_question_of_match(struct question *question, struct worker *worker);

/* One more bucket of a question. Its key is PREFIX{KEY}NAME. False: the key is too long. */
bool answer_add_part(struct question *question, struct worker *worker, const struct question_part *part,
                     struct rules_text key);

/* The deadline that a request names in x-steady-timeout, in us; 0: none. False: it is not valid. */
bool answer_deadline(const struct http_request *request, steady_us *deadline);

/* Status, fields and problem document of a result: docs/reference/serve.md, "Answers". Valid until the next call in
 * this worker. */
struct http_response *answer_make(struct worker *worker, const struct question *question, const steady_result *result);

/* The word for the source of a result: "none" without an answer. */
const char *answer_source(const steady_result *result);

/* Sends a response when the wait of the result is over. If the client goes before, its place is given back. */
void answer_hold(struct exchange *exchange, const struct http_response *response, const steady_result *result);

#endif
