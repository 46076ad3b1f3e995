/* SPDX-License-Identifier: MIT
 * A worker of the daemon without threads and sockets, for fuzzing: clients get their bytes from the fuzzer, and their
 * answers stay in `out`. */
#ifndef STEADY_FUZZ_SERVE_RIG_H
#define STEADY_FUZZ_SERVE_RIG_H

#include <stdlib.h>
#include <string.h>

#include "server/client.h"
#include "server/worker.h"

static const char serve_rules[] =
    "limits:\n"
    "  - { name: login, match: { method: POST, path: /login }, rate: 5/min, block: 10m }\n"
    "  - { name: burst, match: { path: '/api/*' }, key: header:x-key, rate: 20/s }\n"
    "  - { name: daily, match: { path: '/api/*' }, key: hash:cookie:a+query:q+path+host, rate: 10/day,\n"
    "      tiers: { header: x-plan, trusted_header: true, pro: 100/day }, cost: header:x-cost, missing: refuse }\n"
    "  - { name: line, match: { path: /line }, rate: 1/s, max_ahead: 1ms }\n"
    "  - { name: newer, key: ip/48, rate: 30/min, mode: shadow }\n"
    "  - { name: envoy, match: { descriptor: { a: '*' } }, key: descriptor:a, rate: 3/min, cost: after }\n";

static struct server serve_server;
static struct worker *serve_worker;

#define SERVE_MUST(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) abort();                                                                                     \
    } while (0)

static void serve_begin(void) {
    struct rules_error error;
    steady_message why;
    if (serve_worker != NULL) return;
    serve_worker = calloc(1, sizeof *serve_worker);
    SERVE_MUST(serve_worker != NULL && worker_open(serve_worker, &serve_server, 0) == NULL);
    struct rules *rules = rules_read_text("fuzz", serve_rules, sizeof serve_rules - 1, &error);
    SERVE_MUST(rules != NULL);
    serve_server.rules = shared_rules_new(rules);
    serve_server.workers = serve_worker;
    serve_server.n_workers = 1;
    serve_server.log_fd = -1;
    serve_server.options.max_connections = 100;
    uv_rwlock_init(&serve_server.rules_lock);
    SERVE_MUST(steady_store_open(&serve_server.embedded, "memory:", NULL, &why) == 0);
    serve_worker->store = serve_server.embedded;
    serve_worker->blocking = true;
    serve_worker->throttlers = throttlers_new(serve_worker->store, STEADY_ALLOW, 0);
    serve_worker->unnamed = metrics_of(&serve_worker->metrics, "");
    serve_worker->set = ruleset_new(serve_server.rules, serve_worker->store, &serve_worker->metrics, &why);
    SERVE_MUST(serve_worker->set != NULL && serve_worker->throttlers != NULL && serve_worker->unnamed != NULL);
}

/* A client that is connected by a Unix socket, as far as the protocols see. */
static struct client *serve_client(const struct protocol *protocol) {
    struct client *client = calloc(1, sizeof *client);
    SERVE_MUST(client != NULL);
    client->worker = serve_worker;
    client->protocol = protocol;
    client->is_dirty = true; /* so nothing is written, and `out` keeps the answers */
    client->paused = true;
    uv_pipe_init(&serve_worker->loop, &client->pipe, 0);
    client->handle.data = client;
    atomic_fetch_add(&serve_server.connections, 1);
    metrics_add(&serve_worker->metrics.connections[protocol->counted_as], 1);
    return client;
}

/* Gives it the bytes in two pieces, as client.c does. */
static void serve_feed(struct client *client, const uint8_t *bytes, size_t len, size_t first) {
    for (int piece = 0; piece < 2 && client->condition == CLIENT_OPEN; piece++) {
        if (piece == 0)
            buffer_add(&client->in, bytes, first);
        else
            buffer_add(&client->in, bytes + first, len - first);
        if (client->in.len == 0) continue;
        const size_t have = client->in.len;
        const ptrdiff_t used = client->protocol->read(client, client->in.bytes, have);
        SERVE_MUST(used >= -1 && used <= (ptrdiff_t)have);
        if (used < 0) break;
        if (client->condition == CLIENT_OPEN) buffer_remove(&client->in, (size_t)used);
    }
}

static void serve_end(struct client *client) {
    client_close(client);
    for (int i = 0; i < 2; i++)
        uv_run(&serve_worker->loop, UV_RUN_NOWAIT);
}

#endif
