/* SPDX-License-Identifier: MIT
 * Steady on libuv: twelve decisions in a row. The answer to each starts the next.
 * cc uv.c $(pkg-config --cflags --libs steady) -luv && ./a.out [URL] */
#include <stdio.h>
#include <stdlib.h>
#include <steady.h>
#include <steady/uv.h>

struct app {
    steady_store *store;
    steady_throttler *throttler;
    int asked;
    int verdicts;
};

static void answered(const steady_result *result, void *data);

static void ask(struct app *app) {
    const int error = steady_consume(app->throttler, "user:42", 7, 1, answered, app);
    if (error == 0) {
        app->asked++;
        return;
    }
    fprintf(stderr, "not asked: %s\n", steady_error_text(error));
    steady_store_close(&app->store);
}

static void answered(const steady_result *result, void *data) {
    struct app *app = data;
    app->verdicts += result->error == 0;
    if (result->error != 0)
        printf("no answer: %s\n", steady_error_text(result->error));
    else if (result->success)
        printf("allowed, level %lld\n", (long long)result->level);
    else
        printf("denied, retry in %lld ms\n", (long long)(result->retry_after / STEADY_MILLISECOND));
    if (app->asked < 12)
        ask(app);
    else
        steady_store_close(&app->store); /* uv_run returns, because no watch is left */
}

int main(int argc, char **argv) {
    const char *url = argc > 1 ? argv[1] : getenv("REDIS_URL"); /* neither: the embedded store */
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = 500 * STEADY_MILLISECOND};
    struct app app = {NULL, NULL, 0, 0};
    steady_message why;
    const steady_loop loop = steady_uv_loop(uv_default_loop());
    const steady_store_options options = {.loop = &loop};

    int error = steady_store_open(&app.store, url, &options, &why);
    if (error == 0) error = steady_throttler_new(&app.throttler, app.store, &limit, NULL, &why);
    if (error == 0)
        ask(&app);
    else
        fprintf(stderr, "%s\n", why.text);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);

    steady_throttler_free(&app.throttler);
    steady_store_close(&app.store);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT); /* libuv closes handles in the loop, so run it once more */
    uv_loop_close(uv_default_loop());
    return app.verdicts > 0 ? 0 : 1;
}
