/* SPDX-License-Identifier: MIT
 * A mapped file of any content: it is refused, or decisions on it end, and say what they may. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steady.h"

#define BUCKETS 64

/* A good file, with what the fuzzer says put over it from a place it chooses: 16-bit little-endian, in 8 bytes. */
static void make_file(const char *path, const char *url, const uint8_t *bytes, size_t len) {
    const steady_store_options options = {.buckets = BUCKETS};
    steady_store *store = NULL;
    unlink(path);
    if (len >= 3 && bytes[0] % 4 != 0) {
        if (steady_store_open(&store, url, &options, NULL) != 0) abort();
        steady_store_close(&store);
    }
    const int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0) abort();
    const size_t at = len >= 3 ? 8 * (size_t)(bytes[1] | bytes[2] << 8) % 8192 : 0;
    const size_t skip = len >= 3 ? 3 : 0;
    if (pwrite(fd, bytes + skip, len - skip, (off_t)at) != (ssize_t)(len - skip)) abort();
    close(fd);
}

static void decide(steady_store *store) {
    const steady_limit limit = {10, STEADY_SECOND, 3, STEADY_SECOND};
    steady_throttler *throttler = NULL;
    if (steady_throttler_new(&throttler, store, &limit, NULL, NULL) != 0) abort();
    for (int i = 0; i < 2 * BUCKETS; i++) {
        steady_result r;
        const int error = i % 16 == 9  ? steady_reset_sync(throttler, &i, sizeof i, &r)
                          : i % 4 == 3 ? steady_peek_sync(throttler, &i, sizeof i, &r)
                                       : steady_consume_sync(throttler, &i, sizeof i, i % 12 - 1, &r);
        if (error == 0 && (r.level < 0 || r.until_next_drop < 0 || r.blocked_for < 0 || r.retry_after < -1)) abort();
        if (strcmp(steady_error_name(error), "?") == 0) abort();
    }
    steady_throttler_free(&throttler);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    char path[64], url[80];
    steady_store *store = NULL;
    snprintf(path, sizeof path, "/dev/shm/steady-fuzz-%d", (int)getpid());
    snprintf(url, sizeof url, "file:%s", path);
    make_file(path, url, bytes, len);
    if (steady_store_open(&store, url, NULL, NULL) == 0) decide(store);
    steady_store_close(&store);
    unlink(path);
    return 0;
}
