/* SPDX-License-Identifier: MIT
 * Shared by tests of an embedded store that threads, then processes, use at once. */
#ifndef SHARE_RIG_H
#define SHARE_RIG_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "assertions.h"

/* ThreadSanitizer replaces the 16-byte compare-and-swap by a lock that is private to the process, so it is for threads
 * only. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define TRUE_SWAPS false
#else
#define TRUE_SWAPS true
#endif

#define MOST_WORKERS 40

static char folder[40], path[64], url[80]; /* of the store in a file */

static inline int share_set_up(void **state) {
    (void)state;
    strcpy(folder, "/tmp/steady-share-XXXXXX");
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof path, "%s/store", folder);
    snprintf(url, sizeof url, "file:%s", path);
    return 0;
}

static inline int share_tear_down(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* Memory that processes share. NULL: there is none. */
static inline void *shared_memory(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory != MAP_FAILED ? memory : NULL;
}

static inline int64_t clock_us(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static inline void pause_us(long us) {
    const struct timespec moment = {.tv_nsec = us * 1000};
    nanosleep(&moment, NULL);
}

/* ---- Workers ---- */

typedef void (*job)(void);

static inline void *thread_main(void *arg) {
    (*(job *)arg)();
    return NULL;
}

static inline void run_threads(int workers, job work) {
    pthread_t threads[MOST_WORKERS];
    for (int i = 0; i < workers; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, &work), 0);
    for (int i = 0; i < workers; i++)
        pthread_join(threads[i], NULL);
}

static inline int wait_for(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static inline void run_processes(int workers, job work) {
    pid_t children[MOST_WORKERS];
    for (int i = 0; i < workers; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            work();
            _exit(0);
        }
    }
    for (int i = 0; i < workers; i++)
        assert_int_equal(wait_for(children[i]), 0);
}

#endif
