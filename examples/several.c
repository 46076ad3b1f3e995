/* SPDX-License-Identifier: MIT
 * Several limits in one call, a place in line, and a reservation: a small gateway to a language model.
 *
 * Each request of a user takes one drop from two limits, 3 at once and 20 an hour. It waits in line for at most two
 * seconds. It also reserves tokens, and settles them with what the model has used.
 *
 * cc several.c $(pkg-config --cflags --libs steady) && ./a.out [URL] */
#include <stdio.h>
#include <stdlib.h>
#include <steady.h>
#include <time.h>

enum { REQUESTS = 6, ESTIMATE = 500, N_PARTS = 3 };

struct gateway {
    steady_store *store;
    steady_throttler *requests, *tokens;
};

static void sleep_for(steady_us us) {
    const struct timespec time = {(time_t)(us / STEADY_SECOND), (long)(us % STEADY_SECOND) * 1000};
    nanosleep(&time, NULL);
}

static int open_gateway(struct gateway *g, const char *url, steady_message *why) {
    const steady_limit per_user[] = {
        {.name = "burst", .max_capacity = 3, .drop_recharge = 200 * STEADY_MILLISECOND},
        {.name = "hour", .max_capacity = 20, .drop_recharge = 3600 * STEADY_SECOND, .drops = 20},
    };
    const steady_limit token_limit = {
        .name = "tokens", .max_capacity = 10000, .drop_recharge = 60 * STEADY_SECOND, .drops = 10000};
    const steady_throttler_options requests = {.prefix = "several:requests:"}, tokens = {.prefix = "several:tokens:"};
    int error = steady_store_open(&g->store, url, NULL, why);
    if (error == 0) error = steady_throttler_new_limits(&g->requests, g->store, per_user, 2, &requests, why);
    if (error == 0) error = steady_throttler_new(&g->tokens, g->store, &token_limit, &tokens, why);
    return error;
}

static void close_gateway(struct gateway *g) {
    steady_throttler_free(&g->requests);
    steady_throttler_free(&g->tokens);
    steady_store_close(&g->store);
}

/* The tokens that the answer took. */
static int64_t ask_the_model(int request) { return 100 + 50 * request; }

/* Settle once. If it fails, do not repeat it: the estimate stays charged and leaks away. */
static int settle(struct gateway *g, steady_reservation *reservation, int64_t used) {
    steady_throttler *const throttlers[] = {g->requests, g->tokens};
    const int64_t actuals[N_PARTS] = {-1, -1, used}; /* -1: the requests stay charged */
    const steady_settlement settlement = {
        .reservation = reservation, .actuals = actuals, .throttlers = throttlers, .n_throttlers = 2};
    steady_result r;
    return steady_settle_sync(&settlement, &r);
}

/* Makes one request of user:42. Returns 0 or an error. */
static int serve(struct gateway *g, int request) {
    /* In one slot of a cluster the call is atomic, and faster. A throttler with several limits puts its key into braces
     * by itself; the other key needs them here. */
    const steady_part parts[] = {
        {.throttler = g->requests, .key = "user:42", .key_len = 7, .amount = 1}, /* two buckets */
        {.throttler = g->tokens, .key = "{user:42}", .key_len = 9, .amount = ESTIMATE},
    };
    steady_part_result each[N_PARTS] = {{0}};
    const steady_how how = {.max_wait = 2 * STEADY_SECOND, .reserve = true, .parts = each, .parts_room = N_PARTS};
    steady_result r;
    int error = steady_consume_all_sync(parts, 2, &how, &r);
    if (error != 0) return error;
    if (!r.success) {
        printf("request %d: denied by %s, retry in %lld ms\n", request, each[r.part].name,
               (long long)(r.retry_after / STEADY_MILLISECOND));
        return 0;
    }
    sleep_for(r.must_wait); /* although the call succeeded */
    const int64_t used = ask_the_model(request);
    printf("request %d: waited %lld ms, used %lld of %d tokens\n", request,
           (long long)(r.must_wait / STEADY_MILLISECOND), (long long)used, ESTIMATE);
    if (r.reservation != NULL) error = settle(g, r.reservation, used); /* NULL: a policy answered */
    steady_reservation_free(&r.reservation);
    return error;
}

int main(int argc, char **argv) {
    const char *url = argc > 1 ? argv[1] : getenv("REDIS_URL"); /* neither: the embedded store */
    struct gateway gateway = {0};
    steady_message why = {.text = ""};

    int error = open_gateway(&gateway, url, &why);
    for (int i = 1; error == 0 && i <= REQUESTS; i++)
        error = serve(&gateway, i);
    if (error != 0) {
        if (why.text[0] == '\0') steady_store_last_error(gateway.store, &why);
        fprintf(stderr, "%s: %s\n", steady_error_text(error), why.text);
    }
    close_gateway(&gateway);
    return error == 0 ? 0 : 1;
}
