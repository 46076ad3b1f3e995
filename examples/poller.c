/* SPDX-License-Identifier: MIT
 * Steady on the built-in loop, for a program without a loop, with a timer and a descriptor of its own on it.
 *
 * The timer asks for a decision every 20 ms, twelve times. A line on standard input prints what happened so far. SIGINT
 * and SIGTERM end the program.
 *
 * cc poller.c $(pkg-config --cflags --libs steady) && ./a.out [URL] */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <steady.h>
#include <unistd.h>

#define DECISIONS 12
#define EVERY (20 * STEADY_MILLISECOND)

static steady_poller *poller;
static volatile sig_atomic_t quit;

/* A flag alone is not enough: a wait that begins just after the signal would not see it. */
static void on_signal(int number) {
    (void)number;
    quit = 1;
    steady_poller_wake(poller); /* NOLINT(bugprone-signal-handler,cert-sig30-c): it is async-signal-safe */
}

struct app {
    steady_loop loop;
    steady_throttler *throttler;
    void *timer; /* of loop.ops->timer_new */
    void *input; /* of loop.ops->io_new; NULL: standard input has ended */
    int asked, called, verdicts;
};

static void answered(const steady_result *result, void *data) {
    struct app *app = data;
    app->called++;
    app->verdicts += result->error == 0;
    if (result->error != 0)
        printf("no answer: %s\n", steady_error_text(result->error));
    else if (result->success)
        printf("allowed, level %lld\n", (long long)result->level);
    else
        printf("denied, retry in %lld ms\n", (long long)(result->retry_after / STEADY_MILLISECOND));
}

/* A timer fires once, so it is started again. */
static void on_timer(void *arg) {
    struct app *app = arg;
    const int error = steady_consume(app->throttler, "user:42", 7, 1, answered, app);
    if (error != 0) fprintf(stderr, "not asked: %s\n", steady_error_text(error));
    if (error != 0 || app->loop.ops->timer_start(app->timer, EVERY) != 0)
        quit = 1;
    else if (++app->asked == DECISIONS)
        app->loop.ops->timer_stop(app->timer);
}

/* At the end of the input the descriptor stays readable. So it is not watched any more. */
static void on_input(void *arg, int events) {
    struct app *app = arg;
    char line[256];
    (void)events;
    if (read(STDIN_FILENO, line, sizeof line) > 0) {
        printf("asked %d times, with %d verdicts\n", app->asked, app->verdicts);
        return;
    }
    app->loop.ops->io_free(app->input);
    app->input = NULL;
}

/* 0, or an error. */
static int watch(struct app *app) {
    const steady_loop *loop = &app->loop;
    app->timer = loop->ops->timer_new(loop->loop, on_timer, app);
    app->input = loop->ops->io_new(loop->loop, STDIN_FILENO, on_input, app);
    if (app->timer == NULL || app->input == NULL) return STEADY_NO_MEMORY;
    if (loop->ops->io_want(app->input, STEADY_READABLE) != 0) return STEADY_SYSTEM;
    return loop->ops->timer_start(app->timer, 0) == 0 ? 0 : STEADY_SYSTEM;
}

int main(int argc, char **argv) {
    const char *url = argc > 1 ? argv[1] : getenv("REDIS_URL"); /* neither: the embedded store */
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = 500 * STEADY_MILLISECOND};
    struct app app = {.asked = 0};
    steady_store *store = NULL;
    steady_message why = {.text = ""};
    setvbuf(stdout, NULL, _IOLBF, 0); /* a line at a time, into a pipe too */
    if (steady_poller_new(&poller) != 0) return 1;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    app.loop = steady_poller_loop(poller);
    const steady_store_options options = {.loop = &app.loop};

    int error = steady_store_open(&store, url, &options, &why);
    if (error == 0) error = steady_throttler_new(&app.throttler, store, &limit, NULL, &why);
    if (error == 0) error = watch(&app);
    if (error != 0) fprintf(stderr, "%s: %s\n", steady_error_text(error), why.text);
    while (error == 0 && app.called < DECISIONS && !quit && steady_poller_run(poller, -1) >= 0)
        ;
    signal(SIGINT, SIG_DFL); /* before the poller is freed */
    signal(SIGTERM, SIG_DFL);

    if (app.timer != NULL) app.loop.ops->timer_free(app.timer); /* what uses the poller goes before it */
    if (app.input != NULL) app.loop.ops->io_free(app.input);
    steady_throttler_free(&app.throttler);
    steady_store_close(&store);
    steady_poller_free(&poller);
    return app.verdicts > 0 ? 0 : 1;
}
