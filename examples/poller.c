/* SPDX-License-Identifier: MIT
 * Steady on the built-in loop, for a program that has none: a dozen decisions, each asked for when the one before is
 * answered. SIGINT and SIGTERM end it. cc poller.c $(pkg-config --cflags --libs steady) && ./a.out [URL] */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <steady.h>

static steady_poller *poller;
static volatile sig_atomic_t quit;

/* The flag alone would be missed by a wait that begins just after the signal. */
static void on_signal(int number) {
    (void)number;
    quit = 1;
    steady_poller_wake(poller); /* NOLINT(bugprone-signal-handler,cert-sig30-c): it is async-signal-safe */
}

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
        steady_store_close(&app->store); /* and the loop in main ends */
}

int main(int argc, char **argv) {
    const char *url = argc > 1 ? argv[1] : getenv("REDIS_URL"); /* neither: the embedded store */
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = 500 * STEADY_MILLISECOND};
    struct app app = {NULL, NULL, 0, 0};
    steady_message why;
    if (steady_poller_new(&poller) != 0) return 1;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    const steady_loop loop = steady_poller_loop(poller);
    const steady_store_options options = {.loop = &loop};

    int error = steady_store_open(&app.store, url, &options, &why);
    if (error == 0) error = steady_throttler_new(&app.throttler, app.store, &limit, NULL, &why);
    if (error == 0)
        ask(&app);
    else
        fprintf(stderr, "%s\n", why.text);
    while (error == 0 && app.store != NULL && !quit && steady_poller_run(poller, -1) >= 0)
        ;
    signal(SIGINT, SIG_DFL); /* before the poller is freed */
    signal(SIGTERM, SIG_DFL);

    steady_throttler_free(&app.throttler);
    steady_store_close(&app.store);
    steady_poller_free(&poller);
    return app.verdicts > 0 ? 0 : 1;
}
