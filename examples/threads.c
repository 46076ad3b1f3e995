/* SPDX-License-Identifier: MIT
 * Steady in a pool of threads: each thread takes jobs and makes blocking calls.
 *
 * steady_pool_open makes a store for calls from any thread. A Redis server gets one connection for all threads.
 *
 * cc threads.c -pthread $(pkg-config --cflags --libs steady) && ./a.out [URL] */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <steady.h>

#define THREADS 4
#define JOBS 40

struct jobs {
    steady_throttler *throttler;
    atomic_int next;
    atomic_int allowed, denied, failed;
};

/* The limit is for all threads together: 10 jobs of a user at once, and one more in each hour. */
static void *work(void *arg) {
    struct jobs *jobs = arg;
    while (atomic_fetch_add(&jobs->next, 1) < JOBS) {
        steady_result result;
        if (steady_consume_sync(jobs->throttler, "user:42", 7, 1, &result) != 0)
            atomic_fetch_add(&jobs->failed, 1); /* no verdict: result.error says why */
        else if (result.success)
            atomic_fetch_add(&jobs->allowed, 1);
        else
            atomic_fetch_add(&jobs->denied, 1);
    }
    return NULL;
}

int main(int argc, char **argv) {
    const char *url = argc > 1 ? argv[1] : getenv("REDIS_URL"); /* neither: the embedded store */
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = 3600 * STEADY_SECOND};
    struct jobs jobs = {.throttler = NULL};
    steady_store *store = NULL;
    steady_message why = {.text = ""};
    pthread_t threads[THREADS];
    int started = 0;

    if (steady_pool_open(&store, url, 0, NULL, &why) != 0 ||
        steady_throttler_new(&jobs.throttler, store, &limit, NULL, &why) != 0)
        fprintf(stderr, "%s\n", why.text);
    while (jobs.throttler != NULL && started < THREADS && pthread_create(&threads[started], NULL, work, &jobs) == 0)
        started++;
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    printf("%d threads: %d jobs allowed, %d denied, %d without a verdict\n", started, atomic_load(&jobs.allowed),
           atomic_load(&jobs.denied), atomic_load(&jobs.failed));

    steady_throttler_free(&jobs.throttler);
    steady_store_close(&store);
    return atomic_load(&jobs.allowed) + atomic_load(&jobs.denied) == JOBS ? 0 : 1;
}
