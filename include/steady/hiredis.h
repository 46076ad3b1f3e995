/* SPDX-License-Identifier: MIT
 * A Redis store on a hiredis context of yours. It is in a library of its own:
 *
 *     cc demo.c $(pkg-config --cflags --libs steady-hiredis hiredis) */
#ifndef STEADY_HIREDIS_H
#define STEADY_HIREDIS_H

#include <steady.h>

#ifdef __cplusplus
extern "C" {
#endif

struct redisAsyncContext;

/* Makes a Redis store on a hiredis context of yours. The context is connecting or connected, speaks RESP2, and is
 * attached to an event loop by an adapter (not by hiredis's poll.h, which reads its own data in the context).
 *   - You keep owning the context. You may send commands on it; you reconnect it, and you free it.
 *   - If it is disconnected or freed, decisions in flight end as STEADY_UNKNOWN, and later ones as STEADY_UNAVAILABLE.
 *   - options->loop is required, for deadlines. It must be the loop of the context.
 *   - hiredis writes to the socket. Version 0.14 uses write(2), so ignore SIGPIPE.
 *   - The ..._sync calls are STEADY_UNSUPPORTED.
 * Returns the errors of steady_store_open. */
STEADY_API int steady_store_attach(steady_store **store, struct redisAsyncContext *context,
                                   const steady_store_options *options, steady_message *why);

#ifdef __cplusplus
}
#endif

#endif
