/* SPDX-License-Identifier: MIT
 * Steady in a pool of threads: each thread takes jobs and makes blocking calls.
 *
 * A Redis store belongs to one thread, so each thread opens its own; all of them share the buckets in Redis. An
 * embedded store may be shared: its blocking calls may be made from any thread.
 *
 * cc threads.c -pthread $(pkg-config --cflags --libs steady) && ./a.out [URL] */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <steady.h>
#include <string.h>

#define THREADS 4
#define JOBS 40

struct pool {
    const char *url;
    const steady_limit *limit;
    steady_throttler *shared; /* on the embedded store; NULL: each thread opens a store */
    atomic_int next_job;
    atomic_int allowed, denied, failed;
};

/* The limit is for all threads together: 10 jobs of a user at once, and one more in each hour. */
static void do_jobs(struct pool *pool, steady_throttler *throttler) {
    while (atomic_fetch_add(&pool->next_job, 1) < JOBS) {
        steady_result result;
        if (steady_consume_sync(throttler, "user:42", 7, 1, &result) != 0)
            atomic_fetch_add(&pool->failed, 1); /* no verdict: result.error says why */
        else if (result.success)
            atomic_fetch_add(&pool->allowed, 1);
        else
            atomic_fetch_add(&pool->denied, 1);
    }
}

static void *work(void *arg) {
    struct pool *pool = arg;
    steady_store *store = NULL;
    steady_throttler *throttler = NULL;
    steady_message why = {.text = ""};
    if (pool->shared != NULL) {
        do_jobs(pool, pool->shared);
        return NULL;
    }
    if (steady_store_open(&store, pool->url, NULL, &why) == 0 &&
        steady_throttler_new(&throttler, store, pool->limit, NULL, &why) == 0)
        do_jobs(pool, throttler);
    else
        fprintf(stderr, "%s\n", why.text);
    steady_throttler_free(&throttler); /* in the thread that opened the store */
    steady_store_close(&store);
    return NULL;
}

static bool is_embedded(const char *url) {
    return url == NULL || strncmp(url, "memory:", 7) == 0 || strncmp(url, "file:", 5) == 0;
}

int main(int argc, char **argv) {
    const char *url = argc > 1 ? argv[1] : getenv("REDIS_URL"); /* neither: the embedded store */
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = 3600 * STEADY_SECOND};
    struct pool pool = {.url = url, .limit = &limit};
    steady_store *store = NULL;
    steady_message why = {.text = ""};
    pthread_t threads[THREADS];
    int started = 0, error = 0;

    if (is_embedded(url)) {
        error = steady_store_open(&store, url, NULL, &why);
        if (error == 0) error = steady_throttler_new(&pool.shared, store, &limit, NULL, &why);
    }
    if (error != 0) fprintf(stderr, "%s\n", why.text);
    while (error == 0 && started < THREADS && pthread_create(&threads[started], NULL, work, &pool) == 0)
        started++;
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    printf("%d threads: %d jobs allowed, %d denied, %d without a verdict\n", started, atomic_load(&pool.allowed),
           atomic_load(&pool.denied), atomic_load(&pool.failed));

    steady_throttler_free(&pool.shared);
    steady_store_close(&store);
    return atomic_load(&pool.allowed) + atomic_load(&pool.denied) == JOBS ? 0 : 1;
}
