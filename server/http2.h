/* SPDX-License-Identifier: MIT
 * HTTP/2 on a connection (RFC 9113), by libnghttp2, and gRPC over it. */
#ifndef STEADY_SERVER_HTTP2_H
#define STEADY_SERVER_HTTP2_H

#include "http.h"

/* Status codes of gRPC. */
enum grpc_status {
    GRPC_OK = 0,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14
};

/* Sends the answer of an exchange that is a stream. The exchange is gone after the call. */
void http2_respond(struct exchange *exchange, const struct http_response *response);

/* The same for a call of gRPC. `message` is sent if the status is GRPC_OK; otherwise `text` says why. */
void http2_respond_grpc(struct exchange *exchange, enum grpc_status status, const char *text,
                        struct rules_text message);

#endif
