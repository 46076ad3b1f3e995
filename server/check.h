/* SPDX-License-Identifier: MIT
 * Forward authentication: a proxy asks whether a request may pass.
 *
 *     /v1/check        200 or 429. For Caddy, Traefik and APISIX: X-Forwarded-Method, -Uri, -Host and -For have the
 *                      original request
 *     /v1/check/envoy  200 or 429. Envoy (ext_authz) appends the original path
 *     /v1/check/403    200 or 403, because nginx understands nothing else. X-Original-Method, X-Original-URI and
 *                      X-Real-IP have the original request. X-Steady-Status of the answer has the true status */
#ifndef STEADY_SERVER_CHECK_H
#define STEADY_SERVER_CHECK_H

#include "http.h"

bool check_is_path(struct rules_text path);
void check_handle(struct exchange *exchange, const struct http_request *request);

/* Whether this target is that of nginx, for which a request that cannot be read must not pass. */
bool check_is_strict(struct rules_text target);
void check_forbid(struct exchange *exchange, int status, const char *title);

#endif
