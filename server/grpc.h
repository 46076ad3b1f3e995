/* SPDX-License-Identifier: MIT
 * The gRPC services: Envoy's rate limit service v3, and grpc.health.v1 Check. */
#ifndef STEADY_SERVER_GRPC_H
#define STEADY_SERVER_GRPC_H

#include "http.h"

void grpc_handle(struct exchange *exchange, const struct http_request *request);

#endif
