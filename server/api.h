/* SPDX-License-Identifier: MIT
 * Decisions as JSON over HTTP: for any language with an HTTP client. docs/reference/serve.md describes the documents.
 */
#ifndef STEADY_SERVER_API_H
#define STEADY_SERVER_API_H

#include "http.h"

void api_consume(struct exchange *exchange, const struct http_request *request);
void api_peek(struct exchange *exchange, const struct http_request *request);
void api_reserve(struct exchange *exchange, const struct http_request *request);
void api_settle(struct exchange *exchange, const struct http_request *request);

/* POST /json, as envoyproxy/ratelimit has it. */
void api_envoy_json(struct exchange *exchange, const struct http_request *request);

#endif
