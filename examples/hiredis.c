/* SPDX-License-Identifier: MIT
 * Steady on a hiredis connection of your own, here on libevent. The connection also carries your own commands.
 * cc hiredis.c $(pkg-config --cflags --libs steady-hiredis hiredis) -levent && ./a.out [PORT] */
#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include <hiredis/adapters/libevent.h>
#include <stdio.h>
#include <stdlib.h>
#include <steady.h>
#include <steady/event.h>
#include <steady/hiredis.h>
#include <string.h>

struct app {
    redisAsyncContext *redis;
    steady_store *store;
    steady_throttler *throttler;
    bool has_verdict;
};

static void pong(redisAsyncContext *redis, void *reply, void *data) {
    (void)data;
    if (reply != NULL) printf("our own PING: %s\n", ((redisReply *)reply)->str);
    redisAsyncDisconnect(redis); /* you own the connection */
}

static void answered(const steady_result *result, void *data) {
    struct app *app = data;
    app->has_verdict = result->error == 0;
    if (result->error != 0)
        printf("no answer: %s\n", steady_error_text(result->error));
    else
        printf("%s, level %lld\n", result->success ? "allowed" : "denied", (long long)result->level);
    steady_store_close(&app->store);
    if (result->error == 0) redisAsyncCommand(app->redis, pong, NULL, "PING");
}

/* The port in a URL such as redis://127.0.0.1:6379. Without a port: 6379. */
static int port_of(const char *text) {
    const char *colon = text != NULL ? strrchr(text, ':') : NULL;
    const int port = text == NULL ? 0 : (int)strtol(colon != NULL ? colon + 1 : text, NULL, 10);
    return port > 0 ? port : 6379;
}

int main(int argc, char **argv) {
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = 5 * STEADY_SECOND};
    struct app app = {NULL, NULL, NULL, false};
    struct event_base *base = event_base_new();
    const steady_loop loop = steady_event_loop(base);
    const steady_store_options options = {.loop = &loop};
    steady_message why = {.text = ""};

    app.redis = redisAsyncConnect("127.0.0.1", port_of(argc > 1 ? argv[1] : getenv("REDIS_URL")));
    if (app.redis == NULL || redisLibeventAttach(app.redis, base) != REDIS_OK) return 1;
    int error = steady_store_attach(&app.store, app.redis, &options, &why);
    if (error == 0) error = steady_throttler_new(&app.throttler, app.store, &limit, NULL, &why);
    if (error == 0) error = steady_consume(app.throttler, "user:42", 7, 1, answered, &app);
    if (error == 0)
        event_base_dispatch(base);
    else
        fprintf(stderr, "%s %s\n", steady_error_text(error), why.text);

    steady_throttler_free(&app.throttler);
    steady_store_close(&app.store);
    event_base_free(base);
    return app.has_verdict ? 0 : 1;
}
