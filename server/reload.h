/* SPDX-License-Identifier: MIT
 * Reads the rules again: on SIGHUP, by the admin socket, or after a change of a file. */
#ifndef STEADY_SERVER_RELOAD_H
#define STEADY_SERVER_RELOAD_H

#include "server.h"

/* Reads the rules of the options for the first time. NULL on success, otherwise the reason. */
const char *reload_first(struct server *server);

/* Reads the rules again, and gives them to all workers. If they have an error, the old ones stay. NULL on success,
 * otherwise the reason. Both are logged. Call it on the first worker only. */
const char *reload_now(struct server *server);

/* Looks at the files of the last reload once a second, on the loop of the first worker, also if that reload failed. It
 * sees a new device, inode, size or time of change, so also a file that is renamed, or a symbolic link that is set
 * anew. It looks for the patterns of `include` again, so it sees a file that is added or removed. */
void reload_watch(struct server *server);
void reload_stop(struct server *server);

#endif
