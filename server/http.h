/* SPDX-License-Identifier: MIT
 * Requests over HTTP, of either version, and their answers. */
#ifndef STEADY_SERVER_HTTP_H
#define STEADY_SERVER_HTTP_H

#include "client.h"

/* What a handler gets. Everything is valid during the call only. */
struct http_request {
    struct rules_text method;
    struct rules_text target; /* as sent: path and query */
    struct rules_text path, query;
    const struct rules_field *fields;
    size_t n_fields;
    size_t head_len;
    struct rules_text body;
};

struct rules_text http_text(const char *text);

/* Sets `path` and `query` from `target`. */
void http_split_target(struct http_request *request);

/* The first field of this name (in any case), and their number. */
size_t http_field(const struct http_request *request, const char *name, struct rules_text *value);

void http_add_field(struct http_response *response, const char *name, struct rules_text value);

/* Sends the answer of an exchange. The exchange is gone after the call. */
void http_respond(struct exchange *exchange, const struct http_response *response);

/* A problem document (RFC 9457). `title` is a sentence. */
void http_problem(struct buffer *body, int status, const char *title);

/* An answer with a problem document. */
void http_respond_problem(struct exchange *exchange, int status, const char *title);

/* An answer with a body of this type. */
void http_respond_body(struct exchange *exchange, int status, const char *type, struct rules_text body);

/* Answers a request, now or later. */
void http_route(struct exchange *exchange, const struct http_request *request);

/* Answers a request that could not be read. */
void http_reject(struct exchange *exchange, struct rules_text target, int status, const char *title);

#endif
