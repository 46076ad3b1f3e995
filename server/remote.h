/* SPDX-License-Identifier: MIT
 * A client of the admin socket, for the commands `steady top` and `steady admin`. It blocks. */
#ifndef STEADY_SERVER_REMOTE_H
#define STEADY_SERVER_REMOTE_H

#include <jansson.h>
#include <stdbool.h>

struct remote {
    char path[108]; /* of a Unix socket; "": TCP */
    char host[256], port[16];
    char token[65];
    char why[300]; /* after a failure: the reason, for the user */
};

/* unix:/path, host:port, or the address of the dashboard with its token. NULL: that of STEADY_ADMIN. A token that is
 * not in the address is that of STEADY_ADMIN_TOKEN. */
bool remote_read(struct remote *remote, const char *address);

/* The answer to GET, or to POST if there is a body. NULL: remote->why says why. Free it with json_decref. */
json_t *remote_ask(struct remote *remote, const char *path, json_t *body);

#endif
