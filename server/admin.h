/* SPDX-License-Identifier: MIT
 * The admin socket: reload, reset, top keys, the dashboard. */
#ifndef STEADY_SERVER_ADMIN_H
#define STEADY_SERVER_ADMIN_H

#include "http.h"

/* Opens it on the first worker. NULL on success, otherwise the reason. */
const char *admin_open(struct server *server);

/* POST /admin/explain: what the daemon would answer to a request now, and why. It changes and counts nothing. */
void admin_explain(struct exchange *exchange, const struct http_request *request);

/* Answers a request to the admin socket. False: the path is one of all ports, and the request may ask there. */
bool admin_handle(struct exchange *exchange, const struct http_request *request);

#endif
