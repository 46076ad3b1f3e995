/* SPDX-License-Identifier: MIT
 * A store that decides nothing. */
#include "capture.h"

#include <stdlib.h>

#include "src/redis/command.h"

struct capture {
    steady_store head;
    struct steady__call call; /* the last one */
};

static struct capture *capture_of(steady_store *store) { return (struct capture *)store; }

static int capture_submit(steady_store *store, const struct steady__call *call, uint64_t *id) {
    capture_of(store)->call = *call;
    *id = 1;
    return 0;
}

static bool capture_cancel(steady_store *store, uint64_t id) {
    (void)store;
    (void)id;
    return false;
}

static void capture_decide(steady_store *store, const struct steady__call *call, steady_result *result) {
    (void)store;
    (void)call;
    *result = (steady_result){.error = STEADY_UNSUPPORTED};
}

static void capture_stats(const steady_store *store, steady_stats *stats) {
    (void)store;
    (void)stats;
}

static void capture_last_error(const steady_store *store, steady_message *message) {
    (void)store;
    (void)message;
}

static void capture_close(steady_store *store) { (void)store; }

static void capture_free(steady_store *store) { free(store); }

static const struct steady__store_class capture_class = {.name = "capture",
                                                         .prepare = steady__command_encode_limit,
                                                         .submit = capture_submit,
                                                         .cancel = capture_cancel,
                                                         .decide = capture_decide,
                                                         .stats = capture_stats,
                                                         .last_error = capture_last_error,
                                                         .close = capture_close,
                                                         .free = capture_free};

steady_store *capture_open(void) {
    static const steady_store_options defaults;
    struct capture *capture = calloc(1, sizeof *capture);
    if (capture == NULL) return NULL;
    steady__store_init(&capture->head, &capture_class, &defaults);
    capture->head.has_loop = true;
    return &capture->head;
}

void capture_begin(steady_store *capture) { capture->thread = pthread_self(); }

struct steady__call capture_take(steady_store *capture) {
    return capture_of(capture)->call;
}
