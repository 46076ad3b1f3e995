/* SPDX-License-Identifier: MIT
 * Steady without a loop: each call blocks until its answer. It sends twelve messages, and sleeps while it is denied.
 * cc blocking.c $(pkg-config --cflags --libs steady) && ./a.out [URL] */
#include <stdio.h>
#include <stdlib.h>
#include <steady.h>
#include <time.h>

static void sleep_for(steady_us us) {
    const struct timespec time = {(time_t)(us / STEADY_SECOND), (long)(us % STEADY_SECOND) * 1000};
    nanosleep(&time, NULL);
}

/* Returns 0 when the drop is in the bucket, or an error. */
static int wait_for_turn(steady_throttler *throttler) {
    steady_result result;
    for (;;) {
        const int error = steady_consume_sync(throttler, "mailer", 6, 1, &result);
        if (error != 0 || result.success) return error;
        sleep_for(result.retry_after);
    }
}

int main(int argc, char **argv) {
    const char *url = argc > 1 ? argv[1] : getenv("REDIS_URL"); /* neither: the embedded store */
    steady_store *store = NULL;
    steady_throttler *throttler = NULL;
    steady_limit limit = {.block_duration = 0};
    steady_message why;

    int error = steady_limit_parse(&limit, "5/500ms", &why);
    if (error == 0) error = steady_store_open(&store, url, NULL, &why);
    if (error == 0) error = steady_throttler_new(&throttler, store, &limit, NULL, &why);
    if (error != 0) fprintf(stderr, "%s\n", why.text);

    for (int i = 1; error == 0 && i <= 12; i++) {
        error = wait_for_turn(throttler);
        if (error == 0) {
            printf("message %d sent\n", i);
        } else {
            steady_store_last_error(store, &why);
            fprintf(stderr, "%s: %s\n", steady_error_text(error), why.text);
        }
    }
    steady_throttler_free(&throttler);
    steady_store_close(&store);
    return error == 0 ? 0 : 1;
}
